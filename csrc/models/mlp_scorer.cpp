#include "mlp_scorer.h"

#include <torch/types.h>

#include "../require.h"

namespace topreach {

MLPScorerImpl::MLPScorerImpl(int64_t window_, int64_t num_features_, std::vector<int64_t> hidden_)
    : window(window_),
      num_features(num_features_),
      hidden(std::move(hidden_)) {
  TR_REQUIRE(window >= 0 && num_features >= 0 && window + num_features > 0,
             "MLPScorer: window and num_features must not be negative, and not both "
             "be 0, got {} and {}",
             window, num_features);
  int64_t width = window + num_features;
  for (const int64_t units : hidden) {
    TR_REQUIRE(units >= 1, "MLPScorer: hidden must hold positive sizes, got {}", units);
    layers->push_back(torch::nn::Linear(width, units));
    width = units;
  }
  layers->push_back(torch::nn::Linear(width, 1));
  register_module("layers", layers);
  layers->to(torch::kFloat);
  history_scale = register_buffer("history_scale", torch::ones({}, torch::kFloat));
}

torch::Tensor MLPScorerImpl::forward(const torch::Tensor& history,
                                     const std::optional<torch::Tensor>& x) {
  std::vector<torch::Tensor> weights, biases;
  for (size_t i = 0; i < layers->size(); ++i) {
    const auto* layer = layers[i]->as<torch::nn::Linear>();
    weights.push_back(layer->weight);
    biases.push_back(layer->bias);
  }
  return scorer_forward("MLPScorer", history, x, history_scale, window, weights, biases);
}

}  // namespace topreach
