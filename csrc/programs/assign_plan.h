// Treatment coverage: who is sent where, who is left without a place, and what one more place is worth.
#pragma once

#include <vector>

#include "solved.h"

namespace topreach::plan {

struct Places {
  std::vector<double> capacity;   // [m], of the places there are; 0 for a site that could be opened
  std::vector<double> if_opened;  // [m], capacity that opening it adds; or empty
  int64_t open = 0;               // how many of those to open, at most
};

/// min sum d_ij q_ij + D sum u_i; sum_j q_ij + u_i = need_i; sum_i q_ij <= capacity_j; q_ij only where
/// d_ij <= radius. need [n] >= 0, distance [n, m] >= 0. Needs HiGHS.
///
/// D = `unserved` must be above min(n, m) times the largest distance within the radius, so that
/// nobody is left out to save way; 0: 1 + that. edges (i, j) with `amounts` q_ij; `chosen` are the
/// places opened. Numbers: "served", "unserved", "mean_distance" (of who is served). Columns:
/// "unserved" [n], "used" [m], and prices by solving again with one unit more or less, since a
/// degenerate optimum has many: "need_more", "need_less" [n], "capacity_more" and "capacity_less"
/// [m]: by how much the value changes (NaN: less than one unit is there). For plans that open
/// places, places are held as opened.
Solved assign(const std::vector<double>& need, const Places& places,
              const std::vector<double>& distance, double radius, double unserved = 0,
              bool prices = true, const SolveOptions& options = {});

}  // namespace topreach::plan
