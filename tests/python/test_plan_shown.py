"""Plans judged by observed counts and by draws, as tables, and on maps."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

import topreach as tr
from topreach.plan import maps

needs_highs = pytest.mark.skipif(not tr.plan.has_highs(), reason="HiGHS is not installed")
TOWNS = ["A", "A", "B", "B", ""]  # the last site is in no town
SCORES = pd.Series([5.0, 4, 3, 2, 1], list("abcde"))
Y = pd.Series([1.0, 6, 0, 2, 3], list("abcde"))


def quota(k=2, scores=SCORES, **how):
    return tr.plan.quota_topk(scores, k, **how)


# ---- observed counts -----------------------------------------------------------------------------


def test_shares_of_groups():
    """Of the groups that are named, else of the first grouping of the plan, else of none."""
    plain = quota()  # a and b
    assert "share" not in plain.evaluate(Y) and "pai" not in plain.evaluate(Y)
    named = plain.evaluate(Y, groups=TOWNS)["share"]
    assert named.index.tolist() == ["A", "B"] and named.tolist() == [7 / 7, 0 / 2]
    both = [tr.plan.Quotas(TOWNS, at_least=1), tr.plan.Quotas(["all"] * 5)]
    own = quota(quotas=both).evaluate(Y)["share"]  # a and c
    assert own.to_dict() == {"A": 1 / 7, "B": 0 / 2}
    other = quota(quotas=both).evaluate(Y, groups=["x", "y", "y", "y", "y"])["share"]
    assert other.to_dict() == {"x": 1.0, "y": 0.0}
    empty = plain.evaluate(Y * [1, 1, 0, 0, 1], groups=TOWNS)["share"]
    assert empty["A"] == 1 and np.isnan(empty["B"])


def test_shares_of_all_events_and_of_the_area():
    plan, area = quota(), {"a": 1, "b": 1, "c": 2, "d": 3, "e": 3}
    found = plan.evaluate(Y, area=area)
    assert found["reach"] == 7 and found["capture"] == pytest.approx(7 / 12)
    assert found["bpr"] == found["free_bpr"] == pytest.approx(7 / 9)
    assert found["pai"] == pytest.approx((7 / 12) / (2 / 10)) and "tour_pai" not in found
    nothing = plan.evaluate(0 * Y, area=area)
    assert nothing["reach"] == 0
    assert np.isnan([nothing[n] for n in ("bpr", "capture", "free_bpr", "pai")]).all()
    nobody = quota(0).evaluate(Y, area=area)
    assert nobody["capture"] == 0 and np.isnan([nobody["pai"], nobody["free_bpr"]]).all()
    for given in (torch.tensor(Y.to_numpy(), requires_grad=True), Y.tolist(), Y[::-1]):
        assert plan.evaluate(given)["reach"] == 7


def test_a_plan_may_not_be_beaten_in_hindsight():
    """A plan of the best quota sites is best for counts that are its scores."""
    plan = quota(groups=TOWNS, at_least=1)
    found = plan.evaluate(SCORES)
    assert found["bpr"] == 1 and found["bpr_gap"] == 0
    assert found["free_bpr"] == pytest.approx(8 / 9)


# ---- draws ---------------------------------------------------------------------------------------

DRAWS = np.array([[5.0, 4, 3, 2, 1], [1.0, 6, 0, 2, 3], [0, 0, 7, 8, 9]])


def test_how_often_a_site_is_in_the_best_plan():
    for draws in (
        DRAWS,
        torch.tensor(DRAWS, requires_grad=True),
        pd.DataFrame(DRAWS[:, ::-1], columns=list("edcba")),
    ):
        frequency, overlap = quota().stability(draws)
        assert frequency.index.tolist() == ["b", "e", "a", "d", "c"]  # level ones in their order
        assert frequency.tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 3, 1 / 3, 0])
        assert overlap == pytest.approx((2 + 1 + 0) / 2 / 3)
    # By effect, and under a quota: one of A, one of B.
    plan = quota(groups=TOWNS, at_least=1, effect={"a": 0.1, "b": 1, "c": 1, "d": 1, "e": 1})
    frequency, _ = plan.stability(DRAWS)
    assert frequency.to_dict() == pytest.approx(
        {"a": 1 / 3, "b": 2 / 3, "c": 1 / 3, "d": 2 / 3, "e": 0}
    )
    assert np.isnan(quota(0).stability(DRAWS)[1])


@pytest.mark.parametrize("shape", [(5,), (2, 4), (0, 5), (1, 2, 5)])
def test_draws_of_another_shape(shape):
    message = r"Plan.stability: samples must have shape \[M, 5\], got \[" + str(shape[0])
    with pytest.raises(ValueError, match=message):
        quota().stability(np.zeros(shape))


def test_what_knowing_is_worth():
    """Best: 9, 9, 17; the plan's: 9, 7, 0."""
    value, error = quota().information(DRAWS)
    gains = [0.0, 2, 17]
    assert value == pytest.approx(19 / 3)
    assert error == pytest.approx(np.std(gains, ddof=1) / math.sqrt(3))
    assert quota().information(DRAWS[:2]) == (1, pytest.approx(1))  # two are enough
    with pytest.raises(ValueError, match="samples must be 2 or more draws, got 1"):
        quota().information(DRAWS[:1])


