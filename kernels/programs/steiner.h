// The shortest subgraph that joins given nodes, the terminals: a Steiner tree for each component of the graph
// that holds some.
//
//   min sum of edge weights of a subgraph in which the terminals of a component are connected
//
// Nodes with one edge are removed first. If such a node is not a terminal, no shortest tree needs it. If it
// is one, every tree has its edge, so the node at the other end becomes the terminal instead.
//
// Up to kMostExact terminals in a component: Dreyfus & Wagner (1971). d[X][v], the length of the shortest
// tree that joins the terminals X and node v, comes from smaller X: two trees merge at v, then grow along
// shortest paths. Joining v to the terminals not in X takes at least half the perimeter of v and any two of
// them. A state is left out if d[X][v] plus this bound is no shorter than a known tree.
// O(3^t n + 2^t m log n), exact. With edges of length 1: unit_trees.h.
//
// Above: Mehlhorn (1988), O(m log n): the minimum spanning tree of the terminals' distances, whose edges
// are found between the regions of nodes nearest to each; at most 2 (1 - 1/t) times the optimum. That gives
// the bound.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "graph.h"
#include "solution.h"

namespace topreach::kernels {

constexpr int kMostExact = 12;
constexpr int64_t kMostStates = int64_t(1) << 25;  // 2^(t-1) n of the exact method

struct SteinerTree {
  PlanStatus status = PlanStatus::optimal;
  double value = 0, bound = 0, gap = 0;
  std::vector<std::pair<int32_t, int32_t>> edges;  // ascending, first < second
  std::vector<int32_t> nodes;                      // ascending, terminals included
  int32_t trees = 0;                               // components that hold terminals
  // If asked for, and if all trees are exact: the nodes other than terminals, ascending, without which the
  // optimum is larger. The others can be replaced.
  bool has_roles = false;
  std::vector<int32_t> essential;
};

// Weights are >= 0. `exact` false: Mehlhorn's method throughout. `roles`: also the essential nodes.
SteinerTree steiner_tree(const Graph& graph, std::span<const int32_t> terminals, bool exact = true,
                         bool roles = false);

}  // namespace topreach::kernels
