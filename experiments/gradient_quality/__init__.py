"""The quality of gradients: every estimator of the top-K and of the ratio ranking, and other
packages, against the exact gradient."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import pandas as pd
import torch

from ..context import Context
from . import figures, peers, ranking, topk

TITLE = "Variance, bias, direction and time of every gradient estimator, against the exact gradient"

# S, the budgets K, and the number of score vectors. Plots and the summary use the first K.
SIZES: dict[int, tuple[tuple[int, ...], int]] = {
    12: ((2, 5), 16),
    200: ((12, 50), 8),
    1620: ((100, 20, 400), 3),
    10_000: ((600, 100), 1),
}
# sigma is the papers' 1e-3 at S = 1620, a tenth of it and ten times. Like the scores, it is
# proportional to 1/S.
MEAN_SIGMA, FACTORS = 1.62, (1.0, 0.1, 10.0)
DRAWS = (10, 100, 1000)
PEER_SIZES = (12, 200, 1620)
KEYS = ["sites", "k", "sigma"]


def run(context: Context) -> None:
    sizes, factors, draws, peer_sizes = SIZES, FACTORS, DRAWS, PEER_SIZES
    work, budget, limit = 2e8, 1.0, 3e9
    if context.quick:
        sizes = {s: (ks[:1], 2) for s, (ks, _) in SIZES.items() if s < 10_000}
        factors, draws, peer_sizes = FACTORS[:1], DRAWS[:2], PEER_SIZES[:1]
        work, budget, limit = 1e7, 0.02, 3e7
    device, seed = context.device, context.seed

    def problem(sites: int, k: int, sigma: float, count: int) -> topk.Problem:
        return topk.make_problem(sites, k, sigma, count, seed, device)

    def topk_cell(estimator: str, sites: int, k: int, sigma: float, count: int, main: bool) -> dict:
        some = limit if main else min(limit, 1e8)
        given = problem(sites, k, sigma, count)
        return topk.study(estimator, given, draws, work, budget, seed, some)

    def ranking_cell(sites: int, k: int, sigma: float, count: int) -> list[dict]:
        n, g = ranking.make_problem(sites, k, sigma, count, seed, device)
        return ranking.study(n, g, draws, work / 10, budget, seed)

    def peers_cell(sites: int, k: int, sigma: float) -> list[dict]:
        return peers.study(problem(sites, k, sigma, 1), 100, 10 if context.quick else 50, budget)

    cells: dict[str, Any] = {}
    keys: dict[str, dict[str, float]] = {}
    for sites, (ks, count) in sizes.items():
        for k in ks:
            for factor in factors:
                sigma = factor * MEAN_SIGMA / sites
                main = k == ks[0] and factor == 1
                for estimator in (*topk.SAMPLED, *topk.DETERMINISTIC):
                    name = f"topk_S={sites}_K={k}_sigma={sigma:.3g}_{estimator}"
                    cells[name] = partial(topk_cell, estimator, sites, k, sigma, count, main)
                    keys[name] = {"sites": sites, "k": k, "sigma": sigma}
    for sites, (ks, count) in sizes.items():
        name, sigma = f"ranking_S={sites}", MEAN_SIGMA / sites
        cells[name] = partial(ranking_cell, sites, ks[0], sigma, count)
        keys[name] = {"sites": sites, "k": ks[0], "sigma": sigma}
    found = context.cells(cells)

    missing = peers.missing() if device.type == "cpu" else []
    if missing:
        print(
            f"{context.name}: {' and '.join(missing)} not installed, so without rows: "
            f"python -m pip install {' '.join(missing)}",
            file=sys.stderr,
        )
    peer_cells = {}
    for sites in peer_sizes if device.type == "cpu" else ():
        name, sigma = f"peers_S={sites}", MEAN_SIGMA / sites
        peer_cells[name] = partial(peers_cell, sites, SIZES[sites][0][0], sigma)
        keys[name] = {"sites": sites, "k": SIZES[sites][0][0], "sigma": sigma}
    other = context.cells(peer_cells, {"missing": missing})

    def frame(results: dict, start: str, part: str | None = None) -> pd.DataFrame:
        rows = [
            keys[name] | row
            for name, value in results.items()
            if name.startswith(start)
            for row in (value if part is None else value[part])
        ]
        return pd.DataFrame(rows)

    quality, times = frame(found, "topk", "quality"), frame(found, "topk", "time")
    rankings, rivals = frame(found, "ranking"), frame(other, "peers")
    score = times.set_index(KEYS).query("estimator == 'score'")["milliseconds"]
    times["times_faster_than_score"] = (
        times.join(score.rename("baseline"), on=KEYS)["baseline"] / times["milliseconds"]
    )
    threads = torch.get_num_threads()
    per_call = f"times in ms: forward and backward, {threads} thread{'s' if threads > 1 else ''}"
    context.table(
        quality, title=f"Top-K: gradients against the exact one ({per_call}, {topk.ROWS} rows)"
    )
    context.table(
        times, "time_to_cosine", title=f"Top-K: time to a gradient of cosine .99 ({per_call})"
    )
    context.table(
        rankings,
        "ranking",
        title=f"Ratio ranking: gradients in the counts' n ({per_call}, one row)",
    )
    if len(rivals):
        context.table(
            rivals, "peers", title=f"Other packages on the same problem ({per_call}, one row)"
        )
    context.table(
        summary(quality, times),
        "summary",
        title="Top-K in short: 100 draws; draws and time until the cosine is .99",
    )
    main = {sites: (ks[0], MEAN_SIGMA / sites) for sites, (ks, _) in sizes.items()}
    context.figure(figures.topk_cosine(quality, main), "topk_cosine")
    context.figure(figures.time_to_cosine(times, main), "time_to_cosine")
    context.figure(figures.ranking_cosine(rankings), "ranking_cosine")
    if len(rivals):
        context.figure(figures.peers(rivals), "peers")


def summary(quality: pd.DataFrame, times: pd.DataFrame) -> pd.DataFrame:
    """One row for each S, K, sigma and estimator: its quality at 100 draws, its time to cosine
    .99."""
    keys = [*KEYS, "estimator"]
    at_100 = quality[quality["draws"].isna() | (quality["draws"] == 100)]
    columns = ["relative_variance", "bias", "bias_se", "cosine", "cosine_sd", "milliseconds"]
    until = times.rename(columns={"draws": "draws_to_.99", "milliseconds": "ms_to_.99"})
    more = ["draws_to_.99", "ms_to_.99", "how", "times_faster_than_score"]
    return at_100[keys + columns].merge(until[keys + more], on=keys)
