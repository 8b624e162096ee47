// Plans for several periods, and plans that are fair to groups.
#pragma once

#include <vector>

#include "constraints.h"
#include "solved.h"

namespace topreach::plan {

struct PhaseRules {
  std::vector<double>
      opening;  // [S], what moving to a site costs, in the unit of the scores; empty: 0
  std::vector<double> before;       // [S], 1: open before the first period; empty: none
  int64_t rest = 0;                 // periods a site rests after one in which it is chosen
  int64_t most_visits = 0;          // periods a site can be chosen in; 0: all
  std::vector<Grouping> groupings;  // quotas, in each period
  std::vector<int8_t> lock;         // [S], in each period
};

/// scores [H, S], k [H] sites in each period: max sum_t r_t.x_t - sum opening_i u_ti, u_ti >= x_ti
/// - x_(t-1)i. A linear program with an integer solution; with rests, visits or quotas a
/// mixed-integer one. `parts` are the sites of each period, `chosen` those of any period. Numbers:
/// "moves", "moving_cost". Needs HiGHS.
Solved phased(const std::vector<double>& scores, const std::vector<int64_t>& k, int64_t sites,
              const PhaseRules& rules = {}, const SolveOptions& options = {});

/// With floors [G]: max r.x such that each group g of `fair_to` keeps at least the share floor_g of
/// its own total of r. Without floors: the smallest share that a group keeps is maximised. r >= 0.
/// Columns: "share" [G]. Numbers: "total", r.x. Needs HiGHS.
Solved fair(const std::vector<double>& scores, const Grouping& fair_to,
            const std::vector<double>& floors, Constraints constraints,
            const SolveOptions& options = {});

}  // namespace topreach::plan
