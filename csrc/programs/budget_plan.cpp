#include "budget_plan.h"

#include <algorithm>
#include <cmath>

#include "../../kernels/programs/budget.h"
#include "../../kernels/programs/models.h"
#include "../require_plain.h"

namespace topreach::plan {
namespace {

double total(const std::vector<double>& of, const std::vector<int32_t>& chosen) {
  double sum = 0;
  for (const int32_t i : chosen) sum += of[size_t(i)];
  return sum;
}

// The heuristic's plan with its bound. If the number of sites is free, the locked ones are taken out first.
kernels::BudgetPlan first_plan(const Allowed& allowed, const std::vector<double>& r,
                               const std::vector<double>& c, double budget) {
  if (allowed.tree()) return kernels::solve_budget(r, c, budget, allowed.tree());
  std::vector<double> value = r, cost = c;
  double given = 0, spent = 0;
  std::vector<int32_t> in;
  for (size_t i = 0; i < allowed.lock().size(); ++i) {
    if (allowed.lock()[i] == 0) continue;
    if (allowed.lock()[i] > 0) {
      in.push_back(int32_t(i));
      given += r[i];
      spent += c[i];
    }
    value[i] = -1;  // never taken
  }
  auto plan = kernels::solve_budget(value, cost, budget - spent);
  plan.chosen.insert(plan.chosen.end(), in.begin(), in.end());
  std::sort(plan.chosen.begin(), plan.chosen.end());
  plan.value += given;
  plan.bound += given;
  plan.cost += spent;
  return plan;
}

}  // namespace

Solved budget_topk(std::vector<double> scores, std::vector<double> cost, double budget,
                   Constraints constraints, const SolveOptions& options) {
  constexpr auto kName = "budget_topk";
  const kernels::Deadline deadline(options.time_limit);
  check_options(kName, options);
  const auto r = close_sites(kName, std::move(scores), constraints);
  check_amounts(kName, "cost", cost, int64_t(r.size()));
  TR_REQUIRE(std::isfinite(budget) && budget >= 0, "{}: budget must be a number >= 0, got {}",
             kName, budget);
  const Allowed allowed(kName, int64_t(r.size()), std::move(constraints));
  Solved solved;
  solved.program = kName;
  // There is no quick oracle for quotas with a free number of sites, or for quotas that cross.
  const bool quick = allowed.tree() || allowed.constraints().groupings.empty();
  if (quick) {
    const auto plan = first_plan(allowed, r, cost, budget);
    if (plan.status == kernels::PlanStatus::infeasible) {
      solved.status = "infeasible";
      solved.notes.push_back("Even the cheapest of these plans costs more than the budget.");
      solved.seconds = deadline.seconds();
      return solved;
    }
    solved.chosen = plan.chosen;
    set_value(solved, plan.value, plan.bound, options.gap);
    solved.numbers.push_back({"price", plan.price});
  }
  if (!quick || solved.status != "optimal") {
    if (quick && !has_highs()) {
      solved.notes.push_back("Not proved to be the best: that needs HiGHS (pip install highsbox).");
    } else {
      auto program = allowed.program(r);
      kernels::add_budget(program, cost, budget);
      auto how = milp_options(options, deadline);
      if (quick) {
        how.start.assign(r.size(), 0.0);
        for (const int32_t i : solved.chosen) how.start[size_t(i)] = 1;
      }
      const auto answer = topreach::solve(program, how);
      // Time may be up before HiGHS has a better plan or bound than the first one.
      const double bound = solved.bound.value_or(kernels::kNoBound), value = solved.value;
      const auto first = solved.chosen;
      if (!quick || !answer.x.empty() || answer.status == kernels::PlanStatus::infeasible)
        set_choice(solved, kName, answer, r.size());
      if (quick && !answer.x.empty()) {
        if (solved.value < value) {
          solved.chosen = first;
          solved.value = value;
        }
        set_value(solved, solved.value, std::min(bound, solved.bound.value_or(bound)), options.gap);
      }
    }
  }
  if (solved.status == "infeasible")
    solved.notes.push_back("No plan keeps the budget and the quotas.");
  else
    solved.numbers.push_back({"cost", total(cost, solved.chosen)});
  solved.seconds = deadline.seconds();
  return solved;
}

}  // namespace topreach::plan
