#include "subgraph_plan.h"

#include <algorithm>
#include <queue>

#include "../../kernels/programs/steiner.h"
#include "../require_plain.h"

namespace topreach::plan {
namespace {

// Brandes 2001, with only terminals as ends of paths: for each source, counts shortest paths, then sums
// shares backwards from the far ends.
std::vector<double> betweenness(const kernels::Graph& graph,
                                const std::vector<int32_t>& terminals) {
  const auto n = size_t(graph.nodes());
  std::vector<double> sum(n, 0.0);
  std::vector<char> is_terminal(n, 0);
  for (const int32_t t : terminals) is_terminal[size_t(t)] = 1;
  for (const int32_t source : terminals) {
    std::vector<double> far(n, kernels::kNoBound), paths(n, 0.0), share(n, 0.0);
    std::vector<std::vector<int32_t>> before(n);
    std::vector<int32_t> order;
    std::vector<char> is_done(n, 0);
    using Entry = std::pair<double, int32_t>;
    std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue;
    far[size_t(source)] = 0;
    paths[size_t(source)] = 1;
    queue.push({0.0, source});
    while (!queue.empty()) {
      const int32_t v = queue.top().second;
      queue.pop();
      if (is_done[size_t(v)]) continue;
      is_done[size_t(v)] = 1;
      order.push_back(v);
      for (int64_t place = graph.start[size_t(v)]; place < graph.start[size_t(v) + 1]; ++place) {
        const int32_t u = graph.neighbours[size_t(place)];
        if (is_done[size_t(u)]) continue;
        const double length = far[size_t(v)] + graph.weight(place);
        const double slack = 1e-12 * std::max(1.0, length);
        if (length < far[size_t(u)] - slack) {
          far[size_t(u)] = length;
          paths[size_t(u)] = 0;
          before[size_t(u)].clear();
          queue.push({length, u});
        }
        if (length <= far[size_t(u)] + slack) {
          paths[size_t(u)] += paths[size_t(v)];
          before[size_t(u)].push_back(v);
        }
      }
    }
    for (auto v = order.rbegin(); v != order.rend(); ++v) {
      const double ends = is_terminal[size_t(*v)] && *v != source ? 1.0 : 0.0;
      for (const int32_t u : before[size_t(*v)])
        share[size_t(u)] += paths[size_t(u)] / paths[size_t(*v)] * (ends + share[size_t(*v)]);
      if (*v != source)
        sum[size_t(*v)] += share[size_t(*v)] / 2;  // each pair is met from both ends
    }
  }
  return sum;
}

}  // namespace

Solved subgraph(const Graph& graph, const std::vector<int32_t>& terminals, bool neighbours,
                const SolveOptions& options) {
  constexpr auto kName = "subgraph";
  const kernels::Deadline deadline(options.time_limit);
  check_options(kName, options);
  TR_REQUIRE(!terminals.empty(), "{}: terminals must hold at least one node, got none", kName);
  auto sorted = terminals;
  std::sort(sorted.begin(), sorted.end());
  for (size_t i = 0; i < sorted.size(); ++i) {
    TR_REQUIRE(sorted[i] >= 0 && sorted[i] < graph.nodes(),
               "{}: terminals must be nodes 0 to {}, got {}", kName, graph.nodes() - 1, sorted[i]);
    TR_REQUIRE(i == 0 || sorted[i] != sorted[i - 1],
               "{}: terminals must be distinct, got '{}' twice", kName,
               graph.ids()[size_t(sorted[i])]);
  }
  const kernels::Graph& adjacency = graph.adjacency();
  const auto tree = kernels::steiner_tree(adjacency, sorted, true, true);
  Solved solved;
  solved.program = kName;
  solved.maximised = false;
  solved.chosen = tree.nodes;
  solved.edges = tree.edges;
  set_value(solved, tree.value, tree.bound, options.gap);
  if (tree.has_roles) {
    solved.essential = tree.essential;
    for (const int32_t v : tree.nodes)
      if (!std::binary_search(sorted.begin(), sorted.end(), v) &&
          !std::binary_search(solved.essential.begin(), solved.essential.end(), v))
        solved.replaceable.push_back(v);
  } else {
    solved.notes.push_back(
        "Which nodes can be replaced is not known: the tree is not proved to be the least.");
  }
  if (tree.trees > 1)
    solved.notes.push_back(fmt::format(
        "The terminals lie in {} parts of the network that no path joins: one tree each.",
        tree.trees));
  if (neighbours) {
    for (const int32_t t : sorted)
      solved.chosen.insert(solved.chosen.end(), adjacency.of(t).begin(), adjacency.of(t).end());
    std::sort(solved.chosen.begin(), solved.chosen.end());
    solved.chosen.erase(std::unique(solved.chosen.begin(), solved.chosen.end()),
                        solved.chosen.end());
  }
  solved.numbers.push_back({"trees", double(tree.trees)});
  solved.columns.push_back({"betweenness", betweenness(adjacency, sorted)});
  solved.seconds = deadline.seconds();
  return solved;
}

}  // namespace topreach::plan
