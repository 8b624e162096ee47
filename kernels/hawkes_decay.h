// Exponential decay, for one double or for a vector of them: exp, and the integrals of s^j exp(-d s).
//
// Written with fused multiply-adds and no libm, so that a lane of a vector gets the same bits as a scalar.
// V is double, or a vector type for which `fused` and `two_to_the` are overloaded
// (cpu/hawkes_lanes.h). tests/kernels/hawkes_test.cpp compares with libm and with quadrature.
#pragma once

#include "special.h"

namespace topreach::kernels {

constexpr double kRoundToWhole =
    0x1.8p52;  // x + this has x, rounded to a whole number, in its low bits

TR_HD double two_to_the(double whole) {  // 2^k of k + kRoundToWhole, -1022 <= k <= 1023
  return double_of((bits_of(whole) + 1023) << 52);
}

TR_HD double lesser(double a, double b) { return a < b ? a : b; }
TR_HD double greater(double a, double b) { return a > b ? a : b; }

// exp(x) for -708 <= x <= 709, relative error below 3e-16: 1 + r + r^2 q(r) on |r| <= log(2) / 2, with q the
// polynomial of degree 9 through (exp(r) - 1 - r) / r^2 at Chebyshev's points. Even and odd powers are summed
// separately, which shortens the dependency chains.
template <typename V>
TR_HD V exponential_inside(V x) {
  const V zero{};
  const V whole = fused(x, zero + 1.44269504088896338700e+00, zero + kRoundToWhole);
  const V k = whole - kRoundToWhole;
  const V high = fused(k, zero - 6.93147180369123816490e-01, x);
  const V r = fused(k, zero - 1.90821492927058770002e-10, high);
  const V z = r * r;
  V even = fused(z, zero + 2.7620088445409746e-07, zero + 2.4801521295954376e-05);
  V odd = fused(z, zero + 2.510038549551032e-08, zero + 2.7557268459997064e-06);
  even = fused(even, z, zero + 0.0013888888917213717);
  odd = fused(odd, z, zero + 0.00019841269863053618);
  even = fused(even, z, zero + 0.04166666666662413);
  odd = fused(odd, z, zero + 0.008333333333330062);
  even = fused(even, z, zero + 0.5000000000000001);
  odd = fused(odd, z, zero + 0.16666666666666669);
  const V minus_one = fused(fused(odd, r, even), z, r);
  const V scale = two_to_the(whole);
  return fused(scale, minus_one, scale);
}

// exp(x); 0 below -708, +inf above 709.
TR_HD double exponential_lane(double x) {
  const double value = exponential_inside(lesser(greater(x, -708.0), 709.0));
  return x < -708.0 ? 0.0 : (x > 709.0 ? kInfinity : (x == x ? value : x));
}

// exp(x) with x clamped to [-708, 709]: 3e-308 serves as 0.
template <typename V>
TR_HD V exponential_cut(V x) {
  const V zero{};
  return exponential_inside(lesser(greater(x, zero - 708.0), zero + 709.0));
}

// exp(-x) for x >= 0, clamped in the same way.
template <typename V>
TR_HD V decay_lane(V x) {
  const V zero{};
  return exponential_inside(zero - lesser(x, zero + 708.0));
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

// The form that suits x = d L.
TR_HD DecayIntegrals<double> decay_integrals(double d, double length) {
  const double x = d * length, decay = decay_lane(x);
  return x < 0.5 ? decay_integrals_series(x, length, decay, d)
                 : decay_integrals_closed(x, decay, 1.0 / d);
}

}  // namespace topreach::kernels
