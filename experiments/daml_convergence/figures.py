"""The plot of daml_convergence."""

from __future__ import annotations

from typing import Any

import numpy as np

STYLE = {
    "exact": ("#0072B2", "-", "exact"),
    "mean_field": ("#56B4E9", "--", "mean field"),
    "conditional": ("#009E73", "-", "conditional"),
    "score_loo": ("#E69F00", "-", "score, leave-one-out"),
    "score": ("#D55E00", "-", "score (the papers')"),
}
PANELS = {
    "objective": "training objective above the lowest",
    "valid_bpr": "BPR, validation year",
    "valid_nll": "NLL a site, validation year",
}


def plot(
    runs: dict[str, list[dict[str, list[float]]]],
    seconds: dict[str, float],
    lowest: float,
    place: str,
) -> Any:
    """Columns: the training objective, BPR and NLL of the validation year. Rows: against seconds of
    training, against steps. A line is the mean over seeds, a band their range."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6.8), layout="constrained")
    axes = figure.subplots(2, 3, sharey="col", sharex="row")
    for name, ones in runs.items():
        colour, dashes, label = STYLE[name]
        points = min(len(one["step"]) for one in ones)
        step = np.array(ones[0]["step"][:points], dtype=float)
        for column, quantity in enumerate(PANELS):
            values = np.array([one[quantity][:points] for one in ones])
            if quantity == "objective":
                # The lowest value has excess 0, without a logarithm: its run ends one point early.
                values = np.where(values > lowest, values - lowest, np.nan)
            for line, at in ((0, step * seconds[name]), (1, step)):
                panel, after = axes[line, column], step > 0
                panel.plot(
                    at[after],
                    values.mean(0)[after],
                    color=colour,
                    ls=dashes,
                    lw=1.8,
                    label=label if (line, column) == (0, 0) else None,
                )
                if len(ones) > 1:
                    panel.fill_between(
                        at[after],
                        values.min(0)[after],
                        values.max(0)[after],
                        color=colour,
                        alpha=0.2,
                        lw=0,
                    )
    for column, text in enumerate(PANELS.values()):
        for line, unit in enumerate(("training time, s", "steps")):
            panel = axes[line, column]
            panel.set(xscale="log", xlabel=unit)
            panel.set_title(text, fontsize=10)
            panel.grid(alpha=0.3)
        if column == 0:
            axes[0, 0].set_yscale("log")
    figure.legend(loc="outside lower center", ncols=len(runs), frameon=False)
    figure.suptitle(f"DAML on {place}: gradients without sampling and with J = M = 100 draws")
    return figure
