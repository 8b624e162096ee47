// The networked Hawkes likelihood on CUDA, a block an item; see ../hawkes.h for the method.
//
//   forward    for each piece: exps of its sources (one thread each), a scan of their discounted weights,
//              own events from the scan, sums by source (one thread a source node, in order of time)
//   backward   for each piece: a scan of w / lambda over own events, then the coefficient of each source
//              (one thread each) and the adjoints of R_v
//   marks      one warp a mark: sum over events of coefficient times mark
//
// No atomics; every sum has an order that depends on the thread count of a block alone, which is fixed.
// Memory per block: 6 N + 4 M doubles and the pieces.
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

// What the threads of a block share in global memory.
struct Work {
  double *mark, *decay, *prefix, *rho;  // [N]; rho by place in the node's list of own events
  double *state, *adjoint0, *adjoint1;  // [M]
  double* reach;                        // [I]
  double *later0, *later1;              // [N], by place in the list: suffix sums of rho
  int64_t* next;                        // [M]
  HawkesPiece* piece;
};

TR_HD int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

TR_HD Work work_of(const HawkesProblem& p, void* scratch, int64_t* bytes) {
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

// Sum over the threads before this one; `total` is that of all.
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

struct Walk {
  const HawkesBatch& b;
  const HawkesProblem& p;
  HawkesShared& shared;
  const Work w;
  const int64_t item, u, nodes, q, size;
  const double* z;
  const int t;
  double decay_rate, inverse;
  int64_t own_first, own_last;  // the node's own events in (b_0, b_B], places in b.own
  double value = 0.0;           // this thread's part
  int64_t failed;

  __device__ double own_time(int64_t n) const { return p.time[b.own[n]]; }

  __device__ double network(int64_t refresh, int64_t v) const {
    return w.reach[v / p.types] * hawkes_theta_of(p, refresh, u, v);
  }

  __device__ double piece_start(int64_t i) const {
    return i > 0 ? w.piece[i - 1].hi : (w.piece[i].block < 0 ? p.time[0] : p.edge[0]);
  }

  __device__ void start() {
    decay_rate = z[size - 1];
    inverse = 1.0 / decay_rate;
    failed = p.events;
    for (int64_t j = t; j < p.places; j += kThreads) {
      const double* exciting = z + 1 + p.covariates_per_node;
      w.reach[j] =
          exponential_lane(exciting[0] - exciting[1] * p.distance[u / p.types * p.places + j]);
    }
    for (int64_t v = t; v < nodes; v += kThreads) {
      w.state[v] = 0.0;
      w.next[v] = b.own_start[v];
    }
    own_first = partition(b.own_start[u], b.own_start[u + 1],
                          [&](int64_t n) { return !(own_time(n) > p.edge[0]); });
    own_last = partition(own_first, b.own_start[u + 1],
                         [&](int64_t n) { return own_time(n) <= p.edge[p.blocks]; });
    const bool cut = hawkes_needs_cutting(p, decay_rate);
    const int64_t history = p.events > 0 && p.time[0] < p.edge[0] ? 1 : 0;
    if (cut) {
      if (t == 0) shared.pieces = hawkes_cut(p, decay_rate, w.piece);
    } else {
      for (int64_t k = t; k <= p.blocks; k += kThreads) {
        const double lo = p.edge[k];
        const int64_t x = partition(0, p.events, [&](int64_t y) { return p.time[y] < lo; });
        w.piece[history + k] = {k < p.blocks ? p.edge[k + 1] : 0.0, x, k < p.blocks ? k : -1};
      }
      if (t == 0 && history != 0) w.piece[0] = {p.edge[0], 0, -1};
      if (t == 0) shared.pieces = p.blocks + history;
    }
    __syncthreads();
  }

  __device__ double base_rate(int64_t k) const {
    const double* y = hawkes_covariates(p, k, u);
    double linear = z[0];
    for (int64_t a = 0; a < p.covariates_per_node; ++a) linear = fused(z[1 + a], y[a], linear);
    return exponential_lane(linear);
  }

  // int exp(-delta_k s) ds over a source's rest of the piece, and its slope's part.
  __device__ DecayIntegrals<double> integrals(bool series, double length, double decay) const {
    const double x = decay_rate * length;
    return series ? decay_integrals_series(x, length, decay, decay_rate)
                  : decay_integrals_closed(x, decay, inverse);
  }

  // Own events in the piece: places in b.own.
  struct Own {
    int64_t first, last;
  };

  __device__ Own own_of(const HawkesPiece& piece, double lo) const {
    if (piece.block < 0) return {own_first, own_first};
    const int64_t first =
        partition(own_first, own_last, [&](int64_t n) { return !(own_time(n) > lo); });
    return {first, partition(first, own_last, [&](int64_t n) { return own_time(n) <= piece.hi; })};
  }

  __device__ void forward(double* gradient) {
    const double* omega = z + p.covariates_per_node + 3;
    for (int64_t i = 0; i < shared.pieces; ++i) {
      const HawkesPiece piece = w.piece[i];
      const bool history = piece.block < 0;
      const int64_t from = piece.source, to = w.piece[i + 1].source;
      const int64_t refresh = history ? 0 : hawkes_refresh(p, piece.block);
      const double lo = piece_start(i), length = piece.hi - lo;
      const double weight = history ? 0.0 : p.weight[piece.block];
      const double mu = history ? 0.0 : base_rate(piece.block);
      const double shift = decay_lane(decay_rate * length);
      const bool series = decay_rate * length < 0.5;

      double past = 0.0;
      for (int64_t v = t; v < nodes && !history; v += kThreads) {
        past = fused(network(refresh, v), w.state[v], past);
        w.state[v] *= shift;
      }
      past = block_sum(shared, past);
      double carry = past * shift, mass = 0.0;
      for (int64_t first = from; first < to; first += kThreads) {
        const int64_t x = first + t;
        double now = 0.0;
        if (x < to) {
          double linear = 0.0;
          for (int64_t r = 0; r < q; ++r) linear = fused(omega[r], p.marks[x * q + r], linear);
          const double mark = exponential_cut(linear), lag = piece.hi - p.time[x];
          const double decay = decay_lane(decay_rate * lag);
          w.mark[x] = mark;
          w.decay[x] = decay;
          if (!history) {
            const double excites = network(refresh, p.node[x]) * mark;
            now = excites * decay;
            mass = fused(excites, integrals(series, lag, decay).e0, mass);
          }
        }
        double total;
        const double before = block_scan(shared, now, &total);
        if (x < to) w.prefix[x] = carry + before;
        carry += total;
      }
      __syncthreads();

      const Own own = own_of(piece, lo);
      double r_sum = 0.0;
      for (int64_t n = own.first + t; n < own.last; n += kThreads) {
        const double time = own_time(n);
        const int64_t before = partition(from, to, [&](int64_t x) { return p.time[x] < time; });
        const double rise = exponential_lane(decay_rate * (piece.hi - time));
        const double rate = mu + rise * (before < to ? w.prefix[before] : carry);
        const bool good = rate > 0.0 && rate < kInfinity;
        if (good) {
          value = fused(weight, natural_log(rate), value);
        } else if (b.own[n] < failed) {
          failed = b.own[n];
        }
        const double r = good ? weight / rate : 0.0;
        w.rho[n] = r * rise;
        r_sum += r;
      }
      // R_v with the piece's sources: one thread a source node.
      for (int64_t v = t; v < nodes; v += kThreads) {
        int64_t n = w.next[v];
        double sum = w.state[v];
        for (; n < b.own_start[v + 1] && b.own[n] < to; ++n)
          sum = fused(w.mark[b.own[n]], w.decay[b.own[n]], sum);
        w.state[v] = sum;
        w.next[v] = n;
      }
      mass = block_sum(shared, mass);
      r_sum = block_sum(shared, r_sum);
      if (history) continue;
      mass = fused(past, integrals(series, length, shift).e0, mass);
      if (t == 0) value -= weight * fused(mu, length, mass);
      if (gradient == nullptr) continue;
      const double change = mu * (r_sum - weight * length);
      const double* y = hawkes_covariates(p, piece.block, u);
      for (int64_t a = t; a <= p.covariates_per_node; a += kThreads)
        gradient[a] = fused(change, a == 0 ? 1.0 : y[a - 1], gradient[a]);
    }
  }

  // later0, later1: at place n, the sums of rho and of rho (hi - t) over n..last-1.
  __device__ void sum_later(const Own& own, double hi, double* all0, double* all1) {
    double carry0 = 0.0, carry1 = 0.0;
    for (int64_t end = own.last; end > own.first; end -= kThreads) {
      const int64_t n = end - 1 - t;
      const double rho = n >= own.first ? w.rho[n] : 0.0;
      const double late = n >= own.first ? rho * (hi - own_time(n)) : 0.0;
      double total0, total1;
      const double sum0 = block_scan(shared, rho, &total0),
                   sum1 = block_scan(shared, late, &total1);
      if (n >= own.first) {
        w.later0[n] = carry0 + sum0 + rho;
        w.later1[n] = carry1 + sum1 + late;
      }
      carry0 += total0;
      carry1 += total1;
    }
    *all0 = carry0;
    *all1 = carry1;
    __syncthreads();
  }

  __device__ void backward(double* gradient) {
    double g_alpha = 0.0, g_distance = 0.0, g_decay = 0.0;
    for (int64_t v = t; v < nodes; v += kThreads) w.adjoint0[v] = w.adjoint1[v] = 0.0;
    for (int64_t i = shared.pieces - 1; i >= 0; --i) {
      const HawkesPiece piece = w.piece[i];
      const bool history = piece.block < 0;
      const int64_t from = piece.source, to = w.piece[i + 1].source;
      const int64_t refresh = history ? 0 : hawkes_refresh(p, piece.block);
      const double lo = piece_start(i), length = piece.hi - lo;
      const double weight = history ? 0.0 : p.weight[piece.block];
      const double shift = decay_lane(decay_rate * length);
      const bool series = decay_rate * length < 0.5;
      const Own own = own_of(piece, lo);
      double rho0, rho1;
      sum_later(own, piece.hi, &rho0, &rho1);
      for (int64_t x = from + t; x < to; x += kThreads) {
        const int64_t v = p.node[x];
        const double time = p.time[x], lag = piece.hi - time, decay = w.decay[x];
        const int64_t n =
            partition(own.first, own.last, [&](int64_t m) { return !(own_time(m) > time); });
        const double a = history ? 0.0 : network(refresh, v);
        const double later0 = n < own.last ? w.later0[n] : 0.0,
                     later1 = n < own.last ? w.later1[n] : 0.0;
        const double u0 = fused(a, later0, w.adjoint0[v]), u1 = fused(a, later1, w.adjoint1[v]);
        const DecayIntegrals<double> e = integrals(series, lag, decay);
        const double lost = history ? 0.0 : a * weight;
        const double c = w.mark[x] * fused(decay, u0, history ? 0.0 : -lost * e.e0);
        g_alpha += c;
        g_distance = fused(c, p.distance[u / p.types * p.places + v / p.types], g_distance);
        g_decay += w.mark[x] * fused(decay, fused(-lag, u0, u1), history ? 0.0 : lost * e.e1);
        w.prefix[x] = c;
      }
      __syncthreads();
      if (history) continue;
      const DecayIntegrals<double> e = integrals(series, length, shift);
      const double start0 = fused(shift, rho0, -weight * e.e0);
      const double start1 = fused(shift, fused(-length, rho0, rho1), weight * e.e1);
      for (int64_t v = t; v < nodes; v += kThreads) {
        const double a = network(refresh, v), a0 = w.adjoint0[v];
        w.adjoint1[v] = fused(shift, fused(-length, a0, w.adjoint1[v]), a * start1);
        w.adjoint0[v] = fused(shift, a0, a * start0);
      }
      __syncthreads();
    }
    g_alpha = block_sum(shared, g_alpha);
    g_distance = block_sum(shared, g_distance);
    g_decay = block_sum(shared, g_decay);
    double* exciting = gradient + 1 + p.covariates_per_node;
    if (t == 0) {
      exciting[0] = g_alpha;
      exciting[1] = -g_distance;
      exciting[2 + q] = g_decay;
    }
    const int64_t last = w.piece[shared.pieces].source;
    for (int64_t r = t / 32; r < q; r += kWarps) {
      double sum = 0.0;
      for (int64_t x = t % 32; x < last; x += 32) sum = fused(w.prefix[x], p.marks[x * q + r], sum);
      for (int width = 16; width > 0; width /= 2)
        sum += __shfl_down_sync(kAll, sum, unsigned(width));
      if (t % 32 == 0) exciting[2 + r] = sum;
    }
  }
};

__global__ void __launch_bounds__(kThreads) evaluate(HawkesBatch b, int64_t bytes) {
  auto& shared = shared_memory<HawkesShared>();
  const HawkesProblem& p = b.problem;
  const int64_t size = hawkes_parameters(p);
  for (int64_t item = blockIdx.x; item < b.count; item += gridDim.x) {
    void* scratch = static_cast<char*>(b.scratch) + int64_t(blockIdx.x) * bytes;
    Walk walk{b,
              p,
              shared,
              work_of(p, scratch, nullptr),
              item,
              b.items.node[item],
              p.places * p.types,
              p.marks_per_event,
              size,
              b.items.parameters + item * size,
              int(threadIdx.x),
              0.0,
              0.0,
              0,
              0,
              0.0,
              0};
    double* gradient = b.items.gradient == nullptr ? nullptr : b.items.gradient + item * size;
    if (gradient != nullptr)
      for (int64_t a = threadIdx.x; a <= p.covariates_per_node; a += kThreads) gradient[a] = 0.0;
    walk.start();
    walk.forward(gradient);
    __syncthreads();
    if (gradient != nullptr) walk.backward(gradient);
    double value = block_sum(shared, walk.value);
    // The first event without a rate.
    double failed = double(walk.failed);
    for (int width = 16; width > 0; width /= 2)
      failed = lesser(failed, __shfl_down_sync(kAll, failed, unsigned(width)));
    if (threadIdx.x % 32 == 0) shared.part[threadIdx.x / 32] = failed;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int i = 0; i < kWarps; ++i) failed = lesser(failed, shared.part[i]);
      const bool good = !(failed < double(p.events));
      if (b.items.value != nullptr) b.items.value[item] = good ? value : -kInfinity;
      if (b.items.failed_event != nullptr) b.items.failed_event[item] = good ? -1 : int64_t(failed);
    }
    __syncthreads();
  }
}

}  // namespace

int64_t hawkes_scratch(const HawkesProblem& problem) {
  int64_t bytes = 0;
  work_of(problem, nullptr, &bytes);
  return bytes;
}

cudaError_t hawkes(const HawkesBatch& batch, cudaStream_t stream) {
  if (batch.count == 0) return cudaSuccess;
  const int64_t grid = batch.count < batch.blocks ? batch.count : batch.blocks;
  return launch(evaluate, grid, kThreads, int64_t(sizeof(HawkesShared)), stream, batch,
                hawkes_scratch(batch.problem));
}

}  // namespace topreach::kernels::cuda
