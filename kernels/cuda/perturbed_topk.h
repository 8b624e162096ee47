// Launchers of the perturbed top-K kernels. ../perturbed_topk.h has the equations and explains
// thresholds; perturbed_topk.cu has the method.
//
// All pointers are device memory, rows contiguous. Nothing here waits for the device, allocates or
// uses floating-point atomics: launches can be captured in a CUDA graph, and equal arguments give
// equal bits. A row with a NaN score gets NaN results. Each function returns the first launch error.
#pragma once

#include <cstdint>

#include "../noise.h"
#include "runtime.h"

namespace topreach::kernels::cuda {

template <typename T>
struct TopKProblem {
  const T* scores;  // [rows, sites]
  int64_t rows;     // > 0
  int64_t sites;    // below 2^31
  int64_t k;        // 0 < k < sites
  T sigma;          // > 0
  int64_t draws;
  const int64_t* key;  // [2], taken modulo 2^32
  int64_t row_offset;  // global number of row 0
};

// Bytes of `workspace` for any of the four functions that follow.
template <typename T>
int64_t perturbed_topk_workspace(int64_t rows, int64_t draws);

// membership [rows, sites]; value, last_tied [rows, draws].
template <typename T>
cudaError_t perturbed_topk(const TopKProblem<T>& problem, Noise noise, T* membership, T* value,
                           int32_t* last_tied, void* workspace, cudaStream_t stream);

// grad [rows, sites] = scale * sum_j (b_j . v - centre) score(z_j), zero where the score is infinite;
// centre = b . v if `leave_one_out`, else 0.
template <typename T>
cudaError_t perturbed_topk_backward(const TopKProblem<T>& problem, Noise noise, const T* v,
                                    const T* membership, const T* value, const int32_t* last_tied,
                                    bool leave_one_out, T scale, T* grad, void* workspace,
                                    cudaStream_t stream);

// The same two functions for the conditional estimator; boundary [rows, draws, 2].
template <typename T>
cudaError_t conditional_topk(const TopKProblem<T>& problem, Noise noise, T* membership, T* value,
                             int32_t* last_tied, int32_t* boundary, void* workspace,
                             cudaStream_t stream);

// grad [rows, sites] = scale * sum_j f(x) (v - v of the rival), zero where the score is infinite. A
// row whose boundary names no sites gets NaN.
template <typename T>
cudaError_t conditional_topk_backward(const TopKProblem<T>& problem, Noise noise, const T* v,
                                      const T* value, const int32_t* last_tied,
                                      const int32_t* boundary, T scale, T* grad, void* workspace,
                                      cudaStream_t stream);

// mask [rows, sites] of the k largest, 0 <= k <= sites; or of the row_k[row] largest if row_k [rows] is
// not null. A row whose row_k is outside 0..sites gets NaN.
template <typename T>
cudaError_t topk_mask(const T* scores, int64_t rows, int64_t sites, int64_t k, const int64_t* row_k,
                      T* mask, cudaStream_t stream);

// The noise itself, z [draws, rows, sites].
cudaError_t topk_noise(const int64_t* key, Noise noise, int64_t draws, int64_t rows, int64_t sites,
                       int64_t row_offset, float* z, cudaStream_t stream);

// XOR of the noise's bits over draws and sites, checksum [rows].
cudaError_t topk_noise_checksum(const int64_t* key, Noise noise, int64_t draws, int64_t rows,
                                int64_t sites, int64_t row_offset, int64_t* checksum,
                                cudaStream_t stream);

}  // namespace topreach::kernels::cuda
