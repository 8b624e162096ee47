// Negative log-likelihood [Decision-aware training, Eq. 8].
#pragma once

#include <torch/types.h>

#include <map>
#include <optional>
#include <string>

#include "../distributions/count_distribution.h"

namespace topreach {

/// What an objective returns: the scalar to minimise, and its parts (detached scalars).
struct ObjectiveValue {
  torch::Tensor loss;
  std::map<std::string, torch::Tensor> terms;
};

/// -sum_t w_t log p(y_t), terms {"nll"}: counts y [T, S] under the model's distribution, weights w [T]
/// (all 1 if absent); leading dimensions (several models at once) are summed over.
///
/// p(y_t) is the joint probability of a period's sites: the product over sites where they are
/// independent. Cells where y is NaN (a site that is not open, say) are left out. If `y_upper` [T, S]
/// is given, a count is known only to lie in y..y_upper, and adds log P(y <= Y <= y_upper).
///
/// With `penalty` (a scalar, from the model) added and kept as the term "penalty", this is MAP
/// [Eq. 20]. Python: topreach.objectives.NLL.
///
/// Raises c10::ValueError for a penalty that is no scalar, weights that are not [T] finite numbers >= 0,
/// counts that are not whole numbers >= 0, and what CountDistribution::interval_log_prob refuses. Values of
/// weights and counts are checked on the CPU only.
///
///   auto counts = model->forward(x, time);
///   topreach::nll(counts, y, {}, model->penalty(x, time)).loss.backward();
ObjectiveValue nll(const CountDistribution& counts, const torch::Tensor& y,
                   const std::optional<torch::Tensor>& weights = std::nullopt,
                   const std::optional<torch::Tensor>& penalty = std::nullopt,
                   const std::optional<torch::Tensor>& y_upper = std::nullopt);

}  // namespace topreach
