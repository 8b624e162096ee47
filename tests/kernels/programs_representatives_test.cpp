// Dominating sets and the fewest seeds for a reach, against all subsets and known numbers.
#include "../../kernels/programs/representatives.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <random>

#include "programs_data.h"

namespace {

using namespace topreach::kernels;

TEST(Representatives, RandomGraphsAgainstAllSubsets) {
  std::mt19937 random(7);
  int optimal = 0;
  for (int trial = 0; trial < 300; ++trial) {
    const int n = 3 + int(random() % 9);
    std::vector<int32_t> from, to;
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < i; ++j)
        if (random() % 10 < 3) from.push_back(i), to.push_back(j);
    const Graph graph = make_graph(n, from, to);
    std::vector<double> cost;
    for (int i = 0; i < n; ++i)
      cost.push_back(trial % 3 == 1 ? 1 + double(random() % 4)
                                    : 0.3 + double(random() % 100) / 100);
    if (trial % 3 == 0) cost.clear();
    std::vector<int> reach;
    for (int j = 0; j < n; ++j) {
      reach.push_back(1 << j);
      for (const int32_t i : graph.of(j)) reach.back() |= 1 << i;
    }
    double best = 1e300;
    std::vector<int> fewest(size_t(n) + 1, 99);
    for (int set = 0; set < 1 << n; ++set) {
      int covered = 0;
      double value = 0;
      for (int j = 0; j < n; ++j)
        if (set >> j & 1) covered |= reach[size_t(j)], value += cost.empty() ? 1 : cost[size_t(j)];
      const int count = std::popcount(unsigned(covered));
      if (count == n) best = std::min(best, value);
      for (int c = 0; c <= count; ++c)
        fewest[size_t(c)] = std::min(fewest[size_t(c)], std::popcount(unsigned(set)));
    }
    const Representatives plan = dominating_set(graph, cost);
    int covered = 0;
    for (const int32_t j : plan.chosen) covered |= reach[size_t(j)];
    ASSERT_EQ(covered, (1 << n) - 1);
    ASSERT_GE(plan.value, best - 1e-9);
    ASSERT_LE(plan.bound, best + 1e-9) << trial;
    if (plan.status == PlanStatus::optimal) {
      ASSERT_NEAR(plan.value, best, 1e-5);
    }
    optimal += plan.status == PlanStatus::optimal;

    Coverage c =
        spillover(graph, std::vector<double>(size_t(n), 1.0), std::vector<double>(size_t(n), 1.0));
    for (int theta = 0; theta <= n; ++theta) {
      const Representatives some = reach_at_least(c, theta);
      ASSERT_NE(some.status, PlanStatus::infeasible);
      ASSERT_GE(some.reach, theta - 1e-9);
      ASSERT_GE(some.value, fewest[size_t(theta)]);
      ASSERT_LE(some.bound, fewest[size_t(theta)]);
    }
    const Representatives none = reach_at_least(c, n + 1);
    ASSERT_EQ(none.status, PlanStatus::infeasible);
    ASSERT_NEAR(none.reach, n, 1e-9);
  }
  EXPECT_GT(optimal, 150);
}

TEST(Representatives, Grids) {
  const Representatives plan = dominating_set(topreach::tests::grid(8, 8));
  EXPECT_GE(plan.value, 16);
  EXPECT_LE(plan.bound, 16);
  EXPECT_GE(plan.bound, 14);
  EXPECT_EQ(dominating_set(topreach::tests::grid(0, 0)).value, 0);
}

}  // namespace
