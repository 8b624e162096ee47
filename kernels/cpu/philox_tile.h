// The 16 Philox calls of one tile (../noise.h), a vector at a time.
//
// Compilers turn the 32 x 32 -> 64 bit products of Philox into full 64-bit multiplications, which are
// three times as slow as the widening ones of x86. So intrinsics are used on x86, and a plain loop on
// other machines.
#pragma once

#include "../noise.h"
#include "isa.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace topreach::kernels::TR_ISA {

// words[w][lane]: word w of the counter of `lane`.
using TileWords = uint32_t[4][kTileLanes];

#if defined(__AVX512F__)
struct PhiloxVector {
  static constexpr int lanes = 16;
  using type = __m512i;
  static TR_INLINE type broadcast(uint32_t a) { return _mm512_set1_epi32(int(a)); }
  static TR_INLINE type iota() {
    return _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  }
  static TR_INLINE type add(type a, type b) { return _mm512_add_epi32(a, b); }
  static TR_INLINE type exclusive_or(type a, type b, type c) {
    return _mm512_ternarylogic_epi32(a, b, c, 0x96);
  }
  static TR_INLINE void multiply(type a, type b, type& high, type& low) {
    const type even = _mm512_mul_epu32(a, b);
    const type odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), b);
    high = _mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd);
    low = _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32));
  }
  static TR_INLINE void store(uint32_t* out, type a) { _mm512_storeu_si512(out, a); }
};
#elif defined(__AVX2__)
struct PhiloxVector {
  static constexpr int lanes = 8;
  using type = __m256i;
  static TR_INLINE type broadcast(uint32_t a) { return _mm256_set1_epi32(int(a)); }
  static TR_INLINE type iota() { return _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0); }
  static TR_INLINE type add(type a, type b) { return _mm256_add_epi32(a, b); }
  static TR_INLINE type exclusive_or(type a, type b, type c) {
    return _mm256_xor_si256(_mm256_xor_si256(a, b), c);
  }
  static TR_INLINE void multiply(type a, type b, type& high, type& low) {
    const type even = _mm256_mul_epu32(a, b);
    const type odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), b);
    high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
    low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
  }
  static TR_INLINE void store(uint32_t* out, type a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), a);
  }
};
#endif

TR_INLINE void philox_tile(PhiloxKey key, uint32_t tile, uint32_t draw, uint32_t row,
                           TileWords& words) {
  const uint32_t first = tile * kTileLanes;
#if defined(__AVX512F__) || defined(__AVX2__)
  using V = PhiloxVector;
#pragma GCC unroll 2
  for (int lane = 0; lane < kTileLanes; lane += V::lanes) {
    PhiloxKey k = key;
    V::type x = V::add(V::iota(), V::broadcast(first + uint32_t(lane))), y = V::broadcast(draw),
            z = V::broadcast(row), w = V::broadcast(kTopKNoise);
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      V::type p_high, p_low, q_high, q_low;
      V::multiply(x, V::broadcast(kPhiloxFirst), p_high, p_low);
      V::multiply(z, V::broadcast(kPhiloxSecond), q_high, q_low);
      x = V::exclusive_or(q_high, y, V::broadcast(k.k0));
      y = q_low;
      z = V::exclusive_or(p_high, w, V::broadcast(k.k1));
      w = p_low;
      k = next_round(k);
    }
    V::store(words[0] + lane, x);
    V::store(words[1] + lane, y);
    V::store(words[2] + lane, z);
    V::store(words[3] + lane, w);
  }
#else
  for (int lane = 0; lane < kTileLanes; ++lane) {
    const PhiloxWords four = noise_words(key, first + uint32_t(lane), draw, row);
    words[0][lane] = four.x;
    words[1][lane] = four.y;
    words[2][lane] = four.z;
    words[3][lane] = four.w;
  }
#endif
}

}  // namespace topreach::kernels::TR_ISA
