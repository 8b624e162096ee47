"""Columns of times: one format for a whole column, or an error that names two of its rows.

Numbers stay numbers, except that YYYYMM and YYYYMMDD are months and days if every value has that
form. Text is matched against the usual forms of dates, months, quarters and ISO weeks. A form is
found from the first value and must fit all others; nothing is guessed cell by cell. A column that
can be read in two ways, such as 01/02/2021, is refused until `time_format` says which.
"""

from __future__ import annotations

import datetime
import numbers
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from topreach._C import Calendar

from . import time_doubts
from .messages import option

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_CLOCK = r"(?P<clock>[T ]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?)?(?P<zone>Z|[+-]\d{2}:?\d{2})?"
_YEAR = r"(?P<year>\d{4}|\d{2})"
_NAME = r"(?P<name>[A-Za-z]{3,9})"
_FIRST, _LAST = 1900, 2100  # years that YYYYMM and YYYYMMDD may lie in
_FREQUENCIES = {"Y": "year", "A": "year", "Q": "quarter", "M": "month", "W": "week", "D": "day"}
# The calendar's grid may have at most 100 periods for each period with a row, and 1000 more.
_GRID_FACTOR, _GRID_SLACK = 100, 1000


@dataclass(frozen=True)
class Times:
    """Times of a column as numbers.

    values: float64 [n]: numbers, or days since 1970-01-01. dates: whether they are days. unit: of
    the periods; "" if only the gaps show it. format: how they are written (see `Calendar`).
    """

    values: np.ndarray
    dates: bool
    unit: str = ""
    format: str = ""


def plain(value: Any) -> Any:
    """Plain Python for NumPy and torch scalars, so that equal times compare equal."""
    if isinstance(value, np.datetime64):
        return pd.Timestamp(value)
    if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.ndim == 0):
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def read_times(
    given: Sequence[Any],
    name: str,
    argument: str,
    where: Callable[[int], str] = lambda i: "",
    *,
    time_format: str | None = None,
    calendar: Calendar | None = None,
) -> Times:
    """Times [n] as numbers.

    Args:
        given: numbers, date objects (Python, NumPy, pandas), periods, or text.
        name, argument: the function and the argument to name in errors.
        where: " at row 7" for position i, for errors.
        time_format: how text is written: a strftime pattern (see `Calendar`), or "number" to take
            numbers as they are. None: inferred.
        calendar: one whose format is tried first.

    Raises:
        TypeError: a value that is not a time. ValueError: text in no known form, in several forms,
            or in one that can be read in two ways; mixed kinds or UTC offsets.
    """
    given = [plain(t) for t in given]
    texts = [t.strip() if isinstance(t, str) else None for t in given]
    is_text = [t is not None for t in texts]
    is_number = [isinstance(t, numbers.Real) and not isinstance(t, bool) for t in given]
    is_date = [isinstance(t, datetime.date | pd.Period) and t is not pd.NaT for t in given]
    for i, t in enumerate(given):
        if t is pd.NaT:
            raise ValueError(f"{name}: {argument} must be finite, got {t!r}{where(i)}.")
        if not (is_text[i] or is_number[i] or is_date[i]):
            raise TypeError(
                f"{name}: {argument} must hold numbers, dates or date strings, got {t!r}{where(i)}."
            )
    context = (name, argument, where)
    if time_format is not None and not all(is_date):
        return _by_format(given, texts, time_format, context)
    if calendar is not None and calendar.is_dates and not any(is_date):
        written = [str(t) if text is None else text for t, text in zip(given, texts, strict=True)]
        values, bad = _parse(calendar, written)
        if bad is None:
            return Times(values, True, calendar.unit, calendar.format)
    numeric = [
        number or (text is not None and _NUMBER.fullmatch(text) is not None)
        for number, text in zip(is_number, texts, strict=True)
    ]
    if calendar is not None and not calendar.is_dates and all(numeric):
        return _numbers(given, texts, context, plain_only=True)
    if any(is_date):
        if not all(is_date):
            raise _both_kinds(given, is_date, context)
        return _date_objects(given, context)
    if all(numeric):
        return _numbers(given, texts, context)
    if any(is_number):
        raise _both_kinds(given, is_number, context)
    return _texts(given, [t for t in texts if t is not None], context)


