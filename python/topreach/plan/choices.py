"""Choosing K sites: quotas, a budget, spacing, connected plans, several periods, fairness."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from topreach import _C
from topreach.data.graph import Graph
from topreach.plan.constraints import (
    Constraints,
    Quota,
    Quotas,
    make_constraints,
    read_groups,
    whole,
)
from topreach.plan.inputs import Sites, read_sites
from topreach.plan.plan import Plan
from topreach.plan.problem import Problem, chosen_sum
from topreach.programs.solver import find_highs


def quota_topk(
    scores: Any,
    k: int,
    *,
    groups: Any = None,
    at_least: Quota = None,
    at_most: Quota = None,
    quotas: Quotas | Sequence[Quotas] | None = None,
    lock_in: Sequence[Any] = (),
    lock_out: Sequence[Any] = (),
    effect: Any = None,
    ids: Any = None,
    value: str | None = None,
    site: str = "site",
    period: Any = None,
    gap: float = 1e-4,
    time: float = math.inf,
) -> Plan:
    """The best K sites under quotas: max r.x, sum x = K, at_least_g <= x(g) <= at_most_g.

    Quotas that are nested (municipality in region in state) are exact and quick; two groupings that
    cross are a linear program, three a mixed-integer one (HiGHS).

    Args:
        scores: table of `ranker.rank()`, Series by id, or array [S]. -inf closes a site.
        k: number of sites.
        groups, at_least, at_most: one grouping, as for `Quotas`; `quotas`: `Quotas`, or several.
        lock_in, lock_out: ids that must be in the plan, or must not.
        effect: share of a site's events that acting there prevents: a column's name, a number, or
            values by site; the plan maximises effect x score.
        ids: sites of an array. value: the table's column of scores ("score"). site: its column of
            ids. period: which of its periods.
        gap: relative gap that is good enough. time: seconds.

    Raises:
        ValueError: quotas that cannot be met; the message names the group.

    Example:
        >>> plan = quota_topk([5.0, 4.0, 3.0], 2, groups=["a", "a", "b"], at_least=1)
        >>> plan.ids, plan.value
        (['0', '2'], 8.0)
    """
    name = "quota_topk"
    sites = read_sites(scores, name, ids=ids, value=value, site=site, period=period)
    kept = make_constraints(k, groups, at_least, at_most, quotas, lock_in, lock_out, name)

    def run(values: np.ndarray, core: _C.PlanConstraints) -> _C.PlanSolved:
        return _C.plan_quota_topk(values, core, gap, time)

    def rows(values: np.ndarray, core: _C.PlanConstraints) -> np.ndarray:
        return _C.plan_quota_topk_rows(values, values.shape[1], core).reshape(values.shape)

    one_grouping = isinstance(kept.quotas, Quotas) or len(kept.quotas) <= 1
    return _solved(name, sites, kept, run, effect, rows=rows if one_grouping else None)


def budget_topk(
    scores: Any,
    cost: Any,
    budget: float,
    k: int | None = None,
    *,
    groups: Any = None,
    at_least: Quota = None,
    at_most: Quota = None,
    quotas: Quotas | Sequence[Quotas] | None = None,
    lock_in: Sequence[Any] = (),
    lock_out: Sequence[Any] = (),
    effect: Any = None,
    ids: Any = None,
    value: str | None = None,
    site: str = "site",
    period: Any = None,
    gap: float = 1e-4,
    time: float = math.inf,
) -> Plan:
    """The best sites for a budget: max r.x, c.x <= B, and, if given, K sites and quotas.

    Args:
        cost: of each site, >= 0: a column's name, a number, or values by site. budget: in the same
            unit.
        k: number of sites; None: any.
        Others: as for `quota_topk`.

    Returns:
        A plan with `numbers["cost"]` and `numbers["price"]`, what one more unit of money is worth,
        about. Infeasible if the cheapest plan costs more than the budget.

    Example:
        >>> budget_topk([5.0, 4.0, 3.0], [3, 2, 2], 4).ids
        ['1', '2']
    """
    name = "budget_topk"
    sites = read_sites(scores, name, ids=ids, value=value, site=site, period=period)
    kept = make_constraints(k, groups, at_least, at_most, quotas, lock_in, lock_out, name)
    costs = sites.numbers(cost, name, "cost", 1.0)

    def run(values: np.ndarray, core: _C.PlanConstraints) -> _C.PlanSolved:
        return _C.plan_budget_topk(values, costs, float(budget), core, gap, time)

    return _solved(name, sites, kept, run, effect)


def spaced(
    scores: Any,
    k: int | None,
    distance: float | None = None,
    *,
    x: Any = None,
    y: Any = None,
    degrees: bool = False,
    graph: Graph | None = None,
    groups: Any = None,
    at_least: Quota = None,
    at_most: Quota = None,
    quotas: Quotas | Sequence[Quotas] | None = None,
    lock_in: Sequence[Any] = (),
    lock_out: Sequence[Any] = (),
    effect: Any = None,
    ids: Any = None,
    value: str | None = None,
    site: str = "site",
    period: Any = None,
    gap: float = 1e-4,
    time: float = math.inf,
) -> Plan:
    """The best sites that keep apart: no two less than `distance` from each other, or, with a
    graph, no two neighbours.

    Args:
        k: number of sites; None: any.
        distance: in the unit of x and y; with `degrees` in km along the sphere.
        x, y: coordinates: columns' names or values by site (longitude and latitude with `degrees`).
        graph: instead of distance, x and y: neighbours exclude each other.
        Others: as for `quota_topk`.

    Returns:
        A plan; without HiGHS status "heuristic". Infeasible if there are not K such sites.
    """
    name = "spaced"
    sites = read_sites(scores, name, ids=ids, value=value, site=site, period=period)
    kept = make_constraints(k, groups, at_least, at_most, quotas, lock_in, lock_out, name)
    if (graph is None) == (distance is None):
        raise ValueError(f"{name}: give either distance (with x and y) or graph.")
    if graph is None:
        if x is None or y is None:
            raise ValueError(f"{name}: x and y must be the sites' coordinates, got None.")
        assert distance is not None
        if not (isinstance(distance, int | float) and 0 < distance < math.inf):
            raise ValueError(f"{name}: distance must be a number above 0, got {distance!r}.")
        east, north = (sites.numbers(v, name, n, 0.0) for v, n in ((x, "x"), (y, "y")))
        if degrees:
            # Those at the very distance are far enough.
            graph = Graph.from_coordinates(
                sites.ids, east, north, radius=distance * (1 - 1e-9), degrees=True
            )

    def run(values: np.ndarray, core: _C.PlanConstraints) -> _C.PlanSolved:
        find_highs()
        if graph is None:
            assert distance is not None
            return _C.plan_spaced(values, east, north, float(distance), core, gap, time)
        return _C.plan_spaced_graph(values, graph.aligned(sites.ids, name).core, core, gap, time)

    return _solved(name, sites, kept, run, effect, free_topk=True)


def connected(
    scores: Any,
    graph: Graph,
    k: int,
    *,
    groups: Any = None,
    at_least: Quota = None,
    at_most: Quota = None,
    quotas: Quotas | Sequence[Quotas] | None = None,
    lock_in: Sequence[Any] = (),
    lock_out: Sequence[Any] = (),
    effect: Any = None,
    ids: Any = None,
    value: str | None = None,
    site: str = "site",
    period: Any = None,
    gap: float = 1e-4,
    time: float = math.inf,
) -> Plan:
    """The best K sites that hang together: one area without gaps in the graph.

    Args:
        graph: who is whose neighbour.
        Others: as for `quota_topk`.

    Returns:
        A plan; without HiGHS status "heuristic". Infeasible if no K sites hang together.
    """
    name = "connected"
    sites = read_sites(scores, name, ids=ids, value=value, site=site, period=period)
    kept = make_constraints(k, groups, at_least, at_most, quotas, lock_in, lock_out, name)
    network = graph.aligned(sites.ids, name)

    def run(values: np.ndarray, core: _C.PlanConstraints) -> _C.PlanSolved:
        find_highs()
        return _C.plan_connected(values, network.core, core, gap, time)

    return _solved(name, sites, kept, run, effect, free_topk=True)


def phased(
    scores: Any,
    k: int | Sequence[int],
    *,
    opening: Any = 0.0,
    before: Sequence[Any] = (),
    rest: int = 0,
    most_visits: int = 0,
    groups: Any = None,
    at_least: Quota = None,
    at_most: Quota = None,
    quotas: Quotas | Sequence[Quotas] | None = None,
    lock_in: Sequence[Any] = (),
    lock_out: Sequence[Any] = (),
    effect: Any = None,
    ids: Any = None,
    value: str | None = None,
    site: str = "site",
    gap: float = 1e-4,
    time: float = math.inf,
) -> Plan:
    """Plans for H periods, where moving costs: max sum_t r_t.x_t - sum_i opening_i (times i is
    opened).

    Args:
        scores: table with several periods (`time`), or array [H, S].
        k: sites in each period, one number or H of them.
        opening: what opening a site costs, in the unit of the scores.
        before: ids of the sites that are open before the first period.
        rest: periods that a site rests after one in which it is chosen. most_visits: periods it
            can be chosen in; 0: all.
        quotas, locks: in each period. Others: as for `quota_topk`.

    Returns:
        A plan whose `tours` are the sites of each period. Needs HiGHS.
    """
    name = "phased"
    sites = read_sites(scores, name, ids=ids, value=value, site=site, periods=True)
    given = [k] * len(sites.periods) if isinstance(k, int | np.integer | str | float) else [*k]
    many = [whole(number, name, "k") for number in given]
    rest, most_visits = whole(rest, name, "rest"), whole(most_visits, name, "most_visits")
    if len(many) != len(sites.periods):
        raise ValueError(
            f"{name}: k must be one number for each of {len(sites.periods)} periods, got "
            f"{len(many)}."
        )
    kept = make_constraints(min(many), groups, at_least, at_most, quotas, lock_in, lock_out, name)
    costs = sites.numbers(opening, name, "opening", 0.0)
    is_open = np.zeros(len(sites.ids))
    is_open[sites.rows(before, name, "before")] = 1

    def run(values: np.ndarray, core: _C.PlanConstraints) -> _C.PlanSolved:
        find_highs()
        return _C.plan_phased(
            values, many, len(sites.ids), costs, is_open, rest, most_visits, core, gap, time
        )

    def objective(values: np.ndarray, solved: _C.PlanSolved) -> float:
        return float(sum(values[t, part].sum() for t, part in enumerate(solved.parts)))

    return _solved(name, sites, kept, run, effect, objective=objective)


def fair(
    scores: Any,
    k: int | None,
    fair_to: Any,
    *,
    floors: float | Mapping[str, float] | None = None,
    groups: Any = None,
    at_least: Quota = None,
    at_most: Quota = None,
    quotas: Quotas | Sequence[Quotas] | None = None,
    lock_in: Sequence[Any] = (),
    lock_out: Sequence[Any] = (),
    effect: Any = None,
    ids: Any = None,
    value: str | None = None,
    site: str = "site",
    period: Any = None,
    gap: float = 1e-4,
    time: float = math.inf,
) -> Plan:
    """A plan that leaves no group behind.

    Args:
        fair_to: the groups, as for `Quotas`.
        floors: the share of its own total that each group keeps: one number for all, or by group.
            None: the largest least share of a group; that share is the plan's value.
        Others: as for `quota_topk`.

    Returns:
        A plan with `shares` by group in `numbers` ("share of NAME"). `price_of_constraints` says
        what fairness costs. Needs HiGHS.
    """
    name = "fair"
    sites = read_sites(scores, name, ids=ids, value=value, site=site, period=period)
    kept = make_constraints(k, groups, at_least, at_most, quotas, lock_in, lock_out, name)
    called, names, group = read_groups(sites, fair_to, name)
    sizes = np.bincount(group[group >= 0], minlength=len(names))
    core_group = _C.PlanGrouping(called, names, group, np.zeros_like(sizes), sizes)
    least = np.empty(0)
    if isinstance(floors, Mapping):
        unknown = [g for g in floors if str(g) not in names]
        if unknown:
            raise ValueError(f"{name}: floors must name groups, got {unknown[0]!r}.")
        least = np.asarray([float({str(g): v for g, v in floors.items()}.get(g, 0)) for g in names])
    elif floors is not None:
        least = np.full(len(names), float(floors))

    def run(values: np.ndarray, core: _C.PlanConstraints) -> _C.PlanSolved:
        find_highs()
        return _C.plan_fair(values, core_group, least, core, gap, time)

    def shares(values: np.ndarray, solved: _C.PlanSolved) -> float:
        all_of = np.bincount(group[group >= 0], weights=values[group >= 0], minlength=len(names))
        held = np.zeros(len(names))
        inside = solved.chosen[group[solved.chosen] >= 0]
        np.add.at(held, group[inside], values[inside])
        return float(min(held[all_of > 0] / all_of[all_of > 0], default=0.0))

    objective = shares if floors is None else chosen_sum
    plan = _solved(name, sites, kept, run, effect, objective=objective, free_topk=True)
    for label, share in zip(names, plan._solved.columns.get("share", ()), strict=False):
        plan.numbers[f"share of {label}"] = float(share)
    return plan


def _solved(
    name: str,
    sites: Sites,
    kept: Constraints,
    run: Any,
    effect: Any,
    *,
    objective: Any = chosen_sum,
    rows: Any = None,
    free_topk: bool = False,
) -> Plan:
    find_highs()
    share = None if effect is None else sites.numbers(effect, name, "effect", 1.0)
    if share is not None and (share < 0).any():
        at = int(np.argmax(share < 0))
        raise ValueError(
            f"{name}: effect must be the share of a site's events that acting there prevents, >= "
            f"0, got {float(share[at])!r} for {sites.ids[at]!r}."
        )
    problem = Problem(name, sites, kept, run, objective, share, rows, free_topk)
    return Plan(problem, problem.solve(sites.scores))
