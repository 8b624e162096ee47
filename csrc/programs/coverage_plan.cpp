#include "coverage_plan.h"

#include <algorithm>
#include <cmath>

#include "../../kernels/programs/models.h"
#include "../../kernels/programs/representatives.h"
#include "../require_plain.h"

namespace topreach::plan {
namespace {

using kernels::PlanStatus;

constexpr int64_t kSmall = 20'000;  // entries up to which HiGHS is used to close a gap
constexpr int kMostRounds = 200;    // of tangents
constexpr double kReachSlack = 1e-9;
constexpr auto kProof = "Not proved to be the best: that needs HiGHS (pip install highsbox).";

// The linear program: the people reached, sum x = k if k is given, and the quotas.
kernels::LinearProgram program_of(const kernels::Coverage& coverage, const Allowed& allowed) {
  auto program = kernels::coverage_program(coverage, allowed.k(), allowed.lock());
  for (const Grouping& g : allowed.constraints().groupings)
    kernels::add_quotas(program, g.group, g.lower, g.upper);
  return program;
}

std::vector<double> reached(const kernels::Coverage& coverage, const std::vector<int32_t>& chosen) {
  std::vector<char> in(size_t(coverage.seeds), 0);
  for (const int32_t j : chosen) in[size_t(j)] = 1;
  std::vector<double> chance(size_t(coverage.people), 0.0);
  for (int64_t i = 0; i < coverage.people; ++i) {
    double missed = 1;
    for (int64_t e = coverage.start[size_t(i)]; e < coverage.start[size_t(i) + 1]; ++e)
      if (in[size_t(coverage.seed[size_t(e)])])
        missed *= coverage.chance.empty() ? 0.0 : 1 - coverage.chance[size_t(e)];
    chance[size_t(i)] = 1 - missed;
  }
  return chance;
}

// Runs HiGHS from a plan; in the exact form, tangents are added until the solution breaks none.
void prove(Solved& solved, const kernels::Coverage& coverage, const Allowed& allowed, bool capped,
           const SolveOptions& options, const kernels::Deadline& deadline) {
  auto program = program_of(coverage, allowed);
  const bool has_plan = solved.bound.has_value();
  double bound = solved.bound.value_or(kernels::kNoBound);
  const auto seeds = size_t(coverage.seeds);
  std::vector<double> x(seeds, 0.0);
  for (const int32_t j : solved.chosen) x[size_t(j)] = 1;
  if (!capped && has_plan) kernels::add_tangents(program, coverage, x);
  for (int round = 0; round < kMostRounds; ++round) {
    auto how = milp_options(options, deadline);
    how.presolve = false;
    const auto answer = topreach::solve(program, how);
    if (answer.status == PlanStatus::infeasible) {
      solved.status = "infeasible";
      return;
    }
    if (std::isfinite(answer.bound)) bound = std::min(bound, answer.bound);
    bool is_new = false;
    if (!answer.x.empty()) {
      std::vector<int32_t> chosen;
      for (size_t j = 0; j < seeds; ++j)
        if (answer.x[j] > 0.5) chosen.push_back(int32_t(j));
      const double value = kernels::coverage_value(coverage, chosen, capped);
      if ((!has_plan && solved.chosen.empty()) || value > solved.value) {
        solved.chosen = chosen;
        solved.value = value;
      }
      is_new =
          !capped && kernels::add_tangents(program, coverage, std::span(answer.x).first(seeds)) > 0;
    } else if (!has_plan && solved.chosen.empty()) {
      set_choice(solved, "coverage", answer, seeds);  // says that time was up
    }
    set_value(solved, solved.value, bound, options.gap);
    if (solved.status == "optimal" || !is_new || deadline.passed()) return;
  }
}

// The same for the fewest seeds that reach theta: sum w y >= theta in place of K.
void prove_fewest(Solved& solved, const kernels::Coverage& given, double theta, bool capped,
                  const SolveOptions& options, const kernels::Deadline& deadline) {
  kernels::Coverage coverage = given;
  std::fill(coverage.a.begin(), coverage.a.end(), 0.0);
  auto program = kernels::coverage_program(coverage, -1);
  const auto seeds = size_t(coverage.seeds);
  program.maximise = false;
  for (size_t i = 0; i < size_t(coverage.people); ++i) {
    program.cost[seeds + i] = 0;
    program.add_term(int32_t(seeds + i), coverage.w[i]);
  }
  std::fill_n(program.cost.begin(), seeds, 1.0);
  program.end_row(theta - kReachSlack, kernels::kNoBound);
  double bound = solved.bound.value_or(0);
  for (int round = 0; round < kMostRounds && !deadline.passed(); ++round) {
    auto how = milp_options(options, deadline);
    how.presolve = false;
    const auto answer = topreach::solve(program, how);
    if (std::isfinite(answer.bound)) bound = std::max(bound, std::ceil(answer.bound - 1e-6));
    bool is_new = false;
    if (!answer.x.empty()) {
      std::vector<int32_t> chosen;
      for (size_t j = 0; j < seeds; ++j)
        if (answer.x[j] > 0.5) chosen.push_back(int32_t(j));
      const bool enough = kernels::coverage_value(coverage, chosen, capped) >= theta - kReachSlack;
      if (enough && double(chosen.size()) < solved.value) {
        solved.chosen = chosen;
        solved.value = double(chosen.size());
      }
      is_new = !capped && !enough &&
               kernels::add_tangents(program, coverage, std::span(answer.x).first(seeds)) > 0;
    }
    set_value(solved, solved.value, bound, options.gap);
    if (solved.status == "optimal" || !is_new) return;
  }
}

Solved solve_as(const char* function, const kernels::Coverage& given, Constraints constraints,
                bool capped, const SolveOptions& options) {
  const kernels::Deadline deadline(options.time_limit);
  check_options(function, options);
  TR_REQUIRE(constraints.k >= 0, "{}: k must be a whole number >= 0, got {}", function,
             constraints.k);
  const Allowed allowed(function, given.seeds, std::move(constraints));
  Solved solved;
  solved.program = function;
  const bool all_sure =
      given.chance.empty() || std::all_of(given.chance.begin(), given.chance.end(),
                                          [](double q) { return q == 0 || q == 1; });
  const bool as_capped = capped || all_sure;
  if (allowed.tree()) {
    kernels::CoverageOptions how;
    how.capped = as_capped;
    how.gap = std::max(options.gap, kernels::kOptimalGap);
    how.time_limit = options.time_limit;
    const auto plan = kernels::solve_coverage(given, *allowed.tree(), how);
    solved.chosen = plan.chosen;
    set_value(solved, plan.value, plan.bound, options.gap);
  }
  if (!allowed.tree() || solved.status != "optimal") {
    const bool is_small = int64_t(given.seed.size()) <= kSmall;
    if (!allowed.tree() || (is_small && has_highs()))
      prove(solved, given, allowed, as_capped, options, deadline);
    else if (is_small)
      solved.notes.push_back(kProof);
  }
  if (solved.status == "infeasible") {
    solved.notes.push_back("No plan keeps all quotas.");
  } else {
    auto chance = reached(given, solved.chosen);
    double reach = 0;
    for (size_t i = 0; i < chance.size(); ++i) reach += given.w[i] * chance[i];
    solved.numbers.push_back({"reach", reach});
    solved.columns.push_back({"reached", std::move(chance)});
  }
  solved.seconds = deadline.seconds();
  return solved;
}

}  // namespace

Solved coverage(const kernels::Coverage& given, Constraints constraints, bool capped,
                const SolveOptions& options) {
  constexpr auto kName = "coverage";
  check_values(kName, "a", given.a, given.seeds);
  check_amounts(kName, "weight", given.w, given.people);
  TR_REQUIRE(int64_t(given.start.size()) == given.people + 1 &&
                 given.start.back() == int64_t(given.seed.size()),
             "{}: rows must end with the {} entries", kName, given.seed.size());
  for (const int32_t j : given.seed)
    TR_REQUIRE(j >= 0 && j < given.seeds, "{}: seeds must be numbers from 0 to {}, got {}", kName,
               given.seeds - 1, j);
  if (!given.chance.empty())
    check_amounts(kName, "chance", given.chance, int64_t(given.seed.size()), true);
  return solve_as(kName, given, std::move(constraints), capped, options);
}

Solved coverage(const Graph& graph, const std::vector<double>& weight, Constraints constraints,
                const SolveOptions& options) {
  constexpr auto kName = "coverage";
  check_amounts(kName, "weight", weight, graph.nodes());
  return solve_as(kName, kernels::spillover(graph.adjacency(), weight, weight),
                  std::move(constraints), true, options);
}

Solved spillover(const Graph& graph, const std::vector<double>& treated,
                 const std::vector<double>& spilled, Constraints constraints,
                 const std::vector<double>& compliance, const SolveOptions& options) {
  constexpr auto kName = "spillover";
  check_amounts(kName, "treated", treated, graph.nodes());
  check_amounts(kName, "spilled", spilled, graph.nodes());
  if (!compliance.empty()) check_amounts(kName, "compliance", compliance, graph.nodes(), true);
  return solve_as(kName, kernels::spillover(graph.adjacency(), treated, spilled, compliance),
                  std::move(constraints), false, options);
}

Solved call_in(const Graph& graph, const std::vector<double>& comes,
               const std::vector<double>& passes, Constraints constraints,
               const std::vector<double>& weight, bool capped, const SolveOptions& options) {
  constexpr auto kName = "call_in";
  check_amounts(kName, "comes", comes, graph.nodes(), true);
  check_amounts(kName, "passes", passes, graph.nodes(), true);
  if (!weight.empty()) check_amounts(kName, "weight", weight, graph.nodes());
  return solve_as(kName, kernels::call_in(graph.adjacency(), comes, passes, weight),
                  std::move(constraints), capped, options);
}

Solved dominating_set(const Graph& graph, const std::vector<double>& cost,
                      const std::vector<int8_t>& lock, const SolveOptions& options) {
  constexpr auto kName = "dominating_set";
  const kernels::Deadline deadline(options.time_limit);
  check_options(kName, options);
  const kernels::Graph& adjacency = graph.adjacency();
  const auto nodes = size_t(graph.nodes());
  if (!cost.empty()) {
    check_values(kName, "cost", cost, graph.nodes());
    for (const double c : cost) TR_REQUIRE(c > 0, "{}: cost must be above 0, got {}", kName, c);
  }
  TR_REQUIRE(lock.empty() || lock.size() == nodes,
             "{}: lock must have one entry for each of {} sites, got {}", kName, nodes,
             lock.size());
  Solved solved;
  solved.program = kName;
  solved.maximised = false;
  const bool locked = std::any_of(lock.begin(), lock.end(), [](int8_t l) { return l != 0; });
  if (!locked) {
    const auto plan = kernels::dominating_set(adjacency, cost);
    solved.chosen = plan.chosen;
    set_value(solved, plan.value, plan.bound, options.gap);
  }
  if (locked || solved.status != "optimal") {
    if (!locked && !has_highs()) {
      solved.notes.push_back(kProof);
    } else {
      auto program = kernels::domination_program(adjacency, cost);
      for (size_t i = 0; i < lock.size(); ++i) {
        if (lock[i] > 0) program.lower[i] = 1;
        if (lock[i] < 0) program.upper[i] = 0;
      }
      auto how = milp_options(options, deadline);
      if (!locked) {
        how.start.assign(nodes, 0.0);
        for (const int32_t i : solved.chosen) how.start[size_t(i)] = 1;
      }
      const auto answer = topreach::solve(program, how);
      if (locked || !answer.x.empty()) set_choice(solved, kName, answer, nodes);
    }
  }
  if (solved.status == "infeasible")
    solved.notes.push_back("A site that is locked out has no neighbour that may be chosen.");
  solved.seconds = deadline.seconds();
  return solved;
}

Solved reach_at_least(const kernels::Coverage& given, double theta, bool capped,
                      const SolveOptions& options) {
  constexpr auto kName = "reach_at_least";
  const kernels::Deadline deadline(options.time_limit);
  check_options(kName, options);
  TR_REQUIRE(std::isfinite(theta) && theta >= 0, "{}: reach must be a number >= 0, got {}", kName,
             theta);
  Solved solved;
  solved.program = kName;
  solved.maximised = false;
  const auto plan = kernels::reach_at_least(given, theta, capped);
  if (plan.status == PlanStatus::infeasible) {
    solved.status = "infeasible";
    solved.numbers.push_back({"reach", plan.reach});
    solved.notes.push_back(
        fmt::format("The largest reach there is, with all seeds, is {:.6g}.", plan.reach));
    solved.seconds = deadline.seconds();
    return solved;
  }
  solved.chosen = plan.chosen;
  set_value(solved, plan.value, plan.bound, options.gap);
  if (solved.status != "optimal" && int64_t(given.seed.size()) <= kSmall) {
    if (has_highs())
      prove_fewest(solved, given, theta, capped, options, deadline);
    else
      solved.notes.push_back(kProof);
  }
  kernels::Coverage only_reach = given;
  std::fill(only_reach.a.begin(), only_reach.a.end(), 0.0);
  solved.numbers.push_back({"reach", kernels::coverage_value(only_reach, solved.chosen, false)});
  solved.seconds = deadline.seconds();
  return solved;
}

}  // namespace topreach::plan
