// CPU loops of the networked Hawkes likelihood; see ../hawkes.h for the model and the method. The lanes
// of a vector are different items over the same events, so nothing is gathered or scattered.
#include "hawkes_lanes.h"

#include "../hawkes.h"

namespace topreach::kernels::TR_ISA {
namespace {

constexpr int kLanes = kHawkesLanes;
constexpr int kChunk = 64;  // events whose coefficients are summed together

// (lo, hi] with lo the end of the piece before; sources [source, source of the next) lie in [lo, hi).
struct Piece {
  double hi;
  int64_t source;
  int64_t block;  // -1: history
};

struct Sizes {
  int64_t events, blocks, nodes, refreshes, p, q, parameters;
};

TR_INLINE Sizes sizes_of(const HawkesProblem& p) {
  return {p.events,
          p.blocks,
          p.places * p.types,
          p.refresh != nullptr ? p.refresh[p.blocks - 1] + 1 : p.blocks,
          p.covariates_per_node,
          p.marks_per_event,
          hawkes_parameters(p)};
}

// Hands out pieces of working memory, 64-byte aligned.
struct Arena {
  char* base;  // null: only counts
  int64_t used;
  template <typename T>
  TR_INLINE T* take(int64_t count) {
    T* at = base == nullptr ? nullptr : reinterpret_cast<T*>(base + used);
    used += (count * int64_t(sizeof(T)) + 63) / 64 * 64;
    return at;
  }
};

struct Memory {
  Lane *mark, *decay;                  // [N] exp(omega . m), exp(-delta_k (hi - t))
  double* rho;                         // [N * lanes], a stack: w / lambda_n exp(delta_k (hi - t_n))
  Piece* piece;                        // [B + 2 N + 2]
  Lane* network;                       // [Q, M] A_uv
  Lane* omega;                         // [q]
  Lane *reach, *distance;              // [M] alpha exp(-delta_g dist), dist
  Lane* state;                         // [M, q + 2]: R_v, its sums with marks and lags
  Lane* adjoint;                       // [M, 3]: dl/dR_v and its derivatives for delta_k
  Lane* row;                           // [q + 2]: P with distances, marks, lags
  Lane *c, *c_decay, *c_distance, *c_mark;  // [kChunk]
  Lane* sum;                           // [q (q + 3)]: c m, c dist m, c' m, c m m'
  double* slope;                       // [P] of lambda at one event
  double* base_theta;                  // [2, M]
  uint32_t* lanes_of;                  // [M] bit l: lane l's node
  int64_t bytes;
};

TR_INLINE Memory memory_of(const HawkesProblem& p, void* scratch) {
  const Sizes n = sizes_of(p);
  Arena a{static_cast<char*>(scratch), 0};
  Memory m;
  m.mark = a.take<Lane>(n.events);
  m.decay = a.take<Lane>(n.events);
  m.rho = a.take<double>(n.events * kLanes);
  m.piece = a.take<Piece>(n.blocks + 2 * n.events + 2);
  m.network = a.take<Lane>(n.refreshes * n.nodes);
  m.omega = a.take<Lane>(n.q);
  m.reach = a.take<Lane>(n.nodes);
  m.distance = a.take<Lane>(n.nodes);
  m.state = a.take<Lane>(n.nodes * (n.q + 2));
  m.adjoint = a.take<Lane>(n.nodes * 3);
  m.row = a.take<Lane>(n.q + 2);
  m.c = a.take<Lane>(kChunk);
  m.c_decay = a.take<Lane>(kChunk);
  m.c_distance = a.take<Lane>(kChunk);
  m.c_mark = a.take<Lane>(kChunk);
  m.sum = a.take<Lane>(n.q * (n.q + 3));
  m.slope = a.take<double>(n.parameters);
  m.base_theta = a.take<double>(2 * n.nodes);
  m.lanes_of = a.take<uint32_t>(n.nodes);
  m.bytes = a.used;
  return m;
}

// What stays the same for a group of items, lane by lane.
struct Group {
  int lanes;  // in use; the others repeat lane 0 and are not written
  int64_t item[kLanes], node[kLanes];
  const double* z[kLanes];
  Lane decay_rate, inverse;
};

// Integrals over `length` for each lane; `by_series` has all bits set in the lanes that need it.
struct Short {
  LaneBits by_series;
  bool any;
};

TR_INLINE DecayIntegrals<Lane> integrals(const Group& g, Lane x, Lane length, Lane decay,
                                         const Short& s) {
  DecayIntegrals<Lane> e = decay_integrals_closed(x, decay, g.inverse);
  if (!s.any) return e;
  const DecayIntegrals<Lane> t = decay_integrals_series(x, length, decay, g.decay_rate);
  return {s.by_series != 0 ? t.e0 : e.e0, s.by_series != 0 ? t.e1 : e.e1,
          s.by_series != 0 ? t.e2 : e.e2};
}

// Blocks, cut where they are too long for the first lane's delta_k.
TR_INLINE int64_t cut(const HawkesProblem& p, double decay_rate, Piece* piece) {
  int64_t x = 0, count = 0;
  if (p.events > 0 && p.time[0] < p.edge[0]) piece[count++] = {p.edge[0], 0, -1};
  while (x < p.events && p.time[x] < p.edge[0]) ++x;
  for (int64_t k = 0; k < p.blocks; ++k) {
    double lo = p.edge[k];
    while (lo < p.edge[k + 1]) {
      double hi = p.edge[k + 1];
      if (decay_rate * (hi - lo) > kHawkesLongest) {
        hi = lo + kHawkesLongest / decay_rate;
        const bool empty = x >= p.events || p.time[x] >= hi;
        if (empty && x < p.events && p.time[x] < p.edge[k + 1]) hi = p.time[x];
        if ((empty && !(x < p.events && p.time[x] < p.edge[k + 1])) || !(hi > lo))
          hi = p.edge[k + 1];
      }
      piece[count++] = {hi, x, k};
      while (x < p.events && p.time[x] < hi) ++x;
      lo = hi;
    }
  }
  piece[count] = {0.0, x, -1};
  return count;
}

TR_INLINE bool needs_cutting(const HawkesProblem& p, double decay_rate) {
  double longest = 0.0;
  for (int64_t k = 0; k < p.blocks; ++k) {
    const double length = p.edge[k + 1] - p.edge[k];
    longest = length > longest ? length : longest;
  }
  return decay_rate * longest > kHawkesLongest;
}

// A_uv of one refresh, for the lane's receiver.
TR_INLINE void fill_network(const HawkesProblem& p, int64_t refresh, int64_t u, int lane,
                            const Memory& m, Lane* out) {
  const int64_t nodes = p.places * p.types, types = p.types, s = u % types, i = u / types;
  double* to = reinterpret_cast<double*>(out) + lane;
  const double* reach = reinterpret_cast<const double*>(m.reach) + lane;
  if (p.theta.dense != nullptr) {
    const double* row = p.theta.dense + (refresh * nodes + u) * nodes;
    for (int64_t v = 0; v < nodes; ++v) to[v * kLanes] = reach[v * kLanes] * row[v];
    return;
  }
  if (p.theta.joint == nullptr) {
    for (int64_t v = 0; v < nodes; ++v) to[v * kLanes] = reach[v * kLanes];
    return;
  }
  const float* joint = p.theta.joint + (refresh * types + s) * nodes;
  const float* either = p.theta.either + (refresh * types + s) * nodes;
  const double* prior = p.theta.prior + (refresh * types + s) * types;
  const double weight = p.theta.prior_weight;
  double* own_joint = m.base_theta;
  double* own_either = m.base_theta + nodes;
  for (int64_t j = 0; j < p.places; ++j) {
    for (int64_t t = 0; t < types; ++t) {
      own_joint[j * types + t] = j == i ? 0.0 : double(joint[i * types + t]);
      own_either[j * types + t] = j == i ? 0.0 : double(either[i * types + t]);
    }
  }
  for (int64_t j = 0; j < p.places; ++j) {
    for (int64_t t = 0; t < types; ++t) {
      const int64_t v = j * types + t;
      to[v * kLanes] = reach[v * kLanes] * hawkes_theta(double(joint[v]) + own_joint[v],
                                                        double(either[v]) + own_either[v],
                                                        prior[t], weight);
    }
  }
}

// Adds to sum[r] the products of values[e] with the marks r = from..q-1 of event top - e.
TR_INLINE void sum_with_marks(const double* marks, int64_t top, int64_t q, int64_t from, int count,
                              const Lane* values, Lane* sum) {
  int64_t r = from;
  for (; r + 4 <= q; r += 4) {
    Lane s0 = sum[r], s1 = sum[r + 1], s2 = sum[r + 2], s3 = sum[r + 3];
    const double* at = marks + top * q + r;
    for (int e = 0; e < count; ++e, at -= q) {
      const Lane c = values[e];
      s0 = fused(c, all_lanes(at[0]), s0);
      s1 = fused(c, all_lanes(at[1]), s1);
      s2 = fused(c, all_lanes(at[2]), s2);
      s3 = fused(c, all_lanes(at[3]), s3);
    }
    sum[r] = s0, sum[r + 1] = s1, sum[r + 2] = s2, sum[r + 3] = s3;
  }
  for (; r < q; ++r) {
    Lane s = sum[r];
    const double* at = marks + top * q + r;
    for (int e = 0; e < count; ++e, at -= q) s = fused(values[e], all_lanes(at[0]), s);
    sum[r] = s;
  }
}

// exp(omega . m) and exp(-delta_k (hi - t)) of the sources from..to-1.
TR_INLINE void decay_sources(const HawkesProblem& p, const Group& g, const Lane* omega, double hi,
                             int64_t from, int64_t to, Lane* mark, Lane* decay) {
  const int64_t q = p.marks_per_event;
  for (int64_t x = from; x < to; ++x) {
    Lane linear{};
    const double* m = p.marks + x * q;
    for (int64_t r = 0; r < q; ++r) linear = fused(omega[r], all_lanes(m[r]), linear);
    mark[x - from] = exponential_lane(linear);
    decay[x - from] = exponential_lane(-g.decay_rate * (hi - p.time[x]));
  }
}

struct Totals {
  Lane alpha{}, distance{}, decay{};                          // c, c dist, c'
  Lane distance_distance{}, decay_distance{}, decay_decay{};  // c dist dist, c' dist, c''
};


// One group of items. order 0: value; 1: and gradient; 2: and Hessian.
template <int order>
struct Walk {
  const HawkesProblem& p;
  const HawkesItems& out;
  const Sizes n;
  const Memory m;
  Group g;
  Lane value;
  int64_t rho_top, pieces;
  int64_t failed[kLanes];

