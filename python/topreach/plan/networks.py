"""Plans on a network: whom to reach through whom, tours, subgraphs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from topreach import _C
from topreach.data.graph import Graph
from topreach.plan.constraints import Constraints, Quota, Quotas, make_constraints
from topreach.plan.inputs import Sites, read_sites
from topreach.plan.plan import Plan
from topreach.plan.problem import Problem
from topreach.programs.solver import find_highs

_NONE = np.empty(0)


def spillover(
    scores: Any,
    graph: Graph,
    k: int,
    *,
    treated: Any = 1.0,
    spilled: Any = 0.5,
    compliance: Any = None,
    groups: Any = None,
    at_least: Quota = None,
    at_most: Quota = None,
    quotas: Quotas | Sequence[Quotas] | None = None,
    lock_in: Sequence[Any] = (),
    lock_out: Sequence[Any] = (),
    ids: Any = None,
    value: str | None = None,
    site: str = "site",
    period: Any = None,
    gap: float = 1e-4,
    time: float = math.inf,
) -> Plan:
    """Whom to treat where treatment helps neighbours too.

    Maximises sum_i saved_i: a treated person saves treated_i x score_i, an untreated neighbour of
    one spilled_i x score_i, once.

    Args:
        scores: chance or expected count of each person's events: table, Series by id, or array.
        graph: who knows whom.
        k: number of people to treat.
        treated, spilled: share of a person's events that being treated, or knowing someone who is,
            prevents: a number, a column's name, or values by id.
        compliance: chance that a chosen person comes; None: all do.
        Others: as for `quota_topk`.

    Returns:
        A plan; its table has `reached`, the chance that a person is treated or knows someone who
        is.

    The expected saving with compliance c is exact:
    sum_i (treated - spilled)_i c_i x_i + spilled_i (1 - prod_{N[i]} (1 - c_j x_j)).

    Example:
        >>> graph = Graph.from_edges([("a", "c"), ("a", "d"), ("a", "e"), ("b", "e")])
        >>> spillover({"a": 0.4, "b": 0.5, "c": 0.1, "d": 0.1, "e": 0.2}, graph, 1).ids
        ['e']
    """
    name = "spillover"
    sites, kept, network = _read(
        name, scores, graph, k, groups, at_least, at_most, quotas, lock_in, lock_out, ids, value,
        site, period,
    )  # fmt: skip
    own = sites.numbers(treated, name, "treated", 1.0)
    near = sites.numbers(spilled, name, "spilled", 1.0)
    comes = _NONE if compliance is None else sites.numbers(compliance, name, "compliance", 1.0)
    sure = np.ones(len(sites.ids)) if compliance is None else comes

    def run(values: np.ndarray, core: _C.PlanConstraints) -> _C.PlanSolved:
        return _C.plan_spillover(network.core, own * values, near * values, core, comes, gap, time)

    def objective(values: np.ndarray, solved: _C.PlanSolved) -> float:
        chosen = solved.chosen
        direct = ((own - near) * values * sure)[chosen].sum()
        return float(direct + (near * values * solved.columns["reached"]).sum())

    return _solved(name, sites, kept, run, objective)


def call_in(
    scores: Any,
    graph: Graph,
    k: int,
    *,
    comes: Any = 1.0,
    passes: Any = 1.0,
    form: str = "exact",
    weight_by_score: bool = False,
    groups: Any = None,
    at_least: Quota = None,
    at_most: Quota = None,
    quotas: Quotas | Sequence[Quotas] | None = None,
    lock_in: Sequence[Any] = (),
    lock_out: Sequence[Any] = (),
    ids: Any = None,
    value: str | None = None,
    site: str = "site",
    period: Any = None,
    gap: float = 1e-4,
    time: float = math.inf,
) -> Plan:
    """Whom to call in so that a message reaches most people.

    Who is called comes with chance comes_j, has then heard the message, and passes it on to each
    neighbour with chance passes_j.

    Args:
        scores: the people: table, Series by id, or array; also the graph's ids alone, `graph.ids`.
        graph: who knows whom.
        k: number of people to call.
        comes, passes: chances: a number, a column's name, or values by id.
        form: "exact": the expected number of people reached, sum_i 1 - prod_j (1 - q_ij x_j);
            "capped": expected contacts, at most one each, min(1, sum_j q_ij x_j), an upper bound of
            it that is easier to solve.
        weight_by_score: reaching a person counts their score, not 1.
        Others: as for `quota_topk`.

    Returns:
        A plan; `reach` is the expected number of people reached (or of their scores) in either
        form.

    Example:
        >>> call_in(graph.ids, graph, 3, comes=0.4, passes=0.5).reach
    """
    name = "call_in"
    if form not in ("exact", "capped"):
        raise ValueError(f"{name}: form must be 'exact' or 'capped', got {form!r}.")
    if isinstance(scores, list) and scores and isinstance(scores[0], str):
        scores = pd.Series(1.0, index=scores)
    sites, kept, network = _read(
        name, scores, graph, k, groups, at_least, at_most, quotas, lock_in, lock_out, ids, value,
        site, period,
    )  # fmt: skip
    arrives = sites.numbers(comes, name, "comes", 1.0)
    tells = sites.numbers(passes, name, "passes", 1.0)

    def solve_for(values: np.ndarray, core: _C.PlanConstraints) -> _C.PlanSolved:
        return _C.plan_call_in(
            network.core, arrives, tells, core, values, form == "capped", gap, time
        )

    # What counts is who is reached: with other values than 1 only in hindsight, unless asked for.
    def run(values: np.ndarray, core: _C.PlanConstraints) -> _C.PlanSolved:
        is_first = not weight_by_score and values is sites.scores
        return solve_for(_NONE if is_first else values, core)

    def objective(values: np.ndarray, solved: _C.PlanSolved) -> float:
        return float((values * solved.columns["reached"]).sum())

    return _solved(name, sites, kept, run, objective)


def coverage(
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
    ids: Any = None,
    value: str | None = None,
    site: str = "site",
    period: Any = None,
    gap: float = 1e-4,
    time: float = math.inf,
) -> Plan:
    """K places that have most within reach (maximal coverage): a site counts its score if it or a
    neighbour is chosen.

    Args:
        scores: what each site counts, >= 0.
        graph: who is within reach of whom, for instance `Graph.from_coordinates(..., radius=5)`.
        Others: as for `quota_topk`.

    Source: Church & ReVelle 1974, The maximal covering location problem.
    """
    name = "coverage"
    sites, kept, network = _read(
        name, scores, graph, k, groups, at_least, at_most, quotas, lock_in, lock_out, ids, value,
        site, period,
    )  # fmt: skip

    def run(values: np.ndarray, core: _C.PlanConstraints) -> _C.PlanSolved:
        return _C.plan_coverage(network.core, values, core, gap, time)

    def objective(values: np.ndarray, solved: _C.PlanSolved) -> float:
        return float((values * solved.columns["reached"]).sum())

    return _solved(name, sites, kept, run, objective)


def dominating_set(
    graph: Graph,
    cost: Any = None,
    *,
    reach: float | None = None,
    comes: Any = 1.0,
    passes: Any = 1.0,
    lock_in: Sequence[Any] = (),
    lock_out: Sequence[Any] = (),
    gap: float = 1e-4,
    time: float = math.inf,
) -> Plan:
    """Representatives: the fewest sites, or cheapest, so that each is chosen or has a chosen
    neighbour.

    Args:
        graph: who is whose neighbour.
        cost: of choosing a site, > 0: a number, or values by id; None: 1.
        reach: instead: the fewest sites from whom a message reaches so many people in expectation,
            with `comes` and `passes` as for `call_in`.
        lock_in, lock_out: ids that must be chosen, or must not.

    Returns:
        A plan whose value is the number of sites, or their cost: the less the better, and the
        bound lies below. Infeasible, with a note of the largest reach there is, if `reach` is
        beyond it.

    Example:
        >>> dominating_set(Graph.from_edges([("a", "b"), ("a", "c")])).ids
        ['a']
    """
    name = "dominating_set"
    find_highs()
    sites = Sites(graph.ids, np.ones(graph.num_nodes), pd.DataFrame(index=pd.Index(graph.ids)))
    kept = Constraints(None, (), lock_in, lock_out)
    costs = _NONE if cost is None else sites.numbers(cost, name, "cost", 1.0)
    if reach is not None and (cost is not None or len(kept.lock(sites, name))):
        raise ValueError(f"{name}: reach goes without cost and locks.")

    def run(values: np.ndarray, core: _C.PlanConstraints) -> _C.PlanSolved:
        if reach is None:
            return _C.plan_dominating_set(graph.core, costs, kept.lock(sites, name), gap, time)
        arrives = sites.numbers(comes, name, "comes", 1.0)
        tells = sites.numbers(passes, name, "passes", 1.0)
        return _C.plan_reach_at_least(graph.core, arrives, tells, reach, False, gap, time)

    return _solved(name, sites, kept, run, None)


def tours(
    scores: Any,
    graph: Graph,
    k: int,
    *,
    area: Any = None,
    pai: float = 10.0,
    gain: Any = None,
    size: Any = None,
    min_size: float = 0.0,
    max_size: float = math.inf,
    lock_out: Sequence[Any] = (),
    ids: Any = None,
    value: str | None = None,
    site: str = "site",
    period: Any = None,
    gap: float = 1e-4,
    time: float = math.inf,
) -> Plan:
    """At most k tours, each a path from neighbour to neighbour, without a common area.

    A tour gains its share of all events minus pai x its share of the whole area: one with gain > 0
    has a prediction accuracy index (PAI) above `pai`. Tours that gain nothing are left out.

    Args:
        scores: expected events of each area, >= 0.
        graph: which areas lie side by side.
        k: number of tours, at most.
        area: size of each area, for the gain; None: 1 each. pai: the index that a tour must beat.
        gain: instead of both: what passing an area gains, in any unit.
        size: what counts for min_size and max_size: length, minutes, area; None: 1 each, so that
            these are numbers of areas.
        lock_out: ids of areas in no tour.
        Others: as for `quota_topk`.

    Returns:
        A plan with `tours`. Proved without HiGHS; beyond some 15 areas a tour time may be up
        before, status "feasible".

    Example:
        >>> plan = tours(events, graph, 4, area="area", max_size=12)
        >>> plan.tours[0]
    """
    name = "tours"
    sites = read_sites(scores, name, ids=ids, value=value, site=site, period=period)
    network = graph.aligned(sites.ids, name)
    kept = Constraints(None, (), (), lock_out)
    sizes = _NONE if size is None else sites.numbers(size, name, "size", 1.0)
    areas = sites.numbers(area, name, "area", 1.0)
    given = None if gain is None else sites.numbers(gain, name, "gain", 0.0)

    def gains(values: np.ndarray) -> np.ndarray:
        if given is not None:
            return given
        return _C.plan_tour_gain(values, areas, float(pai))

    def run(values: np.ndarray, core: _C.PlanConstraints, lock: np.ndarray) -> _C.PlanSolved:
        return _C.plan_tours(
            network.core, gains(values), k, sizes, float(min_size), float(max_size), lock, gap, time
        )

    def with_locks(values: np.ndarray, core: _C.PlanConstraints) -> _C.PlanSolved:
        return run(values, core, kept.lock(sites, name))

    def objective(values: np.ndarray, solved: _C.PlanSolved) -> float:
        return float(gains(values)[solved.chosen].sum())

    return _solved(name, sites, kept, with_locks, None if given is not None else objective)


def subgraph(
    graph: Graph,
    terminals: Sequence[Any],
    *,
    neighbours: bool = False,
    gap: float = 1e-4,
    time: float = math.inf,
) -> Plan:
    """How some nodes of a network hang together: the least tree that joins them.

    Args:
        graph: the network; edges count 1, or their weights.
        terminals: ids to join.
        neighbours: also every neighbour of a terminal.

    Returns:
        A plan with `edges`, and a table with `role`: "terminal", "essential" (in every such tree),
        "replaceable", "joining" (where neither is known) or "neighbour"; and with `betweenness`,
        for each node the expected number of pairs of terminals whose shortest path, one at random
        among the shortest, passes through it. Terminals in parts that no path joins get a tree
        each; a note says so. Exact up to 12 terminals in a part.

    Source: Dreyfus & Wagner 1971; Mehlhorn 1988 above 12.
    """
    name = "subgraph"
    sites = Sites(graph.ids, np.ones(graph.num_nodes), pd.DataFrame(index=pd.Index(graph.ids)))
    rows = sites.rows(terminals, name, "terminals")

    def run(values: np.ndarray, core: _C.PlanConstraints) -> _C.PlanSolved:
        return _C.plan_subgraph(graph.core, [int(r) for r in rows], neighbours, gap, time)

    problem = Problem(name, sites, Constraints(), run)
    solved = problem.solve(sites.scores)
    roles = np.full(len(sites.ids), "", dtype=object)
    roles[solved.chosen] = "neighbour"
    in_tree = np.asarray([v for edge in solved.edges for v in edge], dtype=int)
    roles[in_tree] = "joining"
    roles[solved.essential] = "essential"
    roles[solved.replaceable] = "replaceable"
    roles[rows] = "terminal"
    return Plan(problem, solved, extra={"roles": roles})


def _read(
    name: str,
    scores: Any,
    graph: Graph,
    k: int,
    groups: Any,
    at_least: Quota,
    at_most: Quota,
    quotas: Quotas | Sequence[Quotas] | None,
    lock_in: Sequence[Any],
    lock_out: Sequence[Any],
    ids: Any,
    value: str | None,
    site: str,
    period: Any,
) -> tuple[Sites, Constraints, Graph]:
    sites = read_sites(scores, name, ids=ids, value=value, site=site, period=period)
    kept = make_constraints(k, groups, at_least, at_most, quotas, lock_in, lock_out, name)
    return sites, kept, graph.aligned(sites.ids, name)


def _solved(name: str, sites: Sites, kept: Constraints, run: Any, objective: Any) -> Plan:
    find_highs()
    problem = Problem(name, sites, kept, run, objective)
    return Plan(problem, problem.solve(sites.scores))
