// Lets kernels be written once and run in two ways: compiled by nvcc, or compiled as C++ and run on
// the host by the emulation of tests/kernels/cuda_emulation, so that machines without a GPU test them.
//
// A kernel is a plain __global__ function. It is launched by launch(), takes its shared memory from
// shared_memory<T>() (dynamic, so that the emulation can poison it), and uses only the parts of CUDA
// that the emulation has: threadIdx, blockIdx, blockDim, gridDim, __syncthreads, __syncthreads_or,
// __syncwarp, __shfl_up_sync, __shfl_down_sync, __ballot_sync, atomicAdd, atomicMax and atomicXor.
#pragma once

#include <cstdint>

#include "../platform.h"
#include "runtime.h"

namespace topreach::kernels::cuda {

// Runs `kernel` on `grid` x `block` threads; the error is that of the launch alone, since nothing
// waits for the device.
template <typename... P, typename... A>
cudaError_t launch(void (*kernel)(P...), int64_t grid, int block, int64_t shared_bytes,
                   cudaStream_t stream, A... arguments) {
#if defined(TOPREACH_CUDA_EMULATION)
  return ::cuda_emulation::launch(grid, block, shared_bytes, stream,
                                  [&] { kernel(P(arguments)...); });
#else
  // clang-format off
  kernel<<<dim3(unsigned(grid)), dim3(unsigned(block)), size_t(shared_bytes), stream>>>(
      P(arguments)...);
  // clang-format on
  return cudaGetLastError();
#endif
}

#if defined(TOPREACH_CUDA_EMULATION)
template <typename T>
T& shared_memory() {
  return *static_cast<T*>(::cuda_emulation::shared_memory(sizeof(T)));
}
constexpr int64_t kMostBlocks = 7;  // few, so that the tests walk the loops over blocks
constexpr int64_t kWaveBytes = 1 << 15;
#else
template <typename T>
__device__ __forceinline__ T& shared_memory() {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  return *reinterpret_cast<T*>(shared_bytes);
}
constexpr int64_t kMostBlocks = 1 << 24;  // below the limit of the hardware, 2^31 - 1
constexpr int64_t kWaveBytes = 64 << 20;  // of the data in work at one time, if it can be split
#endif

// Blocks for `work` items, one item a block; the kernel's loop over the grid takes the rest.
inline int64_t blocks_for(int64_t work) { return work < kMostBlocks ? work : kMostBlocks; }

// Threads for `work` items: whole warps, at most `most`.
inline int threads_for(int64_t work, int most) {
  return work >= most ? most : int((work + 31) / 32 * 32);
}

}  // namespace topreach::kernels::cuda
