// Independent counts as the operator expected_ratio_ranking takes them.
#pragma once

#include <torch/types.h>

#include <optional>

#include "../ops/expected_ratio_ranking.h"

namespace topreach {

/// Family and parameters; see ops/expected_ratio_ranking.h for the names.
struct RatioFamily {
  const char* name;
  torch::Tensor first;
  std::optional<torch::Tensor> second = std::nullopt;

  torch::Tensor expected_ratio(
      double offset, const std::optional<torch::Tensor>& zero_probs = std::nullopt) const {
    return expected_ratio_ranking(name, first, second, zero_probs, offset);
  }
};

/// E[y_s / (offset + 1.y)] [..., S] of any distribution with `expected_ratio`.
///
///   topreach::NegativeBinomial y{total_count, logits};
///   auto r = topreach::expected_ratio_ranking(topreach::ZeroInflated{y, probs}, 1.0);
template <typename Distribution>
  requires requires(const Distribution& y) { y.expected_ratio(0.0); }
auto expected_ratio_ranking(const Distribution& y, double offset = 0.0) {
  return y.expected_ratio(offset);
}

}  // namespace topreach
