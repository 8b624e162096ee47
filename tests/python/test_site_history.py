"""SiteHistory against plain loops: only past counts are used, unknown counts, exposure; errors."""

import math

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from topreach.data.panel import Panel
from topreach.models.site_history import SiteHistory, nearest_neighbours
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


def naive(counts, t, half_life, graphs, concentration, exposure=None):
    """A, m, E [S] and the sum of weights before period t, by the definition, in loops."""
    sites = counts.shape[1]
    exposure = np.ones(counts.shape) if exposure is None else exposure
    a, e, w = np.zeros(sites), np.zeros(sites), np.zeros(sites)
    for u in range(t):
        d = 2.0 ** (-(t - 1 - u) / half_life)
        if u >= len(counts) or np.isnan(counts[u]).all():
            continue
        known = ~np.isnan(counts[u])
        rate = counts[u][known].sum() / exposure[u][known].sum()
        for s in range(sites):
            if known[s]:
                a[s] += d * counts[u, s]
                e[s] += d * rate * exposure[u, s]
                w[s] += d
    m = np.ones(sites)
    for graph, kappa in zip(graphs, concentration, strict=True):
        finer = np.empty(sites)
        for s in range(sites):
            part = slice(int(graph.start[s]), int(graph.start[s + 1]))
            near, weight = graph.sites[part].numpy(), graph.weights[part].numpy()
            expected = (weight * e[near]).sum()
            finer[s] = ((weight * a[near]).sum() + kappa) / (expected + kappa / m[s])
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
        state["graphs"] = [{k: v.tolist() for k, v in g.items()} for g in state["graphs"]]
    assert parts == whole


def test_a_later_panel_without_a_past_takes_the_fitted_one():
    history = SiteHistory().fit(panel(COUNTS[:6]))
    later = panel(COUNTS[6:], times=[6, 7, 8])
    assert later.history_y is None
    assert torch.equal(history.statistics(later), history.statistics(panel())[6:])


def test_periods_between_the_fitted_ones_and_a_later_panel_are_unknown():
    history = SiteHistory().fit(panel(COUNTS[:6]))
    later = panel(COUNTS[7:], times=[8, 9])  # 6 and 7 are not known
    timeline = torch.from_numpy(np.concatenate([COUNTS[:6], np.full((2, S), np.nan), COUNTS[7:]]))
    assert torch.equal(history.statistics(later), history.statistics(timeline, [8, 9]))


def unknown_counts(kind):
    counts = COUNTS.copy()
    if kind == "rows":
        counts[[3, 4]] = np.nan
    else:  # a site that opens late, one that closes, a single cell, and a row
        counts[:4, 2] = counts[6:, 11] = counts[5, 20] = counts[7] = np.nan
    return counts


@pytest.mark.parametrize("kind", ["rows", "cells"])
def test_unknown_counts_add_nothing_but_time_passes(kind):
    """A and E by the definition, in loops; L is one number for all sites."""
    counts = unknown_counts(kind)
    history = SiteHistory(half_lives=(1.5, math.inf), neighbours=(6, 3)).fit(panel())
    rows = [*range(1, T + 1), T + 3]
    x = history.statistics(torch.from_numpy(counts), rows).numpy()
    assert np.isfinite(x).all()
    for i, t in enumerate(rows):
        for h, half_life in enumerate((1.5, math.inf)):
            a, m, e, _ = naive(counts, t, half_life, history.graphs_, history.concentration_)
            np.testing.assert_allclose(x[i, :, h], a, rtol=1e-6)
            np.testing.assert_allclose(x[i, :, 2 + h], m * e, rtol=1e-6)
            np.testing.assert_allclose(x[i, :, 4 + h] / m, (x[i, :, 4 + h] / m)[0], rtol=1e-6)


def test_periods_further_ahead_are_unknown_periods_in_between():
    history = SiteHistory().fit(panel())
    timeline = torch.from_numpy(COUNTS)
    longer = torch.cat([timeline, torch.full((3, S), math.nan)])
    ahead = history.statistics(timeline, [T, T + 1, T + 3])
    assert torch.equal(ahead, history.statistics(longer, [T, T + 1, T + 3]))
    # The whole past does not decay; a memory of one period halves its A and E with each.
    a, expected = ahead[..., :5], ahead[..., 5:10]
    assert torch.equal(a[2, :, 4], a[0, :, 4]) and torch.equal(a[2, :, 0], a[0, :, 0] / 8)
    np.testing.assert_allclose(expected[1].sum(0)[4], expected[0].sum(0)[4], rtol=1e-6)


