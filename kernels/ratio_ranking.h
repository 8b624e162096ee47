// Ratio ranking r_s = (1/M) sum_m y_s^m / (c + 1.y^m), 0/0 := 0 [D25 Eq. 7], and the weights of its
// score-function gradient [D25 Eq. 10] without a Jacobian: the gradient of sum_s g_s r_s is that of
// sum_m w_m log p(y^m) with, per row,
//
//   score:      w_m = (1/M) sum_s g_s rho_s^m,                rho^m = y^m / (c + 1.y^m)
//   score_loo:  w_m = (1/(M-1)) (sum_s g_s rho_s^m - g.r)     (leave-one-out baseline)
//   diagonal:   w_ms = (1/M) g_s rho_s^m, site by site        (biased: see csrc/ops/ratio_ranking.h)
//
// Samples are [M, rows, sites]. Forward and backward make one pass over them each; no other array of
// their size is made, except the result of `diagonal`. Sums over sites run in 16 lanes, sums over
// samples in blocks of kSampleBlock, so the rounding depends on neither threads nor vector width.
#pragma once

#include <cstdint>

namespace topreach::kernels {

constexpr int64_t kSampleBlock = 25;

template <typename T>
struct RatioCpu {
  // Adds y^m / (c + 1.y^m) over m in [begin, end) for one row to total[sites]. Samples of the row
  // start at y, `stride` apart. Returns the first m with a negative or non-finite count, or -1.
  int64_t (*forward)(const T* y, int64_t stride, int64_t sites, T offset, int64_t begin,
                     int64_t end, T* total);
  // sum_s g_s rho_s of one sample.
  T (*reach)(const T* y, const T* g, int64_t sites, T offset);
  // out_s = scale g_s rho_s of one sample.
  void (*diagonal)(const T* y, const T* g, int64_t sites, T offset, T scale, T* out);
};

template <typename T>
const RatioCpu<T>& ratio_cpu();

}  // namespace topreach::kernels
