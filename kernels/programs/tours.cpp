#include "tours.h"

#include <algorithm>
#include <cmath>
#include <queue>

#include "set_packing.h"

namespace topreach::kernels {
namespace {

constexpr double kTiny = 1e-9;      // gains closer than this are equal
constexpr int32_t kMostSteps = 64;  // of walks that are computed; beyond, (b) alone is used
constexpr size_t kMostListed = 20000;
constexpr int64_t kMostBranches = 5000000;
constexpr double kInfinite = std::numeric_limits<double>::infinity();

using Path = std::vector<int32_t>;

class Pricing {
 public:
  Pricing(const Graph& graph, std::span<const double> gain, const TourOptions& options,
          const Deadline& deadline)
      : r(gain.begin(), gain.end()),
        graph_(graph),
        options_(options),
        deadline_(deadline),
        gain_(gain.begin(), gain.end()),
        open_(gain.size(), 1),
        on_(gain.size(), 0) {
    least_size_ =
        options.size.empty() ? 1.0 : *std::min_element(options.size.begin(), options.size.end());
    const double most = std::floor(options.max_size / least_size_ + kTiny);
    max_areas_ = most < double(graph.nodes()) ? std::max(int32_t(most), 1) : graph.nodes();
    usable_.assign(gain.size(), 1);
    if (!options.lock.empty())
      for (size_t i = 0; i < usable_.size(); ++i) usable_[i] = options.lock[i] >= 0;
  }

  double size_of(int32_t u) const { return options_.size.empty() ? 1.0 : options_.size[size_t(u)]; }
  double size_of(const Path& path) const {
    double sum = 0;
    for (const int32_t u : path) sum += size_of(u);
    return sum;
  }

  void set_prices(const std::vector<double>& prices) {
    for (size_t i = 0; i < r.size(); ++i) r[i] = gain_[i] - prices[i];
  }

  // Leaves out areas that are on no path with a reduced gain above `least`, and bounds the rest.
  // `near`: prepares (b) too.
  void reduce(double least, bool near = true) {
    open_ = usable_;
    walks_ = max_areas_ <= kMostSteps;
    for (int round = 0; round < (walks_ ? 3 : 0); ++round) {
      compute_walks();
      const auto last = size_t(max_areas_ - 1);
      bool changed = false;
      for (size_t u = 0; u < open_.size(); ++u) {
        if (!open_[u]) continue;
        double most = 0;
        for (size_t l = 0; 2 * l <= last; ++l)
          most = std::max(most, walk_[l][u].first_gain + walk_[last - l][u].first_gain);
        if (r[u] + most > least + kTiny) continue;
        open_[u] = 0;
        changed = true;
      }
      if (!changed) break;
      if (round == 2) compute_walks();
    }
    near_known_ = near && compute_near();
  }

  // Starts of paths by falling optimistic reduced gain. Unless paths have a minimum size, both ends of
  // a path with the largest reduced gain have a positive reduced gain, and both ends of a tour in a best
  // plan have a positive gain.
  std::vector<std::pair<double, int32_t>> starts(double least, bool reduced = true) const {
    std::vector<std::pair<double, int32_t>> order;
    for (int32_t u = 0; u < graph_.nodes(); ++u) {
      if (!open_[size_t(u)] || size_of(u) > options_.max_size + kTiny) continue;
      const double end = reduced ? r[size_t(u)] : gain_[size_t(u)];
      if (options_.min_size <= least_size_ && end <= kTiny) continue;
      const double left = options_.max_size - size_of(u);
      const double most =
          r[size_t(u)] + std::max(0.0, std::min(walk_from(u, -1, left), reach(u, left)));
      if (most > least + kTiny) order.push_back({most, u});
    }
    std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
      return a.first > b.first || (a.first == b.first && a.second < b.second);
    });
    return order;
  }

