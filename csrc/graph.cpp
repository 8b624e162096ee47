#include "graph.h"

#include <cmath>
#include <utility>

#include "require_plain.h"

namespace topreach {

Graph::Graph(std::vector<std::string> ids, const std::vector<int32_t>& from,
             const std::vector<int32_t>& to, const std::vector<double>& weights)
    : ids_(std::move(ids)) {
  TR_REQUIRE(from.size() == to.size() && (weights.empty() || weights.size() == from.size()),
             "Graph: from, to and weights must be of one length, got {}, {} and {}", from.size(),
             to.size(), weights.size());
  index_.reserve(ids_.size());
  for (size_t i = 0; i < ids_.size(); ++i)
    TR_REQUIRE(index_.emplace(ids_[i], int32_t(i)).second,
               "Graph: ids must be distinct, got '{}' twice", ids_[i]);
  for (size_t e = 0; e < from.size(); ++e) {
    for (const int32_t end : {from[e], to[e]})
      TR_REQUIRE(end >= 0 && size_t(end) < ids_.size(),
                 "Graph: edges must join nodes 0 to {}, got {} in row {}", int64_t(ids_.size()) - 1,
                 end, e + 1);
    TR_REQUIRE(weights.empty() || (std::isfinite(weights[e]) && weights[e] >= 0),
               "Graph: weights must be numbers >= 0, got {} in row {}", weights[e], e + 1);
  }
  adjacency_ = kernels::make_graph(int32_t(ids_.size()), from, to, weights);
}

Graph Graph::from_edges(std::vector<std::string> ids, const std::vector<std::string>& from,
                        const std::vector<std::string>& to, const std::vector<double>& weights) {
  TR_REQUIRE(from.size() == to.size(), "Graph: from and to must be of one length, got {} and {}",
             from.size(), to.size());
  const bool open = ids.empty();
  std::unordered_map<std::string, int32_t> index;
  for (const std::string& id : ids) index.emplace(id, int32_t(index.size()));
  std::vector<int32_t> ends[2];
  for (size_t e = 0; e < from.size(); ++e)
    for (const int side : {0, 1}) {
      const std::string& id = side == 0 ? from[e] : to[e];
      if (open && index.emplace(id, int32_t(ids.size())).second) ids.push_back(id);
      const auto found = index.find(id);
      TR_REQUIRE(found != index.end(),
                 "Graph: edges must join ids of the {} sites, got '{}' in row {}", ids.size(), id,
                 e + 1);
      ends[side].push_back(found->second);
    }
  return Graph(std::move(ids), ends[0], ends[1], weights);
}

int32_t Graph::index_of(const std::string& id) const {
  const auto found = index_.find(id);
  return found == index_.end() ? -1 : found->second;
}

Graph Graph::reordered(std::vector<std::string> ids) const {
  std::vector<std::string> from, to;
  std::vector<double> weights;
  for (int32_t i = 0; i < adjacency_.nodes(); ++i)
    for (int64_t place = adjacency_.start[size_t(i)]; place < adjacency_.start[size_t(i) + 1];
         ++place) {
      const int32_t j = adjacency_.neighbours[size_t(place)];
      if (j < i) continue;
      from.push_back(ids_[size_t(i)]);
      to.push_back(ids_[size_t(j)]);
      if (has_weights()) weights.push_back(adjacency_.weights[size_t(place)]);
    }
  if (ids.empty()) return Graph();
  return from_edges(std::move(ids), from, to, weights);
}

}  // namespace topreach
