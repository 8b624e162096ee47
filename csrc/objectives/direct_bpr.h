// Direct maximisation of the best possible reach [Decision-aware training, Eq. 9].
#pragma once

#include <torch/types.h>

#include <optional>
#include <string>

#include "../models/negative_binomial.h"
#include "nll.h"

namespace topreach {

struct DirectBPROptions {
  int64_t k = 1;                 // K, sites that can be acted on
  double sigma = 0.01;           // noise on the ranking, in its units
  int64_t num_samples = 100;     // J, draws of the noise
  int64_t model_samples = 100;   // M, draws of the model, for the ratio ranking
  std::string ranking = "ratio"; // "ratio" or "mean" (not read for scores)
  std::string estimator = "score_loo";          // gradient of the perturbed top-K
  std::string ranking_estimator = "score_loo";  // gradient of the ratio ranking
  std::string noise = "normal";
  double offset = 0.0;                          // c of the ratio ranking
  std::optional<torch::Tensor> weights = std::nullopt;    // w_t [T]; all 1 if absent
  std::optional<torch::Tensor> key = std::nullopt;        // int64[2]; drawn if absent
  std::optional<at::Generator> generator = std::nullopt;  // to draw the key from
};

/// BPR_t = BPR(b(r_t), y_t) [T] of the perturbed top-K b of a ranking r [T, S], against counts y
/// [T, S]; 0, without gradient, in periods without events. `has_events` tells which have any.
struct SoftReach {
  torch::Tensor bpr, has_events;
};
SoftReach soft_reach(const torch::Tensor& ranking, const torch::Tensor& y,
                     const DirectBPROptions& options);
/// The same by the ranking that the options name: ratio ranking over model_samples draws with
/// score-function gradients, or the mean.
SoftReach soft_reach(const NegativeBinomial& counts, const torch::Tensor& y,
                     const DirectBPROptions& options);

/// -sum_t w_t BPR(b(r_t), y_t), terms {"bpr": mean over periods with events}. The first form takes
/// the scores r [T, S] of a scorer, the second a predictive distribution. With the same key,
/// Python's topreach.objectives.DirectBPR gives the same numbers.
///
///   topreach::direct_bpr(scorer->forward(history), y, {.k = 100, .sigma = 0.1}).loss.backward();
ObjectiveValue direct_bpr(const torch::Tensor& scores, const torch::Tensor& y,
                          const DirectBPROptions& options);
ObjectiveValue direct_bpr(const NegativeBinomial& counts, const torch::Tensor& y,
                          const DirectBPROptions& options);

}  // namespace topreach
