#include "spaced_plan.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>

#include "../../kernels/programs/models.h"
#include "../require_plain.h"

namespace topreach::plan {
namespace {

constexpr auto kProof = "Not proved to be the best: that needs HiGHS (pip install highsbox).";
constexpr int kMostPasses = 20;

kernels::Graph closer_than(const std::vector<double>& x, const std::vector<double>& y,
                           double distance) {
  std::map<std::pair<int64_t, int64_t>, std::vector<int32_t>> cells;
  const auto cell = [&](size_t i) {
    return std::pair{int64_t(std::floor(x[i] / distance)), int64_t(std::floor(y[i] / distance))};
  };
  for (size_t i = 0; i < x.size(); ++i) cells[cell(i)].push_back(int32_t(i));
  std::vector<int32_t> from, to;
  for (size_t i = 0; i < x.size(); ++i) {
    const auto [a, b] = cell(i);
    for (int64_t da = -1; da <= 1; ++da)
      for (int64_t db = -1; db <= 1; ++db) {
        const auto at = cells.find({a + da, b + db});
        if (at == cells.end()) continue;
        for (const int32_t j : at->second)
          if (size_t(j) > i && std::hypot(x[i] - x[size_t(j)], y[i] - y[size_t(j)]) < distance) {
            from.push_back(int32_t(i));
            to.push_back(j);
          }
      }
  }
  return kernels::make_graph(int32_t(x.size()), from, to);
}

// Takes sites by falling score, if no chosen one is too close. Then, while that helps, replaces a site by a
// better one that fits once it has left. Empty if there are not K such sites, or if the quotas are not met.
std::vector<int32_t> greedy(const Allowed& allowed, const std::vector<double>& r,
                            const kernels::Graph& too_close) {
  const auto n = size_t(allowed.sites());
  std::vector<int32_t> order(n), chosen;
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return r[size_t(a)] > r[size_t(b)]; });
  std::vector<int32_t> blocks(n, 0);  // chosen neighbours
  std::vector<char> in(n, 0);
  const auto* const tree = allowed.tree();
  std::optional<kernels::QuotaRoom> room;
  if (tree) room.emplace(*tree);
  const auto lock_of = [&](int32_t i) {
    return allowed.lock().empty() ? 0 : int(allowed.lock()[size_t(i)]);
  };
  const auto node_of = [&](int32_t i) { return tree ? tree->node_of()[size_t(i)] : 0; };
  const auto fits = [&](int32_t i) {
    return !in[size_t(i)] && lock_of(i) >= 0 && (!room || room->has_room(node_of(i)));
  };
  const auto put = [&](int32_t i, int change) {
    in[size_t(i)] = change > 0;
    for (const int32_t j : too_close.of(i)) blocks[size_t(j)] += change;
    if (room) change > 0 ? room->join(node_of(i)) : room->leave(node_of(i));
  };
  for (const int pass : {1, 0})
    for (const int32_t i : order)
      if (lock_of(i) == pass && fits(i) && blocks[size_t(i)] == 0 &&
          (tree || pass == 1 || r[size_t(i)] > 0))
        put(i, 1);
  for (int pass = 0; pass < kMostPasses; ++pass) {
    bool better = false;
    for (const int32_t i : order) {
      if (!in[size_t(i)] || lock_of(i) > 0) continue;
      put(i, -1);
      int32_t best = i;
      for (const int32_t j : order) {
        if (r[size_t(j)] <= r[size_t(i)]) break;
        if (fits(j) && blocks[size_t(j)] == 0) {
          best = j;
          break;
        }
      }
      put(best, 1);
      better = better || best != i;
    }
    if (!better) break;
  }
  for (size_t i = 0; i < n; ++i)
    if (in[i]) chosen.push_back(int32_t(i));
  const bool complete = allowed.k() < 0 || int64_t(chosen.size()) == allowed.k();
  const bool quotas_kept = tree || allowed.constraints().groupings.empty();
  for (size_t i = 0; i < n; ++i)
    if (lock_of(int32_t(i)) > 0 && !in[i]) return {};
  return complete && quotas_kept ? chosen : std::vector<int32_t>{};
}

