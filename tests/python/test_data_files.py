"""Times in mixed or ambiguous formats, plain files of another kind or version, and joined
records."""

from __future__ import annotations

import io
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import topreach as tr
from topreach.data.csv_files import read_csv, read_header
from topreach.data.files import load_plain
from topreach.data.sites import warn_of_changed_sites
from topreach.data.times import read_times


def at_row(i):
    return f" at row {i}"


def test_the_first_date_that_can_be_read_in_two_ways_is_named():
    """Not 01/01/2021, which is the same either way."""
    message = r"got '02/03/2021' at row 1, whose day and month .* time_format=\"%d/%m/%Y\" or"
    with pytest.raises(ValueError, match=message):
        read_times(["01/01/2021", "02/03/2021", "03/02/2021"], "f", "t", at_row)
    read = read_times(["01/01/2021", "13/01/2021"], "f", "t", at_row)  # one way alone
    assert (read.values[1] - read.values[0], read.format) == (12, "%d/%m/%Y")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["2021-01", "2021-02", "x"], "hold numbers, dates or date strings .* 'x' at row 2"),
        (["2021-01-30", "2021-02-30"], "dates that exist, .* got '2021-02-30' at row 1"),
        (["2021-01", "2021-02-01"], "in one way throughout, got '2021-01' at row 0 and "
         "'2021-02-01' at row 1"),
        (["2021", "2021-02"], "in one way throughout, got '2021' at row 0 and '2021-02' at row 1"),
        ([2021, "x"], "all numbers or all dates, got both: 2021 at row 0 and 'x' at row 1"),
        ([202101, 202153, 202140], "may be a year and a week, got 202153 at row 1"),
        ([2021.0, float("inf")], "be finite, got inf at row 1"),
        ([pd.Timestamp("2021-01-01"), pd.NaT], "be finite, got NaT at row 1"),
        (["2021-01-01 00:00+01:00", "2021-01-02 00:00+02:00"], "one UTC offset, got .* at row 0 "
         "and .* at row 1"),
        ([pd.Timestamp("2021-01-01"), pd.Timestamp("2021-01-02", tz="UTC")], "one time zone, got "
         ".* at row 0 and .* at row 1"),
        ([pd.Timestamp("2021-01-01"), pd.Timestamp("2021-01-02 00:00:00.5")], "whole seconds, got "
         ".* at row 1"),
    ],
)  # fmt: skip
def test_which_time_is_wrong(given, message):
    with pytest.raises(ValueError, match=f"f: t must .*{message}"):
        read_times(given, "f", "t", at_row)


def test_one_time_written_in_two_ways():
    table = pd.DataFrame({"s": "a", "t": ["2021", "2020", "2020.0"], "n": [1, 2, 3]})
    with pytest.raises(ValueError, match="must write each time one way, got '2020' and '2020.0'"):
        tr.Panel.from_frame(table, site="s", time="t", count="n")


def test_repeated_rows_are_named_and_summed():
    table = pd.DataFrame(
        {"s": ["a", "b", "a", "a"], "t": [1, 1, 1, 1], "n": [1, 2, 3, 4], "u": [0.0, 1, 3, 6]}
    )
    names = {"site": "s", "time": "t", "count": "n"}
    message = r"got 2 more, the first for site 'a' at time 1 \(row 0 and row 2\)"
    with pytest.raises(ValueError, match=message):
        tr.Panel.from_frame(table, **names)
    summed = tr.Panel.from_frame(table, **names, duplicates="sum")
    assert summed.y.tolist() == [[8, 2]] and summed.x[0, :, 0].tolist() == [3, 1]
    for duplicates in ("error", "sum"):
        once = tr.Panel.from_frame(table[:2], **names, duplicates=duplicates)
        assert once.y.tolist() == [[1, 2]] and once.x[0, :, 0].tolist() == [0, 1]


