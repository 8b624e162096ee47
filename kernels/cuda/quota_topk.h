// Launchers of top-K under quotas; ../programs/quota_topk.h and quota_exchange.h have the equations.
//
// All pointers are device memory, those of QuotaSteps too, rows contiguous. Nothing here waits for the
// device, allocates or uses floating-point atomics; equal arguments give equal bits, whatever the other
// rows. A row that the CPU refuses (a NaN, or a plan that would need a site of score -inf) gets NaN
// results. Each function returns the first launch error.
#pragma once

#include <cstdint>

#include "../programs/quota_steps.h"
#include "runtime.h"

namespace topreach::kernels::cuda {

// mask [rows, S] of the best plans for scores [rows, S]. A score of +inf is refused too if `finite`.
template <typename T>
cudaError_t quota_topk(const QuotaSteps& steps, const T* scores, int64_t rows, bool finite, T* mask,
                       cudaStream_t stream);

template <typename T>
struct PerturbedQuotaProblem {
  QuotaSteps steps;  // of disjoint groups if `conditional`
  const T* scores;   // [rows, S]
  const T* mask;     // [rows, S], quota_topk of the scores, with finite = conditional
  int64_t rows;      // > 0
  double sigma;      // > 0
  int64_t draws;
  const int64_t* key;  // [2], taken modulo 2^32
  int64_t row_offset;  // global number of row 0
  bool conditional;
  const T* v;           // [rows, S]; null in forward
  const T* membership;  // [rows, S], the result of forward; null in forward
};

// Bytes of `workspace`: for the sums of every row, and for the draws that are in work at one time.
template <typename T>
int64_t perturbed_quota_topk_workspace(const PerturbedQuotaProblem<T>& problem);

// Forward: the share of plans, or the conditional estimate, of each site. Backward: its
// vector-Jacobian product for v.
template <typename T>
cudaError_t perturbed_quota_topk(const PerturbedQuotaProblem<T>& problem, T* out, void* workspace,
                                 cudaStream_t stream);

template <typename T>
struct ExpectedQuotaProblem {
  QuotaSteps steps;      // of disjoint groups
  const T* scores;       // [rows, S]
  const T* mask;         // [rows, S], quota_topk of the scores, with finite
  const double* sorted;  // [rows, S]: the scores ascending, -inf those of sites that are locked
  const T* v;            // [rows, S], or null for the value
  int64_t rows;          // > 0
  double sigma;          // > 0
};

// Bytes of `workspace`.
template <typename T>
int64_t expected_quota_topk_workspace(const ExpectedQuotaProblem<T>& problem);

// out [rows, S]: the value; or, with v, the Jacobian-vector product.
template <typename T>
cudaError_t expected_quota_topk(const ExpectedQuotaProblem<T>& problem, T* out, void* workspace,
                                cudaStream_t stream);

}  // namespace topreach::kernels::cuda
