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
  torch::Tensor history_exposure;     // [H, S] their exposure; NaN where not known
  std::vector<double> opened,
      closed;  // a time per site, NaN if it has none; empty if no site has one

  int64_t num_sites() const { return int64_t(site_ids.size()); }
  int64_t num_times() const { return int64_t(times.size()); }
};

/// Raises c10::ValueError, naming `function` and the cell, for tensors of other shapes than above, counts
/// that are no whole numbers from 0 to 2^24 (or NaN), a y_upper below y, and opened or closed of another
/// number of sites.
void check_panel(const char* function, const Panel& panel);

/// Raises c10::ValueError for times of a panel that begin no period of `fitted`, the calendar of a model, and
/// for periods of another kind: quarters or weeks where it has months.
void check_on_calendar(const char* function, const Calendar& fitted, const Panel& panel);

}  // namespace topreach
