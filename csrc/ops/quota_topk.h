// The best K of S sites under quotas on groups: the hard plan, its exact expectation under noise,
// and an estimate of that by perturbation. kernels/programs/{quota_topk, expected_quota_topk,
// quota_exchange}.h have the algorithms.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

namespace topreach {

/// lower_g <= number of chosen sites in group g <= upper_g. All tensors are int64.
struct QuotaBounds {
  at::Tensor groups;        // [S], 0..G-1, a site's narrowest group; -1: in none
  at::Tensor lower, upper;  // [G], 0 <= lower <= upper
  std::optional<at::Tensor> parent = std::nullopt;  // [G], the group that a group lies in; -1: none
  std::optional<at::Tensor> lock = std::nullopt;    // [S], 1: always chosen, -1: never, 0: free
};

/// Mask of the best k sites under quotas: max r.x, sum x = k, lower_g <= x(g) <= upper_g.
///
/// scores [..., S] float32 or float64; -inf marks sites that must not be chosen. Equal scores: lowest
/// index first. Not differentiable. O(S depth) a row. Quotas are read on the CPU.
///
/// Raises if quotas cannot be met, naming the first group that cannot: by any scores, or in a row
/// whose scores of -inf leave too few sites. Raises for NaN. On CUDA, where the last two checks would
/// wait for the device, such a row comes out NaN. The two operators below do the same.
at::Tensor quota_topk(const at::Tensor& scores, int64_t k, const QuotaBounds& quotas);

/// E[quota_topk(scores + sigma z)], z standard normal: the chance of each site, without sampling.
/// The Jacobian is symmetric; forward and backward mode are exact. Groups must be disjoint (no
/// `parent`).
///
/// Value and gradient are right to 1e-8 before they are rounded to the dtype. sigma = 0 gives the
/// hard mask and a zero gradient.
at::Tensor expected_quota_topk(const at::Tensor& scores, int64_t k, const QuotaBounds& quotas,
                               double sigma);

struct PerturbedQuotaOptions {
  double sigma = 0.01;                                    // noise scale, in units of the scores
  int64_t num_samples = 100;                              // J
  std::string estimator = "score_loo";                    // or "conditional", for disjoint groups
  std::optional<at::Tensor> key = std::nullopt;           // int64[2]; drawn if absent
  std::optional<at::Generator> generator = std::nullopt;  // to draw the key from
  int64_t row_offset = 0;                                 // global number of the first row
};

/// (1/J) sum_j quota_topk(scores + sigma z_j), with the estimators of perturbed_topk: "score_loo"
/// (J >= 2), and "conditional", which integrates out each site's own noise, and whose rows sum to k
/// in expectation only. The noise is that of perturbed_topk for the same key, and is drawn again in
/// backward: memory is O(S). A row's result depends on (scores, key, row_offset + row number) alone,
/// bit for bit.
at::Tensor perturbed_quota_topk(const at::Tensor& scores, int64_t k, const QuotaBounds& quotas,
                                const PerturbedQuotaOptions& options = {});

}  // namespace topreach
