#include "milp.h"

#include <dlfcn.h>

#include <cmath>
#include <cstdlib>
#include <mutex>

namespace topreach {
namespace {

using kernels::LinearProgram;
using kernels::PlanStatus;

using HighsInt = int32_t;  // checked when the library is loaded

// Values of the C interface, which its versions 1.x share.
constexpr HighsInt kRowwise = 2, kMinimise = 1, kMaximise = -1, kError = -1;
constexpr HighsInt kModelEmpty = 6, kOptimal = 7, kInfeasible = 8, kUnboundedOrInfeasible = 9,
                   kUnbounded = 10, kTimeLimit = 13, kIterationLimit = 14, kSolutionLimit = 16,
                   kInterrupt = 17;
constexpr HighsInt kFeasiblePoint = 2;

struct Highs {
  void* (*create)();
  void (*destroy)(void*);
  const char* (*version)();
  HighsInt (*size_of_int)(const void*);
  HighsInt (*set_bool)(void*, const char*, HighsInt);
  HighsInt (*set_int)(void*, const char*, HighsInt);
  HighsInt (*set_double)(void*, const char*, double);
  HighsInt (*set_string)(void*, const char*, const char*);
  HighsInt (*pass_mip)(void*, HighsInt, HighsInt, HighsInt, HighsInt, HighsInt, double,
                       const double*, const double*, const double*, const double*, const double*,
                       const HighsInt*, const HighsInt*, const double*, const HighsInt*);
  HighsInt (*pass_lp)(void*, HighsInt, HighsInt, HighsInt, HighsInt, HighsInt, double,
                      const double*, const double*, const double*, const double*, const double*,
                      const HighsInt*, const HighsInt*, const double*);
  HighsInt (*set_solution)(void*, const double*, const double*, const double*, const double*);
  HighsInt (*run)(void*);
  HighsInt (*model_status)(const void*);
  HighsInt (*int_info)(const void*, const char*, HighsInt*);
  HighsInt (*double_info)(const void*, const char*, double*);
  HighsInt (*solution)(const void*, double*, double*, double*, double*);
  double (*infinity)(const void*);
  std::string path;
};

std::mutex mutex;
std::string given_path;

template <typename Function>
bool find(void* library, const char* name, Function& function, std::string& why) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (!function) why = std::string("it has no function ") + name;
  return function != nullptr;
}

// Fills `highs` from a file, or sets `why` to the reason for the failure.
bool load(const std::string& path, Highs& highs, std::string& why) {
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    why = dlerror();
    return false;
  }
  if (!(find(library, "Highs_create", highs.create, why) &&
        find(library, "Highs_destroy", highs.destroy, why) &&
        find(library, "Highs_version", highs.version, why) &&
        find(library, "Highs_getSizeofHighsInt", highs.size_of_int, why) &&
        find(library, "Highs_setBoolOptionValue", highs.set_bool, why) &&
        find(library, "Highs_setIntOptionValue", highs.set_int, why) &&
        find(library, "Highs_setDoubleOptionValue", highs.set_double, why) &&
        find(library, "Highs_setStringOptionValue", highs.set_string, why) &&
        find(library, "Highs_passMip", highs.pass_mip, why) &&
        find(library, "Highs_passLp", highs.pass_lp, why) &&
        find(library, "Highs_setSolution", highs.set_solution, why) &&
        find(library, "Highs_run", highs.run, why) &&
        find(library, "Highs_getModelStatus", highs.model_status, why) &&
        find(library, "Highs_getIntInfoValue", highs.int_info, why) &&
        find(library, "Highs_getDoubleInfoValue", highs.double_info, why) &&
        find(library, "Highs_getSolution", highs.solution, why) &&
        find(library, "Highs_getInfinity", highs.infinity, why))) {
    dlclose(library);
    return false;
  }
  void* const instance = highs.create();
  const HighsInt bytes = highs.size_of_int(instance);
  highs.destroy(instance);
  if (bytes != HighsInt(sizeof(HighsInt))) {
    why = "its whole numbers have " + std::to_string(bytes) + " bytes, not 4";
    dlclose(library);
    return false;
  }
  highs.path = path;
  return true;
}

