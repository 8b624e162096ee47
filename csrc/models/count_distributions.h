// Distributions of counts whose ratio ranking is known exactly, one independent variable per site.
#pragma once

#include <torch/types.h>

#include "../ops/expected_ratio_ranking.h"
#include "negative_binomial.h"

namespace topreach {

/// P(y) = e^-rate rate^y / y!, rate [..., S].
struct Poisson {
  torch::Tensor rate;
};

/// Successes of total_count trials with chance probs; broadcast to [..., S].
struct Binomial {
  torch::Tensor total_count, probs;
};

/// 1 with chance probs [..., S], else 0.
struct Bernoulli {
  torch::Tensor probs;
};

/// 0 with chance probs, else a draw of `base`; site by site. Python: topreach.models.ZeroInflated.
template <typename Base>
struct ZeroInflated {
  Base base;
  torch::Tensor probs;
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
