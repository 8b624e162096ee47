// Perturbed top-K: b(r) = (1/J) sum_j TopKMask(r + sigma z_j, K), and its score-function
// vector-Jacobian product g = (1/(J sigma)) sum_j w_j z_j with w_j from b_j . v
// [Learning where to intervene, Eq. 3-4; Decision-aware training, Eq. 11].
//
// Scores are rows of S sites. Noise is drawn inside the loops from (key, draw, global row, site) and
// drawn again in backward. One draw costs S noise values and one pass over them: a bracket [low,
// high] around the K-th largest perturbed score, the same for all draws of a row, splits the sites
// into counted (above), gathered (inside, a few hundred at most) and ignored (below). A bracket
// that misses costs that draw an exact search; the result never depends on the bracket.
//
// A draw's outcome is kept as a threshold: site s is chosen iff u_s > value, or u_s == value and
// s <= last_tied (ties go to the lowest index).
//
// Memory: per worker O(S); kept for backward: rows x J thresholds. Nothing of size J x S.
#pragma once

#include <cstdint>

#include "noise.h"

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
};

template <typename T>
const TopKCpu<T>& topk_cpu();

// The noise itself: z[sites] of one (row, draw).
void noise_row_cpu(PhiloxKey key, Noise noise, int64_t sites, uint32_t draw, uint32_t row, float* z);

// XOR over sites and draws of the noise's bits, the cheapest use of every value: what tests compare
// across instruction sets and devices, and the floor that benchmarks measure against.
uint32_t noise_checksum_cpu(PhiloxKey key, Noise noise, int64_t sites, int64_t draws, uint32_t row);

}  // namespace topreach::kernels
