#include "topk_program.h"

#include "../metrics/bpr.h"
#include "../ops/topk_mask.h"
#include "../require.h"

namespace topreach {

TopKTarget topk_target(const char* function, const torch::Tensor& scores,
                       const torch::Tensor& counts, int64_t k, const std::string& target) {
  TR_REQUIRE(scores.sizes() == counts.sizes(), "{}: scores must have the shape of y, {}, got {}",
             function, counts.sizes(), scores.sizes());
  TR_REQUIRE(scores.dim() >= 1 && k >= 1 && k <= scores.size(-1),
             "{}: k must be between 1 and the number of sites, got {} for shape {}", function, k,
             scores.sizes());
  TR_REQUIRE(target == "count" || target == "share",
             "{}: target must be 'count' or 'share', got '{}'", function, target);
  torch::Tensor y = counts.detach().to(scores.scalar_type());
  const torch::Tensor sum = y.sum(-1, true);
  if (target == "share") y = y / torch::where(sum > 0, sum, torch::ones_like(sum));
  return {y, sum.squeeze(-1) > 0};
}

torch::Tensor topk_program_value(const torch::Tensor& v, const torch::Tensor& at, int64_t k) {
  return (v * topk_mask(at.detach(), k)).sum(-1);
}

ObjectiveValue topk_program_objective(const torch::Tensor& loss, const torch::Tensor& scores,
                                      const torch::Tensor& counts, const TopKTarget& target,
                                      int64_t k, const std::optional<torch::Tensor>& weights) {
  torch::Tensor held = torch::where(target.has_events, loss, torch::zeros_like(loss));
  if (weights) held = held * *weights;
  const torch::Tensor reach = bpr(scores.detach(), counts, k);
  return {held.sum(),
          {{"bpr", torch::where(target.has_events, reach, torch::zeros_like(reach)).sum() /
                       target.has_events.sum()}}};
}

}  // namespace topreach
