"""`topreach demo`: from a table of counts to a plan, on overdose deaths in Cook County."""

from __future__ import annotations

import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from topreach.data.datasets import cook_county, simulate_county
from topreach.data.files import atomic_path
from topreach.data.panel import Panel, Splits
from topreach.evaluation import baselines, metrics
from topreach.ranking.topk_ranker import TopKRanker

K = 100
# Chosen by the likelihood of the validation year 2020 alone. Tried: lr in {.005, .01, .02, .05},
# sigma in {.0001, .0003, .001}, weight in {30, 100, 300}, DAML started anew or from the NLL fit;
# epsilon = 1. Training samples nothing, so each setting ran once. The same lr was best for NLL.
SETTINGS: dict[str, Any] = {
    "lr": 0.02,
    "max_epochs": 60,
    "warm_start_epochs": 200,
    "validate_every": 5,
    "sigma": 0.001,
    "epsilon": 1.0,
    "weight": 100.0,
    "link": "softplus",  # the link with the higher likelihood on 2020
}
QUICK = {
    "max_epochs": 20,
    "warm_start_epochs": 30,
    "rank_samples": 200,
}


def run(
    out: str | os.PathLike = "topreach-demo",
    *,
    data: str | os.PathLike | None = None,
    seed: int = 0,
    quick: bool = False,
    device: str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train by likelihood and for the decision, compare with the naive plans, and write the plan.

    Writes into the folder `out`: plan.csv (the K sites for the year after the last one), model.pt,
    reach.png and comparison.csv. Earlier files of these names are replaced.

    Args:
        out: folder, made if needed.
        data: folder of the Cook County files; None looks where `datasets.cook_county` does, and
            uses a simulated county if they are not found.
        seed: of the training, the rankings and the simulated county.
        quick: a short run, to see that it works: few epochs and draws.
        device: where to train, "cpu" or "cuda".
        progress: whether to show progress.

    Returns:
        The comparison, a row per method: mae, rmse, bpr, bpr_low, bpr_high (95 % of rankings with
            ties broken at random).
    """
    started = time.perf_counter()
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    (train, valid, test), what = _load(data, seed)
    assert valid is not None and test is not None  # both counties have them
    print(what)
    print(
        f"{train.num_sites} sites, K = {K}. Training: {train.num_times} years, choice of the "
        "epoch: "
        f"{valid.num_times}, held out: {test.num_times}.\n",
        flush=True,
    )
    settings: dict[str, Any] = SETTINGS | (QUICK if quick else {})
    settings |= {"seed": seed, "device": device, "progress": progress}
    repeats = 50 if quick else 1000

    rankers = {}
    for name, model, objective in (
        ("NLL", "negbin", "nll"),
        ("DAML", "negbin", "daml"),
        ("empirical Bayes", "empirical_bayes", "auto"),
    ):
        _say(f"{name}: training", progress)
        epochs = settings["warm_start_epochs"] if objective == "nll" else settings["max_epochs"]
        own = settings | {"max_epochs": epochs}
        ranker = TopKRanker(K, model=model, objective=objective, **own)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Standardizer.fit: dropped")
            rankers[name] = ranker.fit(train, valid)
        if ranker.interrupted_:
            raise KeyboardInterrupt

    naive = {
        "last year": baselines.last_period(test),
        "mean of last 5 years": baselines.historical_mean(test, 5),
        "mean of all years": baselines.historical_mean(test),
        "chance": baselines.chance(test),
    }
    rows = {}
    for name, forecast in naive.items():
        rows[name] = _row(forecast, forecast, test, repeats, seed)
    curves: dict[str, Any] = {}
    for name, ranker in rankers.items():
        curves[name] = ranker.site_scores(test)
        forecast = torch.from_numpy(ranker.predict(test))
        rows[name] = _row(forecast, torch.from_numpy(curves[name]), test, repeats, seed)
    curves = dict(reversed(curves.items())) | {
        name: f.numpy() for name, f in naive.items() if "5" not in name
    }
    table = pd.DataFrame(rows).T.rename_axis("method")

    print(
        f"\nHeld-out years, means over {test.num_times}. BPR: share of the best possible reach "
        f"with K = {K};\n"
        f"where scores tie, its mean over the ways to break ties, and [95 % of {repeats} of them "
        "at random].\n"
    )
    print(format_table(table))

    # A plan for the year after the last one. The counts of the held-out years are known by then.
    best = rankers["empirical Bayes"]
    coming_year = _next_year(test)
    plan = best.rank(coming_year).query("selected").drop(columns="selected")
    coming = plan["time"].iloc[0]
    paths = {
        f"plan for {coming}": folder / "plan.csv",
        "model": folder / "model.pt",
        "reach against K": folder / "reach.png",
        "this table": folder / "comparison.csv",
    }
    with atomic_path(paths[f"plan for {coming}"]) as path:
        plan.to_csv(path, index=False)
    best.save(paths["model"])
    with atomic_path(paths["this table"]) as path:
        table.to_csv(path)
    title = (
        "Simulated county" if test.source == "simulated" else "Cook County, opioid-overdose deaths"
    )
    try:
        save_reach(curves, test, K, paths["reach against K"], f"{title}, held-out years")
    except ImportError as error:
        print(f"No picture: {error}", file=sys.stderr)
        del paths["reach against K"]

    print(
        f"\nThe features of {coming} are not known yet: those of {test.times[-1]} stand in for "
        "them.\n"
    )
    for name, path in paths.items():
        print(f"{name + ':':17}{path}")
    print(
        f"\nDone in {time.perf_counter() - started:.0f} s."
        + (" A quick run: train longer." if quick else "")
    )
    return table


def _next_year(test: Panel) -> Panel:
    """The period after the last one, without counts, with the last known features."""
    line = test.timeline
    times = test.timeline_times.tolist()
    following = test.calendar.label(test.calendar.next(float(test.time_values[-1])))
    numbers = isinstance(test.times[-1], int | float)
    return Panel(
        test.x[-1:],
        torch.full_like(test.y[-1:], torch.nan),
        test.site_ids,
        [float(following) if numbers else following],
        test.feature_names,
        history_y=line,
        history_times=times if numbers else [test.calendar.label(t) for t in times],
        exposure=None if test.exposure is None else test.exposure[-1:],
        counts="optional",
        calendar=test.calendar,
    )


def save_reach(curves: dict[str, Any], panel: Panel, k: int, path: Path, title: str) -> None:
    """Write the picture of reach against K, without a display."""
    from topreach.report.plots import plot_reach, reach_curve

    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "matplotlib must be installed. Run `pip install 'topreach[plot]'`."
        ) from error
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    tables = {name: reach_curve(scores, panel.y.numpy()) for name, scores in curves.items()}
    plot_reach(tables, panel.y.numpy(), k=k, ax=left)
    plot_reach(tables, k=k, value="bpr", ax=right)
    if (legend := left.get_legend()) is not None:  # the right panel's legend serves both
        legend.remove()
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def format_table(table: pd.DataFrame) -> str:
    """The comparison as aligned text; a row whose BPR has no spread shows none."""
    width = max(len(str(name)) for name in [*table.index, "method"])
    lines = [f"{'method':{width}}  {'MAE':>6}  {'RMSE':>6}  {'BPR':>5}"]
    lines.append("-" * (len(lines[0]) + 16))
    for name, row in table.iterrows():
        cells = [_cell(row["mae"], 6), _cell(row["rmse"], 6), _cell(row["bpr"], 5)]
        text = "  ".join([f"{name:{width}}", *cells])
        if row.get("bpr_low", np.nan) < row.get("bpr_high", np.nan):
            text += f"  [{row['bpr_low']:.3f}, {row['bpr_high']:.3f}]"
        lines.append(text)
    return "\n".join(lines)


def _cell(value: float, width: int) -> str:
    return f"{value:{width}.3f}" if np.isfinite(value) else f"{'–':>{width}}"


def _load(data: str | os.PathLike | None, seed: int) -> tuple[Splits, str]:
    if data is not None:
        return cook_county(
            data
        ), f"Opioid-overdose deaths per census tract of Cook County, from {os.fspath(data)}."
    try:
        return cook_county(), "Opioid-overdose deaths per census tract of Cook County."
    except (OSError, ConnectionError) as error:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            splits = simulate_county(seed)
        why = str(error).splitlines()[0]
        return splits, (
            "SIMULATED DATA: the Cook County files were not found, so the numbers below say "
            "nothing about any real "
            f"place.\n({why})"
        )


def _row(
    forecast: torch.Tensor, scores: torch.Tensor, panel: Panel, repeats: int, seed: int
) -> dict[str, float]:
    """Errors of the forecast [T, S]; BPR of the ranking by scores [T, S], and its spread."""
    low, high = np.quantile(_tie_repeats(scores, panel, repeats, seed), [0.025, 0.975])
    return {
        "mae": metrics.mae(forecast, panel.y),
        "rmse": metrics.rmse(forecast, panel.y),
        "bpr": float(metrics.bpr(scores, panel.y, K)),
        "bpr_low": float(low),
        "bpr_high": float(high),
    }


def _tie_repeats(scores: torch.Tensor, panel: Panel, repeats: int, seed: int) -> np.ndarray:
    """BPR of the ranking by scores [T, S] with ties broken at random, [repeats]."""
    generator = np.random.default_rng(seed)
    values, found = scores.numpy(), np.empty(repeats)
    places = np.broadcast_to(np.arange(values.shape[1], 0.0, -1), values.shape)
    for i in range(repeats):
        order = np.lexsort((generator.random(values.shape), -values), axis=1)
        untied = np.empty(values.shape)
        np.put_along_axis(untied, order, places, axis=1)
        found[i] = metrics.bpr(untied, panel.y, K)
    return found


def _say(text: str, progress: bool) -> None:
    if progress:
        print(text, file=sys.stderr, flush=True)
