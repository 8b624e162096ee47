#include "solved.h"

#include <algorithm>
#include <cmath>

#include "../require_plain.h"

namespace topreach::plan {

using kernels::PlanStatus;

std::string status_name(PlanStatus status) {
  switch (status) {
    case PlanStatus::optimal: return "optimal";
    case PlanStatus::feasible: return "feasible";
    case PlanStatus::heuristic: return "heuristic";
    case PlanStatus::infeasible: return "infeasible";
    case PlanStatus::unknown: return "unknown";
  }
  return "unknown";
}

void check_options(const char* function, const SolveOptions& options) {
  TR_REQUIRE(std::isfinite(options.gap) && options.gap >= 0,
             "{}: gap must be a number >= 0, got {}", function, options.gap);
  TR_REQUIRE(options.time_limit > 0, "{}: time must be a number of seconds > 0, got {}", function,
             options.time_limit);
}

void set_value(Solved& solved, double value, double bound, double gap) {
  solved.value = value;
  solved.status = status_name(kernels::status_of(value, bound, gap));
  if (!std::isfinite(bound)) {
    solved.bound = solved.gap = std::nullopt;
    return;
  }
  // Rounding may put the bound slightly on the wrong side of the value.
  solved.bound = solved.maximised ? std::max(bound, value) : std::min(bound, value);
  solved.gap = kernels::relative_gap(value, *solved.bound);
}

void set_choice(Solved& solved, const char* function, const MilpSolution& answer, size_t sites) {
  if (answer.status == PlanStatus::infeasible) {
    solved.status = "infeasible";
    return;
  }
  if (answer.x.empty())
    throw std::runtime_error(fmt::format(
        "{}: time must be long enough to find a plan, got none so far. Give more seconds.",
        function));
  solved.chosen.clear();
  for (size_t i = 0; i < sites; ++i)
    if (answer.x[i] > 0.5) solved.chosen.push_back(int32_t(i));
  solved.value = answer.value;
  solved.status = status_name(answer.status);
  solved.bound = solved.gap = std::nullopt;
  if (!std::isfinite(answer.bound)) return;
  solved.bound = answer.bound;
  solved.gap = answer.gap;
}

MilpOptions milp_options(const SolveOptions& options, const kernels::Deadline& deadline) {
  MilpOptions made;
  made.gap = options.gap;
  made.seed = options.seed;
  made.time_limit = std::max(0.1, options.time_limit - deadline.seconds());
  return made;
}

}  // namespace topreach::plan