const Highs& library() {
  static std::optional<Highs> loaded;
  const std::lock_guard<std::mutex> lock(mutex);
  if (loaded) return *loaded;
  std::vector<std::string> paths;
  const char* const named = std::getenv("TOPREACH_HIGHS");
  if (named && *named) {
    paths = {named};
  } else {
    if (!given_path.empty()) paths.push_back(given_path);
#ifdef __APPLE__
    paths.push_back("libhighs.1.dylib");
#else
    paths.push_back("libhighs.so.1");
#endif
  }
  std::string tried;
  for (const std::string& path : paths) {
    Highs highs{};
    std::string why;
    if (load(path, highs, why)) {
      loaded = highs;
      return *loaded;
    }
    tried += (tried.empty() ? "" : "; ") + path + ": " + why;
  }
  throw HighsMissing("milp: the solver HiGHS must be installed for this program, got none (" +
                     tried +
                     "). Install it by `pip install highsbox`, or let TOPREACH_HIGHS name the file "
                     "of its library");
}

void check(const LinearProgram& program, const MilpOptions& options) {
  const size_t columns = program.cost.size(), rows = program.row_lower.size();
  if (program.lower.size() != columns || program.upper.size() != columns ||
      program.integer.size() != columns || program.row_upper.size() != rows ||
      program.row_start.size() != rows + 1 || program.value.size() != program.index.size() ||
      program.row_start.back() != int64_t(program.index.size()))
    throw std::invalid_argument("milp: the program's arrays must fit each other");
  if (!options.start.empty() && options.start.size() != columns)
    throw std::invalid_argument("milp: start must have a value for each of " +
                                std::to_string(columns) + " columns, got " +
                                std::to_string(options.start.size()));
  if (program.index.size() > size_t(std::numeric_limits<HighsInt>::max()))
    throw std::invalid_argument("milp: the program must have fewer than 2^31 coefficients, got " +
                                std::to_string(program.index.size()));
}

// One problem in HiGHS, freed at the end.
struct Instance {
  const Highs& highs;
  void* const at;
  explicit Instance(const Highs& h) : highs(h), at(h.create()) {}
  ~Instance() { highs.destroy(at); }
  Instance(const Instance&) = delete;
  Instance& operator=(const Instance&) = delete;

  double number(const char* name) const {
    double value = 0;
    highs.double_info(at, name, &value);
    return value;
  }
};

void set_options(const Instance& h, const MilpOptions& options, bool presolve) {
  h.highs.set_bool(h.at, "output_flag", 0);
  h.highs.set_int(h.at, "threads", 1);
  h.highs.set_string(h.at, "parallel", "off");
  h.highs.set_int(h.at, "random_seed", options.seed);
  h.highs.set_double(h.at, "mip_rel_gap", options.gap);
  h.highs.set_double(h.at, "mip_abs_gap", 1e-9);
  if (std::isfinite(options.time_limit)) h.highs.set_double(h.at, "time_limit", options.time_limit);
  if (!presolve) h.highs.set_string(h.at, "presolve", "off");
}

// The same program in scaled units, since the solver's tolerances are absolute. Factors are powers of two, so
// that nothing is rounded.
struct Scaled {
  double objective = 1;     // costs are multiplied by it: the largest lies between 1024 and 2048
  std::vector<double> row;  // and rows by these: the largest coefficient lies between 1 and 2
  std::vector<double> cost, lower, upper, value;
  double offset;

  explicit Scaled(const LinearProgram& program)
      : row(program.row_lower.size(), 1.0),
        cost(program.cost),
        lower(program.row_lower),
        upper(program.row_upper),
        value(program.value) {
    double most = 0;
    for (const double c : cost) most = std::max(most, std::abs(c));
    if (most > 0 && std::isfinite(most)) objective = std::ldexp(1.0, 10 - std::ilogb(most));
    for (double& c : cost) c *= objective;
    offset = program.offset * objective;
    for (size_t i = 0; i < row.size(); ++i) {
      const auto begin = size_t(program.row_start[i]), end = size_t(program.row_start[i + 1]);
      most = 0;
      for (size_t e = begin; e < end; ++e) most = std::max(most, std::abs(value[e]));
      if (most > 0 && std::isfinite(most)) row[i] = std::ldexp(1.0, -std::ilogb(most));
      for (size_t e = begin; e < end; ++e) value[e] *= row[i];
      lower[i] *= row[i];
      upper[i] *= row[i];
    }
  }
};

double value_of(const LinearProgram& program, const std::vector<double>& x) {
  double value = program.offset;
  for (size_t j = 0; j < x.size(); ++j) value += program.cost[j] * x[j];
  return value;
}

}  // namespace

void set_highs_library(const std::string& path) {
  const std::lock_guard<std::mutex> lock(mutex);
  given_path = path;
}

