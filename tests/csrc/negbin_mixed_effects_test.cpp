// The mixed-effects model and its penalties (D25 Eq. 15, 18-20).
#include "../../csrc/models/negbin_mixed_effects.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "../../csrc/ops/key.h"

namespace {

using topreach::NegBinMixedEffects;
using topreach::NegBinMixedEffectsOptions;
using torch::Tensor;

// -log N(b; 0, Sigma) summed over sites, by torch's linear algebra.
Tensor joint_prior(const Tensor& b, const Tensor& covariance) {
  const Tensor quadratic = (b.matmul(covariance.inverse()) * b).sum();
  const double log_two_pi = std::log(2 * M_PI);
  return 0.5 * quadratic + double(b.size(0)) * (0.5 * covariance.logdet() + log_two_pi);
}

double inverse_softplus(double y) { return std::log(std::expm1(y)); }

TEST(NegBinMixedEffects, PredictsTheInitialMean) {
  for (const char* link : {"log", "softplus"}) {
    NegBinMixedEffects model(7, 3, NegBinMixedEffectsOptions{link, "laplace", 1.7});
    const auto counts = model->forward(torch::randn({2, 7, 3}), torch::tensor({-1.f, 1.f}));
    EXPECT_TRUE(torch::allclose(counts.mean(), torch::full({2, 7}, 1.7f)));
  }
}

TEST(NegBinMixedEffects, TotalCountIsTheEquation) {
  const auto f64 = torch::kDouble;
  const auto x = torch::randn({4, 5, 2}, f64), t = torch::randn({4}, f64),
             b0 = torch::randn({5}, f64), b1 = torch::randn({5}, f64), w = torch::randn({2}, f64),
             intercept = torch::randn({}, f64);
  const auto log_mu =
      topreach::negbin_mixed_effects_total_count(x, t, intercept, w, b0, b1, "log").log();
  for (int i = 0; i < 4; ++i)
    for (int s = 0; s < 5; ++s) {
      const auto eta = intercept + x[i][s].dot(w) + b0[s] + b1[s] * t[i];
      EXPECT_NEAR(log_mu[i][s].item<double>(), eta.item<double>(), 1e-12);
    }
}

// H is the information about the two effects in the counts' mean and variance.
TEST(NegBinMixedEffects, InformationByAutograd) {
  const auto f64 = torch::kDouble;
  const int64_t periods = 6, sites = 3;
  for (const std::string link : {"log", "softplus"}) {
    const auto x = torch::randn({periods, sites, 2}, f64), t = torch::randn({periods}, f64),
               w = torch::randn({2}, f64) * 0.3, weights = torch::rand({periods}, f64);
    const auto z = torch::tensor(0.4, f64);
    auto b = torch::randn({2, sites}, f64).requires_grad_();
    const auto mu = topreach::negbin_mixed_effects_total_count(x, t, torch::tensor(0.2, f64), w,
                                                               b[0], b[1], link);
    const auto mean = mu * z.exp(), variance = mean * (1 + z.exp());
    const auto h = topreach::negbin_mixed_effects_information(mu, t, mean, variance, weights, link);
    ASSERT_EQ(h.sizes(), (std::vector<int64_t>{sites, 3}));
    EXPECT_FALSE(h.requires_grad());
    auto expected = torch::zeros({sites, 2, 2}, f64);
    for (int64_t i = 0; i < periods; ++i)
      for (int64_t s = 0; s < sites; ++s) {
        const auto d = torch::autograd::grad({mean[i][s]}, {b}, {}, true)[0].select(1, s);
        expected[s] += weights[i] * d.outer(d) / variance[i][s].detach();
      }
    const auto matrix =
        torch::stack({h.select(1, 0), h.select(1, 1), h.select(1, 1), h.select(1, 2)}, 1)
            .view({sites, 2, 2});
    EXPECT_TRUE(torch::allclose(matrix, expected, 1e-9));
  }
}

TEST(NegBinMixedEffects, PenaltiesAgreeWithLinearAlgebra) {
  const auto f64 = torch::kDouble;
  const auto b = torch::randn({8, 2}, f64), raw_sigma = torch::randn({2}, f64),
             raw_rho = torch::randn({}, f64);
  const auto sigma = torch::softplus(raw_sigma), rho = torch::tanh(raw_rho);
  const auto cross = rho * sigma[0] * sigma[1];
  const auto covariance =
      torch::stack({sigma[0] * sigma[0], cross, cross, sigma[1] * sigma[1]}).view({2, 2});
  const auto factor = torch::randn({8, 2, 2}, f64);
  const auto h = factor.matmul(factor.transpose(1, 2));
  const auto information = torch::stack(
      {h.select(1, 0).select(1, 0), h.select(1, 0).select(1, 1), h.select(1, 1).select(1, 1)}, 1);
  const auto quadratic = 0.5 * (b.matmul(covariance.inverse()) * b).sum(-1);
  const auto determinant = 0.5 * torch::logdet(torch::eye(2, f64) + covariance.matmul(h));
  const auto laplace = topreach::negbin_mixed_effects_penalty(
      b.select(1, 0), b.select(1, 1), raw_sigma, raw_rho, information, "laplace");
  const auto paper = topreach::negbin_mixed_effects_penalty(
      b.select(1, 0), b.select(1, 1), raw_sigma, raw_rho, std::nullopt, "paper");
  EXPECT_NEAR(laplace.item<double>(), (quadratic + determinant).sum().item<double>(), 1e-9);
  EXPECT_NEAR(paper.item<double>(), quadratic.mean().item<double>(), 1e-9);
  const auto map = topreach::negbin_mixed_effects_penalty(b.select(1, 0), b.select(1, 1), raw_sigma,
                                                          raw_rho, std::nullopt, "map");
  double prior = 0;  // inverse-gamma(1, 0.1): density 0.1 v^-2 exp(-0.1 / v)
  for (int i : {0, 1}) {
    const double v = covariance[i][i].item<double>();
    prior -= std::log(0.1) - 2 * std::log(v) - 0.1 / v;
  }
  EXPECT_NEAR(map.item<double>(), joint_prior(b, covariance).item<double>() + prior, 1e-9);
  EXPECT_THROW(topreach::negbin_mixed_effects_penalty(b.select(1, 0), b.select(1, 1), raw_sigma,
                                                      raw_rho, std::nullopt, "laplace"),
               c10::ValueError);
}

// Along b = 0, sigma -> 0 the joint density of (b, Sigma) is unbounded, with and without a half-normal
// prior on sigma (whose density is finite at 0); the library's penalty never falls below 0.
TEST(NegBinMixedEffects, JointDensityIsUnboundedTheShippedPenaltyIsNot) {
  const auto f64 = torch::kDouble;
  const auto b = torch::zeros({100, 2}, f64), information = torch::ones({100, 3}, f64) * 4;
  double joint_before = 0;
  for (double sigma = 1e-1; sigma > 1e-9; sigma /= 10) {
    const auto covariance = torch::eye(2, f64) * sigma * sigma;
    const double half_normal = sigma * sigma;  // -log density of both, without a constant
    const double joint = joint_prior(b, covariance).item<double>() + half_normal;
    // Each factor of 10 lowers it by 2 log 10 for each site.
    if (sigma < 1e-1) {
      EXPECT_NEAR(joint_before - joint, 100 * 2 * std::log(10.0), 1);
    }
    joint_before = joint;
    const auto laplace = topreach::negbin_mixed_effects_penalty(
        b.select(1, 0), b.select(1, 1), torch::full({2}, inverse_softplus(sigma), f64),
        torch::zeros({}, f64), information, "laplace");
    EXPECT_GE(laplace.item<double>(), 0.0);
    EXPECT_LT(laplace.item<double>(), 100 * 8 * sigma * sigma + 1e-12);
    // Effects other than 0 keep sigma away from 0.
    const auto apart = topreach::negbin_mixed_effects_penalty(
        b.select(1, 0) + 0.1, b.select(1, 1), torch::full({2}, inverse_softplus(sigma), f64),
        torch::zeros({}, f64), information, "laplace");
    EXPECT_GT(apart.item<double>(), 100 * 0.5 * 0.01 / (sigma * sigma) * 0.999);
  }
  EXPECT_LT(joint_before, -3000);
}

TEST(NegBinMixedEffects, LossHasGradientsForEveryParameter) {
  NegBinMixedEffects model(6, 2);
  const auto x = torch::randn({3, 6, 2}), t = torch::tensor({-1.f, 0.f, 1.f});
  {
    torch::NoGradGuard no_grad;
    model->site_intercept.normal_();
    model->site_slope.normal_();
    model->raw_rho.fill_(0.3);
  }
  const auto counts = model->forward(x, t);
  const auto y = counts.sample(1, {.key = torch::tensor({int64_t{1}, int64_t{2}})})[0];
  EXPECT_FALSE(y.requires_grad());
  (-counts.site_log_prob(y).sum() + model->penalty(x, t)).backward();
  for (const auto& item : model->named_parameters()) {
    ASSERT_TRUE(item.value().grad().defined()) << item.key();
    EXPECT_TRUE(item.value().grad().isfinite().all().item<bool>()) << item.key();
    EXPECT_GT(item.value().grad().abs().sum().item<double>(), 0.0) << item.key();
  }
}

// Every family has the mean that the options ask for, draws with the mean of the distribution, an exact
// ranking, and a marginal likelihood with a gradient in every parameter except the effects. If Sigma is
// 0, that likelihood is the sum of log-probabilities.
TEST(NegBinMixedEffects, FamiliesPredictAndHaveAMarginalLikelihood) {
  const auto x = torch::randn({4, 6, 2}), t = torch::tensor({-1.3f, -0.4f, 0.4f, 1.3f});
  const auto exposure = torch::rand({4, 6}) + 0.5;
  for (const char* family : {"nb1", "nb2", "poisson"})
    for (const bool zeros : {false, true}) {
      NegBinMixedEffectsOptions options{.initial_mean = 1.7, .family = family};
      options.zero_inflation = zeros;
      NegBinMixedEffects model(6, 2, options);
      const auto plain = model->distribution(x, t);
      EXPECT_TRUE(torch::allclose(plain.mean(), torch::full({4, 6}, 1.7f), 1e-5)) << family;
      const auto counts = model->distribution(x, t, exposure);
      EXPECT_TRUE(torch::allclose(counts.mean(), 1.7f * exposure, 1e-5)) << family;
      const auto key = torch::tensor({int64_t{1}, int64_t{2}});
      const auto draws = counts.sample(40000, {.key = key});
      // Five standard errors of the mean of all 24 cells.
      const auto error = (counts.variance().mean() / (24 * 40000.0)).sqrt();
      EXPECT_LT((draws.mean() - counts.mean().mean()).abs().item<double>(),
                5 * error.item<double>())
          << family << zeros;
      EXPECT_NEAR(
          counts
              .site_log_prob(
                  torch::arange(400).view({400, 1, 1}).to(torch::kFloat).expand({400, 4, 6}))
              .exp()
              .sum(0)
              .min()
              .item<double>(),
          1.0, 1e-4)
          << family;
      EXPECT_EQ(topreach::expected_ratio_ranking(counts).sizes(), x.sizes().slice(0, 2));
      const auto y = draws[0].detach();
      const auto fit = model->log_marginal(x, y, t, {.exposure = exposure});
      fit.value.sum().backward();
      for (const auto& item : model->named_parameters()) {
        const bool effect = item.key() == "site_intercept" || item.key() == "site_slope";
        EXPECT_EQ(item.value().grad().defined(), !effect) << item.key();
      }
      EXPECT_TRUE(model->penalty(x, t, std::nullopt, exposure).isfinite().item<bool>());
      model->set_effects(x, y, t, {.exposure = exposure});
      EXPECT_GT(model->site_intercept.abs().sum().item<double>(), 0.0);
      torch::NoGradGuard no_grad;
      model->raw_sigma.fill_(-40);  // Sigma = 0
      model->site_intercept.zero_();
      model->site_slope.zero_();
      const auto sum = model->distribution(x, t, exposure).site_log_prob(y).sum(0);
      const auto value = model->log_marginal(x, y, t, {.exposure = exposure}).value;
      EXPECT_TRUE(torch::allclose(value, sum.to(torch::kDouble), 1e-4, 1e-4)) << family;
    }
}

// The steps have covariance sigma^2 phi^d, or sigma^2 min(t, t') for a random walk; the expected path
// between and beyond is the normal distribution's conditional mean, from dense matrices.
TEST(NegBinMixedEffects, PathsAreThoseOfTheirCovariance) {
  const auto f64 = torch::kDouble;
  const auto times = torch::tensor({-1.0, -0.5, 0.0, 1.5, 2.0}, f64);  // a period is 0.5
  const auto raw_sigma = torch::tensor(0.2, f64), raw_rho = torch::tensor(0.9, f64);
  const auto others = torch::tensor({-1.6, -0.5, 0.3, 1.1, 2.0, 3.7}, f64);
  const auto effect = torch::randn({5, 3}, f64);
  for (const bool ar1 : {true, false}) {
    const auto rho = ar1 ? std::optional(raw_rho) : std::nullopt;
    const auto steps = topreach::negbin_mixed_effects_path_steps(times, times, raw_sigma, rho);
    auto a = torch::zeros({5, 5}, f64);  // by noise
    for (int64_t t = 0; t < 5; ++t) {
      if (t > 0) a[t] = steps[t][0] * a[t - 1];
      a[t][t] += steps[t][1];
    }
    const auto covariance = [&](const Tensor& s, const Tensor& t) {
      const auto from = (s.unsqueeze(1) + 1) / 0.5, to = (t.unsqueeze(0) + 1) / 0.5;
      const auto scale = torch::softplus(raw_sigma).square();
      if (ar1) return scale * torch::sigmoid(raw_rho).pow((from - to).abs());
      return scale * torch::minimum(from, to).clamp_min(0);
    };
    EXPECT_TRUE(torch::allclose(a.matmul(a.t()), covariance(times, times), 1e-12, 1e-12));
    // A random walk starts at 0: its first values are 0 and tell nothing.
    auto values = effect.clone();
    auto known = times;
    if (!ar1) {
      values[0].zero_();
      known = times.slice(0, 1);
    }
    const auto want = covariance(others, known)
                          .matmul(covariance(known, known).inverse())
                          .matmul(values.slice(0, ar1 ? 0 : 1));
    const auto got = topreach::negbin_mixed_effects_path_at(others, times, values, rho);
    EXPECT_TRUE(torch::allclose(got, want, 1e-10, 1e-10)) << got << want;
  }
}

TEST(NegBinMixedEffects, PathsAreIntegratedOutAndPredicted) {
  const auto x = torch::randn({5, 6, 2}), t = torch::tensor({-1.3f, -0.7f, 0.f, 0.7f, 1.3f});
  const auto y = torch::randint(0, 6, {5, 6}).to(torch::kFloat);
  for (const char* kind : {"ar1", "random_walk"}) {
    NegBinMixedEffectsOptions options;
    options.site_path = kind;
    NegBinMixedEffects model(6, 2, options), plain(6, 2);
    const auto before = model->forward(x, t).mean();
    const auto fit = model->log_marginal(x, y, t);
    fit.value.sum().backward();
    EXPECT_GT(model->raw_path_sigma.grad().abs().item<double>(), 0.0);
    EXPECT_EQ(model->raw_path_rho.defined(), std::string(kind) == "ar1");
    model->set_effects(x, y, t);
    EXPECT_EQ(model->path_effect.sizes(), (std::vector<int64_t>{5, 6}));
    EXPECT_TRUE(
        torch::allclose(model->path_effect, fit.modes.narrow(1, 2, 5).t().to(torch::kFloat)));
    // The predictor at the fitted times: effects, slopes and the path.
    const auto eta = before.log() + model->site_intercept + t.unsqueeze(1) * model->site_slope +
                     model->path_effect;
    EXPECT_TRUE(torch::allclose(model->forward(x, t).mean().log(), eta, 1e-4, 1e-5));
    torch::NoGradGuard no_grad;
    model->raw_path_sigma.fill_(-100);  // no path
    const auto want = plain->log_marginal(x, y, t).value;
    EXPECT_TRUE(torch::allclose(model->log_marginal(x, y, t).value, want, 1e-10));
    EXPECT_THROW(model->penalty(x, t), c10::ValueError);
    EXPECT_THROW(model->log_marginal(x, y, t.flip(0)), c10::ValueError);
    EXPECT_THROW(model->set_path(t, torch::zeros({5, 5})), c10::ValueError);
    EXPECT_THROW(plain->set_path(t, torch::zeros({5, 6})), c10::ValueError);
  }
}

// Gardner and McKenzie (1985): until + period (d + ... + d^h) beyond the last fitted time, by a loop.
TEST(NegBinMixedEffects, SlopesAreDampedBeyondTheFittedTimes) {
  const auto t = torch::tensor({-1.f, 0.5f, 1.f, 1.25f, 2.f}), x = torch::randn({5, 4, 2});
  NegBinMixedEffectsOptions options;
  options.site_slopes = "damped";
  options.slope_damping = 0.6;
  options.slope_until = 0.5;
  options.slope_period = 0.25;
  NegBinMixedEffects damped(4, 2, options), linear(4, 2);
  torch::NoGradGuard no_grad;
  damped->site_slope.copy_(torch::tensor({1.f, -1.f, 0.5f, 0.f}));
  linear->site_slope.copy_(damped->site_slope);
  auto stretched = t.clone();
  for (int64_t i = 2; i < 5; ++i) {
    const int steps = int(std::lround((t[i].item<double>() - 0.5) / 0.25));
    double sum = 0;
    for (int j = 1; j <= steps; ++j) sum += std::pow(0.6, j);
    stretched[i] = 0.5 + 0.25 * sum;
  }
  EXPECT_TRUE(
      torch::allclose(damped->forward(x, t).mean(), linear->forward(x, stretched).mean(), 1e-5));
  options.slope_damping = 0;  // the time stops
  NegBinMixedEffects stays(4, 2, options);
  stays->site_slope.copy_(damped->site_slope);
  EXPECT_TRUE(torch::allclose(stays->forward(x, t).mean(),
                              linear->forward(x, t.clamp_max(0.5)).mean(), 1e-5));
  options.slope_damping = 1.5;
  EXPECT_THROW(NegBinMixedEffects(4, 2, options), c10::ValueError);
  options.slope_damping = 0.5;
  options.site_slopes = "curved";
  EXPECT_THROW(NegBinMixedEffects(4, 2, options), c10::ValueError);
}

TEST(NegBinMixedEffects, RefusesWhatDoesNotFit) {
  EXPECT_THROW(NegBinMixedEffects(0, 2), c10::ValueError);
  EXPECT_THROW(NegBinMixedEffects(2, 2, NegBinMixedEffectsOptions{"cubic", "laplace", 1}),
               c10::ValueError);
  EXPECT_THROW(NegBinMixedEffects(2, 2, NegBinMixedEffectsOptions{"log", "none", 1}),
               c10::ValueError);
  EXPECT_THROW(NegBinMixedEffects(2, 2, NegBinMixedEffectsOptions{"log", "laplace", 0}),
               c10::ValueError);
  EXPECT_THROW(NegBinMixedEffects(2, 2, NegBinMixedEffectsOptions{.family = "nb3"}),
               c10::ValueError);
  NegBinMixedEffectsOptions unknown;
  unknown.site_path = "ar2";
  EXPECT_THROW(NegBinMixedEffects(5, 2, unknown), c10::ValueError);
  NegBinMixedEffects poisson(5, 2, NegBinMixedEffectsOptions{.family = "poisson"});
  EXPECT_THROW(poisson->forward(torch::zeros({3, 5, 2}), torch::zeros({3})), c10::ValueError);
  EXPECT_THROW(
      poisson->log_marginal(torch::zeros({3, 5, 2}), torch::full({3, 5}, 0.5), torch::zeros({3})),
      c10::ValueError);
  NegBinMixedEffects model(5, 2);
  EXPECT_THROW(model->forward(torch::zeros({3, 5, 3}), torch::zeros({3})), c10::ValueError);
  EXPECT_THROW(model->forward(torch::zeros({3, 4, 2}), torch::zeros({3})), c10::ValueError);
  EXPECT_THROW(model->forward(torch::zeros({3, 5, 2}), torch::zeros({2})), c10::ValueError);
}

}  // namespace
