"""The command, in this process and in a new one: results, errors in one line, files written whole
or left unchanged."""

import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from topreach.cli import main
from topreach.cli.options import spec_of
from topreach.ranking.topk_ranker import TopKRanker

COLUMNS = ["--site", "geoid", "--time", "year", "--count", "deaths"]
FIT = ["fit", "--data", "counts.csv", *COLUMNS, "--k", "5", "--out", "o.pt"]
RANK = ["rank", "--model", "model.pt", "--data", "next.csv", "--out", "o.csv"]
EVALUATE = ["evaluate", "--data", "counts.csv", *COLUMNS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """counts.csv: 25 sites, 2015-2020, ids with leading zeros; next.csv: 2021, without counts;
    model.pt."""
    folder = tmp_path_factory.mktemp("cli")
    random = np.random.default_rng(0)
    rate = random.gamma(1.0, 1.5, 25)
    rows, previous = [], random.poisson(rate)
    for year in range(2015, 2022):
        now = random.poisson(rate)
        for s in range(25):
            rows.append(
                [f"00{s:03d}", year, now[s], previous[s], round(random.normal(), 3), "a note"]
            )
        previous = now
    table = pd.DataFrame(rows, columns=["geoid", "year", "deaths", "lag1", "income", "text"])
    table[table["year"] < 2021].to_csv(folder / "counts.csv", index=False)
    table[table["year"] == 2021].drop(columns="deaths").to_csv(folder / "next.csv", index=False)
    table[table["year"] == 2021].to_csv(folder / "truth.csv", index=False)
    assert fit(folder, "model.pt") == 0
    return folder


def fit(folder, out, *more):
    data = ["--data", str(folder / "counts.csv"), *COLUMNS, "--k", "5", "--out", str(folder / out)]
    return main(["fit", *data, "--epochs", "10", "--quiet", *more])


def error_of(capsys):
    """The one line on standard error."""
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note:")]
    assert len(lines) == 1 and "Traceback" not in lines[0]
    return lines[0]


def test_exposure_and_suppressed_counts(tmp_path, capsys):
    """A table in published form: fitted, ranked by the expected counts for its population, and
    judged at both bounds of the suppressed counts."""
    random = np.random.default_rng(1)
    people = np.exp(random.normal(9, 1, 30)).round()
    rows = [
        [f"c{s:02d}", year, int(people[s]), random.poisson(5e-4 * people[s])]
        for year in range(2016, 2022)
        for s in range(30)
    ]
    table = pd.DataFrame(rows, columns=["county", "year", "people", "deaths"])
    hidden = table["deaths"].between(1, 9)
    table["deaths"] = table["deaths"].astype(object).mask(hidden, "1-9")
    table.loc[hidden & (table["year"] == 2016), "deaths"] = "*"
    table[table["year"] < 2021].to_csv(tmp_path / "counts.csv", index=False)
    table[table["year"] == 2021].drop(columns="deaths").to_csv(tmp_path / "next.csv", index=False)
    counts = ["--data", str(tmp_path / "counts.csv")]
    columns = ["--site", "county", "--time", "year", "--count", "deaths"]
    words = ["--suppressed", "1-9", "--suppressed", "*=1-9"]
    model = str(tmp_path / "model.pt")
    negbin = ["--model", "negbin", "--objective", "marginal", "--exposure", "people"]
    to = ["--k", "4", "--out", model, "--quiet"]
    assert main(["fit", *counts, *columns, *words, *negbin, *to]) == 0
    out = capsys.readouterr().out
    assert "Fitted without 2020, suppressed counts at their least: its 4 sites reach" in out
    assert "Fitted without 2020, suppressed counts at their most: its 4 sites reach" in out
    assert spec_of(TopKRanker.load(model).table_).exposure == "people"
    ranked = tmp_path / "ranked.csv"
    data = ["--data", str(tmp_path / "next.csv"), "--out", str(ranked), "--all-sites"]
    assert main(["rank", "--model", model, *data]) == 0
    found = pd.read_csv(ranked).set_index("site")["expected_count"]
    expected = 5e-4 * pd.Series(people, [f"c{s:02d}" for s in range(30)])
    # Rates are the same everywhere, so expected counts follow the people.
    assert np.corrcoef(found, expected[found.index])[0, 1] > 0.95
    judged = tmp_path / "judged.csv"
    capsys.readouterr()
    arguments = ["evaluate", "--model", model, *counts, *words, "--out", str(judged)]
    assert main(arguments) == 0
    assert capsys.readouterr().out.count("suppressed counts at their") == 2
    table = pd.read_csv(judged)
    assert table.groupby("suppressed").size().to_dict() == {"least": 4, "most": 4}
    assert table["bpr"].between(0, 1).all()
    # The model file stores how its table is written.
    assert main(["evaluate", "--model", model, *counts]) == 0
    assert capsys.readouterr().out.count("suppressed counts at their") == 2
    # An error is one line.
    for arguments, message in (
        (
            ["evaluate", *counts, *columns, "--k", "4"],
            r"got '\*' at line 2 .*--suppressed '\*=least-most'",
        ),
        (["fit", *counts, *columns, *words, "--k", "4", "--out", model, "--force"], "exact counts"),
        (
            ["rank", "--model", model, "--data", str(tmp_path / "n.csv"), "--out", str(judged)],
            "exists",
        ),
    ):
        assert main(arguments) == 2
        assert re.search(message, error_of(capsys))
    pd.read_csv(tmp_path / "next.csv").drop(columns="people").to_csv(tmp_path / "n.csv")
    arguments = ["rank", "--model", model, "--data", str(tmp_path / "n.csv"), "--out", "o.csv"]
    assert main(arguments) == 2
    assert re.search("exposure must be one of the columns, got 'people'", error_of(capsys))
    with pytest.raises(SystemExit):
        main(["fit", *counts, *columns, "--suppressed", "few", "--k", "4", "--out", model])
    assert "must be an interval such as 1-9" in capsys.readouterr().err


def test_fit_rank_evaluate(folder, capsys):
    arguments = ["--data", str(folder / "next.csv"), "--out", str(folder / "ranked.csv")]
    assert main(["rank", "--model", str(folder / "model.pt"), *arguments]) == 0
    ranked = pd.read_csv(folder / "ranked.csv", dtype={"site": str})
    assert list(ranked.columns) == [
        "time",
        "site",
        "score",
        "expected_count",
        "chance_top_k",
        "rank",
    ]
    assert list(ranked["rank"]) == [1, 2, 3, 4, 5] and (ranked["time"] == 2021).all()
    assert ranked["site"].str.fullmatch(r"00\d{3}").all()
    # "lag1" only repeats the counts before, which the default model reads anyway.
    assert TopKRanker.load(folder / "model.pt").feature_names_in_ == ["income"]
    capsys.readouterr()
    arguments = [
        "evaluate",
        "--model",
        str(folder / "model.pt"),
        "--data",
        str(folder / "counts.csv"),
    ]
    assert (
        main([*arguments, "--test", "2", "--repeats", "5", "--out", str(folder / "table.csv")]) == 0
    )
    printed = capsys.readouterr().out
    for row in ("last period", "mean of all periods", "chance", "model"):
        assert re.search(rf"^{row} +[\d.]+ +[\d.]+ +[\d.]+", printed, re.MULTILINE)
    widths = {
        len(line.split("[")[0].rstrip())
        for line in printed.splitlines()
        if re.match("last|mean|chance|model ", line)
    }
    assert len(widths) == 1, "the columns must stand under each other"
    assert len(pd.read_csv(folder / "table.csv")) == 4


def test_rank_all_sites_of_chosen_periods(folder):
    out = folder / "all.csv"
    arguments = [
        "--data",
        str(folder / "counts.csv"),
        "--out",
        str(out),
        "--times",
        "2019,2020",
        "--all-sites",
    ]
    assert main(["rank", "--model", str(folder / "model.pt"), *arguments]) == 0
    table = pd.read_csv(out)
    assert len(table) == 50 and set(table["time"]) == {2019, 2020} and table["selected"].sum() == 10


def test_evaluate_without_a_model(folder, capsys):
    assert main(["evaluate", "--data", str(folder / "counts.csv"), *COLUMNS, "--k", "5"]) == 0
    assert "model" not in capsys.readouterr().out


def test_evaluate_one_period_alone_has_no_naive_rows(folder, capsys):
    assert main(["evaluate", "--data", str(folder / "truth.csv"), *COLUMNS, "--k", "5"]) == 0
    shown = capsys.readouterr()
    assert (
        "chance" in shown.out
        and "last period" not in shown.out
        and "no earlier periods" in shown.err
    )


def test_scorer_by_command(folder):
    assert fit(folder, "scorer.pt", "--model", "linear", "--window", "2") == 0
    arguments = ["--data", str(folder / "next.csv"), "--out", str(folder / "scored.csv")]
    assert main(["rank", "--model", str(folder / "scorer.pt"), *arguments]) == 0
    assert pd.read_csv(folder / "scored.csv")["expected_count"].isna().all()


def test_existing_results_are_kept_unless_forced(folder, capsys):
    before = (folder / "model.pt").read_bytes()
    capsys.readouterr()
    assert fit(folder, "model.pt") == 2
    assert "--force" in error_of(capsys) and (folder / "model.pt").read_bytes() == before
    assert fit(folder, "model.pt", "--force", "--seed", "3") == 0
    assert (folder / "model.pt").read_bytes() != before
    assert fit(folder, "model.pt", "--force") == 0


def test_resume(folder):
    checkpoint = ["--checkpoint", str(folder / "run.pt")]
    assert fit(folder, "whole.pt") == 0
    assert fit(folder, "first.pt", *checkpoint) == 0
    assert fit(folder, "second.pt", *checkpoint, "--resume") == 0
    states = [
        torch.load(folder / name, weights_only=True)["state"] for name in ("whole.pt", "second.pt")
    ]
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])


