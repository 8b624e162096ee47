// Status and gap of the plan of an allocation program.
#pragma once

#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>

namespace topreach::kernels {

// optimal: the gap is at most kOptimalGap, or the gap that was asked for. feasible: a plan with a
// larger proved gap. heuristic: a plan without a bound. infeasible: there is no plan. unknown: time
// was up before a plan was found.
enum class PlanStatus : int8_t { optimal, feasible, heuristic, infeasible, unknown };

constexpr double kOptimalGap = 1e-6;

// |bound - value| / |value|; 0 if both are 0.
inline double relative_gap(double value, double bound) {
  const double distance = std::abs(bound - value);
  return distance == 0 ? 0.0 : distance / std::abs(value);
}

// The status of a plan with a bound.
inline PlanStatus status_of(double value, double bound, double gap = kOptimalGap) {
  if (!std::isfinite(bound)) return PlanStatus::heuristic;
  return relative_gap(value, bound) <= (gap > kOptimalGap ? gap : kOptimalGap)
             ? PlanStatus::optimal
             : PlanStatus::feasible;
}

// A clock that says when time is up.
class Deadline {
 public:
  explicit Deadline(double seconds) : limit_(seconds), begin_(Clock::now()) {}
  double seconds() const { return std::chrono::duration<double>(Clock::now() - begin_).count(); }
  bool passed() const { return seconds() >= limit_; }

 private:
  using Clock = std::chrono::steady_clock;
  double limit_;
  Clock::time_point begin_;
};

}  // namespace topreach::kernels
