// Coverage: published and computed answers, all subsets on small random instances, bounds never below
// the optimum.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>

#include "../../kernels/programs/coverage.h"
#include "programs_data.h"

namespace {

using namespace topreach::kernels;
using topreach::tests::read_network;

// The objective by its definition.
double value_by_hand(const Coverage& c, int set, bool capped) {
  double value = 0;
  for (int64_t j = 0; j < c.seeds; ++j)
    if (set >> j & 1) value += c.a[size_t(j)];
  for (int64_t i = 0; i < c.people; ++i) {
    double sum = 0, miss = 1;
    for (int64_t e = c.start[size_t(i)]; e < c.start[size_t(i) + 1]; ++e) {
      if (!(set >> c.seed[size_t(e)] & 1)) continue;
      const double q = c.chance.empty() ? 1.0 : c.chance[size_t(e)];
      sum += q;
      miss *= 1 - q;
    }
    value += c.w[size_t(i)] * (capped ? std::min(1.0, sum) : 1 - miss);
  }
  return value;
}

TEST(Coverage, RandomInstancesAgainstAllSubsets) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> uniform(0, 1);
  double gap[2] = {0, 0};
  int optimal = 0, infeasible = 0, solved = 0;
  for (int trial = 0; trial < 400; ++trial) {
    const auto below = [&](int n) { return int(random() % unsigned(n)); };
    const int n = 4 + below(7), people = 3 + below(9), kind = below(4);
    Coverage c;
    c.people = people;
    c.seeds = n;
    for (int j = 0; j < n; ++j) c.a.push_back(below(3) ? uniform(random) * 0.3 : 0.0);
    for (int i = 0; i < people; ++i) {
      c.w.push_back(below(6) ? 0.5 + uniform(random) : 0.0);
      for (int j = 0; j < n; ++j)
        if (below(3) == 0 || (trial % 7 == 0 && below(2))) {
          c.seed.push_back(j);
          if (kind == 1) c.chance.push_back(0.1 + 0.8 * uniform(random));
          if (kind == 2) c.chance.push_back(below(3) ? 0.3 : 1.0);
          if (kind == 3) c.chance.push_back(below(3) / 2.0);
        }
      c.start.push_back(int64_t(c.seed.size()));
    }
    const int groups = trial % 2 ? 2 : 0, k = below(n + 1);
    std::vector<int32_t> group;
    for (int j = 0; j < n; ++j) group.push_back(groups ? below(3) - 1 : -1);
    const int64_t lower[2] = {below(2), below(2)}, upper[2] = {1 + below(3), 1 + below(3)};
    std::vector<int8_t> lock(size_t(n), 0);
    if (trial % 5 == 0) lock[size_t(below(n))] = 1, lock[size_t(below(n))] = -1;
    const QuotaTree tree({n, k, groups, group.data(), nullptr, lower, upper, lock.data()});
    for (const bool capped : {false, true}) {
      double best = -1;
      for (int set = 0; set < 1 << n; ++set) {
        if (std::popcount(unsigned(set)) != k) continue;
        int64_t count[2] = {0, 0};
        bool good = true;
        for (int j = 0; j < n; ++j) {
          const bool in = set >> j & 1;
          if (in && group[size_t(j)] >= 0) ++count[group[size_t(j)]];
          good = good && (lock[size_t(j)] == 0 || (lock[size_t(j)] > 0) == in);
        }
        for (int g = 0; g < groups; ++g)
          good = good && count[g] >= lower[g] && count[g] <= upper[g];
        if (good) best = std::max(best, value_by_hand(c, set, capped));
      }
      CoverageOptions options;
      options.capped = capped;
      const CoveragePlan plan = solve_coverage(c, tree, options);
      ASSERT_EQ(plan.status == PlanStatus::infeasible, best < 0) << trial;
      if (best < 0) {
        ++infeasible;
        continue;
      }
      int set = 0;
      for (const int32_t j : plan.chosen) set |= 1 << j;
      ASSERT_EQ(std::popcount(unsigned(set)), k);
      ASSERT_NEAR(plan.value, value_by_hand(c, set, capped), 1e-9) << trial;
      ASSERT_LE(plan.value, best + 1e-9) << trial;
      ASSERT_GE(plan.value, (groups ? 0.5 : 1 - std::exp(-1)) * best - 1e-9) << trial;
      ASSERT_GE(plan.bound, best - 1e-9) << trial;
      if (plan.status == PlanStatus::optimal) {
        ASSERT_NEAR(plan.value, best, 2e-6 * (1 + best));
      }
      double reach = value_by_hand(c, set, false);
      for (const int32_t j : plan.chosen) reach -= c.a[size_t(j)];
      ASSERT_NEAR(plan.reach, reach, 1e-9);
      optimal += plan.value > best - 1e-9;
      ++solved;
      if (best > 0) gap[capped] += plan.bound / best - 1;
    }
  }
  EXPECT_GT(infeasible, 20);
  EXPECT_GT(optimal, solved * 9 / 10);
  EXPECT_LT(gap[0] / solved, 0.02);
  EXPECT_LT(gap[1] / solved, 0.03);
}

