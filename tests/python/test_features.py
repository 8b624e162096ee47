"""SiteHistory: features from the past alone, against plain loops; neighbours; no leaks; errors."""

import math

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from topreach.data.panel import Panel
from topreach.models.site_history import SiteHistory, coordinate_features, nearest_neighbours
from topreach.ranking.topk_ranker import TopKRanker

rng = np.random.default_rng(0)
T, S = 9, 30
PLACE = rng.uniform(0, 1, (S, 2))
COUNTS = rng.poisson(rng.gamma(1.0, 2.0, S), (T, S)).astype(float)


def panel(y=COUNTS, place=PLACE, times=None, **changes):
    counts = np.asarray(y)
    x = np.broadcast_to(place, (len(counts), *np.shape(place)))
    ids = [f"s{i}" for i in range(counts.shape[1])]
    return Panel(
        x.copy(), counts, ids, times or list(range(len(counts))), ["lat", "lon"], **changes
    )


def naive(counts, t, half_life, graphs, concentration):
    """A, m, E and the sum of weights before period t, by the definition, in loops."""
    sites = counts.shape[1]
    a, e, w = np.zeros(sites), 0.0, 0.0
    for u in range(t):
        d = 2.0 ** (-(t - 1 - u) / half_life)
        a, e, w = a + d * counts[u], e + d * counts[u].mean(), w + d
    m = np.ones(sites)
    for graph, kappa in zip(graphs, concentration, strict=True):
        finer = np.empty(sites)
        for s in range(sites):
            part = slice(int(graph.start[s]), int(graph.start[s + 1]))
            near, weight = graph.sites[part].numpy(), graph.weights[part].numpy()
            finer[s] = ((weight * a[near]).sum() + kappa) / (weight.sum() * e + kappa / m[s])
        m = finer
    return a, m, e, w


def test_statistics_equal_plain_loops():
    history = SiteHistory(half_lives=(1.5, math.inf), neighbours=(6, 3)).fit(panel())
    x = history.statistics(panel()).numpy()
    for t in range(1, T):
        for h, half_life in enumerate((1.5, math.inf)):
            a, m, e, _ = naive(COUNTS, t, half_life, history.graphs_, history.concentration_)
            np.testing.assert_allclose(x[t, :, h], a, rtol=1e-6)
            np.testing.assert_allclose(x[t, :, 2 + h], m * e, rtol=1e-6)
            # The prior rate is the neighbours' risk times one level for all sites.
            ratio = x[t, :, 4 + h] / m
            np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)


def test_features_are_rates_per_period():
    history = SiteHistory(half_lives=(2.0,), neighbours=(4,)).fit(panel())
    made = history.transform(panel())
    assert made.feature_names == [
        "lat",
        "lon",
        "decayed_mean_2",
        "neighbour_rate_2",
        "shrunken_rate_2",
    ]
    a, m, e, w = naive(COUNTS, T - 1, 2.0, history.graphs_, history.concentration_)
    decayed, neighbour, shrunken = made.x[-1, :, 2:].T.numpy()
    np.testing.assert_allclose(decayed, a / w, rtol=1e-6)
    # Gamma(shape, shape / m) before, Poisson(E) counts: the posterior mean relative to m.
    expected = (history.shape_ + a) / (history.shape_ + m * e)
    np.testing.assert_allclose(shrunken / neighbour, expected, rtol=1e-5)


def test_future_counts_change_no_feature():
    history = SiteHistory().fit(panel())
    before = history.statistics(panel())
    changed = COUNTS.copy()
    changed[5:] = rng.poisson(9.0, changed[5:].shape)
    after = history.statistics(panel(changed))
    assert torch.equal(before[:6], after[:6]) and not torch.equal(before[6:], after[6:])


def test_parts_of_a_split_have_the_features_of_the_whole():
    whole = panel()
    train, valid, test = whole.split(valid=[6], test=[7, 8])
    history = SiteHistory().fit(train)
    assert torch.equal(
        torch.cat([history.statistics(part) for part in (train, valid, test)]),
        history.statistics(whole),
    )


def test_fit_reads_nothing_after_its_panel():
    train, _, _ = panel().split(valid=[6], test=[7, 8])
    alone = panel(COUNTS[:6])
    parts, whole = SiteHistory().fit(train).state_dict(), SiteHistory().fit(alone).state_dict()
    for state in (parts, whole):
        state["counts"] = state["counts"].tolist()
        state["graphs"] = [{k: v.tolist() for k, v in g.items()} for g in state["graphs"]]
    assert parts == whole


def test_a_later_panel_without_a_past_takes_the_fitted_one():
    history = SiteHistory().fit(panel(COUNTS[:6]))
    later = panel(COUNTS[6:], times=[6, 7, 8])
    assert later.history_y is None
    assert torch.equal(history.statistics(later), history.statistics(panel())[6:])


