"""Training for the quota and without it, planning under the quota, and the plans' reach."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

import topreach as tr
from topreach import Panel
from topreach.objectives import DecisionAware, DirectBPR
from topreach.programs import Program, TopK

from .sets import Block, Case

# The ranker's model, and the objective; None: the fit does not depend on a plan.
MODELS: dict[str, tuple[str, type | None]] = {
    "linear scorer, BPR": ("linear", DirectBPR),
    "negbin, DAML": ("negbin", DecisionAware),
    "negbin, NLL": ("negbin", None),
    "default": ("empirical_bayes", None),
}
RATES = {"linear": 0.1, "negbin": 0.02, "empirical_bayes": 0.02}
# Whether training, and the choice of the epoch and the settings, use the quota's program or K.
QUOTA, CHOSEN, REPAIRED = "trained for the quota", "chosen for the quota", "repaired"
ARMS = {QUOTA: (True, True), CHOSEN: (False, True), REPAIRED: (False, False)}
BY_RATIO = "by the quota's ratio"


@dataclass(frozen=True)
class Effort:
    """How much is done.

    sigmas: those among which the scorer's is chosen with the first seed, in standard deviations of
    the scores; and DAML's, which is fixed. epochs: of the scorer, and of DAML, which starts from a
    fit by likelihood. seeds: of the scorer's starts. draws: of the noise in a step. samples: of
    the forecast for the quota's ratio.
    """

    sigmas: tuple[float, ...] = (0.1, 0.4)
    daml_sigma: float = 0.2
    seeds: int = 2
    epochs: int = 40
    likelihood_epochs: int = 80
    draws: int = 8
    samples: int = 300


QUICK = Effort(sigmas=(0.2,), seeds=1, epochs=2, likelihood_epochs=4, draws=2, samples=10)


def cells(name: str, number: int, case: Case, effort: Effort) -> dict[str, Callable[[], Any]]:
    """One cell for each block, model and arm; `number` is that of the simulated state."""
    found: dict[str, Callable[[], Any]] = {}
    for b, block in enumerate(case.blocks):
        for model in MODELS:
            for arm in arms_of(model):
                key = cell_key(name, number, b, model, arm)
                found[key] = partial(_trained, case, block, model, arm, effort)
    return found


def cell_key(name: str, number: int, block: int, model: str, arm: str) -> str:
    text = f"{name}.{number}.{block}.{model}.{arm}"
    return "".join(c if c.isalnum() or c == "." else "_" for c in text)


def arms_of(model: str) -> tuple[str, ...]:
    """The arms of a model; one only if its fit does not depend on a plan."""
    return (REPAIRED,) if MODELS[model][1] is None else tuple(ARMS)


def _trained(case: Case, block: Block, model: str, arm: str, effort: Effort) -> dict[str, Any]:
    """Figures on the block's test periods by seed, with the settings chosen before the test."""
    quotas, free = case.program(), TopK(case.k)
    trains, chooses = (quotas if on else free for on in ARMS[arm])
    train, valid, test = _split(case.panel, block)
    kind, objective = MODELS[model]
    fit = partial(_fit, case, model, (trains, chooses), train, valid, effort)
    tried = effort.sigmas if kind == "linear" else (effort.daml_sigma,)
    fitted = [fit(sigma, 0) for sigma in tried]
    reached = [_bpr(ranker, chooses, valid) for ranker in fitted]
    best = max(range(len(tried)), key=lambda i: reached[i])
    rankers = [fitted[best]]
    if kind == "linear":
        rankers += [fit(tried[best], seed) for seed in range(1, effort.seeds)]
    judged = [judge(_scores(ranker, test), test.y.double(), quotas) for ranker in rankers]
    found: dict[str, Any] = {key: [one[key] for one in judged] for key in judged[0]}
    if objective is None:
        scores = ratio_scores(rankers[0], test, quotas, effort.samples)
        found["by_ratio"] = [judge(scores, test.y.double(), quotas)["bpr_c"]]
    return found | {"sigma": tried[best], "valid": reached[best]}


def _split(panel: Panel, block: Block) -> tuple[Panel, Panel, Panel]:
    """Training, validation and test periods, without any period after the block."""
    until = panel.select_times(panel.times[: block.end])
    parts = until.split(
        valid=list(panel.times[block.valid : block.test]),
        test=list(panel.times[block.test : block.end]),
    )
    return parts.train, parts.valid, parts.test


