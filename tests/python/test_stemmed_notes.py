"""Notes on times: windows of days or hours, anchors and half-lives that do not suit them."""

import warnings

import numpy as np
import pandas as pd
import pytest

import topreach as tr


def table(days, number=80, seed=0):
    rng = np.random.default_rng(seed)
    times = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.sort(rng.uniform(0, days, number)), "D")
    return pd.DataFrame({"t": times.floor("h"), "place": rng.choice(["a", "b"], number)})


def events(days, **more):
    end = pd.Timestamp("2024-01-01") + pd.Timedelta(days=days - 1)
    window = ("2024-01-01", str(end.date()))
    return tr.Events.from_frame(table(days), time="t", place="place", window=window, **more)


def notes_of(model, given):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model.fit(given)
    assert [str(w.message) for w in said] == [f"Stemmed.fit: {note}" for note in model.notes_]
    return " ".join(model.notes_)


def test_an_anchor_longer_than_the_window_is_said():
    short = notes_of(tr.models.Stemmed(), events(60))
    assert "The anchor, 12 months, is longer than the window, 60 days: forecasts relax" in short
    assert "The anchor" not in notes_of(tr.models.Stemmed(anchor=1.0), events(60))
    assert "The anchor" not in notes_of(tr.models.Stemmed(), events(400))
    assert "The anchor" not in notes_of(tr.models.Stemmed(anchor=None), events(60))


def test_a_half_life_of_hours_is_said_or_refused():
    hours = tr.models.Stemmed(half_life=3 / (24 * 30.4375), anchor=None)
    given = events(59)  # January and 28 days of February
    last = int((given.times > 31).sum())
    said = notes_of(hours, given)
    assert "The half-life, 0.12 days, is shorter than a block of time, 29.5 days" in said
    assert f"rests on the last block, {last} of 80 events" in said
    assert "half-life" not in notes_of(tr.models.Stemmed(half_life=2.0, anchor=None), given)
    early = tr.Events.from_frame(
        table(20), time="t", place="place", window=("2024-01-01", "2024-02-29")
    )
    with pytest.raises(ValueError, match="half_life must be so long that events count, got 0.0041"):
        tr.models.Stemmed(half_life=0.0041).fit(early)


def test_a_unit_of_time_that_is_hardly_a_month_is_said():
    times = pd.DataFrame({"t": np.linspace(1, 1400, 60), "place": ["a", "b"] * 30})
    hours = tr.Events.from_frame(times, time="t", place="place", window=(0, 1440))
    said = notes_of(tr.models.Stemmed(), hours)
    assert "one of their units stands for a month: the window is 1440 units of time long" in said
    months = tr.Events.from_frame(
        times.assign(t=times["t"] / 12), time="t", place="place", window=(0, 120)
    )
    assert "stands for a month" not in notes_of(tr.models.Stemmed(), months)


def test_a_window_that_begins_within_a_day_is_said():
    days = table(30).assign(t=lambda d: d["t"].dt.strftime("%Y-%m-%d"))
    first = int((days["t"] == "2024-01-02").sum())
    given = tr.Events.from_frame(
        days, time="t", place="place", window=("2024-01-02 12:00", "2024-01-31")
    )
    assert any(
        f"begins at 2024-01-02 12:00, within one day of {first} event(s)" in note
        for note in given.notes
    )
    whole = tr.Events.from_frame(days, time="t", place="place", window=("2024-01-02", "2024-01-31"))
    assert not any("begins at" in note for note in whole.notes)
