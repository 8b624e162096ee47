// Regression of counts with an intercept and a slope over time for each site
// [Decision-aware training, Eq. 15 and Appendix E].
//
//   eta_ts = b0 + beta.x_ts + b0_s + b1_s t,  mu = exposure f(eta),  f = exp, link "log", or softplus
//   family "nb1" (the paper's)  y ~ NegBin(total_count mu, probs q), mean mu q / (1 - q)
//          "nb2"                y ~ NegBin(total_count size, mean mu)
//          "poisson"            y ~ Poisson(mu);  zero_inflation: 0 with chance pi, else of the family
//   (b0_s, b1_s) ~ N(0, Sigma),  Sigma from s0, s1, rho
//
// With site_path, eta_ts has one more term a_ts, a path for each site (Harvey 1989):
//   "ar1"          of mean 0 and standard deviation sa, Cov(a_t, a_t') = sa^2 phi^d, 0 < phi < 1
//   "random_walk"  0 at the first time, and then with increments of variance sa^2 d
// Here d is the distance between two times in periods; a period is the median gap of the fitted times.
//
// Unconstrained parameters: logit q, log size, logit pi, softplus^-1 of s0, s1 and sa, artanh rho,
// logit phi.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <limits>
#include <optional>
#include <string>

#include "../distributions/count_distribution.h"
#include "../ops/laplace_marginal.h"

namespace topreach {

/// mu [..., S]: total_count of the counts, from features x [..., S, P] and times [...]. `link` is
/// "log" (the paper's text) or "softplus" (its authors' code); `path` [..., S] is added to eta.
/// Never below 1e-30, so that log-probabilities of counts stay finite.
torch::Tensor negbin_mixed_effects_total_count(
    const torch::Tensor& x, const torch::Tensor& time, const torch::Tensor& intercept,
    const torch::Tensor& weight, const torch::Tensor& site_intercept,
    const torch::Tensor& site_slope, const std::string& link,
    const std::optional<torch::Tensor>& path = std::nullopt);

/// The path's steps [T, 2], rows (rho_t, s_t) of a_t = rho_t a_{t-1} + s_t e_t, e_t ~ N(0, 1), as
/// laplace_marginal takes them: AR(1), or a random walk if raw_path_rho is absent. time [T] must
/// not decrease; the median gap of `reference` [.] is one period. Differentiable in the parameters.
/// Raises c10::ValueError for times of another shape.
torch::Tensor negbin_mixed_effects_path_steps(const torch::Tensor& time,
                                              const torch::Tensor& reference,
                                              const torch::Tensor& raw_path_sigma,
                                              const std::optional<torch::Tensor>& raw_path_rho);

/// E[a(time)] [..., S] given the path's values path_effect [T, S] at path_time [T], ascending. At a
/// time of path_time this is the value there; between two, the Gaussian process's interpolation; d
/// periods after the last, phi^d times the last value (a random walk stays). 0 if T = 0. Raises
/// c10::ValueError for shapes that do not agree.
torch::Tensor negbin_mixed_effects_path_at(const torch::Tensor& time,
                                           const torch::Tensor& path_time,
                                           const torch::Tensor& path_effect,
                                           const std::optional<torch::Tensor>& raw_path_rho);

/// The time that the sites' slopes are multiplied by: `time` up to the last fitted one, and h periods
/// beyond it that of a damped trend with d = damping,
///   until + period (d + d^2 + ... + d^h) = until + period d (1 - d^h) / (1 - d)
/// (Gardner and McKenzie 1985, Forecasting trends in time series). With d = 1 the trend goes on
/// linearly, with d = 0 it stops. Raises c10::ValueError for damping outside 0..1.
torch::Tensor negbin_mixed_effects_slope_time(const torch::Tensor& time, double until,
                                              double period, double damping);

/// Quasi-information of each site's counts about its two effects, [S, 3] = (h00, h01, h11):
///   H_s = sum_t w_t W_ts [[1, t], [t, t^2]],  W = (d mean / d eta)^2 / variance,
/// from total_count f(eta), and the mean and the variance of the counts, all [..., S].
/// A constant: no gradient flows through it. `weights` [...] like `time`, or [..., S]; all 1 if absent.
torch::Tensor negbin_mixed_effects_information(const torch::Tensor& total_count,
                                               const torch::Tensor& time, const torch::Tensor& mean,
                                               const torch::Tensor& variance,
                                               const std::optional<torch::Tensor>& weights,
                                               const std::string& link);

/// L [2, 2], lower triangular, with L L' = Sigma.
torch::Tensor negbin_mixed_effects_factor(const torch::Tensor& raw_sigma,
                                          const torch::Tensor& raw_rho);

/// The penalty on the site effects, added to the negative log-likelihood (a scalar):
///
/// "laplace"  sum_s [b_s' Sigma^-1 b_s / 2 + log det(I + Sigma H_s) / 2]: Laplace's approximation to
///            minus the log marginal likelihood, with the information H_s (above) held constant. b
///            is then the posterior mode given Sigma, and Sigma is fitted to what the sites' counts
///            support. Never negative.
/// "map"      -sum_s log N(b_s; 0, Sigma) - log p(s0^2) - log p(s1^2) [Eq. 18-20], with
///            inverse-gamma(shape 1, scale 0.1) priors on the variances. The paper gives no priors,
///            but without them the joint density of (b, Sigma) has no maximum: it grows without
///            bound for b = 0, Sigma -> 0. Half-normal priors on s0, s1 do not prevent this, since
///            their density is finite at 0. Even with the inverse-gamma priors the mode shrinks
///            Sigma towards 0 as the number of sites grows.
/// "paper"    mean_s b_s' Sigma^-1 b_s / 2, as the authors' code has it: no log |Sigma|, and a mean
///            where the prior has a sum. It favours large Sigma, and soon does not regularise at all.
///
/// To hold Sigma fixed, call requires_grad_(false) on raw_sigma and raw_rho. "laplace" needs
/// `information`; the others do not read it.
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
  std::string family = "nb1";       // "nb1", "nb2" or "poisson"
  bool zero_inflation = false;      // whether there are extra zeros
  std::optional<std::string> site_path = std::nullopt;  // "ar1", "random_walk" or no path
  std::string site_slopes =
      "linear";                 // beyond the last fitted time: "linear" or "damped"; or "none"
  double slope_damping = 0.25;  // d of "damped", from 0 to 1
  double slope_until = std::numeric_limits<double>::infinity();  // the last fitted time
  double slope_period = 1;                                       // between two fitted times
};