def _fit(
    case: Case,
    model: str,
    programs: tuple[Program, Program],
    train: Panel,
    valid: Panel,
    effort: Effort,
    sigma: float,
    seed: int,
) -> tr.TopKRanker:
    kind, objective = MODELS[model]
    trains, chooses = programs
    loss: Any = "direct" if kind == "empirical_bayes" else "nll"
    if objective is not None:
        loss = objective(
            trains.for_sites("constrained_choice", list(train.site_ids)) or trains,
            sigma,
            sigma_unit="spread",
            topk="sampled",
            estimator="conditional",
            num_samples=effort.draws,
        )
    ranker = tr.TopKRanker(
        chooses,
        model=kind,
        objective=loss,
        window=case.window,
        lr=RATES[kind],
        max_epochs=effort.likelihood_epochs if loss == "nll" else effort.epochs,
        warm_start_epochs=effort.likelihood_epochs,
        warm_start=True,
        seed=seed,
        progress=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ranker.fit(train, valid)


def _scores(ranker: tr.TopKRanker, panel: Panel) -> Tensor:
    """The ranker's scores [T, S], each one period ahead."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.from_numpy(ranker.site_scores(panel)).double()


def _bpr(ranker: tr.TopKRanker, program: Program, panel: Panel) -> float:
    return float(program.bpr(_scores(ranker, panel), panel.y.double()).nanmean())


def judge(scores: Tensor, y: Tensor, quotas: tr.programs.Quotas) -> dict[str, list[float]]:
    """Figures of scores [T, S] for counts y [T, S], one for each period.

    bpr_c: of the plan under the quota, against the best plan under it.
    free_bpr: of the same plan, against the best K sites.
    plain_bpr: of the K highest scores, which need not meet the quota.
    hindsight: the price of the quota, 1 − reach of the best plan under it / reach of the best K.
    paid: 1 − reach of the plan under the quota / reach of the K highest scores.
    swapped: number of sites in which the K highest scores, repaired by swaps, differ from the plan
        under the quota.
    """
    free = TopK(quotas.k)
    plan, plain = quotas.best(scores), free.best(scores)
    best, reach = free.best_reach(y), (plan * y).sum(-1)
    figures = {
        "bpr_c": quotas.bpr(scores, y),
        "free_bpr": reach / best,
        "plain_bpr": free.bpr(scores, y),
        "hindsight": 1 - quotas.best_reach(y) / best,
        "paid": 1 - reach / (plain * y).sum(-1),
        "swapped": (swap_repair(scores, plain, quotas) != plan).sum(-1),
    }
    return {name: [float(v) for v in values] for name, values in figures.items()}


def swap_repair(scores: Tensor, plans: Tensor, quotas: tr.programs.Quotas) -> Tensor:
    """Plans [T, S] of K sites, repaired for "at least" quotas of one grouping: the best site of
    each group that lacks one replaces the worst site that no quota needs."""
    (grouping,) = quotas.groupings
    group = torch.tensor(grouping.group)
    lower = torch.tensor(grouping.lower)
    mended = plans.clone()
    for row, score in zip(mended, scores, strict=True):
        held = torch.bincount(group[(row > 0) & (group >= 0)], minlength=len(lower))
        for g in torch.nonzero(held < lower).flatten():
            for _ in range(int(lower[g] - held[g])):
                outside = torch.where((row == 0) & (group == g), score, -torch.inf)
                row[outside.argmax()] = 1
                held[g] += 1
                spare = (group < 0) | (held > lower)[group.clamp_min(0)]
                inside = torch.where((row > 0) & spare, score, torch.inf)
                out = inside.argmin()
                row[out] = 0
                if group[out] >= 0:
                    held[group[out]] -= 1
    return mended


def ratio_scores(
    ranker: tr.TopKRanker, panel: Panel, quotas: tr.programs.Quotas, samples: int
) -> Tensor:
    """E[y_s / R_C(y)] [T, S], with R_C(y) the largest reach of a plan under the quota for counts y.
    The plan by this ranking has the largest expected BPR_C (docs/plans.md)."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        forecast = ranker.predict_distribution(panel)
    key = tr.draw_key(torch.Generator().manual_seed(0))
    draws = forecast.sample(samples, key=key).double()
    most = quotas.best_reach(draws).unsqueeze(-1)
    return torch.where(most > 0, draws / most, torch.zeros_like(draws)).mean(0)


def gathered(results: Mapping[str, Any], keys: list[str], name: str) -> list[list[float]]:
    """A figure by seed, over the consecutive blocks of one case: [seeds][periods]."""
    parts = [results[key][name] for key in keys]
    return [[v for part in parts for v in part[seed]] for seed in range(len(parts[0]))]
