// SPO+, a convex surrogate for the regret of choosing K of S sites [Elmachtoub & Grigas 2022, Smart
// "predict, then optimize", Definition 3; Decision-aware training, Sec. 5.2 compares with it].
#pragma once

#include <torch/types.h>

#include <optional>
#include <string>

#include "topk_program.h"

namespace topreach {

struct SPOPlusOptions {
  ProgramOrK program = 1;  // the plans that are allowed; K for any K sites
  // Unit of y in the loss: "count"; "share" = y / sum y; "auto": shares for a ratio ranking, else counts.
  std::string target = "auto";
  std::optional<torch::Tensor> weights = std::nullopt;  // w_t [T]; all 1 if absent
  std::optional<torch::Tensor> open = std::nullopt;     // bool [T, S]: sites that can be acted on
};

/// sum_t w_t [max_w (2r - y).w - 2 r.w*(y) + y.w*(y)] with w over plans of the program and w*(y) the
/// best one; terms {"bpr": mean over periods with events}. Never below the regret
/// y.w*(y) - y.w*(r), convex in r, and 0 for r = y; its subgradient is 2 (w*(2r - y) - w*(y)).
///
/// scores r [T, S] predict y [T, S]: pass counts.mean() with target "count", and
/// expected_ratio_ranking(counts) with "share". A period without events counts as zero. Python:
/// topreach.objectives.SPOPlus.
///
/// Raises for scores of another shape than y, a NaN count and an unknown target.
///
///   topreach::spo_plus(scorer->forward(history), y, {.program = 100}).loss.backward();
ObjectiveValue spo_plus(const torch::Tensor& scores, const torch::Tensor& y,
                        const SPOPlusOptions& options);
/// The same for the scores of a predictive distribution.
ObjectiveValue spo_plus(const CountDistribution& counts, const torch::Tensor& y,
                        const SPOPlusOptions& options, const RankingOptions& ranking = {});

}  // namespace topreach
