// Shortest trees that join a few terminals if every edge has length 1: Dreyfus & Wagner (1971) on sets
// of nodes as bits, 64 at a time.
//
// reach[X][l] holds the nodes v with d[X][v] <= l, where d[X][v] is the length of the shortest tree that
// joins the terminals X and v. Only nodes that a tree of at most `most` edges can hold take part: for any two
// terminals, the node's distances to both and the distance between them sum to at most 2 `most`.
//
// A node is essential if every shortest tree has it. A state arises in several ways, each of them a step from
// another state or a union of two; each way of the last state gives shortest trees. So the nodes that all
// trees of a state have in common are its own node and the intersection, over its ways, of the common nodes
// of the states that the way uses.
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

  // The length of the shortest tree, or -1 if that is above `most`. Call the functions below only after it,
  // and only if there is a tree.
  int solve();
  // The edges of one shortest tree, first < second; an edge may occur twice.
  std::vector<std::pair<int32_t, int32_t>> edges() const;
  // The nodes that every shortest tree has, ascending; terminals included.
  std::vector<int32_t> essential() const;

 private:
  size_t at(size_t set, size_t level) const { return (set * levels_ + level) * words_; }
  size_t state(size_t set, int32_t node) const { return set * size_t(count_) + size_t(node); }
  std::span<const int32_t> near(int32_t node) const {
    return {ends_.data() + start_[size_t(node)], ends_.data() + start_[size_t(node) + 1]};
  }
  const uint64_t* common(size_t set, int32_t node, std::vector<int32_t>& known,
                         std::vector<std::vector<uint64_t>>& pool) const;

  // For the nodes that take part, numbered by place: their names and neighbours, and the terminals' places.
  std::vector<int32_t> nodes_, start_, ends_, terminals_;
  int32_t count_ = 0;
  size_t words_ = 0, levels_ = 0, full_ = 0;
  int length_ = -1;
  std::vector<uint64_t> near_;           // near[s][l]: places at most l steps from terminal s
  std::vector<uint64_t> reach_, fresh_;  // [set][level]; fresh: places new at a level
  std::vector<uint64_t> used_;           // levels of a set with new places, as bits
  std::vector<size_t> last_;             // the last useful level of a set
  std::vector<uint8_t> least_;           // [set][place], d; kFar if above `most`
};

}  // namespace topreach::kernels
