"""Point processes at every origin: fitted from the beginning once a year (in Cook County every
second year), and by warm refits in between."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

import topreach as tr

from .scores import MONTHS, scores

# The paper's own model and its rivals [STEMMED Sec. 5], as settings of one model.
NAMED: dict[str, dict[str, Any]] = {
    "STEMMED, paper": {"theta": "share", "recent_rate": False, "anchor": None},
    "SEPP": {
        "network": "own",
        "theta": "none",
        "recent_rate": False,
        "use_marks": False,
        "anchor": None,
    },
    "MEPP": {
        "theta": "none",
        "recent_rate": False,
        "use_distance": False,
        "use_marks": False,
        "anchor": None,
    },
}
HALF_LIVES: tuple[float | None, ...] = (12.0, 24.0, None)
ANCHORS = (3.0, 6.0, 12.0, 24.0)


def ours(half_life: float | None) -> dict[str, Any]:
    return {"theta": "jaccard", "half_life": half_life, "use_marks": False}


def label(half_life: float | None, anchor: float) -> str:
    forget = "all" if half_life is None else f"{half_life:g}"
    return f"half-life {forget}, anchor {anchor:g}"


class Course:
    """The fits of one setting along the origins, and their forecasts."""

    def __init__(
        self,
        events: tr.Events,
        y: np.ndarray,
        months: Sequence[str],
        options: dict[str, Any],
        *,
        anew: int,
        simulate: bool,
        k: int,
    ):
        self.events, self.y, self.options, self.anew = events, y, options, anew
        self.row = {month: i for i, month in enumerate(months)}
        self.simulate, self.k = simulate, k
        self.places = np.repeat(np.arange(events.num_places), events.num_types)

    def run(
        self, origins: Sequence[pd.Timestamp], anchors: Sequence[float | None], *, full: bool
    ) -> dict[str, list[dict[str, Any]]]:
        """Scores at each origin, by anchor; without `full` only the squared errors."""
        found: dict[str, list[dict[str, Any]]] = {f"{anchor}": [] for anchor in anchors}
        last = None
        for number, origin in enumerate(origins):
            known = self.events.until((origin - pd.Timedelta(days=1)).strftime("%Y-%m-%d"))
            # A new category of a mark adds a parameter, so there is no warm refit.
            same = last is not None and last.events_.mark_names == known.mark_names
            start = last if same and number % self.anew else None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                last = tr.models.Stemmed(**self.options).fit(known, start=start)
            row = self.row[origin.strftime("%Y-%m")]
            ahead = self.y[row : row + 12]
            for anchor in anchors:
                mean, variance = self._forecast(last, anchor, full=full)
                if full:
                    one = scores(mean, variance, ahead, self.places, self.k)
                else:
                    rows = [m - 1 for m in MONTHS]
                    one = {"mse": ((ahead - mean)[rows] ** 2).mean(1).tolist()}
                found[f"{anchor}"].append(one)
        return found

    def _forecast(
        self, model: tr.models.Stemmed, anchor: float | None, *, full: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        # With many nodes the covariance is expensive: paths give mean and variance too.
        mode = "moments" if full else "mean"
        more: dict[str, Any] = {}
        if self.simulate:
            mode, more = "branching", {"num_samples": 1000, "parameter_draws": 0}
        made = model.forecast(12, by="node", anchor=anchor, mode=mode, **more)
        variance = None if made.variance is None else made.variance.numpy()
        return made.mean.numpy(), variance
