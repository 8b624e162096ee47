// Argument checks of the operators that take a budget or a noise scale for each row.
#pragma once

#include <ATen/core/Tensor.h>

namespace topreach {

// The budgets as int64 of the leading shape of scores, contiguous. Raises for another shape, dtype
// or device; the values are checked where they can be read.
at::Tensor check_row_k(const at::Tensor& scores, const at::Tensor& k);

}  // namespace topreach
