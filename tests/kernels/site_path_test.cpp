// A path's filter and smoother against dense matrices: K from its definition, solutions by their
// residuals, determinant and variances by elimination.
#include "../../kernels/site_path.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace topreach::kernels {
namespace {

constexpr int kPeriods = 7;
using Matrix = std::vector<std::vector<double>>;

Matrix zeros() { return Matrix(kPeriods, std::vector<double>(kPeriods, 0.0)); }

// K = A A'; column j of A is the path from noise j alone.
Matrix covariance_of(const std::vector<double>& steps) {
  Matrix a = zeros(), k = zeros();
  for (int j = 0; j < kPeriods; ++j)
    for (int t = j; t < kPeriods; ++t)
      a[t][j] = t == j ? steps[2 * t + 1] : steps[2 * t] * a[t - 1][j];
  for (int s = 0; s < kPeriods; ++s)
    for (int t = 0; t < kPeriods; ++t)
      for (int j = 0; j < kPeriods; ++j) k[s][t] += a[s][j] * a[t][j];
  return k;
}

// Gauss-Jordan with pivots: m^-1, and log |det m|.
Matrix inverse_of(Matrix m, double* log_determinant) {
  Matrix inverse = zeros();
  for (int i = 0; i < kPeriods; ++i) inverse[i][i] = 1;
  *log_determinant = 0;
  for (int i = 0; i < kPeriods; ++i) {
    int pivot = i;
    for (int r = i; r < kPeriods; ++r)
      if (std::abs(m[r][i]) > std::abs(m[pivot][i])) pivot = r;
    std::swap(m[i], m[pivot]);
    std::swap(inverse[i], inverse[pivot]);
    *log_determinant += std::log(std::abs(m[i][i]));
    for (int r = 0; r < kPeriods; ++r) {
      if (r == i) continue;
      const double factor = m[r][i] / m[i][i];
      for (int c = 0; c < kPeriods; ++c) {
        m[r][c] -= factor * m[i][c];
        inverse[r][c] -= factor * inverse[i][c];
      }
    }
  }
  for (int r = 0; r < kPeriods; ++r)
    for (int c = 0; c < kPeriods; ++c) inverse[r][c] /= m[r][r];
  return inverse;
}

TEST(SitePath, AgreesWithDenseMatrices) {
  std::mt19937_64 random(5);
  std::normal_distribution<double> normal;
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<double> steps(2 * kPeriods), x(kPeriods), q(2 * kPeriods), l(2 * kPeriods),
        a(2 * kPeriods), predicted(kPeriods), shrink(kPeriods), variance(kPeriods), n(kPeriods);
    for (double& value : steps) value = normal(random);
    if (trial % 3 == 0) steps[2 * (trial % kPeriods) + 1] = 0;  // a step without noise
    for (double& value : x) value = std::exp(2 * normal(random));
    x[2] = 0;
    const Matrix k = covariance_of(steps);
    if (trial % 2 == 0) x[4] = -0.4 / k[4][4];  // of the wrong sign: I + X K stays positive
    for (double& value : q) value = normal(random);
    PathFilter path{steps.data(), kPeriods, predicted.data(), shrink.data()};
    ASSERT_TRUE(path_filter(path, x.data()));
    path_solve<2>(path, x.data(), q.data(), l.data(), a.data());
    path_variances(path, x.data(), variance.data(), n.data());
    Matrix m = zeros();
    for (int s = 0; s < kPeriods; ++s)
      for (int t = 0; t < kPeriods; ++t) m[s][t] = (s == t) + x[s] * k[s][t];
    double log_determinant = 0;
    const Matrix inverse = inverse_of(m, &log_determinant);
    EXPECT_NEAR(path_log_determinant(path), log_determinant, 1e-10);
    for (int t = 0; t < kPeriods; ++t)
      for (int i = 0; i < 2; ++i) {
        double dual = 0, value = 0;
        for (int s = 0; s < kPeriods; ++s) {
          dual += inverse[t][s] * q[2 * s + i];
          value += k[t][s] * l[2 * s + i];
        }
        EXPECT_NEAR(l[2 * t + i], dual, 1e-8 * (1 + std::abs(dual)));
        EXPECT_NEAR(a[2 * t + i], value, 1e-8 * (1 + std::abs(value)));
      }
    // Cov(a | all) = K (I + X K)^-1, and R' (I + X K)^-1 X R on the diagonal.
    for (int t = 0; t < kPeriods; ++t) {
      double want = 0, squares = 0;
      std::vector<double> r(kPeriods, 0.0);
      r[t] = 1;
      for (int s = t + 1; s < kPeriods; ++s) r[s] = steps[2 * s] * r[s - 1];
      for (int s = 0; s < kPeriods; ++s) {
        want += k[t][s] * inverse[s][t];
        for (int j = t; j < kPeriods; ++j) squares += r[s] * inverse[s][j] * x[j] * r[j];
      }
      EXPECT_NEAR(variance[t], want, 1e-8 * (1 + want));
      EXPECT_NEAR(n[t], squares, 1e-8 * (1 + std::abs(squares)));
    }
  }
}

TEST(SitePath, RefusesInformationOfTheWrongSign) {
  const double steps[] = {0, 1, 0.5, 1};
  double predicted[2], shrink[2];
  PathFilter path{steps, 2, predicted, shrink};
  const double bad[] = {0.0, -0.9};  // Var(a_2) = 1.25
  EXPECT_FALSE(path_filter(path, bad));
  const double good[] = {0.0, -0.7};
  EXPECT_TRUE(path_filter(path, good));
}

}  // namespace
}  // namespace topreach::kernels
