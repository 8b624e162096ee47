#include "decision_aware.h"

#include <cmath>

#include "../require.h"

namespace topreach {

ObjectiveValue decision_aware(const CountDistribution& counts, const torch::Tensor& y,
                              const DecisionAwareOptions& options,
                              const std::optional<torch::Tensor>& penalty) {
  TR_REQUIRE(options.epsilon > 0 && options.epsilon <= 1,
             "decision_aware: epsilon must be in (0, 1], got {}", options.epsilon);
  TR_REQUIRE(std::isfinite(options.weight) && options.weight >= 0,
             "decision_aware: weight must be finite and not negative, got {}", options.weight);
  ObjectiveValue value = nll(counts, y, options.reach.weights, penalty);
  const auto [bpr, has_events] = soft_reach(counts, y, options.reach);
  const torch::Tensor shortfall =
      torch::where(has_events, (options.epsilon - bpr).clamp_min(0), torch::zeros_like(bpr));
  const torch::Tensor hinge =
      options.weight * weighted_sum("decision_aware", shortfall, options.reach.weights);
  value.loss = value.loss + hinge;
  value.terms["hinge"] = hinge.detach();
  value.terms["bpr"] = mean_over_events(bpr, has_events);
  return value;
}

}  // namespace topreach
