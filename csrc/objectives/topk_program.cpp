#include "topk_program.h"

#include <cmath>

#include "../require.h"

namespace topreach {

torch::Tensor LinearDecision::held(const torch::Tensor& v) const {
  return closed.defined() ? v.masked_fill(closed, 0) : v;
}

LinearDecision linear_decision(const char* function, const torch::Tensor& scores,
                               const torch::Tensor& y, const std::optional<torch::Tensor>& open,
                               const Program& program, const std::string& target,
                               const std::string& ranking) {
  TR_REQUIRE(target == "auto" || target == "count" || target == "share",
             "{}: target must be 'auto', 'count' or 'share', got '{}'", function, target);
  LinearDecision result{decision_of(function, scores, y, open, program), {}, {}};
  Decision& of = result.of;
  of.scores = of.scores.expand(of.y.sizes());
  result.target = of.y;
  if (target == "share" || (target == "auto" && (ranking == "exact" || ranking == "ratio"))) {
    const torch::Tensor sum = of.y.sum(-1, true);
    result.target = of.y / torch::where(sum > 0, sum, torch::ones_like(sum));
  }
  if (open) {
    result.closed = open->logical_not();
    result.target = result.target.masked_fill(result.closed, -INFINITY);
  }
  return result;
}

torch::Tensor linear_value(const Program& program, const LinearDecision& decision,
                           const torch::Tensor& v, const torch::Tensor& at) {
  return (decision.held(v) * program.best(at.detach())).sum(-1);
}

ObjectiveValue linear_objective(const char* function, const torch::Tensor& loss,
                                const LinearDecision& decision, const Program& program,
                                const std::optional<torch::Tensor>& weights) {
  const Decision& of = decision.of;
  const torch::Tensor held = torch::where(of.has_events, loss, torch::zeros_like(loss));
  const torch::Tensor reach = program.bpr(of.scores.detach(), of.y);
  return {weighted_sum(function, held, weights), {{"bpr", mean_over_events(reach, of.has_events)}}};
}

}  // namespace topreach