  double* gradient(int lane) const { return out.gradient + g.item[lane] * n.parameters; }
  double* hessian(int lane) const {
    return out.hessian + g.item[lane] * n.parameters * n.parameters;
  }
  int64_t refresh_of(const Piece& piece) const {
    return piece.block < 0 ? 0 : hawkes_refresh(p, piece.block);
  }
  Lane* network_of(const Piece& piece) const { return m.network + refresh_of(piece) * n.nodes; }

  void start() {
    value = Lane{};
    rho_top = 0;
    for (int64_t v = 0; v < n.nodes; ++v) m.lanes_of[v] = 0;
    for (int l = 0; l < kLanes; ++l) {
      const double* exciting = g.z[l] + 1 + n.p;
      g.decay_rate[l] = exciting[2 + n.q];
      failed[l] = -1;
      if (l < g.lanes) m.lanes_of[g.node[l]] |= 1u << l;
      for (int64_t r = 0; r < n.q; ++r) m.omega[r][l] = exciting[2 + r];
      for (int64_t j = 0; j < p.places; ++j) {
        const double distance = p.distance[g.node[l] / p.types * p.places + j];
        const double reach = exponential_lane(exciting[0] - exciting[1] * distance);
        for (int64_t v = j * p.types; v < (j + 1) * p.types; ++v) {
          m.distance[v][l] = distance;
          m.reach[v][l] = reach;
        }
      }
      if (order >= 1 && l < g.lanes) {
        for (int64_t a = 0; a < n.parameters; ++a) gradient(l)[a] = 0.0;
        if (order >= 2)
          for (int64_t a = 0; a < n.parameters * n.parameters; ++a) hessian(l)[a] = 0.0;
      }
    }
    g.inverse = 1.0 / g.decay_rate;
    const int64_t rows = order >= 2 ? n.q + 2 : 1;
    for (int64_t a = 0; a < n.nodes * rows; ++a) m.state[a] = Lane{};
    pieces = cut(p, g.decay_rate[0], m.piece);
  }

