"""Each function of `topreach.plan` on instances small enough to solve by hand: the meaning of its
arguments, the content of its plan, and its errors."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pandas as pd
import pytest
import torch

import topreach as tr

needs_highs = pytest.mark.skipif(not tr.plan.has_highs(), reason="HiGHS is not installed")
# a has the neighbours c, d and e; b has e.
GRAPH = tr.Graph.from_edges([("a", "c"), ("a", "d"), ("a", "e"), ("b", "e")])
DEGREE = math.radians(1) * 6371.0088  # km along a great circle


def test_defaults_are_those_of_the_documentation():
    functions = [f for f in map(tr.plan.__dict__.get, tr.plan.__all__) if inspect.isfunction(f)]
    given = {}
    for function in functions:
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.default not in (inspect.Parameter.empty, None, ()):
                given.setdefault(name, set()).add(parameter.default)
    assert given == {
        "gap": {1e-4}, "time": {math.inf}, "site": {"site"}, "radius": {math.inf},
        "open_sites": {0}, "prices": {True}, "degrees": {False}, "opening": {0.0}, "rest": {0},
        "most_visits": {0}, "treated": {1.0}, "spilled": {0.5},
        "comes": {1.0}, "passes": {1.0}, "form": {"exact"}, "weight_by_score": {False},
        "pai": {10.0}, "min_size": {0.0}, "max_size": {math.inf}, "neighbours": {False},
    }  # fmt: skip


# ---- choices -------------------------------------------------------------------------------------


def test_effects_may_be_nothing_but_not_less():
    plan = tr.plan.quota_topk([9.0, 2.0, 1.0], 1, effect=[0.0, 0.5, 0.5])
    assert plan.ids == ["1"] and plan.value == 1
    with pytest.raises(ValueError, match="effect must be shares from 0 to 1, got -0.5 for '1'"):
        tr.plan.quota_topk([9.0, 2.0, 1.0], 1, effect=[0.0, -0.5, -1.0])


@needs_highs
def test_costs_by_column_and_a_budget():
    table = pd.DataFrame({"site": list("abc"), "score": [5.0, 4.0, 3.0], "price": [3, 2, 2]})
    plan = tr.plan.budget_topk(table, "price", 4)
    assert plan.ids == ["b", "c"] and plan.value == 7 and plan.numbers["cost"] == 4
    assert tr.plan.budget_topk(table, "price", 4, 1).ids == ["a"]  # K = 1
    assert tr.plan.budget_topk(table, 2, 4).ids == ["a", "b"]


@needs_highs
def test_stability_under_crossing_quotas():
    """Two groupings that cross have no quick way: each draw is solved."""
    one, two = ["a", "a", "b", "b"], ["x", "y", "x", "y"]
    quotas = [tr.plan.Quotas(one, at_most=1), tr.plan.Quotas(two, at_most=1)]
    draws = np.array([[9.0, 1, 1, 2], [1, 5, 1, 1], [1.0, 2, 9, 1]])
    frequency, overlap = tr.plan.quota_topk([4.0, 3, 2, 1], 2, quotas=quotas).stability(draws)
    # The plan: 0 and 3 or 1 and 2, both 5. Of the draws: 0 and 3, 1 and 2, 1 and 2.
    assert frequency.sort_index().to_dict() == pytest.approx(
        {"0": 1 / 3, "1": 2 / 3, "2": 2 / 3, "3": 1 / 3}
    )
    assert overlap in (pytest.approx(1 / 3), pytest.approx(2 / 3))


@needs_highs
def test_spacing_on_the_sphere():
    """Two sites at exactly this distance are far enough apart."""
    places = {"x": [0.0, 1, 2], "y": [0.0, 0, 0], "degrees": True}
    assert tr.plan.spaced([1.0, 2, 1.5], 3, DEGREE, **places).value == 4.5
    assert tr.plan.spaced([1.0, 2, 1.5], 2, 1.001 * DEGREE, **places).ids == ["2", "0"]
    plane = {"x": [0.0, 1, 2], "y": [0.0, 0, 0]}
    assert tr.plan.spaced([1.0, 2, 1.5], 3, 1, **plane).value == 4.5
    assert tr.plan.spaced([1.0, 2, 1.5], None, 1.5, **plane).ids == ["2", "0"]


def test_spacing_needs_a_distance_or_a_graph():
    graph, places = tr.Graph.from_edges([("0", "1")]), {"x": [0, 1], "y": [0, 1]}
    for how in ({}, {"distance": 1.0, "graph": graph}):
        with pytest.raises(ValueError, match="spaced: give either distance .* or graph"):
            tr.plan.spaced([1.0, 2], 1, **how)
    for how in ({"x": [0, 1]}, {"y": [0, 1]}, {}):
        with pytest.raises(ValueError, match="spaced: x and y must be the sites' coordinates"):
            tr.plan.spaced([1.0, 2], 1, 1.0, **how)
    for wrong in (0, 0.0, -1.0, math.inf, math.nan, "1"):
        with pytest.raises(ValueError, match="spaced: distance must be a number above 0, got"):
            tr.plan.spaced([1.0, 2], 1, wrong, **places)


RATES = np.array([[5.0, 4, 0], [0, 4, 5], [5, 4, 0]])


@needs_highs
@pytest.mark.parametrize(
    ("how", "visits", "value"),
    [
        ({"k": 1}, [[0], [2], [0]], 15),
        ({"k": np.int64(1), "opening": 1.5}, [[0], [2], [0]], 15 - 4.5),
        ({"k": 1, "opening": 2.5}, [[1], [1], [1]], 12 - 2.5),
        ({"k": [1, 2, 0]}, [[0], [1, 2], []], 14),
        ({"k": 1, "rest": 1}, [[0], [2], [0]], 15),
        ({"k": 1, "rest": 2}, [[0], [2], [1]], 14),
        ({"k": 1, "most_visits": 1}, [[0], [2], [1]], 14),
        ({"k": 1, "opening": [0, 0, 9]}, [[0], [1], [0]], 14),
        ({"k": 1, "opening": 3, "before": ["1"]}, [[1], [1], [1]], 12),
    ],
)
def test_phases(how, visits, value):
    plan = tr.plan.phased(RATES, gap=0, **how)
    assert plan.value == pytest.approx(value)
    assert [sorted(map(int, part)) for part in plan.tours] == visits
    frame = plan.to_frame()
    assert frame["time"].tolist() == [str(t + 1) for t, part in enumerate(visits) for _ in part]
    for time, site, score in frame.itertuples(index=False):
        assert score == RATES[int(time) - 1, int(site)]


@needs_highs
def test_phases_in_hindsight():
    """Two periods, one site each: 0, then 2."""
    plan = tr.plan.phased(RATES[:2], 1)
    y = np.array([[1.0, 3, 0], [0, 2, 1]])
    for given in (y, torch.tensor(y, requires_grad=True)):
        found = plan.evaluate(given)
        assert found["reach"] == 2 and found["bpr"] == pytest.approx(2 / 5)
        assert found["capture"] == pytest.approx(2 / 7)
        assert found["free_bpr"] == pytest.approx(2 / (3 + 2))
    two = tr.plan.phased(RATES[:2], 2).evaluate([[1, 3, 2], [4, 2, 1]])  # 0 and 1, then 1 and 2
    assert two["reach"] == 1 + 3 + 2 + 1 and two["capture"] == pytest.approx(7 / 13)
    assert two["bpr"] == two["free_bpr"] == pytest.approx(7 / (3 + 2 + 4 + 2))
    with pytest.raises(ValueError, match=r"y must have shape \[2, 3\], got \[3, 2\]"):
        plan.evaluate(y.T)
    nothing = plan.evaluate(np.zeros((2, 3)))
    assert np.isnan([nothing["bpr"], nothing["capture"], nothing["free_bpr"]]).all()
    frequency, _ = plan.stability(np.stack([RATES[:2], y]))
    assert frequency.sort_index().to_dict() == {"0": 0.5, "1": 0.5, "2": 0.5}


def test_what_phases_refuse():
    for k in ([1, 1], [1] * 4):
        message = f"k must be one number for each of 3 periods, got {len(k)}"
        with pytest.raises(ValueError, match=message):
            tr.plan.phased(RATES, k)
    for how in ({"rest": -1}, {"most_visits": -1}, {"k": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(how))} must be a whole number >= 0"):
            tr.plan.phased(RATES, **{"k": 1} | how)


FAIR = ([4.0, 3, 2, 1, 5], ["a", "a", "b", "b", ""])  # the last is in no group


@needs_highs
def test_the_least_share_of_a_group():
    scores, groups = FAIR
    plan = tr.plan.fair(scores, 2, groups, gap=0)
    assert sorted(plan.ids) == ["0", "2"] and plan.value == pytest.approx(4 / 7)
    assert plan.numbers["share of a"] == pytest.approx(4 / 7)
    assert plan.numbers["share of b"] == pytest.approx(2 / 3)
    found = plan.evaluate([1, 3, 2, 2, 9])
    assert found["reach"] == pytest.approx(1 / 4) and found["bpr"] == pytest.approx(1 / 2)
    # A group without events has no share.
    found = plan.evaluate([1, 3, 0, 0, 9])
    assert found["reach"] == pytest.approx(1 / 4) and found["bpr"] == pytest.approx(1 / 4)
    assert np.isnan(plan.evaluate([0, 0, 0, 0, 9])["bpr"])
    assert plan.price_of_constraints == pytest.approx(1 - 6 / 9)  # 4 and 2, not 5 and 4


@needs_highs
def test_floors_of_groups():
    scores, groups = FAIR
    for floors, expected in (
        (0.0, ["0", "4"]),
        (0.5, ["0", "2"]),
        ({"b": 0.5}, ["2", "4"]),
        ({"b": 0.7}, ["2", "3"]),
        ({"a": 0.5}, ["0", "4"]),
        ({}, ["0", "4"]),
    ):
        plan = tr.plan.fair(scores, 2, groups, floors=floors, gap=0)
        assert sorted(plan.ids) == expected, floors
        assert plan.value == sum(scores[int(i)] for i in expected)
        assert plan.evaluate([1.0, 1, 1, 1, 1])["reach"] == 2
    by_number = tr.plan.fair(scores[:4], 2, [1, 1, 2, 2], floors={2: 0.7}, gap=0)
    assert sorted(by_number.ids) == ["2", "3"]
    with pytest.raises(ValueError, match="fair: floors must name groups, got 'c'"):
        tr.plan.fair(scores, 2, groups, floors={"a": 0.1, "c": 0.1})


# ---- people --------------------------------------------------------------------------------------


def test_spillover_by_hand():
    """Treating e saves all of its own events and half of those of a and b."""
    people = pd.DataFrame({"site": list("abcde"), "score": [4.0, 5, 1, 1, 2], "p": 0.5})
    plan = tr.plan.spillover(people, GRAPH, 1)
    assert plan.ids == ["e"] and plan.value == 2 + (4 + 5) / 2
    assert plan.evaluate({"a": 1, "b": 0, "c": 4, "d": 0, "e": 3})["reach"] == 3 + 1 / 2
    surely = tr.plan.spillover(people, GRAPH, 1, compliance=None)
    assert surely.value == plan.value and surely.evaluate([1, 0, 4, 0, 3])["reach"] == 3.5
    # A person who comes with chance .5 saves half of it.
    half = tr.plan.spillover(people, GRAPH, 1, compliance="p")
    assert half.value == pytest.approx(plan.value / 2)
    assert half.evaluate([1, 0, 4, 0, 3])["reach"] == pytest.approx(1.75)
    own = tr.plan.spillover(people, GRAPH, 1, treated="p", spilled=0.0)
    assert own.ids == ["b"] and own.value == 2.5


def test_call_in_by_hand():
    """The number of people, or with weight_by_score their scores."""
    plan = tr.plan.call_in(GRAPH.ids, GRAPH, 1)
    assert plan.ids == ["a"] and plan.value == plan.reach == 4  # a, c, d, e
    y = pd.Series({"b": 10.0, "e": 1, "a": 0, "c": 0, "d": 0})
    found = plan.evaluate(y)
    assert found["reach"] == 1 and found["bpr"] == pytest.approx(1 / 11)
    scores = y[GRAPH.ids].tolist()
    by_people = tr.plan.call_in(scores, GRAPH, 1, ids=GRAPH.ids)
    assert by_people.ids == ["a"] and by_people.value == 4
    by_score = tr.plan.call_in(scores, GRAPH, 1, ids=GRAPH.ids, weight_by_score=True)
    assert by_score.value == 11 and by_score.ids[0] in ("b", "e")
    # a comes, and tells each neighbour, with chance one half.
    unsure = tr.plan.call_in(GRAPH.ids, GRAPH, 1, comes=0.5, passes=0.5)
    assert unsure.reach == pytest.approx(0.5 + 3 * 0.25)
    with pytest.raises(ValueError, match="call_in: form must be 'exact' or 'capped', got 'x'"):
        tr.plan.call_in(GRAPH.ids, GRAPH, 1, form="x")
    with pytest.raises(ValueError, match="call_in: scores must have at least one site"):
        tr.plan.call_in([], GRAPH, 1)


def test_capped_contacts_are_one_each_at_most():
    """e hears from a and from b with chance .6 each: 1 and not 1.2; in truth 1 - .4^2."""
    plan = tr.plan.call_in(GRAPH.ids, GRAPH, 2, comes=0.6, form="capped", lock_in=["a", "b"])
    assert plan.value == pytest.approx(4 * 0.6 + 1)
    assert plan.reach == pytest.approx(4 * 0.6 + 1 - 0.4**2)


@needs_highs
def test_coverage_by_hand():
    plan = tr.plan.coverage({"a": 1.0, "b": 9, "c": 1, "d": 1, "e": 1}, GRAPH, 1)
    assert plan.ids == ["e"] and plan.value == 11  # itself, a and b
    found = plan.evaluate({"a": 1, "b": 0, "c": 5, "d": 0, "e": 2})
    assert found["reach"] == 3 and found["bpr"] == pytest.approx(3 / 8)


@needs_highs
def test_representatives_by_hand():
    plan = tr.plan.dominating_set(GRAPH)
    assert plan.value == 2 and "a" in plan.ids
    dear = tr.plan.dominating_set(GRAPH, {"a": 9.0, "b": 1, "c": 1, "d": 1, "e": 1}, gap=0)
    assert sorted(dear.ids) == ["c", "d", "e"] and dear.value == 3  # c, d and e cost 3, a alone 9
    locked = tr.plan.dominating_set(GRAPH, lock_in=["b"], lock_out=["a"])
    assert sorted(locked.ids) == ["b", "c", "d"] or locked.value == 4
    some = tr.plan.dominating_set(GRAPH, reach=4)
    assert some.ids == ["a"]
    for how in ({"cost": 1.0}, {"lock_in": ["a"]}, {"lock_out": ["a"]}):
        with pytest.raises(ValueError, match="dominating_set: reach goes without cost and locks"):
            tr.plan.dominating_set(GRAPH, reach=2, **how)
    with pytest.raises(TypeError, match="a plan of dominating_set is not judged by counts"):
        plan.evaluate([1] * 5)


# ---- tours and trees -----------------------------------------------------------------------------

LINE = tr.Graph.from_edges([("a", "b"), ("b", "c"), ("c", "d")])
EVENTS = {"a": 6.0, "b": 1, "c": 2, "d": 1}


def test_tours_gain_what_their_area_does_not_cost():
    """The share of events less pai x the share of the area, four areas of one quarter each."""
    plan = tr.plan.tours(EVENTS, LINE, 1, pai=1.0, gap=0)
    assert plan.tours == [["a"]] and plan.value == pytest.approx(0.6 - 0.25)
    wider = tr.plan.tours(EVENTS, LINE, 1, pai=1.0, area={"a": 1, "b": 1, "c": 1, "d": 7}, gap=0)
    assert sorted(wider.tours[0]) == ["a", "b", "c"]
    assert wider.value == pytest.approx(0.9 - 0.3)
    assert tr.plan.tours(EVENTS, LINE, 2).tours == []  # nothing is ten times as dense
    found = wider.evaluate({"a": 1, "b": 0, "c": 0, "d": 1}, area=1.0)
    assert found["reach"] == pytest.approx(0.5 - 0.3)
    assert found["pai"] == pytest.approx(0.5 / 0.75) == found["tour_pai"][0]


def test_limits_of_tours():
    gain = {"a": 3.0, "b": -1, "c": 2, "d": 1}
    how = {"gain": gain, "gap": 0}
    assert tr.plan.tours(EVENTS, LINE, 1, **how).value == 5  # all of them
    assert tr.plan.tours(EVENTS, LINE, 2, **how).value == 6  # a; c and d
    assert tr.plan.tours(EVENTS, LINE, 1, max_size=2, **how).value == 3
    assert tr.plan.tours(EVENTS, LINE, 2, min_size=3, **how).value == 5
    sizes = {"a": 5, "b": 1, "c": 1, "d": 1}
    assert tr.plan.tours(EVENTS, LINE, 1, size=sizes, max_size=3, **how).tours in (
        [["c", "d"]], [["d", "c"]],
    )  # fmt: skip
    assert sorted(tr.plan.tours(EVENTS, LINE, 1, lock_out=["b"], **how).ids) in (["a"], ["c", "d"])
    with pytest.raises(TypeError, match="a plan of tours is not judged by counts of sites"):
        tr.plan.tours(EVENTS, LINE, 1, **how).evaluate(EVENTS)


def test_two_tours_as_a_table():
    """By tour and stop; the others have none."""
    plan = tr.plan.tours(EVENTS, LINE, 2, gain={"a": 3.0, "b": -1, "c": 2, "d": 1}, gap=0)
    frame = plan.to_frame(all_sites=True)
    assert frame["tour"].tolist()[:3] == [1, 2, 2] or frame["tour"].tolist()[:3] == [1, 1, 2]
    for number, tour in enumerate(plan.tours, 1):
        part = frame[frame["tour"] == number]
        assert part["site"].tolist() == tour and part["stop"].tolist() == [*range(1, len(tour) + 1)]
    left = frame[~frame["selected"]]
    assert left["site"].tolist() == ["b"] and left[["tour", "stop"]].values.tolist() == [[0, 0]]


def test_roles_of_a_tree():
    """s - m - t joins two terminals by m alone; t and u are joined by p or q; n is joined to s."""
    edges = [("s", "m"), ("m", "t"), ("t", "p"), ("p", "u"), ("t", "q"), ("q", "u"), ("s", "n")]
    graph = tr.Graph.from_edges([*edges, ("n", "far")])
    plan = tr.plan.subgraph(graph, ["s", "t", "u"], neighbours=True)
    assert plan.value == 4 and plan.essential == ["m"] and len(plan.edges) == 4
    table = plan.to_frame().set_index("site")
    (between,) = plan.replaceable
    other = {"p": "q", "q": "p"}[between]
    assert table["role"].to_dict() == {
        "s": "terminal", "t": "terminal", "u": "terminal", "m": "essential",
        between: "replaceable", other: "neighbour", "n": "neighbour",
    }  # fmt: skip
    # Pairs: s-t, s-u, t-u; a shortest path from t to u goes by p or by q.
    assert table.loc[["m", "p", "q", "t"], "betweenness"].tolist() == pytest.approx([2, 1, 1, 1])
    alone = tr.plan.subgraph(graph, ["s", "t", "u"])
    assert sorted(alone.ids) == sorted(["s", "t", "u", "m", *alone.replaceable])


# ---- treatment coverage --------------------------------------------------------------------------


@needs_highs
def test_assignment_by_hand():
    """Three people and two, room for four: one is left out."""
    need, room = pd.Series([3.0, 2.0], ["x", "y"]), pd.Series([4.0, 0.0], [1, 2])
    ways = [[1.0, 9.0], [5.0, 1.0]]
    plan = tr.plan.assign(need, room, ways, radius=6, unserved=100)
    assert plan.value == 3 * 1 + 1 * 5 + 100
    frame = plan.to_frame()
    assert frame["site"].tolist() == ["y", "x"] and frame["unserved"].tolist() == [1, 0]
    assert list(frame.columns) == ["site", "need", "unserved", "need_more", "need_less"]
    # One more in need is left out; one less at y takes the one who is.
    assert frame["need_more"].tolist() == pytest.approx([100, 100 + 1 - 5])
    assert plan.flows.to_numpy().tolist() == [["x", "1", 3, 1], ["y", "1", 1, 5]]
    assert plan.places["site"].tolist() == ["1", "2"]
    assert plan.places["used"].tolist() == [4, 0] and plan.places["capacity"].tolist() == [4, 0]
    assert plan.edges == [] and not plan.places["opened"].any()
    plain = tr.plan.assign(need, room, ways, radius=6, unserved=100, prices=False)
    assert list(plain.to_frame().columns) == ["site", "need", "unserved"]
    assert list(plain.places.columns) == ["site", "capacity", "used", "opened"]
    assert tr.plan.assign([3, 2], [4], [[1.0], [5.0]], radius=10).numbers["unserved"] == 1


@needs_highs
def test_new_places():
    """A number is the capacity of each place that has none yet; the others keep theirs."""
    ways = [[1.0, 2.0, 2.0]]
    how = {"unserved": 50.0, "prices": False, "gap": 0}
    closed = tr.plan.assign([5.0], [2.0, 0, 0], ways, **how)
    assert closed.numbers["unserved"] == 3
    one = tr.plan.assign([5.0], [2.0, 0, 0], ways, open_sites=1, opened_capacity=2, **how)
    assert one.numbers["unserved"] == 1 and one.places["opened"].sum() == 1
    two = tr.plan.assign([5.0], [2.0, 0, 0], ways, open_sites=2, opened_capacity=2, **how)
    assert two.value == 2 * 1 + 3 * 2 and two.places["opened"].tolist() == [False, True, True]
    named = pd.Series([0.0, 0, 3], ["p", "q", "r"])
    room = pd.Series([2.0, 0, 0], ["p", "q", "r"])
    third = tr.plan.assign([5.0], room, ways, open_sites=1, opened_capacity=named[::-1], **how)
    assert third.places.set_index("site")["opened"].to_dict() == {"p": 0, "q": 0, "r": 1}
    for nothing in (None, 0, [0.0, 0, 0]):
        with pytest.raises(ValueError, match="opened_capacity must say what open_sites can hold"):
            tr.plan.assign([5.0], [2.0, 0, 0], ways, open_sites=1, opened_capacity=nothing)


@needs_highs
def test_ways_along_the_sphere():
    """A degree of longitude at 60 degrees north is half of one at the equator; half way round the
    Earth is pi R."""
    here, there = [[0.0, 60.0], [10.0, 0.0]], [[0.0, 61.0], [10.0, 0.001]]
    plan = tr.plan.assign([1, 1], [1, 1], need_places=here, capacity_places=there, unserved=1e6)
    assert plan.flows["distance"].tolist() == pytest.approx([DEGREE, DEGREE / 1000], rel=1e-9)
    east = tr.plan.assign(
        [1], [1], need_places=[[0.0, 60.0]], capacity_places=[[0.001, 60.0]], unserved=1e6
    )
    assert east.value == pytest.approx(DEGREE / 2000, rel=1e-6)
    far = tr.plan.assign(
        [1], [1], need_places=[[0.0, 0.0]], capacity_places=[[180.0, 0.0]], unserved=1e6
    )
    assert far.value == pytest.approx(math.pi * 6371.0088)
    oblique = tr.plan.assign(
        [1], [1], need_places=[[0.0, 0.0]], capacity_places=[[90.0, 45.0]], unserved=1e6
    )
    assert oblique.value == pytest.approx(math.pi / 2 * 6371.0088)  # at right angles


def test_what_assignments_refuse():
    place = [[0.0, 0.0]]
    for how in (
        {},
        {"need_places": place},
        {"capacity_places": place},
        {"distance": [[1.0]], "need_places": place, "capacity_places": place},
    ):
        with pytest.raises(ValueError, match="assign: give either distance or both need_places"):
            tr.plan.assign([1.0], [1.0], **how)
    with pytest.raises(ValueError, match=r"distance must have shape \[1, 1\], got \[1, 2\]"):
        tr.plan.assign([1.0], [1.0], [[1.0, 2.0]])
    for here, there in (([[0.0]], place), (place, [[0.0, 0.0]] * 2)):
        with pytest.raises(ValueError, match=r"_places must have shape \[1, 2\], got"):
            tr.plan.assign([1.0], [1.0], need_places=here, capacity_places=there)
