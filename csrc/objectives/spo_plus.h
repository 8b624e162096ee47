// SPO+, a convex surrogate for the regret of choosing K of S sites [Elmachtoub & Grigas 2022, Smart
// "predict, then optimize", Definition 3; Decision-aware training, Sec. 5.2 compares with it].
#pragma once

#include <torch/types.h>

#include <optional>
#include <string>

#include "nll.h"

namespace topreach {

struct SPOPlusOptions {
  int64_t k = 1;                 // K, sites that can be acted on
  std::string target = "count";  // unit of y in the loss: "count", or "share" = y / sum y
  std::optional<torch::Tensor> weights = std::nullopt;  // w_t [T]; all 1 if absent
};

/// sum_t w_t [max_w (2r - y).w - 2 r.w*(y) + y.w*(y)] with w over choices of K sites and w*(y) the
/// best one; terms {"bpr": mean over periods with events}. Never below the regret
/// y.w*(y) - y.w*(r), convex in r, and 0 for r = y; its subgradient is 2 (w*(2r - y) - w*(y)).
/// scores r [T, S] predict y [T, S]: give counts.mean() with target "count", and
/// expected_ratio_ranking(counts) with "share". A period without events counts as zero. Python:
/// topreach.objectives.SPOPlus.
///
/// Raises for scores of another shape than y, k outside 1..S and an unknown target.
///
///   topreach::spo_plus(scorer->forward(history), y, {.k = 100}).loss.backward();
ObjectiveValue spo_plus(const torch::Tensor& scores, const torch::Tensor& y,
                        const SPOPlusOptions& options);

}  // namespace topreach
