// Mixture of truncated normals, the components shared over sites [Decision-aware training, Eq. 14, 17].
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include "../distributions/site_mixture.h"

namespace topreach {

/// mu_l = softplus(raw_mean_l) and scale_l = .2 + softplus(raw_scale_l). The .2 keeps a component from
/// collapsing on one count [App. D].
TruncatedNormal normal_mixture_components(const torch::Tensor& raw_mean,
                                          const torch::Tensor& raw_scale);

struct NormalMixtureStart {
  torch::Tensor raw_mean, raw_scale, logits;
};
/// The parameters of a new NormalMixture, at random.
NormalMixtureStart normal_mixture_start(int64_t num_sites, int64_t num_components,
                                        const MixtureOptions& options);

/// y_ts ~ sum_l w_sl N+(mu_l, scale_l^2), the same for every period. Shared over sites: mu_l =
/// softplus(raw_mean_l) and scale_l = .2 + softplus(raw_scale_l) [App. D]; of each site: w_s =
/// softmax(logits_s). Parameters raw_mean [batch.., L], raw_scale [batch.., L], logits [batch.., S, L],
/// as in Python's topreach.models.NormalMixture. Starts at random (torch's generator): mu uniform on
/// [low, high], scale uniform on [.25, .25 + (high - low) / 4], w_s Dirichlet(1/2).
///
/// Raises for num_sites < 1, num_components < 1 and a range that is not 0 <= low < high < inf.
///
///   topreach::NormalMixture model(7, 2, topreach::MixtureOptions{.high = 100});
///   auto r = topreach::expected_ratio_ranking(model->forward(time));
class NormalMixtureImpl : public torch::nn::Module {
 public:
  explicit NormalMixtureImpl(int64_t num_sites, int64_t num_components = 2,
                             const MixtureOptions& options = {});

  /// Counts [batch.., T, S] at times [T].
  SiteMixture<TruncatedNormal> forward(const torch::Tensor& time);

  torch::Tensor raw_mean, raw_scale, logits;
};
TORCH_MODULE(NormalMixture);

}  // namespace topreach
