// The best K sites under quotas: max r.x, sum x = K, lower_g <= x(g) <= upper_g.
#pragma once

#include <vector>

#include "constraints.h"
#include "solved.h"

namespace topreach::plan {

/// Scores [S]; -inf closes a site. Groupings that are nested in each other: exact, O(S depth),
/// without HiGHS. Two that cross: a linear program, whose vertices are integral; three or more:
/// mixed-integer. Equal scores: lowest index first, if no groupings cross.
///
/// Raises c10::ValueError, naming the group, if quotas cannot be met; HighsMissing if groupings cross
/// and there is no HiGHS.
Solved quota_topk(std::vector<double> scores, Constraints constraints,
                  const SolveOptions& options = {});

/// The same for each row of scores [M, S]: plans [M, S] of 0 and 1. Nested groupings only.
std::vector<uint8_t> quota_topk_rows(std::vector<double> scores, int64_t sites,
                                     Constraints constraints);

}  // namespace topreach::plan
