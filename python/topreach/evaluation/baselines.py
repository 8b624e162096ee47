"""Rankings that need no training, with which any model should be compared.

Each takes a panel and returns forecasts [T, S] for its periods, from the counts *before* each
period only: `panel.history_y` and earlier periods of the panel itself, as in yearly use.

They reproduce these figures, recomputed from the published files. MAE and RMSE are over all test
sites and periods; BPR is the mean over test periods of its expectation under random tie-breaking;
K = 100 and 50:

    Cook County     last_period                  1.069 / 1.659 / .748
                    historical_mean(window=5)     .943 / 1.455 / .820
                    chance                       1.369 / 2.460 / .200
    aerial surveys  last_period                   .240 / 1.066 / .276
                    historical_mean(window=10)    .251 /  .809 / .377
                    historical_mean(window=21)    .294 /  .873 / .399
                    chance                        .156 /  .839 / .045
"""

from __future__ import annotations

import numbers

import torch
from torch import Tensor

from topreach.data import Panel

__all__ = ["chance", "historical_mean", "last_period"]


def last_period(panel: Panel) -> Tensor:
    """The counts of the period before each period, [T, S].

    Raises:
        ValueError: the counts of that period are unknown.

    Example:
        >>> metrics.bpr(last_period(test), test.y, 100)
    """
    return _mean_before(panel, 1, "last_period")


def historical_mean(panel: Panel, window: int | None = None) -> Tensor:
    """The mean of all counts before each period, or of the last `window` of them, [T, S].

    If fewer than `window` periods come before, the mean is over those. Unknown counts are left out.
    A site without any known count in the window has the mean of all its earlier counts; one without
    any has 0.

    Args:
        panel: the periods to forecast, with the counts before them.
        window: a number of periods >= 1, or None for all.

    Raises:
        TypeError: window is not a whole number.
        ValueError: window is under 1; no count is known in the window.
    """
    if window is not None:
        if isinstance(window, bool) or not isinstance(window, numbers.Integral):
            raise TypeError(
                f"historical_mean: window must be a whole number >= 1 or None, got {window!r}."
            )
        if window < 1:
            raise ValueError(
                f"historical_mean: window must be a whole number >= 1 or None, got {window!r}."
            )
        window = int(window)
    return _mean_before(panel, window, "historical_mean")


def chance(panel: Panel) -> Tensor:
    """Zeros [T, S]: with all sites tied, the BPR of K random sites, and the mean count as MAE."""
    return torch.zeros_like(panel.y)


def _mean_before(panel: Panel, window: int | None, name: str) -> Tensor:
    end = panel.rows.to(panel.device)
    if end[0] == 0:
        raise ValueError(
            f"{name}: panel must have counts before its first period, got none before "
            f"{panel.times[0]!r}. Pass a later part of a split, or Panel(..., history_y=...)."
        )
    start = torch.zeros_like(end) if window is None else (end - window).clamp_min(0)
    timeline = panel.timeline.to(torch.float64)
    known = ~torch.isnan(timeline)
    total, number = (
        torch.cat([torch.zeros_like(part[:1]), part.cumsum(dim=0)])
        for part in (torch.where(known, timeline, 0.0), known.to(torch.float64))
    )
    inside = number[end] - number[start]
    unknown = (inside == 0).all(dim=1)
    if unknown.any():
        t = int(torch.nonzero(unknown)[0])
        span = {None: "the periods", 1: "the period"}.get(window, f"the {window} periods")
        raise ValueError(
            f"{name}: panel must have known counts in {span} before {panel.times[t]!r}, got none."
        )
    recent = (total[end] - total[start]) / inside
    ever = total[end] / number[end].clamp_min(1)
    return torch.where(inside > 0, recent, ever).to(torch.float32)
