// The best sites for a budget: max r.x, c.x <= B, and, if given, K sites, quotas and locks.
#pragma once

#include <vector>

#include "constraints.h"
#include "solved.h"

namespace topreach::plan {

/// Scores r [S] (-inf closes a site), cost c [S] >= 0, budget B in the unit of c. Without k the
/// number of sites is free. First Dantzig's bound and a repaired plan (kernels/programs/budget.h),
/// then, if the gap is above that asked for, HiGHS, started from that plan; without HiGHS that plan
/// with its gap. Numbers: "cost", "price" (what one more unit of money is worth, about).
///
/// Status "infeasible" if the cheapest plan costs more than B.
Solved budget_topk(std::vector<double> scores, std::vector<double> cost, double budget,
                   Constraints constraints, const SolveOptions& options = {});

}  // namespace topreach::plan
