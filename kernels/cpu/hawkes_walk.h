// One group of items walks the events: forwards for the value, backwards for the derivatives. See
// ../hawkes.h for the method.
#pragma once

#include "hawkes_memory.h"
#include "hawkes_sums.h"

namespace topreach::kernels::TR_ISA {
namespace {

struct Totals {
  Lane alpha, distance, decay;                          // c, c dist, c'
  Lane distance_distance, decay_distance, decay_decay;  // c dist dist, c' dist, c''
};

// A piece, with what a walk needs for it.
struct Span {
  int64_t from, to;  // its sources
  double hi, length, weight;
  const Lane* network;
  Lane x, shift;  // delta_k length, exp(-x)
  Short series;
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
  int64_t pieces, stops;
  int64_t failed[kLanes];
  double mu[kLanes], r_sum[kLanes];
  const double* y[kLanes];  // covariates in the block

  double* gradient(int lane) const { return out.gradient + g.item[lane] * n.parameters; }
  double* hessian(int lane) const {
    return out.hessian + g.item[lane] * n.parameters * n.parameters;
  }

  void start() {
    value = Lane{};
    for (int l = 0; l < kLanes; ++l) {
      const double* exciting = g.z[l] + 1 + n.p;
      g.decay_rate[l] = exciting[2 + n.q];
      failed[l] = -1;
      for (int64_t r = 0; r < n.q; ++r) m.omega[r][l] = exciting[2 + r];
      for (int64_t j = 0; j < p.places; ++j) {
        const double distance = p.distance[g.node[l] / p.types * p.places + j];
        m.reach[l * p.places + j] = exponential_lane(exciting[0] - exciting[1] * distance);
        for (int64_t v = j * p.types; v < (j + 1) * p.types; ++v) m.distance[v][l] = distance;
      }
      if (order < 1 || l >= g.lanes) continue;
      for (int64_t a = 0; a < n.parameters; ++a) gradient(l)[a] = 0.0;
      if (order < 2) continue;
      for (int64_t a = 0; a < n.parameters * n.parameters; ++a) hessian(l)[a] = 0.0;
    }
    g.inverse = 1.0 / g.decay_rate;
    const int64_t rows = order >= 2 ? n.q + 2 : 1;
    for (int64_t a = 0; a < n.nodes * rows; ++a) m.state[a] = Lane{};
    for (int64_t v = 0; v < n.nodes; ++v) m.network[n.refreshes * n.nodes + v] = Lane{};
    pieces = hawkes_cut(p, g.decay_rate[0], m.piece);
    merge_own_events();
  }

  void merge_own_events() {
    stops = 0;
    int64_t next[kLanes];
    for (int l = 0; l < g.lanes; ++l) {
      next[l] = m.own_start[g.node[l]];
      while (next[l] < m.own_start[g.node[l] + 1] && !(p.time[m.own[next[l]]] > p.edge[0]))
        ++next[l];
    }
    for (;;) {
      int first = -1;
      for (int l = 0; l < g.lanes; ++l) {
        if (next[l] == m.own_start[g.node[l] + 1]) continue;
        if (first < 0 || m.own[next[l]] < m.own[next[first]]) first = l;
      }
      if (first < 0 || p.time[m.own[next[first]]] > p.edge[n.blocks]) break;
      const int64_t event = m.own[next[first]++];
      int64_t before = event;
      while (before > 0 && p.time[before - 1] == p.time[event]) --before;
      m.stop[stops++] = {event, before, 0.0, first};
    }
  }

  Span span_of(int64_t i) const {
    const Piece& piece = m.piece[i];
    const bool history = piece.block < 0;
    const double lo = i > 0 ? m.piece[i - 1].hi : (history ? p.time[0] : p.edge[0]);
    const int64_t refresh = history ? n.refreshes : hawkes_refresh(p, piece.block);
    Span s{piece.source,
           m.piece[i + 1].source,
           piece.hi,
           piece.hi - lo,
           history ? 0.0 : p.weight[piece.block],
           m.network + refresh * n.nodes,
           Lane{},
           Lane{},
           {}};
    s.x = g.decay_rate * all_lanes(s.length);
    s.shift = decay_lane(s.x);
    s.series.by_series = s.x < 0.5;
    for (int l = 0; l < kLanes; ++l) s.series.any |= !history && s.series.by_series[l] != 0;
    return s;
  }

