// Argument checks of the negative binomial operators, the same on every device.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace topreach {

void check_negbin_parameters(const char* function, const at::Tensor& total_count,
                             const at::Tensor& logits);
void check_negbin_sample(const at::Tensor& total_count, const at::Tensor& logits,
                         int64_t num_samples, const at::Tensor& key, int64_t row_offset);
void check_negbin_log_prob(const at::Tensor& value, const at::Tensor& total_count,
                           const at::Tensor& logits);

// The three arguments of the log-probability as kernels take them: contiguous, value [outer, inner]
// (sizes `shape`), total_count and logits [inner].
struct NegBinOperands {
  at::Tensor value, total_count, logits;
  std::vector<int64_t> shape;
  int64_t outer, inner;
};
NegBinOperands negbin_operands(const at::Tensor& value, const at::Tensor& total_count,
                               const at::Tensor& logits);

}  // namespace topreach
