// What SPO+ and PG share: the linear program max_w w.v over the plans w of a program [Learning where to
// intervene, Eq. 2, with exactly K sites], and what its values predict.
#pragma once

#include <torch/types.h>

#include <optional>
#include <string>

#include "decision.h"
#include "nll.h"

namespace topreach {

/// A choice with its counts in the unit that a score is to have.
struct LinearDecision {
  Decision of;
  torch::Tensor target;  // y, or y / sum y; -inf at closed sites: to choose by
  torch::Tensor closed;  // bool, or undefined where all sites are open

  /// v with zeros at closed sites, which count for nothing.
  torch::Tensor held(const torch::Tensor& v) const;
};

/// `target` "count" leaves the counts, "share" divides each period by its sum, "auto" does so for
/// `ranking` "exact" or "ratio". Checks as decision_of.
LinearDecision linear_decision(const char* function, const torch::Tensor& scores,
                               const torch::Tensor& y, const std::optional<torch::Tensor>& open,
                               const Program& program, const std::string& target,
                               const std::string& ranking = "score");

/// (w.v [...]) for v [..., S] and a constant w, the best plan at `at`.
torch::Tensor linear_value(const Program& program, const LinearDecision& decision,
                           const torch::Tensor& v, const torch::Tensor& at);

/// sum_t w_t loss_t over periods with events, terms {"bpr": of the scores as they are}.
ObjectiveValue linear_objective(const char* function, const torch::Tensor& loss,
                                const LinearDecision& decision, const Program& program,
                                const std::optional<torch::Tensor>& weights);

}  // namespace topreach
