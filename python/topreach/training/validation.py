"""Judging a model: the metrics of validation, by the ranking that the objective trains."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from topreach.data.panel import Batch
from topreach.distributions.counts import (
    expected_ratio_ranking,
    has_interval_log_prob,
    interval_log_prob,
)
from topreach.distributions.forecast import as_forecast
from topreach.objectives.base import (
    BATCH_ARGUMENTS,
    accepted_arguments,
    derived_key,
    forward,
    is_probabilistic,
    resolved_ranking,
)
from topreach.ops import draw_key, ratio_ranking
from topreach.programs import Program
from topreach.training.batches import hash_of, seed_all

# Whether more is better, for each metric that can be monitored.
MONITORS = {"bpr": True, "nll": False, "loss": False, "mae": False, "rmse": False}
_BLOCK = 8_000_000  # numbers in a block of draws: a few tens of MB


def rank_scores(
    model: nn.Module,
    batch: Batch,
    *,
    ranking: str = "auto",
    offset: float = 0.0,
    samples: int = 1000,
    seed: int = 0,
) -> Tensor:
    """The values by which a model ranks sites, [T, S]: its scores, or its forecast's ranking."""
    output = forward(model, batch)
    if not is_probabilistic(model):
        return output
    return forecast_scores(
        output, batch, ranking=ranking, offset=offset, samples=samples, seed=seed
    )


def forecast_scores(
    forecast: Any, batch: Batch, *, ranking: str, offset: float, samples: int, seed: int
) -> Tensor:
    """The ranking [T, S] of a forecast: "exact", "mean", or "ratio" from draws fixed by `seed`."""
    ranking = resolved_ranking("Trainer", ranking, forecast)
    view = as_forecast(forecast)
    if ranking == "mean":
        return view.mean
    if ranking == "exact":
        return expected_ratio_ranking(forecast, offset=offset)
    seed_all(batch.y.device, hash_of(seed, "ranking", 0))
    key = draw_key(device=batch.y.device)
    block = max(1, min(samples, _BLOCK // max(batch.y.numel(), 1)))
    total, left, number = torch.zeros_like(batch.y), samples, 0
    while left > 0:
        size = min(block, left)
        draws = view.sample(size, key=derived_key(key, number))
        total = total + ratio_ranking(draws, offset=offset) * size
        left, number = left - size, number + 1
    return total / samples


def metrics_of(
    model: nn.Module,
    batch: Batch,
    *,
    loss: float,
    program: Program | None,
    ranking: str,
    offset: float,
    samples: int,
    seed: int,
) -> dict[str, float]:
    """loss, and as far as they apply nll (per known site and period), mae, rmse and bpr.

    With suppressed counts there are loss and nll only: the others need exact ones. Closed cells
    (`batch.open`) are ignored.
    """
    found = {"loss": loss}
    if not accepted_arguments(type(model).forward, BATCH_ARGUMENTS):
        return found  # a user's model whose forward takes other arguments
    output = forward(model, batch)
    known = torch.ones_like(batch.y, dtype=torch.bool) if batch.open is None else batch.open
    y = batch.y.masked_fill(~known, 0.0)
    if batch.y_upper is not None:  # no choice and no forecast can be judged
        if is_probabilistic(model) and has_interval_log_prob(output):
            upper = batch.y_upper.masked_fill(~known, 0.0)
            log_prob = interval_log_prob(output, y, upper)
            found["nll"] = -log_prob[known].mean().item()
        return found
    scores = output
    if is_probabilistic(model):
        view = as_forecast(output)
        joint = view.joint_log_prob(y.masked_fill(~known, math.nan))
        found["nll"] = -(joint.sum() / known.sum()).item()
        error = (view.mean.expand(y.shape) - y)[known]
        found["mae"] = error.abs().mean().item()
        found["rmse"] = error.square().mean().sqrt().item()
        scores = None
        if program is not None:
            scores = forecast_scores(
                output, batch, ranking=ranking, offset=offset, samples=samples, seed=seed
            )
    if program is not None and isinstance(scores, Tensor) and scores.shape == y.shape:
        found["bpr"] = _mean_bpr(program, scores.masked_fill(~known, -math.inf), y)
    return found


def _mean_bpr(program: Program, scores: Tensor, y: Tensor) -> float:
    """Mean over periods with events; NaN for scores that are NaN."""
    if bool(scores.isnan().any()) or bool((scores == math.inf).any()):
        return math.nan
    bpr = program.bpr(scores.double(), y.double())
    known = bpr[~bpr.isnan()]
    return known.mean().item() if known.numel() else math.nan


def comparable(found: dict[str, float], monitor: str, bpr_floor: float | None) -> list[float]:
    """The monitored metric as numbers to compare: more is better, and NaN is worst."""
    if monitor not in found:
        raise ValueError(
            f"Trainer.fit: monitor must be a metric of this model and panel, got {monitor!r}; "
            f"there are {', '.join(map(repr, found))}."
        )
    value = found[monitor] if MONITORS[monitor] else -found[monitor]
    value = -math.inf if math.isnan(value) else value
    if bpr_floor is None:
        return [value]
    if "bpr" not in found:
        raise ValueError(
            "Trainer.fit: bpr_floor must go with a validation panel whose BPR is known, got one "
            "with suppressed counts. Leave bpr_floor out, or take panel.at_bound('lower')."
        )
    bpr = found["bpr"] if not math.isnan(found["bpr"]) else -math.inf
    return [1.0, value] if bpr >= bpr_floor else [0.0, bpr]


def monitor_of(model: nn.Module, objective: Any, monitor: str | None, has_program: bool) -> str:
    """The metric that chooses the best epoch; see `Trainer` for the defaults."""
    if monitor in ("nll", "mae", "rmse") and not is_probabilistic(model):
        raise ValueError(
            "Trainer.fit: monitor must be 'bpr' or 'loss' for a model without a likelihood, got "
            f"{monitor!r}."
        )
    if monitor == "bpr" and not has_program:
        raise ValueError(
            "Trainer.fit: monitor='bpr' must go with a known K, got none. Give Trainer(k=...)."
        )
    if monitor is not None:
        return monitor
    if has_program and type(objective).__name__ != "NLL":
        return "bpr"
    return "nll" if is_probabilistic(model) else "loss"
