"""`topreach plan`: every program from files to a file, and errors in the words of the command
line."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest

import topreach as tr
from topreach.cli import main
from topreach.cli.plan import PROGRAMS

needs_highs = pytest.mark.skipif(not tr.plan.has_highs(), reason="HiGHS is not installed")
I = np.arange(12)  # noqa: E741


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """s.csv: twelve sites with leading zeros; e.csv: their 3 x 4 grid; t.csv: three periods."""
    folder = tmp_path_factory.mktemp("plan")
    score = 1.0 + (7 * I + 3) % 12
    table = pd.DataFrame(
        {
            "site": [f"0{i:02d}" for i in I],
            "score": score,
            "cost": 1 + I % 4,
            "town": [f"0{i % 3}" for i in I],
            "area": np.where(I >= 6, "rural", "urban"),
            "prob": score / 20,
            "lon": I % 4 / 10,
            "lat": 41 + I // 4 / 10,
        }
    )
    table.to_csv(folder / "s.csv", index=False)
    edges = [
        (f"0{a:02d}", f"0{b:02d}")
        for a in I
        for b in I[:a]
        if abs(a % 4 - b % 4) + abs(a // 4 - b // 4) == 1
    ]
    pd.DataFrame(edges, columns=["from", "to"]).to_csv(folder / "e.csv", index=False)
    scores = [score, score[::-1], np.roll(score, 4)]
    pd.concat([table.assign(time=2024 + t, score=s) for t, s in enumerate(scores)]).to_csv(
        folder / "t.csv", index=False
    )
    pd.DataFrame(
        {"zip": ["00501", "00502"], "need": [3, 4], "lon": [0.0, 1.0], "lat": [40.0, 40.0]}
    ).to_csv(folder / "need.csv", index=False)
    pd.DataFrame(
        {"npi": ["1", "2"], "room": [5, 0], "lon": [0.0, 1.0], "lat": [40.0, 40.0]}
    ).to_csv(folder / "places.csv", index=False)
    return folder


def run(folder, capsys, *words):
    """The table written, and what was printed; files are named without their folder."""
    out = folder / "out.csv"
    named = [str(folder / w) if w.endswith((".csv", ".geojson")) else w for w in words]
    code = main(["plan", *named, "--out", str(out), "--force"])
    said = capsys.readouterr()
    assert code == 0, said.err
    return pd.read_csv(out, dtype=str), said.out


SCORES, EDGES = ["--scores", "s.csv"], ["--edges", "e.csv"]


def test_quotas(folder, capsys):
    table, said = run(
        folder, capsys, "quotas", *SCORES, "--k", "4", "--groups", "town", "--at-least", "1",
        "--geojson", "map.geojson",
    )  # fmt: skip
    assert set(table["town"]) == {"00", "01", "02"} and table["site"].str.len().eq(3).all()
    assert "quota_topk: value 42, optimal" in said
    layer = json.loads((folder / "map.geojson").read_text())
    assert [f["properties"]["site"] for f in layer["features"]] == table["site"].tolist()


@needs_highs
def test_each_program(folder, capsys):
    """The answers are those of test_plan_answers.py."""
    runs = {
        "quotas": [*SCORES, "--k", "4", "--groups", "town", "--at-least", "1", "--groups", "area",
                   "--at-least", "rural=2", "--at-most", "rural=2"],
        "budget": [*SCORES, "--cost", "cost", "--budget", "8"],
        "connected": [*SCORES, *EDGES, "--k", "4"],
        "fair": [*SCORES, "--k", "4", "--fair-to", "town"],
        "phases": ["--scores", "t.csv", "--k", "2", "--opening", "3"],
        "spaced": [*SCORES, "--k", "4", "--distance", "9", "--lon", "lon", "--lat", "lat"],
        "spillover": [*SCORES, *EDGES, "--k", "2", "--treated", "0.5", "--spilled", "0.2"],
        "call-in": [*SCORES, *EDGES, "--k", "2", "--comes", "prob", "--passes", "0.5"],
        "coverage": [*SCORES, "--radius", "12", "--lon", "lon", "--lat", "lat", "--k", "3"],
        "representatives": EDGES,
        "tours": [*SCORES, *EDGES, "--k", "2", "--pai", "1.2", "--max-size", "4"],
        "subgraph": [*EDGES, "--terminals", "000,003,008,011"],
        "assign": ["--need", "need.csv", "--need-columns", "zip,need,lon,lat", "--places",
                   "places.csv", "--place-columns", "npi,room,lon,lat", "--radius", "50"],
    }  # fmt: skip
    assert set(runs) == set(PROGRAMS)
    values = {"quotas": "41", "budget": "45", "connected": "35", "fair": "0.423077",
              "phases": "53", "spaced": "42", "representatives": "4", "subgraph": "7"}  # fmt: skip
    for name, words in runs.items():
        table, said = run(folder, capsys, name, *words)
        assert len(table) and "optimal" in said, name
        if name in values:
            assert f"value {values[name]}," in said, said
    table, _ = run(folder, capsys, "assign", *runs["assign"])
    assert table.set_index("site")["unserved"].astype(float).to_dict() == {"00502": 4, "00501": 0}


def test_ways_to_a_graph(folder, capsys):
    by_radius, _ = run(
        folder, capsys, "coverage", *SCORES, "--k", "2", "--radius", "0.1", "--lon", "lon", "--lat",
        "lat", "--planar",
    )  # fmt: skip
    by_edges, _ = run(folder, capsys, "coverage", *SCORES, *EDGES, "--k", "2")
    assert by_radius["site"].tolist() == by_edges["site"].tolist()
    few = pd.read_csv(folder / "s.csv", dtype={"site": str}).head(6)
    few.to_csv(folder / "few.csv", index=False)
    table, _ = run(
        folder, capsys, "coverage", "--scores", "few.csv", *EDGES, "--k", "1", "--drop-strangers"
    )
    assert len(table) == 1


def test_all_sites_and_standard_output(folder, capsys):
    table, _ = run(folder, capsys, "quotas", *SCORES, "--k", "4", "--all-sites")
    assert len(table) == 12 and table["selected"].eq("True").sum() == 4
    assert (
        main(["plan", "quotas", "--scores", str(folder / "s.csv"), "--k", "1", "--out", "-"]) == 0
    )
    assert capsys.readouterr().out.startswith("site,score,")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["quotas", *SCORES, "--k", "13"], "--k must be from 0 to the number of sites S = 12"),
        (["quotas", *SCORES, "--k", "4", "--groups", "town", "--at-least", "5"],
         "quotas must be feasible, got at least 5 in town '00' that has 4 sites"),
        (["quotas", *SCORES, "--k", "4", "--groups", "county", "--at-least", "1"],
         "--groups must be a column of scores, got 'county'"),
        (["quotas", *SCORES, "--k", "4", "--groups", "town", "--at-least", "x"],
         "--at-least must be a whole number or a share"),
        (["quotas", *SCORES, "--k", "4", "--lock-in", "7"], "--lock-in must be ids of the 12"),
        (["quotas", "--scores", "none.csv", "--k", "4"], "the file must be an existing file, got"),
        (["quotas", *SCORES, "--site", "id", "--k", "4"], "--site must be a column of"),
        (["budget", *SCORES, "--cost", "cost", "--budget", "0", "--k", "3"],
         "there is no such plan. Even the cheapest"),
        (["coverage", *SCORES, "--k", "3"], "one of --edges, --gal, --gwt, --radius"),
        (["coverage", "--scores", "few2.csv", *EDGES, "--k", "1"], "got '006' in line"),
        (["spaced", *SCORES, "--k", "4", "--distance", "9"], "--lon and --lat must name"),
        (["call-in", *SCORES, *EDGES, "--k", "2", "--comes", "2"],
         "--comes must be chances from 0 to 1, got 2"),
    ],
)  # fmt: skip
def test_errors_in_one_line(folder, capsys, words, message):
    pd.read_csv(folder / "s.csv", dtype={"site": str}).head(6).to_csv(
        folder / "few2.csv", index=False
    )
    named = [str(folder / w) if w.endswith(".csv") else w for w in words]
    out = folder / "never.csv"
    assert main(["plan", *named, "--out", str(out)]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and message in said[0]
    assert said[0].startswith("topreach plan: error: ") and not out.exists()


def test_files_are_not_replaced_unasked(folder, capsys):
    out = folder / "kept.csv"
    out.write_text("mine")
    words = ["plan", "quotas", "--scores", str(folder / "s.csv"), "--k", "1", "--out", str(out)]
    assert main(words) == 2 and out.read_text() == "mine"
    assert "--force" in capsys.readouterr().err


def test_a_bound_without_its_groups(folder, capsys):
    with pytest.raises(SystemExit):
        main(["plan", "quotas", "--scores", "s.csv", "--k", "1", "--at-least", "1", "--out", "-"])
    assert "--at-least must stand after the --groups that it is for" in capsys.readouterr().err
    assert main(["plan"]) == 2
    assert "PROGRAM must be one of quotas, budget" in capsys.readouterr().err


def test_coverage_keeps_quotas(folder, capsys):
    """Against all plans of 3 of 12 sites with one of each town."""
    table, said = run(
        folder, capsys, "coverage", *SCORES, *EDGES, "--k", "3", "--groups", "town", "--at-least",
        "1", "--gap", "0",
    )  # fmt: skip
    score = 1.0 + (7 * I + 3) % 12
    apart = np.abs(I[:, None] % 4 - I % 4) + np.abs(I[:, None] // 4 - I // 4)
    most = max(
        score[(apart[:, list(plan)] <= 1).any(axis=1)].sum()
        for plan in itertools.combinations(I, 3)
        if {i % 3 for i in plan} == {0, 1, 2}
    )
    assert f"coverage: value {most:g}, " in said
    assert {int(site) % 3 for site in table["site"]} == {0, 1, 2}
