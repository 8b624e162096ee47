// Undirected graphs as lists of neighbours.
//
// Stored as compressed rows. Each edge is stored twice, once in the row of either end. Repeated and
// reversed edges become one edge with the smallest of their weights. An edge from a node to itself is
// left out. A node without edges stays. Building costs O(nodes + edges).
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace topreach::kernels {

struct Graph {
  std::vector<int64_t> start{0};    // [nodes + 1]
  std::vector<int32_t> neighbours;  // [2 edges], ascending within a row
  std::vector<double> weights;      // [2 edges], or empty: every edge weighs 1

  int32_t nodes() const { return int32_t(start.size()) - 1; }
  int64_t edges() const { return int64_t(neighbours.size()) / 2; }
  int64_t degree(int32_t node) const { return start[size_t(node) + 1] - start[size_t(node)]; }
  std::span<const int32_t> of(int32_t node) const {
    return {neighbours.data() + start[size_t(node)], size_t(degree(node))};
  }
  double weight(int64_t place) const { return weights.empty() ? 1.0 : weights[size_t(place)]; }
};

// The graph of edges (from[i], to[i]), nodes 0 to nodes - 1; `weights` may be empty.
Graph make_graph(int32_t nodes, std::span<const int32_t> from, std::span<const int32_t> to,
                 std::span<const double> weights = {});

// The component of each node, numbered in the order of their first nodes.
std::vector<int32_t> components(const Graph& graph);

// Steps from the nearest source to each node; -1 if it is out of reach or more than `limit` away.
std::vector<int32_t> steps_from(const Graph& graph, std::span<const int32_t> sources,
                                int32_t limit = std::numeric_limits<int32_t>::max());

}  // namespace topreach::kernels
