"""The benchmark: its references, its conclusion, no look ahead, and a user's own table."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from topreach import Panel
from topreach.cli import main

benchmark = pytest.importorskip("topreach_experiments.benchmark")
report = pytest.importorskip("topreach_experiments.benchmark.report")


def result(method, periods, bpr, **others):
    return {"method": method, "periods": periods, "periods_in_all": 9, "bpr": bpr, **others}


def test_references():
    """ "last" is best in the first block and the whole past in all others; one picks it one
    late."""
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


def test_the_verdict_is_on_the_method_named_before_and_allows_for_the_choice_of_the_best():
    """Eleven methods without any difference over 12 periods, one of which did best by chance: its
    interval for one comparison lies above 0, and the verdict does not say that it is better."""
    rng = np.random.default_rng(5)
    periods = [str(i) for i in range(12)]
    base = rng.uniform(0.4, 0.6, 12)
    results = [result("mean of all", periods, list(base))]
    results.append(result("named", periods, list(base + 0.05 + rng.normal(0, 0.01, 12))))
    lucky = rng.normal(0, 0.03, (9, 12))
    # 2.5 standard errors: more than the 2.2 of Student's interval, less than one of ten allows for.
    lucky[0] = (lucky[0] - lucky[0].mean()) / lucky[0].std(ddof=1)
    lucky[0] = 0.03 * (lucky[0] + 2.5 / 12**0.5)
    results += [result(f"m{i}", periods, list(base + gain)) for i, gain in enumerate(lucky)]
    table = report.comparison(results, 0)
    assert table.loc["m0", "low, chosen"] > 0
    text = report.verdict(table, "named")
    named, others = text.split("Best of the ")
    assert named.startswith("named: BPR 0.5") and "more than chance explains" in named
    assert others.startswith("10 others: m0") and "no more than chance explains" in others


def test_the_verdict_on_too_few_periods_has_no_interval():
    results = [
        result("last", ["a", "b"], [0.5, 0.6]),
        result("mean of all", ["a", "b"], [0.4, 0.4]),
    ]
    text = report.verdict(report.comparison(results, 0), "last")
    assert "nan" not in text and "chance" not in text.replace("chances", "")
    assert "too few periods for an interval" in text


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
    printed = capsys.readouterr().out
    assert f"{benchmark.DEFAULT}: BPR" in printed and "Best of the" in printed
    table = pd.read_csv(tmp_path / "out" / "your_data.csv", index_col="method")
    assert {benchmark.DEFAULT, "last", "mean of all", report.CHOSEN} <= set(table.index)
    assert table["BPR"].between(0, 1).all()
    # Two years come before the third, the only one to test on.
    assert (tmp_path / "out" / "difference_to_average.png").exists()
    assert main(["experiment", "benchmark", "--csv", "t.csv", "--out", str(tmp_path / "o")]) != 0
    assert "--csv must come with --site, --time, --count, --k" in capsys.readouterr().err
