// The fewest, or cheapest, seeds that reach enough people.
//
// Representatives (a dominating set): min cost.x, sum over N[i] of x >= 1 for every node. Greedy by new
// nodes per cost (Chvatal 1979: at most H(d + 1) times the optimum), then nodes that are not needed are
// removed, the most expensive first. The bound: L(lambda) = sum lambda_i + sum_j min(0, c_j - lambda(N[j])),
// lambda >= 0, raised by Polyak's steps, and rounded up if costs are whole numbers. The optimum:
// domination_program of models.h.
//
// Enough reach: the fewest seeds with reach at least theta, greedily; or the largest reach, if theta is above
// it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "coverage.h"
#include "graph.h"
#include "solution.h"

namespace topreach::kernels {

struct Representatives {
  PlanStatus status = PlanStatus::heuristic;
  double value = 0, bound = 0, gap = 0;
  double reach = 0;             // of reach_at_least: sum w phi
  std::vector<int32_t> chosen;  // ascending
};

// cost [nodes] > 0, or empty: 1 each. O(steps (nodes + edges)).
Representatives dominating_set(const Graph& graph, std::span<const double> cost = {},
                               int64_t steps = 300);

// The status is `infeasible` if no plan reaches theta; then `reach` is the largest there is. `value` is the
// number of seeds, `bound` the number that would be needed if gains did not overlap. `a` of the coverage is
// not used.
Representatives reach_at_least(const Coverage& coverage, double theta, bool capped = false);

}  // namespace topreach::kernels
