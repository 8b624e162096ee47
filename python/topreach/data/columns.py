"""Columns of a table as arrays, with checks that name the row and the column."""

from __future__ import annotations

import difflib
import numbers
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .csv_files import MISSING
from .messages import at_command_line, option
from .times import plain

# Larger counts are not exact in float32.
MAX_COUNT = 2**24
_ROUNDING = 1e-6  # how far a count that was calculated is from a whole number
_DECIMAL_COMMA = r"[+-]?\d+,\d+"


def drop_repeated_columns(df: pd.DataFrame, name: str, where: Callable[[int], str]) -> pd.DataFrame:
    """Drop the copy of a repeated column; pandas renames the second `timestep` to `timestep.1`."""
    labels = [str(c) for c in df.columns]
    first = {}
    drop, noted = [], []
    for i, label in enumerate(labels):
        base = re.sub(r"\.\d+$", "", label)
        renamed = base != label and base in first
        if not renamed and label not in first:
            first[label] = i
            continue
        j = first[base if renamed else label]
        same = df.iloc[:, i].equals(df.iloc[:, j]) or _equal_numbers(df.iloc[:, i], df.iloc[:, j])
        if same:
            drop.append(i)
            noted.append(label)
        elif not renamed:
            differ = (df.iloc[:, i].astype(object) != df.iloc[:, j].astype(object)).to_numpy()
            row = int(np.argmax(differ))
            raise ValueError(
                f"{name}: df must have distinct columns, got {label!r} twice with different values "
                f"({plain(df.iloc[row, j])!r} and {plain(df.iloc[row, i])!r} at "
                f"{where(row)}). Rename or drop one of them."
            )
        else:
            first[label] = i
    if drop:
        warnings.warn(
            f"{name}: dropped the repeated column(s) {noted}, equal to the first.", stacklevel=4
        )
        df = df.iloc[:, [i for i in range(len(labels)) if i not in set(drop)]]
    return df.set_axis([str(c) for c in df.columns], axis=1)


def _equal_numbers(a: pd.Series, b: pd.Series) -> bool:
    a, b = pd.to_numeric(a, errors="coerce"), pd.to_numeric(b, errors="coerce")
    return bool(a.notna().all() and b.notna().all() and (a.to_numpy() == b.to_numpy()).all())


def check_column(df: pd.DataFrame, name: str, argument: str, column: Any) -> None:
    if not isinstance(column, str):
        raise TypeError(f"{name}: {argument} must be the name of a column, got {column!r}.")
    if column in df.columns:
        return
    columns = list(df.columns)
    lowered = {c.lower().strip(): c for c in columns}
    near = difflib.get_close_matches(column.lower().strip(), lowered, n=1, cutoff=0.5)
    advice = f" Did you mean {lowered[near[0]]!r}?" if near else ""
    marks = re.findall(r"[^\w\"']", columns[0]) if len(columns) == 1 else []
    if marks and (not near or column.lower() in columns[0].lower()):
        mark = r"\t" if marks[0] == "\t" else marks[0]
        advice = f" The file seems to use another separator: pass {option('sep', mark)}."
    raise ValueError(
        f"{name}: {argument} must be one of the columns, got {column!r}. They are "
        f"{columns}.{advice}"
    )


@dataclass(frozen=True)
class AllBut:
    """As features: all numeric columns except these, which have another use."""

    columns: tuple[str, ...]


def default_features(
    df: pd.DataFrame, name: str, taken: Iterable[str], where: Callable[[int], str]
) -> list[str]:
    """All numeric columns that have no other role; the others are named in a warning."""
    taken = set(taken)
    unnamed = [c for c in df.columns if re.fullmatch(r"Unnamed: \d+", c)]
    if unnamed:
        warnings.warn(f"{name}: left out the column(s) without a header, {unnamed}.", stacklevel=4)
    rest = [c for c in df.columns if c not in taken and c not in unnamed]
    numeric = [c for c in rest if pd.api.types.is_numeric_dtype(df[c])]
    left_out = [c for c in rest if c not in set(numeric)]
    if left_out:
        column = df[left_out[0]]
        codes, values = codes_of(column)
        bad = pd.to_numeric(pd.Series(values, dtype=object), errors="coerce").isna().to_numpy()
        row = int(np.argmax(np.append(bad, False)[codes]))
        value = column.iloc[row]
        advice = f" Name the {option('features')} to choose them yourself."
        if isinstance(value, str) and re.fullmatch(_DECIMAL_COMMA, value.strip()):
            advice = f" Pass {option('decimal', ',')} if the comma stands before decimals."
        warnings.warn(
            f"{name}: left out the columns {left_out}, which are not numeric (the first holds "
            f"{value!r} at {where(row)}).{advice}",
            stacklevel=4,
        )
    return numeric


