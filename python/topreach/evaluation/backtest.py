"""Backtest with a rolling origin: what each method would have reached if it had always been used.

The periods of a panel are cut into test blocks. For each block a method is fitted to all earlier
periods, and then forecasts the periods of the block one step ahead: the counts before a period are
known, its own are not.
"""

from __future__ import annotations

import copy
import math
import numbers
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from topreach.data import Panel
from topreach.evaluation import baselines, metrics
from topreach.evaluation.intervals import paired_interval, simultaneous_intervals
from topreach.programs import Program, as_program

Forecast = Tensor | Mapping[str, Tensor]
Fitted = Callable[[Panel], Forecast]
Method = Callable[[Panel], Fitted]

FIGURES = ("bpr", "capture", "pai", "mae", "mae_median", "mse", "nll")


def origins(panel: Panel, block: int = 1, first: int | None = None) -> list[tuple[int, int]]:
    """For each test block, its first period and the one after its last.

    Args:
        block: periods in a block.
        first: number of the first period to test, from 1. By default two blocks come before it;
            counts known before the panel's first period count as well.

    Example:
        >>> origins(panel, block=4)  # 12 quarters, nothing before
        [(8, 12)]
    """
    if isinstance(block, bool) or not isinstance(block, numbers.Integral) or block < 1:
        raise ValueError(f"backtest: block must be a whole number >= 1, got {block!r}.")
    if first is None:
        past = 0 if panel.history_y is None else len(panel.history_y)
        first = max(1, 2 * block - past)
    if first < 1:
        raise ValueError(
            f"backtest: first must be >= 1, got {first}: a method learns from the periods before."
        )
    return [
        (start, min(start + block, panel.num_times))
        for start in range(first, panel.num_times, block)
    ]


def judge(forecast: Forecast, test: Panel, k: int | Program) -> dict[str, list[float]]:
    """Figures of a forecast for each period of `test`.

    Args:
        forecast: scores [T, S] that are also forecasts of the counts; or a dictionary with any of
            "scores", "mean", "median" (all [T, S]) and "nll" [T]. Without "scores", sites are
            ranked by the mean.
        test: the periods, with counts.
        k: number of sites to choose, or a `Program`.

    Returns:
        A value for each period, by name: bpr, capture and pai (NaN for a period without events);
        and, if the forecast has them, mae and mse of the mean, mae_median, and nll.

    Cells without a count (a site that is not open) cannot be chosen, and do not enter the errors.
    """
    made = {"mean": forecast} if isinstance(forecast, Tensor) else dict(forecast)
    scores = made.get("scores", made.get("mean"))
    if scores is None:
        raise ValueError(f"judge: forecast must have 'scores' or 'mean', got {sorted(made)}.")
    y, scores = test.y.double(), torch.as_tensor(scores).double()
    known = ~torch.isnan(y)
    scores = torch.where(known, scores, -math.inf)
    counts = torch.where(known, y, 0.0)
    rows = {
        name: getattr(metrics, name)(scores, counts, k, reduce="none").tolist()
        for name in ("bpr", "capture", "pai")
    }
    for name, point in (("mae", "mean"), ("mae_median", "median"), ("mse", "mean")):
        if point in made:
            error = torch.where(known, torch.as_tensor(made[point]).double() - y, 0.0)
            size = error.square() if name == "mse" else error.abs()
            rows[name] = (size.sum(1) / known.sum(1)).tolist()
    if "nll" in made:
        rows["nll"] = torch.as_tensor(made["nll"]).double().tolist()
    return rows


