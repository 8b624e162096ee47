// Differentiable top-K by perturbation, with score-function or conditional gradients.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

namespace topreach {

struct PerturbedTopKOptions {
  double sigma = 0.01;              // noise scale, in units of the scores; 0 gives the hard mask
  int64_t num_samples = 100;        // J
  std::string estimator = "score";  // "score", "score_loo" or "conditional"
  std::string noise = "normal";     // or "gumbel", "logistic", "laplace"
  std::optional<at::Tensor> key = std::nullopt;           // int64[2]; drawn if absent
  std::optional<at::Generator> generator = std::nullopt;  // to draw the key from
  int64_t row_offset = 0;                                 // global number of the first row
  std::optional<at::Tensor> row_k = std::nullopt;         // K of each row, int64 [...]
  std::optional<at::Tensor> row_sigma = std::nullopt;     // sigma of each row [...], differentiable
};

/// b(r) = (1/J) sum_j TopKMask(r + sigma z_j, K): each site's share of J perturbed top-K sets
/// [L23 Eq. 3-4, D25 Eq. 11; Berthet et al. 2020].
///
/// scores [..., S] float32 or float64; returns [..., S] in [0, 1], each row summing to K. The
/// gradient is the vector-Jacobian product g = (1/(J sigma)) sum_j (b_j . v) z_j ("score"), or with
/// b_j . v replaced by its leave-one-out centred value, unbiased too and of much less variance
/// ("score_loo"). For other noises their score takes the place of z_j: 1 - exp(-z_j) for Gumbel,
/// tanh(z_j / 2) for logistic, sign(z_j) for Laplace.
///
/// "conditional" integrates out each site's own noise: with a the site of the K-th largest of the
/// others in draw j and x_ij = (r_a + sigma z_a - r_i) / sigma,
///   b_i = (1/J) sum_j 1 - F(x_ij),    g_i = (1/(J sigma)) sum_j f(x_ij) (v_i - v_a),
/// unbiased for the same expectation and its gradient, whose variance is thousands of times less than
/// that of "score_loo" at S = 1620. Its rows sum to K in expectation only, with a standard deviation of
/// about sqrt(min(K, S - K) / J) at most.
///
/// The noise is drawn in the kernel and drawn again in backward. A row's result depends on (scores, key,
/// row_offset + row number) alone, bit for bit. K = 0, K = S and sigma = 0 (or below the smallest
/// normal number of the dtype) have the exact result and a zero gradient; sites with infinite scores
/// get a zero gradient.
///
/// row_k and row_sigma, broadcast to the leading shape of scores, take the place of k and sigma
/// (topk_rows.h). Forward mode gives the same estimate as backward: the Jacobian is symmetric.
///
/// Raises for k outside 0..S, negative sigma, J < 1 (J < 2 for "score_loo"), unknown names, and, on
/// the CPU, NaN scores (on CUDA that row comes out NaN).
///
///   auto b = topreach::perturbed_topk(
///       scores, 100, {.sigma = 0.01, .num_samples = 100, .estimator = "conditional"});
at::Tensor perturbed_topk(const at::Tensor& scores, int64_t k,
                          const PerturbedTopKOptions& options = {});

}  // namespace topreach
