// Philox keys drawn from torch's generators, so that torch::manual_seed fixes them.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <optional>

namespace topreach {

/// Draws a key int64[2], both entries uniform on [0, 2^32), from `generator`, or from the default
/// generator of `device`. Python's `topreach.draw_key` makes the same call.
at::Tensor draw_key(std::optional<at::Generator> generator = std::nullopt,
                    at::Device device = at::kCPU);

/// Another key of the same kind, for a second source of noise: `stream` >= 1 numbers the sources. Raises
/// c10::ValueError unless `key` is int64[2].
at::Tensor derived_key(const at::Tensor& key, int64_t stream);

}  // namespace topreach
