// A mixture that draws one component for all sites of a row, so that their counts depend on each
// other. In site_mixture.h, by contrast, every site draws its own component.
#pragma once

#include <torch/types.h>

#include "../ops/negbin.h"
#include "count_functions.h"
#include "zero_inflated.h"

namespace topreach {

/// Which component each draw takes, int64 [M, ...], of weights [..., L].
torch::Tensor mixture_choice(const torch::Tensor& weights, int64_t num_samples,
                             const torch::Tensor& key, int64_t row_offset = 0);

/// P(y) = sum_l w_l prod_s P_l(y_s): weights w [..., L], which sum to 1, and components with parameters
/// [..., L, S]. Python: topreach.distributions.Mixture.
template <typename Component>
struct Mixture {
  torch::Tensor weights;
  Component components;

  /// sum_l w_l m_l, [..., S].
  torch::Tensor mean() const { return average(components.mean()); }

  /// Variance of each site, [..., S]: the mean variance within components plus that of their means.
  torch::Tensor variance() const {
    const torch::Tensor m = components.mean();
    return average(components.variance() + (m - mean().unsqueeze(-2)).square());
  }

  /// Draws [M, ..., S], without gradient: one component for all sites of a row.
  torch::Tensor sample(int64_t num_samples, const NegBinSampleOptions& options = {}) const {
    torch::NoGradGuard no_grad;
    const NegBinSampleOptions own = with_key(options, weights.device());
    const torch::Tensor chosen =
        mixture_choice(weights, num_samples, *own.key, own.row_offset).unsqueeze(-1).unsqueeze(-1);
    const auto shape = components.mean().sizes().vec();
    const auto of_chosen = [&](const torch::Tensor& parameter) {
      std::vector<int64_t> all = shape, one = chosen.sizes().vec();
      all.insert(all.begin(), num_samples);
      one.back() = shape.back();
      return parameter.expand(all).gather(-2, chosen.expand(one)).squeeze(-2);
    };
    return components.with_parameters(of_chosen).sample(1, own)[0];
  }

  /// log P of each site separately, [..., S] or [M, ..., S].
  torch::Tensor site_log_prob(const torch::Tensor& y) const {
    std::vector<torch::Tensor> parts;
    for (int64_t l = 0; l < weights.size(-1); ++l) parts.push_back(component(l).site_log_prob(y));
    return torch::logsumexp(torch::stack(parts, -1) + weights.log().unsqueeze(-2), -1);
  }

  /// log P of all sites of a row together, [...] or [M, ...]; cells where y is NaN are left out.
  torch::Tensor joint_log_prob(const torch::Tensor& y) const {
    std::vector<torch::Tensor> parts;
    for (int64_t l = 0; l < weights.size(-1); ++l) {
      const Component part = component(l);
      parts.push_back(
          observed_sum([&](const torch::Tensor& v) { return part.site_log_prob(v); }, y));
    }
    return torch::logsumexp(torch::stack(parts, -1) + weights.log(), -1);
  }

  torch::Tensor cdf(const torch::Tensor& y) const {
    return average(components.cdf(y.unsqueeze(-2))).detach();
  }

  torch::Tensor expected_ratio(double offset = 0.0) const {
    return average(components.expected_ratio(offset));
  }

  /// The sites `index` [n] alone.
  Mixture at_sites(const torch::Tensor& index) const {
    return {weights, components.with_parameters(
                         [&](const torch::Tensor& p) { return p.index_select(-1, index); })};
  }

  bool independent_sites() const { return false; }

 private:
  Component component(int64_t l) const {
    return components.with_parameters([l](const torch::Tensor& p) { return p.select(-2, l); });
  }
  torch::Tensor average(const torch::Tensor& parts) const {
    return (weights.unsqueeze(-1) * parts).sum(-2);
  }
};

template <typename Component>
Mixture(torch::Tensor, Component) -> Mixture<Component>;

}  // namespace topreach