def test_a_checkpoint_replaces_no_other_file(folder, capsys):
    """A model may be fitted in hours; a table of data is not to be had again."""
    table = (folder / "counts.csv").read_bytes()
    capsys.readouterr()
    assert fit(folder, "m1.pt", "--force", "--checkpoint", str(folder / "counts.csv")) == 2
    assert "--checkpoint must be another file than --data" in error_of(capsys)
    assert fit(folder, "m1.pt", "--checkpoint", str(folder / "m1.pt")) == 2
    assert "--checkpoint must be another file than --out" in error_of(capsys)
    (folder / "notes.txt").write_text("mine")
    assert fit(folder, "m1.pt", "--checkpoint", str(folder / "notes.txt")) == 2
    assert "exists; --force replaces it, --resume goes on from it" in error_of(capsys)
    assert fit(folder, "m1.pt", "--checkpoint", str(folder)) == 2
    assert "--checkpoint must be a file, got the folder" in error_of(capsys)
    assert (folder / "counts.csv").read_bytes() == table
    assert (folder / "notes.txt").read_text() == "mine" and not (folder / "m1.pt").exists()


def test_a_model_is_not_written_to_standard_output(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    data = ["--data", str(folder / "counts.csv"), *COLUMNS, "--k", "5"]
    assert main(["fit", *data, "--out", "-", "--quiet"]) == 2
    assert "--out must be a file, got - (standard output)" in error_of(capsys)
    assert not (folder / "-").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["rank", "--model", "absent.pt", "--data", "next.csv", "--out", "o.csv"],
            "path must be a file, got absent.pt",
        ),
        (
            ["rank", "--model", "counts.csv", "--data", "next.csv", "--out", "o.csv"],
            "got counts.csv, which is damaged, cut short or of another kind",
        ),
        (["rank", "--model", "model.pt", "--data", "absent.csv", "--out", "o.csv"], "absent.csv"),
        (["rank", "--model", "model.pt", "--data", "next.csv", "--out", "no/o.csv"], "must exist"),
        (["rank", "--model", "model.pt", "--data", "next.csv", "--out", "."], "must be a file"),
        ([*RANK, "--times", "1999"], "got '1999'"),
        ([*RANK, "--site", "tract"], "tract"),
        ([*EVALUATE], "--k is needed"),
        ([*EVALUATE, "--k", "5", "--repeats", "3"], "--repeats needs --model"),
        ([*EVALUATE, "--k", "5", "--repeats", "-3"], "--repeats must be a whole number >= 0"),
        (["evaluate", "--data", "counts.csv", "--k", "5"], "--site, --time, --count must name"),
        ([*EVALUATE, "--k", "99"], "number of sites, 25, got 99"),
        ([*EVALUATE, "--k", "5", "--test", "9"], "--test must be from 1 to"),
        ([*FIT, "--k", "0"], "--k must be from 1"),
        ([*FIT, "--valid", "6"], "--valid must be"),
        ([*FIT, "--features", "text"], "text"),
        ([*FIT, "--resume"], "--checkpoint"),
        ([*FIT, "--model", "mlp", "--objective", "nll"], "no likelihood"),
        (["demo", "--data", "absent", "--out", "demo"], "absent"),
    ],
)
def test_errors_are_one_line_that_names_the_thing(folder, capsys, monkeypatch, arguments, says):
    monkeypatch.chdir(folder)
    before = sorted(os.listdir(folder))
    capsys.readouterr()
    assert main(arguments) == 2
    line = error_of(capsys)
    assert line.startswith(f"topreach {arguments[0]}: error: ") and says in line
    assert [name for name in sorted(os.listdir(folder)) if name != "demo"] == before


