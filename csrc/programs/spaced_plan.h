// The best sites that keep a distance from each other, or that are connected.
#pragma once

#include <vector>

#include "../graph.h"
#include "constraints.h"
#include "solved.h"

namespace topreach::plan {

/// max r.x, no two chosen sites less than `distance` apart. x and y [S] are coordinates in the
/// plane, in the unit of `distance`. Solved by HiGHS, which starts from a greedy plan with swaps.
/// Without HiGHS that plan is the result, with status "heuristic".
Solved spaced(std::vector<double> scores, const std::vector<double>& x,
              const std::vector<double>& y, double distance, Constraints constraints,
              const SolveOptions& options = {});

/// The same; neighbours in `too_close` exclude each other.
Solved spaced(std::vector<double> scores, const Graph& too_close, Constraints constraints,
              const SolveOptions& options = {});

/// max r.x over K sites that are connected in the graph. Solved by HiGHS, which starts from a plan
/// that grows from the best sites. Without HiGHS that plan is the result, with status "heuristic".
Solved connected(std::vector<double> scores, const Graph& graph, Constraints constraints,
                 const SolveOptions& options = {});

}  // namespace topreach::plan
