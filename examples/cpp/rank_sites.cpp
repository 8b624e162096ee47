// Plans for the next period with a trained model, as `topreach rank` does.
//
//   rank_sites MODEL
//   rank_sites MODEL TABLE SITE TIME COUNT [EXPOSURE]
//
// MODEL: a file that `topreach fit`, TopKRanker.save or topreach::Ranker::save wrote. TABLE: a CSV with one
// row per site and period; SITE, TIME, COUNT, EXPOSURE: the names of its columns. Its times are written as
// in training, and its features have the same names. It adds counts of later periods, which are then known,
// or rows with a blank count, whose periods are then planned for.
//
// Prints period, site, score, expected count and chance for the chosen sites, best first; notes go to
// standard error.
#include <topreach/topreach.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "table.h"

namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

// The table as topreach takes it: sites in order of their first row, periods in time order.
topreach::Panel read_panel(const topreach::Ranker& ranker, const std::vector<std::string>& names) {
  const auto table = read_table(names[0]);
  const size_t site_at = table.column(names[1]), time_at = table.column(names[2]),
               count_at = table.column(names[3]);
  topreach::Panel panel;
  std::vector<size_t> features_at;
  for (const auto& name : ranker.feature_names()) {
    const auto found = std::ranges::find(table.names, name);
    if (found == table.names.end()) continue;
    panel.feature_names.push_back(name);
    features_at.push_back(size_t(found - table.names.begin()));
  }
  std::map<std::string, int64_t> sites;
  std::set<double> times;
  for (const auto& row : table.rows) {
    if (sites.emplace(row[site_at], int64_t(sites.size())).second)
      panel.site_ids.push_back(row[site_at]);
    times.insert(ranker.calendar().parse(row[time_at]));
  }
  panel.times.assign(times.begin(), times.end());
  panel.calendar = ranker.calendar();
  const int64_t T = panel.num_times(), S = panel.num_sites(), P = int64_t(features_at.size());
  const auto empty = torch::full({T, S}, kUnknown, torch::kFloat);
  auto x = torch::full({T, S, P}, kUnknown, torch::kFloat), y = empty.clone(),
       exposure = empty.clone();
  auto x_at = x.accessor<float, 3>();
  auto y_at = y.accessor<float, 2>(), exposure_at = exposure.accessor<float, 2>();
  std::set<std::pair<int64_t, int64_t>> seen;
  for (const auto& row : table.rows) {
    const int64_t t =
        std::distance(times.begin(), times.find(ranker.calendar().parse(row[time_at])));
    const int64_t s = sites.at(row[site_at]);
    if (!seen.emplace(t, s).second)
      throw std::runtime_error("site '" + row[site_at] + "' has two rows for " + row[time_at]);
    if (!row[count_at].empty()) y_at[t][s] = float(number(row[count_at]));
    for (int64_t p = 0; p < P; ++p) x_at[t][s][p] = float(number(row[features_at[size_t(p)]]));
    if (names.size() > 4) exposure_at[t][s] = float(number(row[table.column(names[4])]));
  }
  if (P > 0) panel.x = x;
  panel.y = y;
  if (names.size() > 4) panel.exposure = exposure;
  return panel;
}

std::vector<topreach::Plan> plans(const topreach::Ranker& ranker,
                                  const std::vector<std::string>& names) {
  if (names.empty()) return {ranker.plan_next()};
  const auto panel = read_panel(ranker, names);
  int64_t known = panel.num_times();  // periods with counts; those after them are planned for
  while (known > 0 && panel.y[known - 1].isnan().all().item<bool>()) --known;
  if (known == panel.num_times()) return {ranker.plan_next(panel)};
  topreach::Panel coming = panel;
  coming.history_times.assign(panel.times.begin(), panel.times.begin() + known);
  coming.times.assign(panel.times.begin() + known, panel.times.end());
  if (known > 0) coming.history = panel.y.slice(0, 0, known);
  coming.y = panel.y.slice(0, known);
  if (panel.x.defined()) coming.x = panel.x.slice(0, known);
  if (panel.exposure.defined()) {
    coming.exposure = panel.exposure.slice(0, known);
    if (known > 0) coming.history_exposure = panel.exposure.slice(0, 0, known);
  }
  return ranker.plan(coming);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 && argc != 6 && argc != 7) {
    std::fprintf(stderr, "usage: rank_sites MODEL [TABLE SITE TIME COUNT [EXPOSURE]]\n");
    return 2;
  }
  try {
    const auto ranker = topreach::Ranker::load(argv[1]);
    const auto found = plans(ranker, {argv + 2, argv + argc});
    std::printf("time,site,score,expected_count,chance_top_k\n");
    for (const auto& plan : found) {
      for (const auto& note : plan.notes) std::fprintf(stderr, "note: %s\n", note.c_str());
      for (const auto& place : plan.sites) {
        if (!place.selected) continue;
        std::printf("%s,%s,%.9g,", plan.period.c_str(), place.site.c_str(), place.score);
        if (place.expected_count) std::printf("%.9g", *place.expected_count);
        std::printf(",");
        if (place.chance_top_k) std::printf("%.9g", *place.chance_top_k);
        std::printf("\n");
      }
    }
  } catch (const c10::Error& error) {
    std::fprintf(stderr, "rank_sites: %s\n", error.what_without_backtrace());
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rank_sites: %s\n", error.what());
    return 1;
  }
}
