// The CPU loops of the expected top-K against full enumeration, and their parts against closed
// forms.
#include "../../kernels/expected_topk.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "../../kernels/perturbed_topk.h"

namespace {

using namespace topreach::kernels;

struct Row {
  std::vector<double> value, product;
};

// One row through spread, solve and interpolate, spread in `pieces`.
template <typename T>
Row run(const std::vector<T>& scores, const std::vector<T>& v, int64_t k, double sigma,
        int64_t pieces = 1) {
  const auto& cpu = expected_topk_cpu<T>();
  const auto sites = int64_t(scores.size());
  std::vector<double> select(size_t(TopKScratch<T>::bytes(sites) / 8 + 8));
  T bound[2];
  int32_t last_tied;
  for (int i = 0; i < 2; ++i)
    topk_cpu<T>().threshold(scores.data(), sites, k + i, &bound[i], &last_tied, select.data());
  const TopKFrame frame = frame_of(double(bound[0]), double(bound[1]), sigma);
  const auto one = [&](const T* tangent) {
    std::vector<double> grid(2 * kGridSize, 0.0), scratch(size_t(cpu.scratch_bytes(sites) / 8 + 8));
    std::vector<T> out(scores.size());
    TopKSpread total{0, 0};
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const int64_t from = sites * piece / pieces, to = sites * (piece + 1) / pieces;
      const auto part = cpu.spread(scores.data() + from, tangent ? tangent + from : nullptr,
                                   to - from, frame, grid.data());
      total.above += part.above;
      total.active += part.active;
    }
    TopKTable table;
    cpu.solve(scores.data(), tangent, sites, k, frame, total, grid.data(), &table, out.data(),
              scratch.data());
    cpu.interpolate(scores.data(), tangent, sites, frame, &table, out.data());
    return std::vector<double>(out.begin(), out.end());
  };
  return {one(nullptr), one(v.data())};
}

// b and J v by all 2^(S - 2) subsets of the others of each pair of sites: the trapezoidal rule in t
// with step 0.02 sigma, far finer than the integrands, which are analytic and vanish at the ends.
Row by_enumeration(const std::vector<double>& scores, const std::vector<double>& v, int k,
                   double sigma) {
  const int sites = int(scores.size());
  Row row{std::vector<double>(scores.size(), 0.0), std::vector<double>(scores.size(), 0.0)};
  const auto [low, high] = std::minmax_element(scores.begin(), scores.end());
  const double step = 0.02 * sigma;
  std::vector<double> above(scores.size()), density(scores.size());
  for (double t = *low - 10 * sigma; t < *high + 10 * sigma; t += step) {
    for (size_t s = 0; s < scores.size(); ++s) {
      const double x = (scores[s] - t) / sigma;
      above[s] = 0.5 * std::erfc(-x / std::sqrt(2.0));
      density[s] = std::exp(-0.5 * x * x) / std::sqrt(2 * M_PI) / sigma;
    }
    for (int i = 0; i < sites; ++i)
      for (int j = 0; j < sites; ++j) {
        if (i == j) continue;
        double chance = 0;
        for (unsigned mask = 0; mask < (1u << sites); ++mask) {
          if ((mask >> i & 1) || (mask >> j & 1) || __builtin_popcount(mask) != k - 1) continue;
          double product = 1;
          for (int s = 0; s < sites; ++s)
            if (s != i && s != j)
              product *= (mask >> s & 1) ? above[size_t(s)] : 1 - above[size_t(s)];
          chance += product;
        }
        row.value[size_t(i)] += step * above[size_t(i)] * density[size_t(j)] * chance;
        row.product[size_t(i)] +=
            step * density[size_t(i)] * density[size_t(j)] * chance * (v[size_t(i)] - v[size_t(j)]);
      }
  }
  return row;
}

double apart(const std::vector<double>& a, const std::vector<double>& b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::fabs(a[i] - b[i]));
  return worst;
}

TEST(ExpectedTopKCpu, EqualsEnumeration) {
  const std::vector<double> scores{0.3, -0.2, 1.0, 0.3, 0.0, -1.5}, v{1, -2, 0.5, 0, 3, -1};
  for (int k = 1; k < 6; ++k)
    for (double sigma : {0.1, 0.5, 5.0}) {
      const Row want = by_enumeration(scores, v, k, sigma), got = run(scores, v, k, sigma);
      EXPECT_LT(apart(got.value, want.value), 3e-9) << k << " " << sigma;
      EXPECT_LT(apart(got.product, want.product), 3e-9 * 3 / sigma) << k << " " << sigma;
    }
}

