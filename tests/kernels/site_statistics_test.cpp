// The recursions of a site's past against sums written out, and the prior mean against a worked example.
#include "../../kernels/site_statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace topreach::kernels {
namespace {

constexpr float kUnknown = std::numeric_limits<float>::quiet_NaN();

TEST(SiteStatistics, UnknownCountsDecayAndAddNothing) {
  // Two sites, three periods, half-lives 1 and infinity; site 1 is unknown in the second period.
  const float counts[3][2] = {{4, 2}, {3, kUnknown}, {1, 5}};
  const std::vector<double> decay{0.5, 1.0};
  std::vector<double> a(4, 0.0), e(4, 0.0);
  const SiteMemories state{2, 2, decay.data(), false, a.data(), e.data()};
  for (const auto& row : counts) {
    const PeriodSums sums = sum_of_period(row, nullptr, 0, 2);
    pass_period(state, row, nullptr, sums.counts / sums.exposure, 0, 2);
  }
  pass_period(state, nullptr, nullptr, 0.0, 0, 2);  // a period of which nothing is known
  EXPECT_EQ(a, (std::vector<double>{0.5 * (1 + 1.5 + 1), 8, 0.5 * (5 + 0.5), 7}));
  // Mean counts: 3, 3 (of site 0 alone), 3.
  EXPECT_EQ(e, (std::vector<double>{0.5 * (3 + 1.5 + 0.75), 9, 0.5 * (3 + 0.75), 6}));
}

TEST(SiteStatistics, ExpectedCountsFollowExposure) {
  const float counts[2] = {6, 3}, exposure[2] = {2, 1};
  const PeriodSums sums = sum_of_period(counts, exposure, 0, 2);
  EXPECT_EQ(sums.counts, 9);
  EXPECT_EQ(sums.exposure, 3);
  EXPECT_EQ(sums.known, 2);
  const double decay = 1.0;
  std::vector<double> a(2, 0.0), e(2, 0.0);
  pass_period({2, 1, &decay, false, a.data(), e.data()}, counts, exposure, 3.0, 0, 2);
  EXPECT_EQ(e, (std::vector<double>{6, 3}));
}

TEST(SiteStatistics, PriorMeanOfNestedNeighbourhoods) {
  // Site 0 has neighbours 1 and 2 (the second by half), then 1 alone; kappa 2 and 4.
  const double decay = 1.0;
  std::vector<double> a{9, 4, 2}, e{3, 3, 3};
  const std::vector<int64_t> wide_start{0, 2, 2, 2}, wide{1, 2}, close_start{0, 1, 1, 1}, close{1};
  const std::vector<double> wide_weights{1, 0.5}, close_weights{1}, kappa{2, 4};
  const SiteGraph graphs[2] = {{wide_start.data(), wide.data(), wide_weights.data()},
                               {close_start.data(), close.data(), close_weights.data()}};
  const double first = (4 + 0.5 * 2 + 2) / (1.5 * 3 + 2);
  const double second = (4 + 4) / (3 + 4 / first);
  double near[2], m;
  prior_mean({3, 1, &decay, false, a.data(), e.data()}, graphs, kappa.data(), 2, 0, near, &m);
  EXPECT_DOUBLE_EQ(m, second);
  // The same with one E for all sites.
  prior_mean({3, 1, &decay, true, a.data(), e.data()}, graphs, kappa.data(), 2, 0, near, &m);
  EXPECT_DOUBLE_EQ(m, second);
  // Without neighbours: kappa / (kappa / 1) = 1.
  prior_mean({3, 1, &decay, true, a.data(), e.data()}, graphs, kappa.data(), 2, 1, near, &m);
  EXPECT_DOUBLE_EQ(m, 1.0);
}

TEST(SiteStatistics, SeasonsAreLearnt) {
  TotalLevel level(0.3, 0.1, 2);
  EXPECT_FALSE(level.has_forecast());
  for (int64_t row = 0; row < 120; ++row) level.update(row, row % 2 ? 399.5 : 99.5);
  EXPECT_NEAR(std::exp(level.log_forecast(120)), 100, 1);
  EXPECT_NEAR(std::exp(level.log_forecast(121)), 400, 4);
  EXPECT_NEAR(std::exp(level.log_forecast(122)), 100, 1);
}

}  // namespace
}  // namespace topreach::kernels
