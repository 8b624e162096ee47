// A plan that keeps quotas and distances, from scores, edges and groups.
//
//   plan_sites SCORES EDGES K GROUP AT_LEAST PLAN.csv PLAN.geojson
//
// SCORES: a CSV with the columns site, score, lon, lat and GROUP, and a row for each site. EDGES: a CSV
// whose first two columns are two sites that are too close to each other for both to be chosen. The
// plan has K sites, at least AT_LEAST in each group, and the largest possible sum of scores.
// TOPREACH_HIGHS may name the library of HiGHS. Without HiGHS the plan is found by a heuristic, and
// its status says so.
#include <c10/util/Exception.h>
#include <topreach/topreach.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <fstream>
#include <map>

#include "table.h"

namespace {

topreach::plan::Grouping read_groups(const Table& table, const std::string& name,
                                     int64_t at_least) {
  topreach::plan::Grouping grouping;
  grouping.name = name;
  const size_t at = table.column(name);
  std::map<std::string, int32_t> number;
  for (const auto& row : table.rows) {
    if (row[at].empty()) {  // in no group
      grouping.group.push_back(-1);
      continue;
    }
    const auto [found, is_new] = number.emplace(row[at], int32_t(grouping.groups.size()));
    if (is_new) {
      grouping.groups.push_back(row[at]);
      grouping.lower.push_back(at_least);
      grouping.upper.push_back(0);
    }
    grouping.group.push_back(found->second);
    ++grouping.upper[size_t(found->second)];  // no upper limit: the size of the group
  }
  return grouping;
}

void write_csv(const std::string& path, const Table& table, const std::vector<int32_t>& chosen) {
  std::ofstream file(path);
  for (size_t i = 0; i < table.names.size(); ++i) file << (i ? "," : "") << table.names[i];
  file << '\n';
  for (const int32_t site : chosen) {
    const auto& row = table.rows[size_t(site)];
    for (size_t i = 0; i < row.size(); ++i) file << (i ? "," : "") << row[i];
    file << '\n';
  }
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

void write_geojson(const std::string& path, const Table& table,
                   const std::vector<int32_t>& chosen) {
  const size_t site_at = table.column("site"), lon = table.column("lon"), lat = table.column("lat"),
               score = table.column("score");
  std::ofstream file(path);
  file << R"({"type": "FeatureCollection", "features": [)";
  for (size_t i = 0; i < chosen.size(); ++i) {
    const auto& row = table.rows[size_t(chosen[i])];
    file << (i ? ", " : "") << R"({"type": "Feature", "id": ")" << row[site_at]
         << R"(", "geometry": {"type": "Point", "coordinates": [)" << row[lon] << ", " << row[lat]
         << R"(]}, "properties": {"score": )" << row[score] << "}}";
  }
  file << "]}\n";
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

void run(const std::vector<std::string>& words) {
  const Table table = read_table(words[0]), edges = read_table(words[1]);
  std::vector<std::string> sites, from, to;
  std::vector<double> scores;
  for (const auto& row : table.rows) {
    sites.push_back(row[table.column("site")]);
    scores.push_back(number(row[table.column("score")]));
  }
  for (const auto& row : edges.rows) {
    from.push_back(row[0]);
    to.push_back(row.at(1));
  }
  const auto too_close = topreach::Graph::from_edges(sites, from, to);

  topreach::plan::Constraints constraints;
  constraints.k = int64_t(number(words[2]));
  constraints.groupings = {read_groups(table, words[3], int64_t(number(words[4])))};
  auto plan =
      topreach::plan::spaced(scores, too_close, constraints, {.gap = 1e-6, .time_limit = 60});
  if (plan.status == "infeasible") throw std::runtime_error(plan.notes.at(0));

  std::ranges::stable_sort(plan.chosen, std::greater{},
                           [&](int32_t i) { return scores[size_t(i)]; });
  write_csv(words[5], table, plan.chosen);
  write_geojson(words[6], table, plan.chosen);
  std::printf("%zu sites, value %g, %s\n", plan.chosen.size(), plan.value, plan.status.c_str());
  for (const auto& note : plan.notes) std::fprintf(stderr, "note: %s\n", note.c_str());
}

}  // namespace

int main(int count, char** words) {
  if (count != 8) {
    std::fprintf(stderr, "usage: plan_sites SCORES EDGES K GROUP AT_LEAST PLAN.csv PLAN.geojson\n");
    return 2;
  }
  try {
    run({words + 1, words + count});
  } catch (const c10::Error& error) {
    std::fprintf(stderr, "plan_sites: %s\n", error.what_without_backtrace());
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "plan_sites: %s\n", error.what());
    return 1;
  }
  return 0;
}
