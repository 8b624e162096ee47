"""Columns of a table as arrays: what `Panel` reads, with checks that name the row and the column."""

from __future__ import annotations

import csv
import datetime
import difflib
import numbers
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

# Larger counts are not exact in float32.
MAX_COUNT = 2**24
_MISSING = ["", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "-nan", "NULL", "null", "None", "<NA>"]


# ---- reading a file ------------------------------------------------------------------------------


def read_csv(
    path: Any, name: str, *, text: Sequence[str], sep: str = ",", encoding: str | None = None
) -> pd.DataFrame:
    """The CSV under its own header, repeats kept; `text` columns as strings; no blank lines."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"{name}: path must be an existing file, got {os.fspath(path)!r}.")
    if os.path.isdir(path):
        raise IsADirectoryError(f"{name}: path must be a file, got the folder {os.fspath(path)!r}.")
    if encoding is None:
        with open(path, "rb") as file:
            start = file.read(2)
        encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    header = []
    try:
        with open(path, encoding=encoding, newline="") as file:
            header = [h.strip() for h in next(csv.reader(file, delimiter=sep), [])]
        if not any(header):
            raise ValueError(
                f"{name}: path must hold a header and at least one row, got an empty file "
                f"{str(path)!r}."
            )
        # Columns go by their position, so that a repeated header is seen here and not renamed.
        labels = [f"{i}" for i in range(len(header))]
        is_text = {labels[i]: str for i, h in enumerate(header) if h in text}
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            df = pd.read_csv(
                path,
                sep=sep,
                encoding=encoding,
                names=labels,
                skiprows=1,
                header=None,
                index_col=False,
                dtype=is_text,
                keep_default_na=False,
                na_values={label: [""] if label in is_text else _MISSING for label in labels},
                skip_blank_lines=False,
                low_memory=False,
            )
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name}: path must be UTF-8 text (or encoding must name another), got byte "
            f"0x{error.object[error.start]:02x} in {os.fspath(path)!r}. Save it as UTF-8, or pass "
            'encoding="latin-1".'
        ) from error
    except pd.errors.EmptyDataError:
        df = pd.DataFrame(columns=labels)
    except (csv.Error, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise ValueError(
            f"{name}: path must have as many fields in each line as its header's {len(header)}, "
            f"got: {error}. Mend the line, or pass the separator as sep."
        ) from error
    df.columns = header
    unnamed = [i for i, h in enumerate(header) if not h]
    if unnamed:
        warnings.warn(
            f"{name}: dropped {len(unnamed)} column(s) without a header, the first at position "
            f"{unnamed[0] + 1}.",
            stacklevel=3,
        )
        df = df.iloc[:, [i for i, h in enumerate(header) if h]]
    return df.dropna(how="all")


def drop_repeated_columns(df: pd.DataFrame, name: str, where: Callable[[int], str]) -> pd.DataFrame:
    """Columns that stand twice, once; pandas renames the second `timestep` to `timestep.1`."""
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
                f"({df.iloc[row, j]!r} and {df.iloc[row, i]!r} at {where(row)}). Rename "
                "or drop one of them."
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
    if not near and len(columns) == 1 and any(mark in columns[0] for mark in ";\t|"):
        advice = " The file seems to use another separator: pass sep, e.g. sep=';'."
    raise ValueError(
        f"{name}: {argument} must be one of the columns, got {column!r}. They are "
        f"{columns}.{advice}"
    )


def default_features(
    df: pd.DataFrame, name: str, taken: Iterable[str], where: Callable[[int], str]
) -> list[str]:
    taken = set(taken)
    unnamed = [c for c in df.columns if re.fullmatch(r"Unnamed: \d+", c)]
    if unnamed:
        warnings.warn(f"{name}: left out the column(s) without a header, {unnamed}.", stacklevel=4)
    rest = [c for c in df.columns if c not in taken and c not in unnamed]
    numeric = [c for c in rest if pd.api.types.is_numeric_dtype(df[c])]
    left_out = [c for c in rest if c not in set(numeric)]
    if left_out:
        column = df[left_out[0]]
        row = int(
            np.argmax((pd.to_numeric(column, errors="coerce").isna() & column.notna()).to_numpy())
        )
        warnings.warn(
            f"{name}: left out the columns {left_out}, which are not numeric (the first holds "
            f"{column.iloc[row]!r} "
            f"at {where(row)}). Name the features to choose them yourself.",
            stacklevel=4,
        )
    return numeric


def site_codes(
    column: pd.Series, name: str, label: str, where: Callable[[int], str]
) -> tuple[list[str], np.ndarray]:
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"{name}: site {label!r} must have no missing values, got one at "
            f"{where(int(np.argmax(missing)))} ({int(missing.sum())} in all)."
        )
    codes, uniques = pd.factorize(column)
    given = list(uniques)
    ids = []
    for position, u in enumerate(given):
        if isinstance(u, float | np.floating) and float(u).is_integer():
            u = int(u)
        named = isinstance(u, str | numbers.Integral) and not isinstance(u, bool | np.bool_)
        if not named:
            first = where(int(np.argmax(codes == position)))
            raise ValueError(
                f"{name}: site {label!r} must hold strings or whole numbers, got {u!r} at {first}."
            )
        ids.append(str(u).strip())
    if "" in ids:
        row = where(int(np.argmax(codes == ids.index(""))))
        raise ValueError(f"{name}: site {label!r} must have no empty ids, got one at {row}.")
    repeated = first_repeated(ids)
    if repeated is not None:
        one, other = [given[i] for i, u in enumerate(ids) if u == repeated][:2]
        row = where(int(np.argmax(codes == given.index(other))))
        raise ValueError(
            f"{name}: site {label!r} must have ids that differ in more than white space or type, "
            f"got {one!r} and {other!r} (the latter at {row}). Make them the same, or different."
        )
    as_numbers = all(i.isascii() and i.isdigit() for i in ids)
    order = sorted(range(len(ids)), key=lambda i: (int(ids[i]), ids[i]) if as_numbers else ids[i])
    rank = np.empty(len(ids), dtype=np.int64)
    rank[order] = np.arange(len(ids))
    return [ids[i] for i in order], rank[codes]


def time_codes(
    column: pd.Series, name: str, label: str, where: Callable[[int], str]
) -> tuple[list[Any], np.ndarray]:
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"{name}: time {label!r} must have no missing values, got one at "
            f"{where(int(np.argmax(missing)))} ({int(missing.sum())} in all)."
        )
    codes, uniques = pd.factorize(column)
    given = [plain(u) for u in uniques]
    values = time_values(
        given, name, f"time {label!r}", lambda i: " at " + where(int(np.argmax(codes == i)))
    )
    order = np.argsort(values, kind="stable")
    same = np.flatnonzero(np.diff(values[order]) == 0)
    if same.size:
        one, other = given[order[same[0]]], given[order[same[0] + 1]]
        raise ValueError(
            f"{name}: time {label!r} must write each time one way, got {one!r} and {other!r}."
        )
    rank = np.empty(len(given), dtype=np.int64)
    rank[order] = np.arange(len(given))
    return [given[i] for i in order], rank[codes]


def suppressed_intervals(
    suppressed: Mapping[str, tuple[int, int]] | None, name: str
) -> dict[str, tuple[int, int]]:
    """What a cell can say in place of a count -> (least, most), checked."""
    if suppressed is None:
        return {}
    if not isinstance(suppressed, Mapping):
        raise TypeError(
            f"{name}: suppressed must be a mapping such as {{'1-9': (1, 9)}}, got {suppressed!r}."
        )
    intervals = {}
    for text, ends in suppressed.items():
        if not isinstance(text, str) or text.strip() in _MISSING:
            raise ValueError(
                f"{name}: suppressed must have texts as keys, and none that stands for a missing "
                f"value, got {text!r}."
            )
        pair = list(ends) if isinstance(ends, Sequence) and not isinstance(ends, str) else []
        whole = [isinstance(e, numbers.Integral) and not isinstance(e, bool) for e in pair]
        if whole != [True, True] or not 0 <= pair[0] <= pair[1] <= MAX_COUNT:
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
    counts: str,
    suppressed: Mapping[str, tuple[int, int]],
) -> tuple[np.ndarray, np.ndarray]:
    """The least and the most that each count can be: equal where it is exact."""
    bounds = [suppressed.get(_cell_text(v)) for v in column] if suppressed else [None] * len(column)
    hidden = np.array([b is not None for b in bounds], dtype=bool)
    given = column.astype(object).mask(hidden, 0) if hidden.any() else column
    values = _numbers(given, name, f"count {label!r}", where, _suppressed_advice)
    missing = np.isnan(values)
    bad = ~missing & ~((values >= 0) & (values == np.floor(values)) & (values <= MAX_COUNT))
    if counts != "optional":
        bad |= missing
    if bad.any():
        row = int(np.argmax(bad))
        value = values[row]
        advice = "Mend or drop these rows."
        if np.isnan(value):
            advice = 'Fill or drop these rows; for periods yet to come pass counts="optional".'
        elif value > 0 and np.isfinite(value) and value != np.floor(value):
            advice = "Rates and averages are no counts: give the number of events."
        raise ValueError(
            f"{name}: count {label!r} must hold whole numbers from 0 to {MAX_COUNT}, got "
            f"{value:g} at {where(row)} ({int(bad.sum())} such rows). {advice}"
        )
    low, high = values.copy(), values.copy()
    for row in np.flatnonzero(hidden):
        low[row], high[row] = bounds[row]
    return low, high


def _cell_text(value: Any) -> str:
    return str(plain(value)).strip()


def _suppressed_advice(value: Any) -> str:
    text = _cell_text(value)
    found = re.fullmatch(r"(\d+)\s*[-\u2013]\s*(\d+)", text)
    ends = f"({found[1]}, {found[2]})" if found else "(least, most)"
    return f" If it stands for a suppressed count, say what that can be: suppressed={{{text!r}: {ends}}}."


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
            f"{values[row]:g} at {where(row)} ({int(bad.sum())} such rows). Fill in the exposure, or "
            "leave out the sites that have none."
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
    advice: Callable[[Any], str] = lambda value: "",
) -> np.ndarray:
    is_time = pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(
        column
    )
    if (
        not is_time
        and pd.api.types.is_numeric_dtype(column)
        and not pd.api.types.is_complex_dtype(column)
    ):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    values = (
        pd.to_numeric(column.astype(object), errors="coerce")
        if not is_time
        else column.map(lambda _: np.nan)
    )
    bad = (values.isna() & column.notna()).to_numpy()
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"{name}: {argument} must be numeric, got {column.iloc[row]!r} at {where(row)} "
            f"({int(bad.sum())} such rows).{advice(column.iloc[row])}"
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
    y: np.ndarray, ids: list[str], times: list[Any], name: str, label: str | None
) -> None:
    missing = np.isnan(y)
    some = missing.any(axis=1)
    whole = missing.all(axis=1)
    last_known = np.flatnonzero(~some)[-1] if (~some).any() else -1
    wrong = missing & ~(whole & (np.arange(len(y)) > last_known))[:, None]
    if wrong.any():
        t, s = (int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"{name}: count {label!r} must be missing for whole periods at the end only, got none "
            f"for site {ids[s]!r} at time {times[t]!r}. Fill in the count, or drop the period."
        )


def warn_of_gaps(times: list[Any], name: str, label: str) -> None:
    if len(times) > 2 and all(isinstance(t, int) for t in times):
        steps = np.diff(times)
        if (steps != steps.min()).any():
            i = int(np.argmax(steps != steps.min()))
            warnings.warn(
                f"{name}: time {label!r} has a gap between {times[i]} and {times[i + 1]}. Earlier "
                "counts are taken by "
                "period, as if there were none.",
                stacklevel=4,
            )


# ---- values --------------------------------------------------------------------------------------


def check_one_of(name: str, argument: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(
            f"{name}: {argument} must be one of {', '.join(map(repr, allowed))}, got {value!r}."
        )


def plain(value: Any) -> Any:
    """Plain Python for NumPy and torch scalars, so that times compare as what they are."""
    if isinstance(value, np.datetime64):
        return pd.Timestamp(value)
    if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.ndim == 0):
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def time_values(
    times: Sequence[Any], name: str, argument: str, where: Callable[[int], str] = lambda i: ""
) -> np.ndarray:
    """Times as float64: numbers as they are, dates as days since 1970-01-01."""
    values = np.empty(len(times))
    kinds = set()
    texts = []
    for i, t in enumerate(times):
        if isinstance(t, numbers.Real) and not isinstance(t, bool):
            kinds.add("number")
            values[i] = float(t)
        elif isinstance(t, pd.Period):
            kinds.add("date")
            values[i] = _days(t.to_timestamp())
        elif isinstance(t, datetime.date | pd.Timestamp):
            kinds.add("date")
            values[i] = _days(pd.Timestamp(t))
        elif isinstance(t, str):
            texts.append(i)
        else:
            raise TypeError(
                f"{name}: {argument} must hold numbers, dates or date strings, got {t!r}{where(i)}."
            )
    if texts:
        strings = pd.Series([times[i].strip() for i in texts], dtype=object)
        as_numbers = pd.to_numeric(strings, errors="coerce").to_numpy(dtype=np.float64)
        if not np.isnan(as_numbers).any():
            kinds.add("number")
            values[texts] = as_numbers
        else:
            kinds.add("date")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dates = pd.to_datetime(strings, errors="coerce", format="ISO8601")
                if dates.isna().any():
                    dates = pd.to_datetime(strings, errors="coerce", format="mixed")
            if dates.isna().any():
                i = texts[int(np.argmax(dates.isna().to_numpy()))]
                raise ValueError(
                    f"{name}: {argument} must hold numbers, dates or date strings such as "
                    f"'2021-03', got {times[i]!r}{where(i)}."
                )
            values[texts] = [_days(d) for d in dates]
    if len(kinds) > 1:
        raise ValueError(f"{name}: {argument} must be all numbers or all dates, got both.")
    if not np.isfinite(values).all():
        i = int(np.argmin(np.isfinite(values)))
        raise ValueError(f"{name}: {argument} must be finite, got {times[i]!r}{where(i)}.")
    return values


def _days(date: pd.Timestamp) -> float:
    return date.timestamp() / 86_400  # a date without a zone counts as UTC


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
