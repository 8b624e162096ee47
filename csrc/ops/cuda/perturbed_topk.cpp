#include "../perturbed_topk.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mul.h>
#include <torch/library.h>

#include <string_view>
#include <tuple>

#include "../../../kernels/cuda/perturbed_topk.h"
#include "../../../kernels/perturbed_topk.h"
#include "../perturbed_topk_checks.h"
#include "../topk_mask.h"
#include "launch.h"

namespace topreach {
namespace {

template <typename T>
kernels::cuda::TopKProblem<T> problem_of(const at::Tensor& scores, int64_t k, double sigma,
                                         int64_t num_samples, const at::Tensor& key,
                                         int64_t row_offset) {
  const auto [rows, sites] = rows_of(scores);
  return {scores.const_data_ptr<T>(),    rows,      sites, k, T(sigma), num_samples,
          key.const_data_ptr<int64_t>(), row_offset};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> perturbed_topk_cuda(
    const at::Tensor& scores, int64_t k, double sigma, int64_t num_samples,
    std::string_view estimator, std::string_view noise_name, const at::Tensor& key,
    int64_t row_offset) {
  check_perturbed_topk(scores, k, sigma, num_samples, estimator, key, row_offset);
  const auto noise = parse_noise("perturbed_topk", noise_name);
  const OnDeviceOf device(scores);
  const at::Tensor input = scores.contiguous(), words = key.contiguous();
  at::Tensor threshold = per_draw(input, num_samples, input.scalar_type());
  at::Tensor last_tied = per_draw(input, num_samples, at::kInt);
  at::Tensor boundary = empty_boundary(input, num_samples, estimator);
  if (is_hard(input, k, sigma))
    return {topk_mask(input, k), threshold.fill_(0), last_tied.fill_(kernels::kNoSplitTie),
            boundary.fill_(0)};
  at::Tensor membership = at::empty_like(input, at::MemoryFormat::Contiguous);
  if (input.numel() == 0) return {membership, threshold, last_tied, boundary};
  AT_DISPATCH_FLOATING_TYPES(input.scalar_type(), "perturbed_topk", [&] {
    const auto p = problem_of<scalar_t>(input, k, sigma, num_samples, words, row_offset);
    const at::Tensor workspace =
        workspace_like(input, kernels::cuda::perturbed_topk_workspace<scalar_t>(p.rows, p.draws));
    auto* b = membership.mutable_data_ptr<scalar_t>();
    auto* value = threshold.mutable_data_ptr<scalar_t>();
    auto* tied = last_tied.mutable_data_ptr<int32_t>();
    void* memory = workspace.mutable_data_ptr();
    C10_CUDA_CHECK(
        estimator == "conditional"
            ? kernels::cuda::conditional_topk(p, noise, b, value, tied,
                                              boundary.mutable_data_ptr<int32_t>(), memory,
                                              device.stream())
            : kernels::cuda::perturbed_topk(p, noise, b, value, tied, memory, device.stream()));
  });
  return {membership, threshold, last_tied, boundary};
}

at::Tensor perturbed_topk_backward_cuda(const at::Tensor& grad, const at::Tensor& scores,
                                        const at::Tensor& membership, const at::Tensor& threshold,
                                        const at::Tensor& last_tied, const at::Tensor& boundary,
                                        int64_t k, double sigma, int64_t num_samples,
                                        std::string_view estimator, std::string_view noise_name,
                                        const at::Tensor& key, int64_t row_offset) {
  check_perturbed_topk_backward(grad, scores, membership, threshold, last_tied, boundary, k, sigma,
                                num_samples, estimator, key, row_offset);
  const auto noise = parse_noise("perturbed_topk", noise_name);
  const OnDeviceOf device(scores);
  if (is_hard(scores, k, sigma))
    return at::mul(membership.contiguous(), 0);  // zero, but NaN in rows of NaN
  const at::Tensor input = scores.contiguous(), words = key.contiguous();
  at::Tensor result = at::empty_like(input, at::MemoryFormat::Contiguous);
  if (input.numel() == 0) return result;
  const at::Tensor v = grad.contiguous(), b = membership.contiguous();
  const at::Tensor values = threshold.contiguous(), ties = last_tied.contiguous();
  const at::Tensor pairs = boundary.contiguous();
  const bool leave_one_out = estimator == "score_loo";
  const double draws = double(leave_one_out ? num_samples - 1 : num_samples);
  AT_DISPATCH_FLOATING_TYPES(input.scalar_type(), "perturbed_topk_backward", [&] {
    const auto p = problem_of<scalar_t>(input, k, sigma, num_samples, words, row_offset);
    const at::Tensor workspace =
        workspace_like(input, kernels::cuda::perturbed_topk_workspace<scalar_t>(p.rows, p.draws));
    const auto scale = scalar_t(1 / (draws * sigma));
    const auto* value = values.const_data_ptr<scalar_t>();
    const auto* tied = ties.const_data_ptr<int32_t>();
    auto* out = result.mutable_data_ptr<scalar_t>();
    void* memory = workspace.mutable_data_ptr();
    C10_CUDA_CHECK(estimator == "conditional"
                       ? kernels::cuda::conditional_topk_backward(
                             p, noise, v.const_data_ptr<scalar_t>(), value, tied,
                             pairs.const_data_ptr<int32_t>(), scale, out, memory, device.stream())
                       : kernels::cuda::perturbed_topk_backward(
                             p, noise, v.const_data_ptr<scalar_t>(), b.const_data_ptr<scalar_t>(),
                             value, tied, leave_one_out, scale, out, memory, device.stream()));
  });
  return result;
}

at::Tensor topk_noise_cuda(const at::Tensor& key, int64_t num_samples, int64_t rows, int64_t sites,
                           std::string_view noise_name, int64_t row_offset) {
  check_noise_arguments("topk_noise", key, num_samples, rows, sites, row_offset);
  const auto noise = parse_noise("topk_noise", noise_name);
  const OnDeviceOf device(key);
  at::Tensor result = at::empty({num_samples, rows, sites}, key.options().dtype(at::kFloat));
  if (result.numel() == 0) return result;
  const at::Tensor words = key.contiguous();
  C10_CUDA_CHECK(kernels::cuda::topk_noise(words.const_data_ptr<int64_t>(), noise, num_samples,
                                           rows, sites, row_offset,
                                           result.mutable_data_ptr<float>(), device.stream()));
  return result;
}

at::Tensor topk_noise_checksum_cuda(const at::Tensor& key, int64_t num_samples, int64_t rows,
                                    int64_t sites, std::string_view noise_name,
                                    int64_t row_offset) {
  check_noise_arguments("topk_noise_checksum", key, num_samples, rows, sites, row_offset);
  const auto noise = parse_noise("topk_noise_checksum", noise_name);
  const OnDeviceOf device(key);
  at::Tensor result = at::empty({rows}, key.options());
  if (num_samples == 0 || rows == 0 || sites == 0) return result.fill_(0);
  const at::Tensor words = key.contiguous();
  C10_CUDA_CHECK(kernels::cuda::topk_noise_checksum(
      words.const_data_ptr<int64_t>(), noise, num_samples, rows, sites, row_offset,
      result.mutable_data_ptr<int64_t>(), device.stream()));
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(topreach, CUDA, m) {
  m.impl("perturbed_topk", perturbed_topk_cuda);
  m.impl("perturbed_topk_backward", perturbed_topk_backward_cuda);
  m.impl("topk_noise", topk_noise_cuda);
  m.impl("topk_noise_checksum", topk_noise_checksum_cuda);
}

}  // namespace topreach