def test_the_largest_expected_ratio():
    """Draws in which nothing can be reached are left out, and do not count."""
    for draws in (DRAWS, np.r_[DRAWS, np.zeros((2, 5))]):
        plan = quota().by_ratio(draws)
        ratio = (DRAWS / np.array([[9.0], [9], [17]])).mean(axis=0)
        assert plan.value == pytest.approx(np.sort(ratio)[-2:].sum()) and plan.notes == []
    with pytest.raises(ValueError, match="samples must reach something in a draw, got none"):
        quota().by_ratio(np.zeros((3, 5)))


@needs_highs
def test_a_ratio_to_a_bound_is_said():
    """Plans of programs that are solved within a gap."""
    random = np.random.default_rng(0)
    cost, draws = random.uniform(1, 2, 30), random.gamma(1.0, 1.0, (3, 30))
    plan = tr.plan.budget_topk(draws.mean(axis=0), cost, 20, gap=0.5)
    gaps = [tr.plan.budget_topk(draw, cost, 20, gap=0.5).gap for draw in draws]
    notes = [note for note in plan.by_ratio(draws).notes if "known up to a gap" in note]
    if max(gaps) > 1e-6:
        assert notes == [
            f"The best reach of a draw is known up to a gap of {100 * max(gaps):.2g} %."
        ]
    else:
        assert notes == []


def test_exchanges_and_the_price_of_constraints():
    plan = quota(groups=TOWNS, at_least=1)  # a and c
    assert plan.swap_with("c") == (["d"], 1) and plan.swap_with("a") == (["b"], 1)
    assert plan.price_of_constraints == pytest.approx(1 - 8 / 9)
    assert quota().price_of_constraints == 0
    assert quota(lock_in=["e"]).price_of_constraints == pytest.approx(1 - 6 / 9)
    numbered = tr.plan.quota_topk({1: 3.0, 2: 2.0, 3: 1.0}, 1)
    assert numbered.swap_with(1) == (["2"], 1)  # ids are text
    locked = quota(lock_out=["c", "d"], groups=TOWNS, at_most=1)  # a and e
    assert locked.swap_with("a") == (["b"], 1)
    assert np.isnan(quota(scores=-SCORES).price_of_constraints)
    assert np.isnan(quota(0).price_of_constraints)


