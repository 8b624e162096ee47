"""Reading tables of events: times, types, marks, places, windows; and the message of each error."""

import copy
import doctest
import gzip
import importlib
import pickle
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import topreach as tr
from topreach.cli import main
from topreach.data.event_marks import MarkScaler

COLUMNS = {"time": "day", "place": "town", "types": ["heroin", "fentanyl"], "id": "case"}


def table(**changes) -> pd.DataFrame:
    columns = {
        "case": ["c1", "c2", "c3", "c4"],
        "day": ["2024-01-05", "2024-01-05", "2024-02-09", "2024-03-31"],
        "town": ["B", "A", "B", "A"],
        "heroin": [1, 0, 1, 1],
        "fentanyl": [0, 1, 1, 0],
        "age": [20.0, 40.0, 60.0, 40.0],
        "sex": ["M", "F", "M", "M"],
        "seen": ["2024-01-05", "2024-01-20", "2024-02-10", "2024-04-01"],
    }
    return pd.DataFrame(columns | changes)


def read(df=None, **options) -> tr.Events:
    options = COLUMNS | {"window": ("2024-01-01", "2024-03-31")} | options
    return tr.Events.from_frame(table() if df is None else df, **options)


def at(times, **options) -> tr.Events:
    """Events at one place, of one type."""
    df = pd.DataFrame({"t": times, "town": "A"})
    return tr.Events.from_frame(df, time="t", place="town", **options)


def test_a_table_that_stands_twice_is_said():
    one = pd.DataFrame({"t": np.arange(8.0), "town": list("ABABABAB")})
    columns = {"time": "t", "place": "town"}

    def said(df, **more):
        notes = tr.Events.from_frame(df, **columns, **more).notes
        return [n for n in notes if n.startswith("Every row stands in the table more than once")]

    twice = pd.concat([one, one], ignore_index=True)
    assert len(said(twice)) == 1 and not said(one)
    assert not said(twice.iloc[:-1])  # one row stands there once
    assert not said(twice.assign(case=range(16)), id="case")


def test_a_table_becomes_arrays():
    events = read(marks=["age", "sex"])
    assert events.places == ["A", "B"] and events.types == ["heroin", "fentanyl"]
    assert events.nodes == [("A", "heroin"), ("A", "fentanyl"), ("B", "heroin"), ("B", "fentanyl")]
    assert (events.num_events, events.num_nodes, events.duration) == (4, 4, 91.0)
    row = {i: n for n, i in enumerate(events.ids)}
    whole = [int(events.times[row[i]]) for i in ("c1", "c2", "c3", "c4")]
    assert whole == [4, 4, 39, 90]
    assert [events.place[row[i]].item() for i in ("c1", "c2", "c3", "c4")] == [1, 0, 1, 0]
    assert events.flags[row["c3"]].tolist() == [True, True]
    assert events.mark_names == ["age", "sex=F"]
    age = np.array([20, 40, 60, 40])
    assert events.marks[[row[i] for i in ("c1", "c2", "c3", "c4")], 0].numpy() == pytest.approx(
        (age - age.mean()) / age.std(), abs=1e-15
    )
    assert events.marks[row["c2"], 1] == 1 and events.marks[:, 1].sum() == 1
    assert bool((events.times.diff() >= 0).all())


def test_an_event_is_shifted_by_its_id_alone():
    events = read()
    for n, i in enumerate(events.ids):
        shift = tr._C.Events.shifts([i])[0]
        assert 0 < shift < 1
        assert events.times[n].item() % 1 == pytest.approx(shift, abs=1e-10)
    # Neither the order of rows nor other rows matter; without ids, the content is the id.
    for options in ({}, {"id": None}):
        one = read(**options)
        other = read(table().iloc[[2, 0, 3, 1]], **options)
        assert one.ids == other.ids and torch.equal(one.times, other.times)
        fewer = read(table().iloc[:2], **options)
        assert set(fewer.times.tolist()) <= set(one.times.tolist())
    twice = pd.concat([table()] * 2)
    one, other = read(twice, id=None), read(twice.iloc[::-1], id=None)
    assert len(set(one.ids)) == 8 and one.ids == other.ids and torch.equal(one.times, other.times)


