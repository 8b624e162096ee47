// Ratio ranking on CUDA: r_s = (1/M) sum_m rho_s^m, rho^m = y^m / (c + 1.y^m), 0/0 := 0, and the
// weights of its score-function gradient; see ../ratio_ranking.h.
//
//   sum_lines       one block a (sample, row): 1 / (c + 1.y), or sum_s g_s rho_s; in the order of the
//                   CPU: 16 running sums over sites
//   average         one thread a (row, site): sum over samples, in blocks of kSampleBlock
//   site_weights    one thread a (sample, row, site), for "diagonal"
//
// Cost: forward reads the samples twice (the second time from cache if they fit), backward once; bound
// by memory, 8 M T S bytes forward for float. Memory: M T + T numbers. Bits: those of the CPU, for
// "score_loo" up to the rounding of its centre g . r (row_dot.cuh).
#include "ratio_ranking.h"

#include "../ratio_ranking.h"
#include "row_dot.cuh"

namespace topreach::kernels::cuda {
namespace {

constexpr int kThreads = 256, kLanes = 16, kEach = 4;  // a thread loads kEach sites at a time

template <typename T>
TR_HD bool is_count(T y) {
  return y >= T(0) && y <= T(sizeof(T) == 4 ? 0x1.fffffep127 : 0x1.fffffffffffffp1023);
}

// One half is loaded while lanes 0 to 15 add the other, sites ascending.
template <typename T>
struct LineShared {
  T y[2][kThreads * kEach], g[2][kThreads * kEach];
};

// out [samples, rows]: scale (g . rho - centre), or without g: 1 / (c + 1.y), 0 for 1/0.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    sum_lines(RatioProblem<T> p, const T* g, const T* centre, T scale, T* out) {
  auto& shared = shared_memory<LineShared<T>>();
  const int t = int(threadIdx.x), threads = int(blockDim.x), chunk = kEach * threads;
  int half = 0;
  for (int64_t line = blockIdx.x; line < p.samples * p.rows; line += gridDim.x) {
    const int64_t row = line % p.rows;
    const T* y = p.y + line * p.sites;
    T sum = T(0), dot = T(0);
    bool bad = false;
    for (int64_t first = 0; first < p.sites; first += chunk, half ^= 1) {
      for (int at = t; at < chunk; at += threads) {
        const int64_t s = first + at;
        const T count = s < p.sites ? y[s] : T(0);
        bad |= !is_count(count);
        shared.y[half][at] = count;
        if (g != nullptr) shared.g[half][at] = s < p.sites ? g[row * p.sites + s] : T(0);
      }
      __syncthreads();
      if (t >= kLanes) continue;
      for (int at = t; at < chunk; at += kLanes) {
        sum += shared.y[half][at];
        if (g != nullptr) dot = fused(shared.y[half][at], shared.g[half][at], dot);
      }
    }
    bad = __syncthreads_or(bad) != 0;
    if (t >= 32) continue;
    for (int width = kLanes / 2; width > 0; width /= 2) {
      sum += __shfl_down_sync(0xFFFFFFFFu, sum, unsigned(width), kLanes);
      dot += __shfl_down_sync(0xFFFFFFFFu, dot, unsigned(width), kLanes);
    }
    if (t != 0) continue;
    const T all = p.offset + sum;
    T inverse = all > T(0) ? T(1) / all : T(0);
    if (bad) inverse = T(float_of(0x7FC00000u));
    if (g == nullptr) {
      out[line] = inverse;
    } else {
      out[line] = scale * (dot * inverse - (centre != nullptr ? centre[row] : T(0)));
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    average(RatioProblem<T> p, const T* inverse, T* ranking) {
  const int64_t sites = p.rows * p.sites, step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < sites; i += step) {
    const int64_t row = i / p.sites;
    T total = T(0);
    for (int64_t begin = 0; begin < p.samples; begin += kSampleBlock) {
      const int64_t end = begin + kSampleBlock < p.samples ? begin + kSampleBlock : p.samples;
      T part = T(0);
      for (int64_t m = begin; m < end; ++m)
        part = fused(p.y[m * sites + i], inverse[m * p.rows + row], part);
      total += part;
    }
    ranking[i] = total / T(p.samples);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    site_weights(RatioProblem<T> p, const T* g, const T* inverse, T scale, T* weights) {
  const int64_t sites = p.rows * p.sites, step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < p.samples * sites; i += step)
    weights[i] = g[i % sites] * (p.y[i] * (inverse[i / p.sites] * scale));
}

template <typename T>
cudaError_t launch_sum_lines(const RatioProblem<T>& p, const T* g, const T* centre, T scale, T* out,
                             cudaStream_t stream) {
  return launch(sum_lines<T>, blocks_for(p.samples * p.rows),
                threads_for((p.sites + kEach - 1) / kEach, kThreads), sizeof(LineShared<T>), stream,
                p, g, centre, scale, out);
}

int64_t element_blocks(int64_t elements) {
  return blocks_for((elements + kThreads - 1) / kThreads);
}

}  // namespace

template <typename T>
int64_t ratio_ranking_workspace(int64_t samples, int64_t rows) {
  return samples * rows * int64_t(sizeof(T));
}

template <typename T>
cudaError_t ratio_ranking(const RatioProblem<T>& problem, T* ranking, void* workspace,
                          cudaStream_t stream) {
  T* inverse = static_cast<T*>(workspace);
  const cudaError_t error = launch_sum_lines<T>(problem, nullptr, nullptr, T(1), inverse, stream);
  if (error != cudaSuccess) return error;
  return launch(average<T>, element_blocks(problem.rows * problem.sites), kThreads, 0, stream,
                problem, inverse, ranking);
}

template <typename T>
cudaError_t ratio_ranking_backward(const RatioProblem<T>& problem, const T* g, const T* ranking,
                                   bool leave_one_out, T* weights, void* workspace,
                                   cudaStream_t stream) {
  T* centre = nullptr;
  if (leave_one_out) {
    centre = static_cast<T*>(workspace);
    const cudaError_t error =
        launch_row_dot(g, ranking, problem.rows, problem.sites, centre, stream);
    if (error != cudaSuccess) return error;
  }
  const T scale = T(1) / T(leave_one_out ? problem.samples - 1 : problem.samples);
  return launch_sum_lines<T>(problem, g, centre, scale, weights, stream);
}

template <typename T>
cudaError_t ratio_ranking_backward_diagonal(const RatioProblem<T>& problem, const T* g, T* weights,
                                            void* workspace, cudaStream_t stream) {
  T* inverse = static_cast<T*>(workspace);
  const cudaError_t error = launch_sum_lines<T>(problem, nullptr, nullptr, T(1), inverse, stream);
  if (error != cudaSuccess) return error;
  return launch(site_weights<T>, element_blocks(problem.samples * problem.rows * problem.sites),
                kThreads, 0, stream, problem, g, inverse, T(1) / T(problem.samples), weights);
}

#define TR_INSTANTIATE(T)                                                                          \
  template int64_t ratio_ranking_workspace<T>(int64_t, int64_t);                                   \
  template cudaError_t ratio_ranking<T>(const RatioProblem<T>&, T*, void*, cudaStream_t);          \
  template cudaError_t ratio_ranking_backward<T>(const RatioProblem<T>&, const T*, const T*, bool, \
                                                 T*, void*, cudaStream_t);                         \
  template cudaError_t ratio_ranking_backward_diagonal<T>(const RatioProblem<T>&, const T*, T*,    \
                                                          void*, cudaStream_t);
TR_INSTANTIATE(float)
TR_INSTANTIATE(double)
#undef TR_INSTANTIATE

}  // namespace topreach::kernels::cuda
