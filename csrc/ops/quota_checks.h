// Checks quotas that are given as tensors; and what every quota operator does with them row by row.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "quota_rows.h"

namespace topreach {

// Raises for tensors that do not fit scores [..., S]. Quotas are read on the CPU, wherever they are.
QuotaRows check_quotas(const char* function, const at::Tensor& scores, int64_t k,
                       const at::Tensor& groups, const at::Tensor& lower, const at::Tensor& upper,
                       const std::optional<at::Tensor>& parent,
                       const std::optional<at::Tensor>& lock);

struct PerturbedQuotaArguments {
  int64_t k;
  at::Tensor groups, lower, upper;
  double sigma;
  int64_t num_samples;
  std::string estimator;
  at::Tensor key;
  int64_t row_offset;
  std::optional<at::Tensor> parent, lock;
};

// The same for the other arguments of perturbed_quota_topk, of its backward, and of
// expected_quota_topk.
QuotaRows check_perturbed_quota(const char* function, const at::Tensor& scores,
                                const PerturbedQuotaArguments& arguments);
void check_perturbed_quota_backward(const char* function, const at::Tensor& grad,
                                    const at::Tensor& scores, const at::Tensor& membership);
QuotaRows check_expected_quota(const char* function, const at::Tensor& scores, int64_t k,
                               const at::Tensor& groups, const at::Tensor& lower,
                               const at::Tensor& upper, double sigma,
                               const std::optional<at::Tensor>& lock);
void check_expected_quota_tangent(const char* function, const at::Tensor& v,
                                  const at::Tensor& scores);

// Raises, with the message that only plans with a site of score -inf meet the quotas.
template <typename T>
[[noreturn]] void refuse_closed(const char* function, const QuotaRows& quotas, const T* score,
                                const GroupName& name, const std::string& where);

// Masks of the best plans for `scores` [..., S].
at::Tensor quota_masks(const char* function, const at::Tensor& scores, const QuotaRows& quotas,
                       const kernels::QuotaTree& tree, const GroupName& name = group_by_number);

// One row's problem without the sites whose place is certain: those locked, and those of score -inf.
// Groups are disjoint; sites in no group form one more.
struct FreeSites {
  std::vector<int32_t> site, group;   // of each free site
  std::vector<int64_t> lower, upper;  // fewest and most free sites to choose
  std::vector<double> fixed;          // [S], 1 where locked in
  int64_t k = 0;

  bool is_certain() const { return k == 0 || k == int64_t(site.size()); }
  template <typename T>
  void fill(const char* function, const QuotaRows& quotas, const T* score);
};

// Raises if quotas are nested: `function` needs disjoint groups.
void check_disjoint(const char* function, const QuotaRows& quotas);

}  // namespace topreach