// Adds a row for each of a few cliques that together have all edges: stronger than a row for each edge.
void add_cliques(kernels::LinearProgram& program, const kernels::Graph& graph) {
  const auto n = size_t(graph.nodes());
  std::vector<std::vector<char>> is_covered(n);
  for (size_t i = 0; i < n; ++i) is_covered[i].assign(size_t(graph.degree(int32_t(i))), 0);
  const auto place_of = [&](int32_t a, int32_t b) {
    const auto row = graph.of(a);
    return std::lower_bound(row.begin(), row.end(), b) - row.begin();
  };
  const auto joined = [&](int32_t a, int32_t b) {
    const auto row = graph.of(a);
    return std::binary_search(row.begin(), row.end(), b);
  };
  for (int32_t i = 0; i < int32_t(n); ++i)
    for (const int32_t first : graph.of(i)) {
      if (first < i || is_covered[size_t(i)][size_t(place_of(i, first))]) continue;
      std::vector<int32_t> clique{i, first};
      for (const int32_t j : graph.of(i))
        if (j != first &&
            std::all_of(clique.begin() + 1, clique.end(), [&](int32_t c) { return joined(c, j); }))
          clique.push_back(j);
      for (const int32_t a : clique) {
        program.add_term(a, 1);
        for (const int32_t b : clique)
          if (a != b) is_covered[size_t(a)][size_t(place_of(a, b))] = 1;
      }
      program.end_row(-kernels::kNoBound, 1);
    }
}

Solved finish(Solved solved, const char* function, const kernels::LinearProgram& program,
              const std::vector<double>& r, std::vector<double> start, const char* infeasible,
              const SolveOptions& options, const kernels::Deadline& deadline) {
  solved.program = function;
  double value = 0;
  for (const int32_t i : solved.chosen) value += r[size_t(i)];
  if (!start.empty()) set_value(solved, value, kernels::kNoBound, options.gap);
  if (!start.empty() && !has_highs()) {
    solved.notes.push_back(kProof);
  } else {
    auto how = milp_options(options, deadline);
    const bool has_start = !start.empty();
    how.start = std::move(start);
    const auto answer = topreach::solve(program, how);
    if (!answer.x.empty() || !has_start || answer.status == kernels::PlanStatus::infeasible)
      set_choice(solved, function, answer, r.size());
    if (solved.status == "infeasible") solved.notes.push_back(infeasible);
  }
  solved.seconds = deadline.seconds();
  return solved;
}

std::vector<double> as_start(const std::vector<int32_t>& chosen, size_t columns) {
  std::vector<double> start;
  if (chosen.empty()) return start;
  start.assign(columns, 0.0);
  for (const int32_t i : chosen) start[size_t(i)] = 1;
  return start;
}

constexpr auto kTooClose = "There are not so many sites that keep apart and keep the quotas.";

// The best of the plans that grow from each of the best sites, always by the best neighbour. No quotas.
std::vector<int32_t> grown(const Allowed& allowed, const std::vector<double>& r,
                           const kernels::Graph& graph) {
  constexpr size_t kRoots = 50;
  if (!allowed.constraints().groupings.empty() || allowed.k() < 1) return {};
  std::vector<int32_t> roots(size_t(graph.nodes())), best, locked;
  std::iota(roots.begin(), roots.end(), 0);
  std::stable_sort(roots.begin(), roots.end(),
                   [&](int32_t a, int32_t b) { return r[size_t(a)] > r[size_t(b)]; });
  const auto lock_of = [&](int32_t i) {
    return allowed.lock().empty() ? 0 : int(allowed.lock()[size_t(i)]);
  };
  for (const int32_t i : roots)
    if (lock_of(i) > 0) locked.push_back(i);
  if (!locked.empty()) roots = {locked[0]};
  double most = -kernels::kNoBound;
  size_t tried = 0;
  for (const int32_t root : roots) {
    if (lock_of(root) < 0) continue;
    if (tried++ == kRoots) break;
    std::vector<char> in(size_t(graph.nodes()), 0);
    std::vector<int32_t> chosen{root};
    in[size_t(root)] = 1;
    double value = r[size_t(root)];
    while (int64_t(chosen.size()) < allowed.k()) {
      int32_t next = -1;
      for (const int32_t i : chosen)
        for (const int32_t j : graph.of(i))
          if (!in[size_t(j)] && lock_of(j) >= 0 && (next < 0 || r[size_t(j)] > r[size_t(next)]))
            next = j;
      if (next < 0) break;
      in[size_t(next)] = 1;
      chosen.push_back(next);
      value += r[size_t(next)];
    }
    if (int64_t(chosen.size()) < allowed.k() || value <= most) continue;
    if (!std::all_of(locked.begin(), locked.end(), [&](int32_t i) { return in[size_t(i)] != 0; }))
      continue;
    most = value;
    best = chosen;
  }
  return best;
}

