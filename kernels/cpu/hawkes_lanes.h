// A vector of doubles, one lane for each of several items that walk the same events.
//
// The overloads must be seen before the templates of ../hawkes_decay.h that call them: include this file
// first.
#pragma once

#include "../platform.h"
#include "isa.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace topreach::kernels {
namespace TR_ISA {

#if defined(__AVX512F__)
constexpr int kHawkesLanes = 8;
#elif defined(__AVX2__)
constexpr int kHawkesLanes = 4;
#else
constexpr int kHawkesLanes = 2;
#endif
using Lane = double __attribute__((vector_size(8 * kHawkesLanes)));
using LaneBits = int64_t __attribute__((vector_size(8 * kHawkesLanes)));

TR_INLINE Lane all_lanes(double a) { return Lane{} + a; }

}  // namespace TR_ISA

TR_INLINE TR_ISA::Lane fused(TR_ISA::Lane a, TR_ISA::Lane b, TR_ISA::Lane c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_pd(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_pd(a, b, c);
#else
  TR_ISA::Lane r;
  for (int i = 0; i < TR_ISA::kHawkesLanes; ++i) r[i] = __builtin_fma(a[i], b[i], c[i]);
  return r;
#endif
}

TR_INLINE TR_ISA::Lane lesser(TR_ISA::Lane a, TR_ISA::Lane b) {
#if defined(__AVX512F__)
  return _mm512_min_pd(a, b);
#elif defined(__AVX2__)
  return _mm256_min_pd(a, b);
#else
  return a < b ? a : b;
#endif
}

TR_INLINE TR_ISA::Lane greater(TR_ISA::Lane a, TR_ISA::Lane b) {
#if defined(__AVX512F__)
  return _mm512_max_pd(a, b);
#elif defined(__AVX2__)
  return _mm256_max_pd(a, b);
#else
  return a > b ? a : b;
#endif
}

TR_INLINE TR_ISA::Lane two_to_the(TR_ISA::Lane whole) {
  return TR_ISA::Lane(((TR_ISA::LaneBits)whole + 1023) << 52);
}

}  // namespace topreach::kernels

#include "../hawkes_decay.h"