  // The best path from s that the beam holds; areas in `taken` are not entered.
  std::pair<double, Path> beam(int32_t s, const std::vector<char>* taken) const {
    struct State {
      double gain, size;
      uint64_t key;
      Path path;
    };
    std::pair<double, Path> best{-kInfinite, {}};
    std::vector<State> level{{r[size_t(s)], size_of(s), mixed(uint64_t(s)), {s}}}, wider;
    struct Step {
      double gain;
      uint64_t key;
      int32_t from, to;
    };
    std::vector<Step> steps;
    std::vector<uint64_t> seen;
    while (!level.empty()) {
      for (const State& state : level)
        if (state.gain > best.first && state.size >= options_.min_size - kTiny)
          best = {state.gain, state.path};
      steps.clear();
      for (size_t i = 0; i < level.size(); ++i)
        for (const int32_t u : graph_.of(level[i].path.back())) {
          if (!open_[size_t(u)] || (taken && (*taken)[size_t(u)])) continue;
          if (level[i].size + size_of(u) > options_.max_size + kTiny) continue;
          const Path& path = level[i].path;
          if (std::find(path.begin(), path.end(), u) != path.end()) continue;
          steps.push_back(
              {level[i].gain + r[size_t(u)], level[i].key ^ mixed(uint64_t(u)), int32_t(i), u});
        }
      std::sort(steps.begin(), steps.end(), [](const Step& a, const Step& b) {
        if (a.gain != b.gain) return a.gain > b.gain;
        return a.from < b.from || (a.from == b.from && a.to < b.to);
      });
      wider.clear();
      seen.clear();
      for (const Step& step : steps) {
        if (wider.size() == size_t(options_.beam)) break;
        // One path for each set of areas and end.
        const uint64_t key = step.key * 3 + mixed(~uint64_t(step.to));
        if (std::find(seen.begin(), seen.end(), key) != seen.end()) continue;
        seen.push_back(key);
        const State& from = level[size_t(step.from)];
        wider.push_back({step.gain, from.size + size_of(step.to), step.key, from.path});
        wider.back().path.push_back(step.to);
      }
      level.swap(wider);
    }
    return best;
  }

  // Depth-first search for the path with the largest reduced gain above `least`; with `all`, for all
  // paths above it. Returns an upper bound on the largest gain: that of the best path, or more if the
  // search stopped early (time was up, or more than kMostListed paths); then `stopped` is set.
  double search(double least, Path& found, std::vector<Path>* all) {
    best_ = least;
    found.clear();
    all_ = all;
    stopped = false;
    for (const auto& [most, s] : starts(least, all == nullptr)) {
      if (most <= best_ + kTiny) break;
      on_[size_t(s)] = 1;
      path_.assign(1, s);
      descend(s, r[size_t(s)], options_.max_size - size_of(s), found);
      on_[size_t(s)] = 0;
      if (stopped) return most > best_ ? most : best_;
    }
    return best_;
  }

  bool stopped = false;
  int64_t branches = 0;

  std::vector<double> r;  // reduced gains

 private:
  const Graph& graph_;
  const TourOptions& options_;
  const Deadline& deadline_;
  std::vector<double> gain_;
  // The best gain of a walk from a node, its first step, and the best gain with another first step.
  struct Walk {
    double first_gain = 0, other_gain = 0;
    int32_t first = -1;
  };
  struct Near {
    double gain, size, distance;  // distance: the smallest size of a path there, without its start
    int32_t area;
  };

  double walk_from(int32_t u, int32_t before, double left) const {
    if (!walks_) return kInfinite;
    const double steps = std::floor(left / least_size_ + kTiny);
    const auto l = size_t(std::min(steps, double(max_areas_ - 1)));
    const Walk& w = walk_[l][size_t(u)];
    return w.first == before && before >= 0 ? w.other_gain : w.first_gain;
  }

  void compute_walks() {
    const auto n = size_t(graph_.nodes());
    walk_.assign(size_t(std::max(max_areas_, 1)), std::vector<Walk>(n));
    for (size_t l = 1; l < walk_.size(); ++l)
      for (int32_t u = 0; u < graph_.nodes(); ++u) {
        if (!open_[size_t(u)]) continue;
        Walk& to = walk_[l][size_t(u)];
        for (const int32_t t : graph_.of(u)) {
          if (!open_[size_t(t)]) continue;
          const Walk& w = walk_[l - 1][size_t(t)];
          const double gain = r[size_t(t)] + (w.first == u ? w.other_gain : w.first_gain);
          if (gain > to.first_gain) {
            to.other_gain = to.first_gain;
            to.first_gain = gain;
            to.first = t;
          } else if (gain > to.other_gain) {
            to.other_gain = gain;
          }
        }
      }
  }

