#include "empirical_bayes_rates.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "../require.h"

namespace topreach {

namespace {
constexpr double kSmallest = 1e-8;  // mean count
}

EmpiricalBayesRatesImpl::EmpiricalBayesRatesImpl(std::vector<double> half_lives_,
                                                 int64_t num_features, std::vector<double> support_)
    : half_lives(std::move(half_lives_)),
      support(std::move(support_)) {
  TR_REQUIRE(!half_lives.empty() && *std::ranges::min_element(half_lives) > 0,
             "EmpiricalBayesRates: half_lives must be numbers > 0, at least one, "
             "got {} of them",
             half_lives.size());
  TR_REQUIRE(num_features >= 0, "EmpiricalBayesRates: num_features must not be negative, got {}",
             num_features);
  TR_REQUIRE(support.size() >= 2 && support.front() > 0 &&
                 std::ranges::adjacent_find(support, std::greater_equal<>()) == support.end(),
             "EmpiricalBayesRates: support must be at least two numbers > 0, "
             "ascending");
  const int64_t memories = int64_t(half_lives.size());
  prior = register_parameter("prior", torch::zeros({memories, int64_t(support.size())}));
  memory = register_parameter("memory", torch::zeros({memories}));
  weight = register_parameter("weight", torch::zeros({num_features}));
  correction = register_parameter("correction", torch::zeros({3 * memories + 1}));
  raw_dispersion = register_parameter("raw_dispersion", torch::tensor(-1.0f));
}

NegativeBinomial EmpiricalBayesRatesImpl::forward(const torch::Tensor& x) {
  const int64_t memories = memory.size(0), columns = 3 * memories + weight.size(0);
  TR_REQUIRE(x.dim() >= 2 && x.size(-1) == columns,
             "EmpiricalBayesRates: x must have {} columns (3 H + P), got {}", columns, x.sizes());
  const auto part = x.split_with_sizes({memories, memories, memories, weight.size(0)}, -1);
  torch::Tensor expected = part[1], near = part[2];
  if (weight.size(0) > 0) {
    const torch::Tensor z =
        torch::matmul(part[3] - part[3].mean(-2, /*keepdim=*/true), weight).clamp(-5, 5).exp();
    expected = expected * z.unsqueeze(-1);
    near = near * z.unsqueeze(-1);
  }
  const torch::Tensor u = torch::tensor(support, torch::kDouble).to(x.options());
  std::vector<torch::Tensor> risk;
  for (int64_t h = 0; h < memories; ++h) {
    const torch::Tensor logits = prior[h].log_softmax(0) +
                                 part[0].select(-1, h).unsqueeze(-1) * u.log() -
                                 expected.select(-1, h).unsqueeze(-1) * u;
    risk.push_back(torch::matmul(logits.softmax(-1), u));
  }
  const torch::Tensor shrunken = near * torch::stack(risk, -1),
                      own = near * ((part[0] + 0.5) / (expected + 0.5));
  const torch::Tensor base = torch::matmul(shrunken, memory.softmax(0)).clamp_min(kSmallest).log();
  const torch::Tensor apart =
      torch::cat({shrunken, near, own}, -1).clamp_min(kSmallest).log() - base.unsqueeze(-1);
  const torch::Tensor spread = base - base.mean(-1, /*keepdim=*/true);
  const torch::Tensor terms = torch::cat({apart, spread.unsqueeze(-1)}, -1);
  const double bound = -std::log(kSmallest);
  torch::Tensor log_mean = base + torch::matmul(terms, correction);
  log_mean =
      log_mean + (base.logsumexp(-1, /*keepdim=*/true) - log_mean.logsumexp(-1, /*keepdim=*/true));
  const torch::Tensor mean = log_mean.clamp(-bound, bound).exp();
  return {mean * (-raw_dispersion).exp(), raw_dispersion};
}

}  // namespace topreach