@pytest.mark.parametrize(
    ("times", "unit", "step"),
    [
        (["2024-01-05", "2024-03-01"], "day", 1),
        (["2024-01-05 00:00", "2024-03-01 00:00"], "day", 1),
        (["2024-01-05 13:00", "2024-03-01 00:00"], "hour", 1),
        (["2024-01-05 13:05", "2024-03-01 00:00"], "minute", 1),
        (["2024-01-05 13:05:07", "2024-03-01 00:00:00"], "second", 1),
        (["2024-01", "2024-03"], "month", 1),
        (["2024Q1", "2024Q2"], "quarter", 1),
        (["2024-W05", "2024-W06"], "week", 1),
        ([20240105, 20240301], "day", 1),
        (list(pd.to_datetime(["2024-01-05", "2024-03-01"])), "day", 1),
        (list(pd.to_datetime(["2024-01-05 06:30", "2024-03-01 00:00"])), "minute", 1),
        (list(pd.PeriodIndex(["2024-01", "2024-03"], freq="M")), "month", 1),
        ([3, 17], "", 1),
        ([3.25, 17.0], "", 0),
    ],
)
def test_resolution_is_found(times, unit, step):
    events = at(times)
    assert (events.resolution.unit, events.resolution.step) == (unit, step)
    # Each event lies strictly within its step of the window, which is made of whole ones.
    if step:
        assert bool((events.times > 0).all()) and bool((events.times < events.duration).all())
    else:
        assert events.times.diff().item() == 13.75


