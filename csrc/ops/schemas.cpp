// Every operator of topreach, in one place. Implementations register themselves in the file of the
// operator's name; Python sees them as torch.ops.topreach.*.
//
// Letters: S sites, K budget, J noise draws, M model samples; `...` is any leading shape.
// `key` is int64[2] on the device of the scores: the Philox key, entries taken modulo 2^32.
#include <torch/library.h>

TORCH_LIBRARY(topreach, m) {
  // ---- choosing K of S ------------------------------------------------------------------------
  // 0/1 mask of the K largest scores [..., S]; ties go to the lowest index.
  m.def("topk_mask(Tensor scores, int k) -> Tensor");
  // Perturbed top-K [L23 Eq. 3-4, D25 Eq. 11] of scores [..., S]: (membership [..., S],
  // threshold [..., J], last_tied [..., J], boundary [..., J, 2]); all but the first are what backward
  // needs of each draw. boundary, the sites of the K-th and the (K+1)-th largest, is that of estimator
  // "conditional"; the others leave it [..., 0, 2].
  m.def(
      "perturbed_topk(Tensor scores, int k, float sigma, int num_samples, str estimator, "
      "str noise, Tensor key, int row_offset=0) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "perturbed_topk_backward(Tensor grad, Tensor scores, Tensor membership, Tensor threshold, "
      "Tensor last_tied, Tensor boundary, int k, float sigma, int num_samples, str estimator, "
      "str noise, Tensor key, int row_offset) -> Tensor");
  // Expected top-K, its limit for J -> infinity, of scores [..., S]; method "exact" or "mean_field".
  // (membership [..., S], bounds [..., 2] float64): of each row what the other operator needs.
  m.def("expected_topk(Tensor scores, int k, float sigma, str method) -> (Tensor, Tensor)");
  // Its Jacobian, which is symmetric, times v [..., S]: both backward and forward mode.
  m.def(
      "expected_topk_jvp(Tensor v, Tensor scores, Tensor bounds, int k, float sigma, str method) "
      "-> Tensor");
  // The noise of perturbed_topk, [J, rows, S] float32: for references and plots.
  m.def(
      "topk_noise(Tensor key, int num_samples, int rows, int sites, str noise, int row_offset=0)"
      " -> Tensor");
  // XOR of the bits of that noise, int64[rows], without storing it.
  m.def(
      "topk_noise_checksum(Tensor key, int num_samples, int rows, int sites, str noise, "
      "int row_offset=0) -> Tensor");

  // ---- ranking --------------------------------------------------------------------------------
  // Ratio ranking r = mean_m y^m / (offset + 1.y^m) of samples [M, ..., S] [D25 Eq. 7]; the
  // gradient goes to log_prob: [M, ...] joint, or [M, ..., S] for "diagonal" [D25 Eq. 10].
  m.def("ratio_ranking(Tensor samples, Tensor? log_prob, float offset, str estimator) -> Tensor");
  m.def(
      "ratio_ranking_backward(Tensor grad, Tensor samples, Tensor ranking, float offset, "
      "str estimator) -> Tensor");

  // The same value; the gradient goes to cdf, like log_prob [M, ..., S] (GO estimator).
  m.def("ratio_ranking_go(Tensor samples, Tensor log_prob, Tensor cdf, float offset) -> Tensor");
  m.def(
      "ratio_ranking_go_backward(Tensor grad, Tensor samples, Tensor log_prob, float offset) "
      "-> Tensor");
  // The same as an exact expectation [D25 Eq. 6] of independent counts, no samples: family
  // "poisson", "negative_binomial" or "binomial" with its parameters [..., S], zero-inflated or not.
  m.def(
      "expected_ratio_ranking(str family, Tensor first, Tensor? second, Tensor? zero_probs, "
      "float offset) -> Tensor");
  // Gradients for first, second and zero_probs; empty for what is None.
  m.def(
      "expected_ratio_ranking_backward(Tensor grad, str family, Tensor first, Tensor? second, "
      "Tensor? zero_probs, float offset) -> (Tensor, Tensor, Tensor)");

  // ---- negative binomial counts ---------------------------------------------------------------
  // Draws of NegBin(total_count, logits), torch's convention: [M, ...] with ... the broadcast shape
  // [..., S]; counts in the dtype of total_count.
  m.def(
      "negbin_sample(Tensor total_count, Tensor logits, int num_samples, Tensor key, "
      "int row_offset=0) -> Tensor");
  // log P(value), elementwise with broadcasting; value may have leading dimensions of its own.
  m.def("negbin_log_prob(Tensor value, Tensor total_count, Tensor logits) -> Tensor");
  // Gradients for total_count and logits, each in the shape of the argument.
  m.def(
      "negbin_log_prob_backward(Tensor grad, Tensor value, Tensor total_count, Tensor logits) "
      "-> (Tensor, Tensor)");

  // ---- negative binomial mixed-effects model [D25 Eq. 15, App. E] -------------------------------
  // mu [..., S] from features x [..., S, P], times [...] and paths [..., S]; link "log" or
  // "softplus".
  m.def(
      "negbin_mixed_effects_total_count(Tensor x, Tensor time, Tensor intercept, Tensor weight, "
      "Tensor site_intercept, Tensor site_slope, str link, Tensor? path=None) -> Tensor");
  // Steps [T, 2] of a path for laplace_marginal: AR(1), or a random walk without raw_path_rho.
  m.def(
      "negbin_mixed_effects_path_steps(Tensor time, Tensor reference, Tensor raw_path_sigma, "
      "Tensor? raw_path_rho) -> Tensor");
  // The path expected at times [...], [..., S], given path_effect [T, S] at path_time [T].
  m.def(
      "negbin_mixed_effects_path_at(Tensor time, Tensor path_time, Tensor path_effect, "
      "Tensor? raw_path_rho) -> Tensor");
  // What each site's counts tell about its two effects: (h00, h01, h11) [S, 3], a constant.
  m.def(
      "negbin_mixed_effects_information(Tensor total_count, Tensor time, Tensor raw_probs, "
      "Tensor? weights, str link) -> Tensor");
  // L [2, 2], lower triangular, with L L' the covariance of a site's (intercept, slope).
  m.def("negbin_mixed_effects_factor(Tensor raw_sigma, Tensor raw_rho) -> Tensor");
  // Penalty of the site effects (scalar): "laplace" (needs information), "map" or
  // "paper".
  m.def(
      "negbin_mixed_effects_penalty(Tensor site_intercept, Tensor site_slope, Tensor raw_sigma, "
      "Tensor raw_rho, Tensor? information, str penalty) -> Tensor");

  // ---- independent sites, each a mixture with weights of its own [D25 Eq. 14, 17] ----------------
  // Components "truncated_normal" (first = loc, second = scale) or "poisson" (first = rate), which
  // broadcast to logits [..., S, L]. Log-density [..., S] of y, or of samples [M, ..., S].
  m.def(
      "site_mixture_log_prob(str family, Tensor y, Tensor logits, Tensor first, Tensor? second) "
      "-> Tensor");
  // (mean, variance) [..., S].
  m.def(
      "site_mixture_moments(str family, Tensor logits, Tensor first, Tensor? second) "
      "-> (Tensor, Tensor)");
  // Draws [M, ..., S].
  m.def(
      "site_mixture_sample(str family, Tensor logits, Tensor first, Tensor? second, "
      "int num_samples, Tensor key, int row_offset=0) -> Tensor");
  // Ratio ranking [..., S] [D25 Eq. 6] as an exact expectation.
  m.def(
      "site_mixture_expected_ratio_ranking(str family, Tensor logits, Tensor first, "
      "Tensor? second, float offset) -> Tensor");

  // ---- marginal likelihood of counts with two Gaussian effects per site --------------------------
  // Laplace's approximation: (value [S], modes [S, 2], precision [S, 3]) from linear predictors and
  // counts [T, S] (y..upper where censored) and the effects' loading [T, 2]; family "nb1", "nb2" or
  // "poisson", link "log" or "softplus".
  // With a path [T, 2], rows (rho_t, s_t): modes [S, 2 + T] and precision [S, 3 + T].
  m.def(
      "laplace_marginal(Tensor eta, Tensor loading, Tensor y, Tensor? upper, Tensor? exposure, "
      "Tensor? weights, Tensor? dispersion, Tensor? zero_logit, str family, str link, "
      "Tensor? path=None) -> (Tensor, Tensor, Tensor)");
  // Gradients for eta, loading, dispersion, zero_logit and path.
  m.def(
      "laplace_marginal_backward(Tensor grad_value, Tensor grad_modes, Tensor modes, Tensor eta, "
      "Tensor loading, Tensor y, Tensor? upper, Tensor? exposure, Tensor? weights, "
      "Tensor? dispersion, Tensor? zero_logit, str family, str link, Tensor? path) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  // A draw [S, 2 + T] of effects and path about their modes, from normal noise of that shape, and
  // the variances [S, T] of the path, given the information [S, T] of the counts.
  m.def(
      "laplace_path_posterior(Tensor information, Tensor loading, Tensor path, Tensor noise) "
      "-> (Tensor, Tensor)");

  // ---- fraction of best possible reach [L23 Eq. 5, D25 Eq. 2] ----------------------------------
  // BPR [...] of scores [..., S], the expectation under random tie-breaking; NaN where no reach.
  m.def("bpr(Tensor scores, Tensor counts, int k) -> Tensor");
  // sum(membership * counts) / sum of the K largest counts, [...]; differentiable in membership.
  m.def("soft_bpr(Tensor membership, Tensor counts, int k) -> Tensor");

  // ---- the build --------------------------------------------------------------------------------
  // Instruction set of the CPU kernels in use: baseline, avx2 or avx512.
  m.def("cpu_capability() -> str");
}