def test_plain_files_of_another_kind_or_version(tmp_path):
    path = tmp_path / "x.pt"

    def load(content):
        torch.save(content, path)
        return load_plain(path, "f", "own", 3, "checkpoint")

    good = {"format": "own", "format_version": 3, "a": 1}
    assert load(good) == good
    for version, advice in ((4, "Update topreach to read it"), (2, "Make it again"),
                            ("4", "Make it again"), (None, "Make it again")):  # fmt: skip
        with pytest.raises(ValueError, match=f"format_version 3, got {version!r}. {advice}"):
            load(good | {"format_version": version})
    for other in ({"format": "other", "format_version": 3}, [1], {"a": 1}):
        with pytest.raises(ValueError, match="f: checkpoint must be a file of format 'own'"):
            load(other)
    path.write_bytes(b"text")
    with pytest.raises(ValueError, match="must be a whole file .*, which cannot be read"):
        load_plain(path, "f", "own", 3, "checkpoint")
    for nothing in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match="f: checkpoint .* must be a file, got none"):
            load_plain(nothing, "f", "own", 3, "checkpoint")


def test_standard_input_is_read_once_for_each_stream(monkeypatch):
    """Its header and then its table; another stream is another table."""

    def stream(text):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text)))

    stream(b"a;b\n1;2\n")
    assert read_header("-", "f") == ["a", "b"]
    assert read_csv("-", "f").to_numpy().tolist() == [[1, 2]]
    stream(b"c,d\n3,4\n5,6\n")
    assert read_csv("-", "f").to_dict("list") == {"c": [3, 5], "d": [4, 6]}
    assert read_header("-", "f") == ["c", "d"]
    stream(b"")
    with pytest.raises(ValueError, match="f: standard input must hold a table, got nothing"):
        read_csv("-", "f")


def test_an_event_on_the_last_day_leaves_the_window_as_it_is():
    """Records complete through February stay so; a later event moves both ends."""
    table = pd.DataFrame({"day": ["2024-01-05", "2024-02-09"], "town": ["A", "B"]})
    events = tr.Events.from_frame(
        table, time="day", place="town", window=("2024-01", "2024-03"), complete_through="2024-02"
    )
    for day, end, complete in (
        ("2024-03-30", "2024-03", "2024-02"),
        ("2024-03-31", "2024-03", "2024-02"),
        ("2024-04-30", "2024-04", "2024-04"),
    ):
        joined = events.append(pd.DataFrame({"day": [day], "town": ["A"]}))
        assert joined.num_events == 3
        assert joined.end == events.moment(end, end=True)
        assert joined.complete_through == events.moment(complete, end=True)


def test_a_past_that_is_known_to_intervals():
    """Joined panels are exact if both are; known counts of either stay known."""

    def panel(year, high=None):
        upper = None if high is None else [[high, 2.0]]
        return tr.Panel(np.zeros((1, 2, 0)), [[1.0, 2.0]], ["a", "b"], [year], [], y_upper=upper)

    for before, after, upper in (
        (None, None, None),
        (5.0, None, [[5, 2], [1, 2]]),
        (None, 7.0, [[1, 2], [7, 2]]),
        (5.0, 7.0, [[5, 2], [7, 2]]),
    ):
        joined = panel(2001, after).with_history(panel(2000, before))
        assert joined.is_exact == (upper is None)
        assert joined.at_bound("lower").timeline.tolist() == [[1, 2], [1, 2]]
        assert joined.at_bound("upper").timeline.tolist() == (upper or [[1, 2], [1, 2]])


@pytest.mark.parametrize(("periods", "said"), [(2, False), (3, True), (4, True)])
def test_a_site_that_ended_is_named_from_three_periods_on(periods, said):
    """A thousand events a period, then none, among sites that stay as they are."""
    y = np.full((periods, 10), 1000.0)
    y[-1, 3] = 0
    ids = [f"s{i}" for i in range(10)]
    rows, labels = np.ones(y.shape, bool), list(range(2000, 2000 + periods))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        warn_of_changed_sites(ids, y, None, rows, labels, "f")
    texts = [str(w.message) for w in found]
    assert len(texts) == said
    if said:
        assert f"some sites have ended: 's3' (last in {labels[-2]})" in texts[0]


def test_why_a_count_before_is_not_known():
    """It lies before all known counts, or a site of a known period lacks it."""
    past = tr.Panel(
        np.zeros((1, 2, 0)), [[1, 2]], ["a", "b"], [2001], [], history_y=[[np.nan, 1.0]]
    )
    with pytest.raises(ValueError, match="the count of 2000 is not known. Rank one period ahead"):
        past.batch(1)
    with pytest.raises(ValueError, match="the count of 1999 is not known. Pass a smaller window"):
        past.batch(2)
