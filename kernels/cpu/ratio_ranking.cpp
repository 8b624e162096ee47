// CPU loops of the ratio ranking; see ../ratio_ranking.h for the equations.
#include "../ratio_ranking.h"

#include "../platform.h"
#include "isa.h"

namespace topreach::kernels::TR_ISA {
namespace {

constexpr int kLanes = 16;

template <typename T>
TR_INLINE T add_lanes(T (&lanes)[kLanes]) {
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  return lanes[0];
}

template <typename T>
TR_INLINE T sum(const T* y, int64_t sites) {
  alignas(64) T lanes[kLanes] = {};
  int64_t s = 0;
  for (; s + kLanes <= sites; s += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += y[s + lane];
  for (int lane = 0; s + lane < sites; ++lane) lanes[lane] += y[s + lane];
  return add_lanes(lanes);
}

template <typename T>
TR_INLINE T dot(const T* y, const T* g, int64_t sites) {
  alignas(64) T lanes[kLanes] = {};
  int64_t s = 0;
  for (; s + kLanes <= sites; s += kLanes)
    for (int lane = 0; lane < kLanes; ++lane)
      lanes[lane] = fused(y[s + lane], g[s + lane], lanes[lane]);
  for (int lane = 0; s + lane < sites; ++lane)
    lanes[lane] = fused(y[s + lane], g[s + lane], lanes[lane]);
  return add_lanes(lanes);
}

// 1 / (c + 1.y), or 0 instead of 1/0: then every y_s is 0.
template <typename T>
TR_INLINE T reciprocal(const T* y, int64_t sites, T offset) {
  const T all = offset + sum(y, sites);
  return all > T(0) ? T(1) / all : T(0);
}

template <typename T>
TR_INLINE bool all_counts(const T* y, int64_t sites) {
  const T largest = sizeof(T) == 4 ? T(3.4028234663852886e38) : T(1.7976931348623157e308);
  int32_t bad[kLanes] = {};
  int64_t s = 0;
  for (; s + kLanes <= sites; s += kLanes)
    for (int lane = 0; lane < kLanes; ++lane)
      bad[lane] |= (y[s + lane] >= T(0)) & (y[s + lane] <= largest) ? 0 : 1;
  for (int lane = 0; s + lane < sites; ++lane)
    bad[lane] |= (y[s + lane] >= T(0)) & (y[s + lane] <= largest) ? 0 : 1;
  int32_t any = 0;
  for (int lane = 0; lane < kLanes; ++lane) any |= bad[lane];
  return any == 0;
}

template <typename T>
int64_t forward(const T* y, int64_t stride, int64_t sites, T offset, int64_t begin, int64_t end,
                T* total) {
  for (int64_t m = begin; m < end; ++m) {
    const T* sample = y + m * stride;
    if (!all_counts(sample, sites)) return m;
    const T inverse = reciprocal(sample, sites, offset);
    for (int64_t s = 0; s < sites; ++s) total[s] = fused(sample[s], inverse, total[s]);
  }
  return -1;
}

template <typename T>
T reach(const T* y, const T* g, int64_t sites, T offset) {
  return dot(y, g, sites) * reciprocal(y, sites, offset);
}

template <typename T>
void diagonal(const T* y, const T* g, int64_t sites, T offset, T scale, T* out) {
  const T inverse = reciprocal(y, sites, offset) * scale;
  for (int64_t s = 0; s < sites; ++s) out[s] = g[s] * (y[s] * inverse);
}

}  // namespace

extern const RatioCpu<float> ratio_float;
extern const RatioCpu<double> ratio_double;
const RatioCpu<float> ratio_float{forward<float>, reach<float>, diagonal<float>};
const RatioCpu<double> ratio_double{forward<double>, reach<double>, diagonal<double>};

}  // namespace topreach::kernels::TR_ISA
