// Any K sites under quotas: a minimum and a maximum number of sites for each group.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../ops/quota_topk.h"
#include "config_reader.h"
#include "constraints.h"
#include "program.h"

namespace topreach {

using plan::Grouping;

/// Plans with exactly K sites, lower_g <= x(g) <= upper_g for every group g.
///
/// For one grouping, or for several of which each is finer than the next (municipalities in regions
/// in a state), `best` is exact and takes O(S depth). Groupings that cross (municipality and rural or
/// urban) are solved by HiGHS: two as a linear program, more as an integer program.
///
/// `soft` is exact for one grouping; for several it is by perturbation. `bpr` is the expectation
/// under random tie-breaking for one grouping; for several, ties go to the lowest index. `chance`
/// breaks the ties of each draw at random, with a fixed seed.
///
/// A site whose value is -inf is never in the plan; if quotas cannot be met without it, `best`
/// raises c10::ValueError and names the group. `soft` stays on CUDA, where such a row comes out NaN;
/// all else copies tensors on CUDA to the CPU and back.
///
///   topreach::Quotas program(40, {plan::group_by("town", town_of_site, {"Avon", "Canton"}, {1, 1}, {9, 9})});
class Quotas final : public Program {
 public:
  /// lock [S]: 1, always in the plan; -1, never; 0, free; empty: all free. sites [S]: ids, so that
  /// `for_sites` can put them in another order; or empty.
  ///
  /// Raises c10::ValueError for arguments that do not fit each other, and for quotas that no plan
  /// meets: the message names the first group.
  Quotas(int64_t k, std::vector<Grouping> groupings, std::vector<int8_t> lock = {},
         std::vector<std::string> sites = {});
  static ProgramPtr from_config(ConfigReader& config);

  int64_t k() const { return allowed_->k(); }
  const std::vector<Grouping>& groupings() const { return allowed_->constraints().groupings; }
  const std::vector<std::string>& sites() const { return sites_; }
  bool crosses() const { return allowed_->tree() == nullptr; }

  std::string name() const override { return "Quotas"; }
  ProgramConfig config() const override;
  std::string describe() const override;
  void check(const char* function, int64_t sites) const override;
  int64_t size() const override { return k(); }
  ProgramPtr for_sites(const char* function, const std::vector<std::string>& ids) const override;
  at::Tensor best(const at::Tensor& values) const override;
  Solution solve(const at::Tensor& values) const override;
  at::Tensor soft(const at::Tensor& values, const SoftOptions& options) const override;
  bool has_exact_soft() const override { return !crosses() && groupings().size() == 1; }
  at::Tensor bpr(const at::Tensor& scores, const at::Tensor& y) const override;
  at::Tensor chance(const at::Tensor& samples) const override;
  /// The expected plan [..., S] if ties are broken at random, for one grouping.
  at::Tensor expected_best(const at::Tensor& values) const;

 private:
  int64_t sites_count() const { return allowed_->sites(); }
  Solution solve_crossing(const at::Tensor& values) const;

  std::shared_ptr<const plan::Allowed> allowed_;
  std::vector<std::string> sites_;
  QuotaBounds bounds_;  // of groupings that do not cross
};

}  // namespace topreach
