// The exact expected top-K of a row on CUDA: sums over a block, and the integrals over thresholds
// and frequencies for points; see ../expected_topk.h. A block works on one row.
#pragma once

#include "../expected_topk.h"
#include "expected_topk.h"
#include "select.cuh"

namespace topreach::kernels::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kBatch = 64;               // frequencies at a time
constexpr int64_t kMostDirect = 8192;    // more cannot lie near rough thresholds
constexpr int64_t kMostRowBlocks = 256;  // bounds the workspace

// Units of a fixed-point sum of `sites` weights, which must stay below 2^63.
TR_HD double fixed_point(int64_t sites) { return sites < (1 << 24) ? 0x1p38 : 0x1p31; }

using Word64 = unsigned long long;  // the type of CUDA's 64-bit atomics

struct ExactShared {
  SelectShared select;
  double sum[3][kThreads];
  Word64 fixed[2][kGridSize];
  double grid[2][kGridSize];  // weights; later the table of results
  int32_t node[kGridSize];    // of a grid point among the points, or -1
  Word64 above, active;
  int32_t count[kThreads];
  TopKFrequency frequency[kBatch];
  ComplexDouble e[kBatch], ef[kBatch], ev[kBatch];
};

// The block's sums of three values of its threads; every thread gets them.
struct BlockSums {
  double a, b, c;
};

__device__ inline BlockSums block_sum(BlockSums own, double (&sum)[3][kThreads]) {
  const int t = int(threadIdx.x);
  __syncthreads();
  sum[0][t] = own.a;
  sum[1][t] = own.b;
  sum[2][t] = own.c;
  for (int width = kThreads / 2; width > 0; width /= 2) {
    __syncthreads();
    if (t < width)
      for (int i = 0; i < 3; ++i) sum[i][t] += sum[i][t + width];
  }
  __syncthreads();
  return {sum[0][0], sum[1][0], sum[2][0]};
}

__device__ inline double block_max(double own, double (&sum)[3][kThreads]) {
  const int t = int(threadIdx.x);
  __syncthreads();
  sum[0][t] = own;
  for (int width = kThreads / 2; width > 0; width /= 2) {
    __syncthreads();
    if (t < width && sum[0][t + width] > sum[0][t]) sum[0][t] = sum[0][t + width];
  }
  __syncthreads();
  return sum[0][0];
}

// The first node and the Lagrange weights of one active site.
struct Stencil {
  int node;
  double weight[kGridOrder];
};

__device__ inline Stencil stencil_of(double x, const TopKFrame& frame) {
  Stencil s;
  const double q = (x - frame.grid_origin()) * kGridPerSigma;
  const int below = int(q);
  s.node = below - (kGridOrder / 2 - 1);
  const double theta = q - double(below);
  double left = 1.0, right = 1.0;
  for (int m = 0; m < kGridOrder; ++m) {
    s.weight[m] = left * lagrange_factor(m);
    left *= theta - double(m - (kGridOrder / 2 - 1));
  }
  for (int m = kGridOrder - 1; m >= 0; --m) {
    s.weight[m] *= right;
    right *= theta - double(m - (kGridOrder / 2 - 1));
  }
  return s;
}

__device__ inline bool is_active(double x, const TopKFrame& frame) {
  return x >= -frame.limit() && x <= frame.limit();
}

TR_HD double to_probability(double b) { return b < 0.0 ? 0.0 : (b > 1.0 ? 1.0 : b); }

TR_HD double quiet_nan() { return double(float_of(0x7FC00000u)); }

// As on the CPU (../cpu/expected_topk.cpp), but all points have weights.
struct Points {
  double *x, *w, *wv, *p, *f, *first[2], *second, *self;
  int32_t* site;  // of a direct point
  int64_t count, grid_end;

  __device__ Points(void* memory, int64_t capacity) : count(0), grid_end(0) {
    double* next = static_cast<double*>(memory);
    double** const arrays[kArrays] = {&x, &w, &wv, &p, &f, &first[0], &first[1], &second, &self};
    for (double** array : arrays) {
      *array = next;
      next += capacity;
    }
    site = reinterpret_cast<int32_t*>(next);
  }
  static constexpr int kArrays = 9;
  TR_HD static int64_t bytes(int64_t capacity) {
    return capacity * int64_t(kArrays * sizeof(double) + sizeof(int64_t));
  }
};

