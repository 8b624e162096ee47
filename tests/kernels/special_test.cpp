// Elementary functions of kernels/special.h against libm in extended precision and closed forms.
#include "../../kernels/special.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace topreach::kernels {
namespace {

// Relative errors in units of 2^-53.
constexpr double kEps = 0x1p-53;

class Special : public ::testing::Test {
 protected:
  double uniform(double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(random_);
  }
  std::mt19937_64 random_{7};
};

double relative(double value, long double truth) {
  return double(std::fabs((static_cast<long double>(value) - truth) / truth));
}

TEST_F(Special, LogarithmAndExponential) {
  for (int i = 0; i < 300'000; ++i) {
    const double x = std::exp(uniform(-700, 700));
    EXPECT_LE(relative(natural_log(x), std::log(static_cast<long double>(x))), 2 * kEps) << x;
    const double z = uniform(-700, 700);
    EXPECT_LE(relative(exponential_of(z), std::exp(static_cast<long double>(z))), 2 * kEps) << z;
    const double u = std::exp(uniform(-60, 40));
    EXPECT_LE(relative(log1p_positive(u), std::log1p(static_cast<long double>(u))), 4 * kEps) << u;
    const double s = uniform(-700, 40);
    EXPECT_LE(relative(softplus_of(s), std::log1p(std::exp(static_cast<long double>(s)))), 8 * kEps)
        << s;
    EXPECT_LE(relative(sigmoid_of(s), 1 / (1 + std::exp(-static_cast<long double>(s)))), 8 * kEps)
        << s;
  }
}

TEST_F(Special, EdgesOfTheElementaryFunctions) {
  const double infinity = INFINITY;
  EXPECT_EQ(natural_log(0.0), -infinity);
  EXPECT_EQ(natural_log(infinity), infinity);
  EXPECT_TRUE(std::isnan(natural_log(-1.0)));
  EXPECT_TRUE(std::isnan(natural_log(NAN)));
  EXPECT_EQ(natural_log(1.0), 0.0);
  EXPECT_NEAR(natural_log(5e-324), std::log(5e-324), 1e-12);
  EXPECT_EQ(exponential_of(-infinity), 0.0);
  EXPECT_EQ(exponential_of(infinity), infinity);
  EXPECT_EQ(exponential_of(0.0), 1.0);
  EXPECT_EQ(exponential_of(-745.0), 4.94065645841246544e-324);
  EXPECT_TRUE(std::isnan(exponential_of(NAN)));
  EXPECT_EQ(softplus_of(infinity), infinity);
  EXPECT_EQ(softplus_of(-infinity), 0.0);
  EXPECT_EQ(sigmoid_of(infinity), 1.0);
  EXPECT_EQ(sigmoid_of(-infinity), 0.0);
}

TEST_F(Special, LogarithmLessItsArgument) {
  for (int i = 0; i < 100'000; ++i) {
    const double d = (i % 2 ? 1 : -1) * 0.4 * std::pow(10.0, uniform(-4, 0));
    const long double truth = std::log1p(static_cast<long double>(d)) - d;
    // The reference itself cancels: 2^-64 relative to d, against d^2 / 2.
    EXPECT_LE(relative(log1p_minus(d), truth), 8 * kEps + 0x1p-62 / std::fabs(d)) << d;
  }
  EXPECT_EQ(log1p_minus(0.0), 0.0);
}

TEST_F(Special, StirlingRemainder) {
  for (int i = 0; i < 100'000; ++i) {
    const double x = std::exp(uniform(-30, 8));
    const long double w = x;
    const long double truth =
        std::lgamma(w + 1) - ((w + 0.5L) * std::log(w) - w + 0.918938533204672741780329736406L);
    EXPECT_NEAR(stirling_remainder(x), double(truth), 2e-14 + 0x1p-60 * x * std::log(x + 3)) << x;
  }
  for (int k = 0; k < 170; ++k)
    EXPECT_NEAR(log_factorial(k), std::lgamma(k + 1.0), 1e-13 * (1 + std::lgamma(k + 1.0))) << k;
}

// digamma(n + y) - digamma(n) = sum over j < y of 1 / (n + j) for whole y.
TEST_F(Special, DigammaDifference) {
  for (int i = 0; i < 20'000; ++i) {
    const double n = std::exp(uniform(-25, 25));
    const int y = int(uniform(0, 200));
    long double truth = 0;
    for (int j = 0; j < y; ++j) truth += 1 / (static_cast<long double>(n) + j);
    EXPECT_NEAR(digamma_difference(n, y), double(truth), 1e-14 * (1 + double(truth)))
        << n << ' ' << y;
  }
  // digamma(1) - digamma(1/2) = 2 log 2.
  EXPECT_NEAR(digamma_difference(0.5, 0.5), 2 * std::log(2.0), 1e-14);
}

}  // namespace
}  // namespace topreach::kernels
