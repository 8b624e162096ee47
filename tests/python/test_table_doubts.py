"""What a table may mean besides what it says: rows of totals, periods that are not wholly reported,
points between thousands, counts that are almost whole."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest

import topreach as tr
from topreach.cli import main

S = 12
OPTIONS = {"site": "site", "time": "time", "count": "n"}
WORDS = ["--site", "site", "--time", "time", "--count", "n", "--k", "2", "--quiet", "--force"]


def frame(years=range(2010, 2020), seed=0):
    rng = np.random.default_rng(seed)
    rows = [(f"A{s:02d}", t, rng.poisson(5 + s)) for t in years for s in range(S)]
    return pd.DataFrame(rows, columns=list(OPTIONS.values()))


def said(table, **options):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        tr.Panel.from_frame(table, **OPTIONS, **options)
    return [str(w.message) for w in found]


def fit(tmp_path, table, *more, **writing):
    """`topreach fit` on a table: its exit code."""
    table.to_csv(tmp_path / "t.csv", index=False, **writing)
    files = ["--data", str(tmp_path / "t.csv"), "--out", str(tmp_path / "m.pt")]
    return main(["fit", *files, *WORDS, *more])


# ---- totals --------------------------------------------------------------------------------------


def with_total(table, name):
    total = table.groupby("time", as_index=False).n.sum().assign(site=name)
    return pd.concat([table, total])


@pytest.mark.parametrize("name", ["Total", "Cook County"])
def test_rows_of_totals_are_named(tmp_path, capsys, name):
    [note] = said(with_total(frame(), name))
    assert note.startswith("Panel.from_frame: sites must be places of one kind, got ")
    assert f"{name!r}, with as many events as all other sites together" in note
    assert fit(tmp_path, with_total(frame(), name)) == 0
    assert f"got {name!r}" in capsys.readouterr().err


def test_a_total_by_name_need_not_be_the_sum():
    table = with_total(frame(), "Grand total").assign(n=lambda d: d.n + (d.site > "B"))
    assert (
        "got 'Grand total', called a total, with the most events in every period" in said(table)[0]
    )


def test_a_large_site_is_no_total():
    large = frame().assign(n=lambda d: np.where(d.site == "A03", 500, d.n))
    assert said(large) == []
    assert said(large.assign(site=large.site.replace("A03", "Totalville"))) == []
    two = frame()[lambda d: d.site < "A02"].assign(n=5)  # of two equal sites, each is the rest
    assert said(two) == []


# ---- periods that are not wholly reported --------------------------------------------------------


def test_a_newest_period_with_few_events_is_named(tmp_path, capsys):
    table = frame()
    part = table.assign(n=np.where(table.time == 2019, table.n // 5, table.n))
    low = int(table[table.time < 2019].groupby("time").n.sum().min())
    [note] = said(part)
    assert "2019 has " in note and f"the 9 periods before have {low} to" in note
    assert said(part[part.time < 2019]) == [] and said(table) == []
    assert fit(tmp_path, part) == 0
    assert "If it is not wholly reported, leave its rows out" in capsys.readouterr().err


def test_a_period_with_few_rows_is_named():
    table = frame()
    part = table[~((table.time == 2015) & (table.site > "A03"))]
    [note] = said(part, missing="zero")
    assert "some periods have few rows, where others have 12: 2015 (4)" in note
    # Where rows are for events only, they come and go.
    sparse = table[np.random.default_rng(0).random(len(table)) < 0.4]
    assert not any("few rows" in note for note in said(sparse, missing="zero"))


def test_a_season_is_no_missing_report():
    months = [str(t) for t in pd.period_range("2018-01", "2020-01", freq="M")]
    table = frame(months)
    winter = table.time.str.endswith(("-01", "-02"))
    assert said(table.assign(n=np.where(winter, table.n // 5, table.n))) == []


# ---- points and commas ---------------------------------------------------------------------------


def people(table):
    return 987 + 1000 * (np.arange(len(table)) % S)


def test_points_between_thousands_of_an_exposure(tmp_path, capsys):
    table = frame()
    plain = table.assign(pop=people(table))
    dotted = table.assign(pop=[f"{v:,}".replace(",", ".") for v in people(table)])
    assert fit(tmp_path, plain, "--exposure", "pop") == 0
    expected = tr.TopKRanker.load(tmp_path / "m.pt").rank()
    for writing in ({"sep": ";"}, {}):
        assert fit(tmp_path, dotted, "--exposure", "pop", **writing) == 2
        error = capsys.readouterr().err
        assert "got '1.987' at line 3 and '987' at line 2. Pass --decimal ','" in error
        assert fit(tmp_path, dotted, "--exposure", "pop", "--decimal", ",", **writing) == 0
        pd.testing.assert_frame_equal(tr.TopKRanker.load(tmp_path / "m.pt").rank(), expected)
    with pytest.raises(ValueError, match=r'exposure \'pop\' must say .* Pass decimal=","'):
        tr.Panel.from_csv(tmp_path / "t.csv", **OPTIONS, exposure="pop")


def test_points_between_thousands_of_a_cost(tmp_path, capsys):
    """Costs 987, 1987, ...: only one of them is within a budget of 1500."""
    table = pd.DataFrame({"site": list("abcd"), "score": [1, 2, 3, 4]})
    table["cost"] = ["987", "1.987", "2.987", "3.987"]
    table.to_csv(tmp_path / "s.csv", index=False)
    words = ["plan", "budget", "--scores", str(tmp_path / "s.csv"), "--cost", "cost"]
    words += ["--budget", "1500", "--out", "-"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "cost 'cost' must say whether points stand between thousands, got '1.987'" in error
    assert main([*words, "--decimal", ","]) == 0
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == ["site", "a"]


def test_groups_that_may_be_one_are_named(tmp_path, capsys):
    """A town written in two ways would have two quotas."""
    table = pd.DataFrame(
        {"site": list("abcd"), "score": [4, 3, 2, 1], "town": ["X", "X", "x", "Y"]}
    )
    table.to_csv(tmp_path / "s.csv", index=False)
    words = ["plan", "quotas", "--scores", str(tmp_path / "s.csv"), "--k", "3", "--groups", "town"]
    assert main([*words, "--at-least", "1", "--out", "-"]) == 0
    assert "got 1 group(s): 'X' and 'x'" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="groups must differ in more than case.*'X' and 'x'"):
        tr.plan.quota_topk(table, 3, groups="town", at_least=1)
    with pytest.warns(UserWarning, match="groups must differ in more than case.*'X' and 'x'"):
        tr.programs.Quotas(3, table["town"].tolist(), lower=1)


@pytest.mark.parametrize(
    "pop", [[1.5, 2.125, 3.0], [0.125, 0.5, 2], [1234.5, 100.25, 7], [12, 7, 9]]
)
def test_exposures_with_decimals_are_read(tmp_path, pop):
    table = frame().assign(pop=np.resize(pop, S * 10))
    table.to_csv(tmp_path / "t.csv", index=False)
    panel = tr.Panel.from_csv(tmp_path / "t.csv", **OPTIONS, exposure="pop")
    np.testing.assert_allclose(panel.exposure.flatten()[:3], pop)


@pytest.mark.parametrize("suppressed", [None, {"*": (1, 9)}])
def test_a_comma_before_decimals_leaves_points_between_thousands(tmp_path, suppressed):
    cells = ["1.234", "987", "4.000", "12", "1.000.000", "7,0"]
    frame(range(2)).assign(n=cells * 4).to_csv(tmp_path / "t.csv", sep=";", index=False)
    options = OPTIONS | {"decimal": ",", "suppressed": suppressed}
    panel = tr.Panel.from_csv(tmp_path / "t.csv", **options)
    assert panel.y[0, :6].tolist() == [1234, 987, 4000, 12, 1_000_000, 7]


def test_features_with_commas_and_points(tmp_path):
    table = frame(range(2)).assign(a="1.234,5", b="41.88", c=["7,25", "8"] * S)
    table.to_csv(tmp_path / "t.csv", sep=";", index=False)
    panel = tr.Panel.from_csv(tmp_path / "t.csv", **OPTIONS, decimal=",", features=["a", "b", "c"])
    np.testing.assert_allclose(panel.x[0, :2], [[1234.5, 41.88, 7.25], [1234.5, 41.88, 8]])


COUNTS = [
    ("3,0", "Pass --decimal ',' if the comma stands before decimals"),
    ("1\u00a0234", "write it as 1234"),
    ("1'234", "write it as 1234"),
    ("2.9999999999", r"got 2.9999999999 at line 2 .*Round them"),
    ("2.5", "got 2.5 at line 2 .*Rates and averages are no counts"),
]


@pytest.mark.parametrize(("cell", "message"), COUNTS)
def test_what_is_said_of_a_count_that_is_none(tmp_path, capsys, cell, message):
    table = frame().astype({"n": object})
    table.loc[0, "n"] = cell
    assert fit(tmp_path, table) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_code_for_suppressed_counts_is_known_with_a_decimal_zero_too(tmp_path):
    """As pandas writes a column of whole numbers that has blank cells."""
    table = frame(range(2020, 2022)).astype({"n": float})
    table.loc[3, "n"] = -1.0
    table.to_csv(tmp_path / "t.csv", index=False)
    for read in (
        tr.Panel.from_csv(tmp_path / "t.csv", **OPTIONS, suppressed={"-1": (1, 9)}),
        tr.Panel.from_frame(table, **OPTIONS, suppressed={-1: (1, 9)}),
    ):
        assert (read.y[0, 3], read.y_upper[0, 3]) == (1, 9)


# ---- words ---------------------------------------------------------------------------------------


def test_another_separator_is_named(tmp_path, capsys):
    assert fit(tmp_path, frame(), sep="^") == 2
    assert "The file seems to use another separator: pass --sep '^'" in capsys.readouterr().err
    assert fit(tmp_path, frame(), "--sep", "^", sep="^") == 0


def test_dates_of_a_parquet_table_are_written_as_dates(tmp_path, capsys):
    table = frame().assign(time=lambda d: pd.to_datetime(d.time.astype(str)))
    table.to_parquet(tmp_path / "t.parquet")
    files = ["--data", str(tmp_path / "t.parquet"), "--out", str(tmp_path / "m.pt")]
    assert main(["fit", *files, *WORDS]) == 0
    shown = capsys.readouterr().out
    assert "(2010-01-01 to 2019-01-01)" in shown and "00:00" not in shown
    rank = ["rank", "--model", str(tmp_path / "m.pt"), *files[:2], "--out", "-"]
    assert main([*rank, "--times", "2018-03-01"]) == 2
    error = capsys.readouterr().err
    assert "2010-01-01" in error and "Timestamp" not in error


def test_settings_are_named_as_options(tmp_path, capsys):
    assert fit(tmp_path, frame(), "--model", "linear", "--epochs", "0") == 2
    assert "error: --epochs must be" in capsys.readouterr().err
