// Exponential decay, for one double or for a vector of them: exp, and the integrals of s^j exp(-d s).
//
// Written with fused multiply-adds and no libm, so that a lane of a vector has the bits of a scalar.
// V is double, or a vector type for which `fused` and `two_to_the` are overloaded
// (cpu/hawkes_lanes.h). tests/kernels/hawkes_test.cpp compares with libm and with quadrature.
#pragma once

#include "special.h"

namespace topreach::kernels {

constexpr double kRoundToWhole = 0x1.8p52;  // x + this has x, rounded to a whole number, in its low bits

TR_HD double two_to_the(double whole) {  // 2^k of k + kRoundToWhole, -1022 <= k <= 1023
  return double_of((bits_of(whole) + 1023) << 52);
}

// exp(x) for -708 <= x <= 709, relative error below 4e-16: Taylor to r^13 on |r| <= log(2) / 2, even and
// odd powers apart so that the chains are short.
template <typename V>
TR_HD V exponential_inside(V x) {
  const V zero{};
  const V whole = fused(x, zero + 1.44269504088896338700e+00, zero + kRoundToWhole);
  const V k = whole - kRoundToWhole;
  const V high = fused(k, zero - 6.93147180369123816490e-01, x);
  const V r = fused(k, zero - 1.90821492927058770002e-10, high);
  const V z = r * r;
  V even = fused(z, zero + 1.0 / 479001600.0, zero + 1.0 / 3628800.0);
  V odd = fused(z, zero + 1.0 / 6227020800.0, zero + 1.0 / 39916800.0);
  even = fused(even, z, zero + 1.0 / 40320.0);
  odd = fused(odd, z, zero + 1.0 / 362880.0);
  even = fused(even, z, zero + 1.0 / 720.0);
  odd = fused(odd, z, zero + 1.0 / 5040.0);
  even = fused(even, z, zero + 1.0 / 24.0);
  odd = fused(odd, z, zero + 1.0 / 120.0);
  even = fused(even, z, zero + 0.5);
  odd = fused(odd, z, zero + 1.0 / 6.0);
  const V minus_one = fused(fused(odd, r, even), z, r);
  const V scale = two_to_the(whole);
  return fused(scale, minus_one, scale);
}

// exp(x); 0 below -708, +inf above 709.
template <typename V>
TR_HD V exponential_lane(V x) {
  const V zero{};
  const V raised = x < -708.0 ? zero - 708.0 : x;
  const V value = exponential_inside(raised > 709.0 ? zero + 709.0 : raised);
  const V above = x > 709.0 ? zero + kInfinity : value;
  return x < -708.0 ? zero : above;
}

// exp(-x) for x >= 0; 0 above 708.
template <typename V>
TR_HD V decay_lane(V x) {
  const V zero{};
  const V value = exponential_inside(zero - (x > 708.0 ? zero + 708.0 : x));
  return x > 708.0 ? zero : value;
}

// E_j = int_0^L s^j exp(-d s) ds for j = 0, 1, 2.
template <typename V>
struct DecayIntegrals {
  V e0, e1, e2;
};

// By the closed forms, which lose digits as x = d L goes to 0; decay = exp(-x).
template <typename V>
TR_HD DecayIntegrals<V> decay_integrals_closed(V x, V decay, V inverse) {
  const V zero{};
  const V done = 1.0 - decay, x_decay = x * decay;
  const V inverse_square = inverse * inverse;
  return {done * inverse, (done - x_decay) * inverse_square,
          fused(zero - x, x_decay, 2.0 * (done - x_decay)) * (inverse_square * inverse)};
}

// For x = d L <= 1/2: E_2 by its series, E_1 and E_0 from it by parts, which adds positive terms only.
template <typename V>
TR_HD DecayIntegrals<V> decay_integrals_series(V x, V length, V decay, V d) {
  const V zero{};
  V p = zero + 1.0 / (479001600.0 * 15.0);
  p = fused(p, zero - x, zero + 1.0 / (39916800.0 * 14.0));
  p = fused(p, zero - x, zero + 1.0 / (3628800.0 * 13.0));
  p = fused(p, zero - x, zero + 1.0 / (362880.0 * 12.0));
  p = fused(p, zero - x, zero + 1.0 / (40320.0 * 11.0));
  p = fused(p, zero - x, zero + 1.0 / (5040.0 * 10.0));
  p = fused(p, zero - x, zero + 1.0 / (720.0 * 9.0));
  p = fused(p, zero - x, zero + 1.0 / (120.0 * 8.0));
  p = fused(p, zero - x, zero + 1.0 / (24.0 * 7.0));
  p = fused(p, zero - x, zero + 1.0 / (6.0 * 6.0));
  p = fused(p, zero - x, zero + 1.0 / (2.0 * 5.0));
  p = fused(p, zero - x, zero + 1.0 / 4.0);
  p = fused(p, zero - x, zero + 1.0 / 3.0);
  const V once = length * decay;
  const V e2 = p * (length * length * length);
  const V e1 = fused(d, e2, length * once) * 0.5;
  return {fused(d, e1, once), e1, e2};
}

// Either, as x tells; x = d L.
TR_HD DecayIntegrals<double> decay_integrals(double d, double length) {
  const double x = d * length, decay = decay_lane(x);
  return x < 0.5 ? decay_integrals_series(x, length, decay, d)
                 : decay_integrals_closed(x, decay, 1.0 / d);
}

}  // namespace topreach::kernels