CoveragePlan best(const Coverage& c, int64_t k, bool capped = false) {
  CoverageOptions options;
  options.capped = capped;
  return solve_coverage(c, QuotaTree(QuotaGroups{c.seeds, k}), options);
}

TEST(Spillover, FiveNodes) {
  const std::vector<int32_t> from{0, 0, 0, 1}, to{2, 3, 4, 4};  // ac ad ae be
  const std::vector<double> treated{.4, .5, .1, .1, .2}, spilled{.2, .25, .05, .05, .1};
  const Coverage c = spillover(make_graph(5, from, to), treated, spilled);
  const double want[] = {.65, 1.1, 1.2, 1.25, 1.3};
  for (int k = 1; k <= 5; ++k) {
    const CoveragePlan plan = best(c, k);
    EXPECT_NEAR(plan.value, want[k - 1], 1e-12);
    EXPECT_GE(plan.bound, want[k - 1]);
    if (k == 1) {
      EXPECT_EQ(plan.chosen, std::vector<int32_t>{4});
    }
  }
}

TEST(Spillover, ComplianceIsAnExpectationOverWhoComes) {
  const std::vector<int32_t> from{0, 0, 0, 1}, to{2, 3, 4, 4};
  const Graph graph = make_graph(5, from, to);
  const std::vector<double> treated{.4, .5, .1, .1, .2}, spilled{.2, .25, .05, .05, .1},
      comes{.9, .3, 1, .5, .2};
  const Coverage c = spillover(graph, treated, spilled, comes);
  for (int set = 0; set < 32; ++set) {
    double expected = 0;
    for (int come = 0; come < 32; ++come) {
      if (come & ~set) continue;
      double chance = 1, saved = 0;
      for (int j = 0; j < 5; ++j)
        if (set >> j & 1) chance *= come >> j & 1 ? comes[size_t(j)] : 1 - comes[size_t(j)];
      for (int i = 0; i < 5; ++i) {
        bool near = false;
        for (const int32_t j : graph.of(i)) near = near || (come >> j & 1);
        saved += come >> i & 1 ? treated[size_t(i)] : near ? spilled[size_t(i)] : 0.0;
      }
      expected += chance * saved;
    }
    std::vector<int32_t> chosen;
    for (int j = 0; j < 5; ++j)
      if (set >> j & 1) chosen.push_back(j);
    EXPECT_NEAR(coverage_value(c, chosen, false), expected, 1e-12);
  }
}

