#include "representatives.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <queue>

#include "coverage_state.h"

namespace topreach::kernels {
namespace {

constexpr int kPatience = 15;
constexpr double kShrink = 0.6;

template <typename Visit>
void closed_neighbours(const Graph& graph, int32_t node, const Visit& visit) {
  visit(node);
  for (const int32_t other : graph.of(node)) visit(other);
}

struct Candidate {
  double gain;
  int32_t node;
  bool operator<(const Candidate& other) const {
    return gain < other.gain || (gain == other.gain && node > other.node);
  }
};

}  // namespace

Representatives dominating_set(const Graph& graph, std::span<const double> cost, int64_t steps) {
  Representatives result;
  const int32_t n = graph.nodes();
  const auto cost_of = [&](int32_t j) { return cost.empty() ? 1.0 : cost[size_t(j)]; };
  std::vector<int32_t> covers(size_t(n), 0);
  const auto gain_of = [&](int32_t j) {
    double fresh = 0;
    closed_neighbours(graph, j, [&](int32_t i) { fresh += covers[size_t(i)] == 0; });
    return fresh / cost_of(j);
  };
  std::priority_queue<Candidate> queue;
  for (int32_t j = 0; j < n; ++j) queue.push({gain_of(j), j});
  while (!queue.empty()) {  // gains only fall
    const Candidate top = queue.top();
    queue.pop();
    const double gain = gain_of(top.node);
    if (gain == 0) continue;
    if (!queue.empty() && Candidate{gain, top.node} < queue.top()) {
      queue.push({gain, top.node});
      continue;
    }
    result.chosen.push_back(top.node);
    closed_neighbours(graph, top.node, [&](int32_t i) { ++covers[size_t(i)]; });
  }
  std::stable_sort(result.chosen.begin(), result.chosen.end(),
                   [&](int32_t a, int32_t b) { return cost_of(a) > cost_of(b); });
  std::erase_if(result.chosen, [&](int32_t j) {
    bool needed = false;
    closed_neighbours(graph, j, [&](int32_t i) { needed = needed || covers[size_t(i)] == 1; });
    if (!needed) closed_neighbours(graph, j, [&](int32_t i) { --covers[size_t(i)]; });
    return !needed;
  });
  std::sort(result.chosen.begin(), result.chosen.end());
  for (const int32_t j : result.chosen) result.value += cost_of(j);

  // The bound, from prices that no node's neighbourhood exceeds.
  bool whole = true;
  for (const double c : cost) whole = whole && c == std::floor(c);
  const auto rounded = [&](double level) { return whole ? std::ceil(level - 1e-6) : level; };
  std::vector<double> lambda(size_t(n), std::numeric_limits<double>::infinity()), kept,
      slope(lambda);
  for (int32_t j = 0; j < n; ++j)
    closed_neighbours(graph, j, [&](int32_t i) {
      lambda[size_t(i)] = std::min(lambda[size_t(i)], cost_of(j) / double(graph.degree(j) + 1));
    });
  kept = lambda;
  double best = 0, factor = 1;
  int bad = 0;
  for (int64_t step = 0; step < steps; ++step) {
    double level = 0, square = 0;
    for (size_t i = 0; i < size_t(n); ++i) {
      level += lambda[i];
      slope[i] = 1;
    }
    for (int32_t j = 0; j < n; ++j) {
      double reduced = cost_of(j);
      closed_neighbours(graph, j, [&](int32_t i) { reduced -= lambda[size_t(i)]; });
      if (reduced >= 0) continue;
      level += reduced;
      closed_neighbours(graph, j, [&](int32_t i) { slope[size_t(i)] -= 1; });
    }
    if (level > best) {
      best = level;
      kept = lambda;
      bad = 0;
    } else if (++bad > kPatience) {
      factor *= kShrink;
      bad = 0;
      lambda = kept;
      continue;
    }
    if (rounded(best) >= result.value - 1e-9) break;
    for (size_t i = 0; i < size_t(n); ++i) {
      if (lambda[i] <= 0 && slope[i] < 0) slope[i] = 0;
      square += slope[i] * slope[i];
    }
    if (square < 1e-16) break;
    const double length = factor * (result.value - level) / square;
    for (size_t i = 0; i < size_t(n); ++i) lambda[i] = std::max(lambda[i] + length * slope[i], 0.0);
  }
  result.bound = std::min(rounded(best), result.value);
  result.gap = relative_gap(result.value, result.bound);
  result.status = status_of(result.value, result.bound);
  return result;
}

Representatives reach_at_least(const Coverage& coverage, double theta, bool capped) {
  Representatives result;
  Coverage reach = coverage;
  std::fill(reach.a.begin(), reach.a.end(), 0.0);
  const CoverageColumns columns(reach);
  CoverageState state(reach, columns, capped);
  std::priority_queue<Candidate> queue;
  std::vector<double> alone;
  for (int32_t j = 0; j < reach.seeds; ++j) {
    alone.push_back(state.gain_of(j));
    queue.push({alone.back(), j});
  }
  // The fewest seeds whose reaches alone sum to theta.
  std::sort(alone.rbegin(), alone.rend());
  double sum = 0;
  for (size_t j = 0; j < alone.size() && sum < theta - 1e-9; ++j) {
    sum += alone[j];
    result.bound += 1;
  }
  while (result.reach < theta - 1e-9 && !queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    const double gain = state.gain_of(top.node);
    if (gain <= 0) continue;
    if (!queue.empty() && Candidate{gain, top.node} < queue.top()) {
      queue.push({gain, top.node});
      continue;
    }
    state.join_seed(top.node);
    result.chosen.push_back(top.node);
    result.reach += gain;
  }
  std::sort(result.chosen.begin(), result.chosen.end());
  result.value = double(result.chosen.size());
  if (result.reach < theta - 1e-9) {
    result.status = PlanStatus::infeasible;
    return result;
  }
  result.gap = relative_gap(result.value, result.bound);
  result.status = status_of(result.value, result.bound);
  return result;
}

}  // namespace topreach::kernels
