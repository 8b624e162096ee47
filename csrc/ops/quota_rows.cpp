#include "quota_rows.h"

#include <algorithm>

#include "../require_plain.h"

namespace topreach {

std::string group_by_number(int32_t group) { return fmt::format("group {}", group); }

kernels::QuotaTree QuotaRows::tree(const std::vector<int8_t>& locks) const {
  kernels::QuotaGroups all;
  all.sites = sites;
  all.k = k;
  all.groups = groups();
  all.group = group.data();
  all.parent = parent.empty() ? nullptr : parent.data();
  all.lower = lower.data();
  all.upper = upper.data();
  all.lock = locks.empty() ? nullptr : locks.data();
  return kernels::QuotaTree(all);
}

void check_feasible(const char* function, const QuotaRows& quotas, const kernels::QuotaTree& tree,
                    const GroupName& name, const std::string& where) {
  const kernels::QuotaFault& fault = tree.fault();
  if (!fault.found) return;
  const auto refuse = [&](const std::string& got) {
    TR_REQUIRE(false, "{}: quotas must be feasible{}, got {}", function, where, got);
  };
  if (fault.circular) refuse(fmt::format("{} that lies within itself", name(fault.group)));
  if (fault.group < 0) {
    if (fault.least > quotas.k)
      refuse(fmt::format("lower bounds{} that sum to {} for k={}",
                         quotas.lock.empty() ? "" : " and locked sites", fault.least, quotas.k));
    refuse(fmt::format("only {} sites that may be chosen for k={}", fault.most, quotas.k));
  }
  // An upper bound that is no smaller than the group is not the cause.
  if (fault.lower > fault.upper && fault.upper < fault.most)
    refuse(fmt::format("at least {} and at most {} in {}", fault.lower, fault.upper,
                       name(fault.group)));
  if (fault.most < fault.lower) {
    const bool nested = std::ranges::find(quotas.parent, fault.group) != quotas.parent.end();
    refuse(fmt::format("at least {} in {} {} {} site{}{}", fault.lower, name(fault.group),
                       nested ? "where the groups within allow" : "that has", fault.most,
                       fault.most == 1 ? "" : "s",
                       quotas.lock.empty() ? "" : " that may be chosen"));
  }
  refuse(fmt::format("at most {} in {} where {} must be chosen", fault.upper, name(fault.group),
                     fault.least));
}

}  // namespace topreach
