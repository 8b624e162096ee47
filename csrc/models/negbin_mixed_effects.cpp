#include "negbin_mixed_effects.h"

#include <torch/library.h>

#include <cmath>
#include <limits>

namespace topreach {

namespace {

constexpr double kLeastTotalCount = 1e-30;
constexpr double kPriorShape = 1.0, kPriorScale = 0.1;  // of the variances, for "map"

bool is_softplus(const char* function, std::string_view link) {
  TORCH_CHECK_VALUE(link == "log" || link == "softplus", function,
                    ": link must be 'log' or 'softplus', got '", link, "'");
  return link == "softplus";
}

void check_penalty(const char* function, std::string_view penalty) {
  TORCH_CHECK_VALUE(penalty == "laplace" || penalty == "map" || penalty == "paper", function,
                    ": penalty must be 'laplace', 'map' or 'paper', got '", penalty, "'");
}

// L with L L' = Sigma; 1 - tanh^2 as 1 / cosh^2, which does not cancel.
at::Tensor factor_of(const at::Tensor& raw_sigma, const at::Tensor& raw_rho) {
  const at::Tensor sigma = at::softplus(raw_sigma);
  const at::Tensor s0 = sigma.select(0, 0), s1 = sigma.select(0, 1);
  return at::stack({s0, at::zeros_like(s0), at::tanh(raw_rho) * s1, s1 / at::cosh(raw_rho)})
      .view({2, 2});
}

// -log density of an inverse-gamma variance [Gelman et al. 2013, Bayesian Data Analysis, A.1].
at::Tensor inverse_gamma(const at::Tensor& log_variance) {
  return (kPriorShape + 1) * log_variance + kPriorScale * at::exp(-log_variance) -
         kPriorShape * std::log(kPriorScale) + std::lgamma(kPriorShape);
}

at::Tensor total_count_of(const at::Tensor& x, const at::Tensor& time, const at::Tensor& intercept,
                          const at::Tensor& weight, const at::Tensor& site_intercept,
                          const at::Tensor& site_slope, std::string_view link) {
  constexpr const char* name = "negbin_mixed_effects_total_count";
  const bool softplus = is_softplus(name, link);
  TORCH_CHECK_VALUE(x.dim() >= 2 && x.sym_size(-1) == weight.sym_size(0) &&
                        x.sym_size(-2) == site_intercept.sym_size(0),
                    name, ": x must have shape [..., S, P] with S = ", site_intercept.sym_size(0),
                    " sites and P = ", weight.sym_size(0), " features, got ", x.sym_sizes());
  TORCH_CHECK_VALUE(time.sym_sizes() == x.sym_sizes().slice(0, x.dim() - 2), name,
                    ": time must have the leading shape of x, ",
                    x.sym_sizes().slice(0, x.dim() - 2), ", got ", time.sym_sizes());
  at::Tensor eta = at::matmul(x, weight) + intercept + site_intercept +
                   time.unsqueeze(-1).to(x.scalar_type()) * site_slope;
  return (softplus ? at::softplus(eta) : eta.exp()).clamp_min(kLeastTotalCount);
}

at::Tensor information_of(const at::Tensor& total_count, const at::Tensor& time,
                          const at::Tensor& raw_probs, const std::optional<at::Tensor>& weights,
                          std::string_view link) {
  const bool softplus = is_softplus("negbin_mixed_effects_information", link);
  const at::Tensor mu = total_count.detach();
  const at::Tensor t = time.detach().to(mu.scalar_type()).unsqueeze(-1);
  const at::Tensor slope = softplus ? -at::expm1(-mu) : mu;  // d mu / d eta
  at::Tensor w = slope * slope / mu * raw_probs.detach().sigmoid();
  if (weights) {
    const at::Tensor given = weights->detach().to(mu.scalar_type());
    w = w * (given.dim() == mu.dim() ? given : given.unsqueeze(-1));
  }
  const at::Tensor moments = at::stack({w, w * t, w * t * t}, -1);  // [..., S, 3]
  return moments.flatten(0, -3).sum(0);
}

at::Tensor penalty_of(const at::Tensor& site_intercept, const at::Tensor& site_slope,
                      const at::Tensor& raw_sigma, const at::Tensor& raw_rho,
                      const std::optional<at::Tensor>& information, std::string_view penalty) {
  constexpr const char* name = "negbin_mixed_effects_penalty";
  check_penalty(name, penalty);
  const at::Tensor sigma = at::softplus(raw_sigma);
  const at::Tensor s0 = sigma.select(0, 0), s1 = sigma.select(0, 1), rho = at::tanh(raw_rho);
  // 1 - tanh^2 as 1 / cosh^2, which does not cancel.
  const at::Tensor rest = at::cosh(raw_rho).pow(-2);
  const at::Tensor u = site_intercept / s0, v = site_slope / s1;
  const at::Tensor quadratic = (u * u - 2 * rho * u * v + v * v) / (2 * rest);
  if (penalty == "paper") return quadratic.mean();
  if (penalty == "map") {
    const at::Tensor v0 = 2 * s0.log(), v1 = 2 * s1.log();  // log variances
    const at::Tensor constant = 0.5 * (v0 + v1 + rest.log()) + std::log(2 * M_PI);
    return (quadratic + constant).sum() + inverse_gamma(v0) + inverse_gamma(v1);
  }
  TORCH_CHECK_VALUE(information.has_value(), name,
                    ": information must be given for penalty 'laplace'; get it from ",
                    "negbin_mixed_effects_information");
  const at::Tensor h00 = information->select(-1, 0), h01 = information->select(-1, 1),
                   h11 = information->select(-1, 2);
  // det(I + Sigma H) = 1 + tr(Sigma H) + det(Sigma) det(H); det H >= 0 but for rounding.
  const at::Tensor a = s0 * s0, b = s1 * s1;
  const at::Tensor excess = a * h00 + 2 * rho * s0 * s1 * h01 + b * h11 +
                            a * b * rest * (h00 * h11 - h01 * h01).clamp_min(0);
  return quadratic.sum() + 0.5 * at::log1p(excess).sum();
}

double inverse_softplus(double y) { return y + std::log(-std::expm1(-y)); }

}  // namespace

torch::Tensor negbin_mixed_effects_total_count(
    const torch::Tensor& x, const torch::Tensor& time, const torch::Tensor& intercept,
    const torch::Tensor& weight, const torch::Tensor& site_intercept,
    const torch::Tensor& site_slope, const std::string& link) {
  return total_count_of(x, time, intercept, weight, site_intercept, site_slope, link);
}

torch::Tensor negbin_mixed_effects_information(const torch::Tensor& total_count,
                                               const torch::Tensor& time,
                                               const torch::Tensor& raw_probs,
                                               const std::optional<torch::Tensor>& weights,
                                               const std::string& link) {
  return information_of(total_count, time, raw_probs, weights, link);
}

torch::Tensor negbin_mixed_effects_penalty(const torch::Tensor& site_intercept,
                                           const torch::Tensor& site_slope,
                                           const torch::Tensor& raw_sigma,
                                           const torch::Tensor& raw_rho,
                                           const std::optional<torch::Tensor>& information,
                                           const std::string& penalty) {
  return penalty_of(site_intercept, site_slope, raw_sigma, raw_rho, information, penalty);
}

torch::Tensor negbin_mixed_effects_factor(const torch::Tensor& raw_sigma,
                                          const torch::Tensor& raw_rho) {
  return factor_of(raw_sigma, raw_rho);
}

NegBinMixedEffectsImpl::NegBinMixedEffectsImpl(int64_t num_sites, int64_t num_features,
                                               const NegBinMixedEffectsOptions& given)
    : options(given) {
  constexpr const char* name = "NegBinMixedEffects";
  TORCH_CHECK_VALUE(num_sites >= 1, name, ": num_sites must be at least 1, got ", num_sites);
  TORCH_CHECK_VALUE(num_features >= 0, name, ": num_features must not be negative, got ",
                    num_features);
  TORCH_CHECK_VALUE(std::isfinite(options.initial_mean) && options.initial_mean > 0, name,
                    ": initial_mean must be positive and finite, got ", options.initial_mean);
  TORCH_CHECK_VALUE(
      options.family == "nb1" || options.family == "nb2" || options.family == "poisson", name,
      ": family must be 'nb1', 'nb2' or 'poisson', got '", options.family, "'");
  check_penalty(name, options.penalty);
  const double mean = options.initial_mean / (options.zero_inflation ? 0.9 : 1.0);
  const double start = is_softplus(name, options.link) ? inverse_softplus(mean) : std::log(mean);
  intercept = register_parameter("intercept", torch::full({}, start, torch::kFloat));
  weight = register_parameter("weight", torch::zeros({num_features}));
  site_intercept = register_parameter("site_intercept", torch::zeros({num_sites}));
  site_slope = register_parameter("site_slope", torch::zeros({num_sites}));
  if (options.family == "nb1") raw_probs = register_parameter("raw_probs", torch::zeros({}));
  if (options.family == "nb2") raw_size = register_parameter("raw_size", torch::zeros({}));
  if (options.zero_inflation) {
    raw_zero_probs = register_parameter("raw_zero_probs",
                                        torch::full({}, std::log(0.1 / 0.9), torch::kFloat));
  }
  raw_sigma =
      register_parameter("raw_sigma", torch::full({2}, inverse_softplus(0.3), torch::kFloat));
  raw_rho = register_parameter("raw_rho", torch::zeros({}));
}

torch::Tensor NegBinMixedEffectsImpl::total_count(const torch::Tensor& x,
                                                  const torch::Tensor& time) const {
  return total_count_of(x, time, intercept, weight, site_intercept, site_slope, options.link);
}

NegativeBinomial NegBinMixedEffectsImpl::forward(const torch::Tensor& x,
                                                 const torch::Tensor& time) {
  const CountDistribution counts = distribution(x, time);
  const auto* negative_binomial = std::get_if<NegativeBinomial>(&counts.any());
  TORCH_CHECK_VALUE(negative_binomial, "NegBinMixedEffects::forward: family must be 'nb1' or 'nb2' ",
                    "without zero inflation, got '", options.family,
                    "'; call distribution, which any family has");
  return *negative_binomial;
}

CountDistribution NegBinMixedEffectsImpl::distribution(
    const torch::Tensor& x, const torch::Tensor& time,
    const std::optional<torch::Tensor>& exposure) {
  const torch::Tensor mu = total_count(x, time);
  if (!exposure) return distribution_of(mu);
  TORCH_CHECK_VALUE(exposure->sizes() == mu.sizes(),
                    "NegBinMixedEffects: exposure must have shape ", mu.sizes(), ", got ",
                    exposure->sizes());
  return distribution_of(mu * exposure->to(mu.scalar_type()));
}

CountDistribution NegBinMixedEffectsImpl::distribution_of(const torch::Tensor& mu) const {
  const auto inflated = [&](auto counts) -> CountDistribution {
    if (options.zero_inflation) return ZeroInflated{counts, raw_zero_probs.sigmoid()};
    return counts;
  };
  if (options.family == "poisson") return inflated(Poisson{mu});
  if (options.family == "nb1") return inflated(NegativeBinomial{mu, raw_probs});
  return inflated(NegativeBinomial{raw_size.exp().expand_as(mu), mu.log() - raw_size});
}

torch::Tensor NegBinMixedEffectsImpl::penalty(const torch::Tensor& x, const torch::Tensor& time,
                                              const std::optional<torch::Tensor>& weights,
                                              const std::optional<torch::Tensor>& exposure) {
  std::optional<torch::Tensor> information;
  if (options.penalty == "laplace") {
    torch::NoGradGuard no_grad;
    const torch::Tensor mu = total_count(x, time);
    if (options.family == "nb1" && !options.zero_inflation && !exposure) {
      information = information_of(mu, time, raw_probs, weights, options.link);
    } else {
      // W above is (mu'/mu)^2 mu q w: q = 1, and the rest of mean^2 / variance in w.
      const CountDistribution counts = distribution(x, time, exposure);
      torch::Tensor share = counts.mean() / mu * (counts.mean() / counts.variance());
      if (weights) share = share * weights->unsqueeze(-1);
      information = information_of(
          mu, time, torch::full({}, std::numeric_limits<double>::infinity(), mu.options()), share,
          options.link);
    }
  }
  return penalty_of(site_intercept, site_slope, raw_sigma, raw_rho, information, options.penalty);
}

LaplaceMarginal NegBinMixedEffectsImpl::log_marginal(const torch::Tensor& x,
                                                     const torch::Tensor& y,
                                                     const torch::Tensor& time,
                                                     const MarginalOptions& given) {
  constexpr const char* name = "NegBinMixedEffects::log_marginal";
  TORCH_CHECK_VALUE(x.dim() == 3 && x.size(1) == site_intercept.size(0) &&
                        x.size(2) == weight.size(0),
                    name, ": x must have shape [T, S, P] with S = ", site_intercept.size(0),
                    " sites and P = ", weight.size(0), " features, got ", x.sizes());
  TORCH_CHECK_VALUE(time.dim() == 1 && time.size(0) == x.size(0), name,
                    ": time must have shape [T] with T = ", x.size(0), ", got ", time.sizes());
  const auto wide = [](const torch::Tensor& tensor) { return tensor.to(torch::kDouble); };
  const auto optional = [&](const std::optional<torch::Tensor>& tensor) {
    return tensor ? std::optional(wide(*tensor)) : std::nullopt;
  };
  LaplaceMarginalOptions options_of{options.family, options.link};
  if (options.family != "poisson")
    options_of.dispersion = wide(options.family == "nb1" ? raw_probs : raw_size);
  if (options.zero_inflation) options_of.zero_logit = wide(raw_zero_probs);
  options_of.upper = optional(given.upper);
  options_of.exposure = optional(given.exposure);
  options_of.weights = optional(given.weights);
  const torch::Tensor t = wide(time);
  return laplace_marginal(
      at::matmul(wide(x), wide(weight)) + wide(intercept),
      at::matmul(at::stack({at::ones_like(t), t}, -1), factor_of(wide(raw_sigma), wide(raw_rho))),
      wide(y), options_of);
}

void NegBinMixedEffectsImpl::set_effects(const torch::Tensor& x, const torch::Tensor& y,
                                         const torch::Tensor& time, const MarginalOptions& given) {
  torch::NoGradGuard no_grad;
  const torch::Tensor effects =
      at::matmul(log_marginal(x, y, time, given).modes,
                 factor_of(raw_sigma.to(torch::kDouble), raw_rho.to(torch::kDouble)).t());
  site_intercept.copy_(effects.select(1, 0));
  site_slope.copy_(effects.select(1, 1));
}

TORCH_LIBRARY_IMPL(topreach, CompositeImplicitAutograd, m) {
  m.impl("negbin_mixed_effects_total_count", total_count_of);
  m.impl("negbin_mixed_effects_information", information_of);
  m.impl("negbin_mixed_effects_penalty", penalty_of);
  m.impl("negbin_mixed_effects_factor", factor_of);
}

}  // namespace topreach
