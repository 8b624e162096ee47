// Constraints that every choice of sites can keep: K, quotas, sites locked in and out.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels.h"

namespace topreach {
struct QuotaRows;
}

namespace topreach::plan {

/// One way to divide the sites into groups, with quotas: lower_g <= x(g) <= upper_g.
struct Grouping {
  std::string name;                   // "municipality", for messages
  std::vector<std::string> groups;    // [G] names
  std::vector<int32_t> group;         // [S], 0 to G - 1; -1: in none
  std::vector<int64_t> lower, upper;  // [G]
};

/// The same from names. group_of_site [S]: the name of each site's group, "" for none. limited: the groups
/// that have limits, with their lower and upper limits. Other groups have none.
///
///   plan::group_by("town", town_of_site, {"Avon", "Canton"}, {1, 1}, {9, 9})
///
/// Raises c10::ValueError, naming `function`, if a limited group lacks a limit or is named twice, or if a
/// limit asks for sites of a group that has none.
Grouping group_by(const std::string& name, const std::vector<std::string>& group_of_site,
                  const std::vector<std::string>& limited, const std::vector<int64_t>& lower,
                  const std::vector<int64_t>& upper, const char* function = "group_by");
/// The name of each site's group [S], "" for none.
std::vector<std::string> group_names(const Grouping& grouping);

struct Constraints {
  int64_t k = -1;                   // sites to choose; -1: any number
  std::vector<Grouping> groupings;  // groups of one are disjoint; those of two may nest or cross
  std::vector<int8_t> lock;         // [S], 1 in, -1 out, 0 free; or empty
};

/// The same constraints with site from[i] in place i.
Constraints reordered(const Constraints& constraints, const std::vector<size_t>& from);

/// Constraints on S sites, checked: the arrays fit each other, and, if this is quick to tell, the quotas can
/// be met. Raises c10::ValueError, naming `function` and the group, the site or the sum at fault.
class Allowed {
 public:
  Allowed(const char* function, int64_t sites, Constraints constraints);

  int64_t sites() const { return sites_; }
  int64_t k() const { return constraints_.k; }
  const Constraints& constraints() const { return constraints_; }
  std::span<const int8_t> lock() const { return constraints_.lock; }
  /// Only "K sites": no quotas, no locks.
  bool is_plain() const { return constraints_.groupings.empty() && constraints_.lock.empty(); }
  /// The tree of the quotas, if k is given and every grouping is finer or coarser than every other;
  /// else null.
  const kernels::QuotaTree* tree() const { return tree_.get(); }
  /// The tree's groups: those of all groupings, numbered one after another. Null without a tree.
  const QuotaRows* rows() const { return rows_.get(); }
  /// The name of a group by its number: "town 'Avon'".
  std::string group_name(int32_t group) const;
  /// max r.x over the allowed plans, with columns x [S].
  kernels::LinearProgram program(std::span<const double> r) const;
  /// The best K sites for r by the tree. Call only if there is one.
  std::vector<int32_t> best(std::span<const double> r) const;

 private:
  void check(const char* function) const;
  void make_tree(const char* function);

  int64_t sites_;
  Constraints constraints_;
  std::vector<int32_t> first_;  // the first group of each grouping, then G
  std::shared_ptr<const QuotaRows> rows_;
  std::shared_ptr<const kernels::QuotaTree> tree_;
};

/// Raises c10::ValueError unless `values` has one number for each of `sites` sites, none of them NaN or
/// +inf, nor -inf unless `closed`.
void check_values(const char* function, const char* name, std::span<const double> values,
                  int64_t sites, bool closed = false);
/// The same, and raises for a value below 0, or, if `chance`, above 1.
void check_amounts(const char* function, const char* name, std::span<const double> values,
                   int64_t sites, bool chance = false);

/// Sites with a score of -inf are closed: they are locked out, and their score becomes 0. Raises
/// c10::ValueError if one of them is locked in.
std::vector<double> close_sites(const char* function, std::vector<double> scores,
                                Constraints& constraints);

}  // namespace topreach::plan