  // For each node the areas of positive reduced gain within reach, by falling gain for their size.
  // Returns whether there was time.
  bool compute_near() {
    const auto n = size_t(graph_.nodes());
    near_.resize(n);
    for (auto& list : near_) list.clear();
    std::vector<double> distance(n, kInfinite);
    using Entry = std::pair<double, int32_t>;
    std::priority_queue<Entry, std::vector<Entry>, std::greater<Entry>> queue;
    Path touched;
    for (int32_t s = 0; s < graph_.nodes(); ++s) {
      if (!open_[size_t(s)] || r[size_t(s)] <= kTiny) continue;
      if (deadline_.passed()) return false;
      // From s outwards: the size of a path from u to s without u.
      touched.assign(1, s);
      distance[size_t(s)] = 0;
      queue.push({0.0, s});
      while (!queue.empty()) {
        const auto [far, u] = queue.top();
        queue.pop();
        if (far > distance[size_t(u)]) continue;
        if (u != s) near_[size_t(u)].push_back({r[size_t(s)], size_of(s), far, s});
        const double next = far + size_of(u);
        if (next + least_size_ > options_.max_size + kTiny) continue;
        for (const int32_t t : graph_.of(u)) {
          if (!open_[size_t(t)] || next >= distance[size_t(t)]) continue;
          if (distance[size_t(t)] == kInfinite) touched.push_back(t);
          distance[size_t(t)] = next;
          queue.push({next, t});
        }
      }
      for (const int32_t u : touched) distance[size_t(u)] = kInfinite;
    }
    for (auto& list : near_)
      std::sort(list.begin(), list.end(), [](const Near& a, const Near& b) {
        const double x = a.gain * b.size, y = b.gain * a.size;
        return x > y || (x == y && a.area < b.area);
      });
    return true;
  }

  double reach(int32_t u, double left) const {
    if (!near_known_) return kInfinite;
    double sum = 0, room = left + kTiny;
    for (const Near& near : near_[size_t(u)]) {
      if (near.distance > left + kTiny || on_[size_t(near.area)]) continue;
      if (near.size >= room) return sum + near.gain * (room / near.size);
      sum += near.gain;
      room -= near.size;
      if (room <= kTiny) break;
    }
    return sum;
  }

  void descend(int32_t u, double gain, double left, Path& found) {
    if (++branches % 4096 == 0 && deadline_.passed()) stopped = true;
    if (stopped) return;
    if (gain > best_ + kTiny && options_.max_size - left >= options_.min_size - kTiny) {
      if (all_) {
        all_->push_back(path_);
        if (all_->size() > kMostListed) stopped = true;
      } else {
        best_ = gain;
        found = path_;
      }
    }
    for (const int32_t t : graph_.of(u)) {
      if (!open_[size_t(t)] || on_[size_t(t)]) continue;
      const double rest = left - size_of(t);
      if (rest < -kTiny) continue;
      const double next = gain + r[size_t(t)];
      if (next + walk_from(t, u, rest) <= best_ + kTiny) continue;
      on_[size_t(t)] = 1;
      if (next + reach(t, rest) > best_ + kTiny) {
        path_.push_back(t);
        descend(t, next, rest, found);
        path_.pop_back();
      }
      on_[size_t(t)] = 0;
    }
  }

  std::vector<char> usable_, open_, on_;
  double least_size_ = 1;
  int32_t max_areas_ = 1;
  bool walks_ = false, near_known_ = false;
  std::vector<std::vector<Walk>> walk_;
  std::vector<std::vector<Near>> near_;
  Path path_;
  double best_ = 0;
  std::vector<Path>* all_ = nullptr;
};

}  // namespace

