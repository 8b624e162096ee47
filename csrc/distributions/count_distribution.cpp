#include "count_distribution.h"

#include <cmath>

#include "../require.h"

namespace topreach {

torch::Tensor CountDistribution::interval_log_prob(const torch::Tensor& low,
                                                   const torch::Tensor& high) const {
  constexpr const char* name = "interval_log_prob";
  TR_REQUIRE_TYPE(whole_counts() && independent_sites(),
                  "{}: distribution must be of whole counts of independent sites, got one that is "
                  "not. Fit another model, or take panel.at_bound('lower')",
                  name);
  TR_REQUIRE(low.sizes() == high.sizes(), "{}: low and high must have one shape, got {} and {}",
             name, low.sizes(), high.sizes());
  const torch::Tensor unknown = low.isnan();
  const torch::Tensor from = low.detach().masked_fill(unknown, 0);
  const torch::Tensor to = high.detach().masked_fill(unknown, 0);
  const torch::Tensor good = from.ge(0)
                                 .logical_and(from.eq(from.floor()))
                                 .logical_and(to.eq(to.floor()))
                                 .logical_and(from.le(to));
  TR_REQUIRE(good.all().item<bool>(),
             "{}: low and high must be whole numbers, 0 <= low <= high, got other values", name);
  const torch::Tensor width = to - from, first = site_log_prob(from);
  const int64_t widest = width.numel() > 0 ? int64_t(width.max().item<double>()) : 0;
  std::vector<torch::Tensor> parts = {first};
  for (int64_t step = 1; step <= widest; ++step) {
    const torch::Tensor inside = width.ge(step);
    const torch::Tensor part = site_log_prob(torch::where(inside, from + step, from));
    parts.push_back(part.masked_fill(inside.logical_not(), -INFINITY));
  }
  const torch::Tensor result = parts.size() > 1 ? torch::logsumexp(torch::stack(parts), 0) : first;
  return unknown.any().item<bool>() ? result.masked_fill(unknown, std::nan("")) : result;
}

torch::Tensor expected_ratio_ranking(const CountDistribution& y, double offset) {
  const std::optional<torch::Tensor> ratio = y.expected_ratio(offset);
  TR_REQUIRE_TYPE(ratio.has_value(),
                  "expected_ratio_ranking: distribution must know its expected ratio, got one that "
                  "does not; use ratio_ranking over draws");
  return *ratio;
}

}  // namespace topreach
