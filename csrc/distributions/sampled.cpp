#include "sampled.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <algorithm>
#include <cmath>

#include "../ops/ratio_ranking.h"
#include "../require.h"
#include "mixture.h"

namespace topreach {

SampledForecast::SampledForecast(torch::Tensor draws) : draws_(std::move(draws)) {
  TR_REQUIRE(draws_.defined() && draws_.dim() >= 2 && draws_.size(0) >= 1,
             "SampledForecast: draws must have shape [M, ..., S] with M >= 1, got {}",
             draws_.defined() ? fmt::format("{}", draws_.sizes()) : "an undefined tensor");
  TR_REQUIRE_TYPE(draws_.is_floating_point(),
                  "SampledForecast: draws must be floating point, got {}", draws_.scalar_type());
}

torch::Tensor SampledForecast::variance() const {
  return draws_.size(0) > 1 ? draws_.var(0) : torch::zeros_like(draws_[0]);
}

torch::Tensor SampledForecast::sample(int64_t num_samples,
                                      const NegBinSampleOptions& options) const {
  TR_REQUIRE(num_samples >= 1, "SampledForecast.sample: num_samples must be at least 1, got {}",
             num_samples);
  const NegBinSampleOptions own = with_key(options, draws_.device());
  const int64_t count = draws_.size(0);
  const torch::Tensor weights =
      torch::full({1, count}, 1.0 / double(count), draws_.options().dtype(torch::kDouble));
  return draws_.detach().index_select(0,
                                      mixture_choice(weights, num_samples, *own.key).reshape(-1));
}

torch::Tensor SampledForecast::site_log_prob(const torch::Tensor&) const {
  TR_REQUIRE_TYPE(false,
                  "SampledForecast.site_log_prob: the forecast must have probabilities, got draws "
                  "only. Judge it by bpr, mae or cdf, or train without a likelihood (DirectBPR)");
}

torch::Tensor SampledForecast::cdf(const torch::Tensor& y) const {
  torch::NoGradGuard no_grad;
  torch::Tensor total = torch::zeros(y.sizes(), y.options().dtype(torch::kDouble));
  for (int64_t m = 0; m < draws_.size(0); ++m) total = total + draws_[m].le(y);
  return total / double(draws_.size(0));
}

torch::Tensor SampledForecast::quantile(double probability) const {
  TR_REQUIRE(probability > 0 && probability < 1,
             "SampledForecast.quantile: probability must be above 0 and below 1, got {}",
             probability);
  const int64_t count = draws_.size(0);
  // 1e-9 allows for the rounding of the product.
  const int64_t rank = int64_t(std::ceil(probability * double(count) - 1e-9));
  return std::get<0>(draws_.detach().kthvalue(std::clamp<int64_t>(rank, 1, count), 0));
}

torch::Tensor SampledForecast::expected_ratio(double offset) const {
  return ratio_ranking(draws_.detach(), std::nullopt, offset);
}

}  // namespace topreach
