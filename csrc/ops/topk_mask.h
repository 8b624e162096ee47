// TopKMask(r, K): the 0/1 vector with ones at the K largest scores.
#pragma once

#include <ATen/core/Tensor.h>

namespace topreach {

/// Mask of the `k` largest of `scores` [..., S], in their dtype; exactly k ones in each row, ties
/// to the lowest index. Not differentiable (see perturbed_topk). O(S) a row.
///
/// Raises if k is not in 0..S, or, on the CPU, if a score is NaN (on CUDA, whose check would
/// synchronise, that row comes out NaN).
///
///   topreach::topk_mask(torch::tensor({3., 1., 2.}), 2)   // 1 0 1
at::Tensor topk_mask(const at::Tensor& scores, int64_t k);

/// The same with a separate budget for each row: integers `k` that broadcast to the leading shape
/// [...]. On CUDA a row whose k is outside 0..S comes out NaN.
///
///   topreach::topk_mask(scores, torch::tensor({2, 1}))   // scores [2, S]
at::Tensor topk_mask(const at::Tensor& scores, const at::Tensor& k);

}  // namespace topreach
