// Direct maximisation of the best possible reach [Decision-aware training, Eq. 9].
#pragma once

#include <torch/types.h>

#include <optional>
#include <string>

#include "decision.h"
#include "nll.h"

namespace topreach {

struct DirectBPROptions {
  ProgramOrK program = 1;       // the plans that are allowed; K for any K sites
  double sigma = 0.01;          // noise on the ranking, in sigma_unit
  int64_t num_samples = 100;    // J, draws of the noise, for topk "sampled"
  int64_t model_samples = 100;  // M, draws of the model, for ranking "ratio"
  // Of a distribution: "exact", "ratio", "mean" or "auto", see RankingOptions. Not read for scores.
  std::string ranking = "auto";
  std::string topk = "exact";  // or "mean_field" (expected_topk), or "sampled" (perturbed_topk)
  std::string estimator = "score_loo";                    // gradient of the sampled top-K
  std::string ranking_estimator = "score_loo";            // gradient of the ratio ranking
  std::string noise = "normal";                           // of the sampled top-K
  double offset = 0.0;                                    // c of the ratio ranking
  std::optional<torch::Tensor> weights = std::nullopt;    // w_t [T]; all 1 if absent
  std::optional<torch::Tensor> key = std::nullopt;        // int64[2]; drawn if absent
  std::optional<at::Generator> generator = std::nullopt;  // to draw the key from
  std::optional<torch::Tensor> open = std::nullopt;       // bool [T, S]: sites that can be acted on
  // Unit of sigma: "score", that of the scores; or "spread", the standard deviation of a period's scores
  // over its open sites, taken as a constant. With "spread" the unit of the scores does not matter.
  std::string sigma_unit = "score";
};

/// BPR_t = BPR(b(r_t), y_t) [T] of the program's soft plan b for a ranking r [T, S], against counts y
/// [T, S]; 0, without gradient, in periods without events. `has_events`: which periods have events.
struct SoftReach {
  torch::Tensor bpr, has_events;
};
SoftReach soft_reach(const torch::Tensor& scores, const torch::Tensor& y,
                     const DirectBPROptions& options);
/// The same for a forecast, by the ranking that the options name. With the defaults nothing is
/// sampled: no key is drawn, and the same input gives the same bits. The papers sample the ranking
/// and the top-K, with score-function gradients: {.ranking = "ratio", .topk = "sampled", .estimator =
/// "score", .ranking_estimator = "score"}.
SoftReach soft_reach(const CountDistribution& counts, const torch::Tensor& y,
                     const DirectBPROptions& options);

/// -sum_t w_t BPR(b(r_t), y_t), terms {"bpr": mean over periods with events}. The first form takes
/// the scores r [T, S] of a scorer, the second a predictive distribution; one row [1, S] serves all
/// periods. Leading dimensions (several models at once) are summed over. Python's
/// topreach.objectives.DirectBPR calls this.
///
/// Raises as decision_of does (also for NaN counts of open sites), and as the program's `soft` does: for
/// unknown names, and for noise other than "normal" unless topk is "sampled".
///
///   topreach::direct_bpr(scorer->forward(history), y, {.program = 100, .sigma = 0.1})
///       .loss.backward();
ObjectiveValue direct_bpr(const torch::Tensor& scores, const torch::Tensor& y,
                          const DirectBPROptions& options);
ObjectiveValue direct_bpr(const CountDistribution& counts, const torch::Tensor& y,
                          const DirectBPROptions& options);

}  // namespace topreach
