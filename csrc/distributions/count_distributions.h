// Distributions of counts whose ratio ranking is known exactly, one independent variable per site.
#pragma once

#include <torch/types.h>

#include <utility>

#include "../ops/expected_ratio_ranking.h"
#include "negative_binomial.h"

namespace topreach {

/// P(y) = e^-rate rate^y / y!, rate [..., S]. Python: topreach.models.Poisson, with the same draws.
struct Poisson {
  torch::Tensor rate;

  torch::Tensor mean() const { return rate; }
  torch::Tensor variance() const { return rate; }

  /// Draws [M, ..., S], without gradient, as negbin_sample of so large a size that the two differ by
  /// less than a draw's own error.
  torch::Tensor sample(int64_t num_samples, const NegBinSampleOptions& options = {}) const;

  /// log P(y), elementwise: y [..., S] or samples [M, ..., S].
  torch::Tensor log_prob(const torch::Tensor& y) const;
};

/// Successes of total_count trials with chance probs; broadcast to [..., S].
struct Binomial {
  torch::Tensor total_count, probs;
};

/// 1 with chance probs [..., S], else 0.
struct Bernoulli {
  torch::Tensor probs;
};

// What ZeroInflated does, whatever its base.
std::pair<NegBinSampleOptions, NegBinSampleOptions> zero_inflation_keys(
    const NegBinSampleOptions& options, at::Device device);
torch::Tensor with_zeros(const torch::Tensor& y, const torch::Tensor& probs,
                         const NegBinSampleOptions& options);
torch::Tensor zero_inflated_log_prob(const torch::Tensor& base, const torch::Tensor& probs,
                                     const torch::Tensor& y);

/// 0 with chance probs, else a draw of `base`; site by site. Python: topreach.models.ZeroInflated.
template <typename Base>
struct ZeroInflated {
  Base base;
  torch::Tensor probs;

  torch::Tensor mean() const { return (1 - probs) * base.mean(); }
  torch::Tensor variance() const {
    return (1 - probs) * (base.variance() + probs * base.mean().square());
  }

  /// Draws [M, ..., S], without gradient; those of Python with the same key.
  torch::Tensor sample(int64_t num_samples, const NegBinSampleOptions& options = {}) const {
    const auto [own, zeros] = zero_inflation_keys(options, probs.device());
    return with_zeros(base.sample(num_samples, own), probs, zeros);
  }

  /// log P(y), elementwise: y [..., S] or samples [M, ..., S].
  torch::Tensor log_prob(const torch::Tensor& y) const {
    return zero_inflated_log_prob(base.log_prob(y), probs, y);
  }
};

/// One of L components for all sites of a row at once: weights [..., L], which sum to 1, and
/// components with parameters [..., L, S]. Sites are independent given the component only.
template <typename Component>
struct Mixture {
  torch::Tensor weights;
  Component components;
};

inline torch::Tensor expected_ratio_ranking(
    const Poisson& y, double offset = 0.0,
    const std::optional<torch::Tensor>& zero_probs = std::nullopt) {
  return expected_ratio_ranking("poisson", y.rate, std::nullopt, zero_probs, offset);
}

inline torch::Tensor expected_ratio_ranking(
    const NegativeBinomial& y, double offset = 0.0,
    const std::optional<torch::Tensor>& zero_probs = std::nullopt) {
  return expected_ratio_ranking("negative_binomial", y.total_count,
                                y.logits.to(torch::kDouble).exp(), zero_probs, offset);
}

inline torch::Tensor expected_ratio_ranking(
    const Binomial& y, double offset = 0.0,
    const std::optional<torch::Tensor>& zero_probs = std::nullopt) {
  return expected_ratio_ranking("binomial", y.total_count, y.probs, zero_probs, offset);
}

inline torch::Tensor expected_ratio_ranking(
    const Bernoulli& y, double offset = 0.0,
    const std::optional<torch::Tensor>& zero_probs = std::nullopt) {
  return expected_ratio_ranking("binomial", torch::ones({}, y.probs.options()), y.probs, zero_probs,
                                offset);
}

/// E[y_s / (offset + 1.y)] of each distribution above, [..., S]; see ops/expected_ratio_ranking.h.
///
///   topreach::NegativeBinomial y{total_count, logits};
///   auto r = topreach::expected_ratio_ranking(topreach::ZeroInflated{y, probs}, 1.0);
template <typename Base>
torch::Tensor expected_ratio_ranking(const ZeroInflated<Base>& y, double offset = 0.0) {
  return expected_ratio_ranking(y.base, offset, y.probs);
}

template <typename Component>
torch::Tensor expected_ratio_ranking(const Mixture<Component>& y, double offset = 0.0) {
  return (y.weights.unsqueeze(-1) * expected_ratio_ranking(y.components, offset)).sum(-2);
}

}  // namespace topreach
