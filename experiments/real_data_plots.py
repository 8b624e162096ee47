"""The figures of real_data: BPR against likelihood and error [2025 paper, Fig. 3], reach against K,
and a map of the chosen sites."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from topreach import Panel, topk_mask
from topreach.evaluation import metrics

from .context import Context
from .forecasters import site_places

_COLOURS = {
    "nll": "#0072B2",
    "daml": "#D55E00",
    "bpr": "#009E73",
    "pg": "#CC79A7",
    "spo": "#E69F00",
    "glm": "#56B4E9",
    "trees": "#56B4E9",
    "graph": "#56B4E9",
    "default": "#000000",
}
_MARKS = {"code": "o", "exact": "s", "glm": "^", "trees": "v", "graph": "<", "default": "*"}
_GREY = "#767676"


def plot_study(
    context: Context,
    rows: Mapping[str, Mapping[str, Any]],
    labels: Mapping[str, str],
    panel: Panel,
    title: str,
    prefix: str,
    *,
    k: int,
    place: tuple[str, str],
    unit: str,
) -> None:
    """Write the figures of a study, with names that begin with `prefix`.

    rows, labels: the rows of `real_data` and their labels, by key. panel: the test panel.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.5, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _frontier(left, rows, labels, lambda row: -row["nll"], "log-likelihood per site and period", -1)
    _frontier(right, rows, labels, lambda row: row["mae"], "mean absolute error, least on top", 1)
    right.invert_yaxis()
    handles = dict(zip(*reversed(left.get_legend_handles_labels()), strict=True))
    handles = dict(zip(*reversed(right.get_legend_handles_labels()), strict=True)) | handles
    right.legend(
        handles.values(),
        handles.keys(),
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize="small",
    )
    figure.suptitle(f"{title}: test periods, K = {k}", x=0.01, ha="left", fontsize="medium")
    context.figure(figure, f"{prefix}frontier")

    shown = ("default", "exact.daml", "exact.nll", "exact.bpr", "average", "last")
    scores = {labels[key]: rows[key]["scores"] for key in shown}
    context.figure(reach_figure(scores, panel, k, title), f"{prefix}reach")

    if set(place) <= set(panel.feature_names):
        maps = {labels[key]: rows[key]["scores"] for key in ("average", "exact.daml", "default")}
        figure = map_figure(maps, panel, k, place, unit, title)
        context.figure(figure, f"{prefix}map")


def _frontier(
    axes: Any,
    rows: Mapping[str, Mapping[str, Any]],
    labels: Mapping[str, str],
    value: Callable[[Mapping[str, Any]], float],
    label: str,
    worse: int,
) -> None:
    """Plots BPR against a quantity. A larger `worse` × quantity is worse. Points that are far off
    are drawn at the edge, with their number."""
    points = {
        key: (row["bpr"], value(row))
        for key, row in rows.items()
        if key.partition(".")[0] in _MARKS
        and not key.endswith(".daml")
        and math.isfinite(value(row))
    }
    centre = points["exact.nll"][1]
    edge = centre + worse * abs(centre)
    for key in ("last", "average"):
        axes.axvline(rows[key]["bpr"], color="#CCCCCC", linewidth=1, zorder=0)
        axes.annotate(
            labels[key],
            (rows[key]["bpr"], 1.0),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            color=_GREY,
            fontsize="x-small",
        )
    for form in ("code", "exact"):
        path = sorted(
            (reach, min(y, edge) if worse > 0 else max(y, edge))
            for key, (reach, y) in points.items()
            if key.startswith(f"{form}.daml.")
        )
        if path:
            reach, y = zip(*path, strict=True)
            axes.plot(reach, y, color=_COLOURS["daml"], linewidth=0.8, alpha=0.5, zorder=1)
    named = set()
    for key, (reach, y) in points.items():
        form, _, method = key.partition(".")
        method, _, level = method.partition(".")
        colour = _COLOURS[method or form]
        name = labels.get(f"{form}.{method}", labels.get(key))
        name = name.replace(", ε chosen", ", five ε")
        far = worse * (y - edge) > 0
        shown = edge if far else y
        axes.plot(
            [rows[key]["bpr_low"], rows[key]["bpr_high"]], [shown] * 2, color=colour, linewidth=0.8
        )
        axes.plot(
            reach,
            shown,
            _MARKS[form],
            color=colour,
            markerfacecolor="white" if form == "code" else colour,
            markersize=10 if form == "default" else 6,
            linestyle="none",
            label=None if name in named else name,
        )
        named.add(name)
        if far or level == "1":
            axes.annotate(
                f"{y:.3g}" if far else "ε = 1",
                (reach, shown),
                (4, 4),
                textcoords="offset points",
                fontsize="xx-small",
                rotation=60 if far else 0,
                color=colour,
            )
    axes.margins(y=0.08)
    axes.set_xlabel("BPR, share of the best possible reach")
    axes.set_ylabel(label)
    axes.spines[["top", "right"]].set_visible(False)


