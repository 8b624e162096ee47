// Steiner trees: published answers, and all subsets of further nodes with their spanning trees.
#include "../../kernels/programs/steiner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>
#include <set>

#include "programs_data.h"

namespace {

using namespace topreach::kernels;

// The least spanning tree of the nodes in `set`, infinite if they are not connected (Prim).
double spanning(const std::vector<std::vector<double>>& weight, uint32_t set) {
  const int n = int(weight.size());
  uint32_t in = set & (~set + 1);
  double sum = 0;
  while (in != set) {
    double least = INFINITY;
    int next = -1;
    for (int a = 0; a < n; ++a)
      for (int b = 0; b < n; ++b)
        if ((in >> a & 1) && (set >> b & 1) && !(in >> b & 1) &&
            weight[size_t(a)][size_t(b)] < least) {
          least = weight[size_t(a)][size_t(b)];
          next = b;
        }
    if (next < 0) return INFINITY;
    in |= 1u << next;
    sum += least;
  }
  return sum;
}

double least_tree(const std::vector<std::vector<double>>& weight, uint32_t terminals,
                  uint32_t allowed) {
  double least = INFINITY;
  for (uint32_t set = 0; set < 1u << weight.size(); ++set)
    if ((set & terminals) == terminals && (set & ~allowed) == 0)
      least = std::min(least, spanning(weight, set));
  return least;
}

void expect_tree(const Graph& graph, const std::vector<int32_t>& terminals,
                 const SteinerTree& tree) {
  std::vector<int32_t> from, to;
  double value = 0;
  for (const auto& [a, b] : tree.edges) {
    from.push_back(a);
    to.push_back(b);
    const auto near = graph.of(a);
    const auto at = std::lower_bound(near.begin(), near.end(), b);
    ASSERT_TRUE(at != near.end() && *at == b);
    value += graph.weight(graph.start[size_t(a)] + (at - near.begin()));
  }
  EXPECT_NEAR(value, tree.value, 1e-9);
  const auto in_tree = components(make_graph(graph.nodes(), from, to)),
             in_graph = components(graph);
  for (const int32_t s : terminals)
    for (const int32_t t : terminals)
      EXPECT_EQ(in_tree[size_t(s)] == in_tree[size_t(t)],
                in_graph[size_t(s)] == in_graph[size_t(t)]);
  EXPECT_EQ(int64_t(tree.nodes.size()), int64_t(tree.edges.size()) + tree.trees);
}

TEST(Steiner, RandomGraphsAgainstSubsets) {
  std::mt19937 random(3);
  for (int trial = 0; trial < 300; ++trial) {
    const int n = 6 + int(random() % 4);
    std::vector<std::vector<double>> weight(size_t(n), std::vector<double>(size_t(n), INFINITY));
    std::vector<int32_t> from, to;
    std::vector<double> weights;
    for (int a = 0; a < n; ++a)
      for (int b = 0; b < a; ++b)
        if (random() % 10 < 4) {
          const double w = trial % 2 ? 1 + double(random() % 5) : 1;
          weight[size_t(a)][size_t(b)] = weight[size_t(b)][size_t(a)] = w;
          from.push_back(a);
          to.push_back(b);
          weights.push_back(w);
        }
    const Graph graph = make_graph(
        n, from, to, trial % 2 ? std::span<const double>(weights) : std::span<const double>());
    const auto label = components(graph);
    std::vector<int32_t> terminals;
    for (int v = 0; v < n; ++v)
      if (random() % 10 < 5) terminals.push_back(v);
    if (trial % 3 && !terminals.empty())
      std::erase_if(terminals, [&, first = label[size_t(terminals[0])]](int32_t v) {
        return label[size_t(v)] != first;
      });
    double want = 0;
    for (int c = 0; c < n; ++c) {
      uint32_t set = 0;
      for (const int32_t v : terminals)
        if (label[size_t(v)] == c) set |= 1u << v;
      if (set) want += least_tree(weight, set, ~0u);
    }
    const SteinerTree tree = steiner_tree(graph, terminals, true, true);
    ASSERT_TRUE(tree.has_roles);
    ASSERT_EQ(tree.status, PlanStatus::optimal);
    ASSERT_NEAR(tree.value, want, 1e-9) << trial;
    expect_tree(graph, terminals, tree);
    const SteinerTree near = steiner_tree(graph, terminals, false);
    expect_tree(graph, terminals, near);
    ASSERT_LE(near.bound, want + 1e-9);
    ASSERT_GE(near.value, want - 1e-9);
    ASSERT_LE(near.value, 2 * want + 1e-9);
    if (tree.trees != 1) continue;
    uint32_t set = 0;
    for (const int32_t v : terminals) set |= 1u << v;
    std::vector<int32_t> essential;
    for (const int32_t v : tree.nodes)
      if (!(set >> v & 1) && least_tree(weight, set, ~(1u << v)) > want + 1e-9)
        essential.push_back(v);
    ASSERT_EQ(tree.essential, essential) << trial;
  }
}

TEST(Steiner, Star) {
  const std::vector<int32_t> from{0, 0, 0, 1, 2, 1}, to{1, 2, 3, 2, 3, 3}, terminals{1, 2, 3};
  const std::vector<double> weights{1, 1, 1, 1.99, 1.99, 1.99};
  const Graph graph = make_graph(4, from, to, weights);
  const SteinerTree tree = steiner_tree(graph, terminals, true, true);
  EXPECT_NEAR(tree.value, 3, 1e-12);
  EXPECT_EQ(tree.essential, std::vector<int32_t>{0});
  const SteinerTree near = steiner_tree(graph, terminals, false);
  EXPECT_NEAR(near.value, 3.98, 1e-12);
  EXPECT_NEAR(near.bound, 2.985, 1e-12);
}

// A ring of four with tails: the tails are in every tree, and both ways round the ring are equally short.
TEST(Steiner, TailsAreEssential) {
  const std::vector<int32_t> from{0, 1, 2, 3, 0, 4, 2, 6, 6}, to{1, 2, 3, 0, 4, 5, 6, 7, 8};
  const Graph graph = make_graph(9, from, to);
  const SteinerTree tree = steiner_tree(graph, std::vector<int32_t>{5, 7}, true, true);
  EXPECT_EQ(tree.value, 6);
  EXPECT_EQ(tree.essential, (std::vector<int32_t>{0, 2, 4, 6}));
  const SteinerTree one = steiner_tree(graph, std::vector<int32_t>{5}, true, true);
  EXPECT_EQ(one.value, 0);
  EXPECT_EQ(one.nodes, std::vector<int32_t>{5});
  EXPECT_TRUE(one.essential.empty());
}

TEST(Steiner, CornersOfAGrid) {
  const std::vector<int32_t> corners{0, 4, 20, 24};
  EXPECT_EQ(steiner_tree(topreach::tests::grid(5, 5), corners).value, 12);
}

TEST(Steiner, ANetworkOf311) {
  SKIP_WITHOUT_DATA();
  const auto network = topreach::tests::read_network("rostami311", "From", "To", "Node", "Prob");
  const std::vector<std::vector<const char*>> sets{
      {"206", "224", "23", "140", "272", "258", "216", "163"},
      {"254", "192", "119", "269", "78", "152", "55", "136"},
      {"284", "82", "167", "57", "44", "178", "251", "299"}};
  const double want[] = {16, 14, 13};
  for (size_t i = 0; i < 3; ++i) {
    std::vector<int32_t> terminals;
    for (const char* id : sets[i]) terminals.push_back(network.node(id));
    const SteinerTree tree = steiner_tree(network.graph, terminals);
    EXPECT_EQ(tree.value, want[i]);
    expect_tree(network.graph, terminals, tree);
  }
}

}  // namespace
