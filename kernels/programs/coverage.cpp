#include "coverage.h"

#include <algorithm>
#include <cmath>
#include <queue>

#include "coverage_bound.h"
#include "coverage_state.h"

namespace topreach::kernels {

Coverage spillover(const Graph& graph, std::span<const double> treated,
                   std::span<const double> spilled, std::span<const double> compliance) {
  Coverage c;
  c.people = c.seeds = graph.nodes();
  for (int32_t i = 0; i < graph.nodes(); ++i) {
    const double comes = compliance.empty() ? 1.0 : compliance[size_t(i)];
    c.a.push_back((treated[size_t(i)] - spilled[size_t(i)]) * comes);
    c.w.push_back(spilled[size_t(i)]);
    c.seed.push_back(i);
    c.seed.insert(c.seed.end(), graph.of(i).begin(), graph.of(i).end());
    c.start.push_back(int64_t(c.seed.size()));
  }
  if (!compliance.empty())
    for (const int32_t j : c.seed) c.chance.push_back(compliance[size_t(j)]);
  return c;
}

Coverage call_in(const Graph& graph, std::span<const double> comes, std::span<const double> passes,
                 std::span<const double> weight) {
  Coverage c;
  c.people = c.seeds = graph.nodes();
  c.a.assign(size_t(c.seeds), 0.0);
  c.w.assign(size_t(c.people), 1.0);
  if (!weight.empty()) c.w.assign(weight.begin(), weight.end());
  for (int32_t i = 0; i < graph.nodes(); ++i) {
    c.seed.push_back(i);
    c.chance.push_back(comes[size_t(i)]);
    for (const int32_t j : graph.of(i)) {
      c.seed.push_back(j);
      c.chance.push_back(comes[size_t(j)] * passes[size_t(j)]);
    }
    c.start.push_back(int64_t(c.seed.size()));
  }
  return c;
}

CoverageColumns::CoverageColumns(const Coverage& coverage)
    : start(size_t(coverage.seeds) + 1, 0),
      person(coverage.seed.size()),
      entry(coverage.seed.size()) {
  for (const int32_t j : coverage.seed) ++start[size_t(j) + 1];
  for (size_t j = 0; j < size_t(coverage.seeds); ++j) start[j + 1] += start[j];
  std::vector<int64_t> next(start.begin(), start.end() - 1);
  for (int64_t i = 0; i < coverage.people; ++i)
    for (int64_t e = coverage.start[size_t(i)]; e < coverage.start[size_t(i) + 1]; ++e) {
      const auto at = size_t(next[size_t(coverage.seed[size_t(e)])]++);
      person[at] = int32_t(i);
      entry[at] = e;
    }
}

namespace {

double value_of(const Coverage& coverage, const CoverageColumns& columns,
                std::span<const int32_t> chosen, bool capped) {
  CoverageState state(coverage, columns, capped);
  double value = 0;
  for (const int32_t j : chosen) {
    state.join_seed(j);
    value += coverage.a[size_t(j)];
  }
  for (int64_t i = 0; i < coverage.people; ++i) value += coverage.w[size_t(i)] * state.reached(i);
  return value;
}

// Gains only fall as the plan grows. So a seed is the best if its gain for the present plan is above
// the gains that the others had for earlier plans.
std::vector<int32_t> greedy(const Coverage& coverage, const CoverageColumns& columns,
                            const QuotaTree& plans, std::span<const int32_t> locked, bool capped) {
  CoverageState state(coverage, columns, capped);
  QuotaRoom room(plans);
  std::vector<int32_t> chosen;
  std::vector<char> in(size_t(coverage.seeds), 0);
  const auto take = [&](int32_t j) {
    in[size_t(j)] = 1;
    chosen.push_back(j);
    state.join_seed(j);
    room.join(plans.node_of()[size_t(j)]);
  };
  for (const int32_t j : locked) take(j);
  struct Candidate {
    double gain;
    int32_t seed;
    size_t at;  // the size of the plan that the gain was computed for
    bool operator<(const Candidate& other) const {
      return gain < other.gain || (gain == other.gain && seed > other.seed);
    }
  };
  std::vector<Candidate> first;
  for (int32_t j = 0; j < coverage.seeds; ++j)
    if (!in[size_t(j)] && plans.node_of()[size_t(j)] >= 0)
      first.push_back({state.gain_of(j), j, chosen.size()});
  std::priority_queue<Candidate> queue(std::less<Candidate>(), std::move(first));
  while (int64_t(chosen.size()) < plans.k()) {
    Candidate best = queue.top();
    queue.pop();
    // Once there is no room for a seed, there is none later.
    if (!room.has_room(plans.node_of()[size_t(best.seed)])) continue;
    if (best.at == chosen.size()) {
      take(best.seed);
    } else {
      best = {state.gain_of(best.seed), best.seed, chosen.size()};
      queue.push(best);
    }
  }
  return chosen;
}

// Improves a plan by single swaps. gain_[j] is what j adds, or takes away by leaving. A seed that
// leaves changes only the gains of the seeds that share people with it. So its best replacement is one
// of these, or one that an earlier swap of this pass has touched, or the first of the untouched ones.
// Those are sorted once in each pass, for each group.
class Swaps {
 public:
  Swaps(const Coverage& coverage, const CoverageColumns& columns, const QuotaTree& plans,
        std::span<const int32_t> locked, bool capped)
      : coverage_(coverage),
        columns_(columns),
        plans_(plans),
        state_(coverage, columns, capped),
        fixed_(size_t(coverage.seeds), 0),
        mark_(size_t(coverage.seeds), 0),
        moved_(size_t(coverage.seeds), 0) {
    for (const int32_t j : locked) fixed_[size_t(j)] = 1;
  }

