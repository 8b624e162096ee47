#include "constraints.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <utility>

#include "../../kernels/programs/models.h"
#include "../ops/quota_rows.h"
#include "../require_plain.h"

namespace topreach::plan {
namespace {

// Whether every group of `fine` lies in one group of `coarse`, or outside all of them; its parent, if so.
bool nests(const Grouping& fine, const Grouping& coarse, std::vector<int32_t>& parent) {
  constexpr int32_t kUnseen = -2;
  parent.assign(fine.groups.size(), kUnseen);
  for (size_t i = 0; i < fine.group.size(); ++i) {
    if (fine.group[i] < 0) continue;
    int32_t& its = parent[size_t(fine.group[i])];
    if (its == kUnseen) its = coarse.group[i];
    if (its != coarse.group[i]) return false;
  }
  for (int32_t& its : parent) its = std::max(its, -1);
  return true;
}

}  // namespace

Grouping group_by(const std::string& name, const std::vector<std::string>& group_of_site,
                  const std::vector<std::string>& limited, const std::vector<int64_t>& lower,
                  const std::vector<int64_t>& upper, const char* function) {
  TR_REQUIRE(limited.size() == lower.size() && limited.size() == upper.size(),
             "{}: lower and upper must have an entry for each name of {}, got {} and {} for {}",
             function, name, lower.size(), upper.size(), limited.size());
  const std::set<std::string> present(group_of_site.begin(), group_of_site.end());
  Grouping made;
  made.name = name;
  std::map<std::string, int32_t> number;
  const auto add = [&](const std::string& group, int64_t low, int64_t high) {
    if (!number.try_emplace(group, int32_t(made.groups.size())).second) return false;
    made.groups.push_back(group);
    made.lower.push_back(low);
    made.upper.push_back(high);
    return true;
  };
  std::set<std::string> seen;
  for (size_t i = 0; i < limited.size(); ++i) {
    TR_REQUIRE(seen.insert(limited[i]).second,
               "{}: limits must be given once for each {}, got '{}' twice", function, name,
               limited[i]);
    if (!limited[i].empty() && present.contains(limited[i])) {
      add(limited[i], lower[i], upper[i]);
      continue;
    }
    TR_REQUIRE(lower[i] <= 0,
               "{}: quotas must be feasible, got at least {} in {} '{}' that has no sites",
               function, lower[i], name, limited[i]);
  }
  for (const std::string& group : group_of_site) {
    if (!group.empty()) add(group, 0, int64_t(group_of_site.size()));
    made.group.push_back(group.empty() ? -1 : number.at(group));
  }
  return made;
}

std::vector<std::string> group_names(const Grouping& grouping) {
  std::vector<std::string> names;
  for (const int32_t g : grouping.group)
    names.push_back(g < 0 ? std::string() : grouping.groups[size_t(g)]);
  return names;
}

Constraints reordered(const Constraints& constraints, const std::vector<size_t>& from) {
  Constraints made = constraints;
  for (Grouping& grouping : made.groupings) {
    const std::vector<int32_t> group = std::move(grouping.group);
    grouping.group.clear();
    for (const size_t i : from) grouping.group.push_back(group[i]);
  }
  if (made.lock.empty()) return made;
  made.lock.clear();
  for (const size_t i : from) made.lock.push_back(constraints.lock[i]);
  return made;
}

Allowed::Allowed(const char* function, int64_t sites, Constraints constraints)
    : sites_(sites),
      constraints_(std::move(constraints)) {
  first_.push_back(0);
  for (const Grouping& g : constraints_.groupings)
    first_.push_back(first_.back() + int32_t(g.groups.size()));
  check(function);
  make_tree(function);
}

std::string Allowed::group_name(int32_t group) const {
  size_t at = 0;
  while (group >= first_[at + 1]) ++at;
  const Grouping& grouping = constraints_.groupings[at];
  return fmt::format("{} '{}'", grouping.name, grouping.groups[size_t(group - first_[at])]);
}

void Allowed::check(const char* function) const {
  const int64_t k = constraints_.k;
  TR_REQUIRE(k >= -1, "{}: k must be a whole number >= 0, got {}", function, k);
  TR_REQUIRE(k <= sites_, "{}: k must be at most the number of sites S = {}, got {}", function,
             sites_, k);
  TR_REQUIRE(lock().empty() || int64_t(lock().size()) == sites_,
             "{}: lock must have one entry for each of {} sites, got {}", function, sites_,
             lock().size());
  for (const int8_t held : lock())
    TR_REQUIRE(held >= -1 && held <= 1, "{}: lock must be 1, -1 or 0, got {}", function, int(held));
  for (const Grouping& g : constraints_.groupings) {
    const size_t groups = g.groups.size();
    TR_REQUIRE(
        int64_t(g.group.size()) == sites_ && g.lower.size() == groups && g.upper.size() == groups,
        "{}: {} must give each of {} sites a group and each group its bounds, got {} sites, {} "
        "groups, {} "
        "lower and {} upper bounds",
        function, g.name, sites_, g.group.size(), groups, g.lower.size(), g.upper.size());
    for (const int32_t group : g.group)
      TR_REQUIRE(group >= -1 && group < int32_t(groups),
                 "{}: groups must be numbers from -1 to {}, got {}", function, int64_t(groups) - 1,
                 group);
    for (size_t j = 0; j < groups; ++j)
      TR_REQUIRE(g.lower[j] >= 0, "{}: lower must not be negative, got {} in {} '{}'", function,
                 g.lower[j], g.name, g.groups[j]);
  }
  if (!lock().empty() && k >= 0) {
    const auto in = std::count(lock().begin(), lock().end(), int8_t(1));
    const auto out = std::count(lock().begin(), lock().end(), int8_t(-1));
    TR_REQUIRE(in <= k, "{}: k must be at least the number of sites locked in, {}, got {}",
               function, in, k);
    TR_REQUIRE(
        sites_ - out >= k,
        "{}: k must be at most the number of sites that are not closed or locked out, {}, got {}",
        function, sites_ - out, k);
  }
  // Checks each grouping separately. Without k the sum over groups is free.
  const bool has_many = constraints_.groupings.size() > 1;
  for (size_t i = 0; i < constraints_.groupings.size() && (has_many || k < 0); ++i) {
    const Grouping& g = constraints_.groupings[i];
    const QuotaRows rows{sites_,  std::max<int64_t>(k, 0), g.group, {}, g.lower,
                         g.upper, constraints_.lock};
    const kernels::QuotaTree tree = rows.tree();
    if (k < 0 && tree.fault().group < 0) continue;
    check_feasible(
        function, rows, tree, [&](int32_t j) { return group_name(first_[i] + j); },
        has_many ? fmt::format(" by {}", g.name) : "");
  }
}

void Allowed::make_tree(const char* function) {
  if (constraints_.k < 0) return;
  const auto& all = constraints_.groupings;
  // Finest first.
  std::vector<size_t> order(all.size());
  std::iota(order.begin(), order.end(), size_t(0));
  const auto outside = [&](size_t i) {
    return std::count(all[i].group.begin(), all[i].group.end(), -1);
  };
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (all[a].groups.size() != all[b].groups.size())
      return all[a].groups.size() > all[b].groups.size();
    return outside(a) > outside(b);
  });
  auto rows = std::make_shared<QuotaRows>();
  rows->sites = sites_;
  rows->k = constraints_.k;
  rows->lock = constraints_.lock;
  rows->group.assign(size_t(sites_), -1);
  for (const size_t level : order)
    for (size_t i = 0; i < rows->group.size(); ++i)
      if (rows->group[i] < 0 && all[level].group[i] >= 0)
        rows->group[i] = first_[level] + all[level].group[i];
  for (const Grouping& g : all) {
    rows->lower.insert(rows->lower.end(), g.lower.begin(), g.lower.end());
    rows->upper.insert(rows->upper.end(), g.upper.begin(), g.upper.end());
  }
  if (all.size() > 1) rows->parent.assign(rows->lower.size(), -1);
  for (size_t fine = 0; fine < order.size(); ++fine)
    for (size_t coarse = fine + 1; coarse < order.size(); ++coarse) {
      std::vector<int32_t> its;
      if (!nests(all[order[fine]], all[order[coarse]], its)) return;
      for (size_t j = 0; j < its.size(); ++j) {
        int32_t& parent = rows->parent[size_t(first_[order[fine]]) + j];
        if (parent < 0 && its[j] >= 0) parent = first_[order[coarse]] + its[j];
      }
    }
  tree_ = std::make_shared<const kernels::QuotaTree>(rows->tree());
  check_feasible(function, *rows, *tree_, [this](int32_t g) { return group_name(g); });
  rows_ = std::move(rows);
}

