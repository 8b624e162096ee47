// Negative binomial counts: sampling and log-probability.
//
// y ~ NegBin(total_count n, logits z) in torch's convention, p = sigmoid(z):
//   P(y) = Gamma(n + y) / (Gamma(n) y!) (1 - p)^n p^y,  mean n e^z,  variance n e^z (1 + e^z)
// [Decision-aware training, Eq. 15: n = mu_st, p = q]. n >= 0 is any real number; n = 0 is the
// point mass at 0.
//
// Sampling. All draws of one (row, site) share n and z, so the cdf is tabulated once, by the
// recurrence P(k+1) / P(k) = (n + k) p / (k + 1), from 7.5 standard deviations below the mean (or
// 0) until the rest of the tail is below 2^-36, and 32-bit uniforms are looked up in it: draw m of
// (row, site) takes word m % 4 of the counter (site, m / 4, row, kNegBinUniform). The cdf is kept
// with 32 bits, so every probability is right to 2^-32.
//
// If the table would be longer than kTableEntries, a draw is Poisson(Gamma(n) e^z) by exact rejection
// on separate counters (kNegBinRejection): Marsaglia & Tsang (2000) for the gamma, with Stuart's boost
// below shape 1; Hoermann's PTRS (1993), or inversion below a rate of 10, for the Poisson.
//
// A draw depends on (n, z, key, row, site, m) alone. Cost on one core at mean 1 and 100 draws a site:
// 3 ns a draw, the table included; by rejection 0.1 to 0.2 us.
//
// Log-probability. For whole y below kTableValues, sums over j < y of log((n + j) p / (j + 1)) and
// 1 / (n + j), tabulated per site and shared by all draws; otherwise Loader's saddle-point form
// (2000), free of cancellation whatever the size of n and y.
#pragma once

#include <cstdint>

#include "philox.h"
#include "special.h"

