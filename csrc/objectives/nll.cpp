#include "nll.h"

#include "../require.h"
#include "decision.h"

namespace topreach {

ObjectiveValue nll(const CountDistribution& counts, const torch::Tensor& y,
                   const std::optional<torch::Tensor>& weights,
                   const std::optional<torch::Tensor>& penalty,
                   const std::optional<torch::Tensor>& y_upper) {
  TR_REQUIRE(y.defined() && y.dim() >= 1, "nll: y must have shape [T, S], got {}",
             y.defined() ? fmt::format("{}", y.sizes()) : "an undefined tensor");
  TR_REQUIRE(!penalty || penalty->dim() == 0,
             "nll: penalty must be a scalar, got shape {}; sum it first",
             penalty ? penalty->sizes() : c10::IntArrayRef());
  const auto check_whole = [](const char* name, const torch::Tensor& value) {
    if (!value.device().is_cpu() || !value.is_floating_point()) return;
    const torch::Tensor held = value.detach();
    const torch::Tensor wrong =
        held.lt(0).logical_or(held.isnan().logical_not().logical_and(held.ne(held.floor())));
    TR_REQUIRE(!wrong.any().item<bool>(), "nll: {} must hold whole numbers >= 0, got {}", name,
               held.masked_select(wrong)[0].item<double>());
  };
  check_whole("y", y);
  torch::Tensor per_period;
  if (y_upper) {
    check_whole("y_upper", *y_upper);
    const torch::Tensor log_prob = counts.interval_log_prob(y, *y_upper);
    per_period = log_prob.masked_fill(y.isnan(), 0).sum(-1);
  } else {
    per_period = counts.joint_log_prob(y);
  }
  ObjectiveValue value{weighted_sum("nll", -per_period, weights), {}};
  value.terms["nll"] = value.loss.detach();
  if (penalty) {
    value.loss = value.loss + *penalty;
    value.terms["penalty"] = penalty->detach();
  }
  return value;
}

}  // namespace topreach