  // An own event of `lane`: lambda = mu + rise P, P being discounted to the piece's end.
  double own_event(int lane, int64_t x, double hi, double mu, double weight, const Lane& sum) {
    const double lag = hi - p.time[x];
    const double rise = exponential_lane(g.decay_rate[lane] * lag);
    const double excited = rise * sum[lane], rate = mu + excited;
    if (!(rate > 0.0 && rate < kInfinity)) {
      if (failed[lane] < 0) failed[lane] = x;
      if (order >= 1) m.rho[rho_top++] = 0.0;
      value[lane] = -kInfinity;
      return 0.0;
    }
    value[lane] += weight * natural_log(rate);
    const double r = weight / rate;
    if (order >= 1) m.rho[rho_top++] = r * rise;
    if (order >= 2) {
      const int64_t k = p.types > 0 ? n.p + 1 : 0;  // of log alpha
      double* s = m.slope;
      const double* y = current_covariates[lane];
      s[0] = mu;
      for (int64_t a = 0; a < n.p; ++a) s[1 + a] = mu * y[a];
      s[k] = excited;
      s[k + 1] = -rise * m.row[0][lane];
      for (int64_t a = 0; a < n.q; ++a) s[k + 2 + a] = rise * m.row[1 + a][lane];
      s[k + 2 + n.q] = -rise * fused(-lag, sum[lane], m.row[n.q + 1][lane]);
      const double scale = -r / rate;
      for (int64_t a = 0; a < n.parameters; ++a) {
        const double c = scale * s[a];
        double* h = hessian(lane) + a * n.parameters;
        for (int64_t b = a; b < n.parameters; ++b) h[b] = fused(c, s[b], h[b]);
      }
    }
    return r;
  }

