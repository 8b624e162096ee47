#include "site_statistics.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "../../kernels/site_statistics.h"
#include "../require.h"

namespace topreach {
namespace {

constexpr const char* kName = "site_statistics";
constexpr int64_t kSitesPerBlock = 1024;

// float32 [rows, sites] on the CPU, and its rows.
class Rectangle {
 public:
  Rectangle() = default;
  Rectangle(const char* function, const char* argument, const at::Tensor& values, int64_t rows,
            int64_t sites)
      : values_(values.to(at::kCPU, at::kFloat).contiguous()) {
    TR_REQUIRE(values.dim() == 2 && values.size(0) == rows && values.size(1) == sites,
               "{}: {} must have shape [{}, {}], got {}", function, argument, rows, sites,
               values.sizes());
  }
  const float* row(int64_t i) const {
    return values_.defined() ? values_.const_data_ptr<float>() + i * values_.size(1) : nullptr;
  }

 private:
  at::Tensor values_;
};

// Refuses negative or infinite counts, and a known count without exposure.
void check_values(const char* function, const float* counts, const float* exposure, int64_t row,
                  int64_t begin, int64_t end) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  for (int64_t s = begin; s < end; ++s) {
    if (std::isnan(counts[s])) continue;
    TR_REQUIRE(counts[s] >= 0 && counts[s] < infinity,
               "{}: timeline must hold counts >= 0, or NaN where one is not known, got {} in row "
               "{}, site {}",
               function, counts[s], row, s);
    TR_REQUIRE(!exposure || (exposure[s] > 0 && exposure[s] < infinity),
               "{}: timeline_exposure must be finite and > 0 where the count is known, got {} in "
               "row {}, site {}",
               function, exposure[s], row, s);
  }
}

// Sums of each period. Blocks of sites are added in order, so the number of threads does not matter.
std::vector<kernels::PeriodSums> sums_of_periods(const char* function, const Rectangle& counts,
                                                 const Rectangle& exposure, int64_t periods,
                                                 int64_t sites) {
  std::vector<kernels::PeriodSums> sums(static_cast<size_t>(periods));
  at::parallel_for(0, periods, 1 + 20'000 / (sites + 1), [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      check_values(function, counts.row(u), exposure.row(u), u, 0, sites);
      for (int64_t s = 0; s < sites; s += kSitesPerBlock) {
        sums[size_t(u)].add(kernels::sum_of_period(counts.row(u), exposure.row(u), s,
                                                   std::min(s + kSitesPerBlock, sites)));
      }
    }
  });
  return sums;
}

// The total of all S sites, each with n = 1; some may be unknown.
double total_of(const kernels::PeriodSums& sums, int64_t sites) {
  if (sums.exposure == double(sites)) return sums.counts;
  return sums.counts * (double(sites) / sums.exposure);
}

// Exposure over its mean: n.
Rectangle relative(const char* function, const char* argument, const at::Tensor& exposure,
                   double mean_exposure, int64_t rows, int64_t sites) {
  return {function, argument, exposure.to(at::kDouble) / mean_exposure, rows, sites};
}

// Whether a graph of neighbours lists sites 0..S-1 for each site.
bool is_graph(const at::Tensor& start, const at::Tensor& near, const at::Tensor& weights,
              int64_t sites) {
  if (start.dim() != 1 || start.size(0) != sites + 1 || near.dim() != 1 ||
      near.sizes() != weights.sizes())
    return false;
  if (start[0].item<int64_t>() != 0 || start[sites].item<int64_t>() != near.size(0) ||
      !start.diff().ge(0).all().item<bool>())
    return false;
  return near.numel() == 0 ||
         (near.min().item<int64_t>() >= 0 && near.max().item<int64_t>() < sites);
}

