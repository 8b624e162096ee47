// Decayed sums of each site's past, their shrinkage towards neighbours, and the level of all sites. The
// equations are in kernels/site_statistics.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

namespace topreach {

/// Settings of site_statistics. Defaults: no neighbours, no seasons, no exposure.
struct SiteStatisticsOptions {
  std::vector<double> half_lives;     // in periods, > 0; infinity is the whole past
  std::vector<double> concentration;  // kappa_j, one per graph, the widest first
  double level = 1.0;                 // count of a site and period, where no past is known
  double smoothing = 0.7, seasonal_smoothing = 0.0;
  int64_t season = 0;          // periods in a year, 0 for no seasons
  double mean_exposure = 0.0;  // the unit of n; 0: counts have no exposure
};

/// A, then m E, then L m n, [R, S, 3 H] float32 on the CPU: statistics of each site's past for R periods.
/// L is the forecast level: the mean expected count of a site with n = 1.
///
/// timeline [N, S]: counts of consecutive periods, oldest first; NaN where not known.
/// rows: for each period, how many periods of the timeline lie before it. A number above N is a period
///   further ahead, with unknown periods in between.
/// starts, sites, weights: the neighbours, one entry per graph; see kernels::SiteGraph.
/// timeline_exposure [N, S], > 0 where the count is known, and exposure [R, S] of the periods asked
///   for; both if options.mean_exposure > 0, else neither.
///
/// Raises c10::ValueError for shapes that do not agree and for negative counts.
/// Cost O(N S H), and O(R S H k) for k neighbours a site. The result does not depend on the number of
/// threads.
at::Tensor site_statistics(const at::Tensor& timeline, const std::vector<int64_t>& rows,
                           const std::vector<at::Tensor>& starts,
                           const std::vector<at::Tensor>& sites,
                           const std::vector<at::Tensor>& weights,
                           const SiteStatisticsOptions& options,
                           const std::optional<at::Tensor>& timeline_exposure = std::nullopt,
                           const std::optional<at::Tensor>& exposure = std::nullopt);

/// Totals [N] of the periods of a timeline, float64, scaled up to all S sites where only some are known
/// (and to mean_exposure, if > 0); NaN where none is known.
at::Tensor site_totals(const at::Tensor& timeline,
                       const std::optional<at::Tensor>& timeline_exposure, double mean_exposure);

/// Logarithms [N + 1] of the totals forecast one period ahead from totals [N] (NaN: unknown), by
/// exponential smoothing with seasons; NaN before the first known total.
at::Tensor level_forecasts(const at::Tensor& totals, double smoothing, double seasonal_smoothing,
                           int64_t season);

}  // namespace topreach
