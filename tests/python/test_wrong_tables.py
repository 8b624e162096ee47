"""Tables that a fitted ranker must not take as they are: other periods, shapes, exposures, and
sites that have closed."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import topreach as tr
from topreach import _C
from topreach.cli import main

S = 8


def frame(times, *, exposure=None, seed=0):
    rng = np.random.default_rng(seed)
    rows = [(f"s{s}", t, rng.poisson(3 + 2 * s)) for t in times for s in range(S)]
    made = pd.DataFrame(rows, columns=["site", "time", "n"])
    return made if exposure is None else made.assign(pop=exposure)


def panel(table, **options):
    return tr.Panel.from_frame(table, site="site", time="time", count="n", **options)


def cli(tmp_path, capsys, *words):
    """Exit code, standard output and standard error of a command."""
    code = main([w.replace("@", str(tmp_path) + "/") for w in words])
    got = capsys.readouterr()
    return code, got.out, got.err


FIT = ["fit", "--data", "@t.csv", "--site", "site", "--time", "time", "--count", "n"]
FIT += ["--k", "2", "--out", "@m.pt", "--quiet", "--force"]
YEARS = [f"{y}-01-01" for y in range(2010, 2020)]
MONTHS = [str(t) for t in pd.period_range("2019-01", periods=18, freq="M")]
QUARTERS = [f"{y}Q{q}" for y in range(2015, 2019) for q in range(1, 5)]
MONDAYS = [str(t.date()) for t in pd.date_range("2020-01-06", periods=12, freq="7D")]

# The times of training, those of a table, and what is said of these (None: they are taken).
OTHER_PERIODS = [
    (YEARS, ["2020-01-01"], None),
    (YEARS, ["2020-12-31"], "got 2020-12-31, within that of 2020-01-01"),
    (YEARS, ["2020-01"], r"must be periods as in training \(years.*got months"),
    (YEARS, ["2019-12-31", "2020-12-31"], "must begin a period of training"),
    (MONTHS, ["2020-07"], None),
    (MONTHS, ["2020-07-01"], None),
    (MONTHS, ["Jul 2020"], None),
    (MONTHS, ["2020-07-15"], "got 2020-07-15, within that of 2020-07"),
    (MONTHS, ["2020Q3"], "got quarters"),
    (MONTHS, ["2020-W28"], "got weeks"),
    (QUARTERS, ["2019Q1"], None),
    (QUARTERS, ["Q1 2019"], None),
    (QUARTERS, ["2019-01-01"], None),
    (QUARTERS, ["2019-02"], "got months"),
    (QUARTERS, ["2019-01", "2019-04"], "got months"),
    (MONDAYS, ["2020-03-30"], None),
    (MONDAYS, ["2020-W14"], None),
    (MONDAYS, ["2020-04-05"], "got 2020-04-05, within that of 2020-03-30"),
]


@pytest.mark.parametrize(("trained", "times", "message"), OTHER_PERIODS, ids=str)
def test_counts_of_other_periods_are_refused_however_few(tmp_path, capsys, trained, times, message):
    frame(trained).to_csv(tmp_path / "t.csv", index=False)
    frame(times, seed=1).to_csv(tmp_path / "new.csv", index=False)
    assert cli(tmp_path, capsys, *FIT)[0] == 0
    code, out, err = cli(
        tmp_path, capsys, "rank", "--model", "@m.pt", "--data", "@new.csv", "--out", "-"
    )
    ranker, table = tr.TopKRanker.load(tmp_path / "m.pt"), panel(frame(times, seed=1))
    if message is None:
        assert (code, len(out.splitlines())) == (0, 3)
        assert len(ranker.rank(table, periods_ahead=1)) == S
        return
    with pytest.raises(ValueError, match=f"TopKRanker.rank: times .*{message}"):
        ranker.rank(table, periods_ahead=1)
    assert code == 2
    assert err.startswith("topreach rank: error: times must")


# ---- exposure ------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"model": "negbin", "objective": "marginal"}], ids=str)
def test_the_newest_exposure_is_carried_forward_also_from_a_table(settings):
    known = frame(range(2010, 2020), exposure=100.0)
    ranker = tr.TopKRanker(2, **settings).fit(panel(known, exposure="pop"))
    newer = frame([2020], exposure=300.0, seed=1)
    coming = newer.assign(time=2021, n=np.nan)
    told = panel(pd.concat([newer, coming]), exposure="pop", counts="optional")
    expected = ranker.rank(told.select_times([2021]))
    with pytest.warns(UserWarning, match="exposure of '2021' is taken as that of 2020, the last"):
        carried = ranker.rank(panel(newer, exposure="pop"), periods_ahead=1)
    np.testing.assert_allclose(
        carried.set_index("site").expected_count,
        expected.set_index("site").expected_count[carried.site],
        rtol=1e-6,
    )


def test_an_exposure_that_contradicts_training_is_said_and_the_tables_is_used():
    known = frame(range(2010, 2020), exposure=100.0)
    ranker = tr.TopKRanker(2).fit(panel(known, exposure="pop"))
    late = known[known.time >= 2018]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "The exposure of '2020' is taken")
        same = ranker.rank(panel(late, exposure="pop"), periods_ahead=1)
    with pytest.warns(UserWarning) as said:
        other = ranker.rank(panel(late.assign(pop=500.0), exposure="pop"), periods_ahead=1)
    text = "The exposure of '2018', '2019' is another in the table than in training"
    assert any(str(w.message).startswith(text) for w in said)
    assert any("'2020' is taken as that of 2019" in str(w.message) for w in said)
    # All exposures of the recent past are five times as large, and so is the one to come: what is
    # expected stays between the rates before and after.
    total = same.expected_count.sum()
    assert total < other.expected_count.sum() < 5 * total


# ---- shapes and cells: the panel as C++ takes it -------------------------------------------------


def given(ranker, **changes):
    """A table of the period after training, as C++ takes it, with changes."""
    file = ranker.ranker_.file(True)
    parts = {
        "site_ids": list(ranker.site_ids_),
        "calendar": file.calendar,
        "times": [2020.0],
        "y": torch.full((1, S), 2.0),
    }
    return _C.Panel(**(parts | changes))


WRONG = [
    ({"y": torch.ones(S)}, r"y must have shape \[T, S\] = \[1, 8\].*got \[8\]"),
    ({"y": torch.ones(2, S)}, r"y must have shape .*got \[2, 8\]"),
    ({"y": torch.ones(1, S - 1)}, r"y must have shape .*got \[1, 7\]"),
    (
        {"y": torch.full((1, S), 1.5)},
        "counts must hold whole numbers.*got 1.5 for site 's0' in 2020",
    ),
    ({"y": torch.full((1, S), -1.0)}, "counts must hold whole numbers.*got -1 for site 's0'"),
    ({"y": torch.full((1, S), float("inf"))}, "counts must hold whole numbers.*got inf"),
    ({"y": torch.full((1, S), 2.0**25)}, "counts must hold whole numbers.*got 33554432"),
    ({"y_upper": torch.ones(1, S)}, "y_upper must be at least y.*got 1 for site 's0' in 2020"),
    ({"y_upper": torch.ones(S)}, "y_upper must have shape"),
    ({"y_upper": torch.full((1, S), 5.0)}, "counts must be exact for EmpiricalBayesRates"),
    ({"y": None, "y_upper": torch.ones(1, S)}, "y must be given with y_upper"),
    ({"exposure": torch.ones(S)}, "exposure must have shape"),
    ({"history_times": [2019.0]}, "history must be given, the counts of the 1 history_times"),
    ({"history": torch.ones(1, S)}, r"history must have shape \[H, S\] = \[0, 8\]"),
    ({"history_times": [2019.0], "history": -torch.ones(1, S)}, "history must hold whole numbers"),
    ({"opened": [2010.0]}, "opened must be empty or have a time for each of the 8 sites, got 1"),
    ({"closed": [2010.0] * (S + 1)}, "closed must be empty .* got 9"),
    ({"times": [float("nan")], "y": None}, "times must be finite, got nan"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=lambda v: str(v)[:40])
def test_a_table_of_another_shape_is_refused_by_name(changes, message):
    ranker = tr.TopKRanker(2).fit(panel(frame(range(2010, 2020))))
    table = given(ranker, **changes)
    with pytest.raises(ValueError, match=f"^f: {message}"):
        ranker.ranker_.inputs("f", table, 1)


def test_whole_numbers_of_any_type_are_counts():
    ranker = tr.TopKRanker(2).fit(panel(frame(range(2010, 2020))))
    plans = [
        ranker.ranker_.plans(ranker.ranker_.inputs("f", given(ranker, y=y), 1))[0]
        for y in (torch.full((1, S), 2.0), torch.full((1, S), 2), torch.full((1, S), 2.0).double())
    ]
    assert len({tuple(p.selected_ids()) for p in plans}) == 1


# ---- sites that have closed ----------------------------------------------------------------------


@pytest.mark.parametrize("model", ["empirical_bayes", "negbin", "linear"])
def test_a_model_of_sites_that_close_is_fitted_and_judged_at_the_command_line(
    tmp_path, capsys, model
):
    table = frame(range(2010, 2020))
    shut = (table.site == "s7") & (table.time > 2016)
    table = table.assign(
        n=np.where(shut, 0, table.n), closed=np.where(table.site == "s7", 2016, np.nan)
    )
    table.to_csv(tmp_path / "t.csv", index=False)
    few = [] if model == "empirical_bayes" else ["--epochs", "2"]
    code, out, err = cli(tmp_path, capsys, *FIT, "--closed", "closed", "--model", model, *few)
    assert code == 0, err
    assert "2 sites reach" in out
    code, out, err = cli(
        tmp_path, capsys, "evaluate", "--model", "@m.pt", "--data", "@t.csv", "--out", "@e.csv"
    )
    assert code == 0, err
    got = pd.read_csv(tmp_path / "e.csv").set_index("method")
    # By hand: the closed site takes no part, neither in a choice nor in an error.
    past, now = table[(table.time < 2019) & ~shut], table[(table.time == 2019)]
    mean = past.groupby("site").n.mean()[:"s6"]
    truth = now.set_index("site").n[:"s6"]
    best = truth.nlargest(2).sum()
    assert got.bpr["mean of all periods"] == pytest.approx(
        truth[mean.nlargest(2).index].sum() / best
    )
    assert got.mae["mean of all periods"] == pytest.approx((mean - truth).abs().mean())
    ranker = tr.TopKRanker.load(tmp_path / "m.pt")
    read = panel(table, closed="closed", features=[])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert got.bpr["model"] == pytest.approx(ranker.score(read.select_times([2019])))


def test_a_forecast_per_exposure_outside_of_the_past_is_said():
    known = frame(range(2010, 2020), exposure=100.0)
    ranker = tr.TopKRanker(2, model="negbin", objective="marginal").fit(
        panel(known, exposure="pop")
    )
    coming = known[known.time == 2019].assign(time=2020, n=np.nan)

    def notes(fitted, pop):
        table = panel(coming.assign(pop=pop), exposure="pop", counts="optional")
        return [n for p in fitted.plan(table) for n in p.notes if "the model expects" in n]

    # More people, more events: the rate is that of the past.
    assert notes(ranker, 100.0) == notes(ranker, 1000.0) == []
    file = ranker.ranker_.file(True)
    state = dict(file.state)
    name = next(n for n in state if n.endswith("intercept") or n.endswith("bias"))
    state[name] = state[name] + 3.0
    file.state = state
    broken = tr.TopKRanker(2)
    broken.__dict__.update(ranker.__dict__ | {"ranker_": _C.Ranker(file)})
    [note] = notes(broken, 1000.0)
    totals = known.groupby("time").n.sum() * 10
    said = f"the periods known would have had at its exposure {totals.min()} to {totals.max()}"
    assert said in note


def test_a_feature_that_never_changed_is_carried_forward_from_the_newest_table():
    """A new survey of the sites: what it says holds for the period after it too."""
    known = frame(range(2010, 2020))
    known["size"] = known.site.str[1:].astype(float)
    ranker = tr.TopKRanker(2, model="negbin", objective="marginal").fit(panel(known))
    newer = frame([2020], seed=1).assign(size=lambda d: 7 - d.site.str[1:].astype(float))
    coming = newer.assign(time=2021, n=np.nan)
    told = panel(pd.concat([newer, coming]), counts="optional").select_times([2021])
    carried = ranker.plan(panel(newer), periods_ahead=1)[0]
    expected = ranker.plan(told)[0]
    assert [(p.site, p.score) for p in carried.sites] == [(p.site, p.score) for p in expected.sites]
    # Without a newer one it is that of training.
    plain = ranker.plan(panel(known), periods_ahead=1)[0]
    assert [(p.site, p.score) for p in plain.sites] == [
        (p.site, p.score) for p in ranker.plan()[0].sites
    ]
