// Perturbed top-K on CUDA: b(r) = (1/J) sum_j TopKMask(r + sigma z_j, K) and its score-function
// vector-Jacobian product g = scale sum_j (b_j . v - centre) score(z_j); see ../perturbed_topk.h.
//
// Noise is cheaper to draw again than to keep: four sites take one Philox call and some 200
// instructions in all. So each kernel draws what it needs:
//   find_brackets      one block a row: two exact order statistics of draw 0
//   find_thresholds    one block a (row, draw): counts sites above the bracket, gathers those inside
//                      into shared memory and selects among them; a draw that the bracket misses
//                      selects among all its sites instead, drawing the noise in each pass
//   draw_reach         one block a (row, draw): b_j . v, in the order of the CPU: 16 running sums
//   sum_over_draws     one block a (row, tile of 64 sites), 16 draws blocks at a time: counts, or the
//                      gradient, whose rounding is that of the CPU (blocks of kDrawBlock in order)
// and for the conditional estimator, whose thresholds come with their boundaries,
//   find_rivals        one thread a (row, draw): scores, noise and v of the boundary's two sites
//   sum_over_draws     of 1 - F(x), or of f(x) (v - v of the rival)
// A thread serves one counter of noise.h, that is sites s, s + 16, s + 32, s + 48: half warps read
// and write neighbouring sites.
//
// Cost: forward draws J S noise values twice, backward twice (once for the conditional estimator, which
// adds some 20 to 40 instructions a value for f or F); bound by arithmetic, about 50
// instructions a value, memory traffic O(rows (S + J)) and scores from cache. At J = 100, S = 1620,
// T = 10 that is 1e8 instructions a pass: some microseconds, near the cost of the launches.
// Memory: thresholds, reaches and rivals, rows x J; brackets; nothing of size J x S.
//
// Bits: thresholds, counts, the gradient of estimator "score", and value and gradient of the conditional
// estimator equal the CPU's. With `leave_one_out` they do up to the rounding of the centre b . v
// (row_dot.cuh).
#include "perturbed_topk.h"

#include <cmath>

#include "row_dot.cuh"
#include "select.cuh"

namespace topreach::kernels::cuda {
namespace {

constexpr int kDrawThreads = 256, kSumSlots = 16;
constexpr int kSumThreads = kSumSlots * kTileLanes;
constexpr uint32_t kCandidates = 2048;

using Word64 = unsigned long long;  // as CUDA's 64-bit atomics want it

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

// The perturbed scores of one (row, draw), shared out to the threads of a block.
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

// A row as it is, shared out likewise.
template <typename T>
struct PlainRow {
  const T* scores;
  int64_t sites;

  template <typename F>
  __device__ void operator()(const F& f) const {
    for (int64_t s = threadIdx.x; s < sites; s += blockDim.x) f(scores[s], int32_t(s));
  }

  // Whether the row holds a NaN; the whole block asks.
  __device__ bool has_nan() const {
    bool nan = false;
    (*this)([&](T r, int32_t) { nan |= r != r; });
    return __syncthreads_or(nan) != 0;
  }
};

// A row with a NaN score gets a NaN bracket, by which the kernels that follow know it.
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

template <typename T>
TR_HD bool chosen(T u, int64_t site, Threshold<T> t) {
  return u > t.value || (u == t.value && site <= t.last_tied);
}

struct BoundaryShared {
  Word64 next_image;
  int32_t kth, next;
};

// The sites of the K-th and the (K+1)-th largest of what visit(f) passes to f, as of a threshold: the
// last chosen one at its value, and the first of those that come next.
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
      const uint32_t wanted = boundary != nullptr ? 2 : 1;  // so many from that rank on
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

// What sum_over_draws adds up for a site, and what it makes of a sum; `first` is the row's draw 0.
template <typename T>
struct Membership {
  using Sum = int32_t;
  using Draw = Threshold<T>;
  using Site = T;
  const T* value;
  const int32_t* last_tied;
  T sigma, draws;

