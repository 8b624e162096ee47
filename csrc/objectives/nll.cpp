#include "nll.h"

namespace topreach {

ObjectiveValue nll(const CountDistribution& counts, const torch::Tensor& y,
                   const std::optional<torch::Tensor>& weights,
                   const std::optional<torch::Tensor>& penalty) {
  torch::Tensor per_period = -counts.log_prob(y).sum(-1);
  if (weights) per_period = per_period * *weights;
  ObjectiveValue value{per_period.sum(), {}};
  value.terms["nll"] = value.loss.detach();
  if (penalty) {
    value.loss = value.loss + *penalty;
    value.terms["penalty"] = penalty->detach();
  }
  return value;
}

}  // namespace topreach
