// The interface of every model that ranks sites: what it needs, and what it predicts.
#pragma once

#include <torch/types.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "../distributions/count_distribution.h"
#include "../io/model_file.h"

namespace topreach {

/// What a forecaster needs to know, and what it gives.
struct Needs {
  bool features = true;     // reads the table's features
  bool time = false;        // reads the time of the period
  bool past = false;        // reads the whole past of all sites
  int64_t window = 0;       // W, how many counts before the period it reads
  bool exposure = false;    // can predict counts per exposure
  bool suppressed = false;  // can learn from counts that are known only as an interval
  bool sites = true;        // has parameters for each site, so that it can rank no others
  bool counts = true;       // predicts counts; false: gives scores, which rank sites only
  bool events = false;      // learns from dated events; its file holds counts of them
};

/// What a forecaster reads, for T periods and S sites; tensors that it does not need are undefined.
struct ForecastInputs {
  torch::Tensor x;         // [T, S, P] features, standardised
  torch::Tensor time;      // [T] scaled as in training
  torch::Tensor history;   // [T, S, W] counts of the periods before, oldest first
  torch::Tensor exposure;  // [T, S] > 0
  torch::Tensor timeline;  // [N, S] all known counts, a row per period; NaN where not known
  torch::Tensor timeline_exposure;  // [N, S] their exposure; NaN where not known
  std::vector<int64_t>
      rows;  // T: the counts before this row of the timeline are known to the forecast
};

/// A fitted model. Methods are const and safe to call from several threads.
class Forecaster {
 public:
  virtual ~Forecaster() = default;
  virtual std::string name() const = 0;
  virtual Needs needs() const = 0;
  /// Counts [T, S]. Raises c10::TypeError for a model that gives scores.
  virtual CountDistribution forecast(const ForecastInputs& inputs) const;
  /// Scores [T, S], more is better. Raises c10::TypeError for a model that predicts counts.
  virtual torch::Tensor scores(const ForecastInputs& inputs) const;
};

using ForecasterPtr = std::shared_ptr<const Forecaster>;

/// How a kind of forecaster is made from a model file.
struct ForecasterKind {
  std::string name;        // in model files: "EmpiricalBayesRates"
  std::string short_name;  // for people: "empirical_bayes"
  std::string summary;     // one line
  Needs needs;             // window: 1 stands for "some"
  std::function<ForecasterPtr(const ModelFile& file, torch::Device device)> load;
};

/// All kinds, the library's first. Add one of your own with register_forecaster.
const std::vector<ForecasterKind>& forecaster_registry();

/// Adds a kind. Raises c10::ValueError for a name that is taken. Call it before other threads use the
/// registry.
void register_forecaster(ForecasterKind kind);

/// The forecaster that a model file describes. Raises c10::ValueError for an unknown name, and for a config
/// or state that does not fit.
ForecasterPtr load_forecaster(const ModelFile& file, torch::Device device = torch::kCPU);

}  // namespace topreach
