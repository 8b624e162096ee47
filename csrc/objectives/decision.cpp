#include "decision.h"

#include <cmath>

#include "../ops/ratio_ranking.h"
#include "../require.h"

namespace topreach {

std::string resolved_ranking(const char* function, const std::string& ranking,
                             const CountDistribution& counts) {
  TR_REQUIRE(ranking == "auto" || ranking == "exact" || ranking == "ratio" || ranking == "mean",
             "{}: ranking must be 'auto', 'exact', 'ratio' or 'mean', got '{}'", function, ranking);
  if (ranking == "auto") return counts.has_expected_ratio() ? "exact" : "ratio";
  TR_REQUIRE_TYPE(ranking != "exact" || counts.has_expected_ratio(),
                  "{}: ranking must be 'ratio' or 'mean' for this distribution, got 'exact', which "
                  "expected_ratio_ranking does not know for it",
                  function);
  return ranking;
}

torch::Tensor ranking_scores(const char* function, const CountDistribution& counts,
                             const RankingOptions& options) {
  const std::string ranking = resolved_ranking(function, options.ranking, counts);
  if (ranking == "mean") return counts.mean();
  if (ranking == "exact") return expected_ratio_ranking(counts, options.offset);
  torch::Tensor samples;
  {
    torch::NoGradGuard no_grad;
    samples =
        counts.sample(options.model_samples, {.key = options.key, .generator = options.generator});
  }
  const bool diagonal = options.ranking_estimator == "diagonal";
  const torch::Tensor log_prob =
      diagonal ? counts.site_log_prob(samples) : counts.joint_log_prob(samples);
  return ratio_ranking(samples, log_prob, options.offset, options.ranking_estimator);
}

Decision decision_of(const char* function, const torch::Tensor& scores, const torch::Tensor& y,
                     const std::optional<torch::Tensor>& open, const Program& program) {
  TR_REQUIRE(scores.defined() && y.defined(), "{}: {} must be a tensor, got an undefined one",
             function, scores.defined() ? "y" : "scores");
  TR_REQUIRE_TYPE(scores.is_floating_point(), "{}: scores must be floating point, got {}", function,
                  scores.scalar_type());
  std::vector<int64_t> once = y.sizes().vec();
  if (y.dim() >= 2) once[size_t(y.dim()) - 2] = 1;
  TR_REQUIRE(y.dim() >= 1 && (scores.sizes() == y.sizes() || scores.sizes() == once),
             "{}: scores must have the shape of y, {}, or one row for all periods, got {}",
             function, y.sizes(), scores.sizes());
  program.check(function, y.size(-1));
  torch::Tensor counts = y.detach().to(scores.scalar_type()), held = scores;
  if (open) {
    TR_REQUIRE(open->sizes() == y.sizes() && open->scalar_type() == torch::kBool,
               "{}: open must be bool with the shape of y, {}, got {} of {}", function, y.sizes(),
               open->sizes(), open->scalar_type());
    const torch::Tensor closed = open->logical_not();
    counts = counts.masked_fill(closed, 0);
    held = held.expand(y.sizes()).masked_fill(closed, -INFINITY);
  }
  if (counts.device().is_cpu()) {
    TR_REQUIRE(!counts.isnan().any().item<bool>(),
               "{}: y must be known, got a NaN count. Leave out periods without counts; for sites "
               "that cannot be acted on give `open`",
               function);
    TR_REQUIRE(!counts.lt(0).any().item<bool>(), "{}: y must not be negative, got {}", function,
               counts.min().item<double>());
    TR_REQUIRE(!held.detach().isnan().any().item<bool>(), "{}: scores must not be NaN, got NaN",
               function);
  }
  return {held, counts, counts.sum(-1).gt(0)};
}

torch::Tensor weighted_sum(const char* function, const torch::Tensor& values,
                           const std::optional<torch::Tensor>& weights) {
  if (!weights) return values.sum();
  TR_REQUIRE(weights->dim() == 1 && values.dim() >= 1 &&
                 (weights->size(0) == values.size(-1) || values.size(-1) == 1),
             "{}: weights must have shape [T] = [{}], one per period, got {}", function,
             values.dim() >= 1 ? values.size(-1) : 1, weights->sizes());
  if (weights->device().is_cpu()) {
    const torch::Tensor wrong =
        weights->detach().isfinite().logical_and(weights->ge(0)).logical_not();
    TR_REQUIRE(!wrong.any().item<bool>(), "{}: weights must be finite and not negative, got {}",
               function, weights->masked_select(wrong)[0].item<double>());
  }
  return (values * weights->to(values.options().requires_grad(false))).sum();
}

torch::Tensor mean_over_events(const torch::Tensor& values, const torch::Tensor& has_events) {
  const torch::Tensor held = values.detach();
  return torch::where(has_events, held, torch::zeros_like(held)).sum() / has_events.sum();
}

}  // namespace topreach
