// Futures of the networked Hawkes process (hawkes.h) after the last edge b_B, with theta frozen there.
//
// Branching, the default. Immigrants of node u come at rate mu_u(t); events of the past go on to have
// children at rate S_u exp(-delta_u t), S_u = sum_v theta_uv R_v; an event x of v has children at u at rate
// A_uv eta_ux exp(-delta_u lag). A cluster is followed depth first. The children of an event, whatever their
// receiver, cost O(1) each: candidates ~ Poisson(C_v) with C_v = sum_u A_uv max_x eta_ux / delta_u; the
// receiver by v's alias table [Walker 1977; Vose 1991]; kept with chance eta_ux / max; lag Exp(delta_u), and
// dropped beyond the horizon.
//
// Thinning [Ogata 1981; Algorithm 2 of the paper, corrected]: the bound sum_u (mu_u + S_u) holds until the
// next event. It is computed anew at every edge; S grows only with an accepted event. O(M) per step.
//
// Paper [Algorithm 1]: in each period Poisson(mu_u |b| + S_u E_0(|b|)) events, all at its end. An event has
// no children within its own period, so forecasts start too low if lags are short.
//
// An event takes the marks of a record drawn from its node's pool. Randomness: Philox, counter (draw, event
// of the path, path, stream); a path's bits depend on (key, path, its parameters) alone.
#pragma once

#include "hawkes.h"
#include "philox.h"

namespace topreach::kernels {

// Streams of this file; those of philox.h are smaller.
enum HawkesStream : uint32_t {
  kHawkesEvent = 16,
  kHawkesImmigrant = 17,
  kHawkesPast = 18,
  kHawkesPaper = 19
};

enum class HawkesMode : int { kBranching = 0, kThinning = 1, kPaper = 2 };

struct HawkesFuture {
  const HawkesProblem* problem;  // marks, distance and the last refresh of theta are used
  HawkesMode mode;
  PhiloxKey key;
  // Parameter sets; path r has set (r / paths_per_set) % sets.
  int64_t sets, paths_per_set;
  const double* parameters;  // [sets, M, P], natural
  const double* excitation;  // [sets, M], S_u at b_B
  const double* base;        // [sets, K, M], mu_u in each period
  // Periods after b_B: edge[0] = 0.
  const double* edge;  // [K + 1]
  int64_t periods;     // K
  // Records whose marks a node's events may have: pool[pool_start[v]..pool_start[v + 1]-1], at least one.
  const int64_t* pool_start;  // [M + 1]
  const int64_t* pool;
  int64_t most_events;  // a path with more events than this has failed: the process explodes
  // Results.
  int32_t* counts;  // [paths, K, M]: events in (edge[k], edge[k + 1]]
  uint8_t* failed;  // [paths]: 1 if most_events was exceeded; its counts are then too low
};

struct HawkesBranchingCpu {
  // Bytes of working memory, 64-byte aligned.
  int64_t (*scratch)(const HawkesFuture&);
  // The paths begin..end, by their global numbers; `counts` and `failed` begin with path 0.
  void (*simulate)(const HawkesFuture&, int64_t begin, int64_t end, void* scratch);
};

// The functions for this machine's instruction set; results are the same for each.
const HawkesBranchingCpu& hawkes_branching_cpu();

TR_HD double hawkes_unit(uint32_t word) { return (double(word) + 0.5) * 0x1p-32; }  // in (0, 1)

TR_HD double hawkes_unit(uint32_t high, uint32_t low) {  // in (0, 1), 52 bits
  return (double(int64_t((uint64_t(high) << 32 | low) >> 12)) + 0.5) * 0x1p-52;
}

// Poisson(mean) by inversion of u: the smallest k with P(0) + ... + P(k) >= u; mean <= 500.
TR_HD int64_t poisson_of_unit(double u, double mean, double zero_mass) {
  double mass = zero_mass, below = zero_mass;
  int64_t k = 0;
  while (u > below && k < 2000) {
    ++k;
    mass *= mean / double(k);
    below += mass;
  }
  return k;
}

// A draw from an alias table over `size`: place `word[0]`, or its alias.
TR_HD int32_t alias_draw(const uint32_t* keep, const int32_t* alias, int64_t size, uint32_t place,
                         uint32_t coin) {
  const int32_t i = int32_t((uint64_t(place) * uint64_t(size)) >> 32);
  return coin <= keep[i] ? i : alias[i];
}

// Fills an alias table for weights >= 0 of a positive sum; `work` has room for `size`.
TR_HD void alias_table(const double* weight, int64_t size, double total, uint32_t* keep,
                       int32_t* alias, double* scaled, int32_t* work) {
  int64_t small = 0, large = size;  // two stacks in one array
  for (int64_t i = 0; i < size; ++i) {
    scaled[i] = weight[i] * (double(size) / total);
    keep[i] = 0xFFFFFFFFu;
    alias[i] = int32_t(i);
    if (scaled[i] < 1.0) {
      work[small++] = int32_t(i);
    } else {
      work[--large] = int32_t(i);
    }
  }
  while (small > 0 && large < size) {
    const int32_t a = work[--small], b = work[large];
    keep[a] = uint32_t(scaled[a] * 4294967295.0);
    alias[a] = b;
    scaled[b] -= 1.0 - scaled[a];
    if (scaled[b] < 1.0) {
      ++large;
      work[small++] = b;
    }
  }
}

}  // namespace topreach::kernels
