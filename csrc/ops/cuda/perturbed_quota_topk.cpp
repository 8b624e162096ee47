#include <ATen/Dispatch.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mul.h>
#include <torch/library.h>

#include <string_view>

#include "../../../kernels/cuda/quota_topk.h"
#include "../common.h"
#include "launch.h"
#include "quota_steps.h"

namespace topreach {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

// The value, or the vector-Jacobian product for `grad`.
at::Tensor run(const char* function, const at::Tensor& scores, const PerturbedQuotaArguments& a,
               const at::Tensor& grad, const at::Tensor& membership) {
  check_on_gpu(function, scores);
  const QuotaRows quotas = check_perturbed_quota(function, scores, a);
  const kernels::QuotaTree tree = quotas.tree();
  check_feasible(function, quotas, tree, group_by_number);
  const OnDeviceOf device(scores);
  const at::Tensor input = scores.contiguous(), key = a.key.contiguous();
  const bool conditional = a.estimator == "conditional", back = grad.defined();
  const QuotaStepsOnDevice steps(tree, input.device());
  const at::Tensor mask = quota_masks_cuda(input, steps, conditional && a.sigma > 0);
  if (a.sigma == 0 || input.numel() == 0)
    return back ? at::mul(mask, 0) : mask;  // zero, but NaN in rows that are refused
  const at::Tensor v = back ? grad.contiguous() : at::Tensor();
  const at::Tensor b = back ? membership.contiguous() : at::Tensor();
  at::Tensor result = at::empty_like(input, at::MemoryFormat::Contiguous);
  AT_DISPATCH_FLOATING_TYPES(input.scalar_type(), "perturbed_quota_topk", [&] {
    const kernels::cuda::PerturbedQuotaProblem<scalar_t> problem{
        steps.view(),
        input.const_data_ptr<scalar_t>(),
        mask.const_data_ptr<scalar_t>(),
        rows_of(input).rows,
        a.sigma,
        a.num_samples,
        key.const_data_ptr<int64_t>(),
        a.row_offset,
        conditional,
        back ? v.const_data_ptr<scalar_t>() : nullptr,
        back ? b.const_data_ptr<scalar_t>() : nullptr};
    const at::Tensor workspace =
        workspace_like(input, kernels::cuda::perturbed_quota_topk_workspace(problem));
    C10_CUDA_CHECK(kernels::cuda::perturbed_quota_topk(problem, result.mutable_data_ptr<scalar_t>(),
                                                       workspace.mutable_data_ptr(),
                                                       device.stream()));
  });
  return result;
}

at::Tensor perturbed_quota_topk_cuda(const at::Tensor& scores, int64_t k, const at::Tensor& groups,
                                     const at::Tensor& lower, const at::Tensor& upper, double sigma,
                                     int64_t num_samples, std::string_view estimator,
                                     const at::Tensor& key, int64_t row_offset,
                                     const OptionalTensor& parent, const OptionalTensor& lock) {
  return run("perturbed_quota_topk", scores,
             {k, groups, lower, upper, sigma, num_samples, std::string(estimator), key, row_offset,
              parent, lock},
             {}, {});
}

at::Tensor perturbed_quota_topk_backward_cuda(
    const at::Tensor& grad, const at::Tensor& scores, const at::Tensor& membership, int64_t k,
    const at::Tensor& groups, const at::Tensor& lower, const at::Tensor& upper, double sigma,
    int64_t num_samples, std::string_view estimator, const at::Tensor& key, int64_t row_offset,
    const OptionalTensor& parent, const OptionalTensor& lock) {
  constexpr const char* name = "perturbed_quota_topk_backward";
  check_perturbed_quota_backward(name, grad, scores, membership);
  return run(name, scores,
             {k, groups, lower, upper, sigma, num_samples, std::string(estimator), key, row_offset,
              parent, lock},
             grad, membership);
}

}  // namespace

TORCH_LIBRARY_IMPL(topreach, CUDA, m) {
  m.impl("perturbed_quota_topk", perturbed_quota_topk_cuda);
  m.impl("perturbed_quota_topk_backward", perturbed_quota_topk_backward_cuda);
}

}  // namespace topreach
