// Exact order statistics of numbers that a block can visit several times: regenerated noise, a row of
// scores, candidates in shared memory.
//
// Radix selection over an order-preserving integer image: a pass counts the next 8 bits of those
// keys that agree with the bits found so far, a warp finds the digit of the wanted rank. A float
// takes at most 4 passes, a double 8; bits that the caller knows cost none. Integer counts: the
// result does not depend on the order of the atomics. Shared memory: 1 KB.
#pragma once

#include "../perturbed_topk.h"
#include "../special.h"
#include "launch.cuh"

namespace topreach::kernels::cuda {

// Images: a < b if and only if image_of(a) < image_of(b), and both zeros have one image.
TR_HD uint32_t image_of(float a) {
  const uint32_t bits = bits_of(a + 0.0f);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}

TR_HD uint64_t image_of(double a) {
  const uint64_t bits = bits_of(a + 0.0);
  return (bits >> 63) != 0 ? ~bits : bits | uint64_t{1} << 63;
}

TR_HD float value_of(uint32_t image) {
  return float_of((image >> 31) != 0 ? image & 0x7FFFFFFFu : ~image);
}

TR_HD double value_of(uint64_t image) {
  return double_of((image >> 63) != 0 ? image & ~(uint64_t{1} << 63) : ~image);
}

// Values whose images lie in [low, high] share the bits above the lowest `count`.
template <typename Image>
struct UnknownBits {
  Image prefix;
  int count;

  TR_HD UnknownBits(Image low, Image high) : prefix(low), count(0) {
    for (Image differ = low ^ high; differ != 0; differ >>= 1) ++count;
    if (count == 0) count = 1;  // one pass is needed to count
    prefix = (prefix >> (count - 1) >> 1) << (count - 1) << 1;
  }
};

struct SelectShared {
  uint32_t bins[256];
  uint32_t digit, above, equal;
};

// A warp: the bin that holds the rank-th largest, and how many lie in larger bins and in it.
__device__ inline void find_digit(SelectShared& shared, uint32_t rank) {
  constexpr unsigned all = 0xFFFFFFFFu;
  const int lane = int(threadIdx.x), top = 255 - 8 * lane;
  uint32_t own = 0;
  for (int i = 0; i < 8; ++i) own += shared.bins[top - i];
  uint32_t through = own;
  for (int d = 1; d < 32; d *= 2) {
    const uint32_t other = __shfl_up_sync(all, through, unsigned(d));
    if (lane >= d) through += other;
  }
  uint32_t before = through - own;
  if (rank < before || rank >= through) return;
  for (int bin = top;; --bin) {
    const uint32_t count = shared.bins[bin];
    if (rank < before + count) {
      shared.digit = uint32_t(bin);
      shared.above = before;
      shared.equal = count;
      return;
    }
    before += count;
  }
}

template <typename Key>
struct Selected {
  Key key;
  uint32_t above, equal;  // how many are larger, how many are equal
};

// The rank-th largest (from 0) of the keys that visit(f) passes to f, over all threads of the block.
template <typename Key, typename Visit>
__device__ Selected<Key> select_largest(const Visit& visit, uint32_t rank, UnknownBits<Key> unknown,
                                        SelectShared& shared) {
  Selected<Key> found{unknown.prefix, 0, 0};
  for (int left = unknown.count; left > 0;) {
    const int width = left < 8 ? left : 8;
    const int above = left - 1, shift = left - width;
    const Key digits = (Key{1} << width) - 1;
    for (int i = int(threadIdx.x); i < 256; i += int(blockDim.x)) shared.bins[i] = 0;
    __syncthreads();
    visit([&](Key key) {
      if ((key ^ found.key) >> above >> 1 == 0)
        atomicAdd(&shared.bins[(key >> shift) & digits], 1u);
    });
    __syncthreads();
    if (threadIdx.x < 32) find_digit(shared, rank);
    __syncthreads();
    found.key |= Key(shared.digit) << shift;
    found.above += shared.above;
    found.equal = shared.equal;
    rank -= shared.above;
    left = shift;
  }
  return found;
}

template <typename T>
struct Threshold {
  T value;
  int32_t last_tied;
};

// The threshold (../perturbed_topk.h) at the rank-th largest of the values that visit(f) passes to
// f as (value, site), all of which lie between the images `low` and `high`.
template <typename T, typename Image, typename Visit>
__device__ Threshold<T> threshold_of(const Visit& visit, uint32_t rank, Image low, Image high,
                                     SelectShared& shared) {
  const auto images = [&](const auto& f) { visit([&](T u, int32_t) { f(image_of(u)); }); };
  const auto found = select_largest(images, rank, UnknownBits<Image>(low, high), shared);
  const uint32_t wanted = rank + 1 - found.above;
  if (wanted >= found.equal) return {value_of(found.key), kNoSplitTie};
  const auto tied = [&](const auto& f) {
    visit([&](T u, int32_t site) {
      if (image_of(u) == found.key) f(~uint32_t(site));
    });
  };
  const auto last = select_largest(tied, wanted - 1, UnknownBits<uint32_t>(0u, ~0u), shared);
  return {value_of(found.key), int32_t(~last.key)};
}

}  // namespace topreach::kernels::cuda
