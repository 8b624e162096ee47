// Perturbed top-K: b(r) = (1/J) sum_j TopKMask(r + sigma z_j, K), and its score-function
// vector-Jacobian product g = (1/(J sigma)) sum_j w_j z_j with w_j from b_j . v
// [Learning where to intervene, Eq. 3-4; Decision-aware training, Eq. 11].
//
// Scores are rows of S sites. Noise is drawn inside the loops from (key, draw, global row, site),
// and drawn again in backward. A draw costs S noise values and one pass over them. A bracket [low,
// high] around the K-th largest perturbed score, the same for all draws of a row, splits the sites:
// those above are counted, those inside (a few hundred at most) gathered, those below ignored. If
// the bracket misses, that draw needs an exact search; the result never depends on the bracket.
//
// A draw's outcome is kept as a threshold: site s is chosen iff u_s > value, or u_s == value and
// s <= last_tied (ties go to the lowest index).
//
// Conditional estimator (Rao & Blackwell; any noise with density f and distribution function F).
// Given the noise of all sites but i, site i is chosen iff u_i exceeds the K-th largest of the
// others. The site that holds it is the rival a of i: the (K+1)-th largest of all if i is chosen,
// the K-th if not. With x_ij = (r_a - r_i) / sigma + z_a, integrating z_i out gives
//   b_i = (1/J) sum_j 1 - F(x_ij),    g_i = (1/(J sigma)) sum_j f(x_ij) (v_i - v_a),
// unbiased for the same expectation and its gradient: where i passes its rival, v_i replaces v_a.
//
// Each draw also keeps its boundary, the sites of the K-th and the (K+1)-th largest. x comes from
// the rival's score and noise, not from u, which is rounded to the score's precision. sum_i b_i is
// K in expectation only, and a draw's g need not sum to 0. Sites with infinite scores have no
// noise: b_i is 0 or 1, g_i is 0. Cost: one F or f for each (site, draw), beside the noise.
//
// Memory: O(S) a worker; rows x J thresholds and boundaries are kept for backward. Nothing of size
// J x S.
#pragma once

#include <cstdint>

#include "noise_density.h"

namespace topreach::kernels {

template <typename T>
struct TopKProblem {
  const T* scores;  // [rows, sites], no NaN
  int64_t rows;
  int64_t sites;
  int64_t k;  // 0 < k < sites
  T sigma;    // > 0
  int64_t draws;
  PhiloxKey key;
  int64_t row_offset;  // global number of row 0
};

template <typename T>
struct Bracket {
  T low, high;
};

// `last_tied` when no tie has to be split.
constexpr int32_t kNoSplitTie = INT32_MAX;

// Draws are summed in blocks of this many, blocks in order: so the rounding of a gradient does not
// depend on the number of threads.
constexpr int64_t kDrawBlock = 10;

inline int64_t padded_sites(int64_t sites) {
  return (sites + kTileSites - 1) / kTileSites * kTileSites;
}

// Where site s sits in the counters of noise.h.
template <Noise kind>
TR_HD float noise_of_site(PhiloxKey key, int32_t site, uint32_t draw, uint32_t row) {
  const uint32_t s = uint32_t(site), word = s % kTileSites / kTileLanes;
  const FourNoises z =
      noise_of_counter<kind>(key, s / kTileSites * kTileLanes + s % kTileLanes, draw, row);
  return word == 0 ? z.z0 : (word == 1 ? z.z1 : (word == 2 ? z.z2 : z.z3));
}

// Score and noise of the rivals in one draw: of the sites that are not chosen, and of those that
// are.
template <typename T>
struct Rivals {
  T outside_score, outside_noise, inside_score, inside_noise;

  // x of a site.
  TR_HD T gap(bool chosen, T score, T inverse_sigma) const {
    const T rival = chosen ? inside_score : outside_score;
    return fused(rival - score, inverse_sigma, chosen ? inside_noise : outside_noise);
  }
};

// `scores` is the row, boundary its two sites in this draw.
template <Noise kind, typename T>
TR_HD Rivals<T> rivals_of(const T* scores, const int32_t* boundary, PhiloxKey key, uint32_t draw,
                          uint32_t row) {
  return {scores[boundary[0]], T(noise_of_site<kind>(key, boundary[0], draw, row)),
          scores[boundary[1]], T(noise_of_site<kind>(key, boundary[1], draw, row))};
}

// Scratch of one worker: `bytes(sites)` bytes, 64-byte aligned, passed to each call.
template <typename T>
struct TopKScratch {
  static int64_t bytes(int64_t sites) {
    return padded_sites(sites) * int64_t(3 * sizeof(T) + sizeof(float));
  }
};

// One row's work on the CPU; the functions are compiled once per instruction set and give the same
// bits in each.
template <typename T>
struct TopKCpu {
  // Exact K-th largest of one row without noise.
  void (*threshold)(const T* row, int64_t sites, int64_t k, T* value, int32_t* last_tied,
                    void* scratch);
  // A bracket for the row's draws, from its draw 0.
  Bracket<T> (*bracket)(const TopKProblem<T>& problem, Noise noise, int64_t row, void* scratch);
  // Adds the masks of draws [begin, end) to counts[sites]; writes value[j], last_tied[j].
  void (*forward)(const TopKProblem<T>& problem, Noise noise, int64_t row, Bracket<T> bracket,
                  int64_t begin, int64_t end, int32_t* counts, T* value, int32_t* last_tied,
                  void* scratch);
  // Adds sum over draws [begin, end) of (b_j . v - centre) score(z_j) to total[sites].
  void (*backward)(const TopKProblem<T>& problem, Noise noise, int64_t row, const T* v, T centre,
                   int64_t begin, int64_t end, const T* value, const int32_t* last_tied, T* total,
                   void* scratch);
  // The same two for the conditional estimator. Adds 1 - F(x) over draws [begin, end) to
  // total[sites], meaningless where the score is infinite; writes value[j], last_tied[j],
  // boundary[2 j, 2 j + 1].
  void (*conditional_forward)(const TopKProblem<T>& problem, Noise noise, int64_t row,
                              Bracket<T> bracket, int64_t begin, int64_t end, T* total, T* value,
                              int32_t* last_tied, int32_t* boundary, void* scratch);
  // Adds f(x) (v - v_rival) over draws [begin, end) to total[sites], likewise.
  void (*conditional_backward)(const TopKProblem<T>& problem, Noise noise, int64_t row, const T* v,
                               int64_t begin, int64_t end, const T* value, const int32_t* last_tied,
                               const int32_t* boundary, T* total, void* scratch);
};

template <typename T>
const TopKCpu<T>& topk_cpu();

// The noise itself: z[sites] of one (row, draw).
void noise_row_cpu(PhiloxKey key, Noise noise, int64_t sites, uint32_t draw, uint32_t row,
                   float* z);

// XOR over sites and draws of the noise's bits, the cheapest use of every value. Tests compare it
// across instruction sets and devices; benchmarks take its time as the lower bound.
uint32_t noise_checksum_cpu(PhiloxKey key, Noise noise, int64_t sites, int64_t draws, uint32_t row);

}  // namespace topreach::kernels
