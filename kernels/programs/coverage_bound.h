// The Lagrangian bound of coverage.h.
//
// Most multipliers stay at their maximum ("top") and need no work, for instance those of a person far
// from all chosen seeds. A step visits the people that have a multiplier below its top or are reached by
// the oracle's plan (the maximiser over C). Scores are updated for the multipliers that move.
#pragma once

#include <cmath>
#include <functional>

#include "coverage_state.h"

namespace topreach::kernels {

class CoverageBound {
 public:
  CoverageBound(const Coverage& coverage, const CoverageColumns& columns, const QuotaTree& plans,
                bool capped);

  // Lowers the bound, starting from multipliers that suit the plan `chosen`, whose value is given.
  // Returns the number of steps. `improve` makes a plan better and returns its value; it is called from
  // time to time with the oracle's plan. A better plan replaces `chosen` and `value`.
  int64_t run(std::vector<int32_t>& chosen, double& value, const CoverageOptions& options,
              const std::function<double(std::vector<int32_t>&)>& improve,
              const Deadline& deadline);

  double bound() const { return bound_; }

 private:
  void begin(const std::vector<int32_t>& chosen);
  double evaluate();
  void capped_person(int64_t i);
  void exact_person(int64_t i);
  double inner(int64_t i, double own);
  bool any_low(int64_t i) const;
  void add_slope(int64_t at, double slope);
  void set(int64_t at, double value);
  void move(double length);
  void keep();
  void go_back();
  void refresh_scores();

  const Coverage& coverage_;
  const CoverageColumns& columns_;
  const QuotaTree& plans_;
  const bool one_each_;  // one multiplier per person, else one per entry
  double bound_ = std::numeric_limits<double>::infinity();
  std::vector<double> lambda_, top_, kept_;
  std::vector<int32_t> person_of_;   // of an entry, if multipliers are per entry
  std::vector<double> score_;        // a + the multipliers of each seed
  std::vector<char> is_active_;      // people with a multiplier below its top, and some others
  std::vector<char> in_;             // seeds in the oracle's plan
  std::vector<int64_t> reached_at_;  // the last step whose plan reached a person
  std::vector<double> amount_;       // sum of q over the plan's seeds, for people reached
  int64_t time_ = 0;
  // Entries that differ from kept_.
  std::vector<int64_t> changed_;
  std::vector<char> is_changed_;
  struct Slope {
    int64_t at;
    double slope;
  };
  std::vector<Slope> slopes_;
  double square_ = 0, level_ = 0, plan_value_ = 0;
  std::vector<int32_t> oracle_;
  QuotaScratch<double> scratch_;
  struct Branch {
    double q, lambda;
    int64_t entry;
  };
  std::vector<Branch> branches_;
  std::vector<double> taken_;  // T of a person's entries
};

}  // namespace topreach::kernels
