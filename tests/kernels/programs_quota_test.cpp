// Quotas against enumeration of all subsets; graphs against their definition.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <random>
#include <set>

#include "../../kernels/programs/graph.h"
#include "../../kernels/programs/quota_topk.h"

namespace {

using namespace topreach::kernels;

TEST(Graph, MergesRepeatsAndDropsLoops) {
  const std::vector<int32_t> from{2, 0, 1, 0, 3}, to{0, 2, 1, 2, 0};
  const std::vector<double> weights{5, 2, 1, 3, 4};
  const Graph g = make_graph(6, from, to, weights);
  EXPECT_EQ(g.nodes(), 6);
  EXPECT_EQ(g.edges(), 2);
  EXPECT_EQ(g.neighbours, (std::vector<int32_t>{2, 3, 0, 0}));
  EXPECT_EQ(g.weights, (std::vector<double>{2, 4, 2, 4}));
  EXPECT_EQ(g.degree(4), 0);
  EXPECT_EQ(components(g), (std::vector<int32_t>{0, 1, 0, 0, 2, 3}));
  const std::vector<int32_t> source{2};
  EXPECT_EQ(steps_from(g, source), (std::vector<int32_t>{1, -1, 0, 2, -1, -1}));
  EXPECT_EQ(steps_from(g, source, 1), (std::vector<int32_t>{1, -1, 0, -1, -1, -1}));
  EXPECT_EQ(make_graph(0, {}, {}).nodes(), 0);
}

TEST(Graph, RandomGraphsAgainstASetOfEdges) {
  std::mt19937 random(5);
  for (int trial = 0; trial < 50; ++trial) {
    const int n = 1 + int(random() % 12), m = int(random() % 40);
    std::vector<int32_t> from, to;
    std::set<std::pair<int, int>> edges;
    for (int e = 0; e < m; ++e) {
      const int a = int(random() % unsigned(n)), b = int(random() % unsigned(n));
      from.push_back(a);
      to.push_back(b);
      if (a != b) edges.insert({a, b}), edges.insert({b, a});
    }
    const Graph g = make_graph(n, from, to);
    std::vector<std::pair<int, int>> got;
    for (int32_t i = 0; i < n; ++i)
      for (const int32_t j : g.of(i)) got.push_back({i, j});
    EXPECT_EQ(got, (std::vector<std::pair<int, int>>(edges.begin(), edges.end())));
  }
}

// A tree of groups over few sites, as arrays.
struct Case {
  std::vector<int32_t> group, parent;
  std::vector<int64_t> lower, upper;
  std::vector<int8_t> lock;
  int64_t k;

