// Statistics of the past of a site and its neighbours, from which models predict its rate.
//
// Fitted by Python's topreach.models.SiteHistory. The equations are in kernels/site_statistics.h, the
// operators over them in csrc/ops/site_statistics.h.
// Shapes: counts of the past [N, S]; H half-lives. Cost O(N S H), and O(S H k) for k neighbours.
#pragma once

#include <torch/types.h>

#include <optional>
#include <vector>

namespace topreach {

/// The neighbours of site s are sites[start[s]] to sites[start[s + 1] - 1], with weights.
struct Neighbours {
  torch::Tensor start, sites;  // int64 [S + 1], [E]
  torch::Tensor weights;       // float64 [E]
};

struct SiteHistory {
  std::vector<double> half_lives;     // h, in periods; infinity is the whole past
  std::vector<double> concentration;  // kappa_j, one per graph, the widest first
  std::vector<Neighbours> graphs;
  double shape = 4.0, level = 1.0, smoothing = 0.7, seasonal_smoothing = 0.0;
  int64_t season = 0;          // periods in a year, 0 for no seasons
  double mean_exposure = 0.0;  // 0: fitted without exposure

  /// A, then m E, then L m n (kernels/site_statistics.h), H of each: [R, S, 3 H] in float32 on the CPU, for
  /// R periods.
  ///
  /// timeline [N, S]: counts of consecutive periods of the calendar, oldest first; NaN where not known.
  /// rows: for each period asked for, the number of its row: the counts before that row are used. Row
  ///   N + h - 1 is the period h ahead of the last one.
  /// timeline_exposure [N, S] and exposure [R, S]: given if mean_exposure > 0, and only then.
  ///
  /// Raises c10::ValueError for shapes that do not agree, and for negative counts.
  torch::Tensor statistics(const torch::Tensor& timeline, const std::vector<int64_t>& rows,
                           const std::optional<torch::Tensor>& timeline_exposure = std::nullopt,
                           const std::optional<torch::Tensor>& exposure = std::nullopt) const;
};

}  // namespace topreach
