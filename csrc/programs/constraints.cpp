#include "constraints.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "../../kernels/programs/models.h"
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

Allowed::Allowed(const char* function, int64_t sites, Constraints constraints)
    : sites_(sites),
      constraints_(std::move(constraints)) {
  check(function);
  make_tree(function);
}

void Allowed::check(const char* function) const {
  const int64_t k = constraints_.k;
  TR_REQUIRE(k >= -1, "{}: k must be a whole number >= 0, got {}", function, k);
  TR_REQUIRE(k <= sites_, "{}: k must be at most the number of sites S = {}, got {}", function,
             sites_, k);
  TR_REQUIRE(lock().empty() || int64_t(lock().size()) == sites_,
             "{}: lock must have one entry for each of {} sites, got {}", function, sites_,
             lock().size());
  for (const Grouping& g : constraints_.groupings) {
    const size_t groups = g.groups.size();
    TR_REQUIRE(
        int64_t(g.group.size()) == sites_ && g.lower.size() == groups && g.upper.size() == groups,
        "{}: {} must give each of {} sites a group and each group its bounds, got {} sites, {} "
        "groups, {} "
        "lower and {} upper bounds",
        function, g.name, sites_, g.group.size(), groups, g.lower.size(), g.upper.size());
    std::vector<int64_t> open(groups, 0), locked(groups, 0);
    for (size_t i = 0; i < g.group.size(); ++i) {
      TR_REQUIRE(g.group[i] >= -1 && g.group[i] < int32_t(groups),
                 "{}: groups must be numbers from -1 to {}, got {}", function, int64_t(groups) - 1,
                 g.group[i]);
      if (g.group[i] < 0) continue;
      open[size_t(g.group[i])] += lock().empty() || lock()[i] >= 0;
      locked[size_t(g.group[i])] += !lock().empty() && lock()[i] > 0;
    }
    int64_t sum = 0;
    for (size_t j = 0; j < groups; ++j) {
      TR_REQUIRE(g.lower[j] <= open[j],
                 "{}: quotas must be feasible, got at least {} in {} '{}' that has {} {}", function,
                 g.lower[j], g.name, g.groups[j], open[j],
                 lock().empty() ? "sites" : "sites that are not closed or locked out");
      TR_REQUIRE(g.lower[j] <= g.upper[j],
                 "{}: quotas must be feasible, got at least {} and at most {} in {} '{}'", function,
                 g.lower[j], g.upper[j], g.name, g.groups[j]);
      TR_REQUIRE(locked[j] <= g.upper[j],
                 "{}: quotas must be feasible, got at most {} in {} '{}' with {} sites locked in",
                 function, g.upper[j], g.name, g.groups[j], locked[j]);
      sum += std::max<int64_t>(g.lower[j], 0);
    }
    TR_REQUIRE(k < 0 || sum <= k,
               "{}: quotas must be feasible, got lower bounds of {} that sum to {} for k = {}",
               function, g.name, sum, k);
  }
  if (lock().empty() || k < 0) return;
  const auto in = std::count_if(lock().begin(), lock().end(), [](int8_t l) { return l > 0; });
  const auto out = std::count_if(lock().begin(), lock().end(), [](int8_t l) { return l < 0; });
  TR_REQUIRE(in <= k, "{}: k must be at least the number of sites locked in, {}, got {}", function,
             in, k);
  TR_REQUIRE(
      sites_ - out >= k,
      "{}: k must be at most the number of sites that are not closed or locked out, {}, got {}",
      function, sites_ - out, k);
}

void Allowed::make_tree(const char* function) {
  if (constraints_.k < 0) return;
  // Finest first. Groups are numbered through.
  std::vector<const Grouping*> order;
  for (const Grouping& g : constraints_.groupings) order.push_back(&g);
  std::stable_sort(order.begin(), order.end(), [](const Grouping* a, const Grouping* b) {
    return a->groups.size() > b->groups.size();
  });
  std::vector<int32_t> first{0}, group(size_t(sites_), -1), parent;
  std::vector<int64_t> lower, upper;
  for (const Grouping* g : order) {
    for (size_t i = 0; i < group.size(); ++i)
      if (group[i] < 0 && g->group[i] >= 0) group[i] = first.back() + g->group[i];
    lower.insert(lower.end(), g->lower.begin(), g->lower.end());
    upper.insert(upper.end(), g->upper.begin(), g->upper.end());
    first.push_back(first.back() + int32_t(g->groups.size()));
  }
  parent.assign(lower.size(), -1);
  for (size_t fine = 0; fine < order.size(); ++fine)
    for (size_t coarse = fine + 1; coarse < order.size(); ++coarse) {
      std::vector<int32_t> its;
      if (!nests(*order[fine], *order[coarse], its)) return;
      for (size_t j = 0; j < its.size(); ++j) {
        int32_t& p = parent[size_t(first[fine]) + j];
        if (p < 0 && its[j] >= 0) p = first[coarse] + its[j];
      }
    }
  for (int64_t& l : lower) l = std::max<int64_t>(l, 0);
  kernels::QuotaGroups groups{sites_, constraints_.k};
  groups.groups = int32_t(lower.size());
  groups.group = group.data();
  groups.parent = parent.data();
  groups.lower = lower.data();
  groups.upper = upper.data();
  groups.lock = constraints_.lock.empty() ? nullptr : constraints_.lock.data();
  tree_ = std::make_unique<kernels::QuotaTree>(groups);
  const kernels::QuotaFault& fault = tree_->fault();
  if (!fault.found) return;
  TR_REQUIRE(fault.group >= 0,
             "{}: quotas must be feasible, got groups and locks that need at least {} sites and "
             "admit at most {}, for k = {}",
             function, fault.least, fault.most, constraints_.k);
  size_t at = 0;
  while (fault.group >= first[at + 1]) ++at;
  TR_REQUIRE(false,
             "{}: quotas must be feasible, got {} to {} in {} '{}', whose groups and locks need at "
             "least {} sites and "
             "admit at most {}",
             function, fault.lower, fault.upper, order[at]->name,
             order[at]->groups[size_t(fault.group - first[at])], fault.least, fault.most);
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
