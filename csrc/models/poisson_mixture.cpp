#include "poisson_mixture.h"

#include <torch/types.h>

namespace topreach {

PoissonMixtureImpl::PoissonMixtureImpl(int64_t num_sites, int64_t num_components,
                                       const MixtureOptions& options) {
  const MixtureStart start = mixture_start("PoissonMixture", num_sites, num_components, options);
  log_rate = register_parameter("log_rate", start.location.clamp_min(1e-3).log());
  logits = register_parameter("logits", start.logits);
}

SiteMixture<Poisson> PoissonMixtureImpl::forward(const torch::Tensor& time) {
  return {mixture_over_time(logits, time), {mixture_over_time(log_rate.exp().unsqueeze(-2), time)}};
}

}  // namespace topreach
