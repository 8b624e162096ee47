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

// Points: positions x with weights w (sites there) and wv (their v); those of the grid come first, then
// the direct ones, of weight 1, both padded with points that are never above any threshold.
struct Points {
  double *x, *w, *wv;
  double *p, *f, *inverse;          // of one threshold; 1 / |c|^2 of one frequency
  double *sum, *subtrahend;         // of one threshold, over frequencies
  double *first, *second;           // results
  int64_t count, grid_end;
  static constexpr int kArrays = 10;

  Points(void* scratch, int64_t capacity) : count(0), grid_end(0) {
    double* next = static_cast<double*>(scratch);
    double** const arrays[kArrays] = {&x,       &w,   &wv,         &p,     &f,
                                      &inverse, &sum, &subtrahend, &first, &second};
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
};

// Direct sites may be all of them.
TR_INLINE int64_t capacity_of(int64_t sites) {
  return (sites + kLanes - 1) / kLanes * kLanes + kGridSize;
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

// Fills p and f for threshold t, and gives the moments.
TopKMoments evaluate(Points& points, double t) {
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
  return {sum_of(mean), sum_of(variance), sum_of(density)};
}

// The parts of one frequency that a point adds to: F and F_v.
struct Lanes {
  alignas(64) double re[kLanes] = {}, im[kLanes] = {}, v_re[kLanes] = {}, v_im[kLanes] = {};
};

template <bool jvp>
TR_INLINE void add_point(Points& points, int64_t i, int lane, ComplexDouble r, Lanes& sums) {
  const double f = points.f[i];
  sums.re[lane] += points.w[i] * f * r.re;
  sums.im[lane] += points.w[i] * f * r.im;
  if constexpr (jvp) {
    sums.v_re[lane] += points.wv[i] * f * r.re;
    sums.v_im[lane] += points.wv[i] * f * r.im;
  }
}

// Adds one frequency to points.sum and points.subtrahend; returns its part of the density of the
// K-th largest, Re(E F).
template <bool jvp>
double add_frequency(Points& points, TopKFrequency omega, double step, double k) {
  alignas(64) double modulus[kLanes] = {}, angle[kLanes] = {}, c_re[kLanes], c_im[kLanes];
  Lanes sums;
  for (int64_t i = 0; i < points.grid_end; i += kLanes)
#pragma omp simd
    for (int lane = 0; lane < kLanes; ++lane) {
      const double p = points.p[i + lane], w = points.w[i + lane];
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
  for (int64_t i = points.grid_end; i < points.count; i += kLanes)  // their C is a plain product
#pragma omp simd
    for (int lane = 0; lane < kLanes; ++lane) {
      const double p = points.p[i + lane];
      const double x = 1.0 - p * omega.drop, y = p * omega.sine;
      const double inverse = 1.0 / (x * x + y * y);
      points.inverse[i + lane] = inverse;
      const double re = c_re[lane] * x - c_im[lane] * y;
      c_im[lane] = c_re[lane] * y + c_im[lane] * x;
      c_re[lane] = re;
      add_point<jvp>(points, i + lane, lane, {x * inverse, -y * inverse}, sums);
    }
  ComplexDouble e = coefficient_of(sum_of(modulus), sum_of(angle), k, omega, step);
  for (int lane = 0; lane < kLanes; ++lane) e = product(e, {c_re[lane], c_im[lane]});
  const ComplexDouble ef = product(e, {sum_of(sums.re), sum_of(sums.im)});
  const ComplexDouble ev = product(e, {sum_of(sums.v_re), sum_of(sums.v_im)});
  for (int64_t i = 0; i < points.count; i += kLanes)
#pragma omp simd
    for (int lane = 0; lane < kLanes; ++lane) {
      const ComplexDouble r =
          reciprocal_factor(points.p[i + lane], points.inverse[i + lane], omega);
      points.sum[i + lane] += ef.re * r.re - ef.im * r.im;
      if constexpr (jvp) {  // Re(E F_v / c)
        points.subtrahend[i + lane] += ev.re * r.re - ev.im * r.im;
      } else {  // Re(E / c^2)
        points.subtrahend[i + lane] +=
            e.re * (r.re * r.re - r.im * r.im) - 2.0 * e.im * r.re * r.im;
      }
    }
  return ef.re;
}

// Integrates over thresholds and frequencies into points.first and points.second; returns the
// integral of the density of the K-th largest, which is 1.
template <bool jvp>
double integrate(Points& points, const TopKPlan& plan, double k, double active, int refinement) {
  const int64_t n = points.count;
  for (int64_t i = 0; i < n; ++i) points.first[i] = points.second[i] = 0.0;
  const double step = plan.step / refinement;
  double total = 0;
  for (int direction = -1; direction <= 1; direction += 2) {
    for (int64_t node = direction < 0 ? 0 : 1;; ++node) {
      const double t = plan.middle + double(direction * node) * step;
      if (t < plan.low || t > plan.high) break;
      const TopKFrequencies w = frequencies_of(evaluate(points, t), k, active, refinement);
      if (w.beyond) break;
      if (w.count == 0) continue;
      for (int64_t i = 0; i < n; ++i) points.sum[i] = points.subtrahend[i] = 0.0;
      for (int l = 0; l < w.count; ++l)
        total += step *
                 add_frequency<jvp>(points, frequency_at((l + 0.5) * w.step), w.step, k);
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) {
        if constexpr (jvp) {
          points.first[i] += step * points.f[i] * points.sum[i];
          points.second[i] += step * points.f[i] * points.subtrahend[i];
        } else {
          points.first[i] +=
              step * points.p[i] * (points.sum[i] - points.f[i] * points.subtrahend[i]);
        }
      }
    }
  }
  return total;
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
      if (used[node])
        points.add(frame.grid_position(node), grid[node], grid[kGridSize + node]);
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
  const TopKPlan plan =
      plan_thresholds(moments, log_mgf, wanted, active, frame.threshold_limit());
  if (!all_direct && !plan.smooth) {
    const double low = plan.low - kNear, high = plan.high + kNear;
    Stencil s;
    for (int64_t i = 0; i < sites; ++i) {  // these leave the grid
      if (!is_direct(scores[i], frame, low, high)) continue;
      make_stencil(scores + i, 1, frame, s);
      if (s.node[0] < 0) continue;
      for (int m = 0; m < kGridOrder; ++m) {
        grid[s.node[0] + m] -= s.weight[m][0];
        if (v != nullptr) grid[kGridSize + s.node[0] + m] -= double(v[i]) * s.weight[m][0];
      }
    }
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
  for (int refinement = 1; refinement <= 8; refinement *= 2) {
    const double total = v != nullptr
                             ? integrate<true>(points, plan, wanted, active, refinement)
                             : integrate<false>(points, plan, wanted, active, refinement);
    if (total > 1 - 1e-8 && total < 1 + 1e-8) break;
  }

  int64_t at = 0;
  for (int node = 0; node < kGridSize; ++node) {
    const bool here = points.grid_end > 0 && used[node];
    table->first[node] = here ? points.first[at] : 0.0;
    table->second[node] = here ? points.second[at] : 0.0;
    at += here ? 1 : 0;
  }
  if (points.count == points.grid_end) return;
  at = points.grid_end;
  for (int64_t s = 0; s < sites; ++s) {
    if (!is_direct(scores[s], frame, table->direct_low, table->direct_high)) continue;
    const double first = points.first[at], second = points.second[at];
    out[s] = T(v != nullptr ? ((double(v[s]) - table->shift) * first - second) / frame.sigma
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
