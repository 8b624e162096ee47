#include "empirical_bayes_rates.h"

#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <tuple>

#include "../ops/posterior_risk.h"
#include "../require.h"

namespace topreach {

namespace {

constexpr double kSmallest = 1e-8;       // mean count
constexpr double kLargestFeature = 5.0;  // of beta.(x - mean x)

torch::Tensor log_of(const torch::Tensor& count) { return count.clamp_min(kSmallest).log(); }

}  // namespace

EmpiricalBayesForecasts empirical_bayes_forecasts(const torch::Tensor& x,
                                                  const torch::Tensor& prior,
                                                  const torch::Tensor& weight,
                                                  const torch::Tensor& support) {
  TR_REQUIRE(prior.dim() == 2 && weight.dim() == 1,
             "EmpiricalBayesRates: prior must have shape [H, G] and weight [P], got {} and {}",
             prior.sym_sizes(), weight.sym_sizes());
  const int64_t memories = prior.size(0), features = weight.size(0);
  const int64_t columns = 3 * memories + features;
  TR_REQUIRE(x.dim() >= 2 && x.size(-1) == columns,
             "EmpiricalBayesRates: x must have {} columns (3 H + P), got {}", columns,
             x.sym_sizes());
  const auto part = x.split_with_sizes({memories, memories, memories, features}, -1);
  const torch::Tensor& counts = part[0];
  torch::Tensor expected = part[1], near = part[2];
  if (features > 0) {
    const torch::Tensor relative = torch::matmul(part[3] - part[3].mean(-2, true), weight);
    const torch::Tensor z = relative.clamp(-kLargestFeature, kLargestFeature).exp().unsqueeze(-1);
    expected = expected * z;
    near = near * z;
  }
  return {near * posterior_risk(counts, expected, prior, support), near,
          near * ((counts + 0.5) / (expected + 0.5))};
}

torch::Tensor empirical_bayes_base(const torch::Tensor& shrunken, const torch::Tensor& memory) {
  return log_of(torch::matmul(shrunken, memory.softmax(0)));
}

torch::Tensor empirical_bayes_terms(const torch::Tensor& base,
                                    const EmpiricalBayesForecasts& forecasts) {
  const torch::Tensor apart =
      log_of(torch::cat({forecasts.shrunken, forecasts.near, forecasts.own}, -1)) -
      base.unsqueeze(-1);
  const torch::Tensor spread = base - base.mean(-1, true);
  return torch::cat({apart, spread.unsqueeze(-1)}, -1);
}

torch::Tensor empirical_bayes_mean(const torch::Tensor& base,
                                   const std::optional<torch::Tensor>& terms,
                                   const std::optional<torch::Tensor>& correction) {
  TR_REQUIRE(terms.has_value() == correction.has_value(),
             "empirical_bayes_mean: terms and correction must be given together, got one of them");
  torch::Tensor log_mean = base;
  if (terms) {
    log_mean = base + torch::matmul(*terms, *correction);
    log_mean = log_mean + (base.logsumexp(-1, true) - log_mean.logsumexp(-1, true));
  }
  const double bound = -std::log(kSmallest);
  return log_mean.clamp(-bound, bound).exp();
}

EmpiricalBayesRatesImpl::EmpiricalBayesRatesImpl(std::vector<double> half_lives_,
                                                 int64_t num_features, std::vector<double> support_)
    : half_lives(std::move(half_lives_)),
      support(std::move(support_)) {
  TR_REQUIRE(!half_lives.empty() && *std::ranges::min_element(half_lives) > 0,
             "EmpiricalBayesRates: half_lives must be numbers > 0, at least one, got {} of them",
             half_lives.size());
  TR_REQUIRE(num_features >= 0, "EmpiricalBayesRates: num_features must not be negative, got {}",
             num_features);
  TR_REQUIRE(support.size() >= 2 && support.front() > 0 &&
                 std::ranges::adjacent_find(support, std::greater_equal<>()) == support.end(),
             "EmpiricalBayesRates: support must be at least two numbers > 0, ascending");
  const int64_t memories = int64_t(half_lives.size());
  prior =
      register_parameter("prior", torch::zeros({memories, int64_t(support.size())}, torch::kFloat));
  memory = register_parameter("memory", torch::zeros({memories}, torch::kFloat));
  weight = register_parameter("weight", torch::zeros({num_features}, torch::kFloat));
  correction = register_parameter("correction", torch::zeros({3 * memories + 1}, torch::kFloat));
  raw_dispersion = register_parameter("raw_dispersion", torch::tensor(-1.0f));
}

NegativeBinomial EmpiricalBayesRatesImpl::forward(const torch::Tensor& x) {
  const auto forecasts = empirical_bayes_forecasts(
      x, prior, weight, torch::tensor(support, torch::kDouble).to(x.device()));
  const torch::Tensor base = empirical_bayes_base(forecasts.shrunken, memory);
  const torch::Tensor mean =
      empirical_bayes_mean(base, empirical_bayes_terms(base, forecasts), correction);
  return {mean * (-raw_dispersion).exp(), raw_dispersion};
}

namespace {

std::tuple<at::Tensor, at::Tensor, at::Tensor> forecasts_of(const at::Tensor& x,
                                                            const at::Tensor& prior,
                                                            const at::Tensor& weight,
                                                            const at::Tensor& support) {
  const auto forecasts = empirical_bayes_forecasts(x, prior, weight, support);
  return {forecasts.shrunken, forecasts.near, forecasts.own};
}

at::Tensor terms_of(const at::Tensor& base, const at::Tensor& shrunken, const at::Tensor& near,
                    const at::Tensor& own) {
  return empirical_bayes_terms(base, {shrunken, near, own});
}

}  // namespace

TORCH_LIBRARY_IMPL(topreach, CompositeImplicitAutograd, m) {
  m.impl("empirical_bayes_forecasts", forecasts_of);
  m.impl("empirical_bayes_base", empirical_bayes_base);
  m.impl("empirical_bayes_terms", terms_of);
  m.impl("empirical_bayes_mean", empirical_bayes_mean);
}

}  // namespace topreach
