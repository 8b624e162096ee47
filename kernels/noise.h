// Noise of the perturbed top-K operator from Philox words: standard normal, Gumbel, logistic and
// Laplace. Their densities and distribution functions are in noise_density.h.
//
// One Philox call serves four sites. A tile of 64 sites takes the 16 counters
// `16 * tile + lane`, lane = 0..15; word w of the counter of `lane` belongs to site
// `64 * tile + 16 * w + lane`. So neighbouring lanes write neighbouring sites, whatever S is.
//
//   normal:   words (0, 1) and (2, 3) go through Box & Muller (1958):
//             (sin, cos)(2 pi u') * sqrt(-2 log u)
//   gumbel:   -log(-log u)
//   logistic: log(u / (1 - u))
//   laplace:  -log u, its sign from the bit of the word that u leaves out
//
// The logarithm, sine and cosine are short polynomials evaluated with explicit fused multiply-adds:
// no libm, hence the same bits on every vector width and on CUDA. Absolute errors are below 3e-7
// (tests/kernels/noise_test.cpp compares with libm in double precision).
#pragma once

#include "philox.h"

namespace topreach::kernels {

enum class Noise : int { kNormal = 0, kGumbel = 1, kLogistic = 2, kLaplace = 3 };

template <Noise value>
struct NoiseKind {
  static constexpr Noise kind = value;
};

// f(NoiseKind<noise>()): from the argument `noise` to a template parameter.
TR_CALLS_ARGUMENT
template <typename F>
TR_HD auto with_noise(Noise noise, const F& f) {
  switch (noise) {
    case Noise::kGumbel: return f(NoiseKind<Noise::kGumbel>());
    case Noise::kLogistic: return f(NoiseKind<Noise::kLogistic>());
    case Noise::kLaplace: return f(NoiseKind<Noise::kLaplace>());
    default: return f(NoiseKind<Noise::kNormal>());
  }
}

constexpr int kTileSites = 64;  // sites served by one tile of counters
constexpr int kTileLanes = 16;  // counters in a tile

// u in (0, 1] with 31 bits, evenly spaced; fine spacing near 0 is kept.
TR_HD float open_unit(uint32_t word) {
  return fused(float(int32_t(word >> 1)), 0x1p-31f, 0x1p-32f);
}

// log(1 + f) for a mantissa 1 + f in [sqrt(1/2), sqrt(2)]: 2 atanh(f / (2 + f)).
TR_HD float log_mantissa(float f) {
  const float s = quotient(f, f + 2.0f);
  const float z = s * s;
  float p = 0.18181818f;
  p = fused(p, z, 0.22222222f);
  p = fused(p, z, 0.28571429f);
  p = fused(p, z, 0.4f);
  p = fused(p, z, 0.66666667f);
  return fused(s * z, p, s + s);
}

// log(x) for finite x > 0 (normal range).
TR_HD float natural_log(float x) {
  const uint32_t shifted = bits_of(x) - 0x3F3504F3u;  // sqrt(1/2) moves to a power of two
  const int32_t exponent = int32_t(shifted) >> 23;
  const float mantissa = float_of((shifted & 0x007FFFFFu) + 0x3F3504F3u);
  return fused(float(exponent), 0.69314718f, log_mantissa(mantissa - 1.0f));
}

// -log(u) of the uniform u that `word` stands for; near u = 1 from 1 - u, which `word` gives directly.
TR_HD float exponential(uint32_t word) {
  const float u = open_unit(word);
  const float complement = open_unit(~word);
  const float near_one = -log_mantissa(-complement);
  const float elsewhere = -natural_log(u);
  return complement < 0.25f ? near_one : elsewhere;
}

// sin and cos of 2 pi word / 2^32. Polynomials on [-pi/4, pi/4] with the coefficients of Cephes'
// sinf and cosf (Moshier, netlib).
struct SineCosine {
  float sine, cosine;
};

TR_HD SineCosine sine_cosine(uint32_t word) {
  const uint32_t quadrant = (word + 0x20000000u) >> 30;
  const float r = float(int32_t(word << 2)) * 0x1.921fb6p-32f;  // pi/2 * 2^-32
  const float z = r * r;
  float s = fused(fused(-1.9515296e-4f, z, 8.3321609e-3f), z, -1.6666655e-1f);
  s = fused(s * z, r, r);
  float c = fused(fused(2.4433157e-5f, z, -1.3887316e-3f), z, 4.1666646e-2f);
  c = fused(c, z * z, fused(-0.5f, z, 1.0f));
  const bool swapped = (quadrant & 1u) != 0;
  const float a = swapped ? c : s;
  const float b = swapped ? s : c;
  return {(quadrant & 2u) != 0 ? -a : a, ((quadrant + 1u) & 2u) != 0 ? -b : b};
}

// log(u / (1 - u)); `word` gives both u and 1 - u directly, without cancellation.
TR_HD float logit(uint32_t word) {
  return natural_log(quotient(open_unit(word), open_unit(~word)));
}

// Flips the sign of a if the last bit of `word` is set.
TR_HD float with_sign(float a, uint32_t word) { return float_of(bits_of(a) ^ (word << 31)); }

// The four noise values z of one counter, for the sites of words 0 to 3.
struct FourNoises {
  float z0, z1, z2, z3;
};

template <Noise kind>
TR_HD FourNoises noise_of_words(PhiloxWords w) {
  if constexpr (kind == Noise::kNormal) {
    const float r = square_root(-2.0f * natural_log(open_unit(w.x)));
    const float q = square_root(-2.0f * natural_log(open_unit(w.z)));
    const SineCosine a = sine_cosine(w.y), b = sine_cosine(w.w);
    return {r * a.sine, r * a.cosine, q * b.sine, q * b.cosine};
  } else if constexpr (kind == Noise::kGumbel) {
    return {-natural_log(exponential(w.x)), -natural_log(exponential(w.y)),
            -natural_log(exponential(w.z)), -natural_log(exponential(w.w))};
  } else if constexpr (kind == Noise::kLogistic) {
    return {logit(w.x), logit(w.y), logit(w.z), logit(w.w)};
  } else {
    return {with_sign(exponential(w.x), w.x), with_sign(exponential(w.y), w.y),
            with_sign(exponential(w.z), w.z), with_sign(exponential(w.w), w.w)};
  }
}

// Their scores -d log f(z) / dz, the weights of the score-function gradient: z itself for the
// normal; 1 - exp(-z) for the Gumbel, whose exp(-z) is the exponential that z was made of;
// tanh(z / 2) = 2u - 1 for the logistic; the sign for the Laplace.
template <Noise kind>
TR_HD FourNoises score_of_words(PhiloxWords w) {
  if constexpr (kind == Noise::kNormal) {
    return noise_of_words<kind>(w);
  } else if constexpr (kind == Noise::kGumbel) {
    return {1.0f - exponential(w.x), 1.0f - exponential(w.y), 1.0f - exponential(w.z),
            1.0f - exponential(w.w)};
  } else if constexpr (kind == Noise::kLogistic) {
    return {open_unit(w.x) - open_unit(~w.x), open_unit(w.y) - open_unit(~w.y),
            open_unit(w.z) - open_unit(~w.z), open_unit(w.w) - open_unit(~w.w)};
  } else {
    return {with_sign(1.0f, w.x), with_sign(1.0f, w.y), with_sign(1.0f, w.z), with_sign(1.0f, w.w)};
  }
}

TR_HD PhiloxWords noise_words(PhiloxKey key, uint32_t site_block, uint32_t draw, uint32_t row) {
  return philox4x32(key, {site_block, draw, row, kTopKNoise});
}

template <Noise kind>
TR_HD FourNoises noise_of_counter(PhiloxKey key, uint32_t site_block, uint32_t draw, uint32_t row) {
  return noise_of_words<kind>(noise_words(key, site_block, draw, row));
}

}  // namespace topreach::kernels
