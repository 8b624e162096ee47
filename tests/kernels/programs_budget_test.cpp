// Budgets against all subsets.
#include "../../kernels/programs/budget.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <random>

namespace {

using namespace topreach::kernels;

TEST(Budget, RandomInstancesAgainstAllSubsets) {
  std::mt19937 random(6);
  std::uniform_real_distribution<double> uniform(0, 1);
  int optimal = 0, infeasible = 0, solved = 0;
  for (int trial = 0; trial < 600; ++trial) {
    const int n = 3 + int(random() % 9), k = int(random() % unsigned(n + 1));
    std::vector<double> r, c;
    std::vector<int32_t> group;
    std::vector<int8_t> lock;
    for (int i = 0; i < n; ++i) {
      r.push_back(uniform(random) - (trial % 4 == 0 ? 0.2 : 0.0));
      c.push_back(trial % 3 ? uniform(random) : double(random() % 4));
      group.push_back(int32_t(random() % 3) - 1);
      lock.push_back(int8_t(trial % 5 || random() % 6 ? 0 : 1));
    }
    const double budget = uniform(random) * 0.6 * n;
    const int64_t lower[] = {0, 1}, upper[] = {2, 3};
    const QuotaTree tree({n, k, 2, group.data(), nullptr, lower, upper, lock.data()});
    const bool limited = trial % 2;
    double best = -1e300;
    for (int set = 0; set < 1 << n; ++set) {
      double value = 0, cost = 0;
      int64_t count[3] = {0, 0, 0};
      bool good = !limited || std::popcount(unsigned(set)) == k;
      for (int i = 0; i < n; ++i) {
        if (limited && lock[size_t(i)] && !(set >> i & 1)) good = false;
        if (!(set >> i & 1)) continue;
        value += r[size_t(i)];
        cost += c[size_t(i)];
        ++count[group[size_t(i)] + 1];
      }
      if (limited) good = good && count[1] <= 2 && count[2] >= 1 && count[2] <= 3;
      if (good && cost <= budget) best = std::max(best, value);
    }
    const BudgetPlan plan = solve_budget(r, c, budget, limited ? &tree : nullptr);
    ASSERT_EQ(plan.status == PlanStatus::infeasible, best == -1e300) << trial;
    if (best == -1e300) {
      ++infeasible;
      continue;
    }
    double value = 0, cost = 0;
    for (const int32_t i : plan.chosen) {
      value += r[size_t(i)];
      cost += c[size_t(i)];
    }
    ASSERT_NEAR(value, plan.value, 1e-9);
    ASSERT_NEAR(cost, plan.cost, 1e-9);
    ASSERT_LE(cost, budget + 1e-9);
    ASSERT_LE(value, best + 1e-9);
    ASSERT_GE(plan.bound, best - 1e-9);
    ++solved;
    optimal += value > best - 1e-9;
  }
  EXPECT_GT(infeasible, 30);
  EXPECT_GT(optimal, solved * 6 / 10);
}

TEST(Budget, TwelveSites) {  // the optimum is 45
  std::vector<double> r, c;
  for (int i = 0; i < 12; ++i) {
    r.push_back(1 + (7 * i + 3) % 12);
    c.push_back(1 + i % 4);
  }
  const BudgetPlan plan = solve_budget(r, c, 8);
  EXPECT_LE(plan.value, 45);
  EXPECT_GE(plan.bound, 45);
}

}  // namespace
