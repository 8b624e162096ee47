// Objectives (D25 Eq. 8, 9, 13) and BPR (L23 Eq. 5).
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "../../csrc/topreach.h"

namespace {

using torch::Tensor;

Tensor key() { return torch::tensor({int64_t{12}, int64_t{34}}); }

TEST(Bpr, ExpectationUnderTies) {
  const auto scores = torch::tensor({3.0, 1.0, 1.0, 1.0}, torch::kDouble),
             y = torch::tensor({2.0, 6.0, 0.0, 3.0}, torch::kDouble);
  // Site 0 always, two of the other three: 2 + 2/3 * 9 = 8, of at best 11.
  EXPECT_NEAR(topreach::bpr(scores, y, 3).item<double>(), 8.0 / 11.0, 1e-12);
  EXPECT_TRUE(std::isnan(topreach::bpr(scores, torch::zeros({4}), 2).item<double>()));
  EXPECT_THROW(topreach::bpr(scores, y, 0), c10::ValueError);
  EXPECT_THROW(topreach::bpr(scores, y, 5), c10::ValueError);
}

TEST(SoftBpr, NoGradientThroughPeriodsWithoutEvents) {
  auto b = torch::rand({2, 3}).requires_grad_();
  const auto y = torch::tensor({{0.f, 0.f, 0.f}, {1.f, 2.f, 0.f}});
  const auto value = topreach::soft_bpr(b, y, 2);
  EXPECT_TRUE(std::isnan(value[0].item<float>()));
  torch::where(y.sum(-1) > 0, value, torch::zeros_like(value)).sum().backward();
  EXPECT_TRUE(torch::equal(b.grad()[0], torch::zeros({3})));
  EXPECT_TRUE(torch::allclose(b.grad()[1], torch::tensor({1.f, 2.f, 0.f}) / 3));
}

struct Fixture {
  topreach::NegBinMixedEffects model{20, 2};
  Tensor x = torch::randn({3, 20, 2}), time = torch::tensor({-1.f, 0.f, 1.f});
  Tensor y = torch::poisson(torch::rand({3, 20}) * 3);
  Fixture() {
    torch::NoGradGuard no_grad;
    for (auto& p : model->parameters()) p.add_(torch::randn_like(p) * 0.2);
  }
};

TEST(Objectives, NllIsTheWeightedSum) {
  Fixture f;
  const auto counts = f.model->forward(f.x, f.time);
  const auto weights = torch::tensor({1.f, 0.5f, 2.f});
  const auto value = topreach::nll(counts, f.y, weights, f.model->penalty(f.x, f.time));
  const auto expected = -(counts.site_log_prob(f.y) * weights.unsqueeze(-1)).sum();
  EXPECT_NEAR(value.terms.at("nll").item<double>(), expected.item<double>(), 1e-3);
  EXPECT_NEAR(value.loss.item<double>(),
              (value.terms.at("nll") + value.terms.at("penalty")).item<double>(), 1e-3);
}

TEST(Objectives, DirectBprOfAScorer) {
  torch::manual_seed(0);
  auto scores = torch::randn({2, 30}).requires_grad_();
  auto y = torch::poisson(torch::rand({2, 30}) * 2);
  y[1].zero_();
  for (const std::string topk : {"exact", "mean_field", "sampled"}) {
    scores.mutable_grad() = Tensor();
    const auto value = topreach::direct_bpr(
        scores, y, {.program = 5, .sigma = 0.1, .num_samples = 50, .topk = topk, .key = key()});
    EXPECT_LE(value.loss.item<double>(), 0.0);
    EXPECT_GE(value.loss.item<double>(), -1.0);
    EXPECT_NEAR(value.terms.at("bpr").item<double>(), -value.loss.item<double>(), 1e-6);
    value.loss.backward();
    EXPECT_GT(scores.grad()[0].abs().sum().item<double>(), 0.0);
    EXPECT_TRUE(torch::equal(scores.grad()[1], torch::zeros({30})));
  }
}

TEST(Objectives, NothingIsSampledByDefault) {
  Fixture f;
  auto generator = at::detail::createCPUGenerator(5);
  const auto state = generator.get_state();
  const topreach::DecisionAwareOptions options{
      .reach = {.program = 4, .sigma = 0.01, .generator = generator}};
  std::vector<Tensor> losses, gradients;
  for (int i = 0; i < 2; ++i) {
    const auto counts = f.model->forward(f.x, f.time);
    const auto value = topreach::decision_aware(counts, f.y, options);
    f.model->zero_grad();
    value.loss.backward();
    losses.push_back(value.loss);
    gradients.push_back(f.model->site_intercept.grad().clone());
  }
  EXPECT_TRUE(torch::equal(losses[0], losses[1]));
  EXPECT_TRUE(torch::equal(gradients[0], gradients[1]));
  EXPECT_TRUE(torch::equal(generator.get_state(), state));
  // E[y_s / sum y] = (n_s / N)(1 - P(sum y = 0)) of counts with one p, put in as scores.
  torch::NoGradGuard no_grad;
  const auto counts = f.model->forward(f.x, f.time);
  const auto n = counts.total_count.to(torch::kDouble);
  const auto q = counts.logits.to(torch::kDouble).sigmoid();
  const auto total = n.sum(-1, true);
  const auto r = n / total * (1 - (1 - q).pow(total));
  EXPECT_NEAR(topreach::direct_bpr(counts, f.y, options.reach).loss.item<double>(),
              topreach::direct_bpr(r, f.y, options.reach).loss.item<double>(), 1e-4);
}

TEST(Objectives, NamesAreChecked) {
  Fixture f;
  const auto counts = f.model->forward(f.x, f.time);
  const auto refusal = [&](const topreach::DirectBPROptions& options) -> std::string {
    try {
      topreach::direct_bpr(counts, f.y, options);
    } catch (const c10::ValueError& error) {
      return error.what_without_backtrace();
    }
    return "";
  };
  EXPECT_NE(refusal({.program = 4, .ranking = "median"})
                .find("ranking must be 'auto', 'exact', 'ratio' or 'mean'"),
            std::string::npos);
  EXPECT_NE(refusal({.program = 4, .topk = "hard"})
                .find("topk must be 'exact', 'mean_field' or 'sampled'"),
            std::string::npos);
  EXPECT_NE(
      refusal({.program = 4, .noise = "gumbel"}).find("noise must be 'normal' for topk 'exact'"),
      std::string::npos);
  EXPECT_EQ(refusal({.program = 4, .topk = "sampled", .noise = "gumbel"}), "");
}

TEST(Objectives, DecisionAwareIsNllPlusHinge) {
  Fixture f;
  const auto counts = f.model->forward(f.x, f.time);
  topreach::DecisionAwareOptions options{
      .epsilon = 0.9,
      .weight = 30,
      .reach = {.program = 4, .sigma = 0.01, .ranking = "ratio", .topk = "sampled", .key = key()}};
  const auto value = topreach::decision_aware(counts, f.y, options, f.model->penalty(f.x, f.time));
  const auto reach = topreach::soft_reach(counts, f.y, options.reach);
  const auto hinge = 30 * (0.9 - reach.bpr).clamp_min(0).sum();
  EXPECT_NEAR(value.terms.at("hinge").item<double>(), hinge.item<double>(), 1e-4);
  EXPECT_NEAR(
      value.loss.item<double>(),
      (value.terms.at("nll") + value.terms.at("penalty") + value.terms.at("hinge")).item<double>(),
      1e-3);
  value.loss.backward();
  for (const auto& item : f.model->named_parameters())
    EXPECT_TRUE(item.value().grad().isfinite().all().item<bool>()) << item.key();
  // The same key gives the same numbers; with epsilon below the reach the hinge is 0.
  const auto again = topreach::decision_aware(counts, f.y, options);
  EXPECT_TRUE(torch::equal(again.terms.at("hinge"), value.terms.at("hinge")));
  options.epsilon = 1e-6;
  EXPECT_EQ(topreach::decision_aware(counts, f.y, options).terms.at("hinge").item<double>(), 0.0);
}

// A user-written forecast with only the required members.
struct Coins {
  Tensor probs;
  Tensor mean() const { return probs; }
  Tensor variance() const { return probs * (1 - probs); }
  Tensor sample(int64_t num_samples, const topreach::SampleOptions& options) const {
    return topreach::Bernoulli{probs}.sample(num_samples, options);
  }
  Tensor site_log_prob(const Tensor& y) const {
    return torch::where(y == 1, probs, torch::where(y == 0, 1 - probs, 0.0)).log();
  }
};

TEST(Forecast, OneOfOnesOwnTakesPart) {
  const auto probs = torch::tensor({{0.2, 0.5, 0.7}, {0.9, 0.1, 0.4}}, torch::kDouble);
  const topreach::CountDistribution coins = Coins{probs};
  EXPECT_TRUE(torch::equal(coins.cdf(torch::zeros({2, 3}, torch::kDouble)), 1 - probs));
  EXPECT_TRUE(torch::equal(coins.quantile(0.45), probs.gt(0.55).to(torch::kDouble)));
  EXPECT_FALSE(coins.expected_ratio().has_value());
  EXPECT_NE(coins.get_if<Coins>(), nullptr);
  EXPECT_EQ(coins.get_if<topreach::Poisson>(), nullptr);
  const auto y = torch::tensor({{1.0, 0.0, 1.0}, {1.0, 1.0, double(NAN)}}, torch::kDouble);
  const double want = -std::log(0.2 * 0.5 * 0.7 * 0.9 * 0.1);
  EXPECT_NEAR(topreach::nll(coins, y).loss.item<double>(), want, 1e-14);
  const auto mean =
      topreach::direct_bpr(coins, y.nan_to_num(), {.program = 2, .sigma = 0.1, .ranking = "mean"});
  const auto scores = topreach::direct_bpr(probs, y.nan_to_num(), {.program = 2, .sigma = 0.1});
  EXPECT_TRUE(torch::equal(mean.loss, scores.loss));
  EXPECT_THROW(topreach::expected_ratio_ranking(coins), c10::TypeError);
}

TEST(Objectives, ClosedSitesTakeNoPart) {
  const auto scores = torch::tensor({{3.0, 9.0, 1.0, 2.0}}, torch::kDouble);
  const auto y = torch::tensor({{1.0, double(NAN), 4.0, 0.0}}, torch::kDouble);
  const auto open = y.isnan().logical_not();
  const auto index = torch::tensor({0, 2, 3});
  const auto less = scores.index_select(1, index), fewer = y.index_select(1, index);
  const auto refused = [&](auto&& call) { EXPECT_THROW(call(), c10::ValueError); };
  refused([&] { topreach::direct_bpr(scores, y, {.program = 2}); });
  refused([&] { topreach::spo_plus(scores, y, {.program = 2}); });
  refused([&] { topreach::perturbation_gradient(scores, y, {.program = 2}); });
  EXPECT_NEAR(topreach::direct_bpr(scores, y, {.program = 2, .sigma = 1.0, .open = open})
                  .loss.item<double>(),
              topreach::direct_bpr(less, fewer, {.program = 2, .sigma = 1.0}).loss.item<double>(),
              1e-8);
  EXPECT_DOUBLE_EQ(topreach::spo_plus(scores, y, {.program = 2, .open = open}).loss.item<double>(),
                   topreach::spo_plus(less, fewer, {.program = 2}).loss.item<double>());
  EXPECT_DOUBLE_EQ(
      topreach::perturbation_gradient(scores, y, {.program = 2, .open = open}).loss.item<double>(),
      topreach::perturbation_gradient(less, fewer, {.program = 2}).loss.item<double>());
}

TEST(Objectives, WrongShapesAreNamed) {
  Fixture f;
  const auto counts = f.model->forward(f.x, f.time);
  EXPECT_THROW(topreach::nll(counts, f.y, {}, torch::zeros({2})), c10::ValueError);
  EXPECT_THROW(topreach::nll(counts, f.y, torch::ones({2})), c10::ValueError);
  EXPECT_THROW(topreach::nll(counts, Tensor()), c10::ValueError);
  const auto refused = [&](auto&& call) { EXPECT_THROW(call(), c10::ValueError); };
  for (const float wrong : {NAN, INFINITY, -1.f}) {
    const Tensor weights = torch::tensor({1.f, wrong, 1.f});
    refused([&] { topreach::nll(counts, f.y, weights); });
    refused([&] {
      topreach::direct_bpr(torch::rand({3, 20}), f.y, {.program = 2, .weights = weights});
    });
  }
  refused([&] { topreach::nll(counts, f.y + 0.5); });
  refused([&] { topreach::nll(counts, f.y, {}, {}, f.y + 0.5); });
  refused([&] { topreach::derived_key(torch::zeros({3}, torch::kLong), 1); });
  refused([&] { topreach::derived_key(torch::zeros({2}), 1); });
  EXPECT_THROW(topreach::direct_bpr(Tensor(), f.y, {.program = 2}), c10::ValueError);
  EXPECT_THROW(topreach::direct_bpr(torch::rand({3, 20}), f.y, {.program = 21}), c10::ValueError);
  EXPECT_THROW(topreach::direct_bpr(torch::rand({2, 20}), f.y, {.program = 2}), c10::ValueError);
}

TEST(Objectives, SigmaInUnitsOfTheSpread) {
  // The same loss for scores in any unit.
  const auto scores = torch::randn({2, 30}, torch::kDouble);
  const auto y = torch::poisson(torch::rand({2, 30}, torch::kDouble) * 2);
  const auto loss = [&](double unit) {
    return topreach::direct_bpr(unit * scores, y,
                                {.program = 5, .sigma = 0.1, .sigma_unit = "spread"})
        .loss.item<double>();
  };
  EXPECT_NEAR(loss(1.0), loss(4096.0), 1e-12);
}

TEST(Objectives, TrainingRaisesTheReach) {
  torch::manual_seed(1);
  const auto history = torch::rand({4, 60, 3});
  const auto y = (history.select(-1, 1) * 10).floor();
  topreach::LinearScorer scorer(3);
  torch::optim::Adam adam(scorer->parameters(), torch::optim::AdamOptions(0.05));
  const auto reach = [&] {
    torch::NoGradGuard no_grad;
    return topreach::bpr(scorer->forward(history), y, 10).mean().item<double>();
  };
  for (int step = 0; step < 150; ++step) {
    adam.zero_grad();
    topreach::direct_bpr(scorer->forward(history), y, {.program = 10, .sigma = 0.1})
        .loss.backward();
    adam.step();
  }
  EXPECT_GT(reach(), 0.95);
}

TEST(Scorers, ShapesAndNames) {
  topreach::MLPScorer mlp(5, 2);
  EXPECT_EQ(mlp->forward(torch::rand({4, 9, 5}), torch::rand({4, 9, 2})).sizes(),
            (std::vector<int64_t>{4, 9}));
  EXPECT_EQ(mlp->named_parameters().keys(),
            (std::vector<std::string>{"layers.0.weight", "layers.0.bias", "layers.1.weight",
                                      "layers.1.bias", "layers.2.weight", "layers.2.bias"}));
  EXPECT_THROW(mlp->forward(torch::rand({4, 9, 4}), torch::rand({4, 9, 2})), c10::ValueError);
  EXPECT_THROW(mlp->forward(torch::rand({4, 9, 5})), c10::ValueError);
  topreach::LinearScorer linear(5);
  EXPECT_EQ(linear->named_parameters().keys(),
            (std::vector<std::string>{"linear.weight", "linear.bias"}));
}

}  // namespace
