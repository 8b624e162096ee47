#include "steiner.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <queue>
#include <set>

#include "unit_trees.h"

namespace topreach::kernels {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();
using Edge = std::pair<int32_t, int32_t>;
using Entry = std::pair<double, int32_t>;
using Queue = std::priority_queue<Entry, std::vector<Entry>, std::greater<Entry>>;

Edge edge_of(int32_t a, int32_t b) { return a < b ? Edge{a, b} : Edge{b, a}; }

double weight_of(const Graph& graph, int32_t a, int32_t b) {
  const auto near = graph.of(a);
  const auto at = std::lower_bound(near.begin(), near.end(), b) - near.begin();
  return graph.weight(graph.start[size_t(a)] + at);
}

struct Union {
  std::vector<int32_t> parent;
  explicit Union(int32_t n) : parent(size_t(n)) {
    for (int32_t i = 0; i < n; ++i) parent[size_t(i)] = i;
  }
  int32_t root(int32_t i) {
    while (parent[size_t(i)] != i) i = parent[size_t(i)] = parent[size_t(parent[size_t(i)])];
    return i;
  }
  bool join(int32_t a, int32_t b) {
    a = root(a);
    b = root(b);
    parent[size_t(a)] = b;
    return a != b;
  }
};

// A minimum spanning tree of these edges, without leaves that are not terminals.
std::vector<Edge> pruned_tree(const Graph& graph, std::vector<Edge> edges,
                              const std::vector<char>& terminal) {
  std::sort(edges.begin(), edges.end());
  edges.erase(std::unique(edges.begin(), edges.end()), edges.end());
  std::stable_sort(edges.begin(), edges.end(), [&](const Edge& a, const Edge& b) {
    return weight_of(graph, a.first, a.second) < weight_of(graph, b.first, b.second);
  });
  Union sets(graph.nodes());
  std::erase_if(edges, [&](const Edge& e) { return !sets.join(e.first, e.second); });
  for (bool changed = true; changed;) {
    std::vector<int32_t> degree(size_t(graph.nodes()), 0);
    for (const Edge& e : edges) ++degree[size_t(e.first)], ++degree[size_t(e.second)];
    const auto leaf = [&](int32_t v) { return degree[size_t(v)] == 1 && !terminal[size_t(v)]; };
    changed = std::erase_if(edges, [&](const Edge& e) { return leaf(e.first) || leaf(e.second); });
  }
  return edges;
}

// A problem without nodes with one edge. If such a node is not a terminal, no shortest tree needs it. If it
// is one, every tree has its edge, so the node at the other end becomes the terminal instead.
struct Peeled {
  std::vector<int32_t> terminals;
  std::vector<char> is_terminal, open;
  std::vector<Edge> edges;  // edges that every tree has
  double length = 0;        // their total
};

Peeled peel(const Graph& graph, const std::vector<int32_t>& terminals) {
  const auto n = size_t(graph.nodes());
  Peeled rest{{}, std::vector<char>(n, 0), std::vector<char>(n, 1), {}, 0};
  for (const int32_t t : terminals) rest.is_terminal[size_t(t)] = 1;
  size_t left = terminals.size();
  std::vector<int64_t> degree(n);
  std::vector<int32_t> queue;
  for (size_t v = 0; v < n; ++v)
    if ((degree[v] = graph.degree(int32_t(v))) == 1) queue.push_back(int32_t(v));
  for (size_t i = 0; i < queue.size(); ++i) {
    const auto v = size_t(queue[i]);
    if (degree[v] != 1 || (rest.is_terminal[v] && left == 1)) continue;
    const auto near = graph.of(int32_t(v));
    const auto at = std::find_if(near.begin(), near.end(),
                                 [&](int32_t u) { return rest.open[size_t(u)] != 0; });
    const auto u = size_t(*at);
    rest.open[v] = 0;
    degree[v] = 0;
    if (--degree[u] == 1) queue.push_back(int32_t(u));
    if (!rest.is_terminal[v]) continue;
    rest.is_terminal[v] = 0;
    rest.edges.push_back(edge_of(int32_t(v), int32_t(u)));
    rest.length += graph.weight(graph.start[v] + (at - near.begin()));
    left -= rest.is_terminal[u];
    rest.is_terminal[u] = 1;
  }
  for (size_t v = 0; v < n; ++v)
    if (rest.is_terminal[v]) rest.terminals.push_back(int32_t(v));
  return rest;
}

struct Part {  // the tree of one component
  double value = 0, bound = 0;
  std::vector<Edge> edges;
  bool has_roles = false;
  std::vector<int32_t> essential;  // nodes that every such tree has, terminals included
};

Part mehlhorn(const Graph& graph, const std::vector<int32_t>& terminals,
              const std::vector<char>& is_terminal, const std::vector<char>& open) {
  const auto n = size_t(graph.nodes());
  std::vector<double> distance(n, kInfinite);
  std::vector<int32_t> region(n, -1), before(n, -1);
  Queue queue;
  for (size_t t = 0; t < terminals.size(); ++t) {
    distance[size_t(terminals[t])] = 0;
    region[size_t(terminals[t])] = int32_t(t);
    queue.push({0.0, terminals[t]});
  }
  std::vector<int32_t> reached;
  while (!queue.empty()) {
    const auto [far, u] = queue.top();
    queue.pop();
    if (far > distance[size_t(u)]) continue;
    reached.push_back(u);
    for (int64_t e = graph.start[size_t(u)]; e < graph.start[size_t(u) + 1]; ++e) {
      const int32_t v = graph.neighbours[size_t(e)];
      const double next = far + graph.weight(e);
      if (!open[size_t(v)] || next >= distance[size_t(v)]) continue;
      distance[size_t(v)] = next;
      region[size_t(v)] = region[size_t(u)];
      before[size_t(v)] = u;
      queue.push({next, v});
    }
  }
  struct Bridge {
    double length;
    int32_t u, v;
  };
  std::vector<Bridge> bridges;
  for (const int32_t u : reached)
    for (int64_t e = graph.start[size_t(u)]; e < graph.start[size_t(u) + 1]; ++e) {
      const int32_t v = graph.neighbours[size_t(e)];
      if (v > u && open[size_t(v)] && region[size_t(v)] >= 0 &&
          region[size_t(u)] != region[size_t(v)])
        bridges.push_back({distance[size_t(u)] + graph.weight(e) + distance[size_t(v)], u, v});
    }
  std::sort(bridges.begin(), bridges.end(), [](const Bridge& a, const Bridge& b) {
    if (a.length != b.length) return a.length < b.length;
    return Edge{a.u, a.v} < Edge{b.u, b.v};
  });
  Part part;
  Union sets(int32_t(terminals.size()));
  double spanning = 0;
  size_t joined = 1;
  for (const Bridge& b : bridges) {
    if (!sets.join(region[size_t(b.u)], region[size_t(b.v)])) continue;
    spanning += b.length;
    ++joined;
    part.edges.push_back(edge_of(b.u, b.v));
    for (int32_t x : {b.u, b.v})
      for (; before[size_t(x)] >= 0; x = before[size_t(x)])
        part.edges.push_back(edge_of(x, before[size_t(x)]));
  }
  if (joined < terminals.size()) {  // a node that joined them is closed
    part.value = part.bound = kInfinite;
    return part;
  }
  part.edges = pruned_tree(graph, std::move(part.edges), is_terminal);
  for (const Edge& e : part.edges) part.value += weight_of(graph, e.first, e.second);
  const double t = double(terminals.size());
  part.bound = terminals.size() < 2 ? 0.0 : spanning / (2 * (1 - 1 / t));
  if (graph.weights.empty()) part.bound = std::ceil(part.bound - 1e-9);
  part.bound = std::min(part.bound, part.value);
  return part;
}

// Whether trees of at most `value` edges are searched with sets of bits (unit_trees.h).
bool has_units(const Graph& graph, size_t terminals, double value) {
  return graph.weights.empty() && terminals >= 2 && value < 64 &&
         value * double(size_t(graph.nodes()) << terminals) < 64.0 * kMostStates;
}

// The exact method. Nodes that are not open are left out. `roles`: also the essential nodes, if the method
// gives them with the trees.
Part dreyfus_wagner(const Graph& graph, const std::vector<int32_t>& terminals,
                    const std::vector<char>& is_terminal, const std::vector<char>& open,
                    bool with_edges, bool roles) {
  Part known = mehlhorn(graph, terminals, is_terminal, open);
  known.bound = known.value;
  if (known.value == kInfinite) return known;
  const auto n = size_t(graph.nodes());
  const bool is_path = terminals.size() <= 2;
  if (has_units(graph, terminals.size(), known.value) && (roles || !is_path)) {
    UnitTrees trees(graph, terminals, open, int(known.value) - (roles ? 0 : 1));
    const int length = trees.solve();
    if (length < 0) return known;
    Part part{double(length), double(length), {}, roles, {}};
    part.edges = pruned_tree(graph, trees.edges(), is_terminal);
    if (roles) part.essential = trees.essential();
    return part;
  }
  if (is_path) return known;
  const int t = int(terminals.size()) - 1;  // the last terminal is the root
  const size_t full = (size_t(1) << t) - 1;

  // Compact names for nodes that can be on a tree as short as the known one.
  std::vector<std::vector<double>> far(terminals.size(), std::vector<double>(n, kInfinite));
  std::vector<double> farthest(n, 0.0);
  for (size_t i = 0; i < terminals.size(); ++i) {
    Queue queue;
    queue.push({0.0, terminals[i]});
    far[i][size_t(terminals[i])] = 0;
    while (!queue.empty()) {
      const auto [d, u] = queue.top();
      queue.pop();
      if (d > far[i][size_t(u)]) continue;
      for (int64_t e = graph.start[size_t(u)]; e < graph.start[size_t(u) + 1]; ++e) {
        const int32_t v = graph.neighbours[size_t(e)];
        const double next = d + graph.weight(e);
        if (!open[size_t(v)] || next >= far[i][size_t(v)] || next > known.value) continue;
        far[i][size_t(v)] = next;
        queue.push({next, v});
      }
    }
    for (size_t v = 0; v < n; ++v) farthest[v] = std::max(farthest[v], far[i][v]);
  }
  std::vector<int32_t> nodes, place(n, -1);
  for (size_t v = 0; v < n; ++v)
    if (farthest[v] < kInfinite) {
      place[v] = int32_t(nodes.size());
      nodes.push_back(int32_t(v));
    }
  const size_t m = nodes.size();
  std::vector<double> d((full + 1) * m, kInfinite);
  // Where a state came from: >= 0 a node's place, -1 - X the part X of a merge.
  std::vector<int32_t> from(with_edges ? d.size() : 0);
  std::vector<std::vector<int32_t>> states(full + 1);  // places with a finite d, by set
  const double enough = known.value * (1 - 1e-12);     // a tree of this length is worth finding
  std::vector<size_t> rest;                            // terminals not in the set
  // Bounds the rest of the tree from v on: a tree that joins v, s and t has at least half their perimeter.
  const auto may_be_enough = [&](double length, size_t v) {
    const auto node = size_t(nodes[v]);
    for (size_t i = 0; i < rest.size(); ++i) {
      const double to = far[rest[i]][node];
      if (length + to > enough) return false;
      for (size_t j = 0; j < i; ++j) {
        const double between = far[rest[i]][size_t(terminals[rest[j]])];
        if (length + 0.5 * (to + far[rest[j]][node] + between) > enough) return false;
      }
    }
    return true;
  };
  std::vector<char> done(m, 0);
  Queue queue;
  for (size_t set = 1; set <= full; ++set) {
    double* const here = &d[set * m];
    int32_t* const origin = with_edges ? &from[set * m] : nullptr;
    auto& list = states[set];
    rest.assign(1, size_t(t));
    for (size_t i = 0; i < size_t(t); ++i)
      if (!(set >> i & 1)) rest.push_back(i);
    const auto offer = [&](size_t v, double length, int32_t by) {
      if (length >= here[v] || !may_be_enough(length, v)) return;
      if (here[v] == kInfinite) list.push_back(int32_t(v));
      here[v] = length;
      if (origin) origin[v] = by;
    };
    if ((set & (set - 1)) == 0) {
      size_t i = 0;
      while (!(set >> i & 1)) ++i;
      const auto at = size_t(place[size_t(terminals[i])]);
      offer(at, 0, int32_t(at));
    }
    for (size_t part = (set - 1) & set; part > (set ^ part); part = (part - 1) & set) {
      const size_t other = set ^ part;
      const bool shorter = states[part].size() < states[other].size();
      const double *a = &d[part * m], *b = &d[other * m];
      for (const int32_t v : states[shorter ? part : other])
        offer(size_t(v), a[v] + b[v], -1 - int32_t(part));
    }
    for (const int32_t v : list) queue.push({here[v], v});
    while (!queue.empty()) {
      const auto [length, u] = queue.top();
      queue.pop();
      if (done[size_t(u)]) continue;
      done[size_t(u)] = 1;
      const int32_t node = nodes[size_t(u)];
      for (int64_t e = graph.start[size_t(node)]; e < graph.start[size_t(node) + 1]; ++e) {
        const int32_t v = place[size_t(graph.neighbours[size_t(e)])];
        if (v < 0) continue;
        const double next = length + graph.weight(e), before = here[v];
        offer(size_t(v), next, u);
        if (here[v] < before) queue.push({next, v});
      }
    }
    for (const int32_t v : list) done[size_t(v)] = 0;
  }
  const auto root = size_t(place[size_t(terminals.back())]);
  const double best = d[full * m + root];
  if (best >= known.value) return known;
  Part part{best, best, {}, false, {}};
  if (!with_edges) return part;
  std::vector<std::pair<size_t, size_t>> stack{{full, root}};
  while (!stack.empty()) {
    const auto [set, v] = stack.back();
    stack.pop_back();
    const int32_t origin = from[set * m + v];
    if (origin < 0) {
      const auto half = size_t(-1 - origin);
      stack.push_back({half, v});
      stack.push_back({set ^ half, v});
    } else if (size_t(origin) != v) {
      part.edges.push_back(edge_of(nodes[v], nodes[size_t(origin)]));
      stack.push_back({set, size_t(origin)});
    }
  }
  part.edges = pruned_tree(graph, std::move(part.edges), is_terminal);
  return part;
}

// The essential nodes, one after another: without one, no tree is as short.
std::vector<int32_t> missed_nodes(const Graph& graph, const Peeled& rest, const Part& part) {
  std::vector<int32_t> missed;
  std::vector<char> open = rest.open;
  std::set<int32_t> nodes;
  for (const auto& [a, b] : part.edges) nodes.insert({a, b});
  for (const int32_t v : nodes) {
    if (rest.is_terminal[size_t(v)]) continue;
    open[size_t(v)] = 0;
    const Part other = dreyfus_wagner(graph, rest.terminals, rest.is_terminal, open, false, false);
    open[size_t(v)] = 1;
    if (other.value > part.value + 1e-9) missed.push_back(v);
  }
  return missed;
}

// The exact method on the graph without nodes with one edge.
Part least_tree(const Graph& graph, const std::vector<int32_t>& terminals, bool roles) {
  const Peeled rest = peel(graph, terminals);
  Part part = dreyfus_wagner(graph, rest.terminals, rest.is_terminal, rest.open, true, roles);
  if (roles && !part.has_roles) part.essential = missed_nodes(graph, rest, part);
  part.has_roles = roles;
  part.essential.insert(part.essential.end(), rest.terminals.begin(), rest.terminals.end());
  for (const Edge& e : rest.edges) part.essential.insert(part.essential.end(), {e.first, e.second});
  part.value += rest.length;
  part.bound += rest.length;
  part.edges.insert(part.edges.end(), rest.edges.begin(), rest.edges.end());
  return part;
}

bool can_be_exact(const Graph& graph, size_t terminals) {
  return terminals <= size_t(kMostExact) &&
         (int64_t(graph.nodes()) << (terminals > 1 ? terminals - 1 : 0)) <= kMostStates;
}

// The terminals of each component that has some.
std::vector<std::vector<int32_t>> by_component(const Graph& graph,
                                               std::span<const int32_t> terminals) {
  const auto label = components(graph);
  std::vector<int32_t> sorted(terminals.begin(), terminals.end());
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  std::vector<std::vector<int32_t>> groups;
  std::vector<int32_t> group_of(size_t(graph.nodes()), -1);
  for (const int32_t t : sorted) {
    int32_t& group = group_of[size_t(label[size_t(t)])];
    if (group < 0) {
      group = int32_t(groups.size());
      groups.emplace_back();
    }
    groups[size_t(group)].push_back(t);
  }
  return groups;
}

}  // namespace

