#include "negbin_mixed_effects.h"

#include <torch/library.h>

#include <cmath>
#include <limits>

#include "../require.h"

namespace topreach {

namespace {

constexpr double kLeastTotalCount = 1e-30;
constexpr double kLeastVariance = 1e-300;  // of a path step of length 0: its root needs a slope
constexpr double kPriorShape = 1.0, kPriorScale = 0.1;  // of the variances, for "map"

bool is_softplus(const char* function, std::string_view link) {
  TR_REQUIRE(link == "log" || link == "softplus", "{}: link must be 'log' or 'softplus', got '{}'",
             function, link);
  return link == "softplus";
}

void check_penalty(const char* function, std::string_view penalty) {
  TR_REQUIRE(penalty == "laplace" || penalty == "map" || penalty == "paper",
             "{}: penalty must be 'laplace', 'map' or 'paper', got '{}'", function, penalty);
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

// The median gap between times that differ; 1 if there is none.
at::Tensor period_of(const at::Tensor& times) {
  const at::Tensor gaps = at::diff(times.detach());
  const double none = std::numeric_limits<double>::quiet_NaN();
  return at::nanmedian(gaps.masked_fill(gaps <= 0, none)).nan_to_num(1.0);
}

// log phi of phi = sigmoid(raw).
at::Tensor log_correlation(const at::Tensor& raw_path_rho) {
  return -at::softplus(-raw_path_rho).clamp_min(1e-30);
}

at::Tensor path_steps_of(const at::Tensor& time, const at::Tensor& reference,
                         const at::Tensor& raw_path_sigma,
                         const std::optional<at::Tensor>& raw_path_rho) {
  constexpr const char* name = "negbin_mixed_effects_path_steps";
  TR_REQUIRE(time.dim() == 1 && reference.dim() == 1,
             "{}: time and reference must have shape [T], got {} and {}", name, time.sym_sizes(),
             reference.sym_sizes());
  const at::Tensor sigma = at::softplus(raw_path_sigma);
  const at::Tensor gaps = (at::diff(time) / period_of(reference)).to(sigma.scalar_type());
  at::Tensor rho = at::ones_like(gaps), step = sigma * gaps.sqrt();
  at::Tensor first = at::zeros_like(sigma);
  if (raw_path_rho) {
    const at::Tensor log_rho = gaps * log_correlation(*raw_path_rho);
    rho = log_rho.exp();
    step = sigma * (-at::expm1(2 * log_rho)).clamp_min(kLeastVariance).sqrt();
    first = sigma;
  }
  const at::Tensor zero = at::zeros({1}, sigma.options());
  return at::stack({at::cat({zero, rho}), at::cat({first.unsqueeze(0), step})}, -1)
      .narrow_symint(0, 0, time.sym_size(0));
}

at::Tensor path_at(const at::Tensor& time, const at::Tensor& path_time,
                   const at::Tensor& path_effect, const std::optional<at::Tensor>& raw_path_rho) {
  constexpr const char* name = "negbin_mixed_effects_path_at";
  TR_REQUIRE(path_time.dim() == 1 && path_effect.dim() == 2 &&
                 path_effect.sym_size(0) == path_time.sym_size(0),
             "{}: path_effect must have shape [T, S] with T = {}, the number of "
             "path_time, got {}",
             name, path_time.numel(), path_effect.sym_sizes());
  std::vector<c10::SymInt> shape(time.sym_sizes().begin(), time.sym_sizes().end());
  shape.push_back(path_effect.sym_size(1));
  const int64_t last = path_time.size(0) - 1;
  if (last < 0) return at::zeros_symint(shape, path_effect.options());
  const at::Tensor t = time.flatten().to(path_time.scalar_type());
  const at::Tensor after = at::searchsorted(path_time, t, /*out_int32=*/false, /*right=*/true);
  const at::Tensor left = (after - 1).clamp_min(0), right = after.clamp_max(last);
  const double far = std::numeric_limits<double>::infinity();
  const at::Tensor period = period_of(path_time);
  const at::Tensor since =
      (t - path_time.index_select(0, left)).masked_fill(after == 0, far) / period;
  const at::Tensor until =
      (path_time.index_select(0, right) - t).masked_fill(after > last, far) / period;
  at::Tensor before_weight, after_weight;
  if (raw_path_rho) {
    const at::Tensor log_rho = log_correlation(*raw_path_rho).to(t.scalar_type());
    const auto left_over = [&](const at::Tensor& gap) { return -at::expm1(2 * log_rho * gap); };
    const at::Tensor both = left_over(since + until);
    before_weight = (log_rho * since).exp() * left_over(until) / both;
    after_weight = (log_rho * until).exp() * left_over(since) / both;
  } else {
    after_weight =
        (since / (since + until)).masked_fill(after > last, 0).masked_fill(after == 0, 1);
    before_weight = 1 - after_weight;
  }
  return (before_weight.unsqueeze(-1) * path_effect.index_select(0, left) +
          after_weight.unsqueeze(-1) * path_effect.index_select(0, right))
      .view_symint(shape);
}

at::Tensor total_count_of(const at::Tensor& x, const at::Tensor& time, const at::Tensor& intercept,
                          const at::Tensor& weight, const at::Tensor& site_intercept,
                          const at::Tensor& site_slope, std::string_view link,
                          const std::optional<at::Tensor>& path) {
  constexpr const char* name = "negbin_mixed_effects_total_count";
  const bool softplus = is_softplus(name, link);
  TR_REQUIRE(x.dim() >= 2 && x.sym_size(-1) == weight.sym_size(0) &&
                 x.sym_size(-2) == site_intercept.sym_size(0),
             "{}: x must have shape [..., S, P] with S = {} sites and P = {} "
             "features, got {}",
             name, site_intercept.sym_size(0), weight.sym_size(0), x.sym_sizes());
  TR_REQUIRE(time.sym_sizes() == x.sym_sizes().slice(0, x.dim() - 2),
             "{}: time must have the leading shape of x, {}, got {}", name,
             x.sym_sizes().slice(0, x.dim() - 2), time.sym_sizes());
  at::Tensor eta = at::matmul(x, weight) + intercept + site_intercept +
                   time.unsqueeze(-1).to(x.scalar_type()) * site_slope;
  if (path) eta = eta + *path;
  return (softplus ? at::softplus(eta) : eta.exp()).clamp_min(kLeastTotalCount);
}

at::Tensor slope_time_of(const at::Tensor& time, double until, double period, double damping) {
  constexpr const char* name = "negbin_mixed_effects_slope_time";
  TR_REQUIRE(damping >= 0 && damping <= 1, "{}: damping must be from 0 to 1, got {}", name,
             damping);
  TR_REQUIRE(period > 0, "{}: period must be positive, got {}", name, period);
  if (damping == 1) return time;
  const at::Tensor ahead = ((time - until) / period).clamp_min(0);
  const at::Tensor gone =
      damping > 0 ? damping * (1 - at::pow(damping, ahead)) / (1 - damping) : at::zeros_like(ahead);
  return time.clamp_max(until) + period * gone;
}

at::Tensor loading_of(const at::Tensor& time, const at::Tensor& raw_sigma,
                      const at::Tensor& raw_rho) {
  return at::matmul(at::stack({at::ones_like(time), time}, -1), factor_of(raw_sigma, raw_rho));
}

std::tuple<at::Tensor, at::Tensor> counts_of(const at::Tensor& total_count,
                                             const std::optional<at::Tensor>& dispersion,
                                             const std::optional<at::Tensor>& exposure,
                                             std::string_view family) {
  constexpr const char* name = "NegBinMixedEffects";
  TR_REQUIRE(!exposure || exposure->sym_sizes() == total_count.sym_sizes(),
             "{}: exposure must have shape {}, got {}", name, total_count.sym_sizes(),
             exposure ? exposure->sym_sizes() : total_count.sym_sizes());
  const at::Tensor mu =
      exposure ? total_count * exposure->to(total_count.scalar_type()) : total_count;
  if (family == "poisson") return {mu, at::empty({0}, mu.options())};
  TR_REQUIRE(family == "nb1" || family == "nb2",
             "{}: family must be 'nb1', 'nb2' or 'poisson', got '{}'", name, family);
  TR_REQUIRE(dispersion.has_value(), "{}: dispersion must be given for family '{}', got none", name,
             family);
  if (family == "nb1") return {mu, *dispersion};
  return {dispersion->exp().expand_symint(mu.sym_sizes()), mu.log() - *dispersion};
}

at::Tensor information_of(const at::Tensor& total_count, const at::Tensor& time,
                          const at::Tensor& mean, const at::Tensor& variance,
                          const std::optional<at::Tensor>& weights, std::string_view link) {
  const bool softplus = is_softplus("negbin_mixed_effects_information", link);
  const at::Tensor mu = total_count.detach(), m = mean.detach();
  const at::Tensor t = time.detach().to(mu.scalar_type()).unsqueeze(-1);
  const at::Tensor slope = softplus ? m * (-at::expm1(-mu) / mu) : m;  // d mean / d eta
  at::Tensor w = slope * (slope / variance.detach());
  if (weights) {
    const at::Tensor given = weights->detach().to(mu.scalar_type());
    w = w * (given.dim() == mu.dim() ? given : given.unsqueeze(-1));
  }
  const at::Tensor moments = at::stack({w, w * t, w * t * t}, -1);  // [..., S, 3]
  return moments.flatten(0, -3).sum(0);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> marginal_of(
    const at::Tensor& x, const at::Tensor& y, const at::Tensor& time,
    const std::optional<at::Tensor>& upper, const std::optional<at::Tensor>& exposure,
    const std::optional<at::Tensor>& weights, const at::Tensor& intercept, const at::Tensor& weight,
    const at::Tensor& raw_sigma, const at::Tensor& raw_rho,
    const std::optional<at::Tensor>& dispersion, const std::optional<at::Tensor>& zero_logit,
    const std::optional<at::Tensor>& path, std::string_view family, std::string_view link,
    int64_t quadrature) {
  auto [value, modes, precision] =
      laplace_marginal(at::matmul(x, weight) + intercept, loading_of(time, raw_sigma, raw_rho), y,
                       {.family = family,
                        .link = link,
                        .dispersion = dispersion,
                        .zero_logit = zero_logit,
                        .upper = upper,
                        .exposure = exposure,
                        .weights = weights,
                        .path = path,
                        .quadrature = quadrature});
  return {value, modes, precision};
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
  TR_REQUIRE(information.has_value(),
             "{}: information must be given for penalty 'laplace'; get it from "
             "negbin_mixed_effects_information",
             name);
  const at::Tensor h00 = information->select(-1, 0), h01 = information->select(-1, 1),
                   h11 = information->select(-1, 2);
  // det(I + Sigma H) = 1 + tr(Sigma H) + det(Sigma) det(H); det H >= 0 but for rounding.
  const at::Tensor a = s0 * s0, b = s1 * s1;
  const at::Tensor excess = a * h00 + 2 * rho * s0 * s1 * h01 + b * h11 +
                            a * b * rest * (h00 * h11 - h01 * h01).clamp_min(0);
  return quadratic.sum() + 0.5 * at::log1p(excess).sum();
}

at::Tensor inverse_softplus_of(const at::Tensor& y) { return y + (-at::expm1(-y)).log(); }

// Start values of intercept, raw_zero_probs, raw_sigma and raw_path_sigma, float64 [4].
at::Tensor start_of(double initial_mean, std::string_view link, bool zero_inflation) {
  constexpr const char* name = "NegBinMixedEffects";
  constexpr double kZeros = 0.1, kSigma = 0.3;
  TR_REQUIRE(std::isfinite(initial_mean) && initial_mean > 0,
             "{}: initial_mean must be positive and finite, got {}", name, initial_mean);
  const at::Tensor mean =
      at::full({}, initial_mean / (zero_inflation ? 1 - kZeros : 1.0), at::kDouble);
  const at::Tensor sigma = inverse_softplus_of(at::full({}, kSigma, at::kDouble));
  return at::stack({is_softplus(name, link) ? inverse_softplus_of(mean) : mean.log(),
                    at::full({}, std::log(kZeros / (1 - kZeros)), at::kDouble), sigma, sigma});
}

}  // namespace

torch::Tensor negbin_mixed_effects_total_count(const torch::Tensor& x, const torch::Tensor& time,
                                               const torch::Tensor& intercept,
                                               const torch::Tensor& weight,
                                               const torch::Tensor& site_intercept,
                                               const torch::Tensor& site_slope,
                                               const std::string& link,
                                               const std::optional<torch::Tensor>& path) {
  return total_count_of(x, time, intercept, weight, site_intercept, site_slope, link, path);
}

torch::Tensor negbin_mixed_effects_path_steps(const torch::Tensor& time,
                                              const torch::Tensor& reference,
                                              const torch::Tensor& raw_path_sigma,
                                              const std::optional<torch::Tensor>& raw_path_rho) {
  return path_steps_of(time, reference, raw_path_sigma, raw_path_rho);
}

torch::Tensor negbin_mixed_effects_path_at(const torch::Tensor& time,
                                           const torch::Tensor& path_time,
                                           const torch::Tensor& path_effect,
                                           const std::optional<torch::Tensor>& raw_path_rho) {
  return path_at(time, path_time, path_effect, raw_path_rho);
}

torch::Tensor negbin_mixed_effects_information(const torch::Tensor& total_count,
                                               const torch::Tensor& time, const torch::Tensor& mean,
                                               const torch::Tensor& variance,
                                               const std::optional<torch::Tensor>& weights,
                                               const std::string& link) {
  return information_of(total_count, time, mean, variance, weights, link);
}

torch::Tensor negbin_mixed_effects_slope_time(const torch::Tensor& time, double until,
                                              double period, double damping) {
  return slope_time_of(time, until, period, damping);
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
  TR_REQUIRE(num_sites >= 1, "{}: num_sites must be at least 1, got {}", name, num_sites);
  TR_REQUIRE(num_features >= 0, "{}: num_features must not be negative, got {}", name,
             num_features);
  TR_REQUIRE(options.family == "nb1" || options.family == "nb2" || options.family == "poisson",
             "{}: family must be 'nb1', 'nb2' or 'poisson', got '{}'", name, options.family);
  check_penalty(name, options.penalty);
  TR_REQUIRE(
      !options.site_path || *options.site_path == "ar1" || *options.site_path == "random_walk",
      "{}: site_path must be 'ar1', 'random_walk' or absent, got '{}'", name,
      options.site_path.value_or(""));
  TR_REQUIRE(options.site_slopes == "linear" || options.site_slopes == "damped" ||
                 options.site_slopes == "none",
             "{}: site_slopes must be 'linear', 'damped' or 'none', got '{}'", name,
             options.site_slopes);
  TR_REQUIRE(options.slope_damping >= 0 && options.slope_damping <= 1,
             "{}: slope_damping must be from 0 to 1, got {}", name, options.slope_damping);
  const torch::Tensor start =
      start_of(options.initial_mean, options.link, options.zero_inflation).to(torch::kFloat);
  // float32 whatever torch's default type is, as in Python.
  const auto zeros = [](at::IntArrayRef shape) { return torch::zeros(shape, torch::kFloat); };
  intercept = register_parameter("intercept", start[0].clone());
  weight = register_parameter("weight", zeros({num_features}));
  site_intercept = register_parameter("site_intercept", zeros({num_sites}));
  site_slope = register_parameter("site_slope", zeros({num_sites}), options.site_slopes != "none");
  if (options.family == "nb1") raw_probs = register_parameter("raw_probs", zeros({}));
  if (options.family == "nb2") raw_size = register_parameter("raw_size", zeros({}));
  if (options.zero_inflation)
    raw_zero_probs = register_parameter("raw_zero_probs", start[1].clone());
  raw_sigma = register_parameter("raw_sigma", start[2].expand({2}).clone());
  raw_rho = register_parameter("raw_rho", zeros({}));
  if (!options.site_path) return;
  raw_path_sigma = register_parameter("raw_path_sigma", start[3].clone());
  if (options.site_path == "ar1") raw_path_rho = register_parameter("raw_path_rho", zeros({}));
  path_time = register_buffer("path_time", zeros({0}));
  path_effect = register_buffer("path_effect", zeros({0, num_sites}));
}

std::optional<torch::Tensor> NegBinMixedEffectsImpl::path_rho() const {
  return raw_path_rho.defined() ? std::optional(raw_path_rho) : std::nullopt;
}

torch::Tensor NegBinMixedEffectsImpl::total_count(const torch::Tensor& x,
                                                  const torch::Tensor& time) const {
  std::optional<torch::Tensor> path;
  if (options.site_path) path = path_at(time, path_time, path_effect, path_rho());
  return total_count_of(x, slope_time(time), intercept, weight, site_intercept, site_slope,
                        options.link, path);
}

torch::Tensor NegBinMixedEffectsImpl::slope_time(const torch::Tensor& time) const {
  if (options.site_slopes != "damped") return time;
  return slope_time_of(time, options.slope_until, options.slope_period, options.slope_damping);
}

NegativeBinomial NegBinMixedEffectsImpl::forward(const torch::Tensor& x,
                                                 const torch::Tensor& time) {
  const CountDistribution counts = distribution(x, time);
  const auto* negative_binomial = counts.get_if<NegativeBinomial>();
  TR_REQUIRE(negative_binomial,
             "NegBinMixedEffects::forward: family must be 'nb1' or 'nb2' without "
             "zero inflation, got '{}'; call distribution, which any family has",
             options.family);
  return *negative_binomial;
}

CountDistribution NegBinMixedEffectsImpl::distribution(
    const torch::Tensor& x, const torch::Tensor& time,
    const std::optional<torch::Tensor>& exposure) {
  return distribution_of(total_count(x, time), exposure);
}

CountDistribution NegBinMixedEffectsImpl::distribution_of(
    const torch::Tensor& mu, const std::optional<torch::Tensor>& exposure) const {
  const auto inflated = [&](auto counts) -> CountDistribution {
    if (options.zero_inflation) return ZeroInflated{counts, raw_zero_probs.sigmoid()};
    return counts;
  };
  const auto [first, second] = counts_of(mu, dispersion(), exposure, options.family);
  if (options.family == "poisson") return inflated(Poisson{first});
  return inflated(NegativeBinomial{first, second});
}

std::optional<torch::Tensor> NegBinMixedEffectsImpl::dispersion() const {
  if (options.family == "poisson") return std::nullopt;
  return options.family == "nb1" ? raw_probs : raw_size;
}

torch::Tensor NegBinMixedEffectsImpl::penalty(const torch::Tensor& x, const torch::Tensor& time,
                                              const std::optional<torch::Tensor>& weights,
                                              const std::optional<torch::Tensor>& exposure) {
  TR_REQUIRE(!options.site_path,
             "NegBinMixedEffects::penalty: site_path must be absent for training by "
             "steps, got '{}'; maximise log_marginal",
             *options.site_path);
  std::optional<torch::Tensor> information;
  if (options.penalty == "laplace") {
    torch::NoGradGuard no_grad;
    const torch::Tensor mu = total_count(x, time);
    const CountDistribution counts = distribution_of(mu, exposure);
    information = information_of(mu, time, counts.mean(), counts.variance(), weights, options.link);
  }
  return penalty_of(site_intercept, site_slope, raw_sigma, raw_rho, information, options.penalty);
}

LaplaceMarginal NegBinMixedEffectsImpl::log_marginal(const torch::Tensor& x, const torch::Tensor& y,
                                                     const torch::Tensor& time,
                                                     const MarginalOptions& given) {
  const bool fitted = options.site_path && path_time.numel() > 0;
  return marginal(x, y, time, given, fitted ? path_time : time);
}

LaplaceMarginal NegBinMixedEffectsImpl::marginal(const torch::Tensor& x, const torch::Tensor& y,
                                                 const torch::Tensor& time,
                                                 const MarginalOptions& given,
                                                 const torch::Tensor& reference) const {
  constexpr const char* name = "NegBinMixedEffects::log_marginal";
  TR_REQUIRE(x.dim() == 3 && x.size(1) == site_intercept.size(0) && x.size(2) == weight.size(0),
             "{}: x must have shape [T, S, P] with S = {} sites and P = {} "
             "features, got {}",
             name, site_intercept.size(0), weight.size(0), x.sizes());
  TR_REQUIRE(time.dim() == 1 && time.size(0) == x.size(0),
             "{}: time must have shape [T] with T = {}, got {}", name, x.size(0), time.sizes());
  const auto wide = [](const torch::Tensor& tensor) { return tensor.to(torch::kDouble); };
  const auto optional = [&](const std::optional<torch::Tensor>& tensor) {
    return tensor ? std::optional(wide(*tensor)) : std::nullopt;
  };
  const torch::Tensor t = wide(time);
  std::optional<torch::Tensor> path;
  if (options.site_path) {
    TR_REQUIRE(t.diff().ge(0).all().item<bool>(),
               "{}: time must not decrease, for the path of a site goes from each "
               "period to the next, got {}; sort the periods",
               name, time);
    path = path_steps_of(t, wide(reference), wide(raw_path_sigma), optional(path_rho()));
  }
  auto [value, modes, precision] = marginal_of(
      wide(x), wide(y), t, optional(given.upper), optional(given.exposure), optional(given.weights),
      wide(intercept), wide(weight), wide(raw_sigma), wide(raw_rho), optional(dispersion()),
      options.zero_inflation ? std::optional(wide(raw_zero_probs)) : std::nullopt, path,
      options.family, options.link, given.quadrature);
  return {value, modes, precision};
}

void NegBinMixedEffectsImpl::set_effects(const torch::Tensor& x, const torch::Tensor& y,
                                         const torch::Tensor& time, const MarginalOptions& given) {
  torch::NoGradGuard no_grad;
  const torch::Tensor modes = marginal(x, y, time, given, time).modes;
  const torch::Tensor effects =
      at::matmul(modes.narrow(1, 0, 2),
                 factor_of(raw_sigma.to(torch::kDouble), raw_rho.to(torch::kDouble)).t());
  site_intercept.copy_(effects.select(1, 0));
  if (options.site_slopes != "none") site_slope.copy_(effects.select(1, 1));
  if (options.site_path) set_path(time, modes.narrow(1, 2, time.size(0)).t());
}

void NegBinMixedEffectsImpl::set_path(const torch::Tensor& time, const torch::Tensor& effect) {
  constexpr const char* name = "NegBinMixedEffects::set_path";
  torch::NoGradGuard no_grad;
  TR_REQUIRE(options.site_path.has_value(), "{}: the model must have a site_path, got one without",
             name);
  TR_REQUIRE(
      time.dim() == 1 && time.isfinite().all().item<bool>() && time.diff().ge(0).all().item<bool>(),
      "{}: time must be finite, of shape [T], and not decrease, got {}", name, time);
  TR_REQUIRE(effect.dim() == 2 && effect.size(0) == time.size(0) &&
                 effect.size(1) == site_intercept.size(0) && effect.isfinite().all().item<bool>(),
             "{}: effect must be finite, of shape [T, S] = [{}, {}], got {}", name, time.size(0),
             site_intercept.size(0), effect.sizes());
  path_time.resize_(time.sizes()).copy_(time);
  path_effect.resize_(effect.sizes()).copy_(effect);
}

TORCH_LIBRARY_IMPL(topreach, CompositeImplicitAutograd, m) {
  m.impl("negbin_mixed_effects_total_count", total_count_of);
  m.impl("negbin_mixed_effects_path_steps", path_steps_of);
  m.impl("negbin_mixed_effects_path_at", path_at);
  m.impl("negbin_mixed_effects_information", information_of);
  m.impl("negbin_mixed_effects_penalty", penalty_of);
  m.impl("negbin_mixed_effects_factor", factor_of);
  m.impl("negbin_mixed_effects_loading", loading_of);
  m.impl("negbin_mixed_effects_slope_time", slope_time_of);
  m.impl("negbin_mixed_effects_counts", counts_of);
  m.impl("negbin_mixed_effects_marginal", marginal_of);
  m.impl("negbin_mixed_effects_start", start_of);
  m.impl("inverse_softplus", inverse_softplus_of);
}

}  // namespace topreach
