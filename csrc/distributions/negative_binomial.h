// Negative binomial counts, one independent variable per site.
#pragma once

#include <torch/types.h>

#include "../ops/negbin.h"
#include "ratio_family.h"

namespace topreach {

/// NegBin(total_count n, logits z) in torch's convention: mean n e^z, P(0) = (1 + e^z)^-n.
/// Parameters broadcast to the shape [..., S] of one draw. Python:
/// topreach.distributions.NegativeBinomial.
struct NegativeBinomial {
  torch::Tensor total_count, logits;

  /// n e^z, [..., S].
  torch::Tensor mean() const;
  /// n e^z (1 + e^z), [..., S].
  torch::Tensor variance() const;
  /// Draws [M, ..., S]; no gradient. See negbin_sample.
  torch::Tensor sample(int64_t num_samples, const NegBinSampleOptions& options = {}) const;
  /// log P(y), elementwise: y [..., S] or samples [M, ..., S]. See negbin_log_prob.
  torch::Tensor site_log_prob(const torch::Tensor& y) const;
  /// P(Y <= y), elementwise, float64, without gradient.
  torch::Tensor cdf(const torch::Tensor& y) const;
  /// E[y_s / (offset + 1.y)], [..., S]; see ops/expected_ratio_ranking.h.
  torch::Tensor expected_ratio(double offset = 0.0) const;
  RatioFamily ratio_family() const;
  /// The same distribution with every parameter, written out to [..., S], passed through `change`.
  template <typename Change>
  NegativeBinomial with_parameters(const Change& change) const {
    const auto both = torch::broadcast_tensors({total_count, logits});
    return {change(both[0]), change(both[1])};
  }
};

/// (mean, variance) of NegBin(total_count, logits).
std::tuple<torch::Tensor, torch::Tensor> negbin_moments(const torch::Tensor& total_count,
                                                        const torch::Tensor& logits);

/// The negative binomial of these means and variances, [..., S]; nearly a Poisson if a variance is not
/// above its mean.
NegativeBinomial negbin_of_moments(const torch::Tensor& mean, const torch::Tensor& variance);

}  // namespace topreach
