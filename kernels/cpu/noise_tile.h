// The noise of one tile of 64 sites, and its scores -f'/f, drawn side by side. Included by the
// files of kernels/cpu, once per instruction set (isa.h).
#pragma once

#include "../noise.h"
#include "isa.h"
#include "philox_tile.h"

namespace topreach::kernels::TR_ISA {
namespace {

TR_INLINE void store(float* tile, int lane, FourNoises v) {
  tile[lane] = v.z0;
  tile[kTileLanes + lane] = v.z1;
  tile[2 * kTileLanes + lane] = v.z2;
  tile[3 * kTileLanes + lane] = v.z3;
}

TR_INLINE PhiloxWords of_lane(const TileWords& words, int lane) {
  return {words[0][lane], words[1][lane], words[2][lane], words[3][lane]};
}

template <Noise kind>
TR_INLINE void noise_tile(PhiloxKey key, uint32_t tile, uint32_t draw, uint32_t row,
                          float* __restrict z) {
  alignas(64) TileWords words;
  philox_tile(key, tile, draw, row, words);
#pragma omp simd
  for (int lane = 0; lane < kTileLanes; ++lane)
    store(z, lane, noise_of_words<kind>(of_lane(words, lane)));
}

// The scores -f'/f of the noise z that noise_tile gives.
template <Noise kind>
TR_INLINE void score_tile(PhiloxKey key, uint32_t tile, uint32_t draw, uint32_t row,
                          float* __restrict score) {
  alignas(64) TileWords words;
  philox_tile(key, tile, draw, row, words);
#pragma omp simd
  for (int lane = 0; lane < kTileLanes; ++lane)
    store(score, lane, score_of_words<kind>(of_lane(words, lane)));
}

}  // namespace
}  // namespace topreach::kernels::TR_ISA
