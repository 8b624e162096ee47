"""Nine sites whose distributions are known: ranking by the mean against the ratio ranking [D25,
App. B.2]."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import topreach as tr

from ..context import Context

TITLE = "Mean against ratio ranking of nine known sites (2025 paper, Appendix B.2)"

COUNT = torch.tensor([7.0] * 3 + [10.0] * 3 + [80.0] * 3, dtype=torch.float64)  # types A, B, C
CHANCE = torch.tensor([1.0] * 3 + [0.65] * 3 + [0.1] * 3, dtype=torch.float64)
SITES = [f"{kind}{number}" for kind, number in zip("AAABBBCCC", range(1, 10), strict=True)]
PAPER = {"mean": {1: 0.107, 3: 0.231, 6: 0.636}, "ratio": {1: 0.538, 3: 0.625, 6: 0.810}}
METHODS = {
    "mean": "mean of draws",
    "ratio": "ratio over draws",
    "exact": "ratio, exact",
    "best": "best fixed choice",
}


def outcomes() -> tuple[Tensor, Tensor]:
    """All 64 possible outcomes [64, 9] and their probabilities [64]."""
    on = torch.cartesian_prod(*[torch.ones(1)] * 3, *[torch.arange(2.0)] * 6).double()
    return on * COUNT, torch.where(on > 0, CHANCE, 1 - CHANCE).prod(-1)


def expected_bpr(chosen: Tensor, k: int) -> Tensor:
    """E[BPR] of choosing sites by the mask [..., 9], over all outcomes."""
    y, probability = outcomes()
    reach = chosen.double() @ y.T / y.topk(k, dim=-1).values.sum(-1)
    return reach @ probability


def simulate(seed: int, trials: int, draws: int) -> dict[str, Any]:
    """BPR by method and K over trials. Every trial estimates its rankings from `draws` new draws of
    the model, and has its own outcome. There are only 64 possible outcomes, so the draws of a trial
    are one multinomial draw."""
    rng = np.random.default_rng(seed)
    y, probability = outcomes()
    share = torch.stack([tr.ratio_ranking(outcome[None]) for outcome in y])
    weight = torch.from_numpy(rng.multinomial(draws, probability.numpy(), trials)).double() / draws
    met = y[torch.from_numpy(rng.choice(len(y), trials, p=probability.numpy()))]
    rankings = {
        "mean": weight @ y,
        "ratio": weight @ share,
        "exact": (probability @ share).round(decimals=12).expand(trials, 9),  # equal sites tie
    }
    found: dict[str, Any] = {}
    for name, ranking in rankings.items():
        values = {k: tr.metrics.bpr(ranking, met, k, reduce="none") for k in range(1, 10)}
        found[name] = {
            "bpr": [v.mean().item() for v in values.values()],
            "error": [v.std().item() / trials**0.5 for v in values.values()],
            "top_3": tr.topk_mask(ranking, 3).mean(0).tolist(),
        }
    return found


def exact() -> dict[str, Any]:
    """E[BPR] by enumeration, for the rankings and for the best choice of K of the nine sites."""
    y, probability = outcomes()
    share = torch.stack([tr.ratio_ranking(outcome[None]) for outcome in y])
    rankings = {"mean": CHANCE * COUNT, "ratio": probability @ share}
    found: dict[str, Any] = {
        name: [
            expected_bpr(tr.topk_mask(ranking.round(decimals=9), k), k).item() for k in range(1, 10)
        ]
        for name, ranking in rankings.items()
    }
    masks = torch.cartesian_prod(*[torch.arange(2.0)] * 9)
    found["best"] = [expected_bpr(masks[masks.sum(-1) == k], k).max().item() for k in range(1, 10)]
    found["scores"] = {name: ranking.tolist() for name, ranking in rankings.items()}
    return found


def run(context: Context) -> None:
    trials, draws = (10_000, 50_000)
    cells = context.cells(
        {"enumerated": exact, "trials": lambda: simulate(context.seed, trials, draws)},
        {"trials": trials, "draws": draws},
    )
    known, found = cells["enumerated"], cells["trials"]

    rows = []
    for name in ("mean", "ratio", "exact", "best"):
        true = known["ratio" if name == "exact" else name]
        for k in (1, 3, 6):
            rows.append(
                {
                    "ranking": METHODS[name],
                    "K": k,
                    "BPR": found[name]["bpr"][k - 1] if name in found else None,
                    "standard error": found[name]["error"][k - 1] if name in found else None,
                    "enumerated": true[k - 1],
                    "paper": PAPER.get(name, {}).get(k),
                }
            )
    frame = pd.DataFrame(rows).set_index(["ranking", "K"])
    context.table(frame, title=f"BPR over {trials:,} trials, {draws:,} draws a ranking")
    chosen = pd.DataFrame(
        {METHODS[name]: found[name]["top_3"] for name in PAPER}, index=pd.Index(SITES, name="site")
    )
    chosen.insert(0, "mean count", known["scores"]["mean"])
    chosen.insert(1, "expected share", known["scores"]["ratio"])
    context.table(chosen, "top_3", title="Share of trials in which a site is in the top 3")
    context.figure(plot(known, found), "bpr_by_k")


def plot(known: dict[str, Any], found: dict[str, Any]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    ks = np.arange(1, 10)
    axes.plot(ks, known["best"], color="#C8C8C8", lw=7, label="best choice of K sites")
    for name, colour, marker in (("ratio", "#0072B2", "o"), ("mean", "#D55E00", "s")):
        axes.plot(ks, known[name], color=colour, lw=1.5)
        axes.errorbar(
            ks,
            found[name]["bpr"],
            yerr=2 * np.array(found[name]["error"]),
            color=colour,
            marker=marker,
            ls="none",
            label=f"{name} ranking",
        )
        axes.plot(
            list(PAPER[name]),
            list(PAPER[name].values()),
            color="black",
            marker="x",
            ms=9,
            ls="none",
            label="paper" if name == "ratio" else None,
        )
    axes.set(xlabel="K, sites chosen of nine", ylabel="BPR", ylim=(0, 1.03), xticks=ks)
    axes.set_title("Lines: enumerated; markers: 10,000 trials (± 2 standard errors)", fontsize=10)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    return figure
