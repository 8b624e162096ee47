#include "normal_mixture.h"

#include <torch/library.h>
#include <torch/types.h>

namespace topreach {

namespace {

constexpr double kLeastScale = 0.2;

// softplus(x) = y.
torch::Tensor inverse_softplus(const torch::Tensor& y) { return y + (-torch::expm1(-y)).log(); }

}  // namespace

NormalMixtureStart normal_mixture_start(int64_t num_sites, int64_t num_components,
                                        const MixtureOptions& options) {
  const MixtureStart start = mixture_start("NormalMixture", num_sites, num_components, options);
  const double width = (options.high - options.low) / 4;
  const torch::Tensor excess =  // of the scale over .2
      torch::empty_like(start.location).uniform_(0.05, 0.05 + width);
  return {inverse_softplus(start.location), inverse_softplus(excess), start.logits};
}

NormalMixtureImpl::NormalMixtureImpl(int64_t num_sites, int64_t num_components,
                                     const MixtureOptions& options) {
  const NormalMixtureStart start = normal_mixture_start(num_sites, num_components, options);
  raw_mean = register_parameter("raw_mean", start.raw_mean);
  raw_scale = register_parameter("raw_scale", start.raw_scale);
  logits = register_parameter("logits", start.logits);
}

TruncatedNormal normal_mixture_components(const torch::Tensor& raw_mean,
                                          const torch::Tensor& raw_scale) {
  return {torch::softplus(raw_mean), kLeastScale + torch::softplus(raw_scale)};
}

SiteMixture<TruncatedNormal> NormalMixtureImpl::forward(const torch::Tensor& time) {
  const TruncatedNormal of = normal_mixture_components(raw_mean, raw_scale);
  return {mixture_over_time(logits, time),
          {mixture_over_time(of.loc.unsqueeze(-2), time),
           mixture_over_time(of.scale.unsqueeze(-2), time)}};
}

TORCH_LIBRARY_IMPL(topreach, CompositeImplicitAutograd, m) {
  m.impl("normal_mixture_start", [](int64_t num_sites, int64_t num_components, double low,
                                    double high, at::IntArrayRef batch) {
    const NormalMixtureStart of =
        normal_mixture_start(num_sites, num_components, {low, high, batch.vec()});
    return std::make_tuple(of.raw_mean, of.raw_scale, of.logits);
  });
  m.impl("normal_mixture_components",
         [](const torch::Tensor& raw_mean, const torch::Tensor& raw_scale) {
           const TruncatedNormal of = normal_mixture_components(raw_mean, raw_scale);
           return std::make_tuple(of.loc, of.scale);
         });
}

}  // namespace topreach
