// Long memory: what the past of a site and of its neighbours says about its rate. The twin of Python's
// topreach.features.SiteHistory, fitted there.
//
//   A_s = sum_u d^(N-1-u) y_us,  E = sum_u d^(N-1-u) mean_s y_us,  d = 2^(-1/h)
//   m^0 = 1,  m^j_s = (sum_{n in N_j(s)} w_n A_n + kappa_j) / (|N_j| E + kappa_j / m^{j-1}_s)
//   L: exponential smoothing of the log of the total, with seasons
// Shapes: counts of the past [N, S]; H half-lives. Cost O(N S H), and O(S H k) for the neighbours.
#pragma once

#include <torch/types.h>

#include <vector>

namespace topreach {

/// The neighbours of site s are sites[start[s]] to sites[start[s + 1] - 1], with weights.
struct Neighbours {
  torch::Tensor start, sites;  // int64 [S + 1], [E]
  torch::Tensor weights;       // float64 [E]

  /// Weighted sums over each site's neighbours, [S, H], of values [S, H]; float64.
  torch::Tensor sum(const torch::Tensor& values) const;
};

struct SiteHistory {
  std::vector<double> half_lives;     // h, in periods; infinity is the whole past
  std::vector<double> concentration;  // kappa_j, one per graph, the widest first
  std::vector<Neighbours> graphs;
  double shape = 4.0, level = 1.0, smoothing = 0.7, seasonal_smoothing = 0.0, end = 0.0;
  int64_t season = 0;    // periods in a year, 0 for no seasons
  torch::Tensor counts;  // [N, S], float32: the past that was known when it was fitted

  /// A, then m E, then L m, H of each: [S, 3 H] in float32, for the period after `past` [N, S], N >= 0,
  /// oldest first. Periods with a NaN are passed over. Raises c10::ValueError for another S.
  torch::Tensor statistics(const torch::Tensor& past) const;
};

}  // namespace topreach