def suppressed_intervals(
    suppressed: Mapping[str, tuple[int, int]] | None, name: str
) -> dict[str, tuple[int, int]]:
    """Checked mapping: the text of a suppressed cell -> its (least, most) count. "" is a blank."""
    if suppressed is None:
        return {}
    if not isinstance(suppressed, Mapping):
        raise TypeError(
            f"{name}: suppressed must be a mapping such as {{'1-9': (1, 9)}}, got {suppressed!r}."
        )
    intervals = {}
    for text, ends in suppressed.items():
        if is_whole(text):
            text = str(int(text))
        if not isinstance(text, str) or (text.strip() in MISSING and text != ""):
            raise ValueError(
                f"{name}: suppressed must have texts as keys, and none that stands for a missing "
                f"value (a blank cell is ''), got {text!r}."
            )
        pair = list(ends) if isinstance(ends, Sequence) and not isinstance(ends, str) else []
        if [is_whole(e) for e in pair] != [True, True] or not 0 <= pair[0] <= pair[1] <= MAX_COUNT:
            raise ValueError(
                f"{name}: suppressed must give (least, most), whole numbers from 0 to {MAX_COUNT}, "
                f"got {ends!r} for {text!r}."
            )
        intervals[text.strip()] = (int(pair[0]), int(pair[1]))
    return intervals


def count_values(
    column: pd.Series,
    name: str,
    label: str,
    where: Callable[[int], str],
    suppressed: Mapping[str, tuple[int, int]],
) -> tuple[np.ndarray, np.ndarray]:
    """The least and the most that each count can be, float32 [rows]: equal where it is exact, NaN
    where the cell is missing."""
    if pd.api.types.is_numeric_dtype(column) and not suppressed:
        low = high = _numbers(column, name, f"count {label!r}", where)
    else:
        codes, values = codes_of(column)
        texts = [_cell_text(v) for v in values]
        known = pd.to_numeric(pd.Series(values, dtype=object), errors="coerce").to_numpy(float)
        ends = np.stack([known, known])
        for i, text in enumerate(texts):
            code = text if text in suppressed or not np.isfinite(known[i]) else f"{known[i]:.15g}"
            if code in suppressed:  # -1.0 is written for -1 beside blank cells
                ends[:, i] = suppressed[code]
            elif np.isnan(known[i]) and text not in MISSING:
                row = int(np.argmax(codes == i))
                number = int((np.append(np.isnan(known), False)[codes]).sum())
                raise ValueError(
                    f"{name}: count {label!r} must be numeric, got {plain(values[i])!r} at "
                    f"{where(row)} ({number} such rows).{_suppressed_advice(values[i])}"
                )
        blank = suppressed.get("", (np.nan, np.nan))
        low, high = np.append(ends, [[blank[0]], [blank[1]]], axis=1)[:, codes]
    bad = ~np.isnan(low) & ~((low >= 0) & (low == np.floor(low)) & (low <= MAX_COUNT))
    if bad.any():
        row = int(np.argmax(bad))
        value = low[row]
        advice = "Mend or drop these rows."
        if value > 0 and np.isfinite(value) and value != np.floor(value):
            advice = "Rates and averages are no counts: give the number of events."
            if abs(value - round(value)) < _ROUNDING:
                advice = "Round them, if they are counts that a calculation has made inexact."
        elif value < 0 and value == np.floor(value):
            text = f"{value:.0f}"
            advice = (
                "If it is a code for a suppressed count, say what that can be: "
                f"{option('suppressed', {text: ('1', '9')})}."
            )
        raise ValueError(
            f"{name}: count {label!r} must hold whole numbers from 0 to {MAX_COUNT}, got "
            f"{_shown(value)} at {where(row)} ({int(bad.sum())} such rows). {advice}"
        )
    return low.astype(np.float32), high.astype(np.float32)


def _shown(value: float) -> str:
    """A number to so many digits that it does not look like another."""
    return f"{value:g}" if not np.isfinite(value) or value == round(value) else repr(float(value))


def missing_count(
    name: str, label: str, number: int, place: str, *, whole_period: bool
) -> ValueError:
    """The error for missing counts that are required."""
    advice = (
        f"Fill or drop these rows; for periods yet to come pass {option('counts', 'optional')}."
    )
    if at_command_line():
        advice = "Fill or drop these rows."
        if whole_period:
            advice = (
                "Drop the rows of periods yet to come: a plan for them needs none. "
                f"{option('counts', 'optional')} leaves them out."
            )
    return ValueError(
        f"{name}: count {label!r} must hold whole numbers from 0 to {MAX_COUNT}, got nan at "
        f"{place} ({number} such rows). {advice} If blank cells are suppressed counts, say what "
        f"they can be: {option('suppressed', {'': ('1', '9')})}."
    )


def _cell_text(value: Any) -> str:
    return str(plain(value)).strip()


def _suppressed_advice(value: Any) -> str:
    text = _cell_text(value)
    found = re.fullmatch(r"(\d+)\s*[-\u2013]\s*(\d+)", text)
    if re.fullmatch(r"\d{1,3}([,.'’ \u00a0\u202f]\d{3})+", text):
        return f" If it is a whole number, write it as {re.sub(r'[^0-9]', '', text)}."
    if re.fullmatch(_DECIMAL_COMMA, text):
        return f" Pass {option('decimal', ',')} if the comma stands before decimals."
    below = re.fullmatch(r"<\s*(\d+)", text)
    ends = (found[1], found[2]) if found else ("least", "most")
    if below and int(below[1]) > 0:
        ends = ("0", str(int(below[1]) - 1))
    return (
        " If it stands for a suppressed count, say what that can be: "
        f"{option('suppressed', {text: ends})}."
    )


