// The Lagrangian bound of coverage.h.
#pragma once

#include <cmath>

#include "coverage_state.h"

namespace topreach::kernels {

class CoverageBound {
 public:
  CoverageBound(const Coverage& coverage, const CoverageColumns& columns, const QuotaTree& plans,
                bool capped);

  // Lowers the bound from multipliers that suit the plan `chosen`; returns the number of steps.
  int64_t run(std::span<const int32_t> chosen, double value, const CoverageOptions& options,
              const Deadline& deadline);

  double bound() const { return bound_; }
  // The best of the plans met on the way, if it is better than the one given.
  bool found_better() const { return !plan_.empty(); }
  const std::vector<int32_t>& plan() const { return plan_; }

 private:
  void begin(std::span<const int32_t> chosen);
  // L at lambda_, its subgradient, and the plan that attains it with its value.
  double evaluate();
  double people_capped(double& value);
  double people_exact(double& value);
  double inner(int64_t i, double own);

  const Coverage& coverage_;
  const CoverageColumns& columns_;
  const QuotaTree& plans_;
  const bool one_each_;  // one multiplier per person, else per entry
  double bound_ = std::numeric_limits<double>::infinity();
  std::vector<int32_t> plan_;
  std::vector<double> lambda_, top_, slope_, score_, amount_;
  std::vector<char> in_;
  std::vector<int32_t> oracle_;
  double oracle_value_ = 0;
  QuotaScratch<double> scratch_;

  struct Branch {
    double q, lambda;
    int64_t entry;
  };
  std::vector<Branch> branches_;
};

}  // namespace topreach::kernels