def _both_kinds(given: Sequence[Any], kind: Sequence[bool], context: tuple) -> ValueError:
    name, argument, where = context
    i, j = kind.index(True), kind.index(False)
    return ValueError(
        f"{name}: {argument} must be all numbers or all dates, got both: {given[i]!r}{where(i)} "
        f"and {given[j]!r}{where(j)}."
    )


# ---- numbers and date objects --------------------------------------------------------------------


def _numbers(
    given: Sequence[Any], texts: Sequence[str | None], context: tuple, *, plain_only: bool = False
) -> Times:
    name, argument, where = context
    values = np.array(
        [float(t) if text is None else float(text) for t, text in zip(given, texts, strict=True)]
    )
    if not np.isfinite(values).all():
        i = int(np.argmin(np.isfinite(values)))
        raise ValueError(f"{name}: {argument} must be finite, got {given[i]!r}{where(i)}.")
    if plain_only:
        return Times(values, False)
    written = [text for text in texts if text is not None]
    if len(written) == len(given) and given:
        # Two decimals throughout, which are the number of a month.
        for pattern, form in (
            (r"(18|19|20|21)\d\d\.(0[1-9]|1[0-2])", "%Y.%m"),
            (r"(0[1-9]|1[0-2])\.(18|19|20|21)\d\d", "%m.%Y"),
        ):
            if all(re.fullmatch(pattern, text) for text in written):
                return Times(_parse(Calendar("day", 1, 0, form), written)[0], True, "", form)
    if not len(values):
        return Times(values, False)
    whole = bool((values == np.floor(values)).all())
    low, high = values.min(), values.max()
    if whole and _FIRST * 100 < low and high < (_LAST + 1) * 100:
        last = values % 100
        if ((last >= 1) & (last <= 12)).all():
            form = "%Y%m"
            return Times(_parse(Calendar("day", 1, 0, form), _digits(values))[0], True, "", form)
        if ((last >= 1) & (last <= 53)).all():
            i = int(np.argmax(last > 12))
            raise ValueError(
                f"{name}: {argument} must not hold numbers that may be a year and a week, got "
                f"{given[i]!r}{where(i)}. Pass {option('time_format', '%G%V')} if they are ISO "
                f"weeks, or {option('time_format', 'number')} if they are plain numbers."
            )
    if whole and _FIRST * 10_000 < low and high < (_LAST + 1) * 10_000:
        parsed, bad = _parse(Calendar("day", 1, 0, "%Y%m%d"), _digits(values))
        if bad is None:
            return Times(parsed, True, "", "%Y%m%d")
    _refuse(time_doubts.of_numbers(values, texts), "numbers", given, context)
    return Times(values, False)


def _refuse(
    doubt: time_doubts.Doubt | None, kind: str, given: Sequence[Any], context: tuple
) -> None:
    """An error where a column reads as one thing and is likely another."""
    if doubt is None:
        return
    name, argument, where = context
    i = doubt.position
    raise ValueError(
        f"{name}: {argument} must not hold {kind} that may be {doubt.what}, got "
        f"{given[i]!r}{where(i)}. {doubt.advice}"
    )


def _digits(values: np.ndarray) -> list[str]:
    return [str(int(v)) for v in values]


