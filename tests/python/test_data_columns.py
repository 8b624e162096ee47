"""Columns and arrays of counts, each check by itself: the values that pass, up to the last one, and
the cell that a message names."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import topreach as tr
from topreach.data import checks, columns
from topreach.data.messages import caller, option, wording

MOST = 2**24  # larger whole numbers are not exact in float32


def at_row(i):
    return f"row {i}"


def quietly(call):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return call()


# ---- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "python", "cli"),
    [
        ("missing", "zero", 'missing="zero"', "--missing zero"),
        ("absent_lags", None, "absent_lags", "--absent-lags"),
        ("sep", ";", 'sep=";"', "--sep ';'"),
        ("lag", 0, "lag=0", "--lag 0"),
        ("suppressed", {"<5": (0, 4), "": (1, 9)}, "suppressed={'<5': (0, 4), '': (1, 9)}",
         "--suppressed '<5=0-4' --suppressed '=1-9'"),
    ],
)  # fmt: skip
def test_an_option_as_its_reader_writes_it(name, value, python, cli):
    assert option(name, value) == python and caller("f") == "f"
    with wording("cli"):
        assert option(name, value) == cli and caller("f") == "the table"
        with wording("python"):
            assert option(name, value) == python
        assert option(name, value) == cli
    assert option(name, value) == python
    with pytest.raises(ValueError, match="style must be 'python' or 'cli', got 'r'"), wording("r"):
        pass


def test_lists_in_messages():
    assert columns.listed(range(8)) == "0, 1, 2, 3, 4, 5, 6, 7"
    assert columns.listed(range(9)) == "0, 1, 2, 3, 4, 5, 6, 7, … (9 in all)"
    assert columns.listed("abc", most=2) == "'a', 'b', … (3 in all)" and columns.listed([]) == ""
    assert columns.first_repeated([1, 2, 3, 2, 1]) == 2 and columns.first_repeated([1, 2]) is None
    assert [columns.is_whole(v) for v in (0, np.int8(3), True, np.True_, 1.0, "1")] == [
        True, True, False, False, False, False,
    ]  # fmt: skip
    columns.check_one_of("f", "by", "a", ("a", "b"))
    for wrong in ("c", 1, None):
        with pytest.raises(ValueError, match="f: by must be one of 'a', 'b', got"):
            columns.check_one_of("f", "by", wrong, ("a", "b"))


# ---- columns of a table --------------------------------------------------------------------------


def test_the_nearest_column_is_named():
    table = pd.DataFrame(columns=["Deaths ", "year"])
    columns.check_column(table, "f", "time", "year")
    for wrong, advice in (("deaths", "Did you mean 'Deaths '?"), ("yeer", "Did you mean 'year'?")):
        with pytest.raises(ValueError, match=re.escape(advice)):
            columns.check_column(table, "f", "count", wrong)
    for far in ("population", "zz"):
        with pytest.raises(ValueError, match=r"They are \['Deaths ', 'year'\].$"):
            columns.check_column(table, "f", "count", far)
    one = pd.DataFrame(columns=["site;when;n"])
    with pytest.raises(ValueError, match='another separator: pass sep=";"'):
        columns.check_column(one, "f", "count", "quite different")
    two = pd.DataFrame(columns=["a;b", "c"])
    with pytest.raises(ValueError, match=r"They are \['a;b', 'c'\].$"):
        columns.check_column(two, "f", "count", "quite different")
    with pytest.raises(TypeError, match="f: count must be the name of a column, got 3"):
        columns.check_column(table, "f", "count", 3)


def test_columns_that_stand_twice():
    table = pd.DataFrame([[1, 2, 1, "1", 7]], columns=["a", "b", "a", "b.1", "a.1"])
    with pytest.warns(UserWarning, match=r"f: dropped the repeated column\(s\) \['a'\]"):
        kept = columns.drop_repeated_columns(table, "f", at_row)
    assert list(kept.columns) == ["a", "b", "b.1", "a.1"]  # those of another content stay
    same = pd.DataFrame([[1, 2, "2.0"], [3, 4, "4"]], columns=["a", "b", "b.1"])
    with pytest.warns(UserWarning, match=r"\['b.1'\]"):
        assert list(columns.drop_repeated_columns(same, "f", at_row).columns) == ["a", "b"]
    half = pd.DataFrame([[1.0, 1.0], [np.nan, 2.0]], columns=["a", "a"])
    with pytest.raises(ValueError, match=r"got 'a' twice .*\(nan and 2 at row 1\)"):
        columns.drop_repeated_columns(half, "f", at_row)
    plain = pd.DataFrame([[1, 2]], columns=["a", 3])
    assert quietly(lambda: columns.drop_repeated_columns(plain, "f", at_row)).columns[1] == "3"


def test_features_that_are_taken_and_left_out():
    table = pd.DataFrame({"n": [1, 2], "Unnamed: 0": [0, 1], "u": [0.5, 1], "t": ["1,5", "2"]})

    def found(table):
        return columns.default_features(table, "f", ["n"], at_row)

    with pytest.warns(UserWarning) as said:
        assert found(table) == ["u"]
    texts = [str(w.message) for w in said]
    assert texts[0] == "f: left out the column(s) without a header, ['Unnamed: 0']."
    assert "['t'], which are not numeric (the first holds '1,5' at row 0). Pass decimal" in texts[1]
    words = table[["n", "u"]].assign(t=["3", "x"])
    with pytest.warns(UserWarning, match="holds 'x' at row 1.* Name the features to choose"):
        assert found(words) == ["u"]
    assert quietly(lambda: found(table[["n", "u"]])) == ["u"]


def test_codes_of_values():
    """Categories that do not occur have no code; blanks have -1."""
    kinds = pd.Categorical(["c", "a", None, "c"], categories=["a", "b", "c"])
    for column, expected in (
        (pd.Series(kinds), ([1, 0, -1, 1], ["a", "c"])),
        (pd.Series(["c", "a", None, "c"]), ([0, 1, -1, 0], ["c", "a"])),
    ):
        codes, values = columns.codes_of(column)
        assert (codes.tolist(), values) == expected


# ---- counts --------------------------------------------------------------------------------------


def bounds(cells, suppressed=None):
    intervals = columns.suppressed_intervals(suppressed, "f")
    low, high = columns.count_values(pd.Series(cells), "f", "n", at_row, intervals)
    return low.tolist(), high.tolist()


def test_counts_and_what_they_can_be():
    assert bounds([0, 3, MOST]) == ([0, 3, MOST], [0, 3, MOST])
    assert bounds(["0", "3.0"]) == ([0, 3], [0, 3])
    given = {"1-9": (1, 9), " <5 ": (0, 4), -1: (2, 2)}
    assert bounds(["1-9", "7", "<5", " <5", "-1"], given) == ([1, 7, 0, 0, 2], [9, 7, 4, 4, 2])
    assert bounds([-1, 7], {"-1": (1, 9)}) == ([1, 7], [9, 7])  # a number that is a code
    assert bounds([None, "7"], {"": (1, 9)}) == ([1, 7], [9, 7])
    low, high = bounds([None, "7", "NA"])
    assert np.isnan([low[0], high[0], low[2]]).all() and low[1] == high[1] == 7


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([1, 2.5, 3.5], r"got 2.5 at row 1 \(2 such rows\). Rates and averages are no counts"),
        ([1, -1, -1], r"got -1 at row 1 \(2 such rows\). If it is a code .*suppressed=\{'-1'"),
        ([1, -1.5], r"got -1.5 at row 1 \(1 such rows\). Mend or drop these rows"),
        ([MOST + 1], r"from 0 to 16777216, got 1.67772e\+07 at row 0 .* Mend or drop"),
        ([1, np.inf], r"got inf at row 1 .* Mend or drop"),
        (["1", "x", "x"], r"numeric, got 'x' at row 1 \(2 such rows\).*\{'x': \(least, most\)\}"),
        (["3 - 7"], r"suppressed=\{'3 - 7': \(3, 7\)\}"),
        (["<5"], r"suppressed=\{'<5': \(0, 4\)\}"),
        (["< 1"], r"suppressed=\{'< 1': \(0, 0\)\}"),
        (["<0"], r"suppressed=\{'<0': \(least, most\)\}"),
    ],
)
def test_what_is_no_count(cells, message):
    with pytest.raises(ValueError, match=message):
        bounds(cells)


@pytest.mark.parametrize(
    "wrong",
    [{"x": (1, 0)}, {"x": (-1, 0)}, {"x": (0, MOST + 1)}, {"x": (1,)}, {"x": (1, 2, 3)},
     {"x": (1.0, 2)}, {"x": "12"}, {"x": 3}, {"NA": (1, 9)}, {1.5: (1, 9)}, {"x": (True, 2)}],
)  # fmt: skip
def test_what_is_no_interval(wrong):
    with pytest.raises(ValueError, match="f: suppressed must "):
        columns.suppressed_intervals(wrong, "f")


def test_intervals_to_their_ends():
    given = {"a ": (0, 0), "b": [3, MOST], 7: (np.int64(1), 2), "": (1, 9)}
    expected = {"a": (0, 0), "b": (3, MOST), "7": (1, 2), "": (1, 9)}
    assert columns.suppressed_intervals(given, "f") == expected
    assert columns.suppressed_intervals(None, "f") == {}
    with pytest.raises(TypeError, match="suppressed must be a mapping"):
        columns.suppressed_intervals([("x", (1, 2))], "f")


def test_what_to_do_about_missing_counts():
    def said(whole):
        return str(columns.missing_count("f", "n", 3, "row 7", whole_period=whole))

    for whole in (True, False):
        assert "got nan at row 7 (3 such rows). Fill or drop these rows; for periods" in said(whole)
        assert "{'': (1, 9)}" in said(whole)
    with wording("cli"):
        assert "Drop the rows of periods yet to come" in said(True)
        assert "Fill or drop these rows." in said(False) and "--suppressed '=1-9'" in said(False)


# ---- other numbers -------------------------------------------------------------------------------


def test_exposures_to_the_ends_of_float32():
    limits = np.finfo(np.float32)
    good = pd.Series([limits.tiny, 1.0, limits.max], dtype=float)
    assert columns.exposure_values(good, "f", "people", at_row).tolist() == good.tolist()
    for wrong in (0.0, -1.0, limits.tiny / 2, 2 * float(limits.max), np.nan, np.inf):
        with pytest.raises(ValueError, match=r"exposure 'people' .* at row 1 \(1 such rows\)"):
            columns.exposure_values(pd.Series([1.0, wrong]), "f", "people", at_row)


def test_features_to_the_ends_of_float32():
    most = float(np.finfo(np.float32).max)
    assert columns.feature_values(pd.Series([-most, most]), "f", "u", at_row).tolist() == [
        -most,
        most,
    ]
    assert columns.feature_values(pd.Series([True, False]), "f", "u", at_row).tolist() == [1, 0]
    kinds = pd.Series(["1", "2.5"], dtype="category")
    assert columns.feature_values(kinds, "f", "u", at_row).tolist() == [1, 2.5]
    for wrong in (1.1 * most, np.nan, -np.inf):
        with pytest.raises(ValueError, match=r"features 'u' must be finite .* at row 1 \(1 such"):
            columns.feature_values(pd.Series([1.0, wrong]), "f", "u", at_row)
    for cells, message in (
        (["1", "x", "y"], r"must be numeric, got 'x' at row 1 \(2 such rows\).$"),
        (["1", "2,5"], r"got '2,5' at row 1 \(1 such rows\). Pass decimal=\",\" if the comma"),
        ([1j, 2j], "must be numeric"),
        (pd.to_datetime(["2024-01-01"]), r"must be numeric, got Timestamp.* at row 0 \(1 such"),
        (pd.to_timedelta(["1D"]), "must be numeric"),
    ):
        with pytest.raises(ValueError, match=message):
            columns.feature_values(pd.Series(cells), "f", "u", at_row)


def test_absent_rows_take_the_last_value_before_else_the_next():
    """One site with rows at 1 and 3, one with a row at 0, against a walk through time."""
    filled = np.array([[0, 1], [1, 0], [0, 0], [1, 0]], dtype=bool)
    x = np.arange(8.0).reshape(4, 2, 1) * filled[:, :, None]
    columns.fill_forward_then_back(x, filled)
    assert x[:, 0, 0].tolist() == [2, 2, 2, 6] and x[:, 1, 0].tolist() == [1] * 4


def test_counts_may_be_missing_at_the_end_alone():
    nan = np.nan
    ids, times = ["a", "b"], [1, 2, 3]

    def check(y, is_open=None):
        columns.check_missing_counts_last(np.array(y), ids, times, "f", "n", is_open)

    check([[1.0, 2], [3, 4], [nan, nan]])
    check([[nan, nan]] * 3)
    check([[1.0, 2], [3, 4], [5, 6]])
    for y, where in (
        ([[1.0, 2], [nan, nan], [3, 4]], "site 'a' at time 2"),
        ([[1.0, 2], [3, nan], [nan, nan]], "site 'b' at time 2"),
        ([[1.0, 2], [3, 4], [5, nan]], "site 'b' at time 3"),
    ):
        with pytest.raises(ValueError, match=f"at the end only, got none for {where}"):
            check(y)
    is_open = np.array([[True, True], [True, False], [True, True]])
    check([[1.0, 2], [3, nan], [nan, nan]], is_open)


# ---- arrays of a panel ---------------------------------------------------------------------------


def panel(x=None, y=((1, 2), (3, 4)), **changes):
    settings = {"site_ids": ["a", "b"], "times": [7, 8], "feature_names": ["u"]} | changes
    x = np.zeros((2, 2, len(settings["feature_names"]))) if x is None else x
    return tr.Panel(x, np.array(y, dtype=float), **settings)


def changed(values, t, s, value):
    values = np.array(values, dtype=float)
    values[t, s] = value
    return values


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.zeros((2, 2))}, r"x must have shape \[T, S, P\], got \[2, 2\]"),
        ({"x": np.zeros((2, 3, 1))}, r"y must have shape \[T, S\] = \[2, 3\], got \[2, 2\]"),
        ({"x": np.zeros((0, 2, 1)), "y": np.zeros((0, 2))}, "at least one period and one site"),
        ({"x": np.zeros((2, 0, 1)), "y": np.zeros((2, 0))}, "at least one period and one site"),
        ({"site_ids": ["a"]}, r"site_ids must have 2 entries for x \[2, 2, 1\], got 1"),
        ({"times": [7, 8, 9]}, r"times must have 2 entries for x \[2, 2, 1\], got 3"),
        ({"x": np.zeros((2, 2, 3))}, r"feature_names must have 3 entries .*, got 1"),
        ({"site_ids": ["a", "a"]}, "site_ids must be distinct, got 'a' more than once"),
        ({"times": [7, 7]}, "times must be distinct, got 7 more than once"),
        ({"times": [8, 7]}, "times must ascend, got 7 after 8"),
        ({"x": changed(np.zeros((2, 2)), 1, 0, np.nan)[:, :, None]}, "site 'a', time 8"),
        ({"y": [[1, 2], [3, 2.5]]}, "from 0 to 16777216, got 2.5 for site 'b' at time 8.$"),
        ({"y": [[1, -1], [3, 4]]}, "got -1 for site 'b' at time 7"),
        ({"y": [[1, MOST + 2], [3, 4]]}, "got 1.67772e.07 for site 'b' at time 7"),
        ({"y": [[1, 2], [np.nan, np.nan]]}, "got nan for site 'a' at time 8. For periods yet to"),
        ({"exposure": np.ones((2, 1))}, r"exposure must have shape \[T, S\] = \[2, 2\], got"),
        ({"exposure": changed(np.ones((2, 2)), 1, 0, 0)}, "got 0 for site 'a' at time 8"),
        ({"exposure": changed(np.ones((2, 2)), 0, 1, np.inf)}, "got inf for site 'b' at time 7"),
        ({"y_upper": np.ones((2, 1))}, r"y_upper must have shape \[T, S\] = \[2, 2\], got"),
        ({"y_upper": changed([[1, 2], [3, 4]], 1, 1, 3)}, "got 3 with y = 4 for site 'b' at"),
        ({"y_upper": changed([[1, 2], [3, 4]], 1, 1, 4.5)}, "got 4.5 with y = 4 for site 'b'"),
        ({"y_upper": changed([[1, 2], [3, 4]], 0, 0, MOST + 2)}, "with y = 1 for site 'a' at"),
        ({"y_upper": changed([[1, 2], [3, 4]], 0, 0, np.nan)}, "got nan with y = 1 for site 'a'"),
        ({"history_y": [[1.0]]}, r"history_y must have shape \[H, 2\], got \[1, 1\]"),
        ({"history_y": [1.0, 2.0]}, r"history_y must have shape \[H, 2\], got \[2\]"),
        ({"history_y": [[1.0, 2], [3, 4.5]]}, "got 4.5 for site 'b' at time '1 before 7'"),
        ({"history_y": [[1.0, -2], [3, 4]]}, "got -2 for site 'b' at time '2 before 7'"),
        ({"history_times": [6]}, "history_times must come with history_y, got it alone"),
        ({"history_y": [[1.0, 2]], "history_times": [5, 6]}, "history_times must have 1 entries"),
        ({"history_y": [[1.0, 2]], "history_times": [7]}, "history_times must ascend and end"),
        ({"opened": [1.0]}, r"opened must be 2 finite times or NaN, one per site, got shape \[1\]"),
        ({"closed": [1.0, np.inf]}, "closed must be 2 finite times or NaN"),
        ({"opened": [np.nan, 8.0]}, "NaN where a site is not open, got 2 for site 'b' at"),
    ],
)  # fmt: skip
def test_which_cell_of_a_panel_is_wrong(changes, message):
    with pytest.raises(ValueError, match=f"^Panel: .*{message}"):
        panel(**changes)


def test_what_a_panel_takes_to_the_last_value():
    nan = np.nan
    made = panel(
        y=[[0, MOST], [3, 4]], y_upper=[[0, MOST], [3, MOST]], exposure=[[1e-9, 1], [1, 1]]
    )
    assert made.y_upper.tolist() == [[0, MOST], [3, MOST]]
    assert panel(y_upper=[[1, 2], [3, 4]]).y_upper is None  # exact
    to_come = panel(y=[[1, 2], [nan, nan]], y_upper=[[1, 3], [nan, nan]], counts="optional")
    assert to_come.has_counts.tolist() == [True, False]
    some = panel(y=[[1, nan], [3, 4]], opened=[nan, 8])
    assert some.is_open.tolist() == [[True, False], [True, True]]
    past = panel(history_y=[[9.0, 9.0], [5.0, 6.0]])
    assert past.history_y.tolist() == [[9, 9], [5, 6]]
    for wrong in ("text", [["a", "b"], ["c", "d"]]):
        with pytest.raises(TypeError, match="Panel: exposure must be a tensor or array of numbers"):
            panel(exposure=wrong)
    with pytest.raises(TypeError, match="Panel: site_ids must be strings, got 3"):
        panel(site_ids=["a", 3])
    assert checks.as_float32(np.ones((2, 2))[:, ::-1], "y").dtype == torch.float32


def test_the_order_of_names():
    have = ["site1", "site2", "site3"]

    def order(want, exact=False):
        return checks.order(have, want, "site_ids", "site", exact=exact)

    assert order(["site3", "site1"]) == [2, 0]
    assert order(["site2", "site3", "site1"], True) == [1, 2, 0]
    with pytest.raises(
        ValueError, match=r"got 1 site\(s\) that it lacks: 'site4'. The nearest site"
    ):
        order(["site1", "site4"])
    with pytest.raises(ValueError, match=r"it lacks: 'elsewhere'. Add their rows"):
        order(["elsewhere"])
    with pytest.raises(ValueError, match=r"got 2 unknown site\(s\) in the panel: 'site2', 'site3'"):
        order(["site1"], True)
    with pytest.raises(ValueError, match="must be distinct, got 'site1' more than once"):
        order(["site1", "site1"])
