#include "perturbation_gradient.h"

#include <cmath>

#include "../require.h"
#include "topk_program.h"

namespace topreach {

ObjectiveValue perturbation_gradient(const torch::Tensor& scores, const torch::Tensor& y,
                                     const PerturbationGradientOptions& options) {
  constexpr const char* name = "perturbation_gradient";
  const int64_t k = options.k;
  const double h = options.sigma;
  TR_REQUIRE(h > 0 && std::isfinite(h), "{}: sigma must be positive and finite, got {}", name, h);
  const TopKTarget target = topk_target(name, scores, y, k, options.target);
  const torch::Tensor up = options.two_sides ? scores + h * target.y : scores;
  const torch::Tensor down = scores - h * target.y;
  const torch::Tensor loss = (topk_program_value(down, down, k) - topk_program_value(up, up, k)) /
                             (options.two_sides ? 2 * h : h);
  return topk_program_objective(loss, scores, y, target, k, options.weights);
}

}  // namespace topreach