at::Tensor statistics(const at::Tensor& timeline, at::IntArrayRef rows, at::TensorList starts,
                      at::TensorList neighbours, at::TensorList weights,
                      at::ArrayRef<double> half_lives, at::ArrayRef<double> concentration,
                      double level, double smoothing, double seasonal_smoothing, int64_t season,
                      double mean_exposure, const std::optional<at::Tensor>& timeline_exposure,
                      const std::optional<at::Tensor>& exposure) {
  TR_REQUIRE(timeline.dim() == 2, "{}: timeline must have shape [N, S], got {}", kName,
             timeline.sizes());
  const int64_t periods = timeline.size(0), sites = timeline.size(1);
  const int64_t memories = int64_t(half_lives.size()), wanted = int64_t(rows.size());
  TR_REQUIRE(memories > 0 && std::ranges::all_of(half_lives, [](double h) { return h > 0; }),
             "{}: half_lives must be numbers > 0, at least one, got {} of them", kName, memories);
  TR_REQUIRE(season >= 0, "{}: season must not be negative, got {}", kName, season);
  for (const int64_t row : rows)
    TR_REQUIRE(row >= 0, "{}: rows must not be negative, got {}", kName, row);
  const bool exposed = mean_exposure > 0;
  TR_REQUIRE(exposed == timeline_exposure.has_value() && exposed == exposure.has_value(),
             "{}: timeline_exposure and exposure must {}", kName,
             exposed ? "be given, for the history was fitted with exposure"
                     : "be absent, for the history was fitted without exposure");
  const Rectangle counts(kName, "timeline", timeline, periods, sites);
  Rectangle past_exposure, next_exposure;
  if (exposed) {
    past_exposure =
        relative(kName, "timeline_exposure", *timeline_exposure, mean_exposure, periods, sites);
    next_exposure = relative(kName, "exposure", *exposure, mean_exposure, wanted, sites);
    for (int64_t r = 0; r < wanted; ++r)
      for (int64_t s = 0; s < sites; ++s)
        TR_REQUIRE(next_exposure.row(r)[s] > 0 && std::isfinite(next_exposure.row(r)[s]),
                   "{}: exposure must be finite and > 0, got {} in row {}, site {}", kName,
                   (*exposure)[r][s].item<double>(), r, s);
  }

  const size_t num_graphs = concentration.size();
  TR_REQUIRE(starts.size() == num_graphs && neighbours.size() == num_graphs &&
                 weights.size() == num_graphs,
             "{}: concentration must have one entry per graph, {}, got {}", kName, starts.size(),
             num_graphs);
  std::vector<at::Tensor> kept;
  std::vector<kernels::SiteGraph> graphs;
  for (size_t j = 0; j < num_graphs; ++j) {
    TR_REQUIRE(is_graph(starts[j], neighbours[j], weights[j], sites),
               "{}: starts, sites and weights must list sites from 0 to {} for each site, got "
               "shapes {}, {} and {}",
               kName, sites - 1, starts[j].sizes(), neighbours[j].sizes(), weights[j].sizes());
    kept.push_back(starts[j].to(at::kCPU, at::kLong).contiguous());
    kept.push_back(neighbours[j].to(at::kCPU, at::kLong).contiguous());
    kept.push_back(weights[j].to(at::kCPU, at::kDouble).contiguous());
    graphs.push_back({kept[3 * j].const_data_ptr<int64_t>(),
                      kept[3 * j + 1].const_data_ptr<int64_t>(),
                      kept[3 * j + 2].const_data_ptr<double>()});
  }

  const auto sums = sums_of_periods(kName, counts, past_exposure, periods, sites);
  const bool common = !exposed && std::ranges::all_of(sums, [&](const auto& sum) {
    return sum.known == 0 || sum.known == sites;
  });
  std::vector<double> decay;
  for (const double h : half_lives) decay.push_back(std::exp2(-1 / h));
  const at::Tensor a = at::zeros({sites, memories}, at::kDouble),
                   e = at::zeros({common ? 1 : sites, memories}, at::kDouble);
  const kernels::SiteMemories state{sites,
                                    memories,
                                    decay.data(),
                                    common,
                                    a.mutable_data_ptr<double>(),
                                    e.mutable_data_ptr<double>()};
  kernels::TotalLevel total(smoothing, seasonal_smoothing, season);

  // Moves all sites on through the periods from..to. Each block of sites goes through all of them.
  const auto rate_of = [&](int64_t u) {
    const auto& sum = sums[size_t(u)];
    return sum.known > 0 ? sum.counts / sum.exposure : 0.0;
  };
  const auto pass = [&](int64_t from, int64_t to) {
    if (from == to) return;
    at::parallel_for(0, sites, kSitesPerBlock, [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; s += kSitesPerBlock) {
        for (int64_t u = from; u < to; ++u) {
          const bool known = u < periods && sums[size_t(u)].known > 0;
          kernels::pass_period(state, known ? counts.row(u) : nullptr,
                               known ? past_exposure.row(u) : nullptr, known ? rate_of(u) : 0.0, s,
                               std::min(s + kSitesPerBlock, end));
        }
      }
    });
    for (int64_t u = from; u < to; ++u) {
      const bool known = u < periods && sums[size_t(u)].known > 0;
      if (common) {
        for (int64_t h = 0; h < memories; ++h)
          state.expected[h] = decay[size_t(h)] * state.expected[h] + (known ? rate_of(u) : 0.0);
      }
      if (known) total.update(u, total_of(sums[size_t(u)], sites));
    }
  };

  at::Tensor result = at::empty({wanted, sites, 3 * memories}, at::kFloat);
  std::vector<size_t> order(rows.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, [&](size_t i, size_t j) { return rows[i] < rows[j]; });
  int64_t now = 0;
  for (const size_t r : order) {
    pass(now, rows[r]);
    now = rows[r];
    const double rate =
        total.has_forecast() ? std::exp(total.log_forecast(now)) / double(sites) : level;
    const float* n = next_exposure.row(int64_t(r));
    float* out = result.mutable_data_ptr<float>() + int64_t(r) * sites * 3 * memories;
    at::parallel_for(0, sites, 256, [&](int64_t begin, int64_t end) {
      std::vector<double> work(static_cast<size_t>(3 * memories));
      double* m = work.data() + 2 * memories;
      for (int64_t s = begin; s < end; ++s) {
        kernels::prior_mean(state, graphs.data(), concentration.data(), int64_t(num_graphs), s,
                            work.data(), m);
        const double* own = state.expected + (common ? 0 : s * memories);
        float* row = out + s * 3 * memories;
        for (int64_t h = 0; h < memories; ++h) {
          row[h] = float(state.counts[s * memories + h]);
          row[memories + h] = float(m[h] * own[h]);
          row[2 * memories + h] = float(m[h] * rate * (n ? double(n[s]) : 1.0));
        }
      }
    });
  }
  return result;
}

