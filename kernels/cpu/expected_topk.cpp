// CPU loops of the expected top-K; see ../expected_topk.h for the method.
#include "../expected_topk.h"

#include "expected_topk_integral.h"
#include "isa.h"

namespace topreach::kernels::TR_ISA {
namespace {

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

// Marks nodes that a site was spread over, with their neighbours: weights may cancel at a node.
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

// Removes the direct sites from the grid and marks the nodes that the others are spread over. Other
// nodes may keep rounding errors of the direct sites; they must be ignored, or the checks fail.
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

  // A site on the grid includes its own part, which cancels; a direct site leaves it out.
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
