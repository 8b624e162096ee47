"""The naive forecasts, against plain loops over the counts before each period."""

import math

import numpy as np
import pytest
import torch

from topreach import Panel
from topreach.evaluation import baselines

NAN = math.nan


def panel(y, history=None):
    y = np.asarray(y, dtype=float)
    sites = [f"s{i}" for i in range(y.shape[1])]
    x = np.zeros((*y.shape, 1))
    return Panel(x, y, sites, range(2000, 2000 + len(y)), ["none"], history_y=history)


COUNTS = np.random.default_rng(0).poisson(3.0, (7, 4)).astype(float)
PAST = np.random.default_rng(1).poisson(3.0, (2, 4)).astype(float)


@pytest.mark.parametrize("window", [1, 2, 3, 6, 7, 8, 9, 100, None])
def test_mean_of_the_last_periods_by_a_plain_loop(window):
    """Windows inside the known past, exactly as long as it, one longer, and far longer."""
    every = np.vstack([PAST, COUNTS])
    expected = [
        every[max(0, t - (window or t)) : t].mean(axis=0) for t in range(len(PAST), len(every))
    ]
    found = baselines.historical_mean(panel(COUNTS, PAST), window)
    # Means of float64 sums, rounded once.
    np.testing.assert_array_equal(found.numpy(), np.array(expected, dtype=np.float32))
    assert found.dtype == torch.float32


def test_the_last_period_is_a_window_of_one():
    data = panel(COUNTS, PAST)
    every = np.vstack([PAST, COUNTS])
    np.testing.assert_array_equal(baselines.last_period(data).numpy(), every[1:-1])
    assert torch.equal(baselines.last_period(data), baselines.historical_mean(data, 1))


def test_no_forecast_sees_its_own_period_or_later_ones():
    other = COUNTS.copy()
    other[4:] += 100
    for forecast in (baselines.last_period, baselines.historical_mean):
        same, changed = forecast(panel(COUNTS, PAST)), forecast(panel(other, PAST))
        assert torch.equal(same[:5], changed[:5]) and not torch.equal(same[5:], changed[5:])


def test_a_part_of_a_panel_has_the_forecasts_of_the_whole():
    data = panel(COUNTS)
    part = data.select_times(data.times[2:4])
    later = data.select_times(data.times[1:])
    assert torch.equal(baselines.historical_mean(part, 2), baselines.historical_mean(later, 2)[1:3])


def test_chance_gives_all_sites_the_same():
    assert torch.equal(baselines.chance(panel(COUNTS)), torch.zeros(7, 4))


def test_window_of_another_kind():
    data = panel(COUNTS, PAST)
    expected = baselines.historical_mean(data, 3)
    assert torch.equal(baselines.historical_mean(data, np.int64(3)), expected)
    for wrong in (True, False, 2.0, "2"):
        with pytest.raises(TypeError, match="historical_mean: window must be a whole number"):
            baselines.historical_mean(data, wrong)
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="historical_mean: window must be a whole number >= 1"):
            baselines.historical_mean(data, wrong)


@pytest.mark.parametrize("forecast", [baselines.last_period, baselines.historical_mean])
def test_counts_must_be_known_before_the_first_period(forecast):
    with pytest.raises(ValueError, match=f"{forecast.__name__}: panel must have counts before"):
        forecast(panel(COUNTS))
