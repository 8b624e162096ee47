// Options and result of every function of topreach::plan.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels.h"
#include "milp.h"

namespace topreach::plan {

struct SolveOptions {
  double gap = 1e-4;  // the relative gap that is good enough, >= 0
  double time_limit = std::numeric_limits<double>::infinity();  // seconds, > 0
  int32_t seed = 0;                                             // of HiGHS
};

/// The result of a program. Site numbers are rows of its input.
///
/// status: "optimal" (the gap is at most 1e-6, or the gap asked for), "feasible" (a larger proved
/// gap, or time was up), "heuristic" (no bound) or "infeasible" (there is no plan; `chosen` is
/// empty and a note says what is known).
struct Solved {
  std::string program;  // "quota_topk", ...
  std::string status = "optimal";
  bool maximised = true;        // false: minimised
  std::vector<int32_t> chosen;  // ascending
  double value = 0;
  std::optional<double> bound, gap;
  double seconds = 0;
  /// Further results by name ("reach", "cost", "price", ...), per site or per need.
  std::vector<std::pair<std::string, double>> numbers;
  std::vector<std::pair<std::string, std::vector<double>>> columns;
  /// Tours, best first, each in the order of the path; for phases, the sites of each period.
  std::vector<std::vector<int32_t>> parts;
  /// Edges of a subgraph; for treatment coverage, who is sent where, with `amounts`.
  std::vector<std::pair<int32_t, int32_t>> edges;
  std::vector<double> amounts;
  std::vector<int32_t> essential, replaceable;  // nodes of a subgraph
  std::vector<std::string> notes;               // a sentence each
};

/// "optimal", "feasible", ...
std::string status_name(kernels::PlanStatus status);

/// Raises c10::ValueError unless gap >= 0 and time_limit > 0.
void check_options(const char* function, const SolveOptions& options);

/// Value, bound, gap and status of a program that maximises or minimises; without a bound (not finite):
/// "heuristic".
void set_value(Solved& solved, double value, double bound, double gap);
/// The answer of a mixed-integer program whose first `sites` columns are the choice. Raises
/// std::runtime_error if time was up before a plan was found.
void set_choice(Solved& solved, const char* function, const MilpSolution& answer, size_t sites);

/// Options for HiGHS, with the time that is left.
MilpOptions milp_options(const SolveOptions& options, const kernels::Deadline& deadline);

}  // namespace topreach::plan
