// Rates of sites by empirical Bayes: a discrete prior learnt from all sites, each site's past under it.
// Fitted in Python (topreach.models.EmpiricalBayesRates), which has the sources; same parameters.
//
//   z = exp(beta.(x - mean_s x))
//   rho_h = sum_g p_g u_g,  p = softmax_g(log w_hg + A_h log u_g - X_h z u_g)
//   b = log sum_h softmax(memory)_h z R_h rho_h
//   f = (log z R_h rho_h - b, log z R_h - b, log z R_h (A_h + 1/2) / (X_h z + 1/2) - b, b - mean_s b)
//   log mu = b + c.f + constant with sum_s mu = sum_s exp b
//   y ~ NegBin(total_count mu / phi, logits log phi)
// Shapes: statistics A, X, R [..., S, H] of SiteHistory; features x [..., S, P]; G points u.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <vector>

#include "../distributions/negative_binomial.h"

namespace topreach {

/// Parameters prior [H, G] (log w up to a constant), memory [H], weight [P] (beta), correction
/// [3 H + 1] (c), raw_dispersion [] (log phi).
class EmpiricalBayesRatesImpl : public torch::nn::Module {
 public:
  /// support: u_g > 0, ascending.
  EmpiricalBayesRatesImpl(std::vector<double> half_lives, int64_t num_features,
                          std::vector<double> support);

  /// Counts predicted for x [..., S, 3 H + P]: A, X and R, H of each, then the features.
  NegativeBinomial forward(const torch::Tensor& x);

  torch::Tensor prior, memory, weight, correction, raw_dispersion;
  std::vector<double> half_lives, support;
};
TORCH_MODULE(EmpiricalBayesRates);

}  // namespace topreach
