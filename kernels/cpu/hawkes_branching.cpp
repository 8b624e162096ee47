// CPU loops of the futures of the networked Hawkes process; see ../hawkes_branching.h for the method.
#include "../hawkes_branching.h"

#include "arena.h"

namespace topreach::kernels::TR_ISA {
namespace {

constexpr int kSums =
    8;  // partial sums: the order of additions does not depend on the vector's width

struct Pending {
  double time;
  int32_t node;
  uint32_t id;
};

// One alias table and the weights that it was made from.
struct Choice {
  uint32_t* keep;
  int32_t* alias;
  double total;
};

struct Memory {
  double* reach;   // [M (v), M (u)] A_uv
  double* top;     // [M (v), M (u)] max over v's pool of omega_u . m
  uint32_t* keep;  // [M (v), M (u)], then [K, M] immigrants, then [M] the past
  int32_t* alias;  // likewise
  double* mean;    // [M] C_v
  double* none;    // [M] exp(-C_v)
  double *weight, *scaled, *omega, *decay_rate;  // [M], [M], [q, M], [M]
  double* base_total;                            // [K]
  double* state;                                 // [M]
  int32_t* work;                                 // [M]
  int32_t* period_events;                        // [M]
  Pending* stack;                                // [most_events + 1]
  double past_total;
  int64_t bytes;
};

TR_INLINE int64_t nodes_of(const HawkesFuture& f) { return f.problem->places * f.problem->types; }

Memory memory_of(const HawkesFuture& f, void* scratch) {
  const int64_t n = nodes_of(f), tables = n * (n + f.periods + 1);
  Arena a{static_cast<char*>(scratch), 0};
  Memory m;
  m.reach = a.take<double>(n * n);
  m.top = a.take<double>(n * n);
  m.keep = a.take<uint32_t>(tables);
  m.alias = a.take<int32_t>(tables);
  m.mean = a.take<double>(n);
  m.none = a.take<double>(n);
  m.weight = a.take<double>(n);
  m.scaled = a.take<double>(n);
  m.omega = a.take<double>(n * f.problem->marks_per_event);
  m.decay_rate = a.take<double>(n);
  m.base_total = a.take<double>(f.periods);
  m.state = a.take<double>(n);
  m.work = a.take<int32_t>(n);
  m.period_events = a.take<int32_t>(n);
  m.stack = a.take<Pending>(f.most_events + 1);
  m.past_total = 0.0;
  m.bytes = a.used;
  return m;
}

TR_INLINE double sum_of(const double* x, int64_t size) {
  double part[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= size; i += kSums)
    for (int j = 0; j < kSums; ++j) part[j] += x[i + j];
  for (; i < size; ++i) part[i % kSums] += x[i];
  double total = 0.0;
  for (int j = 0; j < kSums; ++j) total += part[j];
  return total;
}

// Tables that the paths of one parameter set share.
struct Set {
  const HawkesFuture& f;
  const HawkesProblem& p;
  int64_t nodes, q, set;
  Memory m;

  Choice children(int64_t v) const { return {m.keep + v * nodes, m.alias + v * nodes, m.mean[v]}; }
  Choice immigrants(int64_t k) const {
    return {m.keep + (nodes + k) * nodes, m.alias + (nodes + k) * nodes, m.base_total[k]};
  }
  Choice past() const {
    const int64_t at = (nodes + f.periods) * nodes;
    return {m.keep + at, m.alias + at, m.past_total};
  }
  const double* base(int64_t k) const { return f.base + (set * f.periods + k) * nodes; }
  const double* excitation() const { return f.excitation + set * nodes; }

  const double* omega_of(int64_t u) const {
    return f.parameters + (set * nodes + u) * hawkes_parameters(p) + p.covariates_per_node + 3;
  }

  void tabulate(const double* weight, const Choice& to) const {
    if (to.total > 0.0) alias_table(weight, nodes, to.total, to.keep, to.alias, m.scaled, m.work);
  }

