// A CUDA launch on the host, for tests: blocks one after another, the threads of a block as fibers
// of one OS thread.
//
// A fiber runs until it must wait: at a block barrier, at a warp operation, or, if the order is random,
// sometimes before an atomic operation. These errors end the launch with a LaunchFailure that says where:
//   - a thread leaves, or waits elsewhere, while others wait at a block barrier;
//   - a lane named by the mask of a warp operation leaves, or waits elsewhere;
//   - a write just outside the block's shared memory.
//
// Shared memory starts as bytes 0xFF (NaN, -1), so that a value read before it is written shows.
// `schedule` sets the order in which threads and blocks run: a kernel whose result depends on it has a
// race. Launches that the hardware refuses return cudaErrorInvalidConfiguration.
//
// Not modelled: weak memory order, memory spaces, clocks, anything asynchronous.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>
#include <stdexcept>
#include <type_traits>

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9 };

inline cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t) {
  std::memset(memory, value, bytes);
  return cudaSuccess;
}

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__ __restrict

namespace cuda_emulation {

struct LaunchFailure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Order { kForward, kReverse, kRandom };

// The order of threads and blocks in the launches that follow.
void schedule(Order order, uint64_t seed = 0);

cudaError_t launch(int64_t grid, int64_t block, int64_t shared_bytes, cudaStream_t stream,
                   const std::function<void()>& thread);

struct Index {
  unsigned x = 0, y = 0, z = 0;
};
struct Extent {
  unsigned x = 1, y = 1, z = 1;
};

// Of the running thread.
extern Index thread_index, block_index;
extern Extent block_extent, grid_extent;

// The block's shared memory; fails if the launch gave less than `bytes`.
void* shared_memory(std::size_t bytes);

// Waits for all threads of the block; returns the OR of their votes.
bool sync_block(bool vote, std::source_location where);

// Waits for the lanes in `mask`; slot i of the result holds the bits of lane i.
const uint64_t* sync_warp(unsigned mask, uint64_t bits, std::source_location where);

// Maybe lets other threads run.
void before_atomic();

template <typename T>
uint64_t pack(T value) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <typename T>
T unpack(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

// Lane `source` of this thread's segment of `width` lanes, or this lane if `source` lies outside.
template <typename T>
T shuffle(unsigned mask, T value, int source, int width, std::source_location where) {
  const int lane = int(thread_index.x % 32), first = lane / width * width;
  const bool inside = source >= first && source < first + width;
  const uint64_t* slots = sync_warp(mask, pack(value), where);
  return inside ? unpack<T>(slots[source]) : value;
}

}  // namespace cuda_emulation

#define threadIdx (::cuda_emulation::thread_index)
#define blockIdx (::cuda_emulation::block_index)
#define blockDim (::cuda_emulation::block_extent)
#define gridDim (::cuda_emulation::grid_extent)

inline void __syncthreads(std::source_location where = std::source_location::current()) {
  ::cuda_emulation::sync_block(false, where);
}

inline int __syncthreads_or(int vote,
                            std::source_location where = std::source_location::current()) {
  return ::cuda_emulation::sync_block(vote != 0, where);
}

inline void __syncwarp(unsigned mask = 0xFFFFFFFFu,
                       std::source_location where = std::source_location::current()) {
  ::cuda_emulation::sync_warp(mask, 0, where);
}

inline unsigned __ballot_sync(unsigned mask, int vote,
                              std::source_location where = std::source_location::current()) {
  const uint64_t* slots = ::cuda_emulation::sync_warp(mask, vote != 0, where);
  unsigned ballot = 0;
  for (int lane = 0; lane < 32; ++lane)
    if ((mask >> lane & 1u) != 0 && slots[lane] != 0) ballot |= 1u << lane;
  return ballot;
}

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 std::source_location where = std::source_location::current()) {
  const int source = int(threadIdx.x % 32) - int(delta);
  return ::cuda_emulation::shuffle(mask, value, source, width, where);
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   std::source_location where = std::source_location::current()) {
  const int source = int(threadIdx.x % 32) + int(delta);
  return ::cuda_emulation::shuffle(mask, value, source, width, where);
}

template <typename T>
T atomicAdd(T* address, T value) {
  ::cuda_emulation::before_atomic();
  const T old = *address;
  *address = old + value;
  return old;
}

template <typename T>
T atomicMax(T* address, T value) {
  ::cuda_emulation::before_atomic();
  const T old = *address;
  *address = old < value ? value : old;
  return old;
}

template <typename T>
T atomicXor(T* address, T value) {
  ::cuda_emulation::before_atomic();
  const T old = *address;
  *address = old ^ value;
  return old;
}
