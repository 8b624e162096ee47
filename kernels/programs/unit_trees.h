// Shortest trees that join a few terminals where every edge has length 1: Dreyfus & Wagner (1971) on sets
// of nodes as bits, 64 at a time.
//
// reach[X][l] holds the nodes v with d[X][v] <= l, d[X][v] the length of the least tree that joins the
// terminals X and v. Only nodes that a tree of at most `most` edges can hold take part: those whose
// distances to any two terminals, and theirs, sum to at most 2 `most`.
//
// A node is essential if no shortest tree does without it. The shortest trees are the ways in which the
// last state came about, a step or a union of two parts each; so the nodes that all ways of a state have in
// common are the state's own and, over its ways, the intersection of what these have in common.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "graph.h"

namespace topreach::kernels {

class UnitTrees {
 public:
  // Terminals are distinct, at least 2 and at most 16; nodes that are not `open` [nodes] are left out; most <
  // 64.
  UnitTrees(const Graph& graph, std::span<const int32_t> terminals, std::span<const char> open,
            int most);

  // The length of the shortest tree, or -1 if that is above `most`. The others only after it, where there is
  // one.
  int solve();
  // The edges of one, first < second; an edge may stand twice.
  std::vector<std::pair<int32_t, int32_t>> edges() const;
  // The nodes of every shortest tree, rising; terminals among them.
  std::vector<int32_t> essential() const;

 private:
  size_t at(size_t set, size_t level) const { return (set * levels_ + level) * words_; }
  size_t state(size_t set, int32_t node) const { return set * size_t(count_) + size_t(node); }
  std::span<const int32_t> near(int32_t node) const {
    return {ends_.data() + start_[size_t(node)], ends_.data() + start_[size_t(node) + 1]};
  }
  const uint64_t* common(size_t set, int32_t node, std::vector<int32_t>& known,
                         std::vector<std::vector<uint64_t>>& pool) const;

  // Of the nodes that take part, by their place: names, neighbours, those of the terminals.
  std::vector<int32_t> nodes_, start_, ends_, terminals_;
  int32_t count_ = 0;
  size_t words_ = 0, levels_ = 0, full_ = 0;
  int length_ = -1;
  std::vector<uint64_t> near_;           // near[s][l]: places at most l steps from terminal s
  std::vector<uint64_t> reach_, fresh_;  // [set][level]; fresh: places new at a level
  std::vector<uint64_t> used_;           // levels of a set with new places, as bits
  std::vector<size_t> last_;             // the last level of a set that can be of use
  std::vector<uint8_t> least_;           // [set][place], d; kFar if above `most`
};

}  // namespace topreach::kernels
