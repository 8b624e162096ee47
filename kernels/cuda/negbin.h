// Launchers of the negative binomial kernels; ../negbin.h has the equations and the method.
//
// All pointers are device memory, contiguous. Nothing here waits for the device or allocates:
// launches can be captured in a CUDA graph, and equal arguments give equal bits, those of the CPU.
// If the CPU would raise for a value or parameter, the results that depend on it are NaN. Each
// function returns the launch error.
#pragma once

#include <cstdint>

#include "../negbin.h"
#include "runtime.h"

namespace topreach::kernels::cuda {

template <typename T>
struct NegBinSampling {
  const T* total_count;          // [rows, sites]
  const T* logits;               // [rows, sites]
  int64_t rows, sites, samples;  // > 0
  const int64_t* key;            // [2], taken modulo 2^32
  int64_t row_offset;            // global number of row 0
  T* counts;                     // [samples, rows, sites]
};

template <typename T>
cudaError_t negbin_sample(const NegBinSampling<T>& problem, cudaStream_t stream);

// log_prob [outer, inner]
template <typename T>
cudaError_t negbin_log_prob(const NegBinLikelihood<T>& problem, T* log_prob, cudaStream_t stream);

// grad [outer, inner] -> d_total_count, d_logits [inner], summed over outer.
template <typename T>
cudaError_t negbin_log_prob_backward(const NegBinLikelihood<T>& problem, const T* grad,
                                     T* d_total_count, T* d_logits, cudaStream_t stream);

}  // namespace topreach::kernels::cuda