@needs_highs
def test_no_plan_without_a_site():
    plan = tr.plan.budget_topk([5.0, 1.0], [1, 9], 4, 1)
    with pytest.raises(ValueError, match="Plan.swap_with: no plan does without '0'"):
        plan.swap_with("0")
    apart = tr.plan.spaced([5.0, 4, 1], 2, 1.5, x=[0, 1, 2], y=[0, 0, 0])
    assert apart.price_of_constraints == pytest.approx(1 - 6 / 9)  # 5 and 1, not 5 and 4


# ---- as a table ----------------------------------------------------------------------------------

TABLE = pd.DataFrame(
    {"site": list("abc"), "score": [1.0, 3, 2], "rank": [3, 1, 2], "selected": False,
     "town": ["x", "y", "z"], "lon": [0.0, 1, 2], "lat": [5.0, 6, np.nan]}
)  # fmt: skip


def test_a_plan_as_a_table():
    """Best first; the ranking's own rank and choice are left out."""
    plan = tr.plan.quota_topk(TABLE, 2)
    frame = plan.to_frame()
    assert list(frame.columns) == ["site", "score", "town", "lon", "lat"]
    assert frame["site"].tolist() == plan.ids == ["b", "c"] and frame["town"].tolist() == ["y", "z"]
    assert frame.index.tolist() == [0, 1]
    everything = plan.to_frame(all_sites=True)
    assert everything["site"].tolist() == ["b", "c", "a"]
    assert everything["selected"].tolist() == [True, True, False]
    pd.testing.assert_frame_equal(plan.table, frame)
    assert plan.mask.tolist() == [0, 1, 1] and plan.reach is None
    assert plan.edges == plan.tours == plan.essential == plan.replaceable == []
    assert plan.places is None and plan.flows is None
    last = tr.plan.quota_topk(TABLE, 1, lock_in=["a"])  # chosen sites stand before better ones
    assert last.to_frame(all_sites=True)["site"].tolist() == ["a", "b", "c"]
    level = tr.plan.quota_topk([1.0, 1, 1], 2)
    assert level.ids == level.to_frame()["site"].tolist() == ["0", "1"]


def test_what_a_plan_says_of_itself():
    assert repr(quota()) == "Plan(quota_topk, 2 sites, value 9, optimal)"
    plan = quota()
    plan.gap = 0.0123
    assert repr(plan) == "Plan(quota_topk, 2 sites, value 9, optimal, gap 1.2 %)"
    assert plan.bound == 9 and plan.status == "optimal" and quota().gap == 0


def test_a_file_is_whole(tmp_path, capsys):
    plan = tr.plan.quota_topk(TABLE, 1)
    plan.to_csv(tmp_path / "chosen.csv")
    assert (tmp_path / "chosen.csv").read_text() == "site,score,town,lon,lat\nb,3.0,y,1.0,6.0\n"
    plan.to_csv(tmp_path / "all.csv", all_sites=True)
    assert pd.read_csv(tmp_path / "all.csv")["selected"].tolist() == [True, False, False]
    plan.to_csv("-")
    assert capsys.readouterr().out == (tmp_path / "chosen.csv").read_text()


# ---- on maps -------------------------------------------------------------------------------------


def layer_of(plan, path, *geometry, **how):
    plan.to_geojson(path, *geometry, **how)
    return json.loads(path.read_text())["features"]


