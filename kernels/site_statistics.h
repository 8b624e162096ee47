// Statistics of the past of a site and its neighbours, from which models predict its rate: decayed sums,
// their shrinkage towards neighbours, and the level of all sites.
//
// For a memory of half-life h, d = 2^(-1/h), and the counts y_us of earlier periods u:
//
//   A_ts = sum_{u<t} d^(t-1-u) y_us             the decayed count
//   E_ts = sum_{u<t} d^(t-1-u) r_u n_us         the expected decayed count of an average site
//   r_u  = sum_s y_us / sum_s n_us              over the sites that are known in period u
//
// n is the exposure over its mean, 1 if there is none. An unknown count (NaN) adds nothing to A_ts or
// E_ts, but both decay by one period.
//
// The prior mean m of the relative risk goes from the widest neighbourhood to the closest, each shrunk
// towards the one before by kappa events (Gamma-Poisson shrinkage; Clayton & Kaldor 1987, Biometrics
// 43:671):
//
//   m^0 = 1,  m^j_s = (sum_n w_n A_n + kappa_j) / (sum_n w_n E_n + kappa_j / m^(j-1)_s)
//
// Units: A and E are counts, n and m have none. S sites, H memories. Double precision throughout.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace topreach::kernels {

// The least relative risk that a neighbourhood is shrunk towards.
constexpr double kRiskFloor = 1e-3;

// One step of the recursion for m. `wider` is at least kRiskFloor. T is double, or a tensor.
template <typename T, typename Kappa>
T shrunken_risk(const T& near_counts, const T& near_expected, const Kappa& kappa, const T& wider) {
  return (near_counts + kappa) / (near_expected + kappa / wider);
}

// Exponential smoothing of the logarithm of the total, with additive seasons and without a trend
// (Holt-Winters). A season's first estimates are means over the cycles so far.
class TotalLevel {
 public:
  // season: periods in a cycle; 0 or 1 for no seasons.
  TotalLevel(double smoothing, double seasonal_smoothing, int64_t season)
      : smoothing_(smoothing),
        seasonal_smoothing_(seasonal_smoothing),
        seasons_(size_t(season > 1 ? season : 1), 0.0) {}

  bool has_forecast() const { return updates_ > 0; }

  // The logarithm of the total of this period; call only if has_forecast().
  double log_forecast(int64_t row) const { return level_ + seasons_[place(row)]; }

  void update(int64_t row, double total) {
    double& season = seasons_[place(row)];
    const double value = std::log(total + 0.5);
    level_ = updates_ == 0 ? value : level_ + smoothing_ * (value - season - level_);
    ++updates_;
    if (seasons_.size() > 1) {
      const double cycles = double((updates_ - 1) / int64_t(seasons_.size()));
      const double rate = 0.5 / (1 + cycles);
      season +=
          (rate > seasonal_smoothing_ ? rate : seasonal_smoothing_) * (value - level_ - season);
    }
  }

 private:
  size_t place(int64_t row) const { return size_t(row) % seasons_.size(); }

  double smoothing_, seasonal_smoothing_;
  std::vector<double> seasons_;
  double level_ = 0.0;
  int64_t updates_ = 0;
};

// Sums over the known sites of one period.
struct PeriodSums {
  double counts = 0.0, exposure = 0.0;
  int64_t known = 0;

  void add(const PeriodSums& other) {
    counts += other.counts;
    exposure += other.exposure;
    known += other.known;
  }
};

// Over sites begin..end; if `exposure` is null it is 1 for each.
inline PeriodSums sum_of_period(const float* counts, const float* exposure, int64_t begin,
                                int64_t end) {
  PeriodSums sums;
  for (int64_t s = begin; s < end; ++s) {
    if (std::isnan(counts[s])) continue;
    sums.counts += counts[s];
    sums.exposure += exposure ? exposure[s] : 1.0;
    ++sums.known;
  }
  return sums;
}

// The memories of all sites at one moment. E is the same for all sites, [H], if every period is known
// for all of them or for none, and there is no exposure; else [S, H].
struct SiteMemories {
  int64_t sites, memories;
  const double* decay;  // d, [H]
  bool common;          // one E for all sites
  double* counts;       // A, [S, H]
  double* expected;     // E, [H] or [S, H]
};

// Moves sites begin..end on by one period. `rate` is r_u, the expected count of a unit of exposure.
// `counts` and `exposure` are that period's, [S]; null counts: nothing is known.
inline void pass_period(const SiteMemories& state, const float* counts, const float* exposure,
                        double rate, int64_t begin, int64_t end) {
  const int64_t memories = state.memories;
  for (int64_t s = begin; s < end; ++s) {
    const bool known = counts && !std::isnan(counts[s]);
    const double y = known ? double(counts[s]) : 0.0;
    double* a = state.counts + s * memories;
    for (int64_t h = 0; h < memories; ++h) a[h] = state.decay[h] * a[h] + y;
    if (state.common) continue;
    const double e = known ? rate * (exposure ? double(exposure[s]) : 1.0) : 0.0;
    double* expected = state.expected + s * memories;
    for (int64_t h = 0; h < memories; ++h) expected[h] = state.decay[h] * expected[h] + e;
  }
}

// The neighbours of site s are sites[start[s]] to sites[start[s + 1] - 1], with weights.
struct SiteGraph {
  const int64_t* start;   // [S + 1]
  const int64_t* sites;   // [edges]
  const double* weights;  // [edges]
};

// m [H] of site s. `near` is working memory of 2 H.
inline void prior_mean(const SiteMemories& state, const SiteGraph* graphs,
                       const double* concentration, int64_t num_graphs, int64_t s, double* near,
                       double* m) {
  const int64_t memories = state.memories;
  double* near_expected = near + memories;
  for (int64_t h = 0; h < memories; ++h) m[h] = 1.0;
  for (int64_t j = 0; j < num_graphs; ++j) {
    const SiteGraph& graph = graphs[j];
    double degree = 0.0;
    for (int64_t h = 0; h < 2 * memories; ++h) near[h] = 0.0;
    for (int64_t i = graph.start[s]; i < graph.start[s + 1]; ++i) {
      const double weight = graph.weights[i];
      const double* a = state.counts + graph.sites[i] * memories;
      for (int64_t h = 0; h < memories; ++h) near[h] += weight * a[h];
      if (state.common) {
        degree += weight;
      } else {
        const double* e = state.expected + graph.sites[i] * memories;
        for (int64_t h = 0; h < memories; ++h) near_expected[h] += weight * e[h];
      }
    }
    for (int64_t h = 0; h < memories; ++h) {
      if (state.common) near_expected[h] = degree * state.expected[h];
      const double wider = m[h] < kRiskFloor ? kRiskFloor : m[h];
      m[h] = shrunken_risk(near[h], near_expected[h], concentration[j], wider);
    }
  }
}

}  // namespace topreach::kernels
