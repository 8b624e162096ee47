// CPU loops of the expected top-K; see ../expected_topk.h for the method.
#include "../expected_topk.h"

#include "isa.h"

namespace topreach::kernels::TR_ISA {
namespace {

constexpr int kLanes = 8;

TR_INLINE double sum_of(const double* lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

// Nodes of the grid and Lagrange weights of eight sites at once; inactive sites get node -1.
struct Stencil {
  alignas(64) double weight[kGridOrder][kLanes];
  int32_t node[kLanes];
};

template <typename T>
TR_INLINE void make_stencil(const T* scores, int count, const TopKFrame& frame, Stencil& s) {
  alignas(64) double theta[kLanes], offset[kGridOrder][kLanes];
  const double limit = frame.limit(), origin = frame.grid_origin();
  for (int lane = 0; lane < kLanes; ++lane) {
    const double x = lane < count ? frame.position(double(scores[lane])) : limit + 1;
    const bool active = (x >= -limit) & (x <= limit);
    const double q = active ? (x - origin) * kGridPerSigma : kGridOrder;
    const int32_t below = int32_t(q);
    theta[lane] = q - double(below);
    s.node[lane] = active ? below - (kGridOrder / 2 - 1) : -1;
  }
  for (int m = 0; m < kGridOrder; ++m)
    for (int lane = 0; lane < kLanes; ++lane)
      offset[m][lane] = theta[lane] - double(m - (kGridOrder / 2 - 1));
  alignas(64) double left[kLanes], right[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) left[lane] = right[lane] = 1.0;
  for (int m = 0; m < kGridOrder; ++m)
    for (int lane = 0; lane < kLanes; ++lane) {
      s.weight[m][lane] = left[lane] * lagrange_factor(m);
      left[lane] *= offset[m][lane];
    }
  for (int m = kGridOrder - 1; m >= 0; --m)
    for (int lane = 0; lane < kLanes; ++lane) {
      s.weight[m][lane] *= right[lane];
      right[lane] *= offset[m][lane];
    }
}

template <typename T>
TopKSpread spread(const T* scores, const T* v, int64_t sites, TopKFrame frame, double* grid) {
  TopKSpread result{0, 0};
  const double limit = frame.limit();
  Stencil s;
  for (int64_t base = 0; base < sites; base += kLanes) {
    const int count = int(sites - base < kLanes ? sites - base : kLanes);
    make_stencil(scores + base, count, frame, s);
    for (int lane = 0; lane < count; ++lane) {
      if (s.node[lane] < 0) {
        result.above += frame.position(double(scores[base + lane])) > limit ? 1 : 0;
        continue;
      }
      ++result.active;
      double* at = grid + s.node[lane];
      for (int m = 0; m < kGridOrder; ++m) at[m] += s.weight[m][lane];
      if (v == nullptr) continue;
      const double weight = double(v[base + lane]);
      for (int m = 0; m < kGridOrder; ++m) at[kGridSize + m] += weight * s.weight[m][lane];
    }
  }
  return result;
}

// Points: positions x with weights w (sites there) and wv (their v); those of the grid come first,
// then the direct ones, of weight 1, both padded with points that are never above any threshold.
//
// Those within kNearThreshold of the threshold at hand, "near" with P neither 0 nor 1 in effect,
// are copied together, again the grid's first. Of the others the smaller chance q (P below the
// threshold, 1 - P above it) is at most 3.2e-5, and what depends on it is a series in q: see Far.
struct Points {
  double *x, *w, *wv;
  double *p, *f;  // of one threshold
  // Results. Of the value: b, for the even and the odd thresholds. Of the product: v's factor
  // without the point's own part, also apart; what is subtracted; and the own part of the factor.
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

// What far points add, with z = e^{i omega} - 1 below the threshold and its conjugate above:
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

// Direct sites may be all of them.
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
// largest, to `density`; returns whether further ones count, |C| falling with them.
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

// Nodes that a site was spread over, and perhaps a neighbour of them: weights may cancel at a node.
int64_t mark_used(const double* grid, bool* used) {
  int64_t count = 0;
  for (int node = 0; node < kGridSize; ++node) {
    used[node] = grid[node] != 0.0 || (node > 0 && grid[node - 1] != 0.0) ||
                 (node + 1 < kGridSize && grid[node + 1] != 0.0);
    count += used[node] ? 1 : 0;
  }
  return count;
}

TR_INLINE double to_probability(double b) { return b < 0.0 ? 0.0 : (b > 1.0 ? 1.0 : b); }

template <typename T>
TR_INLINE bool is_direct(T score, const TopKFrame& frame, double low, double high) {
  const double x = frame.position(double(score));
  return (x >= low) & (x <= high);
}

// Takes the direct sites off the grid and marks the nodes that the others are spread over. What
// rounding leaves of direct sites at the rest is no site, and the checks would fail on it.
template <typename T>
void take_off_grid(const T* scores, const T* v, int64_t sites, TopKFrame frame, double low,
                   double high, double* grid, bool* used) {
  bool first[kGridSize] = {};
  Stencil s;
  for (int64_t base = 0; base < sites; base += kLanes) {
    const int count = int(sites - base < kLanes ? sites - base : kLanes);
    make_stencil(scores + base, count, frame, s);
    for (int lane = 0; lane < count; ++lane) {
      const int node = s.node[lane];
      if (node < 0) continue;
      if (!is_direct(scores[base + lane], frame, low, high)) {
        first[node] = true;
        continue;
      }
      for (int m = 0; m < kGridOrder; ++m) {
        grid[node + m] -= s.weight[m][lane];
        if (v != nullptr) grid[kGridSize + node + m] -= double(v[base + lane]) * s.weight[m][lane];
      }
    }
  }
  for (int node = 0; node < kGridSize; ++node) {
    used[node] = false;
    for (int m = 0; m < kGridOrder && m <= node; ++m) used[node] = used[node] || first[node - m];
  }
}

template <typename T>
void solve(const T* scores, const T* v, int64_t sites, int64_t k, TopKFrame frame,
           TopKSpread spread_of, double* grid, TopKTable* table, T* out, void* scratch) {
  Points points(scratch, capacity_of(sites));
  const double limit = frame.limit();
  const double wanted = double(k - spread_of.above), active = double(spread_of.active);
  bool used[kGridSize];
  const int64_t touched = mark_used(grid, used);
  const bool all_direct = spread_of.active <= touched;
  const auto set_points = [&](bool with_grid, double low, double high) {
    points.count = 0;
    for (int node = 0; with_grid && node < kGridSize; ++node)
      if (used[node]) points.add(frame.grid_position(node), grid[node], grid[kGridSize + node]);
    points.pad();
    points.grid_end = points.count;
    table->direct_low = low;
    table->direct_high = high;
    for (int64_t s = 0; low <= high && s < sites; ++s)
      if (is_direct(scores[s], frame, low, high))
        points.add(frame.position(double(scores[s])), 1.0, v != nullptr ? double(v[s]) : 0.0);
    points.pad();
  };
  const auto moments = [&](double t) { return moments_at(points, t); };
  const auto log_mgf = [&](double t, double s) { return log_mgf_at(points, t, s); };

  if (all_direct) {
    set_points(false, -limit, limit);
  } else {
    set_points(true, kInfinity, -kInfinity);
  }
  const TopKPlan plan = plan_thresholds(moments, log_mgf, wanted, active, frame.threshold_limit());
  if (!all_direct && !plan.smooth()) {
    const double low = plan.direct_low(), high = plan.direct_high();
    take_off_grid(scores, v, sites, frame, low, high, grid, used);
    set_points(true, low, high);
  }

  table->shift = 0.0;
  if (v != nullptr) {
    double weighted = 0, total = 0;
    for (int64_t i = 0; i < points.count; ++i) {
      const double f = normal_pdf(points.x[i] - plan.middle);
      weighted += f * points.wv[i];
      total += f * points.w[i];
    }
    if (total > 0) table->shift = weighted / total;
    for (int64_t i = 0; i < points.count; ++i) points.wv[i] -= table->shift * points.w[i];
  }
  for (int refinement = 1; refinement <= 8; refinement *= 2)
    if (v != nullptr ? integrate<true>(points, plan, wanted, active, refinement)
                     : integrate<false>(points, plan, wanted, active, refinement))
      break;

  // A site on the grid takes its own part with the rest, and it cancels; a direct site leaves it
  // out.
  int64_t at = 0;
  for (int node = 0; node < kGridSize; ++node) {
    const bool here = points.grid_end > 0 && used[node];
    table->first[node] = here ? points.first[0][at] + points.self[at] : 0.0;
    table->second[node] = here ? points.second[at] : 0.0;
    at += here ? 1 : 0;
  }
  if (points.count == points.grid_end) return;
  at = points.grid_end;
  for (int64_t s = 0; s < sites; ++s) {
    if (!is_direct(scores[s], frame, table->direct_low, table->direct_high)) continue;
    const double own = points.wv[at], first = points.first[0][at];
    out[s] =
        T(v != nullptr ? (own * first - (points.second[at] - own * points.self[at])) / frame.sigma
                       : to_probability(first));
    ++at;
  }
}

template <typename T>
void interpolate(const T* scores, const T* v, int64_t sites, TopKFrame frame,
                 const TopKTable* table, T* out) {
  const double limit = frame.limit();
  Stencil s;
  for (int64_t base = 0; base < sites; base += kLanes) {
    const int count = int(sites - base < kLanes ? sites - base : kLanes);
    make_stencil(scores + base, count, frame, s);
    for (int lane = 0; lane < count; ++lane) {
      const int64_t i = base + lane;
      if (s.node[lane] < 0) {
        out[i] = v == nullptr && frame.position(double(scores[i])) > limit ? T(1) : T(0);
        continue;
      }
      if (is_direct(scores[i], frame, table->direct_low, table->direct_high)) continue;
      double first = 0, second = 0;
      for (int m = 0; m < kGridOrder; ++m) {
        first += s.weight[m][lane] * table->first[s.node[lane] + m];
        second += s.weight[m][lane] * table->second[s.node[lane] + m];
      }
      if (v == nullptr) {
        out[i] = T(to_probability(first));
      } else {
        out[i] = T(((double(v[i]) - table->shift) * first - second) / frame.sigma);
      }
    }
  }
}

double mean_field_threshold(int64_t k, TopKFrame frame, TopKSpread spread_of, const double* grid,
                            void* scratch) {
  Points points(scratch, kGridSize);
  bool used[kGridSize];
  mark_used(grid, used);
  for (int node = 0; node < kGridSize; ++node)
    if (used[node]) points.add(frame.grid_position(node), grid[node], 0.0);
  points.pad();
  const double limit = frame.threshold_limit();
  const double tau = solve_mean([&](double t) { return moments_at(points, t); },
                                double(k - spread_of.above), -limit, limit, 1e-13);
  return frame.centre + frame.sigma * tau;
}

template <typename T>
void mean_field(const T* scores, int64_t sites, double tau, double sigma, T* out) {
#pragma omp simd
  for (int64_t s = 0; s < sites; ++s) out[s] = T(normal_cdf((double(scores[s]) - tau) / sigma));
}

template <typename T>
void mean_field_sums(const T* scores, const T* v, int64_t sites, double tau, double sigma,
                     double* density, double* weighted) {
  alignas(64) double total[kLanes] = {}, product[kLanes] = {};
  int64_t s = 0;
  for (; s + kLanes <= sites; s += kLanes)
#pragma omp simd
    for (int lane = 0; lane < kLanes; ++lane) {
      const double f = normal_pdf((double(scores[s + lane]) - tau) / sigma);
      total[lane] += f;
      product[lane] += f * double(v[s + lane]);
    }
  for (int lane = 0; s < sites; ++s, ++lane) {
    const double f = normal_pdf((double(scores[s]) - tau) / sigma);
    total[lane] += f;
    product[lane] += f * double(v[s]);
  }
  *density = sum_of(total);
  *weighted = sum_of(product);
}

template <typename T>
void mean_field_jvp(const T* scores, const T* v, int64_t sites, double tau, double sigma,
                    double centre, T* out) {
#pragma omp simd
  for (int64_t s = 0; s < sites; ++s)
    out[s] = T(normal_pdf((double(scores[s]) - tau) / sigma) * (double(v[s]) - centre) / sigma);
}

}  // namespace

extern const ExpectedTopKCpu<float> expected_topk_float;
extern const ExpectedTopKCpu<double> expected_topk_double;
const ExpectedTopKCpu<float> expected_topk_float{
    scratch_bytes,        spread<float>,     solve<float>,           interpolate<float>,
    mean_field_threshold, mean_field<float>, mean_field_sums<float>, mean_field_jvp<float>};
const ExpectedTopKCpu<double> expected_topk_double{
    scratch_bytes,        spread<double>,     solve<double>,           interpolate<double>,
    mean_field_threshold, mean_field<double>, mean_field_sums<double>, mean_field_jvp<double>};

}  // namespace topreach::kernels::TR_ISA