def exposure_values(
    column: pd.Series, name: str, label: str, where: Callable[[int], str]
) -> np.ndarray:
    values = _numbers(column, name, f"exposure {label!r}", where)
    limits = np.finfo(np.float32)
    bad = ~((values >= limits.tiny) & (values <= limits.max))
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"{name}: exposure {label!r} must be finite and > 0 with none missing, got "
            f"{values[row]:g} at {where(row)} ({int(bad.sum())} such rows). Fill in the exposure, "
            "or leave out the sites that have none."
        )
    return values


def feature_values(
    column: pd.Series, name: str, label: str, where: Callable[[int], str]
) -> np.ndarray:
    values = _numbers(column, name, f"features {label!r}", where)
    bad = ~(np.abs(values) <= np.finfo(np.float32).max)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"{name}: features {label!r} must be finite (in float32) with none missing, got "
            f"{values[row]:g} at {where(row)} ({int(bad.sum())} such rows). Fill or drop them, or "
            "leave the column out of features."
        )
    return values


def _numbers(
    column: pd.Series,
    name: str,
    argument: str,
    where: Callable[[int], str],
) -> np.ndarray:
    types = pd.api.types
    no_number = (
        types.is_datetime64_any_dtype(column)
        or types.is_timedelta64_dtype(column)
        or types.is_complex_dtype(column)
    )
    if not no_number and types.is_numeric_dtype(column):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    values = (
        column.map(lambda _: np.nan)
        if no_number
        else pd.to_numeric(column.astype(object), errors="coerce")
    )
    bad = (values.isna() & column.notna()).to_numpy()
    if bad.any():
        row = int(np.argmax(bad))
        text = str(column.iloc[row]).strip()
        comma = re.fullmatch(_DECIMAL_COMMA, text) is not None
        advice = (
            f" Pass {option('decimal', ',')} if the comma stands before decimals." if comma else ""
        )
        raise ValueError(
            f"{name}: {argument} must be numeric, got {plain(column.iloc[row])!r} at {where(row)} "
            f"({int(bad.sum())} such rows).{advice}"
        )
    return values.to_numpy(dtype=np.float64)


def fill_forward_then_back(x: np.ndarray, filled: np.ndarray) -> None:
    """Fill cells of x [T, S, P] without a row from the site's last filled period, else its next."""
    num_times = len(filled)
    steps = np.arange(num_times)[:, None]
    before = np.maximum.accumulate(np.where(filled, steps, -1), axis=0)
    after = np.minimum.accumulate(np.where(filled, steps, num_times)[::-1], axis=0)[::-1]
    source = np.where(before >= 0, before, after)
    x[:] = np.take_along_axis(x, source[:, :, None], axis=0)


def check_missing_counts_last(
    y: np.ndarray,
    ids: list[str],
    times: list[Any],
    name: str,
    label: str | None,
    open_cells: np.ndarray | None = None,
) -> None:
    """Raise unless missing counts [T, S] of open sites are whole periods at the end."""
    missing = np.isnan(y)
    if open_cells is not None:
        missing &= open_cells
    some = missing.any(axis=1)
    whole = np.isnan(y).all(axis=1)
    last_known = np.flatnonzero(~some)[-1] if (~some).any() else -1
    wrong = missing & ~(whole & (np.arange(len(y)) > last_known))[:, None]
    if wrong.any():
        t, s = (int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"{name}: count {label!r} must be missing for whole periods at the end only, got none "
            f"for site {ids[s]!r} at time {times[t]!r}. Fill in the count, or drop the period."
        )


# ---- values --------------------------------------------------------------------------------------


def codes_of(column: pd.Series) -> tuple[np.ndarray, list[Any]]:
    """The position of each cell's value in a list of the distinct ones; -1 where it is missing."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes = column.cat.codes.to_numpy()
        used = np.bincount(codes[codes >= 0], minlength=len(column.cat.categories)) > 0
        values = list(column.cat.categories[used])
        place = np.append(np.cumsum(used) - 1, -1).astype(np.int32)
        return place[codes], values
    codes, uniques = pd.factorize(column)
    return codes.astype(np.int32), list(uniques)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number of any integer type; True and False are not."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool | np.bool_)


def check_one_of(name: str, argument: str, value: Any, allowed: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(
            f"{name}: {argument} must be one of {', '.join(map(repr, allowed))}, got {value!r}."
        )


def first_repeated(values: Sequence[Any]) -> Any:
    seen = set()
    for v in values:
        if v in seen:
            return v
        seen.add(v)
    return None


def listed(values: Sequence[Any], most: int = 8) -> str:
    values = list(values)
    shown = ", ".join(repr(v) for v in values[:most])
    return shown if len(values) <= most else f"{shown}, … ({len(values)} in all)"
