// Density f and upper tail 1 - F of the noises of noise.h, in float and double. The conditional
// estimator of the perturbed top-K evaluates them at every (site, draw).
//
//   normal:   f = exp(-x^2 / 2) / sqrt(2 pi),        1 - F = f times the Mills ratio
//   gumbel:   f = exp(-x - exp(-x)),                 1 - F = 1 - exp(-exp(-x))
//   logistic: f = e / (1 + e)^2, e = exp(-|x|),      1 - F = 1 / (1 + exp(x))
//   laplace:  f = exp(-|x|) / 2,                     1 - F = f for x > 0, else 1 - f
//
// No libm, no branches: same bits on every vector width and on CUDA, see platform.h. The relative error
// of a float is below 1e-6 + 6e-8 e, of a double below 1e-14 (1 + e), with e the size of the exponents
// above, which round: x^2 / 2, |x| + exp(-x), or |x|. A float result below 1e-35 has no such accuracy and
// may be 0. Infinite x give the limits. tests/kernels/noise_density_test.cpp compares with libm.
#pragma once

#include "noise.h"
#include "special.h"

namespace topreach::kernels {

TR_HD double quotient(double a, double b) { return a / b; }

// x = k log 2 + r, and exp(r) - 1 by a polynomial: a minimax fit of (exp(r) - 1 - r) / r^2.
struct FloatExponential {
  float scale, fraction;  // 2^k, exp(r) - 1
};

TR_HD FloatExponential split_exponential(float x) {
  const float magic = 0x1.8p23f;
  const float inside = x > -87.0f ? x : -87.0f;
  const float rounded = fused(inside, 1.44269504f, magic);
  const float k = rounded - magic;
  const float r = fused(k, 2.12194440e-4f, fused(k, -0.693359375f, inside));
  float p = 0.0013950523f;
  p = fused(p, r, 0.00836890843f);
  p = fused(p, r, 0.041666206f);
  p = fused(p, r, 0.166665182f);
  p = fused(p, r, 0.5f);
  return {float_of((bits_of(rounded) << 23) + 0x3F800000u), fused(r * r, p, r)};
}

// exp(x) for x <= 88; 0 below -87 and for NaN.
TR_HD float exponential_of(float x) {
  const FloatExponential e = split_exponential(x);
  const float value = fused(e.scale, e.fraction, e.scale);
  return x > -87.0f ? value : 0.0f;
}

// 1 - exp(-x) for x >= -88, accurate however small x is.
TR_HD float one_minus_exponential(float x) {
  const FloatExponential e = split_exponential(-x);
  return fused(-e.scale, e.fraction, 1.0f - e.scale);
}

// The same by (1 - u) x / -log(u), u = exp(-x): errors of u cancel (Kahan).
TR_HD double one_minus_exponential(double x) {
  const double u = exponential_of(-x), rest = 1.0 - u;
  const double value = rest * x / -natural_log(u > 0.0 ? u : 1.0);
  return rest == 0.0 ? x : (u < 0.1 ? rest : value);
}

// exp(-y^2 / 2) for 0 <= y < 13, where it is 2e-37; as 2^k 2^f, with a minimax fit of (2^f - 1) / f.
TR_HD float gaussian(float y) {
  const float magic = 0x1.8p23f, t = y * y;
  const float rounded = fused(t, -0.72134752f, magic);
  const float f = fused(t, -0.72134752f, magic - rounded);
  float p = 1.54762703e-4f;
  p = fused(p, f, 1.34002708e-3f);
  p = fused(p, f, 9.61800385e-3f);
  p = fused(p, f, 5.5503279e-2f);
  p = fused(p, f, 0.240226507f);
  p = fused(p, f, 0.693147182f);
  return fused(p, f, 1.0f) * float_of((bits_of(rounded) << 23) + 0x3F800000u);
}
TR_HD double gaussian(double y) { return exponential_of(-0.5 * (y * y)); }

// 1 - Phi(x). A minimax fit of (y + 3) exp(y^2 / 2) (1 - Phi(y)) in u = (y - 3) / (y + 3), y = |x|.
TR_HD float normal_upper_tail(float x) {
  const float size = x < 0.0f ? -x : x;
  const float y = size < 13.0f ? size : 13.0f;
  const float inverse = quotient(1.0f, y + 3.0f), u = (y - 3.0f) * inverse;
  float p = -2.72995967e-4f;
  p = fused(p, u, -9.12634656e-4f);
  p = fused(p, u, 1.07765209e-3f);
  p = fused(p, u, 6.93030469e-3f);
  p = fused(p, u, -1.04794400e-2f);
  p = fused(p, u, -4.72573787e-2f);
  p = fused(p, u, 0.230019242f);
  p = fused(p, u, -0.50933224f);
  p = fused(p, u, 0.729083657f);
  const float value = gaussian(y) * (p * inverse);
  const float tail = size < 13.0f ? value : 0.0f;
  return x < 0.0f ? 1.0f - tail : tail;
}

TR_HD double normal_upper_tail(double x) { return normal_cdf(-x); }

// exp(-x) of a Gumbel variate, capped where exp(-exp(-x)) is 0 anyway.
TR_HD float gumbel_exponential(float x) { return exponential_of(x > -4.7f ? -x : 4.7f); }
TR_HD double gumbel_exponential(double x) { return exponential_of(x > -6.7 ? -x : 6.7); }

template <Noise kind, typename T>
TR_HD T density(T x) {
  const T size = x < T(0) ? -x : x;
  if constexpr (kind == Noise::kNormal) {
    const T end = sizeof(T) == 4 ? T(13) : T(39);  // where the density is below the normal numbers
    const T value = T(0.398942280401432678) * gaussian(size < end ? size : end);
    return size < end ? value : T(0);
  } else if constexpr (kind == Noise::kGumbel) {
    const T e = gumbel_exponential(x);
    return e * exponential_of(-e);
  } else if constexpr (kind == Noise::kLogistic) {
    const T e = exponential_of(-size), whole = T(1) + e;
    return quotient(e, whole * whole);
  } else {
    return T(0.5) * exponential_of(-size);
  }
}

// 1 - F(x).
template <Noise kind, typename T>
TR_HD T upper_tail(T x) {
  const T size = x < T(0) ? -x : x;
  if constexpr (kind == Noise::kNormal) {
    return normal_upper_tail(x);
  } else if constexpr (kind == Noise::kGumbel) {
    return one_minus_exponential(gumbel_exponential(x));
  } else if constexpr (kind == Noise::kLogistic) {
    const T e = exponential_of(-size);
    return quotient(x < T(0) ? T(1) : e, T(1) + e);
  } else {
    const T half = T(0.5) * exponential_of(-size);
    return x < T(0) ? T(1) - half : half;
  }
}

}  // namespace topreach::kernels