TourPlan solve_tours(const Graph& graph, std::span<const double> gain, const TourOptions& options) {
  const Deadline deadline(options.time_limit);
  TourPlan plan;
  const int32_t n = graph.nodes();
  SetPacking master(n, options.k);
  std::vector<Path> order;  // of each set in the master, its path
  const auto value_of = [&](const Path& path) {
    double sum = 0;
    for (const int32_t u : path) sum += gain[size_t(u)];
    return sum;
  };
  const auto add = [&](const Path& path) {
    if (!master.add(path, value_of(path))) return false;
    order.push_back(path);
    return true;
  };

  // One tour after another.
  Pricing pricing(graph, gain, options, deadline);
  std::vector<char> taken(size_t(n), 0);
  pricing.reduce(0.0, false);
  const auto first = pricing.starts(0.0);
  for (int64_t t = 0; t < options.k && !deadline.passed(); ++t) {
    std::pair<double, Path> best{0.0, {}};
    for (const auto& [most, s] : first) {
      if (most <= best.first) break;
      if (taken[size_t(s)]) continue;
      auto path = pricing.beam(s, &taken);
      if (path.first > best.first) best = std::move(path);
    }
    if (best.second.empty()) break;
    plan.heuristic += best.first;
    add(best.second);
    for (const int32_t u : best.second) taken[size_t(u)] = 1;
  }
  std::vector<int32_t> chosen;
  for (size_t p = 0; p < order.size(); ++p) chosen.push_back(int32_t(p));
  plan.value = plan.heuristic;
  plan.bound = kInfinite;

  const auto improve = [&] {
    std::vector<int32_t> better;
    const bool finished = master.choose(plan.value, kMostBranches, better);
    if (better.empty()) return finished;
    chosen = better;
    plan.value = 0;
    for (const int32_t p : chosen) plan.value += master.values()[size_t(p)];
    return finished;
  };
  const auto close_enough = [&] {
    return plan.bound - plan.value <= std::max(options.gap, kOptimalGap) * std::abs(plan.value);
  };
  while (true) {
    master.solve();
    const double nu = master.price_of_k();
    double sum = 0;
    for (const double mu : master.prices()) sum += mu;
    pricing.set_prices(master.prices());
    pricing.reduce(nu);
    const auto starts = pricing.starts(nu);
    const double most = starts.empty() ? nu : starts[0].first;
    plan.bound = std::min(plan.bound, sum + double(options.k) * std::max(most, 0.0));
    if (deadline.passed()) break;
    bool added = false;
    for (const auto& [optimistic, s] : starts) {
      const auto path = pricing.beam(s, nullptr);
      if (path.first > nu + 1e-7) added = add(path.second) || added;
    }
    if (added) continue;
    Path found;
    const double best = pricing.search(nu + 1e-7, found, nullptr);
    plan.bound = std::min(plan.bound, sum + double(options.k) * std::max(best, 0.0));
    if (found.empty() || pricing.stopped) break;
    if (!add(found)) break;
    if (options.gap > kOptimalGap) {
      improve();
      if (close_enough()) break;
    }
  }
  improve();
  if (!close_enough() && !pricing.stopped && !deadline.passed()) {
    // Every tour of a better plan has a reduced gain above nu - gap.
    std::vector<Path> all;
    Path none;
    const double least = master.price_of_k() - (plan.bound - plan.value);
    pricing.reduce(least);
    pricing.search(least, none, &all);
    const bool complete = !pricing.stopped;
    for (const Path& path : all) add(path);
    if (improve() && complete) plan.bound = plan.value;
  }
  plan.bound = std::max(plan.bound, plan.value);
  for (const int32_t p : chosen) plan.tours.push_back(order[size_t(p)]);
  std::sort(plan.tours.begin(), plan.tours.end(),
            [&](const Path& a, const Path& b) { return value_of(a) > value_of(b); });
  plan.columns = int64_t(order.size());
  plan.branches = pricing.branches;
  plan.gap = relative_gap(plan.value, plan.bound);
  plan.status = status_of(plan.value, plan.bound, options.gap);
  return plan;
}

}  // namespace topreach::kernels
