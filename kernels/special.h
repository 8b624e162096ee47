// Elementary and special functions in double precision.
//
// They use only correctly rounded operations (+ - * / and bit casts), no libm, and selects instead of
// branches where possible. So they give the same bits on every instruction set and on CUDA (compiled
// without contraction, see platform.h), and loops over them vectorise. Relative errors are a few 1e-16
// unless stated; tests/kernels/special_test.cpp compares with libm and closed forms.
#pragma once

#include "platform.h"

namespace topreach::kernels {

TR_HD uint64_t bits_of(double a) {
#if defined(__CUDA_ARCH__)
  return uint64_t(__double_as_longlong(a));
#else
  return __builtin_bit_cast(uint64_t, a);
#endif
}

TR_HD double double_of(uint64_t a) {
#if defined(__CUDA_ARCH__)
  return __longlong_as_double(int64_t(a));
#else
  return __builtin_bit_cast(double, a);
#endif
}

TR_HD double square_root(double a) {
#if defined(__CUDA_ARCH__)
  return __dsqrt_rn(a);
#else
  return __builtin_sqrt(a);
#endif
}

constexpr double kInfinity = __builtin_inf(), kNaN = __builtin_nan("");

// log(x): 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)], then the atanh series with the minimax
// coefficients of fdlibm's __ieee754_log. x = 0 gives -inf, +inf gives +inf, x < 0 and NaN give
// NaN.
TR_HD double natural_log(double x) {
  const bool tiny = x < 0x1p-1022;
  const double scaled = tiny ? x * 0x1p54 : x;
  const uint64_t shifted = bits_of(scaled) - 0x3FE6A09E667F3BCDull;
  const double exponent = double(int32_t(uint32_t(shifted >> 32)) >> 20) - (tiny ? 54.0 : 0.0);
  const double f = double_of((shifted & 0x000FFFFFFFFFFFFFull) + 0x3FE6A09E667F3BCDull) - 1.0;
  const double s = f / (2.0 + f);
  const double z = s * s;
  double p = 1.479819860511658591e-01;
  p = p * z + 1.531383769920937332e-01;
  p = p * z + 1.818357216161805012e-01;
  p = p * z + 2.222219843214978396e-01;
  p = p * z + 2.857142874366239149e-01;
  p = p * z + 3.999999999940941908e-01;
  p = p * z + 6.666666666666735130e-01;
  const double half_square = 0.5 * f * f;
  const double low = exponent * 1.90821492927058770002e-10;
  const double value = exponent * 6.93147180369123816490e-01 -
                       ((half_square - (s * (half_square + p * z) + low)) - f);
  const double edge = x == 0.0 ? -kInfinity : (x < 0.0 ? kNaN : x);
  return (x > 0.0) & (x < kInfinity) ? value : edge;
}

// exp(x); 0 below -745.2, +inf above 709.8. Taylor polynomial on |r| <= log(2) / 2.
TR_HD double exponential_of(double x) {
  const double inside = x < -760.0 ? -760.0 : (x > 720.0 ? 720.0 : x);
  const double magic = 0x1.8p52;
  const double rounded = inside * 1.44269504088896338700e+00 + magic;
  const double k = rounded - magic;
  const double r = (inside - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  const double mantissa = 1.0 + (r + r * r * p);
  // 2^k in two factors, so that neither leaves the normal range.
  const uint64_t whole = bits_of(rounded) - bits_of(magic);  // k, in two's complement
  const uint64_t half = bits_of(k * 0.5 + magic) - bits_of(magic);
  const double value =
      mantissa * double_of((half + 1023) << 52) * double_of((whole - half + 1023) << 52);
  return x == x ? value : x;
}

// log(1 + u) for u >= 0.
TR_HD double log1p_positive(double u) {
  const double w = 1.0 + u;
  const double value = natural_log(w) + (u - (w - 1.0)) / w;
  return w < kInfinity ? value : w;
}

// log(1 + exp(z)), accurate to its last digits however small it is.
TR_HD double softplus_of(double z) {
  const double tail = log1p_positive(exponential_of(z < 0.0 ? z : -z));
  return z > 0.0 ? z + tail : tail;
}

// 1 / (1 + exp(-z)).
TR_HD double sigmoid_of(double z) {
  const double e = exponential_of(z < 0.0 ? z : -z);
  return (z < 0.0 ? e : 1.0) / (1.0 + e);
}

// phi(x), the standard normal density.
TR_HD double normal_pdf(double x) {
  return 3.98942280401432678e-01 * exponential_of(-0.5 * (x * x));
}

// Phi(x), the standard normal distribution function; relative error below 1e-15 (1 + x^2) in the lower
// tail. A Chebyshev fit of (y + 4) erfcx(y / sqrt 2) / 2 in u = (y - 4) / (y + 4), y = |x|.
TR_HD double normal_cdf(double x) {
  const double y = x < 0.0 ? -x : x;
  const double inverse = 1.0 / (y + 4.0);
  const double u = y < 1e15 ? (y - 4.0) * inverse : 1.0;
  double p = -1.77374050439491076e-09;
  p = p * u - 1.28458188699252687e-09;
  p = p * u + 1.65360447755064022e-08;
  p = p * u + 1.96083391409395143e-08;
  p = p * u - 7.98985075256225943e-08;
  p = p * u - 1.62319176804735658e-07;
  p = p * u + 2.66232789888356219e-07;
  p = p * u + 1.02709488071143413e-06;
  p = p * u - 6.26206876695959953e-07;
  p = p * u - 5.92297982767476049e-06;
  p = p * u + 7.15273750930881502e-07;
  p = p * u + 3.51456445858238476e-05;
  p = p * u - 1.90790748839367554e-06;
  p = p * u - 2.31095150787687413e-04;
  p = p * u + 1.33344258903728374e-04;
  p = p * u + 1.63081848788236431e-03;
  p = p * u - 3.47969236289035573e-03;
  p = p * u - 7.54018896913731269e-03;
  p = p * u + 6.03965748907624028e-02;
  p = p * u - 1.86521857959567189e-01;
  p = p * u + 3.87137400742216531e-01;
  p = p * u - 6.07896641971893081e-01;
  p = p * u + 7.55285130415751516e-01;
  const double tail = exponential_of(-0.5 * (x * x)) * (p * inverse);
  return x > 0.0 ? 1.0 - tail : tail;
}

// The angle of the point (x, y), x >= 0 and y >= 0 and not both zero, from the x axis. Chebyshev fit of
// atan(q) / q in q^2 on |q| <= tan(pi/8).
TR_HD double angle_of(double x, double y) {
  const bool steep = y > x;
  const double u = steep ? x : y, v = steep ? y : x;
  const bool folded = u > 0.41421356237309503 * v;
  const double q = (folded ? u - v : u) / (folded ? u + v : v);
  const double z = q * q;
  double p = -1.78038963948125642e-02;
  p = p * z + 3.79639031611108332e-02;
  p = p * z - 5.03504979531243929e-02;
  p = p * z + 5.84686675227513927e-02;
  p = p * z - 6.66295024603679176e-02;
  p = p * z + 7.69204519456148095e-02;
  p = p * z - 9.09089680147281282e-02;
  p = p * z + 1.11111107446570989e-01;
  p = p * z - 1.42857142792449682e-01;
  p = p * z + 1.99999999999408373e-01;
  p = p * z - 3.33333333333331205e-01;
  const double below = q + q * (z * p);
  const double angle = folded ? below + 7.85398163397448310e-01 : below;
  return steep ? 1.57079632679489662 - angle : angle;
}

// sin and cos of x, |x| < 1e6: Taylor polynomials on [-pi/4, pi/4], pi/2 in three pieces. Absolute
// error below 1e-15 (1 + |x| 1e-5).
struct SineCosineDouble {
  double sine, cosine;
};

TR_HD SineCosineDouble sine_cosine_of(double x) {
  const double magic = 0x1.8p52;
  const double rounded = x * 6.36619772367581382e-01 + magic;
  const double n = rounded - magic;
  const uint64_t quadrant = bits_of(rounded) & 3;
  const double r = ((x - n * 1.57079632673412561e+00) - n * 6.07710050630396598e-11) -
                   n * 2.02226624879595063e-21;
  const double z = r * r;
  double s = 1.0 / 355687428096000.0;
  s = s * z - 1.0 / 1307674368000.0;
  s = s * z + 1.0 / 6227020800.0;
  s = s * z - 1.0 / 39916800.0;
  s = s * z + 1.0 / 362880.0;
  s = s * z - 1.0 / 5040.0;
  s = s * z + 1.0 / 120.0;
  s = s * z - 1.0 / 6.0;
  s = r + r * (z * s);
  double c = 1.0 / 20922789888000.0;
  c = c * z - 1.0 / 87178291200.0;
  c = c * z + 1.0 / 479001600.0;
  c = c * z - 1.0 / 3628800.0;
  c = c * z + 1.0 / 40320.0;
  c = c * z - 1.0 / 720.0;
  c = c * z + 1.0 / 24.0;
  c = 1.0 - 0.5 * z + z * z * c;
  const bool swapped = (quadrant & 1) != 0;
  const double a = swapped ? c : s, b = swapped ? s : c;
  return {(quadrant & 2) != 0 ? -a : a, ((quadrant + 1) & 2) != 0 ? -b : b};
}

// log(1 + d) - d for |d| <= 0.4, with r = d / (2 + d): -d r + 2 r^3 (1/3 + r^2/5 + ...).
TR_HD double log1p_minus(double d) {
  const double r = d / (2.0 + d);
  const double z = r * r;
  double p = 1.0 / 27.0;
  p = p * z + 1.0 / 25.0;
  p = p * z + 1.0 / 23.0;
  p = p * z + 1.0 / 21.0;
  p = p * z + 1.0 / 19.0;
  p = p * z + 1.0 / 17.0;
  p = p * z + 1.0 / 15.0;
  p = p * z + 1.0 / 13.0;
  p = p * z + 1.0 / 11.0;
  p = p * z + 1.0 / 9.0;
  p = p * z + 1.0 / 7.0;
  p = p * z + 1.0 / 5.0;
  p = p * z + 1.0 / 3.0;
  return 2.0 * r * z * p - d * r;
}

// (x + 1)(x + 2) ... (x + 8) for small x.
TR_HD double rising_eight(double x) {
  return ((x + 1.0) * (x + 8.0)) * ((x + 2.0) * (x + 7.0)) * ((x + 3.0) * (x + 6.0)) *
         ((x + 4.0) * (x + 5.0));
}

// Stirling's remainder: lgamma(x + 1) - (x + 1/2) log x + x - log(2 pi) / 2, for x > 0; below 8
// from x + 8. Absolute error below 1e-14.
TR_HD double stirling_remainder(double x) {
  const bool small = x < 8.0;
  const double w = small ? x + 8.0 : x;
  const double inverse = 1.0 / w, z = inverse * inverse;
  double p = 1.0 / 156.0;
  p = p * z - 691.0 / 360360.0;
  p = p * z + 1.0 / 1188.0;
  p = p * z - 1.0 / 1680.0;
  p = p * z + 1.0 / 1260.0;
  p = p * z - 1.0 / 360.0;
  p = p * z + 1.0 / 12.0;
  const double far = p * inverse;
  const double near = far + ((w + 0.5) * natural_log(w) - 8.0) -
                      natural_log(rising_eight(small ? x : 1.0)) - (x + 0.5) * natural_log(x);
  return small ? near : far;
}

// digamma(x) - log(w), with w = x + 8 for x < 8 and w = x otherwise.
TR_HD double digamma_remainder(double x) {
  const bool small = x < 8.0;
  const double w = small ? x + 8.0 : x;
  const double inverse = 1.0 / w, z = inverse * inverse;
  double p = -1.0 / 12.0;
  p = p * z + 691.0 / 32760.0;
  p = p * z - 1.0 / 132.0;
  p = p * z + 1.0 / 240.0;
  p = p * z - 1.0 / 252.0;
  p = p * z + 1.0 / 120.0;
  p = p * z - 1.0 / 12.0;
  const double far = p * z - 0.5 * inverse;
  // Sum of 1 / (x + j), j = 0..7, in pairs.
  const double s = small ? x : 1.0;
  const double t = 2.0 * s + 7.0;
  const double shift = (t / (s * (s + 7.0)) + t / ((s + 1.0) * (s + 6.0))) +
                       (t / ((s + 2.0) * (s + 5.0)) + t / ((s + 3.0) * (s + 4.0)));
  return small ? far - shift : far;
}

// digamma(n + y) - digamma(n) for n > 0, y >= 0.
TR_HD double digamma_difference(double n, double y) {
  const double total = n + y;
  const double from = n < 8.0 ? n + 8.0 : n, to = total < 8.0 ? total + 8.0 : total;
  // `to` may lie below `from` only when n < 8 <= n + y < n + 8.
  const bool shifted_apart = (n < 8.0) & !(total < 8.0);
  const double logs = shifted_apart ? natural_log(to / from) : log1p_positive(y / from);
  return logs + (digamma_remainder(total) - digamma_remainder(n));
}

// lgamma(k + 1) for a whole number k >= 0, through Stirling's series at k + 1 (8 below 8).
TR_HD double log_factorial(double k) {
  const double x = k > 0.0 ? k : 1.0;
  const double value =
      stirling_remainder(x) + (x + 0.5) * natural_log(x) - x + 9.18938533204672741780e-01;
  return k > 0.0 ? value : 0.0;
}

}  // namespace topreach::kernels
