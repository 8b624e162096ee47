// HiGHS through its C interface: programs with known answers, duals against finite differences, and
// integer programs against enumeration. Skipped if there is no HiGHS.
#include "../../csrc/programs/milp.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

namespace {

using topreach::MilpOptions;
using topreach::MilpSolution;
using topreach::kernels::kNoBound;
using topreach::kernels::LinearProgram;
using topreach::kernels::PlanStatus;

#define SKIP_WITHOUT_HIGHS() \
  if (!topreach::has_highs()) GTEST_SKIP() << "HiGHS is not installed"

TEST(Milp, MissingLibrarySaysHowToMend) {
  // In a new process, because a library stays loaded.
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        setenv("TOPREACH_HIGHS", "/no/such/library.so", 1);
        try {
          topreach::highs_version();
        } catch (const topreach::HighsMissing& error) {
          const std::string text = error.what();
          const bool good = text.find("pip install highsbox") != std::string::npos &&
                            text.find("/no/such/library.so") != std::string::npos;
          std::exit(good ? 7 : 1);
        }
      },
      testing::ExitedWithCode(7), "");
}

TEST(Milp, VersionNamesThePath) {
  SKIP_WITHOUT_HIGHS();
  EXPECT_NE(topreach::highs_version().find("("), std::string::npos);
}

// max 3 a + 2 b, a + b <= 4, a + 3 b <= 7, a <= 3: a = 3, b = 1 by hand; prices 2 (first row) and 1
// (a's bound).
LinearProgram small(bool maximise) {
  LinearProgram lp;
  lp.maximise = maximise;
  const double sign = maximise ? 1 : -1;
  lp.add_column(3 * sign, 0, 3, false);
  lp.add_column(2 * sign, 0, kNoBound, false);
  lp.add_row({{0, 1.0}, {1, 1.0}}, -kNoBound, 4);
  lp.add_row({{0, 1.0}, {1, 3.0}}, -kNoBound, 7);
  return lp;
}

TEST(Milp, LinearProgramAndItsPrices) {
  SKIP_WITHOUT_HIGHS();
  for (const bool maximise : {true, false}) {
    const double sign = maximise ? 1 : -1;
    const MilpSolution s = topreach::solve(small(maximise));
    EXPECT_EQ(s.status, PlanStatus::optimal);
    EXPECT_NEAR(s.value, 11 * sign, 1e-9);
    EXPECT_NEAR(s.bound, 11 * sign, 1e-9);
    EXPECT_NEAR(s.x[0], 3, 1e-9);
    EXPECT_NEAR(s.x[1], 1, 1e-9);
    EXPECT_NEAR(s.row_dual[0], 2 * sign, 1e-9);
    EXPECT_NEAR(s.row_dual[1], 0, 1e-9);
    EXPECT_NEAR(s.column_dual[0], 1 * sign, 1e-9);
  }
}

TEST(Milp, InfeasibleAndUnbounded) {
  SKIP_WITHOUT_HIGHS();
  LinearProgram lp = small(true);
  lp.add_row({{0, 1.0}}, 5, kNoBound);
  EXPECT_EQ(topreach::solve(lp).status, PlanStatus::infeasible);
  lp.integer.assign(2, 1);
  EXPECT_EQ(topreach::solve(lp).status, PlanStatus::infeasible);
  LinearProgram open;
  open.add_column(1, 0, kNoBound, false);
  const MilpSolution s = topreach::solve(open);
  EXPECT_TRUE(s.unbounded);
  EXPECT_TRUE(s.x.empty());
}

TEST(Milp, WholeNumbersAgainstEnumeration) {
  SKIP_WITHOUT_HIGHS();
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (int trial = 0; trial < 40; ++trial) {
    const int n = 8;
    LinearProgram lp;
    std::vector<double> r(n), c(n);
    for (int j = 0; j < n; ++j) {
      r[size_t(j)] = uniform(random);
      c[size_t(j)] = uniform(random);
    }
    lp.add_choices(r.data(), n, true);
    for (int j = 0; j < n; ++j) lp.add_term(j, c[size_t(j)]);
    lp.end_row(-kNoBound, 1.5);
    double best = 0;
    for (int set = 0; set < 1 << n; ++set) {
      double value = 0, cost = 0;
      for (int j = 0; j < n; ++j)
        if (set >> j & 1) {
          value += r[size_t(j)];
          cost += c[size_t(j)];
        }
      if (cost <= 1.5) best = std::max(best, value);
    }
    for (const bool presolve : {true, false}) {
      MilpOptions options;
      options.presolve = presolve;
      options.start.assign(n, 0.0);
      const MilpSolution s = topreach::solve(lp, options);
      EXPECT_EQ(s.status, PlanStatus::optimal);
      EXPECT_NEAR(s.value, best, 1e-9);
      EXPECT_GE(s.bound, s.value);
      EXPECT_TRUE(s.row_dual.empty());
    }
  }
}

TEST(Milp, TimeIsUp) {
  SKIP_WITHOUT_HIGHS();
  // A market split problem (Cornuejols & Dawande 1998), which no solver solves quickly.
  std::mt19937_64 random(3);
  LinearProgram lp;
  lp.maximise = false;
  const int n = 40, m = 5;
  lp.add_choices(nullptr, n, true);
  for (int i = 0; i < m; ++i) {
    const int32_t over = lp.add_column(1, 0, kNoBound, false);
    const int32_t under = lp.add_column(1, 0, kNoBound, false);
    double sum = 0;
    for (int j = 0; j < n; ++j) {
      const double a = double(random() % 100);
      sum += a;
      lp.add_term(j, a);
    }
    lp.add_term(over, -1);
    lp.add_term(under, 1);
    lp.end_row(std::floor(sum / 2), std::floor(sum / 2));
  }
  MilpOptions options;
  options.time_limit = 0.3;
  const MilpSolution s = topreach::solve(lp, options);
  EXPECT_NE(s.status, PlanStatus::infeasible);
  if (!s.x.empty()) {
    EXPECT_LE(s.bound, s.value + 1e-9);
    EXPECT_EQ(s.status == PlanStatus::optimal, s.gap <= 1e-6);
  }
}

TEST(Milp, ArraysMustFit) {
  LinearProgram lp = small(true);
  lp.upper.pop_back();
  EXPECT_THROW(topreach::solve(lp), std::invalid_argument);
}

}  // namespace
