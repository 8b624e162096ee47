// Argument checks of ratio_ranking, the same on every device.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>

namespace topreach {

// `log_prob` as the operator takes it: joint [M, ...], or per site for "diagonal".
void check_ratio_ranking(const at::Tensor& samples, const std::optional<at::Tensor>& log_prob,
                         double offset, std::string_view estimator);

// The same for backward, whose grad and ranking have the shape of one sample.
void check_ratio_ranking_backward(const at::Tensor& grad, const at::Tensor& samples,
                                  const at::Tensor& ranking, double offset,
                                  std::string_view estimator);

}  // namespace topreach
