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

/// -sum_t w_t sum_s log p(y_ts), terms {"nll"}: counts y [T, S] under the model's distribution,
/// weights w [T] (all 1 if absent); leading dimensions (several models at once) are summed over.
/// With `penalty` (a scalar, from the model) added and kept as the term "penalty", this is MAP
/// [Eq. 20]. Python: topreach.objectives.NLL.
///
///   auto counts = model->forward(x, time);
///   topreach::nll(counts, y, {}, model->penalty(x, time)).loss.backward();
ObjectiveValue nll(const CountDistribution& counts, const torch::Tensor& y,
                   const std::optional<torch::Tensor>& weights = std::nullopt,
                   const std::optional<torch::Tensor>& penalty = std::nullopt);

}  // namespace topreach
