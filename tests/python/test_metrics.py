"""Metrics against enumeration of every tie-breaking and every subset, and against hand counts."""

import doctest
import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topreach.evaluation import metrics
from topreach.programs import Program, TopK

RANKED = [metrics.bpr, metrics.capture, metrics.pai, metrics.pei]


def choices(scores, k):
    """All sets of k sites with the largest scores: one per way to break the ties."""
    scores = list(scores)
    threshold = sorted(scores, reverse=True)[k - 1]
    above = [s for s, r in enumerate(scores) if r > threshold]
    tied = [s for s, r in enumerate(scores) if r == threshold]
    return [[*above, *rest] for rest in itertools.combinations(tied, k - len(above))]


def reach(scores, counts, k):
    return np.mean([sum(counts[s] for s in chosen) for chosen in choices(scores, k)])


def best_reach(counts, k):
    return max(sum(c) for c in itertools.combinations(counts, k))


@st.composite
def cases(draw):
    num_sites = draw(st.integers(1, 7))
    num_times = draw(st.integers(1, 3))
    k = draw(st.integers(1, num_sites))
    table = st.lists(
        st.lists(st.integers(0, 3), min_size=num_sites, max_size=num_sites),
        min_size=num_times,
        max_size=num_times,
    )
    return draw(table), draw(table), k


@settings(max_examples=200, deadline=None)
@given(cases())
def test_bpr_is_its_expectation_over_all_tie_breakings(case):
    scores, counts, k = case
    values = metrics.bpr(scores, counts, k, reduce="none")
    for t, value in enumerate(values):
        best = best_reach(counts[t], k)
        if best == 0:
            assert math.isnan(value)
        else:
            assert value == pytest.approx(reach(scores[t], counts[t], k) / best, rel=1e-12)


@settings(max_examples=200, deadline=None)
@given(cases())
def test_capture_pai_pei_by_enumeration(case):
    scores, counts, k = case
    num_sites = len(scores[0])
    capture = metrics.capture(scores, counts, k, reduce="none")
    pai = metrics.pai(scores, counts, k, reduce="none")
    pei = metrics.pei(scores, counts, k, reduce="none")
    for t in range(len(scores)):
        total = sum(counts[t])
        if total == 0:
            assert all(math.isnan(m[t]) for m in (capture, pai, pei))
            continue
        n = reach(scores[t], counts[t], k)
        assert capture[t] == pytest.approx(n / total, rel=1e-12)
        assert pai[t] == pytest.approx((n / total) / (k / num_sites), rel=1e-12)
        assert pei[t] == pytest.approx(n / best_reach(counts[t], k), rel=1e-12)


@settings(max_examples=100, deadline=None)
@given(cases(), st.data())
def test_unequal_areas_by_enumeration(case, data):
    scores, counts, k = case
    num_sites = len(scores[0])
    areas = data.draw(st.lists(st.integers(1, 9), min_size=num_sites, max_size=num_sites))
    pai = metrics.pai(scores, counts, k, areas=areas, reduce="none")
    pei = metrics.pei(scores, counts, k, areas=areas, reduce="none")
    for t in range(len(scores)):
        total = sum(counts[t])
        if total == 0:
            assert math.isnan(pai[t])
            continue
        density = reach(scores[t], counts[t], k) / reach(scores[t], areas, k)
        best = max(
            sum(counts[t][s] for s in c) / sum(areas[s] for s in c)
            for c in itertools.combinations(range(num_sites), k)
        )
        assert pai[t] == pytest.approx(density / (total / sum(areas)), rel=1e-12)
        assert pei[t] == pytest.approx(density / best, rel=1e-12)


@settings(max_examples=100, deadline=None)
@given(cases(), st.data())
def test_rri_by_enumeration(case, data):
    scores, earlier, k = case
    size = len(scores[0])
    row = st.lists(st.integers(0, 3), min_size=size, max_size=size)
    later = data.draw(st.lists(row, min_size=len(scores), max_size=len(scores)))
    values = metrics.rri(scores, earlier, later, k, reduce="none")
    for t, value in enumerate(values):
        before, after = (reach(scores[t], y[t], k) for y in (earlier, later))
        if before == 0 or sum(later[t]) == 0:
            assert math.isnan(value)
        else:
            expected = (after / before) / (sum(later[t]) / sum(earlier[t]))
            assert value == pytest.approx(expected, rel=1e-12)


