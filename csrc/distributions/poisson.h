// Poisson, binomial and Bernoulli counts, one independent variable per site.
#pragma once

#include <torch/types.h>

#include "../ops/negbin.h"
#include "ratio_family.h"

namespace topreach {

/// P(y) = e^-rate rate^y / y!, rate [..., S]. Python: topreach.distributions.Poisson.
struct Poisson {
  torch::Tensor rate;

  torch::Tensor mean() const { return rate; }
  torch::Tensor variance() const { return rate; }
  /// Draws [M, ..., S], without gradient; see poisson_sample.
  torch::Tensor sample(int64_t num_samples, const NegBinSampleOptions& options = {}) const;
  /// log P(y), elementwise: y [..., S] or samples [M, ..., S].
  torch::Tensor site_log_prob(const torch::Tensor& y) const;
  /// P(Y <= y), elementwise, float64, without gradient.
  torch::Tensor cdf(const torch::Tensor& y) const;
  /// E[y_s / (offset + 1.y)], [..., S]; see ops/expected_ratio_ranking.h.
  torch::Tensor expected_ratio(double offset = 0.0) const;
  RatioFamily ratio_family() const { return {"poisson", rate}; }
  template <typename Change>
  Poisson with_parameters(const Change& change) const {
    return {change(rate)};
  }
};

/// Draws by negbin_sample, with a total_count so large that the two distributions differ by less than
/// the error of a draw.
torch::Tensor poisson_sample(const torch::Tensor& rate, int64_t num_samples,
                             const NegBinSampleOptions& options = {});
/// y log(rate) - rate - log y!, elementwise with broadcasting.
torch::Tensor poisson_log_prob(const torch::Tensor& y, const torch::Tensor& rate);

/// Successes of total_count trials with chance probs; broadcast to [..., S].
struct Binomial {
  torch::Tensor total_count, probs;

  torch::Tensor mean() const { return total_count * probs; }
  torch::Tensor variance() const { return total_count * probs * (1 - probs); }
  /// Draws [M, ..., S] by torch's generator; a key seeds one.
  torch::Tensor sample(int64_t num_samples, const NegBinSampleOptions& options = {}) const;
  torch::Tensor site_log_prob(const torch::Tensor& y) const;
  torch::Tensor expected_ratio(double offset = 0.0) const;
  RatioFamily ratio_family() const { return {"binomial", total_count, probs}; }

  /// The same with each parameter, written out to their common shape, changed by `change`.
  template <typename Change>
  Binomial with_parameters(const Change& change) const {
    const auto both = torch::broadcast_tensors({total_count, probs});
    return {change(both[0]), change(both[1])};
  }
};

/// 1 with chance probs [..., S], else 0.
struct Bernoulli {
  torch::Tensor probs;

  torch::Tensor mean() const { return probs; }
  torch::Tensor variance() const { return probs * (1 - probs); }
  torch::Tensor sample(int64_t num_samples, const NegBinSampleOptions& options = {}) const;
  torch::Tensor site_log_prob(const torch::Tensor& y) const;
  torch::Tensor expected_ratio(double offset = 0.0) const;
  RatioFamily ratio_family() const {
    return {"binomial", torch::ones({}, probs.options().requires_grad(false)), probs};
  }

  /// The same with the parameter changed by `change`.
  template <typename Change>
  Bernoulli with_parameters(const Change& change) const {
    return {change(probs)};
  }
};

}  // namespace topreach
