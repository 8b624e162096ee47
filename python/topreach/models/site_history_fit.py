"""The steps of `SiteHistory.fit`, which learn the smoothing of the level, the shrinkage, the
season, and which features only repeat counts of the past."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from topreach.data.panel import Panel
from topreach.models.neighbours import Neighbours

_SMOOTHING = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1)
_SEASONAL_SMOOTHING = (0.1, 0.3)
_SITES_OF_FIRST_LOOK = 1000  # for lags

_ops = torch.ops.topreach


def panel_timeline(panel: Panel) -> tuple[Tensor, list[int]]:
    """All counts of a panel, float32 [N, S] on the CPU, and the row of each of its periods."""
    return panel.timeline.cpu(), panel.rows.tolist()


def best_smoothing(total: Tensor, season: int | None) -> tuple[float, float]:
    """The smoothing whose forecasts one period ahead had the least squared error in logarithms."""
    seasonal = _SEASONAL_SMOOTHING if season else (0.0,)
    known = ~torch.isnan(total)
    periods = int(known.sum())
    start = 1 if season is None else min(season, max(1, periods - season))
    if periods <= start + 1:
        return 0.7, seasonal[0]

    def error(pair: tuple[float, float]) -> float:
        forecast = _ops.level_forecasts(total, *pair, season or 0)[:-1]
        counted = known & ~torch.isnan(forecast)
        counted[:start] = False
        return ((total + 0.5).log() - forecast)[counted].square().sum().item()

    return min(((a, b) for a in _SMOOTHING for b in seasonal), key=error)


def mean_exposure_of(timeline: Tensor, exposure: Tensor | None) -> float:
    """The mean over the cells whose counts are known; 0 without exposure."""
    if exposure is None:
        return 0.0
    if exposure.shape != timeline.shape:
        raise ValueError(
            "SiteHistory.fit: timeline_exposure must have the shape of the panel's timeline, "
            f"{list(timeline.shape)}, got {list(exposure.shape)}."
        )
    known = exposure[~torch.isnan(timeline)].double()
    mean = known.mean().item() if len(known) else 1.0
    if not (math.isfinite(mean) and mean > 0):
        raise ValueError(
            "SiteHistory.fit: timeline_exposure must be finite and > 0 where the count is known, "
            f"got a mean of {mean}."
        )
    return mean


def fit_concentration(
    timeline: Tensor,
    timeline_exposure: Tensor | None,
    mean_exposure: float,
    graphs: Sequence[Neighbours],
) -> tuple[list[float], float]:
    """κ_j and the shape that maximise the likelihood of the sites' whole past.

    Counts A_s ~ NegBin(shape, mean m_s E_s). Each has a weak lognormal prior around 4 (sd 1.5 of
    the logarithm), so that it does not go to 0 or ∞ if there are few sites.
    """
    settings: list[Any] = [[], [], [], [math.inf], [], 1.0, 1.0, 0.0, 0, mean_exposure]
    if timeline_exposure is not None:  # that of the period to come is not read
        settings += [timeline_exposure, timeline_exposure.new_ones(1, timeline.shape[1])]
    whole = _ops.site_statistics(timeline, [len(timeline)], *settings)[0].double()
    counts, expected = whole[:, 0], whole[:, 1]
    near = [graph.sum(whole[:, :2]) for graph in graphs]
    sums = torch.stack(near, 0) if near else whole.new_zeros(0, len(whole), 2)
    near_counts, near_expected = sums.unbind(-1)
    p = torch.full((len(graphs) + 1,), math.log(4.0), dtype=torch.float64, requires_grad=True)
    if (expected > 0).any():
        optimizer = torch.optim.LBFGS(
            [p], max_iter=50, line_search_fn="strong_wolfe", tolerance_change=1e-9
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = _ops.site_concentration_loss(p, counts, expected, near_counts, near_expected)
            value.backward()
            return value

        optimizer.step(closure)
    fitted = p.detach().clamp(-7, 12).exp().tolist()
    return fitted[:-1], fitted[-1]


def repeated_counts(panel: Panel) -> list[str]:
    """Features whose values are the counts of one earlier period each, wherever those are known."""
    if not panel.num_features:
        return []
    timeline, rows = panel_timeline(panel)
    x = panel.x.cpu()
    found: set[int] = set()
    for lag in range(1, rows[-1] + 1):
        pairs = [(t, row - lag) for t, row in enumerate(rows) if row >= lag]
        # A first look at a part of the sites rules out most features.
        same = list(range(panel.num_features))
        for sites in (slice(_SITES_OF_FIRST_LOOK), slice(None)):
            events = False
            for t, u in pairs:
                earlier = timeline[u, sites]
                unknown = torch.isnan(earlier)
                events = events or bool((earlier > 0).any())
                values = x[t, sites][:, same]
                equal = ((values == earlier[:, None]) | unknown[:, None]).all(0).tolist()
                same = [p for p, is_equal in zip(same, equal, strict=True) if is_equal]
                if not same:
                    break
            if not same or panel.num_sites <= _SITES_OF_FIRST_LOOK:
                break
        if events:
            found.update(same)
    return [panel.feature_names[p] for p in sorted(found)]


def season_of(panel: Panel) -> int | None:
    if isinstance(panel.times[0], int | float) or panel.num_times < 2:
        return None
    gap = float(np.median(np.diff(panel.time_values.numpy())))
    return 12 if 28 <= gap <= 31 else 4 if 89 <= gap <= 92 else None
