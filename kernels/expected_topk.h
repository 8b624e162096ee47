// Expected top-K without sampling, for normal noise: b_i = P(site i is among the K largest of
// r + sigma z), the limit J -> infinity of the perturbed top-K, and its Jacobian
// J_ik = -w_ik, J_ii = sum_k w_ik.
//
// Write P_i(t) = Phi((r_i - t) / sigma) and f_i for its density in t. For a threshold t the number
// of sites above it is a Poisson binomial, N(t) = sum_l Bernoulli(P_l(t)), and
//
//   b_i  = int P_i(t) sum_{k != i} f_k(t) P(N_{-ik}(t) = K - 1) dt
//   w_ik = int f_i(t) f_k(t) P(N_{-ik}(t) = K - 1) dt,     (J v)_i = sum_k w_ik (v_i - v_k)
//
// where N_{-ik} is N without sites i and k. Its distribution comes from the characteristic function:
// P(N_{-ik} = K - 1) = (1/2 pi) int C e^{-i omega (K - 1)} / (c_i c_k) d omega with
// c_l = 1 + P_l (e^{i omega} - 1) and C = prod c_l. The sum over k then separates:
//
//   F = sum_k f_k / c_k, F_v = sum_k f_k v_k / c_k, E = C e^{-i omega (K - 1)} / 2 pi
//   b_i = int int P_i (E / c_i) (F - f_i / c_i),  (J v)_i = int int f_i (E / c_i) (v_i F - F_v)
//
// Sums on a grid. log C, F and F_v are sums over sites of functions of r_i that are smooth on the
// scale of sigma; b_i and (J v)_i are such functions of r_i (and v_i). So each site is spread once,
// with Lagrange weights, over ten nodes of a grid of spacing sigma / 8. The integrals are computed
// for the grid's few hundred points, and a site's result is interpolated from its ten nodes. Cost:
// O(S) with a constant of some 30 ns, and O(nodes x frequencies x points) whatever S is.
//
// Where the grid fails. 1 / c has a pole at P = 1/2, omega = pi. With a large V = sum P (1 - P) it
// does no harm, since |C| <= exp(-2 V sin^2(omega / 2)) is tiny there. If V is small, few sites lie
// near the threshold; each of them becomes a separate point ("direct"). In a short row all sites do.
//
// Errors:
//  - Thresholds. The K-th largest perturbed score lies within 9 sigma of [r_(K+1), r_(K)], except
//    with probability S 1e-19; gaps beyond 18 sigma give the hard mask. Inside, a threshold is left
//    out only where Chernoff's inequality (or Bernstein's, which follows from it) bounds P(N <= K)
//    or P(N >= K) by e^-28 = 7e-13.
//  - Frequencies. A DFT of R points aliases counts that lie R apart. R exceeds the distance from
//    K - 1 to all counts of probability above e^-28. Frequencies with |C| < e^-28 are left out.
//  - Nodes in t. The trapezoidal rule on the whole line errs, for an analytic integrand g, by
//    2 Re G(2 pi / h), G the Fourier transform. That falls like exp(-a / h) (the largest of many
//    normals) to exp(-a / h^2) (a normal): halving h squares it or better. The nodes form two rules
//    of step 2 h, whose results must agree to 3e-5 for every site; their mean is then right to about
//    1e-9. h starts at .6 of the integrand's width, min(sqrt(V) / sum f, .7 sigma).
//  - The grid. 872 (1/8)^10 / 10! times the tenth derivative: 3e-11 for P.
// Also, the density of the K-th largest perturbed score, int int E F, must be 1 to 1e-9. If one of
// the two checks fails, h is halved and the number of DFT points is doubled.
//
// Mean field: tau solves sum_i P_i(tau) = K; b_i = P_i(tau); (J v)_i = f_i (v_i - sum f v / sum f).
// O(S), and an approximation: it neglects that N fluctuates.
#pragma once

#include <cstdint>

#include "special.h"

