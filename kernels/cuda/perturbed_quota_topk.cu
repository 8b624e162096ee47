// Perturbed top-K under quotas on CUDA; ../programs/quota_exchange.h has the conditional estimator.
//
// Kernels, a wave of draws at a time:
//   quota_draws   one block a (row, draw): noise, best plan, what the draw adds to each site
//   add_draws     one thread a (row, site): sums over the wave's draws, rounded as on the CPU: blocks
//                 of kDrawBlock in order, in float64
// and finish_rows. Memory: O(S) a row, and for the wave kWaveBytes, or ten draws if they need more.
//
// Bits: plans, and value and gradient of the conditional estimator, equal the CPU's. The gradient of
// score_loo equals the CPU's up to the rounding of b_j . v - b . v.
#include "quota_topk.h"

#include "../noise_density.h"
#include "quota_plan.cuh"

namespace topreach::kernels::cuda {
namespace {

constexpr unsigned kAllLanes = 0xFFFFFFFFu;

// A free group in one draw.
struct ExchangeGroup {
  int32_t best, worst;  // the best site that is not chosen, the worst that is; -1: none
  int32_t may_give, may_take;
};

// A wave's memory. Arrays of a draw follow those of the draw before.
template <typename T>
struct DrawMemory {
  double *total, *part;   // [rows, S]: sums over whole blocks of draws, and over the last one
  double* adds;           // [wave, S]
  T* u;                   // [wave, S]
  float* z;               // [wave, S]
  ExchangeGroup* groups;  // [wave, groups]
  unsigned char* fate;    // [wave, S]
};

template <typename T>
int64_t bytes_of_draw(const PerturbedQuotaProblem<T>& p) {
  return p.steps.sites * int64_t(sizeof(double) + sizeof(T) + sizeof(float) + 1) +
         p.steps.groups_count * int64_t(sizeof(ExchangeGroup));
}

template <typename T>
int64_t wave_of(const PerturbedQuotaProblem<T>& p) {
  const int64_t fit = kWaveBytes / bytes_of_draw(p), least = fit > kDrawBlock ? fit : kDrawBlock;
  const int64_t draws = p.rows * p.draws;
  return least < draws ? least : draws;
}

template <typename T>
DrawMemory<T> memory_of(const PerturbedQuotaProblem<T>& p, int64_t wave, void* workspace) {
  const int64_t sites = p.steps.sites;
  DrawMemory<T> m;
  m.total = static_cast<double*>(workspace);
  m.part = m.total + p.rows * sites;
  m.adds = m.part + p.rows * sites;
  m.u = reinterpret_cast<T*>(m.adds + wave * sites);
  m.z = reinterpret_cast<float*>(m.u + wave * sites);
  m.groups = reinterpret_cast<ExchangeGroup*>(m.z + wave * sites);
  m.fate = reinterpret_cast<unsigned char*>(m.groups + wave * p.steps.groups_count);
  return m;
}

struct DrawShared {
  SelectShared select;
  double sum[kDrawThreads];
  int32_t best, worst;
};

// The better of two sites for u, or the worse; -1 is none.
template <typename T>
struct BySites {
  const T* u;
  __device__ bool before(int32_t a, int32_t b) const {
    return u[a] > u[b] || (u[a] == u[b] && a < b);
  }
  __device__ int32_t better(int32_t a, int32_t b) const {
    return b < 0 || (a >= 0 && before(a, b)) ? a : b;
  }
  __device__ int32_t worse(int32_t a, int32_t b) const {
    return b < 0 || (a >= 0 && before(b, a)) ? a : b;
  }
  // Of a warp; lane 0 has the result.
  __device__ int32_t best_of_warp(int32_t a) const {
    for (int width = 16; width > 0; width /= 2)
      a = better(a, __shfl_down_sync(kAllLanes, a, unsigned(width)));
    return a;
  }
  __device__ int32_t worst_of_warp(int32_t a) const {
    for (int width = 16; width > 0; width /= 2)
      a = worse(a, __shfl_down_sync(kAllLanes, a, unsigned(width)));
    return a;
  }
};

// The boundaries of each group, a warp each, then of all groups.
template <typename T>
__device__ void find_exchanges(const QuotaSteps& steps, const T* scores, const T* u,
                               const unsigned char* fate, ExchangeGroup* groups,
                               DrawShared& shared) {
  const BySites<T> by{u};
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int warps = int(blockDim.x) / 32;
  for (int64_t g = warp; g < steps.groups_count; g += warps) {
    const QuotaFreeGroup group = steps.groups[g];
    int32_t best = -1, worst = -1, count = 0;
    for (int32_t i = group.begin + lane; i < group.end; i += 32) {
      const int32_t s = steps.order[i];
      if (!is_finite(scores[s])) continue;
      if (fate[s] == kChosen) {
        worst = by.worse(worst, s);
        ++count;
      } else {
        best = by.better(best, s);
      }
    }
    best = by.best_of_warp(best);
    worst = by.worst_of_warp(worst);
    for (int width = 16; width > 0; width /= 2)
      count += __shfl_down_sync(kAllLanes, count, unsigned(width));
    if (lane == 0) groups[g] = {best, worst, count > group.lower, count < group.upper};
  }
  __syncthreads();
  if (warp == 0) {
    int32_t best = -1, worst = -1;
    for (int64_t g = lane; g < steps.groups_count; g += 32) {
      if (groups[g].may_take != 0) best = by.better(best, groups[g].best);
      if (groups[g].may_give != 0) worst = by.worse(worst, groups[g].worst);
    }
    best = by.best_of_warp(best);
    worst = by.worst_of_warp(worst);
    if (lane == 0) {
      shared.best = best;
      shared.worst = worst;
    }
  }
  __syncthreads();
}

template <typename T>
__global__ void __launch_bounds__(kDrawThreads)
    quota_draws(PerturbedQuotaProblem<T> p, int64_t first, int64_t wave, DrawMemory<T> memory) {
  auto& shared = shared_memory<DrawShared>();
  const QuotaSteps& steps = p.steps;
  const int64_t sites = steps.sites, counters = counters_of(sites);
  const PhiloxKey key = load_key(p.key);
  const T sigma = T(p.sigma);
  for (int64_t item = blockIdx.x; item < wave; item += gridDim.x) {
    const int64_t row = (first + item) / p.draws;
    const auto draw = uint32_t(first + item - row * p.draws);
    const T* scores = p.scores + row * sites;
    const T* v = p.v == nullptr ? nullptr : p.v + row * sites;
    double* adds = memory.adds + item * sites;
    T* u = memory.u + item * sites;
    float* z = memory.z + item * sites;
    unsigned char* fate = memory.fate + item * sites;
    if (p.mask[row * sites] != p.mask[row * sites]) continue;  // refused: see finish_rows
    for (int64_t c = threadIdx.x; c < counters; c += blockDim.x) {
      const FourNoises n =
          noise_of_counter<Noise::kNormal>(key, uint32_t(c), draw, uint32_t(p.row_offset + row));
      const float values[4] = {n.z0, n.z1, n.z2, n.z3};
      int64_t s = first_site(c);
      for (int w = 0; w < 4; ++w, s += kTileLanes) {
        if (s >= sites) continue;
        z[s] = values[w];
        u[s] = fused(sigma, T(values[w]), scores[s]);
        adds[s] = 0.0;
      }
    }
    __syncthreads();
    best_plan(steps, u, fate, shared.select);
    if (!p.conditional) {
      double weight = 1.0;
      if (v != nullptr) {  // b_j . v - b . v
        const T* b = p.membership + row * sites;
        double sum = 0.0;
        for (int64_t s = threadIdx.x; s < sites; s += blockDim.x)
          sum += double(v[s]) * ((fate[s] == kChosen ? 1.0 : 0.0) - double(b[s]));
        shared.sum[threadIdx.x] = sum;
        for (int width = kDrawThreads / 2; width > 0; width /= 2) {
          __syncthreads();
          const int t = int(threadIdx.x), other = t + width;
          if (t < width && other < int(blockDim.x)) shared.sum[t] += shared.sum[other];
        }
        __syncthreads();
        weight = shared.sum[0];
      }
      for (int64_t s = threadIdx.x; s < sites; s += blockDim.x)
        adds[s] = v != nullptr ? weight * double(z[s]) : (fate[s] == kChosen ? 1.0 : 0.0);
    } else {
      ExchangeGroup* groups = memory.groups + item * steps.groups_count;
      find_exchanges(steps, scores, u, fate, groups, shared);
      const BySites<T> by{u};
      for (int64_t i = threadIdx.x; i < steps.count; i += blockDim.x) {
        const int32_t s = steps.order[i];
        if (steps.lock[s] != 0 || !is_finite(scores[s])) continue;
        const ExchangeGroup g = groups[steps.group[i]];
        const bool in = fate[s] == kChosen;
        const int32_t other = in ? (g.may_give != 0 ? by.better(g.best, shared.best) : g.best)
                                 : (g.may_take != 0 ? by.worse(g.worst, shared.worst) : g.worst);
        if (other < 0) {
          adds[s] = v == nullptr && in ? 1.0 : 0.0;
          continue;
        }
        const double x = (double(scores[other]) - double(scores[s])) / p.sigma + double(z[other]);
        adds[s] = v == nullptr ? upper_tail<Noise::kNormal>(x)
                               : density<Noise::kNormal>(x) * (double(v[s]) - double(v[other]));
      }
    }
    __syncthreads();
  }
}

// An item is one site of a row of which the wave has draws.
template <typename T>
__global__ void __launch_bounds__(kDrawThreads)
    add_draws(int64_t draws, int64_t sites, int64_t first, int64_t wave, DrawMemory<T> memory) {
  const int64_t end = first + wave, first_row = first / draws, rows = (end - 1) / draws + 1;
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = first_row * sites + int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
       i < rows * sites; i += step) {
    const int64_t row = i / sites, s = i - row * sites;
    const int64_t from = row * draws < first ? first : row * draws;
    const int64_t to = (row + 1) * draws < end ? (row + 1) * draws : end;
    double total = from == row * draws ? 0.0 : memory.total[i];
    double part = from == row * draws ? 0.0 : memory.part[i];
    for (int64_t j = from; j < to; ++j) {
      if ((j - row * draws) % kDrawBlock == 0) {
        total += part;
        part = 0.0;
      }
      part += memory.adds[(j - first) * sites + s];
    }
    memory.total[i] = total;
    memory.part[i] = part;
  }
}

template <typename T>
__global__ void __launch_bounds__(kDrawThreads)
    finish_rows(PerturbedQuotaProblem<T> p, double divisor, DrawMemory<T> memory, T* out) {
  const int64_t sites = p.steps.sites, step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < p.rows * sites; i += step) {
    const int64_t row = i / sites;
    const int32_t lock = p.steps.lock[i - row * sites];
    const bool back = p.v != nullptr;
    T result = T((memory.total[i] + memory.part[i]) / divisor);
    if (back && (!is_finite(p.scores[i]) || lock != 0)) result = T(0);
    if (!back && p.conditional && lock > 0) result = T(1);
    if (p.mask[row * sites] != p.mask[row * sites]) result = not_a_number<T>();
    out[i] = result;
  }
}

