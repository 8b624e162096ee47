#include "assign_plan.h"

#include <algorithm>
#include <cmath>

#include "../../kernels/programs/models.h"
#include "../require_plain.h"
#include "constraints.h"

namespace topreach::plan {
namespace {

constexpr double kTiny = 1e-9;

// The change of the value if a row's upper bound (`both`: and its lower bound) moves by `step`; NaN if it
// would fall below 0.
double change(kernels::LinearProgram& program, size_t row, bool both, double step, double value,
              const MilpOptions& how) {
  const double lower = program.row_lower[row], upper = program.row_upper[row];
  if (upper + step < 0) return std::numeric_limits<double>::quiet_NaN();
  program.row_upper[row] += step;
  if (both) program.row_lower[row] += step;
  const auto answer = topreach::solve(program, how);
  program.row_lower[row] = lower;
  program.row_upper[row] = upper;
  return answer.x.empty() ? std::numeric_limits<double>::quiet_NaN() : answer.value - value;
}

}  // namespace

Solved assign(const std::vector<double>& need, const Places& places,
              const std::vector<double>& distance, double radius, double unserved, bool prices,
              const SolveOptions& options) {
  constexpr auto kName = "assign";
  const kernels::Deadline deadline(options.time_limit);
  check_options(kName, options);
  const size_t n = need.size(), m = places.capacity.size();
  check_amounts(kName, "need", need, int64_t(n));
  check_amounts(kName, "capacity", places.capacity, int64_t(m));
  check_amounts(kName, "distance", distance, int64_t(n * m));
  TR_REQUIRE(radius >= 0, "{}: radius must be a number >= 0, got {}", kName, radius);
  TR_REQUIRE(places.open >= 0, "{}: open must be a whole number >= 0, got {}", kName, places.open);
  if (places.open > 0 || !places.if_opened.empty())
    check_amounts(kName, "if_opened", places.if_opened, int64_t(m));
  double farthest = 0;
  for (const double d : distance)
    if (d <= radius) farthest = std::max(farthest, d);
  const double least = double(std::min(n, m)) * farthest;
  if (unserved == 0) unserved = 1 + least;
  TR_REQUIRE(unserved > least,
             "{}: unserved must be above {} (the longest way within the radius, times the fewer of "
             "needs and "
             "places), got {}. A smaller one would leave people out to save way",
             kName, least, unserved);

  auto transport = kernels::transport_program(need, places.capacity, distance, radius, unserved);
  kernels::LinearProgram& program = transport.program;
  const size_t pairs = transport.from.size();
  Solved solved;
  solved.program = kName;
  solved.maximised = false;
  MilpSolution answer;
  if (places.open > 0) {
    // Integer columns say which places to open. Their capacity is added to the rows of places.
    kernels::LinearProgram sites = program;
    std::vector<int32_t> opened(m, -1);
    for (size_t j = 0; j < m; ++j)
      if (places.if_opened[j] > 0) opened[j] = sites.add_column(0, 0, 1, true);
    std::vector<std::vector<int32_t>> of_place(m);
    for (size_t p = 0; p < pairs; ++p) of_place[size_t(transport.to[p])].push_back(int32_t(p));
    for (size_t j = 0; j < m; ++j) {
      if (opened[j] < 0) continue;
      sites.row_upper[n + j] = kernels::kNoBound;
      for (const int32_t p : of_place[j]) sites.add_term(p, 1);
      sites.add_term(opened[j], -places.if_opened[j]);
      sites.end_row(-kernels::kNoBound, places.capacity[j]);
    }
    for (size_t j = 0; j < m; ++j)
      if (opened[j] >= 0) sites.add_term(opened[j], 1);
    sites.end_row(-kernels::kNoBound, double(places.open));
    answer = topreach::solve(sites, milp_options(options, deadline));
    set_choice(solved, kName, answer, 0);
    for (size_t j = 0; j < m; ++j)
      if (opened[j] >= 0 && answer.x[size_t(opened[j])] > 0.5) {
        solved.chosen.push_back(int32_t(j));
        program.row_upper[n + j] += places.if_opened[j];
      }
  } else {
    answer = topreach::solve(program, milp_options(options, deadline));
    set_choice(solved, kName, answer, 0);
  }

  std::vector<double> left(n, 0.0), used(m, 0.0);
  double served = 0, way = 0, without = 0;
  for (size_t p = 0; p < pairs; ++p) {
    const double q = answer.x[p];
    if (q <= kTiny) continue;
    const int32_t i = transport.from[p], j = transport.to[p];
    solved.edges.push_back({i, j});
    solved.amounts.push_back(q);
    used[size_t(j)] += q;
    served += q;
    way += q * distance[size_t(i) * m + size_t(j)];
  }
  for (size_t i = 0; i < n; ++i) {
    left[i] = answer.x[pairs + i];
    without += left[i];
  }
  if (prices && solved.status != "heuristic") {
    // The change is relative to the linear program in which the opened places stay open.
    const MilpOptions how;
    const double base = places.open > 0 ? topreach::solve(program, how).value : solved.value;
    std::vector<double> more(n), less(n), more_place(m), less_place(m);
    for (size_t i = 0; i < n; ++i) {
      more[i] = change(program, i, true, 1, base, how);
      less[i] = change(program, i, true, -1, base, how);
    }
    for (size_t j = 0; j < m; ++j) {
      more_place[j] = change(program, n + j, false, 1, base, how);
      less_place[j] = change(program, n + j, false, -1, base, how);
    }
    solved.columns.push_back({"need_more", std::move(more)});
    solved.columns.push_back({"need_less", std::move(less)});
    solved.columns.push_back({"capacity_more", std::move(more_place)});
    solved.columns.push_back({"capacity_less", std::move(less_place)});
  }
  solved.columns.push_back({"unserved", std::move(left)});
  solved.columns.push_back({"used", std::move(used)});
  solved.numbers.push_back({"served", served});
  solved.numbers.push_back({"unserved", without});
  if (served > 0) solved.numbers.push_back({"mean_distance", way / served});
  solved.seconds = deadline.seconds();
  return solved;
}

}  // namespace topreach::plan
