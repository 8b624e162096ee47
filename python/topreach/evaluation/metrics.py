"""How good a choice of sites is, and how good a forecast.

Scores and counts are tensors, arrays or pandas tables whose last axis is the sites: counts [T, S],
scores [..., T, S], or both [S].

Scores choose the K sites with the largest values. Sparse counts make many scores tie, so every
figure is the *expectation under uniformly random tie-breaking*. With v the K-th largest score,
sites above v are chosen with m_s = 1, the n_v sites at v with m_s = (K − #above) / n_v.

In place of k, each function takes a `Program`. Then m is the program's best plan for the scores,
and the program defines the reach of a plan.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from topreach._C import Quotas
from topreach.programs import Program, TopK, as_program

_NAN_POLICIES = ("propagate", "omit", "raise")
_REDUCTIONS = ("mean", "none")


def bpr(
    scores: Any,
    counts: Any,
    k: int | Program,
    *,
    nan_policy: str = "propagate",
    reduce: str = "mean",
) -> Any:
    """Fraction of best possible reach.

        BPR(r, y) = Σ_s m_s y_s / Σ_{s ∈ TopK(y)} y_s

    the events in the K chosen sites over those in the best K sites in hindsight; m as in the
    module's introduction. Source: Heuton et al. 2025, Eq. 2 (2023, Eq. 5).

    Args:
        scores: [..., T, S] or [S], no NaN; ±inf allowed.
        counts: [T, S] or [S], finite, >= 0.
        k: number of sites K to choose, 1 <= K <= S, or a `Program`.
        nan_policy: a period without any event has no BPR (NaN). "propagate" it through the mean,
            "omit" such periods from the mean, or "raise" a ValueError. With reduce="none" only
            "raise" has an effect.
        reduce: "mean" over all leading axes, or "none".

    Returns:
        A float for "mean". For "none" the values [..., T]: a tensor if scores is a tensor, else an
        array.

    Example:
        >>> bpr([[3.0, 2.0, 1.0]], [[0, 4, 6]], k=2)
        0.4
    """
    scores, counts, program, as_tensor = _rows("bpr", scores, counts, k)
    values = program.bpr(scores, counts)
    return _reduced("bpr", values, nan_policy, reduce, as_tensor)


def capture(
    scores: Any,
    counts: Any,
    k: int | Program,
    *,
    nan_policy: str = "propagate",
    reduce: str = "mean",
) -> Any:
    """Share of all events that fall in the K chosen sites.

        capture(r, y) = Σ_s m_s y_s / Σ_s y_s

    Source: the outcome of the PROVIDENT trial, Marshall et al. 2022, doi:10.1111/add.15731 (n/N;
    "hit rate" in the crime-mapping literature). NaN for a period without events. Arguments, errors
    and return as for `bpr`.

    Example:
        >>> capture([[3.0, 2.0, 1.0]], [[0, 4, 6]], k=2)
        0.4
    """
    scores, counts, program, as_tensor = _rows("capture", scores, counts, k)
    values = _share(scores, counts, program)
    return _reduced("capture", values, nan_policy, reduce, as_tensor)


def pai(
    scores: Any,
    counts: Any,
    k: int | Program,
    *,
    areas: Any = None,
    nan_policy: str = "propagate",
    reduce: str = "mean",
) -> Any:
    """Predictive accuracy index: how much denser events are in the chosen sites than everywhere.

        PAI = (n / N) / (a / A),   n = Σ m_s y_s, N = Σ y_s, a = Σ m_s a_s, A = Σ a_s

    Source: Chainey, Tompson & Uhlig 2008, doi:10.1057/palgrave.sj.8350066. A PAI of 1 is
    no better than chance. With unequal areas and ties, n and a are each taken in expectation. NaN
    for a period without events.

    Args:
        areas: size of each site [S], positive; None for equal ones.

    Other arguments, errors and return as for `bpr`.

    Example:
        >>> pai([[3.0, 2.0, 1.0, 0.0]], [[0, 4, 6, 0]], k=2)
        0.8
    """
    scores, counts, program, as_tensor = _rows("pai", scores, counts, k)
    values = _pai(scores, counts, program, _areas("pai", areas, counts))
    return _reduced("pai", values, nan_policy, reduce, as_tensor)


def pei(
    scores: Any,
    counts: Any,
    k: int | Program,
    *,
    areas: Any = None,
    nan_policy: str = "propagate",
    reduce: str = "mean",
) -> Any:
    """Prediction efficiency index: PAI over the largest PAI that any K sites could have had.

        PEI = PAI(r) / max_{|R| = K} PAI(R)

    Source: Hunt 2016 (thesis, "Do crime hot spots move?", American University). With equal areas it
    is the BPR. NaN for a period without events. Only for K sites, not for other programs.
    Arguments, errors and return as for `pai`.

    Example:
        >>> pei([[3.0, 2.0, 1.0, 0.0]], [[0, 4, 6, 0]], k=2)
        0.4
    """
    scores, counts, program, as_tensor = _rows("pei", scores, counts, k)
    if not isinstance(program, TopK):
        raise TypeError(f"pei: k must be a number of sites, got {program!r}. Use pai.")
    areas = _areas("pei", areas, counts)
    total = counts.sum(dim=-1)
    best = _densest(counts, areas, program.k) / (total / areas.sum())
    values = _pai(scores, counts, program, areas) / best
    return _reduced("pei", values, nan_policy, reduce, as_tensor)


def rri(
    scores: Any,
    earlier: Any,
    later: Any,
    k: int | Program,
    *,
    nan_policy: str = "propagate",
    reduce: str = "mean",
) -> Any:
    """Recapture rate index: how the chosen sites' events changed against how all events changed.

        RRI = (n₂ / n₁) / (N₂ / N₁)

    n: events in the chosen sites, N: in all, 1: the earlier period (on which the choice was made),
    2: the later one. 1 means that the chosen sites kept their share. Source: Levine 2008, "The
    'hottest' part of a hotspot", Security Journal 21. NaN where n₁ or N₂ is 0.

    Args:
        scores: [..., T, S] or [S].
        earlier: counts of the earlier period of each pair [T, S] or [S].
        later: counts of the later one, of the same shape.

    Other arguments, errors and return as for `bpr`.

    Example:
        >>> rri([[3.0, 2.0, 1.0]], earlier=[[4, 4, 2]], later=[[2, 2, 6]], k=2)
        0.5
    """
    kept, later, program, as_tensor = _rows("rri", scores, later, k, "later")
    scores, earlier, _, _ = _rows("rri", scores, earlier, k, "earlier")
    if earlier.shape != later.shape:
        raise ValueError(
            f"rri: later must have the shape of earlier {list(earlier.shape)}, got "
            f"{list(later.shape)}."
        )
    before = _share(scores, earlier, program)
    ratio = _share(kept, later, program) / before
    values = torch.where(before > 0, ratio, torch.full_like(ratio, torch.nan))
    return _reduced("rri", values, nan_policy, reduce, as_tensor)


def mae(forecast: Any, counts: Any) -> float:
    """Mean absolute error, Σ |ŷ_ts − y_ts| / (T S), over all sites and periods.

    Args:
        forecast: [..., T, S] or [S], finite.
        counts: [T, S] or [S], finite, >= 0.

    Example:
        >>> mae([[1.0, 2.0]], [[0, 4]])
        1.5
    """
    forecast, counts, _ = _tables("mae", forecast, counts, "forecast", "counts")
    return float((forecast - counts).abs().mean())


def rmse(forecast: Any, counts: Any) -> float:
    """Root mean squared error, √(Σ (ŷ_ts − y_ts)² / (T S)), over all sites and periods at once.

    Arguments as for `mae`.

    Example:
        >>> rmse([[1.0, 1.0]], [[0, 8]])
        5.0
    """
    forecast, counts, _ = _tables("rmse", forecast, counts, "forecast", "counts")
    return float((forecast - counts).square().mean().sqrt())


def _membership(scores: Tensor, program: Program) -> Tensor:
    """Each site's chance of being chosen, m [..., S]."""
    if isinstance(program, Quotas) and len(program.groupings) == 1:
        return program.expected_best(scores).to(scores.dtype)
    if not isinstance(program, TopK):
        return program.best(scores)
    k = program.k
    v = scores.topk(k, dim=-1).values[..., -1:]
    above, tied = scores > v, scores == v
    above, tied = above.to(scores.dtype), tied.to(scores.dtype)
    share = (k - above.sum(dim=-1, keepdim=True)) / tied.sum(dim=-1, keepdim=True)
    return above + tied * share


