// Counts of independent sites, each a mixture of the same L components with its own weights
// [Decision-aware training, Eq. 14, 17]: p(y_s) = sum_l w_sl p_l(y_s), w_s = softmax(logits_s). In
// mixture.h's Mixture, by contrast, one component holds for all sites of a row at once.
//
// The ratio ranking is one integral for all sites, by Laplace transforms L(t) = E[e^-tY]:
//   r_s = E[y_s / (c + Y)] = int_0^inf e^-ct m_s(t) prod_k L_k(t) dt,  m = -L'/L,
// with L_s = sum_l w_sl L_l; m is the mean under the weights w L and the tilted components:
//   truncated normal N+(mu, s^2):  L = e^(-mu t + s^2 t^2 / 2) Phi(a - s t) / Phi(a), a = mu / s;
//                                  tilted, it is N+(mu - s^2 t, s^2)
//   Poisson(rate):                 L = e^(rate (e^-t - 1)), tilted mean rate e^-t
// by the trapezoidal rule in log t. For every total z > 0 the rule with step .36 gives 1/(c + z) to a
// relative 2.6e-11 (2 |Gamma(1 + 2 pi i / .36)|); 155 nodes around 1 / (1 + c + E[Y]).
#pragma once

#include <torch/types.h>

#include <optional>
#include <string>
#include <vector>

#include "poisson.h"

namespace topreach {

/// N(loc, scale^2) given that it is positive: a density on the positive reals.
struct TruncatedNormal {
  torch::Tensor loc, scale;

  /// The same with each parameter changed by `change`.
  template <typename Change>
  TruncatedNormal with_parameters(const Change& change) const {
    return {change(loc), change(scale)};
  }
};

struct Moments {
  torch::Tensor mean, variance;
};

// The functions below take the components by name: family "truncated_normal" (first = loc, second =
// scale) or "poisson" (first = rate); parameters broadcast to logits [..., S, L]. Raises for another
// name and shapes that do not broadcast.

/// log p(y) elementwise: y [..., S] or samples [M, ..., S], broadcast against logits' [..., S];
/// -inf for y < 0. The normal is a density; the Poisson a probability, gamma functions between whole
/// counts. Differentiable in the parameters.
torch::Tensor site_mixture_log_prob(const std::string& family, const torch::Tensor& y,
                                    const torch::Tensor& logits, const torch::Tensor& first,
                                    const std::optional<torch::Tensor>& second = std::nullopt);

/// Mean and variance of each site, [..., S].
Moments site_mixture_moments(const std::string& family, const torch::Tensor& logits,
                             const torch::Tensor& first,
                             const std::optional<torch::Tensor>& second = std::nullopt);

/// Draws [M, ..., S], constants, by inversion: two uniforms a draw. Draw m of a site depends on its
/// parameters and (key, row_offset + row, site, m) alone. Each probability is right to 1e-7. Poisson:
/// memory of (rates) x (largest rate) doubles for tables. Raises (CPU) unless loc >= 0, scale > 0,
/// rate > 0, and all finite.
torch::Tensor site_mixture_sample(const std::string& family, const torch::Tensor& logits,
                                  const torch::Tensor& first,
                                  const std::optional<torch::Tensor>& second, int64_t num_samples,
                                  const NegBinSampleOptions& options = {});

/// E[y_s / (offset + 1.y)], 0/0 := 0, [..., S]: exact to about 1e-10, see above; in double precision.
/// Differentiable in the parameters; backward keeps 155 x [..., S, L] numbers.
torch::Tensor site_mixture_expected_ratio_ranking(
    const std::string& family, const torch::Tensor& logits, const torch::Tensor& first,
    const std::optional<torch::Tensor>& second = std::nullopt, double offset = 0.0);

/// Independent sites, each with a mixture of `components`, TruncatedNormal or Poisson. Python:
/// topreach.distributions.SiteMixture.
///
///   topreach::SiteMixture<topreach::Poisson> counts{logits, {rate.unsqueeze(-2)}};
///   auto r = topreach::expected_ratio_ranking(counts);
template <typename Component>
struct SiteMixture {
  torch::Tensor logits;  // [..., S, L]
  Component components;  // parameters broadcast to [..., S, L]

  torch::Tensor mean() const;
  torch::Tensor variance() const;
  torch::Tensor sample(int64_t num_samples, const NegBinSampleOptions& options = {}) const;
  /// A density for truncated normals.
  torch::Tensor site_log_prob(const torch::Tensor& y) const;
  /// P(Y <= y), elementwise, float64, without gradient.
  torch::Tensor cdf(const torch::Tensor& y) const;
  /// The least value with cdf >= probability: a whole number for Poissons.
  torch::Tensor quantile(double probability) const;
  torch::Tensor expected_ratio(double offset = 0.0) const;
  /// The sites `index` [n] alone.
  SiteMixture at_sites(const torch::Tensor& index) const {
    return {logits.index_select(-2, index), components.with_parameters([&](const torch::Tensor& p) {
              return p.expand_as(logits).index_select(-2, index);
            })};
  }
  /// Whether draws are whole numbers.
  bool whole_counts() const;
};

/// Options of the models NormalMixture and PoissonMixture.
struct MixtureOptions {
  double low = 0.0,
         high = 10.0;  // the components' locations start in here: the range of the counts
  std::vector<int64_t> batch = {};  // leading shape of all parameters: that many models at once
};

/// Start values of a mixture, drawn by torch's generator: locations [batch.., L] uniform on [low, high], at
/// least .001, logits [batch.., S, L] of Dirichlet(1/2) weights. Raises unless num_sites, num_components >= 1
/// and 0 <= low < high < inf.
struct MixtureStart {
  torch::Tensor location, logits;
};
MixtureStart mixture_start(const char* model, int64_t num_sites, int64_t num_components,
                           const MixtureOptions& options);

/// A parameter [batch.., S, L] for every one of `time` [T..]: a view [batch.., T.., S, L].
torch::Tensor mixture_over_time(const torch::Tensor& parameter, const torch::Tensor& time);

}  // namespace topreach
