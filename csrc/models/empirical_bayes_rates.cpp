#include "empirical_bayes_rates.h"

#include <algorithm>
#include <functional>

namespace topreach {

EmpiricalBayesRatesImpl::EmpiricalBayesRatesImpl(std::vector<double> half_lives_,
                                                 int64_t num_features, std::vector<double> support_)
    : half_lives(std::move(half_lives_)), support(std::move(support_)) {
  TORCH_CHECK_VALUE(!half_lives.empty() && *std::ranges::min_element(half_lives) > 0,
                    "EmpiricalBayesRates: half_lives must be numbers > 0, at least one, got ",
                    half_lives.size(), " of them");
  TORCH_CHECK_VALUE(num_features >= 0,
                    "EmpiricalBayesRates: num_features must not be negative, got ", num_features);
  TORCH_CHECK_VALUE(support.size() >= 2 && support.front() > 0 &&
                        std::ranges::adjacent_find(support, std::greater_equal<>()) ==
                            support.end(),
                    "EmpiricalBayesRates: support must be at least two numbers > 0, ascending");
  const int64_t memories = int64_t(half_lives.size());
  prior = register_parameter("prior", torch::zeros({memories, int64_t(support.size())}));
  memory = register_parameter("memory", torch::zeros({memories}));
  weight = register_parameter("weight", torch::zeros({num_features}));
  raw_dispersion = register_parameter("raw_dispersion", torch::tensor(-1.0f));
}

NegativeBinomial EmpiricalBayesRatesImpl::forward(const torch::Tensor& x) {
  const int64_t memories = memory.size(0), columns = 3 * memories + weight.size(0);
  TORCH_CHECK_VALUE(x.dim() >= 2 && x.size(-1) == columns, "EmpiricalBayesRates: x must have ",
                    columns, " columns (3 H + P), got ", x.sizes());
  const auto part = x.split_with_sizes({memories, memories, memories, weight.size(0)}, -1);
  torch::Tensor z = torch::ones({}, x.options());
  if (weight.size(0) > 0)
    z = torch::matmul(part[3] - part[3].mean(-2, /*keepdim=*/true), weight).clamp(-5, 5).exp();
  const torch::Tensor u = torch::tensor(support, torch::kDouble).to(x.options());
  const torch::Tensor share = memory.softmax(0);
  torch::Tensor total = torch::zeros_like(part[0].select(-1, 0));
  for (int64_t h = 0; h < memories; ++h) {
    const torch::Tensor logits = prior[h].log_softmax(0) +
                                 part[0].select(-1, h).unsqueeze(-1) * u.log() -
                                 (part[1].select(-1, h) * z).unsqueeze(-1) * u;
    total = total + share[h] * part[2].select(-1, h) * torch::matmul(logits.softmax(-1), u);
  }
  const torch::Tensor mean = (total * z).clamp_min(1e-8);
  return {mean * (-raw_dispersion).exp(), raw_dispersion};
}

}  // namespace topreach