def backtest(
    panel: Panel,
    k: int | Program,
    methods: Mapping[str, Any] | None = None,
    *,
    block: int = 1,
    first: int | None = None,
    refit: bool = True,
) -> pd.DataFrame:
    """Figures of every method in every test period, each forecast only from the periods before.

    Args:
        panel: counts of all periods.
        k: number of sites to choose, or a `Program`.
        methods: by name; added to the baselines "last period", "mean of all" and "chance". Each is
            a ranker that is not fitted (`fit(panel)`, `site_scores(panel)`; a copy is fitted), or a
            function: `method(train)` fits and returns a function of a panel that forecasts its
            periods, see `judge` for what it may return.
        block: periods in a test block; a method is fitted again for each block.
        first: number of the first period to test, see `origins`.
        refit: False fits once, before the first block.

    Returns:
        A row for each method and test period: method, time, seconds (of the block), and the figures
        of `judge`. `compare` sums it up.

    Raises:
        ValueError: no period to test; k too large.

    Example:
        >>> table = tr.evaluation.backtest(panel, 20, {"default": tr.TopKRanker(20)})
        >>> tr.evaluation.compare(table, "default", "mean of all")
    """
    program = as_program(k, "backtest")
    program = program.for_sites("backtest", list(panel.site_ids)) or program
    program.check("backtest", panel.num_sites)
    blocks = origins(panel, block, first)
    if not blocks:
        raise ValueError(
            f"backtest: panel must have a period to test after the first ones, got "
            f"{panel.num_times} periods in all. Give more periods, or a smaller first."
        )
    every: dict[str, Any] = {
        "last period": baseline(baselines.last_period),
        "mean of all": baseline(baselines.historical_mean),
        "chance": baseline(baselines.chance),
        **(methods or {}),
    }
    rows = []
    for name, method in every.items():
        prepared = method if callable(method) else of_ranker(method)
        fitted: Fitted | None = None
        for start, stop in blocks:
            began = time.perf_counter()
            if fitted is None or refit:
                fitted = prepared(panel.split(test=panel.times[start])[0])
            test = panel.select_times(panel.times[start:stop])
            figures = judge(fitted(test), test, program)
            seconds = time.perf_counter() - began
            for i, period in enumerate(test.times):
                row = {"method": name, "time": period, "seconds": seconds}
                rows.append(row | {figure: values[i] for figure, values in figures.items()})
    return pd.DataFrame(rows)


def baseline(forecast: Callable[[Panel], Tensor]) -> Method:
    """A method that learns nothing: it forecasts from the counts before each period."""
    return lambda train: forecast


def of_ranker(ranker: Any) -> Method:
    """A method from a ranker that is not fitted; a copy of it is fitted each time."""
    if not (hasattr(ranker, "fit") and hasattr(ranker, "site_scores")):
        raise TypeError(
            "backtest: a method must be a function of the training panel, or have fit and "
            f"site_scores, got {type(ranker).__name__}."
        )

    def method(train: Panel) -> Fitted:
        fitted = copy.deepcopy(ranker)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Standardizer.fit: dropped")
            fitted.fit(train)

        def forecast(test: Panel) -> Forecast:
            made = {"scores": torch.as_tensor(np.asarray(fitted.site_scores(test)))}
            if fitted.model_.is_probabilistic:
                made["mean"] = torch.as_tensor(np.asarray(fitted.predict(test)))
            return made

        return forecast

    return method


def compare(
    table: pd.DataFrame, method: str, reference: str, *, figure: str = "bpr", seed: int = 0
) -> pd.DataFrame:
    """Mean of a figure by method, and its difference to a reference with intervals.

    Args:
        table: what `backtest` returns.
        method: the method chosen before the backtest: its interval is for one comparison. The
            intervals of all other methods hold simultaneously, so that the best of them does not
            look better by mere chance.
        reference: the method to compare with.
        figure: "bpr", or another column.

    Returns:
        A row for each method, the highest mean first: the figure, "difference", "low" and "high".

    Raises:
        ValueError: no such method or figure.
    """
    if figure not in table.columns:
        raise ValueError(f"compare: figure must be a column of table, got {figure!r}.")
    wide = table.pivot(index="time", columns="method", values=figure)
    for name in (method, reference):
        if name not in wide.columns:
            raise ValueError(
                f"compare: method must be one of {', '.join(wide.columns)}, got {name!r}."
            )
    differences = {
        name: (wide[name] - wide[reference]).to_numpy() for name in wide if name != reference
    }
    found = simultaneous_intervals(
        {name: values for name, values in differences.items() if name != method}, seed=seed
    )
    if method != reference:
        found[method] = paired_interval(differences[method], seed=seed)
    rows = {name: {figure: wide[name].mean()} for name in wide}
    for name, interval in found.items():
        rows[name] |= {"difference": interval.mean, "low": interval.low, "high": interval.high}
    rows[reference] |= {"difference": 0.0, "low": 0.0, "high": 0.0}
    frame = pd.DataFrame(rows).T.rename_axis("method")
    return frame.sort_values(figure, ascending=False)
