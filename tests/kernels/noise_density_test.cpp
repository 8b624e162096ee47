// Densities and upper tails of the noises against libm in long double, with the bounds of the header.
#include "../../kernels/noise_density.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace topreach::kernels {
namespace {

template <Noise kind>
long double true_density(long double x) {
  const long double e = std::exp(-std::abs(x));
  switch (kind) {
    case Noise::kGumbel: return std::exp(-x - std::exp(-x));
    case Noise::kLogistic: return e / ((1 + e) * (1 + e));
    case Noise::kLaplace: return e / 2;
    default: return std::exp(-x * x / 2) / std::sqrt(2 * std::acos(-1.0L));
  }
}

template <Noise kind>
long double true_upper_tail(long double x) {
  switch (kind) {
    case Noise::kGumbel: return -std::expm1(-std::exp(-x));
    case Noise::kLogistic: return 1 / (1 + std::exp(x));
    case Noise::kLaplace: return x > 0 ? std::exp(-x) / 2 : 1 - std::exp(x) / 2;
    default: return std::erfc(x / std::sqrt(2.0L)) / 2;
  }
}

// The size of the exponents that an evaluation rounds.
template <Noise kind>
double exponent(double x) {
  if (kind == Noise::kNormal) return x * x / 2;
  return kind == Noise::kGumbel ? std::abs(x) + std::exp(-x) : std::abs(x);
}

template <Noise kind, typename T>
void expect_accuracy() {
  constexpr bool single = sizeof(T) == 4;
  const double smallest = single ? 1e-35 : 1e-290;
  for (double at = -90; at <= 90; at += 0.0078125 * 1.37) {
    const T x = T(at);
    const double size = exponent<kind>(double(x));
    const double bound = single ? 1e-6 + 6e-8 * size : 1e-14 * (1 + size);
    for (const bool tail : {true, false}) {
      const long double want = tail ? true_upper_tail<kind>(x) : true_density<kind>(x);
      const T got = tail ? upper_tail<kind>(x) : density<kind>(x);
      if (want > smallest) {
        ASSERT_NEAR(double(got / want), 1.0, bound) << (tail ? "tail at " : "density at ") << at;
      } else {
        ASSERT_GE(got, T(0)) << at;
        ASSERT_LE(got, 1.1 * smallest) << at;
      }
    }
  }
  const T infinity = std::numeric_limits<T>::infinity();
  EXPECT_EQ(upper_tail<kind>(-infinity), T(1));
  EXPECT_EQ(upper_tail<kind>(infinity), T(0));
  EXPECT_EQ(density<kind>(-infinity), T(0));
  EXPECT_EQ(density<kind>(infinity), T(0));
  for (const T x : {T(-1e30), T(-200), T(200), T(1e30)}) {
    EXPECT_EQ(upper_tail<kind>(x) + (x < 0 ? T(0) : T(1)), T(1)) << x;
    EXPECT_LT(density<kind>(x), T(1e-37)) << x;
  }
}

TEST(NoiseDensity, Normal) {
  expect_accuracy<Noise::kNormal, float>();
  expect_accuracy<Noise::kNormal, double>();
}

TEST(NoiseDensity, Gumbel) {
  expect_accuracy<Noise::kGumbel, float>();
  expect_accuracy<Noise::kGumbel, double>();
}

TEST(NoiseDensity, Logistic) {
  expect_accuracy<Noise::kLogistic, float>();
  expect_accuracy<Noise::kLogistic, double>();
}

TEST(NoiseDensity, Laplace) {
  expect_accuracy<Noise::kLaplace, float>();
  expect_accuracy<Noise::kLaplace, double>();
}

TEST(NoiseDensity, UpperTailIsTheIntegralOfTheDensity) {
  // Simpson's rule over [x, x + 40] with steps of 1/64: its error is below 1e-9 for these densities
  // away from the Laplace's kink.
  const auto integral = [](auto of, double x) {
    const int n = 2560;
    double sum = 0;
    for (int i = 0; i <= n; ++i)
      sum += (i == 0 || i == n ? 1 : (i % 2 == 1 ? 4 : 2)) * density<of.kind>(x + i / 64.0);
    return sum / (3 * 64);
  };
  for (double x : {0.0, 0.3, 1.0, 4.0}) {
    EXPECT_NEAR(upper_tail<Noise::kNormal>(x), integral(NoiseKind<Noise::kNormal>(), x), 1e-9);
    EXPECT_NEAR(upper_tail<Noise::kGumbel>(x), integral(NoiseKind<Noise::kGumbel>(), x), 1e-9);
    EXPECT_NEAR(upper_tail<Noise::kLogistic>(x), integral(NoiseKind<Noise::kLogistic>(), x), 1e-9);
    EXPECT_NEAR(upper_tail<Noise::kLaplace>(x), integral(NoiseKind<Noise::kLaplace>(), x), 1e-9);
  }
}

}  // namespace
}  // namespace topreach::kernels
