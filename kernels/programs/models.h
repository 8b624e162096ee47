// Allocation programs as linear programs, for csrc/programs/milp.h. Each function says what its first
// columns are. If x is a plan, columns 0 to S - 1 are x.
#pragma once

#include <span>
#include <vector>

#include "coverage.h"
#include "graph.h"
#include "linear_program.h"

namespace topreach::kernels {

// ---- the choice itself, and rows that narrow it -------------------------------------------------

// max r.x, x in {0,1}^S. k >= 0: sum x = k. lock [S], 1 in, -1 out, may be empty.
LinearProgram choice_program(std::span<const double> r, int64_t k,
                             std::span<const int8_t> lock = {});

// lower_g <= x(g) <= upper_g for the groups of one grouping; group [S], -1: in none. One or two
// groupings leave the program integral, with or without sum x = k: it may be relaxed (see relax) and is
// then a flow. Three do not.
void add_quotas(LinearProgram& program, std::span<const int32_t> group,
                std::span<const int64_t> lower, std::span<const int64_t> upper);
void relax(LinearProgram& program);

// c.x <= budget.
void add_budget(LinearProgram& program, std::span<const double> c, double budget);

// No two chosen sites less than `distance` apart. x and y [S] are coordinates in the plane, in the unit
// of `distance`. A row for each cell of a grid of side distance / sqrt 2 (any two of its sites are too
// close), and one for each pair too close in different cells.
void add_spacing(LinearProgram& program, std::span<const double> x, std::span<const double> y,
                 double distance);
// No two neighbours.
void add_independence(LinearProgram& program, const Graph& graph);

// The chosen k sites are connected in the graph: one of them, the root, receives k units of flow, each chosen
// site keeps one unit, and flow enters only chosen sites.
void add_contiguity(LinearProgram& program, const Graph& graph, int64_t k);

// Each group keeps a floor of its own total: sum_g r x >= floor_g sum_g r.
void add_floors(LinearProgram& program, std::span<const double> r, std::span<const int32_t> group,
                std::span<const double> floor);
// Replaces the objective by the smallest share of a group's total, in the last column. Groups with total
// 0 are left out.
void maximise_least_share(LinearProgram& program, std::span<const double> r,
                          std::span<const int32_t> group, int32_t groups);

// ---- coverage -----------------------------------------------------------------------------------

// Columns: x [seeds], then y [people], the reach of each. capped: y <= sum q x, y <= 1. Solve with
// presolve off. Exact form: add tangents until the solution breaks none.
LinearProgram coverage_program(const Coverage& coverage, int64_t k,
                               std::span<const int8_t> lock = {});

// Adds y_i <= 1 - e^-z0 (1 - z + z0), z = sum -log(1 - q) x, at z0 of the plan x [seeds], for each person
// whose y is above its reach by more than 1e-9. Returns how many. A chosen seed with q = 1 makes its people's
// tangents slack: only the rows of coverage_program then bound their y.
int64_t add_tangents(LinearProgram& program, const Coverage& coverage, std::span<const double> x);

// min cost.x, sum over N[i] of x >= 1 for every node; `cost` may be empty: all 1. Representatives.
LinearProgram domination_program(const Graph& graph, std::span<const double> cost = {});

// ---- several periods ----------------------------------------------------------------------------

// r [H, S], k [H], opening [S]: max sum_t r_t.x_t - sum opening_i u_ti, u_ti >= x_ti - x_(t-1)i, sum_i x_ti =
// k_t, x_0 = before [S] (empty: none open). Columns: x [H, S], then u [H, S]. This is a flow problem, so the
// linear program has an integer solution.
LinearProgram phases_program(std::span<const double> r, std::span<const int64_t> k,
                             std::span<const double> opening, std::span<const double> before = {});

// ---- treatment coverage -------------------------------------------------------------------------

// min sum d_ij q_ij + D sum u_i,  sum_j q_ij + u_i = need_i,  sum_i q_ij <= capacity_j,  q_ij only where
// d_ij <= radius. Columns: the pairs (from[p], to[p]), then u [n]. Rows: need [n], then capacity [m]. The
// dual of a need row is the cost of one more person; that of a capacity row, <= 0, the change by one more
// place.
struct Transport {
  LinearProgram program;
  std::vector<int32_t> from, to;  // of the first columns
};
// distance [n, m]; unserved: D, above min(n, m) max d so that nobody is left out to shorten other ways.
Transport transport_program(std::span<const double> need, std::span<const double> capacity,
                            std::span<const double> distance, double radius, double unserved);

}  // namespace topreach::kernels
