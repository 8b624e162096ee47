// Whom to choose so that most people are reached: spillover, call-ins, maximal coverage, representatives.
//
//   max a.x + sum_i w_i phi_i(x),  x among the allowed plans
//
// phi_i = min(1, sum_j q_ij x_j) (capped) or 1 - prod_j (1 - q_ij x_j) (exact):
// kernels/programs/coverage.h.
#pragma once

#include <vector>

#include "../graph.h"
#include "constraints.h"
#include "kernels.h"
#include "solved.h"

namespace topreach::plan {

/// Any program of this form. A greedy plan with swaps and a Lagrangian bound come first. HiGHS goes
/// on from that plan if quotas cross, or if the gap is above the one asked for and the program is
/// small (at most 20,000 entries).
///
/// Numbers: "reach", sum_i w_i (1 - prod_j (1 - q_ij x_j)), whichever form is maximised. Columns:
/// "reached" [people], each person's chance of being reached.
Solved coverage(const kernels::Coverage& given, Constraints constraints, bool capped = false,
                const SolveOptions& options = {});

/// Maximal coverage: each person i counts `weight`_i if i or at least one of its neighbours is chosen.
Solved coverage(const Graph& graph, const std::vector<double>& weight, Constraints constraints,
                const SolveOptions& options = {});

/// A treated person i saves treated_i; an untreated neighbour i of a treated one saves spilled_i, once. Both
/// are chances or expected counts. compliance_j in [0, 1] is the chance that a chosen person comes and is
/// treated; empty: all are.
Solved spillover(const Graph& graph, const std::vector<double>& treated,
                 const std::vector<double>& spilled, Constraints constraints,
                 const std::vector<double>& compliance = {}, const SolveOptions& options = {});

/// A person who is called comes with chance `comes`. Whoever comes hears the message, and passes it on to
/// each neighbour with chance `passes`. weight [nodes]: what reaching a person is worth; empty: 1. The exact
/// form counts each person's chance of being reached; `capped` counts expected contacts, at most one each.
Solved call_in(const Graph& graph, const std::vector<double>& comes,
               const std::vector<double>& passes, Constraints constraints,
               const std::vector<double>& weight = {}, bool capped = false,
               const SolveOptions& options = {});

/// Representatives: the fewest nodes, or cheapest by `cost` (> 0), so that every node is chosen or
/// has a chosen neighbour. lock [nodes] as in Constraints, or empty.
Solved dominating_set(const Graph& graph, const std::vector<double>& cost = {},
                      const std::vector<int8_t>& lock = {}, const SolveOptions& options = {});

/// The fewest seeds whose reach is at least theta. Status "infeasible" if no plan reaches it; a note
/// then gives the largest possible reach.
Solved reach_at_least(const kernels::Coverage& given, double theta, bool capped = false,
                      const SolveOptions& options = {});

}  // namespace topreach::plan
