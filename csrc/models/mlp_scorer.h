// Multi-layer perceptron score of a site [Learning where to intervene, Sec. 3].
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/pimpl.h>

#include <optional>
#include <vector>

#include "linear_scorer.h"

namespace topreach {

/// r_s = MLP([y_{s,t-W:t-1} / scale, x_s]) with ReLU between layers and weights shared over sites and
/// times; 50 and 10 hidden units by default, as in the paper. Parameters layers.0.weight,
/// layers.0.bias, layers.1.weight, ..., buffer history_scale [] (1 until it is set), as in Python's
/// topreach.models.MLPScorer.
class MLPScorerImpl : public torch::nn::Module {
 public:
  explicit MLPScorerImpl(int64_t window, int64_t num_features = 0,
                         std::vector<int64_t> hidden = {50, 10});

  /// Scores [..., S] from history [..., S, W] and features x [..., S, P].
  torch::Tensor forward(const torch::Tensor& history,
                        const std::optional<torch::Tensor>& x = std::nullopt);

  int64_t window, num_features;
  std::vector<int64_t> hidden;
  torch::nn::ModuleList layers;
  torch::Tensor history_scale;
};
TORCH_MODULE(MLPScorer);

}  // namespace topreach
