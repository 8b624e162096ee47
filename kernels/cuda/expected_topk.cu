// Expected top-K on CUDA, one block a row; see ../expected_topk.h for the method.
//
//   find_bounds     the K-th and (K+1)-th largest score, by radix selection
//   exact_rows      spreads the sites over the grid in shared memory, plans the thresholds, takes
//                   the integrals for the points, interpolates
//   mean_field_rows the same without the integrals
//
// Sums over sites are sums of 64-bit integers (weights times 2^38, v scaled to [-1, 1] first), so
// they do not depend on the order of the atomics; their rounding, 4e-12 a site, is far below the
// error bound. All else is summed by a tree of fixed shape. Results are those of the CPU up to
// rounding, not bit for bit.
//
// Cost of exact_rows: per row, 30 thresholds or so, each with 2 barriers a batch of 64 frequencies;
// a warp takes one frequency, its lanes the points. Some 20 frequencies x 80 to 430 points a
// threshold, 150 operations in double precision each: 0.2 to 1 ms a row on a data-centre GPU, bound
// by latency, and by double-precision throughput (1/64 of single) on consumer cards. 256 threads,
// 128 registers, 29 KB of shared memory: 2 blocks a multiprocessor. Memory: 9 doubles a point for
// each of at most 256 blocks.
#include "expected_topk.h"

#include "../expected_topk.h"
#include "select.cuh"

namespace topreach::kernels::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kBatch = 64;               // frequencies at a time
constexpr int64_t kMostDirect = 8192;    // more cannot lie near rough thresholds
constexpr int64_t kMostRowBlocks = 256;  // bounds the workspace

// Units of a fixed-point sum of `sites` weights, which must stay below 2^63.
TR_HD double fixed_point(int64_t sites) { return sites < (1 << 24) ? 0x1p38 : 0x1p31; }

using Word64 = unsigned long long;  // as CUDA's 64-bit atomics want it

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

// Sums of three values over the block, the same for all its threads.
struct Three {
  double a, b, c;
};

__device__ inline Three block_sum(Three own, double (&sum)[3][kThreads]) {
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

template <typename T>
__device__ bool block_has_nan(const T* scores, int64_t sites) {
  bool nan = false;
  for (int64_t s = threadIdx.x; s < sites; s += blockDim.x) nan |= scores[s] != scores[s];
  return __syncthreads_or(nan) != 0;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) find_bounds(ExpectedTopKProblem<T> p, double* bounds) {
  auto& shared = shared_memory<SelectShared>();
  using Image = decltype(image_of(T()));
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x) {
    const T* scores = p.scores + row * p.sites;
    double found[2] = {quiet_nan(), quiet_nan()};
    if (!block_has_nan(scores, p.sites)) {
      const auto images = [&](const auto& f) {
        for (int64_t s = threadIdx.x; s < p.sites; s += blockDim.x) f(image_of(scores[s]));
      };
      const UnknownBits<Image> all(0, ~Image{0});
      for (int i = 0; i < 2; ++i)
        found[i] = double(value_of(select_largest(images, uint32_t(p.k - 1 + i), all, shared).key));
    }
    if (threadIdx.x == 0) {
      bounds[2 * row] = found[0];
      bounds[2 * row + 1] = found[1];
    }
  }
}

