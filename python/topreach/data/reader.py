"""Reads a long table, one row per site and period, into the arrays of a `Panel`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from topreach._C import Calendar

from . import columns as _columns
from .csv_files import read_csv, refuse_unclear_points
from .leaks import warn_of_leaks
from .messages import at_command_line, caller, option
from .sites import (
    open_cells,
    site_codes,
    site_moments,
    warn_of_changed_sites,
    warn_of_incomplete_periods,
    warn_of_similar_ids,
    warn_of_totals,
)
from .times import make_calendar, plain, read_times

_NOT_A_NUMBER = np.float32(np.nan)


def csv_table(
    path: Any, name: str, *, sep: str | None, encoding: str | None, decimal: str, **options: Any
) -> dict[str, Any]:
    """The result of `frame_table` for a text table."""
    if options["suppressed"] is not None:
        _columns.suppressed_intervals(options["suppressed"], caller(name))
    text = [options["site"], options["time"], options["opened"], options["closed"]]
    if options["suppressed"]:
        text.append(options["count"])
    text = [column for column in text if isinstance(column, str)]
    written: dict[str, Any] = {"sep": sep, "encoding": encoding, "decimal": decimal}
    df = read_csv(path, name, text=text, **written)
    if (exposure := options["exposure"]) is not None:
        refuse_unclear_points(df, exposure, f"exposure {exposure!r}", path, name, **written)
    # Categories take far less memory than text. They also mark columns that come from a text file,
    # which does not tell numbers from text.
    for column in text:
        if list(df.columns).count(column) == 1:
            codes, values = _columns.codes_of(df[column])
            df[column] = pd.Categorical.from_codes(codes, pd.Index(values, dtype=object))
    index = df.index
    return frame_table(df, name, lambda i: f"line {index[i] + 2}", **options)


def parquet_table(path: Any, name: str, **options: Any) -> dict[str, Any]:
    """The result of `frame_table` for a Parquet file."""
    who = caller(name)
    if not os.path.exists(path):
        raise FileNotFoundError(f"{who}: path must be an existing file, got {os.fspath(path)!r}.")
    if os.path.isdir(path):
        raise IsADirectoryError(f"{who}: path must be a file, got the folder {os.fspath(path)!r}.")
    try:
        df = pd.read_parquet(path)
    except ImportError as error:
        raise ImportError(
            f"{who}: path must be readable, but no Parquet reader is installed. Run `pip "
            "install pyarrow`, or save the table as CSV."
        ) from error
    return frame_table(df, name, lambda i: f"row {plain(df.index[i])!r}", **options)


def frame_table(
    df: pd.DataFrame,
    name: str,
    where: Callable[[int], str],
    *,
    site: str,
    time: str,
    count: str | None,
    exposure: str | None,
    features: Sequence[str] | None,
    suppressed: Mapping[str, tuple[int, int]] | None,
    missing: str,
    duplicates: str,
    counts: str,
    opened: str | None,
    closed: str | None,
    time_format: str | None,
    calendar: Calendar | None,
    source: str | None,
) -> dict[str, Any]:
    """The arguments of `Panel` for a table; see `Panel.from_frame` for the options.

    Args:
        name: the function to name in errors.
        where: "row 7" for a row's position, for errors.
    """
    name = caller(name)
    _columns.check_one_of(name, "missing", missing, ("error", "zero"))
    _columns.check_one_of(name, "duplicates", duplicates, ("error", "sum"))
    _columns.check_one_of(name, "counts", counts, ("required", "optional"))
    if count is None and counts != "optional":
        raise ValueError(
            f"{name}: count must name a column, got None. For a table without counts pass "
            f"{option('counts', 'optional')}."
        )
    if len(df) == 0:
        raise ValueError(f"{name}: the table must have at least one row, got none.")
    df = _columns.drop_repeated_columns(df, name, where)
    optional = {"count": count, "exposure": exposure, "opened": opened, "closed": closed}
    roles = {"site": site, "time": time}
    roles |= {role: column for role, column in optional.items() if column is not None}
    intervals = _columns.suppressed_intervals(suppressed, name)
    for role, column in roles.items():
        _columns.check_column(df, name, role, column)
    if len(set(roles.values())) < len(roles):
        raise ValueError(
            f"{name}: {', '.join(roles)} must be different columns, got {list(roles.values())}."
        )
    notes: list[str] = []
    features = _feature_columns(df, name, features, roles, where, notes)

    ids, site_code = site_codes(df[site], name, site, where)
    times, time_code, calendar = _time_codes(df[time], name, time, where, time_format, calendar)
    values = np.array([calendar.index(v) for v in times.values], dtype=float)
    periods = np.array([calendar.at(int(i)) for i in values])
    moments = {
        role: np.full(len(ids), np.nan)
        if column is None
        else site_moments(df[column], site_code, ids, calendar, name, f"{role} {column!r}", where)
        for role, column in (("opened", opened), ("closed", closed))
    }
    is_open = open_cells(moments["opened"], moments["closed"], periods, calendar)

    grid = _Grid(df, name, where, ids, times.given, site_code, time_code)
    grid.check_duplicates(duplicates)
    filled = grid.rows.reshape(grid.shape) > 0
    wanted = filled if is_open is None else filled | ~is_open
    if missing == "error" and not wanted.all():
        t, s = (int(i) for i in np.argwhere(~wanted)[0])
        raise ValueError(
            f"{name}: df must have a row for every site and time, got {int((~wanted).sum())} "
            f"missing of {wanted.size}, the first for site {ids[s]!r} at time {times.given[t]!r} "
            f"(columns {site!r}, {time!r}). Add the rows, or pass {option('missing', 'zero')} if "
            "no row means a count of zero."
        )
    y, y_upper = grid.counts(count, intervals, counts, filled, is_open)
    grid_exposure = None if exposure is None else grid.exposure(exposure)
    x = np.empty((*grid.shape, len(features)), dtype=np.float32)
    for p, column in enumerate(features):
        given = _columns.feature_values(df[column], name, column, where)
        x[:, :, p] = grid.mean(given)
    if not filled.all():
        _columns.fill_forward_then_back(x, filled)
        if grid_exposure is not None:
            _columns.fill_forward_then_back(grid_exposure[:, :, None], filled)
    if counts == "optional":
        _columns.check_missing_counts_last(y, ids, times.given, name, count, is_open)

    warn_of_similar_ids(ids, name)
    if count is not None:
        warn_of_totals(ids, y, name)
        warn_of_incomplete_periods(y if y_upper is None else y_upper, filled, times.given, name)
        warn_of_changed_sites(ids, y, y_upper, filled, times.given, name)
        warn_of_leaks(x, y, grid_exposure, features, name)
    return {
        "x": x,
        "y": y,
        "site_ids": ids,
        "times": times.given,
        "feature_names": [str(f) for f in features],
        "exposure": grid_exposure,
        "y_upper": y_upper,
        "opened": moments["opened"],
        "closed": moments["closed"],
        "counts": counts,
        "source": source,
        "calendar": calendar,
        "notes": notes,
    }


def _feature_columns(
    df: pd.DataFrame,
    name: str,
    features: Sequence[str] | _columns.AllBut | None,
    roles: Mapping[str, str],
    where: Callable[[int], str],
    notes: list[str],
) -> list[str]:
    if features is None or isinstance(features, _columns.AllBut):
        taken = [*roles.values(), *(() if features is None else features.columns)]
        found = _columns.default_features(df, name, taken, where)
        if found:
            notes.append(
                f"Numeric columns that have no other role are read as features: {', '.join(found)}."
            )
        return found
    if isinstance(features, str):
        raise TypeError(f"{name}: features must be a list of columns, got the string {features!r}.")
    features = list(features)
    for column in features:
        _columns.check_column(df, name, "features", column)
        if column in roles.values():
            raise ValueError(
                f"{name}: features must not hold the site, time, count or exposure column, "
                f"got {column!r}."
            )
    repeated = _columns.first_repeated(features)
    if repeated is not None:
        raise ValueError(f"{name}: features must be distinct, got {repeated!r} more than once.")
    return features


class _Periods:
    """The distinct times of a table in order: as given, and as numbers."""

    def __init__(self, given: list[Any], values: np.ndarray):
        self.given, self.values = given, values


def _time_codes(
    column: pd.Series,
    name: str,
    label: str,
    where: Callable[[int], str],
    time_format: str | None,
    calendar: Calendar | None,
) -> tuple[_Periods, np.ndarray, Calendar]:
    """The periods, each row's position among them, and their calendar."""
    codes, uniques = _columns.codes_of(column)
    missing = codes < 0
    if missing.any():
        raise ValueError(
            f"{name}: time {label!r} must have no missing values, got one at "
            f"{where(int(np.argmax(missing)))} ({int(missing.sum())} in all)."
        )
    given = [plain(u) for u in uniques]
    argument = f"time {label!r}"
    read = read_times(
        given,
        name,
        argument,
        lambda i: " at " + where(int(np.argmax(codes == i))),
        time_format=time_format,
        calendar=calendar,
    )
    order = np.argsort(read.values, kind="stable")
    same = np.flatnonzero(np.diff(read.values[order]) == 0)
    if same.size:
        one, other = given[order[same[0]]], given[order[same[0] + 1]]
        raise ValueError(
            f"{name}: time {label!r} must write each time one way, got {one!r} and {other!r}."
        )
    calendar = make_calendar(read, name, argument, calendar)
    if isinstance(column.dtype, pd.CategoricalDtype):
        # A text file does not tell numbers from text.
        try:
            given = (
                [plain(float(t)) for t in given] if not read.format or _is_digits(given) else given
            )
        except ValueError:
            pass
    rank = np.empty(len(given), dtype=np.int32)
    rank[order] = np.arange(len(given))
    return _Periods([given[i] for i in order], read.values[order]), rank[codes], calendar


