"""Reports of a fitted point process: parameters, network, triggered shares, residuals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from topreach.data import columns as _columns
from topreach.data.event_features import period_calendar
from topreach.data.sites import period_of

if TYPE_CHECKING:
    from topreach.models.stemmed.model import Stemmed

DRAWS = 200  # of the parameters, for bands

_ops = torch.ops.topreach


def summary(model: Stemmed, level: float) -> pd.DataFrame:
    """See `Stemmed.summary`."""
    if not 0 < level < 1:
        raise ValueError(f"Stemmed.summary: level must lie between 0 and 1, got {level!r}.")
    problem, p = model.problem_, model.problem_.num_covariates
    working = model.working_
    se = model.covariance_.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
    z = float(torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64)))
    names = [
        "base_rate",
        *problem.covariates,
        "children",
        "distance_decay",
        *problem.names[p + 3 : -1],
        "mean_lag",
    ]
    last = len(names) - 1

    def natural(a: int, w: Tensor) -> Tensor:
        if a in (0, p + 1):
            return w.exp()
        if a == p + 2:
            return torch.nn.functional.softplus(w)
        return (-w).exp() if a == last else w

    parts = []
    nodes = [f"{place} | {kind}" for place, kind in model.events_.nodes]
    for a, name in enumerate(names):
        ends = [natural(a, working[:, a] + sign * z * se[:, a]).numpy() for sign in (-1, 1)]
        parts.append(
            pd.DataFrame(
                {
                    "node": nodes,
                    "parameter": name,
                    "estimate": natural(a, working[:, a]).numpy(),
                    "lower": np.minimum(*ends),
                    "upper": np.maximum(*ends),
                    "working": working[:, a].numpy(),
                    "se": se[:, a].numpy(),
                    "held": problem.held[:, a].numpy(),
                    "_order": a,
                }
            )
        )
    table = pd.concat(parts)
    table["_node"] = np.tile(np.arange(len(nodes)), len(names))
    table = table.sort_values(["_node", "_order"], kind="stable").reset_index(drop=True)
    return table.drop(columns=["_node", "_order"])


def network(model: Stemmed, at: Any) -> pd.DataFrame:
    """See `Stemmed.network`."""
    events, problem = model.events_, model.problem_
    natural, p = model.parameters_, problem.num_covariates
    nodes = problem.num_nodes
    theta = torch.ones(nodes, nodes, dtype=torch.float64)
    if problem.now.joint is not None:
        moment = events.duration
        if at is not None:
            moment = events.moment(at, name="Stemmed.network", argument="at") - events.start
        shared = events.shared_types([moment])
        tables = _ops.hawkes_network(shared.together, shared.events, model.options.theta)
        theta = _ops.hawkes_theta(*tables, problem.now.prior_weight, 0)
    repeats = nodes // len(problem.now.distance)
    distance = problem.now.distance.repeat_interleave(repeats, 0).repeat_interleave(repeats, 1)
    a = torch.exp(natural[:, p + 1, None] - natural[:, p + 2, None] * distance) * theta
    names = [f"{place} | {kind}" for place, kind in events.nodes]
    return pd.DataFrame(a.numpy(), index=names, columns=names)


def triggered_share(model: Stemmed, by: str, every: str | None) -> pd.DataFrame:
    """See `Stemmed.triggered_share`."""
    name = "Stemmed.triggered_share"
    _columns.check_one_of(name, "by", by, ("place", "type", "node", "all"))
    events, problem = model.events_, model.problem_
    groups, labels = _groups(model, by)
    edges = problem.arguments.edges.numpy()
    period, periods = np.zeros(len(edges) - 1, int), ["all"]
    if every is not None:
        calendar = period_calendar(every, events, name)
        number = period_of(events.start + edges[:-1], calendar).astype(int)
        found, period = np.unique(number, return_inverse=True)
        periods = [calendar.label(calendar.at(int(i))) for i in found]
    generator = torch.Generator().manual_seed(0)
    draws = [model.working_, *model.draws(DRAWS, generator)]
    shares = torch.stack(
        [_share(model, w, groups, torch.from_numpy(period), len(periods)) for w in draws]
    )
    low, high = shares[1:].quantile(0.05, dim=0), shares[1:].quantile(0.95, dim=0)
    return pd.DataFrame(
        {
            "period": np.repeat(np.array(periods, dtype=object), len(labels)),
            by if by != "all" else "of": labels * len(periods),
            "share": shares[0].flatten().numpy(),
            "lower": low.flatten().numpy(),
            "upper": high.flatten().numpy(),
        }
    )


def _groups(model: Stemmed, by: str) -> tuple[Tensor, list[str]]:
    events = model.events_
    nodes, types = model.problem_.num_nodes, events.num_types
    number = torch.arange(nodes)
    if by == "place":
        return number // types, list(events.places)
    if by == "type":
        return number % types, list(events.types)
    if by == "node":
        return number, [f"{p} | {s}" for p, s in events.nodes]
    return torch.zeros(nodes, dtype=torch.int64), ["all"]


def _share(model: Stemmed, working: Tensor, groups: Tensor, period: Tensor, periods: int) -> Tensor:
    """1 - ∫μ / ∫λ, [periods, groups]."""
    problem = model.problem_
    natural = _ops.hawkes_natural(working, problem.num_covariates)
    nodes = torch.arange(problem.num_nodes)
    *_, total, base = _ops.hawkes_course(*problem.arguments, nodes, natural)
    size = int(groups.max()) + 1
    sums = []
    for values in (total, base):
        by_group = torch.zeros(size, values.shape[1], dtype=torch.float64)
        by_group.index_add_(0, groups, values)
        by_period = torch.zeros(periods, size, dtype=torch.float64)
        by_period.index_add_(0, period, by_group.T.contiguous())
        sums.append(by_period)
    return 1 - sums[1] / sums[0]


@dataclass(frozen=True)
class Residuals:
    """Increments of the compensator between own events, Exp(1) under the model.

    increments: float64 [n], node by node. node: int64 [n]. ks: the largest distance of their
    distribution from Exp(1). table: a row per node: events, expected, ks.
    """

    increments: Tensor
    node: Tensor
    ks: float
    table: pd.DataFrame

    def qq(self, points: int = 99) -> pd.DataFrame:
        """Quantiles: probability, expected under Exp(1), observed."""
        p = (np.arange(points) + 0.5) / points
        return pd.DataFrame(
            {
                "probability": p,
                "expected": -np.log1p(-p),
                "observed": np.quantile(self.increments.numpy(), p),
            }
        )


def residuals(model: Stemmed) -> Residuals:
    """See `Stemmed.residuals`."""
    problem = model.problem_
    nodes = torch.arange(problem.num_nodes)
    start, _, _, compensator, total, _ = _ops.hawkes_course(
        *problem.arguments, nodes, model.parameters_
    )
    parts, owner, rows = [], [], []
    names = [f"{p} | {s}" for p, s in model.events_.nodes]
    for u in range(problem.num_nodes):
        own = compensator[start[u] : start[u + 1]]
        steps = torch.diff(own, prepend=torch.zeros(1, dtype=torch.float64))
        parts.append(steps)
        owner.append(torch.full((len(own),), u))
        rows.append((names[u], len(own), float(total[u].sum()), _ks(steps)))
    steps = torch.cat(parts)
    return Residuals(
        steps,
        torch.cat(owner),
        _ks(steps),
        pd.DataFrame(rows, columns=["node", "events", "expected", "ks"]),
    )


def _ks(steps: Tensor) -> float:
    """Largest distance between the steps' distribution and Exp(1); NaN without steps."""
    if not len(steps):
        return math.nan
    cdf = -torch.expm1(-steps.sort().values)
    n = len(cdf)
    upper = torch.arange(1, n + 1, dtype=torch.float64) / n
    return float(torch.maximum(upper - cdf, cdf - (upper - 1 / n)).max())