  const double* current_covariates[kLanes];

  void forward() {
    const int64_t rows = order >= 2 ? n.q + 2 : 1, q = n.q;
    const Lane d = g.decay_rate;
    double mu[kLanes] = {};
    int64_t block = -1, refresh = -1;
    double lo = p.events > 0 ? p.time[0] : p.edge[0];
    for (int64_t i = 0; i < pieces; ++i) {
      const Piece& piece = m.piece[i];
      if (piece.block < 0 && n.refreshes > 0) {
      } else if (piece.block != block) {
        if (block < 0) lo = p.edge[0];
        block = piece.block;
        for (int l = 0; l < g.lanes; ++l) {
          const double* y = hawkes_covariates(p, block, g.node[l]);
          double linear = g.z[l][0];
          for (int64_t a = 0; a < n.p; ++a) linear = fused(g.z[l][1 + a], y[a], linear);
          mu[l] = exponential_lane(linear);
          current_covariates[l] = y;
        }
        if (refresh_of(piece) != refresh) {
          refresh = refresh_of(piece);
          for (int l = 0; l < kLanes; ++l)
            fill_network(p, refresh, g.node[l], l, m, network_of(piece));
        }
      }
      const bool history = piece.block < 0;
      const double length = piece.hi - lo, weight = history ? 0.0 : p.weight[block];
      const Lane x_length = d * length, shift = exponential_lane(-x_length);
      Short series;
      series.by_series = LaneBits(x_length < 0.5);
      series.any = false;
      for (int l = 0; l < kLanes; ++l) series.any |= series.by_series[l] != 0;
      const Lane* network = network_of(piece);

      // The past: its integral, its sum at the piece's end, and R_v there.
      Lane past{}, mass{};
      if (order >= 2)
        for (int64_t a = 0; a < q + 2; ++a) m.row[a] = Lane{};
      if (!history) {
        for (int64_t v = 0; v < n.nodes; ++v) {
          Lane* state = m.state + v * rows;
          past = fused(network[v], state[0], past);
          const Lane before = state[0];
          state[0] = before * shift;
          if (order >= 2) {
            for (int64_t a = 1; a <= q; ++a) {
              state[a] = state[a] * shift;
              m.row[a] = fused(network[v], state[a], m.row[a]);
            }
            state[q + 1] = fused(all_lanes(length), state[0], state[q + 1] * shift);
            m.row[q + 1] = fused(network[v], state[q + 1], m.row[q + 1]);
            m.row[0] = fused(network[v] * m.distance[v], state[0], m.row[0]);
          }
        }
        mass = past * integrals(g, x_length, all_lanes(length), shift, series).e0;
      }
      Lane sum = past * shift;

      const int64_t from = piece.source, to = m.piece[i + 1].source;
      Lane* mark = m.mark + (order == 0 ? 0 : from);
      Lane* decay = m.decay + (order == 0 ? 0 : from);
      decay_sources(p, g, m.omega, piece.hi, from, to, mark, decay);
      double r_sum[kLanes] = {};
      for (int64_t x = from; x < to;) {
        int64_t next = x + 1;  // events at one time: none excites another
        while (next < to && p.time[next] == p.time[x]) ++next;
        if (!history && p.time[x] > lo) {
          for (int64_t y = x; y < next; ++y) {
            const uint32_t lanes = m.lanes_of[p.node[y]];
            if (lanes == 0) continue;
            for (int l = 0; l < kLanes; ++l)
              if ((lanes >> l & 1u) != 0)
                r_sum[l] += own_event(l, y, piece.hi, mu[l], weight, sum);
          }
        }
        for (; x < next; ++x) {
          const int64_t v = p.node[x];
          const Lane e = mark[x - from], f = decay[x - from], lag = all_lanes(piece.hi - p.time[x]);
          Lane* state = m.state + v * rows;
          const Lane decayed = e * f;
          if (!history) {
            const Lane excites = network[v] * e;
            mass = fused(excites, integrals(g, d * lag, lag, f, series).e0, mass);
            sum = fused(excites, f, sum);
            if (order >= 2) {
              const Lane now = excites * f;
              m.row[0] = fused(now, m.distance[v], m.row[0]);
              m.row[q + 1] = fused(now, lag, m.row[q + 1]);
              for (int64_t a = 0; a < q; ++a)
                m.row[1 + a] = fused(now, all_lanes(p.marks[x * q + a]), m.row[1 + a]);
            }
          }
          state[0] += decayed;
          if (order >= 2) {
            state[q + 1] = fused(decayed, lag, state[q + 1]);
            for (int64_t a = 0; a < q; ++a)
              state[1 + a] = fused(decayed, all_lanes(p.marks[x * q + a]), state[1 + a]);
          }
        }
      }
      for (int64_t x = to; !history && x < n.events && p.time[x] == piece.hi; ++x)
        for (int l = 0; l < kLanes; ++l)
          if ((m.lanes_of[p.node[x]] >> l & 1u) != 0)
            r_sum[l] += own_event(l, x, piece.hi, mu[l], weight, sum);
      if (!history) end_of_piece(mu, r_sum, weight, length, mass);
      lo = piece.hi;
    }
  }

