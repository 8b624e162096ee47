// A trained model with all that is needed to rank sites by it: what a service loads.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "io/model_file.h"
#include "models/empirical_bayes_rates.h"
#include "models/linear_scorer.h"
#include "models/mlp_scorer.h"
#include "models/negbin_mixed_effects.h"
#include "models/normal_mixture.h"
#include "models/poisson_mixture.h"

namespace topreach {

struct RankedSite {
  std::string site;
  int64_t index;                         // row of the site in what was given
  double score;                          // what sites are ranked by
  std::optional<double> expected_count;  // none for scorers
};

/// Loads a file that Python's `TopKRanker.save` or `Ranker::save` wrote, and ranks sites: with the
/// same standardisation, scaling of time, draws (the file's key) and so the same scores as Python.
///
///   auto ranker = topreach::Ranker::load("model.pt");
///   for (const auto& place : ranker.rank(x, 8.0)) std::cout << place.site << ' ' << place.score;
class Ranker {
 public:
  /// Raises c10::ValueError for files that load_model_file refuses, and for a state that does not
  /// fit the model.
  static Ranker load(const std::string& path);
  explicit Ranker(ModelFile file);

  /// Writes the file again, with the model's present parameters.
  void save(const std::string& path) const;

  /// What sites are ranked by, [S]; more is better. "exact": ratio ranking without draws; "ratio":
  /// over model_samples draws with the stored key; "mean": expected counts; "score": the scorer's
  /// output.
  ///
  /// x: raw features [S, P], columns in the order of feature_names(), rows in the order of
  /// site_ids() for a model with site effects. time: of the period, in the unit of training.
  /// history [S, window]: counts of the periods before, oldest first; needed if window() > 0. For
  /// EmpiricalBayesRates [S, N]: all counts known before the period; the file's own if absent.
  /// exposure [S], > 0: of the period; to be given if uses_exposure(), and only then.
  torch::Tensor score_sites(const torch::Tensor& x, double time,
                            const std::optional<torch::Tensor>& history = std::nullopt,
                            const std::optional<torch::Tensor>& exposure = std::nullopt) const;

  /// Expected counts [S]; raises for scorers, whose scores are no counts. Arguments as above.
  torch::Tensor expected_counts(const torch::Tensor& x, double time,
                                const std::optional<torch::Tensor>& history = std::nullopt,
                                const std::optional<torch::Tensor>& exposure = std::nullopt) const;

  /// The K sites of highest score, best first; ties in the order of the rows. `k` as in the file if
  /// absent; `site_ids` name the rows if they are not those of the file (scorers only).
  std::vector<RankedSite> rank(const torch::Tensor& x, double time,
                               const std::optional<torch::Tensor>& history = std::nullopt,
                               std::optional<int64_t> k = std::nullopt,
                               const std::vector<std::string>& site_ids = {},
                               const std::optional<torch::Tensor>& exposure = std::nullopt) const;

  bool is_probabilistic() const;
  const std::vector<std::string>& site_ids() const { return file_.site_ids; }
  const std::vector<std::string>& feature_names() const { return file_.standardizer.feature_names; }
  int64_t k() const { return file_.k; }
  int64_t window() const { return file_.window; }
  /// Whether the model was fitted to counts per exposure (a population, for instance).
  bool uses_exposure() const { return file_.uses_exposure; }
  /// The file's contents; parameters as they were loaded.
  const ModelFile& file() const { return file_; }

 private:
  void check_exposure(const char* function, const torch::Tensor& x,
                      const std::optional<torch::Tensor>& exposure) const;
  using Model = std::variant<EmpiricalBayesRates, NegBinMixedEffects, NormalMixture, PoissonMixture,
                             LinearScorer, MLPScorer>;
  CountDistribution predict(const char* function, const torch::Tensor& x, double time,
                            const std::optional<torch::Tensor>& history,
                            const std::optional<torch::Tensor>& exposure) const;
  torch::Tensor features(const char* function, const torch::Tensor& x) const;

  ModelFile file_;
  Model model_;
};

}  // namespace topreach