  void prepare() {
    const int64_t size = hawkes_parameters(p), refresh = hawkes_refresh(p, p.blocks - 1);
    for (int64_t u = 0; u < nodes; ++u) {
      const double* exciting = f.parameters + (set * nodes + u) * size + 1 + p.covariates_per_node;
      for (int64_t r = 0; r < q; ++r) m.omega[r * nodes + u] = exciting[2 + r];
      m.decay_rate[u] = exciting[2 + q];
      for (int64_t j = 0; j < p.places; ++j) {
        const double reach =
            exponential_lane(exciting[0] - exciting[1] * p.distance[u / p.types * p.places + j]);
        for (int64_t v = j * p.types; v < (j + 1) * p.types; ++v)
          m.reach[v * nodes + u] = reach * hawkes_theta_of(p, refresh, u, v);
      }
    }
    if (f.mode != HawkesMode::kBranching) return;
    for (int64_t v = 0; v < nodes; ++v) {
      double* top = m.top + v * nodes;
      for (int64_t u = 0; u < nodes; ++u) top[u] = -kInfinity;
      for (int64_t i = f.pool_start[v]; i < f.pool_start[v + 1]; ++i) {
        linear_marks(p.marks + f.pool[i] * q, m.weight);
#pragma omp simd
        for (int64_t u = 0; u < nodes; ++u) top[u] = greater(top[u], m.weight[u]);
      }
#pragma omp simd
      for (int64_t u = 0; u < nodes; ++u)
        m.weight[u] = m.reach[v * nodes + u] * exponential_cut(top[u]) / m.decay_rate[u];
      m.mean[v] = sum_of(m.weight, nodes);
      m.none[v] = exponential_lane(-m.mean[v]);
      tabulate(m.weight, children(v));
    }
    for (int64_t k = 0; k < f.periods; ++k) {
      m.base_total[k] = sum_of(base(k), nodes);
      tabulate(base(k), immigrants(k));
    }
    for (int64_t u = 0; u < nodes; ++u) m.weight[u] = excitation()[u] / m.decay_rate[u];
    m.past_total = sum_of(m.weight, nodes);
    tabulate(m.weight, past());
  }

  // omega_u . m for all receivers.
  TR_INLINE void linear_marks(const double* marks, double* out) const {
    for (int64_t u = 0; u < nodes; ++u) out[u] = 0.0;
    for (int64_t r = 0; r < q; ++r) {
      const double* omega = m.omega + r * nodes;
      const double mark = marks[r];
#pragma omp simd
      for (int64_t u = 0; u < nodes; ++u) out[u] = fused(omega[u], mark, out[u]);
    }
  }

  TR_INLINE int64_t record(int64_t v, double u) const {
    const int64_t size = f.pool_start[v + 1] - f.pool_start[v];
    const int64_t i = int64_t(u * double(size));
    return f.pool[f.pool_start[v] + (i < size ? i : size - 1)];
  }

  // state_u += A_uv eta_ux for all receivers of an event of v.
  TR_INLINE void excite(int64_t v, double u01) const {
    const double* reach = m.reach + v * nodes;
    linear_marks(p.marks + record(v, u01) * q, m.weight);
#pragma omp simd
    for (int64_t u = 0; u < nodes; ++u)
      m.state[u] = fused(reach[u], exponential_cut(m.weight[u]), m.state[u]);
  }
};

// One path.
struct Path {
  const Set& s;
  const HawkesFuture& f;
  int64_t path;
  uint32_t made = 0;  // events so far
  int64_t waiting = 0;
  bool failed = false;
  int32_t* counts;
  double horizon, periods_per_time;

  TR_INLINE PhiloxWords words(HawkesStream stream, uint32_t event, uint32_t draw) const {
    return philox4x32(f.key, {draw, event, uint32_t(path), uint32_t(stream)});
  }

  TR_INLINE void put(double time, int32_t node) {
    if (int64_t(made) >= f.most_events) {
      failed = true;
      return;
    }
    s.m.stack[waiting++] = {time, node, made++};
  }

