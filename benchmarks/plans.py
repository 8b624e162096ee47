"""Plans under constraints, against sorting, HiGHS and networkx.

Most instances are simulated here. The streets of Washington and the network rostami311 are read
from $TOPREACH_DATA; without them their tasks are left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

import topreach as tr

OURS, SAMPLED = "topreach", "topreach, 100 draws"
SECONDS = 60.0  # time limit of a peer
SORT, SOLVER, NETWORKX = "one sort (torch)", "HiGHS (scipy), at most 60 s", "networkx"
SPOPT = "spopt"  # its MCLP, through PuLP, if both are installed

QUOTA = "quota top-K: S=1,000,000 K=10,000, 1,000 groups"
EXPECTED = "expected quotas, value + gradient: S=809 K=162, 39 groups"
SPILLOVER = "spillover: n=99,856 lattice, K=2,000"
HUBS = "spillover: n=100,000 with hubs, K=2,000"
CALL_IN = "call-in, exact form: n=99,856 lattice, K=2,000"
COVERING = "maximal coverage: n=3,000, K=50, gap ≤ 1 %"
STEINER = "Steiner trees of rostami311, exact, with roles: 100 sets of 8 terminals"
TOURS = {
    (6, 4): "tours of Washington: 4 of at most 6 streets",
    (12, 4): "tours of Washington: 4 of at most 12 streets",
    (12, 8): "tours of Washington: 8 of at most 12 streets",
    (15, 4): "tours of Washington: 4 of at most 15 streets",
}
Contenders = dict[str, Callable[[], object]]


class Sizes(NamedTuple):
    """The sizes in the tasks' names."""

    sites: int = 1_000_000
    side: int = 316
    hubs: int = 100_000
    chosen: int = 2000
    places: int = 3000
    sets: int = 100


SIZES = Sizes()


def _data(*parts: str) -> Path | None:
    root = os.environ.get("TOPREACH_DATA")
    path = Path(root, *parts) if root else None
    return path if path is not None and path.exists() else None


def quota_task() -> Contenders:
    torch.manual_seed(0)
    scores = torch.randn(SIZES.sites)
    groups = torch.arange(SIZES.sites) // 1000
    return {
        OURS: lambda: tr.quota_topk(scores, SIZES.sites // 100, groups=groups, lower=1),
        SORT: lambda: scores.sort(descending=True),
    }


def expected_task() -> Contenders:
    torch.manual_seed(0)
    scores = torch.randn(809, dtype=torch.float64).requires_grad_()
    groups = torch.cat([torch.arange(39), torch.randint(39, (770,))])
    v, key = torch.randn(809, dtype=torch.float64), torch.tensor([1, 2])
    settings = {"groups": groups, "lower": 1, "sigma": 0.1}

    def exact() -> None:
        torch.autograd.grad(tr.expected_quota_topk(scores, 162, **settings), scores, v)

    def sampled() -> None:
        chance = tr.perturbed_quota_topk(
            scores, 162, **settings, num_samples=100, estimator="conditional", key=key
        )
        torch.autograd.grad(chance, scores, v)

    return {OURS: exact, SAMPLED: sampled}


@cache
def lattice_pairs(side: int) -> np.ndarray:
    """Edges of a triangulated lattice with random diagonals, which is planar."""
    node = np.arange(side * side).reshape(side, side)
    down = np.random.default_rng(0).random((side - 1, side - 1)) < 0.5
    across = np.where(
        down[..., None],
        np.stack([node[:-1, :-1], node[1:, 1:]], -1),
        np.stack([node[:-1, 1:], node[1:, :-1]], -1),
    ).reshape(-1, 2)
    sides = [np.stack([node[:-1], node[1:]], -1), np.stack([node[:, :-1], node[:, 1:]], -1)]
    return np.concatenate([across, *(part.reshape(-1, 2) for part in sides)])


@cache
def lattice(side: int) -> tuple[list[str], tr.Graph]:
    return _graph(side * side, lattice_pairs(side))


@cache
def hubs(nodes: int, each: int = 3) -> tuple[list[str], tr.Graph]:
    """A network made by preferential attachment."""
    draw, ends, pairs = np.random.default_rng(0), [0], []
    for node in range(1, nodes):
        for place in draw.integers(len(ends), size=min(each, node)):
            pairs.append((node, ends[place]))
        ends += [node, *(to for _, to in pairs[-min(each, node) :])]
    return _graph(nodes, np.array(pairs))


def _graph(nodes: int, pairs: np.ndarray) -> tuple[list[str], tr.Graph]:
    ids = [str(i) for i in range(nodes)]
    named = pd.DataFrame(pairs.astype(str), columns=["from", "to"])
    return ids, tr.Graph.from_edges(named, ids)


def _chances(ids: list[str]) -> pd.Series:
    return pd.Series(np.random.default_rng(1).random(len(ids)), ids)


def spillover_plan(with_hubs: bool = False) -> tr.plan.Plan:
    ids, graph = hubs(SIZES.hubs) if with_hubs else lattice(SIZES.side)
    return tr.plan.spillover(
        _chances(ids), graph, SIZES.chosen, treated=0.5, spilled=0.2, gap=1e-4, time=2.0
    )


def call_in_plan() -> tr.plan.Plan:
    ids, graph = lattice(SIZES.side)
    draw = np.random.default_rng(2)
    comes, passes = (pd.Series(draw.uniform(low, low + 0.6, len(ids)), ids) for low in (0.2, 0.3))
    return tr.plan.call_in(ids, graph, SIZES.chosen, comes=comes, passes=passes, gap=5e-4, time=6.0)


def solver_spillover() -> None:
    """The same program with scipy's HiGHS: max (p_l - p_s)·x + p_s·z, z_i <= sum over N[i] of x."""
    from scipy import optimize, sparse

    ids, _ = lattice(SIZES.side)
    p, n = _chances(ids).to_numpy(), len(ids)
    start, end = lattice_pairs(SIZES.side).T
    near = sparse.coo_matrix((np.ones(len(start)), (start, end)), (n, n))
    near = (near + near.T + sparse.eye(n)).tocsr()
    rows = sparse.vstack(
        [
            sparse.hstack([near, -sparse.eye(n)]),
            sparse.hstack([np.ones((1, n)), sparse.csr_matrix((1, n))]),
        ]
    )
    limits = optimize.LinearConstraint(
        rows.tocsr(), np.r_[np.zeros(n), SIZES.chosen], np.r_[np.full(n, np.inf), SIZES.chosen]
    )
    found = optimize.milp(
        -np.r_[0.3 * p, 0.2 * p],
        constraints=limits,
        integrality=np.r_[np.ones(n), np.zeros(n)],
        bounds=optimize.Bounds(0, 1),
        options={"mip_rel_gap": 1e-4, "presolve": False, "time_limit": SECONDS},
    )
    assert found.status in (0, 1), found.message  # done, or its time is up


def spillover_task() -> Contenders:
    tasks: Contenders = {OURS: spillover_plan}
    try:
        import scipy  # noqa: F401
    except ImportError:
        return tasks
    return tasks | {SOLVER: solver_spillover}


def covering_task() -> Contenders:
    draw = np.random.default_rng(3)
    places, ids = draw.random((SIZES.places, 2)) * 100, [str(i) for i in range(SIZES.places)]
    graph = tr.Graph.from_coordinates(ids, *places.T, radius=5.0)
    counts = pd.Series(draw.poisson(3.0, SIZES.places).astype(float), ids)
    tasks: Contenders = {OURS: lambda: tr.plan.coverage(counts, graph, 50, gap=0.01)}
    try:
        import pulp
        from spopt.locate import MCLP
    except ImportError:
        return tasks
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1)

    def theirs() -> None:
        problem = MCLP.from_cost_matrix(distance, counts.to_numpy(), 5.0, p_facilities=50)
        problem.solve(pulp.PULP_CBC_CMD(msg=False, gapRel=0.01))

    return tasks | {SPOPT: theirs}


