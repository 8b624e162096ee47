"""`topreach fit --groups --at-least --at-most --effect`: fits, plans and errors."""

import os

import numpy as np
import pandas as pd
import pytest

import topreach as tr
from topreach.cli import main

S, T = 40, 8
Y = np.random.default_rng(0).poisson(np.random.default_rng(1).gamma(1.0, 3.0, S), (T, S))

try:
    import highsbox

    os.environ.setdefault("TOPREACH_HIGHS", f"{highsbox.highs_lib_dir()}/libhighs.so")
    HIGHS = True
except ImportError:
    HIGHS = False


@pytest.fixture
def table(tmp_path):
    rows = [
        [f"00{i:02d}", 2010 + t, int(Y[t, i]), f"0{i % 10}", i % 3, 0.1 + (i % 5) / 5]
        for t in range(T)
        for i in range(S)
    ]
    path = tmp_path / "counts.csv"
    names = ["site", "year", "n", "town", "zone", "effect"]
    pd.DataFrame(rows, columns=names).to_csv(path, index=False)
    return path


COLUMNS = ["--site", "site", "--time", "year", "--count", "n", "--quiet"]


def run_fit(table, *more):
    out = table.parent / "model.pt"
    return main(
        ["fit", "--data", str(table), *COLUMNS, "--k", "12", "--out", str(out), "--force", *more]
    )


def test_fit_and_rank_under_quotas(table, capsys):
    assert run_fit(table, "--groups", "town", "--at-least", "1", "--effect", "effect") == 0
    said = capsys.readouterr().out
    assert "its 12 sites reach" in said and "1 feature(s): zone." in said
    ranker = tr.TopKRanker.load(table.parent / "model.pt")
    assert ranker.program_.describe() == "Quotas(k=12, 10 groups by town, by effect)"
    out = table.parent / "plan.csv"
    assert main(["rank", "--model", str(table.parent / "model.pt"), "--out", str(out)]) == 0
    plan = pd.read_csv(out, dtype={"site": str})
    assert len(plan) == 12 and plan["site"].str[-1].nunique() == 10
    assert main(["evaluate", "--model", str(table.parent / "model.pt"), "--data", str(table)]) == 0
    assert "K = 12" in capsys.readouterr().out
    options = ["--model", str(table.parent / "model.pt"), "--out", str(out), "--force"]
    assert main(["rank", *options, "--k", "3"]) == 2
    assert "--k must be left out for a model that plans by Quotas" in capsys.readouterr().err


def test_columns_of_groups_are_not_said_to_be_left_out(table, capsys):
    named = pd.read_csv(table, dtype={"site": str, "town": str}).assign(
        ward=lambda d: "w" + d["town"], mayor="m"
    )
    named.to_csv(table, index=False)
    words = ["--groups", "ward,zone", "--at-least", "1", "--effect", "effect"]
    assert run_fit(table, *words) == 0
    said = capsys.readouterr()
    assert "left out the columns ['mayor']" in said.err and "'ward'" not in said.err
    assert "read as features: town." in said.err and "1 feature(s): town." in said.out


@pytest.mark.parametrize(
    "words, match",
    [
        (["--groups", "town"], "--groups needs --at-least N or --at-most N"),
        (["--at-least", "1"], "--at-least and --at-most need --groups COLUMN"),
        (["--groups", "town", "--at-least", "2"], "lower bounds that sum to 20 for --k 12"),
        (["--groups", "town", "--at-least", "03=5"], "at least 5 in town '03' that has 4 sites"),
        (["--groups", "town", "--at-least", "x=5"], "must name a group of --groups, got 'x'"),
        (["--groups", "town", "--at-least", "3=1"], "one of none. Did you mean '03'?"),
        (["--groups", "nowhere", "--at-least", "1"], "must have the column 'nowhere'"),
        (["--groups", "n", "--at-least", "1"], "n must be the same in all rows of a site"),
        (["--groups", "town", "--at-least", "few"], "a number of sites or a share"),
        (["--effect", "nowhere"], "must have the column 'nowhere'"),
    ],
)
def test_errors_of_the_command_line(table, words, match, capsys):
    assert run_fit(table, *words) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if not x.startswith("note:")]
    assert match in line


@pytest.mark.skipif(not HIGHS, reason="highsbox is not installed")
def test_limits_of_the_command_line(table):
    words = ["--groups", "town,zone", "--at-most", "0=30%", "--at-least", "07=2"]
    assert run_fit(table, *words) == 0
    program = tr.TopKRanker.load(table.parent / "model.pt").program_
    limits = {
        name: (low, high)
        for grouping in program.groupings
        for name, low, high in zip(grouping.groups, grouping.lower, grouping.upper, strict=True)
    }
    assert limits["0"][1] == 3 and limits["07"][0] == 2
