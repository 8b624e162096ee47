// The regularised incomplete beta function, which gives the distribution function of negative binomial
// counts.
#pragma once

#include <cmath>

namespace topreach::kernels {

// The continued fraction of I_x(a, b) without its factor x^a (1 - x)^b / (a B(a, b)) [Abramowitz and
// Stegun 26.5.8], by Lentz's method. It converges fast for x < (a + 1) / (a + b + 2), in some
// sqrt(max(a, b)) terms at worst.
inline double incomplete_beta_fraction(double a, double b, double x) {
  constexpr double tiny = 1e-300, precision = 1e-16;
  constexpr int most_terms = 100000;
  double c = 1.0, d = 1.0 - (a + b) * x / (a + 1.0);
  if (std::fabs(d) < tiny) d = tiny;
  d = 1.0 / d;
  double value = d;
  for (int m = 1; m <= most_terms; ++m) {
    const double even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
    d = 1.0 + even * d;
    c = 1.0 + even / c;
    if (std::fabs(d) < tiny) d = tiny;
    if (std::fabs(c) < tiny) c = tiny;
    d = 1.0 / d;
    value *= d * c;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
    d = 1.0 + odd * d;
    c = 1.0 + odd / c;
    if (std::fabs(d) < tiny) d = tiny;
    if (std::fabs(c) < tiny) c = tiny;
    d = 1.0 / d;
    const double step = d * c;
    value *= step;
    if (std::fabs(step - 1.0) < precision) break;
  }
  return value;
}

// P(Y <= y) = I_{1-p}(n, y + 1) of Y ~ NegBin(n, logit p = z) for a whole y >= 0, given log P(Y = y):
// the factor of the fraction is then free of differences of large log-gammas.
inline double negbin_cdf(double y, double n, double z, double log_prob) {
  if (std::isnan(y) || std::isnan(n) || std::isnan(z)) return std::nan("");
  if (y < 0.0) return 0.0;
  if (n == 0.0 || y == INFINITY) return 1.0;
  const double p = 1.0 / (1.0 + std::exp(-z)), q = 1.0 / (1.0 + std::exp(z));
  const double mass = std::exp(log_prob) * (n + y) * p;
  if (q < (n + 1.0) / (n + y + 3.0))
    return std::fmin(1.0, mass / n * incomplete_beta_fraction(n, y + 1.0, q));
  return std::fmax(0.0, 1.0 - mass / (y + 1.0) * incomplete_beta_fraction(y + 1.0, n, p));
}

}  // namespace topreach::kernels
