// Mixture of Poissons, the rates shared over sites: Decision-aware training's mixture [Eq. 14] for counts.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include "../distributions/site_mixture.h"

namespace topreach {

struct PoissonMixtureStart {
  torch::Tensor log_rate, logits;
};
/// The parameters of a new PoissonMixture, at random.
PoissonMixtureStart poisson_mixture_start(int64_t num_sites, int64_t num_components,
                                          const MixtureOptions& options);

/// y_ts ~ sum_l w_sl Poisson(rate_l), the same for every period. Shared over sites: rate_l =
/// exp(log_rate_l); of each site: w_s = softmax(logits_s). Parameters log_rate [batch.., L], logits
/// [batch.., S, L], as in Python's topreach.models.PoissonMixture. Starts at random (torch's
/// generator): rates uniform on [low, high], w_s Dirichlet(1/2).
///
/// Raises for num_sites < 1, num_components < 1 and a range that is not 0 <= low < high < inf.
///
///   topreach::PoissonMixture model(1328, 4, topreach::MixtureOptions{.high = 8});
///   auto r = topreach::expected_ratio_ranking(model->forward(time));
class PoissonMixtureImpl : public torch::nn::Module {
 public:
  explicit PoissonMixtureImpl(int64_t num_sites, int64_t num_components = 2,
                              const MixtureOptions& options = {});

  /// Counts [batch.., T, S] at times [T].
  SiteMixture<Poisson> forward(const torch::Tensor& time);

  torch::Tensor log_rate, logits;
};
TORCH_MODULE(PoissonMixture);

}  // namespace topreach