def steiner_task() -> Contenders:
    folder = _data("networks", "rostami311")
    assert folder is not None
    edges = pd.read_csv(folder / "Edges.csv", dtype=str)[["From", "To"]]
    graph = tr.Graph.from_edges(edges)
    draw = np.random.default_rng(4)
    sets = [list(draw.choice(graph.ids, 8, replace=False)) for _ in range(SIZES.sets)]
    tasks: Contenders = {OURS: lambda: [tr.plan.subgraph(graph, terminals) for terminals in sets]}
    try:
        import networkx
    except ImportError:
        return tasks
    other = networkx.from_pandas_edgelist(edges, "From", "To")
    other.remove_edges_from(networkx.selfloop_edges(other))
    largest = other.subgraph(max(networkx.connected_components(other), key=len)).copy()

    def theirs() -> None:
        for terminals in sets:
            inside = [t for t in terminals if t in largest]
            networkx.algorithms.approximation.steiner_tree(largest, inside, method="mehlhorn")

    return tasks | {NETWORKX: theirs}


@cache
def streets() -> tuple[pd.Series, pd.Series, tr.Graph]:
    folder = _data("dc_street_units")
    assert folder is not None
    table = pd.read_csv(next(folder.glob("*.csv")))
    ids = [str(i) for i in range(len(table))]
    graph = tr.Graph.from_coordinates(ids, table["XMeters"], table["YMeters"], delaunay=True)
    crime, area = (pd.Series(table[name].to_numpy(), ids) for name in ("TotalCrime", "TotalArea"))
    return crime, area, graph


def tour_plan(most: int, k: int) -> tr.plan.Plan:
    crime, area, graph = streets()
    return tr.plan.tours(crime, graph, k, area=area, pai=10.0, max_size=most, gap=1e-6, time=60.0)


def tour_task(most: int, k: int) -> Contenders:
    streets()
    return {OURS: lambda: tour_plan(most, k)}


TASKS: dict[str, Callable[[], Contenders]] = {
    QUOTA: quota_task,
    EXPECTED: expected_task,
    SPILLOVER: spillover_task,
    HUBS: lambda: {OURS: lambda: spillover_plan(with_hubs=True)},
    CALL_IN: lambda: {OURS: call_in_plan},
    COVERING: covering_task,
}
if _data("networks", "rostami311") is not None:
    TASKS[STEINER] = steiner_task
if _data("dc_street_units") is not None:
    TASKS |= {TOURS[size]: partial(tour_task, *size) for size in TOURS}


def gap(task: str) -> float | None:
    """The relative gap of a task's plan, in per cent."""
    plans = {SPILLOVER: spillover_plan, HUBS: lambda: spillover_plan(True), CALL_IN: call_in_plan}
    plans |= {TOURS[size]: partial(tour_plan, *size) for size in TOURS}
    if task not in TASKS:
        return None
    return 100 * float(plans[task]().gap or 0.0)
