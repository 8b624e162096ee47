// The ratio ranking as an exact expectation: no samples.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>

namespace topreach {

/// r_s = E[y_s / (offset + 1.y)], 0/0 := 0 [D25 Eq. 6], of independent counts y_s, to 1e-10 of r_s
/// or better. Overloads of the same name take a distribution (distributions/ratio_family.h), mixtures
/// over all sites at once included.
///
///   family               first                second
///   "poisson"            rate                 none
///   "negative_binomial"  total_count n >= 0   odds p / (1 - p) >= 0, which is exp(logits)
///   "binomial"           total_count n        probs p in [0, 1]; Bernoulli is n = 1
///
/// Arguments float32 or float64, broadcast to [..., S]; computed in double, returned in the dtype of
/// `first`. `zero_probs` is the chance that a site's count is zero whatever the family says (zero
/// inflation). Differentiable once in all of them, as vector-Jacobian products.
///
/// With u = e^-t, E[y_s / (c + Y)] = int_0^inf e^-(c+1)t (G'_s / G_s)(u) prod_k G_k(u) dt, G the
/// generating functions: the trapezoidal rule in log t. Cost O(rows S nodes), about 60 nodes (more if
/// the largest mean or odds is above 1e5), memory some twenty blocks of 1 MB whatever S is. With one
/// value of `second` for all sites of a row (last dimension 1) and no zero_probs: O(rows S).
///
/// Raises for NaN, infinite or negative parameters, chances outside [0, 1] and a total_count of
/// "binomial" that is not whole (CPU; on CUDA such rows come out NaN), for a negative offset.
///
///   auto r = topreach::expected_ratio_ranking("poisson", torch::rand({4, 10}));
at::Tensor expected_ratio_ranking(std::string_view family, const at::Tensor& first,
                                  const std::optional<at::Tensor>& second = std::nullopt,
                                  const std::optional<at::Tensor>& zero_probs = std::nullopt,
                                  double offset = 0.0);

}  // namespace topreach
