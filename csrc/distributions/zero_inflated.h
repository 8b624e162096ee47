// Zero-inflated counts: zero with an extra chance, else drawn from a base distribution [Lambert 1992].
#pragma once

#include <torch/types.h>

#include <tuple>
#include <utility>

#include "../ops/negbin.h"
#include "ratio_family.h"

namespace topreach {

/// (mean, variance) of zero-inflated counts from those of the base:
/// (1 - pi) m and (1 - pi) (v + pi m^2).
std::tuple<torch::Tensor, torch::Tensor> zero_inflated_moments(const torch::Tensor& mean,
                                                               const torch::Tensor& variance,
                                                               const torch::Tensor& zero_probs);

/// Draws y [M, ..., S] of the base, set to zero with chance zero_probs. `key` is that of the base's
/// draws: the structural zeros take a key derived from it.
torch::Tensor zero_inflated_zeros(const torch::Tensor& y, const torch::Tensor& zero_probs,
                                  const torch::Tensor& key, int64_t row_offset = 0);

/// log P(y) from the base's log P(y), elementwise with broadcasting.
torch::Tensor zero_inflated_log_prob(const torch::Tensor& base_log_prob,
                                     const torch::Tensor& zero_probs, const torch::Tensor& y);

/// The options with a key: the one given, or a new one.
NegBinSampleOptions with_key(NegBinSampleOptions options, at::Device device);

/// 0 with chance probs, else a draw of `base`; site by site. Python:
/// topreach.distributions.ZeroInflated.
template <typename Base>
struct ZeroInflated {
  Base base;
  torch::Tensor probs;

  torch::Tensor mean() const {
    return std::get<0>(zero_inflated_moments(base.mean(), base.variance(), probs));
  }
  torch::Tensor variance() const {
    return std::get<1>(zero_inflated_moments(base.mean(), base.variance(), probs));
  }

  /// Draws [M, ..., S], without gradient; the same as Python's for the same key.
  torch::Tensor sample(int64_t num_samples, const NegBinSampleOptions& options = {}) const {
    const NegBinSampleOptions own = with_key(options, probs.device());
    return zero_inflated_zeros(base.sample(num_samples, own), probs, *own.key, own.row_offset);
  }

  /// log P(y), elementwise: y [..., S] or samples [M, ..., S].
  torch::Tensor site_log_prob(const torch::Tensor& y) const {
    return zero_inflated_log_prob(base.site_log_prob(y), probs, y);
  }

  /// P(Y <= y), elementwise, float64, without gradient.
  torch::Tensor cdf(const torch::Tensor& y) const
    requires requires(const Base& of, const torch::Tensor& value) { of.cdf(value); }
  {
    const torch::Tensor pi = probs.detach().to(torch::kDouble), below = base.cdf(y);
    return torch::where(y.lt(0), torch::zeros_like(below), pi + (1 - pi) * below);
  }

  torch::Tensor expected_ratio(double offset = 0.0) const {
    return base.ratio_family().expected_ratio(offset, probs);
  }

  template <typename Change>
  ZeroInflated with_parameters(const Change& change) const {
    const auto shape = torch::broadcast_tensors({base.mean().detach(), probs})[0].sizes().vec();
    const auto written_out = [&](const torch::Tensor& p) { return change(p.expand(shape)); };
    return {base.with_parameters(written_out), written_out(probs)};
  }
};

}  // namespace topreach
