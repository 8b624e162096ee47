#include "graph.h"

#include <algorithm>

namespace topreach::kernels {

Graph make_graph(int32_t nodes, std::span<const int32_t> from, std::span<const int32_t> to,
                 std::span<const double> weights) {
  const auto n = size_t(nodes);
  const size_t edges = from.size();
  // Two passes of a counting sort, by the far end and then by the near one, leave rows in order.
  std::vector<int64_t> start(n + 1, 0);
  for (size_t e = 0; e < edges; ++e) {
    if (from[e] == to[e]) continue;
    ++start[size_t(from[e]) + 1];
    ++start[size_t(to[e]) + 1];
  }
  for (size_t i = 0; i < n; ++i) start[i + 1] += start[i];
  struct Arc {
    int32_t from, to;
    double weight;
  };
  std::vector<Arc> by_end(size_t(start[n])), arcs(size_t(start[n]));
  std::vector<int64_t> next(start.begin(), start.end() - 1);
  for (size_t e = 0; e < edges; ++e) {
    if (from[e] == to[e]) continue;
    const double weight = weights.empty() ? 1.0 : weights[e];
    by_end[size_t(next[size_t(to[e])]++)] = {from[e], to[e], weight};
    by_end[size_t(next[size_t(from[e])]++)] = {to[e], from[e], weight};
  }
  next.assign(start.begin(), start.end() - 1);
  for (const Arc& arc : by_end) arcs[size_t(next[size_t(arc.from)]++)] = arc;

  Graph graph;
  graph.start.assign(n + 1, 0);
  graph.neighbours.reserve(arcs.size());
  for (size_t i = 0; i < arcs.size(); ++i) {
    const bool repeated = i > 0 && arcs[i - 1].from == arcs[i].from && arcs[i - 1].to == arcs[i].to;
    if (repeated) {
      if (!weights.empty()) graph.weights.back() = std::min(graph.weights.back(), arcs[i].weight);
      continue;
    }
    graph.neighbours.push_back(arcs[i].to);
    if (!weights.empty()) graph.weights.push_back(arcs[i].weight);
    graph.start[size_t(arcs[i].from) + 1] = int64_t(graph.neighbours.size());
  }
  for (size_t i = 0; i < n; ++i) graph.start[i + 1] = std::max(graph.start[i + 1], graph.start[i]);
  return graph;
}

std::vector<int32_t> components(const Graph& graph) {
  std::vector<int32_t> label(size_t(graph.nodes()), -1), queue;
  int32_t count = 0;
  for (int32_t first = 0; first < graph.nodes(); ++first) {
    if (label[size_t(first)] >= 0) continue;
    queue.assign(1, first);
    label[size_t(first)] = count;
    for (size_t i = 0; i < queue.size(); ++i)
      for (const int32_t node : graph.of(queue[i]))
        if (label[size_t(node)] < 0) {
          label[size_t(node)] = count;
          queue.push_back(node);
        }
    ++count;
  }
  return label;
}

std::vector<int32_t> steps_from(const Graph& graph, std::span<const int32_t> sources,
                                int32_t limit) {
  std::vector<int32_t> steps(size_t(graph.nodes()), -1), queue;
  for (const int32_t source : sources)
    if (steps[size_t(source)] < 0) {
      steps[size_t(source)] = 0;
      queue.push_back(source);
    }
  for (size_t i = 0; i < queue.size(); ++i) {
    const int32_t here = steps[size_t(queue[i])];
    if (here >= limit) break;
    for (const int32_t node : graph.of(queue[i]))
      if (steps[size_t(node)] < 0) {
        steps[size_t(node)] = here + 1;
        queue.push_back(node);
      }
  }
  return steps;
}

}  // namespace topreach::kernels
