#include "negative_binomial.h"

#include <torch/library.h>

#include "count_functions.h"

namespace topreach {

std::tuple<torch::Tensor, torch::Tensor> negbin_moments(const torch::Tensor& total_count,
                                                        const torch::Tensor& logits) {
  const torch::Tensor odds = logits.exp(), mean = total_count * odds;
  return {mean, mean * (1 + odds)};
}

NegativeBinomial negbin_of_moments(const torch::Tensor& mean, const torch::Tensor& variance) {
  constexpr double kLeastMean = 1e-12,
                   kLeastExcess = 1e-6;  // of a variance over its mean, relative
  const torch::Tensor known = mean.clamp_min(kLeastMean),
                      excess = (variance / known - 1).clamp_min(kLeastExcess);
  return {known / excess, excess.log()};
}

torch::Tensor NegativeBinomial::mean() const {
  return std::get<0>(negbin_moments(total_count, logits));
}

torch::Tensor NegativeBinomial::variance() const {
  return std::get<1>(negbin_moments(total_count, logits));
}

torch::Tensor NegativeBinomial::sample(int64_t num_samples,
                                       const NegBinSampleOptions& options) const {
  return negbin_sample(total_count, logits, num_samples, options);
}

torch::Tensor NegativeBinomial::site_log_prob(const torch::Tensor& y) const {
  return negbin_log_prob(y.to(total_count.scalar_type()), total_count, logits);
}

torch::Tensor NegativeBinomial::cdf(const torch::Tensor& y) const {
  return negbin_cdf(y, total_count, logits);
}

RatioFamily NegativeBinomial::ratio_family() const {
  return {"negative_binomial", total_count, logits.to(torch::kDouble).exp()};
}

torch::Tensor NegativeBinomial::expected_ratio(double offset) const {
  return ratio_family().expected_ratio(offset);
}

namespace {

std::tuple<torch::Tensor, torch::Tensor> of_moments(const torch::Tensor& mean,
                                                    const torch::Tensor& variance) {
  const NegativeBinomial found = negbin_of_moments(mean, variance);
  return {found.total_count, found.logits};
}

}  // namespace

TORCH_LIBRARY_IMPL(topreach, CompositeImplicitAutograd, m) {
  m.impl("negbin_moments", negbin_moments);
  m.impl("negbin_of_moments", of_moments);
}

TORCH_LIBRARY_IMPL(topreach, FuncTorchBatchedDecomposition, m) {
  m.impl("negbin_moments", negbin_moments);
  m.impl("negbin_of_moments", of_moments);
}

}  // namespace topreach