TEST(ExpectedTopKCpu, FloatIsDoubleRounded) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> scores(777), v(777);
  for (auto& x : scores) x = normal(random);
  for (auto& x : v) x = normal(random);
  const Row narrow = run(scores, v, 50, 0.1);
  const Row wide = run(std::vector<double>(scores.begin(), scores.end()),
                       std::vector<double>(v.begin(), v.end()), 50, 0.1);
  for (size_t i = 0; i < scores.size(); ++i) {
    EXPECT_EQ(narrow.value[i], double(float(wide.value[i])));
    EXPECT_EQ(narrow.product[i], double(float(wide.product[i])));
  }
}

TEST(ExpectedTopKCpu, PiecesAreAddedToOneGrid) {
  std::mt19937 random(2);
  std::normal_distribution<double> normal;
  std::vector<double> scores(5000), v(5000);
  for (auto& x : scores) x = normal(random);
  for (auto& x : v) x = normal(random);
  // The sums over sites differ only in their order.
  const Row whole = run(scores, v, 300, 0.5), parts = run(scores, v, 300, 0.5, 7);
  EXPECT_LT(apart(whole.value, parts.value), 1e-10);
  EXPECT_LT(apart(whole.product, parts.product), 1e-8);
}

TEST(ExpectedTopKCpu, MeanFieldThreshold) {
  // Symmetric scores and K = S / 2: tau = 0.
  std::vector<double> scores;
  for (int i = 0; i < 1000; ++i) scores.push_back((i - 499.5) / 300);
  const auto& cpu = expected_topk_cpu<double>();
  const TopKFrame frame = frame_of(0.5 / 300, -0.5 / 300, 0.1);
  std::vector<double> grid(2 * kGridSize, 0.0), scratch(size_t(cpu.scratch_bytes(0) / 8 + 8));
  const auto spread =
      cpu.spread(scores.data(), static_cast<const double*>(nullptr), 1000, frame, grid.data());
  EXPECT_EQ(spread.above + spread.active, 1000 - spread.above);
  const double tau = cpu.mean_field_threshold(500, frame, spread, grid.data(), scratch.data());
  EXPECT_NEAR(tau, 0.0, 1e-11);
}

TEST(ExpectedTopKCpu, LagrangeFactorsReproducePolynomials) {
  // sum_m w_m(theta) m^9 = theta'^9: the weights are exact to degree 9.
  for (double theta : {0.0, 0.25, 0.999}) {
    double sum = 0;
    for (int m = 0; m < kGridOrder; ++m) {
      double weight = lagrange_factor(m);
      for (int i = 0; i < kGridOrder; ++i)
        if (i != m) weight *= theta - double(i - (kGridOrder / 2 - 1));
      sum += weight * std::pow(double(m - (kGridOrder / 2 - 1)), 9);
    }
    EXPECT_NEAR(sum, std::pow(theta, 9), 1e-9);  // 5^9 eps 10 terms
  }
}

TEST(ExpectedTopKPlan, TailWidthIsBernsteins) {
  // exp(-d^2 / (2 (V + d / 3))) = e^-kTail at d = tail_width(V).
  for (double variance : {0.0, 0.3, 10.0, 1e5}) {
    const double d = tail_width(variance);
    EXPECT_NEAR(d * d / (2 * (variance + d / 3)), kTail, 1e-9 * kTail);
  }
}

TEST(ExpectedTopKPlan, FactorAndItsReciprocal) {
  for (double p : {0.0, 1e-9, 0.3, 0.5, 0.8, 1.0})
    for (double omega : {1e-3, 0.7, 2.0, 3.1}) {
      const TopKFrequency w = frequency_at(omega);
      const TopKFactor c = factor_of(p, w);
      const double re = 1 - p + p * std::cos(omega), im = p * std::sin(omega);
      EXPECT_NEAR(std::exp(c.log_modulus) * std::cos(c.angle), re, 1e-14);
      EXPECT_NEAR(std::exp(c.log_modulus) * std::sin(c.angle), im, 1e-14);
      const ComplexDouble one = product({re, im}, reciprocal_factor(p, c.inverse, w));
      EXPECT_NEAR(one.re, 1.0, 1e-12);
      EXPECT_NEAR(one.im, 0.0, 1e-12);
    }
}

}  // namespace
