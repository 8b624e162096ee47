"""A point process as a forecaster among the others: fit, rank, file, command line."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import topreach as tr
from topreach.cli import main

TOWNS = [f"0{i}" for i in range(6)]


def table(seed=0, days=1096):
    """Clusters: each event has a follower within days with chance .3; two types."""
    draw = np.random.default_rng(seed)
    rows = []
    for i, town in enumerate(TOWNS):
        for t in draw.uniform(0, days, draw.poisson(days * 0.02 * (i + 1))):
            kind = draw.integers(3)
            rows.append((town, t, kind))
            while draw.random() < 0.3:
                t += draw.exponential(10)
                rows.append((town, t, kind))
    frame = pd.DataFrame(rows, columns=["town", "t", "kind"])
    frame = frame[frame["t"] < days].sort_values("t")
    frame["date"] = (pd.Timestamp("2020-01-01") + pd.to_timedelta(frame["t"], unit="D")).dt.date
    frame["a"] = (frame["kind"] != 1).astype(int)
    frame["b"] = (frame["kind"] != 0).astype(int)
    return frame.assign(date=frame["date"].astype(str)).drop(columns=["t", "kind"])


COLUMNS = {"time": "date", "place": "town", "types": ["a", "b"]}


@pytest.fixture(scope="module")
def events():
    return tr.Events.from_frame(table(), **COLUMNS, window=("2020-01-01", "2022-12-31"))


@pytest.fixture(scope="module")
def ranker(events):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tr.TopKRanker(2, model="stemmed", progress=False).fit(events)


def test_ranks_the_next_month_by_its_moments(events, ranker):
    plan = ranker.rank()
    assert plan["time"].unique().tolist() == ["2023-01"]
    forecast = ranker.model_.forecast(2)
    expected = dict(zip(TOWNS, forecast.mean[0].tolist(), strict=True))
    for site, count in zip(plan["site"], plan["expected_count"], strict=True):
        assert count == pytest.approx(expected[site], rel=1e-9)
    own = forecast.rank(2)
    assert plan["site"].tolist() == own["site"].tolist()
    np.testing.assert_allclose(plan["score"], own["score"], rtol=1e-6)
    later = ranker.rank(periods_ahead=2).set_index("site")["expected_count"]
    np.testing.assert_allclose(later[TOWNS], forecast.mean[1], rtol=1e-9)
    # The busiest town is chosen, and the forecast is of the size of what happened.
    assert plan["site"][0] == "05"
    monthly = events.counts("month").y[-12:].mean(0)
    assert forecast.mean[0].sum() == pytest.approx(float(monthly.sum()), rel=0.25)


def test_a_month_that_is_not_whole_is_left_out():
    cut = tr.Events.from_frame(table(days=1081), **COLUMNS, window=("2020-01-01", "2022-12-17"))
    whole = tr.Events.from_frame(table(days=1081), **COLUMNS, window=("2020-01-01", "2022-12-17"))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = tr.TopKRanker(2, model="stemmed", progress=False).fit(cut)
    assert any("up to the end of 2022-11" in str(w.message) for w in said)
    assert found.rank()["time"].unique().tolist() == ["2022-12"]
    november = pd.Timestamp("2022-12-01").toordinal() - pd.Timestamp("1970-01-01").toordinal()
    trimmed = whole.complete_to(float(november))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = tr.TopKRanker(2, model="stemmed", progress=False).fit(trimmed)
    pd.testing.assert_frame_equal(again.rank(), found.rank())


def test_saved_and_loaded_is_the_same(ranker, tmp_path):
    ranker.save(tmp_path / "m.pt")
    loaded = tr.TopKRanker.load(tmp_path / "m.pt")
    pd.testing.assert_frame_equal(loaded.rank(), ranker.rank())
    ours, theirs = ranker.model_.forecast(3, by="node"), loaded.model_.forecast(3, by="node")
    assert theirs.sites == ours.sites and theirs.labels == ours.labels
    torch.testing.assert_close(theirs.mean, ours.mean)
    torch.testing.assert_close(theirs.variance, ours.variance)
    by_place = loaded.model_.forecast(3).mean
    torch.testing.assert_close(by_place, ranker.model_.forecast(3).mean)
    with pytest.raises(ValueError, match="mode must be 'moments' or 'mean'"):
        loaded.model_.forecast(3, mode="branching")
    with pytest.raises(RuntimeError, match="a model file does not"):
        loaded.model_.residuals()


def test_counts_cannot_teach_it(events, ranker):
    """A table that adds counts is refused: the process needs the events."""
    longer = table(days=1155)
    more = tr.Events.from_frame(longer, **COLUMNS, window=("2020-01-01", "2023-02-28"))
    panel = more.counts("month").align(feature_names=[])
    with pytest.raises(ValueError, match=r"contradict|must add no counts|must be those"):
        ranker.rank(panel, periods_ahead=1)
    known = events.counts("month").align(feature_names=[])
    pd.testing.assert_frame_equal(ranker.rank(known, periods_ahead=1), ranker.rank())


def test_kinds_of_data_are_told_apart(events):
    panel = events.counts("month")
    with pytest.raises(TypeError, match="must be Events for the model 'stemmed'"):
        tr.TopKRanker(2, model="stemmed").fit(panel)
    with pytest.raises(TypeError, match="must be a Panel for the model 'linear'"):
        tr.TopKRanker(2, model="linear").fit(events)
    with pytest.raises(ValueError, match="valid and resume must not be given with events"):
        tr.TopKRanker(2, model="stemmed").fit(events, panel)
    with pytest.raises(ValueError, match="theta must be one of"):
        tr.TopKRanker(2, model="stemmed", theta="both").fit(events)


@pytest.fixture
def csv(tmp_path):
    table().to_csv(tmp_path / "deaths.csv", index=False)
    return tmp_path / "deaths.csv"


READ = ["--time", "date", "--place", "town", "--types", "a,b", "--start", "2020-01-01"]
READ += ["--end", "2022-12-31"]


def test_command_line(csv, tmp_path, capsys):
    model, plan, out = (str(tmp_path / n) for n in ("m.pt", "plan.csv", "forecast.csv"))
    fit = ["fit", "--events", str(csv), *READ, "--model", "stemmed", "--k", "2", "--out", model]
    assert main([*fit, "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "6 sites, 36 periods (2020-01 to 2022-12)" in printed
    assert "Fitted without 2022-12: its 2 sites reach" in printed
    assert main(["rank", "--model", model, "--out", plan]) == 0
    chosen = pd.read_csv(plan, dtype={"site": str})
    assert chosen["site"][0] == "05"
    assert chosen["time"].tolist() == ["2023-01"] * 2
    assert main(["forecast", "--model", model, "--horizons", "1,3", "--out", out]) == 0
    saved = pd.read_csv(out)
    assert len(saved) == 2 * 12 and list(saved["horizon"].unique()) == [1, 3]
    assert (saved["lower"] <= saved["mean"].round() + 1).all()
    direct = ["forecast", "--events", str(csv), *READ, "--horizons", "1,3", "--out", "-"]
    capsys.readouterr()
    assert main(direct) == 0
    assert len(capsys.readouterr().out.splitlines()) == 25
    assert main(["info", model]) == 0
    assert "Stemmed" in capsys.readouterr().out


def test_other_models_run_on_the_same_events(csv, tmp_path, capsys):
    model = str(tmp_path / "m.pt")
    fit = ["fit", "--events", str(csv), *READ, "--k", "2", "--out", model, "--quiet"]
    assert main([*fit, "--every", "quarter"]) == 0
    assert "12 periods (2020Q1 to 2022Q4)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, message",
    [
        (["--data", "x.csv", "--place", "p"], "--place needs --events"),
        (["--events", "x.csv", "--data", "x.csv"], "--data must not come with --events"),
        (["--events", "x.csv"], "--time must name the column"),
        (["--model", "stemmed", "--data", "x.csv"], "--model stemmed needs --events FILE"),
        ([], "--data FILE or --events FILE must be given"),
    ],
)
def test_command_line_refuses(words, message, tmp_path, capsys):
    assert main(["fit", "--k", "2", "--out", str(tmp_path / "m.pt"), *words]) == 2
    assert message in capsys.readouterr().err


def test_places_and_other_at_the_command_line(csv, tmp_path, capsys):
    """What messages advise can be done there: coordinates, and a type for rows without one."""
    model = str(tmp_path / "m.pt")
    places = pd.DataFrame({"id": TOWNS, "lat": np.arange(6) * 0.1 + 41, "lon": -72.5})
    places.to_csv(tmp_path / "places.csv", index=False)
    words = ["fit", "--events", str(csv), *READ, "--model", "stemmed", "--k", "2", "--quiet"]
    words += ["--out", model, "--force"]
    assert main([*words, "--places", str(tmp_path / "places.csv")]) == 0
    near = tr.TopKRanker.load(model)
    assert main(words) == 0
    far = tr.TopKRanker.load(model)
    assert near.rank()["expected_count"].tolist() != far.rank()["expected_count"].tolist()
    frame = pd.read_csv(csv, dtype=str)
    frame.loc[3, ["a", "b"]] = "0"
    frame.to_csv(csv, index=False)
    capsys.readouterr()
    assert main(words) == 2
    assert "give them a type of their own: --other other" in capsys.readouterr().err
    assert main([*words, "--other", "other"]) == 0


@pytest.mark.parametrize(
    "words, message",
    [
        (["fit", "--k", "2", "--missing", "zero"], "--missing must not come with --events"),
        (["fit", "--k", "2", "--suppressed", "1-9"], "--suppressed must not come with --events"),
        (["fit", "--k", "2", "--counts", "optional"], "--counts must not come with --events"),
        (["forecast", "--duplicates", "sum"], "--duplicates must not come with --events"),
    ],
)
def test_options_of_the_other_table_are_refused(words, message, csv, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main([words[0], "--events", str(csv), *READ, "--out", out, *words[1:]]) == 2
    assert message in capsys.readouterr().err


def test_a_saved_model_takes_no_table_for_a_forecast(ranker, tmp_path, capsys):
    ranker.save(tmp_path / "m.pt")
    words = ["forecast", "--model", str(tmp_path / "m.pt"), "--out", str(tmp_path / "f.csv")]
    assert main([*words, "--place", "town"]) == 2
    assert "--place needs --events FILE" in capsys.readouterr().err


def test_its_file_needs_the_past(ranker, tmp_path):
    with pytest.raises(ValueError, match="with_past must be true for Stemmed"):
        ranker.save(tmp_path / "m.pt", with_past=False)
    assert not (tmp_path / "m.pt").exists()


def test_a_loaded_ranker_says_none_of_its_training(ranker, tmp_path):
    ranker.save(tmp_path / "m.pt")
    loaded = tr.TopKRanker.load(tmp_path / "m.pt")
    assert loaded.trainer_ is None and loaded.best_epoch_ is None and loaded.interrupted_ is False


def test_a_process_that_explodes_gives_no_plan(ranker):
    """The spectral radius of jump / decay is checked, also after loading."""
    file = ranker.ranker_.file()
    state = dict(file.state)
    state["jump"] = 2 * state["jump"] / ranker.model_.spectral_radius
    file.state = state
    with pytest.raises(ValueError, match="spectral radius must be below 1 for a plan"):
        tr._C.Ranker(file, "cpu")


def test_one_column_of_0_and_1_is_no_column_of_names(csv, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"must hold the names of types.*pass types=\['a'\]"):
        tr.Events.from_frame(table(), time="date", place="town", types="a")
    words = ["fit", "--events", str(csv), "--time", "date", "--place", "town", "--types", "a"]
    words += ["--k", "2", "--out", str(tmp_path / "m.pt"), "--quiet"]
    assert main(words) == 2
    assert "--other NAME" in capsys.readouterr().err
    assert main([*words, "--other", "rest"]) == 0


def test_what_a_file_of_a_process_says_of_itself(ranker, events, tmp_path, capsys):
    ranker.save(tmp_path / "m.pt")
    assert main(["info", str(tmp_path / "m.pt")]) == 0
    said = dict(
        line.split(": ", 1) for line in capsys.readouterr().out.splitlines() if ": " in line
    )
    said = {name.strip(): words.strip() for name, words in said.items()}
    model = ranker.model_
    lags = 1 / model.dynamics(model.working_, None, second=False)[0].decay
    counts = int(events.counts("month").y.sum())
    assert said["events"] == f"{counts} in {len(TOWNS)} places, known until 2022-12-31"
    assert said["types"] == "2: a, b"
    assert said["network"] == "each node excites all, theta 'jaccard'"
    assert said["half-life"] == "none: all of the past counts the same"
    assert f"{float(lags.min()):.3g} to {float(lags.max()):.3g} days" in said["decay"]
    radius = float(said["spectral radius"].split()[0])
    process = model.saved_dynamics
    assert radius == pytest.approx(
        max(abs(np.linalg.eigvals((process.jump / process.decay[:, None]).numpy()))), rel=5e-3
    )
    assert said["spectral radius"].endswith("relaxed to the last 12 months")


@pytest.mark.parametrize("k", [len(TOWNS) + 1, 10**6])
def test_more_sites_than_places_are_refused_before_the_fit(events, csv, tmp_path, capsys, k):
    def never(*_):
        raise AssertionError("fitted")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tr.models.Stemmed, "fit", never)
        with pytest.raises(ValueError, match=f"k must be .*S = {len(TOWNS)}, got {k}"):
            tr.TopKRanker(k, model="stemmed").fit(events)
        words = ["fit", "--events", str(csv), *READ, "--model", "stemmed", "--k", str(k)]
        assert main([*words, "--out", str(tmp_path / "m.pt")]) == 2
    assert "--k must be from 1 to the number of sites" in capsys.readouterr().err
