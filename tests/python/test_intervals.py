"""Intervals of paired differences: their coverage, also for the best of many methods."""

import doctest
import math

import numpy as np
import pytest
from scipy import stats

from topreach.evaluation import intervals
from topreach.evaluation.intervals import Interval, paired_interval, simultaneous_intervals

TRIALS = 200
STANDARD_ERROR = math.sqrt(0.95 * 0.05 / TRIALS)


@pytest.mark.parametrize("n", [3, 4, 6, 11, 21, 100])
def test_expanded_tail_gives_students_width(n):
    """The series of Student's quantile ends at 1 / v³: its relative error tends to 0.82 / v⁴.
    Rounding of the far tail adds 1e-9."""
    v = n - 1
    exact = -math.sqrt(n / v) * stats.t.ppf(0.975, v)
    found = stats.norm.ppf(intervals.expanded_tail(n))
    assert found == pytest.approx(exact, rel=0.9 / v**4 + 1e-9)


@pytest.fixture
def fewer_resamples(monkeypatch):
    """2,000 in place of 10,000: the quantile's own error stays under 1 % of the width."""
    monkeypatch.setattr(intervals, "RESAMPLES", 2000)


def test_a_paired_interval_covers_the_mean(fewer_resamples):
    """95 % of intervals from 8 normal differences."""
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(TRIALS):
        found = paired_interval(rng.normal(0.1, 1, 8), seed=trial)
        covered += found.low <= 0.1 <= found.high
    assert covered / TRIALS > 0.95 - 4 * STANDARD_ERROR


def test_the_best_of_many_is_not_called_better_by_chance(fewer_resamples):
    """15 methods without any true difference over 20 periods: in 5 % of trials, not more, does the
    interval of the best lie above 0. Intervals for one comparison each are far off."""
    rng = np.random.default_rng(1)
    together = apart = 0
    for trial in range(TRIALS):
        common = rng.normal(0, 1, 20)
        table = {str(m): common + rng.normal(0, 1, 20) for m in range(15)}
        best = max(table, key=lambda m: table[m].mean())
        together += simultaneous_intervals(table, seed=trial)[best].sign > 0
        apart += paired_interval(table[best], seed=trial).sign > 0
    assert together / TRIALS < 0.05 + 4 * STANDARD_ERROR
    assert apart / TRIALS > 0.1


def test_intervals_for_all_at_once_find_a_true_difference():
    rng = np.random.default_rng(2)
    table = {"none": rng.normal(0, 1, 30), "true": rng.normal(2, 1, 30)}
    found = simultaneous_intervals(table)
    assert found["true"].sign == 1 and found["none"].sign == 0
    mirrored = simultaneous_intervals({name: -values for name, values in table.items()})
    assert mirrored["true"].sign == -1
    assert found["true"].mean == pytest.approx(table["true"].mean(), rel=1e-12)


def test_one_method_has_nearly_the_interval_of_one_comparison():
    """A symmetric interval against one by percentiles: within a tenth of the width."""
    values = np.random.default_rng(3).normal(0, 1, 40)
    one, several = paired_interval(values), simultaneous_intervals({"a": values})["a"]
    width = one.high - one.low
    assert several.low == pytest.approx(one.low, abs=0.1 * width)
    assert several.high == pytest.approx(one.high, abs=0.1 * width)


def test_equal_methods_have_intervals_without_width():
    found = simultaneous_intervals({"same": [0.25] * 5, "other": [0.1, 0.3, 0.2, 0.2, 0.1]})
    assert found["same"] == (0.25, 0.25, 0.25)
    assert found["other"].low < 0.18 < found["other"].high
    assert simultaneous_intervals({"same": [0.25] * 5})["same"].sign == 1


@pytest.mark.parametrize("values", [[], [0.5], [0.5, 0.7], [0.5, math.nan, 0.7, math.nan]])
def test_too_few_periods_have_no_interval_and_say_so(values):
    for found in (paired_interval(values), simultaneous_intervals({"a": values})["a"]):
        assert not found.known and found.sign == 0
        assert "too few periods" in str(found) and "[" not in str(found)
    if len(values) in (2, 4):
        table = {"a": values, "b": [v + 1 for v in values]}
        assert paired_interval(values).mean == pytest.approx(0.6)
        assert [i.mean for i in simultaneous_intervals(table).values()] == pytest.approx([0.6, 1.6])


def test_the_seed_is_0_unless_given():
    values = np.random.default_rng(4).normal(0, 1, 9)
    assert (
        paired_interval(values)
        == paired_interval(values, seed=0)
        != paired_interval(values, seed=1)
    )
    table = {"a": values}
    assert simultaneous_intervals(table) == simultaneous_intervals(table, seed=0)
    assert simultaneous_intervals(table) != simultaneous_intervals(table, seed=1)


def test_three_periods_are_enough():
    assert paired_interval([0.1, 0.2, 0.3]).known
    assert simultaneous_intervals({"a": [0.1, 0.2, 0.3]})["a"].known


def test_a_period_that_one_method_lacks_is_left_out_for_all():
    table = {"a": [1.0, 2.0, 3.0, math.nan], "b": [0.0, 1.0, 1.0, 100.0]}
    assert simultaneous_intervals(table)["b"].mean == pytest.approx(2 / 3)
    assert paired_interval(table["a"]).mean == pytest.approx(2)


def test_methods_must_have_the_same_periods():
    assert simultaneous_intervals({}) == {}
    with pytest.raises(ValueError, match="one value for each period.*\\[1, 2\\] values"):
        simultaneous_intervals({"a": [1.0, 2.0], "b": [1.0]})


def test_an_interval_says_on_which_side_of_zero_it_lies():
    assert [Interval(0, low, high).sign for low, high in ((0.1, 1), (-1, 1), (-1, -0.1))] == [
        1,
        0,
        -1,
    ]
    assert str(Interval(0.0158, -0.0053, 0.0363)) == "+0.016 [-0.005, +0.036]"


def test_examples_in_the_docstrings():
    result = doctest.testmod(intervals)
    assert result.attempted == 3 and result.failed == 0