def test_resolution_can_be_set():
    days = at(["2024-01-05 23:59", "2024-01-06 00:01"], resolution="day")
    assert (days.times // 1).tolist() == [0, 1] and days.duration == 2
    times = ["2024-01-05 12:00", "2024-01-06 18:00"]
    exact = at(times, resolution=0, window=("2024-01-05", "2024-01-06"))
    assert exact.times.tolist() == [0.5, 1.75]
    months = at(["2024-02-10"] * 300, resolution="month")
    assert months.duration == 29
    assert months.times.min() < 2 and months.times.max() > 27  # (29/30)^300 < 1e-4 each
    fifths = at([0.23, 0.41], resolution=0.2, window=(0, 1))
    assert (fifths.times / 0.2).floor().tolist() == [1, 2]


def test_parts_of_a_second_are_dropped():
    times = pd.to_datetime(["2024-01-05 13:05:07.25", "2024-01-05 13:05:08.75"])
    events = at(times, resolution=0, window=("2024-01-05", "2024-01-05"))
    assert (events.times * 86_400).round(decimals=6).tolist() == [47107, 47108]


def test_exact_times_are_kept():
    events = at([0.31, 0.93, 0.93], window=(0, 4.25))
    assert events.times.tolist() == [0.31, 0.93, 0.93] and events.duration == 4.25


@pytest.mark.parametrize(
    ("window", "start", "end"),
    [
        (("2024-01-01", "2024-03-31"), "2024-01-01", "2024-04-01"),
        (("2024-01", "2024-03"), "2024-01-01", "2024-04-01"),
        (("2023Q4", "2024Q1"), "2023-10-01", "2024-04-01"),
        (("2024-01-01 06:00", "2024-04-01 12:00"), "2024-01-01 06:00", "2024-04-01 12:00"),
        ((pd.Timestamp("2024-01-01"), pd.Timestamp("2024-03-31")), "2024-01-01", "2024-04-01"),
        ((20240101, 20240331), "2024-01-01", "2024-04-01"),
    ],
)
def test_a_windows_days_belong_to_it_as_a_whole(window, start, end):
    events = read(window=window)
    day = [
        (pd.Timestamp(t) - pd.Timestamp("1970-01-01")) / pd.Timedelta("1D") for t in (start, end)
    ]
    assert [events.start, events.end] == pytest.approx(day, abs=1e-9)
    assert events.complete_through == events.end


def test_without_a_window_a_note_says_what_it_is():
    events = read(window=None)
    assert events.duration == 87  # from 5 January to 31 March
    assert any("2024-01-05 to 2024-03-31" in note for note in events.notes)


def test_history_and_complete_through():
    events = read(window=("2024-02-01", "2024-06-30"), complete_through="2024-02")
    assert (events.times <= 0).sum() == 2 and events.duration == 29
    assert events.end - events.start == 151
    summary = events.summary().set_index("type")
    assert summary.loc["all", ["events", "history"]].tolist() == [1, 2]
    assert summary.loc["heroin", "alone"] == 0


# ---- types, marks, places ------------------------------------------------------------------------


def test_types_in_each_form():
    flags = read()
    joined = table(drugs=["heroin", "fentanyl", "fentanyl; heroin", "heroin"])
    listed = read(joined, types="drugs", types_sep=";")
    assert listed.types == ["fentanyl", "heroin"] and listed.ids == flags.ids
    assert torch.equal(listed.flags[:, [1, 0]], flags.flags)
    mapped = read(types={"opioid": ["heroin", "fentanyl"], "heroin": "heroin"})
    assert mapped.flags[:, 0].all() and mapped.flags[:, 1].sum() == 3
    assert read(types=None).types == ["event"]
    single = read(joined.iloc[[0, 1, 3]], types="drugs")
    assert single.types == ["fentanyl", "heroin"]
    words = table(heroin=[True, False, True, True], fentanyl=["0", "1", "TRUE", "false"])
    assert torch.equal(read(words).flags, flags.flags)


def test_other_is_a_type_of_its_own():
    events = read(table(heroin=[0, 0, 1, 1]), other="other")
    assert events.types == ["heroin", "fentanyl", "other"]
    assert events.flags.sum(dim=0).tolist() == [2, 2, 1]


def test_overlap():
    events = read(overlap="primary")
    assert events.flags.sum(dim=1).tolist() == [1] * 4
    assert events.flags.sum(dim=0).tolist() == [3, 1]
    joined = table(drugs=["heroin", "fentanyl", "fentanyl;heroin", "heroin"])
    first = read(joined, types="drugs", types_sep=";", overlap="primary")
    assert first.flags.sum(dim=0).tolist() == [2, 2]  # the first in its cell
    sets = read(overlap="sets")
    assert sets.types == ["fentanyl", "heroin", "heroin+fentanyl"]
    assert sets.flags.sum(dim=0).tolist() == [1, 2, 1]


def test_constant_marks_are_left_out_with_a_note():
    events = read(table(sex="M"), marks=["sex", "age"])
    assert events.mark_names == ["age"]
    assert any("['sex'], which are constant" in note for note in events.notes)


def test_scaler_of_categories():
    frame = pd.DataFrame({"a": ["x", "y", "y", "z"], "n": [1.0, 2.0, 3.0, 6.0]})
    scaler = MarkScaler.fit(frame)
    assert scaler.names == ["n", "a=x", "a=z"]  # y is the most frequent
    assert scaler.transform(frame)[:, 1:].tolist() == [[1, 0], [0, 0], [0, 0], [0, 1]]
    assert scaler.transform(frame)[:, 0].tolist() == pytest.approx(
        [(v - 3) / np.sqrt(3.5) for v in (1, 2, 3, 6)], abs=1e-15
    )
    again = MarkScaler.from_dict(scaler.to_dict())
    assert again == scaler
    new = pd.DataFrame({"a": ["q"], "n": [3.0]})
    with pytest.warns(UserWarning, match="marks 'a' must be among .*They count as 'y'"):
        assert again.transform(new).tolist() == [[0, 0, 0]]
    with pytest.raises(ValueError, match="must have the columns .'a'."):
        scaler.transform(frame[["n"]])


def test_places_from_a_frame():
    places = pd.DataFrame(
        {
            "town": ["B", "C", "A"],
            "lat": [0.0, 0.0, 90.0],
            "lon": [0.0, 90.0, 0.0],
            "poor": [1, 2, 3],
        }
    )
    events = read(places=places)
    assert events.places == ["B", "C", "A"]
    panel = events.counts("month")
    assert panel.feature_names == ["lat", "lon", "poor"] and panel.x[0, 1].tolist() == [0, 90, 2]
    quarter = np.pi / 2 * 6371.0088  # the three places are a quarter of the earth apart
    kilometres = events.distances(scaled=False)
    assert kilometres.numpy() == pytest.approx(quarter * (1 - np.eye(3)), rel=1e-12)
    assert events.distances().max() == 1
    plane = pd.DataFrame({"id": ["A", "B"], "x": [0, 3], "y": [0, 4]})
    assert read(places=plane).distances(scaled=False).tolist() == [[0, 5], [5, 0]]
    assert read(places=["A", "B", "Z"]).num_places == 3
    with pytest.raises(ValueError, match="places must have coordinates, got none. Give places="):
        read().distances()


def test_places_that_may_be_one_are_named():
    with pytest.warns(UserWarning, match="places must differ .*'HARTFORD' and 'Hartford'"):
        read(table(town=["Hartford", "HARTFORD", "A", "A"]))


# ---- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (
            {"day": ["2024-01-05", "2024-13-05", "2024-02-09", "2024-03-31"]},
            {},
            "'2024-13-05' at row 1",
        ),
        (
            {"day": ["2024-01-05", None, "2024-02-09", "2024-03-31"]},
            {},
            "time 'day' must have no missing values, got one at row 1",
        ),
        (
            {"day": ["2024-01-05", " ", "2024-02-09", "2024-03-31"]},
            {},
            "time 'day' must have no missing values, got one at row 1",
        ),
        ({"day": ["2024-01-05", "soon"] * 2}, {}, "got 'soon' at row 1"),
        (
            {"town": ["B", None, "B", "A"]},
            {},
            "place 'town' must have no missing values, got one at row 1",
        ),
        (
            {"town": ["B", "", "B", "A"]},
            {},
            "place 'town' must have no empty ids, got one at row 1",
        ),
        (
            {"heroin": [1, 0, 2, 1]},
            {},
            "types 'heroin' must hold 0 or 1, got 2 at row 2 (1 such rows). Write 1 where",
        ),
        ({"heroin": [1, 0, np.nan, 1]}, {}, "types 'heroin' must hold 0 or 1, got nan at row 2"),
        ({"heroin": ["Y", "0", "1", "1"]}, {}, "types 'heroin' must hold 0 or 1, got 'Y' at row 0"),
        (
            {"heroin": [0, 0, 1, 1]},
            {},
            "must have a 1 in each row, got none at row 0 (1 such rows). Drop these rows, or give "
            'them a type of their own: other="other".',
        ),
        ({}, {"other": "heroin", "types": ["heroin"]}, "other must be a name that is not among"),
        (
            {"case": ["c1", "c2", "c1", "c4"]},
            {},
            "id 'case' must be distinct, got 'c1' at row 0 and at row 2",
        ),
        (
            {"case": ["c1", None, "c3", "c4"]},
            {},
            "id 'case' must have no missing values, got one at row 1",
        ),
        (
            {},
            {"window": ("2024-01-01", "2024-03-30")},
            "time 'day' must not lie after the window's end, 2024-03-30, got 2024-03-31 at row 3",
        ),
        (
            {"age": [1, 2, np.nan, 4]},
            {"marks": ["age"]},
            "marks 'age' must hold finite numbers with none missing, got nan at row 2",
        ),
        (
            {"sex": ["M", None, "M", "F"]},
            {"marks": ["sex"]},
            "marks 'sex' must hold texts with none missing, got nan at row 1 (1 such rows). Fill "
            "them in, write a category such as 'unknown', or leave the column out of marks.",
        ),
        (
            {"town": ["B", "Bee", "B", "A"]},
            {"places": ["A", "Be"]},
            "place 'town' must be one of places at row 0, got 'B'. Did you mean 'Be'?",
        ),
        (
            {"seen": ["2024-01-05", "2024-01-04", "2024-02-10", "2024-04-01"]},
            {"reported": "seen"},
            "reported 'seen' must not come before the event (column 'day'), got '2024-01-04' for "
            "'2024-01-05' at row 1",
        ),
        ({"seen": [1, 2, 3, 4]}, {"reported": "seen"}, "reported 'seen' must hold dates as time"),
        (
            {"drugs": ["u", "", "v", "w"]},
            {"types": "drugs"},
            "must name a type in each row, got none at row 1",
        ),
        ({}, {"types": ["heroine"]}, "types must be one of the columns, got 'heroine'"),
        ({}, {"types": []}, "types must name at least one column"),
        (
            {},
            {"types": ["heroin", "heroin"]},
            "types and marks must be different columns, got 'heroin' twice",
        ),
        ({}, {"time": "town"}, "time, place, reported and id must be different columns"),
        ({}, {"types_sep": ";"}, "types_sep must come with types, the name of one column"),
        ({}, {"other": "x", "types": None}, "other must come with types as several 0/1 columns"),
        ({}, {"overlap": "both"}, "overlap must be one of 'flags', 'primary', 'sets'"),
        ({}, {"resolution": "fortnight"}, "resolution must be one of 'second', "),
        ({}, {"resolution": 3}, "resolution must be one of 'second', "),
        (
            {},
            {"window": ("2024-04-01", "2024-03-31")},
            "window must have start < complete_through <= end",
        ),
        ({}, {"window": "2024"}, "window must be (start, end), got '2024'"),
        ({}, {"window": (2024, 2025)}, "window must be a date such as '2021-03-31', got 2024"),
        (
            {},
            {"complete_through": "2024-04-01"},
            "start < complete_through <= end, got 2024-01-01, 2024-04-01 and 2024-03-31",
        ),
        ({}, {"places": ["A", "A", "B"]}, "places must be distinct ids"),
        (
            {},
            {"places": pd.DataFrame({"x": [1]})},
            "places must have a column 'town', 'id' or 'place'",
        ),
        (
            {},
            {"places": pd.DataFrame({"id": ["A", "B", "A"]})},
            "places must have a row for each id, got 'A' again at row 2 of places",
        ),
        (
            {},
            {"places": pd.DataFrame({"id": ["A", "B"], "lat": [1, 95], "lon": [0, 0]})},
            "lat within 90 and lon within 360 degrees, got [95.0, 0.0] at row 1 of places",
        ),
        (
            {},
            {"places": pd.DataFrame({"id": ["A", "B"], "lat": [1, np.nan], "lon": [0, 0]})},
            "places 'lat' must hold finite numbers, got nan at row 1 of places",
        ),
    ],
)
def test_refusals_name_row_and_column(change, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read(table(**change), **options)


def test_other_refusals():
    with pytest.raises(TypeError, match="df must be a pandas DataFrame, got list"):
        tr.Events.from_frame([], time="t", place="p")
    with pytest.raises(TypeError, match="marks must be a list of columns, got 'age'"):
        read(marks="age")
    with pytest.raises(TypeError, match="types must be a column, a list of columns or a mapping"):
        read(types=3)
    with pytest.raises(TypeError, match="places must be a list of ids or a DataFrame, got str"):
        read(places="A")
    with pytest.raises(ValueError, match="the table must have at least one row"):
        read(table().iloc[:0])
    with pytest.raises(ValueError, match="resolution must be a number >= 0, got 'day'"):
        at([1.0, 2.0], resolution="day")
    with pytest.raises(ValueError, match="window must hold numbers for .*got '2024-01-01'"):
        at([1.0, 2.0], window=("2024-01-01", "2024-02-01"))


def test_a_window_may_be_written_as_the_times_are():
    days = ["03/02/2024", "01/03/2024"]
    options = {"time_format": "%d/%m/%Y"}
    one = at(days, window=("01/02/2024", "31/03/2024"), **options)
    other = at(days, window=("2024-02-01", "2024-03-31"), **options)
    assert (one.start, one.end) == (other.start, other.end) and one.duration == 60
    assert one.until("05/02/2024").num_events == 1


# ---- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sep", "encoding"), [(",", "utf-8"), (";", "utf-16"), ("\t", "latin-1")])
def test_csv_is_the_same_as_a_frame(tmp_path, sep, encoding):
    path = tmp_path / "events.csv"
    df = table(case=["007", "08", "é", "c4"], town=["1", "02", "1", "02"])
    df.to_csv(path, sep=sep, encoding=encoding, index=False)
    options = COLUMNS | {
        "marks": ["age", "sex"],
        "reported": "seen",
        "window": ("2024-01", "2024-04"),
    }
    given = {"encoding": encoding} if encoding == "latin-1" else {}
    events = tr.Events.from_csv(path, **options, **given)
    frame = tr.Events.from_frame(df, **options)
    assert events.places == ["1", "02"] and events.ids == frame.ids
    for one, other in zip(
        (events.times, events.place, events.flags, events.marks),
        (frame.times, frame.place, frame.flags, frame.marks),
        strict=True,
    ):
        assert torch.equal(one, other)
    pd.testing.assert_frame_equal(events.to_frame(), frame.to_frame())


def test_csv_refusals_name_the_line(tmp_path):
    path = tmp_path / "events.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("case,day,town,heroin,fentanyl\n1,2024-01-05,A,1,0\n\n2,2024-01-06,A,0,3\n")
    with pytest.raises(ValueError, match="types 'fentanyl' must hold 0 or 1, got 3 at line 4"):
        tr.Events.from_csv(path, **COLUMNS)
    with pytest.raises(ValueError, match="time must be one of the columns, got 'date'"):
        tr.Events.from_csv(path, **COLUMNS | {"time": "date"})
    with tr.data.wording("cli"), pytest.raises(ValueError, match="^the table: types 'fentanyl'"):
        tr.Events.from_csv(path, **COLUMNS)


def test_to_frame_can_be_read_again():
    events = read(marks=["age", "sex"], reported="seen", window=("2024-01", "2024-04"))
    frame = events.to_frame()
    assert list(frame.columns) == [
        "id", "time", "days", "place", "heroin", "fentanyl", "age", "sex", "reported",
    ]  # fmt: skip
    again = tr.Events.from_frame(
        frame,
        time="time",
        place="place",
        types=["heroin", "fentanyl"],
        marks=["age", "sex"],
        reported="reported",
        id="id",
        window=("2024-01", "2024-04"),
    )
    assert torch.equal(again.times, events.times) and torch.equal(again.marks, events.marks)


def test_to_csv_is_what_cpp_reads(tmp_path):
    events = read(table(town=['O"Neil, West', "A", "A", "A"]), marks=["age", "sex"])
    path = tmp_path / "events.csv"
    events.to_csv(path)
    core = tr._C.Events.read_csv(str(path))
    assert core.places == events.places and core.ids == events.ids
    assert np.array_equal(core.times, events.times) and np.array_equal(core.marks, events.marks)
    assert np.array_equal(core.flags, events.flags) and core.dates
    assert (core.start, core.end) == (events.start, events.end - events.start)


def test_pickle_and_copy():
    events = read(marks=["age"], reported="seen", window=("2024-01", "2024-04"))
    for other in (pickle.loads(pickle.dumps(events)), copy.deepcopy(events)):
        assert other.ids == events.ids and torch.equal(other.times, events.times)
        assert torch.equal(other.marks, events.marks) and other.notes == events.notes
        assert other.until("2024-02").ids == events.until("2024-02").ids


def test_repr():
    assert repr(read()) == "Events(4 events, 2 places, 2 types, 0 marks, 2024-01-01 to 2024-03-31)"
    assert repr(read(complete_through="2024-02")).endswith("complete through 2024-02-29)")


@pytest.mark.parametrize("module", ["events", "event_changes", "event_counts", "event_marks"])
def test_examples_in_the_docstrings(module):
    found = importlib.import_module(f"topreach.data.{module}")
    names = {"Events": tr.Events, "pd": pd}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = doctest.testmod(found, extraglobs=names)
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize("wrong", ["2091-03-05", "1900-01-01", "2031-01-01"])
def test_a_wrong_year_does_not_stretch_the_window(tmp_path, capsys, wrong):
    rng = np.random.default_rng(0)
    days = pd.to_datetime("2019-01-01") + pd.to_timedelta(np.sort(rng.integers(0, 900, 200)), "D")
    table = pd.DataFrame({"date": days.strftime("%Y-%m-%d"), "town": rng.choice(list("abc"), 200)})
    assert tr.Events.from_frame(table, time="date", place="town").num_events == 200
    table.loc[7, "date"] = wrong
    with pytest.raises(
        ValueError, match=rf"time 'date' must not lie far from .* got {wrong} at row 7"
    ):
        tr.Events.from_frame(table, time="date", place="town")
    table.to_csv(tmp_path / "e.csv", index=False)
    words = ["fit", "--events", str(tmp_path / "e.csv"), "--time", "date", "--place", "town"]
    words += ["--k", "1", "--out", str(tmp_path / "m.pt"), "--quiet"]
    assert main(words) == 2
    assert "at line 9" in capsys.readouterr().err
    # Said, the window is what is said: an event before it is history.
    if wrong < "2000":
        assert main([*words, "--start", "2019-01-01", "--end", "2021-06-30"]) == 0
    # Events that are few and far between are no mistake.
    few = table[:0].assign(date=[], town=[])
    few["date"], few["town"] = ["2001-01-01", "2001-02-01", wrong], ["a", "b", "a"]
    assert tr.Events.from_frame(few, time="date", place="town").num_events == 3
