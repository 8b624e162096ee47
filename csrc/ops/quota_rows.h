// Quotas as plain arrays, and a check that they can be met. Uses no tensors.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "../../kernels/programs/quota_topk.h"

namespace topreach {

// The name of a group by its number: "municipality '0900137000'" or "group 3".
using GroupName = std::function<std::string(int32_t)>;
std::string group_by_number(int32_t group);

struct QuotaRows {
  int64_t sites = 0, k = 0;
  std::vector<int32_t> group, parent;  // [S], [G]; parent may be empty
  std::vector<int64_t> lower, upper;   // [G]
  std::vector<int8_t> lock;            // [S] or empty

  int32_t groups() const { return int32_t(lower.size()); }
  kernels::QuotaTree tree() const { return tree(lock); }
  kernels::QuotaTree tree(const std::vector<int8_t>& locks) const;
};

// Raises, in the words "quotas must be feasible, got ...", if the tree has a fault.
void check_feasible(const char* function, const QuotaRows& quotas, const kernels::QuotaTree& tree,
                    const GroupName& name, const std::string& where = "");

}  // namespace topreach
