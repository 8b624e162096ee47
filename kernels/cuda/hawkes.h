// Launcher of the networked Hawkes likelihood; ../hawkes.h has the model and the method.
//
// All pointers are device memory. Nothing here waits for the device or allocates. Equal arguments give
// equal bits, whatever the grid. Results equal the CPU's up to rounding (1e-12 relative), because sums
// over events are taken in another order.
#pragma once

#include <cstdint>

#include "../hawkes.h"
#include "runtime.h"

namespace topreach::kernels::cuda {

struct HawkesBatch {
  HawkesProblem problem;     // its pointers are device memory
  HawkesItems items;         // likewise; `hessian` needs `gradient`
  int64_t count;             // R
  const int64_t* own_start;  // [M + 1]: where node v's events begin in `own`
  const int64_t* own;        // [N]: events by node, in order of time
  void* scratch;             // hawkes_scratch bytes for each block of the grid
  int64_t blocks;            // of the grid: items at work at one time
};

// Bytes for each block, a multiple of 64.
int64_t hawkes_scratch(const HawkesProblem& problem, bool hessian);

// The value, and gradient and Hessian if their arrays are given. Returns the launch error.
cudaError_t hawkes(const HawkesBatch& batch, cudaStream_t stream);

}  // namespace topreach::kernels::cuda
