// topreach::expected_topk and topk_probability as a C++ user calls them.
#include "../../csrc/ops/expected_topk.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <string>

#include "../../csrc/ops/topk_mask.h"

namespace {

using topreach::expected_topk;

constexpr double kBound = 3e-9;  // the error bound that the header states

TEST(ExpectedTopK, TwoSitesClosedForm) {
  // P(site 0 wins) = Phi(d), d = (r0 - r1) / (sigma sqrt 2); its slope in r0 is phi(d) / (sigma
  // sqrt 2).
  const double sigma = 0.5, d = 0.4 / (sigma * std::sqrt(2.0));
  auto scores = torch::tensor({0.3, -0.1}, torch::kDouble).requires_grad_();
  const auto b = expected_topk(scores, 1, {.sigma = sigma});
  b[0].backward();
  EXPECT_NEAR(b[0].item<double>(), 0.5 * std::erfc(-d / std::sqrt(2.0)), kBound);
  const double slope = std::exp(-0.5 * d * d) / std::sqrt(2 * M_PI) / (sigma * std::sqrt(2.0));
  EXPECT_NEAR(scores.grad()[0].item<double>(), slope, kBound / sigma);
  EXPECT_NEAR(scores.grad()[1].item<double>(), -slope, kBound / sigma);
}

TEST(ExpectedTopK, RowsSumToKAndGradientsToZero) {
  torch::manual_seed(0);
  for (const std::string method : {"exact", "mean_field"}) {
    auto scores = torch::randn({3, 400}, torch::kDouble).requires_grad_();
    const auto b = expected_topk(scores, 31, {.sigma = 0.2, .method = method});
    EXPECT_LT((b.sum(-1) - 31).abs().max().item<double>(), 31 * kBound);
    (b * torch::randn({3, 400}, torch::kDouble)).sum().backward();
    EXPECT_LT(scores.grad().sum(-1).abs().max().item<double>(), 400 * 4 * kBound / 0.2);
    EXPECT_GT(scores.grad().abs().max().item<double>(), 0.01);
  }
}

TEST(ExpectedTopK, EqualSitesShareTheBudget) {
  const auto b = expected_topk(torch::zeros({1, 1000}), 100, {.sigma = 3.0});
  EXPECT_TRUE(torch::allclose(b, torch::full({1, 1000}, 0.1f), 1e-6, 1e-7));
}

TEST(ExpectedTopK, CertainChoicesAreHard) {
  const double infinity = std::numeric_limits<double>::infinity();
  auto scores = torch::tensor({3.0, 1.0, 1.0, -infinity}, torch::kDouble).requires_grad_();
  for (const auto& [k, sigma] :
       {std::pair<int64_t, double>{2, 0.0}, {0, 1.0}, {4, 1.0}, {3, 1.0}}) {
    const auto b = expected_topk(scores, k, {.sigma = sigma});
    EXPECT_TRUE(torch::equal(b, topreach::topk_mask(scores, k)));
    const auto gradient = torch::autograd::grad({b.sum()}, {scores});
    EXPECT_TRUE(torch::equal(gradient[0], torch::zeros({4}, torch::kDouble)));
  }
}

TEST(ExpectedTopK, ProbabilityIsItsExactValue) {
  const auto scores = torch::randn({2, 50});
  EXPECT_TRUE(torch::equal(topreach::topk_probability(scores, 7, 0.3),
                           expected_topk(scores, 7, {.sigma = 0.3})));
}

TEST(ExpectedTopK, EachRowHasItsBudgetAndNoise) {
  // db/dsigma of two sites d = gap / (sigma sqrt 2) apart: -phi(d) d / sigma; the row of K = 0 is certain.
  const auto scores = torch::tensor({0.7, 0.0}, torch::kDouble).repeat({2, 1});
  const auto sigma = torch::tensor({0.5, 0.5}, torch::kDouble).requires_grad_();
  const auto b = expected_topk(scores, 0, {.row_k = torch::tensor({1, 0}), .row_sigma = sigma});
  const double d = 0.7 / (0.5 * std::sqrt(2.0));
  EXPECT_NEAR(b[0][0].item<double>(), 0.5 * std::erfc(-d / std::sqrt(2.0)), 3e-9);
  EXPECT_TRUE(torch::equal(b[1].detach(), torch::zeros({2}, torch::kDouble)));
  const auto gradient = torch::autograd::grad({b.select(1, 0).sum()}, {sigma})[0];
  const double density = std::exp(-0.5 * d * d) / std::sqrt(2 * M_PI);
  EXPECT_NEAR(gradient[0].item<double>(), -density * d / 0.5, 3e-8);
  EXPECT_EQ(gradient[1].item<double>(), 0);
}

TEST(ExpectedTopK, ErrorsNameArgumentAndValue) {
  const auto scores = torch::zeros({4});
  const auto message = [&](int64_t k, double sigma, const std::string& method) -> std::string {
    try {
      expected_topk(scores, k, {.sigma = sigma, .method = method});
    } catch (const c10::ValueError& error) {
      return error.what_without_backtrace();
    }
    return "nothing raised";
  };
  EXPECT_NE(message(5, 1.0, "exact").find("k must be between 0 and S = 4, got 5"),
            std::string::npos);
  EXPECT_NE(message(1, -1.0, "exact").find("sigma must be finite and not negative, got -1"),
            std::string::npos);
  EXPECT_NE(message(1, 1.0, "soft").find("method must be 'exact' or 'mean_field', got 'soft'"),
            std::string::npos);
  EXPECT_THROW(expected_topk(scores.to(torch::kLong), 1), c10::TypeError);
  EXPECT_THROW(expected_topk(torch::full({3}, NAN), 1, {.sigma = 1.0}), c10::ValueError);
}

}  // namespace