def test_periods_without_counts_are_passed_over():
    counts = COUNTS.copy()
    counts[7:] = np.nan
    x = SiteHistory().fit(panel()).statistics(panel(counts, counts="optional"))
    assert torch.isfinite(x).all()
    assert torch.equal(x[7, :, :15], x[8, :, :15])


@pytest.mark.parametrize("grid", [False, True], ids=["scattered", "grid"])
def test_order_of_the_sites_does_not_matter(grid):
    """On a grid many neighbours are equally far."""
    place = np.stack(np.divmod(np.arange(S), 6), 1) * 0.01 if grid else PLACE
    order = rng.permutation(S)
    a = SiteHistory(neighbours=(9, 3)).fit(panel(place=place))
    b = SiteHistory(neighbours=(9, 3)).fit(panel(COUNTS[:, order], place[order]))
    np.testing.assert_allclose(a.concentration_, b.concentration_, rtol=1e-4)
    b.concentration_, b.shape_ = a.concentration_, a.shape_
    x = a.statistics(panel(place=place))[:, order]
    y = b.statistics(panel(COUNTS[:, order], place[order]))
    torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


def test_neighbours_equal_brute_force():
    graph = nearest_neighbours(PLACE, 5)
    scaled = PLACE * [1, math.cos(math.radians(PLACE[:, 0].mean()))]
    for s in range(S):
        distance = np.hypot(*(scaled - scaled[s]).T)
        distance[s] = np.inf
        part = graph.sites[graph.start[s] : graph.start[s + 1]].tolist()
        assert sorted(part) == sorted(np.argsort(distance)[:5])
    assert graph.weights.tolist() == [1.0] * (5 * S)


def test_equally_far_neighbours_share_the_places():
    graph = nearest_neighbours([[0.0, 0.0], [0.0, 1.0], [0.0, -1.0], [5.0, 0.0]], 1)
    part = slice(int(graph.start[0]), int(graph.start[1]))
    assert sorted(graph.sites[part].tolist()) == [1, 2]
    assert graph.weights[part].tolist() == [0.5, 0.5]


def test_lags_are_recognised():
    """Columns that only repeat earlier counts; a filled-in start is no hindrance, one change is."""
    lag_1, lag_3 = np.zeros((T, S)), np.full((T, S), 7.0)
    lag_1[1:], lag_3[3:] = COUNTS[:-1], COUNTS[:-3]
    near = lag_1.copy()
    near[4, 2] += 1
    x = np.stack([lag_1, near, lag_3, rng.normal(size=(T, S))], -1)
    ids = [f"s{i}" for i in range(S)]
    lagged = Panel(x, COUNTS, ids, range(T), ["lag 1", "near", "lag 3", "other"])
    assert SiteHistory().fit(lagged).absorbed_ == ["lag 1", "lag 3"]
    fitted = TopKRanker(3).fit(lagged)
    assert fitted.feature_names_in_ == ["near", "other"]
    placed = lagged.with_features(lagged.x[..., 1:], ["lat", "lag 3", "lon"])
    assert SiteHistory().fit(placed).absorbed_ == ["lag 3", "lat", "lon"]
    assert SiteHistory(coordinates=None).fit(placed).absorbed_ == ["lag 3"]
    part = lagged.split(test=[7, 8]).test
    assert {"lag 1", "lag 3"} <= set(SiteHistory().fit(part).absorbed_)


def test_one_site_has_no_neighbours():
    assert nearest_neighbours([[1.0, 2.0]], 3).sum(torch.ones(1, 1)).tolist() == [[0.0]]
    one = panel(COUNTS[:, :1], PLACE[:1])
    assert torch.isfinite(SiteHistory().fit(one).statistics(one)).all()


def test_edges_in_place_of_coordinates():
    edges = [("s0", "s1"), ("s1", "s2"), ("s2", "s1"), ("s3", "s3")]
    history = SiteHistory(edges=edges).fit(panel())
    (graph,) = history.graphs_
    sums = graph.sum(torch.from_numpy(COUNTS.T[:, :1].copy()))[:, 0].numpy()
    np.testing.assert_array_equal(
        sums[:4], [COUNTS[0, 1], COUNTS[0, 0] + COUNTS[0, 2], COUNTS[0, 1], 0]
    )


