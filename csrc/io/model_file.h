// The model file: what a fitted ranker knows, as one dictionary of plain values and tensors. It holds no
// code. docs/model-file.md describes it.
//
// The bytes are a zip archive as torch writes them (Python: torch.load with weights_only=True), with the
// SHA-256 of all other bytes in the archive's comment. A file in which a byte has changed is refused.
#pragma once

#include <ATen/core/ivalue.h>
#include <torch/types.h>

#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../calendar.h"
#include "../programs/program.h"
#include "../site_history.h"

namespace topreach {

inline constexpr int64_t kModelFileVersion = 2;

/// Names and values in order: a constructor's arguments, for instance.
using NamedValues = std::vector<std::pair<std::string, c10::IValue>>;
using NamedTensors = std::vector<std::pair<std::string, torch::Tensor>>;

/// x' = (x - mean) / scale on the columns that vary in training; the others are dropped.
struct Standardizer {
  std::vector<std::string> feature_names;  // P, all columns seen in training
  std::vector<int64_t> kept;               // columns kept, ascending
  torch::Tensor mean, scale;               // float64, one entry per kept column

  /// Raw features [..., P], in the order of feature_names, to float32 [..., kept].
  torch::Tensor transform(const torch::Tensor& x) const;
};

/// The counts that are known, on the model's calendar.
struct KnownPast {
  std::vector<double> times;  // N, ascending
  torch::Tensor counts;       // [N, S] float32, NaN where not known
  torch::Tensor upper;     // [N, S] float32: suppressed counts lie in counts..upper; or undefined
  torch::Tensor exposure;  // [N, S] float32; or undefined
};

struct ModelFile {
  std::string model;  // name of the forecaster: see forecaster_registry()
  NamedValues config;
  NamedTensors state;
  NamedValues fit;  // what a summary of the fit needs; empty if there is none
  Standardizer standardizer;
  double time_origin = 0.0, time_scale = 1.0;  // models see (time - origin) / scale
  Calendar calendar;
  std::vector<double> fitted_times;  // periods that the model has learned from, ascending
  KnownPast past;                    // empty if the past was left out of the file
  // Each site's last features [S, P], raw, and which features [P] never changed at a site in training: these
  // need not be given for the next period. Undefined for models without features.
  torch::Tensor last_features, constant_features;
  std::vector<std::string> site_ids;
  std::vector<double> opened,
      closed;  // a time per site, NaN if it has none; empty if no site has one
  std::string program = "TopK";
  ProgramConfig program_config = {{"k", 1.0}};
  std::string ranking = "exact";  // "exact", "ratio", "mean" or, for scorers, "score"
  int64_t model_samples = 1000;
  torch::Tensor key;  // int64[2]
  bool uses_exposure = false;
  std::optional<SiteHistory> site_history;
  std::vector<std::pair<std::string, std::string>>
      table;                                    // how the user's table is read: name, value
  std::string topreach_version, torch_version;  // that wrote the file; set by save
  std::string digest;                           // SHA-256; set by load and save
};

/// Reads a model file, checking every part. Raises c10::ValueError if there is no such file, if it is
/// damaged, cut short or of another format, and if parts are missing or do not fit.
ModelFile load_model_file(const std::string& path);

/// The file's bytes. Raises c10::ValueError for parts that do not fit.
std::string model_file_bytes(const ModelFile& file);
/// The model file in these bytes; `path` is for messages.
ModelFile parse_model_file(const std::string& bytes, const std::string& path);

/// Writes a model file whole or not at all (see write_whole_file), and returns its digest.
std::string save_model_file(const ModelFile& file, const std::string& path);

}  // namespace topreach