  TR_INLINE void count(double time, int32_t node) const {
    int64_t k = int64_t(time * periods_per_time);  // right if all periods have one length
    k = k < f.periods ? k : f.periods - 1;
    while (k > 0 && time <= f.edge[k]) --k;
    while (k + 1 < f.periods && time > f.edge[k + 1]) ++k;
    ++counts[k * s.nodes + node];
  }

  // Follows the events on the stack and all their descendants.
  TR_INLINE void follow() {
    while (waiting > 0 && !failed) {
      const Pending event = s.m.stack[--waiting];
      count(event.time, event.node);
      const int64_t v = event.node;
      const Choice children = s.children(v);
      if (!(children.total > 0.0)) continue;
      PhiloxWords w = words(kHawkesEvent, event.id, 0);
      const double* marks = s.p.marks + s.record(v, hawkes_unit(w.x, w.y)) * s.q;
      // A mean beyond 500 is drawn in parts.
      uint32_t draw = 1;
      double left = children.total;
      int64_t candidates = 0;
      if (left <= 500.0) {
        candidates = poisson_of_unit(hawkes_unit(w.z, w.w), left, s.m.none[v]);
      } else {
        for (; left > 0.0 && candidates <= f.most_events; left -= 500.0) {
          const double part = left < 500.0 ? left : 500.0;
          w = words(kHawkesEvent, event.id, draw++);
          candidates += poisson_of_unit(hawkes_unit(w.z, w.w), part, exponential_lane(-part));
        }
      }
      for (int64_t c = 0; c < candidates && !failed; ++c) {
        w = words(kHawkesEvent, event.id, draw++);
        const int32_t u = alias_draw(children.keep, children.alias, s.nodes, w.x, w.y);
        const double lag = -natural_log(hawkes_unit(w.w)) / s.m.decay_rate[u];
        const double time = event.time + lag;
        if (time > horizon) continue;
        const double* omega = s.omega_of(u);
        double linear = -s.m.top[v * s.nodes + u];
        for (int64_t r = 0; r < s.q; ++r) linear = fused(omega[r], marks[r], linear);
        if (hawkes_unit(w.z) < exponential_cut(linear)) put(time, u);
      }
    }
  }

  void branch() {
    const Choice past = s.past();
    uint32_t draw = 0;
    double mass = 0.0;
    while (past.total > 0.0 && !failed) {
      const PhiloxWords w = words(kHawkesPast, 0, draw), a = words(kHawkesPast, 1, draw);
      ++draw;
      mass -= natural_log(hawkes_unit(w.z, w.w));
      if (mass > past.total) break;
      const int32_t u = alias_draw(past.keep, past.alias, s.nodes, w.x, w.y);
      const double time = -natural_log(hawkes_unit(a.x, a.y)) / s.m.decay_rate[u];
      if (time > horizon) continue;
      put(time, u);
      follow();
    }
    draw = 0;
    for (int64_t k = 0; k < f.periods; ++k) {
      const Choice immigrants = s.immigrants(k);
      double time = f.edge[k];
      while (immigrants.total > 0.0 && !failed) {
        const PhiloxWords w = words(kHawkesImmigrant, 0, draw++);
        time -= natural_log(hawkes_unit(w.z, w.w)) / immigrants.total;
        if (time > f.edge[k + 1]) break;
        put(time, alias_draw(immigrants.keep, immigrants.alias, s.nodes, w.x, w.y));
        follow();
      }
    }
  }

