// Working memory of the networked Hawkes likelihood, and the network of one group of items.
#pragma once

#include "arena.h"
#include "hawkes_lanes.h"  // before hawkes.h: its templates call `fused` of lanes

#include "../hawkes.h"

namespace topreach::kernels::TR_ISA {
namespace {

constexpr int kLanes = kHawkesLanes;
constexpr int kChunk = 64;  // events whose coefficients are summed together

using Piece = HawkesPiece;

// An own event of a lane. Events with numbers below `before` are earlier than it.
struct Stop {
  int64_t event, before;
  double rho;  // w / lambda_n exp(delta_k (hi - t_n))
  int32_t lane;
};

struct Sizes {
  int64_t events, blocks, nodes, refreshes, p, q, parameters;
};

TR_INLINE Sizes sizes_of(const HawkesProblem& p) {
  return {p.events,
          p.blocks,
          p.places * p.types,
          hawkes_refreshes(p),
          p.covariates_per_node,
          p.marks_per_event,
          hawkes_parameters(p)};
}

struct Memory {
  Lane *mark, *decay;              // [N] exp(omega . m), exp(-delta_k (hi - t))
  Stop* stop;                      // [N * lanes + 1] own events of the group, in order
  Piece* piece;                    // [B + 2 N + 2]
  Lane* network;                   // [Q + 1, M] A_uv; the last 0, for history
  Lane* omega;                     // [q]
  Lane* distance;                  // [M] dist
  double* reach;                   // [lanes, I] alpha exp(-delta_g dist)
  Lane* state;                     // [M, q + 2]: R_v, its sums with marks and lags
  Lane* adjoint;                   // [M, 3]: dl/dR_v and its derivatives for delta_k
  Lane* row;                       // [q + 2]: P with distances, marks, lags
  Lane *c, *c_decay, *c_distance;  // [kChunk] coefficients of events
  Lane* sum;                       // [q (q + 3)]: c m, c dist m, c' m, c m m'
  double* slope;                   // [P] of lambda at one event
  int64_t *own_start, *own;        // [M + 1], [N]: events by node
  int64_t bytes;
};

TR_INLINE Memory memory_of(const HawkesProblem& p, void* scratch) {
  const Sizes n = sizes_of(p);
  Arena a{static_cast<char*>(scratch), 0};
  Memory m;
  m.mark = a.take<Lane>(n.events);
  m.decay = a.take<Lane>(n.events);
  m.stop = a.take<Stop>(n.events * kLanes + 1);
  m.piece = a.take<Piece>(hawkes_most_pieces(p));
  m.network = a.take<Lane>((n.refreshes + 1) * n.nodes);
  m.omega = a.take<Lane>(n.q);
  m.reach = a.take<double>(kLanes * p.places);
  m.distance = a.take<Lane>(n.nodes);
  m.state = a.take<Lane>(n.nodes * (n.q + 2));
  m.adjoint = a.take<Lane>(n.nodes * 3);
  m.row = a.take<Lane>(n.q + 2);
  m.c = a.take<Lane>(kChunk);
  m.c_decay = a.take<Lane>(kChunk);
  m.c_distance = a.take<Lane>(kChunk);
  m.sum = a.take<Lane>(n.q * (n.q + 3));
  m.slope = a.take<double>(n.parameters);
  m.own_start = a.take<int64_t>(n.nodes + 1);
  m.own = a.take<int64_t>(n.events);
  m.bytes = a.used;
  return m;
}

// Values that stay the same for a group of items, lane by lane.
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

// A_uv of one refresh, for the lane's receiver.
void fill_network(const HawkesProblem& p, int64_t refresh, int64_t u, int lane, const Memory& m,
                  Lane* out) {
  const int64_t places = p.places, types = p.types, s = u % types, i = u / types;
  double* const to = reinterpret_cast<double*>(out) + lane;
  const double* reach = m.reach + lane * places;
  const HawkesTheta& theta = p.theta;
  if (theta.joint == nullptr || theta.dense != nullptr) {
    for (int64_t v = 0; v < places * types; ++v)
      to[v * kLanes] = reach[v / types] * hawkes_theta_of(p, refresh, u, v);
    return;
  }
  for (int64_t t = 0; t < types; ++t) {
    const int64_t pair = (refresh * types + s) * types + t;
    const float *joint = theta.joint + pair * places, *either = theta.either + pair * places;
    const double own_joint = double(joint[i]), own_either = double(either[i]);
    const double prior = theta.prior[pair], weight = theta.prior_weight;
#pragma omp simd
    for (int64_t j = 0; j < places; ++j)
      to[(j * types + t) * kLanes] =
          reach[j] *
          hawkes_theta(own_joint + double(joint[j]), own_either + double(either[j]), prior, weight);
    const int64_t own = i * types + t;
    to[own * kLanes] = reach[i] * hawkes_theta_of(p, refresh, u, own);
  }
}

}  // namespace
}  // namespace topreach::kernels::TR_ISA
