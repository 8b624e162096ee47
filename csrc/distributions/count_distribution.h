// Whatever a model predicts, in one type: what the objectives and the ranker take.
#pragma once

#include <torch/types.h>

#include <concepts>
#include <utility>
#include <variant>

#include "count_distributions.h"
#include "site_mixture.h"

namespace topreach {

/// Any of the distributions that models of counts predict; made from one of them without a word.
class CountDistribution {
 public:
  using Any =
      std::variant<NegativeBinomial, Poisson, ZeroInflated<NegativeBinomial>, ZeroInflated<Poisson>,
                   SiteMixture<TruncatedNormal>, SiteMixture<Poisson>>;

  template <typename Distribution>
    requires std::constructible_from<Any, Distribution>
  CountDistribution(Distribution distribution) : any_(std::move(distribution)) {}

  torch::Tensor mean() const {
    return std::visit([](const auto& y) { return y.mean(); }, any_);
  }
  torch::Tensor variance() const {
    return std::visit([](const auto& y) { return y.variance(); }, any_);
  }
  torch::Tensor sample(int64_t num_samples, const NegBinSampleOptions& options = {}) const {
    return std::visit([&](const auto& y) { return y.sample(num_samples, options); }, any_);
  }
  torch::Tensor log_prob(const torch::Tensor& value) const {
    return std::visit([&](const auto& y) { return y.log_prob(value); }, any_);
  }
  const Any& any() const { return any_; }

 private:
  Any any_;
};

inline torch::Tensor expected_ratio_ranking(const CountDistribution& y, double offset = 0.0) {
  return std::visit([&](const auto& of) { return expected_ratio_ranking(of, offset); }, y.any());
}

}  // namespace topreach
