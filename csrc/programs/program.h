// A program says which plans are allowed, and finds the best one. A plan is a 0/1 vector over the S
// sites: 1 where we act. TopK (any K sites) is the simplest program.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace topreach {

/// How a program is smoothed so that it has a gradient: plans for values + sigma z, z noise.
struct SoftOptions {
  double sigma = 0.01;         // scale of the noise, in the unit of the values, > 0
  std::string topk = "exact";  // "exact", "mean_field" (no draws) or "sampled"
  int64_t num_samples = 100;   // J draws, for "sampled"
  std::string estimator =
      "score_loo";               // gradient for "sampled": "score", "score_loo", "conditional"
  std::string noise = "normal";  // for "sampled" also "gumbel", "logistic" or "laplace"
  std::optional<at::Tensor> key = std::nullopt;           // int64[2]; drawn if absent
  std::optional<at::Generator> generator = std::nullopt;  // to draw the key from
};

/// One argument of a program's constructor, as model files and Python's dictionaries hold it.
using ProgramArgument =
    std::variant<double, std::string, std::vector<double>, std::vector<std::string>>;
/// Arguments by name. An empty list of either kind stands for both.
using ProgramConfig = std::vector<std::pair<std::string, ProgramArgument>>;

/// A plan for one row of values, and what is proved about it.
struct Solution {
  at::Tensor plan;     // [S] of zeros and ones, dtype and device of the values
  double value = 0.0;  // of the plan, in the unit of the values
  std::optional<double> bound,
      gap;  // no plan is better than bound; gap = (bound - value) / |value|
  // "optimal"; "feasible": a larger gap is proved; "heuristic": nothing is; "infeasible": no plan.
  std::string status = "optimal";
  double seconds = 0.0;
  std::vector<std::string> notes;  // what a user should know about it, a sentence each
};

/// The plans that are allowed, and what they reach.
///
/// Shapes: values, plan, y [..., S]. Derive a class and define `name`, `config`, `check` and `best`
/// to add a program; the rest has defaults that use `best` alone. All methods are const and safe to call
/// from several threads.
class Program {
 public:
  virtual ~Program() = default;

  /// Name in the registry and in model files, for instance "TopK".
  virtual std::string name() const = 0;
  /// The constructor's arguments by name: with `name` they give the program back.
  virtual ProgramConfig config() const = 0;
  /// One line for people, for instance "TopK(k=100)". Long lists are cut.
  virtual std::string describe() const;

  /// Raises c10::ValueError, naming `function`, if no plan is possible for this number of sites.
  virtual void check(const char* function, int64_t sites) const = 0;
  /// The same program for sites of these ids, in this order; null if that is the program itself. A
  /// program that has data by site id reorders them. Raises c10::ValueError, naming `function`, for
  /// ids that it does not know.
  virtual std::shared_ptr<const Program> for_sites(const char* function,
                                                   const std::vector<std::string>& ids) const;
  /// Largest number of sites that a plan can hold: how long a list to print.
  virtual int64_t size() const = 0;

  /// What each site adds to a plan, [..., S]: its value, unless acting at a site prevents only a share
  /// of its events (WithEffect).
  virtual at::Tensor site_values(const at::Tensor& values) const;

  /// The allowed plan b of largest values . b, [..., S] of zeros and ones in the dtype of `values`;
  /// equal values: lowest index first. A site with value -inf is never in the plan.
  virtual at::Tensor best(const at::Tensor& values) const = 0;

  /// The plan for values [S], with what is proved about it. The default: `best`, which is optimal. A
  /// program that is solved by search overrides it, to report its bound and gap.
  virtual Solution solve(const at::Tensor& values) const;

  /// E_z[best(values + sigma z)], [..., S] in [0, 1], differentiable. The default draws
  /// (topk "sampled") with the score-function gradient, and works for every program.
  virtual at::Tensor soft(const at::Tensor& values, const SoftOptions& options) const;
  /// Whether topk "exact" needs no draws.
  virtual bool has_exact_soft() const { return false; }

  /// What a plan, whole or fractional, reaches of y: [...]; plan . y unless a program overrides it.
  virtual at::Tensor reach(const at::Tensor& plan, const at::Tensor& y) const;
  /// Reach of the best plan in hindsight, [...].
  at::Tensor best_reach(const at::Tensor& y) const;
  /// BPR [...] of choosing by `scores`: reach over best reach; NaN where the best reach is 0. Some
  /// programs give the expectation under random tie-breaking.
  virtual at::Tensor bpr(const at::Tensor& scores, const at::Tensor& y) const;
  /// BPR [...] of a fractional plan, differentiable in it; NaN where the best reach is 0.
  virtual at::Tensor soft_bpr(const at::Tensor& plan, const at::Tensor& y) const;
  /// For each site, the share [S] of the draws [M, S] whose best plan contains it. Some programs divide
  /// the remaining places among tied sites.
  virtual at::Tensor chance(const at::Tensor& samples) const;
};

using ProgramPtr = std::shared_ptr<const Program>;

/// The program of this name and config. Raises c10::ValueError for an unknown name or bad arguments.
/// The names are in one table, in program.cpp.
ProgramPtr make_program(const std::string& name, const ProgramConfig& config);

}  // namespace topreach