  void improve(std::vector<int32_t>& chosen, const Deadline& deadline) {
    QuotaRoom room(plans_);
    state_.clear();
    in_.assign(size_t(coverage_.seeds), 0);
    for (const int32_t j : chosen) {
      state_.join_seed(j);
      in_[size_t(j)] = 1;
      room.join(plans_.node_of()[size_t(j)]);
    }
    gain_.assign(coverage_.a.begin(), coverage_.a.end());
    for (int64_t i = 0; i < coverage_.people; ++i) add_row(i, 1.0, false);
    for (bool better = true; better;) {
      better = false;
      sort_candidates();
      std::sort(chosen.begin(), chosen.end(), [&](int32_t a, int32_t b) {
        return gain_[size_t(a)] < gain_[size_t(b)] ||
               (gain_[size_t(a)] == gain_[size_t(b)] && a < b);
      });
      for (int32_t& j : chosen) {
        if (deadline.passed()) return;
        if (fixed_[size_t(j)]) continue;
        const int32_t node = plans_.node_of()[size_t(j)];
        ++trial_;
        touched_.clear();
        undo_.clear();
        const auto saved = state_.save(j);
        toggle(j);
        room.leave(node);
        const int32_t best = best_replacement(j, room);
        if (best == j) {
          for (auto u = undo_.rbegin(); u != undo_.rend(); ++u) gain_[size_t(u->seed)] = u->gain;
          in_[size_t(j)] = 1;
          state_.restore(j, saved);
          room.join(node);
          continue;
        }
        better = true;
        toggle(best);
        room.join(plans_.node_of()[size_t(best)]);
        for (const int32_t s : touched_)
          if (!moved_[size_t(s)]) {
            moved_[size_t(s)] = 1;
            moved_list_.push_back(s);
          }
        j = best;
      }
    }
  }