  void enter_block(int64_t block, bool refreshed) {
    for (int l = 0; l < g.lanes; ++l) {
      y[l] = hawkes_covariates(p, block, g.node[l]);
      double linear = g.z[l][0];
      for (int64_t a = 0; a < n.p; ++a) linear = kernels::fused(g.z[l][1 + a], y[l][a], linear);
      mu[l] = exponential_lane(linear);
    }
    if (!refreshed) return;
    const int64_t refresh = hawkes_refresh(p, block);
    for (int l = 0; l < kLanes; ++l)
      fill_network(p, refresh, g.node[l], l, m, m.network + refresh * n.nodes);
  }

  // lambda = mu + rise P, P being discounted to the piece's end.
  void own_event(Stop& stop, double hi, double weight, Lane sum) {
    const int lane = stop.lane;
    const double lag = hi - p.time[stop.event];
    const double rise = exponential_lane(g.decay_rate[lane] * lag);
    const double excited = rise * sum[lane], rate = mu[lane] + excited;
    stop.rho = 0.0;
    if (!(rate > 0.0 && rate < kInfinity)) {
      if (failed[lane] < 0) failed[lane] = stop.event;
      value[lane] = -kInfinity;
      return;
    }
    value[lane] = kernels::fused(weight, natural_log(rate), value[lane]);
    const double r = weight / rate;
    r_sum[lane] += r;
    stop.rho = r * rise;
    if (order < 2) return;
    const int64_t k = n.p + 1;  // of log alpha
    double* s = m.slope;
    s[0] = mu[lane];
    for (int64_t a = 0; a < n.p; ++a) s[1 + a] = mu[lane] * y[lane][a];
    s[k] = excited;
    s[k + 1] = -rise * m.row[0][lane];
    for (int64_t a = 0; a < n.q; ++a) s[k + 2 + a] = rise * m.row[1 + a][lane];
    s[k + 2 + n.q] = rise * (lag * sum[lane] - m.row[n.q + 1][lane]);
    const double scale = -r / rate;
    for (int64_t a = 0; a < n.parameters; ++a) {
      const double c = scale * s[a];
      double* h = hessian(lane) + a * n.parameters;
      for (int64_t b = a; b < n.parameters; ++b) h[b] = kernels::fused(c, s[b], h[b]);
    }
  }

  struct Sums {
    Lane now, whole, series;  // P; of the weights undiscounted; of their integrals, by series
  };

  template <bool by_series>
  void forward_sources(const Span& s, int64_t from, int64_t to, Sums& sums) {
    const int64_t q = n.q, rows = order >= 2 ? q + 2 : 1, base = order == 0 ? s.from : 0;
    Lane now = sums.now, whole = sums.whole, series = sums.series;
    for (int64_t first = from; first < to; first += kChunk) {
      const int64_t end = first + kChunk < to ? first + kChunk : to;
      for (int64_t x = first; x < end; ++x) {
        const int64_t v = p.node[x];
        const Lane e = m.mark[x - base], f = m.decay[x - base];
        const Lane excites = s.network[v] * e;
        whole += excites;
        now = fused(excites, f, now);
        Lane* state = m.state + v * rows;
        if (by_series) {
          const Lane lag = all_lanes(s.hi - p.time[x]);
          series = fused(
              excites, decay_integrals_series(g.decay_rate * lag, lag, f, g.decay_rate).e0, series);
        }
        if (order < 2) {
          state[0] = fused(e, f, state[0]);
        } else {
          const Lane lag = all_lanes(s.hi - p.time[x]), decayed = e * f, increment = excites * f;
          m.c[x - first] = increment;
          m.row[0] = fused(increment, m.distance[v], m.row[0]);
          m.row[q + 1] = fused(increment, lag, m.row[q + 1]);
          state[0] = fused(e, f, state[0]);
          state[q + 1] = fused(decayed, lag, state[q + 1]);
          const double* marks = p.marks + x * q;
#pragma GCC unroll 8
          for (int64_t a = 0; a < q; ++a)
            state[1 + a] = fused(decayed, all_lanes(marks[a]), state[1 + a]);
        }
      }
      if (order >= 2)
        sum_with_marks(p.marks + first * q, q, q, 0, int(end - first), m.c, m.row + 1);
    }
    sums = {now, whole, series};
  }

