// Random quotas for the tests of the CUDA kernels: nested or disjoint groups, some empty, some of one
// site, binding or not, with locks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "../../kernels/programs/quota_topk.h"

namespace quota_cases {

struct Quotas {
  std::vector<int32_t> group, parent;
  std::vector<int64_t> lower, upper;
  std::vector<int8_t> lock;
  int64_t k = 0;

  int64_t sites() const { return int64_t(group.size()); }
  topreach::kernels::QuotaTree tree(const std::vector<int8_t>& locks) const {
    return topreach::kernels::QuotaTree({sites(), k, int32_t(lower.size()), group.data(),
                                         parent.empty() ? nullptr : parent.data(), lower.data(),
                                         upper.data(), locks.empty() ? nullptr : locks.data()});
  }
  topreach::kernels::QuotaTree tree() const { return tree(lock); }
};

// Quotas that some plan meets; over the trials k takes the values 0..sites.
inline Quotas random_quotas(std::mt19937& random, int sites, int groups, bool nested, int trial) {
  const auto below = [&](int n) { return int(random() % unsigned(std::max(n, 1))); };
  for (;;) {
    Quotas q;
    q.k = (trial++) % (sites + 1);
    const int most = 2 + sites / std::max(groups, 1);
    for (int g = 0; g < groups; ++g) {
      if (nested) q.parent.push_back(g == 0 ? -1 : below(g + 1) - 1);
      const int64_t a = below(most / 2), b = below(2 * most);
      q.lower.push_back(std::min(a, b));
      q.upper.push_back(std::max(a, b));
      if (below(4) == 0) q.upper.back() = int64_t{1} << 40;  // no limit
    }
    for (int s = 0; s < sites; ++s) q.group.push_back(below(groups + 1) - 1);
    if (trial % 3 == 0)
      for (int s = 0; s < sites; ++s) q.lock.push_back(int8_t(below(9) ? 0 : 2 * below(2) - 1));
    if (!q.tree().fault().found) return q;
  }
}

}  // namespace quota_cases
