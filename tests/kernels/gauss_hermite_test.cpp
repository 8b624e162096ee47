// Gauss-Hermite quadrature: exactness for polynomials, and adaptive quadrature over two effects.
#include "../../kernels/gauss_hermite.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "../../kernels/site_quadrature.h"

namespace {

using namespace topreach::kernels;

// n nodes are exact to degree 2 n - 1: moments 1, 0, 1, 0, 3, ... = (k - 1)!! of the standard normal.
// Relative to the sum of the terms' sizes, rounding is n epsilon or so.
TEST(GaussHermite, MomentsOfTheStandardNormal) {
  for (int n : {1, 2, 3, 5, 16, 41, 100}) {
    std::vector<double> nodes(n), log_weights(n);
    gauss_hermite(n, nodes.data(), log_weights.data());
    for (int i = 1; i < n; ++i) EXPECT_LT(nodes[i - 1], nodes[i]);
    double moment = 1;  // of even degree
    for (int k = 0; k < 2 * n && k < 20; ++k) {
      if (k >= 2 && k % 2 == 0) moment *= k - 1;
      double sum = 0, size = 0;
      for (int i = 0; i < n; ++i) {
        const double term = std::exp(log_weights[i]) * std::pow(nodes[i], k);
        sum += term;
        size += std::fabs(term);
      }
      EXPECT_NEAR(sum, k % 2 == 0 ? moment : 0.0, 1e-12 * size) << n << " nodes, degree " << k;
    }
  }
}

// A site without counts: the integral of the prior is 1, for any rule.
TEST(SiteQuadrature, WithoutCountsTheIntegralIsOne) {
  const std::vector<double> zero(3, 0.0), loading{0.5, 0.1, 0.5, 0.0, 0.5, -0.1};
  const SiteCounts site{
      zero.data(), zero.data(), zero.data(), zero.data(), zero.data(), loading.data(), 3};
  const CountModel model{CountFamily::kPoisson, false, false, 0, 0};
  std::vector<double> scratch(kSiteScratch * 3), nodes(7), log_weights(7);
  SiteWork work(site, scratch.data());
  const SiteMode mode = site_mode(model, site, work);
  gauss_hermite(7, nodes.data(), log_weights.data());
  EXPECT_NEAR(site_quadrature(model, site, mode, {nodes.data(), log_weights.data(), 7}), 0, 1e-14);
}

}  // namespace
