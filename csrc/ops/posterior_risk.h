// Posterior mean of relative risks under a discrete prior, and the prior by EM. The equations are in
// kernels/posterior_risk.h.
#pragma once

#include <ATen/core/Tensor.h>

namespace topreach {

/// Posterior means [..., H] of the relative risk, given counts A [..., H] that are Poisson(X u) with X
/// = expected [..., H]. `prior` [H, G] is log w up to a constant of each row; `support` [G] holds the
/// risks u > 0. Differentiable once in counts, expected and prior.
///
/// Raises c10::ValueError for shapes that do not agree.
at::Tensor posterior_risk(const at::Tensor& counts, const at::Tensor& expected,
                          const at::Tensor& prior, const at::Tensor& support);

/// log w [H, G], float64, by maximum likelihood for counts [S, H] ~ Poisson(expected [S, H] u):
/// `steps` steps of EM from equal weights. A millionth of the mass stays spread over all points, so
/// that none is ruled out. The result does not depend on the number of threads. No gradient.
at::Tensor discrete_prior(const at::Tensor& counts, const at::Tensor& expected,
                          const at::Tensor& support, int64_t steps);

}  // namespace topreach