def test_debug_shows_the_traceback(folder):
    with pytest.raises(ValueError):
        main(["rank", "--model", "absent.pt", "--data", "next.csv", "--out", "o.csv", "--debug"])


@pytest.mark.parametrize("command", ["demo", "fit", "rank", "evaluate"])
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert f"topreach {command} --" in capsys.readouterr().out


def test_without_a_command_it_says_what_there_is(capsys):
    assert main([]) == 0
    assert "examples:" in capsys.readouterr().out


def test_a_failed_write_leaves_the_old_file(folder, monkeypatch, capsys):
    arguments = [
        "rank",
        "--model",
        str(folder / "model.pt"),
        "--data",
        str(folder / "next.csv"),
        "--out",
    ]
    out = folder / "keep.csv"
    assert main([*arguments, str(out)]) == 0
    before, names = out.read_bytes(), sorted(os.listdir(folder))

    def fails(self, path, **options):
        with open(path, "w") as file:
            file.write("half")
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fails)
    assert main([*arguments, str(out), "--force"]) == 2
    assert out.read_bytes() == before and sorted(os.listdir(folder)) == names


# ---- demo ----------------------------------------------------------------------------------------


def check_demo(folder, printed):
    assert sorted(os.listdir(folder)) == [
        "comparison.csv",
        "model.pt",
        "plan.csv",
        "reach.png",
    ]
    ranked = pd.read_csv(folder / "plan.csv", dtype={"site": str})
    assert (
        len(ranked) == 100
        and ranked["rank"].is_monotonic_increasing
        and ranked["chance_top_k"].between(0, 1).all()
    )
    assert (folder / "reach.png").read_bytes()[:4] == b"\x89PNG"
    assert TopKRanker.load(folder / "model.pt").k == 100
    table = pd.read_csv(folder / "comparison.csv", index_col="method")
    assert {"last year", "mean of all years", "chance", "NLL", "DAML"} <= set(table.index)
    assert (table["bpr_low"] <= table["bpr"]).all() and (table["bpr"] <= table["bpr_high"]).all()
    for name in os.listdir(folder):
        assert name in printed
    return table


