"""Likelihood against BPR for a mixture too small for its data [D25, §5.1, App. D, Fig. 2]."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import topreach as tr
from topreach.models import NormalMixture
from topreach.objectives import NLL, DecisionAware, DirectBPR

from ..context import Context

TITLE = "Likelihood against BPR on synthetic data (2025 paper, Fig. 2)"

MEANS = (10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 100.0)
SPREAD = 0.3
PERIODS, K, COMPONENTS = 500, 5, 2
SIGMAS = (0.01, 0.05)
EPSILONS = (0.5, 0.88, 0.92, 0.96, 1.0)
WEIGHT = 30.0
RATE = 0.1
FORMS = {
    "sampled": {
        "ranking": "ratio",
        "topk": "sampled",
        "estimator": "score",
        "ranking_estimator": "score",
        "num_samples": 500,
        "model_samples": 500,
    },
    "deterministic": {"ranking": "exact", "topk": "exact"},
}


def simulate(seed: int) -> Tensor:
    """Counts [T, S]: normals with means MEANS, rounded to integers."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(PERIODS, len(MEANS), generator=generator, dtype=torch.float64)
    return (torch.tensor(MEANS, dtype=torch.float64) + SPREAD * noise).round().clamp_min(0)


def make_objective(kind: str, form: str, sigma: float, epsilon: float) -> Any:
    if kind == "NLL":
        return NLL()
    if kind == "BPR":
        return DirectBPR(K, sigma, **FORMS[form])
    return DecisionAware(K, sigma, epsilon, WEIGHT, **FORMS[form])


def train(
    y: Tensor, objective: Any, seed: int, starts: int, steps: int, device: torch.device
) -> NormalMixture:
    """Trains all starts together. The starts are a leading dimension and their losses are added, so
    each has its own gradient. The time has length 1, because all periods share one distribution."""
    torch.manual_seed(seed)
    model = NormalMixture(len(MEANS), COMPONENTS, low=8, high=102, batch=(starts,)).double()
    model.to(device)
    batch = tr.Batch(
        None, y.to(device).expand(starts, *y.shape), torch.zeros(1, device=device), None, None
    )
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        key = tr.draw_key(generator).to(device)
        optimizer.zero_grad()
        objective(model, batch, key=key).loss.backward()
        optimizer.step()
    return model


@torch.no_grad()
def evaluate(
    model: NormalMixture, y: Tensor, kind: str, sigma: float, epsilon: float, repeats: int
) -> dict[str, Any]:
    """Results for every start: log-likelihood per period, BPR by the exact ranking, and the
    objective without sampling, by which the best start is chosen. For the best start also: its
    components, and the BPR of `repeats` rankings by 1000 draws each."""
    y = y.to(model.logits.device)
    counts = model(torch.zeros(1, device=y.device))
    likelihood = counts.site_log_prob(y).sum(-1).mean(-1)
    ranking = tr.expected_ratio_ranking(counts).squeeze(-2)
    bpr = tr.metrics.bpr(ranking.unsqueeze(-2).expand(-1, *y.shape), y, K, reduce="none").mean(-1)
    chosen = tr.expected_topk(ranking, K, sigma=sigma)
    soft = (chosen.unsqueeze(-2) * y).sum(-1) / y.topk(K).values.sum(-1)
    loss = {
        "NLL": -likelihood,
        "BPR": -soft.mean(-1),
        "DAML": -likelihood + WEIGHT * (epsilon - soft).clamp_min(0).mean(-1),
    }[kind]
    loss = torch.where(loss.isnan(), math.inf, loss)
    best = int(loss.argmin())

    one = tr.distributions.SiteMixture(  # a row for each of 50 rankings
        counts.logits[best].expand(50, -1, -1),
        tr.distributions.TruncatedNormal(
            counts.components.loc[best], counts.components.scale[best]
        ),
    )
    key = tr.draw_key(torch.Generator().manual_seed(0)).to(y.device)
    rankings = torch.cat(
        [
            tr.ratio_ranking(one.sample(1000, key=key, row_offset=row))
            for row in range(0, repeats, 50)
        ]
    )
    every = rankings.unsqueeze(-2).expand(-1, *y.shape)
    reached = tr.metrics.bpr(every, y, K, reduce="none").mean(-1)
    order = one.components.loc[0, 0].argsort()
    return {
        "loss": loss.tolist(),
        "log_likelihood": likelihood.tolist(),
        "bpr": bpr.tolist(),
        "best": best,
        "sampled_bpr": [reached.mean().item(), reached.std().item()],
        "ranking": ranking[best].tolist(),
        "top_k": tr.topk_mask(rankings, K).mean(0).tolist(),
        "loc": one.components.loc[0, 0][order].tolist(),
        "scale": one.components.scale[0, 0][order].tolist(),
        "weights": one.logits[0].softmax(-1)[:, order].tolist(),
    }


