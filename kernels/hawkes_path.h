// The course of one node's fitted rate: intensities and compensator at its own events, totals of each
// block, and the excitation that remains at the end.
//
// One pass in order of time, O(N + B M). Unlike in the likelihood (hawkes.h), the excitation S is carried
// from event to event, and its integral over a gap is S E_0(gap). Time rescaling:
// the increments of `compensator` are independent Exp(1) under the model [Brown et al. 2002].
#pragma once

#include "hawkes.h"

namespace topreach::kernels {

// Null arrays are not filled. Own events are those in (b_0, b_B], in order.
struct HawkesPath {
  double* intensity;    // lambda at each own event
  double* immigrant;    // mu there; mu / lambda is the chance that the event has no parent
  double* compensator;  // int lambda from b_0 to the event, unweighted
  double* block_total;  // [B], int lambda over each block
  double* block_base;   // [B], int mu
};

// log of alpha exp(-delta_g dist_ij) eta: what an event of node v with these marks adds to R_v of u.
TR_HD double hawkes_log_weight(const HawkesProblem& p, const double* z, int64_t u, int64_t v,
                               const double* marks) {
  const double* exciting = z + 1 + p.covariates_per_node;
  double linear = exciting[0] - exciting[1] * p.distance[u / p.types * p.places + v / p.types];
  for (int64_t r = 0; r < p.marks_per_event; ++r) linear = fused(exciting[2 + r], marks[r], linear);
  return linear;
}

TR_HD double hawkes_base(const HawkesProblem& p, const double* z, int64_t block, int64_t u) {
  const double* y = hawkes_covariates(p, block, u);
  double linear = z[0];
  for (int64_t a = 0; a < p.covariates_per_node; ++a) linear = fused(z[1 + a], y[a], linear);
  return exponential_lane(linear);
}

// Adds an event to `state`, R_v at time `at` >= its own. New records cost O(1), in any order. A deleted
// record has sign -1.
TR_HD void hawkes_add_event(const HawkesProblem& p, const double* z, int64_t u, int64_t v,
                            const double* marks, double lag, double sign, double* state) {
  const double decay_rate = z[hawkes_parameters(p) - 1];
  state[v] += sign * exponential_lane(hawkes_log_weight(p, z, u, v, marks) - decay_rate * lag);
}

// R_v after `duration` without events.
TR_HD void hawkes_let_decay(double decay_rate, double duration, int64_t nodes, double* state) {
  const double decay = exponential_lane(-decay_rate * duration);
  for (int64_t v = 0; v < nodes; ++v) state[v] *= decay;
}

// Fills `path`; `state` [M] becomes R_v(b_B) = sum alpha exp(-delta_g dist) eta exp(-delta_k (b_B - t_x))
// over events up to and at b_B. Returns the number of own events.
inline int64_t hawkes_path(const HawkesProblem& p, int64_t u, const double* z,
                           const HawkesPath& path, double* state) {
  const int64_t nodes = p.places * p.types;
  const double d = z[hawkes_parameters(p) - 1];
  const auto add = [&](int64_t x, double at) {
    hawkes_add_event(p, z, u, p.node[x], p.marks + x * p.marks_per_event, at - p.time[x], 1.0,
                     state);
  };
  for (int64_t v = 0; v < nodes; ++v) state[v] = 0.0;
  int64_t first = 0, own = 0;
  for (; first < p.events && p.time[first] < p.edge[0]; ++first) add(first, p.edge[0]);
  double before = 0.0;  // the compensator at the block's start
  for (int64_t k = 0; k < p.blocks; ++k) {
    const double lo = p.edge[k], hi = p.edge[k + 1], mu = hawkes_base(p, z, k, u);
    const int64_t refresh = hawkes_refresh(p, k);
    double excited = 0.0, excess = 0.0, at = lo;
    for (int64_t v = 0; v < nodes; ++v)
      excited = fused(hawkes_theta_of(p, refresh, u, v), state[v], excited);
    const auto advance = [&](double to) {
      excess = fused(excited, decay_integrals(d, to - at).e0, excess);
      excited *= exponential_lane(-d * (to - at));
      at = to;
    };
    int64_t x = first;
    while (x < p.events && p.time[x] <= hi) {
      advance(p.time[x]);
      int64_t next = x;
      for (; next < p.events && p.time[next] == at; ++next) {
        if (p.node[next] != u || !(at > lo)) continue;
        if (path.intensity != nullptr) path.intensity[own] = mu + excited;
        if (path.immigrant != nullptr) path.immigrant[own] = mu;
        if (path.compensator != nullptr) path.compensator[own] = before + mu * (at - lo) + excess;
        ++own;
      }
      if (at == hi) break;
      for (; x < next; ++x)
        excited += hawkes_theta_of(p, refresh, u, p.node[x]) *
                   exponential_lane(
                       hawkes_log_weight(p, z, u, p.node[x], p.marks + x * p.marks_per_event));
    }
    advance(hi);
    const double base = mu * (hi - lo);
    if (path.block_total != nullptr) path.block_total[k] = base + excess;
    if (path.block_base != nullptr) path.block_base[k] = base;
    before += base + excess;
    hawkes_let_decay(d, hi - lo, nodes, state);
    for (; first < x; ++first) add(first, hi);
  }
  for (; first < p.events && p.time[first] == p.edge[p.blocks]; ++first)
    add(first, p.edge[p.blocks]);
  return own;
}

// S_u = sum_v theta_uv R_v(b_B) with the last refresh of theta, events at b_B included. A forecast starts
// from it. Events whose decay is below exp(-50) are left out, so the cost is that of the recent past.
inline double hawkes_excitation(const HawkesProblem& p, int64_t u, const double* z) {
  const double d = z[hawkes_parameters(p) - 1], end = p.edge[p.blocks];
  const int64_t refresh = hawkes_refresh(p, p.blocks - 1);
  double sum = 0.0;
  for (int64_t x = p.events - 1; x >= 0; --x) {
    const double lag = end - p.time[x];
    if (lag < 0.0) continue;
    if (d * lag > 50.0) break;
    const double* marks = p.marks + x * p.marks_per_event;
    sum += hawkes_theta_of(p, refresh, u, p.node[x]) *
           exponential_lane(hawkes_log_weight(p, z, u, p.node[x], marks) - d * lag);
  }
  return sum;
}

}  // namespace topreach::kernels
