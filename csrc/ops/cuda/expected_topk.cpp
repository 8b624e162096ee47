#include "../expected_topk.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mul.h>
#include <torch/library.h>

#include <limits>
#include <string_view>
#include <tuple>

#include "../../../kernels/cuda/expected_topk.h"
#include "../common.h"
#include "../expected_topk_checks.h"
#include "../topk_mask.h"
#include "launch.h"

namespace topreach {
namespace {

template <typename T>
kernels::cuda::ExpectedTopKProblem<T> problem_of(const at::Tensor& scores, const at::Tensor* v,
                                                 int64_t k, double sigma) {
  const auto [rows, sites] = rows_of(scores);
  return {scores.const_data_ptr<T>(),
          v != nullptr ? v->const_data_ptr<T>() : nullptr,
          rows,
          sites,
          k,
          sigma};
}

template <typename T>
void run(ExpectedTopKMethod method, const kernels::cuda::ExpectedTopKProblem<T>& problem,
         const at::Tensor& like, double* bounds, T* out, cudaStream_t stream) {
  if (method == ExpectedTopKMethod::kMeanField) {
    C10_CUDA_CHECK(kernels::cuda::expected_topk_mean_field(problem, bounds, out, stream));
    return;
  }
  const at::Tensor workspace =
      workspace_like(like, kernels::cuda::expected_topk_workspace(problem.rows, problem.sites));
  C10_CUDA_CHECK(kernels::cuda::expected_topk_exact(problem, bounds, out,
                                                    workspace.mutable_data_ptr(), stream));
}

std::tuple<at::Tensor, at::Tensor> expected_topk_cuda(const at::Tensor& scores, int64_t k,
                                                      double sigma, std::string_view method_name) {
  const auto method = check_expected_topk(scores, k, sigma, method_name);
  const OnDeviceOf device(scores);
  const at::Tensor input = scores.contiguous();
  at::Tensor membership = topk_mask(input, k), bounds = bounds_like(input);
  const bool hard = k == 0 || k == input.size(-1) || sigma == 0;
  if (hard || input.numel() == 0)
    return {membership, bounds.fill_(std::numeric_limits<double>::quiet_NaN())};
  AT_DISPATCH_FLOATING_TYPES(input.scalar_type(), "expected_topk", [&] {
    const auto problem = problem_of<scalar_t>(input, nullptr, k, sigma);
    double* bounds_data = bounds.mutable_data_ptr<double>();
    C10_CUDA_CHECK(kernels::cuda::expected_topk_bounds(problem, bounds_data, device.stream()));
    run(method, problem, input, bounds_data, membership.mutable_data_ptr<scalar_t>(),
        device.stream());
  });
  return {membership, bounds};
}

at::Tensor expected_topk_jvp_cuda(const at::Tensor& v, const at::Tensor& scores,
                                  const at::Tensor& bounds, int64_t k, double sigma,
                                  std::string_view method_name) {
  const auto method = check_expected_topk_jvp(v, scores, bounds, k, sigma, method_name);
  const OnDeviceOf device(scores);
  const at::Tensor input = scores.contiguous();
  if (k == 0 || k == input.size(-1) || sigma == 0)
    return at::mul(topk_mask(input, k), 0);  // zero, but NaN in rows of NaN
  at::Tensor result = at::empty_like(input, at::MemoryFormat::Contiguous);
  if (input.numel() == 0) return result;
  const at::Tensor tangent = v.contiguous(), limits = bounds.contiguous();
  AT_DISPATCH_FLOATING_TYPES(input.scalar_type(), "expected_topk_jvp", [&] {
    run(method, problem_of<scalar_t>(input, &tangent, k, sigma), input,
        const_cast<double*>(limits.const_data_ptr<double>()),  // written for the value alone
        result.mutable_data_ptr<scalar_t>(), device.stream());
  });
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(topreach, CUDA, m) {
  m.impl("expected_topk", expected_topk_cuda);
  m.impl("expected_topk_jvp", expected_topk_jvp_cuda);
}

}  // namespace topreach
