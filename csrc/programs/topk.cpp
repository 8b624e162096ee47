#include "topk.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "../metrics/bpr.h"
#include "../ops/expected_topk.h"
#include "../ops/perturbed_topk.h"
#include "../ops/topk_mask.h"
#include "../require.h"

namespace topreach {

TopK::TopK(int64_t k) : k_(k) {
  TR_REQUIRE(k >= 1, "TopK: k must be a whole number >= 1, got {}", k);
}

ProgramPtr TopK::from_config(ConfigReader& config) {
  return std::make_shared<TopK>(config.whole("k", 1));
}

ProgramConfig TopK::config() const { return {{"k", double(k_)}}; }

void TopK::check(const char* function, int64_t sites) const {
  TR_REQUIRE(k_ <= sites, "{}: k must be at most the number of sites S = {}, got {}", function,
             sites, k_);
}

at::Tensor TopK::best(const at::Tensor& values) const { return topk_mask(values, k_); }

at::Tensor TopK::soft(const at::Tensor& values, const SoftOptions& options) const {
  if (options.topk == "sampled") {
    return perturbed_topk(values, k_,
                          {options.sigma, options.num_samples, options.estimator, options.noise,
                           options.key, options.generator});
  }
  TR_REQUIRE(options.noise == "normal",
             "TopK.soft: noise must be 'normal' for topk '{}', got '{}'; use topk 'sampled' for "
             "other noise",
             options.topk, options.noise);
  return expected_topk(values, k_, {options.sigma, options.topk});
}

at::Tensor TopK::bpr(const at::Tensor& scores, const at::Tensor& y) const {
  return topreach::bpr(scores, y, k_);
}

at::Tensor TopK::soft_bpr(const at::Tensor& plan, const at::Tensor& y) const {
  return topreach::soft_bpr(plan, y, k_);
}

at::Tensor TopK::chance(const at::Tensor& samples) const {
  TR_REQUIRE(samples.dim() == 2 && samples.size(0) >= 1,
             "TopK.chance: samples must have shape [M, S] with M >= 1, got {}", samples.sizes());
  check("TopK.chance", samples.size(1));
  at::Tensor total = at::zeros({samples.size(1)}, samples.options().dtype(at::kDouble));
  const int64_t block = std::max<int64_t>(1, 4'000'000 / samples.size(1));
  for (const at::Tensor& part : samples.split(block)) {
    const at::Tensor last = std::get<0>(part.topk(k_, -1)).narrow(-1, k_ - 1, 1);
    const at::Tensor above = part.gt(last), level = part.eq(last);
    const at::Tensor share =
        (k_ - above.sum(-1, /*keepdim=*/true)).to(at::kDouble) / level.sum(-1, /*keepdim=*/true);
    total += above.sum(0) + (level * share).sum(0);
  }
  return total / double(samples.size(0));
}

}  // namespace topreach
