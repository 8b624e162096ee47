// A program whose plans are worth what they prevent, not what they reach.
#pragma once

#include <string>
#include <vector>

#include "config_reader.h"
#include "program.h"

namespace topreach {

/// Any program, with the effect e [S] of acting at a site: the share of the site's events that it
/// prevents. Values, scores and counts are multiplied by e, so plans maximise sum_i e_i r_i x_i, and
/// reach, bpr, the objectives and the ranker count events prevented.
///
/// In a model file it is the inner program with one more argument, `effect`.
///
///   topreach::WithEffect program(std::make_shared<topreach::TopK>(100), {.9, .5, .5});
class WithEffect final : public Program {
 public:
  /// sites [S]: the ids that the effects belong to; or empty: in the order of the ranker's sites.
  /// Raises c10::ValueError for an effect that is negative or not finite.
  WithEffect(ProgramPtr program, std::vector<double> effect, std::vector<std::string> sites = {});

  const Program& inner() const { return *program_; }
  const std::vector<double>& effect() const { return effect_; }

  std::string name() const override { return program_->name(); }
  ProgramConfig config() const override;
  std::string describe() const override;
  void check(const char* function, int64_t sites) const override;
  int64_t size() const override { return program_->size(); }
  ProgramPtr for_sites(const char* function, const std::vector<std::string>& ids) const override;
  at::Tensor site_values(const at::Tensor& values) const override;
  at::Tensor best(const at::Tensor& values) const override;
  Solution solve(const at::Tensor& values) const override;
  at::Tensor soft(const at::Tensor& values, const SoftOptions& options) const override;
  bool has_exact_soft() const override { return program_->has_exact_soft(); }
  at::Tensor reach(const at::Tensor& plan, const at::Tensor& y) const override;
  at::Tensor bpr(const at::Tensor& scores, const at::Tensor& y) const override;
  at::Tensor soft_bpr(const at::Tensor& plan, const at::Tensor& y) const override;
  at::Tensor chance(const at::Tensor& samples) const override;

 private:
  ProgramPtr program_;
  std::vector<double> effect_;
  std::vector<std::string> sites_;
  at::Tensor factor_;  // [S] float64
};

}  // namespace topreach
