// The best sites for a budget:  max r.x,  c.x <= B,  and, if given, the plans C of quota_topk.h (K sites,
// quotas, locks).
//
// The bound: for a price lambda >= 0 of money, L(lambda) = lambda B + max_C (r - lambda c).x (without C:
// all sites with r > lambda c). L is convex; bisection on lambda finds its minimum, Dantzig's bound (1957).
//
// The plan is the maximiser at the lowest price at which it keeps the budget, after greedy repair: sites are
// added and exchanged while that improves the value within the budget.
//
// Bound O(S log 1/epsilon); a pass of exchanges O(K S). The optimum: budget_program of models.h, started
// from this plan.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quota_topk.h"
#include "solution.h"

namespace topreach::kernels {

struct BudgetPlan {
  PlanStatus status = PlanStatus::infeasible;
  double value = 0, bound = 0, gap = 0, cost = 0;
  double price = 0;             // lambda: about what one more unit of budget is worth
  std::vector<int32_t> chosen;  // ascending
};

// r and c [S], c >= 0. `plans` null: any number of sites.
BudgetPlan solve_budget(std::span<const double> r, std::span<const double> c, double budget,
                        const QuotaTree* plans = nullptr);

}  // namespace topreach::kernels
