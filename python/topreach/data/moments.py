"""Moments in continuous time: the span that a date covers, and how exactly times are known."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from topreach._C import Calendar

from .times import Times, plain, read_times

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
UNITS = (*_SECONDS, "week", "month", "quarter", "year")


@dataclass(frozen=True)
class Resolution:
    """How exactly times are known: an event at `floor` lies in (floor, floor + width).

    unit: for dates, one of `UNITS`; "" for numbers that are `step` apart, or exact (step 0).
    """

    unit: str
    step: float

    @classmethod
    def read(cls, given: Any, dates: bool, name: str) -> Resolution:
        if isinstance(given, Resolution):
            return given
        if isinstance(given, str) and dates and given in UNITS:
            return cls(given, 1.0)
        if isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given < np.inf:
            if given == 0 or not dates:
                return cls("", float(given))
        wanted = (
            f"one of {', '.join(map(repr, UNITS))}, or 0 for exact times"
            if dates
            else "a number >= 0"
        )
        raise ValueError(f"{name}: resolution must be {wanted}, got {given!r}.")

    @classmethod
    def find(cls, times: Times) -> Resolution:
        """The resolution of a column of times. For dates, the coarsest unit that their format
        writes and in which all are whole; for numbers, 1 if all are whole, else exact."""
        values = times.values
        if not times.dates:
            return cls("", 1.0 if len(values) and (values == np.floor(values)).all() else 0.0)
        unit = written_unit(times)
        if unit != "clock":
            return cls(unit, 1.0)
        seconds = np.round(values * 86_400).astype(np.int64)
        for unit in ("day", "hour", "minute"):
            if (seconds % _SECONDS[unit] == 0).all():
                return cls(unit, 1.0)
        return cls("second", 1.0)

    def floor(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The beginning of the step that each time lies in, and the step's length."""
        if not self.unit:
            if self.step == 0:
                return values, np.zeros_like(values)
            floor = np.floor(values / self.step + 1e-9) * self.step
            return floor, np.full_like(values, self.step)
        if self.unit in _SECONDS:
            length = _SECONDS[self.unit]
            seconds = np.round(values * 86_400).astype(np.int64) // length * length
            return seconds / 86_400, np.full_like(values, length / 86_400)
        calendar = unit_calendar(self.unit)
        distinct, at = np.unique(values, return_inverse=True)
        index = [calendar.index(v) for v in distinct.tolist()]
        floor = np.array([calendar.at(i) for i in index])[at.reshape(values.shape)]
        after = np.array([calendar.at(i + 1) for i in index])[at.reshape(values.shape)]
        return floor, after - floor

    def __str__(self) -> str:
        if self.unit:
            return f"one {self.unit}"
        return f"{self.step:g}" if self.step else "exact"


def unit_calendar(unit: str) -> Calendar:
    """Periods of one unit: weeks begin on Mondays, quarters in January."""
    return Calendar(unit, 1, -3.0 if unit == "week" else 0.0)


def written_unit(times: Times) -> str:
    """The unit of a date's format: "day", "week", "month", "quarter" or "year", or "clock" if it
    has a time of day."""
    form = times.format
    if times.unit in ("week", "month", "quarter", "year"):
        return times.unit
    if re.search("%-?H", form):
        return "clock"
    if not form or re.search("%-?d", form):
        return "day"
    if re.search("%-?V", form):
        return "week"
    if "%q" in form:
        return "quarter"
    return "month" if re.search("%[-^]*[mbB]", form) else "year"


def read_moment(
    value: Any, name: str, argument: str, *, dates: bool, end: bool, time_format: str | None = None
) -> float:
    """A moment as a number: the start of the period that the value names or, if `end`, its end: of
    the day for "2023-03-31", of the month for "2023-03". A time of day or a number stays as it is.

    Raises:
        ValueError: not a time, or one of another kind than the table's.
    """
    value = plain(value)
    read = None
    if dates and time_format is not None:
        try:
            read = read_times([value], name, argument, time_format=time_format)
        except ValueError:
            pass  # written in another format than the table
    if read is None:
        read = read_times([value], name, argument, time_format=None if dates else "number")
    if read.dates != dates:
        kind = "a date such as '2021-03-31'" if dates else "a number, as the times are"
        raise ValueError(f"{name}: {argument} must be {kind}, got {value!r}.")
    first = float(read.values[0])
    unit = written_unit(read) if dates else ""
    if not end or unit in ("", "clock"):
        return first
    calendar = unit_calendar(unit)
    return calendar.at(calendar.index(first) + 1)


def moment_label(value: float, dates: bool) -> str:
    """A moment in words: "2021-03-31", with its time of day unless that is midnight."""
    if not dates:
        return f"{value:g}"
    form = "%Y-%m-%d" if float(value).is_integer() else "%Y-%m-%d %H:%M"
    return Calendar("day", 1, 0, form).label(value)


def end_label(value: float, dates: bool) -> str:
    """The last day that ends at a moment: "2021-03-31" for the midnight after it."""
    return moment_label(value - 1 if dates and float(value).is_integer() else value, dates)
