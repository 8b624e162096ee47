// The best plan under quotas as steps that a block of threads can take: the part of QuotaTree
// (quota_topk.h) that does not depend on the scores, in flat arrays.
//
// A site is forced, optional or dropped. A step makes the best `force` of the optional sites in a
// range of `order` forced, and drops those after the best `keep`. How many sites are forced or
// optional in a group is known beforehand, so a step has fixed ranks, and a group whose quotas do not
// bind has no step. Steps of groups that contain no groups are independent of each other. A `small` step
// is short enough that each site counts the better ones.
#pragma once

#include <cstdint>
#include <vector>

#include "quota_topk.h"

namespace topreach::kernels {

struct QuotaStep {
  int32_t begin, end;          // places in `order`
  int32_t count, force, keep;  // optional sites, 0 <= force <= keep <= count
};

// The sites of a group that are neither locked nor in a group within it; the last entry has the sites in
// no group. lower and upper: the fewest and the most of these sites to choose.
struct QuotaFreeGroup {
  int32_t begin, end;  // places in `order`
  int32_t lower, upper;
};

constexpr int32_t kSmallQuotaStep = 64;
constexpr int32_t kNoQuotaStep = -1, kQuotaLockedIn = -2;

// Pointers may be to host or device memory.
struct QuotaSteps {
  const int32_t* order;          // [count] sites, a group's together; none that is locked out
  const int32_t* role;           // [count] number of its small step, kNoQuotaStep, kQuotaLockedIn
  const int32_t* group;          // [count] its free group
  const int32_t* lock;           // [S] 1, 0, -1
  const QuotaStep* small;        // [small_count]
  const QuotaStep* large;        // [large_count], in order
  const QuotaFreeGroup* groups;  // [groups_count]
  int64_t sites, k, count, small_count, large_count, groups_count;
  int64_t free_k;  // k minus the sites locked in
  int64_t rest;    // free_k minus the groups' lower, for disjoint groups: the size of the pool
};

// Owns the arrays of QuotaSteps, as one block of integers that can be copied elsewhere.
class QuotaStepArrays {
 public:
  // A tree without fault; small: the longest step that is `small`.
  explicit QuotaStepArrays(const QuotaTree& tree, int32_t small = kSmallQuotaStep) {
    const auto& nodes = tree.nodes();
    const auto& order = tree.order();
    steps_.sites = tree.sites();
    steps_.k = steps_.free_k = tree.k();
    steps_.count = int64_t(order.size());
    std::vector<int32_t> role(order.size(), kNoQuotaStep), group(order.size(), 0);
    std::vector<int32_t> lock(size_t(tree.sites()), 0);
    std::vector<QuotaStep> smalls, larges;
    std::vector<QuotaFreeGroup> groups;
    std::vector<int64_t> forced(nodes.size(), 0), optional(nodes.size(), 0);
    for (size_t s = 0; s < lock.size(); ++s)
      if (tree.node_of()[s] < 0) lock[s] = -1;
    const auto within = [](int64_t a, int64_t low, int64_t high) {
      return std::min(std::max(a, low), high);
    };
    for (size_t i = 0; i < nodes.size(); ++i) {
      const QuotaTree::Node& node = nodes[i];
      const int64_t free_begin = node.own_begin + node.locked;
      for (int64_t p = node.own_begin; p < node.end; ++p) {
        group[size_t(p)] = int32_t(i);
        if (p >= free_begin) continue;
        role[size_t(p)] = kQuotaLockedIn;
        lock[size_t(order[size_t(p)])] = 1;
      }
      steps_.free_k -= node.locked;
      const bool root = node.parent < 0, leaf = node.first_child < 0;
      groups.push_back({int32_t(free_begin), int32_t(node.end),
                        root ? 0 : int32_t(std::max<int64_t>(node.lower - node.locked, 0)),
                        root ? int32_t(tree.sites())
                             : int32_t(within(node.upper - node.locked, 0, tree.sites()))});
      const int64_t must = forced[i] + node.locked, count = optional[i] + node.free;
      const int64_t force = within(node.lower - must, 0, count);
      const int64_t keep = within(node.upper - must, force, count);
      if (!root) {
        forced[size_t(node.parent)] += must + force;
        optional[size_t(node.parent)] += keep - force;
      }
      if (force == 0 && keep == count) continue;
      const QuotaStep step{int32_t(leaf ? free_begin : node.begin), int32_t(node.end),
                           int32_t(count), int32_t(force), int32_t(keep)};
      if (leaf && step.end - step.begin <= small) {
        for (int64_t p = step.begin; p < step.end; ++p) role[size_t(p)] = int32_t(smalls.size());
        smalls.push_back(step);
      } else {
        larges.push_back(step);
      }
    }
    steps_.rest = steps_.free_k;
    for (const QuotaFreeGroup& g : groups) steps_.rest -= g.lower;
    steps_.small_count = int64_t(smalls.size());
    steps_.large_count = int64_t(larges.size());
    steps_.groups_count = int64_t(groups.size());
    const auto put = [&](const auto& values) {
      for (const int32_t value : values) numbers_.push_back(value);
    };
    const auto put_steps = [&](const std::vector<QuotaStep>& steps) {
      for (const QuotaStep& s : steps)
        put(std::vector<int32_t>{s.begin, s.end, s.count, s.force, s.keep});
    };
    put(order);
    put(role);
    put(group);
    put(lock);
    put_steps(smalls);
    put_steps(larges);
    for (const QuotaFreeGroup& g : groups)
      put(std::vector<int32_t>{g.begin, g.end, g.lower, g.upper});
  }
  const std::vector<int32_t>& numbers() const { return numbers_; }
  // The arrays within a copy of numbers().
  QuotaSteps at(const int32_t* numbers) const {
    QuotaSteps steps = steps_;
    steps.order = numbers;
    steps.role = steps.order + steps.count;
    steps.group = steps.role + steps.count;
    steps.lock = steps.group + steps.count;
    const int32_t* next = steps.lock + steps.sites;
    steps.small = reinterpret_cast<const QuotaStep*>(next);
    steps.large = steps.small + steps.small_count;
    steps.groups = reinterpret_cast<const QuotaFreeGroup*>(steps.large + steps.large_count);
    return steps;
  }

 private:
  std::vector<int32_t> numbers_;
  QuotaSteps steps_{};
};

}  // namespace topreach::kernels
