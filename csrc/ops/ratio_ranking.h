// Ratio ranking with score-function (REINFORCE) gradients.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>

namespace topreach {

/// r_s = (1/M) sum_m y_s^m / (offset + 1.y^m), with 0/0 := 0 [D25 Eq. 7]: the ranking that best
/// serves the reach of K sites, from M samples of the counts.
///
/// samples [M, ..., S], counts >= 0; returns r [..., S]. The samples are taken as constants. With
/// `log_prob` = log p(y^m), the gradient flows into it [D25 Eq. 10]:
///   "score"      joint log-probability [M, ...] (or per site [M, ..., S], then summed);
///   "score_loo"  the same with a leave-one-out baseline: unbiased too, of less variance; M >= 2;
///   "diagonal"   per site [M, ..., S]: pairs each site's ratio with its own log p(y_s) only. This
///                is what the code published with the 2025 paper computes. It leaves out how the
///                other sites move the denominator, and is biased;
///   "go"         per site [M, ..., S], with `cdf` = P(Y_s <= y_s) of the same shape, for sites that
///                are independent. The gradient flows into cdf: unbiased, of least variance.
/// No Jacobian is formed. offset = 0 is the paper's definition; its authors' code uses 1.
///
/// Raises for negative or non-finite samples (CPU; on CUDA that row comes out NaN), shapes that do
/// not agree, a negative offset, unknown estimators.
at::Tensor ratio_ranking(const at::Tensor& samples,
                         const std::optional<at::Tensor>& log_prob = std::nullopt,
                         double offset = 0.0, std::string_view estimator = "score_loo",
                         const std::optional<at::Tensor>& cdf = std::nullopt);

}  // namespace topreach
