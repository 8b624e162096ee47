"""Programs that are solved by search: budgets, spacing, connected plans, coverage of a network.

Each function makes a `Program`: the ranker ranks and trains for it, model files keep it, and C++
has it by the same name. `soft` is by perturbation. The functions of `topreach.plan` solve them for
scores at hand.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from topreach import _C
from topreach.data.graph import Graph
from topreach.programs.solver import find_highs


def Budget(
    budget: float, cost: Any, k: int | None = None, *, sites: Any = None, **how: Any
) -> _C.Program:
    """Sites for a budget: c.x <= budget, and, if given, K of them; see `topreach.plan.budget_topk`.

    Args:
        cost: [S] >= 0, in the order of the sites, or a Series by id.
        sites: ids of the costs, if they are not in the ranker's order.
        how: `gap`, the relative gap that is good enough (1e-4), and `time`, seconds a plan.

    Example:
        >>> program = tr.programs.Budget(8.0, [3, 2, 2])
        >>> program.best(torch.tensor([5.0, 4.0, 3.0]))
    """
    columns = {"cost": cost}
    return _make("Budget", k, columns, sites, {"budget": float(budget)}, how)


def Spaced(k: int, x: Any, y: Any, distance: float, *, sites: Any = None, **how: Any) -> _C.Program:
    """K sites, no two less than `distance` apart in the plane; see `topreach.plan.spaced`."""
    return _make("Spaced", k, {"x": x, "y": y}, sites, {"distance": float(distance)}, how)


def Connected(k: int, graph: Graph, **how: Any) -> _C.Program:
    """K sites that hang together in the graph; see `topreach.plan.connected`."""
    return _network("Connected", k, graph, {}, how)


def Coverage(k: int, graph: Graph, **how: Any) -> _C.Program:
    """K sites; what counts is the y of all sites that are chosen or next to one; see
    `topreach.plan.coverage`."""
    return _network("Coverage", k, graph, {}, how)


def Spillover(
    k: int,
    graph: Graph,
    treated: Any = 1.0,
    spilled: Any = 0.5,
    compliance: Any = 1.0,
    **how: Any,
) -> _C.Program:
    """K people to treat, whose neighbours profit too; see `topreach.plan.spillover`.

    `reach(plan, y)` is what the plan saves of y. DirectBPR and DAML train for it; SPO+ and PG take
    a plan for a sum over its sites, which this is not.

    Args:
        treated, spilled: share of a person's events that being treated, or knowing someone who is,
            prevents: a number, or [N] in the order of the graph. compliance: chance to come.
    """
    columns = {"treated": treated, "spilled": spilled, "compliance": compliance}
    return _network("Spillover", k, graph, columns, how)


def CallIn(k: int, graph: Graph, comes: Any = 1.0, passes: Any = 1.0, **how: Any) -> _C.Program:
    """K people to call in; `reach(plan, y)` is the expected y of who hears the message; see
    `topreach.plan.call_in`. Train as for `Spillover`."""
    return _network("CallIn", k, graph, {"comes": comes, "passes": passes}, how)


def _network(
    name: str, k: int, graph: Graph, columns: dict[str, Any], how: dict[str, Any]
) -> _C.Program:
    rows = np.repeat(np.arange(graph.num_nodes), np.diff(graph.core.start))
    once = rows < graph.core.neighbours
    edges = {"from": rows[once].tolist(), "to": graph.core.neighbours[once].tolist()}
    return _make(name, k, columns, graph.ids, edges, how)


def _make(
    name: str,
    k: int | None,
    columns: dict[str, Any],
    sites: Any,
    rest: dict[str, Any],
    how: dict[str, Any],
) -> _C.Program:
    find_highs()
    unknown = set(how) - {"gap", "time"}
    if unknown:
        raise TypeError(f"{name}: got an unexpected argument {min(unknown)!r}.")
    ids = None if sites is None else [str(site) for site in sites]
    made: dict[str, Any] = dict(rest)
    if k is not None:
        made["k"] = float(k)
    for argument, value in how.items():
        if math.isfinite(value):
            made[argument] = float(value)
    for argument, values in columns.items():
        if hasattr(values, "index") and hasattr(values, "to_numpy"):  # a Series
            named = [str(site) for site in values.index]
            if ids is None:
                ids = named
            values = values.set_axis(named).reindex(ids).to_numpy()
        if np.ndim(values) == 0:
            values = np.full(len(ids or ()), float(values))
        made[argument] = np.asarray(values, dtype=float).tolist()
    made["sites"] = ids or []
    return _C.make_program(name, made)