inline int64_t blocks_of(int64_t items) {
  return blocks_for((items + kDrawThreads - 1) / kDrawThreads);
}

}  // namespace

template <typename T>
int64_t perturbed_quota_topk_workspace(const PerturbedQuotaProblem<T>& p) {
  return 2 * p.rows * p.steps.sites * int64_t(sizeof(double)) + wave_of(p) * bytes_of_draw(p);
}

template <typename T>
cudaError_t perturbed_quota_topk(const PerturbedQuotaProblem<T>& p, T* out, void* workspace,
                                 cudaStream_t stream) {
  const int64_t sites = p.steps.sites, draws = p.rows * p.draws, most = wave_of(p);
  const DrawMemory<T> memory = memory_of(p, most, workspace);
  for (int64_t first = 0; first < draws; first += most) {
    const int64_t wave = most < draws - first ? most : draws - first;
    cudaError_t error = launch(quota_draws<T>, blocks_for(wave), draw_threads(sites, kDrawThreads),
                               sizeof(DrawShared), stream, p, first, wave, memory);
    if (error != cudaSuccess) return error;
    const int64_t rows = (first + wave - 1) / p.draws - first / p.draws + 1;
    error = launch(add_draws<T>, blocks_of(rows * sites), kDrawThreads, 0, stream, p.draws, sites,
                   first, wave, memory);
    if (error != cudaSuccess) return error;
  }
  const bool leave_one_out = p.v != nullptr && !p.conditional;
  const double count = double(leave_one_out ? p.draws - 1 : p.draws);
  return launch(finish_rows<T>, blocks_of(p.rows * sites), kDrawThreads, 0, stream, p,
                count * (p.v != nullptr ? p.sigma : 1.0), memory, out);
}

#define TR_INSTANTIATE(T)                                                                  \
  template int64_t perturbed_quota_topk_workspace<T>(const PerturbedQuotaProblem<T>&);     \
  template cudaError_t perturbed_quota_topk<T>(const PerturbedQuotaProblem<T>&, T*, void*, \
                                               cudaStream_t);
TR_INSTANTIATE(float)
TR_INSTANTIATE(double)
#undef TR_INSTANTIATE

}  // namespace topreach::kernels::cuda
