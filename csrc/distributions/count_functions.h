// Distribution functions and quantiles of counts, one formula each; the distributions call them.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace topreach {

/// P(Y <= value) of Poisson counts, elementwise with broadcasting, float64; no gradient.
at::Tensor poisson_cdf(const at::Tensor& value, const at::Tensor& rate);

/// P(Y <= value) of NegBin(total_count, logits), elementwise with broadcasting, float64; no gradient.
/// By the incomplete beta function: relative error about 1e-13 times the square root of the number of terms.
/// Computed on the CPU; a CUDA tensor is copied there and back.
at::Tensor negbin_cdf(const at::Tensor& value, const at::Tensor& total_count,
                      const at::Tensor& logits);

/// The least whole y with cdf(y) >= probability, elementwise in the shape of `mean`, by bisection
/// between Cantelli's bounds mean +- sd sqrt(odds). NaN where mean or variance is not finite.
///
/// `cdf` maps values [..., S] to P(Y <= value) [..., S]. Costs log2(width of the bounds) calls of it.
/// Raises c10::ValueError, naming `function`, unless 0 < probability < 1.
at::Tensor count_quantile(const char* function,
                          const std::function<at::Tensor(const at::Tensor&)>& cdf,
                          const at::Tensor& mean, const at::Tensor& variance, double probability);

/// The same for a density on [0, inf): the value y with cdf(y) = probability, to 60 halvings.
at::Tensor density_quantile(const char* function,
                            const std::function<at::Tensor(const at::Tensor&)>& cdf,
                            const at::Tensor& mean, const at::Tensor& variance, double probability);

/// P(Y <= value) for any distribution of whole counts by summing exp(site_log_prob(0..max value)),
/// float64, no gradient. It serves distributions without a closed form. value [..., S] or
/// [M, ..., S]; `shape` is that of one forecast.
at::Tensor summed_cdf(const std::function<at::Tensor(const at::Tensor&)>& site_log_prob,
                      const at::Tensor& value, at::IntArrayRef shape);

/// sum_s log P(y_s) [...] of sites [..., S]; cells where y is NaN are left out.
at::Tensor observed_sum(const std::function<at::Tensor(const at::Tensor&)>& site_log_prob,
                        const at::Tensor& y);

}  // namespace topreach
