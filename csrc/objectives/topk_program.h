// What SPO+ and PG share: the linear program max_w w.v over 0 <= w <= 1, sum w = K, whose solution is
// TopKMask(v, K) [Learning where to intervene, Eq. 2, with exactly K sites], and what they predict.
#pragma once

#include <torch/types.h>

#include <optional>
#include <string>

#include "nll.h"

namespace topreach {

/// Counts y [..., S] in the unit that a score is to have, and which rows [...] have any events;
/// `target` "count" leaves them, "share" divides by their sum. Rows without events are zero.
struct TopKTarget {
  torch::Tensor y, has_events;
};
TopKTarget topk_target(const char* function, const torch::Tensor& scores,
                       const torch::Tensor& counts, int64_t k, const std::string& target);

/// (w.v [...]) for v [..., S] and a constant w, the mask of the K largest of `at`.
torch::Tensor topk_program_value(const torch::Tensor& v, const torch::Tensor& at, int64_t k);

/// sum_t w_t loss_t over periods with events, terms {"bpr": of the scores as they are}.
ObjectiveValue topk_program_objective(const torch::Tensor& loss, const torch::Tensor& scores,
                                      const torch::Tensor& counts, const TopKTarget& target,
                                      int64_t k, const std::optional<torch::Tensor>& weights);

}  // namespace topreach