  void thin() {
    double* state = s.m.state;
    double* rate = s.m.scaled;
    const double* decay_rate = s.m.decay_rate;
    for (int64_t u = 0; u < s.nodes; ++u) state[u] = s.excitation()[u];
    uint32_t step = 0;
    for (int64_t k = 0; k < f.periods; ++k) {
      const double* base = s.base(k);
      double time = f.edge[k];
      while (!failed) {
        for (int64_t u = 0; u < s.nodes; ++u) rate[u] = base[u] + state[u];
        const double bound = sum_of(rate, s.nodes);
        const PhiloxWords w = words(kHawkesEvent, step++, 0);
        const double wait = -natural_log(hawkes_unit(w.x, w.y)) / bound;  // +inf if the bound is 0
        const bool ends = !(time + wait <= f.edge[k + 1]);
        const double gap = ends ? f.edge[k + 1] - time : wait;
#pragma omp simd
        for (int64_t u = 0; u < s.nodes; ++u) state[u] *= decay_lane(decay_rate[u] * gap);
        time += gap;
        if (ends) break;
        // One uniform picks the node, or none: the rest of the bound.
        double left = hawkes_unit(w.z, w.w) * bound;
        int64_t v = 0;
        for (; v < s.nodes; ++v) {
          left -= base[v] + state[v];
          if (left < 0.0) break;
        }
        if (v == s.nodes) continue;
        if (int64_t(made++) >= f.most_events) failed = true;
        ++counts[k * s.nodes + v];
        const PhiloxWords r = words(kHawkesEvent, step - 1, 1);
        s.excite(v, hawkes_unit(r.x, r.y));
      }
    }
  }

  void paper() {
    double* state = s.m.state;
    for (int64_t u = 0; u < s.nodes; ++u) state[u] = s.excitation()[u];
    for (int64_t k = 0; k < f.periods && !failed; ++k) {
      const double length = f.edge[k + 1] - f.edge[k];
      for (int64_t u = 0; u < s.nodes; ++u) {
        const double d = s.m.decay_rate[u];
        double left = s.base(k)[u] * length + state[u] * decay_integrals(d, length).e0;
        uint32_t draw = 0;
        int64_t events = 0;
        do {
          const double part = left < 500.0 ? left : 500.0;
          const PhiloxWords w = words(kHawkesPaper, uint32_t(k * s.nodes + u), draw++);
          events += poisson_of_unit(hawkes_unit(w.x, w.y), part, exponential_lane(-part));
          left -= part;
        } while (left > 0.0 && events <= f.most_events);
        s.m.period_events[u] = int32_t(events < f.most_events ? events : f.most_events);
        counts[k * s.nodes + u] = s.m.period_events[u];
      }
      for (int64_t u = 0; u < s.nodes; ++u) state[u] *= decay_lane(s.m.decay_rate[u] * length);
      for (int64_t v = 0; v < s.nodes && !failed; ++v) {
        for (int32_t e = 0; e < s.m.period_events[v] && !failed; ++e) {
          if (int64_t(made) >= f.most_events) failed = true;
          const PhiloxWords w = words(kHawkesEvent, made++, 0);
          s.excite(v, hawkes_unit(w.x, w.y));
        }
      }
    }
  }
};

void simulate(const HawkesFuture& f, int64_t begin, int64_t end, void* scratch) {
  Set set{f, *f.problem, nodes_of(f), f.problem->marks_per_event, -1, memory_of(f, scratch)};
  for (int64_t path = begin; path < end; ++path) {
    const int64_t wanted = path / f.paths_per_set % f.sets;
    if (wanted != set.set) {
      set.set = wanted;
      set.prepare();
    }
    int32_t* counts = f.counts + path * f.periods * set.nodes;
    for (int64_t i = 0; i < f.periods * set.nodes; ++i) counts[i] = 0;
    const double horizon = f.edge[f.periods];
    Path walk{set, f, path, 0, 0, false, counts, horizon, double(f.periods) / horizon};
    switch (f.mode) {
      case HawkesMode::kThinning: walk.thin(); break;
      case HawkesMode::kPaper: walk.paper(); break;
      default: walk.branch();
    }
    f.failed[path] = walk.failed ? 1 : 0;
  }
}

int64_t scratch_bytes(const HawkesFuture& f) { return memory_of(f, nullptr).bytes; }

}  // namespace

extern const HawkesBranchingCpu hawkes_branching;
const HawkesBranchingCpu hawkes_branching{scratch_bytes, simulate};

}  // namespace topreach::kernels::TR_ISA
