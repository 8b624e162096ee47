"""Columns of times that read as one thing and are likely another: 20204 then 20211 as two numbers
that are 7 apart, 2009/10 and 2010/11 as October 2009 and November 2010.

Each check looks at a whole column and names what it may be. The reader then refuses the column
until `time_format` says which.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from topreach._C import Calendar

from .messages import option

_YEARS = (1900, 2100)
# Digits of a part of the year, how many parts there are, and what they are.
_PARTS = (
    (1, (4,), "quarter"),
    (1, (3,), "third of it"),
    (1, (2,), "half of it"),
    (2, (12,), "month"),
    (2, (13,), "four weeks"),
    (2, (52, 53), "week"),
    (3, (365, 366), "day of it"),
)
_DIGITS = ("%m%Y", "%d%m%Y", "%m%d%Y", "%m%y", "%y%m", "%d%m%y", "%m%d%y")
_PLAIN = "if they are plain numbers"
# Day counts: what a number counts, in days, and the number of 1970-01-01.
_EPOCHS = (
    ("days since 1900, as Excel counts them", 1.0, 25_569.0),
    ("seconds since 1970", 86_400.0, 0.0),
    ("milliseconds since 1970", 86_400e3, 0.0),
    ("nanoseconds since 1970", 86_400e9, 0.0),
)


@dataclass(frozen=True)
class Doubt:
    """What a column may be, the position of a value that shows it, and how to say which."""

    what: str
    position: int
    advice: str


def of_numbers(values: np.ndarray, texts: Sequence[str | None]) -> Doubt | None:
    """Numbers [n], distinct, and what was written where that is text."""
    return (
        _leading_zeros(texts)
        or _year_and_part(values)
        or _year_at_the_end(values)
        or _counted_from_an_epoch(values)
    )


def of_months(form: str, years: Sequence[int], months: Sequence[int]) -> Doubt | None:
    """Months of a format such as "%Y-%m", which may be quarters."""
    numbers = np.array(years) * 10 + np.array(months)
    if max(months) > 9:
        return None
    found = _parts(numbers, 1)
    if found is None:
        return None
    position, part = found
    quarters = re.sub(r"%-?m", "%q", form)
    said = (
        f"Pass {option('time_format', quarters)} if they are quarters"
        if part == "quarter"
        else ("Write each by its first month, as 2021-07, if they are not months")
    )
    return Doubt(
        f"a year and a {part}", position, f"{said}, or {option('time_format', form)} if months."
    )


def of_texts(texts: Sequence[str]) -> Doubt | None:
    """Text such as 2009/10, which may be the year from 2009 to 2010."""
    found = [re.fullmatch(r"(\d{4})([-/])(\d{2}|\d{4})", text) for text in texts]
    pairs = [(int(m[1]), m[3], m[2]) for m in found if m is not None]
    if len(pairs) < len(texts):
        return None
    if not all(int(second) == (first + 1) % 10 ** len(second) for first, second, _ in pairs):
        return None
    months = all(len(second) == 2 and 1 <= int(second) <= 12 for _, second, _ in pairs)
    if months and len(pairs) < 2:
        return None
    advice = f"Write the year that each begins in, as {pairs[0][0]}"
    if months:
        advice += f", or pass {option('time_format', f'%Y{pairs[0][2]}%m')} if they are months"
    return Doubt("years from one to the next", 0, advice + ".")


def _leading_zeros(texts: Sequence[str | None]) -> Doubt | None:
    for i, text in enumerate(texts):
        if text is None or not re.fullmatch(r"0\d{3,}", text):
            continue
        fitting = [form for form in _DIGITS if all(_is_read(form, t) for t in texts)]
        forms = " or ".join(option("time_format", form) for form in fitting)
        said = f"Pass {forms}, whichever they are" if fitting else "Write dates as 2021-03-01"
        return Doubt("dates without separators", i, f"{said}, {_or_number()}")
    return None


def _is_read(form: str, text: str | None) -> bool:
    try:
        Calendar("day", 1, 0, form).parse(text or "")
    except ValueError:
        return False
    return True


def _year_and_part(values: np.ndarray) -> Doubt | None:
    for scale, point in ((1, ""), (10, "."), (100, ".")):
        whole = np.round(values * scale)
        if scale > 1 and (values == np.floor(values)).all():
            break
        if not np.allclose(whole, values * scale, rtol=0, atol=1e-6 * scale):
            continue
        for digits in (1, 2, 3) if scale == 1 else (len(str(scale)) - 1,):
            found = _parts(whole.astype(np.int64), digits)
            if found is None:
                continue
            position, part = found
            form = {"quarter": f"%Y{point}%q", "month": "%y%m" if scale == 1 else ""}.get(part, "")
            said = (
                f"Pass {option('time_format', form)} if they are"
                if form
                else "Write them as dates, as 2021-03-01, if they are"
            )
            return Doubt(f"a year and a {part}", position, f"{said}, {_or_number()}")
    return None


def _parts(numbers: np.ndarray, digits: int) -> tuple[int, str] | None:
    """Whether numbers are a year and a part of it in so many digits: the parts go from 1 to their
    number, and then begin again in the next year. The position of one that begins, and the part."""
    order = np.argsort(numbers, kind="stable")
    head, part = np.divmod(numbers[order], 10**digits)
    in_full = (head >= _YEARS[0]).all() and (head <= _YEARS[1]).all()
    if not in_full and not (digits == 2 and (head >= 0).all() and (head <= 99).all()):
        return None
    turns = np.flatnonzero(np.diff(head))
    if not len(turns) or (np.diff(head)[turns] != 1).any() or (part < 1).any():
        return None
    if (part[turns + 1] != 1).any():
        return None
    for size, numbers_of, noun in _PARTS:
        ends = np.isin(part[turns], numbers_of).all()
        if size == digits and ends and part.max() <= max(numbers_of):
            return int(order[turns[0] + 1]), noun
    return None


def _year_at_the_end(values: np.ndarray) -> Doubt | None:
    if (values != np.floor(values)).any() or values.min() < 10_000 or values.max() >= 1e8:
        return None
    head, year = np.divmod(values.astype(np.int64), 10_000)
    if (year < _YEARS[0]).any() or (year > _YEARS[1]).any() or len(np.unique(head)) < 2:
        return None
    low, high = head % 100, head // 100
    months = (high == 0).all() and (low <= 12).all()
    days = (high >= 1).all() and (low >= 1).all() and (np.maximum(low, high) <= 31).all()
    if not months and not (days and ((low <= 12).all() or (high <= 12).all())):
        return None
    return Doubt("dates that end in the year", 0, f"Write dates as 2021-03-01, {_or_number()}")


def _counted_from_an_epoch(values: np.ndarray) -> Doubt | None:
    ordered = np.sort(values)
    if len(ordered) < 3 or len(np.unique(np.diff(ordered))) == 1:
        return None
    for what, unit, epoch in _EPOCHS:
        days = (ordered - epoch) / unit
        if (days != np.floor(days)).any() or days[0] < -20_000 or days[-1] > 50_000:
            continue
        if epoch == 0.0 and days[0] < 1000:
            continue
        calendar = Calendar.infer(days.tolist(), True, "", "%Y-%m-%d")
        if calendar.unit in ("month", "quarter", "year"):
            first = calendar.label(days[0])
            return Doubt(
                what,
                int(np.argmin(values)),
                f"Write them as dates, {first} for this one, {_or_number()}",
            )
    return None


def _or_number() -> str:
    return f"or pass {option('time_format', 'number')} {_PLAIN}."
