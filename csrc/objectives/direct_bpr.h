// Direct maximisation of the best possible reach [Decision-aware training, Eq. 9].
#pragma once

#include <torch/types.h>

#include <optional>
#include <string>

#include "../distributions/count_distribution.h"
#include "nll.h"

namespace topreach {

struct DirectBPROptions {
  int64_t k = 1;                // K, sites that can be acted on
  double sigma = 0.01;          // noise on the ranking, in its units
  int64_t num_samples = 100;    // J, draws of the noise, for topk "sampled"
  int64_t model_samples = 100;  // M, draws of the model, for ranking "ratio"
  // Ranking of a distribution: "exact", the ratio ranking without draws, "ratio", over draws, or
  // "mean". Not read for scores.
  std::string ranking = "exact";
  std::string topk = "exact";  // or "mean_field" (expected_topk), or "sampled" (perturbed_topk)
  std::string estimator = "score_loo";                    // gradient of the sampled top-K
  std::string ranking_estimator = "score_loo";            // gradient of the ratio ranking
  std::string noise = "normal";                           // of the sampled top-K
  double offset = 0.0;                                    // c of the ratio ranking
  std::optional<torch::Tensor> weights = std::nullopt;    // w_t [T]; all 1 if absent
  std::optional<torch::Tensor> key = std::nullopt;        // int64[2]; drawn if absent
  std::optional<at::Generator> generator = std::nullopt;  // to draw the key from
};

/// BPR_t = BPR(b(r_t), y_t) [T] of the soft top-K b of a ranking r [T, S], against counts y
/// [T, S]; 0, without gradient, in periods without events. `has_events` tells which have any.
struct SoftReach {
  torch::Tensor bpr, has_events;
};
SoftReach soft_reach(const torch::Tensor& ranking, const torch::Tensor& y,
                     const DirectBPROptions& options);
/// The same by the ranking that the options name. With the defaults nothing is sampled: no key is
/// drawn, and the same input gives the same bits. The papers sample both, with score-function
/// gradients: {.ranking = "ratio", .topk = "sampled", .estimator = "score", .ranking_estimator =
/// "score"}.
SoftReach soft_reach(const CountDistribution& counts, const torch::Tensor& y,
                     const DirectBPROptions& options);

/// -sum_t w_t BPR(b(r_t), y_t), terms {"bpr": mean over periods with events}. The first form takes
/// the scores r [T, S] of a scorer, the second a predictive distribution; one row [1, S] serves all
/// periods. Leading dimensions (several models at once) are summed over. Python's
/// topreach.objectives.DirectBPR gives the same numbers (with the same key, where one is used).
///
/// Raises for a name that is not listed above, noise other than "normal" unless topk is "sampled",
/// scores of another shape than y, and what expected_topk and perturbed_topk refuse.
///
///   topreach::direct_bpr(scorer->forward(history), y, {.k = 100, .sigma = 0.1}).loss.backward();
ObjectiveValue direct_bpr(const torch::Tensor& scores, const torch::Tensor& y,
                          const DirectBPROptions& options);
ObjectiveValue direct_bpr(const CountDistribution& counts, const torch::Tensor& y,
                          const DirectBPROptions& options);

}  // namespace topreach
