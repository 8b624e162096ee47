"""Problems of people who use the commands for the first time: nothing is silently wrong."""

import contextlib
import io

import numpy as np
import pandas as pd
import pytest

import topreach as tr
from topreach.cli.main import main

TABLE = pd.DataFrame(
    [(f"{i:03d}", 2015 + t, (3 * i + 5 * t) % 7) for t in range(6) for i in range(5)],
    columns=["site", "year", "n"],
)
COLUMNS = ["--site", "site", "--time", "year", "--count", "n"]


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    TABLE.to_csv("t.csv", index=False)
    return tmp_path


def fit(table, *more):
    if table is not None:
        table.to_csv("t.csv", index=False)
    words = ["--data", "t.csv", *COLUMNS, "--k", "2", "--out", "m.pt", "--force", "--quiet"]
    return main(["fit", *words, *more])


def said(capsys):
    return capsys.readouterr().err


def test_messages_on_tables_name_the_table(files, capsys):
    assert fit(TABLE.iloc[:0]) == 2
    assert "error: the table must have at least one row" in said(capsys)
    assert fit(pd.concat([TABLE, TABLE.iloc[:1]])) == 2
    assert "error: the table must have one row per site and time" in said(capsys)
    (files / "t.csv").write_bytes(b"")
    assert fit(None) == 2
    assert "error: the file must hold a header and at least one row" in said(capsys)
    assert fit(TABLE.assign(n=TABLE["n"].map(lambda v: f"1,{v:03d}"))) == 2
    assert "got '1,000' at line 2 (30 such rows). If it is a whole number, write it as 1000." in (
        said(capsys)
    )


def test_a_table_without_the_count_column_is_said(files, capsys):
    assert fit(TABLE) == 0
    new = TABLE[TABLE["year"] == 2020].assign(year=2021)
    new.rename(columns={"n": "deaths"}).to_csv("new.csv", index=False)
    words = ["rank", "--model", "m.pt", "--data", "new.csv", "--out", "p.csv", "--force"]
    capsys.readouterr()
    assert main(words) == 0
    assert "new.csv has no column 'n', so its periods are without counts" in said(capsys)
    assert main([*words, "--count", "deaths"]) == 0
    assert "has no column" not in said(capsys)
    assert pd.read_csv("p.csv")["time"].unique().tolist() == [2022]


def test_ids_that_lost_their_zeros_are_known_again(files, capsys):
    assert fit(TABLE) == 0
    TABLE.assign(site=TABLE["site"].astype(int)).to_csv("stripped.csv", index=False)
    assert main(["rank", "--model", "m.pt", "--data", "stripped.csv", "--out", "plan.csv"]) == 2
    assert "'0'" in (text := said(capsys))
    assert " Did you mean '000'? Ids are compared as text. Drop their rows" in text
    pd.DataFrame({"site": ["001", "002"], "score": [1.0, 2.0]}).to_csv("scores.csv", index=False)
    words = ["--scores", "scores.csv", "--k", "1", "--lock-in", "1", "--out", "plan.csv"]
    assert main(["plan", "quotas", *words]) == 2
    assert "--lock-in must be ids of the 2 sites, got '1'. Did you mean '001'?" in said(capsys)


def test_words_that_no_program_knows(files, capsys):
    assert fit(TABLE, "--device", "tpu") == 2
    assert "--device must be cpu or cuda, got tpu" in said(capsys)
    assert main(["demo", "--out", "t.csv"]) == 2
    assert "--out must be a folder, got the file t.csv" in said(capsys)
    assert main(["fit", "--data", "t.csv", "--k", "2", "--out", "m.pt"]) == 2
    assert said(capsys).rstrip().endswith("--site, --time, --count must name the column(s)")


def test_a_model_of_events_takes_no_table_of_counts(files, capsys):
    days = pd.date_range("2020-01-05", periods=60, freq="9D").strftime("%Y-%m-%d")
    pd.DataFrame({"date": days, "town": ["A", "B", "B"] * 20}).to_csv("e.csv", index=False)
    words = ["fit", "--events", "e.csv", "--time", "date", "--place", "town", "--k", "1"]
    words += ["--model", "stemmed", "--out", "m.pt", "--quiet"]
    assert main([*words, "--valid", "3"]) == 2
    assert "--valid must be 0 or 1 with --model stemmed" in said(capsys)
    assert main([*words, "--without-past"]) == 2
    assert "--without-past must not come with --model stemmed" in said(capsys)
    assert main([*words, "--valid", "0"]) == 0
    capsys.readouterr()
    for command in (["rank", "--out", "p.csv"], ["evaluate"]):
        assert main([*command, "--model", "m.pt", "--data", "t.csv"]) == 2
        assert "--data must be left out for a model of dated events" in said(capsys)
    both = ["forecast", "--model", "m.pt", "--events", "e.csv", "--out", "f.csv"]
    assert main(both) == 2
    assert "--events and --model exclude each other" in said(capsys)


def test_networks_without_edges_and_odd_files(files, capsys):
    scores = pd.DataFrame({"site": ["a", "b"], "score": [2.0, 1.0], "x": [1, ""], "g": ["u", "v"]})
    scores.to_csv("s.csv", index=False)
    words = ["--scores", "s.csv", "--k", "1", "--out", "-"]
    (files / "e.csv").write_text("from,to\n")
    assert main(["plan", "coverage", *words, "--edges", "e.csv"]) == 0
    assert "note: no edge of --edges joins two of the sites" in said(capsys)
    (files / "g.gal").write_text("x")
    assert main(["plan", "coverage", *words, "--gal", "g.gal"]) == 2
    assert "the first line must hold the number of sites, got 'x'" in said(capsys)
    (files / "g.gal").write_text("0 3 x id\na 1\nb\nb 1\na\n")
    assert main(["plan", "coverage", *words, "--gal", "g.gal"]) == 2
    assert "must have the 3 sites that its first line says, got 2" in said(capsys)
    place = ["--lon", "x", "--lat", "score"]
    assert main(["plan", "spaced", *words, "--distance", "1", *place]) == 2
    assert "--lon x must be a number for each site, got nan for 'b'" in said(capsys)
    assert main(["plan", "fair", *words, "--fair-to", "g", "--floor", "3"]) == 2
    assert "--floor must be a share from 0 to 1, got 3 for g 'u'" in said(capsys)
    assert main(["plan", "quotas", *words, "--time", "-1"]) == 2
    assert "--time must be a number of seconds" in said(capsys)


def test_standard_output_of_a_notebook(files):
    assert fit(TABLE) == 0
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        assert main(["rank", "--model", "m.pt", "--out", "-"]) == 0
    assert pd.read_csv(io.StringIO(shown.getvalue()))["rank"].tolist() == [1, 2]


def test_empirical_bayes_uses_the_exposure_and_says_nothing_else(files, capsys):
    people = np.tile([100.0, 200, 300, 400, 500], 6)
    assert fit(TABLE.assign(pop=people), "--exposure", "pop") == 0
    assert "makes no use of the exposure" not in said(capsys)
    assert tr.TopKRanker.load("m.pt").ranker_.file(True).uses_exposure
