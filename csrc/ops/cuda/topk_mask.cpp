#include "../topk_mask.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "../../../kernels/cuda/perturbed_topk.h"
#include "../common.h"
#include "../topk_rows_checks.h"
#include "launch.h"

namespace topreach {
namespace {

// Budget `k`, or the budget of each row if row_k is given.
at::Tensor mask_of(const at::Tensor& scores, int64_t k, const int64_t* row_k) {
  const OnDeviceOf device(scores);
  const at::Tensor input = scores.contiguous();
  at::Tensor mask = at::empty_like(input, at::MemoryFormat::Contiguous);
  if (input.numel() == 0) return mask;
  const auto [rows, sites] = rows_of(input);
  AT_DISPATCH_FLOATING_TYPES(input.scalar_type(), "topk_mask", [&, rows = rows, sites = sites] {
    C10_CUDA_CHECK(kernels::cuda::topk_mask(input.const_data_ptr<scalar_t>(), rows, sites, k, row_k,
                                            mask.mutable_data_ptr<scalar_t>(), device.stream()));
  });
  return mask;
}

at::Tensor topk_mask_cuda(const at::Tensor& scores, int64_t k) {
  check_scores("topk_mask", scores, k);
  return mask_of(scores, k, nullptr);
}

at::Tensor topk_mask_rows_cuda(const at::Tensor& scores, const at::Tensor& k) {
  const at::Tensor budgets = check_row_k(scores, k);
  return mask_of(scores, 0, budgets.const_data_ptr<int64_t>());
}

}  // namespace

TORCH_LIBRARY_IMPL(topreach, CUDA, m) {
  m.impl("topk_mask", topk_mask_cuda);
  m.impl("topk_mask_rows", topk_mask_rows_cuda);
}

}  // namespace topreach
