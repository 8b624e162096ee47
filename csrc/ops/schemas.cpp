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
  // The same with a budget k [...] (integers) for each row.
  m.def("topk_mask_rows(Tensor scores, Tensor k) -> Tensor");
  // Perturbed top-K [L23 Eq. 3-4, D25 Eq. 11] of scores [..., S]: (membership [..., S],
  // threshold [..., J], last_tied [..., J], boundary [..., J, 2]). Backward needs the last three for each
  // draw. boundary, the sites of the K-th and the (K+1)-th largest, is for estimator "conditional"; with
  // the others it is [..., 0, 2].
  m.def(
      "perturbed_topk(Tensor scores, int k, float sigma, int num_samples, str estimator, "
      "str noise, Tensor key, int row_offset=0) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "perturbed_topk_backward(Tensor grad, Tensor scores, Tensor membership, Tensor threshold, "
      "Tensor last_tied, Tensor boundary, int k, float sigma, int num_samples, str estimator, "
      "str noise, Tensor key, int row_offset) -> Tensor");
  // Expected top-K, its limit for J -> infinity, of scores [..., S]; method "exact" or "mean_field".
  // (membership [..., S], bounds [..., 2] float64); expected_topk_jvp needs the bounds.
  m.def("expected_topk(Tensor scores, int k, float sigma, str method) -> (Tensor, Tensor)");
  // Its Jacobian, which is symmetric, times v [..., S]: both backward and forward mode.
  m.def(
      "expected_topk_jvp(Tensor v, Tensor scores, Tensor bounds, int k, float sigma, str method) "
      "-> Tensor");
  // Both with k and sigma of each row: if given, row_k (integers) and row_sigma (differentiable)
  // [...] replace k and sigma. Membership [..., S].
  m.def(
      "expected_topk_rows(Tensor scores, int k, float sigma, Tensor? row_k, Tensor? row_sigma, "
      "str method) -> Tensor");
  m.def(
      "perturbed_topk_rows(Tensor scores, int k, float sigma, Tensor? row_k, Tensor? row_sigma, "
      "int num_samples, str estimator, str noise, Tensor key, int row_offset=0) -> Tensor");
  // The best K under quotas lower[G] <= x(g) <= upper[G]; groups [S] are numbers, -1 for none. For
  // nested groups `parent` [G] is the group that each lies in; `lock` [S] is 1 (in), -1 (out) or 0. All
  // int64.
  m.def(
      "quota_topk(Tensor scores, int k, Tensor groups, Tensor lower, Tensor upper, "
      "Tensor? parent=None, Tensor? lock=None) -> Tensor");
  // Its expectation for scores + sigma z [..., S], and its symmetric Jacobian times v.
  m.def(
      "expected_quota_topk(Tensor scores, int k, Tensor groups, Tensor lower, Tensor upper, "
      "float sigma, Tensor? lock=None) -> Tensor");
  m.def(
      "expected_quota_topk_jvp(Tensor v, Tensor scores, int k, Tensor groups, Tensor lower, "
      "Tensor upper, float sigma, Tensor? lock=None) -> Tensor");
  // Its mean over J draws; estimator "score_loo" or "conditional". backward makes the plans anew.
  m.def(
      "perturbed_quota_topk(Tensor scores, int k, Tensor groups, Tensor lower, Tensor upper, "
      "float sigma, int num_samples, str estimator, Tensor key, int row_offset=0, "
      "Tensor? parent=None, Tensor? lock=None) -> Tensor");
  m.def(
      "perturbed_quota_topk_backward(Tensor grad, Tensor scores, Tensor membership, int k, "
      "Tensor groups, Tensor lower, Tensor upper, float sigma, int num_samples, str estimator, "
      "Tensor key, int row_offset, Tensor? parent=None, Tensor? lock=None) -> Tensor");
  // Which rows have sigma > 0 (bool); `function` is named if a sigma is negative, infinite or NaN.
  m.def("soft_rows(Tensor sigma, str function) -> Tensor");
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
  // log P(value), elementwise with broadcasting; value may have extra leading dimensions.
  m.def("negbin_log_prob(Tensor value, Tensor total_count, Tensor logits) -> Tensor");
  // Gradients for total_count and logits, each in the shape of the argument.
  m.def(
      "negbin_log_prob_backward(Tensor grad, Tensor value, Tensor total_count, Tensor logits) "
      "-> (Tensor, Tensor)");

  // (mean, variance) [..., S].
  m.def("negbin_moments(Tensor total_count, Tensor logits) -> (Tensor, Tensor)");
  // (total_count, logits) of these moments.
  m.def("negbin_of_moments(Tensor mean, Tensor variance) -> (Tensor, Tensor)");

  // ---- Poisson and zero-inflated counts ---------------------------------------------------------
  // Draws [M, ..., S] and log P(value), as for negative binomial counts.
  m.def("poisson_sample(Tensor rate, int num_samples, Tensor key, int row_offset=0) -> Tensor");
  m.def("poisson_log_prob(Tensor value, Tensor rate) -> Tensor");
  // Zero with chance zero_probs, else the base: (mean, variance) from the base's; the base's draws
  // [M, ..., S], made with `key`, with structural zeros; log P(value) from the base's.
  m.def(
      "zero_inflated_moments(Tensor mean, Tensor variance, Tensor zero_probs) -> (Tensor, Tensor)");
  m.def(
      "zero_inflated_zeros(Tensor draws, Tensor zero_probs, Tensor key, int row_offset=0) "
      "-> Tensor");
  m.def("zero_inflated_log_prob(Tensor base_log_prob, Tensor zero_probs, Tensor value) -> Tensor");

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
  // Information of each site's counts about its two effects: (h00, h01, h11) [S, 3], a constant.
  m.def(
      "negbin_mixed_effects_information(Tensor total_count, Tensor time, Tensor mean, "
      "Tensor variance, Tensor? weights, str link) -> Tensor");
  // Parameters of the counts' distribution, [..., S], from mu and exposure [..., S]: (total_count,
  // logits) of a negative binomial, or (rate, nothing).
  m.def(
      "negbin_mixed_effects_counts(Tensor total_count, Tensor? dispersion, Tensor? exposure, "
      "str family) -> (Tensor, Tensor)");
  // The time [...] that slopes are multiplied by: damped beyond `until`.
  m.def(
      "negbin_mixed_effects_slope_time(Tensor time, float until, float period, float damping) "
      "-> Tensor");
  // laplace_marginal of the model: features x [T, S, P], counts [T, S], times [T].
  m.def(
      "negbin_mixed_effects_marginal(Tensor x, Tensor y, Tensor time, Tensor? upper, "
      "Tensor? exposure, Tensor? weights, Tensor intercept, Tensor weight, Tensor raw_sigma, "
      "Tensor raw_rho, Tensor? dispersion, Tensor? zero_logit, Tensor? path, str family, str link, "
      "int quadrature=1) -> (Tensor, Tensor, Tensor)");
  // Start values, float64 [4]: intercept, raw_zero_probs, raw_sigma, raw_path_sigma.
  m.def("negbin_mixed_effects_start(float initial_mean, str link, bool zero_inflation) -> Tensor");
  // L [2, 2], lower triangular, with L L' the covariance of a site's (intercept, slope).
  m.def("negbin_mixed_effects_factor(Tensor raw_sigma, Tensor raw_rho) -> Tensor");
  // The effects' loading [T, 2]: rows L' (1, t).
  m.def("negbin_mixed_effects_loading(Tensor time, Tensor raw_sigma, Tensor raw_rho) -> Tensor");
  // x with softplus(x) = y > 0.
  m.def("inverse_softplus(Tensor y) -> Tensor");
  // Penalty of the site effects (scalar): "laplace" (needs information), "map" or
  // "paper".
  m.def(
      "negbin_mixed_effects_penalty(Tensor site_intercept, Tensor site_slope, Tensor raw_sigma, "
      "Tensor raw_rho, Tensor? information, str penalty) -> Tensor");

  // ---- independent sites, each a mixture with its own weights [D25 Eq. 14, 17] -------------------
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

  // ---- empirical Bayes: rates from each site's past ---------------------------------------------------
  // (A, m E, L m n) of H memories, [R, S, 3 H] float32, for periods that have `rows` periods of
  // timeline [N, S] (NaN: unknown) before them. One entry of starts, sites, weights and
  // concentration per graph of neighbours.
  m.def(
      "site_statistics(Tensor timeline, int[] rows, Tensor[] starts, Tensor[] sites, "
      "Tensor[] weights, float[] half_lives, float[] concentration, float level, float smoothing, "
      "float seasonal_smoothing, int season, float mean_exposure=0.0, "
      "Tensor? timeline_exposure=None, Tensor? exposure=None) -> Tensor");
  // Totals [N] of a timeline, scaled up to all sites; NaN where none is known.
  m.def(
      "site_totals(Tensor timeline, Tensor? timeline_exposure=None, float mean_exposure=0.0) "
      "-> Tensor");
  // Log totals [N + 1] forecast one period ahead from totals [N].
  m.def(
      "level_forecasts(Tensor totals, float smoothing, float seasonal_smoothing, int season) "
      "-> Tensor");
  // Minus the penalised log-likelihood (scalar) of kappa [J] and the shape, given as logarithms
  // [J + 1], for counts and expected [S] and their sums over neighbours [J, S].
  m.def(
      "site_concentration_loss(Tensor log_parameters, Tensor counts, Tensor expected, "
      "Tensor near_counts, Tensor near_expected) -> Tensor");
  // Posterior means [..., H] of relative risks under discrete priors [H, G] on support [G].
  m.def("posterior_risk(Tensor counts, Tensor expected, Tensor prior, Tensor support) -> Tensor");
  // Gradients for counts, expected and prior.
  m.def(
      "posterior_risk_backward(Tensor grad, Tensor counts, Tensor expected, Tensor prior, "
      "Tensor support) -> (Tensor, Tensor, Tensor)");
  // The prior by EM: log w [H, G], float64, from counts and expected [S, H].
  m.def("discrete_prior(Tensor counts, Tensor expected, Tensor support, int steps) -> Tensor");
  // The model's three forecasts [..., S, H] of each memory: shrunken, the neighbours', the site's own.
  m.def(
      "empirical_bayes_forecasts(Tensor x, Tensor prior, Tensor weight, Tensor support) "
      "-> (Tensor, Tensor, Tensor)");
  // Their base b [..., S]: the logarithm of the mixture of the shrunken ones.
  m.def("empirical_bayes_base(Tensor shrunken, Tensor memory) -> Tensor");
  // Corrections f [..., S, 3 H + 1].
  m.def("empirical_bayes_terms(Tensor base, Tensor shrunken, Tensor near, Tensor own) -> Tensor");
  // Mean counts [..., S].
  m.def("empirical_bayes_mean(Tensor base, Tensor? terms, Tensor? correction) -> Tensor");
  // (loc, scale) [batch.., L] of NormalMixture's components.
  m.def("normal_mixture_components(Tensor raw_mean, Tensor raw_scale) -> (Tensor, Tensor)");
  // Start values of the mixtures' parameters, drawn by torch's generator: (raw_mean, raw_scale, logits)
  // and (log_rate, logits).
  m.def(
      "normal_mixture_start(int num_sites, int num_components, float low, float high, int[] batch) "
      "-> (Tensor, Tensor, Tensor)");
  m.def(
      "poisson_mixture_start(int num_sites, int num_components, float low, float high, int[] "
      "batch) "
      "-> (Tensor, Tensor)");
  // A parameter [batch.., S, L] for every one of `time` [T..]: a view [batch.., T.., S, L].
  m.def("mixture_over_time(Tensor parameter, Tensor time) -> Tensor");

  // ---- networked Hawkes process [STEMMED Eq. 4-8] ------------------------------------------------
  // N events at nodes, M = I S nodes, B blocks of time, R items (a node with P = p + q + 4 natural
  // parameters): (value [R], gradient [R, P], Hessian [R, P, P], first event without a positive rate
  // or -1 [R]); order is the number of derivatives: 0, 1 or 2.
  m.def(
      "hawkes_derivatives(Tensor time, Tensor node, Tensor marks, Tensor edges, Tensor weights, "
      "Tensor covariates, Tensor distance, Tensor refresh, Tensor? joint, Tensor? either, "
      "Tensor? prior, float prior_weight, Tensor item_node, Tensor parameters, int order) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  // Its value [R], differentiable twice in the parameters, also in forward mode; raises at an event without
  // a positive rate. The same with its gradient [R, P].
  m.def(
      "hawkes_log_likelihood("
      "Tensor time, Tensor node, Tensor marks, Tensor edges, Tensor weights, "
      "Tensor covariates, Tensor distance, Tensor refresh, Tensor? joint, Tensor? either, "
      "Tensor? prior, float prior_weight, Tensor item_node, Tensor parameters) -> Tensor");
  m.def(
      "hawkes_log_likelihood_gradient("
      "Tensor time, Tensor node, Tensor marks, Tensor edges, Tensor weights, "
      "Tensor covariates, Tensor distance, Tensor refresh, Tensor? joint, Tensor? either, "
      "Tensor? prior, float prior_weight, Tensor item_node, Tensor parameters) -> (Tensor, "
      "Tensor)");
  // Natural parameters [..., P] from working coordinates, with p covariates, and back; derivatives in natural
  // parameters to those in working coordinates.
  m.def("hawkes_natural(Tensor working, int covariates) -> Tensor");
  m.def("hawkes_working(Tensor parameters, int covariates) -> Tensor");
  m.def(
      "hawkes_chain(Tensor working, Tensor gradient, Tensor hessian, int covariates) "
      "-> (Tensor, Tensor)");
  // (base [M], factor [M]) of dynamics that relax to the recent rates [M].
  m.def("hawkes_anchor(Tensor decay, Tensor jump, Tensor rate) -> (Tensor, Tensor)");
  // Tables (joint [Q, S, S, I], either, prior [Q, S, S]) of the network; and theta [M, M] of one refresh.
  m.def("hawkes_network(Tensor together, Tensor events, str kind) -> (Tensor, Tensor, Tensor)");
  m.def(
      "hawkes_theta(Tensor joint, Tensor either, Tensor prior, float prior_weight, int refresh) "
      "-> Tensor");
  // For fitted items: (start [R + 1], intensity [n], base rate [n], compensator [n] at their n own events;
  // int lambda and int mu [R, B] of each block).
  m.def(
      "hawkes_course(Tensor time, Tensor node, Tensor marks, Tensor edges, Tensor weights, "
      "Tensor covariates, Tensor distance, Tensor refresh, Tensor? joint, Tensor? either, "
      "Tensor? prior, float prior_weight, Tensor item_node, Tensor parameters) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  // At the last edge, with parameters [M, P]: (base [M], excitation [M], jump [M, M], second [M, M, M] or
  // [0]); node v's events have the marks of records pool[pool_start[v]..pool_start[v + 1] - 1].
  m.def(
      "hawkes_state(Tensor time, Tensor node, Tensor marks, Tensor edges, Tensor weights, "
      "Tensor covariates, Tensor distance, Tensor refresh, Tensor? joint, Tensor? either, "
      "Tensor? prior, float prior_weight, Tensor parameters, Tensor pool_start, "
      "Tensor pool, bool second) -> (Tensor, Tensor, Tensor, Tensor)");
  // R [M, M] (receiver, source): what events [n] with these lags still add to each node's excitation, without
  // theta; sign -1 removes an event.
  m.def(
      "hawkes_event_terms(Tensor lag, Tensor sign, Tensor node, Tensor marks, Tensor distance, "
      "Tensor parameters) -> Tensor");
  // (counts int32 [paths, H, M], whether a path was cut off [paths]) of simulated futures, with sets of
  // parameters [sets, M, P]; mode "branching", "thinning" or "paper".
  m.def(
      "hawkes_simulate(Tensor time, Tensor node, Tensor marks, Tensor edges, Tensor weights, "
      "Tensor covariates, Tensor distance, Tensor refresh, Tensor? joint, Tensor? either, "
      "Tensor? prior, float prior_weight, Tensor parameters, Tensor excitation, "
      "Tensor base, Tensor period_edges, Tensor pool_start, Tensor pool, int num_paths, str mode, "
      "int most_events, Tensor key) -> (Tensor, Tensor)");
  // (mean [H, M], covariance [H, M, M] or [H, 0, 0]) of future counts.
  m.def(
      "hawkes_moments(Tensor base, Tensor decay, Tensor excitation, Tensor jump, Tensor? second, "
      "Tensor edges, bool covariance, bool cumulative) -> (Tensor, Tensor)");

  // ---- scorers [L23 Sec. 3] ----------------------------------------------------------------------
  // Scores [..., S] of a network over past counts [..., S, W], divided by history_scale [], and
  // features x [..., S, P]; weights[i] [out, in], biases[i] [out].
  m.def(
      "scorer_forward(str function, Tensor history, Tensor? x, Tensor history_scale, int window, "
      "Tensor[] weights, Tensor[] biases) -> Tensor");

  // ---- marginal likelihood of counts with two Gaussian effects per site --------------------------
  // Laplace's approximation: (value [S], modes [S, 2], precision [S, 3]) from linear predictors and
  // counts [T, S] (y..upper if censored) and the effects' loading [T, 2]; family "nb1", "nb2" or
  // "poisson", link "log" or "softplus".
  // With a path [T, 2], rows (rho_t, s_t): modes [S, 2 + T] and precision [S, 3 + T]. With
  // quadrature = n > 1 value is by n x n Gauss-Hermite nodes about the mode.
  m.def(
      "laplace_marginal(Tensor eta, Tensor loading, Tensor y, Tensor? upper, Tensor? exposure, "
      "Tensor? weights, Tensor? dispersion, Tensor? zero_logit, str family, str link, "
      "Tensor? path=None, int quadrature=1) -> (Tensor, Tensor, Tensor)");
  // Gradients for eta, loading, dispersion, zero_logit and path.
  m.def(
      "laplace_marginal_backward(Tensor grad_value, Tensor grad_modes, Tensor modes, Tensor eta, "
      "Tensor loading, Tensor y, Tensor? upper, Tensor? exposure, Tensor? weights, "
      "Tensor? dispersion, Tensor? zero_logit, str family, str link, Tensor? path, int quadrature) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  // A draw [S, 2 + T] of effects and path about their modes, from normal noise of that shape, and
  // the variances [S, T] of the path, given the information [S, T] of the counts.
  m.def(
      "laplace_path_posterior(Tensor information, Tensor loading, Tensor path, Tensor noise) "
      "-> (Tensor, Tensor)");

  // ---- fraction of best possible reach [L23 Eq. 5, D25 Eq. 2] ----------------------------------
  // BPR [...] of scores [..., S], the expectation under random tie-breaking; NaN where the best reach is 0.
  m.def("bpr(Tensor scores, Tensor counts, int k) -> Tensor");
  // sum(membership * counts) / sum of the K largest counts, [...]; differentiable in membership.
  m.def("soft_bpr(Tensor membership, Tensor counts, int k) -> Tensor");
  // Sum of the K largest counts [..., S], [...]; `function` is named if a count is negative or NaN.
  m.def("best_reach(Tensor counts, int k, str function) -> Tensor");

  // ---- the build --------------------------------------------------------------------------------
  // Instruction set of the CPU kernels in use: baseline, avx2 or avx512.
  m.def("cpu_capability() -> str");
}
