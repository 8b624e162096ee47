// Expected top-K: differentiable top-K without noise.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

namespace topreach {

struct ExpectedTopKOptions {
  double sigma = 0.01;           // noise scale, in units of the scores; 0 gives the hard mask
  std::string method = "exact";  // "exact" or "mean_field"
  std::optional<at::Tensor> row_k = std::nullopt;      // K of each row, int64 [...]
  std::optional<at::Tensor> row_sigma = std::nullopt;  // sigma of each row [...], differentiable
};

/// b_i = P(site i is among the K largest of r + sigma z), z standard normal: what perturbed_topk
/// tends to as its number of draws grows [L23 Eq. 3, D25 Eq. 11], without sampling.
///
/// scores [..., S] float32 or float64, -inf for sites that must not be chosen; returns [..., S] in
/// [0, 1], rows summing to K. "exact" is right to 3e-9 in value and (in units of max |v| / sigma)
/// gradient, for any S, K and sigma; kernels/expected_topk.h has the method and the bound.
/// "mean_field" is O(S) and faster still; its error is about .02 / V, V = sum b (1 - b), for V > 1.
/// Differentiable once, in backward and in forward mode; its Jacobian is symmetric, with rows
/// summing to zero. sigma = 0, K = 0, K = S and rows without K + 1 scores above -inf have the hard
/// mask and a zero gradient, as do rows whose K best sites lie 18 sigma above the rest.
///
/// row_k and row_sigma, broadcast to the leading shape of scores, take the place of k and sigma. The
/// gradient in row_sigma is exact: db/dsigma = -J (r - c) / sigma for any c (topk_rows.h).
///
/// Raises for k outside 0..S, negative sigma, an unknown method, and, on the CPU, NaN scores (on
/// CUDA that row comes out NaN).
///
///   auto b = topreach::expected_topk(scores, 100, {.sigma = 0.01});
at::Tensor expected_topk(const at::Tensor& scores, int64_t k,
                         const ExpectedTopKOptions& options = {});

/// Each site's chance of being among the K largest of scores + sigma z: the same as expected_topk
/// with method "exact".
at::Tensor topk_probability(const at::Tensor& scores, int64_t k, double sigma);

}  // namespace topreach
