// Shared by the threads of a block in the Hawkes kernels: memory, sums and scans of a fixed order, search.
#pragma once

#include "hawkes.h"

#include "launch.cuh"

namespace topreach::kernels::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32;
constexpr unsigned kAll = 0xFFFFFFFFu;

struct HawkesShared {
  double part[kWarps];
  int64_t pieces;
};

// Arrays that the threads of a block share, in global memory.
struct Work {
  double *mark, *decay, *prefix, *rho;  // [N]; rho by place in the node's list of own events
  double *state, *adjoint0, *adjoint1;  // [M]
  double* reach;                        // [I]
  double *later0, *later1;              // [N], by place in the list: suffix sums of rho
  int64_t* next;                        // [M]
  HawkesPiece* piece;
  // For the Hessian. Of sources: their addition to P, its prefix sums in one row, and the derivatives of
  // their coefficients. Of own events: 1 / lambda^2 and the slope of lambda.
  double *gain, *row, *c1, *c2;  // [N]
  double *later2, *scale;        // [N], by place in the list
  double* slope;                 // [N, P]
  double* state_row;             // [q + 1, M]: R_v with marks and lags
  double* adjoint2;              // [M]
};

TR_HD int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

TR_HD Work work_of(const HawkesProblem& p, bool hessian, void* scratch, int64_t* bytes) {
  char* at = static_cast<char*>(scratch);
  int64_t used = 0;
  const int64_t nodes = p.places * p.types;
  const auto take = [&](int64_t size) {
    char* here = at == nullptr ? nullptr : at + used;
    used += aligned(size);
    return here;
  };
  const int64_t per_event = p.events * int64_t(sizeof(double)),
                per_node = nodes * int64_t(sizeof(double));
  Work w;
  w.mark = reinterpret_cast<double*>(take(per_event));
  w.decay = reinterpret_cast<double*>(take(per_event));
  w.prefix = reinterpret_cast<double*>(take(per_event));
  w.rho = reinterpret_cast<double*>(take(per_event));
  w.later0 = reinterpret_cast<double*>(take(per_event));
  w.later1 = reinterpret_cast<double*>(take(per_event));
  w.state = reinterpret_cast<double*>(take(per_node));
  w.adjoint0 = reinterpret_cast<double*>(take(per_node));
  w.adjoint1 = reinterpret_cast<double*>(take(per_node));
  w.reach = reinterpret_cast<double*>(take(p.places * int64_t(sizeof(double))));
  w.next = reinterpret_cast<int64_t*>(take(per_node));
  w.piece =
      reinterpret_cast<HawkesPiece*>(take(hawkes_most_pieces(p) * int64_t(sizeof(HawkesPiece))));
  const auto take_doubles = [&](int64_t count) {
    return reinterpret_cast<double*>(take(hessian ? count * int64_t(sizeof(double)) : 0));
  };
  for (double** array : {&w.gain, &w.row, &w.c1, &w.c2, &w.later2, &w.scale})
    *array = take_doubles(p.events);
  w.slope = take_doubles(p.events * hawkes_parameters(p));
  w.state_row = take_doubles(nodes * (p.marks_per_event + 1));
  w.adjoint2 = take_doubles(nodes);
  if (bytes != nullptr) *bytes = used;
  return w;
}

// Sum over the block, the same for all threads.
__device__ double block_sum(HawkesShared& shared, double x) {
  const int t = int(threadIdx.x);
  for (int width = 16; width > 0; width /= 2) x += __shfl_down_sync(kAll, x, unsigned(width));
  if (t % 32 == 0) shared.part[t / 32] = x;
  __syncthreads();
  double sum = 0.0;
  for (int i = 0; i < kWarps; ++i) sum += shared.part[i];
  __syncthreads();
  return sum;
}

// Sum over the threads before this one; `total` is the sum over all.
__device__ double block_scan(HawkesShared& shared, double x, double* total) {
  const int t = int(threadIdx.x), lane = t % 32;
  double sum = x;
  for (int width = 1; width < 32; width *= 2) {
    const double other = __shfl_up_sync(kAll, sum, unsigned(width));
    if (lane >= width) sum += other;
  }
  double before = __shfl_up_sync(kAll, sum, 1u);
  if (lane == 0) before = 0.0;
  if (lane == 31) shared.part[t / 32] = sum;
  __syncthreads();
  double all = 0.0;
  for (int i = 0; i < kWarps; ++i) {
    if (i == t / 32) before += all;
    all += shared.part[i];
  }
  __syncthreads();
  *total = all;
  return before;
}

// First place in [low, high) whose value is not before(value).
template <typename F>
__device__ int64_t partition(int64_t low, int64_t high, const F& before) {
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (before(middle)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace
}  // namespace topreach::kernels::cuda
