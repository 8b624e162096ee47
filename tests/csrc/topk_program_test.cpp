// SPO+ (Elmachtoub & Grigas 2022, Definition 3) and PG (Huang & Gupta 2024) by enumeration.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "../../csrc/topreach.h"

namespace {

using torch::Tensor;

constexpr int64_t kSites = 6, kChosen = 2;

// (max_w v.w, w) over all choices of 2 of 6 sites.
std::pair<double, Tensor> best(const Tensor& v) {
  double value = -INFINITY;
  Tensor choice;
  for (int64_t i = 0; i < kSites; ++i)
    for (int64_t j = i + 1; j < kSites; ++j) {
      const double reach = (v[i] + v[j]).item<double>();
      if (reach <= value) continue;
      value = reach;
      choice = torch::zeros({kSites}, torch::kDouble);
      choice[i] = choice[j] = 1;
    }
  return {value, choice};
}

struct Fixture {
  Tensor r, y;
  explicit Fixture(int seed) {
    torch::manual_seed(seed);
    r = torch::randn({3, kSites}, torch::kDouble).requires_grad_();
    y = torch::rand({3, kSites}, torch::kDouble) * 3;
    y[2].zero_();
  }
};

TEST(SPOPlus, IsItsDefinition) {
  for (int seed = 0; seed < 10; ++seed) {
    Fixture f(seed);
    double expected = 0;
    Tensor gradient = torch::zeros_like(f.y);
    for (int64_t t = 0; t < 2; ++t) {
      const Tensor w = best(f.y[t]).second;
      const auto [gap, w_gap] = best(2 * f.r[t] - f.y[t]);
      expected += gap + ((f.y[t] - 2 * f.r[t]) * w).sum().item<double>();
      gradient[t] = 2 * (w_gap - w);
    }
    const auto value = topreach::spo_plus(f.r, f.y, {.program = kChosen});
    EXPECT_NEAR(value.loss.item<double>(), expected, 1e-13);
    value.loss.backward();
    EXPECT_TRUE(torch::equal(f.r.grad(), gradient));
    EXPECT_NEAR(value.terms.at("bpr").item<double>(),
                topreach::bpr(f.r, f.y, kChosen).slice(0, 0, 2).mean().item<double>(), 1e-14);
  }
}

TEST(PerturbationGradient, IsItsDefinition) {
  for (const bool two_sides : {false, true}) {
    Fixture f(1);
    const double h = 0.4, width = two_sides ? 2 * h : h;
    double expected = 0;
    Tensor gradient = torch::zeros_like(f.y);
    for (int64_t t = 0; t < 2; ++t) {
      const auto [up, w_up] = best(two_sides ? f.r[t] + h * f.y[t] : f.r[t]);
      const auto [down, w_down] = best(f.r[t] - h * f.y[t]);
      expected -= (up - down) / width;
      gradient[t] = (w_down - w_up) / width;
    }
    const auto value = topreach::perturbation_gradient(
        f.r, f.y, {.program = kChosen, .sigma = h, .two_sides = two_sides});
    EXPECT_NEAR(value.loss.item<double>(), expected, 1e-13);
    value.loss.backward();
    EXPECT_TRUE(torch::allclose(f.r.grad(), gradient, 1e-14, 1e-14));
  }
}

TEST(TopKProgram, SharesWeightsAndErrors) {
  Fixture f(2);
  const Tensor share = f.y / f.y.sum(-1, true).clamp_min(1e-300);
  const auto weights = torch::tensor({0.5, 2.0, 1.0}, torch::kDouble);
  EXPECT_NEAR(topreach::spo_plus(f.r, f.y, {kChosen, "share", weights}).loss.item<double>(),
              0.5 * topreach::spo_plus(f.r[0], share[0], {kChosen}).loss.item<double>() +
                  2 * topreach::spo_plus(f.r[1], share[1], {kChosen}).loss.item<double>(),
              1e-14);
  EXPECT_THROW(topreach::spo_plus(f.r[0], f.y, {kChosen}), c10::ValueError);
  EXPECT_THROW(topreach::spo_plus(f.r, f.y, {0}), c10::ValueError);
  EXPECT_THROW(topreach::spo_plus(f.r, f.y, {kSites + 1}), c10::ValueError);
  EXPECT_THROW(topreach::spo_plus(f.r, f.y, {kChosen, "rate"}), c10::ValueError);
  EXPECT_THROW(topreach::perturbation_gradient(f.r, f.y, {kChosen, 0.0}), c10::ValueError);
}

}  // namespace
