// The allocation programs that HiGHS solves: known answers, enumeration on random instances, prices against
// the change by one more unit. Skipped if there is no HiGHS.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <random>

#include "../../csrc/programs/milp.h"
#include "../../kernels/programs/budget.h"
#include "../../kernels/programs/models.h"
#include "../kernels/programs_data.h"

namespace {

using namespace topreach::kernels;
using topreach::MilpOptions;
using topreach::MilpSolution;
using topreach::solve;
using topreach::tests::grid;
using topreach::tests::read_csv;
using topreach::tests::read_network;

#define SKIP_WITHOUT_HIGHS() \
  if (!topreach::has_highs()) GTEST_SKIP() << "HiGHS is not installed"

struct TwelveSites {
  std::vector<double> r, c;
  std::vector<int32_t> municipality, rural;
  TwelveSites() {
    for (int i = 0; i < 12; ++i) {
      r.push_back(1 + (7 * i + 3) % 12);
      c.push_back(1 + i % 4);
      municipality.push_back(i % 3);
      rural.push_back(i >= 6 ? 0 : -1);
    }
  }
};

double value_of(const LinearProgram& program) {
  const MilpSolution s = solve(program);
  EXPECT_EQ(s.status, PlanStatus::optimal);
  return s.value;
}

TEST(Models, TwelveSites) {
  SKIP_WITHOUT_HIGHS();
  const TwelveSites t;
  const std::vector<int64_t> two{2}, one(3, 1), four(3, 4);
  EXPECT_NEAR(value_of(choice_program(t.r, 4)), 42, 1e-9);

  LinearProgram quotas = choice_program(t.r, 5);
  add_quotas(quotas, t.municipality, std::vector<int64_t>{2, 1, 1}, std::vector<int64_t>{3, 2, 1});
  EXPECT_NEAR(value_of(quotas), 48, 1e-9);

  LinearProgram crossing = choice_program(t.r, 4);
  add_quotas(crossing, t.municipality, one, four);
  add_quotas(crossing, t.rural, two, two);
  relax(crossing);  // has an integral solution
  const MilpSolution s = solve(crossing);
  EXPECT_NEAR(s.value, 41, 1e-9);
  for (const double x : s.x) EXPECT_NEAR(x, std::round(x), 1e-9);

  LinearProgram budget = choice_program(t.r, -1);
  add_budget(budget, t.c, 8);
  EXPECT_NEAR(value_of(budget), 45, 1e-9);
  MilpOptions options;
  options.start.assign(12, 0.0);
  for (const int32_t i : solve_budget(t.r, t.c, 8).chosen) options.start[size_t(i)] = 1;
  EXPECT_NEAR(solve(budget, options).value, 45, 1e-9);

  const Graph graph = grid(3, 4);
  LinearProgram apart = choice_program(t.r, 5);
  add_independence(apart, graph);
  EXPECT_NEAR(value_of(apart), 45, 1e-9);

  LinearProgram connected = choice_program(t.r, 4);
  add_contiguity(connected, graph, 4);
  EXPECT_NEAR(value_of(connected), 35, 1e-9);

  LinearProgram fair = choice_program(t.r, 4);
  maximise_least_share(fair, t.r, t.municipality, 3);
  EXPECT_NEAR(value_of(fair), 11.0 / 26, 1e-9);

  std::vector<double> r(t.r);
  r.insert(r.end(), t.r.rbegin(), t.r.rend());
  for (int i = 0; i < 12; ++i) r.push_back(t.r[size_t((i + 8) % 12)]);  // np.roll(r, 4)
  const LinearProgram phases =
      phases_program(r, std::vector<int64_t>{2, 2, 2}, std::vector<double>(12, 3.0));
  const MilpSolution p = solve(phases);
  EXPECT_NEAR(p.value, 53, 1e-9);
  for (const double x : p.x) EXPECT_NEAR(x, std::round(x), 1e-7);
}

// The program against all subsets of n sites that `allowed` allows.
void expect_best_subset(const LinearProgram& program, const std::vector<double>& r,
                        const std::function<bool(int)>& allowed) {
  double best = -1e300;
  const int n = int(r.size());
  for (int set = 0; set < 1 << n; ++set) {
    if (!allowed(set)) continue;
    double value = 0;
    for (int i = 0; i < n; ++i)
      if (set >> i & 1) value += r[size_t(i)];
    best = std::max(best, value);
  }
  const MilpSolution s = solve(program);
  if (best == -1e300) {
    EXPECT_EQ(s.status, PlanStatus::infeasible);
  } else {
    EXPECT_EQ(s.status, PlanStatus::optimal);
    EXPECT_NEAR(s.value, best, 1e-7);
    EXPECT_GE(s.bound, best - 1e-7);
  }
}

TEST(Models, RandomInstancesAgainstAllSubsets) {
  SKIP_WITHOUT_HIGHS();
  std::mt19937 random(8);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (int trial = 0; trial < 25; ++trial) {
    const int n = 8, k = 2 + int(random() % 4);
    std::vector<double> r, x, y;
    std::vector<int32_t> group, other, from, to;
    for (int i = 0; i < n; ++i) {
      r.push_back(uniform(random));
      x.push_back(3 * uniform(random) - 1);
      y.push_back(3 * uniform(random) - 1);
      group.push_back(int32_t(random() % 2));
      other.push_back(int32_t(random() % 3) - 1);
      for (int j = 0; j < i; ++j)
        if (random() % 10 < 3) from.push_back(i), to.push_back(j);
    }
    const Graph graph = make_graph(n, from, to);
    const auto size = [&](int set) { return std::popcount(unsigned(set)) == k; };

    LinearProgram spaced = choice_program(r, k);
    add_spacing(spaced, x, y, 1.0);
    expect_best_subset(spaced, r, [&](int set) {
      if (!size(set)) return false;
      for (int i = 0; i < n; ++i)
        for (int j = 0; j < i; ++j)
          if ((set >> i & 1) && (set >> j & 1) &&
              std::hypot(x[size_t(i)] - x[size_t(j)], y[size_t(i)] - y[size_t(j)]) < 1)
            return false;
      return true;
    });

    LinearProgram connected = choice_program(r, k);
    add_contiguity(connected, graph, k);
    expect_best_subset(connected, r, [&](int set) {
      if (!size(set)) return false;
      int reached = set & -set;
      for (int step = 0; step < n; ++step)
        for (int i = 0; i < n; ++i)
          if (reached >> i & 1)
            for (const int32_t j : graph.of(i)) reached |= set & (1 << j);
      return reached == set;
    });

    LinearProgram crossing = choice_program(r, k);
    const std::vector<int64_t> lower{1, 1}, upper{3, 3}, least{0, 1}, most{2, 2};
    add_quotas(crossing, group, lower, upper);
    add_quotas(crossing, other, least, most);
    const auto within = [&](int set) {
      int count[2] = {0, 0}, count2[3] = {0, 0, 0};
      for (int i = 0; i < n; ++i)
        if (set >> i & 1) ++count[group[size_t(i)]], ++count2[other[size_t(i)] + 1];
      return size(set) && count[0] >= 1 && count[1] >= 1 && count[0] <= 3 && count[1] <= 3 &&
             count2[1] <= 2 && count2[2] >= 1 && count2[2] <= 2;
    };
    expect_best_subset(crossing, r, within);
    relax(crossing);
    expect_best_subset(crossing, r, within);

    LinearProgram floors = choice_program(r, k);
    const std::vector<double> floor{0.3, 0.2};
    add_floors(floors, r, group, floor);
    expect_best_subset(floors, r, [&](int set) {
      double kept[2] = {0, 0}, total[2] = {0, 0};
      for (int i = 0; i < n; ++i) {
        total[group[size_t(i)]] += r[size_t(i)];
        if (set >> i & 1) kept[group[size_t(i)]] += r[size_t(i)];
      }
      return size(set) && kept[0] >= 0.3 * total[0] - 1e-9 && kept[1] >= 0.2 * total[1] - 1e-9;
    });
  }
}

Graph complete_edges(int32_t n, const std::vector<std::pair<int32_t, int32_t>>& edges) {
  std::vector<int32_t> a, b;
  for (const auto& [x, y] : edges) a.push_back(x), b.push_back(y);
  return make_graph(n, a, b);
}

TEST(Models, DominatingSets) {
  SKIP_WITHOUT_HIGHS();
  std::vector<std::pair<int32_t, int32_t>> petersen, circle;
  for (int32_t i = 0; i < 5; ++i) {
    petersen.push_back({i, (i + 1) % 5});
    petersen.push_back({i, i + 5});
    petersen.push_back({i + 5, (i + 2) % 5 + 5});
  }
  for (int32_t i = 0; i < 12; ++i) circle.push_back({i, (i + 1) % 12});
  const auto least = [](const Graph& g) { return value_of(domination_program(g)); };
  EXPECT_NEAR(least(complete_edges(10, petersen)), 3, 1e-9);
  EXPECT_NEAR(least(complete_edges(12, circle)), 4, 1e-9);
  EXPECT_NEAR(least(grid(5, 5)), 7, 1e-9);
  EXPECT_NEAR(least(grid(8, 8)), 16, 1e-9);
}

// The exact form by tangents, added until none is broken.
double exact_coverage(const Coverage& coverage, int64_t k) {
  LinearProgram program = coverage_program(coverage, k);
  MilpOptions options;
  options.presolve = false;
  for (;;) {
    const MilpSolution s = solve(program, options);
    EXPECT_EQ(s.status, PlanStatus::optimal);
    const std::vector<double> x(s.x.begin(), s.x.begin() + coverage.seeds);
    std::vector<int32_t> chosen;
    for (size_t j = 0; j < x.size(); ++j)
      if (x[j] > 0.5) chosen.push_back(int32_t(j));
    const double value = coverage_value(coverage, chosen, false);
    if (s.value <= value + 1e-7 || add_tangents(program, coverage, x) == 0) return value;
  }
}

TEST(Models, CoverageOfNetworks) {
  SKIP_WITHOUT_HIGHS();
  SKIP_WITHOUT_DATA();
  const auto gang = read_network("gang22", "Source", "Target", "Id", "Prob_or_Par");
  const std::vector<double> one(22, 1.0), some(22, .4), half(22, .5);
  std::vector<double> parole;
  for (const double p : gang.value) parole.push_back(p == 1 ? 1.0 : 1.0 / 6);
  EXPECT_NEAR(exact_coverage(call_in(gang.graph, some, one), 3), 6.16, 1e-7);
  EXPECT_NEAR(exact_coverage(call_in(gang.graph, some, half), 3), 3.832, 1e-7);
  EXPECT_NEAR(exact_coverage(call_in(gang.graph, parole, one), 6), 13.5, 1e-7);
  MilpOptions options;
  options.presolve = false;
  EXPECT_NEAR(solve(coverage_program(call_in(gang.graph, some, one), 4), options).value, 8.2, 1e-7);

  const auto network = read_network("rostami311", "From", "To", "Node", "Prob");
  std::vector<double> treated, spilled;
  for (const double p : network.value) {
    treated.push_back(.5 * p);
    spilled.push_back(.2 * p);
  }
  const Coverage c = spillover(network.graph, treated, spilled);
  const MilpSolution s = solve(coverage_program(c, 20), options);
  EXPECT_EQ(s.status, PlanStatus::optimal);
  EXPECT_NEAR(s.value, 11.0167691267, 1e-7);
  EXPECT_EQ(value_of(domination_program(grid(3, 3))), 3);
}

struct Assignment {
  double value, unserved;
  std::vector<double> left, need_price, capacity_price;
};

Assignment assign(const std::vector<double>& need, const std::vector<double>& capacity,
                  const std::vector<double>& distance, double radius) {
  const Transport t = transport_program(need, capacity, distance, radius, 9999);
  const MilpSolution s = solve(t.program);
  EXPECT_EQ(s.status, PlanStatus::optimal);
  Assignment a{s.value, 0, {}, {}, {}};
  for (size_t i = 0; i < need.size(); ++i) {
    a.left.push_back(s.x[t.from.size() + i]);
    a.unserved += a.left.back();
    a.need_price.push_back(s.row_dual[i]);
  }
  for (size_t j = 0; j < capacity.size(); ++j)
    a.capacity_price.push_back(s.row_dual[need.size() + j]);
  return a;
}

TEST(Models, TreatmentCoverage) {
  SKIP_WITHOUT_HIGHS();
  const double at[][2] = {{1, 2}, {1, 8}, {3, 1}, {3, 8}, {4, 4},
                          {5, 6}, {6, 1}, {6, 2}, {9, 5}, {9, 8}};
  const double sites[][2] = {{1, 1}, {8, 8}, {5, 5}};
  const auto distances = [&](size_t m) {
    std::vector<double> d;
    for (const auto& p : at)
      for (size_t j = 0; j < m; ++j)
        d.push_back(std::hypot(p[0] - sites[j][0], p[1] - sites[j][1]));
    return d;
  };
  const std::vector<double> one(10, 1.0), need{10, 15, 5, 10, 12, 11, 20, 6, 9, 2};
  EXPECT_NEAR(assign(one, {3, 5}, distances(2), 12).value, 20024.33502494309, 1e-6);
  EXPECT_NEAR(assign(one, {4, 5}, distances(2), 12).value, 10030.33502494309, 1e-6);
  const Assignment a = assign(need, {40, 50, 0}, distances(3), 10);
  EXPECT_NEAR(a.value, 100363.8800780757, 1e-5);
  EXPECT_NEAR(a.unserved, 10, 1e-9);
  const double price[] = {-9993.41421356, -9992.0, -9996.24264069};
  for (size_t j = 0; j < 3; ++j) EXPECT_NEAR(a.capacity_price[j], price[j], 1e-5);
  EXPECT_NEAR(assign(need, {40, 50, 1}, distances(3), 10).value - a.value, price[2], 1e-5);
  EXPECT_NEAR(assign(need, {40, 50, 10}, distances(3), 10).value, 402.0197044713775, 1e-6);
  // Strong duality: the value equals needs and capacities times their prices.
  double dual = 0;
  for (size_t i = 0; i < 10; ++i) dual += need[i] * a.need_price[i];
  dual += 40 * a.capacity_price[0] + 50 * a.capacity_price[1];
  EXPECT_NEAR(dual, a.value, 1e-5);
}

TEST(Models, TreatmentCoverageOfAState) {
  SKIP_WITHOUT_HIGHS();
  SKIP_WITHOUT_DATA();
  const std::string folder = topreach::tests::data_folder() + "/nc_opioid";
  auto demand = read_csv(folder + "/top10_demand_zips.csv");
  auto supply = read_csv(folder + "/treatment_providers.csv");
  const auto radians = [](const std::string& text) { return std::stod(text) * M_PI / 180; };
  std::vector<double> need, distance;
  const size_t m = supply["lat"].size();
  for (size_t i = 0; i < demand["lat"].size(); ++i) {
    need.push_back(std::stod(demand["est_need_care"][i]));
    for (size_t j = 0; j < m; ++j) {
      const double a = radians(demand["lat"][i]), b = radians(supply["lat"][j]);
      const double s = std::sin((a - b) / 2);
      const double t = std::sin((radians(demand["lon"][i]) - radians(supply["lon"][j])) / 2);
      distance.push_back(2 * 6371.0088 *
                         std::asin(std::sqrt(s * s + std::cos(a) * std::cos(b) * t * t)));
    }
  }
  const Assignment a = assign(need, std::vector<double>(m, 150.0), distance, 40);
  double all = 0;
  for (const double x : need) all += x;
  EXPECT_NEAR(all, 8620, 1e-9);
  EXPECT_NEAR(a.unserved, 4700, 1e-6);
  EXPECT_NEAR((a.value - 9999 * a.unserved) / (all - a.unserved), 13.4875, 1e-4);
  for (const std::string zip : {"28801", "27704"}) {
    const auto at = std::find(demand["zip"].begin(), demand["zip"].end(), zip);
    EXPECT_NEAR(a.left[size_t(at - demand["zip"].begin())], 0, 1e-9);
  }
}

}  // namespace