namespace topreach::kernels {

constexpr int kTableLanes = 16;     // sites tabulated side by side
constexpr int kTableEntries = 512;  // longest cdf table
constexpr int kTableBlock = 8;      // entries between two checks of the remaining tail
constexpr int kTableValues = 64;    // log-probability: values below this are tabulated

// ------------------------------------------------------------------------------- cdf tables

// The pmf recurrence of one (row, site), up to a constant factor.
struct NegBinRecurrence {
  double n, p;
  double k;        // the value that `mass` belongs to
  double mass;     // unnormalised P(k); 0 once the tail is done
  double total;    // unnormalised P(first) + ... + P(k)
  double first;    // smallest value of the table
  bool tabulated;  // false: draws by rejection
};

TR_HD NegBinRecurrence negbin_start(double n, double z) {
  const double odds = exponential_of(z);
  const double p = sigmoid_of(z);
  const double mean = n * odds;
  const double deviation = square_root(mean * (1.0 + odds));
  const double low = mean - 7.5 * deviation;
  const double width =
      (mean < 7.5 * deviation ? mean : 7.5 * deviation) + 7.0 * deviation + 24.0 * (1.0 + odds);
  const bool tabulated = (width <= double(kTableEntries)) | (n == 0.0) | (odds == 0.0);
  const double first = tabulated & (low > 0.0) ? double(int32_t(low)) : 0.0;
  return {tabulated ? n : 0.0, p, first, 1.0, 1.0, first, tabulated};
}

// From k to k + 1.
TR_HD void negbin_advance(NegBinRecurrence& r) {
  r.mass = r.mass * ((r.n + r.k) * r.p / (r.k + 1.0));
  r.k = r.k + 1.0;
  r.total = r.total + r.mass;
}

// To be called every kTableBlock entries: stops the recurrence once what is left of the tail, at
// most mass * ratio / (1 - ratio), is below 2^-36 of the total. Returns whether it has stopped.
TR_HD bool negbin_stop(NegBinRecurrence& r) {
  const double next = (r.n + r.k) * r.p / (r.k + 1.0);
  const double ratio = next > r.p ? next : r.p;
  const bool done = r.mass * ratio <= 0x1p-36 * (1.0 - ratio) * r.total;
  r.mass = done ? 0.0 : r.mass;
  return done;
}

// The threshold of one entry, 2^32 / total times the cumulative mass, less 2^31 + 1: a draw exceeds
// the entry's value iff its word, with the top bit flipped and read as signed, is larger.
TR_HD int32_t negbin_threshold(double cumulative, double scale) {
  const double scaled = cumulative * scale;
  const double clipped = scaled < 1.0 ? 1.0 : (scaled > 0x1p32 ? 0x1p32 : scaled);
  return int32_t(uint32_t(bits_of(clipped - 2147483649.0 + 0x1.8p52)));  // rounds to nearest
}

TR_HD int32_t flipped(uint32_t word) { return int32_t(word ^ 0x80000000u); }

TR_HD PhiloxWords negbin_words(PhiloxKey key, uint32_t site, uint32_t draw_block, uint32_t row) {
  return philox4x32(key, {site, draw_block, row, kNegBinUniform});
}

// ------------------------------------------------------------------------------- rejection

enum RejectionPhase : uint32_t { kBoost = 0, kGamma = 1, kPoisson = 2 };

struct NegBinCounter {
  PhiloxKey key;
  uint32_t site, draw, row;
};

TR_HD PhiloxWords rejection_words(const NegBinCounter& c, RejectionPhase phase, uint32_t attempt) {
  return philox4x32(c.key, {c.site, c.draw, c.row,
                            uint32_t(kNegBinRejection) | (uint32_t(phase) << 8) | (attempt << 10)});
}

// Uniform in (0, 1) with 53 bits.
TR_HD double unit_of(uint32_t high, uint32_t low) {
  const uint64_t bits = (uint64_t(high) << 32 | low) >> 12;
  return (double(int64_t(bits)) + 0.5) * 0x1p-52;
}

// Rejections beyond this many have a probability below 2^-60; the bound keeps every loop finite.
constexpr uint32_t kMaxAttempts = 1u << 10;

// log of a Gamma(shape) variate, shape > 0 [Marsaglia & Tsang 2000].
TR_HD double log_gamma_variate(const NegBinCounter& c, double shape) {
  const bool boosted = shape < 1.0;
  const double d = (boosted ? shape + 1.0 : shape) - 1.0 / 3.0;
  const double slope = 1.0 / square_root(9.0 * d);
  double log_v = 0.0;
  for (uint32_t attempt = 0; attempt < kMaxAttempts; ++attempt) {
    const PhiloxWords w = rejection_words(c, kGamma, attempt);
    // A normal by the polar method, its own rejection included.
    const double a = (double(w.x) + 0.5) * 0x1p-31 - 1.0, b = (double(w.y) + 0.5) * 0x1p-31 - 1.0;
    const double s = a * a + b * b;
    if (s >= 1.0) continue;
    const double normal = a * square_root(-2.0 * natural_log(s) / s);
    const double t = 1.0 + slope * normal;
    if (t <= 0.0) continue;
    const double v = t * t * t;
    const double log_of_v = natural_log(v);
    if (natural_log(unit_of(w.z, w.w)) < 0.5 * normal * normal + d * ((1.0 - v) + log_of_v)) {
      log_v = log_of_v;
      break;
    }
  }
  double value = natural_log(d) + log_v;
  if (boosted) {
    const PhiloxWords w = rejection_words(c, kBoost, 0);
    value += natural_log(unit_of(w.x, w.y)) / shape;
  }
  return value;
}

// log P(k) of a Poisson with a rate of at least 10, without cancellation [Loader 2000].
TR_HD double poisson_log_pmf(double k, double rate) {
  if (k == 0.0) return -rate;
  const double d = (rate - k) / k;
  const double deviance =
      (d > -0.4) & (d < 0.4) ? -k * log1p_minus(d) : rate - k - k * natural_log(rate / k);
  return -deviance - stirling_remainder(k) - 9.18938533204672741780e-01 - 0.5 * natural_log(k);
}

TR_HD double floor_of(double x) {  // for |x| < 2^62
  const double whole = double(int64_t(x));
  return whole > x ? whole - 1.0 : whole;
}

TR_HD double poisson_variate(const NegBinCounter& c, double rate) {
  if (!(rate < 0x1p52)) return rate;  // the spacing of doubles is then above 1
  if (rate < 10.0) {
    const PhiloxWords w = rejection_words(c, kPoisson, 0);
    double u = unit_of(w.x, w.y), mass = exponential_of(-rate), k = 0.0;
    while (u > mass && k < 120.0) {
      u -= mass;
      k += 1.0;
      mass = mass * rate / k;
    }
    return k;
  }
  // PTRS, transformed rejection with squeeze.
  const double b = 0.931 + 2.53 * square_root(rate);
  const double a = -0.059 + 0.02483 * b;
  const double inverse_alpha = 1.1239 + 1.1328 / (b - 3.4);
  const double v_r = 0.9277 - 3.6224 / (b - 2.0);
  for (uint32_t attempt = 0; attempt < kMaxAttempts; ++attempt) {
    const PhiloxWords w = rejection_words(c, kPoisson, attempt);
    const double u = unit_of(w.x, w.y) - 0.5, v = unit_of(w.z, w.w);
    const double us = 0.5 - (u < 0.0 ? -u : u);
    const double place = (2.0 * a / us + b) * u + rate + 0.43;
    if (!(place > -0x1p62 && place < 0x1p62)) continue;  // us near 0: rejected below in any case
    const double k = floor_of(place);
    if (us >= 0.07 && v <= v_r) return k;
    if (k < 0.0 || (us < 0.013 && v > us)) continue;
    if (natural_log(v * inverse_alpha / (a / (us * us) + b)) <= poisson_log_pmf(k, rate)) return k;
  }
  return floor_of(rate);
}

// One draw by rejection.
TR_HD double negbin_by_rejection(const NegBinCounter& c, double n, double z) {
  return poisson_variate(c, exponential_of(log_gamma_variate(c, n) + z));
}

// ------------------------------------------------------------------------------- log-probability

// Terms that one site's log-probabilities share.
struct NegBinSite {
  double n, z;
  double p, q;          // sigmoid(z), sigmoid(-z)
  double log_p, log_q;  // -softplus(-z), -softplus(z)
};

TR_HD NegBinSite negbin_site(double n, double z) {
  return {n, z, sigmoid_of(z), sigmoid_of(-z), -softplus_of(-z), -softplus_of(z)};
}

// n log(1 - p), with 0 log 0 = 0.
TR_HD double negbin_log_zero(const NegBinSite& s) { return s.n == 0.0 ? 0.0 : s.n * s.log_q; }

// log(P(j + 1) / P(j)); log p is added separately if p is not a normal number.
TR_HD double negbin_log_ratio(const NegBinSite& s, double j) {
  const bool normal = s.p > 0x1p-900;
  const double factor = normal ? s.p : 1.0;
  return natural_log((s.n + j) * factor / (j + 1.0)) + (normal ? 0.0 : s.log_p);
}

// x log(x / m) + m - x, with d = (m - x) / x and the most accurate log(m / x) available.
TR_HD double deviance_part(double x, double d, double log_quotient) {
  const bool close = (d > -0.4) & (d < 0.4);
  return x * (close ? -log1p_minus(close ? d : 0.0) : d - log_quotient);
}

// log P(y) for any real y >= 0.
TR_HD double negbin_log_prob_of(const NegBinSite& s, double y) {
  const double total = s.n + y;
  const double yy = y > 0.0 ? y : 1.0, nn = s.n > 0.0 ? s.n : 1.0;
  const double excess = s.n * s.p - y * s.q;
  const double log_total = natural_log(total), log_n = natural_log(nn), log_y = natural_log(yy);
  const double deviance = deviance_part(nn, -excess / nn, log_total + s.log_q - log_n) +
                          deviance_part(yy, excess / yy, log_total + s.log_p - log_y);
  const double value =
      (stirling_remainder(total) - stirling_remainder(nn) - stirling_remainder(yy)) -
      9.18938533204672741780e-01 + 0.5 * (log_n - log_y - log_total) - deviance;
  const double positive = s.n > 0.0 ? value : (s.n == 0.0 ? -kInfinity : s.n);
  const double impossible = (s.p == 0.0) & (s.log_p == -kInfinity) ? -kInfinity : positive;
  return y > 0.0 ? impossible : negbin_log_zero(s);
}

// d log P(y) / d n - log(1 - p): digamma(n + y) - digamma(n).
TR_HD double negbin_slope_of(const NegBinSite& s, double y) {
  return y > 0.0 ? digamma_difference(s.n, y) : 0.0;
}

// ------------------------------------------------------------------------------- CPU loops

template <typename T>
struct NegBinSampling {
  const T* total_count;  // [rows, sites], finite, >= 0
  const T* logits;       // [rows, sites], below +inf
  int64_t rows, sites, samples;
  PhiloxKey key;
  int64_t row_offset;  // global number of row 0
  T* counts;           // [samples, rows, sites]
};

template <typename T>
struct NegBinLikelihood {
  const T* value;        // [outer, inner], finite, >= 0
  const T* total_count;  // [inner], >= 0
  const T* logits;       // [inner]
  int64_t outer, inner;
};

constexpr int64_t kNegBinSampleScratch =
    kTableEntries * kTableLanes * int64_t(sizeof(double) + sizeof(int32_t));
constexpr int64_t kNegBinLikelihoodScratch = kTableValues * kTableLanes * int64_t(sizeof(double));

inline int64_t negbin_tiles(int64_t sites) { return (sites + kTableLanes - 1) / kTableLanes; }

// Work on tiles [begin, end): tiles of kTableLanes sites, those of row 0 first; `scratch` is
// 64-byte aligned. The same bits on every instruction set.
template <typename T>
struct NegBinCpu {
  void (*sample)(const NegBinSampling<T>& problem, int64_t begin, int64_t end, void* scratch);
  // log_prob [outer, inner].
  void (*log_prob)(const NegBinLikelihood<T>& problem, int64_t begin, int64_t end, T* log_prob,
                   void* scratch);
  // grad [outer, inner] -> sums over outer, d_total_count and d_logits [inner].
  void (*backward)(const NegBinLikelihood<T>& problem, int64_t begin, int64_t end, const T* grad,
                   T* d_total_count, T* d_logits, void* scratch);
};

template <typename T>
const NegBinCpu<T>& negbin_cpu();

}  // namespace topreach::kernels