  void end_of_piece(const double* mu, const double* r_sum, double weight, double length,
                    const Lane& mass) {
    for (int l = 0; l < g.lanes; ++l) {
      value[l] -= weight * fused(mu[l], length, mass[l]);
      if (order == 0) continue;
      const double change = mu[l] * fused(-weight, length, r_sum[l]);
      const double* y = current_covariates[l];
      gradient(l)[0] += change;
      for (int64_t a = 0; a < n.p; ++a) gradient(l)[1 + a] = fused(change, y[a], gradient(l)[1 + a]);
      if (order < 2) continue;
      for (int64_t a = 0; a <= n.p; ++a) {
        const double c = change * (a == 0 ? 1.0 : y[a - 1]);
        double* h = hessian(l) + a * n.parameters;
        for (int64_t b = a; b <= n.p; ++b) h[b] = fused(c, b == 0 ? 1.0 : y[b - 1], h[b]);
      }
    }
  }

  // Sums over a chunk of events top, top - 1, ...
  void flush(int64_t top, int count) {
    const int64_t q = n.q;
    sum_with_marks(p.marks, top, q, 0, count, m.c, m.sum);
    if (order < 2) return;
    sum_with_marks(p.marks, top, q, 0, count, m.c_distance, m.sum + q);
    sum_with_marks(p.marks, top, q, 0, count, m.c_decay, m.sum + 2 * q);
    for (int64_t a = 0; a < q; ++a) {
      const double* at = p.marks + top * q + a;
      for (int e = 0; e < count; ++e, at -= q) m.c_mark[e] = m.c[e] * at[0];
      sum_with_marks(p.marks, top, q, a, count, m.c_mark, m.sum + (3 + a) * q);
    }
  }

