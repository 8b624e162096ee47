// The best K sites under quotas on groups that are disjoint or nested:
//
//   max r.x,  x in {0,1}^S,  sum x = K,  lower_g <= x(g) <= upper_g for every group g
//
// Groups form a tree: a municipality lies in a region, a region in a state. The root is the set of
// all sites, with lower = upper = K.
//
// From the leaves to the root, a group keeps two sets: `forced`, the sites that every best plan
// takes whatever the rest looks like, and `optional`, those that may follow, best first. A group
// unites its children's sets, moves its best optional sites to the forced ones until there are
// `lower`, and drops the worst until there are `upper`. At the root the forced sites are the plan.
// (A greedy algorithm on a laminar matroid; Gabow & Tarjan 1984 is one source of many.)
//
// The sets need not be sorted: only the best few of each are separated from the rest, in linear time.
// Cost: O(S depth). Equal scores: the lower index goes first, so the plan is unique.
//
// Whether quotas can be met does not depend on the scores. It is found once, for all rows of scores.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace topreach::kernels {

// The caller owns the arrays; only the constructor of QuotaTree reads them.
struct QuotaGroups {
  int64_t sites, k;
  int32_t groups = 0;
  const int32_t* group = nullptr;                    // [S], the narrowest group; -1: the root
  const int32_t* parent = nullptr;                   // [G], -1: the root; null: all of them
  const int64_t *lower = nullptr, *upper = nullptr;  // [G]
  const int8_t* lock = nullptr;                      // [S]: 1 in, -1 out, 0 free; null: all free
};

// Why quotas cannot be met: at `group` (-1: the root, whose bounds are K) at least `least` sites
// must be chosen, by the groups within it and by sites locked in, and at most `most` can be.
struct QuotaFault {
  bool found = false;
  bool circular = false;  // the group is its own ancestor
  int32_t group = -1;
  int64_t least = 0, most = 0, lower = 0, upper = 0;
};

template <typename T>
struct ScoredSite {
  T score;
  int32_t site;
};

template <typename T>
inline bool better(const ScoredSite<T>& a, const ScoredSite<T>& b) {
  return a.score > b.score || (a.score == b.score && a.site < b.site);
}

// Memory that a thread keeps from one row to the next.
template <typename T>
struct QuotaScratch {
  std::vector<ScoredSite<T>> sites, optional;
  std::vector<int64_t> forced_end, optional_end;
  std::vector<int32_t> children;
};

class QuotaTree {
 public:
  explicit QuotaTree(const QuotaGroups& groups);

  const QuotaFault& fault() const { return fault_; }
  int64_t sites() const { return sites_; }
  int64_t k() const { return k_; }

  // Writes the K sites of the best plan to `chosen` [K], in no order. `score` [S] has no NaN. Call
  // only if no fault was found.
  template <typename T>
  void best(const T* score, QuotaScratch<T>& scratch, int32_t* chosen) const;

  // Nodes of the tree, children before parents; the last is the root.
  struct Node {
    int32_t group;   // -1: the root
    int32_t parent;  // a node's place; -1 for the root
    int64_t lower, upper;
    int64_t begin, end;    // its sites in order(), its children's included
    int64_t locked, free;  // of its own sites, from own_begin on: locked in, then free ones
    int64_t own_begin;
    int32_t first_child = -1, next_sibling = -1;
  };
  const std::vector<Node>& nodes() const { return nodes_; }
  // Sites that are not locked out, in an order in which a node's sites and its children's are adjacent.
  const std::vector<int32_t>& order() const { return order_; }
  // The narrowest node that holds each site; -1 for a site that is locked out.
  const std::vector<int32_t>& node_of() const { return node_of_; }

 private:
  void find_fault();

  int64_t sites_, k_;
  std::vector<Node> nodes_;
  std::vector<int32_t> order_, node_of_;
  QuotaFault fault_;
};

// A plan that grows or shrinks by single sites, and which sites may join so that the quotas can still be
// met. Every plan that can be extended to K sites is allowed. O(depth) for each operation.
class QuotaRoom {
 public:
  explicit QuotaRoom(const QuotaTree& tree) : nodes_(tree.nodes()), needed_(nodes_.size(), 0) {
    for (size_t v = 0; v < nodes_.size(); ++v)
      if (nodes_[v].parent >= 0)
        needed_[size_t(nodes_[v].parent)] += std::max(needed_[v], nodes_[v].lower);
  }
  // Whether a site of this node may join. False for node -1, which stands for sites that are locked out.
  bool has_room(int32_t node) const {
    for (int32_t v = node; v >= 0; v = nodes_[size_t(v)].parent) {
      if (needed_[size_t(v)] < nodes_[size_t(v)].lower) return true;
      if (needed_[size_t(v)] >= nodes_[size_t(v)].upper) return false;
    }
    return node >= 0;
  }
  void join(int32_t node) {
    for (int32_t v = node; v >= 0; v = nodes_[size_t(v)].parent)
      if (++needed_[size_t(v)] <= nodes_[size_t(v)].lower) break;
  }
  void leave(int32_t node) {
    for (int32_t v = node; v >= 0; v = nodes_[size_t(v)].parent)
      if (--needed_[size_t(v)] < nodes_[size_t(v)].lower) break;
  }

 private:
  const std::vector<QuotaTree::Node>& nodes_;
  std::vector<int64_t> needed_;  // sites chosen in the node, plus those its groups still need
};

extern template void QuotaTree::best(const float*, QuotaScratch<float>&, int32_t*) const;
extern template void QuotaTree::best(const double*, QuotaScratch<double>&, int32_t*) const;

}  // namespace topreach::kernels
