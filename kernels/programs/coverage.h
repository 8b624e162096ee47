// Whom to choose so that most people are reached: a plan, a bound of every plan, and their gap.
//
//   max a.x + sum_i w_i phi_i(x),  x in C
//
// Seeds j may be chosen, people i are reached by them with chance q_ij; C are the plans of quota_topk.h
// (K seeds, quotas, locks). a and w have the unit of the quantity that is maximised.
//   capped: phi_i = min(1, sum_j q_ij x_j), expected contacts, at most one each
//   exact:  phi_i = 1 - prod_j (1 - q_ij x_j), the chance of being reached
// If all q are 1 the two are the same.
//
// The plan: lazy greedy (Minoux 1978), which has at least 1 - 1/e of the optimum with |x| = K, half of
// it under quotas (Nemhauser, Wolsey & Fisher 1978); then single swaps while they improve. Seeds are
// taken only while the quotas can still be met.
//
// The bound. Every choice of multipliers lambda gives one.
// capped: one multiplier per person, 0 <= lambda <= w:
//   L(lambda) = sum_i (w_i - lambda_i) + max_C (a + q' lambda).x
// exact: one multiplier per (person, seed), 0 <= lambda_ij <= w_i q_ij:
//   L(lambda) = sum_i max_T [w_i (1 - prod_T (1 - q_ij)) - lambda_i(T)] + max_C sum_j (a_j + sum_i
//   lambda_ij) x_j
// The inner maximum is found by branching on the seeds that are neither in nor out for certain. With
// more than kMostBranches of these, T is relaxed to fractions in 1 - exp(-sum z), z = -log(1 - q).
// L falls by Polyak's steps (1969). The plans that attain max_C are valued too.
//
// Cost of a step: O(entries of q + S). The exact form needs a multiplier per entry: with one per
// person the bound is 65 to 280 % too high as q comes near 1.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "graph.h"
#include "quota_topk.h"
#include "solution.h"

namespace topreach::kernels {

constexpr int kMostBranches = 14;

// Rows are people, columns seeds.
struct Coverage {
  int64_t people = 0, seeds = 0;
  std::vector<double> a, w;       // [seeds], [people], w >= 0
  std::vector<int64_t> start{0};  // [people + 1]
  std::vector<int32_t> seed;      // [entries], each once in a row
  std::vector<double> chance;     // [entries], in [0, 1]; empty: all 1
};

// Seeds and people are the nodes. A treated person i saves p_l,i; an untreated neighbour i of a treated one
// saves p_s,i, once. `compliance` c_j is the chance that a chosen person comes and is treated; empty: all 1.
// Expected saving:
//   sum_i (p_l - p_s)_i c_i x_i + p_s,i (1 - prod_{N[i]} (1 - c_j x_j))
Coverage spillover(const Graph& graph, std::span<const double> treated,
                   std::span<const double> spilled, std::span<const double> compliance = {});

// A person who comes (chance `comes`) hears the message, and passes it on to each neighbour with chance
// `passes`: q_jj = p_c,j and q_ij = p_c,j p_s,j. `weight` of being reached may be empty: all 1.
Coverage call_in(const Graph& graph, std::span<const double> comes, std::span<const double> passes,
                 std::span<const double> weight = {});

struct CoverageOptions {
  bool capped = false;
  int64_t steps = 1000;  // of the bound, at most; 0: no bound
  double gap = 0;        // the relative gap at which it stops
  double time_limit = std::numeric_limits<double>::infinity();  // seconds
};

struct CoveragePlan {
  PlanStatus status = PlanStatus::infeasible;
  double value = 0, bound = 0, gap = 0;
  double reach = 0;  // sum_i w_i (1 - prod_j (1 - q_ij x_j)), whichever form is maximised
  std::vector<int32_t> chosen;  // ascending
  int64_t steps = 0;
};

// The objective of a plan.
double coverage_value(const Coverage& coverage, std::span<const int32_t> chosen, bool capped);

// `plans` is C. If its quotas cannot be met the status is `infeasible`.
CoveragePlan solve_coverage(const Coverage& coverage, const QuotaTree& plans,
                            const CoverageOptions& options = {});

}  // namespace topreach::kernels
