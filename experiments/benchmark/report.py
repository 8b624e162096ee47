"""The tables and the figure of the benchmark, from the stored figures of each method and period."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Periods of the historical averages; None is the whole past.
WINDOWS = (1, 2, 3, 5, 10, 20, 40, None)
CHOSEN, HINDSIGHT = "average, chosen before", "average, best in hindsight"
RESAMPLES = 10_000


def average_name(window: int | None) -> str:
    return "mean of all" if window is None else "last" if window == 1 else f"mean of last {window}"


def comparison(results: list[dict[str, Any]], seed: int) -> pd.DataFrame:
    """A row per method: figures over all test periods, and the difference of BPR to two averages.

    "average, chosen before" takes, for each test block, the window whose BPR was best over the test
    blocks before (the whole past for the first); "average, best in hindsight" the one window that was
    best over all. Intervals: 95 %, paired bootstrap over test periods, expanded for few of them.
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
            difference, low, high = _difference(periods[method], periods[reference], order, seed)
            rows[method] |= {
                f"− {name}": difference,
                f"low, {name}": low,
                f"high, {name}": high,
            }
    table = pd.DataFrame(rows).T.rename_axis("method").sort_values("BPR", ascending=False)
    table.attrs |= {"tested": len(order), "hindsight": hindsight}
    return table


def _difference(
    ours: dict[str, dict[str, Any]], theirs: dict[str, dict[str, Any]], order: list[str], seed: int
) -> tuple[float, float, float]:
    """Mean difference of BPR over periods, and its interval; NaN for under three periods."""
    delta = np.array(
        [ours[p]["bpr"] - theirs[p]["bpr"] for p in order if ours[p]["bpr"] is not None]
    )
    if len(delta) < 3:
        return float(delta.mean()) if len(delta) else np.nan, np.nan, np.nan
    rng = np.random.default_rng(seed)
    draws = delta[rng.integers(len(delta), size=(RESAMPLES, len(delta)))].mean(1)
    tail = expanded_tail(len(delta))
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(delta.mean()), float(low), float(high)


def expanded_tail(n: int) -> float:
    """Tail of the bootstrap's distribution to cut off for a 95 % interval from n values, so that for
    normal values it is as wide as Student's: Φ(−√(n / (n − 1)) t_{n−1}) [Hesterberg 2015, The American
    Statistician 69:371]. Student's quantile by its series in 1 / (n − 1), to 2 % from n = 3 on."""
    normal = NormalDist()
    z, v = normal.inv_cdf(0.975), n - 1
    t = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    return normal.cdf(-math.sqrt(n / v) * t)


def verdict(table: pd.DataFrame) -> str:
    """One sentence: the method that did best, and whether by more than chance."""
    rivals = table.drop(index=[CHOSEN, "chance"], errors="ignore")
    best = rivals.index[0]
    row = rivals.iloc[0]
    sure = "more than" if row["low, chosen"] > 0 else "no more than"
    return (
        f"Best: {best}, BPR {row['BPR']:.3f}; {row['− chosen']:+.3f} [{row['low, chosen']:+.3f}, "
        f"{row['high, chosen']:+.3f}] to the historical average that one would have chosen, which is "
        f"{sure} chance explains."
    )


def figure(tables: dict[str, pd.DataFrame]) -> Figure:
    """Differences of BPR to the average chosen before, with intervals, a panel per set."""
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
