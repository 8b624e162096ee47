// Negative binomial regression with an intercept and a slope over time for each site
// [Decision-aware training, Eq. 15 and Appendix E].
//
//   y_ts ~ NegBin(total_count mu_ts, probs q),   mean mu_ts q / (1 - q)
//   eta_ts = b0 + beta.x_ts + b0_s + b1_s t
//   mu = exp(eta), link "log", or softplus(eta), link "softplus"
//   (b0_s, b1_s) ~ N(0, Sigma),  Sigma from s0, s1, rho
// Unconstrained parameters: logit q, softplus^-1 of s0 and s1, artanh rho.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <optional>
#include <string>

#include "negative_binomial.h"

namespace topreach {

/// mu [..., S]: total_count of the counts, from features x [..., S, P] and times [...]. `link` is
/// "log" (the paper's text) or "softplus" (its authors' code). Never below 1e-30, so that
/// log-probabilities of counts stay finite.
torch::Tensor negbin_mixed_effects_total_count(
    const torch::Tensor& x, const torch::Tensor& time, const torch::Tensor& intercept,
    const torch::Tensor& weight, const torch::Tensor& site_intercept,
    const torch::Tensor& site_slope, const std::string& link);

/// Quasi-information of each site's counts about its two effects, [S, 3] = (h00, h01, h11):
///   H_s = sum_t w_t W_ts [[1, t], [t, t^2]],  W = (d mean / d eta)^2 / Var[y] = mu'^2 q / mu.
/// A constant: no gradient flows through it. `weights` [...] like `time`; all 1 if absent.
torch::Tensor negbin_mixed_effects_information(const torch::Tensor& total_count,
                                               const torch::Tensor& time,
                                               const torch::Tensor& raw_probs,
                                               const std::optional<torch::Tensor>& weights,
                                               const std::string& link);

/// What is added to the negative log-likelihood for the site effects (a scalar):
///
/// "laplace"  sum_s [b_s' Sigma^-1 b_s / 2 + log det(I + Sigma H_s) / 2]: Laplace's approximation to
///            minus the log marginal likelihood, with the information H_s (above) held constant. b
///            is then the posterior mode given Sigma, and Sigma is fitted to what the sites' counts
///            support. Never negative.
/// "map"      -sum_s log N(b_s; 0, Sigma) - log p(s0^2) - log p(s1^2) [Eq. 18-20], with
///            inverse-gamma(shape 1, scale 0.1) priors on the variances. The paper gives none, but
///            without them the joint density of (b, Sigma) has no maximum: it grows without bound
///            as b = 0, Sigma -> 0, with a half-normal prior on s0, s1 too, whose density is finite
///            at 0. Even so its mode shrinks Sigma towards 0 as the sites grow in number.
/// "paper"    mean_s b_s' Sigma^-1 b_s / 2, as the authors' code has it: no log |Sigma|, and a mean
///            where the prior has a sum. It favours large Sigma, and soon does not regularise at all.
///
/// To hold Sigma fixed: raw_sigma.requires_grad_(false), and raw_rho. `information` is needed by
/// "laplace" and not read by the others.
torch::Tensor negbin_mixed_effects_penalty(const torch::Tensor& site_intercept,
                                           const torch::Tensor& site_slope,
                                           const torch::Tensor& raw_sigma,
                                           const torch::Tensor& raw_rho,
                                           const std::optional<torch::Tensor>& information,
                                           const std::string& penalty);

struct NegBinMixedEffectsOptions {
  std::string link = "log";         // "log" or "softplus"
  std::string penalty = "laplace";  // "laplace", "map" or "paper"
  double initial_mean = 1.0;        // mean count that the untrained model predicts, > 0
};

/// The model; Python's topreach.models.NegBinMixedEffects has the same parameter names:
///   intercept [], weight [P], site_intercept [S], site_slope [S], raw_probs [] (logit q),
///   raw_sigma [2] (softplus), raw_rho [] (tanh).
/// Starts at weight = 0, b = 0, q = 1/2, s0 = s1 = 0.3, rho = 0 and the intercept that gives
/// `initial_mean`. Scale time to about unit variance, so that one prior fits intercept and slope.
class NegBinMixedEffectsImpl : public torch::nn::Module {
 public:
  NegBinMixedEffectsImpl(int64_t num_sites, int64_t num_features,
                         const NegBinMixedEffectsOptions& options = {});

  /// Counts predicted for features x [..., S, P] and times [...].
  NegativeBinomial forward(const torch::Tensor& x, const torch::Tensor& time);

  /// See negbin_mixed_effects_penalty; x, time and weights are those of the counts being fitted.
  torch::Tensor penalty(const torch::Tensor& x, const torch::Tensor& time,
                        const std::optional<torch::Tensor>& weights = std::nullopt);

  torch::Tensor intercept, weight, site_intercept, site_slope, raw_probs, raw_sigma, raw_rho;
  NegBinMixedEffectsOptions options;

 private:
  torch::Tensor total_count(const torch::Tensor& x, const torch::Tensor& time) const;
};
TORCH_MODULE(NegBinMixedEffects);

}  // namespace topreach
