// BPR, the fraction of the best possible reach [Learning where to intervene, Eq. 5; Decision-aware
// training, Eq. 2]: BPR(R, y) = sum_{s in R} y_s / sum_{s in TopK(y)} y_s.
#pragma once

#include <ATen/core/Tensor.h>

namespace topreach {

/// BPR [...] of choosing the `k` highest `scores` [..., S], against `counts` [..., S] (broadcast).
/// Ties at the K-th score: the expectation when the tied sites are drawn uniformly at random. Sites
/// above it count fully; the tied ones share the remaining places equally. The result has the dtype
/// of scores and no gradient; it is NaN where the best reach is 0 (a period without events). O(S) a
/// row.
///
/// Raises for k outside 1..S (for k = 0 the best reach is 0: BPR has no value), for negative or NaN
/// counts and NaN scores (CPU; on CUDA that row comes out NaN).
///
///   topreach::bpr(torch::tensor({3., 1., 1.}), torch::tensor({2., 4., 0.}), 2)   // (2 + 4/2) / 6
at::Tensor bpr(const at::Tensor& scores, const at::Tensor& counts, int64_t k);

/// BPR [...] of a fractional membership b [..., S], such as perturbed_topk's: b.y / sum_TopK(y) y.
/// Differentiable in membership. NaN where the best reach is 0, with a zero gradient there whatever
/// the incoming gradient. Mask such rows with torch::where: NaN times a weight of 0 is NaN. Raises as
/// bpr does, for negative and NaN counts too (CPU).
at::Tensor soft_bpr(const at::Tensor& membership, const at::Tensor& counts, int64_t k);

}  // namespace topreach
