#include "quota_plan.h"

#include <cmath>

#include "../../kernels/programs/models.h"
#include "../require_plain.h"

namespace topreach::plan {

Solved quota_topk(std::vector<double> scores, Constraints constraints,
                  const SolveOptions& options) {
  constexpr auto kName = "quota_topk";
  const kernels::Deadline deadline(options.time_limit);
  check_options(kName, options);
  TR_REQUIRE(constraints.k >= 0, "{}: k must be a whole number >= 0, got {}", kName, constraints.k);
  const auto r = close_sites(kName, std::move(scores), constraints);
  const Allowed allowed(kName, int64_t(r.size()), std::move(constraints));
  Solved solved;
  solved.program = kName;
  if (allowed.tree()) {
    solved.chosen = allowed.best(r);
    double value = 0;
    for (const int32_t i : solved.chosen) value += r[size_t(i)];
    set_value(solved, value, value, options.gap);
  } else {
    auto program = allowed.program(r);
    if (allowed.constraints().groupings.size() <= 2) kernels::relax(program);
    set_choice(solved, kName, topreach::solve(program, milp_options(options, deadline)), r.size());
    if (solved.status == "infeasible")
      solved.notes.push_back("The quotas of the groupings contradict each other.");
  }
  solved.seconds = deadline.seconds();
  return solved;
}

std::vector<uint8_t> quota_topk_rows(std::vector<double> scores, int64_t sites,
                                     Constraints constraints) {
  constexpr auto kName = "quota_topk";
  TR_REQUIRE(sites > 0 && scores.size() % size_t(sites) == 0,
             "{}: scores must have rows of {} sites, got {} numbers", kName, sites, scores.size());
  TR_REQUIRE(constraints.k >= 0, "{}: k must be a whole number >= 0, got {}", kName, constraints.k);
  for (const double score : scores)
    TR_REQUIRE(std::isfinite(score), "{}: scores must be numbers, got {}", kName, score);
  const Allowed allowed(kName, sites, std::move(constraints));
  TR_REQUIRE(allowed.tree(),
             "{}: groupings must be nested in each other to plan many rows, got ones that cross",
             kName);
  std::vector<uint8_t> plans(scores.size(), 0);
  std::vector<int32_t> chosen(static_cast<size_t>(allowed.k()));
  kernels::QuotaScratch<double> scratch;
  for (size_t row = 0; row < scores.size(); row += size_t(sites)) {
    allowed.tree()->best(scores.data() + row, scratch, chosen.data());
    for (const int32_t i : chosen) plans[row + size_t(i)] = 1;
  }
  return plans;
}

}  // namespace topreach::plan
