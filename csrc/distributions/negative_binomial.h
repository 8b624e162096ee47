// Negative binomial counts, one independent variable per site: what probabilistic models predict.
#pragma once

#include <torch/types.h>

#include <optional>

#include "../ops/negbin.h"

namespace topreach {

/// NegBin(total_count n, logits z) in torch's convention: mean n e^z, P(0) = (1 + e^z)^-n.
/// Parameters broadcast to the shape [..., S] of one draw. Python:
/// topreach.models.NegativeBinomial.
struct NegativeBinomial {
  torch::Tensor total_count, logits;

  /// n e^z, [..., S].
  torch::Tensor mean() const { return total_count * logits.exp(); }

  /// n e^z (1 + e^z), [..., S].
  torch::Tensor variance() const { return mean() * (1 + logits.exp()); }

  /// Draws [M, ..., S]; no gradient. See negbin_sample.
  torch::Tensor sample(int64_t num_samples, const NegBinSampleOptions& options = {}) const {
    return negbin_sample(total_count, logits, num_samples, options);
  }

  /// log P(y), elementwise: y [..., S] or samples [M, ..., S]. See negbin_log_prob.
  torch::Tensor log_prob(const torch::Tensor& y) const {
    return negbin_log_prob(y.to(total_count.scalar_type()), total_count, logits);
  }
};

}  // namespace topreach