// Spreads a row over shared.grid; returns the largest |v| of its active sites.
template <typename T>
__device__ double spread_row(const T* scores, const T* v, int64_t sites, const TopKFrame& frame,
                             ExactShared& shared) {
  double largest = 0;
  if (v != nullptr)
    for (int64_t s = threadIdx.x; s < sites; s += blockDim.x) {
      const double size = v[s] < T(0) ? -double(v[s]) : double(v[s]);
      if (size > largest && is_active(frame.position(double(scores[s])), frame)) largest = size;
    }
  largest = block_max(largest, shared.sum);
  const double unit = fixed_point(sites), to_fixed = largest > 0 ? unit / largest : 0.0;
  for (int i = int(threadIdx.x); i < kGridSize; i += int(blockDim.x))
    shared.fixed[0][i] = shared.fixed[1][i] = 0;
  if (threadIdx.x == 0) shared.above = shared.active = 0;
  __syncthreads();
  for (int64_t s = threadIdx.x; s < sites; s += blockDim.x) {
    const double x = frame.position(double(scores[s]));
    if (!is_active(x, frame)) {
      if (x > 0) atomicAdd(&shared.above, Word64{1});
      continue;
    }
    atomicAdd(&shared.active, Word64{1});
    const Stencil stencil = stencil_of(x, frame);
    for (int m = 0; m < kGridOrder; ++m) {
      const int64_t weight = int64_t(stencil.weight[m] * unit);
      atomicAdd(&shared.fixed[0][stencil.node + m], Word64(weight));
      if (v == nullptr) continue;
      const int64_t weighted = int64_t(stencil.weight[m] * (double(v[s]) * to_fixed));
      atomicAdd(&shared.fixed[1][stencil.node + m], Word64(weighted));
    }
  }
  __syncthreads();
  const double from_fixed = largest / unit;
  for (int i = int(threadIdx.x); i < kGridSize; i += int(blockDim.x)) {
    shared.grid[0][i] = double(int64_t(shared.fixed[0][i])) / unit;
    shared.grid[1][i] = double(int64_t(shared.fixed[1][i])) * from_fixed;
  }
  __syncthreads();
  return largest;
}

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
  Three own{0, 0, 0};
  for (int64_t i = threadIdx.x; i < points.count; i += blockDim.x) {
    const double x = points.x[i] - t, w = points.w[i], p = normal_cdf(x), f = normal_pdf(x);
    points.p[i] = p;
    points.f[i] = f;
    own.a += w * p;
    own.b += w * (p * (1.0 - p));
    own.c += w * f;
  }
  const Three sum = block_sum(own, shared.sum);
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

// Takes the direct points off the grid; integers, so that what is left does not depend on the
// order.
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
    // A node without weight is one that direct sites have left.
    if (size > apart && points.w[i] != 0.0) apart = size;
    points.first[0][i] += points.first[1][i];
  }
  return block_max(apart, shared.sum) <= kAgree && mass > 1 - kMass && mass < 1 + kMass;
}

