"""DAML trained without noise against DAML trained with sampled gradients, for an equal time: the
cost of the papers' estimators in training [D25 Eq. 13, Alg. A.1]."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

import topreach as tr

from ..context import Context
from .figures import plot

TITLE = "DAML without sampling against sampled DAML, at equal training time, on Cook County"

K, SIGMA, EPSILON, WEIGHT, DRAWS = 100, 1e-3, 1.0, 30.0, 100  # from the paper's grid, App. C.2.2
RATES = (0.1, 0.01, 0.001)
# Seconds of training for each run, seeds of sampled methods, rounds of time measurement, steps of
# the long run.
SIZE, QUICK = (4.0, 3, 20, 2000), (0.4, 1, 2, 50)
SAMPLED = {
    "num_samples": DRAWS,
    "model_samples": DRAWS,
    "ranking": "ratio",
    "topk": "sampled",
    "ranking_estimator": "score_loo",
}
METHODS: dict[str, dict[str, Any]] = {
    "exact": {},
    "mean_field": {"topk": "mean_field"},
    "conditional": SAMPLED | {"estimator": "conditional"},
    "score_loo": SAMPLED | {"estimator": "score_loo"},
    "score": SAMPLED | {"estimator": "score", "ranking_estimator": "score"},
}


def objective(method: str) -> tr.objectives.DecisionAware:
    return tr.objectives.DecisionAware(K, SIGMA, EPSILON, WEIGHT, **METHODS[method])


def is_sampled(method: str) -> bool:
    return METHODS[method].get("topk") == "sampled"


def run(context: Context) -> None:
    budget, seeds, rounds, reference_steps = QUICK if context.quick else SIZE
    rates = RATES[1:2] if context.quick else RATES
    splits = context.splits(tr.datasets.cook_county)
    problem = Problem(splits, context.device)
    place = "SIMULATED county" if splits.train.source == "simulated" else "Cook County"

    settings = {"k": K, "sigma": SIGMA, "epsilon": EPSILON, "weight": WEIGHT, "place": place}
    seconds = context.cells(
        {"step_times": lambda: problem.step_times(context.seed, rounds)}, settings
    )["step_times"]
    steps = {method: max(2, int(budget / seconds[method])) for method in METHODS}
    cells: dict[str, Any] = {"reference": lambda: problem.reference(reference_steps)}
    for method in METHODS:
        for rate in rates:
            for seed in range(seeds if is_sampled(method) else 1):
                cells[f"{method}_lr={rate:g}_seed={seed}"] = partial(
                    problem.train, method, rate, context.seed + seed, steps[method]
                )
    found = context.cells(cells, settings | {"steps": steps, "reference": reference_steps})

    runs = {
        method: {
            each: [found[name] for name in cells if name.startswith(f"{method}_lr={each:g}_")]
            for each in rates
        }
        for method in METHODS
    }
    lowest = min(min(one["objective"]) for one in found.values())
    rate = min(rates, key=lambda rate: ended(runs["score"][rate], steps["score"]))
    chosen = {method: by_rate[rate] for method, by_rate in runs.items()}
    target = np.mean([one["objective"][-1] for one in chosen["score"]])
    rows = []
    for method, ones in chosen.items():
        last = pd.DataFrame([{n: v[-1] for n, v in one.items()} for one in ones])
        rows.append(
            {
                "method": method,
                "ms a step": 1e3 * seconds[method],
                "steps": steps[method],
                "excess objective": last["objective"].mean() - lowest,
                "sd over seeds": last["objective"].std(),
                "s to score's end": seconds[method] * steps_to(ones, target),
                "valid BPR": last["valid_bpr"].mean(),
                "valid NLL": last["valid_nll"].mean(),
            }
        )
    context.table(
        pd.DataFrame(rows).set_index("method"),
        title=f"{place}: after {budget:g} s of training with lr = {rate:g}, the best for `score`. "
        f"The excess is over the lowest training objective of any run, {lowest:.2f}",
    )
    every = [
        {"method": method, "lr": each, "seed": seed} | {n: v[-1] for n, v in one.items()}
        for method, by_rate in runs.items()
        for each, ones in by_rate.items()
        for seed, one in enumerate(ones)
    ]
    every = pd.DataFrame(every).set_index(["method", "lr", "seed"])
    context.table(every, "all_runs", title=f"{place}: the end of every run")
    context.figure(plot(chosen, seconds, lowest, f"{place}, lr = {rate:g}"), "curves")


def ended(ones: list[dict[str, list[float]]], steps: int) -> float:
    """The mean training objective at the end; infinite if a run stopped early."""
    whole = all(one["step"][-1] == steps for one in ones)
    return float(np.mean([one["objective"][-1] for one in ones])) if whole else math.inf


def steps_to(ones: list[dict[str, list[float]]], target: float) -> float:
    """Steps until the mean training objective reaches the target, interpolated; NaN if never."""
    points = min(len(one["step"]) for one in ones)
    mean = np.mean([one["objective"][:points] for one in ones], axis=0)
    step = np.array(ones[0]["step"][:points], dtype=float)
    below = np.flatnonzero(mean <= target)
    if not len(below):
        return math.nan
    i = below[0]
    if i == 0:
        return 0.0
    part = (mean[i - 1] - target) / (mean[i - 1] - mean[i])
    return step[i - 1] + part * (step[i] - step[i - 1])


class Problem:
    """The training and validation batches, with timing, training and evaluation on them."""

    def __init__(self, splits: tr.Splits, device: torch.device):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Standardizer.fit: dropped")
            standardizer = tr.Standardizer().fit(splits.train)
        times = splits.train.time_values
        origin, scale = times.mean(), times.std(correction=0)

        def prepared(panel: tr.Panel) -> tr.Batch:
            batch = standardizer.transform(panel).batch()
            batch = batch._replace(time=((panel.time_values - origin) / scale).float())
            return tr.Batch(*(None if part is None else part.to(device) for part in batch))

        self.train_batch, self.valid_batch = prepared(splits.train), prepared(splits.valid)
        self.exact = objective("exact")

    def model(self) -> tr.models.NegBinMixedEffects:
        sites, features = self.train_batch.x.shape[1:]
        mean = self.train_batch.y.mean().item()
        model = tr.models.NegBinMixedEffects(sites, features, link="softplus", initial_mean=mean)
        return model.to(self.train_batch.x.device)

    def step_times(self, seed: int, rounds: int) -> dict[str, float]:
        """Seconds of a training step by method, on one thread: the least over rounds in which the
        methods take turns, each for a tenth of a second. Parameters are some steps after the start,
        because all sites are equal there."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        start = self.model()
        step = self.stepper(start, "exact", 0.01, seed)
        for _ in range(100):
            step()
        steppers = {}
        for method in METHODS:
            model = self.model()
            model.load_state_dict(start.state_dict())
            steppers[method] = self.stepper(model, method, 0.01, seed)
        least = dict.fromkeys(METHODS, math.inf)
        for number in range(rounds + 1):  # the first is a warm-up
            for method, step in steppers.items():
                begun = ended = self.now()
                while ended - begun < 0.1:
                    started = ended
                    step()
                    ended = self.now()
                    if number > 0:
                        least[method] = min(least[method], ended - started)
        torch.set_num_threads(threads)
        return least

    def now(self) -> float:
        """Seconds on the clock (CUDA), or of this thread's processor time. On an idle core the two
        are equal."""
        if self.train_batch.x.is_cuda:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.thread_time()

    def stepper(
        self, model: tr.models.NegBinMixedEffects, method: str, rate: float, seed: int
    ) -> Callable[[], torch.optim.Optimizer]:
        """A function that does one step of Adam and returns the optimizer, to set its rate."""
        loss_of = objective(method)
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        generator = torch.Generator(self.train_batch.x.device).manual_seed(seed)

        def step() -> torch.optim.Optimizer:
            key = tr.draw_key(generator, generator.device) if is_sampled(method) else None
            optimizer.zero_grad(set_to_none=True)
            loss_of(model, self.train_batch, key=key).loss.backward()
            optimizer.step()
            return optimizer

        return step

    def train(self, method: str, rate: float, seed: int, steps: int) -> dict[str, list[float]]:
        """Train from the start. Returns the curves at about forty steps, as long as they are
        finite."""
        model = self.model()
        step = self.stepper(model, method, rate, seed)
        points = {0, *np.unique(np.geomspace(1, steps, 40).round().astype(int)).tolist()}
        curves: dict[str, list[float]] = {"step": []}
        for number in range(steps + 1):
            if number > 0:
                step()
            if number in points:
                values = self.evaluate(model)
                if not math.isfinite(values["objective"]):
                    break
                curves["step"].append(number)
                for name, value in values.items():
                    curves.setdefault(name, []).append(value)
        return curves

    def reference(self, steps: int) -> dict[str, list[float]]:
        """A long exact run whose learning rate falls to 0, for the lowest objective in reach."""
        model = self.model()
        step = self.stepper(model, "exact", 0.05, 0)
        for number in range(steps):
            for group in step().param_groups:
                group["lr"] = 0.025 * (1 + math.cos(math.pi * (number + 1) / steps))
        return {name: [value] for name, value in self.evaluate(model).items()}

    @torch.no_grad()
    def evaluate(self, model: tr.models.NegBinMixedEffects) -> dict[str, float]:
        """The deterministic training objective; BPR and NLL of the validation year."""
        value = self.exact(model, self.train_batch)
        batch = self.valid_batch
        counts = model(batch.x, batch.time)
        ranking = tr.expected_ratio_ranking(counts)
        return {
            "objective": value.loss.item(),
            "valid_bpr": float(tr.metrics.bpr(ranking, batch.y, K)),
            "valid_nll": -counts.site_log_prob(batch.y).mean().item(),
        }