TR_HD int64_t capacity_of(int64_t sites) {
  return kGridSize + (sites < kMostDirect ? sites : kMostDirect);
}

// Leaves P and f of threshold t in points.p and points.f.
__device__ inline TopKMoments moments_at(const Points& points, double t, ExactShared& shared) {
  BlockSums own{0, 0, 0};
  for (int64_t i = threadIdx.x; i < points.count; i += blockDim.x) {
    const double x = points.x[i] - t, w = points.w[i], p = normal_cdf(x), f = normal_pdf(x);
    points.p[i] = p;
    points.f[i] = f;
    own.a += w * p;
    own.b += w * (p * (1.0 - p));
    own.c += w * f;
  }
  const BlockSums sum = block_sum(own, shared.sum);
  return {sum.a, sum.b, sum.c};
}

// Lists the grid's used nodes in order; returns how many.
__device__ inline int list_nodes(ExactShared& shared) {
  const auto& w = shared.grid[0];
  __syncthreads();
  if (threadIdx.x == 0) {
    int32_t next = 0;
    for (int node = 0; node < kGridSize; ++node) {
      const bool used = w[node] != 0.0 || (node > 0 && w[node - 1] != 0.0) ||
                        (node + 1 < kGridSize && w[node + 1] != 0.0);
      shared.node[node] = used ? next++ : -1;
    }
    shared.count[0] = next;
  }
  __syncthreads();
  const int count = shared.count[0];
  __syncthreads();
  return count;
}

__device__ inline void add_grid(Points& points, const TopKFrame& frame, int nodes,
                                const ExactShared& shared) {
  for (int node = int(threadIdx.x); node < kGridSize; node += int(blockDim.x)) {
    const int at = shared.node[node];
    if (at < 0) continue;
    points.x[at] = frame.grid_position(node);
    points.w[at] = shared.grid[0][node];
    points.wv[at] = shared.grid[1][node];
  }
  points.count = points.grid_end = nodes;
  __syncthreads();
}

// Appends the sites in [low, high], in order; returns whether there was room for them.
template <typename T>
__device__ bool add_direct(Points& points, const T* scores, const T* v, int64_t sites,
                           const TopKFrame& frame, double low, double high, int64_t capacity,
                           ExactShared& shared) {
  const int t = int(threadIdx.x), threads = int(blockDim.x);
  for (int64_t base = 0; base < sites; base += threads) {
    const int64_t s = base + t;
    const double x = s < sites ? frame.position(double(scores[s])) : kInfinity;
    const bool direct = s < sites && x >= low && x <= high;
    shared.count[t] = direct ? 1 : 0;
    __syncthreads();
    for (int width = 1; width < threads; width *= 2) {
      const int before = t >= width ? shared.count[t - width] : 0;
      __syncthreads();
      shared.count[t] += before;
      __syncthreads();
    }
    const int64_t total = shared.count[threads - 1];
    const int64_t at = points.count + shared.count[t] - 1;
    __syncthreads();
    if (points.count + total > capacity) return false;
    if (direct) {
      points.x[at] = x;
      points.w[at] = 1.0;
      points.wv[at] = v != nullptr ? double(v[s]) : 0.0;
      points.site[at] = int32_t(s);
    }
    points.count += total;
  }
  __syncthreads();
  return true;
}

// Takes the direct points off the grid. Integer sums: order does not matter.
__device__ inline void take_off_grid(const Points& points, const TopKFrame& frame, int64_t sites,
                                     double largest, ExactShared& shared) {
  const double unit = fixed_point(sites), to_fixed = largest > 0 ? unit / largest : 0.0;
  for (int64_t i = points.grid_end + threadIdx.x; i < points.count; i += blockDim.x) {
    const Stencil stencil = stencil_of(points.x[i], frame);
    for (int m = 0; m < kGridOrder; ++m) {
      atomicAdd(&shared.fixed[0][stencil.node + m], Word64(-int64_t(stencil.weight[m] * unit)));
      atomicAdd(&shared.fixed[1][stencil.node + m],
                Word64(-int64_t(stencil.weight[m] * (points.wv[i] * to_fixed))));
    }
  }
  __syncthreads();
  for (int i = int(threadIdx.x); i < kGridSize; i += int(blockDim.x)) {
    shared.grid[0][i] = double(int64_t(shared.fixed[0][i])) / unit;
    shared.grid[1][i] = double(int64_t(shared.fixed[1][i])) * (largest / unit);
  }
  __syncthreads();
}

