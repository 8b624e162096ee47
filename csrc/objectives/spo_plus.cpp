#include "spo_plus.h"

#include "topk_program.h"

namespace topreach {

ObjectiveValue spo_plus(const torch::Tensor& scores, const torch::Tensor& y,
                        const SPOPlusOptions& options) {
  const int64_t k = options.k;
  const TopKTarget target = topk_target("spo_plus", scores, y, k, options.target);
  const torch::Tensor gap = 2 * scores - target.y;
  const torch::Tensor loss = topk_program_value(gap, gap, k) - topk_program_value(gap, target.y, k);
  return topk_program_objective(loss, scores, y, target, k, options.weights);
}

}  // namespace topreach
