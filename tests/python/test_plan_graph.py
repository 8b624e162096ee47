"""Graphs from edges, files, networkx and coordinates; an error about an edge names its row."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import topreach as tr

Graph = tr.Graph


def test_edges_merge_and_isolates_stay():
    edges = [("01", "02"), ("02", "01"), ("01", "02"), ("03", "03")]
    graph = Graph.from_edges(edges, ["01", "02", "03", "04"])
    assert (graph.num_nodes, graph.num_edges) == (4, 1)
    assert graph.neighbours("02") == ["01"] and graph.neighbours("04") == []
    assert graph.components().tolist() == [0, 0, 1, 2]


def test_ids_are_text():
    graph = Graph.from_edges(pd.DataFrame({"a": [1, 2], "b": [2, 3]}))
    assert graph.ids == ["1", "2", "3"]
    with pytest.raises(ValueError, match=r"got '1' in row 1"):
        Graph.from_edges([("1", "2")], ["01", "2"])
    with pytest.raises(TypeError, match="text or whole numbers, got 1.5"):
        Graph.from_edges(pd.DataFrame({"a": [1.5], "b": [2.5]}))


def test_a_file_names_its_lines(tmp_path):
    path = tmp_path / "edges.csv"
    path.write_text("from,to,km\n001,002,3.5\n002,003,1\n002,001,2\n")
    graph = Graph.from_edges(path, weight="km")
    assert graph.ids == ["001", "002", "003"]
    assert graph.edges().values.tolist() == [["001", "002", 2.0], ["002", "003", 1.0]]
    with pytest.raises(ValueError, match=r"got '003' in line 3 of .*edges\.csv"):
        Graph.from_edges(path, ["001", "002"])
    with pytest.raises(ValueError, match="must have the column 'miles', got from, to, km"):
        Graph.from_edges(path, weight="miles")
    path.write_text("from,to,km\n001,002,3.5\n002,,1\n")
    with pytest.raises(ValueError, match="to must be an id, got a blank in line 3"):
        Graph.from_edges(path)
    path.write_text("from,to,km\n001,002,3.5\n002,003,far\n")
    with pytest.raises(ValueError, match="km must be a number >= 0, got 'far' in line 3"):
        Graph.from_edges(path, weight="km")
    path.write_text("from\n001\n")
    with pytest.raises(ValueError, match="two columns of ids, got 1"):
        Graph.from_edges(path)


def test_an_id_twice():
    with pytest.raises(ValueError, match="ids must be distinct, got 'a' twice"):
        Graph.from_edges([("a", "b")], ["a", "b", "a"])


def test_networkx_and_back():
    nx = pytest.importorskip("networkx")
    made = nx.karate_club_graph()
    graph = Graph.from_networkx(made)
    assert graph.num_edges == made.number_of_edges()
    for node in made:
        assert {int(i) for i in graph.neighbours(node)} == set(made[node])
    weighted = Graph.from_networkx(made, weight="weight").edges()
    for a, b, weight in weighted.itertuples(index=False):
        assert made[int(a)][int(b)]["weight"] == weight


def test_gal_and_gwt(tmp_path):
    gal = tmp_path / "x.gal"
    gal.write_text("0 4 shapes ID\n01 2\n02 03\n02 1\n01\n03 1\n01\n04 0\n\n")
    graph = Graph.from_gal(gal)
    assert graph.ids == ["01", "02", "03", "04"] and graph.num_edges == 2
    gal.write_text("0 2 shapes ID\n01 2\n02\n02 1\n01\n")
    with pytest.raises(ValueError, match="'01' must have 2 neighbours, got 1 in line 3"):
        Graph.from_gal(gal)
    gwt = tmp_path / "x.gwt"
    gwt.write_text("0 3 shapes ID\n01 02 1.5\n02 01 1.5\n02 03 2.5\n")
    assert Graph.from_gwt(gwt, weighted=True).edges()["weight"].tolist() == [1.5, 2.5]
    assert Graph.from_gwt(gwt, ["01", "02", "03", "04"]).num_nodes == 4
    gwt.write_text("0 3 shapes ID\n01 02\n")
    with pytest.raises(ValueError, match="two ids and a distance, got '01 02' in line 2"):
        Graph.from_gwt(gwt)


def test_radius_nearest_and_triangles():
    random = np.random.default_rng(0)
    x, y = random.random((2, 60))
    ids = [f"s{i:02d}" for i in range(60)]
    far = np.hypot(x[:, None] - x, y[:, None] - y)

    def matrix(graph):
        made = np.zeros((60, 60), bool)
        for i, site in enumerate(ids):
            made[i, [graph.index(other) for other in graph.neighbours(site)]] = True
        return made

    near = matrix(Graph.from_coordinates(ids, x, y, radius=0.2))
    assert (near == ((far <= 0.2) & ~np.eye(60, dtype=bool))).all()
    order = np.argsort(far, axis=1)[:, 1:4]
    wanted = np.zeros((60, 60), bool)
    np.put_along_axis(wanted, order, True, axis=1)
    assert (matrix(Graph.from_coordinates(ids, x, y, nearest=3)) == (wanted | wanted.T)).all()
    triangles = Graph.from_coordinates(ids, x, y, delaunay=True)
    assert triangles.components().max() == 0
    # Euler: 3 S - 3 - (points of the hull) edges.
    hull = len(pytest.importorskip("scipy.spatial").ConvexHull(np.c_[x, y]).vertices)
    assert triangles.num_edges == 3 * 60 - 3 - hull


def test_km_along_the_sphere():
    # One degree of latitude is 111.195 km, one of longitude at 60 degrees north half of that.
    graph = Graph.from_coordinates(
        ["a", "b", "c"], [10, 10, 11], [60, 61, 60], radius=60, degrees=True
    )
    assert graph.edges()[["from", "to"]].values.tolist() == [["a", "c"]]
    assert graph.edges()["weight"][0] == pytest.approx(55.6, abs=0.05)
    with pytest.raises(ValueError, match="latitude"):
        Graph.from_coordinates(["a", "b"], [41.0, 42.0], [-87.0, -95.0], radius=1, degrees=True)


def test_points_at_one_place():
    ids = ["a", "b", "c", "d", "e"]
    x, y = [0, 0, 1, 0, 1], [0, 0, 0, 1, 1]
    near = Graph.from_coordinates(ids, x, y, nearest=1)
    assert near.neighbours("a") == ["b"] or "b" in near.neighbours("a")
    assert "b" in Graph.from_coordinates(ids, x, y, delaunay=True).neighbours("a")
    assert Graph.from_coordinates(ids, x, y, delaunay=True).components().max() == 0


def test_other_sites_than_those_of_the_scores():
    graph = Graph.from_edges([("a", "b"), ("b", "c")])
    assert graph.aligned(["c", "b", "a", "z"]).ids == ["c", "b", "a", "z"]
    with pytest.raises(ValueError, match="coverage: edges must join ids of the 2 sites, got 'c'"):
        tr.plan.coverage({"a": 1.0, "b": 1.0}, graph, 1)
    plan = tr.plan.coverage({"a": 1.0, "b": 1.0}, graph.without_strangers(["a", "b"]), 1)
    assert plan.value == 2


def test_touching_polygons():
    geopandas = pytest.importorskip("geopandas")
    box = pytest.importorskip("shapely.geometry").box
    squares = {f"{i}{j}": box(i, j, i + 1, j + 1) for i in range(3) for j in range(3)}
    frame = geopandas.GeoDataFrame(index=list(squares), geometry=list(squares.values()))
    assert Graph.from_geodataframe(frame).num_edges == 20
    assert Graph.from_geodataframe(frame, contiguity="rook").num_edges == 12
