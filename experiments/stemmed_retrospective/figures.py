"""The plots of stemmed_retrospective."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#999999")


def network_plot(
    networks: dict[str, np.ndarray], places: list[str], types: list[str], title: str
) -> Any:
    """Excitation of each node (row) by each node (column) at two dates, on one log scale."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6.4), layout="constrained")
    axes = figure.subplots(1, len(networks), sharey=True)
    top = max(float(a.max()) for a in networks.values())
    norm = LogNorm(top * 1e-4, top)
    size = len(types)
    middle = np.arange(len(places)) * size + (size - 1) / 2
    for axis, (date, a) in zip(axes, networks.items(), strict=True):
        image = axis.imshow(np.maximum(a, top * 1e-4), norm=norm, cmap="cividis")
        for line in np.arange(1, len(places)) * size - 0.5:
            axis.axhline(line, color="white", lw=0.6)
            axis.axvline(line, color="white", lw=0.6)
        axis.set_xticks(middle, places, rotation=45, ha="right")
        axis.set_yticks(middle, places)
        axis.set(title=date, xlabel="source")
    axes[0].set_ylabel("receiver")
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("added at once to the receiver's rate a day")
    order = ", ".join(types)
    figure.suptitle(f"{title}: excitation. Within a place: {order}", fontsize=11)
    return figure


def share_plot(shares: dict[str, pd.DataFrame], title: str) -> Any:
    """The share of events that others triggered, by place and year, with 90 % bands of the
    last one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.4), layout="constrained")
    axes = figure.subplots(1, len(shares), sharey=True)
    for axis, (name, table) in zip(axes, shares.items(), strict=True):
        for i, (place, part) in enumerate(table.groupby("place", sort=False)):
            year = part["period"].astype(int).to_numpy()
            colour = COLOURS[i % len(COLOURS)]
            axis.plot(year, part["share"], color=colour, marker="o", ms=3, label=place)
            # Only the bands of the last year: those of all years would overlap.
            last = part.iloc[-1]
            ends = [[last["share"] - last["lower"]], [last["upper"] - last["share"]]]
            at = year[-1] + 0.35 + 0.2 * i
            axis.errorbar([at], [last["share"]], yerr=np.maximum(ends, 0), color=colour, lw=1.5)
        axis.set(title=f"{name} settings", xlabel="year", ylim=(0, 1))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("share of events that others triggered")
    axes[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(f"{title}. Bars: 90 % bands of the last year")
    return figure
