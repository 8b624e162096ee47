"""Scores of forecasts of monthly counts, at five horizons of one origin."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

import topreach as tr

MONTHS = (1, 3, 6, 9, 12)
BINS = 10


def scores(
    mean: np.ndarray, variance: np.ndarray | None, y: np.ndarray, places: np.ndarray, k: int
) -> dict[str, Any]:
    """Scores of means [12, M] and variances (None: Poisson) for counts y [12, M], as lists over
    `MONTHS`.

    mse: mean over nodes of (y - mean)². log: mean log probability of y under the negative binomial
    with this mean and variance. cover: the chance that a randomised PIT is in (.05, .95). pit: its
    histogram, [10]. bpr: of K places, ranked by the sum of their nodes' means.
    """
    rows = [m - 1 for m in MONTHS]
    mean, y = np.maximum(mean[rows], 1e-2), y[rows]
    variance = mean if variance is None else variance[rows]
    size = mean**2 / np.maximum(variance - mean, 1e-6 * mean)
    counts = stats.nbinom(size, size / (size + mean))
    low, high = counts.cdf(y - 1), counts.cdf(y)
    edges = np.linspace(0, 1, BINS + 1)

    def inside(a: float, b: float) -> np.ndarray:
        """The share of (low, high) that is inside (a, b) [Czado et al. 2009]."""
        overlap = np.minimum(high, b) - np.maximum(low, a)
        return np.maximum(overlap, 0) / np.maximum(high - low, 1e-300)

    which = np.arange(places.max() + 1)[:, None] == places
    return {
        "mse": ((y - mean) ** 2).mean(1).tolist(),
        "log": np.maximum(counts.logpmf(y), -50).mean(1).tolist(),
        "cover": inside(0.05, 0.95).mean(1).tolist(),
        "pit": [inside(a, b).mean() for a, b in zip(edges, edges[1:], strict=False)],
        "bpr": tr.metrics.bpr(mean @ which.T, y @ which.T, k, reduce="none").tolist(),
    }
