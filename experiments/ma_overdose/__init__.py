"""Overdose deaths in Massachusetts: 2023 paper, section 3 and Table 1; 2025 paper, Figure 3."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from topreach import Splits
from topreach.data.datasets import ma_overdose, simulate_massachusetts
from topreach.evaluation import baselines, metrics
from topreach.models import nearest_neighbours
from topreach.objectives import DirectBPR

from ..context import Context, panel_digest
from ..forecasters import (
    WINDOW,
    Inputs,
    best,
    fit,
    make_scorer,
    poisson_forecast,
    poisson_peers,
    restore,
    scorer_scores,
    site_places,
)
from ..real_data import QUICK, Effort, Study
from ..real_data import run as run_study
from ..real_data_plots import map_figure, reach_figure

TITLE = "Overdose deaths in Massachusetts: scorers by BPR, and DAML [2023, Table 1; 2025, 5.2]"

K = 100
PLACE = ("lat", "lon")
WINDOWS = (1, 3, 5, 7)
# The 2023 paper mentions a grid over the noise and the number of draws, but not its values.
LEARNING_RATES = (0.01, 0.003, 0.001)
SIGMAS = (0.3, 0.1, 0.03, 0.01)
DRAWS = 100
# %BPR of Table 1.
PUBLISHED = {
    "chance": 24.3,
    "average": 58.7,
    "sampled.mlp": 63.4,
    "sampled.linear": 59.8,
    "glm": 60.2,
    "trees": 56.4,
    "zigp": 44.9,
}
LABELS = {
    "chance": "random",
    "average": "historical average",
    "sampled.mlp": "MLP + sampled top-K",
    "sampled.linear": "linear + sampled top-K",
    "exact.mlp": "MLP + exact top-K",
    "exact.linear": "linear + exact top-K",
    "glm": "GLM, Poisson likelihood",
    "trees": "boosted trees, Poisson likelihood",
    "zigp": "zero-inflated Gaussian process, as published",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--deaths",
        metavar="FILE",
        help="CSV file of deaths per tract and year, as topreach.datasets.ma_overdose describes it "
        "(default: a simulated Massachusetts)",
    )


def run(context: Context) -> None:
    _table_1(context)
    study = Study(
        title="Massachusetts, opioid-overdose deaths",
        load=lambda folder: _load_2025(context),
        k=K,
        average=5,
        unit="deaths",
        place=PLACE,
        lags="prev_deaths_",
        published={},
    )
    run_study(context, study, forms=("exact",), prefix="2025_")


def _load(context: Context, **years: Any) -> Splits:
    deaths = getattr(context.options, "deaths", None)
    if deaths is not None:
        return ma_overdose(deaths, **years)
    print(
        "SIMULATED DATA: Massachusetts' counts come on request only (--deaths FILE), so that the "
        "numbers below say nothing about any real place.",
        file=sys.stderr,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return simulate_massachusetts(context.seed, centroids=_centroids(context), **years)


def _load_2025(context: Context) -> Splits:
    """The 2025 paper's years with its features: the last five counts, and the neighbours' last
    count."""
    splits = _load(context, train=range(2011, 2019), valid=[2019], test=[2020, 2021])
    parts = []
    for panel in splits:
        history = panel.batch(window=WINDOW).history
        columns = [panel.x, history]
        names = [*panel.feature_names, *(f"prev_deaths_{WINDOW - i:02}back" for i in range(WINDOW))]
        if set(PLACE) <= set(panel.feature_names):
            graph = nearest_neighbours(site_places(panel, PLACE), 6)
            columns.append((graph.sum(history[:, :, -1].T) / 6).T.float().unsqueeze(-1))
            names.append("deaths_sp_lag")
        parts.append(panel.with_features(torch.cat(columns, dim=-1), names))
    return Splits(*parts)


def _centroids(context: Context) -> Path | None:
    for folder in (context.data, os.environ.get("TOPREACH_DATA")):
        if folder is not None:
            path = Path(folder) / "geo" / "ma_tract_centroids.csv"
            if path.is_file():
                return path
    return None


def _table_1(context: Context) -> None:
    train, valid, test = splits = _load(context)
    simulated = train.source == "simulated"
    title = (
        "SIMULATED stand-in for " if simulated else ""
    ) + "Massachusetts, opioid-overdose deaths"
    others = [name for name in train.feature_names if not name.startswith("svi_")]
    # The scorers get only earlier counts and the vulnerability index.
    inputs = Inputs(train, left_out=tuple(others), device=context.device)
    chosen = _choose(context, splits, inputs)
    averages = {w: metrics.bpr(baselines.historical_mean(valid, w), valid.y, K) for w in WINDOWS}
    window = max(averages, key=averages.get)

    scores = {
        "chance": baselines.chance(test),
        "average": baselines.historical_mean(test, window),
    }
    for key, found in chosen.items():
        if key in ("glm", "trees"):
            scores[key] = poisson_forecast(found, inputs, train, test)
        else:
            model = make_scorer(key.partition(".")[2], inputs, context.seed).to(context.device)
            scores[key] = scorer_scores(restore(model, found), inputs.scorer(test))
    lines = {}
    for key, label in LABELS.items():
        paper = PUBLISHED.get(key, float("nan"))
        lines[label] = {"%BPR": float("nan"), "2019": float("nan"), "2020": float("nan")}
        if key in scores:
            by_year = 100 * metrics.bpr(scores[key], test.y, K, reduce="none")
            lines[label] = {"%BPR": float(by_year.mean())} | {
                str(year): float(value) for year, value in zip(test.times, by_year, strict=True)
            }
        elif key != "zigp":
            del lines[label]
            continue
        lines[label] |= {"paper %BPR": paper, "chosen": chosen.get(key, {}).get("run", "")}
    lines[LABELS["average"]]["chosen"] = f"{window} years of {', '.join(map(str, WINDOWS))}"
    context.table(
        pd.DataFrame(lines).T.rename_axis("model").infer_objects(),
        "table1",
        title=f"{title}: K = {K}, test years 2019 and 2020",
    )
    if not context.can_plot():
        return
    shown = ("exact.mlp", "exact.linear", "sampled.mlp", "average", "chance")
    curves = {LABELS[key]: scores[key].numpy() for key in shown}
    context.figure(reach_figure(curves, test, K, title), "table1_reach")
    if set(PLACE) <= set(test.feature_names):
        maps = {LABELS[key]: scores[key].tolist() for key in ("average", "exact.mlp")}
        figure = map_figure(maps, test, K, PLACE, "deaths", title)
        context.figure(figure, "table1_map")


def _choose(context: Context, splits: Splits, inputs: Inputs) -> dict[str, dict[str, Any]]:
    """The run with the best BPR, or the highest likelihood, in the validation year, by row."""
    quick = context.quick
    effort = QUICK if quick else Effort()
    rates, sigmas = (LEARNING_RATES[:1], SIGMAS[1:2]) if quick else (LEARNING_RATES, SIGMAS)
    settings = {
        "table": 1,
        "data": panel_digest(*splits),
        "draws": DRAWS,
        "max_epochs": 30 if quick else 300,
        "patience": 10,
    }

    def cell(form: str, kind: str, lr: float, sigma: float) -> dict[str, Any]:
        options = {"topk": "exact"}
        if form == "sampled":
            options = {"topk": "sampled", "num_samples": DRAWS, "estimator": "score"}
        return fit(
            make_scorer(kind, inputs, context.seed).to(context.device),
            DirectBPR(K, sigma, **options),
            inputs.scorer(splits.train),
            inputs.scorer(splits.valid),
            lr=lr,
            monitor="bpr",
            k=K,
            max_epochs=settings["max_epochs"],
            patience=settings["patience"],
            seed=context.seed,
        )

    cells: dict[str, Callable[[], Any]] = {
        f"table1.{form}.{kind}.lr={lr:g}.sigma={sigma:g}": partial(cell, form, kind, lr, sigma)
        for form in ("sampled", "exact")
        for kind in ("linear", "mlp")
        for lr in rates
        for sigma in sigmas
    }
    peers = poisson_peers(
        inputs,
        splits.train,
        splits.valid,
        alphas=effort.alphas,
        leaves=effort.leaves,
        rates=effort.tree_rates,
        seed=context.seed,
    )
    found = context.cells(cells | {f"table1.{key}": peer for key, peer in peers.items()}, settings)
    rows: dict[str, dict[str, Any]] = {
        f"{form}.{kind}": best(found, f"table1.{form}.{kind}.", "bpr", 1)
        for form in ("sampled", "exact")
        for kind in ("linear", "mlp")
    }
    for kind in ("glm", "trees") if peers else ():
        rows[kind] = best(found, f"table1.{kind}.", "nll", -1)
    return rows