// x, root and flows of a connected plan, in the order of add_contiguity; the first site is the root.
std::vector<double> flows(const std::vector<int32_t>& chosen, const kernels::Graph& graph,
                          size_t columns) {
  auto start = as_start(chosen, columns);
  if (chosen.empty()) return start;
  const auto n = size_t(graph.nodes());
  start[n + size_t(chosen[0])] = 1;
  std::vector<int64_t> by_arc(n, -1);
  std::vector<int32_t> parent(n, -1), queue{chosen[0]};
  std::vector<char> is_seen(n, 0);
  is_seen[size_t(chosen[0])] = 1;
  for (size_t at = 0; at < queue.size(); ++at)
    for (int64_t place = graph.start[size_t(queue[at])]; place < graph.start[size_t(queue[at]) + 1];
         ++place) {
      const int32_t j = graph.neighbours[size_t(place)];
      if (is_seen[size_t(j)] || start[size_t(j)] == 0) continue;
      is_seen[size_t(j)] = 1;
      parent[size_t(j)] = queue[at];
      by_arc[size_t(j)] = place;
      queue.push_back(j);
    }
  std::vector<double> below(n, 0.0);
  for (auto i = queue.rbegin(); i != queue.rend(); ++i) {
    below[size_t(*i)] += 1;
    if (parent[size_t(*i)] < 0) continue;
    below[size_t(parent[size_t(*i)])] += below[size_t(*i)];
    start[2 * n + size_t(by_arc[size_t(*i)])] = below[size_t(*i)];
  }
  return start;
}

}  // namespace

Solved spaced(std::vector<double> scores, const std::vector<double>& x,
              const std::vector<double>& y, double distance, Constraints constraints,
              const SolveOptions& options) {
  constexpr auto kName = "spaced";
  const kernels::Deadline deadline(options.time_limit);
  check_options(kName, options);
  const auto r = close_sites(kName, std::move(scores), constraints);
  check_values(kName, "x", x, int64_t(r.size()));
  check_values(kName, "y", y, int64_t(r.size()));
  TR_REQUIRE(std::isfinite(distance) && distance > 0, "{}: distance must be above 0, got {}", kName,
             distance);
  const Allowed allowed(kName, int64_t(r.size()), std::move(constraints));
  auto program = allowed.program(r);
  kernels::add_spacing(program, x, y, distance);
  Solved solved;
  solved.chosen = greedy(allowed, r, closer_than(x, y, distance));
  auto start = as_start(solved.chosen, size_t(program.columns()));
  return finish(std::move(solved), kName, program, r, std::move(start), kTooClose, options,
                deadline);
}

Solved spaced(std::vector<double> scores, const Graph& too_close, Constraints constraints,
              const SolveOptions& options) {
  constexpr auto kName = "spaced";
  const kernels::Deadline deadline(options.time_limit);
  check_options(kName, options);
  const auto r = close_sites(kName, std::move(scores), constraints);
  TR_REQUIRE(int64_t(r.size()) == too_close.nodes(),
             "{}: scores must have one number for each of {} sites, got {}", kName,
             too_close.nodes(), r.size());
  const Allowed allowed(kName, int64_t(r.size()), std::move(constraints));
  auto program = allowed.program(r);
  add_cliques(program, too_close.adjacency());
  Solved solved;
  solved.chosen = greedy(allowed, r, too_close.adjacency());
  auto start = as_start(solved.chosen, size_t(program.columns()));
  return finish(std::move(solved), kName, program, r, std::move(start), kTooClose, options,
                deadline);
}

Solved connected(std::vector<double> scores, const Graph& graph, Constraints constraints,
                 const SolveOptions& options) {
  constexpr auto kName = "connected";
  const kernels::Deadline deadline(options.time_limit);
  check_options(kName, options);
  const auto r = close_sites(kName, std::move(scores), constraints);
  TR_REQUIRE(int64_t(r.size()) == graph.nodes(),
             "{}: scores must have one number for each of {} sites, got {}", kName, graph.nodes(),
             r.size());
  TR_REQUIRE(constraints.k >= 1, "{}: k must be a whole number >= 1, got {}", kName, constraints.k);
  const Allowed allowed(kName, int64_t(r.size()), std::move(constraints));
  auto program = allowed.program(r);
  kernels::add_contiguity(program, graph.adjacency(), allowed.k());
  Solved solved;
  solved.chosen = grown(allowed, r, graph.adjacency());
  auto start = flows(solved.chosen, graph.adjacency(), size_t(program.columns()));
  std::sort(solved.chosen.begin(), solved.chosen.end());
  return finish(std::move(solved), kName, program, r, std::move(start),
                "No K connected sites keep the quotas and locks.", options, deadline);
}

}  // namespace topreach::plan
