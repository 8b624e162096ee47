"""Forecasts of overdose deaths by STEMMED, its rivals and plain means [STEMMED Sec. 5]."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

import topreach as tr

from ..context import Context
from ..event_data import events_digest, month_starts, overdose_deaths
from .figures import plot
from .processes import ANCHORS, HALF_LIVES, NAMED, Course, label, ours
from .rivals import Forecast, neighbours_of, rivals
from .scores import MONTHS, scores

TITLE = "STEMMED's forecasts of deaths by place and drug against ARIMA, means and others"

# First and last origin, months between origins, number of origins between fits from the beginning,
# whether forecasts use paths, K, and the half-lives that are tried.
SETS: dict[str, tuple[str, str, int, int, bool, int, tuple[float | None, ...]]] = {
    "ct": ("2014-01", "2024-01", 3, 4, False, 3, HALF_LIVES),
    "cook": ("2016-10", "2022-04", 6, 4, True, 20, HALF_LIVES[1:2]),
}
DEFAULT = (24.0, 12.0)  # half-life and anchor
OURS, CHOSEN = "STEMMED, ours", "STEMMED, chosen"
RATES = "EmpiricalBayesRates"


def run(context: Context) -> None:
    for which in ("ct",) if context.quick else SETS:
        events, place = overdose_deaths(context, which)
        Study(context, which, events, place).run()


class Study:
    """One set of events: all methods at all origins, with settings chosen on the first half of the
    origins."""

    def __init__(self, context: Context, which: str, events: tr.Events, place: str):
        first, last, step, anew, simulate, k, half_lives = SETS[which]
        self.context, self.which, self.events, self.place = context, which, events, place
        panel = events.counts("month", by="node")
        self.panel = panel
        self.y, self.months = panel.y.numpy().astype(float), list(panel.times)
        if place.startswith("SIMULATED"):
            first, last = "2018-01", "2021-01"
        self.origins = list(month_starts(first, last, step))
        if context.quick:
            self.origins = self.origins[:2]
        self.half = (len(self.origins) + 1) // 2
        self.anew, self.simulate, self.k = anew, simulate, k
        self.half_lives = HALF_LIVES[1:2] if context.quick else half_lives
        places, types = events.num_places, events.num_types
        self.places = np.repeat(np.arange(places), types)
        near = neighbours_of(events.distances().numpy(), types)
        self.rivals = rivals(np.tile(np.arange(types), places), near)
        if importlib.util.find_spec("statsmodels") is None:
            print("statsmodels is not installed: no row of ARIMA", file=sys.stderr)
            del self.rivals["ARIMA(1,1,1)"]

    def run(self) -> None:
        settings = {
            "data": events_digest(self.events),
            "origins": [f"{o:%Y-%m}" for o in self.origins],
            "k": self.k,
        }
        prefix = f"{self.which}."
        cells: dict[str, Callable[[], Any]] = {
            f"{prefix}choice.half={h or 'all'}": partial(self.choice, h) for h in self.half_lives
        }
        tried = self.context.cells(cells, settings)
        errors = {
            (h, a): np.array([o["mse"] for o in tried[f"{prefix}choice.half={h or 'all'}"][f"{a}"]])
            for h in self.half_lives
            for a in ANCHORS
        }
        chosen = min(errors, key=lambda one: errors[one][: self.half].mean())
        cells = {
            name: partial(self.process, options, options["anchor"])
            for name, options in NAMED.items()
        }
        for name, (h, a) in ((OURS, DEFAULT), (CHOSEN, chosen)):
            cells[name] = partial(self.process, ours(h), a)
        cells |= {name: partial(self.rival, made) for name, made in self.rivals.items()}
        cells[RATES] = self.rates
        files = {name: prefix + _file_name(name) for name in cells}
        found = self.context.cells(
            {files[name]: cell for name, cell in cells.items()}, settings | {"chosen": chosen}
        )
        self.tables({name: found[files[name]] for name in cells}, errors, chosen)

    def course(self, options: dict[str, Any]) -> Course:
        return Course(
            self.events,
            self.y,
            self.months,
            options,
            anew=self.anew,
            simulate=self.simulate,
            k=self.k,
        )

    def choice(self, half_life: float | None) -> dict[str, Any]:
        return self.course(ours(half_life)).run(self.origins, ANCHORS, full=False)

    def process(self, options: dict[str, Any], anchor: float | None) -> list[Any]:
        found = self.course(options).run(self.origins, [anchor], full=True)
        return found[f"{anchor}"]

    def rival(self, made: Callable[[np.ndarray], Forecast]) -> list[Any]:
        found = []
        for row in self.rows:
            mean, variance = made(self.y[:row])
            ahead = self.y[row : row + 12]
            found.append(scores(mean, variance, ahead, self.places, self.k))
        return found

    @property
    def rows(self) -> list[int]:
        """The row of each origin's first forecast month in the table of counts."""
        return [self.months.index(f"{origin:%Y-%m}") for origin in self.origins]

    def rates(self) -> list[Any]:
        """The library's default on monthly counts; its variance is a multiple of the mean."""
        found = []
        for row in self.rows:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                history = self.panel.split(test=self.panel.times[row]).train
                ranker = tr.TopKRanker(self.k, progress=False).fit(history)
                rank = [ranker.rank(periods_ahead=h) for h in range(1, 13)]
                one = ranker.predict_distribution()
            sites = self.panel.site_ids
            mean = np.array([r.set_index("site")["expected_count"][sites] for r in rank])
            ratio = float((one.variance / one.mean).mean())
            ahead = self.y[row : row + 12]
            found.append(scores(mean, ratio * mean, ahead, self.places, self.k))
        return found

    def tables(
        self,
        found: dict[str, list[Any]],
        errors: dict[tuple[float | None, float], np.ndarray],
        chosen: tuple[float | None, float],
    ) -> None:
        second = slice(self.half if len(self.origins) > 1 else 0, None)
        origins = self.origins[second]
        mse = {name: np.array([o["mse"] for o in one])[second] for name, one in found.items()}
        rows = []
        for name, one in found.items():
            row: dict[str, Any] = {"method": name}
            row |= {f"MSPE {m}": mse[name][:, i].mean() for i, m in enumerate(MONTHS)}
            part = one[second]
            row["log score"] = np.mean([o["log"] for o in part])
            row["90 % cover"] = np.mean([o["cover"] for o in part])
            row["BPR"] = np.nanmean([o["bpr"] for o in part])
            rows.append(row)
        span = f"{origins[0]:%Y-%m} to {origins[-1]:%Y-%m}"
        self.context.table(
            pd.DataFrame(rows).set_index("method"),
            f"{self.which}_results",
            title=f"{self.place}: {len(origins)} origins, {span} (the second half). MSPE of month "
            f"1, 3, 6, 9, 12 ahead per node; log score per node; K = {self.k} places. Chosen: "
            f"{label(*chosen)}",
        )
        rows = []
        for name in found:
            if name == CHOSEN:
                continue
            row = {"method": name}
            apart = mse[CHOSEN] - mse[name]
            for i, m in enumerate(MONTHS):
                error = apart[:, i].std(ddof=1) / len(apart) ** 0.5 if len(apart) > 1 else np.nan
                row |= {f"month {m}": apart[:, i].mean(), f"s.e. {m}": error}
            rows.append(row)
        self.context.table(
            pd.DataFrame(rows).set_index("method"),
            f"{self.which}_differences",
            title=f"{self.place}: MSPE of STEMMED (chosen) less that of each method, paired by "
            "origin, second half; below 0: STEMMED is better",
        )
        rows = [
            {"setting": label(*setting)}
            | {f"MSPE {m}": value[: self.half].mean(0)[i] for i, m in enumerate(MONTHS)}
            | {"mean": value[: self.half].mean()}
            for setting, value in errors.items()
        ]
        self.context.table(
            pd.DataFrame(rows).set_index("setting"),
            f"{self.which}_choice",
            title=f"{self.place}: what was tried, first half of the origins",
        )
        if self.context.can_plot():
            pit = {name: np.mean([o["pit"] for o in one[second]], 0) for name, one in found.items()}
            self.context.figure(plot(mse, pit, self.place), f"{self.which}_mspe")


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