def _share(scores: Tensor, counts: Tensor, program: Program) -> Tensor:
    return program.reach(_membership(scores, program), counts) / counts.sum(dim=-1)


def _pai(scores: Tensor, counts: Tensor, program: Program, areas: Tensor) -> Tensor:
    covered = (_membership(scores, program) * areas).sum(dim=-1) / areas.sum()
    return _share(scores, counts, program) / covered


def _areas(name: str, areas: Any, counts: Tensor) -> Tensor:
    if areas is None:
        return torch.ones(counts.shape[-1], dtype=counts.dtype, device=counts.device)
    areas = _tensor(name, areas, "areas").to(counts.device)
    if areas.shape != counts.shape[-1:] or not (torch.isfinite(areas) & (areas > 0)).all():
        raise ValueError(
            f"{name}: areas must be {counts.shape[-1]} finite numbers > 0, got "
            f"{areas.tolist()[:8]} of shape {list(areas.shape)}."
        )
    return areas


def _densest(counts: Tensor, areas: Tensor, k: int) -> Tensor:
    """max over K sites of Σ y / Σ a, [...].

    Dinkelbach's iteration, λ ← Σ y / Σ a at the top K of y − λ a: λ ascends through finitely many
    subsets and stops at the optimum, in practice within ten steps.
    """
    density = torch.zeros_like(counts[..., 0])
    while True:
        chosen = (counts - density[..., None] * areas).topk(k, dim=-1).indices
        higher = counts.gather(-1, chosen).sum(dim=-1) / areas[chosen].sum(dim=-1)
        if not (higher > density).any():
            return density
        density = torch.maximum(higher, density)


