"""The top-K operator's gradients: every estimator against the exact one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import topreach as tr

from .quality import COSINE, Quality, draws_for, median, seconds

SAMPLED = ("score", "score_loo", "conditional")
DETERMINISTIC = ("mean_field", "exact")
ROWS = 10  # in a timed call, as in the papers' runs
CHUNK = 4_000_000  # scores in one call


@dataclass
class Problem:
    """Scores like ratio rankings and the derivative of BPR, [P, S] each, with the exact value and
    gradient."""

    scores: Tensor
    v: Tensor
    k: int
    sigma: float
    value: Tensor  # b*, float64
    gradient: Tensor  # g*, float64


def make_inputs(
    sites: int, k: int, rows: int, seed: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Scores like ratio rankings, and the derivative of BPR with respect to the choice, [rows, S]
    each.

    Rates are drawn from Gamma(.6), so they are as uneven as overdose deaths. Scores are the rates'
    shares of their sum. Counts are Poisson with these rates.
    """
    generator = np.random.default_rng([seed, sites])
    rate = generator.gamma(0.6, 1.0, (rows, sites)) + 1e-6
    counts = torch.from_numpy(generator.poisson(rate).astype(np.float32)).to(device)
    scores = torch.from_numpy((rate / rate.sum(-1, keepdims=True)).astype(np.float32)).to(device)
    return scores, counts / counts.topk(k, -1).values.sum(-1, keepdim=True).clamp_min(1)


def make_problem(
    sites: int, k: int, sigma: float, problems: int, seed: int, device: torch.device
) -> Problem:
    """Up to `problems` rows of `make_inputs` whose gradient is not zero.

    A gradient is zero if the noise never changes the choice, or if all sites near the threshold
    have the same count.

    Raises:
        ValueError: no row is left.
    """
    scores, v = make_inputs(sites, k, problems, seed, device)
    value, gradient = exact(scores.double(), v.double(), k, sigma)
    kept = gradient.norm(dim=-1) * sigma > 1e-6 * v.norm(dim=-1)
    if not bool(kept.any()):
        raise ValueError(
            f"make_problem: sigma must be large enough for a gradient at S = {sites}, K = {k}, got "
            f"{sigma}. Take another seed or more problems."
        )
    return Problem(scores[kept], v[kept], k, sigma, value[kept], gradient[kept])


def exact(scores: Tensor, v: Tensor, k: int, sigma: float) -> tuple[Tensor, Tensor]:
    return deterministic("exact", scores, v, k, sigma)


def deterministic(
    method: str, scores: Tensor, v: Tensor, k: int, sigma: float
) -> tuple[Tensor, Tensor]:
    """Value and vector-Jacobian product, both [P, S]."""
    free = scores.detach().clone().requires_grad_()
    b = tr.expected_topk(free, k, sigma=sigma, method=method)
    (gradient,) = torch.autograd.grad(b, free, v)
    return b.detach(), gradient


