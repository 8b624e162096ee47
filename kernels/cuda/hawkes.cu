// The networked Hawkes likelihood on CUDA, a block an item; see ../hawkes.h for the method.
//
//   forward    for each piece: exps of its sources (one thread each), a scan of their discounted weights,
//              own events from the scan, sums by source (one thread a source node, in order of time)
//   backward   for each piece: a scan of w / lambda over own events, then the coefficient of each source
//              (one thread each) and the adjoints of R_v
//   marks      one warp a mark: sum over events of coefficient times mark
//   Hessian    forward, the scan once more for each row of P (distances, marks, lags), which gives the
//              slope of lambda at own events; one thread a pair of parameters sums their products. Backward,
//              two more derivatives of the coefficients; one warp a pair sums coefficient times weights
//
// No atomics; every sum has an order that depends on the thread count of a block alone, which is fixed.
// Memory per block: 6 N + 4 M doubles and the pieces; with the Hessian (P + 12) N + (q + 6) M doubles.
#include "hawkes_block.cuh"

namespace topreach::kernels::cuda {
namespace {

template <bool second>
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
  double* hessian;  // [P, P] or null

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
      if (!second) continue;
      w.adjoint2[v] = 0.0;
      for (int64_t r = 0; r <= q; ++r) w.state_row[r * nodes + v] = 0.0;
    }
    if (second)
      for (int64_t a = t; a < size * size; a += kThreads) hessian[a] = 0.0;
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

