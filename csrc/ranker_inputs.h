// Inputs of a forecast from a ranker's file and a table: the past, and features and exposure of the periods
// to rank.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "models/forecaster.h"
#include "panel.h"

namespace topreach {

struct RankerInputs {
  ForecastInputs model;
  std::vector<std::string> site_ids;  // S
  std::vector<double> times;          // T periods to rank
  std::vector<std::string> periods;   // the same as the table writes them
  std::vector<std::string>
      data_until;              // T: the last period before each whose counts are known, or ""
  std::vector<int64_t> ahead;  // T: periods from there; 0: none is known
  std::vector<bool> learnt;    // T: whether the model has learned from the period
  torch::Tensor y, y_upper;    // [T, S] as the table has them, or undefined
  torch::Tensor open;          // [T, S] bool, or undefined: all sites are open
  // Counts of all sites together, of the periods that are known; per exposure where the model predicts so.
  torch::Tensor past_totals;
  std::vector<std::string> notes;
};

/// Combines a table, which may be absent, with the past that the file holds.
///
/// `periods_ahead`: how many periods after the last known counts the one period to rank lies. If absent, the
/// table's own periods are ranked, each from the counts before it.
///
/// Raises c10::ValueError, naming `function`, if the table has another kind of time or other sites, if its
/// counts contradict those that the model learned from, or if something that the model needs is missing; the
/// message names it.
RankerInputs ranker_inputs(const char* function, const ModelFile& file, const Needs& needs,
                           const Panel* table, std::optional<int64_t> periods_ahead);

}  // namespace topreach