def test_bounds_and_special_scores():
    counts = torch.tensor([[0, 3, 5, 1]])
    for k in range(1, 5):
        assert metrics.bpr(counts, counts, k) == 1
        assert metrics.pei(-counts, counts, k) == metrics.bpr(-counts, counts, k)
    assert metrics.bpr(torch.zeros(1, 4), counts, 2) == pytest.approx((2 * 9 / 4) / 8)
    inf = math.inf
    assert metrics.bpr([[-inf, inf, -inf, 0]], counts, 2) == 4 / 8
    assert metrics.bpr([[-inf, inf, -inf, -inf]], counts, 2) == pytest.approx((3 + 6 / 3) / 8)


@pytest.mark.parametrize("metric", RANKED)
def test_periods_without_events(metric):
    scores, counts = [[3.0, 2, 1]] * 3, [[0, 4, 6], [0, 0, 0], [4, 0, 0]]
    values = metric(scores, counts, 2, reduce="none")
    assert np.isnan(values).tolist() == [False, True, False]
    assert math.isnan(metric(scores, counts, 2))
    assert metric(scores, counts, 2, nan_policy="omit") == pytest.approx(np.nanmean(values))
    assert math.isnan(metric(scores, [[0, 0, 0]] * 3, 2, nan_policy="omit"))
    with pytest.raises(ValueError, match=r"counts must have events in every period.*\[1\]"):
        metric(scores, counts, 2, nan_policy="raise")
    assert metric(scores[:1], counts[:1], 2, nan_policy="raise") == pytest.approx(values[0])


@pytest.mark.parametrize("metric", RANKED)
def test_kinds_of_input(metric):
    generator = np.random.default_rng(0)
    scores, counts = generator.normal(size=(4, 3, 6)), generator.poisson(2.0, (3, 6))
    expected = metric(scores, counts, 2, reduce="none")
    assert isinstance(expected, np.ndarray)
    assert expected.shape == (4, 3)
    tensors = metric(torch.tensor(scores), torch.tensor(counts), 2, reduce="none")
    assert isinstance(tensors, torch.Tensor)
    np.testing.assert_array_equal(tensors, expected)
    np.testing.assert_array_equal(metric(torch.tensor(scores), counts, 2, reduce="none"), expected)
    labels = {"columns": list("abcdef"), "index": [1, 2, 3]}
    frame = metric(pd.DataFrame(scores[0], **labels), pd.DataFrame(counts, **labels), 2)
    assert frame == pytest.approx(expected[0].mean())
    one = metric(pd.Series(scores[0, 0]), counts[0], 2)
    assert one == pytest.approx(expected[0, 0])
    assert isinstance(one, float)
    assert isinstance(metric(torch.tensor(scores), counts, 2), float)
    requires_grad = torch.tensor(scores, requires_grad=True)
    assert metric(requires_grad, counts, 2) == pytest.approx(expected.mean())


def test_k_of_another_integer_kind():
    assert metrics.bpr([[0.0, 1, 2]], [[1, 0, 3]], np.int64(1)) == 1
    assert metrics.capture([[0.0, 1, 2]], [[1, 0, 3]], np.int64(1)) == 3 / 4


class Pairs(Program):
    """Two neighbours of the row, of which the first reaches double."""

    def name(self):
        return "Pairs"

    def config(self):
        return []

    def check(self, function, sites):
        if sites < 2:
            raise ValueError(f"{function}: no pair")

    def size(self):
        return 2

    def best(self, values):
        start = (2 * values[..., :-1] + values[..., 1:]).argmax(-1, keepdim=True)
        mask = torch.zeros_like(values)
        return mask.scatter(-1, start, 1.0).scatter(-1, start + 1, 1.0)


def test_a_program_takes_the_place_of_k():
    """By hand: scores choose the sites 1 and 2 (2·5 + 1); in hindsight the best are 3 and 4."""
    scores, counts = [[0.0, 5, 1, 0, 4]], [[1.0, 2, 3, 6, 4]]
    assert metrics.bpr(scores, counts, Pairs()) == pytest.approx(5 / 10)
    assert metrics.capture(scores, counts, Pairs()) == pytest.approx(5 / 16)
    assert metrics.pai(scores, counts, Pairs()) == pytest.approx((5 / 16) / (2 / 5))
    areas = [1.0, 1, 3, 1, 2]
    assert metrics.pai(scores, counts, Pairs(), areas=areas) == pytest.approx((5 / 16) / (4 / 8))
    later = [[0.0, 1, 1, 0, 6]]
    assert metrics.rri(scores, counts, later, Pairs()) == pytest.approx((2 / 5) / (8 / 16))
    with pytest.raises(TypeError, match="pei: k must be a number of sites"):
        metrics.pei(scores, counts, Pairs())
    for metric in RANKED:
        assert metric(scores, counts, TopK(2)) == metric(scores, counts, 2)


