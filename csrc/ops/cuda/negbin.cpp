#include "../negbin.h"

#include <ATen/Dispatch.h>
#include <ATen/ExpandUtils.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <tuple>
#include <vector>

#include "../../../kernels/cuda/negbin.h"
#include "../../require.h"
#include "../common.h"
#include "../negbin_checks.h"
#include "launch.h"

namespace topreach {
namespace {

at::Tensor negbin_sample_cuda(const at::Tensor& total_count, const at::Tensor& logits,
                              int64_t num_samples, const at::Tensor& key, int64_t row_offset) {
  check_negbin_sample(total_count, logits, num_samples, key, row_offset);
  const OnDeviceOf device(total_count);
  const auto core = at::infer_size(total_count.sizes(), logits.sizes());
  const at::Tensor n = total_count.expand(core).contiguous(), z = logits.expand(core).contiguous();
  const at::Tensor words = key.contiguous();
  std::vector<int64_t> shape{num_samples};
  shape.insert(shape.end(), core.begin(), core.end());
  at::Tensor counts = at::empty(shape, n.options());
  if (counts.numel() == 0) return counts;
  const auto [rows, sites] = core.empty() ? Rows{1, 1} : rows_of(n);
  TR_REQUIRE(sites < INT32_MAX,
             "negbin_sample: total_count must have fewer than 2^31 sites, got {}", sites);
  AT_DISPATCH_FLOATING_TYPES(n.scalar_type(), "negbin_sample", [&, rows = rows, sites = sites] {
    C10_CUDA_CHECK(kernels::cuda::negbin_sample<scalar_t>(
        {n.const_data_ptr<scalar_t>(), z.const_data_ptr<scalar_t>(), rows, sites, num_samples,
         words.const_data_ptr<int64_t>(), row_offset, counts.mutable_data_ptr<scalar_t>()},
        device.stream()));
  });
  return counts;
}

template <typename T>
kernels::NegBinLikelihood<T> problem_of(const NegBinOperands& in) {
  return {in.value.const_data_ptr<T>(), in.total_count.const_data_ptr<T>(),
          in.logits.const_data_ptr<T>(), in.outer, in.inner};
}

at::Tensor negbin_log_prob_cuda(const at::Tensor& value, const at::Tensor& total_count,
                                const at::Tensor& logits) {
  check_negbin_log_prob(value, total_count, logits);
  const OnDeviceOf device(total_count);
  const NegBinOperands in = negbin_operands(value, total_count, logits);
  at::Tensor log_prob = at::empty(in.shape, in.total_count.options());
  if (log_prob.numel() == 0) return log_prob;
  AT_DISPATCH_FLOATING_TYPES(log_prob.scalar_type(), "negbin_log_prob", [&] {
    C10_CUDA_CHECK(kernels::cuda::negbin_log_prob(
        problem_of<scalar_t>(in), log_prob.mutable_data_ptr<scalar_t>(), device.stream()));
  });
  return log_prob;
}

std::tuple<at::Tensor, at::Tensor> negbin_log_prob_backward_cuda(const at::Tensor& grad,
                                                                 const at::Tensor& value,
                                                                 const at::Tensor& total_count,
                                                                 const at::Tensor& logits) {
  const OnDeviceOf device(total_count);
  const NegBinOperands in = negbin_operands(value, total_count, logits);
  const at::Tensor g = grad.expand(in.shape).contiguous();
  at::Tensor d_total_count = at::empty_like(in.total_count), d_logits = at::empty_like(in.logits);
  if (in.inner > 0) {
    AT_DISPATCH_FLOATING_TYPES(g.scalar_type(), "negbin_log_prob_backward", [&] {
      C10_CUDA_CHECK(kernels::cuda::negbin_log_prob_backward(
          problem_of<scalar_t>(in), g.const_data_ptr<scalar_t>(),
          d_total_count.mutable_data_ptr<scalar_t>(), d_logits.mutable_data_ptr<scalar_t>(),
          device.stream()));
    });
  }
  return {at::sum_to(d_total_count, total_count.sizes()), at::sum_to(d_logits, logits.sizes())};
}

}  // namespace

TORCH_LIBRARY_IMPL(topreach, CUDA, m) {
  m.impl("negbin_sample", negbin_sample_cuda);
  m.impl("negbin_log_prob", negbin_log_prob_cuda);
  m.impl("negbin_log_prob_backward", negbin_log_prob_backward_cuda);
}

}  // namespace topreach
