#include "../../csrc/ops/perturbed_topk.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

namespace {

TEST(PerturbedTopK, RowsSumToK) {
  const auto scores = torch::randn({3, 40});
  const auto b = topreach::perturbed_topk(scores, 7, {.sigma = 0.5, .num_samples = 33});
  EXPECT_TRUE(torch::allclose(b.sum(-1), torch::full({3}, 7.f)));
}

}  // namespace
