// Argument checks of expected_topk, the same on every device.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

namespace topreach {

enum class ExpectedTopKMethod { kExact, kMeanField };

ExpectedTopKMethod check_expected_topk(const at::Tensor& scores, int64_t k, double sigma,
                                       std::string_view method);

// The same, and checks that the shapes of v and bounds fit scores.
ExpectedTopKMethod check_expected_topk_jvp(const at::Tensor& v, const at::Tensor& scores,
                                           const at::Tensor& bounds, int64_t k, double sigma,
                                           std::string_view method);

// An empty tensor [..., 2] of float64 for scores [..., S].
at::Tensor bounds_like(const at::Tensor& scores);

}  // namespace topreach
