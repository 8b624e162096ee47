// dot[row] = sum_s a[row, s] b[row, s] in double, one block a row, in an order that depends only on the
// size of the block. The CPU adds from left to right: the two differ by at most S eps sum |a b|, and
// hardly ever after rounding to float.
#pragma once

#include "launch.cuh"

namespace topreach::kernels::cuda {

constexpr int kRowThreads = 512;

struct RowDotShared {
  double sum[kRowThreads];
};

template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    row_dot(const T* a, const T* b, int64_t rows, int64_t sites, T* dot) {
  auto& shared = shared_memory<RowDotShared>();
  const int t = int(threadIdx.x), threads = int(blockDim.x);
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    double sum = 0;
    for (int64_t s = t; s < sites; s += threads)
      sum += double(a[row * sites + s]) * double(b[row * sites + s]);
    shared.sum[t] = sum;
    for (int width = kRowThreads / 2; width > 0; width /= 2) {
      __syncthreads();
      if (t < width && t + width < threads) shared.sum[t] += shared.sum[t + width];
    }
    if (t == 0) dot[row] = T(shared.sum[0]);
    __syncthreads();
  }
}

template <typename T>
cudaError_t launch_row_dot(const T* a, const T* b, int64_t rows, int64_t sites, T* dot,
                           cudaStream_t stream) {
  return launch(row_dot<T>, blocks_for(rows), threads_for(sites, kRowThreads), sizeof(RowDotShared),
                stream, a, b, rows, sites, dot);
}

}  // namespace topreach::kernels::cuda
