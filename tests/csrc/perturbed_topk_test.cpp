// topreach::perturbed_topk and topk_mask as a C++ user calls them.
#include "../../csrc/ops/perturbed_topk.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "../../csrc/metrics/bpr.h"
#include "../../csrc/ops/expected_topk.h"
#include "../../csrc/ops/key.h"
#include "../../csrc/ops/negbin.h"
#include "../../csrc/ops/ratio_ranking.h"
#include "../../csrc/ops/topk_mask.h"

namespace {

TEST(PerturbedTopK, RowsSumToK) {
  torch::manual_seed(0);
  const auto scores = torch::randn({3, 40});
  const auto b = topreach::perturbed_topk(scores, 7, {.sigma = 0.5, .num_samples = 33});
  EXPECT_TRUE(torch::allclose(b.sum(-1), torch::full({3}, 7.f)));
}

TEST(PerturbedTopK, TwoSitesClosedForm) {
  // P(site 0 wins) = Phi((r0 - r1) / (sigma sqrt 2)), over 200,000 draws: 5 standard errors.
  const auto scores = torch::tensor({0.3, -0.1}, torch::kDouble).repeat({400, 1});
  const auto key = torch::tensor({7, 8}, torch::kLong);
  const auto b =
      topreach::perturbed_topk(scores, 1, {.sigma = 0.5, .num_samples = 500, .key = key});
  const double p = 0.5 * std::erfc(-0.4 / (0.5 * std::sqrt(2.0)) / std::sqrt(2.0));
  EXPECT_NEAR(b.select(1, 0).mean().item<double>(), p, 5 * std::sqrt(p * (1 - p) / 200'000));
}

TEST(PerturbedTopK, GradientFollowsTheScores) {
  torch::manual_seed(0);
  auto scores = torch::zeros({1, 50}, torch::requires_grad());
  const auto v = torch::linspace(0, 1, 50).unsqueeze(0);
  const auto b = topreach::perturbed_topk(
      scores, 10, {.sigma = 1.0, .num_samples = 20'000, .estimator = "score_loo"});
  (b * v).sum().backward();
  const auto g = scores.grad();
  // equal scores: the exact gradient is proportional to v minus its mean
  const auto cosine = torch::cosine_similarity(g, v - v.mean(), -1).item<float>();
  EXPECT_GT(cosine, 0.95f);
}

TEST(PerturbedTopK, ConditionalIsTheExactOperatorOnAverage) {
  // 400 rows of the same scores, each with its own noise: mean within 5 standard errors, each site.
  torch::manual_seed(0);
  const auto row = torch::rand({30}, torch::kDouble), v = torch::rand({30}, torch::kDouble);
  auto scores = row.repeat({400, 1}).requires_grad_(), one = row.clone().requires_grad_();
  const auto b = topreach::perturbed_topk(
      scores, 6, {.sigma = 0.2, .num_samples = 20, .estimator = "conditional"});
  const auto exact = topreach::expected_topk(one, 6, {.sigma = 0.2});
  (b * v).sum().backward();
  (exact * v).sum().backward();
  const auto z = [](const torch::Tensor& sample, const torch::Tensor& want) {
    return ((sample.mean(0) - want) * 20 / (sample.std(0) + 1e-6)).abs().max().item<double>();
  };
  EXPECT_LT(z(b.detach(), exact.detach()), 5);
  EXPECT_LT(z(scores.grad(), one.grad()), 5);
}

TEST(PerturbedTopK, SeedRules) {
  const auto scores = torch::randn({60});
  torch::manual_seed(5);
  const auto a = topreach::perturbed_topk(scores, 9, {.sigma = 1.0});
  torch::manual_seed(5);
  const auto key = topreach::draw_key();
  EXPECT_TRUE(torch::equal(a, topreach::perturbed_topk(scores, 9, {.sigma = 1.0, .key = key})));
}

TEST(PerturbedTopK, ErrorsNameArgumentAndValue) {
  const auto scores = torch::zeros({4});
  try {
    topreach::perturbed_topk(scores, 5, {.sigma = 1.0});
    FAIL() << "k = 5 of 4 sites was taken";
  } catch (const c10::ValueError& error) {
    EXPECT_NE(std::string(error.what_without_backtrace())
                  .find("perturbed_topk: k must be between 0 and S = 4, got 5"),
              std::string::npos);
  }
  EXPECT_THROW(topreach::perturbed_topk(scores, 1, {.sigma = -1.0}), c10::ValueError);
  EXPECT_THROW(topreach::perturbed_topk(scores.to(torch::kLong), 1), c10::TypeError);
  EXPECT_THROW(topreach::topk_mask(torch::full({3}, NAN), 1), c10::ValueError);
}

TEST(PerturbedTopK, UndefinedTensorsAreRefusedByName) {
  const auto message = [](const auto& call) -> std::string {
    try {
      call();
    } catch (const c10::ValueError& error) {
      return error.what_without_backtrace();
    }
    return "nothing raised";
  };
  const auto scores = torch::zeros({4});
  const torch::Tensor none;
  const auto expect = [&](const std::string& wanted, const auto& call) {
    EXPECT_EQ(message(call), wanted + " must be a tensor, got an undefined one (at::Tensor())");
  };
  expect("perturbed_topk: scores", [&] { topreach::perturbed_topk(none, 1); });
  expect("perturbed_topk: key", [&] { topreach::perturbed_topk(scores, 1, {.key = none}); });
  expect("expected_topk: scores", [&] { topreach::expected_topk(none, 1); });
  expect("topk_mask: scores", [&] { topreach::topk_mask(none, 1); });
  expect("topk_mask: k", [&] { topreach::topk_mask(scores, none); });
  expect("ratio_ranking: samples", [&] { topreach::ratio_ranking(none); });
  expect("ratio_ranking: log_prob", [&] { topreach::ratio_ranking(torch::ones({2, 3}), none); });
  expect("negbin_sample: logits", [&] { topreach::negbin_sample(scores, none, 1); });
  expect("negbin_log_prob: value", [&] { topreach::negbin_log_prob(none, scores, scores); });
  expect("bpr: counts", [&] { topreach::bpr(scores, none, 1); });
  expect("soft_bpr: membership", [&] { topreach::soft_bpr(none, scores, 1); });
}

TEST(TopKMask, EachRowHasItsBudget) {
  const auto scores = torch::tensor({1.f, 2.f, 2.f, 2.f}).repeat({3, 1});
  const auto mask = topreach::topk_mask(scores, torch::tensor({0, 2, 4}));
  EXPECT_TRUE(torch::equal(mask.sum(-1), torch::tensor({0.f, 2.f, 4.f})));
  EXPECT_TRUE(torch::equal(mask[1], topreach::topk_mask(scores[1], 2)));
  EXPECT_THROW(topreach::topk_mask(scores, torch::tensor({0, 2, 5})), c10::ValueError);
}

TEST(TopKMask, LowestIndexFirst) {
  const auto mask = topreach::topk_mask(torch::tensor({1.f, 2.f, 2.f, 2.f}), 2);
  EXPECT_TRUE(torch::equal(mask, torch::tensor({0.f, 1.f, 1.f, 0.f})));
}

}  // namespace
