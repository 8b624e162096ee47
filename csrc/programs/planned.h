// Programs of topreach::plan in the form that the ranker and the objectives take.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "config_reader.h"
#include "coverage_plan.h"
#include "program.h"

namespace topreach {

/// Budget, Spaced, Connected, Spillover, CallIn, Coverage or Fair: see the functions of topreach::plan for
/// what they maximise, with the values as scores. All keep quotas and locks.
///
/// `best` solves each row of values separately; `soft` is by perturbation. A site of value -inf is never in
/// the plan. Values below 0 count as 0 in Spillover, CallIn, Coverage and Fair.
///
/// `reach` of Spillover, CallIn and Coverage is what the plan reaches through the network. For a fractional
/// plan it is the expectation if each site is chosen independently with that chance (the multilinear
/// extension); DirectBPR and DAML train for it.
///
/// Fair without floors: `reach` is the smallest share that a group has of its own total of y; groups without
/// events are left out. With floors, the allowed plans depend on the values: a plan that keeps the floors for
/// the scores may break those for y. `bpr` is still at most 1.
///
/// Arguments of make_program(name, ...):
///   all        `k` (may be absent for Budget and Fair), `gap`, `time` (seconds a row), `sites` [S] ids or
///              empty
///   Budget     `budget`, `cost` [S]
///   Spaced     `distance`, `x` [S], `y` [S], in the plane
///   Connected, Coverage   `from`, `to` [E]: edges by the numbers of the sites; `sites`
///   Spillover  the same, `treated`, `spilled`, `compliance` [S]: shares and chances
///   CallIn     the same, `comes`, `passes` [S]: chances
///   Fair       `fair_label`, `fair_to` [S]: names of groups, "" for none; `floor_groups`, `floors` [G]: shares
///              from 0 to 1, 0 for groups that are not named; absent: the smallest share is maximised
///   all        quotas and locks, as Quotas has them: `labels`, `groups`, `names`, `grouping`, `lower`,
///              `upper`, `lock`
class Planned final : public Program {
 public:
  struct Data {
    std::map<std::string, double> numbers;               // k, budget, ...
    std::map<std::string, std::vector<double>> columns;  // cost, x, ... [S]
    std::vector<int32_t> from, to;
    std::vector<std::string> sites;
    plan::Constraints kept;  // quotas and locks; its k is that of `numbers`
    plan::Grouping fair_to;
    std::vector<double> floors;  // of fair_to's groups, or empty
  };
  /// Raises c10::ValueError for arguments that do not fit each other.
  Planned(std::string name, Data data);
  static ProgramPtr from_config(const std::string& name, ConfigReader& config);

  std::string name() const override { return name_; }
  ProgramConfig config() const override;
  std::string describe() const override;
  void check(const char* function, int64_t sites) const override;
  int64_t size() const override;
  ProgramPtr for_sites(const char* function, const std::vector<std::string>& ids) const override;
  at::Tensor best(const at::Tensor& values) const override;
  Solution solve(const at::Tensor& values) const override;
  at::Tensor reach(const at::Tensor& plan, const at::Tensor& y) const override;
  at::Tensor bpr(const at::Tensor& scores, const at::Tensor& y) const override;

 private:
  plan::Solved plan_of(std::vector<double> values) const;
  double number(const char* argument, double otherwise) const;
  const std::vector<double>& column(const char* argument) const;
  bool is_network() const;
  at::Tensor least_share(const at::Tensor& plan, const at::Tensor& y) const;

  std::string name_;
  Data data_;
  int64_t sites_count_ = 0;
  Graph graph_;
  // Of a network program: who reaches whom, by what chance, and what a chosen site adds for each unit of
  // its value.
  at::Tensor person_, seed_, chance_, own_, weight_;
};

}  // namespace topreach
