// Tours: at most k simple paths with no area in common, with the largest total gain.
//
//   max sum of gains,  min_size <= size of each path <= max_size,  a path goes from neighbour to neighbour
//
// A typical gain: share of all events - rho x share of the whole area; a tour with gain > 0 has a
// prediction accuracy index above rho. Empty tours are allowed, so bad ones are never forced.
//
// The plan and its proof are by column generation (Desrosiers & Lubbecke 2005). The master program
// (set_packing.h) chooses among the known tours. Its prices mu of areas and nu of a tour say which new
// tour would help: one whose reduced gain, the sum over its areas of (gain - mu), is above nu. Beam
// search looks for such tours; if it finds none, a depth-first search does. That abandons a branch if the
// smaller of two optimistic completions cannot beat the best tour:
//   (a) the best walk that goes on from here and does not turn straight back
//   (b) the largest reduced gains within reach, each once, until the size is used up
// An area that no such walk through it can bring above nu is left out beforehand. For any prices
//   sum mu + k max(0, best reduced gain)
// is an upper bound. If a gap is left when no tour helps, all tours whose reduced gain is within the
// gap of nu are listed, and the best k of them are the optimum.
//
// Cost: exponential in the length of a tour in the worst case; with 20,000 areas and 12 areas a tour,
// about a second. The master has only some dozens of rows and is solved here, so tours do not need HiGHS.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "graph.h"
#include "solution.h"

namespace topreach::kernels {

struct TourOptions {
  int64_t k = 1;
  std::span<const double> size;  // [nodes], > 0; empty: 1 each
  double min_size = 0, max_size = std::numeric_limits<double>::infinity();
  std::span<const int8_t> lock;  // [nodes], -1: in no tour; or empty
  int32_t beam = 16;             // paths kept for each length
  double gap = 0;
  double time_limit = std::numeric_limits<double>::infinity();  // seconds
};

struct TourPlan {
  PlanStatus status = PlanStatus::unknown;
  double value = 0, bound = 0, gap = 0;
  std::vector<std::vector<int32_t>> tours;  // areas in the order of the path, best tour first
  double heuristic = 0;                     // the value of tours found one by one by beam search
  int64_t columns = 0, branches = 0;
};

TourPlan solve_tours(const Graph& graph, std::span<const double> gain, const TourOptions& options);

}  // namespace topreach::kernels
