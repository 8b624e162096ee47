"""Neighbours by a k-d tree, against all pairs of distances; ties; errors."""

import math

import numpy as np
import pytest
import torch

from topreach.models.neighbours import (
    coordinate_features,
    graph_of_edges,
    nearest_neighbours,
)

rng = np.random.default_rng(0)
S = 30
PLACE = rng.uniform(0, 1, (S, 2))


def dense(graph, sites):
    """Weights as a matrix [S, S]."""
    owner = torch.repeat_interleave(torch.arange(sites), graph.start.diff())
    matrix = torch.zeros(sites, sites, dtype=torch.float64)
    return matrix.index_put((owner, graph.sites), graph.weights, accumulate=True)


def all_pairs(place, k):
    """The definition, from all distances: ties at the k-th share the places left."""
    distance = np.sqrt(((place[:, None] - place[None]) ** 2).sum(-1))
    np.fill_diagonal(distance, np.inf)
    last = np.sort(distance, 1)[:, k - 1 : k]
    inside, level = distance < last * (1 - 1e-6), np.abs(distance - last) <= 1e-6 * last
    return inside + level * (k - inside.sum(1, keepdims=True)) / level.sum(1, keepdims=True)


@pytest.mark.parametrize("kind", ["scattered", "grid", "doubled"])
@pytest.mark.parametrize("k", [1, 4, 9])
def test_neighbours_equal_all_pairs(kind, k):
    """Three dimensions, so that no column is scaled."""
    if kind == "grid":
        place = np.stack(np.unravel_index(np.arange(6 * 7 * 5), (6, 7, 5)), 1) * 0.1
    else:
        place = rng.uniform(0, 1, (100, 3))
        if kind == "doubled":  # two sites at each place
            place[50:] = place[:50]
    graph = nearest_neighbours(place, k)
    np.testing.assert_allclose(dense(graph, len(place)).numpy(), all_pairs(place, k), atol=1e-12)
    sums = graph.sum(torch.ones(len(place), 1))
    np.testing.assert_allclose(sums.numpy(), k, rtol=1e-12)


def test_degrees_of_longitude_are_narrower():
    graph = nearest_neighbours(PLACE + [60, 10], 5)
    scaled = PLACE * [1, math.cos(math.radians(60 + PLACE[:, 0].mean()))]
    np.testing.assert_array_equal(dense(graph, S).numpy(), all_pairs(scaled, 5))


def test_more_places_at_one_point_than_are_looked_at():
    """Of 40 sites at one point, each has neighbours there, and never itself."""
    place = np.concatenate([np.zeros((40, 2)), np.ones((3, 2))])
    matrix = dense(nearest_neighbours(place, 2), 43)
    assert (matrix.diagonal() == 0).all()
    np.testing.assert_allclose(matrix.sum(1).numpy(), 2, rtol=1e-12)


def test_equally_far_neighbours_share_the_places():
    graph = nearest_neighbours([[0.0, 0.0], [0.0, 1.0], [0.0, -1.0], [5.0, 0.0]], 1)
    part = slice(int(graph.start[0]), int(graph.start[1]))
    assert sorted(graph.sites[part].tolist()) == [1, 2]
    assert graph.weights[part].tolist() == [0.5, 0.5]


def test_fewer_sites_than_places():
    assert nearest_neighbours([[1.0, 2.0]], 3).sum(torch.ones(1, 1)).tolist() == [[0.0]]
    matrix = dense(nearest_neighbours([[0.0, 0.0], [1.0, 1.0]], 8), 2)
    assert matrix.tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_edges_go_both_ways():
    graph = graph_of_edges([("a", "b"), ("b", "c"), ("c", "b"), ("d", "d")], list("abcd"))
    expected = [[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert dense(graph, 4).tolist() == expected


def test_errors():
    with pytest.raises(ValueError, match="coordinates must be finite"):
        nearest_neighbours([[0.0, math.nan]], 1)
    for k in (0, True, 1.5):
        with pytest.raises(ValueError, match="k must be a whole number >= 1"):
            nearest_neighbours(PLACE, k)
    assert len(nearest_neighbours(PLACE, np.int64(3)).sites) == 3 * S


def test_names_of_coordinates():
    assert coordinate_features(["Latitude", "pop", "LONG"]) == ("Latitude", "LONG")
    assert coordinate_features(["lat", "pop"]) is None
