// CPU loops of the perturbed top-K operator; see ../perturbed_topk.h for the method.
#include "../perturbed_topk.h"

#include "isa.h"
#include "noise_tile.h"
#include "order_statistic.h"

namespace topreach::kernels::TR_ISA {
namespace {

// Scratch layout of one worker: u, row (the padded scores), values (to select from), score.
template <typename T>
struct Buffers {
  T *u, *row, *values;
  float* score;
  Buffers(void* scratch, int64_t padded)
      : u(static_cast<T*>(scratch)),
        row(u + padded),
        values(row + padded),
        score(reinterpret_cast<float*>(values + padded)) {}
};

template <typename T>
TR_INLINE void pad_row(const T* scores, int64_t sites, int64_t padded, T* row) {
  for (int64_t s = 0; s < sites; ++s) row[s] = scores[s];
  for (int64_t s = sites; s < padded; ++s) row[s] = negative_infinity<T>();
}

template <typename T>
Order<T> exact_order(const T* u, int64_t sites, int64_t k, T* values) {
  T low = u[0], high = u[0];
  for (int64_t s = 0; s < sites; ++s) {
    values[s] = u[s];
    low = lesser(low, u[s]);
    high = greater(high, u[s]);
  }
  return select_largest(values, sites, k - 1, low, high);
}

template <typename T>
void threshold(const T* scores, int64_t sites, int64_t k, T* value, int32_t* last_tied,
               void* scratch) {
  T* values = static_cast<T*>(scratch);
  const Order<T> order = exact_order(scores, sites, k, values);
  *value = order.value;
  *last_tied = last_tied_site(scores, k, order);
}

template <typename T, Noise kind>
TR_INLINE void perturb(const TopKProblem<T>& p, uint32_t draw, uint32_t row, int64_t padded,
                       Buffers<T>& b) {
  for (int64_t tile = 0; tile < padded / kTileSites; ++tile) {
    alignas(64) float z[kTileSites];
    noise_tile<kind>(p.key, uint32_t(tile), draw, row, z);
    for (int i = 0; i < kTileSites; ++i) {
      const int64_t s = tile * kTileSites + i;
      b.u[s] = fused(p.sigma, T(z[i]), b.row[s]);
    }
  }
}

// The count above a fixed value differs between draws with a variance of at most 2 min(K, S - K);
// 3.5 of its standard deviations each way make a miss rare.
template <typename T, Noise kind>
Bracket<T> bracket_of(const TopKProblem<T>& p, int64_t row, void* scratch) {
  const int64_t padded = padded_sites(p.sites);
  Buffers<T> b(scratch, padded);
  pad_row(p.scores + row * p.sites, p.sites, padded, b.row);
  perturb<T, kind>(p, 0, uint32_t(p.row_offset + row), padded, b);
  const double variance = 2.0 * double(lesser(p.k, p.sites - p.k));
  const int64_t margin = int64_t(3.5 * __builtin_sqrt(variance)) + 4;
  const int64_t first = p.k - 1 - margin, last = p.k - 1 + margin;
  Bracket<T> bracket;
  bracket.high =
      first < 0 ? -negative_infinity<T>() : exact_order(b.u, p.sites, first + 1, b.values).value;
  const T low = last >= p.sites ? negative_infinity<T>()
                                : exact_order(b.u, p.sites, last + 1, b.values).value;
  bracket.low = greater(low, lowest_finite<T>());  // so that padding is never gathered
  return bracket;
}

// Draw j of a row: its perturbed scores b.u and their K-th largest.
template <typename T, Noise kind>
TR_INLINE Order<T> draw_order(const TopKProblem<T>& p, int64_t row, Bracket<T> bracket, int64_t j,
                              int64_t padded, Buffers<T>& b) {
  const T low = bracket.low, high = bracket.high;
  int64_t gathered = 0;
  int32_t above_lanes[kLanes] = {};
  for (int64_t tile = 0; tile < padded / kTileSites; ++tile) {
    alignas(64) float z[kTileSites];
    alignas(64) T u[kTileSites];
    noise_tile<kind>(p.key, uint32_t(tile), uint32_t(j), uint32_t(p.row_offset + row), z);
    for (int i = 0; i < kTileSites; ++i)
      u[i] = fused(p.sigma, T(z[i]), b.row[tile * kTileSites + i]);
    for (int i = 0; i < kTileSites; ++i) b.u[tile * kTileSites + i] = u[i];
    for (int w = 0; w < kTileSites; w += kLanes)
      for (int lane = 0; lane < kLanes; ++lane) above_lanes[lane] += u[w + lane] > high ? 1 : 0;
    for (int w = 0; w < kTileSites; w += kLanes)
      gathered = append_inside(u + w, low, high, b.values, gathered);
  }
  int64_t above = 0;
  for (int lane = 0; lane < kLanes; ++lane) above += above_lanes[lane];

  const int64_t rank = p.k - 1 - above;
  if (rank < 0 || rank >= gathered) return exact_order(b.u, p.sites, p.k, b.values);
  Order<T> order = select_largest(b.values, gathered, rank, low, high);
  order.above += above;
  return order;
}

template <typename T, Noise kind>
void forward_of(const TopKProblem<T>& p, int64_t row, Bracket<T> bracket, int64_t begin,
                int64_t end, int32_t* counts, T* value, int32_t* last_tied, void* scratch) {
  const int64_t padded = padded_sites(p.sites);
  Buffers<T> b(scratch, padded);
  pad_row(p.scores + row * p.sites, p.sites, padded, b.row);
  for (int64_t j = begin; j < end; ++j) {
    const Order<T> order = draw_order<T, kind>(p, row, bracket, j, padded, b);
    const T t = order.value;
    const int32_t last = last_tied_site(b.u, p.k, order);
    value[j] = t;
    last_tied[j] = last;
    if (last == kNoSplitTie) {
      for (int64_t s = 0; s < p.sites; ++s) counts[s] += b.u[s] >= t ? 1 : 0;
    } else {
      for (int64_t s = 0; s < p.sites; ++s)
        counts[s] += (b.u[s] > t) | ((b.u[s] == t) & (s <= last)) ? 1 : 0;
    }
  }
}

// Adds v over the chosen sites of one tile to 16 running sums.
template <bool split_tie, typename T>
TR_INLINE void add_reach(const TopKProblem<T>& p, const float* z, const T* scores, const T* v, T t,
                         int32_t last_tied, T* reach) {
  for (int w = 0; w < kTileSites; w += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const int i = w + lane;
      const T u = fused(p.sigma, T(z[i]), scores[i]);
      const bool chosen = split_tie ? (u > t) | ((u == t) & (i <= last_tied)) : u >= t;
      reach[lane] += chosen ? v[i] : T(0);
    }
  }
}

template <typename T, Noise kind>
void backward_of(const TopKProblem<T>& p, int64_t row, const T* v, T centre, int64_t begin,
                 int64_t end, const T* value, const int32_t* last_tied, T* total, void* scratch) {
  const int64_t padded = padded_sites(p.sites);
  Buffers<T> b(scratch, padded);
  pad_row(p.scores + row * p.sites, p.sites, padded, b.row);
  T* padded_v = b.values;
  for (int64_t s = 0; s < p.sites; ++s) padded_v[s] = v[s];
  for (int64_t s = p.sites; s < padded; ++s) padded_v[s] = T(0);
  for (int64_t j = begin; j < end; ++j) {
    alignas(64) T reach[kLanes] = {};
    for (int64_t s = 0; s < padded; s += kTileSites) {
      const uint32_t tile = uint32_t(s / kTileSites), global = uint32_t(p.row_offset + row);
      [[maybe_unused]] alignas(64) float drawn[kTileSites];
      const float* z = b.score + s;
      score_tile<kind>(p.key, tile, uint32_t(j), global, b.score + s);
      if constexpr (kind != Noise::kNormal) {  // whose score is the noise itself
        noise_tile<kind>(p.key, tile, uint32_t(j), global, drawn);
        z = drawn;
      }
      if (last_tied[j] == kNoSplitTie) {
        add_reach<false>(p, z, b.row + s, padded_v + s, value[j], 0, reach);
      } else {
        add_reach<true>(p, z, b.row + s, padded_v + s, value[j], int32_t(last_tied[j] - s), reach);
      }
    }
    for (int width = kLanes / 2; width > 0; width /= 2)
      for (int lane = 0; lane < width; ++lane) reach[lane] += reach[lane + width];
    const T weight = reach[0] - centre;
    for (int64_t s = 0; s < p.sites; ++s) total[s] = fused(weight, T(b.score[s]), total[s]);
  }
}

// The sites of the K-th and the (K+1)-th largest of u; the last chosen one is at the threshold. If a tie
// is split, both are in it; otherwise the K-th is the last site at the threshold, and the next is the first
// site at the largest value below. (Padding is below all sites or, at -inf, after them.)
template <typename T>
TR_INLINE void find_boundary(const T* u, int64_t padded, Order<T> order, int32_t last_tied,
                             int32_t* boundary) {
  const T t = order.value;
  if (last_tied != kNoSplitTie) {
    int32_t next = last_tied + 1;
    while (u[next] != t) ++next;
    boundary[0] = last_tied;
    boundary[1] = next;
    return;
  }
  T next_value = order.next;
  if (next_value == negative_infinity<T>()) {
    for (int64_t s = 0; s < padded; ++s)
      next_value = u[s] < t ? greater(next_value, u[s]) : next_value;
  }
  int32_t kth = -1, next = INT32_MAX;
#pragma omp simd reduction(max : kth) reduction(min : next)
  for (int32_t s = 0; s < int32_t(padded); ++s) {
    kth = greater(kth, u[s] == t ? s : -1);
    next = lesser(next, u[s] == next_value ? s : INT32_MAX);
  }
  boundary[0] = kth;
  boundary[1] = next;
}

template <bool split_tie, typename T>
TR_INLINE bool is_chosen(T u, int64_t site, T t, int32_t last_tied) {
  return split_tie ? (u > t) | ((u == t) & (site <= last_tied)) : u >= t;
}

template <bool split_tie, Noise kind, typename T>
TR_INLINE void add_tails(const T* u, const T* scores, int64_t sites, T t, int32_t last_tied,
                         Rivals<T> rivals, T inverse_sigma, T* total) {
  for (int64_t s = 0; s < sites; ++s) {
    const bool chosen = is_chosen<split_tie>(u[s], s, t, last_tied);
    total[s] += upper_tail<kind>(rivals.gap(chosen, scores[s], inverse_sigma));
  }
}

template <typename T, Noise kind>
void conditional_forward_of(const TopKProblem<T>& p, int64_t row, Bracket<T> bracket, int64_t begin,
                            int64_t end, T* total, T* value, int32_t* last_tied, int32_t* boundary,
                            void* scratch) {
  const int64_t padded = padded_sites(p.sites);
  Buffers<T> b(scratch, padded);
  pad_row(p.scores + row * p.sites, p.sites, padded, b.row);
  const T inverse_sigma = T(1) / p.sigma;
  for (int64_t j = begin; j < end; ++j) {
    const Order<T> order = draw_order<T, kind>(p, row, bracket, j, padded, b);
    const T t = order.value;
    const int32_t last = last_tied_site(b.u, p.k, order);
    value[j] = t;
    last_tied[j] = last;
    find_boundary(b.u, padded, order, last, boundary + 2 * j);
    const auto rivals =
        rivals_of<kind>(b.row, boundary + 2 * j, p.key, uint32_t(j), uint32_t(p.row_offset + row));
    if (last == kNoSplitTie) {
      add_tails<false, kind>(b.u, b.row, p.sites, t, last, rivals, inverse_sigma, total);
    } else {
      add_tails<true, kind>(b.u, b.row, p.sites, t, last, rivals, inverse_sigma, total);
    }
  }
}

template <bool split_tie, Noise kind, typename T>
TR_INLINE void add_densities(const TopKProblem<T>& p, int64_t row, int64_t j, int64_t padded,
                             const T* scores, const T* v, T t, int32_t last_tied, Rivals<T> rivals,
                             T outside_v, T inside_v, T inverse_sigma, T* total) {
  for (int64_t s = 0; s < padded; s += kTileSites) {
    alignas(64) float z[kTileSites];
    noise_tile<kind>(p.key, uint32_t(s / kTileSites), uint32_t(j), uint32_t(p.row_offset + row), z);
    for (int i = 0; i < kTileSites; ++i) {
      const T u = fused(p.sigma, T(z[i]), scores[s + i]);
      const bool chosen = is_chosen<split_tie>(u, s + i, t, last_tied);
      const T x = rivals.gap(chosen, scores[s + i], inverse_sigma);
      const T difference = v[s + i] - (chosen ? inside_v : outside_v);
      total[s + i] = fused(density<kind>(x), difference, total[s + i]);
    }
  }
}

template <typename T, Noise kind>
void conditional_backward_of(const TopKProblem<T>& p, int64_t row, const T* v, int64_t begin,
                             int64_t end, const T* value, const int32_t* last_tied,
                             const int32_t* boundary, T* total, void* scratch) {
  const int64_t padded = padded_sites(p.sites);
  Buffers<T> b(scratch, padded);
  pad_row(p.scores + row * p.sites, p.sites, padded, b.row);
  T *padded_v = b.values, *sum = b.u;
  for (int64_t s = 0; s < p.sites; ++s) padded_v[s] = v[s];
  for (int64_t s = p.sites; s < padded; ++s) padded_v[s] = T(0);
  for (int64_t s = 0; s < padded; ++s) sum[s] = T(0);
  const T inverse_sigma = T(1) / p.sigma;
  for (int64_t j = begin; j < end; ++j) {
    const int32_t* pair = boundary + 2 * j;
    const auto rivals =
        rivals_of<kind>(b.row, pair, p.key, uint32_t(j), uint32_t(p.row_offset + row));
    const auto add =
        last_tied[j] == kNoSplitTie ? add_densities<false, kind, T> : add_densities<true, kind, T>;
    add(p, row, j, padded, b.row, padded_v, value[j], last_tied[j], rivals, v[pair[0]], v[pair[1]],
        inverse_sigma, sum);
  }
  for (int64_t s = 0; s < p.sites; ++s) total[s] += sum[s];
}

// The noise kind is a template parameter inside, a plain argument outside.
template <typename T>
Bracket<T> bracket(const TopKProblem<T>& p, Noise noise, int64_t row, void* scratch) {
  return with_noise(noise, [&](auto of) { return bracket_of<T, of.kind>(p, row, scratch); });
}

template <typename T>
void forward(const TopKProblem<T>& p, Noise noise, int64_t row, Bracket<T> bracket, int64_t begin,
             int64_t end, int32_t* counts, T* value, int32_t* last_tied, void* scratch) {
  with_noise(noise, [&](auto of) {
    forward_of<T, of.kind>(p, row, bracket, begin, end, counts, value, last_tied, scratch);
  });
}

template <typename T>
void backward(const TopKProblem<T>& p, Noise noise, int64_t row, const T* v, T centre,
              int64_t begin, int64_t end, const T* value, const int32_t* last_tied, T* total,
              void* scratch) {
  with_noise(noise, [&](auto of) {
    backward_of<T, of.kind>(p, row, v, centre, begin, end, value, last_tied, total, scratch);
  });
}

template <typename T>
void conditional_forward(const TopKProblem<T>& p, Noise noise, int64_t row, Bracket<T> bracket,
                         int64_t begin, int64_t end, T* total, T* value, int32_t* last_tied,
                         int32_t* boundary, void* scratch) {
  with_noise(noise, [&](auto of) {
    conditional_forward_of<T, of.kind>(p, row, bracket, begin, end, total, value, last_tied,
                                       boundary, scratch);
  });
}

template <typename T>
void conditional_backward(const TopKProblem<T>& p, Noise noise, int64_t row, const T* v,
                          int64_t begin, int64_t end, const T* value, const int32_t* last_tied,
                          const int32_t* boundary, T* total, void* scratch) {
  with_noise(noise, [&](auto of) {
    conditional_backward_of<T, of.kind>(p, row, v, begin, end, value, last_tied, boundary, total,
                                        scratch);
  });
}

template <Noise kind>
void noise_row_of(PhiloxKey key, int64_t sites, uint32_t draw, uint32_t row, float* z) {
  for (int64_t begin = 0; begin < sites; begin += kTileSites) {
    alignas(64) float tile[kTileSites];
    noise_tile<kind>(key, uint32_t(begin / kTileSites), draw, row, tile);
    const int64_t n = lesser<int64_t>(kTileSites, sites - begin);
    for (int64_t i = 0; i < n; ++i) z[begin + i] = tile[i];
  }
}

template <Noise kind>
uint32_t checksum_of(PhiloxKey key, int64_t sites, int64_t draws, uint32_t row) {
  uint32_t lanes[kTileSites] = {};
  const int64_t whole = sites / kTileSites, rest = sites % kTileSites;
  for (int64_t j = 0; j < draws; ++j) {
    alignas(64) float z[kTileSites];
    for (int64_t tile = 0; tile < whole; ++tile) {
      noise_tile<kind>(key, uint32_t(tile), uint32_t(j), row, z);
      for (int i = 0; i < kTileSites; ++i) lanes[i] ^= bits_of(z[i]);
    }
    if (rest == 0) continue;
    noise_tile<kind>(key, uint32_t(whole), uint32_t(j), row, z);
    for (int i = 0; i < rest; ++i) lanes[i] ^= bits_of(z[i]);
  }
  uint32_t sum = 0;
  for (int i = 0; i < kTileSites; ++i) sum ^= lanes[i];
  return sum;
}

}  // namespace

extern const TopKCpu<float> topk_float;
extern const TopKCpu<double> topk_double;
const TopKCpu<float> topk_float{threshold<float>,
                                bracket<float>,
                                forward<float>,
                                backward<float>,
                                conditional_forward<float>,
                                conditional_backward<float>};
const TopKCpu<double> topk_double{threshold<double>,
                                  bracket<double>,
                                  forward<double>,
                                  backward<double>,
                                  conditional_forward<double>,
                                  conditional_backward<double>};

void noise_row(PhiloxKey key, Noise noise, int64_t sites, uint32_t draw, uint32_t row, float* z) {
  with_noise(noise, [&](auto of) { noise_row_of<of.kind>(key, sites, draw, row, z); });
}

uint32_t noise_checksum(PhiloxKey key, Noise noise, int64_t sites, int64_t draws, uint32_t row) {
  return with_noise(noise, [&](auto of) { return checksum_of<of.kind>(key, sites, draws, row); });
}

}  // namespace topreach::kernels::TR_ISA
