#include "poisson_mixture.h"

#include <torch/library.h>
#include <torch/types.h>

namespace topreach {

PoissonMixtureStart poisson_mixture_start(int64_t num_sites, int64_t num_components,
                                          const MixtureOptions& options) {
  const MixtureStart start = mixture_start("PoissonMixture", num_sites, num_components, options);
  return {start.location.log(), start.logits};
}

PoissonMixtureImpl::PoissonMixtureImpl(int64_t num_sites, int64_t num_components,
                                       const MixtureOptions& options) {
  const PoissonMixtureStart start = poisson_mixture_start(num_sites, num_components, options);
  log_rate = register_parameter("log_rate", start.log_rate);
  logits = register_parameter("logits", start.logits);
}

SiteMixture<Poisson> PoissonMixtureImpl::forward(const torch::Tensor& time) {
  return {mixture_over_time(logits, time), {mixture_over_time(log_rate.exp().unsqueeze(-2), time)}};
}

TORCH_LIBRARY_IMPL(topreach, CompositeImplicitAutograd, m) {
  m.impl("poisson_mixture_start", [](int64_t num_sites, int64_t num_components, double low,
                                     double high, at::IntArrayRef batch) {
    const PoissonMixtureStart of =
        poisson_mixture_start(num_sites, num_components, {low, high, batch.vec()});
    return std::make_tuple(of.log_rate, of.logits);
  });
}

}  // namespace topreach