  // Sum and shift of R_v, v = 0..M-1; returns sum_v A_uv R_v at the piece's start.
  Lane forward_past(const Span& s) {
    const int64_t q = n.q, rows = order >= 2 ? q + 2 : 1;
    Lane past{};
    for (int64_t v = 0; v < n.nodes; ++v) {
      Lane* state = m.state + v * rows;
      const Lane a = s.network[v], before = state[0];
      past = fused(a, before, past);
      state[0] = before * s.shift;
      if (order < 2) continue;
      m.row[0] = fused(a * m.distance[v], state[0], m.row[0]);
#pragma GCC unroll 8
      for (int64_t r = 1; r <= q; ++r) {
        const Lane shifted = state[r] * s.shift;
        state[r] = shifted;
        m.row[r] = fused(a, shifted, m.row[r]);
      }
      state[q + 1] = fused(all_lanes(s.length), state[0], state[q + 1] * s.shift);
      m.row[q + 1] = fused(a, state[q + 1], m.row[q + 1]);
    }
    return past;
  }

  void forward() {
    int64_t block = -1, refresh = -1, at = 0;
    for (int64_t i = 0; i < pieces; ++i) {
      const int64_t k = m.piece[i].block;
      if (k != block) {
        block = k;
        enter_block(k, hawkes_refresh(p, k) != refresh);
        refresh = hawkes_refresh(p, k);
      }
      const Span s = span_of(i);
      if (order >= 2)
        for (int64_t a = 0; a < n.q + 2; ++a) m.row[a] = Lane{};
      const Lane past = k < 0 ? Lane{} : forward_past(s);
      Sums sums{past * s.shift, Lane{}, Lane{}};
      const Lane start = sums.now;
      for (int l = 0; l < kLanes; ++l) r_sum[l] = 0.0;
      const int64_t base = order == 0 ? s.from : 0;
      decay_sources(p, g.decay_rate, m.omega, s.hi, s.from, s.to, m.mark + s.from - base,
                    m.decay + s.from - base);
      const auto walk_to = [&](int64_t from, int64_t to) {
        if (s.series.any) {
          forward_sources<true>(s, from, to, sums);
        } else {
          forward_sources<false>(s, from, to, sums);
        }
      };
      int64_t from = s.from;
      for (; at < stops && p.time[m.stop[at].event] <= s.hi; ++at) {
        const int64_t to = m.stop[at].before < s.to ? m.stop[at].before : s.to;
        walk_to(from, to);
        from = to;
        own_event(m.stop[at], s.hi, s.weight, sums.now);
      }
      walk_to(from, s.to);
      if (k < 0) continue;
      const Lane closed = (sums.whole - (sums.now - start)) * g.inverse;
      const Lane mass = fused(past, integrals(g, s.x, all_lanes(s.length), s.shift, s.series).e0,
                              s.series.by_series != 0 ? sums.series : closed);
      end_of_piece(s, mass);
    }
  }

