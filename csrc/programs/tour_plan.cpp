#include "tour_plan.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "../../kernels/programs/tours.h"
#include "../require_plain.h"
#include "constraints.h"

namespace topreach::plan {

Solved tours(const Graph& graph, const std::vector<double>& gain, int64_t k,
             const TourLimits& limits, const SolveOptions& options) {
  constexpr auto kName = "tours";
  const kernels::Deadline deadline(options.time_limit);
  check_options(kName, options);
  check_values(kName, "gain", gain, graph.nodes());
  TR_REQUIRE(k >= 1, "{}: k must be a whole number >= 1, got {}", kName, k);
  TR_REQUIRE(graph.nodes() >= 1, "{}: graph must have a node, got none", kName);
  if (!limits.size.empty()) {
    check_values(kName, "size", limits.size, graph.nodes());
    for (const double s : limits.size)
      TR_REQUIRE(s > 0, "{}: size must be above 0, got {}", kName, s);
  }
  TR_REQUIRE(limits.lock.empty() || int64_t(limits.lock.size()) == graph.nodes(),
             "{}: lock must have one entry for each of {} sites, got {}", kName, graph.nodes(),
             limits.lock.size());
  TR_REQUIRE(std::none_of(limits.lock.begin(), limits.lock.end(), [](int8_t l) { return l > 0; }),
             "{}: lock_in must be empty, got sites that must be in a tour", kName);
  TR_REQUIRE(limits.min_size >= 0 && limits.max_size >= limits.min_size,
             "{}: min_size must be from 0 to max_size, got {} and {}", kName, limits.min_size,
             limits.max_size);
  const double least =
      limits.size.empty() ? 1.0 : *std::min_element(limits.size.begin(), limits.size.end());
  TR_REQUIRE(limits.max_size >= least,
             "{}: max_size must be at least the size of the smallest area, {}, got {}", kName,
             least, limits.max_size);
  kernels::TourOptions how;
  how.k = k;
  how.size = limits.size;
  how.min_size = limits.min_size;
  how.max_size = limits.max_size;
  how.lock = limits.lock;
  how.gap = options.gap;
  how.time_limit = options.time_limit;
  // Gains are divided by a power of two near the largest, which loses no digit: the solver takes gains
  // that differ by less than 1e-9 as equal.
  double largest = 0;
  for (const double g : gain) largest = std::max(largest, std::abs(g));
  int exponent = 0;
  std::frexp(largest, &exponent);
  std::vector<double> scaled;
  for (const double g : gain) scaled.push_back(std::ldexp(g, -exponent));
  const auto plan = kernels::solve_tours(graph.adjacency(), scaled, how);
  if (plan.status == kernels::PlanStatus::unknown)
    throw std::runtime_error(
        "tours: time must be long enough to find a plan, got none so far. Give more seconds.");
  Solved solved;
  solved.program = kName;
  set_value(solved, std::ldexp(plan.value, exponent), std::ldexp(plan.bound, exponent),
            options.gap);
  solved.parts = plan.tours;
  std::vector<double> values, sizes;
  for (const auto& tour : plan.tours) {
    values.push_back(0);
    sizes.push_back(0);
    for (const int32_t i : tour) {
      values.back() += gain[size_t(i)];
      sizes.back() += limits.size.empty() ? 1.0 : limits.size[size_t(i)];
      solved.chosen.push_back(i);
    }
  }
  std::sort(solved.chosen.begin(), solved.chosen.end());
  solved.numbers.push_back({"heuristic", std::ldexp(plan.heuristic, exponent)});
  solved.columns.push_back({"tour_value", std::move(values)});
  solved.columns.push_back({"tour_size", std::move(sizes)});
  solved.seconds = deadline.seconds();
  return solved;
}

std::vector<double> tour_gain(const std::vector<double>& events, const std::vector<double>& area,
                              double rho) {
  constexpr auto kName = "tours";
  check_amounts(kName, "events", events, int64_t(events.size()));
  check_amounts(kName, "area", area, int64_t(events.size()));
  TR_REQUIRE(std::isfinite(rho) && rho >= 0, "{}: pai must be a number >= 0, got {}", kName, rho);
  const double all = std::accumulate(events.begin(), events.end(), 0.0);
  const double whole = std::accumulate(area.begin(), area.end(), 0.0);
  TR_REQUIRE(all > 0 && whole > 0, "{}: events and area must have a sum above 0, got {} and {}",
             kName, all, whole);
  std::vector<double> gain;
  for (size_t i = 0; i < events.size(); ++i)
    gain.push_back(events[i] / all - rho * area[i] / whole);
  return gain;
}

}  // namespace topreach::plan