at::Tensor statistics_meta(const at::Tensor& timeline, at::IntArrayRef rows, at::TensorList,
                           at::TensorList, at::TensorList, at::ArrayRef<double> half_lives,
                           at::ArrayRef<double>, double, double, double, int64_t, double,
                           const std::optional<at::Tensor>&, const std::optional<at::Tensor>&) {
  return at::empty_symint({c10::SymInt(int64_t(rows.size())), timeline.sym_size(1),
                           c10::SymInt(3 * int64_t(half_lives.size()))},
                          timeline.options().dtype(at::kFloat));
}

at::Tensor totals(const at::Tensor& timeline, const std::optional<at::Tensor>& timeline_exposure,
                  double mean_exposure) {
  constexpr const char* name = "site_totals";
  TR_REQUIRE(timeline.dim() == 2, "{}: timeline must have shape [N, S], got {}", name,
             timeline.sizes());
  const int64_t periods = timeline.size(0), sites = timeline.size(1);
  const Rectangle counts(name, "timeline", timeline, periods, sites);
  Rectangle exposure;
  TR_REQUIRE(timeline_exposure.has_value() == (mean_exposure > 0),
             "{}: timeline_exposure must be given if mean_exposure is > 0, and only then", name);
  if (timeline_exposure)
    exposure =
        relative(name, "timeline_exposure", *timeline_exposure, mean_exposure, periods, sites);
  const auto sums = sums_of_periods(name, counts, exposure, periods, sites);
  at::Tensor result = at::empty({periods}, at::kDouble);
  double* out = result.mutable_data_ptr<double>();
  for (int64_t u = 0; u < periods; ++u) {
    const auto& sum = sums[size_t(u)];
    out[u] = sum.known > 0 ? total_of(sum, sites) : std::numeric_limits<double>::quiet_NaN();
  }
  return result;
}

