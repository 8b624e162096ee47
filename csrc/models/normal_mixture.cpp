#include "normal_mixture.h"

#include <torch/types.h>

namespace topreach {

namespace {

constexpr double kLeastScale = 0.2;

// softplus(x) = y.
torch::Tensor inverse_softplus(const torch::Tensor& y) { return y + (-torch::expm1(-y)).log(); }

}  // namespace

NormalMixtureImpl::NormalMixtureImpl(int64_t num_sites, int64_t num_components,
                                     const MixtureOptions& options) {
  const MixtureStart start = mixture_start("NormalMixture", num_sites, num_components, options);
  const double width = (options.high - options.low) / 4;
  const torch::Tensor excess =  // of the scale over .2
      torch::empty_like(start.location).uniform_(0.05, 0.05 + width);
  raw_mean = register_parameter("raw_mean", inverse_softplus(start.location.clamp_min(1e-3)));
  raw_scale = register_parameter("raw_scale", inverse_softplus(excess));
  logits = register_parameter("logits", start.logits);
}

SiteMixture<TruncatedNormal> NormalMixtureImpl::forward(const torch::Tensor& time) {
  const torch::Tensor loc = torch::softplus(raw_mean),
                      scale = kLeastScale + torch::softplus(raw_scale);
  return {
      mixture_over_time(logits, time),
      {mixture_over_time(loc.unsqueeze(-2), time), mixture_over_time(scale.unsqueeze(-2), time)}};
}

}  // namespace topreach
