// Linear score of a site from its recent counts and features [Learning where to intervene, Sec. 3].
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

#include <optional>
#include <string_view>

namespace topreach {

/// Scores [..., S] of a network with ReLU between its layers: weights[i] [out, in], biases[i] [out], the
/// last with one output. For each site it reads the last W counts, oldest first, divided by `history_scale`
/// (a scalar in the unit of the counts, so that nothing depends on that unit), then the P features.
/// Inputs are cast to the dtype of the weights.
///
/// Raises c10::ValueError, naming `function`, unless history is [..., S, window] and x, if the first
/// layer reads more than the history, is [..., S, P].
torch::Tensor scorer_forward(std::string_view function, const torch::Tensor& history,
                             const std::optional<torch::Tensor>& x,
                             const torch::Tensor& history_scale, int64_t window,
                             at::TensorList weights, at::TensorList biases);

/// r_s = w.[y_{s,t-W:t-1} / scale, x_s] + b, the weights shared over sites and times. Parameters
/// linear.weight [1, W + P] and linear.bias [1], buffer history_scale [] (1 until it is set), as in
/// Python's topreach.models.LinearScorer.
class LinearScorerImpl : public torch::nn::Module {
 public:
  explicit LinearScorerImpl(int64_t window, int64_t num_features = 0);

  /// Scores [..., S] from history [..., S, W] and features x [..., S, P].
  torch::Tensor forward(const torch::Tensor& history,
                        const std::optional<torch::Tensor>& x = std::nullopt);

  int64_t window, num_features;
  torch::nn::Linear linear{nullptr};
  torch::Tensor history_scale;
};
TORCH_MODULE(LinearScorer);

}  // namespace topreach