TEST(Spillover, ANetworkOf311) {
  SKIP_WITHOUT_DATA();
  const auto network = read_network("rostami311", "From", "To", "Node", "Prob");
  std::vector<double> treated, spilled;
  for (const double p : network.value) {
    treated.push_back(.5 * p);
    spilled.push_back(.2 * p);
  }
  const Coverage c = spillover(network.graph, treated, spilled);
  const int k[] = {1, 5, 10, 20, 40, 60};
  const double want[] = {1.674684, 5.068738, 7.686524, 11.0167691267, 13.471297, 14.301153};
  for (int n = 0; n < 6; ++n) {
    const CoveragePlan plan = best(c, k[n]);
    EXPECT_NEAR(plan.value, want[n], 1e-6);
    EXPECT_GE(plan.bound, plan.value);
    EXPECT_LT(plan.gap, 1e-3);
    if (k[n] != 20) continue;
    std::vector<int> ids;
    for (const int32_t j : plan.chosen) ids.push_back(std::stoi(network.ids[size_t(j)]));
    std::sort(ids.begin(), ids.end());
    EXPECT_EQ(ids, (std::vector<int>{31,  68,  69,  116, 124, 134, 159, 164, 202, 219,
                                     220, 246, 248, 257, 261, 267, 276, 279, 310, 311}));
  }
  std::vector<int32_t> top(311);
  for (int i = 0; i < 311; ++i) top[size_t(i)] = i;
  std::sort(top.begin(), top.end(), [&](int32_t a, int32_t b) {
    return network.value[size_t(a)] > network.value[size_t(b)];
  });
  top.resize(20);
  EXPECT_NEAR(coverage_value(c, top, false), 9.4101406305, 1e-9);
}

TEST(CallIn, ANetworkOf22) {
  SKIP_WITHOUT_DATA();
  const auto network = read_network("gang22", "Source", "Target", "Id", "Prob_or_Par");
  const std::vector<double> one(22, 1.0), some(22, .4), half(22, .5);
  std::vector<double> parole;
  for (const double p : network.value) parole.push_back(p == 1 ? 1.0 : 1.0 / 6);
  const double all_come[] = {8, 11, 14, 16, 18, 20, 21, 22};
  const double on_parole[] = {6, 8, 10, 12, 13, 13.5, 83.0 / 6, 85.0 / 6};
  for (int k = 1; k <= 8; ++k) {
    EXPECT_NEAR(best(call_in(network.graph, one, one), k).value, all_come[k - 1], 1e-9);
    for (const bool capped : {false, true}) {
      const CoveragePlan plan = best(call_in(network.graph, parole, one), k, capped);
      EXPECT_NEAR(plan.value, on_parole[k - 1], 1e-9) << k;
      EXPECT_GE(plan.bound, plan.value);
    }
  }
  const double capped[] = {7, 8.2, 9.4}, exact[] = {6.16, 7.36, 8.384};
  for (int k = 3; k <= 5; ++k) {
    const Coverage c = call_in(network.graph, some, one);
    EXPECT_NEAR(best(c, k).value, exact[k - 3], 1e-9);
    const CoveragePlan plan = best(c, k, true);
    EXPECT_NEAR(plan.value, capped[k - 3], 1e-9);
    EXPECT_LE(plan.reach, exact[k - 3] + 1e-9);
    EXPECT_GE(plan.reach, (1 - std::exp(-1)) * exact[k - 3]);
  }
  EXPECT_NEAR(best(call_in(network.graph, some, half), 3).value, 3.832, 1e-9);
}

TEST(Coverage, TimeIsUpLeavesAPlanAndABound) {
  const Graph graph = topreach::tests::grid(60, 60);
  const std::vector<double> comes(3600, .5), passes(3600, .7);
  CoverageOptions options;
  options.time_limit = 0;
  const CoveragePlan plan =
      solve_coverage(call_in(graph, comes, passes), QuotaTree(QuotaGroups{3600, 100}), options);
  EXPECT_EQ(plan.chosen.size(), 100u);
  EXPECT_GE(plan.bound, plan.value);
  EXPECT_LT(plan.bound, 2 * plan.value);
  options.steps = 0;
  EXPECT_EQ(
      solve_coverage(call_in(graph, comes, passes), QuotaTree(QuotaGroups{3600, 100}), options)
          .status,
      PlanStatus::heuristic);
}

}  // namespace
