// STEMMED: forecasts of a fitted networked Hawkes process of events. Fitted by Python's
// topreach.models.Stemmed; the equations are in kernels/hawkes.h and ops/hawkes.h.
//
// Shapes: M nodes (place i, type s: i S + s), S sites that plans choose among (the places).
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <vector>

#include "../distributions/negative_binomial.h"

namespace topreach {

/// The state of a process at the time `end`, in buffers, and forecasts of its counts. Times are in the
/// calendar's unit (days, for dates). The module is not trainable: new events need a new fit.
class StemmedImpl : public torch::nn::Module {
 public:
  StemmedImpl();

  /// Raises c10::ValueError unless the buffers fit each other and `sites`, and the process is stable.
  void check(int64_t sites) const;

  /// Mean and variance, [S] each, of the counts of (from, to], from >= end, by hawkes_moments.
  std::tuple<torch::Tensor, torch::Tensor> moments(double from, double to) const;
  /// Negative binomials of these moments, [H, S], for H periods (edges[h], edges[h + 1]].
  NegativeBinomial forward(const std::vector<double>& edges) const;

  torch::Tensor base, decay, excitation;  // [M] mu, delta_k and S at `end`
  torch::Tensor jump;                     // [M, M], mean jump of S (receiver, source)
  torch::Tensor second;                   // [M, M, M] second moments of jumps, or [0]
  torch::Tensor weight;                   // [S, M]: what an event of a node adds to a site's count
  torch::Tensor end;                      // []
  torch::Tensor known;                    // int64 []: periods of counts that the fit knew
  torch::Tensor working, covariance;  // [M, P], [M, P, P] of the fit; predictions do not read them
};
TORCH_MODULE(Stemmed);

}  // namespace topreach