// One row, soft and without NaN; the whole block.
template <typename T, bool jvp>
__device__ void solve_row(const T* scores, const T* v, int64_t sites, int64_t k, TopKFrame frame,
                          T* out, void* memory, ExactShared& shared) {
  const int64_t capacity = capacity_of(sites);
  Points points(memory, capacity);
  const double largest = spread_row(scores, v, sites, frame, shared);
  const double wanted = double(k - int64_t(shared.above)), active = double(shared.active);
  const double limit = frame.limit();
  const auto moments = [&](double t) { return moments_at(points, t, shared); };
  const auto log_mgf = [&](double t, double s) {
    const double growth = exponential_of(s);
    double own = 0;
    for (int64_t i = threadIdx.x; i < points.count; i += blockDim.x) {
      const double p = normal_cdf(points.x[i] - t);
      own += points.w[i] * natural_log((1.0 - p) + p * growth);
    }
    return block_sum({own, 0, 0}, shared.sum).a;
  };
  int nodes = list_nodes(shared);
  const bool all_direct = int64_t(shared.active) <= nodes;
  double low = -limit, high = limit;
  if (all_direct) {
    nodes = 0;
    add_direct(points, scores, v, sites, frame, low, high, capacity, shared);
  } else {
    add_grid(points, frame, nodes, shared);
  }
  const TopKPlan plan = plan_thresholds(moments, log_mgf, wanted, active, frame.threshold_limit());
  if (!all_direct) {
    low = plan.direct_low();
    high = plan.direct_high();
    if (plan.smooth() ||
        !add_direct(points, scores, v, sites, frame, low, high, capacity, shared)) {
      low = kInfinity;  // no site is direct
      high = -kInfinity;
      points.count = nodes;
    } else {
      take_off_grid(points, frame, sites, largest, shared);
      for (int node = int(threadIdx.x); node < kGridSize; node += int(blockDim.x))
        if (shared.node[node] >= 0) {
          points.w[shared.node[node]] = shared.grid[0][node];
          points.wv[shared.node[node]] = shared.grid[1][node];
        }
      __syncthreads();
    }
  }

  double shift = 0;
  if constexpr (jvp) {
    Three own{0, 0, 0};
    for (int64_t i = threadIdx.x; i < points.count; i += blockDim.x) {
      const double f = normal_pdf(points.x[i] - plan.middle);
      own.a += f * points.wv[i];
      own.b += f * points.w[i];
    }
    const Three sum = block_sum(own, shared.sum);
    if (sum.b > 0) shift = sum.a / sum.b;
    for (int64_t i = threadIdx.x; i < points.count; i += blockDim.x)
      points.wv[i] -= shift * points.w[i];
    __syncthreads();
  }
  for (int refinement = 1; refinement <= 8; refinement *= 2)
    if (integrate<jvp>(points, plan, wanted, active, refinement, shared)) break;

  __syncthreads();
  for (int node = int(threadIdx.x); node < kGridSize; node += int(blockDim.x)) {
    const int at = nodes > 0 ? shared.node[node] : -1;
    shared.grid[0][node] = at >= 0 ? points.first[0][at] + points.self[at] : 0.0;
    shared.grid[1][node] = at >= 0 ? points.second[at] : 0.0;
  }
  __syncthreads();
  const auto result = [&](int64_t s, double first, double second) {
    if constexpr (jvp) {
      return T(((double(v[s]) - shift) * first - second) / frame.sigma);
    } else {
      return T(to_probability(first));
    }
  };
  for (int64_t s = threadIdx.x; s < sites; s += blockDim.x) {
    const double x = frame.position(double(scores[s]));
    if (!is_active(x, frame)) {
      out[s] = !jvp && x > 0 ? T(1) : T(0);
      continue;
    }
    if (x >= low && x <= high) continue;
    const Stencil stencil = stencil_of(x, frame);
    double first = 0, second = 0;
    for (int m = 0; m < kGridOrder; ++m) {
      first += stencil.weight[m] * shared.grid[0][stencil.node + m];
      second += stencil.weight[m] * shared.grid[1][stencil.node + m];
    }
    out[s] = result(s, first, second);
  }
  // A site on the grid takes its own part with the rest, and it cancels; a direct site leaves it
  // out.
  for (int64_t i = points.grid_end + threadIdx.x; i < points.count; i += blockDim.x) {
    const double own = points.wv[i] * points.self[i];
    out[points.site[i]] =
        result(points.site[i], points.first[0][i], jvp ? points.second[i] - own : 0.0);
  }
}

// What a row without an uncertain choice gets: a value is left as it is, a product is zero.
template <typename T>
__device__ void write_certain(bool jvp, bool nan, int64_t sites, T* out) {
  if (!jvp) return;
  for (int64_t s = threadIdx.x; s < sites; s += blockDim.x) out[s] = nan ? T(quiet_nan()) : T(0);
}

