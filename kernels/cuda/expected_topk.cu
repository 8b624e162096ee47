// Expected top-K on CUDA, one block a row; see ../expected_topk.h for the method.
//
//   find_bounds     the K-th and (K+1)-th largest score, by radix selection
//   exact_rows      spreads the sites over the grid in shared memory, plans the thresholds, takes
//                   the integrals for the points, interpolates
//   mean_field_rows the same without the integrals
//
// Sums over sites are sums of 64-bit integers (weights times 2^38, v scaled to [-1, 1] first): the
// order of the atomics does not matter. They round by 4e-12 a site, far below the error bound.
// Other sums are trees of fixed shape. Results equal the CPU's up to rounding, not bit for bit.
//
// Cost of exact_rows: per row, 30 thresholds or so, each with 2 barriers a batch of 64 frequencies;
// a warp takes one frequency, its lanes the points. Some 20 frequencies x 80 to 430 points a
// threshold, 150 operations in double precision each: 0.2 to 1 ms a row on a data-centre GPU, bound
// by latency, and by double-precision throughput (1/64 of single) on consumer cards. 256 threads,
// 128 registers, 29 KB of shared memory: 2 blocks a multiprocessor. Memory: 9 doubles a point for
// each of at most 256 blocks.
#include "expected_topk_integral.cuh"

namespace topreach::kernels::cuda {
namespace {

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
    BlockSums own{0, 0, 0};
    for (int64_t i = threadIdx.x; i < points.count; i += blockDim.x) {
      const double f = normal_pdf(points.x[i] - plan.middle);
      own.a += f * points.wv[i];
      own.b += f * points.w[i];
    }
    const BlockSums sum = block_sum(own, shared.sum);
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

// The result of a row whose choice is certain: a value is left as it is, a product is zero.
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
        BlockSums own{0, 0, 0};
        for (int node = int(threadIdx.x); node < kGridSize; node += int(blockDim.x)) {
          const double x = frame.grid_position(node) - t;
          own.a += shared.grid[0][node] * normal_cdf(x);
          own.c += shared.grid[0][node] * normal_pdf(x);
        }
        const BlockSums sum = block_sum(own, shared.sum);
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
    BlockSums own{0, 0, 0};
    for (int64_t s = threadIdx.x; s < p.sites; s += blockDim.x) {
      own.a += density(s);
      own.b += density(s) * double(p.v[at + s]);
    }
    const BlockSums sum = block_sum(own, shared.sum);
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
