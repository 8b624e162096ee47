// Tours: at most k simple paths in the graph, with no area in common, with the largest total gain.
#pragma once

#include <vector>

#include "../graph.h"
#include "solved.h"

namespace topreach::plan {

struct TourLimits {
  std::vector<double> size;  // [nodes] > 0, area or length; empty: 1 each
  double min_size = 0, max_size = std::numeric_limits<double>::infinity();
  std::vector<int8_t> lock;  // [nodes], -1: in no tour; or empty
};

/// gain [nodes]: what a tour gains by passing an area. Areas with a negative gain are passed only on the way
/// to others. Proved by column generation (kernels/programs/tours.h), without HiGHS. `parts` are the tours,
/// best first. Numbers: "heuristic" (the value if tours are found one after another by beam search). Columns:
/// "tour_value", "tour_size", one entry for each tour.
///
/// Raises std::runtime_error if time was up before a plan was found.
Solved tours(const Graph& graph, const std::vector<double>& gain, int64_t k,
             const TourLimits& limits = {}, const SolveOptions& options = {});

/// Share of all events minus rho times share of the whole area, [sites]: a tour of gain above 0 has
/// a prediction accuracy index (share of events for share of area) above rho. Raises
/// c10::ValueError for no events.
std::vector<double> tour_gain(const std::vector<double>& events, const std::vector<double>& area,
                              double rho);

}  // namespace topreach::plan
