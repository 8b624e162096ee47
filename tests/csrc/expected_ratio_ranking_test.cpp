// topreach::expected_ratio_ranking as a C++ user calls it [D25 Eq. 6].
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "../../csrc/distributions/count_distribution.h"
#include "../../csrc/ops/ratio_ranking.h"

namespace {

const auto kDouble = torch::dtype(torch::kDouble);

TEST(ExpectedRatioRanking, ClosedForms) {
  torch::manual_seed(0);
  const auto n = torch::rand({3, 20}, kDouble), total = n.sum(-1, true);
  const auto poisson = topreach::expected_ratio_ranking(topreach::Poisson{n});
  EXPECT_TRUE(torch::allclose(poisson, -n / total * torch::expm1(-total), 5e-11, 0));
  const topreach::NegativeBinomial shared{n, torch::zeros({}, kDouble)};
  const auto negbin = topreach::expected_ratio_ranking(shared);
  const auto want = n / total * (1 - torch::exp2(-total));
  EXPECT_TRUE(torch::allclose(negbin, want, 5e-11, 0));
}

TEST(ExpectedRatioRanking, TwoCoinsByHand) {
  // P(both) = pq, each then gets 1/2; alone, 1.
  const double p = 0.3, q = 0.8, keep = 0.25;
  const auto probs = torch::tensor({p, q}, kDouble);
  const auto by_hand = [](double a, double b) {
    return torch::tensor({a * (1 - b) + a * b / 2, b * (1 - a) + a * b / 2}, kDouble);
  };
  const topreach::Bernoulli coins{probs};
  EXPECT_TRUE(torch::allclose(topreach::expected_ratio_ranking(coins), by_hand(p, q), 5e-11, 0));
  const topreach::Binomial once{torch::ones({2}, kDouble), probs};
  EXPECT_TRUE(torch::allclose(topreach::expected_ratio_ranking(once), by_hand(p, q), 5e-11, 0));
  const topreach::ZeroInflated<topreach::Bernoulli> inflated{coins,
                                                             torch::tensor(1 - keep, kDouble)};
  EXPECT_TRUE(torch::allclose(topreach::expected_ratio_ranking(inflated),
                              by_hand(keep * p, keep * q), 5e-11, 0));
  const topreach::Mixture<topreach::Bernoulli> mixture{torch::tensor({0.4, 0.6}, kDouble),
                                                       {torch::tensor({{p, q}, {q, p}}, kDouble)}};
  const auto want = 0.4 * by_hand(p, q) + 0.6 * by_hand(q, p);
  EXPECT_TRUE(torch::allclose(topreach::expected_ratio_ranking(mixture), want, 5e-11, 0));
}

TEST(ExpectedRatioRanking, GradientIsThatOfDifferences) {
  torch::manual_seed(0);
  auto n = torch::rand({2, 6}, kDouble).set_requires_grad(true);
  auto z = torch::randn({2, 6}, kDouble).set_requires_grad(true);
  const auto g = torch::randn({2, 6}, kDouble);
  const auto value = [&](const torch::Tensor& a, const torch::Tensor& b) {
    return (g * topreach::expected_ratio_ranking(topreach::NegativeBinomial{a, b}, 1.0)).sum();
  };
  value(n, z).backward();
  torch::NoGradGuard no_grad;
  const auto step = torch::randn({2, 6}, kDouble), other = torch::randn({2, 6}, kDouble);
  const double h = 1e-5;
  const auto change =
      (value(n + h * step, z + h * other) - value(n - h * step, z - h * other)) / (2 * h);
  const auto want = (n.grad() * step + z.grad() * other).sum();
  EXPECT_NEAR(change.item<double>(), want.item<double>(), 1e-8);
}

TEST(ExpectedRatioRanking, RejectsWhatAreNoParameters) {
  EXPECT_THROW(topreach::expected_ratio_ranking(topreach::Poisson{torch::tensor({-1.f})}),
               c10::ValueError);
  EXPECT_THROW(topreach::expected_ratio_ranking(topreach::Bernoulli{torch::tensor({1.5f})}),
               c10::ValueError);
  EXPECT_THROW(topreach::expected_ratio_ranking(topreach::Poisson{torch::ones({2})}, -1.0),
               c10::ValueError);
}

TEST(RatioRankingGo, GradientGoesToTheDistributionFunction) {
  const auto y = torch::tensor({{1., 2.}, {0., 0.}}, kDouble);
  const auto log_prob = torch::full({2, 2}, std::log(0.5), kDouble);
  auto cdf = torch::zeros({2, 2}, kDouble.requires_grad(true));
  const auto r = topreach::ratio_ranking(y, log_prob, 0.0, "go", cdf);
  r.select(0, 0).backward();
  // (R - g_s) / (M p (Y + 1)) with R = 1/3, then 0, and g = (1, 0)
  const auto want = torch::tensor({{-1. / 6, 1. / 12}, {-1., 0.}}, kDouble);
  EXPECT_TRUE(torch::allclose(cdf.grad(), want, 1e-12, 1e-15));
}

}  // namespace
