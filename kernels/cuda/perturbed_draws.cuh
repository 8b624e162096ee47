// Kernels that both estimators of perturbed top-K use.
//
//   find_brackets      one block a row: two exact order statistics of draw 0
//   find_thresholds    one block a (row, draw): counts sites above the bracket, gathers those inside
//                      into shared memory and selects among them. A draw that the bracket misses
//                      selects among all its sites instead, drawing the noise in each pass
//   sum_over_draws     one block a (row, tile of 64 sites), 16 blocks of draws at a time. Sums are
//                      rounded as on the CPU: blocks of kDrawBlock in order
#pragma once

#include "perturbed_row.cuh"

namespace topreach::kernels::cuda {

constexpr int kSumSlots = 16, kSumThreads = kSumSlots * kTileLanes;
constexpr uint32_t kCandidates = 2048;

// A row with a NaN score gets a NaN bracket; the kernels that follow recognise the row by it.
template <typename T, Noise kind>
__global__ void __launch_bounds__(kRowThreads)
    find_brackets(TopKProblem<T> p, int64_t margin, Bracket<T>* brackets) {
  auto& shared = shared_memory<SelectShared>();
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x) {
    Bracket<T> bracket{not_a_number<T>(), not_a_number<T>()};
    if (!PlainRow<T>{p.scores + row * p.sites, p.sites}.has_nan()) {
      const PerturbedRow<T, kind> draw(p, row, 0);
      const auto images = [&](const auto& f) { draw([&](T u, int32_t) { f(image_of(u)); }); };
      using Image = decltype(image_of(T()));
      const UnknownBits<Image> all(0, ~Image{0});
      const int64_t first = p.k - 1 - margin, last = p.k - 1 + margin;
      bracket = {lowest_finite<T>(), T(kInfinity)};
      if (first >= 0)
        bracket.high = value_of(select_largest(images, uint32_t(first), all, shared).key);
      if (last < p.sites) {
        const T low = value_of(select_largest(images, uint32_t(last), all, shared).key);
        if (low > bracket.low) bracket.low = low;
      }
    }
    if (threadIdx.x == 0) brackets[row] = bracket;
  }
}

struct BoundaryShared {
  Word64 next_image;
  int32_t kth, next;
};

// The sites of the K-th and the (K+1)-th largest value that visit(f) passes to f, given the threshold:
// the last chosen site at its value, and the first of the sites that come next.
template <typename T, typename Visit>
__device__ void boundary_of(const Visit& visit, Threshold<T> threshold, BoundaryShared& shared,
                            int32_t* boundary) {
  if (threadIdx.x == 0) shared = {0, 0, 0};
  __syncthreads();
  Word64 image = 0;
  int32_t kth = 0;
  visit([&](T u, int32_t site) {
    if (!chosen(u, site, threshold)) {
      const Word64 own = image_of(u);
      image = own > image ? own : image;
    } else if (u == threshold.value && site > kth) {
      kth = site;
    }
  });
  atomicMax(&shared.next_image, image);
  atomicMax(&shared.kth, kth);
  __syncthreads();
  int32_t next = 0;  // counted from the far end: the lowest site is the largest
  visit([&](T u, int32_t site) {
    if (!chosen(u, site, threshold) && Word64{image_of(u)} == shared.next_image &&
        INT32_MAX - site > next)
      next = INT32_MAX - site;
  });
  atomicMax(&shared.next, next);
  __syncthreads();
  if (threadIdx.x == 0) {
    boundary[0] = shared.kth;
    boundary[1] = INT32_MAX - shared.next;
  }
}

template <typename T>
struct ThresholdShared {
  SelectShared select;
  BoundaryShared boundary;
  uint32_t above, gathered;
  T values[kCandidates];
  int32_t sites[kCandidates];
};