def _is_digits(given: Sequence[Any]) -> bool:
    return all(isinstance(t, str) and t.isdigit() and not t.startswith("0") for t in given)


class _Grid:
    """Rows of a table on the grid of its periods and sites [T, S]."""

    def __init__(
        self,
        df: pd.DataFrame,
        name: str,
        where: Callable[[int], str],
        ids: list[str],
        times: list[Any],
        site_code: np.ndarray,
        time_code: np.ndarray,
    ):
        self.df, self.name, self.where = df, name, where
        self.ids, self.times = ids, times
        self.shape = (len(times), len(ids))
        self.cell = time_code.astype(np.int64) * len(ids) + site_code
        self.rows = np.bincount(self.cell, minlength=self.size).astype(np.int32)
        self.repeated = bool(self.rows.max() > 1)

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]

    def _named(self, cell: int) -> str:
        t, s = divmod(int(cell), self.shape[1])
        return f"site {self.ids[s]!r} at time {self.times[t]!r}"

    def check_duplicates(self, duplicates: str) -> None:
        if duplicates == "sum" or not self.repeated:
            return
        cells, first_row = np.unique(self.cell, return_index=True)
        second = np.setdiff1d(np.arange(len(self.cell)), first_row)[0]
        first = first_row[np.searchsorted(cells, self.cell[second])]
        raise ValueError(
            f"{self.name}: df must have one row per site and time, got "
            f"{len(self.cell) - len(cells)} more, the first for {self._named(self.cell[second])} "
            f"({self.where(first)} and {self.where(second)}). Pass {option('duplicates', 'sum')} "
            "to add their counts and average their features."
        )

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sums per cell [T, S] float32, 0 in cells without rows."""
        if self.repeated:
            summed = np.bincount(self.cell, weights=values, minlength=self.size)
        else:
            summed = np.zeros(self.size, dtype=np.float32)
            summed[self.cell] = values
        return summed.reshape(self.shape)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Means per cell [T, S], 0 in cells without rows."""
        total = self.total(values)
        if self.repeated:
            total = total / np.maximum(self.rows, 1).reshape(self.shape)
        return total

    def counts(
        self,
        count: str | None,
        intervals: Mapping[str, tuple[int, int]],
        counts: str,
        filled: np.ndarray,
        is_open: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The least and the most that each count can be [T, S] (None for the most: all are
        exact)."""
        if count is None:
            return np.full(self.shape, _NOT_A_NUMBER), None
        low, high = _columns.count_values(self.df[count], self.name, count, self.where, intervals)
        if counts == "optional" and "" in intervals:
            # Whole periods of blank cells at the end are yet to come.
            blank = self.df[count].isna().to_numpy()
            period = self.cell // self.shape[1]
            last = period[~blank].max(initial=-1)
            low[period > last] = high[period > last] = np.nan
        y = self.total(low)
        if is_open is not None:
            wrong = ~is_open & (y > 0)
            if wrong.any():
                cell = int(np.argmax(wrong))
                row = int(np.argmax((self.cell == cell) & (low > 0)))
                raise ValueError(
                    f"{self.name}: count {count!r} must be blank or 0 where a site is not open, "
                    f"got {low[row]:g} at {self.where(row)} for {self._named(cell)}. Mend the "
                    "opening or closing time."
                )
        absent = np.isnan(low)
        if counts != "optional" and absent.any():
            if is_open is not None:
                absent &= is_open.reshape(-1)[self.cell]
            if absent.any():
                row = int(np.argmax(absent))
                t = int(self.cell[row]) // self.shape[1]
                whole = bool(absent[self.cell // self.shape[1] == t].all())
                raise _columns.missing_count(
                    self.name, count, int(absent.sum()), self.where(row), whole_period=whole
                )
        upper = self.total(high) if bool((high > low).any()) else None
        # In a period without counts, which is to be predicted, an absent row is not a zero.
        unknown = np.isnan(np.where(filled, y, np.nan)).all(axis=1, keepdims=True)
        for values in (y, upper):
            if values is None:
                continue
            values[unknown & ~filled] = np.nan
            if is_open is not None:
                values[~is_open] = np.nan
            if np.nanmax(values, initial=0) > _columns.MAX_COUNT:
                raise ValueError(
                    f"{self.name}: count {count!r} must be at most {_columns.MAX_COUNT}, got "
                    f"{np.nanmax(values):.0f}."
                )
        return y.astype(np.float32, copy=False), upper

    def exposure(self, column: str) -> np.ndarray:
        values = _columns.exposure_values(self.df[column], self.name, column, self.where)
        grid = np.ones(self.size)
        grid[self.cell] = values
        differs = grid[self.cell] != values
        if differs.any():
            row = int(np.argmax(differs))
            cell = self.cell[row]
            raise ValueError(
                f"{self.name}: exposure {column!r} must be the same in all rows of a site and "
                f"time, got {values[row]:g} at {self.where(row)} and {grid[cell]:g} for "
                f"{self._named(cell)}. Make one row of them, with the exposure of all."
            )
        return grid.reshape(self.shape)


def warn_of_absent_periods(labels: Sequence[str], name: str) -> None:
    """Warn of periods without a row, by name."""
    if not labels:
        return
    name = caller(name)
    shown = ", ".join(labels[:5]) + (f", … ({len(labels)} in all)" if len(labels) > 5 else "")
    has, its = ("has", "its") if len(labels) == 1 else ("have", "their")
    advice = (
        ""
        if at_command_line()
        else f" Add rows with counts of 0 if {'it' if len(labels) == 1 else 'they'} had no events."
    )
    warnings.warn(
        f"{name}: {shown} {has} no row; {its} counts are not known, not zero.{advice}", stacklevel=4
    )