  // int exp(-delta_k s) ds from a source to the end of the piece, and its part of the slope.
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
            if (second) w.gain[x] = now;
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
        const double excited = rise * (before < to ? w.prefix[before] : carry);
        const double rate = mu + excited;
        const bool good = rate > 0.0 && rate < kInfinity;
        if (good) {
          value = fused(weight, natural_log(rate), value);
        } else if (b.own[n] < failed) {
          failed = b.own[n];
        }
        const double r = good ? weight / rate : 0.0;
        w.rho[n] = r * rise;
        r_sum += r;
        if (!second) continue;
        w.scale[n] = good ? r / rate : 0.0;
        double* slope = slope_of(n);
        const double* y = hawkes_covariates(p, piece.block, u);
        slope[0] = good ? mu : 0.0;
        for (int64_t a = 0; a < p.covariates_per_node; ++a) slope[1 + a] = slope[0] * y[a];
        slope[p.covariates_per_node + 1] = good ? excited : 0.0;
      }
      if (second && !history) slopes_of_rows(i, own, shift);
      // R_v with the piece's sources: one thread a source node.
      for (int64_t v = t; v < nodes; v += kThreads) {
        int64_t n = w.next[v];
        double sum = w.state[v];
        for (; n < b.own_start[v + 1] && b.own[n] < to; ++n) {
          sum = fused(w.mark[b.own[n]], w.decay[b.own[n]], sum);
          if (second) add_to_rows(v, b.own[n], piece.hi);
        }
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
      if (second) add_base(change, y);
    }
  }

  // ---- the Hessian: rows of P, as cpu/hawkes_walk.h has them: distances, marks, lags -----------------

  __device__ double* slope_of(int64_t n) const { return w.slope + (n - own_first) * size; }

  __device__ double distance_to(int64_t v) const {
    return p.distance[u / p.types * p.places + v / p.types];
  }

  // The factor of the gain of source x in row r.
  __device__ double factor(int64_t r, int64_t x, double hi) const {
    if (r == 0) return distance_to(p.node[x]);
    return r <= q ? p.marks[x * q + r - 1] : hi - p.time[x];
  }

  // Shifts row r of R_v; returns its part of P. R_v itself is shifted already.
  __device__ double row_of_past(int64_t r, int64_t v, double length, double shift) const {
    if (r == 0) return distance_to(v) * w.state[v];
    double& state = w.state_row[(r - 1) * nodes + v];
    state = r <= q ? state * shift : fused(length, w.state[v], state * shift);
    return state;
  }

  __device__ void add_to_rows(int64_t v, int64_t x, double hi) const {
    const double decayed = w.mark[x] * w.decay[x];
    for (int64_t r = 1; r <= q + 1; ++r) {
      double& state = w.state_row[(r - 1) * nodes + v];
      state = fused(decayed, factor(r, x, hi), state);
    }
  }

  // The slopes of lambda in delta_g, omega and delta_k at the own events of piece i.
  __device__ void slopes_of_rows(int64_t i, const Own& own, double shift) {
    const HawkesPiece piece = w.piece[i];
    const int64_t from = piece.source, to = w.piece[i + 1].source;
    const int64_t refresh = hawkes_refresh(p, piece.block), alpha = p.covariates_per_node + 1;
    const double length = piece.hi - piece_start(i);
    for (int64_t r = 0; r <= q + 1; ++r) {
      double past = 0.0;
      for (int64_t v = t; v < nodes; v += kThreads)
        past = fused(network(refresh, v), row_of_past(r, v, length, shift), past);
      double carry = block_sum(shared, past);
      for (int64_t first = from; first < to; first += kThreads) {
        const int64_t x = first + t;
        double total;
        const double before =
            block_scan(shared, x < to ? w.gain[x] * factor(r, x, piece.hi) : 0.0, &total);
        if (x < to) w.row[x] = carry + before;
        carry += total;
      }
      __syncthreads();
      for (int64_t n = own.first + t; n < own.last; n += kThreads) {
        const double time = own_time(n), lag = piece.hi - time;
        const int64_t before = partition(from, to, [&](int64_t x) { return p.time[x] < time; });
        const double sum =
            exponential_lane(decay_rate * lag) * (before < to ? w.row[before] : carry);
        double* slope = slope_of(n);
        const bool good = w.scale[n] > 0.0;
        const double value = r == 0 ? -sum : (r <= q ? sum : fused(lag, slope[alpha], -sum));
        slope[alpha + 1 + r] = good ? value : 0.0;
      }
      __syncthreads();
    }
  }

  // change (1, y)(1, y)'.
  __device__ void add_base(double change, const double* y) const {
    const int64_t count = p.covariates_per_node + 1;
    for (int64_t i = t; i < count * count; i += kThreads) {
      const int64_t a = i / count, c = i - a * count;
      const double left = change * (a == 0 ? 1.0 : y[a - 1]);
      double& h = hessian[a * size + c];
      h = fused(left, c == 0 ? 1.0 : y[c - 1], h);
    }
  }

  // Entry j of the weights (1, -dist, m) of source x in the linear part.
  __device__ double weight_of(int64_t j, int64_t x) const {
    return j == 0 ? 1.0 : (j == 1 ? -distance_to(p.node[x]) : p.marks[x * q + j - 2]);
  }

  // -sum_n (w / lambda_n^2) grad lambda_n grad lambda_n', a thread a pair; then the linear part, a warp a
  // pair: sum_x c (1, -dist, m)(1, -dist, m)', with c' in the column of delta_k and c'' on its diagonal.
  __device__ void finish_hessian() const {
    for (int64_t i = t; i < size * size; i += kThreads) {
      const int64_t a = i / size, c = i - a * size;
      double sum = hessian[i];
      for (int64_t n = own_first; n < own_last; ++n)
        sum = fused(-w.scale[n] * slope_of(n)[a < c ? a : c], slope_of(n)[a < c ? c : a], sum);
      hessian[i] = sum;
    }
    __syncthreads();
    const int64_t alpha = p.covariates_per_node + 1, decay = q + 2,
                  last = w.piece[shared.pieces].source;
    for (int64_t i = t / 32; i < (decay + 1) * (decay + 1); i += kWarps) {
      const int64_t a = i / (decay + 1), c = i - a * (decay + 1);
      if (c < a) continue;
      const double* coefficient = c < decay ? w.prefix : (a < decay ? w.c1 : w.c2);
      double sum = 0.0;
      for (int64_t x = t % 32; x < last; x += 32) {
        const double left = a < decay ? weight_of(a, x) : 1.0;
        sum = fused(coefficient[x] * left, c < decay ? weight_of(c, x) : 1.0, sum);
      }
      for (int width = 16; width > 0; width /= 2)
        sum += __shfl_down_sync(kAll, sum, unsigned(width));
      if (t % 32 != 0) continue;
      hessian[(alpha + a) * size + alpha + c] += sum;
      if (a != c) hessian[(alpha + c) * size + alpha + a] += sum;
    }
  }

  // later0, 1, 2: at place n, the sums of rho (hi - t)^0, 1, 2 over n..last-1; the last for the Hessian.
  __device__ void sum_later(const Own& own, double hi, double* all0, double* all1, double* all2) {
    double carry0 = 0.0, carry1 = 0.0, carry2 = 0.0;
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
      if (!second) continue;
      const double latest = n >= own.first ? late * (hi - own_time(n)) : 0.0;
      double total2;
      const double sum2 = block_scan(shared, latest, &total2);
      if (n >= own.first) w.later2[n] = carry2 + sum2 + latest;
      carry2 += total2;
    }
    *all0 = carry0;
    *all1 = carry1;
    *all2 = carry2;
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
      double rho0, rho1, rho2;
      sum_later(own, piece.hi, &rho0, &rho1, &rho2);
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
        const double c1 =
            w.mark[x] * fused(decay, fused(-lag, u0, u1), history ? 0.0 : lost * e.e1);
        g_distance = fused(c, distance_to(v), g_distance);
        g_decay += c1;
        w.prefix[x] = c;
        if (!second) continue;
        const double u2 = fused(a, n < own.last ? w.later2[n] : 0.0, w.adjoint2[v]);
        const double rest = fused(lag, fused(lag, u0, -2.0 * u1), u2);
        w.c1[x] = c1;
        w.c2[x] = w.mark[x] * fused(decay, rest, history ? 0.0 : -lost * e.e2);
      }
      __syncthreads();
      if (history) continue;
      const DecayIntegrals<double> e = integrals(series, length, shift);
      const double start0 = fused(shift, rho0, -weight * e.e0);
      const double start1 = fused(shift, fused(-length, rho0, rho1), weight * e.e1);
      const double start2 =
          fused(shift, fused(length, fused(length, rho0, -2.0 * rho1), rho2), -weight * e.e2);
      for (int64_t v = t; v < nodes; v += kThreads) {
        const double a = network(refresh, v), a0 = w.adjoint0[v];
        if (second) {
          const double inner =
              fused(length, fused(length, a0, -2.0 * w.adjoint1[v]), w.adjoint2[v]);
          w.adjoint2[v] = fused(shift, inner, a * start2);
        }
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

template <bool second>
__global__ void __launch_bounds__(kThreads) evaluate(HawkesBatch b, int64_t bytes) {
  auto& shared = shared_memory<HawkesShared>();
  const HawkesProblem& p = b.problem;
  const int64_t size = hawkes_parameters(p);
  for (int64_t item = blockIdx.x; item < b.count; item += gridDim.x) {
    void* scratch = static_cast<char*>(b.scratch) + int64_t(blockIdx.x) * bytes;
    Walk<second> walk{b,
                      p,
                      shared,
                      work_of(p, second, scratch, nullptr),
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
                      0,
                      second ? b.items.hessian + item * size * size : nullptr};
    double* gradient = b.items.gradient == nullptr ? nullptr : b.items.gradient + item * size;
    if (gradient != nullptr)
      for (int64_t a = threadIdx.x; a <= p.covariates_per_node; a += kThreads) gradient[a] = 0.0;
    walk.start();
    walk.forward(gradient);
    __syncthreads();
    if (gradient != nullptr) walk.backward(gradient);
    __syncthreads();
    if constexpr (second) walk.finish_hessian();
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

int64_t hawkes_scratch(const HawkesProblem& problem, bool hessian) {
  int64_t bytes = 0;
  work_of(problem, hessian, nullptr, &bytes);
  return bytes;
}

cudaError_t hawkes(const HawkesBatch& batch, cudaStream_t stream) {
  if (batch.count == 0) return cudaSuccess;
  const int64_t grid = batch.count < batch.blocks ? batch.count : batch.blocks;
  const bool second = batch.items.hessian != nullptr;
  return launch(second ? evaluate<true> : evaluate<false>, grid, kThreads,
                int64_t(sizeof(HawkesShared)), stream, batch,
                hawkes_scratch(batch.problem, second));
}

}  // namespace topreach::kernels::cuda