// With the boundaries, if `boundary` is not null.
template <typename T, Noise kind>
__global__ void __launch_bounds__(kDrawThreads)
    find_thresholds(TopKProblem<T> p, const Bracket<T>* brackets, T* value, int32_t* last_tied,
                    int32_t* boundary) {
  auto& shared = shared_memory<ThresholdShared<T>>();
  using Image = decltype(image_of(T()));
  for (int64_t item = blockIdx.x; item < p.rows * p.draws; item += gridDim.x) {
    const int64_t row = item / p.draws;
    const auto [low, high] = brackets[row];
    Threshold<T> found{low, kNoSplitTie};
    if (low == low) {
      const PerturbedRow<T, kind> draw(p, row, item - row * p.draws);
      if (threadIdx.x == 0) shared.above = shared.gathered = 0;
      __syncthreads();
      uint32_t larger = 0;
      draw([&, low = low, high = high](T u, int32_t site) {
        if (u > high) {
          ++larger;
        } else if (u >= low) {
          const uint32_t at = atomicAdd(&shared.gathered, 1u);
          if (at < kCandidates) {
            shared.values[at] = u;
            shared.sites[at] = site;
          }
        }
      });
      if (larger != 0) atomicAdd(&shared.above, larger);
      __syncthreads();
      const uint32_t rank = uint32_t(p.k) - 1, above = shared.above, gathered = shared.gathered;
      const uint32_t wanted = boundary != nullptr ? 2 : 1;  // how many from that rank on
      if (rank >= above && rank - above + wanted <= gathered && gathered <= kCandidates) {
        const auto candidates = [&](const auto& f) {
          for (uint32_t i = threadIdx.x; i < gathered; i += blockDim.x)
            f(shared.values[i], shared.sites[i]);
        };
        found =
            threshold_of<T>(candidates, rank - above, image_of(low), image_of(high), shared.select);
        if (boundary != nullptr)
          boundary_of(candidates, found, shared.boundary, boundary + 2 * item);
      } else {
        found = threshold_of<T>(draw, rank, Image{0}, ~Image{0}, shared.select);
        if (boundary != nullptr) boundary_of(draw, found, shared.boundary, boundary + 2 * item);
      }
    } else if (boundary != nullptr && threadIdx.x == 0) {
      boundary[2 * item] = boundary[2 * item + 1] = 0;
    }
    if (threadIdx.x == 0) {
      value[item] = found.value;
      last_tied[item] = found.last_tied;
    }
  }
}

template <typename Sum>
struct SumShared {
  Sum part[kSumSlots][kTileSites];
  Sum total[kTileSites];  // entry i belongs to thread i modulo the block
};

template <typename T, Noise kind, typename Term>
__global__ void __launch_bounds__(kSumThreads) sum_over_draws(TopKProblem<T> p, Term term, T* out) {
  using Sum = typename Term::Sum;
  auto& shared = shared_memory<SumShared<Sum>>();
  const PhiloxKey key = load_key(p.key);
  const int lane = int(threadIdx.x) % kTileLanes, slot = int(threadIdx.x) / kTileLanes;
  const int slots = int(blockDim.x) / kTileLanes;
  const int64_t tiles = tiles_of(p.sites), blocks = (p.draws + kDrawBlock - 1) / kDrawBlock;
  for (int64_t item = blockIdx.x; item < p.rows * tiles; item += gridDim.x) {
    const int64_t row = item / tiles, tile = item - row * tiles;
    const T* scores = p.scores + row * p.sites;
    const int64_t site = tile * kTileSites + lane;
    typename Term::Site own[4] = {};
    for (int w = 0; w < 4; ++w) {
      const int64_t s = site + w * kTileLanes;
      if (s < p.sites) own[w] = term.site(scores[s], row * p.sites + s);
    }
    for (int i = int(threadIdx.x); i < kTileSites; i += int(blockDim.x)) shared.total[i] = Sum(0);
    for (int64_t first = 0; first < blocks; first += slots) {
      const int64_t begin = (first + slot) * kDrawBlock;
      const int64_t end = begin + kDrawBlock < p.draws ? begin + kDrawBlock : p.draws;
      Sum part[4] = {};
      for (int64_t j = begin; j < end; ++j) {
        const auto draw = term.draw(row, row * p.draws + j);
        const FourNoises n = Term::template values<kind>(noise_words(
            key, uint32_t(tile * kTileLanes + lane), uint32_t(j), uint32_t(p.row_offset + row)));
        const float z[4] = {n.z0, n.z1, n.z2, n.z3};
        for (int w = 0; w < 4; ++w)
          part[w] = term.template add<kind>(part[w], draw, z[w], own[w], site + w * kTileLanes);
      }
      for (int w = 0; w < 4; ++w) shared.part[slot][w * kTileLanes + lane] = part[w];
      __syncthreads();
      const int filled = int(blocks - first < slots ? blocks - first : slots);
      for (int i = int(threadIdx.x); i < kTileSites; i += int(blockDim.x))
        for (int b = 0; b < filled; ++b) shared.total[i] += shared.part[b][i];
      __syncthreads();
    }
    const T value = term.value[row * p.draws];
    for (int i = int(threadIdx.x); i < kTileSites; i += int(blockDim.x)) {
      const int64_t s = tile * kTileSites + i;
      if (s >= p.sites) continue;
      out[row * p.sites + s] = value == value
                                   ? term.finish(shared.total[i], scores[s], s, row * p.draws)
                                   : not_a_number<T>();
    }
  }
}

