"""Warns of features that reveal the count that they should predict."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

_CORRELATION = 0.98
_SAMPLE = 20_000  # cells that correlations are computed on
_FEWEST = 30  # cells, and sites, below which a correlation says little


def warn_of_leaks(
    x: np.ndarray, y: np.ndarray, exposure: np.ndarray | None, names: Sequence[str], name: str
) -> None:
    """Warn, by name, of features that agree too closely with the count of their own period.

    There are three signs: a rank correlation of at least .98 with the count or the rate of the same
    period; for a column that does not change over time, such a correlation with the site's total;
    a column that is zero exactly where the count is.

    Args:
        x: features [T, S, P]. y: counts [T, S], NaN where unknown. exposure: [T, S] or None.
        names: P feature names. name: the function to name in the message.
    """
    known = np.flatnonzero(~np.isnan(y))
    if not len(names) or len(known) < _FEWEST:
        return
    if len(known) > _SAMPLE:
        chosen = np.random.default_rng(0).integers(0, len(known), _SAMPLE)
        known = known[np.unique(chosen)]
    t, s = np.unravel_index(known, y.shape)
    counts = y[t, s].astype(float)
    of_cell = {"the count of its own period": counts}
    if exposure is not None:
        of_cell["the rate of its own period"] = counts / exposure[t, s]
    cells = x[t, s].astype(float)
    total = np.nansum(y, axis=0, dtype=float)
    found = []
    for p, label in enumerate(names):
        constant = y.shape[0] > 1 and bool((x[:, :, p] == x[:1, :, p]).all())
        if constant and y.shape[1] >= _FEWEST and _agree(x[0, :, p], total):
            found.append(f"{label!r} goes with the site's total over all periods of the table")
            continue
        told = next((what for what, v in of_cell.items() if _agree(cells[:, p], v)), None)
        zeros = counts == 0
        if told is None and 0.1 < zeros.mean() < 0.9 and ((cells[:, p] == 0) == zeros).all():
            told = "the count of its own period: it is zero exactly where that is"
        if told is not None:
            found.append(f"{label!r} goes with {told}")
    if found:
        warnings.warn(
            f"{name}: features must be known before the period they are for, got columns that tell "
            f"the count: {'; '.join(found)}. Leave them out of the features.",
            stacklevel=4,
        )


def _agree(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether the rank correlation is at least .98 in size."""
    if len(np.unique(a)) < 3 or len(np.unique(b)) < 3:
        return False
    ranks = [pd.Series(v).rank().to_numpy() for v in (a, b)]
    return bool(abs(np.corrcoef(ranks[0], ranks[1])[0, 1]) >= _CORRELATION)
