// Shared by the top-K kernels: the rows of a problem, plain or with the noise of one draw, divided
// among the threads of a block; and the test whether a site is chosen.
//
// Drawing noise again is cheaper than storing it: four sites take one Philox call and some 200
// instructions. A thread serves one counter of ../noise.h, that is sites s, s + 16, s + 32, s + 48:
// half warps read and write neighbouring sites.
#pragma once

#include <cmath>

#include "perturbed_topk.h"
#include "row_dot.cuh"
#include "select.cuh"

namespace topreach::kernels::cuda {

constexpr int kDrawThreads = 256;

using Word64 = unsigned long long;  // the type of CUDA's 64-bit atomics

template <typename T>
TR_HD T not_a_number() {
  return T(float_of(0x7FC00000u));
}

template <typename T>
TR_HD bool is_finite(T a) {
  return a - a == T(0);
}

template <typename T>
TR_HD T lowest_finite() {
  return sizeof(T) == 4 ? T(-3.4028234663852886e38) : T(-1.7976931348623157e308);
}

__device__ inline PhiloxKey load_key(const int64_t* key) {
  return {uint32_t(key[0]), uint32_t(key[1])};
}

TR_HD int64_t tiles_of(int64_t sites) { return (sites + kTileSites - 1) / kTileSites; }
TR_HD int64_t counters_of(int64_t sites) { return tiles_of(sites) * kTileLanes; }
TR_HD int64_t first_site(int64_t counter) {
  return counter / kTileLanes * kTileSites + counter % kTileLanes;
}

// The perturbed scores of one (row, draw), divided among the threads of a block.
template <typename T, Noise kind>
struct PerturbedRow {
  const T* scores;
  int64_t sites;
  T sigma;
  PhiloxKey key;
  uint32_t draw, row;

  __device__ PerturbedRow(const TopKProblem<T>& p, int64_t at, int64_t j)
      : scores(p.scores + at * p.sites),
        sites(p.sites),
        sigma(p.sigma),
        key(load_key(p.key)),
        draw(uint32_t(j)),
        row(uint32_t(p.row_offset + at)) {}

  template <typename F>
  __device__ void operator()(const F& f) const {
    const int64_t counters = counters_of(sites);
    for (int64_t c = threadIdx.x; c < counters; c += blockDim.x) {
      const FourNoises n = noise_of_counter<kind>(key, uint32_t(c), draw, row);
      const float z[4] = {n.z0, n.z1, n.z2, n.z3};
      int64_t s = first_site(c);
      for (int w = 0; w < 4; ++w, s += kTileLanes)
        if (s < sites) f(fused(sigma, T(z[w]), scores[s]), int32_t(s));
    }
  }
};

// A row without noise, divided in the same way.
template <typename T>
struct PlainRow {
  const T* scores;
  int64_t sites;

  template <typename F>
  __device__ void operator()(const F& f) const {
    for (int64_t s = threadIdx.x; s < sites; s += blockDim.x) f(scores[s], int32_t(s));
  }

  // Whether the row holds a NaN; the whole block must call it.
  __device__ bool has_nan() const {
    bool nan = false;
    (*this)([&](T r, int32_t) { nan |= r != r; });
    return __syncthreads_or(nan) != 0;
  }
};

template <typename T>
TR_HD bool chosen(T u, int64_t site, Threshold<T> t) {
  return u > t.value || (u == t.value && site <= t.last_tied);
}

// Threads of a block that takes the noise of one row and draw.
inline int draw_threads(int64_t sites, int most) { return threads_for(counters_of(sites), most); }

}  // namespace topreach::kernels::cuda