 private:
  void sort_candidates() {
    for (const int32_t s : moved_list_) moved_[size_t(s)] = 0;
    moved_list_.clear();
    candidates_.assign(plans_.nodes().size(), {});
    next_.assign(plans_.nodes().size(), 0);
    for (int32_t s = 0; s < coverage_.seeds; ++s) {
      const int32_t node = plans_.node_of()[size_t(s)];
      if (node >= 0 && !in_[size_t(s)]) candidates_[size_t(node)].push_back(s);
    }
    for (auto& seeds : candidates_)
      std::sort(seeds.begin(), seeds.end(), [&](int32_t a, int32_t b) {
        return gain_[size_t(a)] > gain_[size_t(b)] ||
               (gain_[size_t(a)] == gain_[size_t(b)] && a < b);
      });
  }
  // The seed with the largest gain for which there is room; j itself if none is better.
  int32_t best_replacement(int32_t j, const QuotaRoom& room) {
    int32_t best = j;
    const auto try_seed = [&](int32_t s) {
      if (!in_[size_t(s)] && gain_[size_t(s)] > gain_[size_t(best)] &&
          room.has_room(plans_.node_of()[size_t(s)]))
        best = s;
    };
    for (const int32_t s : touched_) try_seed(s);
    for (const int32_t s : moved_list_) try_seed(s);
    for (size_t v = 0; v < candidates_.size(); ++v) {
      const auto& seeds = candidates_[v];
      size_t& next = next_[v];
      while (next < seeds.size() && (moved_[size_t(seeds[next])] || in_[size_t(seeds[next])]))
        ++next;
      for (size_t c = next; c < seeds.size(); ++c) {
        const auto s = size_t(seeds[c]);
        if (gain_[s] <= gain_[size_t(best)]) {
          if (mark_[s] != trial_) break;
          continue;
        }
        if (moved_[s] || in_[s] || mark_[s] == trial_) continue;
        try_seed(seeds[c]);
        break;
      }
    }
    const double least = 1e-12 * (1.0 + std::abs(gain_[size_t(j)]));
    return gain_[size_t(best)] <= gain_[size_t(j)] + least ? j : best;
  }
  void add_row(int64_t i, double sign, bool log) {
    const double weight = sign * coverage_.w[size_t(i)];
    for (int64_t e = coverage_.start[size_t(i)]; e < coverage_.start[size_t(i) + 1]; ++e) {
      const auto s = size_t(coverage_.seed[size_t(e)]);
      if (log && mark_[s] != trial_) {
        mark_[s] = trial_;
        touched_.push_back(int32_t(s));
        undo_.push_back({int32_t(s), gain_[s]});
      }
      const double q = chance_of(coverage_, e);
      gain_[s] += weight * (in_[s] ? state_.takes(i, q) : state_.adds(i, q));
    }
  }
  void toggle(int32_t j) {
    const int64_t begin = columns_.start[size_t(j)], end = columns_.start[size_t(j) + 1];
    for (int64_t c = begin; c < end; ++c) add_row(columns_.person[size_t(c)], -1.0, true);
    in_[size_t(j)] = !in_[size_t(j)];
    for (int64_t c = begin; c < end; ++c) {
      const int64_t i = columns_.person[size_t(c)];
      const double q = chance_of(coverage_, columns_.entry[size_t(c)]);
      if (in_[size_t(j)])
        state_.join(i, q);
      else
        state_.leave(i, q);
      add_row(i, 1.0, true);
    }
  }

  const Coverage& coverage_;
  const CoverageColumns& columns_;
  const QuotaTree& plans_;
  CoverageState state_;
  std::vector<char> fixed_, in_;
  std::vector<double> gain_;
  std::vector<int64_t> mark_;  // the last trial that touched a seed
  int64_t trial_ = 0;
  std::vector<char> moved_;  // touched by a swap of this pass
  std::vector<int32_t> touched_, moved_list_;
  struct Undo {
    int32_t seed;
    double gain;
  };
  std::vector<Undo> undo_;
  std::vector<std::vector<int32_t>> candidates_;
  std::vector<size_t> next_;
};

}  // namespace

double coverage_value(const Coverage& coverage, std::span<const int32_t> chosen, bool capped) {
  return value_of(coverage, CoverageColumns(coverage), chosen, capped);
}

CoveragePlan solve_coverage(const Coverage& coverage, const QuotaTree& plans,
                            const CoverageOptions& options) {
  CoveragePlan result;
  if (plans.fault().found) return result;
  const Deadline deadline(options.time_limit);
  const CoverageColumns columns(coverage);
  std::vector<int32_t> locked;
  for (const auto& node : plans.nodes())
    for (int64_t j = 0; j < node.locked; ++j)
      locked.push_back(plans.order()[size_t(node.own_begin + j)]);

  Swaps swaps(coverage, columns, plans, locked, options.capped);
  result.chosen = greedy(coverage, columns, plans, locked, options.capped);
  swaps.improve(result.chosen, deadline);
  result.value = value_of(coverage, columns, result.chosen, options.capped);
  result.bound = std::numeric_limits<double>::infinity();
  if (options.steps > 0) {
    CoverageBound bound(coverage, columns, plans, options.capped);
    const auto improve = [&](std::vector<int32_t>& plan) {
      swaps.improve(plan, deadline);
      return value_of(coverage, columns, plan, options.capped);
    };
    result.steps = bound.run(result.chosen, result.value, options, improve, deadline);
    result.bound = bound.bound();
    // Rounding may leave the bound a little below the value.
    result.bound = std::max(result.bound, result.value);
  }
  std::sort(result.chosen.begin(), result.chosen.end());
  result.status = status_of(result.value, result.bound, options.gap);
  result.gap = relative_gap(result.value, result.bound);
  result.reach = value_of(coverage, columns, result.chosen, false);
  for (const int32_t j : result.chosen) result.reach -= coverage.a[size_t(j)];
  return result;
}

}  // namespace topreach::kernels
