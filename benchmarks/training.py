"""`python -m benchmarks.training`: does an exact gradient of the top-K train better?

A linear scorer is trained on -BPR(b(r), y), with the soft choice b from each of the soft top-K
operators. It is evaluated by the BPR of its hard choice on periods that were not used in training.
All methods have the same data, initial weights and number of steps. Counts are Poisson. In the easy
task their log rate is linear; in the others it is not, so no linear scorer is right at all sites.

"softmax" is a simple substitute, min(1, K softmax(r / sigma)), which is not a probability of being
chosen under any noise.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

import topreach as tr

STEPS, PERIODS, FEATURES, RATE = 300, 10, 6, 0.03


class Task(NamedTuple):
    """A problem: `gap` scales the log rate, `bend` the part of it that is not linear."""

    name: str
    sites: int
    k: int
    sigma: float
    gap: float
    bend: float = 1.0


TASKS = (
    Task("easy", 400, 40, 0.3, 1.5, 0.0),
    Task("many sites", 400, 40, 0.3, 1.5),
    Task("many sites, little signal", 400, 40, 0.3, 0.3),
    Task("many sites, small sigma", 400, 40, 0.02, 0.8),
    Task("few sites", 12, 2, 0.3, 0.8),
    Task("few sites, small sigma", 12, 2, 0.03, 0.8),
)


def clamped_softmax(scores: Tensor, k: int, sigma: float) -> Tensor:
    """min(1, K softmax(r / sigma)): sums to K or less."""
    return (k * torch.softmax(scores / sigma, -1)).clamp_max(1)


def perturbed(estimator: str) -> Callable[[Tensor, int, float], Tensor]:
    """The sampled operator with its default of 100 draws."""
    return lambda scores, k, sigma: tr.perturbed_topk(scores, k, sigma=sigma, estimator=estimator)


METHODS: dict[str, Callable[[Tensor, int, float], Tensor]] = {
    "exact": lambda scores, k, sigma: tr.expected_topk(scores, k, sigma=sigma),
    "mean_field": lambda s, k, sigma: tr.expected_topk(s, k, sigma=sigma, method="mean_field"),
    "conditional": perturbed("conditional"),
    "score_loo": perturbed("score_loo"),
    "score": perturbed("score"),
    "softmax": clamped_softmax,
}


def make_data(task: Task, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features [T, S, P] and counts [T, S] of the periods for training, and of 20 times as many
    for evaluation."""
    generator = torch.Generator().manual_seed(seed)

    def periods(count: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(count, task.sites, FEATURES, generator=generator)
        bent = torch.relu(x[..., 0] * x[..., 1]) - x[..., 2].square()
        signal = (x * weight).sum(-1) + task.bend * bent
        return x, torch.poisson((task.gap * signal).clamp_max(5).exp(), generator=generator)

    weight = torch.randn(FEATURES, generator=generator) / 2
    return (*periods(PERIODS), *periods(20 * PERIODS))


def train(task: Task, method: str, seed: int, steps: int = STEPS) -> tuple[float, float]:
    """(BPR on unseen periods, milliseconds of a soft top-K, forward and backward)."""
    x, y, x_new, y_new = make_data(task, seed)
    torch.manual_seed(seed)
    weight = torch.zeros(FEATURES, requires_grad=True)
    with torch.no_grad():
        weight += 0.1 * torch.randn(FEATURES)
    optimizer = torch.optim.Adam([weight], lr=RATE)
    choose, spent = METHODS[method], 0.0
    held = y.sum(-1) > 0
    for _ in range(steps):
        optimizer.zero_grad()
        scores = x @ weight
        started = time.perf_counter()
        own = scores.detach().requires_grad_()
        b = choose(own, task.k, task.sigma)
        spent += time.perf_counter() - started
        reach = tr.soft_bpr(b, y, task.k)
        (v,) = torch.autograd.grad(-reach[held].mean(), b, retain_graph=True)
        started = time.perf_counter()
        (g,) = torch.autograd.grad(b, own, v)
        spent += time.perf_counter() - started
        scores.backward(g)
        optimizer.step()
    reached = tr.metrics.bpr(x_new @ weight.detach(), y_new, task.k, nan_policy="omit")
    return float(reached), 1e3 * spent / steps


def table(tasks: Sequence[Task], methods: Sequence[str], seeds: int, steps: int) -> str:
    """Each method's mean BPR, its difference to the first on the same seeds, and its time."""
    lines = []
    for task in tasks:
        found = {m: [train(task, m, seed, steps) for seed in range(seeds)] for m in methods}
        first = [reach for reach, _ in found[methods[0]]]
        lines += [
            f"\n{task.name}: S = {task.sites}, K = {task.k}, sigma = {task.sigma:g}, "
            f"T = {PERIODS}, {steps} steps, {seeds} seeds\n",
            f"| top-K | BPR, unseen periods | less that of `{methods[0]}` | ms a step |",
            "|---|--:|--:|--:|",
        ]
        for method, runs in found.items():
            change = [reach - other for (reach, _), other in zip(runs, first, strict=True)]
            error = statistics.stdev(change) / len(change) ** 0.5 if len(change) > 1 else 0.0
            beside = "" if method == methods[0] else f"{statistics.mean(change):+.4f} ± {error:.4f}"
            reach = statistics.mean(r for r, _ in runs)
            spent = statistics.median(t for _, t in runs)
            lines.append(f"| `{method}` | {reach:.4f} | {beside} | {spent:.3g} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--few-sites", action="store_true", help="only the tasks of 12 sites")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for task in TASKS[-2:] if arguments.few_sites else TASKS:
        text = table((task,), arguments.methods, arguments.seeds, arguments.steps)
        print(text, end="", flush=True)


if __name__ == "__main__":
    main()
