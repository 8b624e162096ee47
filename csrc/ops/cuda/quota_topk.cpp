#include "../quota_topk.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "../../../kernels/cuda/quota_topk.h"
#include "../common.h"
#include "launch.h"
#include "quota_steps.h"

namespace topreach {

at::Tensor quota_masks_cuda(const at::Tensor& scores, const QuotaStepsOnDevice& steps,
                            bool finite) {
  const OnDeviceOf device(scores);
  at::Tensor mask = at::empty_like(scores, at::MemoryFormat::Contiguous);
  if (scores.numel() == 0) return mask;
  AT_DISPATCH_FLOATING_TYPES(scores.scalar_type(), "quota_topk", [&] {
    C10_CUDA_CHECK(kernels::cuda::quota_topk(steps.view(), scores.const_data_ptr<scalar_t>(),
                                             rows_of(scores).rows, finite,
                                             mask.mutable_data_ptr<scalar_t>(), device.stream()));
  });
  return mask;
}

namespace {

at::Tensor quota_topk_cuda(const at::Tensor& scores, int64_t k, const at::Tensor& groups,
                           const at::Tensor& lower, const at::Tensor& upper,
                           const std::optional<at::Tensor>& parent,
                           const std::optional<at::Tensor>& lock) {
  constexpr const char* name = "quota_topk";
  check_on_gpu(name, scores);
  const QuotaRows quotas = check_quotas(name, scores, k, groups, lower, upper, parent, lock);
  const kernels::QuotaTree tree = quotas.tree();
  check_feasible(name, quotas, tree, group_by_number);
  const OnDeviceOf device(scores);
  return quota_masks_cuda(scores.contiguous(), QuotaStepsOnDevice(tree, scores.device()), false);
}

}  // namespace

TORCH_LIBRARY_IMPL(topreach, CUDA, m) { m.impl("quota_topk", quota_topk_cuda); }

}  // namespace topreach
