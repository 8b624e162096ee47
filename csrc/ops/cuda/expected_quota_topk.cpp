#include <ATen/Dispatch.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/masked_fill.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sort.h>
#include <torch/library.h>

#include <limits>

#include "../../../kernels/cuda/quota_topk.h"
#include "../common.h"
#include "launch.h"
#include "quota_steps.h"

namespace topreach {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

// The scores of each row ascending, -inf those of sites that are locked.
at::Tensor sorted_scores(const at::Tensor& scores, const QuotaRows& quotas) {
  at::Tensor free = scores.detach().to(at::kDouble);
  if (!quotas.lock.empty()) {
    at::Tensor locked = at::empty({quotas.sites}, at::TensorOptions().dtype(at::kBool));
    for (int64_t s = 0; s < quotas.sites; ++s)
      locked.mutable_data_ptr<bool>()[s] = quotas.lock[size_t(s)] != 0;
    free = free.masked_fill(locked.to(scores.device(), /*non_blocking=*/true),
                            -std::numeric_limits<double>::infinity());
  }
  return std::get<0>(free.sort(-1)).contiguous();
}

// The value, or J v if v is defined.
at::Tensor run(const char* function, const at::Tensor& scores, int64_t k, const at::Tensor& groups,
               const at::Tensor& lower, const at::Tensor& upper, double sigma,
               const OptionalTensor& lock, const at::Tensor& v) {
  check_on_gpu(function, scores);
  const QuotaRows quotas =
      check_expected_quota(function, scores, k, groups, lower, upper, sigma, lock);
  const kernels::QuotaTree tree = quotas.tree();
  check_feasible(function, quotas, tree, group_by_number);
  const OnDeviceOf device(scores);
  const at::Tensor input = scores.contiguous();
  const QuotaStepsOnDevice steps(tree, input.device());
  const at::Tensor mask = quota_masks_cuda(input, steps, sigma > 0);
  if (sigma == 0 || input.numel() == 0)
    return v.defined() ? at::mul(mask, 0) : mask;  // zero, but NaN in rows that are refused
  const at::Tensor sorted = sorted_scores(input, quotas);
  const at::Tensor tangent = v.defined() ? v.contiguous() : at::Tensor();
  at::Tensor result = at::empty_like(input, at::MemoryFormat::Contiguous);
  AT_DISPATCH_FLOATING_TYPES(input.scalar_type(), "expected_quota_topk", [&] {
    const kernels::cuda::ExpectedQuotaProblem<scalar_t> problem{
        steps.view(),
        input.const_data_ptr<scalar_t>(),
        mask.const_data_ptr<scalar_t>(),
        sorted.const_data_ptr<double>(),
        v.defined() ? tangent.const_data_ptr<scalar_t>() : nullptr,
        rows_of(input).rows,
        sigma};
    const at::Tensor workspace =
        workspace_like(input, kernels::cuda::expected_quota_topk_workspace(problem));
    C10_CUDA_CHECK(kernels::cuda::expected_quota_topk(problem, result.mutable_data_ptr<scalar_t>(),
                                                      workspace.mutable_data_ptr(),
                                                      device.stream()));
  });
  return result;
}

at::Tensor expected_quota_topk_cuda(const at::Tensor& scores, int64_t k, const at::Tensor& groups,
                                    const at::Tensor& lower, const at::Tensor& upper, double sigma,
                                    const OptionalTensor& lock) {
  return run("expected_quota_topk", scores, k, groups, lower, upper, sigma, lock, {});
}

at::Tensor expected_quota_topk_jvp_cuda(const at::Tensor& v, const at::Tensor& scores, int64_t k,
                                        const at::Tensor& groups, const at::Tensor& lower,
                                        const at::Tensor& upper, double sigma,
                                        const OptionalTensor& lock) {
  constexpr const char* name = "expected_quota_topk_jvp";
  check_expected_quota_tangent(name, v, scores);
  return run(name, scores, k, groups, lower, upper, sigma, lock, v);
}

}  // namespace

TORCH_LIBRARY_IMPL(topreach, CUDA, m) {
  m.impl("expected_quota_topk", expected_quota_topk_cuda);
  m.impl("expected_quota_topk_jvp", expected_quota_topk_jvp_cuda);
}

}  // namespace topreach