// Returns whether the two checks hold, as on the CPU.
template <bool jvp>
__device__ bool integrate(Points& points, const TopKPlan& plan, double k, double active,
                          int refinement, ExactShared& shared) {
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  for (int64_t i = threadIdx.x; i < points.count; i += blockDim.x)
    points.first[0][i] = points.first[1][i] = points.second[i] = points.self[i] = 0.0;
  const double step = plan.step / refinement;
  double mass = 0;
  for (int direction = -1; direction <= 1; direction += 2) {
    for (int64_t node = direction < 0 ? 0 : 1;; ++node) {
      const double t = plan.middle + double(direction * node) * step;
      if (t < plan.low || t > plan.high) break;
      const TopKFrequencies w =
          frequencies_of(moments_at(points, t, shared), k, active, refinement);
      if (w.beyond) break;
      for (int first = 0; first < w.count; first += kBatch) {
        const int batch = w.count - first < kBatch ? w.count - first : kBatch;
        for (int l = warp; l < batch; l += kWarps) {
          const TopKFrequency omega = frequency_at((first + l + 0.5) * w.step);
          double part[6] = {};  // log modulus, angle, F, F_v
          for (int64_t i = lane; i < points.count; i += 32) {
            const TopKFactor c = factor_of(points.p[i], omega);
            const ComplexDouble r = reciprocal_factor(points.p[i], c.inverse, omega);
            const double f = points.f[i], own = points.w[i];
            part[0] += own * c.log_modulus;
            part[1] += own * c.angle;
            part[2] += own * f * r.re;
            part[3] += own * f * r.im;
            if constexpr (jvp) {
              part[4] += points.wv[i] * f * r.re;
              part[5] += points.wv[i] * f * r.im;
            }
          }
          for (int width = 16; width > 0; width /= 2)
            for (int i = 0; i < (jvp ? 6 : 4); ++i)
              part[i] += __shfl_down_sync(0xFFFFFFFFu, part[i], unsigned(width));
          if (lane != 0) continue;
          const ComplexDouble e = coefficient_of(part[0], part[1], k, omega, w.step);
          shared.frequency[l] = omega;
          shared.e[l] = e;
          shared.ef[l] = product(e, {part[2], part[3]});
          if constexpr (jvp) shared.ev[l] = product(e, {part[4], part[5]});
        }
        __syncthreads();
        for (int l = 0; l < batch; ++l) mass += step * shared.ef[l].re;
        for (int64_t i = threadIdx.x; i < points.count; i += blockDim.x) {
          const double p = points.p[i], f = points.f[i];
          double sum = 0, square = 0, v_sum = 0;
          for (int l = 0; l < batch; ++l) {
            const TopKFrequency omega = shared.frequency[l];
            const double x = 1.0 - p * omega.drop, y = p * omega.sine;
            const ComplexDouble r = reciprocal_factor(p, 1.0 / (x * x + y * y), omega);
            const ComplexDouble e = shared.e[l], ef = shared.ef[l];
            sum += ef.re * r.re - ef.im * r.im;  // Re(E F / c), Re(E / c^2), Re(E F_v / c)
            square += e.re * (r.re * r.re - r.im * r.im) - 2.0 * e.im * r.re * r.im;
            if constexpr (jvp) v_sum += shared.ev[l].re * r.re - shared.ev[l].im * r.im;
          }
          const double scaled = step * (jvp ? f : p);
          points.first[node % 2][i] += scaled * (sum - f * square);
          if constexpr (jvp) {
            points.second[i] += scaled * v_sum;
            points.self[i] += scaled * (f * square);
          }
        }
        __syncthreads();
      }
    }
  }
  double apart = 0;
  for (int64_t i = threadIdx.x; i < points.count; i += blockDim.x) {
    const double difference = 2.0 * (points.first[0][i] - points.first[1][i]);
    const double size = difference < 0.0 ? -difference : difference;
    // Nodes without weight, which direct sites have left, are skipped.
    if (size > apart && points.w[i] != 0.0) apart = size;
    points.first[0][i] += points.first[1][i];
  }
  return block_max(apart, shared.sum) <= kAgree && mass > 1 - kMass && mass < 1 + kMass;
}

}  // namespace
}  // namespace topreach::kernels::cuda
