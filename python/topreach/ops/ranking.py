"""The ratio ranking over samples [D25 Eq. 6-7, 10]."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from topreach.ops.arguments import as_name, as_number, as_tensor_argument


def ratio_ranking(
    samples: Tensor,
    log_prob: Tensor | None = None,
    *,
    offset: float = 0.0,
    estimator: Literal["score_loo", "score", "diagonal", "go"] = "score_loo",
    cdf: Tensor | None = None,
) -> Tensor:
    """Ratio ranking r_s = mean_m y_s / (offset + sum_s y_s), 0/0 := 0 [D25 Eq. 7].

    Samples are constants; the gradient goes into ``log_prob`` by the score-function identity [D25
    Eq. 10], as a vector-Jacobian product.

    Args:
        samples: [M, ..., S] counts, >= 0, float32 or float64, from the model.
        log_prob: log p(y^m) of the samples under the model. For "score" and "score_loo" the joint
            one, [M, ...], or that of each site, [M, ..., S], which is then summed over sites. For
            "diagonal" that of each site.
        offset: c >= 0 added to the denominator. 0 is the paper's definition; its authors' code has
            1.
        estimator: "score"; "score_loo", the same with a leave-one-out baseline (unbiased too, less
            variance; M >= 2); or "diagonal", which pairs each site's ratio with its own log p(y_s)
            only, as the code published with the paper does. It ignores the effect of the other
            sites on the denominator and is biased; use it to reproduce that code. Or "go", for
            sites that are independent: it takes log_prob of each site and differentiates `cdf` in
            its place, by summation by parts (Cong et al. 2019, GO gradient). Unbiased, with a small
            fraction of the variance.
        cdf: P(Y_s <= y_s) of each site, [M, ..., S], differentiable; for "go" only. See
            :func:`count_cdf`. If :func:`expected_ratio_ranking` takes the distribution, that is
            exact and cheaper.

    Returns:
        r [..., S]; each row sums to at most 1.

    Raises:
        ValueError: negative or non-finite samples (CPU; on CUDA that row is NaN), shapes
            that do not agree, a negative offset, an unknown estimator.
        TypeError: an argument of another type, samples of another dtype.
        NotImplementedError: a second derivative.

    Example:
        >>> y = distribution.sample(100)                          # [100, T, S]
        >>> r = tr.ratio_ranking(y, distribution.log_prob(y))     # [T, S], differentiable
    """
    name = "ratio_ranking"
    as_tensor_argument(name, "samples", samples)
    for argument, value in (("log_prob", log_prob), ("cdf", cdf)):
        if value is not None:
            as_tensor_argument(name, argument, value)
    offset = as_number(name, "offset", offset)
    as_name(name, "estimator", estimator)
    if estimator == "go" and log_prob is not None and cdf is not None:
        return torch.ops.topreach.ratio_ranking_go(samples, log_prob, cdf, offset)
    if log_prob is not None and estimator != "diagonal" and log_prob.dim() == samples.dim():
        log_prob = log_prob.sum(-1)
    return torch.ops.topreach.ratio_ranking(samples, log_prob, offset, estimator)