def test_without_coordinates_there_are_no_neighbours():
    x = torch.zeros(T, S, 0)
    plain = Panel(x, COUNTS, [f"s{i}" for i in range(S)], list(range(T)), [])
    history = SiteHistory(half_lives=(math.inf,)).fit(plain)
    assert history.graphs_ == [] and history.concentration_ == []
    # Then the shape is that of one negative binomial with the mean of all: against SciPy.
    total = COUNTS.sum(0)

    def loss(log_shape):
        shape = math.exp(log_shape)
        p = shape / (shape + total.mean())
        prior = 0.5 * ((log_shape - math.log(4)) / 1.5) ** 2
        return -stats.nbinom.logpmf(total, shape, p).sum() + prior

    best = optimize.minimize_scalar(loss, bounds=(-5, 5), method="bounded")
    assert loss(math.log(history.shape_)) <= best.fun + 1e-6


def test_concentration_tells_spatial_structure_from_none():
    """Where neighbours are alike, they are trusted: a smaller share of the mean is theirs."""
    side = 20
    place = np.stack(np.divmod(np.arange(side * side), side), 1) / 100
    wave = np.exp(1.5 * np.sin(place[:, 0] * 30) * np.cos(place[:, 1] * 30))
    shuffled = rng.permutation(wave)
    smooth = SiteHistory(neighbours=(8,)).fit(panel(rng.poisson(wave, (4, side**2)), place))
    rough = SiteHistory(neighbours=(8,)).fit(panel(rng.poisson(shuffled, (4, side**2)), place))
    assert smooth.concentration_[0] < rough.concentration_[0]
    assert smooth.shape_ > rough.shape_


def test_level_follows_the_seasons():
    """Totals 100, 200, 400, 200 a quarter: once learnt, the season is forecast."""
    total = np.tile([100, 200, 400, 200], 8)
    counts = np.stack([total // 2, total - total // 2], 1)
    quarters = [f"{2000 + t // 4}-{1 + 3 * (t % 4):02d}-01" for t in range(len(total))]
    seasonal = panel(counts, PLACE[:2], quarters)
    history = SiteHistory(half_lives=(math.inf,), neighbours=()).fit(seasonal)
    assert history.season_ == 4
    forecast = history.statistics(seasonal)[-4:, 0, 2].numpy() * 2
    np.testing.assert_allclose(forecast, total[-4:], rtol=0.1)
    assert SiteHistory().fit(panel()).season_ is None


def test_saved_state_gives_the_same_features():
    history = SiteHistory(half_lives=(3, math.inf)).fit(panel())
    again = SiteHistory.from_state_dict(history.state_dict())
    assert torch.equal(again.statistics(panel()), history.statistics(panel()))
    for key in history.state_dict():
        damaged = {k: v for k, v in history.state_dict().items() if k != key}
        with pytest.raises(ValueError, match="must hold a whole SiteHistory"):
            SiteHistory.from_state_dict(damaged)
    damaged = history.state_dict()
    damaged["graphs"][0]["sites"][0] = S
    with pytest.raises(ValueError, match="graphs must list sites"):
        SiteHistory.from_state_dict(damaged)


def test_no_events_at_all():
    empty = panel(np.zeros((3, S)))
    assert torch.isfinite(SiteHistory().fit(empty).statistics(empty)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"half_lives": ()}, "half_lives must be numbers > 0"),
        ({"half_lives": (0.0,)}, "half_lives must be numbers > 0"),
        ({"half_lives": (2, 2.0)}, "half_lives must be distinct"),
        ({"neighbours": (0,)}, "neighbours must be whole numbers >= 1"),
        ({"neighbours": (2.5,)}, "neighbours must be whole numbers >= 1"),
        ({"coordinates": ("lat", "x")}, "coordinates must be two features"),
        ({"coordinates": "lat"}, "coordinates must be two features"),
        ({"season": 1}, "season must be a whole number >= 2"),
        ({"edges": [("s0", "nowhere")]}, "edges must be pairs of the panel's sites, got 'nowhere'"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        SiteHistory(**arguments).fit(panel())


def test_more_errors():
    with pytest.raises(TypeError, match="panel must be a Panel"):
        SiteHistory().fit(COUNTS)
    with pytest.raises(RuntimeError, match="fit must be called first"):
        SiteHistory().transform(panel())
    with pytest.raises(ValueError, match="panel must have the sites of fit"):
        SiteHistory().fit(panel()).transform(panel(COUNTS[:, 1:], PLACE[1:]))
    with pytest.raises(ValueError, match="coordinates must be finite"):
        nearest_neighbours([[0.0, math.nan]], 1)
    with pytest.raises(ValueError, match="k must be a whole number >= 1"):
        nearest_neighbours(PLACE, 0)
    with pytest.raises(ValueError, match="must be an argument of SiteHistory"):
        SiteHistory().set_params(memory=3)
    assert SiteHistory().set_params(season=12).get_params()["season"] == 12


def test_names_of_coordinates():
    assert coordinate_features(["Latitude", "pop", "LONG"]) == ("Latitude", "LONG")
    assert coordinate_features(["lat", "pop"]) is None