def partitions(y: Tensor) -> pd.DataFrame:
    """The fits that assign every site to one component, in closed form: log-likelihood per period,
    and BPR with ties within a component. Fig. 2 and App. D use such fits in their argument."""
    y_ = y.numpy()
    rows = []
    for low in itertools.product((False, True), repeat=len(MEANS)):
        groups = [np.array(low), ~np.array(low)]
        if not groups[0].any() or not groups[1].any() or groups[0][-1]:
            continue
        likelihood, scores = 0.0, np.zeros(len(MEANS))
        for group in groups:
            values = y_[:, group]
            scale = max(values.std(), 0.2)
            z = (values - values.mean()) / scale
            density = -0.5 * z**2 - math.log(scale) - 0.5 * math.log(2 * math.pi)
            likelihood += density.sum() / len(y_)
            scores[group] = values.mean()
        reach = tr.metrics.bpr(np.broadcast_to(scores, y_.shape), y_, K)
        rows.append({"low sites": int(sum(low)), "log_likelihood": likelihood, "bpr": reach})
    return pd.DataFrame(rows)


def run(context: Context) -> None:
    quick = context.quick
    starts, steps, repeats = (6, 120, 100) if quick else (20, 500, 1000)
    epsilons = (0.5, 0.92, 1.0) if quick else EPSILONS
    sigmas = SIGMAS[1:] if quick else SIGMAS
    forms = list(FORMS)[1:] if quick else list(FORMS)
    y = simulate(context.seed)

    plan: dict[str, tuple[str, str, float, float]] = {"NLL": ("NLL", "", SIGMAS[0], 0.0)}
    for form, sigma in itertools.product(forms, sigmas):
        plan[f"{form}-BPR-s={sigma}"] = ("BPR", form, sigma, 0.0)
        for epsilon in epsilons:
            plan[f"{form}-DAML-e={epsilon}-s={sigma}"] = ("DAML", form, sigma, epsilon)

    def cell(kind: str, form: str, sigma: float, epsilon: float) -> dict:
        objective = make_objective(kind, form or "deterministic", sigma, epsilon)
        model = train(y, objective, context.seed, starts, steps, context.device)
        return evaluate(model, y, kind, sigma, epsilon, repeats)

    found = context.cells(
        {name: (lambda arguments=arguments: cell(*arguments)) for name, arguments in plan.items()},
        {"starts": starts, "steps": steps, "weight": WEIGHT, "rate": RATE, "forms": FORMS},
    )

    rows = []
    for name, (kind, form, sigma, epsilon) in plan.items():
        result = found[name]
        best = result["best"]
        loss = np.array(result["loss"])
        rows.append(
            {
                "objective": kind,
                "form": form or "–",
                "ε": epsilon if kind == "DAML" else None,
                "σ": sigma if kind != "NLL" else None,
                "log-likelihood": result["log_likelihood"][best],
                "BPR, exact ranking": result["bpr"][best],
                "BPR, sampled rankings": result["sampled_bpr"][0],
                "sd": result["sampled_bpr"][1],
                "starts near the best": int((loss < loss.min() + 0.05).sum()),
            }
        )
    context.table(
        pd.DataFrame(rows).set_index("objective"),
        title=f"Best of {starts} starts: log-likelihood per period; BPR-{K}, also over {repeats} "
        "rankings by 1000 draws",
    )
    context.figure(plot_frontier(plan, found, partitions(y)), "frontier")
    form = "deterministic"
    shown = {
        "NLL": "NLL",
        f"DAML, ε = {epsilons[1]}": f"{form}-DAML-e={epsilons[1]}-s={sigmas[-1]}",
        "DAML, ε = 1": f"{form}-DAML-e=1.0-s={sigmas[-1]}",
        "BPR": f"{form}-BPR-s={sigmas[-1]}",
    }
    context.figure(plot_models({k: found[v] for k, v in shown.items()}, y), "models")


