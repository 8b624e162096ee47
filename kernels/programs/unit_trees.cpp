#include "unit_trees.h"

#include <algorithm>
#include <bit>

namespace topreach::kernels {
namespace {

constexpr uint8_t kFar = 255;

void set_bit(uint64_t* bits, int32_t v) { bits[v >> 6] |= uint64_t(1) << (v & 63); }

template <typename Visit>
void for_each_bit(const uint64_t* bits, size_t words, const Visit& visit) {
  for (size_t w = 0; w < words; ++w)
    for (uint64_t left = bits[w]; left; left &= left - 1)
      visit(int32_t(w * 64) + std::countr_zero(left));
}

}  // namespace

UnitTrees::UnitTrees(const Graph& graph, std::span<const int32_t> terminals,
                     std::span<const char> open, int most)
    : levels_(size_t(most) + 1),
      full_((size_t(1) << (terminals.size() - 1)) - 1) {
  const auto n = size_t(graph.nodes());
  const size_t t = terminals.size();
  std::vector<uint8_t> steps(t * n, kFar);
  std::vector<int32_t> queue;
  for (size_t s = 0; s < t; ++s) {
    uint8_t* const own = &steps[s * n];
    queue.assign(1, terminals[s]);
    own[terminals[s]] = 0;
    for (size_t i = 0; i < queue.size() && int(own[queue[i]]) < most; ++i)
      for (const int32_t v : graph.of(queue[i]))
        if (open[size_t(v)] && own[v] == kFar) {
          own[v] = uint8_t(own[queue[i]] + 1);
          queue.push_back(v);
        }
  }
  std::vector<int32_t> place(n, -1);
  for (size_t v = 0; v < n; ++v) {
    bool fits = true;
    for (size_t s = 0; s < t && fits; ++s) fits = steps[s * n + v] != kFar;
    for (size_t s = 1; s < t && fits; ++s)
      for (size_t r = 0; r < s && fits; ++r)
        fits =
            steps[s * n + v] + steps[r * n + v] + steps[s * n + size_t(terminals[r])] <= 2 * most;
    if (!fits) continue;
    place[v] = int32_t(nodes_.size());
    nodes_.push_back(int32_t(v));
  }
  count_ = int32_t(nodes_.size());
  words_ = (nodes_.size() + 63) / 64;
  start_.push_back(0);
  for (const int32_t v : nodes_) {
    for (const int32_t u : graph.of(v))
      if (place[size_t(u)] >= 0) ends_.push_back(place[size_t(u)]);
    start_.push_back(int32_t(ends_.size()));
  }
  for (const int32_t v : terminals) terminals_.push_back(place[size_t(v)]);
  near_.assign(t * levels_ * words_, 0);
  for (size_t s = 0; s < t; ++s)
    for (int32_t v = 0; v < count_; ++v)
      for (auto l = size_t(steps[s * n + size_t(nodes_[size_t(v)])]); l < levels_; ++l)
        set_bit(&near_[at(s, l)], v);
  reach_.assign((full_ + 1) * levels_ * words_, 0);
  fresh_.assign(reach_.size(), 0);
  used_.assign(full_ + 1, 0);
  last_.assign(full_ + 1, 0);
  least_.assign((full_ + 1) * nodes_.size(), kFar);
}

int UnitTrees::solve() {
  const size_t root = terminals_.size() - 1;
  for (const int32_t place : terminals_)
    if (place < 0) return -1;
  std::vector<uint64_t> found(words_), useful(words_);
  for (size_t set = 1; set <= full_; ++set)
    for (size_t l = 0; l < levels_; ++l) {
      // The remaining edges must reach each terminal that is not in the set.
      std::copy_n(&near_[at(root, levels_ - 1 - l)], words_, useful.data());
      for (size_t s = 0; s < root; ++s) {
        if (set >> s & 1) continue;
        const uint64_t* const mask = &near_[at(s, levels_ - 1 - l)];
        for (size_t w = 0; w < words_; ++w) useful[w] &= mask[w];
      }
      if (std::all_of(useful.begin(), useful.end(), [](uint64_t w) { return w == 0; })) break;
      last_[set] = l;
      std::fill(found.begin(), found.end(), 0);
      uint64_t *const here = &reach_[at(set, l)], *const fresh = &fresh_[at(set, l)];
      if (l == 0 && (set & (set - 1)) == 0)
        set_bit(found.data(), terminals_[size_t(std::countr_zero(set))]);
      if (l > 0) {
        std::copy_n(&reach_[at(set, l - 1)], words_, here);
        for_each_bit(&fresh_[at(set, l - 1)], words_, [&](int32_t v) {
          for (const int32_t u : near(v)) set_bit(found.data(), u);
        });
      }
      for (size_t part = (set - 1) & set; part > (set ^ part); part = (part - 1) & set) {
        const size_t other = set ^ part;
        for (uint64_t left = used_[part]; left; left &= left - 1) {
          const auto k = size_t(std::countr_zero(left));
          if (k > l) break;
          const uint64_t* const a = &fresh_[at(part, k)];
          const uint64_t* const b = &reach_[at(other, std::min(l - k, last_[other]))];
          for (size_t w = 0; w < words_; ++w) found[w] |= a[w] & b[w];
        }
      }
      uint64_t any = 0;
      for (size_t w = 0; w < words_; ++w) {
        any |= fresh[w] = found[w] & useful[w] & ~here[w];
        here[w] |= fresh[w];
      }
      if (!any) continue;
      used_[set] |= uint64_t(1) << l;
      for_each_bit(fresh, words_, [&](int32_t v) { least_[state(set, v)] = uint8_t(l); });
      if (set == full_ && least_[state(set, terminals_[root])] != kFar) return length_ = int(l);
    }
  return -1;
}

std::vector<std::pair<int32_t, int32_t>> UnitTrees::edges() const {
  std::vector<std::pair<int32_t, int32_t>> edges;
  std::vector<std::pair<size_t, int32_t>> stack{{full_, terminals_.back()}};
  while (!stack.empty()) {
    const auto [set, node] = stack.back();
    stack.pop_back();
    const int length = least_[state(set, node)];
    const auto ends = near(node);
    const auto step = std::find_if(ends.begin(), ends.end(),
                                   [&](int32_t u) { return least_[state(set, u)] + 1 == length; });
    if (step != ends.end()) {
      const int32_t a = nodes_[size_t(node)], b = nodes_[size_t(*step)];
      edges.push_back({std::min(a, b), std::max(a, b)});
      stack.push_back({set, *step});
      continue;
    }
    for (size_t part = (set - 1) & set; part; part = (part - 1) & set)
      if (least_[state(part, node)] + least_[state(set ^ part, node)] == length) {
        stack.push_back({part, node});
        stack.push_back({set ^ part, node});
        break;
      }
  }
  return edges;
}

const uint64_t* UnitTrees::common(size_t set, int32_t node, std::vector<int32_t>& known,
                                  std::vector<std::vector<uint64_t>>& pool) const {
  int32_t& mine = known[state(set, node)];
  if (mine >= 0) return pool[size_t(mine)].data();
  const int length = least_[state(set, node)];
  std::vector<uint64_t> all(words_, ~uint64_t(0));
  bool is_first = true;  // the state of a single terminal arises in no way
  for (const int32_t u : near(node)) {
    if (least_[state(set, u)] + 1 != length) continue;
    const uint64_t* const way = common(set, u, known, pool);
    for (size_t w = 0; w < words_; ++w) all[w] &= way[w];
    is_first = false;
  }
  for (size_t part = (set - 1) & set; part > (set ^ part); part = (part - 1) & set) {
    if (least_[state(part, node)] + least_[state(set ^ part, node)] != length) continue;
    const uint64_t* const one = common(part, node, known, pool);
    const uint64_t* const other = common(set ^ part, node, known, pool);
    for (size_t w = 0; w < words_; ++w) all[w] &= one[w] | other[w];
    is_first = false;
  }
  if (is_first) std::fill(all.begin(), all.end(), 0);
  set_bit(all.data(), node);
  mine = int32_t(pool.size());
  pool.push_back(std::move(all));
  return pool.back().data();
}

std::vector<int32_t> UnitTrees::essential() const {
  std::vector<int32_t> known(least_.size(), -1), found;
  std::vector<std::vector<uint64_t>> pool;  // of vectors, so that their data do not move
  for_each_bit(common(full_, terminals_.back(), known, pool), words_,
               [&](int32_t v) { found.push_back(nodes_[size_t(v)]); });
  return found;
}

}  // namespace topreach::kernels
