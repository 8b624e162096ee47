// Any K of the S sites: the program of both papers.
#pragma once

#include "config_reader.h"
#include "program.h"

namespace topreach {

/// Plans with exactly K sites [L23 Eq. 2, with exactly K]. `soft` is exact by default
/// (expected_topk); `bpr` is the expectation under random tie-breaking.
///
///   topreach::TopK program(100);
///   auto plan = program.best(scores);
class TopK final : public Program {
 public:
  /// Raises c10::ValueError unless k >= 1.
  explicit TopK(int64_t k);
  static ProgramPtr from_config(ConfigReader& config);

  int64_t k() const { return k_; }
  std::string name() const override { return "TopK"; }
  ProgramConfig config() const override;
  void check(const char* function, int64_t sites) const override;
  int64_t size() const override { return k_; }
  at::Tensor best(const at::Tensor& values) const override;
  at::Tensor soft(const at::Tensor& values, const SoftOptions& options) const override;
  bool has_exact_soft() const override { return true; }
  at::Tensor bpr(const at::Tensor& scores, const at::Tensor& y) const override;
  at::Tensor soft_bpr(const at::Tensor& plan, const at::Tensor& y) const override;
  at::Tensor chance(const at::Tensor& samples) const override;

 private:
  int64_t k_;
};

}  // namespace topreach