  void backward() {
    const int64_t q = n.q;
    const Lane d = g.decay_rate;
    Totals total;
    for (int64_t a = 0; a < q * (order >= 2 ? q + 3 : 1); ++a) m.sum[a] = Lane{};
    for (int64_t a = 0; a < n.nodes * 3; ++a) m.adjoint[a] = Lane{};
    int count = 0;
    int64_t top = m.piece[pieces].source - 1;
    for (int64_t i = pieces - 1; i >= 0; --i) {
      const Piece& piece = m.piece[i];
      const bool history = piece.block < 0;
      const double lo = i > 0 ? m.piece[i - 1].hi : (history ? p.time[0] : p.edge[0]);
      const double length = piece.hi - lo, weight = history ? 0.0 : p.weight[piece.block];
      const Lane x_length = d * length, shift = exponential_lane(-x_length);
      Short series;
      series.by_series = LaneBits(x_length < 0.5);
      series.any = false;
      for (int l = 0; l < kLanes; ++l) series.any |= series.by_series[l] != 0;
      const Lane* network = network_of(piece);
      Lane rho{}, rho1{}, rho2{};
      const auto pop = [&](int64_t x) {
        const uint32_t lanes = m.lanes_of[p.node[x]];
        if (lanes == 0) return;
        const double lag = piece.hi - p.time[x];
        for (int l = kLanes - 1; l >= 0; --l) {
          if ((lanes >> l & 1u) == 0) continue;
          const double value = m.rho[--rho_top];
          rho[l] += value;
          rho1[l] = fused(value, lag, rho1[l]);
          rho2[l] = fused(value * lag, lag, rho2[l]);
        }
      };
      const int64_t from = piece.source, to = m.piece[i + 1].source;
      if (!history) {
        int64_t end = to;
        while (end < n.events && p.time[end] == piece.hi) ++end;
        for (int64_t x = end - 1; x >= to; --x) pop(x);
      }
      const Lane half_weight = all_lanes(weight);
      for (int64_t last = to; last > from;) {
        int64_t first = last - 1;
        while (first > from && p.time[first - 1] == p.time[last - 1]) --first;
        for (int64_t x = last - 1; x >= first; --x) {
          const int64_t v = p.node[x];
          const Lane e = m.mark[x], f = m.decay[x], lag = all_lanes(piece.hi - p.time[x]);
          const Lane* adjoint = m.adjoint + 3 * v;
          const Lane a = history ? Lane{} : network[v];
          const Lane u0 = fused(a, rho, adjoint[0]), u1 = fused(a, rho1, adjoint[1]);
          const DecayIntegrals<Lane> s = integrals(g, d * lag, lag, f, series);
          const Lane loss = a * half_weight;
          const Lane c = e * fused(f, u0, -loss * s.e0);
          const Lane c1 = e * fused(f, fused(-lag, u0, u1), loss * s.e1);
          total.alpha += c;
          total.decay += c1;
          m.c[count] = c;
          const Lane c_distance = c * m.distance[v];
          total.distance += c_distance;
          if (order >= 2) {
            const Lane u2 = fused(a, rho2, adjoint[2]);
            const Lane inner = fused(lag, fused(lag, u0, -2.0 * u1), u2);
            total.decay_decay += e * fused(f, inner, -loss * s.e2);
            total.distance_distance = fused(c_distance, m.distance[v], total.distance_distance);
            total.decay_distance = fused(c1, m.distance[v], total.decay_distance);
            m.c_distance[count] = c_distance;
            m.c_decay[count] = c1;
          }
          if (++count == kChunk) {
            flush(top, count);
            top -= count;
            count = 0;
          }
        }
        if (!history && p.time[first] > lo)
          for (int64_t x = last - 1; x >= first; --x) pop(x);
        last = first;
      }
      if (history) continue;
      const DecayIntegrals<Lane> s = integrals(g, x_length, all_lanes(length), shift, series);
      const Lane start0 = fused(shift, rho, -half_weight * s.e0);
      const Lane start1 = fused(shift, rho1 - length * rho, half_weight * s.e1);
      const Lane start2 =
          fused(shift, rho2 - length * (2.0 * rho1 - length * rho), -half_weight * s.e2);
      for (int64_t v = 0; v < n.nodes; ++v) {
        Lane* adjoint = m.adjoint + 3 * v;
        const Lane a = network[v], a0 = adjoint[0], a1 = adjoint[1];
        adjoint[0] = fused(shift, a0, a * start0);
        adjoint[1] = fused(shift, fused(all_lanes(-length), a0, a1), a * start1);
        if (order >= 2) {
          const Lane inner = fused(all_lanes(length), fused(all_lanes(length), a0, -2.0 * a1), adjoint[2]);
          adjoint[2] = fused(shift, inner, a * start2);
        }
      }
    }
    flush(top, count);
    write(total);
  }

