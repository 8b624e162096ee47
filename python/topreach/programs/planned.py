"""Programs that are solved by search: budgets, spacing, connected plans, coverage of a network,
fairness.

Each function makes a `Program`. The ranker ranks and trains for it, model files keep it, and C++
has it under the same name. `soft` uses perturbation. The functions of `topreach.plan` solve the
same problems for given scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np

from topreach import _C
from topreach.data.graph import Graph
from topreach.programs.arguments import DEFAULTS, ProgramArguments, all_quotas, takes
from topreach.programs.groupings import grouping_of, read_column, read_lock
from topreach.programs.solver import find_highs


@takes(ProgramArguments)
def Budget(
    budget: float,
    cost: Any,
    k: int | None = None,
    *,
    sites: Any = None,
    **shared: Unpack[ProgramArguments],
) -> _C.Program:
    """Sites for a budget: max r.x, c.x <= budget, and, if given, K of them; see
    `topreach.plan.budget_topk`.

    Args:
        budget: >= 0, in the unit of the costs.
        cost: c [S] >= 0, in the order of the sites, or a Series by id.
        k: number of sites; None: any.
        sites: ids [S] of the costs, if they are not in the ranker's order.
        groups, at_least, at_most: one grouping, as for `topreach.plan.Quotas`: a Series or mapping
            by site id, or a list [S] in the order of the sites. quotas: `topreach.plan.Quotas`, or
            several.
        lock_in, lock_out: sites that are always, or never, in the plan: ids, or positions if sites
            have none.
        gap: relative gap that is good enough. time: seconds for each plan.

    Raises:
        ValueError: costs or a budget below 0; quotas that no plan meets, with the group's name.
        TypeError: arguments of another type.

    Example:
        >>> program = Budget(4.0, [3, 2, 2], groups=["a", "b", "b"], at_most={"b": 1})
        >>> program.best(torch.tensor([5.0, 4.0, 3.0]))
        tensor([1., 0., 0.])

    Source: Dantzig 1957, Discrete-variable extremum problems.
    """
    return _make("Budget", k, {"cost": cost}, sites, {"budget": float(budget)}, shared)


@takes(ProgramArguments)
def Spaced(
    k: int,
    x: Any,
    y: Any,
    distance: float,
    *,
    sites: Any = None,
    **shared: Unpack[ProgramArguments],
) -> _C.Program:
    """K sites, no two less than `distance` apart in the plane; see `topreach.plan.spaced`.

    Args:
        k: number of sites.
        x, y: coordinates [S], in the order of the sites, or Series by id.
        distance: > 0, in the unit of the coordinates.
        sites: ids [S], if they are not in the ranker's order.
        Others: as for `Budget`.

    Raises:
        ValueError, TypeError: as for `Budget`; coordinates that do not fit each other. `best`
            raises if there are not K such sites.

    Example:
        >>> Spaced(2, [0, 1, 2], [0, 0, 0], 1.5).best(torch.tensor([5.0, 4.0, 3.0]))
        tensor([1., 0., 1.])
    """
    return _make("Spaced", k, {"x": x, "y": y}, sites, {"distance": float(distance)}, shared)


@takes(ProgramArguments)
def Connected(k: int, graph: Graph, **shared: Unpack[ProgramArguments]) -> _C.Program:
    """K sites that are connected in the graph; see `topreach.plan.connected`.

    Args:
        k: number of sites.
        graph: which sites are neighbours; its ids are those of the sites.
        Others: as for `Budget`.

    Raises:
        ValueError, TypeError: as for `Budget`. `best` raises if no K sites are connected.

    Example:
        >>> graph = Graph.from_edges([("a", "b"), ("b", "c"), ("c", "d")])
        >>> Connected(2, graph).best(torch.tensor([5.0, 1.0, 2.0, 4.0]))
        tensor([1., 1., 0., 0.])
    """
    return _network("Connected", k, graph, {}, shared)


@takes(ProgramArguments)
def Coverage(k: int, graph: Graph, **shared: Unpack[ProgramArguments]) -> _C.Program:
    """K sites that maximise the sum of y over all sites that are chosen or next to a chosen one;
    see `topreach.plan.coverage`.

    `reach(plan, y)` is that sum. For a fractional plan [..., S] it is the expectation if each site
    is chosen independently with that chance, so DirectBPR and DAML can train for it. SPO+ and PG
    need a reach that is a sum over the chosen sites, which this is not.

    Args:
        k: number of sites.
        graph: which sites are within reach of each other; its ids are those of the sites.
        Others: as for `Budget`.

    Raises:
        ValueError, TypeError: as for `Budget`.

    Example:
        >>> graph = Graph.from_edges([("a", "b"), ("b", "c"), ("d", "e")])
        >>> Coverage(1, graph).best(torch.tensor([1.0, 1.0, 1.0, 2.0, 0.0]))
        tensor([0., 1., 0., 0., 0.])

    Source: Church & ReVelle 1974, The maximal covering location problem.
    """
    return _network("Coverage", k, graph, {}, shared)


@takes(ProgramArguments)
def Spillover(
    k: int,
    graph: Graph,
    treated: Any = 1.0,
    spilled: Any = 0.5,
    compliance: Any = 1.0,
    **shared: Unpack[ProgramArguments],
) -> _C.Program:
    """K people to treat, whose neighbours benefit too; see `topreach.plan.spillover`.

    `reach(plan, y)` is the part of y that the plan saves. Train as for `Coverage`.

    Args:
        k: number of people.
        graph: who knows whom; its ids are those of the sites.
        treated, spilled: share of a person's events that being treated, or knowing someone who is,
            prevents: a number, or [N] in the order of the graph, or a Series by id.
        compliance: chance that a chosen person comes, in the same forms.
        Others: as for `Budget`.

    Raises:
        ValueError, TypeError: as for `Budget`; chances outside 0 to 1.

    Example:
        >>> graph = Graph.from_edges([("a", "b"), ("a", "c")])
        >>> program = Spillover(1, graph, treated=0.8, spilled=0.3)
        >>> program.best(torch.tensor([1.0, 1.0, 1.0]))
        tensor([1., 0., 0.])

    Source: Wheeler, "Optimal treatment assignment with network spillovers" (andrewpwheeler.com).
    """
    columns = {"treated": treated, "spilled": spilled, "compliance": compliance}
    return _network("Spillover", k, graph, columns, shared)


@takes(ProgramArguments)
def CallIn(
    k: int,
    graph: Graph,
    comes: Any = 1.0,
    passes: Any = 1.0,
    **shared: Unpack[ProgramArguments],
) -> _C.Program:
    """K people to call in; `reach(plan, y)` is the expected y of those who hear the message; see
    `topreach.plan.call_in`. Train as for `Coverage`.

    Args:
        k: number of people.
        graph: who knows whom; its ids are those of the sites.
        comes, passes: chances to come, and to tell a neighbour: a number, or [N] in the order of
            the graph, or a Series by id.
        Others: as for `Budget`.

    Raises:
        ValueError, TypeError: as for `Budget`; chances outside 0 to 1.

    Example:
        >>> graph = Graph.from_edges([("a", "b"), ("a", "c")])
        >>> program = CallIn(1, graph, comes=0.5, passes=0.5)
        >>> program.best(torch.ones(3))
        tensor([1., 0., 0.])

    Source: Wheeler, "Incorporating treatment non-compliance into call-ins" (andrewpwheeler.com);
    here, whoever comes has heard the message.
    """
    return _network("CallIn", k, graph, {"comes": comes, "passes": passes}, shared)


@takes(ProgramArguments)
def Fair(
    k: int | None,
    fair_to: Any,
    *,
    floors: float | Mapping[str, float] | None = None,
    sites: Any = None,
    **shared: Unpack[ProgramArguments],
) -> _C.Program:
    """Plans that leave no group behind; see `topreach.plan.fair`.

    With floors: max r.x while each group keeps a share of its own total. A plan that keeps the
    floors for the scores may break them for y. So `bpr`, which compares with the best plan that
    keeps them for y, is cut at 1.

    Without floors: `reach(plan, y)` is the least share that a group gets of its own total of y,
    differentiable in the plan; the best plan maximises it. SPO+ and PG need a reach that is a sum
    over the chosen sites, so they suit only the form with floors.

    Args:
        k: number of sites; None: any.
        fair_to: the groups, as `groups` of `Budget`.
        floors: shares from 0 to 1: one number for all groups, or by group; the others have 0.
        sites: ids [S] of the groups, if they are not in the ranker's order.
        Others: as for `Budget`.

    Raises:
        ValueError, TypeError: as for `Budget`; floors of unknown groups, or outside 0 to 1.
            `best` raises if no plan gives every group its floor.
        RuntimeError: no HiGHS, when a plan is solved for.

    Example:
        >>> program = Fair(2, ["a", "a", "b", "b"])
        >>> program.best(torch.tensor([5.0, 4.0, 3.0, 1.0]))
        tensor([1., 0., 1., 0.])
    """
    ids = None if sites is None else [str(site) for site in sites]
    column = read_column(fair_to, None, "Fair")
    ids = _by_id(column, ids, "Fair")
    rest: dict[str, Any] = {"fair_label": column.label, "fair_to": column.values}
    if floors is not None:
        named = [name for name in dict.fromkeys(column.values) if name]
        if not isinstance(floors, Mapping):
            floors = dict.fromkeys(named, float(floors))
        rest["floor_groups"] = [str(name) for name in floors]
        rest["floors"] = [float(share) for share in floors.values()]
    return _make("Fair", k, {}, ids, rest, shared, count=len(column.values))


def _by_id(column: Any, ids: list[str] | None, name: str) -> list[str] | None:
    """Put a grouping in the order of the ids. Returns the ids or, without these, its own."""
    if column.ids and ids and column.ids != ids:
        column.in_order(ids, name)
    return ids or column.ids or None


def _network(
    name: str, k: int, graph: Graph, columns: dict[str, Any], shared: ProgramArguments
) -> _C.Program:
    rows = np.repeat(np.arange(graph.num_nodes), np.diff(graph.core.start))
    once = rows < graph.core.neighbours
    edges = {"from": rows[once].tolist(), "to": graph.core.neighbours[once].tolist()}
    return _make(name, k, columns, graph.ids, edges, shared)


def _make(
    name: str,
    k: int | None,
    columns: dict[str, Any],
    sites: Any,
    rest: dict[str, Any],
    shared: ProgramArguments,
    count: int = 0,
) -> _C.Program:
    """The program; `count`: the number of sites if no column gives it."""
    find_highs()
    ids = None if sites is None else [str(site) for site in sites]
    made: dict[str, Any] = dict(rest)
    if k is not None:
        made["k"] = float(k)
    if shared["gap"] != DEFAULTS["gap"]:
        made["gap"] = float(shared["gap"])
    if math.isfinite(shared["time"]):
        made["time"] = float(shared["time"])
    for argument, values in columns.items():
        if hasattr(values, "index") and hasattr(values, "to_numpy"):  # a Series
            named = [str(site) for site in values.index]
            if ids is None:
                ids = named
            values = values.set_axis(named).reindex(ids).to_numpy()
        if np.ndim(values) == 0:
            values = np.full(len(ids or ()), float(values))
        made[argument] = np.asarray(values, dtype=float).tolist()
        count = len(made[argument])
    count = len(ids) if ids else count
    groupings, ids = _groupings(name, k, ids, count, shared)
    lock = read_lock(shared["lock_in"], shared["lock_out"], ids or [], count, name)
    if groupings or lock:
        made |= _C.quota_arguments(groupings, lock)
    made["sites"] = ids or []
    return _C.make_program(name, made)


def _groupings(
    name: str, k: int | None, ids: list[str] | None, count: int, shared: ProgramArguments
) -> tuple[list[_C.Grouping], list[str] | None]:
    """The quotas, and the ids of the sites, which they may give."""
    made = []
    for quota in all_quotas(shared, name):
        column = read_column(quota.groups, quota.name, name)
        ids = _by_id(column, ids, name)
        if len(column.values) != count:
            raise ValueError(
                f"{name}: groups must name a group for each of {count} sites, got "
                f"{len(column.values)}"
            )
        made.append(
            grouping_of(column, quota.at_least, quota.at_most, k, name, ("at_least", "at_most"))
        )
    return made, ids