def plot_frontier(plan: dict, found: dict, hard: pd.DataFrame) -> Any:
    """DAML as a line over ε for each form and σ. Points below the axis, mostly those of direct BPR,
    are drawn at its lower end, with their log-likelihood."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 5.0), layout="constrained")
    axes = figure.add_subplot()
    floor = -30.5
    hard = hard[hard["log_likelihood"] > floor]
    label = "each site in one component for sure"
    axes.scatter(hard["bpr"], hard["log_likelihood"], marker="+", color="#A0A0A0", label=label)

    def place(name: str) -> tuple[float, float, float]:
        result = found[name]
        likelihood = result["log_likelihood"][result["best"]]
        return (*result["sampled_bpr"], likelihood)

    bpr, spread, likelihood = place("NLL")
    axes.errorbar(
        bpr, likelihood, xerr=spread, marker="*", ms=14, color="black", ls="none", label="NLL"
    )
    foot: list[tuple[float, str]] = []
    series = sorted({(form, sigma) for kind, form, sigma, _ in plan.values() if kind == "DAML"})
    for form, sigma in series:
        colour = "#0072B2" if form == "deterministic" else "#E69F00"
        small = sigma == min(SIGMAS)
        style = {"color": colour, "ls": "-" if small else ":", "marker": "o" if small else "s"}
        names = {
            epsilon: name
            for name, (kind, f, s, epsilon) in plan.items()
            if (kind, f, s) == ("DAML", form, sigma)
        }
        points = np.array([place(name) for name in names.values()])
        axes.plot(
            points[:, 0], points[:, 2], lw=1.4, ms=6, label=f"DAML, {form}, σ = {sigma}", **style
        )
        axes.errorbar(
            points[:, 0], points[:, 2], xerr=points[:, 1], ls="none", ecolor=colour, alpha=0.4
        )
        if form == "deterministic" and sigma == min(s for f, s in series if f == form):
            for epsilon, (x, _, height) in zip(names, points, strict=True):
                axes.annotate(
                    f"ε = {epsilon:g}",
                    (x, height),
                    textcoords="offset points",
                    xytext=(5, 7),
                    fontsize=8,
                    color=colour,
                )
        x, _, height = place(f"{form}-BPR-s={sigma}")
        if height > floor:
            first = "BPR only" not in axes.get_legend_handles_labels()[1]
            axes.plot(x, height, "D", color="#D55E00", ms=7, label="BPR only" if first else None)
        else:
            foot.append((x, f"{form}, σ = {sigma}: {height:.4g}"))
    for i, (x, text) in enumerate(foot):
        axes.plot(x, floor + 0.12, "v", color="#D55E00", ms=8, clip_on=False)
        axes.annotate(
            f"BPR only, {text}",
            (x, floor + 0.12),
            textcoords="offset points",
            xytext=(-8, 6 + 12 * i),
            ha="right",
            fontsize=8,
            color="#D55E00",
            bbox={"color": "white", "pad": 0.5},
        )
    axes.set(xlabel=f"BPR-{K} (mean and spread over rankings by 1000 draws)", xlim=(0.74, 1.012))
    axes.set(ylabel="log-likelihood per period", ylim=(floor, -25.3))
    axes.set_title("Best start of each run; better is up and to the right", fontsize=11)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=9, loc="lower left", framealpha=0.9, edgecolor="none")
    return figure


def plot_models(results: dict[str, dict], y: Tensor) -> Any:
    """Data at the top; below, for each model its two components, and the sites by the weight of the
    upper component."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 1.55 * (1 + len(results))), layout="constrained")
    axes = figure.subplots(1 + len(results), 1, sharex=True)
    x = np.linspace(0.01, 115, 1000)
    sites = y.mean(0).tolist()
    axes[0].hist(
        y.T.tolist(), bins=np.arange(-0.5, 116), stacked=True, color=["#767676"] * len(sites)
    )
    axes[0].set(yticks=[], title=f"Counts of {len(sites)} sites; the best {K} are sites 3 to 7")
    for s, mean in enumerate(sites):
        axes[0].annotate(str(s + 1), (mean + 1.6, 300), fontsize=9)
    for panel, (name, result) in zip(axes[1:], results.items(), strict=True):
        for loc, scale, colour in zip(
            result["loc"], result["scale"], ("#009E73", "#0072B2"), strict=True
        ):
            density = np.exp(-0.5 * ((x - loc) / scale) ** 2)
            panel.fill_between(x, density, color=colour, alpha=0.35, lw=0)
            panel.plot(x, density, color=colour, lw=1)
        for s, mean in enumerate(sites):
            weight = result["weights"][s][1]
            panel.plot(mean, weight, "o", ms=12, mfc="white", mec="black", zorder=3)
            panel.annotate(
                str(s + 1), (mean, weight), ha="center", va="center", fontsize=8, zorder=4
            )
            panel.annotate(
                f"{result['ranking'][s]:.3f}\n{result['top_k'][s]:.0%}",
                (mean, 1.18),
                ha="center",
                va="bottom",
                fontsize=7,
            )
        panel.set(ylim=(-0.15, 1.9), yticks=[0, 1], ylabel="upper\nweight")
        best = result["best"]
        title = (
            f"{name}: log-likelihood {result['log_likelihood'][best]:.4g}, "
            f"BPR {result['sampled_bpr'][0]:.3f}"
        )
        panel.set_title(title, fontsize=10, loc="left")
    axes[-1].set_xlabel(
        "count. Circles: sites, at their weight of the upper (blue) component.\n"
        "Above them: ratio score, and how often the site is in the top 5"
    )
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
    return figure
