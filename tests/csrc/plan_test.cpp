// topreach::plan and topreach::Graph from C++: known answers, refusals, and results without HiGHS.
// tests/python/test_plan_enumeration.py compares the programs with enumeration.
#include <gtest/gtest.h>

#include <c10/util/Exception.h>

#include <algorithm>

#include "../../csrc/programs/plan_programs.h"

namespace {

using topreach::Graph;
using topreach::plan::Constraints;
using topreach::plan::Grouping;
using topreach::plan::Solved;

template <typename Call>
std::string refusal(Call&& call) {
  try {
    call();
  } catch (const c10::ValueError& error) {
    return error.what_without_backtrace();
  }
  return "";
}

double number(const Solved& solved, const std::string& name) {
  for (const auto& [its, value] : solved.numbers)
    if (its == name) return value;
  return -1;
}

TEST(Graph, EdgesMergeAndIdsAreText) {
  const auto graph =
      Graph::from_edges({"01", "02", "03"}, {"01", "02", "01"}, {"02", "01", "01"}, {3, 2, 1});
  EXPECT_EQ(graph.edges(), 1);
  EXPECT_EQ(graph.adjacency().weights[0], 2);
  EXPECT_EQ(graph.index_of("1"), -1);
  EXPECT_EQ(graph.adjacency().degree(graph.index_of("03")), 0);
  EXPECT_EQ(refusal([] { Graph::from_edges({"a"}, {"a"}, {"b"}); }),
            "Graph: edges must join ids of the 1 sites, got 'b' in row 1");
  EXPECT_EQ(refusal([] { Graph({"a", "a"}, {}, {}); }),
            "Graph: ids must be distinct, got 'a' twice");
  const auto moved = graph.reordered({"03", "02", "01"});
  EXPECT_EQ(moved.adjacency().of(moved.index_of("01"))[0], moved.index_of("02"));
}

TEST(Plan, SpilloverOnFiveNodes) {
  const auto graph =
      Graph::from_edges({"a", "b", "c", "d", "e"}, {"a", "a", "a", "b"}, {"c", "d", "e", "e"});
  const std::vector<double> treated{.4, .5, .1, .1, .2}, spilled{.2, .25, .05, .05, .1};
  const double values[] = {.65, 1.1, 1.2, 1.25, 1.3};
  for (int64_t k = 1; k <= 5; ++k) {
    const Solved plan = topreach::plan::spillover(graph, treated, spilled, {k, {}, {}});
    EXPECT_NEAR(plan.value, values[k - 1], 1e-12);
    EXPECT_EQ(plan.status, "optimal");
    EXPECT_GE(*plan.bound, plan.value);
  }
}

TEST(Plan, QuotasNameTheGroup) {
  const std::vector<double> scores{6, 5, 4, 3};
  Grouping towns{"town", {"A", "B"}, {0, 0, 1, 1}, {1, 1}, {2, 2}};
  const Solved plan = topreach::plan::quota_topk(scores, {2, {towns}, {}});
  EXPECT_EQ(plan.chosen, (std::vector<int32_t>{0, 2}));
  EXPECT_EQ(plan.value, 10);
  towns.lower = {3, 0};
  EXPECT_EQ(refusal([&] { topreach::plan::quota_topk(scores, {3, {towns}, {}}); }),
            "quota_topk: quotas must be feasible, got at least 3 in town 'A' that has 2 sites");
  towns.lower = {1, 1};
  EXPECT_EQ(refusal([&] { topreach::plan::quota_topk(scores, {1, {towns}, {}}); }),
            "quota_topk: quotas must be feasible, got lower bounds that sum to 2 for k=1");
  EXPECT_EQ(refusal([&] { topreach::plan::quota_topk(scores, {5, {}, {}}); }),
            "quota_topk: k must be at most the number of sites S = 4, got 5");
}

TEST(Plan, ManyRowsAreTheSameAsOne) {
  const Grouping towns{"town", {"A", "B"}, {0, 0, 1, 1}, {1, 1}, {2, 2}};
  const std::vector<double> rows{6, 5, 4, 3, 1, 2, 7, 9};
  const auto plans = topreach::plan::quota_topk_rows(rows, 4, {2, {towns}, {}});
  EXPECT_EQ(plans, (std::vector<uint8_t>{1, 0, 1, 0, 0, 1, 0, 1}));
}

TEST(Plan, SpacingIsAHeuristicOrProved) {
  const auto path = Graph::from_edges({}, {"a", "b", "c"}, {"b", "c", "d"});
  const Solved plan = topreach::plan::spaced({3, 4, 3, 1}, path, {2, {}, {}});
  ASSERT_EQ(plan.chosen.size(), 2u);
  if (topreach::has_highs()) {
    EXPECT_EQ(plan.status, "optimal");
    EXPECT_EQ(plan.value, 6);
  } else {
    EXPECT_EQ(plan.status, "heuristic");
    EXPECT_FALSE(plan.bound.has_value());
  }
}

// Against all plans of 3 of 8 sites on a path, one at least of the first four and one of the others.
TEST(Plan, CoverageKeepsQuotas) {
  std::vector<std::string> ids, from, to;
  std::vector<double> weight;
  Grouping halves{"half", {"A", "B"}, {}, {1, 1}, {8, 8}};
  for (int i = 0; i < 8; ++i) {
    ids.push_back(std::to_string(i));
    weight.push_back(i < 4 ? 1 + i : 30 + (5 * i) % 7);
    halves.group.push_back(i / 4);
    if (i > 0) {
      from.push_back(ids[size_t(i) - 1]);
      to.push_back(ids[size_t(i)]);
    }
  }
  double most = 0;
  for (int plan = 0; plan < 256; ++plan) {
    if (__builtin_popcount(unsigned(plan)) != 3 || !(plan & 15) || !(plan >> 4)) continue;
    double value = 0;
    for (int i = 0; i < 8; ++i)
      if ((plan | plan << 1 | plan >> 1) >> i & 1) value += weight[size_t(i)];
    most = std::max(most, value);
  }
  const auto path = Graph::from_edges(ids, from, to);
  const Solved plan = topreach::plan::coverage(path, weight, {3, {halves}, {}}, {.gap = 0});
  EXPECT_EQ(plan.value, most);
  EXPECT_LT(plan.chosen.front(), 4);
  EXPECT_GE(plan.chosen.back(), 4);
}

TEST(Plan, ToursAndSubgraphsNeedNoSolver) {
  const auto path = Graph::from_edges({}, {"a", "b", "c"}, {"b", "c", "d"});
  topreach::plan::TourLimits limits;
  limits.max_size = 3;
  const Solved tour = topreach::plan::tours(path, {3, -1, 3, -5}, 1, limits);
  EXPECT_EQ(tour.value, 5);
  EXPECT_EQ(tour.parts[0].size(), 3u);
  const Solved tree = topreach::plan::subgraph(path, {0, 2});
  EXPECT_EQ(tree.value, 2);
  EXPECT_EQ(tree.essential, (std::vector<int32_t>{1}));
  EXPECT_EQ(number(tree, "trees"), 1);
}

}  // namespace
