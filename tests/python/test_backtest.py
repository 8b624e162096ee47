"""The backtest: no look ahead, figures by hand, refits, and comparisons of methods."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from topreach import Panel
from topreach.evaluation import backtest, compare, judge, metrics, origins
from topreach.programs import Program, TopK

RATES = np.random.default_rng(0).gamma(1, 3, 12)
COUNTS = np.random.default_rng(1).poisson(RATES, (9, 12)).astype(float)


def panel(y=COUNTS, history=None):
    sites = [f"s{i:02d}" for i in range(np.shape(y)[1])]
    x = np.zeros((*np.shape(y), 1))
    return Panel(x, y, sites, range(2000, 2000 + len(y)), ["none"], history_y=history)


def test_test_blocks_begin_after_two_blocks():
    assert origins(panel()) == [(t, t + 1) for t in range(2, 9)]
    assert origins(panel(), block=3) == [(6, 9)]
    assert origins(panel(), block=4) == [(8, 9)]
    assert origins(panel(), block=np.int64(2)) == [(4, 6), (6, 8), (8, 9)]
    assert origins(panel(), first=7) == [(7, 8), (8, 9)]
    # Earlier counts without features are a past as well, but one period is always learnt from.
    assert origins(panel(history=COUNTS[:1]))[0] == (1, 2)
    assert origins(panel(history=COUNTS), block=2)[0] == (1, 3)
    assert origins(panel(), block=5) == []


def test_blocks_must_be_whole_numbers():
    for wrong in (0, -1, True, 1.5):
        with pytest.raises(ValueError, match="block must be a whole number >= 1"):
            origins(panel(), block=wrong)
    with pytest.raises(ValueError, match="first must be >= 1, got 0"):
        origins(panel(), first=0)


def test_figures_of_a_forecast_by_hand():
    test = panel(np.array([[0.0, 4, 6, 0], [1, 1, 0, 0]]))
    made = {
        "scores": torch.tensor([[3.0, 2, 1, 0], [1, 0, 0, 0]]),
        "mean": torch.tensor([[1.0, 4, 4, 1], [0, 0, 0, 0]]),
        "median": torch.tensor([[0.0, 4, 4, 0], [1, 1, 0, 0]]),
        "nll": torch.tensor([0.5, 0.25]),
    }
    found = judge(made, test, 2)
    assert found["bpr"] == pytest.approx([0.4, (1 + 1 / 3) / 2])
    assert found["capture"] == pytest.approx([0.4, (1 + 1 / 3) / 2])
    assert found["pai"] == pytest.approx([0.8, (1 + 1 / 3) / 2 / 0.5])
    assert found["mae"] == pytest.approx([4 / 4, 2 / 4])
    assert found["mse"] == pytest.approx([6 / 4, 2 / 4])
    assert found["mae_median"] == pytest.approx([2 / 4, 0])
    assert found["nll"] == [0.5, 0.25]
    # A forecast that is a tensor ranks too.
    alone = judge(made["mean"], test, 2)
    assert set(alone) == {"bpr", "capture", "pai", "mae", "mse"}
    assert alone["bpr"][0] == 1
    with pytest.raises(ValueError, match=r"judge: forecast must have 'scores' or 'mean'"):
        judge({"median": made["median"]}, test, 2)


class Remembers:
    """A method that counts its fits, and forecasts the mean of what it was fitted to."""

    def __init__(self):
        self.fits = []

    def __call__(self, train):
        self.fits.append(train.num_times)
        mean = train.y.mean(0)
        return lambda test: mean.expand_as(test.y)


def test_each_block_is_fitted_to_all_earlier_periods():
    method = Remembers()
    backtest(panel(), 3, {"m": method}, block=2)
    assert method.fits == [4, 6, 8]
    method = Remembers()
    table = backtest(panel(), 3, {"m": method}, block=2, refit=False)
    assert method.fits == [4]
    rows = table[table["method"] == "m"]
    assert list(rows["time"]) == [2004, 2005, 2006, 2007, 2008]
    expected = metrics.bpr(np.tile(COUNTS[:4].mean(0), (5, 1)), COUNTS[4:], 3, reduce="none")
    assert rows["bpr"].to_numpy() == pytest.approx(expected, rel=1e-6)


def test_a_method_sees_no_later_counts():
    other = COUNTS.copy()
    other[6:] = 50 - other[6:]
    seen = []

    def method(train):
        seen.append(train.y.clone())
        return lambda test: torch.zeros_like(test.y)

    backtest(panel(other), 3, {"m": method}, first=6)
    assert torch.equal(seen[0], torch.as_tensor(COUNTS[:6], dtype=seen[0].dtype))


def test_baselines_come_with_every_backtest():
    table = backtest(panel(), 3)
    assert list(table["method"].unique()) == ["last period", "mean of all", "chance"]
    last = table[table["method"] == "last period"].set_index("time")
    expected = metrics.bpr(COUNTS[1:8], COUNTS[2:9], 3, reduce="none")
    assert last["bpr"].to_numpy() == pytest.approx(expected)
    assert last["mae"].to_numpy() == pytest.approx(np.abs(COUNTS[1:8] - COUNTS[2:9]).mean(1))
    assert (table["seconds"] >= 0).all()


class Fixed:
    """A ranker that is not fitted: `fit`, `site_scores`, and no forecast of counts."""

    class model_:  # noqa: N801
        is_probabilistic = False

    def __init__(self):
        self.fitted = False

    def fit(self, train):
        assert not self.fitted, "a copy must be fitted for each block"
        self.fitted = True
        self.rates = train.y.mean(0)
        return self

    def site_scores(self, test):
        return np.tile(self.rates.numpy(), (test.num_times, 1))


def test_a_ranker_is_copied_for_each_block():
    ranker = Fixed()
    table = backtest(panel(), 3, {"fixed": ranker})
    assert not ranker.fitted
    by_method = table.set_index(["method", "time"])["bpr"]
    assert by_method["fixed"].to_numpy() == pytest.approx(by_method["mean of all"].to_numpy())
    assert table[table["method"] == "fixed"]["mae"].isna().all()


def test_a_program_takes_the_place_of_k():
    class FirstHalf(Program):
        """The two best among the first half of the sites."""

        def name(self):
            return "FirstHalf"

        def config(self):
            return []

        def check(self, function, sites):
            assert sites == 12

        def size(self):
            return 2

        def best(self, values):
            values = values.clone()
            values[..., 6:] = -math.inf
            chosen = values.topk(2).indices
            return torch.zeros_like(values).scatter(-1, chosen, 1.0)

    table = backtest(panel(), FirstHalf(), first=8)
    last = table.set_index("method").loc["last period"]
    chosen = np.argsort(-COUNTS[7][:6], kind="stable")[:2]
    best = np.sort(COUNTS[8][:6])[-2:].sum()
    assert last["bpr"] == pytest.approx(COUNTS[8][chosen].sum() / best)
    assert last["capture"] == pytest.approx(COUNTS[8][chosen].sum() / COUNTS[8].sum())
    pd.testing.assert_series_equal(backtest(panel(), TopK(3))["bpr"], backtest(panel(), 3)["bpr"])


def test_what_cannot_be_tested_is_refused():
    with pytest.raises(ValueError, match=r"backtest: k must be at most .* S = 12, got 13"):
        backtest(panel(), 13)
    with pytest.raises(TypeError, match="backtest: k must be a whole number"):
        backtest(panel(), True)
    with pytest.raises(ValueError, match="backtest: panel must have a period to test"):
        backtest(panel(), 3, block=5)
    with pytest.raises(TypeError, match="a method must be a function of the training panel"):
        backtest(panel(), 3, {"m": 5})


def made_table(**bpr):
    rows = [
        {"method": method, "time": t, "bpr": value}
        for method, values in bpr.items()
        for t, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_a_method_named_beforehand_is_compared_alone_and_the_others_together():
    rng = np.random.default_rng(0)
    gains = {name: 0.02 + rng.normal(0, 0.04, 20) for name in "abcdef"}
    base = rng.uniform(0.4, 0.6, 20)
    table = made_table(base=base, **{name: base + gain for name, gain in gains.items()})
    table = table.sample(frac=1, random_state=0)
    named, other = compare(table, "a", "base"), compare(table, "b", "base")
    assert named.loc["a", "difference"] == pytest.approx(gains["a"].mean())
    width = named.loc["a", "high"] - named.loc["a", "low"]
    assert width < 0.9 * (other.loc["a", "high"] - other.loc["a", "low"])
    assert list(named["bpr"]) == sorted(named["bpr"], reverse=True)
    assert named.loc["base", ["difference", "low", "high"]].tolist() == [0, 0, 0]
    assert named.equals(compare(table, "a", "base", seed=0))
    assert not named.equals(compare(table, "a", "base", seed=1))
    itself = compare(table, "base", "base")
    assert itself.loc["base", "difference"] == 0


def test_comparisons_name_what_is_not_there():
    table = made_table(a=[0.1, 0.2], b=[0.2, 0.3])
    with pytest.raises(ValueError, match="method must be one of a, b, got 'c'"):
        compare(table, "c", "a")
    with pytest.raises(ValueError, match="method must be one of a, b, got 'c'"):
        compare(table, "a", "c")
    with pytest.raises(ValueError, match="figure must be a column of table, got 'mae'"):
        compare(table, "a", "b", figure="mae")
    short = compare(table, "a", "b")
    assert short.loc["a", "difference"] == pytest.approx(-0.1) and math.isnan(short.loc["a", "low"])
