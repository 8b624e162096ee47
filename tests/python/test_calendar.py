"""Calendar, against Python's datetime and pandas' periods."""

import copy
import datetime
import pickle

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topreach import Calendar

EPOCH = datetime.date(1970, 1, 1)
STAMP = pd.Timestamp("1970-01-01")


def days(date):
    return (date - EPOCH).days


@settings(max_examples=500, deadline=None)
@given(st.dates(datetime.date(2, 1, 1), datetime.date(9998, 12, 31)))
def test_every_letter_agrees_with_datetime_and_is_read_back(date):
    year, week, _ = date.isocalendar()
    month = date.strftime("%B")
    expected = {
        "%Y": f"{date.year:04}",
        "%m": f"{date.month:02}",
        "%-m": str(date.month),
        "%d": f"{date.day:02}",
        "%y": f"{date.year % 100:02}",
        "%b": month[:3],
        "%^B": month.upper(),
        "%q": str((date.month + 2) // 3),
        "%G": f"{year:04}",
        "%V": f"{week:02}",
    }
    for letter, text in expected.items():
        assert Calendar("day", 1, 0, letter).label(days(date)) == text
    for form in ("%Y-%m-%d", "%d.%m.%Y", "%-d/%-m/%Y", "%d %b %Y", "%^B %d, %Y", "%Y%m%d"):
        calendar = Calendar("day", 1, 0, form)
        assert calendar.parse(calendar.label(days(date))) == days(date)
    monday = date - datetime.timedelta(days=date.weekday())
    assert Calendar("week", 1, 4, "%G-W%V").parse(f"{year:04}-W{week:02}") == days(monday)


@pytest.mark.parametrize(
    ("unit", "frequency"),
    [
        ("hour", "h"),
        ("day", "D"),
        ("week", "W-SUN"),
        ("month", "M"),
        ("quarter", "Q"),
        ("year", "Y"),
    ],
)
def test_periods_are_those_of_pandas(unit, frequency):
    start = pd.Period("2000-01-03", frequency)
    calendar = Calendar(unit, 1, (start.start_time - STAMP) / pd.Timedelta(days=1))
    for i in range(-300, 300):
        period = start + i
        begins = (period.start_time - STAMP) / pd.Timedelta(days=1)
        ends = (period.end_time.floor("s") - STAMP) / pd.Timedelta(days=1)
        assert calendar.at(i) == pytest.approx(begins, abs=1e-9)
        assert calendar.index(begins) == calendar.index(ends) == i


@pytest.mark.parametrize(
    "frequency", ["ME", "QE", "QE-JAN", "YE", "YE-JUN", "YE-FEB", "MS", "YS-APR"]
)
@pytest.mark.parametrize("number", [2, 3, 6])
def test_the_calendar_of_regular_dates_goes_on_as_pandas_does(frequency, number):
    dates = pd.date_range("1999-02-01", periods=60, freq=frequency)
    values = [float((d - STAMP).days) for d in dates]
    for first in range(20):
        calendar = Calendar.infer(values[first : first + number], True)
        assert [calendar.next(values[first], n) for n in range(40)] == values[first : first + 40]


def test_years_before_christ_and_far_ahead():
    calendar = Calendar("year", 1, 0, "%Y-%m-%d")
    for text in ("-9999-01-01", "-0044-03-15", "0000-02-29", "9999-12-31"):
        assert calendar.label(calendar.parse(text)) == text
    assert (
        calendar.parse("0000-03-01") - calendar.parse("-0001-03-01") == 366
    )  # year 0 is a leap year
    for text in (
        "0001-02-29",
        "2021-13-01",
        "2021-00-01",
        "2021-01-32",
        "2021-1-01",
        "10000-01-01",
    ):
        with pytest.raises(ValueError, match="Calendar.parse: time must be written as"):
            calendar.parse(text)


def test_week_53_exists_in_long_years_only():
    weeks = Calendar("week", 1, 4, "%G-W%V")
    assert weeks.next(weeks.parse("2020-W52"), 2) == weeks.parse("2021-W01")
    assert weeks.label(weeks.parse("2020-W53")) == "2020-W53"
    with pytest.raises(ValueError, match="got '2021-W53'"):
        weeks.parse("2021-W53")


def test_it_is_a_value():
    one = Calendar("quarter", 1, 15340, "%YQ%q")
    for other in (pickle.loads(pickle.dumps(one)), copy.copy(one), copy.deepcopy(one)):
        assert other == one and hash(other) == hash(one)
    assert one != Calendar("quarter", 2, 15340, "%YQ%q") and one != "quarters"
    assert repr(one) == "Calendar(quarters, as 2012Q1)"
    assert repr(Calendar.infer([2019, 2021, 2025], dates=False)) == "Calendar(numbers, 2 apart)"
