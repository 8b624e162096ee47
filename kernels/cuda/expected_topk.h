// Launchers of the expected top-K; ../expected_topk.h has the equations and the method.
//
// All pointers are device memory, rows contiguous. Nothing here waits for the device, allocates or
// uses floating-point atomics: launches can be captured in a CUDA graph, and equal arguments give
// equal bits. A row with a NaN score gets NaN results. Each function returns the first launch error.
#pragma once

#include <cstdint>

#include "runtime.h"

namespace topreach::kernels::cuda {

template <typename T>
struct ExpectedTopKProblem {
  const T* scores;  // [rows, sites]
  const T* v;       // [rows, sites], or null for the value
  int64_t rows;     // > 0
  int64_t sites;    // below 2^31
  int64_t k;        // 0 < k < sites
  double sigma;     // > 0
};

// Bytes of `workspace` for expected_topk_exact.
int64_t expected_topk_workspace(int64_t rows, int64_t sites);

// bounds [rows, 2]: the K-th and (K+1)-th largest score.
template <typename T>
cudaError_t expected_topk_bounds(const ExpectedTopKProblem<T>& problem, double* bounds,
                                 cudaStream_t stream);

// out [rows, sites]: the value, rows of certain choice left as they are; or, with v, the
// Jacobian-vector product.
template <typename T>
cudaError_t expected_topk_exact(const ExpectedTopKProblem<T>& problem, const double* bounds, T* out,
                                void* workspace, cudaStream_t stream);

// The same by mean field. The value replaces bounds by (tau, tau), NaN for rows of certain choice,
// which v then needs.
template <typename T>
cudaError_t expected_topk_mean_field(const ExpectedTopKProblem<T>& problem, double* bounds, T* out,
                                     cudaStream_t stream);

}  // namespace topreach::kernels::cuda