  void write(const Totals& total) {
    const int64_t q = n.q, size = n.parameters, k = n.p + 1, d = n.p + 3 + q;
    for (int l = 0; l < g.lanes; ++l) {
      double* gr = gradient(l);
      gr[k] = total.alpha[l];
      gr[k + 1] = -total.distance[l];
      for (int64_t a = 0; a < q; ++a) gr[k + 2 + a] = m.sum[a][l];
      gr[d] = total.decay[l];
      if (order < 2) continue;
      double* h = hessian(l);
      h[k * size + k] += total.alpha[l];
      h[k * size + k + 1] -= total.distance[l];
      h[(k + 1) * size + k + 1] += total.distance_distance[l];
      h[k * size + d] += total.decay[l];
      h[(k + 1) * size + d] -= total.decay_distance[l];
      h[d * size + d] += total.decay_decay[l];
      for (int64_t a = 0; a < q; ++a) {
        h[k * size + k + 2 + a] += m.sum[a][l];
        h[(k + 1) * size + k + 2 + a] -= m.sum[q + a][l];
        h[(k + 2 + a) * size + d] += m.sum[2 * q + a][l];
        for (int64_t b = a; b < q; ++b)
          h[(k + 2 + a) * size + k + 2 + b] += m.sum[(3 + a) * q + b][l];
      }
      for (int64_t a = 0; a < size; ++a)
        for (int64_t b = 0; b < a; ++b) h[a * size + b] = h[b * size + a];
    }
  }
};

template <int order>
void run_group(const HawkesProblem& p, const HawkesItems& out, const Group& group,
               const Memory& memory) {
  Walk<order> walk{p, out, sizes_of(p), memory, group, Lane{}, 0, 0, {}, {}};
  walk.start();
  walk.forward();
  if constexpr (order >= 1) walk.backward();
  for (int l = 0; l < walk.g.lanes; ++l) {
    const int64_t item = walk.g.item[l];
    if (out.value != nullptr) out.value[item] = walk.value[l];
    if (out.failed_event != nullptr) out.failed_event[item] = walk.failed[l];
  }
}

void evaluate(const HawkesProblem& p, const HawkesItems& out, int64_t begin, int64_t end,
              void* scratch) {
  const Memory memory = memory_of(p, scratch);
  const int64_t size = hawkes_parameters(p);
  const auto decay_rate = [&](int64_t item) { return out.parameters[(item + 1) * size - 1]; };
  for (int64_t item = begin; item < end;) {
    Group group{};
    const bool alone = needs_cutting(p, decay_rate(item));
    do {
      group.item[group.lanes++] = item++;
    } while (!alone && group.lanes < kLanes && item < end && !needs_cutting(p, decay_rate(item)));
    for (int l = 0; l < kLanes; ++l) {
      const int64_t from = group.item[l < group.lanes ? l : 0];
      group.item[l] = from;
      group.node[l] = out.node[from];
      group.z[l] = out.parameters + from * size;
    }
    if (out.hessian != nullptr) {
      run_group<2>(p, out, group, memory);
    } else if (out.gradient != nullptr) {
      run_group<1>(p, out, group, memory);
    } else {
      run_group<0>(p, out, group, memory);
    }
  }
}

int64_t scratch_bytes(const HawkesProblem& p) { return memory_of(p, nullptr).bytes; }

}  // namespace

extern const HawkesCpu hawkes;
const HawkesCpu hawkes{scratch_bytes, evaluate};

}  // namespace topreach::kernels::TR_ISA