def _rows(
    name: str, scores: Any, counts: Any, k: int | Program, argument: str = "counts"
) -> tuple[Tensor, Tensor, Program, bool]:
    scores, counts, as_tensor = _tables(name, scores, counts, "scores", argument)
    program = as_program(k, name)
    program.check(name, scores.shape[-1])
    return scores, counts, program, as_tensor


def _tables(
    name: str, scores: Any, counts: Any, first: str, second: str
) -> tuple[Tensor, Tensor, bool]:
    """Both as float64 tensors on one device, counts expanded to the shape of the scores."""
    _check_labels(name, scores, counts, first, second)
    as_tensor = isinstance(scores, Tensor)
    scores, counts = _tensor(name, scores, first), _tensor(name, counts, second)
    if scores.ndim == 0 or counts.ndim == 0 or 0 in scores.shape:
        raise ValueError(
            f"{name}: {first} must have shape [..., T, S] with at least one site, got "
            f"{list(scores.shape)}."
        )
    if counts.ndim > scores.ndim or counts.shape != scores.shape[scores.ndim - counts.ndim :]:
        raise ValueError(
            f"{name}: {second} must have the last axes of {first} {list(scores.shape)}, got "
            f"{list(counts.shape)}."
        )
    wrong = torch.isnan(scores) if first == "scores" else ~torch.isfinite(scores)
    if wrong.any():
        at = torch.nonzero(wrong)[0].tolist()
        rule = "have no NaN" if first == "scores" else "be finite"
        raise ValueError(f"{name}: {first} must {rule}, got {scores[tuple(at)].item()} at {at}.")
    wrong = ~(torch.isfinite(counts) & (counts >= 0))
    if wrong.any():
        at = torch.nonzero(wrong)[0].tolist()
        raise ValueError(
            f"{name}: {second} must be finite and >= 0, got {counts[tuple(at)].item()} at {at}."
        )
    return scores, counts.to(scores.device).expand_as(scores), as_tensor


def _tensor(name: str, value: Any, argument: str) -> Tensor:
    if isinstance(value, pd.DataFrame | pd.Series):
        value = value.to_numpy()
    try:
        tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name}: {argument} must be a tensor, array or table of numbers, got "
            f"{type(value).__name__}."
        ) from error
    if tensor.is_complex():
        raise TypeError(f"{name}: {argument} must be real, got {tensor.dtype}.")
    return tensor.detach().to(torch.float64)


def _check_labels(name: str, scores: Any, counts: Any, first: str, second: str) -> None:
    """Two pandas tables must agree in their labels, else a figure would be silently wrong."""
    tables = pd.DataFrame | pd.Series
    if not (isinstance(scores, tables) and isinstance(counts, tables)):
        return
    same = type(scores) is type(counts) and all(
        a.equals(b) for a, b in zip(scores.axes, counts.axes, strict=True)
    )
    if not same:
        raise ValueError(
            f"{name}: {second} must have the row and column labels of {first}, got others. Reindex "
            "one like the other."
        )


def _reduced(name: str, values: Tensor, nan_policy: str, reduce: str, as_tensor: bool) -> Any:
    if nan_policy not in _NAN_POLICIES:
        raise ValueError(f"{name}: nan_policy must be one of {_NAN_POLICIES}, got {nan_policy!r}.")
    if reduce not in _REDUCTIONS:
        raise ValueError(f"{name}: reduce must be one of {_REDUCTIONS}, got {reduce!r}.")
    undefined = torch.isnan(values)
    if nan_policy == "raise" and undefined.any():
        at = torch.nonzero(undefined)[0].tolist()
        raise ValueError(
            f"{name}: counts must have events in every period, got none at index {at}. Pass "
            "nan_policy='omit' to leave such periods out of the mean."
        )
    if reduce == "none":
        return values if as_tensor else values.cpu().numpy()
    return float(values.nanmean() if nan_policy == "omit" else values.mean())
