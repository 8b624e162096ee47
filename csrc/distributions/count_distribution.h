// The forecast of any model as one type, which the objectives and the ranker take.
#pragma once

#include <torch/types.h>

#include <concepts>
#include <memory>
#include <optional>
#include <typeinfo>
#include <utility>

#include "count_functions.h"
#include "mixture.h"
#include "negative_binomial.h"
#include "poisson.h"
#include "sampled.h"
#include "site_mixture.h"
#include "zero_inflated.h"

namespace topreach {

using SampleOptions = NegBinSampleOptions;

/// The members that a class needs to be a forecast of counts [..., S].
template <typename D>
concept ForecastOfCounts =
    requires(const D& d, const torch::Tensor& y, const SampleOptions& options) {
      { d.mean() } -> std::convertible_to<torch::Tensor>;
      { d.variance() } -> std::convertible_to<torch::Tensor>;
      { d.sample(int64_t{1}, options) } -> std::convertible_to<torch::Tensor>;
      { d.site_log_prob(y) } -> std::convertible_to<torch::Tensor>;
    };

/// Any forecast of counts. Converts implicitly from every class with the members above; a class may
/// also have the members marked "optional" below, which otherwise follow from the others.
///
///   struct Mine { torch::Tensor mean() const; ... };   // your own distribution
///   topreach::CountDistribution counts = Mine{...};
///   topreach::nll(counts, y).loss.backward();
class CountDistribution {
 public:
  template <typename D>
    requires(ForecastOfCounts<D> && !std::same_as<D, CountDistribution>)
  CountDistribution(D distribution)
      : self_(std::make_shared<const Holder<D>>(std::move(distribution))) {}

  /// Mean of each site, [..., S].
  torch::Tensor mean() const { return self_->mean(); }
  torch::Tensor variance() const { return self_->variance(); }
  /// Draws [M, ..., S], without gradient; a key fixes them.
  torch::Tensor sample(int64_t num_samples, const SampleOptions& options = {}) const {
    return self_->sample(num_samples, options);
  }
  /// log P(y_s) of each site separately, [..., S] or [M, ..., S]; differentiable.
  torch::Tensor site_log_prob(const torch::Tensor& y) const { return self_->site_log_prob(y); }
  /// log P of all sites of a row together, [...] or [M, ...]; cells where y is NaN are left out.
  /// Optional: the sum over sites, which is right where sites are independent.
  torch::Tensor joint_log_prob(const torch::Tensor& y) const { return self_->joint_log_prob(y); }
  /// P(Y_s <= y_s), float64, no gradient. Optional: summed count by count.
  torch::Tensor cdf(const torch::Tensor& y) const { return self_->cdf(y); }
  /// The least value y_s with cdf >= probability, [..., S]. Optional: by bisection on cdf.
  torch::Tensor quantile(double probability) const { return self_->quantile(probability); }
  /// E[y_s / (offset + 1.y)], [..., S], if it can be computed without draws. Optional: absent.
  std::optional<torch::Tensor> expected_ratio(double offset = 0.0) const {
    return self_->expected_ratio(offset);
  }
  /// Whether `expected_ratio` gives a value.
  bool has_expected_ratio() const { return self_->has_expected_ratio(); }
  /// The forecast of the sites `index` [n] alone, [..., n]. Optional: by with_parameters, else absent.
  std::optional<CountDistribution> at_sites(const torch::Tensor& index) const;
  /// Whether draws are whole numbers. Optional: true.
  bool whole_counts() const { return self_->whole_counts(); }
  /// Whether sites are independent of each other. Optional: true.
  bool independent_sites() const { return self_->independent_sites(); }

  /// log P(low_s <= Y_s <= high_s), [..., S], differentiable: the sum of the probabilities of low, low +
  /// 1, ..., high. Cost: site_log_prob (widest interval + 1) times.
  ///
  /// Raises c10::TypeError unless counts are whole and sites independent; c10::ValueError unless low and
  /// high are whole numbers of one shape, 0 <= low <= high (cells where low is NaN give NaN).
  torch::Tensor interval_log_prob(const torch::Tensor& low, const torch::Tensor& high) const;

