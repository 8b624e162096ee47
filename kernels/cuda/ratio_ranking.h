// Launchers of the ratio ranking kernels; ../ratio_ranking.h has the equations.
//
// All pointers are device memory, contiguous. Nothing here waits for the device or allocates:
// launches can be captured in a CUDA graph, and equal arguments give equal bits. A row with a
// negative or non-finite sample gets a NaN ranking, and that sample a NaN weight. Each function
// returns the first launch error.
#pragma once

#include <cstdint>

#include "runtime.h"

namespace topreach::kernels::cuda {

template <typename T>
struct RatioProblem {
  const T* y;                    // [samples, rows, sites]
  int64_t samples, rows, sites;  // > 0
  T offset;                      // >= 0
};

// Bytes of `workspace` for any of the three functions below.
template <typename T>
int64_t ratio_ranking_workspace(int64_t samples, int64_t rows);

// ranking [rows, sites]
template <typename T>
cudaError_t ratio_ranking(const RatioProblem<T>& problem, T* ranking, void* workspace,
                          cudaStream_t stream);

// weights [samples, rows] of estimators "score" and "score_loo"; g, ranking [rows, sites].
template <typename T>
cudaError_t ratio_ranking_backward(const RatioProblem<T>& problem, const T* g, const T* ranking,
                                   bool leave_one_out, T* weights, void* workspace,
                                   cudaStream_t stream);

// weights [samples, rows, sites] of estimator "diagonal".
template <typename T>
cudaError_t ratio_ranking_backward_diagonal(const RatioProblem<T>& problem, const T* g, T* weights,
                                            void* workspace, cudaStream_t stream);

}  // namespace topreach::kernels::cuda