def test_rows_in_any_order_and_more_than_once():
    history = SiteHistory().fit(panel())
    timeline = torch.from_numpy(COUNTS)
    apart = torch.cat([history.statistics(timeline, [row]) for row in (7, 0, 9, 7)])
    assert torch.equal(history.statistics(timeline, [7, 0, 9, 7]), apart)


def test_level_of_partly_known_periods_is_that_of_the_known_sites():
    """One site in two is known, and each has twice the count: the mean count of a site stays."""
    whole = np.full((6, S), 2.0)
    part = whole.copy()
    part[:, ::2] = np.nan
    totals = torch.ops.topreach.site_totals(torch.tensor(np.stack([whole[0], part[0]])))
    assert totals.tolist() == [2.0 * S, 2.0 * S]
    history = SiteHistory(coordinates=None).fit(panel())
    full = history.statistics(torch.from_numpy(whole), [6])
    half = history.statistics(torch.from_numpy(part), [6])
    assert torch.equal(full[..., 10:], half[..., 10:])


def test_panels_with_unknown_counts():
    counts = COUNTS.copy()
    counts[7:] = np.nan
    future = panel(counts, counts="optional")
    x = SiteHistory().fit(panel()).statistics(future)
    assert torch.isfinite(x).all()
    # One period ahead and two: the memories have decayed.
    assert torch.equal(x[8, :, 0], x[7, :, 0] / 2)
    fitted = SiteHistory().fit(future)
    known = SiteHistory().fit(panel(COUNTS[:7]))
    np.testing.assert_allclose(fitted.concentration_, known.concentration_, rtol=1e-6)
    assert (fitted.level_, fitted.smoothing_) == (known.level_, known.smoothing_)


def test_exposure_by_its_definition():
    """In loops; one site's population doubles, and what is expected of it doubles."""
    people = np.broadcast_to(rng.uniform(1, 3, S), (T, S)).copy()
    people[5:, 4] *= 2
    history = SiteHistory(half_lives=(2.0, math.inf), neighbours=(5,))
    history.fit(panel(), timeline_exposure=torch.from_numpy(people))
    assert history.mean_exposure_ == pytest.approx(people.mean())
    n = people / people.mean()
    timeline, before = torch.from_numpy(COUNTS), torch.from_numpy(people)
    x = history.statistics(timeline, [T], timeline_exposure=before, exposure=before[-1:])[0].numpy()
    for h, half_life in enumerate((2.0, math.inf)):
        a, m, e, _ = naive(COUNTS, T, half_life, history.graphs_, history.concentration_, n)
        np.testing.assert_allclose(x[:, h], a, rtol=1e-6)
        np.testing.assert_allclose(x[:, 2 + h], m * e, rtol=1e-5)
        level = x[:, 4 + h] / (m * n[-1])
        np.testing.assert_allclose(level, level[0], rtol=1e-5)
    # A period to come in which that site has twice the people again.
    more = before[-1:].clone()
    more[0, 4] *= 2
    doubled = history.statistics(timeline, [T], timeline_exposure=before, exposure=more)[0].numpy()
    np.testing.assert_allclose(doubled[4, 4:], 2 * x[4, 4:], rtol=1e-6)
    np.testing.assert_array_equal(np.delete(doubled, 4, 0), np.delete(x, 4, 0))


def test_equal_exposure_is_none():
    plain, exposed = SiteHistory().fit(panel()), SiteHistory()
    people = torch.full((T, S), 7.0)
    exposed.fit(panel(), timeline_exposure=people)
    np.testing.assert_allclose(exposed.concentration_, plain.concentration_, rtol=1e-5)
    exposed.concentration_ = plain.concentration_
    timeline = torch.from_numpy(COUNTS)
    x = exposed.statistics(timeline, [T], timeline_exposure=people, exposure=people[:1])
    torch.testing.assert_close(x, plain.statistics(timeline, [T]), rtol=1e-6, atol=0)


