"""The tables and the figure of the benchmark, from the stored figures of each method and period."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from topreach.evaluation import Interval, paired_interval, simultaneous_intervals

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Periods of the historical averages; None is the whole past.
WINDOWS = (1, 2, 3, 5, 10, 20, 40, None)
CHOSEN, HINDSIGHT = "average, chosen before", "average, best in hindsight"


def average_name(window: int | None) -> str:
    return "mean of all" if window is None else "last" if window == 1 else f"mean of last {window}"


def comparison(results: list[dict[str, Any]], seed: int) -> pd.DataFrame:
    """A row per method: figures over all test periods, and the difference of BPR to two averages.

    "average, chosen before" takes for each test block the window whose BPR was best over the
    earlier test blocks (for the first block, the whole past). "average, best in hindsight" takes
    the one window that was best over all blocks.

    Intervals: 95 %, from a paired bootstrap over test periods, widened for few periods; each is for
    one comparison. `attrs["simultaneous"]` has, by method, the intervals of the differences to
    "average, chosen before" that hold for all methods at once.
    """
    periods: dict[str, dict[str, dict[str, Any]]] = {}
    blocks: list[list[str]] = []
    for result in results:
        if result["periods"] not in blocks:
            blocks.append(result["periods"])
        for i, period in enumerate(result["periods"]):
            row = {
                name: result[name][i]
                for name in ("bpr", "capture", "pai", "mae", "mae_median", "mse", "nll")
                if name in result
            }
            periods.setdefault(result["method"], {})[period] = row
    order = [period for block in blocks for period in block]
    averages = [m for m in map(average_name, WINDOWS) if m in periods]

    def mean(method: str, name: str, over: list[str]) -> float:
        values = [periods[method][p].get(name) for p in over]
        return float(np.mean([v for v in values if v is not None] or [np.nan]))

    def differences(ours: str, theirs: str) -> list[float]:
        """Differences of BPR by period; NaN if there were no events."""
        pairs = ((periods[ours][p]["bpr"], periods[theirs][p]["bpr"]) for p in order)
        return [math.nan if None in pair else pair[0] - pair[1] for pair in pairs]

    def best(over: list[str]) -> str:
        return max(averages, key=lambda m: np.nan_to_num(mean(m, "bpr", over)))

    chosen: dict[str, dict[str, Any]] = {}
    before: list[str] = []
    for block in blocks:
        method = best(before) if before else average_name(None)
        chosen |= {period: periods[method][period] for period in block}
        before += block
    hindsight = best(order)
    periods[CHOSEN] = chosen
    rows = {}
    for method in periods:
        rows[method] = {
            "BPR": mean(method, "bpr", order),
            "capture": mean(method, "capture", order),
            "PAI": mean(method, "pai", order),
            "MAE": mean(method, "mae", order),
            "MAE, median": mean(method, "mae_median", order),
            "RMSE": mean(method, "mse", order) ** 0.5,
            "log score": -mean(method, "nll", order),
        }
        for reference, name in ((CHOSEN, "chosen"), (hindsight, "hindsight")):
            found = paired_interval(differences(method, reference), seed=seed)
            rows[method] |= {
                f"− {name}": found.mean,
                f"low, {name}": found.low,
                f"high, {name}": found.high,
            }
    table = pd.DataFrame(rows).T.rename_axis("method").sort_values("BPR", ascending=False)
    rivals = [method for method in periods if method not in (CHOSEN, "chance")]
    table.attrs |= {
        "tested": len(order),
        "hindsight": hindsight,
        "simultaneous": simultaneous_intervals(
            {method: differences(method, CHOSEN) for method in rivals}, seed=seed
        ),
    }
    return table


def verdict(table: pd.DataFrame, named: str) -> str:
    """The result of the table, in one or two sentences.

    The first is on the method that was named before the run, with its own interval. The second is
    on the best method. It is selected from many by the same figures, so its interval is the one
    that holds for all methods at once.
    """
    parts = []
    if named in table.index:
        row = table.loc[named]
        interval = Interval(row["− chosen"], row["low, chosen"], row["high, chosen"])
        parts.append(f"{named}: BPR {row['BPR']:.3f}; {interval} to {CHOSEN}{_meaning(interval)}.")
    rivals = table.drop(index=[CHOSEN, "chance", named], errors="ignore")
    if len(rivals):
        best = rivals.index[0]
        interval = table.attrs["simultaneous"][best]
        parts.append(
            f"Best of the {len(rivals)} others: {best}, BPR {rivals.iloc[0]['BPR']:.3f}; {interval}"
            f"{_meaning(interval)}, with the choice among {len(rivals)} allowed for."
        )
    return " ".join(parts)


def _meaning(interval: Interval) -> str:
    if not interval.known:
        return ""
    return {1: ", more than chance explains", -1: ", less than chance explains"}.get(
        interval.sign, ", no more than chance explains"
    )


def figure(tables: dict[str, pd.DataFrame]) -> Figure:
    """Differences of BPR to the average chosen before, with intervals; one panel for each set."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(7, 1.2 + 1.9 * len(tables)), layout="constrained")
    axes = drawn.subplots(len(tables), 1, squeeze=False)[:, 0]
    for ax, (name, table) in zip(axes, tables.items(), strict=True):
        part = table.drop(index=[CHOSEN, "chance"], errors="ignore")
        part = part[~part.index.str.startswith("mean of last")].iloc[::-1]
        x = part["− chosen"]
        error = [x - part["low, chosen"], part["high, chosen"] - x]
        ax.errorbar(x, range(len(part)), xerr=error, fmt="o", capsize=3)
        ax.axvline(0, color="grey", linewidth=1)
        ax.set_yticks(range(len(part)), part.index)
        ax.set_title(name)
    axes[-1].set_xlabel("BPR less that of the historical average chosen before")
    return drawn
