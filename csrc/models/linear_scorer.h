// Linear score of a site from its recent counts and features [Learning where to intervene, Sec. 3].
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

#include <optional>

namespace topreach {

/// What scorers read of a site: its last W counts, oldest first, then its P features, [..., S, W +
/// P]. Raises unless history is [..., S, window] and x, if num_features > 0, [..., S,
/// num_features].
torch::Tensor scorer_input(const char* function, const torch::Tensor& history,
                           const std::optional<torch::Tensor>& x, int64_t window,
                           int64_t num_features);

/// r_s = w.[y_{s,t-W:t-1}, x_s] + b, the weights shared over sites and times. Parameters
/// linear.weight [1, W + P] and linear.bias [1], as in Python's topreach.models.LinearScorer.
class LinearScorerImpl : public torch::nn::Module {
 public:
  explicit LinearScorerImpl(int64_t window, int64_t num_features = 0);

  /// Scores [..., S] from history [..., S, W] and features x [..., S, P].
  torch::Tensor forward(const torch::Tensor& history,
                        const std::optional<torch::Tensor>& x = std::nullopt);

  int64_t window, num_features;
  torch::nn::Linear linear{nullptr};
};
TORCH_MODULE(LinearScorer);

}  // namespace topreach
