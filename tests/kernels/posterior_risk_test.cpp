// The posterior mean under a discrete prior against the definition, its gradients by differences, and the
// EM step for tiles that are not full.
#include "../../kernels/posterior_risk.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace topreach::kernels {
namespace {

constexpr int64_t kCells = 11, kMemories = 2, kPoints = 3;

struct Case {
  std::vector<double> counts, expected, log_prior, support{0.2, 1.0, 5.0}, log_support;

  Case() {
    std::mt19937 random(1);
    std::uniform_real_distribution<double> uniform(0.1, 4);
    for (int64_t i = 0; i < kCells * kMemories; ++i) {
      counts.push_back(uniform(random));
      expected.push_back(uniform(random));
    }
    for (int64_t i = 0; i < kMemories * kPoints; ++i) log_prior.push_back(uniform(random));
    for (const double u : support) log_support.push_back(std::log(u));
  }

  PosteriorRisk<double> problem() const {
    return {counts.data(),      expected.data(), log_prior.data(), support.data(),
            log_support.data(), kCells,          kMemories,        kPoints};
  }

  // The definition, for one cell and memory.
  double risk(int64_t cell, int64_t h) const {
    double total = 0, sum = 0;
    for (int64_t g = 0; g < kPoints; ++g) {
      const size_t at = size_t(cell * kMemories + h);
      const double p = std::exp(log_prior[size_t(h * kPoints + g)]) *
                       std::pow(support[size_t(g)], counts[at]) *
                       std::exp(-expected[at] * support[size_t(g)]);
      total += p * support[size_t(g)];
      sum += p;
    }
    return total / sum;
  }
};

TEST(PosteriorRisk, EqualsItsDefinition) {
  const Case c;
  std::vector<double> risk(kCells * kMemories), scratch(size_t(posterior_risk_scratch(kPoints)));
  posterior_risk_cpu<double>().forward(c.problem(), 0, kCells, risk.data(), scratch.data());
  for (int64_t cell = 0; cell < kCells; ++cell)
    for (int64_t h = 0; h < kMemories; ++h)
      EXPECT_NEAR(risk[size_t(cell * kMemories + h)], c.risk(cell, h), 1e-13 * c.risk(cell, h));
}

TEST(PosteriorRisk, GradientsAreDifferences) {
  Case c;
  std::vector<double> grad(kCells * kMemories), da(grad.size()), dx(grad.size()),
      dw(kMemories * kPoints, 0.0), scratch(size_t(posterior_risk_scratch(kPoints)));
  for (size_t i = 0; i < grad.size(); ++i) grad[i] = std::sin(double(i) + 1);
  posterior_risk_cpu<double>().backward(c.problem(), grad.data(), 0, kCells, da.data(), dx.data(),
                                        dw.data(), scratch.data());
  const auto total = [&] {
    double sum = 0;
    for (int64_t cell = 0; cell < kCells; ++cell)
      for (int64_t h = 0; h < kMemories; ++h)
        sum += grad[size_t(cell * kMemories + h)] * c.risk(cell, h);
    return sum;
  };
  const auto check = [&](std::vector<double>& values, const std::vector<double>& derivatives) {
    for (size_t i = 0; i < values.size(); ++i) {
      const double step = 1e-5, value = values[i];
      values[i] = value + step;
      const double above = total();
      values[i] = value - step;
      const double below = total();
      values[i] = value;
      EXPECT_NEAR(derivatives[i], (above - below) / (2 * step), 1e-7);
    }
  };
  check(c.counts, da);
  check(c.expected, dx);
  check(c.log_prior, dw);
}

TEST(PriorEm, StepIsTheMeanOfPosteriors) {
  const Case c;
  constexpr int64_t sites = kCells;  // a full tile and a part of one
  constexpr int64_t tiles = (sites + kRiskLanes - 1) / kRiskLanes;
  const std::vector<double> weights{0.5, 0.3, 0.2};
  std::vector<double> likelihood(size_t(tiles * kPoints * kRiskLanes)), sums(kPoints, 0.0),
      lanes(size_t(kPoints * kRiskLanes));
  const PriorEm& em = prior_em_cpu();
  em.likelihood(c.counts.data(), c.expected.data(), c.support.data(), c.log_support.data(), sites,
                kPoints, 0, tiles, likelihood.data());
  em.step(likelihood.data(), weights.data(), kPoints, 0, tiles, lanes.data(), sums.data());
  double mass = 0;
  for (int64_t g = 0; g < kPoints; ++g) {
    double expected = 0;
    for (int64_t s = 0; s < sites; ++s) {
      double all = 0, one = 0;
      for (int64_t i = 0; i < kPoints; ++i) {
        const double l = std::pow(c.support[size_t(i)], c.counts[size_t(s)]) *
                         std::exp(-c.expected[size_t(s)] * c.support[size_t(i)]);
        all += l * weights[size_t(i)];
        if (i == g) one = l;
      }
      expected += one / all;
    }
    EXPECT_NEAR(sums[size_t(g)], expected, 1e-12 * expected);
    mass += sums[size_t(g)] * weights[size_t(g)];
  }
  EXPECT_NEAR(mass, double(sites), 1e-12 * double(sites));
}

}  // namespace
}  // namespace topreach::kernels
