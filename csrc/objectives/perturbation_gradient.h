// PG, a surrogate whose gradient is a finite difference in the direction of the counts [Huang & Gupta
// 2024, Decision-focused learning with directional gradients; Decision-aware training, Sec. 5.2
// compares with it].
#pragma once

#include <torch/types.h>

#include <optional>
#include <string>

#include "topk_program.h"

namespace topreach {

struct PerturbationGradientOptions {
  ProgramOrK program = 1;  // the plans that are allowed; K for any K sites
  double sigma = 0.1;      // width h of the difference, > 0, in units of r / y
  bool two_sides = false;  // central difference instead of backward
  // Unit of y in the loss: "count"; "share" = y / sum y; "auto": shares for a ratio ranking, else counts.
  std::string target = "auto";
  std::optional<torch::Tensor> weights = std::nullopt;  // w_t [T]; all 1 if absent
  std::optional<torch::Tensor> open = std::nullopt;     // bool [T, S]: sites that can be acted on
};

/// sum_t w_t of -[z(r) - z(r - h y)] / h, or with two sides -[z(r + h y) - z(r - h y)] / (2 h), where
/// z(v) = max_w v.w over plans w of the program; terms {"bpr": mean over periods with events}. For
/// h -> 0 this is -y.w*(r), the negative number of events that the choice by r reaches; the backward
/// form is never below that. Its gradient is (w*(r - h y) - w*(r)) / h.
///
/// scores r [T, S] predict y [T, S]; see spo_plus for the target. A period without events counts as
/// zero. Python: topreach.objectives.PerturbationGradient.
///
/// Raises for scores of another shape than y, a NaN count, a sigma that is not positive, and an
/// unknown target.
///
///   topreach::perturbation_gradient(scores, y, {.program = 100, .sigma = 0.1}).loss.backward();
ObjectiveValue perturbation_gradient(const torch::Tensor& scores, const torch::Tensor& y,
                                     const PerturbationGradientOptions& options);
/// The same for the scores of a predictive distribution.
ObjectiveValue perturbation_gradient(const CountDistribution& counts, const torch::Tensor& y,
                                     const PerturbationGradientOptions& options,
                                     const RankingOptions& ranking = {});

}  // namespace topreach
