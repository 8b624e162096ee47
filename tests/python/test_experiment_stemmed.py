"""The experiments on point processes: the results of their parts, and the files of short runs."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from topreach_experiments import event_data
from topreach_experiments import stemmed_simulation as study
from topreach_experiments.stemmed_comparison.rivals import (
    arima,
    autoregression,
    endemic_epidemic,
    neighbours_of,
    recent_mean,
    seasonal_naive,
)
from topreach_experiments.stemmed_comparison.scores import scores

import topreach as tr


def test_the_simulator_has_the_rates_of_its_process():
    """A stationary mean: (I - B)^-1 mu, within 4 standard errors; lags as they should be."""
    base, decay = np.array([0.8, 0.3]), np.array([2.0, 4.0])
    jumps = np.array([[0.8, 0.2], [0.4, 1.2]])  # receiver, source
    end = 3000.0
    time, node, mark = event_data.simulate(
        np.repeat(base[None], 3, 0),
        np.linspace(0, end, 4),
        lambda v, m: jumps[:, v] * m,
        decay,
        lambda: 1.0,
        np.random.default_rng(1),
    )
    b = jumps / decay[:, None]
    rate = np.linalg.solve(np.eye(2) - b, base)
    # Var N / t -> (I - B)^-1 diag(rate) (I - B)^-T.
    inverse = np.linalg.inv(np.eye(2) - b)
    sd = np.sqrt(np.diag(inverse @ np.diag(rate) @ inverse.T) / end)
    assert (np.abs(np.bincount(node) / end - rate) < 4 * sd).all()
    assert (np.diff(time) >= 0).all() and time[-1] <= end and (mark == 1).all()


def test_estimates_are_scaled_back_to_the_papers_units():
    """Marks and covariates are standardised in the fit: at the truth, put in by hand, they give the
    truth again."""
    generator = np.random.default_rng(2)
    truth = study.truth_of(4, generator)
    assert truth.radius < 0.9
    events, steps = study.data_of(truth, 60, generator)
    model = tr.models.Stemmed(theta="none", recent_rate=False, pooled=False)
    model.fit(events, steps)
    mean, scale = model.problem_.scaling[:, 0].tolist()
    mark_mean, mark_scale = events.mark_scaler.numbers["m"]
    far = np.linalg.norm(truth.places[:, None] - truth.places, axis=2).max()
    # Natural parameters per day: log gamma, beta, log alpha, delta_g, omega, delta_k.
    natural = np.stack(
        [
            np.log(truth.gamma / study.MONTH) + truth.beta * mean,
            truth.beta * scale,
            np.log(truth.alpha / study.MONTH) + truth.omega * mark_mean,
            truth.delta_g * far,
            truth.omega * mark_scale,
            truth.delta_k / study.MONTH,
        ],
        1,
    )
    model.working_ = torch.ops.topreach.hawkes_working(torch.from_numpy(natural), 1)
    value, low, high, target = study.estimates(model, truth)
    np.testing.assert_allclose(value, target, rtol=1e-9)
    assert ((low <= value) & (value <= high)).all()


def test_scores_of_a_calibrated_forecast():
    """Counts drawn from the forecast: 90 % coverage, a flat PIT, and the log score by SciPy."""
    generator = np.random.default_rng(3)
    mean, variance = np.full((12, 4000), 3.0), np.full((12, 4000), 5.0)
    y = generator.negative_binomial(4.5, 4.5 / 7.5, mean.shape).astype(float)
    found = scores(mean, variance, y, np.arange(4000) // 2, 10)
    np.testing.assert_allclose(found["cover"], 0.9, atol=4 * (0.09 / 4000) ** 0.5)
    np.testing.assert_allclose(found["pit"], 0.1, atol=0.01)
    expected = stats.nbinom.logpmf(y[[0, 2, 5, 8, 11]], 4.5, 0.6).mean(1)
    np.testing.assert_allclose(found["log"], expected, rtol=1e-6)
    np.testing.assert_allclose(found["mse"], ((y - 3) ** 2)[[0, 2, 5, 8, 11]].mean(1))
    poisson = scores(mean, None, y, np.arange(4000) // 2, 10)
    expected = stats.poisson.logpmf(y[0], 3).mean()
    assert poisson["log"][0] == pytest.approx(expected, rel=1e-3)


def test_rivals_on_series_that_are_known():
    y = np.tile(np.arange(12.0)[:, None], (3, 2))
    np.testing.assert_array_equal(seasonal_naive(y)[0], y[:12])
    np.testing.assert_array_equal(recent_mean(y, 3)[0], np.full((12, 2), 10.0))
    # A VAR(1) without noise goes on as it was.
    step = np.array([[0.6, 0.2], [0.1, 0.7]])
    path = [np.array([9.0, 1.0])]
    for _ in range(40):
        path.append(np.array([0.5, 0.8]) + step @ path[-1])
    path = np.array(path)
    mean, _ = autoregression(path[:29], np.zeros(2, int))
    np.testing.assert_allclose(mean, path[29:41], rtol=1e-6)
    # A constant level has itself as its forecast under the endemic-epidemic model.
    generator = np.random.default_rng(4)
    y = generator.poisson(4.0, (80, 6)).astype(float)
    near = neighbours_of(1.0 - np.eye(3), 2)
    np.testing.assert_allclose(near.sum(1), 1)
    assert (near[0, 1::2] == 0).all()  # of its own type only
    mean, variance = endemic_epidemic(y, near)
    np.testing.assert_allclose(mean[-1], 4.0, rtol=0.25)
    assert (variance >= mean).all()


def test_arima_is_that_of_statsmodels():
    pytest.importorskip("statsmodels")
    generator = np.random.default_rng(5)
    y = np.c_[generator.poisson(5.0, 60), np.full(60, 2)].astype(float)
    mean, variance = arima(y)
    assert abs(mean[:, 0].mean() - 5) < 2 and (variance[:, 0] > 0).all()
    np.testing.assert_array_equal(mean[:, 1], 2.0)  # stood still


def test_a_short_comparison(quick_run):
    folder = quick_run("stemmed_comparison")
    table = pd.read_csv(folder / "ct_results.csv").set_index("method")
    for name in ("STEMMED, paper", "SEPP", "MEPP", "STEMMED, chosen", "mean of 12 months"):
        assert np.isfinite(table.loc[name]).all()
    assert table["90 % cover"].between(0, 1).all() and table["BPR"].between(0, 1).all()
    apart = pd.read_csv(folder / "ct_differences.csv").set_index("method")
    expected = table.loc["STEMMED, chosen", "MSPE 1"] - table.loc["SEPP", "MSPE 1"]
    assert apart.loc["SEPP", "month 1"] == pytest.approx(expected, abs=1e-9)
    assert (folder / "ct_mspe.png").stat().st_size > 1000


def test_a_short_simulation(quick_run):
    folder = quick_run("stemmed_simulation")
    cover = pd.read_csv(folder / "cover.csv")
    assert cover["N"].tolist() == [1, 1, 4, 4]
    assert cover[["log gamma", "beta"]].to_numpy().min() > 0.6
    assert cover[cover["N"] == 1]["delta_g"].isna().all()  # not identified with one place
    assert (folder / "sampling_law.svg").stat().st_size > 1000


def test_a_short_retrospective(quick_run):
    folder = quick_run("stemmed_retrospective")
    for name in ("paper", "ours"):
        table = pd.read_csv(folder / f"parameters_{name}.csv").set_index("parameter")
        assert table.loc["children", "mean"] > 0
        low, high = (table[f"interval of a node, {end}"] for end in ("low", "high"))
        assert (low < high).all()
        assert (folder / f"network_{name}.png").stat().st_size > 1000
    share = pd.read_csv(folder / "triggered_share.csv")
    assert set(share["settings"]) == {"paper", "ours"}
