// Argument checks of perturbed_topk and its noise, the same on every device.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

#include "common.h"

namespace topreach {

void check_perturbed_topk(const at::Tensor& scores, int64_t k, double sigma, int64_t num_samples,
                          std::string_view estimator, const at::Tensor& key, int64_t row_offset);

// The same, and checks that the arguments of backward have the shapes of scores and of its draws.
void check_perturbed_topk_backward(const at::Tensor& grad, const at::Tensor& scores,
                                   const at::Tensor& membership, const at::Tensor& threshold,
                                   const at::Tensor& last_tied, const at::Tensor& boundary,
                                   int64_t k, double sigma, int64_t num_samples,
                                   std::string_view estimator, const at::Tensor& key,
                                   int64_t row_offset);

// Philox counters hold row numbers in 32 bits.
void check_row_range(const char* function, int64_t row_offset, int64_t rows);

// Arguments of topk_noise and topk_noise_checksum.
void check_noise_arguments(const char* function, const at::Tensor& key, int64_t num_samples,
                           int64_t rows, int64_t sites, int64_t row_offset);

// An empty tensor [..., num_samples] for scores [..., S].
at::Tensor per_draw(const at::Tensor& scores, int64_t num_samples, at::ScalarType dtype);

// The same for the boundary, [..., num_samples, 2] if the estimator has one, else [..., 0, 2].
at::Tensor empty_boundary(const at::Tensor& scores, int64_t num_samples,
                          std::string_view estimator);

// Whether the result is the hard mask, whose gradient is zero. sigma counts as 0 if 1 / sigma
// overflows in the scores' dtype.
bool is_hard(const at::Tensor& scores, int64_t k, double sigma);

}  // namespace topreach
