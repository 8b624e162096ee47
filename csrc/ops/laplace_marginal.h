// Marginal likelihood of counts with two Gaussian effects per site, by Laplace's approximation.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>
#include <tuple>

namespace topreach {

struct LaplaceMarginal {
  at::Tensor value;      // [S], log p(y_s)
  at::Tensor modes;      // [S, 2], u^_s, in standard deviations: the effects are loading u^
  at::Tensor precision;  // [S, 3], minus the second derivative at u^: (h00, h01, h11); a constant
};

struct LaplaceMarginalOptions {
  std::string_view family = "nb1";  // "nb1", "nb2" or "poisson"
  std::string_view link = "log";    // "log" or "softplus"
  std::optional<at::Tensor> dispersion = std::nullopt;  // [], see below
  std::optional<at::Tensor> zero_logit = std::nullopt;  // [], logit of the chance of an extra zero
  std::optional<at::Tensor> upper = std::nullopt;       // [T, S], y..upper for a censored count
  std::optional<at::Tensor> exposure = std::nullopt;    // [T, S], > 0
  std::optional<at::Tensor> weights = std::nullopt;     // [T, S], >= 0
};

/// log p(y_s) of each site, its counts independent given u_s ~ N(0, I_2):
///
///   y_ts ~ family(exposure_ts f(eta_ts + loading_t.u_s)),  f = exp ("log") or softplus
///   "poisson"  rate m;  "nb1"  NegBin(total_count m, logits dispersion);
///   "nb2"  NegBin(total_count e^dispersion, mean m);  with zero_logit: zero-inflated
///
/// Laplace's approximation: log p(y_s | u^) - u^.u^ / 2 - log det H / 2, H the observed information of u
/// at the mode u^. eta [T, S], loading [T, 2] (row t is L' (1, t) for effects with covariance L L'; L
/// may be singular or 0), y [T, S] whole counts; with `upper` a count is known to lie in y..upper
/// only. A cell of weight 0 is not read, and may be NaN.
///
/// The gradient of value and of modes, in eta, loading, dispersion and zero_logit, is exact: that of the
/// mode and of the determinant are in it. Once differentiable. Computed in float64; on CUDA tensors
/// too it runs on the CPU. Source: MATH 5; Tierney and Kadane 1986; Skaug and Fournier 2006.
/// Cost O(T S); the sites are shared out over threads, and the result does not depend on their number.
///
/// Raises c10::ValueError for shapes that do not agree, unknown names, counts that are negative or not
/// whole, upper below y, exposure <= 0 or weights < 0. Where the linear predictor overflows value
/// is NaN.
///
///   auto fit = topreach::laplace_marginal(eta, loading, y, {.family = "poisson"});
///   (-fit.value.sum()).backward();
LaplaceMarginal laplace_marginal(const at::Tensor& eta, const at::Tensor& loading,
                                 const at::Tensor& y, const LaplaceMarginalOptions& options = {});

}  // namespace topreach
