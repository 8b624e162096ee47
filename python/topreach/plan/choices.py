"""Choosing K sites: quotas, a budget, spacing, connected plans, several periods, fairness."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np

from topreach import _C
from topreach.data.graph import Graph
from topreach.data.messages import either
from topreach.plan.arguments import ChoiceArguments, PhaseArguments, read_choice, takes
from topreach.plan.constraints import Quotas, read_floors, read_groups, whole
from topreach.plan.plan import Plan
from topreach.plan.problem import chosen_sum


@takes(ChoiceArguments)
def quota_topk(scores: Any, k: int, **shared: Unpack[ChoiceArguments]) -> Plan:
    """The best K sites under quotas: max r.x, sum x = K, at_least_g <= x(g) <= at_most_g.

    Nested quotas (municipality in region in state) are solved exactly and quickly. Two groupings
    that cross are a linear program, three a mixed-integer one (HiGHS).

    Args:
        scores: r: table of `ranker.rank()`, Series by id, or array [S]. -inf closes a site.
        k: K, number of sites.
        groups, at_least, at_most: one grouping, as for `Quotas`; `quotas`: `Quotas`, or several.
        lock_in, lock_out: ids of sites that must, or must not, be in the plan.
        effect: share of a site's events that acting there prevents: a column's name, a number, or
            values by site; the plan maximises effect x score.
        ids: sites of an array. value: the table's column of scores ("score"). site: its column of
            ids. period: which of the table's periods.
        gap: relative gap that is good enough. time: seconds.

    Returns:
        A plan; its value is in the unit of the scores.

    Raises:
        ValueError: quotas that cannot be met; the message names the group. Scores that are not
            numbers; unknown ids; a site locked both in and out.
        TypeError: k, a quota or a lock of another type.
        RuntimeError: groupings that cross, without HiGHS.

    Example:
        >>> plan = quota_topk([5.0, 4.0, 3.0], 2, groups=["a", "a", "b"], at_least=1)
        >>> plan.ids, plan.value
        (['0', '2'], 8.0)

    Source: a greedy algorithm on a laminar matroid, for instance Gabow & Tarjan 1984, Efficient
    algorithms for a family of matroid intersection problems.
    """
    choice = read_choice("quota_topk", scores, k, shared)

    def run(values: np.ndarray, core: _C.PlanConstraints) -> _C.PlanSolved:
        return _C.plan_quota_topk(values, core, choice.gap, choice.time)

    def rows(values: np.ndarray, core: _C.PlanConstraints) -> np.ndarray:
        return _C.plan_quota_topk_rows(values, values.shape[1], core).reshape(values.shape)

    quotas = choice.kept.quotas
    one_grouping = isinstance(quotas, Quotas) or len(quotas) <= 1
    return choice.solved(run, rows=rows if one_grouping else None)


@takes(ChoiceArguments)
def budget_topk(
    scores: Any, cost: Any, budget: float, k: int | None = None, **shared: Unpack[ChoiceArguments]
) -> Plan:
    """The best sites for a budget: max r.x, c.x <= B, and, if given, K sites and quotas.

    Args:
        scores: r, as for `quota_topk`.
        cost: c >= 0 of each site: a column's name, a number, or values by site.
        budget: B >= 0, in the unit of the costs.
        k: number of sites; None: any.
        Others: as for `quota_topk`.

    Returns:
        A plan with `numbers["cost"]` and `numbers["price"]`, about the value of one more unit of
        budget. Infeasible if the cheapest plan costs more than the budget. Without HiGHS the only
        bound is Dantzig's.

    Raises:
        ValueError: a cost or a budget below 0, and as for `quota_topk`.

    Example:
        >>> budget_topk([5.0, 4.0, 3.0], [3, 2, 2], 4).ids
        ['1', '2']

    Source: Dantzig 1957, Discrete-variable extremum problems.
    """
    choice = read_choice("budget_topk", scores, k, shared)
    costs = choice.numbers(cost, "cost", 1.0)

    def run(values: np.ndarray, core: _C.PlanConstraints) -> _C.PlanSolved:
        return _C.plan_budget_topk(values, costs, float(budget), core, choice.gap, choice.time)

    return choice.solved(run)


@takes(ChoiceArguments)
def spaced(
    scores: Any,
    k: int | None,
    distance: float | None = None,
    *,
    x: Any = None,
    y: Any = None,
    degrees: bool = False,
    graph: Graph | None = None,
    **shared: Unpack[ChoiceArguments],
) -> Plan:
    """The best sites that keep apart: no two less than `distance` from each other, or, with a
    graph, no two neighbours: max r.x, x_a + x_b <= 1 for two that are too close.

    Args:
        scores: r, as for `quota_topk`.
        k: number of sites; None: any.
        distance: in the unit of x and y; with `degrees` in km along the sphere.
        x, y: coordinates: columns' names or values by site (longitude and latitude with `degrees`).
        graph: instead of distance, x and y: neighbours exclude each other.
        Others: as for `quota_topk`.

    Returns:
        A plan; without HiGHS status "heuristic". Infeasible if there are not K such sites.

    Raises:
        ValueError: neither or both of distance and graph; a distance that is not above 0; no
            coordinates; and as for `quota_topk`.

    Example:
        >>> spaced([5.0, 4.0, 3.0], 2, 1.5, x=[0, 1, 2], y=[0, 0, 0]).ids
        ['0', '2']
    """
    choice = read_choice("spaced", scores, k, shared)
    name, sites = choice.name, choice.sites
    if (graph is None) == (distance is None):
        raise ValueError(f"{name}: give either distance (with x and y) or graph.")
    if graph is None:
        if x is None or y is None:
            raise ValueError(
                f"{name}: {either('x and y', '--lon and --lat')} must be the sites' coordinates, "
                "got None."
            )
        assert distance is not None
        if not (isinstance(distance, int | float) and 0 < distance < math.inf):
            raise ValueError(f"{name}: distance must be a number above 0, got {distance!r}.")
        east = choice.numbers(x, either("x", "--lon"), 0.0)
        north = choice.numbers(y, either("y", "--lat"), 0.0)
        if degrees:
            # Two sites at exactly this distance are far enough apart.
            graph = Graph.from_coordinates(
                sites.ids, east, north, radius=distance * (1 - 1e-9), degrees=True
            )
    network = None if graph is None else graph.aligned(sites.ids, name)

    def run(values: np.ndarray, core: _C.PlanConstraints) -> _C.PlanSolved:
        if network is not None:
            return _C.plan_spaced_graph(values, network.core, core, choice.gap, choice.time)
        assert distance is not None
        return _C.plan_spaced(values, east, north, float(distance), core, choice.gap, choice.time)

    return choice.solved(run, free_topk=True)


@takes(ChoiceArguments)
def connected(scores: Any, graph: Graph, k: int, **shared: Unpack[ChoiceArguments]) -> Plan:
    """The best K sites that form one connected area of the graph.

    Args:
        scores: r, as for `quota_topk`.
        graph: which sites are neighbours.
        k: number of sites, at least 1.
        Others: as for `quota_topk`.

    Returns:
        A plan; without HiGHS status "heuristic". Infeasible if no K sites are connected.

    Raises:
        ValueError: k below 1, a graph of other sites, and as for `quota_topk`.

    Example:
        >>> graph = Graph.from_edges([("a", "b"), ("b", "c"), ("c", "d")])
        >>> connected({"a": 5.0, "b": 1.0, "c": 2.0, "d": 4.0}, graph, 2).ids
        ['a', 'b']
    """
    choice = read_choice("connected", scores, k, shared)
    network = graph.aligned(choice.sites.ids, choice.name)

    def run(values: np.ndarray, core: _C.PlanConstraints) -> _C.PlanSolved:
        return _C.plan_connected(values, network.core, core, choice.gap, choice.time)

    return choice.solved(run, free_topk=True)


@takes(PhaseArguments)
def phased(
    scores: Any,
    k: int | Sequence[int],
    *,
    opening: Any = 0.0,
    before: Sequence[Any] = (),
    rest: int = 0,
    most_visits: int = 0,
    **shared: Unpack[PhaseArguments],
) -> Plan:
    """Plans for H periods, where moving costs: max sum_t r_t.x_t - sum_i opening_i (times i is
    opened).

    Args:
        scores: r: table with several periods (`time`), or array [H, S].
        k: sites in each period, one number or H of them.
        opening: the cost of opening a site, in the unit of the scores.
        before: ids of the sites that are open before the first period.
        rest: number of periods for which a site cannot be chosen after it was chosen.
        most_visits: the most periods in which a site can be chosen; 0: all.
        quotas, locks: hold in each period. Others: as for `quota_topk`.

    Returns:
        A plan whose `tours` are the sites of each period. Needs HiGHS.

    Raises:
        ValueError: a list of k without one number for each period; an opening cost below 0; and as
            for `quota_topk`.
        TypeError: k, rest or most_visits that are not whole numbers.
        RuntimeError: no HiGHS.

    Example:
        >>> plan = phased([[5.0, 4.0], [3.0, 6.0]], 1, opening=1.0)
        >>> plan.tours, plan.value
        ([['0'], ['1']], 9.0)
    """
    choice = read_choice("phased", scores, None, shared, periods=True)
    name, sites = choice.name, choice.sites
    given = [k] * len(sites.periods) if isinstance(k, int | np.integer | str | float) else [*k]
    many = [whole(number, name, "k") for number in given]
    rest, most_visits = whole(rest, name, "rest"), whole(most_visits, name, "most_visits")
    if len(many) != len(sites.periods):
        raise ValueError(
            f"{name}: k must be one number for each of {len(sites.periods)} periods, got "
            f"{len(many)}."
        )
    costs = choice.numbers(opening, "opening", 0.0)
    is_open = np.zeros(len(sites.ids))
    is_open[sites.rows(before, name, "before")] = 1

    def run(values: np.ndarray, core: _C.PlanConstraints) -> _C.PlanSolved:
        return _C.plan_phased(
            values, many, len(sites.ids), costs, is_open, rest, most_visits, core,
            choice.gap, choice.time,
        )  # fmt: skip

    def objective(values: np.ndarray, solved: _C.PlanSolved) -> float:
        return float(sum(values[t, part].sum() for t, part in enumerate(solved.parts)))

    return choice.with_k(min(many)).solved(run, objective=objective)


@takes(ChoiceArguments)
def fair(
    scores: Any,
    k: int | None,
    fair_to: Any,
    *,
    floors: float | Mapping[str, float] | None = None,
    **shared: Unpack[ChoiceArguments],
) -> Plan:
    """A plan that leaves no group behind: max r.x while each group keeps a share of its own total,
    sum_g r_i x_i >= floor_g sum_g r_i; or, without floors, the plan that maximises the least share.

    Args:
        scores: r >= 0, as for `quota_topk`.
        k: number of sites; None: any.
        fair_to: the groups, as for `Quotas`.
        floors: the share of its own total that each group keeps, 0 to 1: one number for all, or by
            group. None: maximise the least share of a group; that share is the plan's value.
        Others: as for `quota_topk`.

    Returns:
        A plan with `numbers["share of NAME"]` by group. `price_of_constraints` is the cost of
        fairness. Infeasible if no plan gives every group its floor. Needs HiGHS.

    Raises:
        ValueError: a score below 0, a floor outside 0 to 1 or of an unknown group, and as for
            `quota_topk`.
        RuntimeError: no HiGHS.

    Example:
        >>> plan = fair([5.0, 4.0, 3.0, 1.0], 2, ["a", "a", "b", "b"])
        >>> plan.ids, plan.numbers["share of b"]
        (['0', '2'], 0.75)
    """
    choice = read_choice("fair", scores, k, shared)
    called, names, group = read_groups(choice.sites, fair_to, choice.name)
    sizes = np.bincount(group[group >= 0], minlength=len(names))
    core_group = _C.Grouping(called, names, group, np.zeros_like(sizes), sizes)
    least = read_floors(floors, names, choice.name)

    def run(values: np.ndarray, core: _C.PlanConstraints) -> _C.PlanSolved:
        return _C.plan_fair(values, core_group, least, core, choice.gap, choice.time)

    def shares(values: np.ndarray, solved: _C.PlanSolved) -> float:
        all_of = np.bincount(group[group >= 0], weights=values[group >= 0], minlength=len(names))
        held = np.zeros(len(names))
        inside = solved.chosen[group[solved.chosen] >= 0]
        np.add.at(held, group[inside], values[inside])
        return float(min(held[all_of > 0] / all_of[all_of > 0], default=0.0))

    objective = shares if floors is None else chosen_sum
    plan = choice.solved(run, objective=objective, free_topk=True)
    for label, share in zip(names, plan._solved.columns.get("share", ()), strict=False):
        plan.numbers[f"share of {label}"] = float(share)
    return plan