/// Further arguments of log_marginal; tensors [T, S]. See laplace_marginal.
struct MarginalOptions {
  std::optional<torch::Tensor> upper = std::nullopt;     // counts known only as y..upper
  std::optional<torch::Tensor> exposure = std::nullopt;  // the mean is proportional to it
  std::optional<torch::Tensor> weights = std::nullopt;
  int64_t quadrature = 1;  // nodes in each effect; 1 is Laplace
};

/// The model; Python's topreach.models.NegBinMixedEffects has the same parameter names:
///   intercept [], weight [P], site_intercept [S], site_slope [S], raw_probs [] (logit q; "nb1") or
///   raw_size [] (log size; "nb2"), raw_zero_probs [] (logit pi; with zero_inflation),
///   raw_sigma [2] (softplus), raw_rho [] (tanh); with site_path raw_path_sigma [] (softplus) and,
///   for "ar1", raw_path_rho [] (sigmoid), and the buffers path_time [T] and path_effect [T, S], the
///   periods that were fitted and the path there.
/// Starts at weight = 0, b = 0, q = 1/2 or size = 1, pi = 0.1, s0 = s1 = sa = 0.3, rho = 0,
/// phi = 1/2, T = 0 and the intercept that gives `initial_mean`. Scale time to about unit variance, so
/// that one prior fits intercept and slope.
class NegBinMixedEffectsImpl : public torch::nn::Module {
 public:
  NegBinMixedEffectsImpl(int64_t num_sites, int64_t num_features,
                         const NegBinMixedEffectsOptions& options = {});

  /// Counts predicted for features x [..., S, P] and times [...] by a negative binomial family
  /// without zero inflation; raises for others, see `distribution`.
  NegativeBinomial forward(const torch::Tensor& x, const torch::Tensor& time);

  /// Counts predicted, of any family; exposure [..., S] is 1 if absent.
  CountDistribution distribution(const torch::Tensor& x, const torch::Tensor& time,
                                 const std::optional<torch::Tensor>& exposure = std::nullopt);

  /// See negbin_mixed_effects_penalty; x, time, weights [...] and exposure are those of the counts
  /// being fitted. Raises c10::ValueError for a model with site_path.
  torch::Tensor penalty(const torch::Tensor& x, const torch::Tensor& time,
                        const std::optional<torch::Tensor>& weights = std::nullopt,
                        const std::optional<torch::Tensor>& exposure = std::nullopt);

  /// log p(y_s) of each site, its effects integrated out by Laplace's approximation: `value` [S],
  /// with its gradient in all parameters but the site effects, which are not read; `modes` [S, 2]
  /// are the effects' conditional modes (in the factor's columns: effects = modes L'), and with
  /// site_path [S, 2 + T], with those of the path last. From x [T, S, P], counts y [T, S], time [T],
  /// which must not decrease if there is a path. Computed in float64.
  LaplaceMarginal log_marginal(const torch::Tensor& x, const torch::Tensor& y,
                               const torch::Tensor& time, const MarginalOptions& given = {});

  /// Sets the site effects, and the path, to their conditional modes given these counts.
  void set_effects(const torch::Tensor& x, const torch::Tensor& y, const torch::Tensor& time,
                   const MarginalOptions& given = {});

  /// Sets the path: effect [T, S] at the times [T], which must not decrease.
  void set_path(const torch::Tensor& time, const torch::Tensor& effect);

  torch::Tensor intercept, weight, site_intercept, site_slope, raw_sigma, raw_rho;
  torch::Tensor raw_probs, raw_size, raw_zero_probs;  // undefined if the model has none
  torch::Tensor raw_path_sigma, raw_path_rho, path_time, path_effect;  // likewise
  NegBinMixedEffectsOptions options;

 private:
  torch::Tensor total_count(const torch::Tensor& x, const torch::Tensor& time) const;
  torch::Tensor slope_time(const torch::Tensor& time) const;
  CountDistribution distribution_of(const torch::Tensor& mu,
                                    const std::optional<torch::Tensor>& exposure) const;
  std::optional<torch::Tensor> dispersion() const;
  std::optional<torch::Tensor> path_rho() const;
  // log_marginal, with the median gap of `reference` as one period.
  LaplaceMarginal marginal(const torch::Tensor& x, const torch::Tensor& y,
                           const torch::Tensor& time, const MarginalOptions& given,
                           const torch::Tensor& reference) const;
};
TORCH_MODULE(NegBinMixedEffects);

}  // namespace topreach