namespace topreach::kernels {

constexpr double kReach = 9.0;                 // noise is taken to have |z| <= 9: Phi(-9) = 1e-19
constexpr int kGridOrder = 10;                 // nodes that a site is spread over
constexpr int kGridPerSigma = 8;               // nodes per sigma
constexpr int kGridSize = 448;                 // nodes of the widest row, a multiple of 8
constexpr double kTail = 28.0;                 // -log of the probabilities that are left out
constexpr double kSmoothVariance = 20.0;       // a threshold with a lower V is rough,
constexpr double kNear = 1.75;                 // and sites so close to one are direct
constexpr double kAgree = 3e-5, kMass = 1e-9;  // the two checks

// A row's scores in units of sigma: x = (r - centre) / sigma.
struct TopKFrame {
  double centre, sigma;
  double half;  // half the gap between the K-th and the (K+1)-th largest score, in x

  // Whether no noise can change the choice: K sites lie far above the rest, or the K-th or the next
  // score is infinite.
  TR_HD bool hard() const { return !(half <= kReach); }
  TR_HD double position(double score) const { return (score - centre) / sigma; }
  // Sites beyond +limit are certainly chosen, those below -limit never; the rest are active.
  TR_HD double limit() const { return half + 2 * kReach; }
  TR_HD double threshold_limit() const { return half + kReach; }
  TR_HD double grid_origin() const { return -limit() - 0.5; }
  TR_HD double grid_position(int node) const {
    return grid_origin() + double(node) * (1.0 / kGridPerSigma);
  }
};

TR_HD TopKFrame frame_of(double kth, double next, double sigma) {
  return {0.5 * kth + 0.5 * next, sigma, 0.5 * ((kth - next) / sigma)};
}

// The factor 1 / prod_{i != m} (m - i) of the Lagrange weight of node m = 0..9.
TR_HD double lagrange_factor(int m) {
  constexpr double factor[kGridOrder] = {-1.0 / 362880, 1.0 / 40320, -1.0 / 10080, 1.0 / 4320,
                                         -1.0 / 2880,   1.0 / 2880,  -1.0 / 4320,  1.0 / 10080,
                                         -1.0 / 40320,  1.0 / 362880};
  return factor[m];
}

// Moments of N(t): mean sum P, variance sum P (1 - P), and density sum f = -d mean / dt.
struct TopKMoments {
  double mean, variance, density;
};

// d such that |N - mean| > d has probability below exp(-kTail) on either side (Bernstein).
TR_HD double tail_width(double variance) {
  return kTail / 3 + square_root(kTail * kTail / 9 + 2 * kTail * (variance > 0 ? variance : 0.0));
}

// The threshold with sum P = target; moments(t) must be the same for all callers at work on a row.
TR_CALLS_ARGUMENT
template <typename Moments>
TR_HD double solve_mean(const Moments& moments, double target, double low, double high,
                        double tolerance) {
  double t = 0.5 * (low + high);
  for (int i = 0; i < 80; ++i) {
    const TopKMoments m = moments(t);
    const double excess = m.mean - target;
    if (excess > 0) {
      low = t;
    } else {
      high = t;
    }
    const double newton = t + excess / m.density;
    const double next = newton > low && newton < high ? newton : 0.5 * (low + high);
    const double move = next > t ? next - t : t - next;
    t = next;
    if (move <= tolerance || high - low <= tolerance) break;
  }
  return t;
}

// Where and how finely to integrate over thresholds.
struct TopKPlan {
  double middle;     // E[N] = K - 1/2
  double low, high;  // thresholds outside are negligible
  double step;
  double rough_low, rough_high;  // bounds of the rough thresholds; none: rough_low > rough_high

