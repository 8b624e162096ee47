// A trained model with everything that it needs to plan. A service loads it; Python's TopKRanker uses it too.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/model_file.h"
#include "models/forecaster.h"
#include "panel.h"
#include "plan.h"
#include "programs/program.h"
#include "ranker_inputs.h"

namespace topreach {

/// Loads a model file and plans which sites to act on in the next period. It never changes, so several
/// threads may use one at the same time.
///
///   const auto ranker = topreach::Ranker::load("model.pt");
///   for (const auto& id : ranker.plan_next().selected_ids()) std::cout << id << '\n';
///
/// A table adds to what the ranker knows. Counts of periods after the last known one become part of the past;
/// counts that the ranker knows already must be equal. Features and exposure of the periods to rank are read
/// from the table.
///
/// Errors are c10::ValueError (c10::TypeError if counts are asked of a model that gives scores).
class Ranker {
 public:
  /// Raises for files that load_model_file refuses.
  static Ranker load(const std::string& path, torch::Device device = torch::kCPU);

  /// Raises for a file whose parts do not fit each other or the model. `forecaster`, `program`: your own,
  /// which need not be in a registry. A ranker with either cannot be saved.
  explicit Ranker(ModelFile file, torch::Device device = torch::kCPU,
                  ForecasterPtr forecaster = nullptr, ProgramPtr program = nullptr);

  /// The same ranker with its model on another device.
  Ranker to(torch::Device device) const;
  /// The same ranker with another program, for instance another K.
  Ranker with_program(ProgramPtr program) const;

  /// The same ranker, whose file also records how to read the user's table (names and values). The command
  /// line uses it.
  Ranker with_table(std::vector<std::pair<std::string, std::string>> table) const;

  /// Writes the model file, whole or not at all. with_past = false leaves the past counts of all sites out:
  /// planning then needs a table that has them, and c10::ValueError is raised for a model of events.
  void save(const std::string& path, bool with_past = true) const;
  /// The model file that `save` would write.
  ModelFile file(bool with_past = true) const;

  /// The plan for the period after the last one whose counts are known, or for a later one. The calendar
  /// names it. A table, if given, adds counts that are known since, or features of the period to come.
  Plan plan_next(int64_t periods_ahead = 1) const;
  Plan plan_next(const Panel& table, int64_t periods_ahead = 1) const;

  /// A plan for each of the table's own periods, each from the counts before it. Periods are ranked one by
  /// one, with the same draws, so that the plan of one does not depend on the others.
  std::vector<Plan> plan(const Panel& table) const;

  /// The steps of a plan, for the table's T periods: inputs (see ranker_inputs), scores and expected counts
  /// [T, S], and the forecast of all periods.
  RankerInputs inputs(const char* function, const Panel* table,
                      std::optional<int64_t> periods_ahead) const;
  torch::Tensor scores(const RankerInputs& inputs) const;
  torch::Tensor expected_counts(const RankerInputs& inputs) const;
  CountDistribution forecast(const RankerInputs& inputs) const;
  std::vector<Plan> plans(const RankerInputs& inputs) const;

  bool is_probabilistic() const { return needs_.counts; }
  const Needs& needs() const { return needs_; }
  const Program& program() const { return *program_; }
  ProgramPtr program_ptr() const { return program_; }
  const std::vector<std::string>& site_ids() const { return file_->site_ids; }
  const std::vector<std::string>& feature_names() const {
    return file_->standardizer.feature_names;
  }
  const Calendar& calendar() const { return file_->calendar; }
  const std::string& digest() const { return file_->digest; }
  torch::Device device() const { return device_; }

 private:
  // Scores [S] of a forecast [1, S]. Sites whose `open` [S] is false take no part: their events are not in
  // the ratio's denominator. If `open` is undefined, all sites are open.
  torch::Tensor score_of(const CountDistribution& counts, const torch::Tensor& open) const;
  ForecastInputs at_period(const RankerInputs& inputs, int64_t t) const;

  std::shared_ptr<const ModelFile> file_;
  torch::Device device_;
  ForecasterPtr forecaster_;
  bool own_forecaster_ = false, own_program_ = false;  // written by the user: neither can be saved
  Needs needs_;
  ProgramPtr program_;
};

}  // namespace topreach
