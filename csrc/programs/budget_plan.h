// The best sites for a budget: max r.x, c.x <= B, and, if given, K sites, quotas and locks.
#pragma once

#include <vector>

#include "constraints.h"
#include "solved.h"

namespace topreach::plan {

/// Scores r [S] (-inf closes a site), cost c [S] >= 0, budget B in the unit of c. Without k the
/// number of sites is free. Numbers: "cost", "price" (about what one more unit of budget is worth).
///
/// Dantzig's bound and a repaired plan come first (kernels/programs/budget.h). If their gap is above
/// the one asked for, HiGHS goes on from that plan. Without HiGHS the plan is returned with its gap.
///
/// Status "infeasible" if the cheapest plan costs more than B.
Solved budget_topk(std::vector<double> scores, std::vector<double> cost, double budget,
                   Constraints constraints, const SolveOptions& options = {});

}  // namespace topreach::plan