template <typename T>
struct RivalsOfDraw {
  Rivals<T> rivals;
  T outside_v, inside_v;  // backward only
};

// Workspace: forward, the brackets; backward, the reaches and the centres; of the conditional
// estimator, the rivals (in forward after the brackets' use).
template <typename T>
struct Workspace {
  Bracket<T>* brackets;
  T *reach, *centre;
  RivalsOfDraw<T>* rivals;
  Workspace(void* memory, int64_t rows, int64_t draws)
      : brackets(static_cast<Bracket<T>*>(memory)),
        reach(static_cast<T*>(memory)),
        centre(reach + rows * draws),
        rivals(static_cast<RivalsOfDraw<T>*>(memory)) {}
};

// Threads of sum_over_draws: one slot of 16 for each block of draws, whole warps.
inline int sum_threads(int64_t draws) {
  const int64_t blocks = (draws + kDrawBlock - 1) / kDrawBlock;
  return threads_for(blocks * kTileLanes, kSumThreads);
}

// Five standard deviations of the count above a fixed value, each way (the CPU takes 3.5), but no more
// than the candidates have room for.
inline int64_t bracket_margin(int64_t k, int64_t sites) {
  const int64_t fewer = k < sites - k ? k : sites - k;
  const int64_t margin = int64_t(5.0 * std::sqrt(2.0 * double(fewer))) + 4;
  const int64_t most = int64_t{kCandidates} * 2 / 5;
  return margin < most ? margin : most;
}

template <typename T, Noise kind>
cudaError_t launch_thresholds(const TopKProblem<T>& p, Bracket<T>* brackets, T* value,
                              int32_t* last_tied, int32_t* boundary, cudaStream_t stream) {
  const cudaError_t error =
      launch(find_brackets<T, kind>, blocks_for(p.rows), draw_threads(p.sites, kRowThreads),
             sizeof(SelectShared), stream, p, bracket_margin(p.k, p.sites), brackets);
  if (error != cudaSuccess) return error;
  return launch(find_thresholds<T, kind>, blocks_for(p.rows * p.draws),
                draw_threads(p.sites, kDrawThreads), sizeof(ThresholdShared<T>), stream, p,
                brackets, value, last_tied, boundary);
}

template <typename T, Noise kind, typename Term>
cudaError_t launch_sum(const TopKProblem<T>& p, Term term, T* out, cudaStream_t stream) {
  return launch(sum_over_draws<T, kind, Term>, blocks_for(p.rows * tiles_of(p.sites)),
                sum_threads(p.draws), sizeof(SumShared<typename Term::Sum>), stream, p, term, out);
}

}  // namespace topreach::kernels::cuda
