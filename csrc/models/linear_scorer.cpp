#include "linear_scorer.h"

#include <torch/library.h>
#include <torch/types.h>

#include "../require.h"

namespace topreach {

torch::Tensor scorer_forward(std::string_view function, const torch::Tensor& history,
                             const std::optional<torch::Tensor>& x,
                             const torch::Tensor& history_scale, int64_t window,
                             at::TensorList weights, at::TensorList biases) {
  TR_REQUIRE(!weights.empty() && weights.size() == biases.size(),
             "{}: weights and biases must be one each per layer, got {} and {}", function,
             weights.size(), biases.size());
  const int64_t num_features = weights[0].size(1) - window;
  const auto dtype = weights[0].scalar_type();
  TR_REQUIRE(history.defined() && history.dim() >= 2 && history.size(-1) == window,
             "{}: history must have shape [..., S, W] with W = {} past counts, got {}", function,
             window,
             history.defined() ? fmt::format("{}", history.sizes()) : "an undefined tensor");
  torch::Tensor h = history.to(dtype) / history_scale.to(dtype);
  if (num_features > 0) {
    TR_REQUIRE(x.has_value() && x->dim() >= 2 && x->size(-1) == num_features &&
                   x->sizes().slice(0, x->dim() - 1) == history.sizes().slice(0, history.dim() - 1),
               "{}: x must have shape [..., S, P] with P = {} features and the leading shape of "
               "history {}, got {}",
               function, num_features, history.sizes(), x ? fmt::format("{}", x->sizes()) : "none");
    h = torch::cat({h, x->to(dtype)}, -1);
  }
  for (size_t i = 0; i < weights.size(); ++i) {
    if (i > 0) h = torch::relu(h);
    h = at::linear(h, weights[i], biases[i]);
  }
  return h.squeeze(-1);
}

LinearScorerImpl::LinearScorerImpl(int64_t window_, int64_t num_features_)
    : window(window_),
      num_features(num_features_) {
  TR_REQUIRE(window >= 0 && num_features >= 0 && window + num_features > 0,
             "LinearScorer: window and num_features must not be negative, and not "
             "both be 0, got {} and {}",
             window, num_features);
  linear = register_module("linear", torch::nn::Linear(window + num_features, 1));
  linear->to(torch::kFloat);
  history_scale = register_buffer("history_scale", torch::ones({}, torch::kFloat));
}

torch::Tensor LinearScorerImpl::forward(const torch::Tensor& history,
                                        const std::optional<torch::Tensor>& x) {
  return scorer_forward("LinearScorer", history, x, history_scale, window, {linear->weight},
                        {linear->bias});
}

TORCH_LIBRARY_IMPL(topreach, CompositeImplicitAutograd, m) {
  m.impl("scorer_forward", scorer_forward);
}

}  // namespace topreach
