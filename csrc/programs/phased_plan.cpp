#include "phased_plan.h"

#include <algorithm>
#include <cmath>

#include "../../kernels/programs/models.h"
#include "../require_plain.h"

namespace topreach::plan {

Solved phased(const std::vector<double>& scores, const std::vector<int64_t>& k, int64_t sites,
              const PhaseRules& rules, const SolveOptions& options) {
  constexpr auto kName = "phased";
  const kernels::Deadline deadline(options.time_limit);
  check_options(kName, options);
  const auto periods = int64_t(k.size());
  const auto n = size_t(sites);
  TR_REQUIRE(periods >= 1 && sites >= 1,
             "{}: scores must have at least one period and one site, got {} and {}", kName, periods,
             sites);
  check_values(kName, "scores", scores, periods * sites);
  if (!rules.opening.empty()) check_amounts(kName, "opening", rules.opening, sites);
  if (!rules.before.empty()) check_amounts(kName, "before", rules.before, sites, true);
  TR_REQUIRE(rules.rest >= 0, "{}: rest must be a whole number >= 0, got {}", kName, rules.rest);
  TR_REQUIRE(rules.most_visits >= 0, "{}: most_visits must be a whole number >= 0, got {}", kName,
             rules.most_visits);
  for (const int64_t its : k)  // raises if K, quotas or locks cannot be kept in a period
    Allowed(kName, sites, Constraints{its, rules.groupings, rules.lock});

  const std::vector<double> opening =
      rules.opening.empty() ? std::vector<double>(n, 0.0) : rules.opening;
  auto program = kernels::phases_program(scores, k, opening, rules.before);
  const auto column = [&](int64_t t, size_t i) { return int32_t(size_t(t) * n + i); };
  bool is_flow = true;
  for (int64_t t = 0; t < periods; ++t) {
    for (size_t i = 0; i < rules.lock.size(); ++i) {
      if (rules.lock[i] > 0) program.lower[size_t(column(t, i))] = 1;
      if (rules.lock[i] < 0) program.upper[size_t(column(t, i))] = 0;
    }
    for (const Grouping& g : rules.groupings) {
      is_flow = false;
      std::vector<std::vector<int32_t>> members(g.groups.size());
      for (size_t i = 0; i < n; ++i)
        if (g.group[i] >= 0) members[size_t(g.group[i])].push_back(column(t, i));
      for (size_t j = 0; j < members.size(); ++j) {
        for (const int32_t c : members[j]) program.add_term(c, 1);
        program.end_row(double(g.lower[j]), double(g.upper[j]));
      }
    }
  }
  for (size_t i = 0; i < n; ++i) {
    // A site is chosen at most once in any rest + 1 periods in a row.
    for (int64_t t = 0; rules.rest > 0 && t + 1 < periods; ++t) {
      if (t > 0 && t + rules.rest >= periods) break;
      for (int64_t s = t; s <= std::min(t + rules.rest, periods - 1); ++s)
        program.add_term(column(s, i), 1);
      program.end_row(-kernels::kNoBound, 1);
      is_flow = false;
    }
    if (rules.most_visits > 0 && rules.most_visits < periods) {
      for (int64_t t = 0; t < periods; ++t) program.add_term(column(t, i), 1);
      program.end_row(-kernels::kNoBound, double(rules.most_visits));
      is_flow = false;
    }
  }
  if (!is_flow) std::fill_n(program.integer.begin(), size_t(periods) * n, uint8_t(1));
  const auto answer = topreach::solve(program, milp_options(options, deadline));
  Solved solved;
  solved.program = kName;
  set_choice(solved, kName, answer, 0);
  if (solved.status == "infeasible") {
    solved.notes.push_back("No plan keeps the rests, visits and quotas in all periods.");
  } else {
    std::vector<char> ever(n, 0);
    double moves = 0, cost = 0;
    for (int64_t t = 0; t < periods; ++t) {
      auto& part = solved.parts.emplace_back();
      for (size_t i = 0; i < n; ++i) {
        const bool now = answer.x[size_t(column(t, i))] > 0.5;
        const bool was = t > 0 ? answer.x[size_t(column(t - 1, i))] > 0.5
                               : !rules.before.empty() && rules.before[i] > 0.5;
        if (now) part.push_back(int32_t(i));
        if (now) ever[i] = 1;
        if (now && !was) {
          moves += 1;
          cost += opening[i];
        }
      }
    }
    for (size_t i = 0; i < n; ++i)
      if (ever[i]) solved.chosen.push_back(int32_t(i));
    solved.numbers.push_back({"moves", moves});
    solved.numbers.push_back({"moving_cost", cost});
  }
  solved.seconds = deadline.seconds();
  return solved;
}

Solved fair(const std::vector<double>& scores, const Grouping& fair_to,
            const std::vector<double>& floors, Constraints constraints,
            const SolveOptions& options) {
  constexpr auto kName = "fair";
  const kernels::Deadline deadline(options.time_limit);
  check_options(kName, options);
  const auto sites = int64_t(scores.size());
  check_amounts(kName, "scores", scores, sites);
  const size_t groups = fair_to.groups.size();
  TR_REQUIRE(int64_t(fair_to.group.size()) == sites,
             "{}: {} must give each of {} sites a group, got {}", kName, fair_to.name, sites,
             fair_to.group.size());
  TR_REQUIRE(groups > 0, "{}: {} must name at least one group, got none", kName, fair_to.name);
  for (const int32_t g : fair_to.group)
    TR_REQUIRE(g >= -1 && g < int32_t(groups), "{}: groups must be numbers from -1 to {}, got {}",
               kName, int64_t(groups) - 1, g);
  TR_REQUIRE(floors.empty() || floors.size() == size_t(groups),
             "{}: floors must have one share for each of {} groups, got {}", kName, groups,
             floors.size());
  for (size_t g = 0; g < floors.size(); ++g)
    TR_REQUIRE(floors[g] >= 0 && floors[g] <= 1,
               "{}: floors must be a share from 0 to 1, got {} for {} '{}'", kName, floors[g],
               fair_to.name, fair_to.groups[g]);
  const Allowed allowed(kName, sites, std::move(constraints));
  auto program = allowed.program(scores);
  if (floors.empty())
    kernels::maximise_least_share(program, scores, fair_to.group, int32_t(groups));
  else
    kernels::add_floors(program, scores, fair_to.group, floors);
  const auto answer = topreach::solve(program, milp_options(options, deadline));
  Solved solved;
  solved.program = kName;
  set_choice(solved, kName, answer, size_t(sites));
  if (solved.status == "infeasible") {
    solved.notes.push_back("No plan gives every group its floor.");
  } else {
    std::vector<double> share(groups, 0.0), all(groups, 0.0);
    double total = 0;
    for (size_t i = 0; i < scores.size(); ++i)
      if (fair_to.group[i] >= 0) all[size_t(fair_to.group[i])] += scores[i];
    for (const int32_t i : solved.chosen) {
      total += scores[size_t(i)];
      if (fair_to.group[size_t(i)] >= 0)
        share[size_t(fair_to.group[size_t(i)])] += scores[size_t(i)];
    }
    // Without events there is no group to be fair to: the smallest share has no row in the program.
    if (floors.empty() && *std::max_element(all.begin(), all.end()) == 0)
      set_value(solved, 0, 0, options.gap);
    for (size_t g = 0; g < groups; ++g)
      share[g] = all[g] > 0 ? share[g] / all[g] : std::numeric_limits<double>::quiet_NaN();
    solved.columns.push_back({"share", std::move(share)});
    solved.numbers.push_back({"total", total});
  }
  solved.seconds = deadline.seconds();
  return solved;
}

}  // namespace topreach::plan
