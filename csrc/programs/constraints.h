// What every choice of sites can be asked to keep: K, quotas, sites locked in and out.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels.h"

namespace topreach::plan {

/// Groups of sites with quotas: lower_g <= x(g) <= upper_g.
struct Grouping {
  std::string name;                   // "municipality", for messages
  std::vector<std::string> groups;    // [G] names
  std::vector<int32_t> group;         // [S], 0 to G - 1; -1: in none
  std::vector<int64_t> lower, upper;  // [G]
};

struct Constraints {
  int64_t k = -1;                   // sites to choose; -1: any number
  std::vector<Grouping> groupings;  // disjoint within each; across them nested or crossing
  std::vector<int8_t> lock;         // [S], 1 in, -1 out, 0 free; or empty
};

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
  /// max r.x over these plans, columns x [S].
  kernels::LinearProgram program(std::span<const double> r) const;
  /// The best K sites for r by the tree. Call only if there is one.
  std::vector<int32_t> best(std::span<const double> r) const;

 private:
  void check(const char* function) const;
  void make_tree(const char* function);

  int64_t sites_;
  Constraints constraints_;
  std::unique_ptr<kernels::QuotaTree> tree_;
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
