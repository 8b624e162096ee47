// An undirected graph whose nodes have ids.
//
// Ids are always text: "09001" is not 9001. Repeated and reversed edges become one edge with the smallest
// of their weights. An edge from a node to itself is left out. A node without edges stays.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "programs/kernels.h"

namespace topreach {

/// An undirected graph of N nodes with ids.
///
///   const auto graph = topreach::Graph::from_edges(sites, {"a", "a"}, {"c", "d"});
///   graph.adjacency().degree(graph.index_of("a"));  // 2
class Graph {
 public:
  Graph() = default;
  /// Edges (from[e], to[e]) by the nodes' numbers; `weights` [E] >= 0, or empty: 1 each. Raises
  /// c10::ValueError for a repeated id, a number without a node, or arrays of different length.
  Graph(std::vector<std::string> ids, const std::vector<int32_t>& from,
        const std::vector<int32_t>& to, const std::vector<double>& weights = {});
  /// Edges by ids. Without `ids` the nodes are those of the edges, in the order in which they first
  /// occur. Raises c10::ValueError for an id that is not among `ids`; the message names the row, from 1.
  static Graph from_edges(std::vector<std::string> ids, const std::vector<std::string>& from,
                          const std::vector<std::string>& to,
                          const std::vector<double>& weights = {});

  const std::vector<std::string>& ids() const { return ids_; }
  const kernels::Graph& adjacency() const { return adjacency_; }
  int64_t nodes() const { return int64_t(ids_.size()); }
  int64_t edges() const { return adjacency_.edges(); }
  bool has_weights() const { return !adjacency_.weights.empty(); }
  /// The number of the node with this id; -1 if there is none.
  int32_t index_of(const std::string& id) const;
  /// The same graph with its nodes in the order of `ids`. An id that it does not have becomes a node
  /// without edges. Raises c10::ValueError if a node with edges is not among `ids`.
  Graph reordered(std::vector<std::string> ids) const;

 private:
  std::vector<std::string> ids_;
  std::unordered_map<std::string, int32_t> index_;
  kernels::Graph adjacency_;
};

}  // namespace topreach