@pytest.mark.slow
def test_demo_without_data_says_that_it_is_simulated(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("TOPREACH_DATA", raising=False)

    def offline(*arguments):
        raise ConnectionError("no network")

    monkeypatch.setattr("topreach.cli.demo.cook_county", offline)
    assert main(["demo", "--quick", "--quiet", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    check_demo(tmp_path / "out", shown.out)
    assert "SIMULATED" in shown.out and shown.err == ""


@pytest.mark.skipif(not os.environ.get("TOPREACH_DATA"), reason="TOPREACH_DATA is not set")
def test_demo_on_cook_county_in_a_fresh_process(tmp_path):
    arguments = [
        sys.executable,
        "-m",
        "topreach",
        "demo",
        "--quick",
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "SIMULATED" not in done.stdout and "epoch" in done.stderr
    table = check_demo(tmp_path / "out", done.stdout)
    # The figures of `topreach.evaluation.baselines`, to three digits.
    assert table.loc["last year", ["mae", "rmse", "bpr"]].round(3).tolist() == [1.069, 1.659, 0.748]
    assert table.loc["mean of last 5 years", ["mae", "rmse", "bpr"]].round(3).tolist() == [
        0.943,
        1.455,
        0.820,
    ]
    assert table.loc["chance", "bpr"] == pytest.approx(0.20, abs=0.005)


def test_site_effects_that_vary_over_time(folder, capsys):
    negbin = ["--model", "negbin", "--objective", "marginal"]
    assert fit(folder, "path.pt", *negbin, "--site-path", "random_walk") == 0
    assert TopKRanker.load(folder / "path.pt").model_.path_effect.shape == (6, 25)  # all periods
    capsys.readouterr()
    assert fit(folder, "none.pt", "--site-path", "ar1") != 0
    assert "--site-path must come with --model negbin" in error_of(capsys)
    assert fit(folder, "none.pt", "--model", "negbin", "--site-path", "ar1") != 0
    assert "--site-path must come with --objective marginal" in error_of(capsys)
    assert not (folder / "none.pt").exists()


# ---- tables in other forms -----------------------------------------------------------------------


@pytest.fixture
def table():
    """12 sites, 2015-2019."""
    random = np.random.default_rng(0)
    rows = [(f"{1000 + s:05d}", 2015 + t, random.poisson(3)) for t in range(5) for s in range(12)]
    return pd.DataFrame(rows, columns=["geoid", "year", "deaths"])


def fit_table(folder, *more, data="t.csv"):
    files = ["--data", str(folder / data), "--out", str(folder / "m.pt")]
    return main(["fit", *files, *COLUMNS, "--k", "3", "--quiet", *more])


def test_semicolons(table, tmp_path):
    table.to_csv(tmp_path / "t.csv", index=False, sep=";")
    assert fit_table(tmp_path) == 0
    assert fit_table(tmp_path, "--sep", ";", "--force") == 0
    assert TopKRanker.load(tmp_path / "m.pt").site_ids_ == sorted(set(table["geoid"]))


def test_a_negative_code_for_suppressed_counts(table, tmp_path):
    """--suppressed -1=1-9 is a value, though it begins like an option."""
    hidden = table["deaths"].between(1, 2)
    table.assign(deaths=table["deaths"].mask(hidden, -1)).to_csv(tmp_path / "t.csv", index=False)
    negbin = ["--model", "negbin", "--objective", "marginal"]
    assert fit_table(tmp_path, *negbin, "--suppressed", "-1=1-9") == 0
    assert spec_of(TopKRanker.load(tmp_path / "m.pt").table_).suppressed == {"-1": (1, 9)}


def test_a_held_back_year_without_events(table, tmp_path, capsys):
    table.assign(deaths=table["deaths"].mask(table["year"] == 2019, 0)).to_csv(
        tmp_path / "t.csv", index=False
    )
    assert fit_table(tmp_path) == 0
    out = capsys.readouterr().out
    assert "There were no events in 2019" in out and "nan" not in out


def test_times_of_a_parquet_table(table, tmp_path):
    pytest.importorskip("pyarrow")
    table.assign(year=pd.to_datetime(table["year"].astype(str) + "-01-01")).to_parquet(
        tmp_path / "t.parquet"
    )
    assert fit_table(tmp_path, data="t.parquet") == 0
    rank = [
        "rank",
        "--model",
        str(tmp_path / "m.pt"),
        "--data",
        str(tmp_path / "t.parquet"),
        "--times",
        "2019-01-01",
    ]
    assert main([*rank, "--out", str(tmp_path / "r.csv")]) == 0
    assert len(pd.read_csv(tmp_path / "r.csv")) == 3


def test_months_as_excel_writes_them(table, tmp_path, capsys):
    months = ["Sep-20", "Oct-20", "Nov-20", "Dec-20", "Jan-21"]
    table.assign(year=[months[y - 2015] for y in table["year"]]).to_csv(
        tmp_path / "t.csv", index=False
    )
    assert main(["evaluate", "--data", str(tmp_path / "t.csv"), *COLUMNS, "--k", "3"]) == 0
    assert "period(s) Jan-21," in capsys.readouterr().out


def test_evaluation_says_what_the_model_has_learned_from(table, tmp_path, capsys):
    table.to_csv(tmp_path / "t.csv", index=False)
    assert fit_table(tmp_path, "--model", "negbin", "--epochs", "5") == 0
    capsys.readouterr()
    assert (
        main(
            [
                "evaluate",
                "--model",
                str(tmp_path / "m.pt"),
                "--data",
                str(tmp_path / "t.csv"),
                "--test",
                "2",
            ]
        )
        == 0
    )
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note:")]
    assert any("learned from" in note and "2018" in note for note in notes)


def test_the_columns_taken_as_features_are_said_once(table, tmp_path, capsys):
    table.assign(income=np.arange(60.0) % 7).to_csv(tmp_path / "t.csv", index=False)
    assert fit_table(tmp_path) == 0
    said = "note: Numeric columns that have no other role are read as features: income."
    assert capsys.readouterr().err.splitlines().count(said) == 1


def test_last_periods_without_counts(table, tmp_path, capsys):
    """They are refused without --counts optional; with it, nothing is learned from them."""
    table["deaths"] = table["deaths"].astype(float).mask(table["year"] == 2019)
    table.to_csv(tmp_path / "t.csv", index=False)
    assert fit_table(tmp_path) == 2
    assert "--counts optional" in error_of(capsys)
    assert fit_table(tmp_path, "--counts", "optional") == 0
    assert "note: left out, for want of counts: 2019" in capsys.readouterr().err.splitlines()
    assert TopKRanker.load(tmp_path / "m.pt").last_period_ == "2018"
