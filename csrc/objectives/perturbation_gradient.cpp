#include "perturbation_gradient.h"

#include <cmath>

#include "../require.h"

namespace topreach {

namespace {

constexpr const char* kName = "perturbation_gradient";

ObjectiveValue with_ranking(const torch::Tensor& scores, const torch::Tensor& y,
                            const PerturbationGradientOptions& options,
                            const std::string& ranking) {
  const double h = options.sigma;
  TR_REQUIRE(h > 0 && std::isfinite(h), "{}: sigma must be positive and finite, got {}", kName, h);
  const Program& program = *options.program;
  const LinearDecision decision =
      linear_decision(kName, scores, y, options.open, program, options.target, ranking);
  const torch::Tensor& r = decision.of.scores;
  const torch::Tensor step = h * decision.held(decision.target);
  const torch::Tensor down = r - step, up = options.two_sides ? r + step : r;
  const torch::Tensor loss =
      (linear_value(program, decision, down, down) - linear_value(program, decision, up, up)) /
      (options.two_sides ? 2 * h : h);
  return linear_objective(kName, loss, decision, program, options.weights);
}

}  // namespace

ObjectiveValue perturbation_gradient(const torch::Tensor& scores, const torch::Tensor& y,
                                     const PerturbationGradientOptions& options) {
  return with_ranking(scores, y, options, "score");
}

ObjectiveValue perturbation_gradient(const CountDistribution& counts, const torch::Tensor& y,
                                     const PerturbationGradientOptions& options,
                                     const RankingOptions& ranking) {
  return with_ranking(ranking_scores(kName, counts, ranking), y, options,
                      resolved_ranking(kName, ranking.ranking, counts));
}

}  // namespace topreach
