"""The best K sites under quotas on groups of sites, differentiably."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal

import torch
from torch import Tensor

from topreach.ops.arguments import as_integer, as_name, as_number, as_tensor_argument
from topreach.ops.random import draw_key

Limit = int | str | None
Limits = Limit | Sequence[Limit] | Mapping[Any, Limit] | Tensor


def quota_topk(
    scores: Tensor,
    k: int,
    *,
    groups: Tensor | Sequence[Any],
    lower: Limits = 0,
    upper: Limits = None,
    parent: Tensor | None = None,
    lock: Tensor | None = None,
) -> Tensor:
    """Mask of the best K sites under quotas: max r·x with Σx = K, lower_g <= x(g) <= upper_g.

    A greedy algorithm on the tree of groups, exact, O(S) a row for each level of the tree.

    Args:
        scores: [..., S] float32 or float64; -inf marks sites that must not be chosen.
        k: number of sites to choose, 0 <= k <= S.
        groups: the group of each site, [S]: numbers 0..G-1 (an integer tensor; -1: in no group), or
            labels (a sequence; None: in no group).
        lower, upper: least and most sites of each group: one limit for all groups, [G] limits (for
            labels, in the order in which they appear), or a mapping from labels, in which groups
            without an entry have no limit. A limit is a number, None (no limit), or a share of K
            such as "30%": ⌈.3 K⌉ as a lower limit, ⌊.3 K⌋ as an upper one.
        parent: [G] integers, for nested groups: the group that each group lies in, or -1. `groups`
            then gives each site's narrowest group.
        lock: [S] integers: 1 for sites that must be chosen, -1 for those that must not, else 0.

    Returns:
        [..., S] of zeros and exactly k ones a row, in the dtype of ``scores``; ties go to the
        lowest index. It has no gradient: see :func:`expected_quota_topk`.

    Raises:
        ValueError: quotas that no plan meets, or that none meets without the sites whose score is
            -inf (the message names the first group that cannot be met); shapes that do not fit; a
            NaN score. On CUDA, where a check of the scores would synchronise, a row with NaN, or
            with too few sites above -inf, is NaN.
        TypeError: arguments of another type or dtype.

    Example:
        >>> scores = torch.tensor([4.0, 3.0, 2.0, 1.0])
        >>> tr.quota_topk(scores, 2, groups=["a", "a", "b", "b"], lower=1)
        tensor([1., 0., 1., 0.])

    Source: a greedy algorithm on a laminar matroid, for instance Gabow & Tarjan (1984).
    """
    name = "quota_topk"
    k = _k(name, scores, k)
    bounds = quota_tensors(name, groups, lower, upper, k, scores.shape[-1])
    return torch.ops.topreach.quota_topk(scores, k, *bounds, parent, lock)


def expected_quota_topk(
    scores: Tensor,
    k: int,
    *,
    groups: Tensor | Sequence[Any],
    lower: Limits = 0,
    upper: Limits = None,
    sigma: float,
    lock: Tensor | None = None,
) -> Tensor:
    """Differentiable top-K under quotas without noise: E[quota_topk(r + sigma z)], z normal.

    b_i is the chance that site i is in the best plan for perturbed scores. Given the perturbed
    score t of the site, groups are independent: each gives its forced sites and a pool of others,
    and the pool's distribution is a product over groups. The integral over t is by two interleaved
    trapezoidal rules that must agree to 3e-5; their mean has an error of about 1e-8
    (docs/derivations.md).

    The Jacobian is symmetric, its rows sum to zero, and both modes of differentiation are exact.
    Differentiating twice raises. Cost: 809 sites, 39 groups, K = 162: some 10 ms a row.

    Args:
        scores: [..., S] float32 or float64, in any unit; -inf marks sites that must not be chosen.
        k, groups, lower, upper, lock: as in :func:`quota_topk`. Groups are disjoint.
        sigma: noise scale in the unit of the scores, >= 0; 0 gives the hard mask and no gradient.

    Returns:
        [..., S] in [0, 1] in the dtype of ``scores``; each row sums to k. Ties are shared for
        sigma > 0.

    Raises:
        ValueError, TypeError: as :func:`quota_topk`.
        NotImplementedError: a second derivative.

    Example:
        >>> scores = torch.randn(4, 100, requires_grad=True)
        >>> chosen = tr.expected_quota_topk(scores, 20, groups=towns, lower=1, sigma=0.1)
        >>> (-(chosen * counts).sum()).backward()
    """
    name = "expected_quota_topk"
    k = _k(name, scores, k)
    sigma = as_number(name, "sigma", sigma)
    bounds = quota_tensors(name, groups, lower, upper, k, scores.shape[-1])
    return torch.ops.topreach.expected_quota_topk(scores, k, *bounds, sigma, lock)


def perturbed_quota_topk(
    scores: Tensor,
    k: int,
    *,
    groups: Tensor | Sequence[Any],
    lower: Limits = 0,
    upper: Limits = None,
    sigma: float,
    num_samples: int = 100,
    estimator: Literal["score_loo", "conditional"] = "conditional",
    generator: torch.Generator | None = None,
    key: Tensor | None = None,
    row_offset: int = 0,
    parent: Tensor | None = None,
    lock: Tensor | None = None,
) -> Tensor:
    """Each site's share of J best plans under quotas for perturbed scores, differentiably.

    The estimators are those of :func:`topreach.perturbed_topk`. "score_loo" has plans as its value
    and the score-function gradient with a leave-one-out baseline. "conditional" integrates out each
    site's own noise: in a draw, site i changes places with one other site a, so that with
    x = (r_a + sigma z_a - r_i) / sigma

        b_i = (1/J) Σ_j 1 - F(x_ij),    g_i = (1/(J sigma)) Σ_j f(x_ij) (v_i - v_a).

    Both are unbiased for :func:`expected_quota_topk` and its gradient; the second has far less
    variance, and rows that sum to k only in expectation. The noise is that of `perturbed_topk` for
    the same key. It is drawn again in backward: memory is O(S). Forward mode gives the same
    estimate as backward, as the Jacobian of the expectation is symmetric.

    Args:
        scores, k, groups, lower, upper, parent, lock: as in :func:`quota_topk`. Nested groups
            (`parent`) need "score_loo".
        sigma: noise scale in the unit of the scores, >= 0; 0 gives the hard mask and no gradient.
        num_samples: number of draws J ("score_loo": at least 2).
        estimator: "score_loo" or "conditional".
        generator: torch generator to draw the key from.
        key: int64 [2] from :func:`draw_key`, instead of a generator.
        row_offset: global number of the first row. A row's result depends on (scores, key, row
            number) alone, bit for bit.

    Returns:
        [..., S] in [0, 1] in the dtype of ``scores``. Sites that are locked or of infinite score
        get a zero gradient.

    Raises:
        ValueError, TypeError: as :func:`quota_topk`.
        NotImplementedError: a second derivative.

    Example:
        >>> scores = torch.randn(4, 100, requires_grad=True)
        >>> chosen = tr.perturbed_quota_topk(scores, 20, groups=towns, lower=1, sigma=0.1)
    """
    name = "perturbed_quota_topk"
    k = _k(name, scores, k)
    sigma = as_number(name, "sigma", sigma)
    num_samples = as_integer(name, "num_samples", num_samples)
    row_offset = as_integer(name, "row_offset", row_offset)
    as_name(name, "estimator", estimator)
    bounds = quota_tensors(name, groups, lower, upper, k, scores.shape[-1])
    if key is None:
        key = draw_key(generator, scores.device)
    as_tensor_argument(name, "key", key)
    return torch.ops.topreach.perturbed_quota_topk(
        scores, k, *bounds, sigma, num_samples, estimator, key, row_offset, parent, lock
    )


def _k(function: str, scores: Any, k: Any) -> int:
    as_tensor_argument(function, "scores", scores)
    if scores.dim() == 0:
        raise ValueError(f"{function}: scores must have shape [..., S], got a scalar")
    return as_integer(function, "k", k)


def limit_count(
    function: str, name: str, limit: Any, k: int, none: int, *, lower: bool | None = None
) -> int:
    """A limit as a number of sites: shares of k such as "30%" are rounded so that they hold.

    lower: whether it is a lower limit; None: if `name` says so.
    """
    is_lower = name == "lower" if lower is None else lower
    if limit is None:
        return none
    if isinstance(limit, str):
        text = limit.strip()
        try:
            share = Fraction(text.removesuffix("%").strip()) / 100
        except (ValueError, ZeroDivisionError):
            share = Fraction(-1)
        if not text.endswith("%") or not 0 <= share <= 1:
            raise ValueError(
                f"{function}: {name} must be a number of sites or a share such as '30%', got "
                f"{limit!r}"
            )
        return math.ceil(share * k) if is_lower else math.floor(share * k)
    return as_integer(function, name, limit)


def quota_tensors(
    function: str, groups: Any, lower: Any, upper: Any, k: int, sites: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(groups [S], lower [G], upper [G]), int64 on the CPU."""
    labels: list[Any] | None = None
    if isinstance(groups, Tensor):
        if groups.is_floating_point() or groups.is_complex() or groups.dtype == torch.bool:
            raise TypeError(f"{function}: groups must be integers, got {groups.dtype}")
        numbers = groups.long()
        tensors = isinstance(lower, Tensor) and isinstance(upper, Tensor)
        count = 0 if tensors or numbers.numel() == 0 else int(numbers.max()) + 1
    else:
        if isinstance(groups, str) or not hasattr(groups, "__len__"):
            raise TypeError(
                f"{function}: groups must be an integer tensor [S] or a sequence of labels, got "
                f"{type(groups).__name__}"
            )
        given = list(groups)
        labels = list(dict.fromkeys(label for label in given if label is not None))
        place = {label: number for number, label in enumerate(labels)}
        numbers = torch.tensor([-1 if g is None else place[g] for g in given], dtype=torch.int64)
        count = len(labels)

    def limits(name: str, value: Any, none: int) -> Tensor:
        if isinstance(value, Tensor):
            return value.long()
        if isinstance(value, Mapping):
            if labels is None:
                raise TypeError(
                    f"{function}: {name} must be a limit or [G] of them where groups are numbers, "
                    "got a mapping"
                )
            strangers = [label for label in value if label not in set(labels)]
            if strangers:
                raise ValueError(f"{function}: {name} must name groups, got {strangers[0]!r}")
            found = [value.get(label, None) for label in labels]
        elif value is None or isinstance(value, str) or not hasattr(value, "__len__"):
            found = [value] * count
        else:
            found = list(value)
        return torch.tensor(
            [limit_count(function, name, limit, k, none) for limit in found], dtype=torch.int64
        )

    return numbers, limits("lower", lower, 0), limits("upper", upper, sites)
