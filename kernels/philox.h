// Philox4x32-10, the counter-based generator of Salmon et al. (2011), "Parallel random numbers: as
// easy as 1, 2, 3", SC11.
//
// Four counter words and two key words give four independent 32-bit words; nothing is stored.
// Known answer: zero counter and key give 6627e8d5 e169c58d bc57ac4c 9b00dbd8.
//
// Counters in this library: (site block, draw, global row, stream). `Stream` keeps uses apart, so
// that one key may serve several of them.
#pragma once

#include "platform.h"

namespace topreach::kernels {

enum Stream : uint32_t { kTopKNoise = 0, kNegBinUniform = 1, kNegBinRejection = 2 };

struct PhiloxKey {
  uint32_t k0, k1;
};

struct PhiloxWords {
  uint32_t x, y, z, w;
};

constexpr uint32_t kPhiloxFirst = 0xD2511F53u, kPhiloxSecond = 0xCD9E8D57u;

TR_HD PhiloxKey next_round(PhiloxKey key) { return {key.k0 + 0x9E3779B9u, key.k1 + 0xBB67AE85u}; }

TR_HD PhiloxWords philox4x32(PhiloxKey key, PhiloxWords c) {
#if defined(__CUDA_ARCH__)
#pragma unroll
#elif defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#pragma GCC unroll 10
#endif
  for (int round = 0; round < 10; ++round) {
    const uint64_t p = uint64_t{kPhiloxFirst} * c.x;
    const uint64_t q = uint64_t{kPhiloxSecond} * c.z;
    c = {uint32_t(q >> 32) ^ c.y ^ key.k0, uint32_t(q), uint32_t(p >> 32) ^ c.w ^ key.k1,
         uint32_t(p)};
    key = next_round(key);
  }
  return c;
}

}  // namespace topreach::kernels
