"""Table 1 of the STEMMED paper: does the fit recover the parameters of a simulated process?"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

import topreach as tr

from ..context import Context
from ..event_data import simulate
from .figures import plot

TITLE = "Recovery and coverage of STEMMED's parameters, alone and pooled (its Table 1)"

MONTH = 30.4  # days; the paper's parameters are per month, a table of events is in days
SIDE = 0.3  # of the square in which the places are, for up to 25 nodes
ONE = {"gamma": 0.77, "beta": 0.8, "alpha": 1.45, "delta_g": 8.82, "omega": 0.85, "delta_k": 14.66}
# Printed in the paper for N = 1, T = 100: mean and interval.
PRINTED = {
    "gamma": (0.77, 0.0, 1.26),
    "alpha": (1.45, 0.98, 1.91),
    "delta_g": (9.05, 6.35, 11.83),
    "delta_k": (14.52, 9.97, 19.52),
}
# Repeats for each (N, T).
REPEATS = {
    (1, 100): 300,
    (1, 300): 200,
    (1, 1000): 200,
    (4, 100): 60,
    (4, 300): 40,
    (4, 1000): 20,
    (25, 100): 20,
    (25, 300): 8,
    (25, 1000): 2,
    (60, 100): 6,
    (60, 300): 2,
}
QUICK = {(1, 100): 12, (4, 100): 2}
PARAMETERS = ("log gamma", "beta", "log alpha", "delta_g", "omega", "log delta_k")


class Truth(NamedTuple):
    """Parameters of N nodes, [N] each, per month; their places [N, 2]."""

    gamma: np.ndarray
    beta: np.ndarray
    alpha: np.ndarray
    delta_g: np.ndarray
    omega: np.ndarray
    delta_k: np.ndarray
    places: np.ndarray

    def jump(self, v: int, mark: float) -> np.ndarray:
        """The amount that an event at v adds to all rates."""
        far = np.linalg.norm(self.places - self.places[v], axis=1)
        return self.alpha * np.exp(-self.delta_g * far + self.omega * mark)

    @property
    def radius(self) -> float:
        mean = np.expm1(self.omega) / self.omega  # of e^(omega m), m ~ U(0, 1)
        far = np.linalg.norm(self.places[:, None] - self.places, axis=2)
        children = self.alpha / self.delta_k * mean
        matrix = children[:, None] * np.exp(-self.delta_g[:, None] * far)
        return float(np.abs(np.linalg.eigvals(matrix)).max())


def truth_of(nodes: int, generator: np.random.Generator) -> Truth:
    """Parameters from the paper's distributions; with one node, the printed values. They are drawn
    again until the spectral radius is below .9, so that the process is stable."""
    side = SIDE * max(nodes / 25, 1) ** 0.5
    while True:
        draw = generator.random((6, nodes))
        places = side * generator.random((nodes, 2))
        if nodes == 1:
            return Truth(*(np.array([v]) for v in ONE.values()), places)
        gamma, beta, alpha, delta_g, omega, delta_k = draw
        found = Truth(
            gamma + 1e-3, beta, 1 + alpha, 6 + 12 * delta_g, omega + 1e-3, 10 + 20 * delta_k, places
        )
        if found.radius < 0.9:
            return found


def data_of(truth: Truth, months: int, generator: np.random.Generator) -> tuple[tr.Events, Any]:
    """Events of one simulation, and the covariate."""
    nodes = len(truth.gamma)
    y = generator.random((months, nodes))
    edges = np.arange(months + 1.0)
    time, node, mark = simulate(
        truth.gamma * np.exp(truth.beta * y),
        edges,
        truth.jump,
        truth.delta_k,
        generator.random,
        generator,
    )
    names = [f"p{i}" for i in range(nodes)]
    table = pd.DataFrame(
        {
            "t": time * MONTH,
            "place": [names[u] for u in node],
            "m": mark,
            "id": np.arange(len(time)),
        }
    )
    where = pd.DataFrame({"place": names, "x": truth.places[:, 0], "y": truth.places[:, 1]})
    events = tr.Events.from_frame(
        table,
        time="t",
        place="place",
        marks=["m"],
        id="id",
        resolution=0,
        places=where,
        window=(0.0, months * MONTH),
    )
    steps = tr.data.event_features.StepCovariates(
        torch.from_numpy(y[:, :, None]), torch.from_numpy(edges * MONTH), ["y"]
    )
    return events, steps


def estimates(
    model: tr.models.Stemmed, truth: Truth
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For each parameter, [N, 6]: estimate, ends of the 95 % interval, and the truth, on the scales
    of `PARAMETERS`, per month. The scaling of marks and covariates is undone."""
    w, covariance = model.working_.numpy(), model.covariance_.numpy()
    mean, scale = model.problem_.scaling[:, 0].tolist()
    mark_mean, mark_scale = model.events_.mark_scaler.numbers["m"]
    # Working coordinates: log gamma, beta, log nu, softplus^-1 delta_g, omega, log delta_k.
    rows = np.zeros((6, 6))
    rows[0, [0, 1]] = 1, -mean / scale
    rows[1, 1] = 1 / scale
    rows[2, [2, 4, 5]] = 1, -mark_mean / mark_scale, 1
    rows[3, 3] = 1
    rows[4, 4] = 1 / mark_scale
    rows[5, 5] = 1
    value = w @ rows.T
    sd = np.sqrt(np.maximum(np.einsum("ai,nij,aj->na", rows, covariance, rows), 0))
    ends = [value + z * 1.959964 * sd for z in (-1, 1)]
    far = np.linalg.norm(truth.places[:, None] - truth.places, axis=2).max()

    def natural(x: np.ndarray) -> np.ndarray:
        x = x.copy()
        x[:, [0, 2, 5]] += np.log(MONTH)
        x[:, 3] = np.logaddexp(0, x[:, 3]) / (far if far > 0 else 1)
        return x

    target = np.stack(
        [
            np.log(truth.gamma),
            truth.beta,
            np.log(truth.alpha),
            truth.delta_g,
            truth.omega,
            np.log(truth.delta_k),
        ],
        1,
    )
    return natural(value), natural(ends[0]), natural(ends[1]), target


