#include "linear_scorer.h"

#include <torch/types.h>

#include "../require.h"

namespace topreach {

torch::Tensor scorer_input(const char* function, const torch::Tensor& history,
                           const std::optional<torch::Tensor>& x, int64_t window,
                           int64_t num_features) {
  TR_REQUIRE(history.dim() >= 2 && history.size(-1) == window,
             "{}: history must have shape [..., S, W] with W = {} past counts, got "
             "{}",
             function, window, history.sizes());
  if (num_features == 0) return history;
  TR_REQUIRE(x.has_value(),
             "{}: x must be given, for the model has {} features besides past counts", function,
             num_features);
  TR_REQUIRE(x->dim() >= 2 && x->size(-1) == num_features &&
                 x->sizes().slice(0, x->dim() - 1) == history.sizes().slice(0, history.dim() - 1),
             "{}: x must have shape [..., S, P] with P = {} features and the "
             "leading shape of history {}, got {}",
             function, num_features, history.sizes(), x->sizes());
  return torch::cat({history, *x}, -1);
}

LinearScorerImpl::LinearScorerImpl(int64_t window_, int64_t num_features_)
    : window(window_),
      num_features(num_features_) {
  TR_REQUIRE(window >= 0 && num_features >= 0 && window + num_features > 0,
             "LinearScorer: window and num_features must not be negative, and not "
             "both be 0, got {} and {}",
             window, num_features);
  linear = register_module("linear", torch::nn::Linear(window + num_features, 1));
}

torch::Tensor LinearScorerImpl::forward(const torch::Tensor& history,
                                        const std::optional<torch::Tensor>& x) {
  return linear(scorer_input("LinearScorer", history, x, window, num_features)).squeeze(-1);
}

}  // namespace topreach
