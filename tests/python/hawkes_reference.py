"""The networked Hawkes process from its definition: double sums, small simulators, random cases."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import integrate

import topreach as tr


@dataclass(frozen=True)
class Case:
    """A problem of M = I S nodes in numpy; theta [B, M, M] is computed from the tables here.

    together [Q, I, S, S] and events [Q, I]: what `hawkes_network` takes; kind: its kind, or "none".
    """

    time: np.ndarray
    node: np.ndarray
    marks: np.ndarray
    edges: np.ndarray
    weights: np.ndarray
    covariates: np.ndarray  # [B, M, p]
    distance: np.ndarray  # [I, I]
    refresh: np.ndarray
    together: np.ndarray
    events: np.ndarray
    kind: str = "jaccard"
    prior_weight: float = 5.0

    @property
    def places(self) -> int:
        return len(self.distance)

    @property
    def types(self) -> int:
        return self.together.shape[-1]

    @property
    def nodes(self) -> int:
        return self.places * self.types

    @property
    def size(self) -> int:
        return self.covariates.shape[2] + self.marks.shape[1] + 4

    def arguments(self) -> tuple:
        """The first twelve arguments of the operators."""
        tables: tuple = (None, None, None)
        if self.kind != "none":
            together, events = torch.from_numpy(self.together), torch.from_numpy(self.events)
            tables = torch.ops.topreach.hawkes_network(together, events, self.kind)
        plain = (self.time, self.node, self.marks, self.edges, self.weights, self.covariates)
        plain = (*plain, self.distance, self.refresh)
        return (*(torch.from_numpy(np.ascontiguousarray(a)) for a in plain), *tables, 5.0)

    def theta(self, k: int) -> np.ndarray:
        """theta [M, M] in block k, from the counts of types that occur together [STEMMED Eq. 6]."""
        if self.kind == "none":
            return np.ones((self.nodes, self.nodes))
        c, n = self.together[self.refresh[k]], self.events[self.refresh[k]]
        found = np.zeros((self.nodes, self.nodes))
        for u in range(self.nodes):
            for v in range(self.nodes):
                (i, s), (j, t) = divmod(u, self.types), divmod(v, self.types)
                near = sorted({i, j})

                def ratio(at: Any, s: int = s, t: int = t) -> tuple[float, float]:
                    both = sum(c[a, s, t] for a in at)
                    if self.kind == "share":
                        return both, sum(n[a] for a in at)
                    return both, sum(c[a, s, s] + c[a, t, t] - c[a, s, t] for a in at)

                both, either = ratio(near)
                every_both, every = ratio(range(self.places))
                prior = every_both / every if every > 0 else float(s == t)
                found[u, v] = both + self.prior_weight * prior
                found[u, v] /= either + self.prior_weight
        return found

    def block(self, at: Any) -> Any:
        """k with b_k < t <= b_{k+1}."""
        return np.clip(np.searchsorted(self.edges, at, side="left") - 1, 0, len(self.weights) - 1)

    def jump(self, u: int, z: np.ndarray) -> np.ndarray:
        """alpha e^(-delta_g dist + omega m) of each event on node u, without theta, [N]."""
        p = self.covariates.shape[2]
        far = self.distance[u // self.types, self.node // self.types]
        return np.exp(z[1 + p] - z[2 + p] * far + self.marks @ z[3 + p : -1])

    def base(self, u: int, z: np.ndarray, k: int) -> float:
        p = self.covariates.shape[2]
        return float(np.exp(z[0] + self.covariates[k, u] @ z[1 : 1 + p]))

    def intensity(self, u: int, z: np.ndarray, t: float, k: int | None = None) -> float:
        k = int(self.block(t)) if k is None else k
        past = self.time < t
        theta = self.theta(k)[u, self.node[past]]
        alive = np.exp(-z[-1] * (t - self.time[past]))
        return self.base(u, z, k) + float((theta * self.jump(u, z)[past] * alive).sum())

    def integral(self, u: int, z: np.ndarray, low: float, high: float, k: int) -> float:
        """int of lambda over (low, high] in block k, event by event."""
        on = self.time < high
        since = np.maximum(low, self.time[on]) - self.time[on]
        mass = np.exp(-z[-1] * since) - np.exp(-z[-1] * (high - self.time[on]))
        theta = self.theta(k)[u, self.node[on]]
        excited = float((theta * self.jump(u, z)[on] * mass).sum()) / z[-1]
        return self.base(u, z, k) * (high - low) + excited

    def own(self, u: int) -> np.ndarray:
        inside = (self.time > self.edges[0]) & (self.time <= self.edges[-1])
        return self.time[inside & (self.node == u)]

    def log_likelihood(self, u: int, z: np.ndarray) -> float:
        value = sum(
            self.weights[self.block(t)] * np.log(self.intensity(u, z, t)) for t in self.own(u)
        )
        for k, weight in enumerate(self.weights):
            value -= weight * self.integral(u, z, self.edges[k], self.edges[k + 1], k)
        return float(value)

    def quadrature(self, u: int, z: np.ndarray) -> float:
        """int of the weighted lambda over the window, numerically, between all its jumps."""
        inner = self.time[(self.time > self.edges[0]) & (self.time < self.edges[-1])]
        cuts = np.unique(np.concatenate([self.edges, inner]))
        total = 0.0
        for low, high in zip(cuts, cuts[1:], strict=False):
            k = int(self.block(0.5 * (low + high)))

            def at(t: float, k: int = k) -> float:
                return self.intensity(u, z, t, k)

            total += self.weights[k] * integrate.quad(at, low, high, epsabs=0, epsrel=1e-11)[0]
        return total

    def changed(self, **fields: Any) -> Case:
        return replace(self, **fields)


def random_case(seed: int = 0, *, kind: str = "jaccard", events: int = 60) -> Case:
    """2 places x 2 types, 2 covariates, 2 marks, 5 blocks; with history, ties, an event on an edge
    and one at the end."""
    draw = np.random.default_rng(seed)
    end, blocks, places, types = 20.0, 5, 2, 2
    time = np.sort(draw.uniform(-2.0, end, events))
    edges = np.r_[0.0, np.sort(draw.uniform(1.0, end - 1.0, blocks - 1)), end]
    time[20:23] = time[20]
    time[40] = edges[3]
    time[-1] = end
    time = np.sort(time)
    alone = draw.integers(2, 9, (3, places, types)).cumsum(0)
    both = (alone.min(2) * draw.random((3, places))).astype(int)
    together = np.zeros((3, places, types, types))
    together[..., [0, 1], [0, 1]] = alone
    together[..., 0, 1] = together[..., 1, 0] = both
    return Case(
        time,
        draw.integers(places * types, size=events),
        draw.normal(size=(events, 2)) * 0.5,
        edges,
        draw.uniform(0.5, 1.5, blocks),
        draw.normal(size=(blocks, places * types, 2)),
        np.array([[0.0, 0.7], [0.7, 0.0]]),
        np.array([0, 0, 1, 1, 2]),
        together,
        (alone.sum(2) - both).astype(float),
        kind,
    )


def random_parameters(case: Case, seed: int = 1) -> np.ndarray:
    """Natural parameters [M, P] of a stable process."""
    draw = np.random.default_rng(seed)
    z = draw.normal(size=(case.nodes, case.size)) * 0.3
    p = case.covariates.shape[2]
    z[:, 0] -= 0.7
    z[:, 1 + p] -= 0.6
    z[:, 2 + p] = draw.uniform(0.2, 1.0, case.nodes)
    z[:, -1] = draw.uniform(1.5, 3.0, case.nodes)
    return z


# ---- one network of clusters ---------------------------------------------------------------------


def clusters(
    rate: np.ndarray, children: np.ndarray, lag: np.ndarray, end: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Events of a Hawkes process, simulated as a branching process from an empty past.

    rate [M]: immigrants per unit of time. children [M, M]: expected children at u (row) of an event
    at v (column). lag [M]: mean lag of a child at u. Returns times, nodes, and whether each is an
    immigrant.
    """
    draw = np.random.default_rng(seed)
    nodes = len(rate)
    waiting = [
        (t, u, True)
        for u in range(nodes)
        for t in draw.uniform(0, end, draw.poisson(rate[u] * end))
    ]
    found = []
    while waiting:
        t, v, first = waiting.pop()
        found.append((t, v, first))
        for u in range(nodes):
            for wait in draw.exponential(lag[u], draw.poisson(children[u, v])):
                if t + wait <= end:
                    waiting.append((t + wait, u, False))
    found.sort()
    time, node, immigrant = (np.array(part) for part in zip(*found, strict=True))
    return time, node, immigrant


def table_of(time: np.ndarray, node: np.ndarray, types: int = 1) -> pd.DataFrame:
    place, kind = np.divmod(node, types)
    return pd.DataFrame(
        {
            "t": time,
            "place": [f"p{i}" for i in place],
            "type": [f"s{s}" for s in kind],
            "id": [f"e{i}" for i in range(len(time))],
        }
    )


def events_of(
    time: np.ndarray, node: np.ndarray, end: float, *, places: int, types: int = 1, **options: Any
) -> tr.Events:
    """An Events table of numbers; each event of one type."""
    table = table_of(time, node, types)
    # Types are columns of 0 and 1, so that a type without events is kept.
    names = [f"s{s}" for s in range(types)]
    for name in names:
        table[name] = (table["type"] == name).astype(int)
    where = options.pop("where", None)
    if where is None:
        where = [f"p{i}" for i in range(places)]
    return tr.Events.from_frame(
        table,
        time="t",
        place="place",
        types=names,
        id="id",
        places=where,
        resolution=options.pop("resolution", 0),
        window=(0.0, end),
        **options,
    )
