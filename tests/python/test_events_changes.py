"""Events as known at a date: reports, uploads, corrections and deletions, and past states."""

import re

import numpy as np
import pandas as pd
import pytest
import torch

import topreach as tr

COLUMNS = {"time": "day", "place": "town", "types": ["u", "v"], "id": "case", "marks": ["age"]}


def table(rows) -> pd.DataFrame:
    """Rows (case, day, town, u, v, age, seen)."""
    return pd.DataFrame(rows, columns=["case", "day", "town", "u", "v", "age", "seen"])


FIRST = table(
    [
        ("c1", "2024-01-05", "A", 1, 0, 20.0, "2024-01-06"),
        ("c2", "2024-01-20", "B", 0, 1, 30.0, "2024-03-02"),
        ("c3", "2024-02-10", "A", 1, 1, 40.0, "2024-02-10"),
        ("c4", "2024-02-28", "B", 1, 0, 50.0, "2024-03-01"),
    ]
)
LATER = table(
    [
        ("c5", "2024-02-27", "A", 1, 0, 60.0, "2024-04-15"),
        ("c6", "2024-04-10", "B", 0, 1, 70.0, "2024-04-11"),
    ]
)


def read(df=FIRST, **options) -> tr.Events:
    return tr.Events.from_frame(df, **(COLUMNS | {"window": ("2024-01", "2024-03")} | options))


def same(one: tr.Events, other: tr.Events) -> None:
    assert one.ids == other.ids and one.places == other.places and one.types == other.types
    for field in ("times", "place", "flags", "marks"):
        assert torch.equal(getattr(one, field), getattr(other, field)), field
    assert (one.start, one.end, one.complete_through) == (
        other.start,
        other.end,
        other.complete_through,
    )


def test_until_without_reports_is_the_table_cut_there():
    events = read()
    then = events.until("2024-02-10")
    assert then.ids == ["c1", "c2", "c3"]
    assert then.duration == 41  # 10 February belongs to it
    assert events.until("2024-02-09").ids == ["c1", "c2"]
    same(then, read(FIRST.iloc[:3], window=("2024-01-01", "2024-02-10")))  # marks scaled anew
    assert events.until("2024-01").ids == ["c1", "c2"]
    same(events.until("2025-01-01"), events)
    assert then.until("2024-01-31").ids == ["c1", "c2"]


def test_until_goes_by_reports():
    events = read(reported="seen", complete_through="2024-02-29")
    # A record is known from the end of the day of its report.
    for day, known in (("2024-01-05", []), ("2024-01-06", ["c1"])):
        assert events.until(day, complete_through=day).ids == known
    assert events.until("2024-03-01").ids == ["c1", "c3", "c4"]
    assert events.until("2024-03-02").ids == ["c1", "c2", "c3", "c4"]
    # Records were then complete as long before as they are now: 31 days.
    assert events.until("2024-03-02").duration == 31
    assert events.until("2024-03-02", complete_through="2024-02-20").duration == 51
    assert events.until("2024-02-10").ids == ["c1", "c3"]


def test_before_the_first_event_there_are_none():
    events = read().until("2024-01-04")
    assert events.num_events == 0 and events.places == ["A", "B"] and events.duration == 4
    assert events.counts("day").y.sum() == 0 and events.summary()["events"].tolist() == [0, 0, 0]
    assert events.recent_rate([0.0, 4.0]).values.shape == (1, 4, 1)
    assert events.append(LATER).num_events == 2


def test_append_equals_the_whole_table():
    both = pd.concat([FIRST, LATER], ignore_index=True)
    whole = read(both, window=("2024-01", "2024-04"), marks=None)
    for given in (LATER, read(LATER, window=("2024-02-01", "2024-04-30"), marks=None)):
        joined = read(marks=None).append(given, end="2024-04-30", complete_through="2024-04-30")
        same(joined, whole)
    # A table ends with its last event, events with their window.
    assert read().append(LATER).duration == 101
    assert read().append(read(LATER, window=("2024-02", "2024-04"))).duration == 121


def test_appended_marks_are_scaled_as_the_first():
    joined = read().append(LATER)
    age = np.array([20.0, 30, 40, 50])
    by_id = dict(zip(joined.ids, joined.marks[:, 0].tolist(), strict=True))
    assert by_id["c6"] == pytest.approx((70 - age.mean()) / age.std(), abs=1e-14)
    assert by_id["c1"] == pytest.approx((20 - age.mean()) / age.std(), abs=1e-14)


def test_uploads_are_not_known_before():
    events = read().append(LATER, at="2024-05-02")
    assert events.num_events == 6
    assert events.until("2024-05-01").ids == ["c1", "c2", "c3", "c4"]
    assert set(events.until("2024-05-02").ids) == {f"c{i}" for i in range(1, 7)}
    late = read(reported="seen").append(LATER)  # known from the report on
    assert "c5" not in late.until("2024-04-14").ids and "c6" in late.until("2024-04-14").ids