template <typename T, bool jvp>
__global__ void __launch_bounds__(kThreads)
    exact_rows(ExpectedTopKProblem<T> p, const double* bounds, T* out, unsigned char* memory) {
  auto& shared = shared_memory<ExactShared>();
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x) {
    const int64_t at = row * p.sites;
    const bool nan = block_has_nan(p.scores + at, p.sites);
    const TopKFrame frame = frame_of(bounds[2 * row], bounds[2 * row + 1], p.sigma);
    if (nan || frame.hard()) {
      write_certain(jvp, nan, p.sites, out + at);
    } else {
      solve_row<T, jvp>(p.scores + at, jvp ? p.v + at : nullptr, p.sites, p.k, frame, out + at,
                        memory + blockIdx.x * Points::bytes(capacity_of(p.sites)), shared);
    }
    __syncthreads();
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    mean_field_value(ExpectedTopKProblem<T> p, double* bounds, T* out) {
  auto& shared = shared_memory<ExactShared>();
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x) {
    const T* scores = p.scores + row * p.sites;
    const TopKFrame frame = frame_of(bounds[2 * row], bounds[2 * row + 1], p.sigma);
    double tau = quiet_nan();
    if (!frame.hard()) {
      spread_row(scores, static_cast<const T*>(nullptr), p.sites, frame, shared);
      const double wanted = double(p.k - int64_t(shared.above));
      const auto moments = [&](double t) {
        Three own{0, 0, 0};
        for (int node = int(threadIdx.x); node < kGridSize; node += int(blockDim.x)) {
          const double x = frame.grid_position(node) - t;
          own.a += shared.grid[0][node] * normal_cdf(x);
          own.c += shared.grid[0][node] * normal_pdf(x);
        }
        const Three sum = block_sum(own, shared.sum);
        return TopKMoments{sum.a, 0.0, sum.c};
      };
      const double limit = frame.threshold_limit();
      tau = frame.centre + frame.sigma * solve_mean(moments, wanted, -limit, limit, 1e-13);
      for (int64_t s = threadIdx.x; s < p.sites; s += blockDim.x)
        out[row * p.sites + s] = T(normal_cdf((double(scores[s]) - tau) / p.sigma));
    }
    __syncthreads();
    if (threadIdx.x == 0) bounds[2 * row] = bounds[2 * row + 1] = tau;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    mean_field_product(ExpectedTopKProblem<T> p, const double* bounds, T* out) {
  auto& shared = shared_memory<ExactShared>();
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x) {
    const int64_t at = row * p.sites;
    const double tau = bounds[2 * row];
    const bool nan = block_has_nan(p.scores + at, p.sites);
    if (nan || tau != tau) {
      write_certain(true, nan, p.sites, out + at);
      continue;
    }
    const auto density = [&](int64_t s) {
      return normal_pdf((double(p.scores[at + s]) - tau) / p.sigma);
    };
    Three own{0, 0, 0};
    for (int64_t s = threadIdx.x; s < p.sites; s += blockDim.x) {
      own.a += density(s);
      own.b += density(s) * double(p.v[at + s]);
    }
    const Three sum = block_sum(own, shared.sum);
    const double centre = sum.a > 0 ? sum.b / sum.a : 0.0;
    for (int64_t s = threadIdx.x; s < p.sites; s += blockDim.x)
      out[at + s] = T(density(s) * (double(p.v[at + s]) - centre) / p.sigma);
  }
}

int64_t row_blocks(int64_t rows) {
  const int64_t most = kMostRowBlocks < kMostBlocks ? kMostRowBlocks : kMostBlocks;
  return rows < most ? rows : most;
}

}  // namespace

int64_t expected_topk_workspace(int64_t rows, int64_t sites) {
  return row_blocks(rows) * Points::bytes(capacity_of(sites));
}

template <typename T>
cudaError_t expected_topk_bounds(const ExpectedTopKProblem<T>& problem, double* bounds,
                                 cudaStream_t stream) {
  return launch(find_bounds<T>, blocks_for(problem.rows), kThreads, sizeof(SelectShared), stream,
                problem, bounds);
}

template <typename T>
cudaError_t expected_topk_exact(const ExpectedTopKProblem<T>& problem, const double* bounds, T* out,
                                void* workspace, cudaStream_t stream) {
  const auto kernel = problem.v != nullptr ? exact_rows<T, true> : exact_rows<T, false>;
  return launch(kernel, row_blocks(problem.rows), kThreads, sizeof(ExactShared), stream, problem,
                bounds, out, static_cast<unsigned char*>(workspace));
}

template <typename T>
cudaError_t expected_topk_mean_field(const ExpectedTopKProblem<T>& problem, double* bounds, T* out,
                                     cudaStream_t stream) {
  if (problem.v == nullptr)
    return launch(mean_field_value<T>, blocks_for(problem.rows), kThreads, sizeof(ExactShared),
                  stream, problem, bounds, out);
  return launch(mean_field_product<T>, blocks_for(problem.rows), kThreads, sizeof(ExactShared),
                stream, problem, bounds, out);
}

#define TR_INSTANTIATE(T)                                                                       \
  template cudaError_t expected_topk_bounds<T>(const ExpectedTopKProblem<T>&, double*,          \
                                               cudaStream_t);                                   \
  template cudaError_t expected_topk_exact<T>(const ExpectedTopKProblem<T>&, const double*, T*, \
                                              void*, cudaStream_t);                             \
  template cudaError_t expected_topk_mean_field<T>(const ExpectedTopKProblem<T>&, double*, T*,  \
                                                   cudaStream_t);
TR_INSTANTIATE(float)
TR_INSTANTIATE(double)
#undef TR_INSTANTIATE

}  // namespace topreach::kernels::cuda
