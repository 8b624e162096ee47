// What every choice of sites can be asked to keep: K, quotas, sites locked in and out.
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

/// One way to part the sites into groups, with quotas: lower_g <= x(g) <= upper_g.
struct Grouping {
  std::string name;                   // "municipality", for messages
  std::vector<std::string> groups;    // [G] names
  std::vector<int32_t> group;         // [S], 0 to G - 1; -1: in none
  std::vector<int64_t> lower, upper;  // [G]
};

/// The same from names: of each site [S] its group's, "" for none; then the groups that have limits, and
/// these. Any number of sites may be chosen in the others.
///
///   plan::group_by("town", town_of_site, {"Avon", "Canton"}, {1, 1}, {9, 9})
///
/// Raises c10::ValueError, naming `function`, for limits that are not one for each group, are given twice, or
/// ask for sites of a group that has none.
Grouping group_by(const std::string& name, const std::vector<std::string>& group_of_site,
                  const std::vector<std::string>& limited, const std::vector<int64_t>& lower,
                  const std::vector<int64_t>& upper, const char* function = "group_by");
/// The name of each site's group [S], "" for none.
std::vector<std::string> group_names(const Grouping& grouping);

struct Constraints {
  int64_t k = -1;                   // sites to choose; -1: any number
  std::vector<Grouping> groupings;  // disjoint within each; across them nested or crossing
  std::vector<int8_t> lock;         // [S], 1 in, -1 out, 0 free; or empty
};

/// The same constraints with site from[i] in place i.
Constraints reordered(const Constraints& constraints, const std::vector<size_t>& from);

/// Constraints on S sites, checked: arrays that fit, quotas that can be met where that is quick to know.
/// Raises c10::ValueError, naming `function` and the group, the site or the sum at fault.
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
  /// What the tree is made of: groups of all groupings, numbered one after another. Null without a tree.
  const QuotaRows* rows() const { return rows_.get(); }
  /// "town 'Avon'", of a group's number.
  std::string group_name(int32_t group) const;
  /// max r.x over these plans, columns x [S].
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
/// The same, and none below 0; or above 1, if `chance`.
void check_amounts(const char* function, const char* name, std::span<const double> values,
                   int64_t sites, bool chance = false);

/// Sites with a score of -inf are closed: they are locked out, and their score becomes 0. Raises
/// c10::ValueError if one of them is locked in.
std::vector<double> close_sites(const char* function, std::vector<double> scores,
                                Constraints& constraints);

}  // namespace topreach::plan
