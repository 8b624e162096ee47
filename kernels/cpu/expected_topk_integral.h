// The integrals of the exact expected top-K over thresholds and frequencies, for points; see
// ../expected_topk.h. Included by expected_topk.cpp, once per instruction set (isa.h).
#pragma once

#include "../expected_topk.h"
#include "isa.h"

namespace topreach::kernels::TR_ISA {
namespace {

constexpr int kLanes = 8;

TR_INLINE double sum_of(const double* lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

// Points: positions x with weights w (sites there) and wv (their v). Points of the grid come first,
// then direct ones, whose weight is 1. Both are padded with points that never lie above a
// threshold.
//
// Near points lie within kNearThreshold of the current threshold, so that P is neither 0 nor 1 to
// rounding. They are copied together, those of the grid first. For far points the smaller chance q
// (P below the threshold, 1 - P above it) is at most 3.2e-5; they enter by a series in q (see Far).
struct Points {
  double *x, *w, *wv;
  double *p, *f;  // of one threshold
  // Results. For the value: b, for the even and the odd thresholds (first). For the product: the
  // factor of v without the point's own part, also even and odd (first); the subtrahend (second);
  // and the own part of the factor (self).
  double *first[2], *second, *self;
  double *near_p, *near_f, *near_w, *near_wv;
  double* inverse;  // of near points, 1 / |c|^2 of one frequency
  // Of near points, sums over frequencies: Re(E F / c), Re(E / c^2), Re(E F_v / c).
  double *sum, *square, *v_sum;
  double* near_index;
  int64_t count, grid_end, near_count, near_grid_end;
  static constexpr int kArrays = 18;

  Points(void* scratch, int64_t capacity) : count(0), grid_end(0), near_count(0), near_grid_end(0) {
    double* next = static_cast<double*>(scratch);
    double** const arrays[kArrays] = {&x,        &w,       &wv,   &p,      &f,      &first[0],
                                      &first[1], &second,  &self, &near_p, &near_f, &near_w,
                                      &near_wv,  &inverse, &sum,  &square, &v_sum,  &near_index};
    for (double** array : arrays) {
      *array = next;
      next += capacity;
    }
  }

  void add(double position, double weight, double weighted) {
    x[count] = position;
    w[count] = weight;
    wv[count] = weighted;
    ++count;
  }
  void pad() {
    while (count % kLanes != 0) add(-1e9, 0.0, 0.0);
  }
  void add_near(int64_t i) {
    near_p[near_count] = p[i];
    near_f[near_count] = f[i];
    near_w[near_count] = w[i];
    near_wv[near_count] = wv[i];
    near_index[near_count] = double(i);
    ++near_count;
  }
  void pad_near() {
    for (; near_count % kLanes != 0; ++near_count) {
      near_p[near_count] = near_f[near_count] = near_w[near_count] = near_wv[near_count] = 0.0;
      near_index[near_count] = -1.0;
    }
  }
};

constexpr double kNearThreshold = 4.0;
constexpr int kSides = 2;  // below the threshold, above it
constexpr int kTerms = 4;  // of a series in q

// Contributions of far points, with z = e^{i omega} - 1 below the threshold and its conjugate above:
// log c = z q - z^2 q^2 / 2 + z^3 q^3 / 3, 1 / c = 1 - z q + z^2 q^2 - ..., and above it c has a
// factor e^{i omega} as well. The terms left out are 1e-12 at most, since sum w q <= V / (1 - q).
struct Far {
  double log_c[kSides][3] = {};     // sum w q^m, m = 1, 2, 3
  double density[kSides][3] = {};   // sum w f q^m, m = 0, 1, 2
  double weighted[kSides][3] = {};  // sum wv f q^m
  double above = 0;                 // sum w above the threshold
  // Sums over frequencies of Re(E F z^m) and Re(E F_v z^m), above the threshold with a factor
  // e^{-i omega}, and of Re(E z^m), there with e^{-2 i omega}.
  double f_over_c[kSides][kTerms] = {}, v_over_c[kSides][kTerms] = {};
  double square_over_c[kSides][2] = {};
};

// All sites may be direct.
TR_INLINE int64_t capacity_of(int64_t sites) {
  return (sites + kLanes - 1) / kLanes * kLanes + kGridSize + 2 * kLanes;
}

int64_t scratch_bytes(int64_t sites) {
  return capacity_of(sites) * int64_t(sizeof(double)) * Points::kArrays;
}

TopKMoments moments_at(const Points& points, double t) {
  alignas(64) double mean[kLanes] = {}, variance[kLanes] = {}, density[kLanes] = {};
  const int64_t n = points.count;
  for (int64_t i = 0; i < n; i += kLanes)
#pragma omp simd
    for (int lane = 0; lane < kLanes; ++lane) {
      const double x = points.x[i + lane] - t, w = points.w[i + lane];
      const double p = normal_cdf(x);
      mean[lane] += w * p;
      variance[lane] += w * (p * (1.0 - p));
      density[lane] += w * normal_pdf(x);
    }
  return {sum_of(mean), sum_of(variance), sum_of(density)};
}

double log_mgf_at(const Points& points, double t, double s) {
  alignas(64) double sum[kLanes] = {};
  const double growth = exponential_of(s);
  const int64_t n = points.count;
  for (int64_t i = 0; i < n; i += kLanes)
#pragma omp simd
    for (int lane = 0; lane < kLanes; ++lane) {
      const double p = normal_cdf(points.x[i + lane] - t);
      sum[lane] += points.w[i + lane] * natural_log((1.0 - p) + p * growth);
    }
  return sum_of(sum);
}

// Fills p and f for threshold t, sorts the points into near and far, and gives the moments.
TopKMoments evaluate(Points& points, double t, Far& far) {
  alignas(64) double mean[kLanes] = {}, variance[kLanes] = {}, density[kLanes] = {};
  const int64_t n = points.count;
  for (int64_t i = 0; i < n; i += kLanes)
#pragma omp simd
    for (int lane = 0; lane < kLanes; ++lane) {
      const double x = points.x[i + lane] - t, w = points.w[i + lane];
      const double p = normal_cdf(x), f = normal_pdf(x);
      points.p[i + lane] = p;
      points.f[i + lane] = f;
      mean[lane] += w * p;
      variance[lane] += w * (p * (1.0 - p));
      density[lane] += w * f;
    }
  points.near_count = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (i == points.grid_end) {
      points.pad_near();
      points.near_grid_end = points.near_count;
    }
    const double x = points.x[i] - t;
    if (x >= -kNearThreshold && x <= kNearThreshold) {
      points.add_near(i);
      continue;
    }
    const int side = x > 0.0 ? 1 : 0;
    const double q = side == 1 ? 1.0 - points.p[i] : points.p[i];
    double w = points.w[i], wf = w * points.f[i], wvf = points.wv[i] * points.f[i];
    if (side == 1) far.above += w;
    for (int m = 0; m < 3; ++m) {
      far.log_c[side][m] += w *= q;
      far.density[side][m] += wf;
      far.weighted[side][m] += wvf;
      wf *= q;
      wvf *= q;
    }
  }
  points.pad_near();
  if (points.grid_end == n) points.near_grid_end = points.near_count;
  return {sum_of(mean), sum_of(variance), sum_of(density)};
}

// The parts of one frequency that a point adds to: F and F_v.
struct Lanes {
  alignas(64) double re[kLanes] = {}, im[kLanes] = {}, v_re[kLanes] = {}, v_im[kLanes] = {};
};

template <bool jvp>
TR_INLINE void add_point(Points& points, int64_t i, int lane, ComplexDouble r, Lanes& sums) {
  const double f = points.near_f[i];
  sums.re[lane] += points.near_w[i] * f * r.re;
  sums.im[lane] += points.near_w[i] * f * r.im;
  if constexpr (jvp) {
    sums.v_re[lane] += points.near_wv[i] * f * r.re;
    sums.v_im[lane] += points.near_wv[i] * f * r.im;
  }
}

TR_INLINE void add_to(ComplexDouble& a, ComplexDouble b, double factor = 1.0) {
  a.re += factor * b.re;
  a.im += factor * b.im;
}

// Powers 0..3 of z, or of its conjugate for the points above.
struct Powers {
  ComplexDouble of[kTerms];
  Powers(TopKFrequency omega, int side) {
    const ComplexDouble z{-omega.drop, side == 0 ? omega.sine : -omega.sine};
    of[0] = {1.0, 0.0};
    for (int m = 1; m < kTerms; ++m) of[m] = product(of[m - 1], z);
  }
};

// Adds one frequency to the sums over frequencies, and Re(E F), its part of the density of the K-th
// largest, to `density`. Returns whether higher frequencies matter; |C| falls as they grow.
template <bool jvp>
bool add_frequency(Points& points, Far& far, TopKFrequency omega, double step, double k,
                   double& density) {
  alignas(64) double modulus[kLanes] = {}, angle[kLanes] = {}, c_re[kLanes], c_im[kLanes];
  Lanes sums;
  for (int64_t i = 0; i < points.near_grid_end; i += kLanes)
#pragma omp simd
    for (int lane = 0; lane < kLanes; ++lane) {
      const double p = points.near_p[i + lane], w = points.near_w[i + lane];
      const TopKFactor c = factor_of(p, omega);
      points.inverse[i + lane] = c.inverse;
      modulus[lane] += w * c.log_modulus;
      angle[lane] += w * c.angle;
      add_point<jvp>(points, i + lane, lane, reciprocal_factor(p, c.inverse, omega), sums);
    }
  for (int lane = 0; lane < kLanes; ++lane) {
    c_re[lane] = 1.0;
    c_im[lane] = 0.0;
  }
  for (int64_t i = points.near_grid_end; i < points.near_count; i += kLanes)  // C: a plain product
#pragma omp simd
    for (int lane = 0; lane < kLanes; ++lane) {
      const double p = points.near_p[i + lane];
      const double x = 1.0 - p * omega.drop, y = p * omega.sine;
      const double inverse = 1.0 / (x * x + y * y);
      points.inverse[i + lane] = inverse;
      const double re = c_re[lane] * x - c_im[lane] * y;
      c_im[lane] = c_re[lane] * y + c_im[lane] * x;
      c_re[lane] = re;
      add_point<jvp>(points, i + lane, lane, {x * inverse, -y * inverse}, sums);
    }
  const Powers powers[kSides] = {{omega, 0}, {omega, 1}};
  const ComplexDouble turn{1.0 - omega.drop, -omega.sine};  // e^{-i omega}
  ComplexDouble log_c{sum_of(modulus), sum_of(angle) + omega.omega * far.above};
  ComplexDouble f{sum_of(sums.re), sum_of(sums.im)}, fv{sum_of(sums.v_re), sum_of(sums.v_im)};
  for (int side = 0; side < kSides; ++side) {
    ComplexDouble own{0.0, 0.0}, own_v{0.0, 0.0};
    for (int m = 0; m < 3; ++m) {
      const double sign = m % 2 == 0 ? 1.0 : -1.0;
      add_to(log_c, powers[side].of[m + 1], sign * far.log_c[side][m] / double(m + 1));
      add_to(own, powers[side].of[m], sign * far.density[side][m]);
      if constexpr (jvp) add_to(own_v, powers[side].of[m], sign * far.weighted[side][m]);
    }
    add_to(f, side == 0 ? own : product(own, turn));
    if constexpr (jvp) add_to(fv, side == 0 ? own_v : product(own_v, turn));
  }
  ComplexDouble e = coefficient_of(log_c.re, log_c.im, k, omega, step);
  for (int lane = 0; lane < kLanes; ++lane) e = product(e, {c_re[lane], c_im[lane]});
  if (is_negligible(e, step)) return false;
  const ComplexDouble ef = product(e, f), ev = product(e, fv);
  for (int side = 0; side < kSides; ++side) {
    const ComplexDouble ef_here = side == 0 ? ef : product(ef, turn);
    const ComplexDouble ev_here = side == 0 ? ev : product(ev, turn);
    const ComplexDouble e_here = side == 0 ? e : product(e, product(turn, turn));
    for (int m = 0; m < kTerms; ++m) {
      const ComplexDouble power = powers[side].of[m];
      far.f_over_c[side][m] += product(ef_here, power).re;
      if constexpr (jvp) far.v_over_c[side][m] += product(ev_here, power).re;
      if (m < 2) far.square_over_c[side][m] += product(e_here, power).re;
    }
  }
  for (int64_t i = 0; i < points.near_count; i += kLanes)
#pragma omp simd
    for (int lane = 0; lane < kLanes; ++lane) {
      const ComplexDouble r =
          reciprocal_factor(points.near_p[i + lane], points.inverse[i + lane], omega);
      points.sum[i + lane] += ef.re * r.re - ef.im * r.im;
      points.square[i + lane] += e.re * (r.re * r.re - r.im * r.im) - 2.0 * e.im * r.re * r.im;
      if constexpr (jvp) points.v_sum[i + lane] += ev.re * r.re - ev.im * r.im;
    }
  density += ef.re;
  return true;
}

// Adds a threshold's part to the results of one point.
template <bool jvp>
TR_INLINE void add_result(Points& points, int64_t i, double step, double sum, double square,
                          double v_sum, double* first) {
  const double f = points.f[i], scaled = step * (jvp ? f : points.p[i]);
  first[i] += scaled * (sum - f * square);
  if constexpr (jvp) {
    points.second[i] += scaled * v_sum;
    points.self[i] += scaled * (f * square);
  }
}

// Adds a threshold's sums over frequencies, times the step, to the results.
template <bool jvp>
void add_threshold(Points& points, const Far& far, double t, double step, double* first) {
  const int64_t n = points.count;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const double x = points.x[i] - t;
    const bool below = x < 0.0;
    const double q = below ? points.p[i] : 1.0 - points.p[i];
    double sum = 0.0, v_sum = 0.0;
    for (int m = kTerms - 1; m >= 0; --m) {
      sum = (below ? far.f_over_c[0][m] : far.f_over_c[1][m]) - q * sum;
      if constexpr (jvp) v_sum = (below ? far.v_over_c[0][m] : far.v_over_c[1][m]) - q * v_sum;
    }
    const double square = below ? far.square_over_c[0][0] - 2.0 * q * far.square_over_c[0][1]
                                : far.square_over_c[1][0] - 2.0 * q * far.square_over_c[1][1];
    const bool is_far = (x < -kNearThreshold) | (x > kNearThreshold);
    add_result<jvp>(points, i, is_far ? step : 0.0, sum, square, v_sum, first);
  }
  for (int64_t j = 0; j < points.near_count; ++j)
    if (points.near_index[j] >= 0.0)
      add_result<jvp>(points, int64_t(points.near_index[j]), step, points.sum[j], points.square[j],
                      points.v_sum[j], first);
}

// Integrates over thresholds and frequencies into points.first[0] and points.second; returns
// whether the two checks hold.
template <bool jvp>
bool integrate(Points& points, const TopKPlan& plan, double k, double active, int refinement) {
  const int64_t n = points.count;
  for (int64_t i = 0; i < n; ++i)
    points.first[0][i] = points.first[1][i] = points.second[i] = points.self[i] = 0.0;
  const double step = plan.step / refinement;
  double mass = 0;
  for (int direction = -1; direction <= 1; direction += 2) {
    for (int64_t node = direction < 0 ? 0 : 1;; ++node) {
      const double t = plan.middle + double(direction * node) * step;
      if (t < plan.low || t > plan.high) break;
      Far far;
      const TopKFrequencies w = frequencies_of(evaluate(points, t, far), k, active, refinement);
      if (w.beyond) break;
      if (w.count == 0) continue;
      for (int64_t i = 0; i < points.near_count; ++i)
        points.sum[i] = points.square[i] = points.v_sum[i] = 0.0;
      double density = 0;
      for (int l = 0; l < w.count; ++l)
        if (!add_frequency<jvp>(points, far, frequency_at((l + 0.5) * w.step), w.step, k, density))
          break;
      mass += step * density;
      add_threshold<jvp>(points, far, t, step, points.first[node % 2]);
    }
  }
  double apart = 0;
#pragma omp simd reduction(max : apart)
  for (int64_t i = 0; i < n; ++i) {
    const double difference = 2.0 * (points.first[0][i] - points.first[1][i]);
    const double size = difference < 0.0 ? -difference : difference;
    apart = size > apart ? size : apart;
    points.first[0][i] += points.first[1][i];
  }
  return apart <= kAgree && mass > 1 - kMass && mass < 1 + kMass;
}

}  // namespace
}  // namespace topreach::kernels::TR_ISA