  // Sites in [direct_low, direct_high] must be direct.
  TR_HD double direct_low() const { return rough_low - kNear; }
  TR_HD double direct_high() const { return rough_high + kNear; }
  TR_HD bool smooth() const { return rough_low > rough_high; }
};

// moments(t) as above; log_mgf(t, s) = log E[exp(s N(t))], for the Chernoff bound; k: sites wanted
// among the `active` ones.
TR_CALLS_ARGUMENT
template <typename Moments, typename LogMgf>
TR_HD TopKPlan plan_thresholds(const Moments& moments, const LogMgf& log_mgf, double k,
                               double active, double limit) {
  constexpr double stride = 0.25, rough = 1e-3;
  TopKPlan plan;
  const double middle = k - 0.5;
  plan.middle = solve_mean(moments, middle, -limit, limit, rough);
  TopKMoments m = moments(plan.middle);
  const double side = 0.5 + square_root(m.variance > 0 ? m.variance : 0.0);
  double width = 0.7;
  for (int i = -1; i <= 1; ++i) {
    const double target = middle + i * side;
    if (i != 0 && (target < 0.02 || target > active - 0.02)) continue;
    if (i != 0) m = moments(solve_mean(moments, target, -limit, limit, rough));
    const double here = square_root(m.variance > 0 ? m.variance : 0.0);
    if (here < width * m.density) width = here / m.density;
  }
  plan.step = 0.6 * width;
  plan.rough_low = kInfinity;
  plan.rough_high = -kInfinity;
  // Walks from the middle until further thresholds are negligible.
  const auto walk = [&](double sign) {
    double t = plan.middle;
    for (;; t += sign * stride) {
      const TopKMoments at = moments(t);
      if (at.variance < kSmoothVariance) {
        if (t - stride < plan.rough_low) plan.rough_low = t - stride;
        if (t + stride > plan.rough_high) plan.rough_high = t + stride;
      }
      const double distance = sign * (middle - at.mean);  // mean above K when sign is -1
      if (t < -limit || t > limit || distance > tail_width(at.variance) + 1) return t;
      if (distance < 0.25) continue;
      const double s = natural_log(1.0 + distance / (at.variance + 1e-12));  // Bennett's choice
      if (log_mgf(t, sign * s) - sign * s * k < -kTail) return t;
    }
  };
  plan.low = walk(-1.0);
  plan.high = walk(1.0);
  return plan;
}

// The frequencies of one threshold: omega = (l + 1/2) step, l = 0..count-1, half of the circle (the
// other half is conjugate). If the threshold and all further ones are left out, count = 0 and
// `beyond` is true.
struct TopKFrequencies {
  double step;
  int count;
  bool beyond;
};

TR_HD TopKFrequencies frequencies_of(TopKMoments m, double k, double active, int refinement) {
  constexpr double pi = 3.14159265358979324;
  const double offset = m.mean - (k - 0.5), distance = offset < 0 ? -offset : offset;
  const double tail = tail_width(m.variance);
  TopKFrequencies f{0, 0, distance > tail + 1};
  if (f.beyond || m.density < 1e-13) return f;
  double half = double(int64_t(0.5 * (distance + tail + 2))) + 1;  // half the points of the circle
  const double all = double(int64_t(0.5 * active)) + 1;
  if (half > all) half = all;
  half *= refinement;
  f.step = pi / half;
  // 2 V sin^2(omega / 2) = kTail; the arcsine's argument exceeds the bound sin x >= 2 x / pi.
  const double sine2 = m.variance > 0 ? kTail / (2 * m.variance) : 1.0;
  double count = half;
  if (sine2 < 1) {
    // sin(omega / 2) >= (omega / 2)(1 - omega^2 / 24), solved for omega by two substitutions
    const double root = square_root(sine2);
    double x = root;
    for (int i = 0; i < 3; ++i) x = root / (1 - x * x / 6 > 0.6 ? 1 - x * x / 6 : 0.6);
    count = double(int64_t(2 * x / f.step)) + 1;
    if (count > half) count = half;
  }
  f.count = int(count);
  return f;
}

// One frequency: 1 - cos omega and sin omega.
struct TopKFrequency {
  double omega, drop, sine;
};

TR_HD TopKFrequency frequency_at(double omega) {
  const SineCosineDouble half = sine_cosine_of(0.5 * omega);
  return {omega, 2 * half.sine * half.sine, 2 * half.sine * half.cosine};
}

// c = 1 + P (e^{i omega} - 1) = |c| e^{i angle}, the angle continuous in P and counted from omega
// for P > 1/2; and 1 / |c|^2.
struct TopKFactor {
  double log_modulus, angle, inverse;
};

TR_HD TopKFactor factor_of(double p, TopKFrequency w) {
  const bool upper = p > 0.5;
  const double m = upper ? 1.0 - p : p;
  const double x = 1.0 - m * w.drop, y = m * w.sine;
  const double square = x * x + y * y;
  const double angle = angle_of(x, y);
  return {0.5 * natural_log(square), upper ? w.omega - angle : angle, 1.0 / square};
}

struct ComplexDouble {
  double re, im;
};

TR_HD ComplexDouble product(ComplexDouble a, ComplexDouble b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

// 1 / c.
TR_HD ComplexDouble reciprocal_factor(double p, double inverse, TopKFrequency w) {
  return {(1.0 - p * w.drop) * inverse, -(p * w.sine) * inverse};
}

// E of the formula, times 2 for the conjugate half and times the step in omega.
TR_HD ComplexDouble coefficient_of(double log_modulus, double angle, double k, TopKFrequency w,
                                   double step) {
  const SineCosineDouble phase = sine_cosine_of(angle - w.omega * (k - 1.0));
  const double modulus = exponential_of(log_modulus) * step * 3.18309886183790672e-01;
  return {modulus * phase.cosine, modulus * phase.sine};
}

// Whether |C| < e^-28. If so, higher frequencies are negligible too: |C| falls as omega grows.
TR_HD bool is_negligible(ComplexDouble e, double step) {
  const double least = 2.2e-13 * step;  // 7e-13 / pi
  return e.re * e.re + e.im * e.im < least * least;
}

// ---- the CPU's part
// ------------------------------------------------------------------------------

// Sums over sites spread over the grid, [2][kGridSize]: of weight 1, and of weight v if given.
struct TopKSpread {
  int64_t above, active;  // sites chosen for sure; sites on the grid
};

// One row's work. The functions are compiled once per instruction set and give the same bits in
// each. Without `v` (null) they give the value, with it the Jacobian-vector product.
//
// A row goes through spread (in pieces of any size, whose grids are added), then solve, then
// interpolate (in pieces). solve writes the results of the direct sites, whose positions lie in
// [direct_low, direct_high]; interpolate writes the others.
struct TopKTable {
  double first[kGridSize];   // b, or the factor of v
  double second[kGridSize];  // what is subtracted from v times first
  double direct_low, direct_high;
  double shift;  // subtracted from v throughout, which changes nothing but rounding
};

template <typename T>
struct ExpectedTopKCpu {
  // Bytes of scratch for a row, 64-byte aligned.
  int64_t (*scratch_bytes)(int64_t sites);
  TopKSpread (*spread)(const T* scores, const T* v, int64_t sites, TopKFrame frame, double* grid);
  void (*solve)(const T* scores, const T* v, int64_t sites, int64_t k, TopKFrame frame,
                TopKSpread spread, double* grid, TopKTable* table, T* out, void* scratch);
  void (*interpolate)(const T* scores, const T* v, int64_t sites, TopKFrame frame,
                      const TopKTable* table, T* out);
  // Mean field: tau in the unit of the scores; b; the sums over sites of f and of f v; (J v).
  double (*mean_field_threshold)(int64_t k, TopKFrame frame, TopKSpread spread, const double* grid,
                                 void* scratch);
  void (*mean_field)(const T* scores, int64_t sites, double tau, double sigma, T* out);
  void (*mean_field_sums)(const T* scores, const T* v, int64_t sites, double tau, double sigma,
                          double* density, double* weighted);
  void (*mean_field_jvp)(const T* scores, const T* v, int64_t sites, double tau, double sigma,
                         double centre, T* out);
};

template <typename T>
const ExpectedTopKCpu<T>& expected_topk_cpu();

}  // namespace topreach::kernels
