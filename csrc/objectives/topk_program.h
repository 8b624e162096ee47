// Shared by SPO+ and PG: the linear program max_w w.v over the plans w of a program [Learning where to
// intervene, Eq. 2, with exactly K sites], and the counts that its values predict.
#pragma once

#include <torch/types.h>

#include <optional>
#include <string>

#include "decision.h"
#include "nll.h"

namespace topreach {

/// A decision with its counts in the unit of the scores.
struct LinearDecision {
  Decision of;
  torch::Tensor target;  // y, or y / sum y; -inf at closed sites, so none is chosen
  torch::Tensor closed;  // bool, or undefined if all sites are open

  /// v with zeros at closed sites.
  torch::Tensor held(const torch::Tensor& v) const;
};

/// `target` "count" keeps the counts, "share" divides each period by its sum, "auto" does so for
/// `ranking` "exact" or "ratio". Checks as decision_of does.
LinearDecision linear_decision(const char* function, const torch::Tensor& scores,
                               const torch::Tensor& y, const std::optional<torch::Tensor>& open,
                               const Program& program, const std::string& target,
                               const std::string& ranking = "score");

/// w.v [...] for v [..., S], with w the best plan for `at`, held constant.
torch::Tensor linear_value(const Program& program, const LinearDecision& decision,
                           const torch::Tensor& v, const torch::Tensor& at);

/// sum_t w_t loss_t over periods with events, terms {"bpr": of the scores as they are}.
ObjectiveValue linear_objective(const char* function, const torch::Tensor& loss,
                                const LinearDecision& decision, const Program& program,
                                const std::optional<torch::Tensor>& weights);

}  // namespace topreach