def test_points_in_every_form(tmp_path):
    expected = {"type": "Point", "coordinates": [1.0, 6.0]}
    plan = tr.plan.quota_topk(TABLE, 1)
    places = TABLE.set_index("site")
    for geometry in (
        None,
        ("lon", "lat"),
        places[["lon", "lat"]],
        places.rename(columns={"lon": "Longitude", "lat": "LATITUDE"}),
        places[["lat", "lon"]].set_axis(["y", "x"], axis=1),
    ):
        (feature,) = layer_of(plan, tmp_path / "p.geojson", geometry)
        assert feature["geometry"] == expected and feature["id"] == "b"
        assert feature["type"] == "Feature"
        assert feature["properties"] == {
            "site": "b", "score": 3.0, "town": "y", "lon": 1.0, "lat": 6.0,
        }  # fmt: skip
    (swapped,) = layer_of(plan, tmp_path / "p.geojson", ("lat", "lon"))
    assert swapped["geometry"]["coordinates"] == [6.0, 1.0]
    with pytest.raises(ValueError, match="geometry must name columns of scores, got 'north'"):
        plan.to_geojson(tmp_path / "p.geojson", ("lon", "north"))
    for lacking in (places[["lon"]], places[["lat"]], places[["town"]]):
        with pytest.raises(ValueError, match="geometry must say where the sites lie"):
            plan.to_geojson(tmp_path / "p.geojson", lacking)
    with pytest.raises(
        ValueError, match="must place every site of the plan, got none for 'c' and 0"
    ):
        tr.plan.quota_topk(TABLE, 2).to_geojson(tmp_path / "p.geojson")


def write_layer(path, features):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def feature(coordinates, **rest):
    return {"type": "Feature", "geometry": {"type": "Point", "coordinates": coordinates}, **rest}