kernels::LinearProgram Allowed::program(std::span<const double> r) const {
  auto program = kernels::choice_program(r, constraints_.k, lock());
  for (const Grouping& g : constraints_.groupings)
    kernels::add_quotas(program, g.group, g.lower, g.upper);
  return program;
}

std::vector<int32_t> Allowed::best(std::span<const double> r) const {
  std::vector<int32_t> chosen(size_t(constraints_.k));
  kernels::QuotaScratch<double> scratch;
  tree_->best(r.data(), scratch, chosen.data());
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

void check_values(const char* function, const char* name, std::span<const double> values,
                  int64_t sites, bool closed) {
  TR_REQUIRE(int64_t(values.size()) == sites,
             "{}: {} must have one number for each of {} sites, got {}", function, name, sites,
             values.size());
  for (size_t i = 0; i < values.size(); ++i)
    TR_REQUIRE(std::isfinite(values[i]) || (closed && values[i] < 0),
               "{}: {} must be numbers{}, got {} at site {}", function, name,
               closed ? " (-inf: the site is closed)" : "", values[i], i);
  double sum = 0;
  for (const double value : values) sum += std::isfinite(value) ? std::abs(value) : 0.0;
  TR_REQUIRE(std::isfinite(sum),
             "{}: {} must have a finite sum, got one above 1e308. Divide them all "
             "by a large number",
             function, name);
}

void check_amounts(const char* function, const char* name, std::span<const double> values,
                   int64_t sites, bool chance) {
  check_values(function, name, values, sites);
  for (size_t i = 0; i < values.size(); ++i)
    TR_REQUIRE(values[i] >= 0 && (!chance || values[i] <= 1),
               "{}: {} must be {}, got {} at site {}", function, name,
               chance ? "chances from 0 to 1" : "numbers >= 0", values[i], i);
}

std::vector<double> close_sites(const char* function, std::vector<double> scores,
                                Constraints& constraints) {
  check_values(function, "scores", scores, int64_t(scores.size()), true);
  for (size_t i = 0; i < scores.size(); ++i) {
    if (std::isfinite(scores[i])) continue;
    if (constraints.lock.empty()) constraints.lock.assign(scores.size(), 0);
    TR_REQUIRE(i >= constraints.lock.size() || constraints.lock[i] <= 0,
               "{}: sites locked in must be open, got site {} with a score of -inf", function, i);
    if (i < constraints.lock.size()) constraints.lock[i] = -1;
    scores[i] = 0;
  }
  return scores;
}

}  // namespace topreach::plan