  void end_of_piece(const Span& s, Lane mass) {
    for (int l = 0; l < g.lanes; ++l) {
      value[l] -= s.weight * kernels::fused(mu[l], s.length, mass[l]);
      if (order < 1) continue;
      const double change = mu[l] * (r_sum[l] - s.weight * s.length);
      double* gr = gradient(l);
      gr[0] += change;
      for (int64_t a = 0; a < n.p; ++a) gr[1 + a] = kernels::fused(change, y[l][a], gr[1 + a]);
      if (order < 2) continue;
      for (int64_t a = 0; a <= n.p; ++a) {
        const double c = change * (a == 0 ? 1.0 : y[l][a - 1]);
        double* h = hessian(l) + a * n.parameters;
        for (int64_t b = a; b <= n.p; ++b)
          h[b] = kernels::fused(c, b == 0 ? 1.0 : y[l][b - 1], h[b]);
      }
    }
  }

  // Sums over the chunk of events top, top - 1, ...
  void flush(int64_t top, int count) {
    const int64_t q = n.q;
    const double* marks = p.marks + top * q;
    if (order < 2) return sum_with_marks(marks, -q, q, 0, count, m.c, m.sum);
    sum_pair_with_marks(marks, -q, q, 0, count, m.c, m.c_distance, m.sum, m.sum + q);
    sum_with_marks(marks, -q, q, 0, count, m.c_decay, m.sum + 2 * q);
    Lane *first = m.c_decay, *second = m.c_distance,
         *sum = m.sum + 3 * q;  // c m m', two rows at once
    for (int64_t a = 0; a < q; a += 2, sum += 2 * q) {
      const bool both = a + 1 < q;
      for (int e = 0; e < count; ++e) {
        const double* at = marks - e * q + a;
        first[e] = m.c[e] * all_lanes(at[0]);
        if (both) second[e] = m.c[e] * all_lanes(at[1]);
      }
      if (both) {
        sum_pair_with_marks(marks, -q, q, a, count, first, second, sum, sum + q);
      } else {
        sum_with_marks(marks, -q, q, a, count, first, sum);
      }
    }
  }

  // sum_n r_n exp(delta_k (hi - t_n)) (hi - t_n)^j over the own events passed, j = 0, 1, 2.
  struct Rho {
    Lane r0, r1, r2;
  };

  // Coefficients of the sources `to - 1` down to `from`. In the closed forms of the integrals, which have
  // 1 - exp(-x), the term that decays is added to rho, and `lost` is the term that does not.
  template <bool by_series>
  void backward_sources(const Span& s, int64_t from, int64_t to, const Rho& rho, Totals& total,
                        int64_t& top, int& count) {
    const Lane lost0 = all_lanes(s.weight) * g.inverse, lost1 = lost0 * g.inverse,
               lost2 = 2.0 * lost1 * g.inverse;
    const Rho closed{rho.r0 + lost0, rho.r1 - lost1, rho.r2 + lost2};
    Totals t = total;
    int64_t x = to - 1;
    while (x >= from) {
      const int64_t room = kChunk - count, last = x - room + 1 > from ? x - room + 1 : from;
      for (; x >= last; --x, ++count) {
        const int64_t v = p.node[x];
        const Lane e = m.mark[x], f = m.decay[x], a = s.network[v];
        const Lane lag = all_lanes(s.hi - p.time[x]);
        const Lane* adjoint = m.adjoint + 3 * v;
        const Lane u0 = fused(a, closed.r0, adjoint[0]), u1 = fused(a, closed.r1, adjoint[1]);
        const Lane e_f = e * f, e_a = e * a;
        Lane c0 = fused(e_f, u0, -e_a * lost0);
        Lane c1 = fused(e_f, fused(-lag, u0, u1), e_a * lost1), c2{};
        if (order >= 2) {
          const Lane u2 = fused(a, closed.r2, adjoint[2]);
          c2 = fused(e_f, fused(lag, fused(lag, u0, -2.0 * u1), u2), -e_a * lost2);
        }
        if (by_series) {
          const DecayIntegrals<Lane> i =
              decay_integrals_series(g.decay_rate * lag, lag, f, g.decay_rate);
          const Lane w = e_a * all_lanes(s.weight);
          const Lane w0 = fused(a, rho.r0, adjoint[0]), w1 = fused(a, rho.r1, adjoint[1]);
          const Lane d0 = fused(e_f, w0, -w * i.e0), d1 = fused(e_f, fused(-lag, w0, w1), w * i.e1);
          c0 = s.series.by_series != 0 ? d0 : c0;
          c1 = s.series.by_series != 0 ? d1 : c1;
          if (order >= 2) {
            const Lane w2 = fused(a, rho.r2, adjoint[2]);
            const Lane d2 = fused(e_f, fused(lag, fused(lag, w0, -2.0 * w1), w2), -w * i.e2);
            c2 = s.series.by_series != 0 ? d2 : c2;
          }
        }
        const Lane distance = m.distance[v];
        t.alpha += c0;
        t.decay += c1;
        t.distance = fused(c0, distance, t.distance);
        m.c[count] = c0;
        if (order < 2) continue;
        m.c_distance[count] = c0 * distance;
        m.c_decay[count] = c1;
        t.decay_decay += c2;
        t.distance_distance = fused(c0 * distance, distance, t.distance_distance);
        t.decay_distance = fused(c1, distance, t.decay_distance);
      }
      if (count < kChunk) break;
      flush(top, count);
      top -= count;
      count = 0;
    }
    total = t;
  }