def cell(nodes: int, months: int, repeats: int, seed: int) -> dict[str, Any]:
    """Fits of `repeats` simulations, each alone and under a prior."""
    found: dict[str, Any] = {"alone": [], "pooled": [], "events": []}
    for repeat in range(repeats):
        generator = np.random.default_rng([seed, nodes, months, repeat])
        truth = truth_of(nodes, generator)
        events, steps = data_of(truth, months, generator)
        found["events"].append(len(events) / nodes)
        for name in ("alone", "pooled"):
            model = tr.models.Stemmed(
                theta="none", recent_rate=False, pooled=name == "pooled", stable=nodes > 1
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(events, steps)
            value, low, high, target = estimates(model, truth)
            inside = (low <= target) & (target <= high)
            held = model.problem_.held.numpy()
            error = np.where(held, np.nan, value - target)
            found[name].append(
                {
                    "value": value.tolist(),
                    "error": error.tolist(),
                    "inside": np.where(held, np.nan, inside).tolist(),
                }
            )
    return found


def run(context: Context) -> None:
    sizes = QUICK if context.quick else REPEATS
    found = context.cells(
        {
            f"N={n}.T={t}": partial(cell, n, t, repeats, context.seed)
            for (n, t), repeats in sizes.items()
        },
        {"repeats": [[*size, r] for size, r in sizes.items()]},
    )
    rows = []
    for (n, t), repeats in sizes.items():
        one = found[f"N={n}.T={t}"]
        for name in ("alone", "pooled"):
            error, inside = (
                np.concatenate([np.array(r[part], dtype=float) for r in one[name]])
                for part in ("error", "inside")
            )
            label = {"alone": "alone", "pooled": "pooled" if n >= 10 else "weak prior"}[name]
            row: dict[str, Any] = {"N": n, "T": t, "fit": label, "runs": repeats}
            row["events a node"] = float(np.mean(one["events"]))
            for a, parameter in enumerate(PARAMETERS):
                if np.isnan(error[:, a]).all():
                    continue
                row[f"{parameter}: bias"] = np.nanmean(error[:, a])
                row[f"{parameter}: RMSE"] = np.nanmean(error[:, a] ** 2) ** 0.5
                row[f"{parameter}: median"] = np.nanmedian(np.abs(error[:, a]))
                row[f"{parameter}: cover"] = np.nanmean(inside[:, a])
            rows.append(row)
    full = pd.DataFrame(rows)
    context.table(full.set_index("N"), "all_results", title="All figures")
    head = ["N", "T", "fit", "runs", "events a node"]
    titles = {
        "RMSE": "Root mean squared errors",
        "median": "Medians of the absolute errors",
        "cover": "Coverage of 95 %",
        "bias": "Bias",
    }
    for part, title in titles.items():
        columns = [c for c in full.columns if c.endswith(f": {part}")]
        table = full[head + columns].rename(columns=lambda c: c.removesuffix(f": {part}"))
        context.table(table.set_index("N"), part.lower(), title=f"{title}, over nodes and runs")
    if context.can_plot():
        laws = {
            t: np.array([r["value"][0] for r in found[f"N=1.T={t}"]["alone"]])
            for (n, t) in sizes
            if n == 1
        }
        context.figure(plot(laws, ONE, PRINTED), "sampling_law")
