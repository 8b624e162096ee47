// Networked Hawkes process: log-likelihood, gradient and Hessian, node by node.
//
// Node u = (place i, type s), index i S + s, M = I S. With receiver u's parameters
// z = (log gamma, beta[p], log alpha, delta_g, omega[q], delta_k), P = p + q + 4:
//
//   lambda_u(t) = mu_u(t) + sum_v A_uv(t) sum_{x of v, t_x < t} eta_x exp(-delta_k (t - t_x))
//   mu_u = exp(log gamma + beta . y_u(t)),  eta_x = exp(omega . m_x),
//   A_uv = alpha exp(-delta_g dist_ij) theta_uv(t)                    [stemmed point process, Eq. 4-8]
//   l_u = sum_k w_k [sum_{own events n in (b_k, b_k+1]} log lambda_u(t_n) - int_{b_k}^{b_k+1} lambda_u]
//
// y and theta are constant on a block (b_k, b_k+1]. An event never excites at zero lag. An event at b_k
// excites in block k and counts in block k - 1. Events up to b_0 are history: they excite but do not count.
// Events after b_B are ignored.
//
// Method. R_v = sum_{x of v} eta_x exp(-delta_k lag) is carried from block to block; within a block one sum
// P, discounted to the block's end, serves all own events. The gradient is by the adjoint: with
// r_n = w / lambda_n held, l is linear in each event's weight, and its coefficient and the first two
// derivatives of that for delta_k follow from a second pass backwards. They give the gradient, and the
// Hessian of the linear part as sum_x c_x (1, -dist, m)(1, -dist, m)'; the rest is
// -sum_n (w / lambda_n^2) grad lambda_n grad lambda_n', with grad lambda_n from the forward pass.
//
// A block in which delta_k |b| > kHawkesLongest is walked in pieces, so that no discount overflows.
// Cost: O(N M + B M^2), two exps per event and node; per thread (2 N + (Q + q + 8) M) doubles, Q refreshes
// of theta, times the lanes of a vector (8 at most). Items (a node with its parameters) share the events;
// each item's bits depend on itself alone, whatever the batch, thread count or vector width.
#pragma once

#include <cstdint>

#include "hawkes_decay.h"