@pytest.mark.parametrize("metric", RANKED)
def test_k_may_be_all_sites_but_no_more(metric):
    scores, counts = [[0.0, 1, 2]], [[1, 0, 3]]
    assert metric(scores, counts, 3) == pytest.approx(1)
    with pytest.raises(ValueError, match=f"^{metric.__name__}: .* S = 3, got 4"):
        metric(scores, counts, 4)


def test_large_counts_stay_exact():
    counts = [[2**24 + 1, 2**24, 0]]
    assert metrics.bpr([[0.0, 1, 0.5]], counts, 1) == 2**24 / (2**24 + 1)


@pytest.mark.parametrize("metric", RANKED)
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            ([[1.0, math.nan]], [[1, 1]], 1),
            ValueError,
            r"scores must have no NaN, got nan at \[0, 1\]",
        ),
        (([[1.0, 2]], [[1, -1]], 1), ValueError, r"counts must be finite and >= 0, got -1.0"),
        (([[1.0, 2]], [[1, math.nan]], 1), ValueError, "counts must be finite"),
        (([[1.0, 2]], [[1, math.inf]], 1), ValueError, "counts must be finite"),
        (([[1.0, 2]], [[1, 1, 1]], 1), ValueError, "counts must have the last axes of scores"),
        (([1.0, 2], [[1, 1]], 1), ValueError, "counts must have the last axes of scores"),
        (([[1.0, 2]], [[1, 1]], 0), ValueError, "k must be a whole number >= 1, got 0"),
        (
            ([[1.0, 2]], [[1, 1]], 3),
            ValueError,
            "k must be at most the number of sites S = 2, got 3",
        ),
        (([[1.0, 2]], [[1, 1]], 1.0), TypeError, "k must be a whole number .*, got 1.0"),
        (([[1.0, 2]], [[1, 1]], True), TypeError, "k must be a whole number .*, got True"),
        ((1.0, 1.0, 1), ValueError, "scores must have shape"),
        (([["a", "b"]], [[1, 1]], 1), TypeError, "scores must be a tensor, array or table"),
        (([[1j, 2]], [[1, 1]], 1), TypeError, "scores must be real"),
    ],
)
def test_bad_input(metric, arguments, error, message):
    with pytest.raises(error, match=f"^{metric.__name__}: {message}"):
        metric(*arguments)


def test_bad_options():
    good = ([[1.0, 2]], [[1, 1]], 1)
    with pytest.raises(ValueError, match="nan_policy must be one of"):
        metrics.bpr(*good, nan_policy="ignore")
    with pytest.raises(ValueError, match="reduce must be one of"):
        metrics.bpr(*good, reduce="sum")
    for areas in ([1.0], [1.0, 0.0], [1.0, math.nan]):
        with pytest.raises(ValueError, match="pai: areas must be 2 finite numbers > 0"):
            metrics.pai(*good, areas=areas)
    with pytest.raises(ValueError, match="rri: later must have the last axes"):
        metrics.rri([[1.0, 2]], [[1, 1]], [[1, 1], [2, 2]], 1)


def test_tables_with_other_labels():
    scores = pd.DataFrame([[1.0, 2.0]], columns=["a", "b"])
    counts = pd.DataFrame([[5, 0]], columns=["b", "a"])
    with pytest.raises(ValueError, match="counts must have the row and column labels of scores"):
        metrics.bpr(scores, counts, 1)
    assert metrics.bpr(scores, counts[["a", "b"]], 1) == 1


@settings(max_examples=50, deadline=None)
@given(cases())
def test_errors_are_pooled_over_sites_and_periods(case):
    forecast, counts, _ = case
    difference = np.subtract(forecast, counts, dtype=float)
    assert metrics.mae(forecast, counts) == pytest.approx(np.abs(difference).mean())
    assert metrics.rmse(forecast, counts) == pytest.approx(np.sqrt((difference**2).mean()))


@pytest.mark.parametrize("metric", [metrics.mae, metrics.rmse])
def test_forecasts_must_be_finite(metric):
    with pytest.raises(ValueError, match=f"^{metric.__name__}: forecast must be finite"):
        metric([[math.inf, 1]], [[1, 1]])
    with pytest.raises(ValueError, match="counts must have the last axes of forecast"):
        metric([[1, 1]], [[1, 1, 1]])


def test_examples_in_the_docstrings():
    result = doctest.testmod(metrics)
    assert result.attempted >= 7
    assert result.failed == 0