  template <Noise kind>
  __device__ static FourNoises values(PhiloxWords words) {
    return noise_of_words<kind>(words);
  }
  __device__ Draw draw(int64_t, int64_t item) const { return {value[item], last_tied[item]}; }
  __device__ Site site(T score, int64_t) const { return score; }
  template <Noise kind>
  __device__ Sum add(Sum sum, const Draw& t, float z, Site score, int64_t site) const {
    return sum + (chosen(fused(sigma, T(z), score), site, t) ? 1 : 0);
  }
  __device__ T finish(Sum sum, T, int64_t, int64_t) const { return T(sum) / draws; }
};

template <typename T>
struct Gradient {
  using Sum = T;
  using Draw = T;
  using Site = T;
  const T* value;
  const T* reach;
  const T* centre;  // null: zero
  T scale;

  template <Noise kind>
  __device__ static FourNoises values(PhiloxWords words) {
    return score_of_words<kind>(words);
  }
  __device__ Draw draw(int64_t row, int64_t item) const {
    return centre != nullptr ? reach[item] - centre[row] : reach[item];
  }
  __device__ Site site(T score, int64_t) const { return score; }
  template <Noise kind>
  __device__ Sum add(Sum sum, Draw weight, float z, Site, int64_t) const {
    return fused(weight, T(z), sum);
  }
  __device__ T finish(Sum sum, T score, int64_t, int64_t) const {
    return is_finite(score) ? sum * scale : T(0);
  }
};

template <typename T>
struct RivalsOfDraw {
  Rivals<T> rivals;
  T outside_v, inside_v;  // backward only
};

template <typename T>
struct ConditionalDraw {
  Threshold<T> threshold;
  RivalsOfDraw<T> at;
};

template <typename T>
struct ConditionalMembership {
  using Sum = T;
  using Draw = ConditionalDraw<T>;
  using Site = T;
  const T* value;
  const int32_t* last_tied;
  const RivalsOfDraw<T>* rivals;
  T sigma, inverse_sigma, draws;

  template <Noise kind>
  __device__ static FourNoises values(PhiloxWords words) {
    return noise_of_words<kind>(words);
  }
  __device__ Draw draw(int64_t, int64_t item) const {
    return {{value[item], last_tied[item]}, rivals[item]};
  }
  __device__ Site site(T score, int64_t) const { return score; }
  template <Noise kind>
  __device__ Sum add(Sum sum, const Draw& draw, float z, Site score, int64_t site) const {
    const bool in = chosen(fused(sigma, T(z), score), site, draw.threshold);
    return sum + upper_tail<kind>(draw.at.rivals.gap(in, score, inverse_sigma));
  }
  __device__ T finish(Sum sum, T score, int64_t site, int64_t first) const {
    if (is_finite(score)) return sum / draws;
    return chosen(score, site, {value[first], last_tied[first]}) ? T(1) : T(0);
  }
};

template <typename T>
struct ConditionalGradient {
  using Sum = T;
  using Draw = ConditionalDraw<T>;
  struct Site {
    T score, v;
  };
  const T* value;
  const int32_t* last_tied;
  const RivalsOfDraw<T>* rivals;
  const T* v;
  T sigma, inverse_sigma, scale;

