"""Choosing K of S sites, differentiably. The kernels are in C++ and CUDA.

Every function takes any leading shape ``...``; S is the number of sites. Sources: [L23] "Learning
where to intervene with a differentiable top-K operator", [D25] "Decision-aware training of
spatiotemporal forecasting models to select a top-K subset of sites for intervention".
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from topreach.ops.arguments import (
    as_integer,
    as_name,
    as_row_k,
    as_row_sigma,
    as_tensor_argument,
)
from topreach.ops.random import draw_key


def topk_mask(scores: Tensor, k: int | Tensor) -> Tensor:
    """Mask of the K largest scores: TopKMask(r, K) of [D25 Eq. 4].

    Args:
        scores: [..., S] float32 or float64; -inf marks sites that must not be chosen.
        k: number of sites to choose, 0 <= k <= S; or an integer tensor [...] with that of each row.

    Returns:
        [..., S] of zeros and exactly k ones a row, in the dtype of ``scores``; ties go to the
        lowest index. It has no gradient: see :func:`perturbed_topk`.

    Raises:
        ValueError: k outside 0..S, or of another shape than the rows; a NaN score (both on the
            CPU; on CUDA the row of a NaN score, or of a k outside 0..S in a tensor, is NaN).
        TypeError: scores that are not a tensor, or of another dtype; k that is not an integer.

    Example:
        >>> tr.topk_mask(torch.tensor([3.0, 1.0, 2.0]), 2)
        tensor([1., 0., 1.])
    """
    as_tensor_argument("topk_mask", "scores", scores)
    number, row_k = as_row_k("topk_mask", k)
    if row_k is not None:
        return torch.ops.topreach.topk_mask_rows(scores, row_k)
    return torch.ops.topreach.topk_mask(scores, number)


def perturbed_topk(
    scores: Tensor,
    k: int | Tensor,
    *,
    sigma: float | Tensor,
    num_samples: int = 100,
    estimator: Literal["score", "score_loo", "conditional"] = "score",
    noise: Literal["normal", "gumbel", "logistic", "laplace"] = "normal",
    generator: torch.Generator | None = None,
    key: Tensor | None = None,
    row_offset: int = 0,
) -> Tensor:
    """Differentiable top-K: each site's share of J perturbed top-K sets [L23 Eq. 3-4, D25 Eq. 11].

    The value is b = (1/J) sum_j TopKMask(r + sigma z_j, K). The gradient for an incoming v is
    (1/(J sigma)) sum_j (b_j . v) z_j (``"score"``, the papers'), or the same with b_j . v centred
    by the mean of the other draws (``"score_loo"``: also unbiased, with far less variance). For
    other noises z_j is replaced by the noise's score: 1 - exp(-z_j) for Gumbel, tanh(z_j / 2) for
    logistic, sign(z_j) for Laplace.

    ``"conditional"`` integrates out each site's own noise (Rao & Blackwell). In draw j, site i's
    rival a is the site of the K-th largest of the other perturbed scores; with F and f the noise's
    distribution function and density and x_ij = (r_a + sigma z_a - r_i) / sigma,

        b_i = (1/J) sum_j 1 - F(x_ij),    g_i = (1/(J sigma)) sum_j f(x_ij) (v_i - v_a),

    unbiased for the same expectation and its gradient, from two rivals a draw. At S = 1620, K = J
    = 100 its gradient has a relative variance of .01, where "score_loo" has 30 to 60 and "score"
    10,000 or more; its value has 50 to 1600 times less variance than theirs. Its rows sum to k only
    in expectation: the sum's standard deviation is about sqrt(min(k, S - k) / J) at most (measured
    at S = 1620, K = J = 100: .28 for sigma = .01 of the scores' range, .89 for sigma = the range).

    No Jacobian and nothing of size J x S is stored: the noise is drawn in the kernel and again in
    backward. Forward mode (``torch.func.jvp``) gives the same estimate as backward: the Jacobian
    of the expectation is symmetric (Berthet et al. 2020). Under ``torch.func.vmap`` the batch
    counts as rows, so each has its own noise. Differentiating twice raises.

    Args:
        scores: [..., S] float32 or float64, in any unit; -inf marks sites that must not be chosen.
            Under autocast half and bfloat16 are converted to float32.
        k: number of sites to choose, 0 <= k <= S; or an integer tensor [...] with that of each row.
        sigma: noise scale in the unit of the scores, >= 0; 0, or less than the smallest normal
            number of their dtype, gives the hard mask and no gradient. Or a tensor [...] with that
            of each row (one number for all rows is a tensor []), which gets a gradient: an
            estimate from the same draws. With a tensor for sigma or k the scores are taken in
            units of sigma in float64, and results differ from those of numbers by rounding.
        num_samples: number of draws J.
        estimator: "score", "score_loo" (which needs J >= 2) or "conditional". Use the first for the
            papers' results, the last to train; :func:`expected_topk` is what all three estimate.
        noise: the standard "normal", "gumbel" (for k = 1 the expectation is then
            softmax(scores / sigma)), "logistic" (density exp(-z) / (1 + exp(-z))^2) or "laplace"
            (exp(-|z|) / 2).
        generator: torch generator to draw the key from.
        key: int64 [2] from :func:`draw_key`, instead of a generator.
        row_offset: global number of the first row. A row's result depends on (scores, key, row
            number) alone, bit for bit, so a batch may be split over calls or processes.

    Returns:
        [..., S] in [0, 1] in the dtype of ``scores``; each row sums to k ("conditional": in
        expectation). Sites with infinite scores get a zero gradient, as do all for k = 0 and k = S.

    Raises:
        ValueError: k, sigma, num_samples, estimator, noise, key or row_offset out of range; a NaN
            score on the CPU (on CUDA, where the check would synchronise, its row is NaN).
        TypeError: an argument of another type, scores of another dtype.
        NotImplementedError: a second derivative.

    Example:
        >>> scores = torch.randn(4, 1000, requires_grad=True)
        >>> chosen = tr.perturbed_topk(scores, 100, sigma=0.1, estimator="conditional")
        >>> (-(chosen * counts).sum()).backward()
    """
    name = "perturbed_topk"
    as_tensor_argument(name, "scores", scores)
    number, row_k = as_row_k(name, k)
    scale, row_sigma = as_row_sigma(name, sigma)
    num_samples = as_integer(name, "num_samples", num_samples)
    row_offset = as_integer(name, "row_offset", row_offset)
    as_name(name, "estimator", estimator)
    as_name(name, "noise", noise)
    if key is None:
        key = draw_key(generator, scores.device)
    as_tensor_argument(name, "key", key)
    options = (num_samples, estimator, noise, key, row_offset)
    if row_k is None and row_sigma is None:
        return torch.ops.topreach.perturbed_topk(scores, number, scale, *options)[0]
    return torch.ops.topreach.perturbed_topk_rows(scores, number, scale, row_k, row_sigma, *options)


def expected_topk(
    scores: Tensor,
    k: int | Tensor,
    *,
    sigma: float | Tensor,
    method: Literal["exact", "mean_field"] = "exact",
) -> Tensor:
    """Differentiable top-K without noise: the limit of :func:`perturbed_topk` for many draws.

    b_i = P(site i is among the K largest of r + sigma z), z standard normal. "exact" integrates
    over the K-th largest perturbed score and, by the characteristic function, over the number of
    sites above it; the sites enter through sums on a grid of spacing sigma / 8. Cost: O(S) for the
    sites, and some 30 thresholds x 20 frequencies for the integrals, whatever S is.

    The error bound rests on choices made for each row (kernels/expected_topk.h has the reasoning).
    Thresholds and frequencies are left out only if Bernstein's or Chernoff's inequality bounds
    their contribution by e^-28. The number of DFT points exceeds the support kept. The thresholds
    form two interleaved trapezoidal rules that must agree to 3e-5 for every site; the error of
    their mean is then about 1e-9. The density of the K-th largest score must integrate to 1 +-
    1e-9. If a check fails, the step is halved and the number of DFT points is doubled.

    "mean_field" takes the one threshold with E[sites above] = K. Its error was measured at about
    .02 / V in value, V = sum b (1 - b), for V above 1, and at most .09 below; the gradient's
    relative error at .06 / V. For example, S = 12, sigma = sd of the scores: .014; S = 1620, K =
    100, sigma = .1 sd: .0015.

    The Jacobian is symmetric and its rows sum to zero. Both modes of differentiation work
    (``torch.func.jvp``, ``jacfwd``, ``jacrev`` and ``vmap``), but differentiating twice raises.
    Under autocast half and bfloat16 scores are converted to float32.

    Args:
        scores: [..., S] float32 or float64, in any unit; -inf marks sites that must not be chosen.
        k: number of sites to choose, 0 <= k <= S; or an integer tensor [...] with that of each row.
        sigma: noise scale in the unit of the scores, >= 0; 0 gives the hard mask and no gradient.
            Or a tensor [...] with that of each row (one number for all rows is a tensor []), whose
            gradient is exact: db/dsigma = -J (r - c) / sigma for any constant c. With a tensor for
            sigma or k the scores are taken in units of sigma in float64.
        method: "exact", with an error of at most 3e-9 in value, and in gradient in units of
            max |v| / sigma (before it is rounded to the dtype); or "mean_field".

    Returns:
        [..., S] in [0, 1] in the dtype of ``scores``; each row sums to k. The hard mask, with zero
        gradient, if nothing is left to chance: k = 0, k = S, fewer than k + 1 scores above
        -inf, or the k best more than 18 sigma above the rest. Ties are shared for sigma > 0.

    Raises:
        ValueError: k, sigma or method out of range; a NaN score on the CPU (on CUDA, where the
            check would synchronise, its row is NaN).
        TypeError: an argument of another type, scores of another dtype.
        NotImplementedError: a second derivative.

    Example:
        >>> scores = torch.randn(4, 1000, requires_grad=True)
        >>> chosen = tr.expected_topk(scores, 100, sigma=0.1)
        >>> (-(chosen * counts).sum()).backward()

    Source: the limit of [L23 Eq. 3] and [D25 Eq. 11].
    """
    name = "expected_topk"
    as_tensor_argument(name, "scores", scores)
    number, row_k = as_row_k(name, k)
    scale, row_sigma = as_row_sigma(name, sigma)
    as_name(name, "method", method)
    if row_k is None and row_sigma is None:
        return torch.ops.topreach.expected_topk(scores, number, scale, method)[0]
    return torch.ops.topreach.expected_topk_rows(scores, number, scale, row_k, row_sigma, method)


def topk_probability(scores: Tensor, k: int | Tensor, sigma: float | Tensor) -> Tensor:
    """Each site's chance of being among the K largest of scores + sigma z, z standard normal.

    This is :func:`expected_topk` with method "exact", under a name that says what it computes.

    Args:
        scores: [..., S] float32 or float64, for instance forecasts.
        k: number of sites, 0 <= k <= S, or that of each row.
        sigma: standard deviation of the scores' errors, independent between sites, or that of each
            row.

    Returns:
        [..., S] in [0, 1]; each row sums to k.

    Raises:
        ValueError, TypeError: as :func:`expected_topk`.

    Example:
        >>> tr.topk_probability(torch.tensor([0.0, 1.0]), 1, sigma=1.0)
        tensor([0.2398, 0.7602])
    """
    return expected_topk(scores, k, sigma=sigma)
