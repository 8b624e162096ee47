#include "models.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace topreach::kernels {

LinearProgram choice_program(std::span<const double> r, int64_t k, std::span<const int8_t> lock) {
  LinearProgram program;
  program.add_choices(r.data(), int64_t(r.size()), true);
  for (size_t i = 0; i < lock.size(); ++i) {
    if (lock[i] > 0) program.lower[i] = 1;
    if (lock[i] < 0) program.upper[i] = 0;
  }
  if (k < 0) return program;
  for (int32_t i = 0; i < int32_t(r.size()); ++i) program.add_term(i, 1);
  program.end_row(double(k), double(k));
  return program;
}

void add_quotas(LinearProgram& program, std::span<const int32_t> group,
                std::span<const int64_t> lower, std::span<const int64_t> upper) {
  std::vector<std::vector<int32_t>> members(lower.size());
  for (size_t i = 0; i < group.size(); ++i)
    if (group[i] >= 0) members[size_t(group[i])].push_back(int32_t(i));
  for (size_t g = 0; g < members.size(); ++g) {
    for (const int32_t i : members[g]) program.add_term(i, 1);
    program.end_row(double(lower[g]), double(upper[g]));
  }
}

void relax(LinearProgram& program) {
  std::fill(program.integer.begin(), program.integer.end(), uint8_t(0));
}

void add_budget(LinearProgram& program, std::span<const double> c, double budget) {
  for (size_t i = 0; i < c.size(); ++i) program.add_term(int32_t(i), c[i]);
  program.end_row(-kNoBound, budget);
}

void add_spacing(LinearProgram& program, std::span<const double> x, std::span<const double> y,
                 double distance) {
  const double side = distance / std::sqrt(2.0);
  std::map<std::pair<int64_t, int64_t>, std::vector<int32_t>> cells;
  std::vector<std::pair<int64_t, int64_t>> cell_of;
  for (size_t i = 0; i < x.size(); ++i) {
    cell_of.push_back({int64_t(std::floor(x[i] / side)), int64_t(std::floor(y[i] / side))});
    cells[cell_of.back()].push_back(int32_t(i));
  }
  // Cells are half open, so two sites of one are less than `distance` apart.
  for (const auto& [cell, sites] : cells) {
    if (sites.size() < 2) continue;
    for (const int32_t i : sites) program.add_term(i, 1);
    program.end_row(-kNoBound, 1);
  }
  for (size_t i = 0; i < x.size(); ++i)
    for (int64_t a = -2; a <= 2; ++a)
      for (int64_t b = -2; b <= 2; ++b) {
        if (a == 0 && b == 0) continue;
        const auto at = cells.find({cell_of[i].first + a, cell_of[i].second + b});
        if (at == cells.end()) continue;
        for (const int32_t j : at->second)
          if (size_t(j) > i && std::hypot(x[i] - x[size_t(j)], y[i] - y[size_t(j)]) < distance)
            program.add_row({{int32_t(i), 1.0}, {j, 1.0}}, -kNoBound, 1);
      }
}

void add_independence(LinearProgram& program, const Graph& graph) {
  for (int32_t i = 0; i < graph.nodes(); ++i)
    for (const int32_t j : graph.of(i))
      if (j > i) program.add_row({{i, 1.0}, {j, 1.0}}, -kNoBound, 1);
}

void add_contiguity(LinearProgram& program, const Graph& graph, int64_t k) {
  const int32_t n = graph.nodes();
  const int32_t root = program.add_choices(nullptr, n, true);
  int32_t arc = program.columns();
  const auto nodes = size_t(n);
  std::vector<std::vector<int32_t>> in(nodes), out(nodes);
  for (int32_t i = 0; i < n; ++i)
    for (const int32_t j : graph.of(i)) {
      program.add_column(0, 0, double(k), false);
      out[size_t(i)].push_back(arc);
      in[size_t(j)].push_back(arc);
      program.add_row({{arc, 1.0}, {j, -double(k)}}, -kNoBound, 0);
      ++arc;
    }
  for (int32_t i = 0; i < n; ++i) program.add_term(root + i, 1);
  program.end_row(k > 0 ? 1 : 0, k > 0 ? 1 : 0);
  for (int32_t i = 0; i < n; ++i) {
    program.add_row({{root + i, 1.0}, {i, -1.0}}, -kNoBound, 0);
    program.add_term(root + i, double(k));
    program.add_term(i, -1);
    for (const int32_t a : in[size_t(i)]) program.add_term(a, 1);
    for (const int32_t a : out[size_t(i)]) program.add_term(a, -1);
    program.end_row(0, 0);
  }
}

namespace {

std::vector<double> totals(std::span<const double> r, std::span<const int32_t> group,
                           size_t groups) {
  std::vector<double> total(groups, 0.0);
  for (size_t i = 0; i < r.size(); ++i)
    if (group[i] >= 0) total[size_t(group[i])] += r[i];
  return total;
}

}  // namespace

void add_floors(LinearProgram& program, std::span<const double> r, std::span<const int32_t> group,
                std::span<const double> floor) {
  const auto total = totals(r, group, floor.size());
  for (size_t g = 0; g < floor.size(); ++g) {
    for (size_t i = 0; i < r.size(); ++i)
      if (group[i] == int32_t(g)) program.add_term(int32_t(i), r[i]);
    program.end_row(floor[g] * total[g], kNoBound);
  }
}