def reach_figure(scores: Mapping[str, Any], panel: Panel, k: int, title: str) -> Any:
    """Reach against K, as capture and as BPR, of scores [T, S] by name."""
    from matplotlib.figure import Figure

    from topreach.report import plot_reach, reach_curve

    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    y, limit = panel.y.numpy(), min(3 * k, panel.num_sites)
    curves = {name: reach_curve(table, y, limit) for name, table in scores.items()}
    plot_reach(curves, y, k=k, ax=left).get_legend().remove()
    plot_reach(curves, k=k, value="bpr", ax=right)
    # The first few sites are chance: the axis is for the rest.
    rest = [float(min(line.get_ydata()[k // 5 :], default=1)) for line in right.get_lines()]
    right.set_ylim(bottom=max(0.0, min(rest) - 0.1))
    figure.suptitle(f"{title}: test periods", x=0.01, ha="left", fontsize="medium")
    return figure


def map_figure(
    scores: Mapping[str, Any], panel: Panel, k: int, place: tuple[str, str], unit: str, title: str
) -> Any:
    """Maps of the last period: the K sites that the scores [T, S] choose, and what they miss."""
    from matplotlib.figure import Figure

    latitude, longitude = site_places(panel, place).double().unbind(-1)
    y = panel.y[-1]
    top = topk_mask(y, k).bool()
    size = 8 + 80 * y / y.max().clamp_min(1)
    tall = (latitude.max() - latitude.min()) / (
        (longitude.max() - longitude.min()) * math.cos(math.radians(latitude.mean()))
    )
    tall = float(tall)
    # Maps of wide regions are stacked; maps of tall regions are placed side by side.
    shape = (len(scores), 1) if tall < 0.65 else (1, len(scores))
    width = 6.8 if tall < 0.65 else 4.0
    figure = Figure(
        figsize=(width * shape[1], (width * tall + 0.8) * shape[0] + 0.6), layout="constrained"
    )
    for axes, (name, table) in zip(figure.subplots(*shape), scores.items(), strict=True):
        last = torch.tensor(table)[-1]
        picked = topk_mask(last, k).bool()
        axes.scatter(longitude, latitude, s=3, color="#D8D8D8", linewidths=0)
        for sites, colour, face, label in (
            (top & ~picked, "#D55E00", "none", "among the best, missed"),
            (picked & ~top, "#0072B2", "none", "chosen, not among the best"),
            (picked & top, "#009E73", "#009E73", "chosen and among the best"),
        ):
            axes.scatter(
                longitude[sites],
                latitude[sites],
                s=size[sites],
                edgecolors=colour,
                facecolors=face,
                linewidths=0.9,
                label=f"{label}: {int(sites.sum())}",
            )
        axes.set_title(f"{name}: BPR {metrics.bpr(last, y, k):.3f}", loc="left", fontsize="small")
        axes.set_aspect(1 / math.cos(math.radians(latitude.mean())))
        axes.set_axis_off()
        axes.legend(
            loc="upper left",
            bbox_to_anchor=(0, 0),
            ncols=1 if tall >= 0.65 else 3,
            frameon=False,
            fontsize="x-small",
            handletextpad=0.2,
            columnspacing=1,
            markerscale=0.8,
        )
    figure.suptitle(
        f"{title}\n{k} sites for period {panel.times[-1]}; size by {unit}, up to {int(y.max())}",
        x=0.01,
        ha="left",
        fontsize="medium",
    )
    return figure
