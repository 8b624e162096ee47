// Decision-aware maximum likelihood, DAML [Decision-aware training, Eq. 13 and Algorithm A.1].
#pragma once

#include <torch/types.h>

#include <optional>

#include "direct_bpr.h"

namespace topreach {

struct DecisionAwareOptions {
  double epsilon = 1.0;    // BPR to hold, in (0, 1]; 1 always pulls
  double weight = 30.0;    // lambda, the price of falling short
  DirectBPROptions reach;  // program, sigma, time weights, key, ...
};

/// sum_t w_t [lambda max(0, epsilon - BPR_t) - sum_s log p(y_ts)] + penalty: likelihood first, with
/// a hinge that pulls while the top-K decision of a period reaches less than epsilon of what was
/// possible. Terms {"nll", "penalty" if given, "hinge", "bpr"}. A period without events has no
/// hinge. Deterministic with the defaults of DirectBPROptions; the hinge of a sampled BPR is biased.
/// Python's topreach.objectives.DecisionAware calls this.
///
/// The hinge needs exact counts: if some are suppressed, train with nll, whose likelihood takes
/// intervals. Cells where y is NaN are left out of the likelihood, and must be closed in `reach.open`.
///
///   topreach::DecisionAwareOptions options{.epsilon = 0.85, .reach = {.program = 100, .sigma = 0.01}};
///   topreach::decision_aware(counts, y, options, model->penalty(x, time)).loss.backward();
ObjectiveValue decision_aware(const CountDistribution& counts, const torch::Tensor& y,
                              const DecisionAwareOptions& options,
                              const std::optional<torch::Tensor>& penalty = std::nullopt);

}  // namespace topreach
