#include "quota_topk.h"

namespace topreach::kernels {

QuotaTree::QuotaTree(const QuotaGroups& groups) : sites_(groups.sites), k_(groups.k) {
  const auto count = size_t(groups.groups);
  const auto parent_of = [&](int32_t g) { return groups.parent ? groups.parent[g] : -1; };
  // Post-order. Children of group g are linked from the last to the first; index `count` is the root.
  std::vector<int32_t> first(count + 1, -1), next(count, -1);
  for (int32_t g = groups.groups - 1; g >= 0; --g) {
    const int32_t above = parent_of(g) < 0 ? groups.groups : parent_of(g);
    next[size_t(g)] = first[size_t(above)];
    first[size_t(above)] = g;
  }
  std::vector<int32_t> stack{groups.groups}, place(count + 1, -1);
  std::vector<int32_t> child(first);
  while (!stack.empty()) {
    const int32_t g = stack.back();
    if (child[size_t(g)] >= 0) {
      stack.push_back(child[size_t(g)]);
      child[size_t(g)] = next[size_t(child[size_t(g)])];
      continue;
    }
    stack.pop_back();
    place[size_t(g)] = int32_t(nodes_.size());
    Node node{};
    const bool root = g == groups.groups;
    node.group = root ? -1 : g;
    node.lower = root ? k_ : groups.lower[g];
    node.upper = root ? k_ : groups.upper[g];
    node.parent = node.first_child = node.next_sibling = -1;
    nodes_.push_back(node);
  }
  for (int32_t g = 0; g < groups.groups; ++g)
    if (place[size_t(g)] < 0) {
      fault_.found = fault_.circular = true;
      fault_.group = g;
      return;
    }
  for (int32_t g = 0; g < groups.groups; ++g) {
    const int32_t above = place[size_t(parent_of(g) < 0 ? groups.groups : parent_of(g))];
    Node& node = nodes_[size_t(place[size_t(g)])];
    node.parent = above;
    node.next_sibling = nodes_[size_t(above)].first_child;
    nodes_[size_t(above)].first_child = place[size_t(g)];
  }

  // Own sites of a node: the locked, then the free.
  node_of_.resize(size_t(sites_));
  for (int64_t s = 0; s < sites_; ++s) {
    const int32_t g = groups.group ? groups.group[s] : -1;
    const int8_t lock = groups.lock ? groups.lock[s] : int8_t(0);
    const int32_t at = lock < 0 ? -1 : place[size_t(g < 0 ? groups.groups : g)];
    node_of_[size_t(s)] = at;
    if (at < 0) continue;
    ++(lock > 0 ? nodes_[size_t(at)].locked : nodes_[size_t(at)].free);
  }
  std::vector<int64_t> locked_at(nodes_.size()), free_at(nodes_.size());
  int64_t filled = 0;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    Node& node = nodes_[i];
    node.own_begin = locked_at[i] = filled;
    free_at[i] = filled + node.locked;
    filled += node.locked + node.free;
    node.end = filled;
    node.begin = node.own_begin;
    for (int32_t c = node.first_child; c >= 0; c = nodes_[size_t(c)].next_sibling)
      node.begin = std::min(node.begin, nodes_[size_t(c)].begin);
  }
  order_.resize(size_t(filled));
  for (int64_t s = 0; s < sites_; ++s) {
    const int32_t at = node_of_[size_t(s)];
    if (at < 0) continue;
    const bool locked = groups.lock && groups.lock[s] > 0;
    order_[size_t((locked ? locked_at : free_at)[size_t(at)]++)] = int32_t(s);
  }
  find_fault();
}

void QuotaTree::find_fault() {
  std::vector<int64_t> least(nodes_.size()), most(nodes_.size());
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const Node& node = nodes_[i];
    int64_t low = node.locked, high = node.locked + node.free;
    for (int32_t c = node.first_child; c >= 0; c = nodes_[size_t(c)].next_sibling) {
      low += least[size_t(c)];
      high += most[size_t(c)];
    }
    if (low > node.upper || high < node.lower || node.lower > node.upper) {
      fault_ = {true, false, node.group, low, high, node.lower, node.upper};
      return;
    }
    least[i] = std::max(low, node.lower);
    most[i] = std::min(high, node.upper);
  }
}

template <typename T>
void QuotaTree::best(const T* score, QuotaScratch<T>& scratch, int32_t* chosen) const {
  auto& sites = scratch.sites;
  auto& optional = scratch.optional;
  sites.resize(order_.size());
  optional.resize(order_.size());
  scratch.forced_end.resize(nodes_.size());
  scratch.optional_end.resize(nodes_.size());
  // Node i holds its forced sites in sites[begin, forced_end[i]), the optional ones from there to
  // optional_end[i].
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const Node& node = nodes_[i];
    ScoredSite<T>* const own = sites.data() + node.own_begin;
    for (int64_t j = 0; j < node.locked + node.free; ++j) {
      const int32_t s = order_[size_t(node.own_begin + j)];
      own[j] = {score[s], s};
    }
    ScoredSite<T>* const begin = sites.data() + node.begin;
    ScoredSite<T>* forced = begin;
    ScoredSite<T>* end = sites.data() + node.end;
    if (node.first_child < 0) {
      forced += node.locked;
    } else {
      // Children are in the order of their places, which rises with begin.
      // Forced sites move to the front, in place; optional ones go by way of `optional`.
      ScoredSite<T>* put = optional.data();
      const auto take = [&](int64_t from, int64_t forced_end, int64_t optional_end) {
        put = std::copy(sites.data() + forced_end, sites.data() + optional_end, put);
        forced = std::copy(sites.data() + from, sites.data() + forced_end, forced);
      };
      // The list of children runs from the last group to the first; their sites are in the opposite order.
      std::vector<int32_t>& children = scratch.children;
      children.clear();
      for (int32_t c = node.first_child; c >= 0; c = nodes_[size_t(c)].next_sibling)
        children.push_back(c);
      for (auto c = children.rbegin(); c != children.rend(); ++c)
        take(nodes_[size_t(*c)].begin, scratch.forced_end[size_t(*c)],
             scratch.optional_end[size_t(*c)]);
      take(node.own_begin, node.own_begin + node.locked, node.end);
      end = std::copy(optional.data(), put, forced);
    }
    const int64_t must = forced - begin;
    const int64_t lower = std::max(node.lower, must), upper = node.upper;
    if (upper < end - begin) {
      if (upper > must) std::nth_element(forced, begin + upper - 1, end, better<T>);
      end = begin + upper;
    }
    if (lower > must && lower < end - begin)
      std::nth_element(forced, begin + lower - 1, end, better<T>);
    scratch.forced_end[i] = begin + lower - sites.data();
    scratch.optional_end[i] = end - sites.data();
  }
  for (int64_t j = 0; j < k_; ++j) chosen[j] = sites[size_t(j)].site;
}

template void QuotaTree::best(const float*, QuotaScratch<float>&, int32_t*) const;
template void QuotaTree::best(const double*, QuotaScratch<double>&, int32_t*) const;

}  // namespace topreach::kernels