at::Tensor totals_meta(const at::Tensor& timeline, const std::optional<at::Tensor>&, double) {
  return at::empty_symint({timeline.sym_size(0)}, timeline.options().dtype(at::kDouble));
}

at::Tensor forecasts(const at::Tensor& totals, double smoothing, double seasonal_smoothing,
                     int64_t season) {
  constexpr const char* name = "level_forecasts";
  TR_REQUIRE(totals.dim() == 1, "{}: totals must have shape [N], got {}", name, totals.sizes());
  TR_REQUIRE(season >= 0, "{}: season must not be negative, got {}", name, season);
  const at::Tensor values = totals.to(at::kDouble).contiguous();
  const double* in = values.const_data_ptr<double>();
  const int64_t periods = totals.size(0);
  at::Tensor result = at::empty({periods + 1}, at::kDouble);
  double* out = result.mutable_data_ptr<double>();
  kernels::TotalLevel level(smoothing, seasonal_smoothing, season);
  for (int64_t u = 0; u <= periods; ++u) {
    out[u] =
        level.has_forecast() ? level.log_forecast(u) : std::numeric_limits<double>::quiet_NaN();
    if (u < periods && !std::isnan(in[u])) level.update(u, in[u]);
  }
  return result;
}

at::Tensor forecasts_meta(const at::Tensor& totals, double, double, int64_t) {
  return at::empty_symint({totals.sym_size(0) + 1}, totals.options().dtype(at::kDouble));
}

}  // namespace

at::Tensor site_statistics(const at::Tensor& timeline, const std::vector<int64_t>& rows,
                           const std::vector<at::Tensor>& starts,
                           const std::vector<at::Tensor>& sites,
                           const std::vector<at::Tensor>& weights,
                           const SiteStatisticsOptions& options,
                           const std::optional<at::Tensor>& timeline_exposure,
                           const std::optional<at::Tensor>& exposure) {
  return statistics(timeline, rows, starts, sites, weights, options.half_lives,
                    options.concentration, options.level, options.smoothing,
                    options.seasonal_smoothing, options.season, options.mean_exposure,
                    timeline_exposure, exposure);
}

at::Tensor site_totals(const at::Tensor& timeline,
                       const std::optional<at::Tensor>& timeline_exposure, double mean_exposure) {
  return totals(timeline, timeline_exposure, mean_exposure);
}

at::Tensor level_forecasts(const at::Tensor& totals, double smoothing, double seasonal_smoothing,
                           int64_t season) {
  return forecasts(totals, smoothing, seasonal_smoothing, season);
}

TORCH_LIBRARY_IMPL(topreach, CPU, m) {
  m.impl("site_statistics", statistics);
  m.impl("site_totals", totals);
  m.impl("level_forecasts", forecasts);
}

TORCH_LIBRARY_IMPL(topreach, Meta, m) {
  m.impl("site_statistics", statistics_meta);
  m.impl("site_totals", totals_meta);
  m.impl("level_forecasts", forecasts_meta);
}

}  // namespace topreach
