// Argument checks of the operators that take a budget or a noise scale for each row.
#pragma once

#include <ATen/core/Tensor.h>

namespace topreach {

// The budgets as int64 of the leading shape of scores, contiguous. Raises for another shape, dtype
// or device. Values are checked only on the CPU, where reading them does not wait for a device.
at::Tensor check_row_k(const at::Tensor& scores, const at::Tensor& k);

}  // namespace topreach
