// The model file: one dictionary of plain values and tensors, in torch's zip format, that Python
// (torch.load with weights_only=True) and C++ both read and write. It holds no code.
//
//   format "topreach-model", format_version 1
//   model "EmpiricalBayesRates" | "NegBinMixedEffects" | "NormalMixture" | "PoissonMixture" |
//   "LinearScorer" | "MLPScorer"; config: its constructor's arguments
//   state {name: tensor}
//   standardizer {feature_names [str], kept [int], mean, scale: float64 tensors over kept}
//   time {origin, scale}: models see (time - origin) / scale
//   site_ids [str], k, model_samples, key int64[2], window
//   ranking "exact" | "ratio" | "mean" | "score"
//   site_history {half_lives, ...}: of EmpiricalBayesRates only; see models/site_history.h
//   uses_exposure: whether counts are per exposure, which predictions then need; false if absent
//   columns {role: name}: optional, the user's names for the columns of a table
#pragma once

#include <ATen/core/ivalue.h>
#include <torch/types.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../models/site_history.h"

namespace topreach {

inline constexpr int64_t kModelFileVersion = 1;

/// x' = (x - mean) / scale on the columns that vary in training; the others are dropped.
struct Standardizer {
  std::vector<std::string> feature_names;  // P, all columns seen in training
  std::vector<int64_t> kept;               // columns kept, ascending
  torch::Tensor mean, scale;               // float64, one entry per kept column

  /// Raw features [..., P], in the order of feature_names, to float32 [..., kept].
  torch::Tensor transform(const torch::Tensor& x) const;
};

struct ModelFile {
  std::string model;
  std::vector<std::pair<std::string, c10::IValue>> config;
  std::vector<std::pair<std::string, torch::Tensor>> state;
  Standardizer standardizer;
  double time_origin = 0.0, time_scale = 1.0;
  std::vector<std::string> site_ids;
  int64_t k = 1;
  std::string ranking = "exact";
  int64_t model_samples = 1000;
  torch::Tensor key;  // int64[2]
  int64_t window = 0;
  bool uses_exposure = false;
  std::optional<SiteHistory> site_history;
  std::vector<std::pair<std::string, std::string>> columns;
};

/// Reads a model file, checking every part. Raises (c10::ValueError) where there is no such file,
/// and for a damaged, cut or foreign file, one of a newer format, and parts missing or of a wrong
/// kind.
ModelFile load_model_file(const std::string& path);

/// Writes a model file: to a temporary file beside `path`, which then takes its place, so that
/// `path` is never half written. Raises c10::ValueError where that cannot be done.
void save_model_file(const ModelFile& file, const std::string& path);

}  // namespace topreach
