// Marginal likelihood of counts with two Gaussian effects per site, and optionally a Gaussian path of
// each site over the periods, by Laplace's approximation.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>
#include <tuple>

namespace topreach {

struct LaplaceMarginal {
  at::Tensor value;      // [S], log p(y_s)
  at::Tensor modes;      // [S, 2], u^_s, in standard deviations: the effects are loading u^;
                         // with a path [S, 2 + T], u^_s and then a^_s
  at::Tensor precision;  // [S, 3], of u_s: (h00, h01, h11), the path integrated out; a constant.
                         // With a path [S, 3 + T], and then the information of each count
};

struct LaplaceMarginalOptions {
  std::string_view family = "nb1";                      // "nb1", "nb2" or "poisson"
  std::string_view link = "log";                        // "log" or "softplus"
  std::optional<at::Tensor> dispersion = std::nullopt;  // [], see below
  std::optional<at::Tensor> zero_logit = std::nullopt;  // [], logit of the chance of an extra zero
  std::optional<at::Tensor> upper = std::nullopt;       // [T, S], y..upper for a censored count
  std::optional<at::Tensor> exposure = std::nullopt;    // [T, S], > 0
  std::optional<at::Tensor> weights = std::nullopt;     // [T, S], >= 0
  std::optional<at::Tensor> path = std::nullopt;        // [T, 2], rows (rho_t, s_t), see below
  int64_t quadrature = 1;                               // nodes in each effect; 1 is Laplace
};

/// log p(y_s) of each site, its counts independent given u_s ~ N(0, I_2):
///
///   y_ts ~ family(exposure_ts f(eta_ts + loading_t.u_s)),  f = exp ("log") or softplus
///   "poisson"  rate m;  "nb1"  NegBin(total_count m, logits dispersion);
///   "nb2"  NegBin(total_count e^dispersion, mean m);  with zero_logit: zero-inflated
///
/// Laplace's approximation: log p(y_s | u^) - u^.u^ / 2 - log det H / 2, H the observed information
/// of u at the mode u^. With `path` the linear predictor has one more term a_ts, the path of the site,
///
///   a_ts = rho_t a_{t-1,s} + s_t e_ts,  e_ts ~ N(0, 1),  a_0s = 0,
///
/// which is AR(1), a random walk or any Gaussian Markov path; e_s is then integrated out as u_s is.
/// Its rows (rho_t, s_t) may hold zeros.
///
/// eta [T, S], loading [T, 2] (row t is L' (1, t) for effects with covariance L L'; L may be
/// singular or 0), y [T, S] whole counts; with `upper` a count is known only to lie in y..upper. A cell
/// of weight 0 is not read, and may be NaN.
///
/// With quadrature = n > 1 value is by adaptive Gauss-Hermite quadrature instead: n x n nodes about
/// the mode, spread by H^-1 (Liu and Pierce 1994). Its error vanishes as n grows; it costs O(n^2 T S),
/// and there may be no path. Modes and precision stay those of Laplace.
///
/// If log p is not concave in eta, det H may come near 0, and Laplace's approximation would grow
/// without bound. So when det H falls below 1/2, log det H changes smoothly to the log determinant of
/// H without its negative information. `precision` then leaves out that information too.
///
/// The gradient of value and of modes, in eta, loading, path, dispersion and zero_logit, is exact: it
/// includes those of the mode and of the determinant. Once differentiable. Computed in float64 on the
/// CPU, for CUDA tensors too. Source: Tierney and Kadane 1986; Skaug and Fournier 2006. Cost O(T S);
/// threads share the sites, and the result does not depend on the number of threads.
///
/// Raises c10::ValueError for shapes that do not agree, unknown names, counts that are negative or
/// not whole, upper below y, exposure <= 0 or weights < 0. If the linear predictor overflows, value is
/// NaN.
///
///   auto fit = topreach::laplace_marginal(eta, loading, y, {.family = "poisson"});
///   (-fit.value.sum()).backward();
LaplaceMarginal laplace_marginal(const at::Tensor& eta, const at::Tensor& loading,
                                 const at::Tensor& y, const LaplaceMarginalOptions& options = {});

struct PathPosterior {
  at::Tensor draw;      // [S, 2 + T], of (u_s, a_s) minus their modes
  at::Tensor variance;  // [S, T], of a_ts
};

/// The normal approximation N(0, H^-1) to effects and path about their modes, given the counts: a
/// draw of it, and the path's variances. information [S, T] is the last part of `precision` above,
/// 0 where no count is known; loading and path [T, 2] as above; noise [S, 2 + T], standard normal.
/// Cost O(T S); no gradient. Source: Carter and Kohn 1994 (the draw); de Jong 1989 (the variances).
///
/// Raises c10::ValueError for shapes that do not agree.
///
///   auto fit = topreach::laplace_marginal(eta, loading, y, {.family = "poisson", .path = path});
///   auto [draw, variance] = topreach::laplace_path_posterior(
///       fit.precision.narrow(1, 3, y.size(0)), loading, path, torch::randn_like(fit.modes));
///   auto effects_and_path = fit.modes + draw;
PathPosterior laplace_path_posterior(const at::Tensor& information, const at::Tensor& loading,
                                     const at::Tensor& path, const at::Tensor& noise);

}  // namespace topreach
