"""The naive forecasts, against plain loops over the counts before each period."""

import math
from types import SimpleNamespace

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


def test_unknown_counts_take_no_part():
    """Sites: always known; unknown in the middle; unknown at the end; never known."""
    y = torch.tensor([[1.0, 2, 6, NAN], [2, NAN, NAN, NAN], [6, 4, NAN, NAN], [3, 3, 3, NAN]])
    data = SimpleNamespace(
        y=y[3:], rows=torch.tensor([3]), timeline=y, times=[2003], device=torch.device("cpu")
    )
    assert baselines.historical_mean(data).tolist() == [[3, 3, 6, 0]]
    # The third site has no known count in the window: the mean of all its earlier ones.
    assert baselines.historical_mean(data, 2).tolist() == [[4, 4, 6, 0]]
    assert baselines.last_period(data).tolist() == [[6, 4, 6, 0]]


def test_a_window_without_any_known_count_is_refused():
    y = torch.tensor([[1.0, 2], [NAN, NAN], [NAN, NAN], [3, 3]])
    data = SimpleNamespace(
        y=y[2:], rows=torch.tensor([2, 3]), timeline=y, times=[7, 8], device=torch.device("cpu")
    )
    for forecast, text in (
        (baselines.last_period, "known counts in the period before 7, got none"),
        (lambda d: baselines.historical_mean(d, 1), "known counts in the period before 7"),
    ):
        with pytest.raises(ValueError, match=text):
            forecast(data)
    data.rows, data.times = torch.tensor([3]), [8]
    with pytest.raises(ValueError, match="known counts in the 2 periods before 8"):
        baselines.historical_mean(data, 2)
    assert baselines.historical_mean(data, 3).tolist() == [[1, 2]]


@pytest.mark.parametrize("forecast", [baselines.last_period, baselines.historical_mean])
def test_counts_must_be_known_before_the_first_period(forecast):
    with pytest.raises(ValueError, match=f"{forecast.__name__}: panel must have counts before"):
        forecast(panel(COUNTS))