bool has_highs() {
  try {
    library();
    return true;
  } catch (const HighsMissing&) {
    return false;
  }
}

std::string highs_version() {
  const Highs& highs = library();
  return std::string(highs.version()) + " (" + highs.path + ")";
}

MilpSolution solve(const LinearProgram& program, const MilpOptions& options) {
  check(program, options);
  const Highs& highs = library();
  bool whole = false;
  for (const uint8_t integer : program.integer) whole = whole || integer != 0;
  const std::vector<HighsInt> start(program.row_start.begin(), program.row_start.end());
  const std::vector<HighsInt> integer(program.integer.begin(), program.integer.end());
  const HighsInt sense = program.maximise ? kMaximise : kMinimise;
  const double worst = program.maximise ? -kernels::kNoBound : kernels::kNoBound;
  const Scaled scaled(program);

  MilpSolution solution;
  HighsInt state = 0;
  // Presolve may say "unbounded or infeasible"; without it the solver knows which.
  for (const bool presolve : {options.presolve, false}) {
    const Instance h(highs);
    set_options(h, options, presolve);
    HighsInt passed;
    if (whole)
      passed =
          highs.pass_mip(h.at, program.columns(), program.rows(), HighsInt(program.index.size()),
                         kRowwise, sense, scaled.offset, scaled.cost.data(), program.lower.data(),
                         program.upper.data(), scaled.lower.data(), scaled.upper.data(),
                         start.data(), program.index.data(), scaled.value.data(), integer.data());
    else
      passed =
          highs.pass_lp(h.at, program.columns(), program.rows(), HighsInt(program.index.size()),
                        kRowwise, sense, scaled.offset, scaled.cost.data(), program.lower.data(),
                        program.upper.data(), scaled.lower.data(), scaled.upper.data(),
                        start.data(), program.index.data(), scaled.value.data());
    if (passed == kError)
      throw std::invalid_argument(
          "milp: HiGHS must accept the program, got an error: a bound or "
          "coefficient is not a number, or an index is out of range");
    if (!options.start.empty())
      highs.set_solution(h.at, options.start.data(), nullptr, nullptr, nullptr);
    highs.run(h.at);
    state = highs.model_status(h.at);
    if (state == kUnboundedOrInfeasible && presolve) continue;

    HighsInt point = 0;
    highs.int_info(h.at, "primal_solution_status", &point);
    const bool stopped = state == kTimeLimit || state == kIterationLimit ||
                         state == kSolutionLimit || state == kInterrupt;
    solution.bound = -worst;
    if (state == kOptimal || state == kModelEmpty || (stopped && point == kFeasiblePoint)) {
      const auto columns = size_t(program.columns()), rows = size_t(program.rows());
      std::vector<double> column_dual(columns), activity(rows), row_dual(rows);
      solution.x.resize(columns);
      highs.solution(h.at, solution.x.data(), column_dual.data(), activity.data(), row_dual.data());
      for (size_t j = 0; j < columns; ++j)
        if (program.integer[j]) solution.x[j] = std::round(solution.x[j]);
      solution.value = value_of(program, solution.x);
      if (whole) {
        solution.bound = h.number("mip_dual_bound") / scaled.objective;
      } else if (!stopped) {
        solution.bound = solution.value;
        for (size_t i = 0; i < rows; ++i) row_dual[i] *= scaled.row[i] / scaled.objective;
        for (double& dual : column_dual) dual /= scaled.objective;
        solution.row_dual = std::move(row_dual);
        solution.column_dual = std::move(column_dual);
      }
      // Rounding in the solver may put the bound slightly on the wrong side of the value.
      solution.bound = program.maximise ? std::max(solution.bound, solution.value)
                                        : std::min(solution.bound, solution.value);
      solution.gap = kernels::relative_gap(solution.value, solution.bound);
      solution.status = std::isfinite(solution.bound)
                            ? kernels::status_of(solution.value, solution.bound, options.gap)
                            : PlanStatus::heuristic;
    } else if (state == kInfeasible) {
      solution.status = PlanStatus::infeasible;
    } else if (state == kUnbounded || state == kUnboundedOrInfeasible) {
      solution.unbounded = true;
    } else if (stopped && whole) {
      solution.bound = h.number("mip_dual_bound") / scaled.objective;
    } else if (!stopped) {
      throw std::runtime_error("milp: HiGHS must solve the program, got model status " +
                               std::to_string(state));
    }
    break;
  }
  return solution;
}

}  // namespace topreach
