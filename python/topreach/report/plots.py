"""Plots of a model's reach and of its training. Every function takes `ax=None` and returns the
axes.

Needs matplotlib: `pip install 'topreach[plot]'`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, whose colours differ under the common kinds of colour blindness. Dashes
# distinguish the lines without colour.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_DASHES = ("-", "-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)), "--")
_GREY = "#767676"


def reach_curve(scores: Any, counts: Any, max_k: int | None = None) -> pd.DataFrame:
    """The reach of the top K sites, for every K from 1.

    Args:
        scores: ranking [T, S] or [S], more is better.
        counts: counts y, of the same shape.
        max_k: largest K; None for S.

    Returns:
        DataFrame indexed by k with the columns `capture` (share of all events that fall in the top
        K) and `bpr` (events in the top K over those in the best K sites), means over periods with
        events. Tied scores count in expectation under random order.
    """
    scores, counts = (np.atleast_2d(np.asarray(a, dtype=float)) for a in (scores, counts))
    if scores.shape != counts.shape or scores.ndim != 2:
        raise ValueError(
            f"reach_curve: counts must have the shape of scores, got {counts.shape} and "
            f"{scores.shape}."
        )
    if np.isnan(scores).any() or not np.isfinite(counts).all():
        raise ValueError(
            "reach_curve: scores and counts must be numbers, got NaN or infinity among them."
        )
    sites = scores.shape[1]
    max_k = sites if max_k is None else max_k
    if (
        isinstance(max_k, bool)
        or not isinstance(max_k, int | np.integer)
        or not 1 <= max_k <= sites
    ):
        raise ValueError(
            f"reach_curve: max_k must be a whole number from 1 to S = {sites}, got {max_k!r}."
        )
    rows = counts.sum(axis=1) > 0
    if not rows.any():
        raise ValueError("reach_curve: counts must have an event in at least one period, got none.")
    capture, bpr = [], []
    for score, count in zip(scores[rows], counts[rows], strict=True):
        # In expectation, each of a group of tied sites holds the group's mean count.
        _, group = np.unique(-score, return_inverse=True)
        mean = np.bincount(group, weights=count) / np.bincount(group)
        reached = np.cumsum(mean[np.sort(group)])[:max_k]
        best = np.cumsum(np.sort(count)[::-1])[:max_k]
        capture.append(reached / count.sum())
        bpr.append(reached / best)
    index = pd.RangeIndex(1, max_k + 1, name="k")
    return pd.DataFrame(
        {"capture": np.mean(capture, axis=0), "bpr": np.mean(bpr, axis=0)}, index=index
    )


def plot_reach(
    curves: Mapping[str, Any],
    counts: Any = None,
    *,
    k: int | None = None,
    max_k: int | None = None,
    value: str = "capture",
    ax: Axes | None = None,
) -> Axes:
    """Reach against K, a line for each method.

    Args:
        curves: by the method's name, a table of `reach_curve`, or scores [T, S] if `counts` is
            given.
        counts: counts y [T, S]; adds the best possible line to value "capture".
        k: K in use, marked by a vertical line.
        max_k: largest K shown; None: three times `k`, else all.
        value: "capture", the share of all events that fall in the top K sites, or "bpr", their
            events over those of the best K sites.
        ax: axes to draw on; None makes a figure.

    Example:
        >>> ax = plot_reach({"model": ranker.site_scores(test)}, test.y, k=100)
        >>> ax.figure.savefig("reach.png")
    """
    if value not in ("capture", "bpr"):
        raise ValueError(f"plot_reach: value must be 'capture' or 'bpr', got {value!r}.")
    if not curves:
        raise ValueError("plot_reach: curves must hold at least one method, got none.")
    tables = {}
    for name, curve in curves.items():
        if not isinstance(curve, pd.DataFrame):
            if counts is None:
                raise ValueError(
                    f"plot_reach: curves must be tables of reach_curve where counts is None, got "
                    f"{type(curve).__name__} for {name!r}."
                )
            curve = reach_curve(curve, counts)
        tables[name] = curve
    longest = max(table.index[-1] for table in tables.values())
    limit = min(longest, max_k or (3 * k if k else longest))
    ax = new_axes(ax, (7.2, 4.4))
    if value == "capture" and counts is not None:
        best = reach_curve(counts, counts)["capture"].loc[:limit]
        ax.plot(best.index, best, color=_GREY, linewidth=1.2, linestyle=(0, (2, 2)))
        at = max(1, round(0.6 * limit))
        ax.annotate(
            "best possible",
            (at, best.loc[at]),
            (-4, 3),
            textcoords="offset points",
            ha="right",
            va="bottom",
            color=_GREY,
            fontsize="small",
        )
    if k is not None and k <= limit:
        ax.axvline(k, color=_GREY, linewidth=0.8, zorder=0)
        ax.annotate(
            f"K = {k}",
            (k, 1),
            (3, -3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="left",
            va="top",
            color=_GREY,
            fontsize="small",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    for i, (name, table) in enumerate(tables.items()):
        line = table[value].loc[:limit]
        style: dict[str, Any] = {
            "color": _COLOURS[i % len(_COLOURS)],
            "linestyle": _DASHES[i % len(_DASHES)],
            "linewidth": 1.8,
        }
        ax.plot(line.index, line, label=name, **style)
    ax.set_xlim(0, limit)
    ax.set_ylim(0, None if value == "capture" else 1.02)
    ax.yaxis.set_major_formatter(lambda v, _: f"{100 * v:.0f} %")
    ax.set_xlabel("K, sites acted on")
    ax.set_ylabel(
        "share of all events reached" if value == "capture" else "share of the best possible reach"
    )
    from matplotlib.lines import Line2D  # here: `new_axes` says what to install

    # The legend is outside the axes, so that it covers no line.
    handles, labels = ax.get_legend_handles_labels()
    # The axes may hold other things than lines, if they are the caller's.
    last = [
        float(np.asarray(h.get_ydata())[-1]) if isinstance(h, Line2D) else -np.inf for h in handles
    ]
    order = sorted(range(len(handles)), key=lambda i: -last[i])
    ax.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
    )
    tidy_axes(ax)
    return ax


def plot_history(
    history: pd.DataFrame, *, metric: str | None = None, ax: Axes | None = None
) -> Axes:
    """A quantity of training against the epoch.

    Args:
        history: `history_` of a `Trainer` or a `TopKRanker`.
        metric: "loss", a term of the objective ("nll", "hinge"), or a validation metric without its
            prefix ("bpr"); None: "bpr" if it was measured, else "loss". If the training and the
            validation panel both have it, both lines are drawn.
        ax: axes to draw on; None makes a figure.
    """
    if len(history) == 0:
        raise ValueError("plot_history: history must have at least one epoch, got none.")
    if metric is None:
        metric = "bpr" if {"valid_bpr", "train_bpr"} & set(history.columns) else "loss"
    measured = {
        label: history[["epoch", column]].dropna()
        for label, column in (("training", f"train_{metric}"), ("validation", f"valid_{metric}"))
        if column in history and history[column].notna().any()
    }
    if not measured or metric == "loss":  # sums over panels of different length do not compare
        if metric not in history:
            names = sorted(
                {c.removeprefix("train_").removeprefix("valid_") for c in history.columns}
                - {"epoch"}
            )
            raise ValueError(
                f"plot_history: metric must be one of {', '.join(names)}, got {metric!r}."
            )
        measured = {"training": history[["epoch", metric]].dropna()}
    ax = new_axes(ax, (6.4, 4.0))
    for i, (label, table) in enumerate(measured.items()):
        few: dict[str, Any] = {"marker": "o", "markersize": 3} if len(table) <= 60 else {}
        ax.plot(
            table["epoch"], table.iloc[:, 1], label=label, color=_COLOURS[i], linewidth=1.6, **few
        )
    ax.set_xlabel("epoch")
    ax.set_ylabel(
        {"bpr": "share of the best possible reach (BPR)", "nll": "−log likelihood"}.get(
            metric, metric
        )
    )
    if len(measured) > 1:
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    tidy_axes(ax)
    return ax


def new_axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """`ax`, or axes of a new figure of this size in inches. ImportError without matplotlib."""
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "topreach.plots: matplotlib must be installed. Run `pip install 'topreach[plot]'`."
        ) from error
    return plt.subplots(figsize=size, layout="constrained")[1]


def tidy_axes(ax: Axes) -> None:
    """No frame at the top and the right, a light grid."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#E6E6E6", linewidth=0.8)
    ax.set_axisbelow(True)
