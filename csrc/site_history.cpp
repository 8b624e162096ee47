#include "site_history.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <torch/library.h>

#include <cmath>

#include "../kernels/site_statistics.h"
#include "ops/negbin.h"
#include "ops/site_statistics.h"
#include "require.h"

namespace topreach {

torch::Tensor SiteHistory::statistics(const torch::Tensor& timeline,
                                      const std::vector<int64_t>& rows,
                                      const std::optional<torch::Tensor>& timeline_exposure,
                                      const std::optional<torch::Tensor>& exposure) const {
  std::vector<at::Tensor> starts, sites, weights;
  for (const Neighbours& graph : graphs) {
    starts.push_back(graph.start);
    sites.push_back(graph.sites);
    weights.push_back(graph.weights);
  }
  TR_REQUIRE(timeline.dim() == 2,
             "SiteHistory::statistics: timeline must have shape [N, S], got {}", timeline.sizes());
  return site_statistics(timeline.cpu(), rows, starts, sites, weights,
                         {.half_lives = half_lives,
                          .concentration = concentration,
                          .level = level,
                          .smoothing = smoothing,
                          .seasonal_smoothing = seasonal_smoothing,
                          .season = season,
                          .mean_exposure = mean_exposure},
                         timeline_exposure, exposure);
}

namespace {

// The normal prior of log kappa_j and the log shape: without it, data of few sites can send one to 0 or
// infinity.
const double kPriorMean = std::log(4.0);
constexpr double kPriorSd = 1.5;

// Loss for A_s ~ NegBin(shape, mean m_s E_s), m from the neighbourhoods.
at::Tensor concentration_loss(const at::Tensor& log_parameters, const at::Tensor& counts,
                              const at::Tensor& expected, const at::Tensor& near_counts,
                              const at::Tensor& near_expected) {
  constexpr const char* name = "site_concentration_loss";
  TR_REQUIRE(counts.dim() == 1 && expected.sizes() == counts.sizes(),
             "{}: counts and expected must have shape [S], got {} and {}", name, counts.sizes(),
             expected.sizes());
  TR_REQUIRE(near_counts.dim() == 2 && near_counts.size(1) == counts.size(0) &&
                 near_expected.sizes() == near_counts.sizes(),
             "{}: near_counts and near_expected must have shape [J, S], got {} and {}", name,
             near_counts.sizes(), near_expected.sizes());
  const int64_t graphs = near_counts.size(0);
  TR_REQUIRE(log_parameters.dim() == 1 && log_parameters.size(0) == graphs + 1,
             "{}: log_parameters must have shape [J + 1] = [{}], got {}", name, graphs + 1,
             log_parameters.sizes());
  at::Tensor m = at::ones_like(counts);
  for (int64_t j = 0; j < graphs; ++j) {
    m = kernels::shrunken_risk(near_counts[j], near_expected[j], log_parameters[j].exp(),
                               m.clamp_min(kernels::kRiskFloor));
  }
  // Sites without any past tell nothing: those with mean 0 are left out.
  const at::Tensor known = expected.gt(0);
  const at::Tensor mean = at::where(known, m * expected, at::ones_like(m));
  const at::Tensor log_shape = log_parameters[graphs];
  const at::Tensor log_prob =
      negbin_log_prob(counts, log_shape.exp().expand_as(counts), mean.log() - log_shape);
  const at::Tensor penalty = ((log_parameters - kPriorMean) / kPriorSd).square().sum() * 0.5;
  return penalty - at::where(known, log_prob, at::zeros_like(log_prob)).sum();
}

}  // namespace

TORCH_LIBRARY_IMPL(topreach, CompositeImplicitAutograd, m) {
  m.impl("site_concentration_loss", concentration_loss);
}

}  // namespace topreach
