"""Rankings that need no training, against which any model is to be held.

Each takes a panel and returns forecasts [T, S] for its periods, from the counts *before* each
period only (earlier periods of the same panel included, as in yearly use): `panel.history_y` and
`panel.y` joined.

They reproduce these figures, recomputed from the published files (MAE and RMSE over all test sites
and periods;
BPR the mean over test periods of its expectation under random tie-breaking; K = 100 and 50):

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

from topreach.data.panel import Panel


def last_period(panel: Panel) -> Tensor:
    """The counts of the period before each period, [T, S]."""
    return _mean_before(panel, 1, "last_period")


def historical_mean(panel: Panel, window: int | None = None) -> Tensor:
    """The mean of all counts before each period, or of the last `window` of them, [T, S].

    Where fewer than `window` periods are known, the mean is over those.
    """
    if window is not None and (
        isinstance(window, bool) or not isinstance(window, numbers.Integral) or window < 1
    ):
        raise ValueError(
            f"historical_mean: window must be a whole number >= 1 or None, got {window!r}."
        )
    return _mean_before(panel, window, "historical_mean")


def chance(panel: Panel) -> Tensor:
    """Zeros [T, S]: with all sites tied, the BPR of K random sites, and the mean count as MAE."""
    return torch.zeros_like(panel.y)


def _mean_before(panel: Panel, window: int | None, name: str) -> Tensor:
    end = panel._rows.to(panel.device)
    if end[0] == 0:
        raise ValueError(
            f"{name}: panel must have counts before its first period, got none before "
            f"{panel.times[0]!r}. Pass a later part of a split, or Panel(..., history_y=...)."
        )
    start = torch.zeros_like(end) if window is None else (end - window).clamp_min(0)
    timeline = panel._timeline.to(torch.float64)
    total = torch.cat([torch.zeros_like(timeline[:1]), timeline.cumsum(dim=0)])
    mean = (total[end] - total[start]) / (end - start)[:, None]
    if torch.isnan(mean).any():
        t = int(torch.nonzero(torch.isnan(mean))[0, 0])
        raise ValueError(
            f"{name}: panel must have counts for all periods before {panel.times[t]!r}, got some "
            "without."
        )
    return mean.to(torch.float32)
