"""The study's plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette, and a marker for readers who cannot tell the colours apart.
STYLE = {
    "score": ("#D55E00", "o", "score (the papers')"),
    "score_loo": ("#E69F00", "s", "score_loo"),
    "conditional": ("#0072B2", "D", "conditional"),
    "mean_field": ("#009E73", "^", "mean_field"),
    "exact": ("#000000", "*", "exact"),
    "diagonal": ("#CC79A7", "^", "diagonal (published code)"),
    "go": ("#0072B2", "D", "go"),
}
GREY = "#767676"


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _panels(sites: list[int]) -> tuple[Figure, list]:
    figure = _figure(2.7 * len(sites) + 0.6, 3.6)
    axes = figure.subplots(1, len(sites), sharey=True, squeeze=False)[0]
    for axis in axes:
        axis.grid(True, color="#dddddd", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes)


def _cosines(axis, rows: pd.DataFrame, count: str) -> None:
    """Mean cosine, with a band of one standard deviation, against the number of draws."""
    for name, part in rows.groupby("estimator", sort=False):
        colour, marker, label = STYLE[name]
        if part[count].isna().all():
            # mean_field and exact often coincide: draw a broad line under a dashed one.
            style = {"lw": 4, "alpha": 0.35} if name == "exact" else {"lw": 1.5, "ls": "--"}
            axis.axhline(part["cosine"].iloc[0], color=colour, label=f"{label} (no draws)", **style)
            continue
        axis.fill_between(
            part[count],
            part["cosine"] - part["cosine_sd"],
            part["cosine"] + part["cosine_sd"],
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
        axis.plot(part[count], part["cosine"], color=colour, marker=marker, ms=5, label=label)
    axis.set_xscale("log")
    axis.set_ylim(-0.12, 1.06)


def topk_cosine(quality: pd.DataFrame, main: dict[int, tuple[int, float]]) -> Figure:
    """A panel for each S, at its first K and the papers' sigma."""
    figure, axes = _panels(list(main))
    for axis, (sites, (k, sigma)) in zip(axes, main.items(), strict=True):
        rows = quality[(quality.sites == sites) & (quality.k == k) & (quality.sigma == sigma)]
        _cosines(axis, rows, "draws")
        axis.set_title(f"S = {sites:,}, K = {k}, σ = {sigma:.2g}", fontsize=10)
        axis.set_xlabel("draws J")
    axes[0].set_ylabel("cosine to the exact gradient")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False
    )
    figure.suptitle("Top-K: direction of one gradient, mean and standard deviation")
    return figure


def ranking_cosine(rankings: pd.DataFrame) -> Figure:
    """A panel for each S."""
    figure, axes = _panels(sorted(rankings.sites.unique()))
    for axis, (sites, rows) in zip(axes, rankings.groupby("sites"), strict=True):
        _cosines(axis, rows, "samples")
        axis.set_title(f"S = {sites:,}", fontsize=10)
        axis.set_xlabel("samples M")
    axes[0].set_ylabel("cosine to the exact gradient")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False
    )
    figure.suptitle("Ratio ranking of NegBin counts: direction of one gradient")
    return figure


def time_to_cosine(times: pd.DataFrame, main: dict[int, tuple[int, float]]) -> Figure:
    """Time against S; hollow markers are extrapolated."""
    figure = _figure(6.4, 4.2)
    axis = figure.subplots()
    axis.grid(True, color="#dddddd", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    chosen = pd.concat(
        times[(times.sites == s) & (times.k == k) & (times.sigma == sigma)]
        for s, (k, sigma) in main.items()
    )
    for name, part in chosen.groupby("estimator", sort=False):
        part = part[part["milliseconds"].notna()]
        if part.empty:
            continue
        colour, marker, label = STYLE[name]
        axis.plot(part.sites, part.milliseconds / 1e3, color=colour, label=label)
        for made, fill in ((True, colour), (False, "white")):
            some = part[(part.how == "measured") == made]
            axis.plot(
                some.sites,
                some.milliseconds / 1e3,
                linestyle="",
                marker=marker,
                ms=8 if marker == "*" else 6,
                color=colour,
                markerfacecolor=fill,
            )
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(list(main), [f"{s:,}" for s in main])
    axis.minorticks_off()
    axis.set_xlabel("sites S")
    axis.set_ylabel("seconds (10 rows, forward + backward)")
    axis.set_title("Top-K: time to a gradient of cosine .99", fontsize=11)
    axis.legend(frameon=False, fontsize=9)
    axis.text(
        0.99, 0.01, "hollow: extrapolated from the variance", transform=axis.transAxes,
        ha="right", va="bottom", fontsize=8, color=GREY,
    )  # fmt: skip
    return figure


def peers(rivals: pd.DataFrame) -> Figure:
    """Cosine, and time beside that of this library's corresponding operator, at the largest S."""
    sites = rivals.sites.max()
    rows = rivals[rivals.sites == sites].iloc[::-1].reset_index(drop=True)
    figure = _figure(9.0, 0.5 * len(rows) + 1.9)
    left, right = figure.subplots(1, 2, sharey=True)
    for axis in (left, right):
        axis.grid(True, axis="x", color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    left.barh(rows.index, rows.cosine, color="#56B4E9", height=0.5, label="the package")
    if "best_cosine" in rows:
        left.plot(rows.best_cosine, rows.index, "|", color="black", ms=16, label="best temperature")
    left.set_yticks(rows.index, [f"{r.method}\n(here: {r.like})" for r in rows.itertuples()])
    left.set_xlim(min(0, rows.cosine.min()), 1)
    left.set_xlabel("cosine to the exact gradient")
    for row in rows.itertuples():
        ends = [row.topreach_milliseconds, row.milliseconds]
        right.plot(ends, [row.Index] * 2, color=GREY, lw=1)
    right.plot(rows.milliseconds, rows.index, "o", color="#56B4E9")
    right.plot(
        rows.topreach_milliseconds, rows.index, "D", color="black", label="topreach, the same task"
    )
    right.set_xscale("log")
    right.set_ylim(-0.6, len(rows) - 0.4)
    right.set_xlabel("ms: forward + backward, one row")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(f"Other packages, S = {sites:,}, K = {rows.k[0]}, σ = {rows.sigma[0]:.2g}")
    return figure
