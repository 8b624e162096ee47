"""Plans on a network: spillover, call-ins, coverage, representatives, tours, subgraphs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Unpack
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from topreach import _C
from topreach.data.graph import Graph
from topreach.plan.arguments import Choice, ReachArguments, TourArguments, read_choice, takes
from topreach.plan.constraints import Constraints
from topreach.plan.inputs import Sites
from topreach.plan.plan import Plan
from topreach.plan.problem import Problem

_NONE = np.empty(0)
_SITES: WeakKeyDictionary[Graph, Sites] = WeakKeyDictionary()


@takes(ReachArguments)
def spillover(
    scores: Any,
    graph: Graph,
    k: int,
    *,
    treated: Any = 1.0,
    spilled: Any = 0.5,
    compliance: Any = None,
    **shared: Unpack[ReachArguments],
) -> Plan:
    """Whom to treat if treatment also helps neighbours.

    Maximises sum_i saved_i: a treated person saves treated_i x score_i; an untreated neighbour of a
    treated person saves spilled_i x score_i, counted once. With compliance c the expected saving is
    exact:
    sum_i score_i ((treated - spilled)_i c_i x_i + spilled_i (1 - prod_{N[i]} (1 - c_j x_j))),
    N[i] the neighbours of i and i.

    Args:
        scores: chance or expected count of each person's events: table, Series by id, or array [S].
        graph: who knows whom.
        k: number of people to treat.
        treated, spilled: share of a person's events that being treated, or knowing someone who is,
            prevents: a number, a column's name, or values by id.
        compliance: chance that a chosen person comes; None: all do.
        Others: as for `quota_topk`.

    Returns:
        A plan, in the unit of the scores; its table has `reached`, the chance that a person is
        treated or knows someone who is.

    Raises:
        ValueError: shares below 0, chances outside 0 to 1, a graph of other people, and as for
            `quota_topk`.

    Example:
        >>> graph = Graph.from_edges([("a", "c"), ("a", "d"), ("a", "e"), ("b", "e")])
        >>> spillover({"a": 0.4, "b": 0.5, "c": 0.1, "d": 0.1, "e": 0.2}, graph, 1).ids
        ['e']

    Source: Wheeler, "Optimal treatment assignment with network spillovers" (andrewpwheeler.com),
    its linear program; the form with compliance is the multilinear extension of the same sum.
    """
    choice = read_choice("spillover", scores, k, shared)
    network = graph.aligned(choice.sites.ids, choice.name)
    own = choice.numbers(treated, "treated", 1.0)
    near = choice.numbers(spilled, "spilled", 1.0)
    comes = _NONE if compliance is None else choice.numbers(compliance, "compliance", 1.0)
    sure = np.ones(len(choice.sites.ids)) if compliance is None else comes

    def run(values: np.ndarray, core: _C.PlanConstraints) -> _C.PlanSolved:
        return _C.plan_spillover(
            network.core, own * values, near * values, core, comes, choice.gap, choice.time
        )

    def objective(values: np.ndarray, solved: _C.PlanSolved) -> float:
        direct = ((own - near) * values * sure)[solved.chosen].sum()
        return float(direct + _reached(near * values, solved))

    return choice.solved(run, objective=objective)


@takes(ReachArguments)
def call_in(
    scores: Any,
    graph: Graph,
    k: int,
    *,
    comes: Any = 1.0,
    passes: Any = 1.0,
    form: str = "exact",
    weight_by_score: bool = False,
    **shared: Unpack[ReachArguments],
) -> Plan:
    """Whom to call in so that a message reaches most people.

    A person j who is called comes with chance comes_j. Whoever comes has heard the message, and
    passes it on to each neighbour with chance passes_j: q_jj = comes_j, q_ij = comes_j passes_j.

    Args:
        scores: the people: table, Series by id, or array; or only the graph's ids, `graph.ids`.
        graph: who knows whom.
        k: number of people to call.
        comes, passes: chances: a number, a column's name, or values by id.
        form: "exact": the expected number of people reached, sum_i 1 - prod_j (1 - q_ij x_j);
            "capped": expected contacts, at most one each, min(1, sum_j q_ij x_j), an upper bound of
            the exact form that is easier to solve.
        weight_by_score: whether reaching a person counts their score instead of 1.
        Others: as for `quota_topk`.

    Returns:
        A plan; `reach` is the expected number of people reached (or of their scores) in either
        form.

    Raises:
        ValueError: another form, chances outside 0 to 1, a graph of other people, and as for
            `quota_topk`.

    Example:
        >>> graph = Graph.from_edges([("a", "b"), ("a", "c"), ("c", "d")])
        >>> plan = call_in(graph.ids, graph, 1, comes=0.5, passes=0.5)
        >>> plan.ids, plan.reach
        (['a'], 1.0)

    Source: Wheeler, "Incorporating treatment non-compliance into call-ins" (andrewpwheeler.com).
    There a person who comes hears the message only with chance passes_j; here, for certain.
    """
    name = "call_in"
    if form not in ("exact", "capped"):
        raise ValueError(f"{name}: form must be 'exact' or 'capped', got {form!r}.")
    if isinstance(scores, list) and scores and isinstance(scores[0], str):
        scores = pd.Series(1.0, index=scores)
    choice = read_choice(name, scores, k, shared)
    network = graph.aligned(choice.sites.ids, name)
    arrives = choice.numbers(comes, "comes", 1.0)
    tells = choice.numbers(passes, "passes", 1.0)

    # Each person reached counts 1. Other values are used only in hindsight, or if asked for.
    def run(values: np.ndarray, core: _C.PlanConstraints) -> _C.PlanSolved:
        is_first = not weight_by_score and values is choice.sites.scores
        return _C.plan_call_in(
            network.core, arrives, tells, core, _NONE if is_first else values, form == "capped",
            choice.gap, choice.time,
        )  # fmt: skip

    return choice.solved(run, objective=_reached)


@takes(ReachArguments)
def coverage(scores: Any, graph: Graph, k: int, **shared: Unpack[ReachArguments]) -> Plan:
    """K places that have most within reach (maximal coverage): a site counts its score if it or a
    neighbour is chosen, max sum_i r_i [x(N[i]) >= 1].

    Args:
        scores: r >= 0, the value of each site, as for `quota_topk`.
        graph: which sites are within reach of each other, for instance
            `Graph.from_coordinates(..., radius=5)`.
        k: number of places.
        Others: as for `quota_topk`.

    Returns:
        A plan, in the unit of the scores; `reached` in its table is 1 for a site that counts.

    Raises:
        ValueError: a score below 0, a graph of other sites, and as for `quota_topk`.

    Example:
        >>> graph = Graph.from_edges([("a", "b"), ("b", "c"), ("d", "e")])
        >>> coverage({"a": 1.0, "b": 1.0, "c": 1.0, "d": 2.0, "e": 0.0}, graph, 1).ids
        ['b']

    Source: Church & ReVelle 1974, The maximal covering location problem.
    """
    choice = read_choice("coverage", scores, k, shared)
    network = graph.aligned(choice.sites.ids, choice.name)

    def run(values: np.ndarray, core: _C.PlanConstraints) -> _C.PlanSolved:
        return _C.plan_coverage(network.core, values, core, choice.gap, choice.time)

    return choice.solved(run, objective=_reached)


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
    """Representatives: the fewest or cheapest sites such that each site is chosen or has a chosen
    neighbour.

    Args:
        graph: which sites are neighbours.
        cost: of choosing a site, > 0: a number, or values by id; None: 1.
        reach: instead, the fewest sites from which a message reaches this many people in
            expectation, with `comes` and `passes` as for `call_in`.
        lock_in, lock_out: ids of sites that must, or must not, be chosen.
        gap: relative gap that is good enough. time: seconds.

    Returns:
        A plan whose value is the number of sites, or their cost: less is better, and the bound lies
        below. Infeasible if no plan has this `reach`; a note then gives the largest possible one.

    Raises:
        ValueError: a cost that is not above 0, chances outside 0 to 1, ids that are not in the
            graph, or reach beside cost or locks.

    Example:
        >>> dominating_set(Graph.from_edges([("a", "b"), ("a", "c")])).ids
        ['a']

    Source: Wheeler, McLean, Becker & Worden 2019, Choosing representatives to deliver the message
    in a group violence intervention, Justice Evaluation Journal.
    """
    name = "dominating_set"
    sites = _nodes(graph)
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

    return Choice(name, sites, kept, gap, time).solved(run, objective=None)


@takes(TourArguments)
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
    **shared: Unpack[TourArguments],
) -> Plan:
    """At most k tours, each a path from neighbour to neighbour; no two share an area.

    A tour gains its share of all events minus pai x its share of the whole area. A tour with gain >
    0 has a prediction accuracy index (PAI) above `pai`. Tours that gain nothing are left out.

    Args:
        scores: expected events of each area, >= 0.
        graph: which areas are neighbours.
        k: the largest number of tours.
        area: size of each area, for the gain; None: 1 each. pai: the index that a tour must beat.
        gain: instead of area and pai: the gain of passing an area, in any unit.
        size: of each area, for min_size and max_size: length, minutes or area; None: 1 each, so
            that these are numbers of areas.
        lock_out: ids of areas that must be in no tour.
        Others: as for `quota_topk`.

    Returns:
        A plan with `tours`. It is proved without HiGHS. With more than some 15 areas in a tour,
        time may run out first; then the status is "feasible".

    Raises:
        ValueError: k below 1; a size that is not above 0; min_size above max_size, or max_size
            below the smallest area; a graph of other areas; and as for `quota_topk`.
        RuntimeError: time was up before any plan was found.

    Example:
        >>> graph = Graph.from_edges([("a", "b"), ("b", "c"), ("c", "d")])
        >>> gain = {"a": 2.0, "b": -1.0, "c": 3.0, "d": -1.0}
        >>> plan = tours(dict.fromkeys("abcd", 1.0), graph, 1, gain=gain)
        >>> plan.tours, plan.value
        ([['a', 'b', 'c']], 4.0)

    Source: Wheeler, "Creating high crime sub-tours" (andrewpwheeler.com), whose linear program
    forbids only cycles of two areas. Here every tour is a path. Method: column generation.
    """
    choice = read_choice("tours", scores, None, shared)
    sites = choice.sites
    network = graph.aligned(sites.ids, choice.name)
    sizes = _NONE if size is None else choice.numbers(size, "size", 1.0)
    areas = choice.numbers(area, "area", 1.0)
    given = None if gain is None else choice.numbers(gain, "gain", 0.0)

    def gains(values: np.ndarray) -> np.ndarray:
        if given is not None:
            return given
        return _C.plan_tour_gain(values, areas, float(pai))

    def run(values: np.ndarray, core: _C.PlanConstraints) -> _C.PlanSolved:
        return _C.plan_tours(
            network.core, gains(values), k, sizes, float(min_size), float(max_size), core.lock,
            choice.gap, choice.time,
        )  # fmt: skip

    def objective(values: np.ndarray, solved: _C.PlanSolved) -> float:
        return float(gains(values)[solved.chosen].sum())

    return choice.solved(run, objective=None if given is not None else objective)


def subgraph(
    graph: Graph,
    terminals: Sequence[Any],
    *,
    neighbours: bool = False,
    gap: float = 1e-4,
    time: float = math.inf,
) -> Plan:
    """How some nodes of a network are connected: the smallest tree that joins them.

    Args:
        graph: the network; edges count 1, or their weights.
        terminals: ids to join.
        neighbours: whether to add every neighbour of a terminal.
        gap: relative gap that counts as optimal. time: must be above 0; the method does not stop
            early.

    Returns:
        A plan with `edges`, and a table with `role`: "terminal", "essential" (in every such tree),
        "replaceable", "joining" (if neither is known) or "neighbour"; and with `betweenness`, for
        each node the expected number of pairs of terminals whose shortest path, one at random
        among the shortest, passes through it. If no path joins all terminals, each connected part
        gets its own tree; a note says so. Exact up to 12 terminals in a part.

    Raises:
        ValueError: no terminals, one twice, or one that is not in the graph.

    Example:
        >>> graph = Graph.from_edges([("a", "hub"), ("b", "hub"), ("c", "hub"), ("c", "d")])
        >>> plan = subgraph(graph, ["a", "b", "c"])
        >>> plan.value, plan.essential
        (3.0, ['hub'])

    Source: Wheeler, "Using Steiner trees to select a subgraph of interest" (andrewpwheeler.com), by
    an approximation. Exact: Dreyfus & Wagner 1971, The Steiner problem in graphs; above 12
    terminals Mehlhorn 1988, A faster approximation algorithm for the Steiner problem in graphs.
    Betweenness: Brandes 2001.
    """
    name = "subgraph"
    sites = _nodes(graph)
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


def _reached(values: np.ndarray, solved: _C.PlanSolved) -> float:
    """The expected sum of the values of those that are reached."""
    return float((values * solved.columns["reached"]).sum())


def _nodes(graph: Graph) -> Sites:
    """The sites of a graph, each with score 1; kept for the next plan on the same graph."""
    if graph not in _SITES:
        table = pd.DataFrame(index=pd.Index(graph.ids))
        _SITES[graph] = Sites(graph.ids, np.ones(graph.num_nodes), table)
    return _SITES[graph]
