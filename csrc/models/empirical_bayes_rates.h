// Rates of sites by empirical Bayes: a discrete prior is learnt from all sites, and each site's past
// updates it. Fitted by Python's topreach.models.EmpiricalBayesRates, which names the sources.
//
//   z     = exp(beta.(x - mean_s x))
//   rho_h = posterior mean of the risk, given A_h ~ Poisson(X_h z u), u ~ sum_g w_hg delta(u_g)
//   b     = log sum_h softmax(memory)_h z R_h rho_h
//   f     = (log z R_h rho_h - b, log z R_h - b, log z R_h (A_h + 1/2) / (X_h z + 1/2) - b,
//            b - mean_s b)
//   log mu = b + c.f + constant, such that sum_s mu = sum_s exp b
//   y ~ NegBin(total_count mu / phi, logits log phi)
//
// b is the logarithm of the base forecast; f are corrections of it with coefficients c.
//
// Shapes: statistics A, X, R [..., S, H], which SiteHistory calls A, m E and L m n; features x [..., S, P];
// G points u.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <optional>
#include <vector>

#include "../distributions/negative_binomial.h"

namespace topreach {

/// The three forecasts [..., S, H] of each memory.
struct EmpiricalBayesForecasts {
  torch::Tensor shrunken;  // z R rho
  torch::Tensor near;      // z R
  torch::Tensor own;       // z R (A + 1/2) / (X z + 1/2)
};

/// The forecasts from x [..., S, 3 H + P], with prior [H, G], weight [P] (beta) and support [G] (u).
EmpiricalBayesForecasts empirical_bayes_forecasts(const torch::Tensor& x,
                                                  const torch::Tensor& prior,
                                                  const torch::Tensor& weight,
                                                  const torch::Tensor& support);

/// b [..., S].
torch::Tensor empirical_bayes_base(const torch::Tensor& shrunken, const torch::Tensor& memory);

/// f [..., S, 3 H + 1].
torch::Tensor empirical_bayes_terms(const torch::Tensor& base,
                                    const EmpiricalBayesForecasts& forecasts);

/// mu [..., S], from 1e-8 to 1e8; without terms it is exp b.
torch::Tensor empirical_bayes_mean(const torch::Tensor& base,
                                   const std::optional<torch::Tensor>& terms,
                                   const std::optional<torch::Tensor>& correction);

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