def _date_objects(given: Sequence[Any], context: tuple) -> Times:
    name, argument, where = context
    unit, fiscal = "", False
    periods = [isinstance(t, pd.Period) for t in given]
    if any(periods):
        frequencies = {t.freqstr if p else None for t, p in zip(given, periods, strict=True)}
        if len(frequencies) > 1:
            raise ValueError(
                f"{name}: {argument} must be periods of one frequency, got "
                f"{', '.join(sorted(map(str, frequencies)))}."
            )
        found = re.match(r"\d*([A-Za-z])\w*(?:-(\w+))?", str(frequencies.pop()))
        unit = _FREQUENCIES.get(found[1] if found else "", "")
        fiscal = found is not None and found[2] not in (None, "DEC")
        given = [t.to_timestamp() for t in given]
    zones = [str(getattr(t, "tzinfo", None)) for t in given]
    if len(set(zones)) > 1:
        i = next(i for i, zone in enumerate(zones) if zone != zones[0])
        raise ValueError(
            f"{name}: {argument} must have one time zone, got {given[0]!s}{where(0)} and "
            f"{given[i]!s}{where(i)}. Write all in one zone, or dates without one."
        )
    stamps = [pd.Timestamp(t).tz_localize(None) for t in given]
    values = np.array([s.toordinal() - 719_163 + _clock(s) / 86_400 for s in stamps], dtype=float)
    seconds = {_clock(s) for s in stamps}
    if any(s % 1 for s in seconds):
        i = next(i for i, s in enumerate(stamps) if _clock(s) % 1)
        raise ValueError(
            f"{name}: {argument} must be whole seconds, got {given[i]!s}{where(i)}. Count the "
            "events by period first."
        )
    # A fiscal year or quarter is named by its first day: its number is another than the date's.
    form = "" if unit in ("quarter", "year", "month") and not fiscal else "%Y-%m-%d"
    if seconds != {0}:
        form = "%Y-%m-%d %H:%M" + (":%S" if any(s % 60 for s in seconds) else "")
    return Times(values, True, unit, form)


def _clock(stamp: pd.Timestamp) -> float:
    whole = stamp.hour * 3600 + stamp.minute * 60 + stamp.second
    return whole + stamp.microsecond / 1e6 + stamp.nanosecond / 1e9


# ---- text ----------------------------------------------------------------------------------------


def _texts(given: Sequence[Any], texts: Sequence[str], context: tuple) -> Times:
    name, argument, where = context
    _refuse(time_doubts.of_texts(texts), "texts", given, context)
    found: list[Times] = []
    best = -1
    for form, unit in _forms(texts[0]):
        parsed = _parse_leniently(form, texts)
        if isinstance(parsed, int):
            best = max(best, parsed)
            continue
        values, used = parsed
        if not any(np.array_equal(values, other.values) for other in found):
            found.append(Times(values, True, unit, used))
    if len(found) == 1:
        _refuse(_months_doubt(found[0]), "months", given, context)
        return found[0]
    if found:
        ways = " or ".join(f"{option('time_format', t.format)}" for t in found)
        i = int(np.argmax(found[0].values != found[1].values))
        raise ValueError(
            f"{name}: {argument} must be dates that can be read in one way only, got "
            f"{given[i]!r}{where(i)}, whose day and month may be the other way round. Pass {ways}."
        )
    # No form reads the whole column: name the first value, and one that differs from it.
    i = max(best, 0)
    if _NUMBER.fullmatch(texts[0]):
        i = next(j for j, t in enumerate(texts) if not _NUMBER.fullmatch(t))
    other = texts[i]
    if not _forms(other) and not _NUMBER.fullmatch(other):
        raise ValueError(
            f"{name}: {argument} must hold numbers, dates or date strings such as '2021-03', got "
            f"{given[i]!r}{where(i)}. Other forms need {option('time_format', '%d.%m.%Y')} or the "
            "like."
        )
    if i == 0 or (
        not _NUMBER.fullmatch(other)
        and all(isinstance(_parse_leniently(form, [other]), int) for form, _ in _forms(other))
    ):  # of a known form, but not a date, e.g. 2021-02-30
        raise ValueError(
            f"{name}: {argument} must hold dates that exist, months in English, got "
            f"{given[i]!r}{where(i)}."
        )
    first, second = (re.search(r":\d{2}(?:\.\d+)?(Z|[+-]\d{2}:?\d{2})?$", texts[j]) for j in (0, i))
    if first and second and first[1] != second[1]:
        raise ValueError(
            f"{name}: {argument} must have one UTC offset, got {given[0]!r}{where(0)} and "
            f"{given[i]!r}{where(i)}. Write all with one offset, or dates without a clock time."
        )
    raise ValueError(
        f"{name}: {argument} must be written in one way throughout, got {given[0]!r}{where(0)} and "
        f"{given[i]!r}{where(i)}. Write all alike."
    )


