// Mixtures with separate weights for each site (D25 Eq. 14, 17) against closed forms.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "../../csrc/topreach.h"

namespace {

using topreach::Poisson;
using topreach::SiteMixture;
using topreach::TruncatedNormal;
using torch::Tensor;

Tensor doubles(const std::vector<double>& values) { return torch::tensor(values, torch::kDouble); }

TEST(SiteMixture, OfOnePoissonHasTheClosedFormRanking) {
  // r_s = (n_s / N) (1 - P(sum = 0)) for independent Poisson counts of rates n. All sites share the
  // components, so different rates are two components with weights 1 and 0.
  const Tensor rate = doubles({0.5, 3.0});
  const Tensor logits = torch::eye(2, torch::kDouble).log();
  const SiteMixture<Poisson> y{logits, {rate}};
  const Tensor expected = rate / 3.5 * -std::expm1(-3.5);
  EXPECT_TRUE(torch::allclose(topreach::expected_ratio_ranking(y), expected, 1e-10, 0));
  EXPECT_TRUE(torch::allclose(y.mean(), rate) && torch::allclose(y.variance(), rate));
}

TEST(SiteMixture, DensitiesByTheirFormulas) {
  const Tensor logits = doubles({0.3, 0.7}).log().unsqueeze(0), y = doubles({2.5}).unsqueeze(0);
  const SiteMixture<TruncatedNormal> normals{logits, {doubles({1.0, 4.0}), doubles({2.0, 0.5})}};
  const auto density = [](double x, double loc, double scale) {
    const double z = (x - loc) / scale;
    return std::exp(-z * z / 2) / std::sqrt(2 * M_PI) / scale /
           (0.5 * std::erfc(-loc / scale / M_SQRT2));
  };
  const double expected = 0.3 * density(2.5, 1, 2) + 0.7 * density(2.5, 4, 0.5);
  EXPECT_NEAR(normals.site_log_prob(y).item<double>(), std::log(expected), 1e-13);
  EXPECT_EQ(normals.site_log_prob(-y).item<double>(), -INFINITY);

  const SiteMixture<Poisson> poissons{logits, {doubles({1.0, 4.0})}};
  const double mass = 0.3 * std::exp(-1.0) / 2 + 0.7 * std::exp(-4.0) * 16 / 2;
  EXPECT_NEAR(poissons.site_log_prob(doubles({2.0}).unsqueeze(0)).item<double>(), std::log(mass),
              1e-13);
}

TEST(SiteMixture, DrawsHaveItsMomentsAndFollowTheKey) {
  const Tensor logits = torch::tensor({{0.0, 1.0}, {2.0, -1.0}}, torch::kDouble);
  const auto key = torch::tensor({int64_t{5}, int64_t{6}});
  const auto check = [&](const auto& mixture) {
    const int64_t draws = 40000;
    const Tensor y = mixture.sample(draws, {.key = key});
    const Tensor error = (mixture.variance() / double(draws)).sqrt();
    EXPECT_TRUE((y.mean(0) - mixture.mean()).abs().lt(5 * error).all().template item<bool>());
    EXPECT_TRUE(torch::equal(y, mixture.sample(draws, {.key = key})));
    EXPECT_TRUE(torch::isfinite(mixture.site_log_prob(y)).all().template item<bool>());
  };
  check(SiteMixture<TruncatedNormal>{logits, {doubles({0.5, 9.0}), doubles({1.0, 2.0})}});
  check(SiteMixture<Poisson>{logits, {doubles({0.5, 9.0})}});
}

TEST(Mixtures, ModelsHaveTheParametersOfPython) {
  topreach::NormalMixture normal(5, 3, topreach::MixtureOptions{.high = 20, .batch = {4}});
  topreach::PoissonMixture poisson(5, 3, topreach::MixtureOptions{.high = 20, .batch = {4}});
  EXPECT_EQ(normal->named_parameters().keys(),
            (std::vector<std::string>{"raw_mean", "raw_scale", "logits"}));
  EXPECT_EQ(poisson->named_parameters().keys(), (std::vector<std::string>{"log_rate", "logits"}));
  const Tensor time = torch::zeros({2});
  EXPECT_EQ(normal->forward(time).mean().sizes(), (std::vector<int64_t>{4, 2, 5}));
  EXPECT_EQ(poisson->forward(time).sample(7).sizes(), (std::vector<int64_t>{7, 4, 2, 5}));
  EXPECT_TRUE(normal->forward(time).components.scale.gt(0.2).all().item<bool>());
  const Tensor r = topreach::expected_ratio_ranking(normal->forward(time));
  EXPECT_TRUE(torch::allclose(r.sum(-1), torch::ones({4, 2}), 1e-6));
  r.square().sum().backward();
  for (const auto& item : normal->named_parameters())
    EXPECT_TRUE(item.value().grad().isfinite().all().item<bool>()) << item.key();
}

TEST(Mixtures, MaximumLikelihoodSeparatesTheSites) {
  torch::manual_seed(1);
  const Tensor y = torch::poisson(torch::tensor({1.f, 1.f, 9.f}).expand({200, 3}));
  topreach::PoissonMixture model(3, 2, topreach::MixtureOptions{.high = 10});
  torch::optim::Adam adam(model->parameters(), torch::optim::AdamOptions(0.1));
  for (int step = 0; step < 200; ++step) {
    adam.zero_grad();
    (-model->forward(torch::zeros({1})).site_log_prob(y).sum()).backward();
    adam.step();
  }
  // Within five standard errors of the counts' own means.
  const Tensor mean = model->forward(torch::zeros({1})).mean()[0];
  EXPECT_TRUE((mean - y.mean(0)).abs().lt(5 * (mean / 200).sqrt()).all().item<bool>());
}

// The synthetic study's objectives (D25 Sec. 5.1) on several starts at once, with one row for all
// periods: loss and gradient equal the sums over the starts, each computed alone, period by period.
TEST(Mixtures, ObjectivesTakeSeveralStartsAtOnce) {
  torch::manual_seed(2);
  const topreach::MixtureOptions options{.high = 20, .batch = {3}};
  const Tensor y =
      torch::poisson(torch::tensor({1.f, 4.f, 9.f, 9.f, 2.f}).expand({6, 5})).to(torch::kDouble);
  const topreach::DirectBPROptions reach{.program = 2, .sigma = 0.05};
  const auto daml = [&](const topreach::CountDistribution& counts, const Tensor& y) {
    return topreach::decision_aware(counts, y, {.epsilon = 0.9, .reach = reach}).loss;
  };
  const auto check = [&](auto batched, auto single) {
    batched->to(torch::kDouble);
    single->to(torch::kDouble);
    const Tensor together = daml(batched->forward(torch::zeros({1})), y.expand({3, 6, 5}));
    together.backward();
    double sum = 0;
    for (int64_t b = 0; b < 3; ++b) {
      {
        torch::NoGradGuard no_grad;
        for (auto& item : single->named_parameters())
          item.value().copy_(batched->named_parameters()[item.key()][b]);
      }
      single->zero_grad();
      const Tensor loss = daml(single->forward(torch::zeros({6})), y);
      loss.backward();
      sum += loss.template item<double>();
      for (const auto& item : single->named_parameters())
        EXPECT_TRUE(torch::allclose(batched->named_parameters()[item.key()].grad()[b],
                                    item.value().grad(), 1e-7, 1e-9))
            << item.key();
    }
    EXPECT_NEAR(together.template item<double>(), sum, 1e-7 * std::abs(sum));
  };
  check(topreach::NormalMixture(5, 2, options), topreach::NormalMixture(5, 2));
  check(topreach::PoissonMixture(5, 2, options), topreach::PoissonMixture(5, 2));
  topreach::PoissonMixture model(5, 2, options);
  const auto counts = model->forward(torch::zeros({2}));
  EXPECT_THROW(topreach::direct_bpr(counts, y.to(torch::kFloat).expand({3, 6, 5}), reach),
               c10::ValueError);
}

// Training by likelihood, by reach alone and by DAML: all rank the two sites with most events first.
TEST(Mixtures, TheSyntheticStudysObjectivesTrain) {
  torch::manual_seed(3);
  const Tensor rate = torch::tensor({1.f, 1.f, 6.f, 1.f, 9.f});
  const Tensor y = torch::poisson(rate.expand({100, 5}));
  const auto trained = [&](const auto& objective) {
    torch::manual_seed(4);
    topreach::PoissonMixture model(5, 3, topreach::MixtureOptions{.high = 12});
    torch::optim::Adam adam(model->parameters(), torch::optim::AdamOptions(0.1));
    for (int step = 0; step < 150; ++step) {
      adam.zero_grad();
      objective(model->forward(torch::zeros({1}))).loss.backward();
      adam.step();
    }
    torch::NoGradGuard no_grad;
    return topreach::expected_ratio_ranking(model->forward(torch::zeros({1})))[0];
  };
  const topreach::DirectBPROptions reach{.program = 2, .sigma = 0.05};
  for (const Tensor& r :
       {trained([&](const auto& counts) { return topreach::nll(counts, y); }),
        trained([&](const auto& counts) { return topreach::direct_bpr(counts, y, reach); }),
        trained([&](const auto& counts) {
          return topreach::decision_aware(counts, y, {.reach = reach});
        })}) {
    const Tensor best = std::get<0>(std::get<1>(r.topk(2)).sort());
    EXPECT_TRUE(torch::equal(best, torch::tensor({int64_t{2}, int64_t{4}}))) << r;
  }
}

TEST(Mixtures, ClearErrors) {
  EXPECT_THROW(topreach::NormalMixture(0, 2), c10::ValueError);
  EXPECT_THROW(topreach::PoissonMixture(3, 0), c10::ValueError);
  EXPECT_THROW(topreach::NormalMixture(3, 2, topreach::MixtureOptions{.low = 3, .high = 3}),
               c10::ValueError);
  const Tensor logits = torch::zeros({3, 2});
  EXPECT_THROW((SiteMixture<Poisson>{logits, {torch::zeros({3})}}.mean()), c10::ValueError);
  EXPECT_THROW((SiteMixture<Poisson>{logits, {torch::zeros({2})}}.sample(4)), c10::ValueError);
  EXPECT_THROW(topreach::site_mixture_log_prob("cauchy", logits, logits, logits), c10::ValueError);
}

}  // namespace
