"""The plot of stemmed_comparison."""

from __future__ import annotations

from typing import Any

import numpy as np

from .scores import BINS, MONTHS

# Okabe and Ito's palette; the other methods are grey.
STYLE = {
    "STEMMED, chosen": ("#D55E00", "o", "-"),
    "STEMMED, paper": ("#E69F00", "s", "--"),
    "ARIMA(1,1,1)": ("#0072B2", "^", "-"),
    "mean of 12 months": ("#009E73", "D", "-"),
    "mean of 3 months": ("#56B4E9", "v", "-"),
    "EmpiricalBayesRates": ("#000000", "*", "-"),
    "hhh4-like": ("#CC79A7", "P", "-"),
}
HISTOGRAMS = ("STEMMED, chosen", "STEMMED, paper", "EmpiricalBayesRates")


def plot(mse: dict[str, np.ndarray], pit: dict[str, np.ndarray], place: str) -> Any:
    """Left: mean squared error by month ahead, mean over origins. Right: PIT histograms."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
    for name, (colour, marker, dashes) in STYLE.items():
        if name not in mse:
            continue
        mean = mse[name].mean(0)
        left.plot(MONTHS, mean, dashes, color=colour, marker=marker, label=name)
    left.set(xlabel="months ahead", ylabel="mean squared error of a node's count", xticks=MONTHS)
    left.set_yscale("log")
    left.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    left.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    left.yaxis.set_minor_locator(NullLocator())
    left.grid(alpha=0.3)
    left.legend(frameon=False, fontsize=8)
    width = 1 / BINS
    at = (np.arange(BINS) + 0.5) * width
    for name in HISTOGRAMS:
        right.step(at, pit[name] * BINS, where="mid", color=STYLE[name][0], label=name)
    right.axhline(1, color="#767676", lw=1, ls=":")
    right.set(xlabel="randomised PIT", ylabel="density", ylim=(0, None))
    right.legend(frameon=False, fontsize=8)
    figure.suptitle(f"{place}: second half of the origins")
    return figure