SteinerTree steiner_tree(const Graph& graph, std::span<const int32_t> terminals, bool exact,
                         bool roles) {
  SteinerTree tree;
  tree.has_roles = roles;
  std::vector<char> is_terminal(size_t(graph.nodes()), 0);
  const std::vector<char> open(size_t(graph.nodes()), 1);
  for (const int32_t t : terminals) is_terminal[size_t(t)] = 1;
  for (const auto& group : by_component(graph, terminals)) {
    const Part part = exact && can_be_exact(graph, group.size())
                          ? least_tree(graph, group, roles)
                          : mehlhorn(graph, group, is_terminal, open);
    tree.has_roles = tree.has_roles && part.has_roles;
    for (const int32_t v : part.essential)
      if (!is_terminal[size_t(v)]) tree.essential.push_back(v);
    tree.value += part.value;
    tree.bound += part.bound;
    tree.edges.insert(tree.edges.end(), part.edges.begin(), part.edges.end());
    tree.nodes.insert(tree.nodes.end(), group.begin(), group.end());
    ++tree.trees;
  }
  for (const auto& [a, b] : tree.edges) {
    tree.nodes.push_back(a);
    tree.nodes.push_back(b);
  }
  std::sort(tree.edges.begin(), tree.edges.end());
  for (auto* nodes : {&tree.nodes, &tree.essential}) {
    std::sort(nodes->begin(), nodes->end());
    nodes->erase(std::unique(nodes->begin(), nodes->end()), nodes->end());
  }
  if (!tree.has_roles) tree.essential.clear();
  tree.gap = relative_gap(tree.value, tree.bound);
  tree.status = status_of(tree.value, tree.bound);
  return tree;
}

}  // namespace topreach::kernels