  void backward_past(const Span& s, const Rho& rho) {
    const DecayIntegrals<Lane> e = integrals(g, s.x, all_lanes(s.length), s.shift, s.series);
    const Lane length = all_lanes(s.length), weight = all_lanes(s.weight), shift = s.shift;
    const Lane start0 = fused(shift, rho.r0, -weight * e.e0);
    const Lane start1 = fused(shift, fused(-length, rho.r0, rho.r1), weight * e.e1);
    const Lane start2 =
        fused(shift, fused(length, fused(length, rho.r0, -2.0 * rho.r1), rho.r2), -weight * e.e2);
    for (int64_t v = 0; v < n.nodes; ++v) {
      Lane* adjoint = m.adjoint + 3 * v;
      const Lane a = s.network[v], a0 = adjoint[0], a1 = adjoint[1];
      adjoint[0] = fused(shift, a0, a * start0);
      adjoint[1] = fused(shift, fused(-length, a0, a1), a * start1);
      if (order < 2) continue;
      const Lane inner = fused(length, fused(length, a0, -2.0 * a1), adjoint[2]);
      adjoint[2] = fused(shift, inner, a * start2);
    }
  }

  void backward() {
    const int64_t q = n.q;
    Totals total{};
    for (int64_t a = 0; a < q * (order >= 2 ? q + 3 : 1); ++a) m.sum[a] = Lane{};
    for (int64_t a = 0; a < n.nodes * 3; ++a) m.adjoint[a] = Lane{};
    int64_t top = m.piece[pieces].source - 1, at = stops - 1;
    int count = 0;
    for (int64_t i = pieces - 1; i >= 0; --i) {
      const Span s = span_of(i);
      Rho rho{};
      const auto walk_down = [&](int64_t from, int64_t to) {
        if (s.series.any) {
          backward_sources<true>(s, from, to, rho, total, top, count);
        } else {
          backward_sources<false>(s, from, to, rho, total, top, count);
        }
      };
      int64_t to = s.to;
      for (; at >= 0 && m.piece[i].block >= 0 && p.time[m.stop[at].event] > piece_start(i); --at) {
        const Stop& stop = m.stop[at];
        const int64_t from = stop.before < s.to ? stop.before : s.to;
        walk_down(from, to);
        to = from;
        const double lag = s.hi - p.time[stop.event];
        rho.r0[stop.lane] += stop.rho;
        rho.r1[stop.lane] += stop.rho * lag;
        rho.r2[stop.lane] += stop.rho * lag * lag;
      }
      walk_down(s.from, to);
      if (m.piece[i].block >= 0) backward_past(s, rho);
    }
    if (count > 0) flush(top, count);
    write(total);
  }

  double piece_start(int64_t i) const { return i > 0 ? m.piece[i - 1].hi : p.edge[0]; }

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

}  // namespace
}  // namespace topreach::kernels::TR_ISA
