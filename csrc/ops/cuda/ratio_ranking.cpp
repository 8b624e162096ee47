#include "../ratio_ranking.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <optional>
#include <string_view>

#include "../../../kernels/cuda/ratio_ranking.h"
#include "../common.h"
#include "../ratio_ranking_checks.h"
#include "launch.h"

namespace topreach {
namespace {

template <typename T>
kernels::cuda::RatioProblem<T> problem_of(const at::Tensor& samples, double offset) {
  const auto [all_rows, sites] = rows_of(samples);
  return {samples.const_data_ptr<T>(), samples.size(0), all_rows / samples.size(0), sites,
          T(offset)};
}

at::Tensor ratio_ranking_cuda(const at::Tensor& samples, const std::optional<at::Tensor>& log_prob,
                              double offset, std::string_view estimator) {
  check_ratio_ranking(samples, log_prob, offset, estimator);
  const OnDeviceOf device(samples);
  const at::Tensor y = samples.contiguous();
  at::Tensor ranking = at::empty(y.sizes().slice(1), y.options());
  if (ranking.numel() == 0) return ranking;
  AT_DISPATCH_FLOATING_TYPES(y.scalar_type(), "ratio_ranking", [&] {
    const auto p = problem_of<scalar_t>(y, offset);
    const at::Tensor workspace =
        workspace_like(y, kernels::cuda::ratio_ranking_workspace<scalar_t>(p.samples, p.rows));
    C10_CUDA_CHECK(kernels::cuda::ratio_ranking(p, ranking.mutable_data_ptr<scalar_t>(),
                                                workspace.mutable_data_ptr(), device.stream()));
  });
  return ranking;
}

at::Tensor ratio_ranking_backward_cuda(const at::Tensor& grad, const at::Tensor& samples,
                                       const at::Tensor& ranking, double offset,
                                       std::string_view estimator) {
  check_ratio_ranking_backward(grad, samples, ranking, offset, estimator);
  const OnDeviceOf device(samples);
  const at::Tensor y = samples.contiguous(), g = grad.contiguous(), r = ranking.contiguous();
  const bool diagonal = estimator == "diagonal";
  at::Tensor weights =
      at::empty(diagonal ? y.sizes() : y.sizes().slice(0, y.dim() - 1), y.options());
  if (y.numel() == 0) return weights.fill_(0);
  AT_DISPATCH_FLOATING_TYPES(y.scalar_type(), "ratio_ranking_backward", [&] {
    const auto p = problem_of<scalar_t>(y, offset);
    const at::Tensor workspace =
        workspace_like(y, kernels::cuda::ratio_ranking_workspace<scalar_t>(p.samples, p.rows));
    scalar_t* w = weights.mutable_data_ptr<scalar_t>();
    if (diagonal) {
      C10_CUDA_CHECK(kernels::cuda::ratio_ranking_backward_diagonal(
          p, g.const_data_ptr<scalar_t>(), w, workspace.mutable_data_ptr(), device.stream()));
    } else {
      C10_CUDA_CHECK(kernels::cuda::ratio_ranking_backward(
          p, g.const_data_ptr<scalar_t>(), r.const_data_ptr<scalar_t>(), estimator == "score_loo",
          w, workspace.mutable_data_ptr(), device.stream()));
    }
  });
  return weights;
}

}  // namespace

TORCH_LIBRARY_IMPL(topreach, CUDA, m) {
  m.impl("ratio_ranking", ratio_ranking_cuda);
  m.impl("ratio_ranking_backward", ratio_ranking_backward_cuda);
}

}  // namespace topreach
