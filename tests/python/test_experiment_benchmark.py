"""The benchmark: its intervals, its references, no look ahead, and a user's own table."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from topreach.cli import main
from topreach.data.panel import Panel

benchmark = pytest.importorskip("topreach_experiments.benchmark")
report = pytest.importorskip("topreach_experiments.benchmark.report")


def result(method, periods, bpr, **others):
    return {"method": method, "periods": periods, "periods_in_all": 9, "bpr": bpr, **others}


@pytest.mark.parametrize("n", [3, 6, 11, 100])
def test_expanded_tail_gives_students_width(n):
    exact = -math.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1)
    assert stats.norm.ppf(report.expanded_tail(n)) == pytest.approx(exact, rel=0.04)


def test_interval_covers_what_it_should():
    """95 % of intervals from 8 normal differences cover the mean; 300 trials: se 1.3 %."""
    rng = np.random.default_rng(0)
    periods = [str(i) for i in range(8)]
    covered = 0
    for trial in range(300):
        ours = {p: {"bpr": v} for p, v in zip(periods, rng.normal(0.1, 1, 8), strict=True)}
        theirs = {p: {"bpr": 0.0} for p in periods}
        _, low, high = report._difference(ours, theirs, periods, trial)
        covered += low <= 0.1 <= high
    assert covered / 300 > 0.95 - 4 * 0.013


def test_references():
    """ "last" is best in the first block and the whole past in all others; one picks it one late."""
    results = []
    for i, (last, everything) in enumerate([(0.5, 0.4), (0.1, 0.6), (0.1, 0.6)]):
        results += [
            result("last", [str(i)], [last], mae=[1.0], mse=[4.0]),
            result("mean of all", [str(i)], [everything], mae=[2.0], mse=[1.0]),
        ]
    table = report.comparison(results, 0)
    # The whole past before anything is known, then "last" (.5 > .4), then the whole past again.
    assert table.loc[report.CHOSEN, "BPR"] == pytest.approx((0.4 + 0.1 + 0.6) / 3)
    assert table.attrs["hindsight"] == "mean of all" and table.attrs["tested"] == 3
    assert table.loc["mean of all", "− hindsight"] == 0
    assert table.loc["last", "RMSE"] == 2.0 and table.loc["last", "MAE"] == 1.0


def test_periods_without_events_are_left_out():
    results = [
        result("last", ["a", "b"], [0.5, None], mae=[1.0, 1.0]),
        result("mean of all", ["a", "b"], [0.25, None]),
    ]
    table = report.comparison(results, 0)
    assert table.loc["last", "BPR"] == 0.5 and math.isnan(table.loc["last", "low, chosen"])


def test_no_method_sees_its_test_block(tmp_path):
    """Changing the counts of a test block changes no forecast of its first period."""
    rng = np.random.default_rng(0)
    y = rng.poisson(rng.gamma(1, 2, 40), (8, 40)).astype(float)
    place = np.broadcast_to(rng.uniform(0, 1, (40, 2)), (8, 40, 2)).copy()
    other = y.copy()
    other[6:] = rng.poisson(3.0, (2, 40))
    ids = [str(i) for i in range(40)]

    def forecasts(counts):
        panel = Panel(place, counts, ids, range(8), ["lat", "lon"])
        case = benchmark.Case(panel, 5)
        context = benchmark.Context("benchmark", tmp_path, quick=True, progress=False)
        train, _, _ = panel.split(test=6)
        test = panel.select_times([6])
        made = {n: f(train, test, 5) for n, f in benchmark._methods(case, context).items()}
        return {n: m.get("scores", m.get("mean")) for n, m in made.items()}

    before, after = forecasts(y), forecasts(other)
    assert benchmark.DEFAULT in before and len(before) > 6
    for name in before:
        torch.testing.assert_close(before[name], after[name], rtol=0, atol=0, msg=name)


def test_your_own_csv(tmp_path, capsys):
    rng = np.random.default_rng(1)
    rate = rng.gamma(1, 3, 30)
    rows = [
        (f"{s:03d}", f"{2018 + t // 12}-{t % 12 + 1:02d}", c)
        for t in range(36)
        for s, c in enumerate(rng.poisson(rate))
    ]
    pd.DataFrame(rows, columns=["cell", "month", "n"]).to_csv(tmp_path / "t.csv", index=False)
    columns = ["--site", "cell", "--time", "month", "--count", "n", "--k", "5"]
    arguments = ["--csv", str(tmp_path / "t.csv"), *columns, "--quick", "--quiet"]
    assert main(["experiment", "benchmark", *arguments, "--out", str(tmp_path / "out")]) == 0
    assert "Best: " in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out" / "your_data.csv", index_col="method")
    assert {benchmark.DEFAULT, "last", "mean of all", report.CHOSEN} <= set(table.index)
    assert table["BPR"].between(0, 1).all()
    # Two years come before the third, the only one to test on.
    assert (tmp_path / "out" / "difference_to_average.png").exists()
    assert main(["experiment", "benchmark", "--csv", "t.csv", "--out", str(tmp_path / "o")]) != 0
    assert "--csv must come with --site, --time, --count, --k" in capsys.readouterr().err