namespace topreach::kernels {

constexpr double kHawkesLongest = 64.0;

// theta_uv of refresh r from tables of event counts, for u = (i, s) and v = (j, s'):
//   (joint_i + [i != j] joint_j + w prior) / (either_i + [i != j] either_j + w), at (r, s, s', .)
// `share`: joint = events at the place that name s and s', either = all events there.
// `jaccard`: the same joint, either = those that name s or s'. prior: the ratio over all places.
// With all pointers null, theta = 1; `dense`, if given, holds theta itself.
struct HawkesTheta {
  const double* dense;  // [Q, M, M] or null
  const float* joint;   // [Q, S, S, I] or null; whole numbers
  const float* either;  // [Q, S, S, I]
  const double* prior;  // [Q, S, S]
  double prior_weight;  // w, in events
  int64_t refreshes;    // Q >= 1
};

TR_HD double hawkes_theta(double joint, double either, double prior, double weight) {
  return either + weight > 0.0 ? fused(weight, prior, joint) / (either + weight) : prior;
}

struct HawkesProblem {
  // Events, shared by all items.
  const double* time;   // [N], ascending
  const int32_t* node;  // [N]
  const double* marks;  // [N, q]
  int64_t events, marks_per_event;
  // Blocks.
  const double* edge;        // [B + 1], ascending
  const double* weight;      // [B], w_k
  const double* covariates;  // y, [B, M, p], or [B, I, p] if covariates_by_place
  bool covariates_by_place;
  int64_t blocks, covariates_per_node;
  // Network.
  int64_t places, types;   // I, S
  const double* distance;  // [I, I]
  const int32_t*
      refresh;  // [B], ascending: the refresh of theta in force; null: block k has refresh k
  HawkesTheta theta;
};

TR_HD int64_t hawkes_parameters(const HawkesProblem& p) {
  return p.covariates_per_node + p.marks_per_event + 4;
}

TR_HD int64_t hawkes_refresh(const HawkesProblem& p, int64_t block) {
  return p.refresh != nullptr ? p.refresh[block] : block;
}

TR_HD int64_t hawkes_refreshes(const HawkesProblem& p) {
  return p.blocks > 0 ? hawkes_refresh(p, p.blocks - 1) + 1 : 0;
}

TR_HD const double* hawkes_covariates(const HawkesProblem& p, int64_t block, int64_t node) {
  const int64_t rows = p.covariates_by_place ? p.places : p.places * p.types;
  return p.covariates +
         (block * rows + (p.covariates_by_place ? node / p.types : node)) * p.covariates_per_node;
}

TR_HD double hawkes_theta_of(const HawkesProblem& p, int64_t refresh, int64_t u, int64_t v) {
  const HawkesTheta& t = p.theta;
  const int64_t nodes = p.places * p.types;
  if (t.dense != nullptr) return t.dense[(refresh * nodes + u) * nodes + v];
  if (t.joint == nullptr) return 1.0;
  const int64_t i = u / p.types, j = v / p.types;
  const int64_t pair = (refresh * p.types + u % p.types) * p.types + v % p.types;
  const float *joint = t.joint + pair * p.places, *either = t.either + pair * p.places;
  const double other = i != j ? 1.0 : 0.0;
  return hawkes_theta(double(joint[i]) + other * double(joint[j]),
                      double(either[i]) + other * double(either[j]), t.prior[pair], t.prior_weight);
}

// A block or a part of one: (lo, hi] with lo the end of the piece before. Its sources, the events from
// `source` to that of the next piece, lie in [lo, hi).
struct HawkesPiece {
  double hi;
  int64_t source;
  int64_t block;  // -1: history, up to b_0
};

TR_HD int64_t hawkes_most_pieces(const HawkesProblem& p) { return p.blocks + 2 * p.events + 2; }

// Whether a block is too long for one sum discounted to its end.
TR_HD bool hawkes_needs_cutting(const HawkesProblem& p, double decay_rate) {
  double longest = 0.0;
  for (int64_t k = 0; k < p.blocks; ++k) longest = greater(longest, p.edge[k + 1] - p.edge[k]);
  return decay_rate * longest > kHawkesLongest;
}

// Fills `piece` and one more, which holds the end of the last one's sources; returns how many. A part of a
// block is at most kHawkesLongest / decay_rate long, or ends at the first event after its start.
TR_HD int64_t hawkes_cut(const HawkesProblem& p, double decay_rate, HawkesPiece* piece) {
  int64_t x = 0, count = 0;
  if (p.events > 0 && p.time[0] < p.edge[0]) piece[count++] = {p.edge[0], 0, -1};
  while (x < p.events && p.time[x] < p.edge[0]) ++x;
  for (int64_t k = 0; k < p.blocks; ++k) {
    const double end = p.edge[k + 1];
    double lo = p.edge[k];
    while (lo < end) {
      double hi = end;
      if (decay_rate * (end - lo) > kHawkesLongest) {
        hi = lo + kHawkesLongest / decay_rate;
        if (x >= p.events || p.time[x] >= hi)
          hi = x < p.events && p.time[x] < end ? p.time[x] : end;
        if (!(hi > lo)) hi = end;
      }
      piece[count++] = {hi, x, k};
      while (x < p.events && p.time[x] < hi) ++x;
      lo = hi;
    }
  }
  piece[count] = {0.0, x, -1};
  return count;
}

// Items, and the arrays for their results; a null array is not filled.
struct HawkesItems {
  const int32_t* node;       // [R]
  const double* parameters;  // [R, P], natural: z
  double* value;             // [R]
  double* gradient;          // [R, P]
  double* hessian;           // [R, P, P]
  int64_t* failed_event;  // [R]: the first own event where lambda is not a positive number, or -1
};

struct HawkesCpu {
  // Bytes of working memory for `evaluate`, 64-byte aligned.
  int64_t (*scratch)(const HawkesProblem&);
  // The items begin..end: the value, and the derivatives whose arrays are given.
  void (*evaluate)(const HawkesProblem&, const HawkesItems&, int64_t begin, int64_t end,
                   void* scratch);
};

// The functions for this machine's instruction set; results are the same for each.
const HawkesCpu& hawkes_cpu();

// ------------------------------------------------------------------------------- working coordinates

// Natural z from working coordinates (log gamma, beta, log nu, softplus^-1 delta_g, omega, log delta_k),
// nu = alpha / delta_k: children per event before theta, distance and marks.
TR_HD void hawkes_natural(int64_t p, int64_t q, const double* working, double* z) {
  for (int64_t a = 0; a < p + q + 4; ++a) z[a] = working[a];
  z[p + 1] = working[p + 1] + working[p + q + 3];
  z[p + 2] = softplus_of(working[p + 2]);
  z[p + q + 3] = exponential_lane(working[p + q + 3]);
}

// delta_g > 0 and delta_k > 0.
TR_HD void hawkes_working(int64_t p, int64_t q, const double* z, double* working) {
  for (int64_t a = 0; a < p + q + 4; ++a) working[a] = z[a];
  const double log_decay = natural_log(z[p + q + 3]), d = z[p + 2];
  working[p + 1] = z[p + 1] - log_decay;
  working[p + 2] = d + natural_log(decay_integrals(1.0, d).e0);  // d + log(1 - exp(-d))
  working[p + q + 3] = log_decay;
}

// Gradient and, if given, Hessian in natural parameters become those in working coordinates, in place.
TR_HD void hawkes_chain(int64_t p, int64_t q, const double* working, double* gradient,
                        double* hessian) {
  const int64_t size = p + q + 4, nu = p + 1, g = p + 2, k = p + q + 3;
  const double slope = sigmoid_of(working[g]), decay = exponential_lane(working[k]);
  if (hessian != nullptr) {
    for (int64_t side = 0; side < 2; ++side) {  // rows, then columns
      const int64_t step = side == 0 ? size : 1, other = side == 0 ? 1 : size;
      for (int64_t a = 0; a < size; ++a) {
        double* h = hessian + a * other;
        h[g * step] *= slope;
        h[k * step] = fused(decay, h[k * step], h[nu * step]);
      }
    }
    hessian[g * size + g] += gradient[g] * slope * (1.0 - slope);
    hessian[k * size + k] += gradient[k] * decay;
  }
  gradient[g] *= slope;
  gradient[k] = fused(decay, gradient[k], gradient[nu]);
}

}  // namespace topreach::kernels
