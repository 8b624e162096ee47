// Linear and mixed-integer programs by HiGHS (MIT), through its C interface, loaded at run time.
//
// Nothing is linked: the library is looked for at the first use, in this order:
//   1. the file that the environment variable TOPREACH_HIGHS names; if it is set, no other is tried;
//   2. the file given to set_highs_library. Python gives that of the package `highsbox`,
//      highsbox/highs_dist/lib/libhighs.so (.dylib on macOS);
//   3. the system's libhighs.so.1 (Debian 13 and later: libhighs1; libhighs.1.dylib on macOS).
// One thread and a fixed seed: the same program gives the same answer each time.
//
// Huangfu & Hall 2018, Parallelizing the dual revised simplex method, Math. Prog. Comp. 10:119.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"

namespace topreach {

struct MilpOptions {
  double time_limit = kernels::kNoBound;  // seconds
  double gap = 0;                         // the relative gap that is good enough
  int32_t seed = 0;
  // False for coverage programs: HiGHS 1.15 can spend any length of time in their presolve, whatever
  // the time limit.
  bool presolve = true;
  std::vector<double> start;  // [columns], a plan to begin with; or empty
};

struct MilpSolution {
  // `infeasible` and `unknown` (time was up before a plan was found) have no x.
  kernels::PlanStatus status = kernels::PlanStatus::unknown;
  bool unbounded = false;  // the objective has no limit; x is empty
  double value = 0, bound = 0, gap = 0;
  std::vector<double> x;  // [columns]
  // For programs without integer columns: what one more unit of a row's bound, or of a column's bound,
  // adds to the value. Empty otherwise.
  std::vector<double> row_dual, column_dual;
};

// Raised if no HiGHS is found; the message says how to get it.
struct HighsMissing : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Sets the second place to look for the library. No effect once it is loaded.
void set_highs_library(const std::string& path);

// Whether HiGHS can be loaded; and its version and path, as "1.15.1 (path)", which raises HighsMissing.
bool has_highs();
std::string highs_version();

// Raises HighsMissing; std::invalid_argument if arrays do not fit each other.
MilpSolution solve(const kernels::LinearProgram& program, const MilpOptions& options = {});

}  // namespace topreach
