"""The plot of stemmed_simulation."""

from __future__ import annotations

from typing import Any

import numpy as np

COLOURS = {100: "#D55E00", 300: "#56B4E9", 1000: "#0072B2"}
SHOWN = (("gamma", 0), ("alpha", 2), ("delta_k", 5))
LABELS = {"gamma": "γ, a month", "alpha": "α, a month", "delta_k": "δ_k, a month"}


def plot(
    laws: dict[int, np.ndarray],
    truth: dict[str, float],
    printed: dict[str, tuple[float, float, float]],
) -> Any:
    """The distribution of maximum-likelihood estimates for one node, by length of the record, and
    the interval that the paper prints for T = 100."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots(1, len(SHOWN))
    for axis, (name, column) in zip(axes, SHOWN, strict=True):
        every = np.concatenate([law[:, column] for law in laws.values()])
        low, high = np.quantile(every, [0.03, 0.97])
        grid = np.linspace(low - 0.3, high + 0.3, 200)
        for months, law in laws.items():
            values = law[:, column]
            spread = np.subtract(*np.quantile(values, [0.75, 0.25])) / 1.34
            width = 1.06 * max(min(values.std(), spread), 0.02) * len(values) ** -0.2
            apart = (grid[:, None] - values) / width
            density = np.exp(-0.5 * apart**2).mean(1) / (width * (2 * np.pi) ** 0.5)
            axis.plot(np.exp(grid), density, color=COLOURS[months], label=f"T = {months}")
            axis.fill_between(np.exp(grid), density, color=COLOURS[months], alpha=0.12, lw=0)
        top = axis.get_ylim()[1]
        mean, left, right = printed[name]
        left = max(left, float(np.exp(grid[0])))
        axis.plot([left, right], [1.06 * top] * 2, color="black", lw=2.5, label="printed, T = 100")
        axis.plot(mean, 1.06 * top, "o", color="black")
        axis.axvline(truth[name], color="#767676", ls=":", lw=1.2)
        axis.set(xscale="log", xlabel=LABELS[name], ylim=(0, 1.15 * top), yticks=[])
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axis.xaxis.set_minor_locator(NullLocator())
    axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle("Estimates of one node, N = 1: their law, and the printed interval")
    return figure