  template <Noise kind>
  __device__ static FourNoises values(PhiloxWords words) {
    return noise_of_words<kind>(words);
  }
  __device__ Draw draw(int64_t, int64_t item) const {
    return {{value[item], last_tied[item]}, rivals[item]};
  }
  __device__ Site site(T score, int64_t at) const { return {score, v[at]}; }
  template <Noise kind>
  __device__ Sum add(Sum sum, const Draw& draw, float z, Site own, int64_t site) const {
    const bool in = chosen(fused(sigma, T(z), own.score), site, draw.threshold);
    const T x = draw.at.rivals.gap(in, own.score, inverse_sigma);
    return fused(density<kind>(x), own.v - (in ? draw.at.inside_v : draw.at.outside_v), sum);
  }
  __device__ T finish(Sum sum, T score, int64_t, int64_t) const {
    return is_finite(score) ? sum * scale : T(0);
  }
};

// v is null in forward. The boundary is read with care: backward may have been given any.
template <typename T, Noise kind>
__global__ void __launch_bounds__(kDrawThreads)
    find_rivals(TopKProblem<T> p, const T* v, const int32_t* boundary, RivalsOfDraw<T>* rivals) {
  const PhiloxKey key = load_key(p.key);
  const int64_t items = p.rows * p.draws, step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t item = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; item < items; item += step) {
    const int64_t row = item / p.draws;
    const int32_t pair[2] = {boundary[2 * item], boundary[2 * item + 1]};
    const T nan = not_a_number<T>();
    RivalsOfDraw<T> at{{nan, nan, nan, nan}, nan, nan};
    if (pair[0] >= 0 && pair[0] < p.sites && pair[1] >= 0 && pair[1] < p.sites) {
      at.rivals = rivals_of<kind>(p.scores + row * p.sites, pair, key,
                                  uint32_t(item - row * p.draws), uint32_t(p.row_offset + row));
      if (v != nullptr) {
        at.outside_v = v[row * p.sites + pair[0]];
        at.inside_v = v[row * p.sites + pair[1]];
      }
    }
    rivals[item] = at;
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

// Warps draw noise into one half of `part` while lanes 0 to 15 add the other half, sites ascending.
template <typename T>
struct ReachShared {
  T part[2][kDrawThreads * 4];
};

template <typename T, Noise kind>
__global__ void __launch_bounds__(kDrawThreads)
    draw_reach(TopKProblem<T> p, const T* v, const T* value, const int32_t* last_tied, T* reach) {
  auto& shared = shared_memory<ReachShared<T>>();
  const PhiloxKey key = load_key(p.key);
  const int lane = int(threadIdx.x) % kTileLanes, group = int(threadIdx.x) / kTileLanes;
  const int64_t counters = counters_of(p.sites);
  int half = 0;
  for (int64_t item = blockIdx.x; item < p.rows * p.draws; item += gridDim.x) {
    const int64_t row = item / p.draws;
    const uint32_t draw = uint32_t(item - row * p.draws);
    const T* scores = p.scores + row * p.sites;
    const Threshold<T> threshold{value[item], last_tied[item]};
    T sum = T(0);
    for (int64_t first = 0; first < counters; first += blockDim.x, half ^= 1) {
      const int64_t c = first + threadIdx.x;
      T part[4] = {};
      if (c < counters) {
        const FourNoises n =
            noise_of_counter<kind>(key, uint32_t(c), draw, uint32_t(p.row_offset + row));
        const float z[4] = {n.z0, n.z1, n.z2, n.z3};
        int64_t s = first_site(c);
        for (int w = 0; w < 4; ++w, s += kTileLanes)
          if (s < p.sites && chosen(fused(p.sigma, T(z[w]), scores[s]), s, threshold))
            part[w] = v[row * p.sites + s];
      }
      for (int w = 0; w < 4; ++w) shared.part[half][(4 * group + w) * kTileLanes + lane] = part[w];
      __syncthreads();
      if (threadIdx.x < kTileLanes)
        for (int i = lane; i < 4 * int(blockDim.x); i += kTileLanes) sum += shared.part[half][i];
    }
    if (threadIdx.x < 32) {
      for (int width = kTileLanes / 2; width > 0; width /= 2)
        sum += __shfl_down_sync(0xFFFFFFFFu, sum, unsigned(width), kTileLanes);
      if (threadIdx.x == 0) reach[item] = sum;
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    mask_rows(const T* scores, int64_t rows, int64_t sites, int64_t k, T* mask) {
  auto& shared = shared_memory<SelectShared>();
  using Image = decltype(image_of(T()));
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const PlainRow<T> visit{scores + row * sites, sites};
    T* out = mask + row * sites;
    if (visit.has_nan()) {
      visit([&](T, int32_t s) { out[s] = not_a_number<T>(); });
    } else if (k == 0 || k == sites) {
      visit([&](T, int32_t s) { out[s] = k == 0 ? T(0) : T(1); });
    } else {
      const auto threshold = threshold_of<T>(visit, uint32_t(k) - 1, Image{0}, ~Image{0}, shared);
      visit([&](T r, int32_t s) { out[s] = chosen(r, s, threshold) ? T(1) : T(0); });
    }
  }
}

// Item: one counter of one (draw, row).
template <Noise kind>
__global__ void __launch_bounds__(kDrawThreads)
    noise_values(const int64_t* key, int64_t draws, int64_t rows, int64_t sites, int64_t row_offset,
                 float* z) {
  const int64_t counters = counters_of(sites), items = draws * rows * counters;
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < items; i += step) {
    const int64_t line = i / counters, c = i - line * counters;
    const int64_t draw = line / rows, row = line - draw * rows;
    const FourNoises n = noise_of_counter<kind>(load_key(key), uint32_t(c), uint32_t(draw),
                                                uint32_t(row_offset + row));
    const float values[4] = {n.z0, n.z1, n.z2, n.z3};
    int64_t s = first_site(c);
    for (int w = 0; w < 4; ++w, s += kTileLanes)
      if (s < sites) z[line * sites + s] = values[w];
  }
}

// One block a (row, draw); checksum is zero before.
template <Noise kind>
__global__ void __launch_bounds__(kDrawThreads)
    noise_checksums(const int64_t* key, int64_t draws, int64_t rows, int64_t sites,
                    int64_t row_offset, Word64* checksum) {
  auto& shared = shared_memory<uint32_t>();
  const int64_t counters = counters_of(sites);
  for (int64_t item = blockIdx.x; item < rows * draws; item += gridDim.x) {
    const int64_t row = item / draws;
    if (threadIdx.x == 0) shared = 0;
    __syncthreads();
    uint32_t sum = 0;
    for (int64_t c = threadIdx.x; c < counters; c += blockDim.x) {
      const FourNoises n = noise_of_counter<kind>(
          load_key(key), uint32_t(c), uint32_t(item - row * draws), uint32_t(row_offset + row));
      const float values[4] = {n.z0, n.z1, n.z2, n.z3};
      int64_t s = first_site(c);
      for (int w = 0; w < 4; ++w, s += kTileLanes)
        if (s < sites) sum ^= bits_of(values[w]);
    }
    atomicXor(&shared, sum);
    __syncthreads();
    if (threadIdx.x == 0) atomicXor(checksum + row, Word64{shared});
    __syncthreads();
  }
}

// Workspace: forward, the brackets; backward, the reaches and the centres; of the conditional estimator,
// the rivals (in forward after the brackets' use).
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

// Threads of a block that takes the noise of one row and draw.
int draw_threads(int64_t sites, int most) { return threads_for(counters_of(sites), most); }

// Threads of sum_over_draws: one slot of 16 for each block of draws, whole warps.
int sum_threads(int64_t draws) {
  const int64_t blocks = (draws + kDrawBlock - 1) / kDrawBlock;
  return threads_for(blocks * kTileLanes, kSumThreads);
}

// As on the CPU: five standard deviations of the count above a fixed value, each way; but no more
// than the candidates have room for.
int64_t bracket_margin(int64_t k, int64_t sites) {
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

template <typename T, Noise kind>
cudaError_t launch_rivals(const TopKProblem<T>& p, const T* v, const int32_t* boundary,
                          RivalsOfDraw<T>* rivals, cudaStream_t stream) {
  const int64_t blocks = (p.rows * p.draws + kDrawThreads - 1) / kDrawThreads;
  return launch(find_rivals<T, kind>, blocks_for(blocks), kDrawThreads, 0, stream, p, v, boundary,
                rivals);
}

template <typename T, Noise kind>
cudaError_t forward_of(const TopKProblem<T>& p, T* membership, T* value, int32_t* last_tied,
                       void* workspace, cudaStream_t stream) {
  const Workspace<T> work(workspace, p.rows, p.draws);
  const cudaError_t error = launch_thresholds<T, kind>(p, work.brackets, value, last_tied,
                                                       static_cast<int32_t*>(nullptr), stream);
  if (error != cudaSuccess) return error;
  return launch_sum<T, kind>(p, Membership<T>{value, last_tied, p.sigma, T(p.draws)}, membership,
                             stream);
}

template <typename T, Noise kind>
cudaError_t conditional_forward_of(const TopKProblem<T>& p, T* membership, T* value,
                                   int32_t* last_tied, int32_t* boundary, void* workspace,
                                   cudaStream_t stream) {
  const Workspace<T> work(workspace, p.rows, p.draws);
  cudaError_t error =
      launch_thresholds<T, kind>(p, work.brackets, value, last_tied, boundary, stream);
  if (error != cudaSuccess) return error;
  error = launch_rivals<T, kind>(p, static_cast<const T*>(nullptr), boundary, work.rivals, stream);
  if (error != cudaSuccess) return error;
  const ConditionalMembership<T> term{value,   last_tied,      work.rivals,
                                      p.sigma, T(1) / p.sigma, T(p.draws)};
  return launch_sum<T, kind>(p, term, membership, stream);
}

template <typename T, Noise kind>
cudaError_t conditional_backward_of(const TopKProblem<T>& p, const T* v, const T* value,
                                    const int32_t* last_tied, const int32_t* boundary, T scale,
                                    T* grad, void* workspace, cudaStream_t stream) {
  const Workspace<T> work(workspace, p.rows, p.draws);
  const cudaError_t error = launch_rivals<T, kind>(p, v, boundary, work.rivals, stream);
  if (error != cudaSuccess) return error;
  const ConditionalGradient<T> term{value,   last_tied,      work.rivals, v,
                                    p.sigma, T(1) / p.sigma, scale};
  return launch_sum<T, kind>(p, term, grad, stream);
}

template <typename T, Noise kind>
cudaError_t backward_of(const TopKProblem<T>& p, const T* v, const T* membership, const T* value,
                        const int32_t* last_tied, bool leave_one_out, T scale, T* grad,
                        void* workspace, cudaStream_t stream) {
  const Workspace<T> work(workspace, p.rows, p.draws);
  cudaError_t error =
      launch(draw_reach<T, kind>, blocks_for(p.rows * p.draws), draw_threads(p.sites, kDrawThreads),
             sizeof(ReachShared<T>), stream, p, v, value, last_tied, work.reach);
  if (error != cudaSuccess) return error;
  if (leave_one_out) {
    error = launch_row_dot(membership, v, p.rows, p.sites, work.centre, stream);
    if (error != cudaSuccess) return error;
  }
  return launch_sum<T, kind>(
      p, Gradient<T>{value, work.reach, leave_one_out ? work.centre : nullptr, scale}, grad,
      stream);
}

}  // namespace

template <typename T>
int64_t perturbed_topk_workspace(int64_t rows, int64_t draws) {
  const int64_t forward = rows * int64_t(sizeof(Bracket<T>));
  const int64_t conditional = rows * draws * int64_t(sizeof(RivalsOfDraw<T>));
  const int64_t backward = rows * (draws + 1) * int64_t(sizeof(T));
  const int64_t most = forward > backward ? forward : backward;
  return most > conditional ? most : conditional;
}

template <typename T>
cudaError_t perturbed_topk(const TopKProblem<T>& problem, Noise noise, T* membership, T* value,
                           int32_t* last_tied, void* workspace, cudaStream_t stream) {
  return with_noise(noise, [&](auto of) {
    return forward_of<T, of.kind>(problem, membership, value, last_tied, workspace, stream);
  });
}

template <typename T>
cudaError_t perturbed_topk_backward(const TopKProblem<T>& problem, Noise noise, const T* v,
                                    const T* membership, const T* value, const int32_t* last_tied,
                                    bool leave_one_out, T scale, T* grad, void* workspace,
                                    cudaStream_t stream) {
  return with_noise(noise, [&](auto of) {
    return backward_of<T, of.kind>(problem, v, membership, value, last_tied, leave_one_out, scale,
                                   grad, workspace, stream);
  });
}

template <typename T>
cudaError_t conditional_topk(const TopKProblem<T>& problem, Noise noise, T* membership, T* value,
                             int32_t* last_tied, int32_t* boundary, void* workspace,
                             cudaStream_t stream) {
  return with_noise(noise, [&](auto of) {
    return conditional_forward_of<T, of.kind>(problem, membership, value, last_tied, boundary,
                                              workspace, stream);
  });
}

template <typename T>
cudaError_t conditional_topk_backward(const TopKProblem<T>& problem, Noise noise, const T* v,
                                      const T* value, const int32_t* last_tied,
                                      const int32_t* boundary, T scale, T* grad, void* workspace,
                                      cudaStream_t stream) {
  return with_noise(noise, [&](auto of) {
    return conditional_backward_of<T, of.kind>(problem, v, value, last_tied, boundary, scale, grad,
                                               workspace, stream);
  });
}

template <typename T>
cudaError_t topk_mask(const T* scores, int64_t rows, int64_t sites, int64_t k, T* mask,
                      cudaStream_t stream) {
  return launch(mask_rows<T>, blocks_for(rows), threads_for(sites, kRowThreads),
                sizeof(SelectShared), stream, scores, rows, sites, k, mask);
}

cudaError_t topk_noise(const int64_t* key, Noise noise, int64_t draws, int64_t rows, int64_t sites,
                       int64_t row_offset, float* z, cudaStream_t stream) {
  const int64_t blocks = (draws * rows * counters_of(sites) + kDrawThreads - 1) / kDrawThreads;
  return with_noise(noise, [&](auto of) {
    return launch(noise_values<of.kind>, blocks_for(blocks), kDrawThreads, 0, stream, key, draws,
                  rows, sites, row_offset, z);
  });
}

cudaError_t topk_noise_checksum(const int64_t* key, Noise noise, int64_t draws, int64_t rows,
                                int64_t sites, int64_t row_offset, int64_t* checksum,
                                cudaStream_t stream) {
  const cudaError_t error = cudaMemsetAsync(checksum, 0, size_t(rows) * sizeof(int64_t), stream);
  if (error != cudaSuccess) return error;
  return with_noise(noise, [&](auto of) {
    return launch(noise_checksums<of.kind>, blocks_for(rows * draws),
                  draw_threads(sites, kDrawThreads), sizeof(uint32_t), stream, key, draws, rows,
                  sites, row_offset, reinterpret_cast<Word64*>(checksum));
  });
}

#define TR_INSTANTIATE(T)                                                                          \
  template int64_t perturbed_topk_workspace<T>(int64_t, int64_t);                                  \
  template cudaError_t perturbed_topk<T>(const TopKProblem<T>&, Noise, T*, T*, int32_t*, void*,    \
                                         cudaStream_t);                                            \
  template cudaError_t perturbed_topk_backward<T>(const TopKProblem<T>&, Noise, const T*,          \
                                                  const T*, const T*, const int32_t*, bool, T, T*, \
                                                  void*, cudaStream_t);                            \
  template cudaError_t conditional_topk<T>(const TopKProblem<T>&, Noise, T*, T*, int32_t*,         \
                                           int32_t*, void*, cudaStream_t);                         \
  template cudaError_t conditional_topk_backward<T>(const TopKProblem<T>&, Noise, const T*,        \
                                                    const T*, const int32_t*, const int32_t*, T,   \
                                                    T*, void*, cudaStream_t);                      \
  template cudaError_t topk_mask<T>(const T*, int64_t, int64_t, int64_t, T*, cudaStream_t);
TR_INSTANTIATE(float)
TR_INSTANTIATE(double)
#undef TR_INSTANTIATE

}  // namespace topreach::kernels::cuda
