"""Plans judged in all ways: by observed counts, draws and exchanges; files, errors, and programs
without HiGHS."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import topreach as tr

needs_highs = pytest.mark.skipif(not tr.plan.has_highs(), reason="HiGHS is not installed")
RANKED = pd.DataFrame(
    {
        "time": 2024,
        "site": ["001", "002", "003", "004", "005", "006"],
        "score": [6.0, 5.0, 4.0, 3.0, 2.0, 1.0],
        "town": ["A", "A", "A", "B", "B", "B"],
        "lon": [0.0, 1, 2, 0, 1, 2],
        "lat": [0.0, 0, 0, 1, 1, 1],
    }
)


@pytest.fixture
def plan():
    return tr.plan.quota_topk(RANKED, 3, groups="town", at_least=1)


def test_evaluate(plan):
    assert plan.ids == ["001", "002", "004"]
    y = pd.Series({"006": 9, "005": 0, "004": 2, "003": 7, "002": 1, "001": 3})
    found = plan.evaluate(y, area=[1.0, 1, 1, 2, 2, 2])
    # The best allowed: 9 + 7 + 3; so are the best three at all.
    assert found["reach"] == 6 and found["bpr"] == pytest.approx(6 / 19)
    assert found["free_bpr"] == pytest.approx(6 / 19)
    assert found["capture"] == pytest.approx(6 / 22) and found["bpr_gap"] == 0
    assert found["share"].to_dict() == pytest.approx({"A": 4 / 11, "B": 2 / 11})
    assert found["pai"] == pytest.approx((6 / 22) / (4 / 9))
    y[["001", "002", "003"]] = 30, 20, 10
    again = plan.evaluate(y)
    assert again["bpr"] == pytest.approx(52 / 59) and again["free_bpr"] == pytest.approx(52 / 60)
    assert np.isnan(plan.evaluate(y * 0)["bpr"])


def test_swap_and_price(plan):
    assert plan.swap_with("004") == (["005"], pytest.approx(1.0))
    assert plan.swap_with("001") == (["003"], pytest.approx(2.0))
    assert plan.price_of_constraints == pytest.approx(1 - 14 / 15)
    with pytest.raises(ValueError, match="one of the plan's, got '006'"):
        plan.swap_with("006")


def test_stability(plan):
    draws = np.array([[6.0, 5, 4, 3, 2, 1], [1.0, 2, 3, 6, 5, 4]])
    frequency, overlap = plan.stability(draws)
    assert frequency.to_dict() == {
        "001": 0.5, "002": 0.5, "003": 0.5, "004": 1.0, "005": 0.5, "006": 0.0,
    }  # fmt: skip
    assert overlap == pytest.approx((3 + 1) / 2 / 3)


def test_ratio_ranking_under_constraints():
    """argmax over plans of E[f(y, x) / R(y)], against all plans."""
    from itertools import combinations

    random = np.random.default_rng(1)
    town = np.array([0, 0, 0, 1, 1, 1])
    plans = [p for p in combinations(range(6), 3) if 1 <= sum(town[list(p)]) <= 2]
    for _ in range(20):
        draws = random.negative_binomial(1, 0.2, (40, 6)).astype(float)
        reach = np.array([[y[list(p)].sum() for p in plans] for y in draws])
        kept = reach.max(axis=1) > 0
        ratio = (reach[kept] / reach[kept].max(axis=1, keepdims=True)).mean(axis=0)
        plan = tr.plan.quota_topk(draws.mean(axis=0), 3, groups=town, at_least=1).by_ratio(draws)
        assert plan.value == pytest.approx(ratio.max())


def test_effect_is_what_acting_prevents():
    scores, effect = [10.0, 8.0, 6.0], [0.1, 0.5, 0.5]
    plan = tr.plan.quota_topk(scores, 1, effect=effect)
    assert plan.ids == ["1"] and plan.value == 4
    found = plan.evaluate([0, 2, 4])
    assert found["reach"] == 1 and found["bpr"] == 0.5


def test_frames_and_files(plan, tmp_path):
    assert plan.to_frame()["site"].tolist() == ["001", "002", "004"]
    everything = plan.to_frame(all_sites=True)
    assert len(everything) == 6 and everything["selected"].sum() == 3
    plan.to_csv(tmp_path / "plan.csv")
    read = pd.read_csv(tmp_path / "plan.csv", dtype={"site": str})
    assert read["site"].tolist() == plan.ids and "town" in read
    plan.to_geojson(tmp_path / "plan.geojson")
    layer = json.loads((tmp_path / "plan.geojson").read_text())
    assert [f["id"] for f in layer["features"]] == plan.ids
    assert layer["features"][2]["geometry"]["coordinates"] == [0.0, 1.0]
    polygons = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
    shapes = [
        {"type": "Feature", "geometry": polygons, "properties": {"GEOID": i}} for i in plan.ids
    ]
    (tmp_path / "shapes.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": shapes})
    )
    plan.to_geojson(tmp_path / "b.geojson", tmp_path / "shapes.geojson")
    assert json.loads((tmp_path / "b.geojson").read_text())["features"][0]["geometry"] == polygons
    with pytest.raises(ValueError, match="must place every site"):
        plan.to_geojson(tmp_path / "c.geojson", tmp_path / "shapes.geojson", all_sites=True)
    with pytest.raises(ValueError, match="where the sites lie"):
        tr.plan.quota_topk([1.0, 2.0], 1).to_geojson(tmp_path / "c.geojson")
    assert not (tmp_path / "c.geojson").exists()


def test_pictures(plan, tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    assert plan.plot().get_title() == repr(plan)
    assert tr.plan.quota_topk([1.0, 2.0], 1).plot().get_ylabel() == "score"


def test_tours_as_a_table():
    graph = tr.Graph.from_edges([("a", "b"), ("b", "c"), ("c", "d")])
    plan = tr.plan.tours({"a": 5, "b": 0, "c": 5, "d": 1}, graph, 1, pai=0.5, max_size=3)
    frame = plan.to_frame()
    assert plan.tours[0] in (["a", "b", "c"], ["c", "b", "a"])
    assert frame["stop"].tolist() == [1, 2, 3] and frame["site"].tolist() == plan.tours[0]
    found = plan.evaluate({"a": 4, "b": 0, "c": 0, "d": 4}, area=1.0)
    assert found["tour_pai"] == [pytest.approx((4 / 8) / (3 / 4))]


# ---- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 7}, "k must be from 0 to the number of sites S = 6, got 7"),
        ({"k": 2.5}, "k must be a whole number, got 2.5"),
        ({"groups": "county"}, "groups must be a column of scores, got 'county'"),
        ({"groups": "town", "at_least": {"C": 1}}, "at_least must name groups, got 'C'"),
        ({"groups": "town", "at_least": "thirty"}, "a share such as '30%', got 'thirty'"),
        ({"groups": "town", "at_least": 4},
         "quotas must be feasible, got at least 4 in town 'A' that has 3 sites"),
        ({"groups": "town", "at_least": 2}, "lower bounds that sum to 4 for k=3"),
        ({"groups": "town", "at_most": 1}, "got only 2 sites that may be chosen for k=3"),
        ({"groups": "town", "at_most": {"A": 1}, "lock_in": ["001", "002"]},
         "at most 1 in town 'A' where 2 must be chosen"),
        ({"at_least": 1}, "at_least and at_most must come with groups"),
        ({"lock_in": ["1"]}, "lock_in must be ids of the 6 sites, got '1'"),
        ({"lock_in": ["001"], "lock_out": ["001"]}, "locked in and out, got '001'"),
        ({"gap": -1.0}, "gap must be a number >= 0, got -1"),
        ({"time": 0.0}, "time must be a number of seconds > 0, got 0"),
        ({"effect": "town"}, "effect must be numbers, got 'A' for '001'"),
        ({"value": "rank"}, "scores must have the column 'rank'"),
    ],
)  # fmt: skip
def test_errors_name_the_fault(arguments, message):
    arguments = {"k": 3} | arguments
    with pytest.raises((ValueError, TypeError)) as error:
        tr.plan.quota_topk(RANKED, **arguments)
    assert message in str(error.value)
    assert str(error.value).startswith("quota_topk: ")


def test_nested_quotas_name_the_group():
    quotas = [
        tr.plan.Quotas(["a", "a", "b", "b", "c", "c"], at_most=1, name="municipality"),
        tr.plan.Quotas("town", at_least={"A": 3}),
    ]
    frame = RANKED.assign(town=["A", "A", "A", "A", "B", "B"])
    with pytest.raises(ValueError, match="at least 3 in town 'A' where the groups within allow 2"):
        tr.plan.quota_topk(frame, 3, quotas=quotas)


def test_several_periods_and_sites_twice():
    two = pd.concat([RANKED, RANKED.assign(time=2025)])
    with pytest.raises(ValueError, match="of one period, got 2"):
        tr.plan.quota_topk(two, 3)
    assert tr.plan.quota_topk(two, 3, period=2025).value == 15
    with pytest.raises(ValueError, match="a site once, got '001' twice"):
        tr.plan.quota_topk(pd.concat([RANKED, RANKED]), 3)


def test_closed_sites():
    scores = [3.0, -np.inf, 1.0]
    assert tr.plan.quota_topk(scores, 2).ids == ["0", "2"]
    with pytest.raises(ValueError, match="not closed or locked out, 2, got 3"):
        tr.plan.quota_topk(scores, 3)
    with pytest.raises(ValueError, match="locked in must be open"):
        tr.plan.quota_topk(scores, 2, lock_in=["1"])


def test_chances_are_chances():
    graph = tr.Graph.from_edges([("a", "b")])
    with pytest.raises(ValueError, match="comes must be chances from 0 to 1, got 1.5"):
        tr.plan.call_in(graph.ids, graph, 1, comes=1.5)
    with pytest.raises(ValueError, match="compliance must be chances"):
        tr.plan.spillover([1.0, 1.0], graph, 1, ids=graph.ids, compliance=-0.1)


def test_unreachable_says_what_there_is():
    graph = tr.Graph.from_edges([("a", "b"), ("c", "d")])
    plan = tr.plan.dominating_set(graph, reach=3.1, comes=0.5)
    assert plan.status == "infeasible" and plan.value is None
    assert plan.notes == ["The largest reach there is, with all seeds, is 3."]
    plan = tr.plan.dominating_set(graph, reach=4.5)
    assert plan.status == "infeasible" and "is 4." in plan.notes[0]
    assert tr.plan.dominating_set(graph, reach=2.0).value == 1


@needs_highs
def test_no_such_plan():
    graph = tr.Graph.from_edges([("a", "b"), ("b", "c"), ("a", "c")])
    plan = tr.plan.spaced([1.0, 2, 3], 2, graph=graph, ids=graph.ids)
    assert plan.status == "infeasible" and repr(plan) == "Plan(spaced, infeasible)"
    with pytest.raises(ValueError, match="there must be a plan"):
        plan.evaluate([1, 1, 1])
    assert tr.plan.budget_topk([1.0, 2.0], [5, 6], 4, 1).status == "infeasible"


# ---- time and the solver -----------------------------------------------------------------------


def test_time_up_gives_the_best_plan_so_far():
    random = np.random.default_rng(0)
    n = 3000
    x, y = random.random((2, n))
    graph = tr.Graph.from_coordinates(range(n), x, y, nearest=6)
    comes = random.uniform(0.2, 0.9, n)
    plan = tr.plan.call_in(graph.ids, graph, 100, comes=comes, gap=0, time=0.05)
    assert plan.status in ("feasible", "heuristic") and len(plan.ids) == 100
    assert plan.bound is None or plan.bound >= plan.value
    tours = tr.plan.tours(
        random.exponential(size=n), graph, 5, ids=graph.ids, pai=0.9, max_size=25, gap=0, time=0.2
    )
    assert tours.status == "feasible" and tours.bound > tours.value


WITHOUT = """
import numpy as np, topreach as tr
assert not tr.plan.has_highs()
r = np.array([5.0, 4.0, 3.0, 2.9])
graph = tr.Graph.from_edges([("0", "1"), ("1", "2"), ("2", "3")])
assert tr.plan.quota_topk(r, 2, groups=["a", "a", "b", "b"], at_least=1).value == 8
assert tr.plan.tours(r, graph, 1, gain=r).status == "optimal"
assert tr.plan.spillover(r, graph, 2).value > 0
spaced = tr.plan.spaced(r, 2, graph=graph)
assert spaced.status == "heuristic" and spaced.bound is None and "highsbox" in spaced.notes[0]
assert tr.plan.connected(r, graph, 2).status == "heuristic"
budget = tr.plan.budget_topk(r, [3, 2, 2, 1.5], 4, gap=0)
assert budget.status in ("feasible", "optimal") and budget.bound >= budget.value
for call in (
    lambda: tr.plan.fair(r, 2, ["a", "a", "b", "b"]),
    lambda: tr.plan.phased(np.stack([r, r]), 2),
    lambda: tr.plan.assign([1.0], [1.0], [[1.0]]),
):
    try:
        call()
    except RuntimeError as error:
        assert "pip install highsbox" in str(error), error
    else:
        raise AssertionError
print("done")
"""


def test_without_highs():
    there = os.environ | {"TOPREACH_HIGHS": "/nowhere/libhighs.so"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, env=there
    )
    assert done.stdout == "done\n", done.stderr


@needs_highs
def test_the_same_plan_each_time():
    random = np.random.default_rng(3)
    r, x, y = random.random((3, 60))
    first, second = (tr.plan.spaced(r, 10, 0.2, x=x, y=y, gap=0) for _ in range(2))
    assert first.ids == second.ids and first.value == second.value


def test_tours_in_a_period_without_events():
    """Shares of nothing are NaN, as for every other plan."""
    path = tr.Graph.from_edges([("a", "b"), ("b", "c"), ("c", "d")])
    scores = {"a": 3.0, "b": 1.0, "c": 0.0, "d": 2.0}
    plan = tr.plan.tours(scores, path, 1, max_size=2, area=[1, 1, 1, 1], pai=0.5)
    found = plan.evaluate([0, 0, 0, 0], area=[1, 1, 1, 1])
    assert all(np.isnan(found[name]) for name in ("reach", "bpr", "capture", "free_bpr", "pai"))
    assert np.isnan(found["tour_pai"]).tolist() == [True]