def test_whose_a_feature_is(tmp_path):
    """By its id, else the property id, site or geoid in any case; other features are ignored."""
    path = write_layer(
        tmp_path / "l.geojson",
        [
            feature([0, 0], id="a", properties={"id": "b"}),
            feature([1, 1], properties={"GEOID": "z", "Site": "b"}),
            feature([2, 2], properties={"geoid": "c", "name": "a"}),
            feature([3, 3], properties=None),
            {"type": "Feature", "geometry": None, "id": "d"},
            feature([4, 4], id=7),
        ],
    )
    found = maps.geometries(tr.plan.quota_topk(TABLE, 1), path, "f")
    assert {name: shape["coordinates"][0] for name, shape in found.items()} == {
        "a": 0, "b": 1, "c": 2, "7": 4,
    }  # fmt: skip
    write_layer(path, [feature([0, 0], id="z")])
    with pytest.raises(ValueError, match="f: geometry must have features whose id"):
        maps.geometries(tr.plan.quota_topk(TABLE, 1), path, "f")
    for text in ("{", "[]", '{"a": 1}', '{"features": 1}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="is no JSON" if text == "{" else "with features"):
            maps.geometries(tr.plan.quota_topk(TABLE, 1), str(path), "f")


def test_the_middle_of_a_shape():
    """The mean of the corners of its largest part, by its outer ring."""
    square = [[0.0, 0.0], [2, 0], [2, 2], [0, 2]]
    hole = [[9.0, 9], [9, 9.5], [9.5, 9]]
    assert maps._middle({"type": "Point", "coordinates": [1, 2, 3]}) == [1, 2]
    assert maps._middle({"type": "LineString", "coordinates": [[0, 0, 7], [4, 2, 7]]}) == [2, 1]
    assert maps._middle({"type": "Polygon", "coordinates": [square, hole]}) == [1, 1]
    two = {"type": "MultiPolygon", "coordinates": [[hole], [square, hole]]}
    assert maps._middle(two) == [1, 1]


def test_values_that_json_has():
    for value, expected in (
        (np.int64(3), 3), (np.float64(0.5), 0.5), (np.bool_(True), True), (math.nan, None),
        (np.float32("inf"), None), (None, None), ("x", "x"), (pd.Timestamp("2024-01-01"),
        "2024-01-01 00:00:00"), (True, True),
    ):  # fmt: skip
        found = maps._plain(value)
        assert found == expected and type(found) is type(expected)


LINE = tr.Graph.from_edges([("a", "b"), ("b", "c"), ("c", "d")])
PLACES = pd.DataFrame({"lon": [0.0, 1, 2, 3], "lat": [0.0, 1, 0, 1]}, list("abcd"))


def lines_of(layer):
    return [f["geometry"]["coordinates"] for f in layer if f["geometry"]["type"] == "LineString"]


def test_lines_of_tours_and_trees(tmp_path):
    """A tour of one area has no line."""
    gain = {"a": 3.0, "b": -1, "c": 2, "d": 1}
    plan = tr.plan.tours([1.0] * 4, LINE, 2, gain=gain, ids=LINE.ids, gap=0)
    layer = layer_of(plan, tmp_path / "t.geojson", PLACES)
    assert len(layer) == 4 and lines_of(layer) in ([[[2, 0], [3, 1]]], [[[3, 1], [2, 0]]])
    assert layer[-1]["properties"] == {"line": 1}
    tree = layer_of(tr.plan.subgraph(LINE, ["a", "c"]), tmp_path / "s.geojson", PLACES)
    assert sorted(sorted(line) for line in lines_of(tree)) == [[[0, 0], [1, 1]], [[1, 1], [2, 0]]]
    assert [f["properties"]["line"] for f in tree[-2:]] == [1, 2]
    assert lines_of(layer_of(tr.plan.quota_topk(TABLE, 1), tmp_path / "q.geojson")) == []


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def test_a_map_shows_points_shapes_and_lines(pyplot, tmp_path):
    """Chosen sites are orange, large and on top."""
    plan = tr.plan.tours([1.0] * 4, LINE, 1, gain={"a": 3.0, "b": 1, "c": -9, "d": 1}, ids=LINE.ids)
    axes = plan.plot(PLACES)
    assert {*map(tuple, (c.get_offsets()[0].tolist() for c in axes.collections))} == {
        (0, 0), (1, 1), (2, 0), (3, 1),
    }  # fmt: skip
    for points in axes.collections:
        chosen = tuple(points.get_offsets()[0].tolist()) in {(0, 0), (1, 1)}
        assert points.get_sizes()[0] == (24 if chosen else 8)
        assert points.get_zorder() == (2 if chosen else 1)
        assert points.get_facecolor()[0, 0] == pytest.approx(0xD5 / 255 if chosen else 0xC8 / 255)
    (line,) = axes.lines
    assert sorted(map(tuple, line.get_xydata().tolist())) == [(0, 0), (1, 1)]
    assert line.get_zorder() == 3
    square = [[0.0, 0.0], [2, 0], [2, 2], [0, 2], [0, 0]]
    far = [[5.0, 5.0], [6, 5], [6, 6], [5, 5]]
    path = write_layer(
        tmp_path / "l.geojson",
        [
            {"id": "a", "geometry": {"type": "Polygon", "coordinates": [square, far]}},
            {"id": "b", "geometry": {"type": "MultiPolygon", "coordinates": [[square], [far]]}},
        ],
    )
    own = pyplot.figure().add_subplot()
    axes = plan.plot(path, ax=own)
    assert axes is own
    corners = [patch.get_xy().tolist()[: len(square)] for patch in axes.patches]
    assert len(corners) == 3 and corners[0] == corners[1] == square and corners[2][0] == far[0]


def test_bars_where_nothing_says_where_sites_lie(pyplot):
    """Best first, the chosen ones in colour; a geometry that is given must be right."""
    plan = quota(lock_in=["e"])  # a and e
    axes = plan.plot()
    bars = sorted(axes.patches, key=lambda bar: bar.get_x())
    assert [bar.get_height() for bar in bars] == [5, 4, 3, 2, 1]
    assert [bar.get_x() + bar.get_width() / 2 for bar in bars] == pytest.approx([0, 1, 2, 3, 4])
    orange = [bar.get_facecolor()[0] == pytest.approx(0xD5 / 255) for bar in bars]
    assert orange == [True, False, False, False, True]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["chosen", "others"]
    with pytest.raises(ValueError, match="geometry must say where the sites lie"):
        plan.plot(pd.DataFrame(index=list("abcde")))
    own = pyplot.figure().add_subplot()
    assert plan.plot(ax=own) is own
