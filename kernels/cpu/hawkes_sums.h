// Loops over many events at once: sums of coefficients times marks, and the events' exponentials.
#pragma once

#include "hawkes_lanes.h"

#include "../hawkes.h"

namespace topreach::kernels::TR_ISA {
namespace {

// Adds to sum[r] the products of values[e] with mark r of event e, at[e step + r], for `width` values of r.
template <int width>
TR_INLINE void sum_some(const double* at, int64_t step, int count, const Lane* values, Lane* sum) {
  Lane s[width];
#pragma GCC unroll 8
  for (int r = 0; r < width; ++r) s[r] = sum[r];
  for (int e = 0; e < count; ++e, at += step) {
    const Lane c = values[e];
#pragma GCC unroll 8
    for (int r = 0; r < width; ++r) s[r] = fused(c, all_lanes(at[r]), s[r]);
  }
#pragma GCC unroll 8
  for (int r = 0; r < width; ++r) sum[r] = s[r];
}

// The same for all marks with number `from` or above.
void sum_with_marks(const double* at, int64_t step, int64_t q, int64_t from, int count,
                    const Lane* values, Lane* sum) {
  int64_t r = from;
  for (; r + 8 <= q; r += 8) sum_some<8>(at + r, step, count, values, sum + r);
  switch (q - r) {
    case 7: return sum_some<7>(at + r, step, count, values, sum + r);
    case 6: return sum_some<6>(at + r, step, count, values, sum + r);
    case 5: return sum_some<5>(at + r, step, count, values, sum + r);
    case 4: return sum_some<4>(at + r, step, count, values, sum + r);
    case 3: return sum_some<3>(at + r, step, count, values, sum + r);
    case 2: return sum_some<2>(at + r, step, count, values, sum + r);
    case 1: return sum_some<1>(at + r, step, count, values, sum + r);
    default: return;
  }
}

// The same for two rows of values at once.
template <int width>
TR_INLINE void sum_pair(const double* at, int64_t step, int count, const Lane* first,
                        const Lane* second, Lane* sum, Lane* other) {
  Lane s[width], t[width];
#pragma GCC unroll 8
  for (int r = 0; r < width; ++r) s[r] = sum[r], t[r] = other[r];
  for (int e = 0; e < count; ++e, at += step) {
    const Lane c = first[e], d = second[e];
#pragma GCC unroll 8
    for (int r = 0; r < width; ++r) {
      const Lane m = all_lanes(at[r]);
      s[r] = fused(c, m, s[r]);
      t[r] = fused(d, m, t[r]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < width; ++r) sum[r] = s[r], other[r] = t[r];
}

void sum_pair_with_marks(const double* at, int64_t step, int64_t q, int64_t from, int count,
                         const Lane* first, const Lane* second, Lane* sum, Lane* other) {
  int64_t r = from;
  for (; r + 4 <= q && q - r != 5; r += 4)
    sum_pair<4>(at + r, step, count, first, second, sum + r, other + r);
  switch (q - r) {
    case 5: return sum_pair<5>(at + r, step, count, first, second, sum + r, other + r);
    case 3: return sum_pair<3>(at + r, step, count, first, second, sum + r, other + r);
    case 2: return sum_pair<2>(at + r, step, count, first, second, sum + r, other + r);
    case 1: return sum_pair<1>(at + r, step, count, first, second, sum + r, other + r);
    default: return;
  }
}

// exp(omega . m) and exp(-delta_k (hi - t)) of `width` sources from x on.
template <int width>
TR_INLINE void decay_some(const HawkesProblem& p, Lane decay_rate, const Lane* omega, double hi,
                          int64_t x, Lane* mark, Lane* decay) {
  const int64_t q = p.marks_per_event;
  const double* m = p.marks + x * q;
  Lane linear[width] = {};
  for (int64_t r = 0; r < q; ++r) {
    const Lane w = omega[r];
#pragma GCC unroll 4
    for (int e = 0; e < width; ++e) linear[e] = fused(w, all_lanes(m[e * q + r]), linear[e]);
  }
#pragma GCC unroll 4
  for (int e = 0; e < width; ++e) {
    mark[e] = exponential_cut(linear[e]);
    decay[e] = decay_lane(decay_rate * all_lanes(hi - p.time[x + e]));
  }
}

void decay_sources(const HawkesProblem& p, Lane decay_rate, const Lane* omega, double hi,
                   int64_t from, int64_t to, Lane* mark, Lane* decay) {
  int64_t x = from;
  for (; x + 4 <= to; x += 4, mark += 4, decay += 4)
    decay_some<4>(p, decay_rate, omega, hi, x, mark, decay);
  for (; x < to; ++x, ++mark, ++decay) decay_some<1>(p, decay_rate, omega, hi, x, mark, decay);
}

}  // namespace
}  // namespace topreach::kernels::TR_ISA
