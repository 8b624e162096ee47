#include "direct_bpr.h"

#include "../metrics/bpr.h"
#include "../ops/expected_topk.h"
#include "../ops/key.h"
#include "../ops/perturbed_topk.h"
#include "../ops/ratio_ranking.h"
#include "../require.h"

namespace topreach {

namespace {

// Another key for a second source of noise, as in Python's topreach.objectives.
torch::Tensor derived_key(const torch::Tensor& key, int64_t stream) {
  const torch::Tensor step =
      torch::tensor({int64_t{0x9E3779B9}, int64_t{0x85EBCA6B}}).to(key.device()) * stream;
  return (key + step).bitwise_and(int64_t{0xFFFFFFFF});
}

SoftReach soft_reach_with_key(const torch::Tensor& ranking, const torch::Tensor& y,
                              const DirectBPROptions& options, const torch::Tensor& key) {
  std::vector<int64_t> once = y.sizes().vec();
  if (y.dim() >= 2) once[size_t(y.dim()) - 2] = 1;
  TR_REQUIRE(ranking.sizes() == y.sizes() || ranking.sizes() == once,
             "direct_bpr: scores must have the shape of y, {}, or one row for all "
             "periods, got {}",
             y.sizes(), ranking.sizes());
  TR_REQUIRE(options.topk == "sampled" || options.topk == "exact" || options.topk == "mean_field",
             "direct_bpr: topk must be 'exact', 'mean_field' or 'sampled', got '{}'", options.topk);
  TR_REQUIRE(options.topk == "sampled" || options.noise == "normal",
             "direct_bpr: noise must be 'normal' for topk '{}', got '{}'; use topk "
             "'sampled' for other noise",
             options.topk, options.noise);
  const torch::Tensor membership =
      options.topk == "sampled"
          ? perturbed_topk(ranking, options.k,
                           {options.sigma, options.num_samples, options.estimator, options.noise,
                            derived_key(key, 1)})
          : expected_topk(ranking, options.k, {options.sigma, options.topk});
  const torch::Tensor has_events = y.sum(-1).gt(0);
  // Periods without events are cut off on both sides, so that neither 0/0 nor its gradient passes.
  const torch::Tensor held =
      torch::where(has_events.unsqueeze(-1), membership, membership.detach());
  const torch::Tensor value = soft_bpr(held, y, options.k);
  return {torch::where(has_events, value, torch::zeros_like(value)), has_events};
}

// Undefined where nothing is sampled: the generator is then left alone.
torch::Tensor key_of(const torch::Tensor& y, const DirectBPROptions& options, bool samples_model) {
  if (!samples_model && options.topk != "sampled") return {};
  return options.key ? *options.key : draw_key(options.generator, y.device());
}

ObjectiveValue from_reach(const SoftReach& reach, const DirectBPROptions& options) {
  const torch::Tensor weighted = options.weights ? reach.bpr * *options.weights : reach.bpr;
  return {-weighted.sum(), {{"bpr", reach.bpr.detach().sum() / reach.has_events.sum()}}};
}

}  // namespace

SoftReach soft_reach(const torch::Tensor& ranking, const torch::Tensor& y,
                     const DirectBPROptions& options) {
  return soft_reach_with_key(ranking, y, options, key_of(y, options, false));
}

SoftReach soft_reach(const CountDistribution& counts, const torch::Tensor& y,
                     const DirectBPROptions& options) {
  TR_REQUIRE(options.ranking == "exact" || options.ranking == "ratio" || options.ranking == "mean",
             "direct_bpr: ranking must be 'exact', 'ratio' or 'mean', got '{}'", options.ranking);
  const torch::Tensor key = key_of(y, options, options.ranking == "ratio");
  if (options.ranking == "mean") return soft_reach_with_key(counts.mean(), y, options, key);
  if (options.ranking == "exact")
    return soft_reach_with_key(expected_ratio_ranking(counts, options.offset), y, options, key);
  const torch::Tensor samples = counts.sample(options.model_samples, {.key = key});
  const torch::Tensor ranking =
      ratio_ranking(samples, counts.log_prob(samples), options.offset, options.ranking_estimator);
  return soft_reach_with_key(ranking, y, options, key);
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
