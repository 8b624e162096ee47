// Ranks the sites of a table's newest period with a trained model, as `topreach rank` does.
//
//   rank_sites MODEL TABLE SITE TIME COUNT
//
// MODEL: a file that `topreach fit`, TopKRanker.save or topreach::Ranker::save wrote. TABLE: a CSV with
// one row per site and period. SITE, TIME, COUNT: the names of its columns; times are numbers. The
// features are found by the names that the model knows. Prints site, score and expected count of the
// K sites to choose, best first.
#include <topreach/topreach.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <map>
#include <set>

#include "table.h"

namespace {

double number(const std::string& text) {
  size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    used = std::string::npos;
  }
  if (used != text.size()) throw std::runtime_error("'" + text + "' is not a number");
  return value;
}

void rank_sites(const std::string& model, const std::string& path, const std::string& site_column,
                const std::string& time_column, const std::string& count_column) {
  const auto ranker = topreach::Ranker::load(model);
  const auto& sites = ranker.site_ids();
  const auto table = read_table(path);
  const size_t site_at = table.column(site_column), time_at = table.column(time_column);
  const size_t count_at = table.column(count_column);
  std::vector<size_t> features_at;
  for (const auto& name : ranker.feature_names()) features_at.push_back(table.column(name));

  // The rows of each site by time; the newest period is ranked from those before it.
  std::map<std::string, std::map<double, const std::vector<std::string>*>> rows;
  std::set<double> times;
  for (const auto& row : table.rows) {
    const double time = number(row[time_at]);
    times.insert(time);
    rows[row[site_at]][time] = &row;
  }
  const auto find = [&](const std::string& site, double time) -> const std::vector<std::string>& {
    const auto found = rows.find(site);
    if (found == rows.end() || !found->second.contains(time)) {
      throw std::runtime_error(path + ": no row of site " + site + " at " + std::to_string(time));
    }
    return *found->second.at(time);
  };
  const auto window = static_cast<size_t>(ranker.window());
  if (times.size() <= window) throw std::runtime_error(path + " has too few periods");
  const std::vector<double> recent(std::prev(times.end(), window + 1), times.end());

  auto x = torch::empty({int64_t(sites.size()), int64_t(features_at.size())});
  auto history = torch::empty({int64_t(sites.size()), int64_t(window)});
  auto x_at = x.accessor<float, 2>(), history_at = history.accessor<float, 2>();
  for (size_t s = 0; s < sites.size(); ++s) {
    const auto& newest = find(sites[s], recent.back());
    for (size_t p = 0; p < features_at.size(); ++p)
      x_at[s][p] = float(number(newest[features_at[p]]));
    for (size_t w = 0; w < window; ++w) {
      history_at[s][w] = float(number(find(sites[s], recent[w])[count_at]));
    }
  }

  std::printf("site,score,expected_count\n");
  for (const auto& place : ranker.rank(x, recent.back(), history)) {
    std::printf("%s,%.9g,", place.site.c_str(), place.score);
    if (place.expected_count) std::printf("%.9g", *place.expected_count);
    std::printf("\n");
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: rank_sites MODEL TABLE SITE TIME COUNT\n");
    return 2;
  }
  try {
    rank_sites(argv[1], argv[2], argv[3], argv[4], argv[5]);
  } catch (const c10::Error& error) {
    std::fprintf(stderr, "rank_sites: %s\n", error.what_without_backtrace());
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rank_sites: %s\n", error.what());
    return 1;
  }
}