def test_new_types_and_places_stand_at_the_end():
    one = pd.DataFrame({"t": [1.0, 2.0], "town": ["B", "C"], "kind": ["v", "w"]})
    two = pd.DataFrame({"t": [3.0], "town": ["A"], "kind": ["u"]})
    options = {"time": "t", "place": "town", "types": "kind", "resolution": 0}
    events = tr.Events.from_frame(one, **options, window=(0, 2.5)).append(two)
    assert events.places == ["B", "C", "A"] and events.types == ["v", "w", "u"]
    assert events.flags.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert events.times.tolist() == [1, 2, 3] and events.duration == 3
    sets = tr.Events.from_frame(one, **options, window=(0, 2.5), overlap="sets").append(two)
    assert sets.types == ["v", "w", "u"]


def test_a_past_state_can_be_made_again():
    first = read()
    second = first.append(LATER, at="2024-05-02")
    corrected = LATER.iloc[:1].assign(town="B", day="2024-03-03", u=0, v=1)
    third = second.correct(corrected, at="2024-05-10")
    fourth = third.delete(["c1", "c6"], at="2024-06-01")
    assert third.num_events == 6 and third.counts("month").y.tolist() == [[1, 1], [1, 1], [0, 1]]
    c5 = third.ids.index("c5")
    assert third.place[c5] == 1 and third.flags[c5].tolist() == [False, True]
    assert third.label(third.times[c5].item()).startswith("2024-03-03")
    assert set(fourth.ids) == {"c2", "c3", "c4", "c5"}
    for events, date in ((first, "2024-03-31"), (second, "2024-05-02"), (third, "2024-05-10")):
        same(fourth.until(date), events.until(date))
    assert fourth.until("2024-05-09").ids == second.ids
    same(fourth.until("2024-06-01"), fourth.until("2024-12-31"))
    # Nothing is changed in place.
    same(second, first.append(LATER, at="2024-05-02"))


def test_a_corrected_record_keeps_its_place_within_the_day():
    events = read()
    moved = events.correct(FIRST.iloc[[0]].assign(town="B"), at="2024-04-01")
    assert torch.equal(moved.times, events.times) and moved.place[0] == 1


def test_changes_are_seen_by_counts():
    events = read().delete("c3", at="2024-04-01")
    assert events.counts("month").y.tolist() == [[1, 1], [0, 1], [0, 0]]
    assert events.shared_types([91.0]).events.tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda e: e.append(FIRST),
            "other must have new ids, got 'c1', 'c2', 'c3', 'c4'. To change",
        ),
        (
            lambda e: e.correct(LATER, at="2024-05-01"),
            "must have ids of these events, got 'c5', 'c6'",
        ),
        (
            lambda e: e.delete(["c9"], at="2024-05-01"),
            "ids must all be among the events', got 'c9'",
        ),
        (
            lambda e: e.append(LATER, at="2024-04-01"),
            "got '2024-04-01' for one on 2024-04-10 (id 'c6')",
        ),
        (
            lambda e: e.correct(FIRST.iloc[:1], at="2024-05-01").correct(
                FIRST[:1], at="2024-04-30"
            ),
            "before a record's last version, got '2024-04-30' for one of 2024-05-01 (id 'c1')",
        ),
        (
            lambda e: e.append(LATER, at="2024-05-01").delete("c5", at="2024-04-30"),
            "at must not come before a record's last version",
        ),
        (
            lambda e: e.append(LATER, end="2024-04-09"),
            "end must not come before an event, got 2024-04-09 and an event on 2024-04-10",
        ),
        (
            lambda e: e.append(LATER, complete_through="2025-01-01"),
            "end must leave start < complete_through <= end",
        ),
        (
            lambda e: e.append(read(LATER, window=("2024", "2025"), overlap="sets")),
            "window must be a date",
        ),
        (
            lambda e: e.append(read(LATER, window=None, overlap="sets")),
            "other must have times and overlap as here, dates and 'flags', got dates and 'sets'",
        ),
        (
            lambda e: e.append(read(LATER, window=None, marks=None)),
            "other must have the mark columns ['age'], got []",
        ),
        (lambda e: e.append(LATER.assign(day=[1, 2])), "must hold dates as the events so far"),
        (lambda e: e.until("2023-12-31"), "date must leave start < complete_through <= end"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        change(read())


def test_more_refusals():
    with pytest.raises(TypeError, match="other must be Events or a DataFrame, got list"):
        read().append([])
    fixed = read(places=["A", "B"])
    with pytest.raises(ValueError, match="place must be one of places, got 'Z'"):
        fixed.append(read(LATER.assign(town="Z"), window=None))
    with pytest.raises(ValueError, match="place 'town' must be one of places at row 0, got 'Z'"):
        fixed.append(LATER.assign(town="Z"))
    without = read(id=None)
    with pytest.raises(ValueError, match="Are these rows here already"):
        without.append(FIRST)


def test_numbers_as_times():
    df = pd.DataFrame({"t": [1.0, 2.0, 4.0], "town": "A", "case": ["a", "b", "c"]})
    options = {"time": "t", "place": "town", "id": "case", "resolution": 0}
    events = tr.Events.from_frame(df, **options, window=(0, 5))
    assert events.until(2).ids == ["a", "b"] and events.until(2).duration == 2
    fewer = events.delete("a", at=6)
    assert fewer.until(5.5).ids == ["a", "b", "c"] and fewer.end == 6
    days = tr.Events.from_frame(
        df.assign(t=[1, 2, 4]), **options | {"resolution": 1}, window=(0, 5)
    )
    assert days.until(2).ids == ["a"] and days.until(3).ids == ["a", "b"]  # b lies in (2, 3)