def sampled(
    estimator: str, problem: Problem, draws: int, repeats: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Independent estimates of the value and the gradient, [R, P, S], in parts.

    Each row has its own noise, so R estimates are R copies of the scores in one call.
    """
    count, sites = problem.scores.shape
    generator = torch.Generator(problem.scores.device).manual_seed(seed)
    at_once = max(1, min(repeats, CHUNK // (count * sites)))
    for start in range(0, repeats, at_once):
        shape = (min(at_once, repeats - start), count, sites)
        free = problem.scores.expand(shape).clone().requires_grad_()
        b = tr.perturbed_topk(
            free,
            problem.k,
            sigma=problem.sigma,
            num_samples=draws,
            estimator=estimator,
            generator=generator,
        )
        (gradient,) = torch.autograd.grad(b, free, problem.v.expand(shape))
        yield b.detach(), gradient


def judge(estimator: str, problem: Problem, draws: int, repeats: int, seed: int) -> dict:
    """Quality of one estimator's gradient. Also value_error, sqrt(E |b - b*|^2 / K), and sum_sd,
    the standard deviation of sum b, whose expectation is K."""
    quality = Quality(problem.gradient)
    squares, sums = torch.zeros_like(quality.norm), []
    count = 0
    if estimator in DETERMINISTIC:
        found = deterministic(estimator, problem.scores, problem.v, problem.k, problem.sigma)
        parts: Iterator = iter([(found[0][None], found[1][None])])
    else:
        parts = sampled(estimator, problem, draws, repeats, seed)
    for b, gradient in parts:
        quality.add(gradient)
        squares += (b.double() - problem.value).square().sum((0, 2))
        sums.append(b.double().sum(-1))
        count += len(b)
    return quality.summary() | {
        "value_error": median((squares / count / problem.k).sqrt()),
        "sum_sd": median(torch.cat(sums).std(0)) if count > 1 else None,
    }


def time_call(estimator: str, problem: Problem, draws: int, budget: float) -> float:
    """Seconds of one forward and backward pass of T = 10 rows."""
    repeat = math.ceil(ROWS / len(problem.scores))
    scores = problem.scores.repeat(repeat, 1)[:ROWS]
    v = problem.v.repeat(repeat, 1)[:ROWS]
    if estimator in DETERMINISTIC:
        return seconds(
            lambda: deterministic(estimator, scores, v, problem.k, problem.sigma),
            scores.device,
            budget,
        )
    rows = Problem(scores, v, problem.k, problem.sigma, problem.value, problem.gradient)
    return seconds(lambda: list(sampled(estimator, rows, draws, 1, 0)), scores.device, budget)


def time_to_cosine(
    estimator: str,
    problem: Problem,
    found: dict,
    draws: int,
    seconds_each: float,
    limit: float,
    seed: int,
) -> dict:
    """Draws and time until the gradient's mean cosine is .99; `found` was measured at `draws`.

    If these draws need at most `limit` noise values for the ten rows, they are made and timed.
    Otherwise the time is `seconds_each`, that of one draw, times their number. For a method without
    draws `seconds_each` is the time of a call.
    """
    row: dict = {"estimator": estimator, "draws": None, "how": "measured"}
    if estimator in DETERMINISTIC:
        reached = found["cosine"] >= COSINE
        return row | {
            "cosine": found["cosine"],
            "milliseconds": 1e3 * seconds_each if reached else None,
            "how": "measured" if reached else "never",
        }
    least = 2 if estimator == "score_loo" else 1
    needed = max(least, math.ceil(draws_for(found["relative_variance"], draws)))
    row["draws"] = needed
    sites = problem.scores.shape[-1]
    if needed * ROWS * sites > limit:
        return row | {
            "cosine": COSINE,
            "milliseconds": 1e3 * seconds_each * needed,
            "how": "extrapolated",
        }
    repeats = max(1, min(200, int(limit / 10 / (needed * sites * len(problem.scores)))))
    return row | {
        "cosine": judge(estimator, problem, needed, repeats, seed)["cosine"],
        "milliseconds": 1e3 * time_call(estimator, problem, needed, 0.2),
    }


def study(
    estimator: str,
    problem: Problem,
    draws: tuple[int, ...],
    work: float,
    budget: float,
    seed: int,
    limit: float,
) -> dict:
    """One estimator on one problem: "quality", a row for each number of draws, and "time", that to
    a cosine of .99, measured with at most `limit` noise values.

    Each row takes `work` noise values (at least 20 estimates, at most 1000), and each timing
    `budget` seconds.
    """
    count, sites = problem.scores.shape
    rows, least = [], math.inf
    for j in draws if estimator in SAMPLED else (0,):
        repeats = max(20, min(1000, int(work / (max(j, 1) * sites * count))))
        found = judge(estimator, problem, j, repeats, seed)
        call = time_call(estimator, problem, j, budget)
        row = {"estimator": estimator, "draws": j or None} | found | {"milliseconds": 1e3 * call}
        rows.append(row)
        least = min(least, call / max(j, 1))
    time = time_to_cosine(estimator, problem, found, j, least, limit, seed + 1)
    return {"quality": rows, "time": [time]}
