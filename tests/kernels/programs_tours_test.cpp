// Tours against published answers and against all simple paths.
#include "../../kernels/programs/tours.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <random>
#include <set>

#include "../../kernels/programs/set_packing.h"
#include "programs_data.h"

namespace {

using namespace topreach::kernels;
using topreach::tests::grid;

void expect_valid(const Graph& graph, const std::vector<double>& gain, const TourOptions& options,
                  const TourPlan& plan) {
  EXPECT_LE(int64_t(plan.tours.size()), options.k);
  std::set<int32_t> used;
  double value = 0;
  for (const auto& tour : plan.tours) {
    double size = 0;
    for (size_t i = 0; i < tour.size(); ++i) {
      EXPECT_TRUE(used.insert(tour[i]).second);
      value += gain[size_t(tour[i])];
      size += options.size.empty() ? 1.0 : options.size[size_t(tour[i])];
      if (!options.lock.empty()) {
        EXPECT_GE(options.lock[size_t(tour[i])], 0);
      }
      if (i == 0) continue;
      const auto near = graph.of(tour[i - 1]);
      EXPECT_TRUE(std::find(near.begin(), near.end(), tour[i]) != near.end());
    }
    EXPECT_LE(size, options.max_size + 1e-9);
    EXPECT_GE(size, options.min_size - 1e-9);
  }
  EXPECT_NEAR(value, plan.value, 1e-9);
  EXPECT_GE(plan.bound, plan.value);
  EXPECT_LE(plan.heuristic, plan.value + 1e-9);
}

TourPlan tours(const Graph& graph, const std::vector<double>& gain, int64_t k, double min_size = 0,
               double max_size = std::numeric_limits<double>::infinity()) {
  TourOptions options;
  options.k = k;
  options.min_size = min_size;
  options.max_size = max_size;
  const TourPlan plan = solve_tours(graph, gain, options);
  expect_valid(graph, gain, options, plan);
  EXPECT_EQ(plan.status, PlanStatus::optimal);
  return plan;
}

TEST(Tours, ARookGridOfFive) {
  std::vector<double> gain(25, -1.0);
  gain[1 * 5 + 4] += 10;
  gain[4 * 5 + 0] += 4;
  gain[3 * 5 + 1] += 5;
  gain[3 * 5 + 0] += 6;
  gain[2 * 5 + 0] += 4;
  const Graph g = grid(5, 5);
  EXPECT_NEAR(tours(g, gain, 1).value, 19, 1e-9);
  EXPECT_NEAR(tours(g, gain, 2).value, 23, 1e-9);
  EXPECT_NEAR(tours(g, gain, 3).value, 24, 1e-9);
  EXPECT_NEAR(tours(g, gain, 2, 0, 3).value, 21, 1e-9);
  EXPECT_NEAR(tours(g, gain, 2, 2, 5).value, 22, 1e-9);
}

TEST(Tours, TwoBlocksApart) {
  std::vector<double> gain;
  for (int i = 0; i < 6; ++i)
    for (int j = 0; j < 2; ++j) gain.push_back(i == 2 || i == 3 ? -4 : 1);
  EXPECT_NEAR(tours(grid(6, 2), gain, 1).value, 4, 1e-9);
  EXPECT_NEAR(tours(grid(6, 2), gain, 2).value, 8, 1e-9);
}

TEST(Tours, NothingIsWorthwhile) {
  const TourPlan plan = tours(grid(3, 3), std::vector<double>(9, -1.0), 2);
  EXPECT_EQ(plan.value, 0);
  EXPECT_TRUE(plan.tours.empty());
}

// The best total gain of at most k disjoint simple paths, by listing them all.
double by_enumeration(const Graph& graph, const std::vector<double>& gain,
                      const TourOptions& options) {
  std::map<uint32_t, double> sets;
  std::vector<int32_t> path;
  const std::function<void(uint32_t, double, double)> grow = [&](uint32_t set, double size,
                                                                 double value) {
    if (size > options.max_size + 1e-12) return;
    if (size >= options.min_size - 1e-12) sets[set] = value;
    for (const int32_t u : graph.of(path.back())) {
      if (set >> u & 1 || (!options.lock.empty() && options.lock[size_t(u)] < 0)) continue;
      path.push_back(u);
      grow(set | 1u << u, size + options.size[size_t(u)], value + gain[size_t(u)]);
      path.pop_back();
    }
  };
  for (int32_t s = 0; s < graph.nodes(); ++s) {
    if (!options.lock.empty() && options.lock[size_t(s)] < 0) continue;
    path.assign(1, s);
    grow(1u << s, options.size[size_t(s)], gain[size_t(s)]);
  }
  std::vector<std::pair<uint32_t, double>> list(sets.begin(), sets.end());
  std::function<double(size_t, uint32_t, int64_t)> best = [&](size_t from, uint32_t used,
                                                              int64_t left) {
    double most = 0;
    for (size_t i = from; left > 0 && i < list.size(); ++i)
      if (list[i].second > 0 && !(list[i].first & used))
        most = std::max(most, list[i].second + best(i + 1, used | list[i].first, left - 1));
    return most;
  };
  return best(0, 0, options.k);
}

// Random graphs of `least` to least + 3 areas, an edge between two with a chance of tenths / 10.
void expect_best_plans(uint32_t seed, int trials, int32_t least, uint32_t tenths) {
  std::mt19937 random(seed);
  for (int trial = 0; trial < trials; ++trial) {
    const int32_t n = least + int32_t(random() % 4);
    std::vector<int32_t> a, b;
    for (int32_t i = 0; i < n; ++i)
      for (int32_t j = 0; j < i; ++j)
        if (random() % 10 < tenths) a.push_back(i), b.push_back(j);
    const Graph graph = make_graph(n, a, b);
    std::vector<double> gain, size;
    std::vector<int8_t> lock;
    for (int32_t i = 0; i < n; ++i) {
      gain.push_back(double(random() % 9) - 4 + 0.01 * double(random() % 50));
      size.push_back(trial % 3 ? 0.5 + double(random() % 4) : 1.0);
      lock.push_back(random() % 9 ? 0 : -1);
    }
    TourOptions options;
    options.k = 1 + int64_t(random() % 3);
    options.size = size;
    options.max_size = 2 + double(random() % 6);
    if (trial % 4 == 0) options.min_size = 2;
    if (trial % 2) options.lock = lock;
    options.beam = 1 + int32_t(random() % 4);
    const TourPlan plan = solve_tours(graph, gain, options);
    expect_valid(graph, gain, options, plan);
    ASSERT_EQ(plan.status, PlanStatus::optimal) << trial;
    ASSERT_NEAR(plan.value, by_enumeration(graph, gain, options), 1e-9) << trial;
  }
}

TEST(Tours, RandomGraphsAgainstAllPaths) { expect_best_plans(2, 200, 5, 4); }

// With more areas the search must leave most paths out by its bounds.
TEST(Tours, WiderRandomGraphsAgainstAllPaths) { expect_best_plans(3, 120, 10, 3); }

TEST(Tours, TimeIsUpLeavesABound) {
  std::mt19937 random(9);
  std::vector<double> gain;
  for (int i = 0; i < 2500; ++i) gain.push_back(double(random() % 100) / 50 - 1.2);
  TourOptions options;
  options.k = 5;
  options.max_size = 30;
  options.time_limit = 0.2;
  const Graph g = grid(50, 50);
  const TourPlan plan = solve_tours(g, gain, options);
  expect_valid(g, gain, options, plan);
  EXPECT_GT(plan.value, 0);
  EXPECT_LT(plan.bound, 1e4);
}

TEST(SetPacking, PricesProveTheLinearProgram) {
  std::mt19937 random(4);
  for (int trial = 0; trial < 100; ++trial) {
    const int32_t n = 8;
    const int64_t k = 1 + int64_t(random() % 4);
    SetPacking packing(n, k);
    double best = 0;
    for (int s = 0; s < 20; ++s) {
      std::vector<int32_t> set;
      for (int32_t i = 0; i < n; ++i)
        if (random() % 3 == 0) set.push_back(i);
      if (!set.empty()) packing.add(set, 1 + double(random() % 100) / 10);
    }
    packing.solve();
    double bound = double(k) * packing.price_of_k();
    for (const double mu : packing.prices()) bound += mu;
    EXPECT_NEAR(bound, packing.value(), 1e-4);
    for (size_t s = 0; s < packing.sets().size(); ++s) {
      double price = packing.price_of_k();
      for (const int32_t i : packing.sets()[s]) price += packing.prices()[size_t(i)];
      EXPECT_GE(price, packing.values()[s] - 1e-7);
    }
    const std::function<double(size_t, uint32_t, int64_t)> search = [&](size_t from, uint32_t used,
                                                                        int64_t left) {
      double most = 0;
      for (size_t s = from; left > 0 && s < packing.sets().size(); ++s) {
        uint32_t set = 0;
        for (const int32_t i : packing.sets()[s]) set |= 1u << i;
        if (!(set & used))
          most = std::max(most, packing.values()[s] + search(s + 1, used | set, left - 1));
      }
      return most;
    };
    best = search(0, 0, k);
    std::vector<int32_t> chosen;
    EXPECT_TRUE(packing.choose(0.0, 1000000, chosen));
    double value = 0;
    for (const int32_t s : chosen) value += packing.values()[size_t(s)];
    EXPECT_NEAR(value, best, 1e-9);
    EXPECT_LE(best, bound + 1e-7);
  }
}

}  // namespace
