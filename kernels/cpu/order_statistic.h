// The K-th largest of many numbers on the CPU, exactly. Included by the files of kernels/cpu, once
// per instruction set (isa.h).
#pragma once

#include "../perturbed_topk.h"
#include "isa.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace topreach::kernels::TR_ISA {
namespace {

constexpr int kLanes = kTileLanes;

template <typename T>
TR_INLINE T negative_infinity() {
  return -T(__builtin_inff());
}

template <typename T>
TR_INLINE T lowest_finite() {
  return sizeof(T) == 4 ? T(-3.4028234663852886e38) : T(-1.7976931348623157e308);
}

template <typename T>
TR_INLINE T lesser(T a, T b) {
  return a < b ? a : b;
}

template <typename T>
TR_INLINE T greater(T a, T b) {
  return a > b ? a : b;
}

// Copies those of 16 values that lie in [low, high] to out[n...]; returns the new n.
template <typename T>
TR_INLINE int64_t append_inside(const T* u, T low, T high, T* out, int64_t n) {
  for (int lane = 0; lane < kLanes; ++lane) {
    out[n] = u[lane];
    n += int64_t(u[lane] >= low) & int64_t(u[lane] <= high);
  }
  return n;
}

#if defined(__AVX512F__)
TR_INLINE int64_t append_inside(const float* u, float low, float high, float* out, int64_t n) {
  const __m512 x = _mm512_loadu_ps(u);
  const __mmask16 inside = _mm512_mask_cmp_ps_mask(
      _mm512_cmp_ps_mask(x, _mm512_set1_ps(low), _CMP_GE_OQ), x, _mm512_set1_ps(high), _CMP_LE_OQ);
  _mm512_storeu_ps(out + n, _mm512_maskz_compress_ps(inside, x));
  return n + __builtin_popcount(inside);
}

TR_INLINE int64_t append_inside(const double* u, double low, double high, double* out, int64_t n) {
  for (int half = 0; half < kLanes; half += 8) {
    const __m512d x = _mm512_loadu_pd(u + half);
    const __mmask8 inside =
        _mm512_mask_cmp_pd_mask(_mm512_cmp_pd_mask(x, _mm512_set1_pd(low), _CMP_GE_OQ), x,
                                _mm512_set1_pd(high), _CMP_LE_OQ);
    _mm512_storeu_pd(out + n, _mm512_maskz_compress_pd(inside, x));
    n += __builtin_popcount(inside);
  }
  return n;
}
#elif defined(__AVX2__)
// Byte i of element m: the lane of the i-th set bit of m. Permuting 8 lanes by it moves those of a mask to the
// front.
struct LanesOfMask {
  uint64_t bytes[256];
  constexpr LanesOfMask() : bytes{} {
    for (int mask = 0; mask < 256; ++mask)
      for (int lane = 0, place = 0; lane < 8; ++lane)
        if (mask >> lane & 1) bytes[mask] |= uint64_t(lane) << (8 * place++);
  }
};
constexpr LanesOfMask kLanesOfMask;

TR_INLINE __m256i lanes_of(uint32_t mask) {
  return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(int64_t(kLanesOfMask.bytes[mask])));
}

TR_INLINE int64_t append_inside(const float* u, float low, float high, float* out, int64_t n) {
  for (int part = 0; part < kLanes; part += 8) {
    const __m256 x = _mm256_loadu_ps(u + part);
    const __m256 inside = _mm256_and_ps(_mm256_cmp_ps(x, _mm256_set1_ps(low), _CMP_GE_OQ),
                                        _mm256_cmp_ps(x, _mm256_set1_ps(high), _CMP_LE_OQ));
    const auto mask = uint32_t(_mm256_movemask_ps(inside));
    _mm256_storeu_ps(out + n, _mm256_permutevar8x32_ps(x, lanes_of(mask)));
    n += __builtin_popcount(mask);
  }
  return n;
}

TR_INLINE int64_t append_inside(const double* u, double low, double high, double* out, int64_t n) {
  for (int part = 0; part < kLanes; part += 4) {
    const __m256d x = _mm256_loadu_pd(u + part);
    const __m256d inside = _mm256_and_pd(_mm256_cmp_pd(x, _mm256_set1_pd(low), _CMP_GE_OQ),
                                         _mm256_cmp_pd(x, _mm256_set1_pd(high), _CMP_LE_OQ));
    // As pairs of 32-bit lanes.
    const auto mask = uint32_t(_mm256_movemask_ps(_mm256_castpd_ps(inside)));
    const __m256 packed = _mm256_permutevar8x32_ps(_mm256_castpd_ps(x), lanes_of(mask));
    _mm256_storeu_pd(out + n, _mm256_castps_pd(packed));
    n += __builtin_popcount(mask) / 2;
  }
  return n;
}
#endif

// How many of u[n] exceed t, n a multiple of 16.
#if defined(__AVX512F__)
TR_INLINE int64_t count_above(const float* u, int64_t n, float t) {
  int64_t total = 0;
  for (int64_t i = 0; i < n; i += 16)
    total += __builtin_popcount(
        _mm512_cmp_ps_mask(_mm512_loadu_ps(u + i), _mm512_set1_ps(t), _CMP_GT_OQ));
  return total;
}

