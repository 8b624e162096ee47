"""Forecasts of Stemmed, by moments and by simulation [STEMMED Sec. 5]."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hawkes_reference import clusters, table_of

import topreach as tr

FIRST, LAST, DAYS = "2021-01-01", "2023-12-31", 1095.0
MONTHS = [31.0, 29.0, 31.0, 30.0, 31.0, 30.0]  # of 2024
PATHS = 8000


def made(**options):
    """2 places x 2 types with days as times; a third of the events have both types."""
    children = np.array([[0.4, 0.1], [0.1, 0.3]])
    time, place, _ = clusters(np.array([0.15, 0.25]), children, np.array([6.0, 9.0]), DAYS, seed=2)
    table = table_of(time, place)
    kind = np.random.default_rng(3).integers(3, size=len(table))
    table["a"], table["b"] = (kind != 1).astype(int), (kind != 0).astype(int)
    day = pd.Timestamp(FIRST) + pd.to_timedelta(np.floor(table["t"]), unit="D")
    table["date"] = day.dt.strftime("%Y-%m-%d")
    return tr.Events.from_frame(
        table,
        time="date",
        place="place",
        types=["a", "b"],
        id="id",
        window=(FIRST, LAST),
        **options,
    )


def fitted(model, events):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(events)


@pytest.fixture(scope="module")
def events():
    return made()


@pytest.fixture(scope="module")
def model(events):
    return fitted(tr.models.Stemmed(), events)


def test_places_types_and_nodes_agree(model):
    by = {kind: model.forecast(3, by=kind) for kind in ("node", "type", "place")}
    node = by["node"].mean.reshape(3, 2, 2)
    torch.testing.assert_close(by["type"].mean, node.sum(1))
    assert by["node"].sites == ["p0 | a", "p0 | b", "p1 | a", "p1 | b"]
    assert by["type"].sites == ["a", "b"] and by["place"].sites == ["p0", "p1"]
    # An event of both types is one event at its place: nodes count it twice.
    entries = model.events_.node_events()
    share = torch.zeros(4, dtype=torch.float64).index_add_(0, entries.node, entries.share)
    share = (share / torch.bincount(entries.node, minlength=4)).reshape(2, 2)
    torch.testing.assert_close(by["place"].mean, (node * share).sum(2))
    assert by["place"].labels == ["2024-01", "2024-02", "2024-03"]


def test_periods_add_up(model):
    month, quarter = model.forecast(6), model.forecast(2, every="quarter")
    torch.testing.assert_close(month.mean.reshape(2, 3, 2).sum(1), quarter.mean)
    total = model.forecast(6, cumulative=True)
    torch.testing.assert_close(total.mean, month.mean.cumsum(0))
    torch.testing.assert_close(total.mean[[2, 5]], quarter.mean.cumsum(0))
    torch.testing.assert_close(total.variance[2], quarter.variance[0])
    # Clusters make counts of neighbouring months go together.
    assert bool((total.variance[5] > month.variance.sum(0)).all())
    assert quarter.labels == ["2024Q1", "2024Q2"]
    mean = model.forecast(6, mode="mean")
    torch.testing.assert_close(mean.mean, month.mean)
    with pytest.raises(ValueError, match="must have variances, got mode 'mean'"):
        _ = mean.distribution


@pytest.mark.parametrize("mode, anchor", [("branching", 12), ("branching", None), ("thinning", 12)])
@pytest.mark.parametrize("cumulative", [False, True])
def test_moments_are_those_of_simulated_paths(model, mode, anchor, cumulative):
    """Within 4 standard errors; the variance by its own, sqrt(2 / paths) and more for skewness."""
    exact = model.forecast(2, anchor=anchor, cumulative=cumulative, by="place")
    paths = PATHS if mode == "branching" else PATHS // 4
    found = model.forecast(
        2, mode=mode, num_samples=paths, parameter_draws=0, anchor=anchor, cumulative=cumulative
    )
    # Samples count each entry of a place with its share; so do the moments.
    error = (found.mean - exact.mean) / (exact.variance / paths).sqrt()
    assert float(error.abs().max()) < 4
    ratio = found.variance / exact.variance - 1
    assert float(ratio.abs().max()) < 4 * (3 / paths) ** 0.5
    assert found.samples.shape == (paths, 2, 2)


def test_the_paper_mode_loses_children_of_the_period(model):
    """Algorithm 1: the first month is too low, the long run is right."""
    exact = model.forecast(1, every="year", mode="mean", anchor=None)
    options = {"num_samples": 4000, "parameter_draws": 0, "anchor": None, "every": "year"}
    paper = model.forecast(1, mode="paper", **options)
    assert float(paper.mean.sum()) < 0.9 * float(exact.mean.sum())


def test_seeds_repeat_and_differ(model):
    options = {"mode": "branching", "num_samples": 200}
    one, two = model.forecast(2, **options), model.forecast(2, **options)
    assert torch.equal(one.samples, two.samples)
    assert not torch.equal(one.samples, model.forecast(2, **options, seed=1).samples)
    # Draws of the parameters widen the forecast of a year.
    wide = model.forecast(1, every="year", mode="branching", num_samples=4000, parameter_draws=200)
    sharp = model.forecast(1, every="year", mode="branching", num_samples=4000, parameter_draws=0)
    assert float((wide.variance / sharp.variance).mean()) > 1


def test_anchored_forecasts_relax_to_the_recent_rates(model):
    """The last of 60 months has the mean rate of the last 12; the first starts from today's
    excitation."""
    mean = model.forecast(60, mode="mean", by="node").mean
    rate = model.recent_rates(12.0)
    torch.testing.assert_close(mean[-1], rate * 31.0, rtol=1e-3, atol=0)  # 2028-12
    entries = model.events_.node_events()
    new = entries.times > DAYS - 365.25
    count = torch.bincount(entries.node[new], minlength=4).double()
    torch.testing.assert_close(rate, count / 365.25, rtol=0.05, atol=0)
    dynamics, factor = model.dynamics(model.working_, rate, second=False)
    torch.testing.assert_close(dynamics.base + dynamics.branching @ rate, rate)
    # At the recent rates the excitation would be B r; more of it today lifts the first month.
    ahead = dynamics.excitation - dynamics.branching @ rate
    assert bool((torch.sign(mean[0] - 31.0 * rate) == torch.sign(ahead)).any())
    assert bool((factor <= 1).all())


def test_a_month_under_way_is_bridged():
    cut = made(complete_through="2023-12-17")
    model = fitted(tr.models.Stemmed(), cut)
    found = model.forecast(2)
    assert found.labels == ["2024-01", "2024-02"]
    assert any("begins at 2024-01, after the fit's end" in note for note in found.notes)
    total = model.forecast(2, cumulative=True)
    torch.testing.assert_close(total.mean, found.mean.cumsum(0))
    exact = model.forecast(2, cumulative=True)
    paths = model.forecast(
        2, cumulative=True, mode="branching", num_samples=PATHS, parameter_draws=0
    )
    error = (paths.mean - exact.mean) / (exact.variance / PATHS).sqrt()
    assert float(error.abs().max()) < 4
    assert float((paths.variance / exact.variance - 1).abs().max()) < 4 * (3 / PATHS) ** 0.5


def test_forecasts_are_ranked_and_written(model):
    found = model.forecast(2, by="node")
    table = found.rank(2)
    assert table["rank"].tolist() == [1, 2, 3, 4] and table["selected"].sum() == 2
    assert table["score"].is_monotonic_decreasing
    frame = found.to_frame(level=0.8)
    assert list(frame.columns) == ["time", "horizon", "site", "mean", "sd", "lower", "upper"]
    assert len(frame) == 8 and (frame["lower"] <= frame["upper"]).all()
    # The negative binomial has the moments.
    torch.testing.assert_close(found.distribution.mean.double(), found.mean, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        found.distribution.variance.double(), found.variance, rtol=1e-4, atol=0
    )
    paths = model.forecast(2, mode="branching", num_samples=500)
    assert torch.equal(paths.quantile(0.5), paths.samples.quantile(0.5, dim=0))


def test_an_unstable_process_has_no_forecast_without_anchor(model):
    wild = fitted(tr.models.Stemmed(), model.events_)
    wild.working_ = wild.working_.clone()
    wild.working_[:, 2] += 3.0
    assert wild.spectral_radius > 1
    with pytest.raises(ValueError, match="spectral radius must be below 1 for a forecast"):
        wild.forecast(1, anchor=None)
    assert bool(torch.isfinite(wild.forecast(1).mean).all())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"periods": 0}, "periods must be a whole number >= 1, got 0"),
        ({"periods": 1.5}, "periods must be a whole number >= 1, got 1.5"),
        ({"mode": "exact"}, "mode must be one of"),
        ({"num_samples": 1}, "num_samples must be a whole number >= 2, got 1"),
        ({"parameter_draws": -1}, "parameter_draws must be a whole number >= 0, got -1"),
        ({"by": "county"}, "by must be one of"),
        ({"every": "fortnight"}, "every must be one of"),
        ({"anchor": 0}, "anchor must be a number of months > 0 or None, got 0"),
    ],
)
def test_wrong_arguments(model, options, message):
    with pytest.raises(ValueError, match=f"Stemmed.forecast: {message}"):
        model.forecast(**options)
    with pytest.raises(ValueError, match="k must lie from 1 to 2, got 3"):
        model.forecast(1).rank(3)
    with pytest.raises(ValueError, match="probability must lie between 0 and 1"):
        model.forecast(1).quantile(1.0)