def test_exposure_is_given_where_it_was_fitted_and_only_there():
    timeline, people = torch.from_numpy(COUNTS), torch.full((T, S), 7.0)
    plain = SiteHistory().fit(panel())
    with pytest.raises(ValueError, match="must be absent, for the history was fitted without"):
        plain.statistics(timeline, [T], timeline_exposure=people, exposure=people[:1])
    exposed = SiteHistory().fit(panel(), timeline_exposure=people)
    with pytest.raises(ValueError, match="must be given, for the history was fitted with"):
        exposed.statistics(timeline, [T])
    with pytest.raises(ValueError, match="timeline_exposure must be finite and > 0 where"):
        bad = people.clone()
        bad[3, 2] = 0
        exposed.statistics(timeline, [T], timeline_exposure=bad, exposure=people[:1])
    with pytest.raises(ValueError, match=r"timeline_exposure must have the shape .*got \[2, 30\]"):
        SiteHistory().fit(panel(), timeline_exposure=people[:2])


def test_results_do_not_depend_on_the_number_of_threads():
    sites = 5000
    r = np.random.default_rng(3)
    big = panel(r.poisson(1.0, (5, sites)), r.uniform(0, 1, (sites, 2)))
    history = SiteHistory().fit(big)
    threads = torch.get_num_threads()
    try:
        found = []
        for number in (1, 3):
            torch.set_num_threads(number)
            found.append(history.statistics(big))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


def test_operators_are_well_formed():
    """opcheck: schema, fake tensors, no autograd."""
    ops = torch.ops.topreach
    timeline = torch.from_numpy(COUNTS).float()
    near = nearest_neighbours(PLACE, 4)
    graph = [[near.start], [near.sites], [near.weights]]
    arguments = (timeline, [0, T, T + 2], *graph, [1.0, math.inf], [2.0], 1.0, 0.7, 0.1, 4)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(ops.site_statistics.default, arguments, test_utils=checks)
    torch.library.opcheck(ops.site_totals.default, (timeline,), test_utils=checks)
    totals = ops.site_totals(timeline)
    torch.library.opcheck(ops.level_forecasts.default, (totals, 0.5, 0.1, 4), test_utils=checks)


def test_level_by_its_recursion():
    """Holt-Winters without a trend, in Python; unknown totals change nothing."""
    totals = np.array([10.0, 30, np.nan, 20, 12, 33, 41, 22, 15])
    season, smoothing, seasonal = 4, 0.3, 0.1
    level, parts, updates, expected = None, np.zeros(season), 0, []
    for row, total in enumerate([*totals, np.nan]):
        at = row % season
        expected.append(math.nan if level is None else level + parts[at])
        if np.isnan(total):
            continue
        value = math.log(total + 0.5)
        level = value if level is None else level + smoothing * (value - parts[at] - level)
        rate = max(seasonal, 0.5 / (1 + updates // season))
        updates += 1
        parts[at] += rate * (value - level - parts[at])
    op = torch.ops.topreach.level_forecasts
    found = op(torch.from_numpy(totals), smoothing, seasonal, season)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_float64_as_the_default_type():
    torch.set_default_dtype(torch.float64)
    try:
        x = SiteHistory().fit(panel()).statistics(panel())
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(x, SiteHistory().fit(panel()).statistics(panel()))


def test_what_neighbours_were_found_by():
    assert SiteHistory().fit(panel()).neighbours_by_ == ("lat", "lon")
    assert SiteHistory(edges=[("s0", "s1")]).fit(panel()).neighbours_by_ == "edges"
    for none in ({"coordinates": None}, {"neighbours": ()}):
        assert SiteHistory(**none).fit(panel()).neighbours_by_ is None


def test_a_fit_that_fails_changes_nothing():
    history = SiteHistory().fit(panel())
    before = history.statistics(panel())
    history.set_params(edges=[("s0", "nowhere")])
    with pytest.raises(ValueError, match="edges must be pairs"):
        history.fit(panel(COUNTS[:4]))
    assert torch.equal(history.statistics(panel()), before)


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


def test_one_site():
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
    history = SiteHistory().fit(panel())
    with pytest.raises(ValueError, match=r"timeline must have shape \[N, S\] with the S = 30"):
        history.statistics(torch.zeros(3, 4), [0])
    with pytest.raises(ValueError, match="rows must not be negative, got -1"):
        history.statistics(torch.zeros(3, S), [-1])
    with pytest.raises(ValueError, match=r"counts >= 0.*got -2 in row 1, site 3"):
        counts = torch.zeros(3, S)
        counts[1, 3] = -2
        history.statistics(counts, [3])
    with pytest.raises(ValueError, match="must be an argument of SiteHistory"):
        SiteHistory().set_params(memory=3)
    assert SiteHistory().set_params(season=12).get_params()["season"] == 12