TR_INLINE int64_t count_above(const double* u, int64_t n, double t) {
  int64_t total = 0;
  for (int64_t i = 0; i < n; i += 8)
    total += __builtin_popcount(
        _mm512_cmp_pd_mask(_mm512_loadu_pd(u + i), _mm512_set1_pd(t), _CMP_GT_OQ));
  return total;
}
#else
template <typename T>
TR_INLINE int64_t count_above(const T* u, int64_t n, T t) {
  int32_t lanes[kLanes] = {};
  for (int64_t i = 0; i < n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += u[i + lane] > t ? 1 : 0;
  }
  int64_t total = 0;
  for (int lane = 0; lane < kLanes; ++lane) total += lanes[lane];
  return total;
}
#endif

// Fills a[n] up to a multiple of 16 with -inf; returns that.
template <typename T>
TR_INLINE int64_t pad_lanes(T* a, int64_t n) {
  const int64_t padded = (n + kLanes - 1) / kLanes * kLanes;
  for (int64_t i = n; i < padded; ++i) a[i] = negative_infinity<T>();
  return padded;
}

template <typename T>
struct Order {
  T value;                          // the (rank+1)-th largest
  int64_t above;                    // how many are strictly larger
  int64_t equal;                    // how many equal it
  T next = negative_infinity<T>();  // the largest below it, if it was seen
};

// Order statistic by ranking every value against all: no branches, good for few values.
template <typename T>
TR_INLINE Order<T> rank_all(T* a, int64_t n, int64_t rank) {
  const int64_t padded = pad_lanes(a, n);
  for (int64_t i = 0; i < n; ++i) {
    const T t = a[i];
    const int64_t above = count_above(a, padded, t);
    if (above > rank) continue;
    int32_t equal = 0;
    for (int64_t j = 0; j < n; ++j) equal += a[j] == t ? 1 : 0;
    if (rank >= above + equal) continue;
    T next_lanes[kLanes], next = negative_infinity<T>();
    for (int lane = 0; lane < kLanes; ++lane) next_lanes[lane] = negative_infinity<T>();
    for (int64_t j = 0; j < padded; j += kLanes) {
      for (int lane = 0; lane < kLanes; ++lane)
        next_lanes[lane] = greater(next_lanes[lane], a[j + lane] < t ? a[j + lane] : next);
    }
    for (int lane = 0; lane < kLanes; ++lane) next = greater(next, next_lanes[lane]);
    return {t, above, equal, next};
  }
  return {negative_infinity<T>(), 0, n};  // not reached: some value has every rank
}

// Order statistic of a[n], all in [low, high]. Destroys a, which has room for n + 16 values.
//
// First keeps only values near the wanted rank, guessing where they lie as if the values were
// evenly spread. Then ranks the remaining values. If a guess misses, or values tie, splits at the
// median of three.
template <typename T>
Order<T> select_largest(T* a, int64_t n, int64_t rank, T low, T high) {
  int64_t larger = 0;  // values dropped because they are larger than all of a
  int guesses = high - low < T(1e38) ? 3 : 0;
  while (n > 64) {
    if (!(low < high)) return {high, larger, n};
    int32_t above = 0;  // 32 bits, as wide as the values: the counting loops become vectors
    int64_t kept = 0;
    if (guesses-- > 0) {
      const double spread = 2.0 * __builtin_sqrt(double(n)), width = double(high) - double(low);
      const double top = (double(rank) - spread) / double(n);
      const double bottom = (double(rank) + spread) / double(n);
      const T to = top > 0 ? T(double(high) - top * width) : high;
      const T from = bottom < 1 ? T(double(high) - bottom * width) : low;
      int32_t inside = 0;
      for (int64_t i = 0; i < n; ++i) {
        above += a[i] > to ? 1 : 0;
        inside += (a[i] >= from) & (a[i] <= to) ? 1 : 0;
      }
      if (rank < above || rank >= above + inside) {
        guesses = 0;
        continue;
      }
      const int64_t padded = pad_lanes(a, n);
      for (int64_t i = 0; i < padded; i += kLanes) kept = append_inside(a + i, from, to, a, kept);
      low = from;
      high = to;
    } else {
      const T x = a[0], y = a[n / 2], w = a[n - 1];
      const T middle = greater(lesser(x, y), lesser(greater(x, y), w));
      int32_t equal = 0;
      for (int64_t i = 0; i < n; ++i) {
        above += a[i] > middle ? 1 : 0;
        equal += a[i] == middle ? 1 : 0;
      }
      if (rank >= above && rank < above + equal) return {middle, larger + above, equal};
      const bool upper = rank < above;
      for (int64_t i = 0; i < n; ++i) {
        const T value = a[i];
        a[kept] = value;
        kept += (upper ? value > middle : value < middle) ? 1 : 0;
      }
      above = upper ? 0 : above + equal;
    }
    larger += above;
    rank -= above;
    n = kept;
  }
  Order<T> order = rank_all(a, n, rank);
  order.above += larger;
  return order;
}

// Converts an order statistic to the threshold of ../perturbed_topk.h.
template <typename T>
TR_INLINE int32_t last_tied_site(const T* u, int64_t k, Order<T> order) {
  int64_t wanted = k - order.above;
  if (wanted >= order.equal) return kNoSplitTie;
  for (int64_t s = 0;; ++s) {
    if (u[s] == order.value && --wanted == 0) return int32_t(s);
  }
}

}  // namespace
}  // namespace topreach::kernels::TR_ISA
