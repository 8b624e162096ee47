#include "direct_bpr.h"

#include "../ops/key.h"
#include "../require.h"

namespace topreach {

namespace {

constexpr const char* kName = "direct_bpr";

// Standard deviation over the sites of each row with a finite score, [..., 1]; 1 instead of 0.
torch::Tensor spread_of(const torch::Tensor& scores) {
  const torch::Tensor finite = scores.isfinite(), held = scores.masked_fill(~finite, 0);
  const torch::Tensor count = finite.sum(-1, true).clamp_min(1);
  const torch::Tensor mean = held.sum(-1, true) / count;
  const torch::Tensor variance =
      (held - mean).masked_fill(~finite, 0).square().sum(-1, true) / count;
  return torch::where(variance > 0, variance.sqrt(), 1.0).to(scores.scalar_type());
}

SoftReach soft_reach_with_key(const torch::Tensor& scores, const torch::Tensor& y,
                              const DirectBPROptions& options, const torch::Tensor& key) {
  TR_REQUIRE(options.topk == "sampled" || options.topk == "exact" || options.topk == "mean_field",
             "{}: topk must be 'exact', 'mean_field' or 'sampled', got '{}'", kName, options.topk);
  TR_REQUIRE(
      options.topk == "sampled" || options.noise == "normal",
      "{}: noise must be 'normal' for topk '{}', got '{}'; use topk 'sampled' for other noise",
      kName, options.topk, options.noise);
  TR_REQUIRE(options.sigma_unit == "score" || options.sigma_unit == "spread",
             "{}: sigma_unit must be 'score' or 'spread', got '{}'", kName, options.sigma_unit);
  const Decision of = decision_of(kName, scores, y, options.open, *options.program);
  SoftOptions soft{.sigma = options.sigma,
                   .topk = options.topk,
                   .num_samples = options.num_samples,
                   .estimator = options.estimator,
                   .noise = options.noise};
  if (key.defined()) soft.key = derived_key(key, 1);
  // With spread s, the plan for noise sigma s is the plan of the scores divided by s for noise sigma.
  const torch::Tensor scaled =
      options.sigma_unit == "spread" ? of.scores / spread_of(of.scores.detach()) : of.scores;
  const torch::Tensor plan = options.program->soft(scaled, soft);
  // Periods without events are masked before and after, so that neither 0/0 nor its gradient passes.
  const torch::Tensor held = torch::where(of.has_events.unsqueeze(-1), plan, plan.detach());
  const torch::Tensor value = options.program->soft_bpr(held, of.y);
  return {torch::where(of.has_events, value, torch::zeros_like(value)), of.has_events};
}

// Undefined if nothing is sampled: the generator is then not used.
torch::Tensor key_of(const torch::Tensor& y, const DirectBPROptions& options, bool samples_model) {
  const bool samples_plans = options.topk == "sampled" || !options.program->has_exact_soft();
  if (!samples_model && !samples_plans) return {};
  return options.key ? *options.key : draw_key(options.generator, y.device());
}

ObjectiveValue from_reach(const SoftReach& reach, const DirectBPROptions& options) {
  return {-weighted_sum(kName, reach.bpr, options.weights),
          {{"bpr", mean_over_events(reach.bpr, reach.has_events)}}};
}

}  // namespace

SoftReach soft_reach(const torch::Tensor& scores, const torch::Tensor& y,
                     const DirectBPROptions& options) {
  return soft_reach_with_key(scores, y, options, key_of(y, options, false));
}

SoftReach soft_reach(const CountDistribution& counts, const torch::Tensor& y,
                     const DirectBPROptions& options) {
  RankingOptions ranking{resolved_ranking(kName, options.ranking, counts), options.model_samples,
                         options.ranking_estimator, options.offset};
  const torch::Tensor key = key_of(y, options, ranking.ranking == "ratio");
  if (key.defined()) ranking.key = key;
  return soft_reach_with_key(ranking_scores(kName, counts, ranking), y, options, key);
}

ObjectiveValue direct_bpr(const torch::Tensor& scores, const torch::Tensor& y,
                          const DirectBPROptions& options) {
  return from_reach(soft_reach(scores, y, options), options);
}

ObjectiveValue direct_bpr(const CountDistribution& counts, const torch::Tensor& y,
                          const DirectBPROptions& options) {
  return from_reach(soft_reach(counts, y, options), options);
}

}  // namespace topreach
