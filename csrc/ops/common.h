// Checks and names that several operators share.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "../../kernels/noise.h"

namespace topreach {

// [..., S] seen as rows of S.
struct Rows {
  int64_t rows, sites;
};
Rows rows_of(const at::Tensor& tensor);

kernels::Noise parse_noise(const char* function, std::string_view noise);

// Raises unless `scores` is a float32 or float64 tensor [..., S] and 0 <= k <= S.
void check_scores(const char* function, const at::Tensor& scores, int64_t k);

// Raises unless `key` is int64[2] on `device`.
void check_key(const char* function, const at::Tensor& key, at::Device device);

// Raises unless `tensor` is defined.
void check_defined(const char* function, const char* argument, const at::Tensor& tensor);

// The shape to which two shapes broadcast; raises, naming `argument`, if they do not.
std::vector<int64_t> check_broadcast(const char* function, const char* argument,
                                     at::IntArrayRef others, at::IntArrayRef shape);

// The key's words; `key` is on the CPU.
kernels::PhiloxKey key_words(const at::Tensor& key);

// Raises, naming the row and column, if a CPU tensor holds a NaN.
void check_no_nan(const char* function, const char* argument, const at::Tensor& tensor);

}  // namespace topreach