  QuotaGroups view() const {
    return {int64_t(group.size()),  k,
            int32_t(parent.size()), group.data(),
            parent.data(),          lower.data(),
            upper.data(),           lock.empty() ? nullptr : lock.data()};
  }
  bool within(int set) const {
    if (std::popcount(unsigned(set)) != k) return false;
    std::vector<int64_t> count(parent.size(), 0);
    for (size_t s = 0; s < group.size(); ++s) {
      const bool in = set >> s & 1;
      if (!lock.empty() && lock[s] != 0 && (lock[s] > 0) != in) return false;
      if (!in) continue;
      for (int32_t g = group[s]; g >= 0; g = parent[size_t(g)]) ++count[size_t(g)];
    }
    for (size_t g = 0; g < parent.size(); ++g)
      if (count[g] < lower[g] || count[g] > upper[g]) return false;
    return true;
  }
};

template <typename T>
int plan_of(const QuotaTree& tree, const std::vector<T>& score) {
  QuotaScratch<T> scratch;
  std::vector<int32_t> chosen(size_t(tree.k()));
  tree.best(score.data(), scratch, chosen.data());
  int set = 0;
  for (const int32_t s : chosen) set |= 1 << s;
  return set;
}

TEST(QuotaTopK, NestedQuotasAgainstAllSubsets) {
  std::mt19937 random(7);
  int feasible = 0, infeasible = 0;
  for (int trial = 0; trial < 1500; ++trial) {
    const auto below = [&](int n) { return int(random() % unsigned(n)); };
    const int sites = 1 + below(11), groups = below(7);
    Case c;
    c.k = below(sites + 1);
    for (int g = 0; g < groups; ++g) {
      c.parent.push_back(g == 0 ? -1 : below(g + 1) - 1);
      const int64_t a = below(4), b = below(8);
      c.lower.push_back(std::min(a, b));
      c.upper.push_back(std::max(a, b));
    }
    // Groups need not be listed parents first.
    std::vector<int32_t> name(size_t(groups), 0);
    std::iota(name.begin(), name.end(), 0);
    std::shuffle(name.begin(), name.end(), random);
    Case d = c;
    for (int g = 0; g < groups; ++g) {
      const auto at = size_t(name[size_t(g)]);
      const int32_t above = c.parent[size_t(g)];
      d.parent[at] = above < 0 ? -1 : name[size_t(above)];
      d.lower[at] = c.lower[size_t(g)];
      d.upper[at] = c.upper[size_t(g)];
    }
    std::vector<double> score;
    for (int s = 0; s < sites; ++s) {
      d.group.push_back(below(groups + 1) - 1);
      score.push_back(below(12) / 4.0 - 1);  // with ties
    }
    if (trial % 2)
      for (int s = 0; s < sites; ++s) d.lock.push_back(int8_t(below(8) ? 0 : 2 * below(2) - 1));
    const QuotaTree tree(d.view());
    double best = -1e300;
    for (int set = 0; set < 1 << sites; ++set) {
      if (!d.within(set)) continue;
      double value = 0;
      for (int s = 0; s < sites; ++s)
        if (set >> s & 1) value += score[size_t(s)];
      best = std::max(best, value);
    }
    ASSERT_EQ(tree.fault().found, best == -1e300) << trial;
    if (tree.fault().found) {
      ++infeasible;
      continue;
    }
    ++feasible;
    const int set = plan_of(tree, score);
    ASSERT_TRUE(d.within(set)) << trial;
    double value = 0;
    for (int s = 0; s < sites; ++s)
      if (set >> s & 1) value += score[size_t(s)];
    ASSERT_NEAR(value, best, 1e-12) << trial;
    ASSERT_EQ(plan_of(tree, std::vector<float>(score.begin(), score.end())), set);
  }
  EXPECT_GT(feasible, 300);
  EXPECT_GT(infeasible, 300);
}

TEST(QuotaTopK, TwelveSites) {  // known optima
  std::vector<double> r;
  Case c;
  for (int i = 0; i < 12; ++i) {
    r.push_back(1 + (7 * i + 3) % 12);
    c.group.push_back(i % 3);
  }
  c.parent = {-1, -1, -1};
  c.lower = {2, 1, 1};
  c.upper = {3, 2, 1};
  c.k = 5;
  const auto value = [&](int set) {
    double sum = 0;
    for (int i = 0; i < 12; ++i)
      if (set >> i & 1) sum += r[size_t(i)];
    return sum;
  };
  EXPECT_EQ(value(plan_of(QuotaTree(c.view()), r)), 48);
  c.k = 4;
  EXPECT_EQ(value(plan_of(QuotaTree(QuotaGroups{12, 4}), r)), 42);
}

TEST(QuotaTopK, EqualScoresGoToTheLowerIndex) {
  Case c;
  c.group = {0, 0, 0, 1, 1, 1};
  c.parent = {-1, -1};
  c.lower = {0, 2};
  c.upper = {3, 3};
  c.k = 4;
  EXPECT_EQ(plan_of(QuotaTree(c.view()), std::vector<double>(6, 1.0)), 0b011011);
}

TEST(QuotaTopK, NamesWhatCannotBe) {
  Case c;
  c.group = {0, 0, 1, 1, 1};
  c.parent = {-1, -1};
  c.lower = {3, 0};
  c.upper = {5, 5};
  c.k = 3;
  QuotaFault fault = QuotaTree(c.view()).fault();  // 3 of a group of 2
  EXPECT_TRUE(fault.found);
  EXPECT_EQ(fault.group, 0);
  EXPECT_EQ(fault.most, 2);
  EXPECT_EQ(fault.lower, 3);
  c.lower = {2, 2};
  fault = QuotaTree(c.view()).fault();  // 4 at least for K = 3
  EXPECT_TRUE(fault.found);
  EXPECT_EQ(fault.group, -1);
  EXPECT_EQ(fault.least, 4);
  EXPECT_EQ(fault.upper, 3);
  c.parent = {1, 0};
  EXPECT_TRUE(QuotaTree(c.view()).fault().circular);
}

TEST(QuotaTopK, ManySitesAgainstASort) {
  std::mt19937_64 random(11);
  const int sites = 20000, groups = 40;
  Case c;
  std::vector<float> r;
  for (int s = 0; s < sites; ++s) {
    c.group.push_back(int32_t(random() % groups));
    r.push_back(float(random() % 5000));
  }
  c.parent.assign(groups, -1);
  c.lower.assign(groups, 3);
  c.upper.assign(groups, 60);
  c.k = 1000;
  const QuotaTree tree(c.view());
  QuotaScratch<float> scratch;
  std::vector<int32_t> chosen(1000), order(sites), want;
  tree.best(r.data(), scratch, chosen.data());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return r[size_t(a)] > r[size_t(b)]; });
  std::vector<int> count(groups, 0);
  std::vector<char> in(sites, 0);
  for (const int round : {0, 1})
    for (const int32_t s : order) {
      int& n = count[size_t(c.group[size_t(s)])];
      if (in[size_t(s)] || n >= (round ? 60 : 3) || want.size() == 1000) continue;
      ++n;
      in[size_t(s)] = 1;
      want.push_back(s);
    }
  std::sort(want.begin(), want.end());
  std::sort(chosen.begin(), chosen.end());
  EXPECT_EQ(chosen, want);
}

}  // namespace
