#include "poisson.h"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/library.h>

#include <cmath>

#include "../ops/key.h"
#include "count_functions.h"

namespace topreach {

namespace {

// A Poisson count is drawn as NegBin(n, mean rate). The total variation distance of the two is at most
// rate / n [Barbour, Holst and Janson 1992]; n is so large that this is below the error of a draw.
constexpr double kLeastSize = 1e12, kSizePerRate = 1e10;

torch::Tensor sample_by_key(const torch::Tensor& rate, int64_t num_samples,
                            const torch::Tensor& key, int64_t row_offset) {
  return poisson_sample(rate, num_samples, {.key = key, .row_offset = row_offset});
}

}  // namespace

torch::Tensor poisson_sample(const torch::Tensor& rate, int64_t num_samples,
                             const NegBinSampleOptions& options) {
  const torch::Tensor plain = rate.detach().to(torch::kDouble);
  const torch::Tensor size = (plain * kSizePerRate).clamp_min(kLeastSize);
  return negbin_sample(size, plain.log() - size.log(), num_samples, options).to(rate.scalar_type());
}

torch::Tensor poisson_log_prob(const torch::Tensor& y, const torch::Tensor& rate) {
  const torch::Tensor value = y.to(rate.scalar_type());
  return torch::xlogy(value, rate) - rate - torch::lgamma(value + 1);
}

torch::Tensor Poisson::sample(int64_t num_samples, const NegBinSampleOptions& options) const {
  return poisson_sample(rate, num_samples, options);
}

torch::Tensor Poisson::site_log_prob(const torch::Tensor& y) const {
  return poisson_log_prob(y, rate);
}

torch::Tensor Poisson::cdf(const torch::Tensor& y) const { return poisson_cdf(y, rate); }

torch::Tensor Poisson::expected_ratio(double offset) const {
  return ratio_family().expected_ratio(offset);
}

torch::Tensor Binomial::sample(int64_t num_samples, const NegBinSampleOptions& options) const {
  torch::NoGradGuard no_grad;
  std::vector<int64_t> shape = mean().sizes().vec();
  shape.insert(shape.begin(), num_samples);
  const auto generator = [&]() -> std::optional<at::Generator> {
    if (!options.key) return options.generator;
    const torch::Tensor key = options.key->cpu();
    return at::detail::createCPUGenerator(uint64_t(key[0].item<int64_t>()) << 32 |
                                          uint64_t(key[1].item<int64_t>()));
  }();
  const torch::Tensor trials = total_count.to(probs.scalar_type()).cpu().expand(shape);
  return at::binomial(trials.contiguous(), probs.cpu().expand(shape).contiguous(), generator)
      .to(probs.device());
}

torch::Tensor Binomial::site_log_prob(const torch::Tensor& y) const {
  const torch::Tensor value = y.to(probs.scalar_type()), n = total_count.to(probs.scalar_type());
  const torch::Tensor log_prob = torch::lgamma(n + 1) - torch::lgamma(value + 1) -
                                 torch::lgamma(n - value + 1) + torch::xlogy(value, probs) +
                                 at::special_xlog1py(n - value, -probs);
  return log_prob.masked_fill(value.gt(n), -INFINITY);
}

torch::Tensor Binomial::expected_ratio(double offset) const {
  return ratio_family().expected_ratio(offset);
}

torch::Tensor Bernoulli::sample(int64_t num_samples, const NegBinSampleOptions& options) const {
  return Binomial{torch::ones_like(probs), probs}.sample(num_samples, options);
}

torch::Tensor Bernoulli::site_log_prob(const torch::Tensor& y) const {
  return Binomial{torch::ones_like(probs), probs}.site_log_prob(y);
}

torch::Tensor Bernoulli::expected_ratio(double offset) const {
  return ratio_family().expected_ratio(offset);
}

TORCH_LIBRARY_IMPL(topreach, CompositeImplicitAutograd, m) {
  m.impl("poisson_sample", sample_by_key);
  m.impl("poisson_log_prob", poisson_log_prob);
}

TORCH_LIBRARY_IMPL(topreach, FuncTorchBatchedDecomposition, m) {
  m.impl("poisson_log_prob", poisson_log_prob);
}

}  // namespace topreach
