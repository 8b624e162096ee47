#include "spo_plus.h"

namespace topreach {

namespace {

constexpr const char* kName = "spo_plus";

ObjectiveValue with_ranking(const torch::Tensor& scores, const torch::Tensor& y,
                            const SPOPlusOptions& options, const std::string& ranking) {
  const Program& program = *options.program;
  const LinearDecision decision =
      linear_decision(kName, scores, y, options.open, program, options.target, ranking);
  const torch::Tensor gap = 2 * decision.of.scores - decision.held(decision.target);
  const torch::Tensor loss = linear_value(program, decision, gap, gap) -
                             linear_value(program, decision, gap, decision.target);
  return linear_objective(kName, loss, decision, program, options.weights);
}

}  // namespace

ObjectiveValue spo_plus(const torch::Tensor& scores, const torch::Tensor& y,
                        const SPOPlusOptions& options) {
  return with_ranking(scores, y, options, "score");
}

ObjectiveValue spo_plus(const CountDistribution& counts, const torch::Tensor& y,
                        const SPOPlusOptions& options, const RankingOptions& ranking) {
  return with_ranking(ranking_scores(kName, counts, ranking), y, options,
                      resolved_ranking(kName, ranking.ranking, counts));
}

}  // namespace topreach
