// topreach::ratio_ranking as a C++ user calls it [D25 Eq. 7, 10].
#include "../../csrc/ops/ratio_ranking.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

namespace {

TEST(RatioRanking, MeanOfShares) {
  const auto y = torch::tensor({0., 0., 1., 3., 2., 2.}).reshape({3, 2});
  const auto r = topreach::ratio_ranking(y);
  EXPECT_TRUE(torch::allclose(r, torch::tensor({0.25, 0.4166666667})));
}

TEST(RatioRanking, GradientsEqualTheJacobianRoute) {
  torch::manual_seed(0);
  const auto y = torch::poisson(torch::rand({12, 3, 30}, torch::kDouble));
  const auto share = y / y.sum(-1, true);
  const auto g = torch::randn({3, 30}, torch::kDouble);
  for (const char* estimator : {"score", "score_loo"}) {
    auto log_prob = torch::zeros({12, 3}, torch::dtype(torch::kDouble).requires_grad(true));
    topreach::ratio_ranking(y, log_prob, 0.0, estimator).backward(g);
    const auto others = (share.sum(0) - share) / 11;
    const auto baseline = std::string(estimator) == "score" ? torch::zeros_like(share) : others;
    const auto want = ((share - baseline) * g).sum(-1) / 12;
    EXPECT_TRUE(torch::allclose(log_prob.grad(), want, 1e-12, 1e-14)) << estimator;
  }
  auto per_site = torch::zeros({12, 3, 30}, torch::dtype(torch::kDouble).requires_grad(true));
  topreach::ratio_ranking(y, per_site, 0.0, "diagonal").backward(g);
  EXPECT_TRUE(torch::allclose(per_site.grad(), share * g / 12, 1e-12, 1e-14));
}

TEST(RatioRanking, LogProbabilityOfEachSiteIsSummed) {
  const auto y = torch::ones({4, 5});
  auto per_site = torch::zeros({4, 5}, torch::requires_grad());
  const auto r = topreach::ratio_ranking(y, per_site);
  r.sum().backward();
  EXPECT_EQ(per_site.grad().sizes(), y.sizes());
}

TEST(RatioRanking, RejectsWhatAreNoCounts) {
  EXPECT_THROW(topreach::ratio_ranking(torch::tensor({{1.f, -1.f}})), c10::ValueError);
  EXPECT_THROW(topreach::ratio_ranking(torch::tensor({{1.f, NAN}})), c10::ValueError);
  EXPECT_THROW(topreach::ratio_ranking(torch::ones({2, 3}), torch::zeros({3})), c10::ValueError);
}

}  // namespace