void maximise_least_share(LinearProgram& program, std::span<const double> r,
                          std::span<const int32_t> group, int32_t groups) {
  program.maximise = true;
  std::fill(program.cost.begin(), program.cost.end(), 0.0);
  const int32_t least = program.add_column(1, 0, 1, false);
  const auto total = totals(r, group, size_t(groups));
  for (size_t g = 0; g < total.size(); ++g) {
    if (total[g] == 0) continue;
    for (size_t i = 0; i < r.size(); ++i)
      if (group[i] == int32_t(g)) program.add_term(int32_t(i), r[i] / total[g]);
    program.add_term(least, -1);
    program.end_row(0, kNoBound);
  }
}

LinearProgram coverage_program(const Coverage& coverage, int64_t k, std::span<const int8_t> lock) {
  LinearProgram program = choice_program(coverage.a, k, lock);
  for (int64_t i = 0; i < coverage.people; ++i) {
    const int32_t y = program.add_column(coverage.w[size_t(i)], 0, 1, false);
    program.add_term(y, 1);
    for (int64_t e = coverage.start[size_t(i)]; e < coverage.start[size_t(i) + 1]; ++e)
      program.add_term(coverage.seed[size_t(e)],
                       coverage.chance.empty() ? -1.0 : -coverage.chance[size_t(e)]);
    program.end_row(-kNoBound, 0);
  }
  return program;
}

int64_t add_tangents(LinearProgram& program, const Coverage& coverage, std::span<const double> x) {
  if (coverage.chance.empty()) return 0;
  int64_t added = 0;
  for (int64_t i = 0; i < coverage.people; ++i) {
    double at = 0, sum = 0;
    bool certain = false;
    const int64_t begin = coverage.start[size_t(i)], end = coverage.start[size_t(i) + 1];
    for (int64_t e = begin; e < end; ++e) {
      const double q = coverage.chance[size_t(e)], chosen = x[size_t(coverage.seed[size_t(e)])];
      sum += q * chosen;
      if (q >= 1)
        certain = certain || chosen > 0.5;
      else
        at -= std::log1p(-q) * chosen;
    }
    const double reach = -std::expm1(-at);
    if (certain || std::min(sum, 1.0) <= reach + 1e-9 || coverage.w[size_t(i)] == 0) continue;
    // The coefficient of a seed with q = 1 is as large as needed to lift the tangent to 1.
    const double slope = std::exp(-at), level = 1 - slope * (1 + at);
    program.add_term(int32_t(coverage.seeds + i), 1);
    for (int64_t e = begin; e < end; ++e) {
      const double q = coverage.chance[size_t(e)];
      const double rise = q >= 1 ? std::max(1 - level, 0.0) : -std::log1p(-q) * slope;
      if (rise > 0) program.add_term(coverage.seed[size_t(e)], -rise);
    }
    program.end_row(-kNoBound, level);
    ++added;
  }
  return added;
}

LinearProgram domination_program(const Graph& graph, std::span<const double> cost) {
  LinearProgram program;
  program.maximise = false;
  const std::vector<double> ones(size_t(graph.nodes()), 1.0);
  program.add_choices(cost.empty() ? ones.data() : cost.data(), graph.nodes(), true);
  for (int32_t i = 0; i < graph.nodes(); ++i) {
    program.add_term(i, 1);
    for (const int32_t j : graph.of(i)) program.add_term(j, 1);
    program.end_row(1, kNoBound);
  }
  return program;
}

LinearProgram phases_program(std::span<const double> r, std::span<const int64_t> k,
                             std::span<const double> opening, std::span<const double> before) {
  LinearProgram program;
  const auto sites = int32_t(opening.size()), periods = int32_t(k.size());
  program.add_choices(r.data(), int64_t(r.size()), false);
  for (int32_t t = 0; t < periods; ++t)
    for (int32_t i = 0; i < sites; ++i) program.add_column(-opening[size_t(i)], 0, 1, false);
  for (int32_t t = 0; t < periods; ++t) {
    for (int32_t i = 0; i < sites; ++i) program.add_term(t * sites + i, 1);
    program.end_row(double(k[size_t(t)]), double(k[size_t(t)]));
    for (int32_t i = 0; i < sites; ++i) {
      program.add_term(t * sites + i, 1);
      program.add_term((periods + t) * sites + i, -1);
      if (t > 0) program.add_term((t - 1) * sites + i, -1);
      program.end_row(-kNoBound, t > 0 || before.empty() ? 0.0 : before[size_t(i)]);
    }
  }
  return program;
}

Transport transport_program(std::span<const double> need, std::span<const double> capacity,
                            std::span<const double> distance, double radius, double unserved) {
  Transport transport;
  LinearProgram& program = transport.program;
  program.maximise = false;
  const size_t n = need.size(), m = capacity.size();
  std::vector<std::vector<int32_t>> of_need(n), of_capacity(m);
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < m; ++j) {
      if (!(distance[i * m + j] <= radius)) continue;
      const int32_t pair = program.add_column(distance[i * m + j], 0, kNoBound, false);
      transport.from.push_back(int32_t(i));
      transport.to.push_back(int32_t(j));
      of_need[i].push_back(pair);
      of_capacity[j].push_back(pair);
    }
  for (size_t i = 0; i < n; ++i) {
    const int32_t left = program.add_column(unserved, 0, kNoBound, false);
    for (const int32_t pair : of_need[i]) program.add_term(pair, 1);
    program.add_term(left, 1);
    program.end_row(need[i], need[i]);
  }
  for (size_t j = 0; j < m; ++j) {
    for (const int32_t pair : of_capacity[j]) program.add_term(pair, 1);
    program.end_row(-kNoBound, capacity[j]);
  }
  return transport;
}

}  // namespace topreach::kernels