  /// The distribution itself if it is a D, else null.
  template <typename D>
  const D* get_if() const {
    return self_->type() == typeid(D) ? static_cast<const D*>(self_->address()) : nullptr;
  }

 private:
  struct Interface {
    virtual ~Interface() = default;
    virtual torch::Tensor mean() const = 0;
    virtual torch::Tensor variance() const = 0;
    virtual torch::Tensor sample(int64_t num_samples, const SampleOptions& options) const = 0;
    virtual torch::Tensor site_log_prob(const torch::Tensor& y) const = 0;
    virtual torch::Tensor joint_log_prob(const torch::Tensor& y) const = 0;
    virtual torch::Tensor cdf(const torch::Tensor& y) const = 0;
    virtual torch::Tensor quantile(double probability) const = 0;
    virtual std::optional<torch::Tensor> expected_ratio(double offset) const = 0;
    virtual bool has_expected_ratio() const = 0;
    virtual std::optional<CountDistribution> at_sites(const torch::Tensor& index) const = 0;
    virtual bool whole_counts() const = 0;
    virtual bool independent_sites() const = 0;
    virtual const std::type_info& type() const = 0;
    virtual const void* address() const = 0;
  };

  template <typename D>
  struct Holder final : Interface {
    explicit Holder(D d) : of(std::move(d)) {}
    D of;

    torch::Tensor mean() const override { return of.mean(); }
    torch::Tensor variance() const override { return of.variance(); }
    torch::Tensor sample(int64_t num_samples, const SampleOptions& options) const override {
      return of.sample(num_samples, options);
    }
    torch::Tensor site_log_prob(const torch::Tensor& y) const override {
      return of.site_log_prob(y);
    }
    torch::Tensor joint_log_prob(const torch::Tensor& y) const override {
      if constexpr (requires { of.joint_log_prob(y); })
        return of.joint_log_prob(y);
      else
        return observed_sum([this](const torch::Tensor& v) { return of.site_log_prob(v); }, y);
    }
    torch::Tensor cdf(const torch::Tensor& y) const override {
      if constexpr (requires { of.cdf(y); })
        return of.cdf(y);
      else
        return summed_cdf([this](const torch::Tensor& v) { return of.site_log_prob(v); }, y,
                          of.mean().sizes());
    }
    torch::Tensor quantile(double probability) const override {
      if constexpr (requires { of.quantile(probability); })
        return of.quantile(probability);
      else
        return count_quantile(
            "quantile", [this](const torch::Tensor& y) { return cdf(y); }, of.mean(), of.variance(),
            probability);
    }
    std::optional<torch::Tensor> expected_ratio(double offset) const override {
      if constexpr (requires { of.expected_ratio(offset); })
        return of.expected_ratio(offset);
      else
        return std::nullopt;
    }
    bool has_expected_ratio() const override {
      if constexpr (requires { of.has_expected_ratio(); })
        return of.has_expected_ratio();
      else
        return requires { of.expected_ratio(0.0); };
    }
    std::optional<CountDistribution> at_sites(const torch::Tensor& index) const override {
      const auto chosen = [&](const torch::Tensor& p) { return p.index_select(-1, index); };
      if constexpr (requires { of.at_sites(index); })
        return of.at_sites(index);
      else if constexpr (requires { of.with_parameters(chosen); })
        return of.with_parameters(chosen);
      else
        return std::nullopt;
    }
    bool whole_counts() const override {
      if constexpr (requires { of.whole_counts(); })
        return of.whole_counts();
      else
        return true;
    }
    bool independent_sites() const override {
      if constexpr (requires { of.independent_sites(); })
        return of.independent_sites();
      else
        return true;
    }
    const std::type_info& type() const override { return typeid(D); }
    const void* address() const override { return &of; }
  };

  std::shared_ptr<const Interface> self_;
};

inline std::optional<CountDistribution> CountDistribution::at_sites(
    const torch::Tensor& index) const {
  return self_->at_sites(index);
}

/// E[y_s / (offset + 1.y)], [..., S]. Raises c10::TypeError if the distribution has no `expected_ratio`.
torch::Tensor expected_ratio_ranking(const CountDistribution& y, double offset = 0.0);

}  // namespace topreach
