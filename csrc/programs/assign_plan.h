// Treatment coverage: who is sent where, who is left without a place, and what one more place is worth.
#pragma once

#include <vector>

#include "solved.h"

namespace topreach::plan {

struct Places {
  std::vector<double> capacity;   // [m], of existing places; 0 for a place that could be opened
  std::vector<double> if_opened;  // [m], capacity that opening it adds; or empty
  int64_t open = 0;               // how many of those to open, at most
};

/// min sum d_ij q_ij + D sum u_i; sum_j q_ij + u_i = need_i; sum_i q_ij <= capacity_j; q_ij only where
/// d_ij <= radius. need [n] >= 0, distance [n, m] >= 0. Needs HiGHS.
///
/// D = `unserved` must be above min(n, m) times the largest distance within the radius, so that
/// nobody is left out to shorten the ways of others. 0 takes 1 + that bound.
///
/// The result. `edges` (i, j) with `amounts` q_ij; `chosen`: the places opened. Numbers: "served",
/// "unserved", "mean_distance" (of those served). Columns: "unserved" [n], "used" [m].
///
/// Prices are columns too: "need_more", "need_less" [n], "capacity_more" and "capacity_less" [m] say
/// by how much the value changes with one unit more or less (NaN: there is less than one unit). They
/// come from solving again, since a degenerate optimum has many dual prices. If places are opened,
/// they stay open for this.
Solved assign(const std::vector<double>& need, const Places& places,
              const std::vector<double>& distance, double radius, double unserved = 0,
              bool prices = true, const SolveOptions& options = {});

}  // namespace topreach::plan
