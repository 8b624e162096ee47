// A table of counts, features and exposure of S sites over T periods.
#pragma once

#include <torch/types.h>

#include <string>
#include <vector>

#include "calendar.h"

namespace topreach {

/// Counts and features, in time order. Python's topreach.Panel holds the same.
///
/// Tensors that the table does not have are left undefined. Times are numbers, or dates as days since
/// 1970-01-01: see Calendar.
struct Panel {
  std::vector<std::string> site_ids;  // S, distinct
  Calendar calendar;
  std::vector<double> times;               // T, ascending
  std::vector<std::string> feature_names;  // P, distinct
  torch::Tensor x;                         // [T, S, P] features, finite
  torch::Tensor y;         // [T, S] counts; NaN where not known; undefined: none is known
  torch::Tensor y_upper;   // [T, S] >= y: a suppressed count lies in y..y_upper
  torch::Tensor exposure;  // [T, S] > 0: counts are proportional to it
  std::vector<double> history_times;  // H, ascending, before times[0]
  torch::Tensor history;              // [H, S] counts of those periods
  std::vector<double> opened,
      closed;  // a time per site, NaN if it has none; empty if no site has one

  int64_t num_sites() const { return int64_t(site_ids.size()); }
  int64_t num_times() const { return int64_t(times.size()); }
};

}  // namespace topreach
