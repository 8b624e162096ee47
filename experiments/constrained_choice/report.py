"""Tables and the figure of constrained_choice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from topreach.evaluation.intervals import FEWEST, RESAMPLES, Interval, expanded_tail

from .training import BY_RATIO, CHOSEN, MODELS, QUOTA, REPAIRED

COMPARISONS = {f"− {REPAIRED}": (QUOTA, REPAIRED), f"− {CHOSEN}": (QUOTA, CHOSEN)}
FIGURES = {"bpr_c": "BPR_C", "free_bpr": "free BPR", "plain_bpr": "BPR without quota"}
COLOURS = ("#D55E00", "#0072B2")


def interval(differences: np.ndarray, seed: int = 0) -> Interval:
    """The mean of differences [units, seeds] and its 95 % interval, from a bootstrap over units and
    seeds that is widened for few units (`expanded_tail`)."""
    known = differences[np.isfinite(differences).all(1)]
    units, seeds = known.shape
    if units < FEWEST:
        return Interval(float(known.mean()) if units else np.nan, np.nan, np.nan)
    generator = np.random.default_rng(seed)
    rows = generator.integers(units, size=(RESAMPLES, units))
    columns = generator.integers(seeds, size=(RESAMPLES, seeds))
    means = known[rows[:, :, None], columns[:, None, :]].mean((1, 2))
    tail = expanded_tail(units)
    low, high = np.quantile(means, (tail, 1 - tail))
    return Interval(float(known.mean()), float(low), float(high))


def results(figures: dict[str, dict[tuple[str, str], dict[str, np.ndarray]]]) -> pd.DataFrame:
    """Means over periods and seeds, by set, model and arm."""
    rows = []
    for name, found in figures.items():
        for (model, arm), values in found.items():
            row = {"set": name, "model": model, "arm": arm}
            row |= {
                title: float(np.nanmean(values[key])) if key in values else np.nan
                for key, title in FIGURES.items()
            }
            rows.append(row)
    return pd.DataFrame(rows).set_index("set")


def differences(
    figures: dict[str, dict[tuple[str, str], dict[str, np.ndarray]]],
) -> tuple[pd.DataFrame, dict[tuple[str, str, str], Interval]]:
    """BPR_C of training for the quota minus that of the other arms. For a model whose fit does not
    depend on plans: BPR_C of the ranking by the quota's ratio minus that of its own ranking."""
    rows, found = [], {}
    for name, arms in figures.items():
        for model, (_, objective) in MODELS.items():
            pairs = COMPARISONS if objective else {"− its own ranking": (BY_RATIO, REPAIRED)}
            for label, (one, other) in pairs.items():
                apart = arms[model, one]["bpr_c"] - arms[model, other]["bpr_c"]
                made = interval(apart)
                found[name, model, label] = made
                rows.append(
                    {
                        "set": name,
                        "model": model,
                        "difference": f"{one} {label}",
                        "BPR_C": made.mean,
                        "low": made.low,
                        "high": made.high,
                        "units": len(apart),
                        "s.d. of seeds": float(apart.mean(0).std(ddof=1))
                        if apart.shape[1] > 1
                        else np.nan,
                    }
                )
    return pd.DataFrame(rows).set_index("set"), found


def prices(
    cases: dict[str, Any], figures: dict[str, dict[tuple[str, str], dict[str, np.ndarray]]]
) -> pd.DataFrame:
    """What the quota costs, by set."""
    rows = []
    for name, case in cases.items():
        own = figures[name]["default", REPAIRED]
        sizes = case.groups.dropna().value_counts()
        rows.append(
            {
                "set": name,
                "sites": case.panel.num_sites,
                "K": case.k,
                "groups": len(sizes),
                "at least": case.lower,
                "test periods": own["paid"].shape[0],
                "price in hindsight": float(np.nanmean(own["hindsight"])),
                "largest": float(np.nanmax(own["hindsight"])),
                "paid by the default": float(np.nanmean(own["paid"])),
            }
        )
    return pd.DataFrame(rows).set_index("set")


def figure(found: dict[tuple[str, str, str], Interval]) -> Any:
    """Training for the quota minus repairing: mean differences in BPR_C and their intervals."""
    from matplotlib.figure import Figure

    label = f"− {REPAIRED}"
    trained = [model for model, (_, objective) in MODELS.items() if objective]
    names = list(dict.fromkeys(name for name, _, _ in found))
    plot = Figure(figsize=(8, 0.8 + 0.5 * len(names)), layout="constrained")
    axes = plot.subplots()
    for i, model in enumerate(trained):
        made = [found[name, model, label] for name in names]
        mean = np.array([one.mean for one in made])
        low, high = (np.array([getattr(one, side) for one in made]) for side in ("low", "high"))
        at = np.arange(len(names)) + 0.15 * (2 * i - len(trained) + 1)
        bars = np.nan_to_num(np.stack([mean - low, high - mean])).clip(0)
        axes.errorbar(mean, at, xerr=bars, fmt="o", color=COLOURS[i], label=model, capsize=3)
    axes.axvline(0, color="#767676", lw=1, ls=":")
    axes.set(
        xlabel="BPR_C: trained for the quota less repaired",
        yticks=range(len(names)),
        yticklabels=names,
    )
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return plot