def _months_doubt(times: Times) -> time_doubts.Doubt | None:
    if not re.fullmatch(r"%Y.%-?m|%-?m.%Y", times.format):
        return None
    months = times.values.astype("datetime64[D]").astype("datetime64[M]").astype(int)
    return time_doubts.of_months(
        times.format, (1970 + months // 12).tolist(), (1 + months % 12).tolist()
    )


def _forms(text: str) -> list[tuple[str, str]]:
    """The formats that a text may be in, each with its unit ("" if only the gaps show it)."""
    forms: list[tuple[str, str]] = []

    def matched(pattern: str) -> re.Match[str] | None:
        return re.fullmatch(pattern, text)

    if m := matched(rf"\d{{4}}([-/.])\d{{1,2}}\1\d{{1,2}}{_CLOCK}"):
        forms.append((f"%Y{m[1]}%m{m[1]}%d{_clock_form(m)}", ""))
    if m := matched(rf"\d{{1,2}}([-/.])\d{{1,2}}\1{_YEAR}{_CLOCK}"):
        s, year, clock = m[1], _year_form(m["year"]), _clock_form(m)
        forms.append((f"%d{s}%m{s}{year}{clock}", ""))
        if s != ".":  # no one writes the month first with points
            forms.append((f"%m{s}%d{s}{year}{clock}", ""))
        if year == "%y" and s == "-":
            forms.append((f"%y{s}%m{s}%d{clock}", ""))
    if m := matched(r"\d{4}([-/. ])\d{1,2}"):
        forms.append((f"%Y{m[1]}%m", ""))
    if m := matched(r"\d{1,2}([-/.])\d{4}"):
        forms.append((f"%m{m[1]}%Y", ""))
    if m := matched(r"\d{4}([-/ ]?[Qq])[1-4]"):
        forms.append((f"%Y{m[1]}%q", "quarter"))
    if m := matched(rf"([Qq])[1-4]([-/ ']*){_YEAR}"):
        forms.append((f"{m[1]}%q{m[2]}{_year_form(m['year'])}", "quarter"))
    if m := matched(rf"[1-4]([Qq][-/ ']*){_YEAR}"):
        forms.append((f"%q{m[1]}{_year_form(m['year'])}", "quarter"))
    if m := matched(r"\d{4}(-?[Ww])\d{1,2}(-1)?"):
        forms.append((f"%G{m[1]}%V{m[2] or ''}", "week"))
    if m := matched(rf"{_NAME}([-/ .,']*){_YEAR}"):
        forms += [(f"{n}{m[2]}{_year_form(m['year'])}", "") for n in _name_forms(m["name"])]
    if m := matched(rf"(?P<year>\d{{4}})([-/ ]?){_NAME}"):
        forms += [(f"%Y{m[2]}{n}", "") for n in _name_forms(m["name"])]
    if m := matched(rf"\d{{1,2}}([-/ .]*){_NAME}([-/ .,]*){_YEAR}{_CLOCK}"):
        tail = _year_form(m["year"]) + _clock_form(m)
        forms += [(f"%d{m[1]}{n}{m[3]}{tail}", "") for n in _name_forms(m["name"])]
    if m := matched(rf"{_NAME}([. ]+)\d{{1,2}}([, ]+){_YEAR}"):
        tail = _year_form(m["year"])
        forms += [(f"{n}{m[2]}%d{m[3]}{tail}", "") for n in _name_forms(m["name"])]
    return forms


def _year_form(year: str) -> str:
    return "%Y" if len(year) == 4 else "%y"


def _name_forms(word: str) -> list[str]:
    flag = "^" if word.isupper() else ""
    return [f"%{flag}{letter}" for letter in ("b" if len(word) == 3 else "", "B") if letter]


def _clock_form(match: re.Match[str]) -> str:
    clock, zone = match["clock"] or "", match["zone"] or ""
    if not clock:
        return zone
    parts = clock[1:].split(":")
    form = f"{clock[0]}%H:%M"
    if len(parts) == 3:
        form += ":%S" + parts[2][2:]
    return form + zone


def _parse(calendar: Calendar, texts: Sequence[str]) -> tuple[np.ndarray, int | None]:
    """Texts read by a calendar's format, and the position of the first that it cannot read."""
    values = np.empty(len(texts))
    for i, text in enumerate(texts):
        try:
            values[i] = calendar.parse(text)
        except ValueError:
            return values, i
    return values, None


def _parse_leniently(form: str, texts: Sequence[str]) -> tuple[np.ndarray, str] | int:
    """Values and format, or the position of the first text that cannot be read. Numbers may lack
    their leading zero if all of them do."""
    values, bad = _parse(Calendar("day", 1, 0, form), texts)
    if bad is None:
        return values, form
    short = re.sub(r"%([mdHV])", r"%-\1", form)
    values, still = _parse(Calendar("day", 1, 0, short), texts)
    if still is None:
        return values, short
    return max(bad, still)


def _by_format(
    given: Sequence[Any], texts: Sequence[str | None], time_format: str, context: tuple
) -> Times:
    name, argument, where = context
    written = [str(t) if text is None else text for t, text in zip(given, texts, strict=True)]
    if time_format == "number":
        bad = next((i for i, t in enumerate(written) if not _NUMBER.fullmatch(t)), None)
        if bad is not None:
            raise ValueError(
                f"{name}: {argument} must hold numbers for {option('time_format', 'number')}, got "
                f"{given[bad]!r}{where(bad)}."
            )
        return Times(np.array([float(t) for t in written]), False)
    if "%" not in time_format:
        raise ValueError(
            f"{name}: time_format must be a strftime pattern such as '%d/%m/%Y', or 'number', got "
            f"{time_format!r}."
        )
    try:
        Calendar("day", 1, 0, time_format)
    except ValueError as error:
        raise ValueError(f"{name}: time_format: {error}") from None
    parsed = _parse_leniently(time_format, written)
    if isinstance(parsed, int):
        raise ValueError(
            f"{name}: {argument} must be written as time_format {time_format!r}, got "
            f"{given[parsed]!r}{where(parsed)}."
        )
    values, form = parsed
    unit = "quarter" if "%q" in form else "week" if re.search("%-?V", form) else ""
    return Times(values, True, unit, form)


# ---- periods -------------------------------------------------------------------------------------


def make_calendar(times: Times, name: str, argument: str, calendar: Calendar | None) -> Calendar:
    """The calendar of times, or `calendar` if it is given and they lie on it.

    Raises:
        ValueError: times without a common step; times of another kind than the calendar's, or that
            are not the start of one of its periods; so few times over so long a span that one of
            them must be wrong.
    """
    values = np.unique(times.values)
    if calendar is None:
        try:
            calendar = Calendar.infer(values.tolist(), times.dates, times.unit, times.format)
        except ValueError as error:
            advice = "Count the events by period first." if times.dates else "Mend the times."
            raise ValueError(
                f"{name}: {argument} must be periods of one length: {error}. {advice}"
            ) from None
    else:
        if calendar.is_dates != times.dates:
            own = Calendar.infer(values.tolist(), times.dates, times.unit, times.format)
            calendar.check_same(name, own)
        off = [v for v in values.tolist() if not calendar.begins(v)]
        if off:
            shown = Calendar("day", 1, off[0]).label(off[0]) if times.dates else f"{off[0]:g}"
            raise ValueError(
                f"{name}: {argument} must begin a period of the calendar ({calendar.describe()}), "
                f"got {shown}."
            )
    span = calendar.distance(values[0], values[-1]) + 1
    if span > _GRID_FACTOR * len(values) + _GRID_SLACK:
        gap = int(np.argmax(np.diff(values)))
        raise ValueError(
            f"{name}: {argument} must not leave so many periods out, got {len(values)} of "
            f"{span} ({calendar.describe()}): none between {calendar.label(values[gap])} and "
            f"{calendar.label(values[gap + 1])}. Is one of them wrong?"
        )
    return calendar


def time_value(time: Any, calendar: Calendar) -> float | None:
    """A time in any form that can be read, as a number; None if no period begins then."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read = read_times([time], "time", "time", calendar=calendar)
        if read.dates != calendar.is_dates:
            return None
        value = float(read.values[0])
        return value if calendar.begins(value) else None
    except (TypeError, ValueError):
        return None
