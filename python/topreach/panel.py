"""Counts and features of S sites over T periods, and how they are read from a table.

A `Panel` holds x [T, S, P] and y [T, S] with the names of its sites, periods and features. Every
choice that changes numbers (missing site-periods, duplicate rows) is an argument whose default is
an error that names the row and the column.
"""

from __future__ import annotations

import csv
import datetime
import difflib
import numbers
import os
import re
import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

# Larger counts are not exact in float32.
_MAX_COUNT = 2**24
_MISSING = ["", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "-nan", "NULL", "null", "None", "<NA>"]


class Batch(NamedTuple):
    """What an objective sees of a panel.

    x [T, S, P], y [T, S], time [T], history [T, S, W] or None, weights [T] or None; `history[t, s]`
    holds the W counts before period t, oldest first.
    """

    x: Tensor
    y: Tensor
    time: Tensor
    history: Tensor | None = None
    weights: Tensor | None = None


class Splits(NamedTuple):
    """A panel cut by time; `valid` or `test` is None where it was not asked for."""

    train: Panel
    valid: Panel | None
    test: Panel | None


class Panel:
    """Counts y [T, S] and features x [T, S, P] of S sites over T periods in time order.

    Args:
        x: features [T, S, P], finite; stored as float32.
        y: counts [T, S], whole numbers >= 0; stored as float32.
        site_ids: S distinct strings.
        times: T distinct numbers, dates or date strings, ascending; kept as given.
        feature_names: P distinct strings.
        history_y: counts [H, S] of the H periods just before `times[0]`, oldest first, or None.
        counts: "optional" allows the last periods to have no counts (all their y are NaN), for
            ranking the future.
        source: a word on where the numbers come from, e.g. "simulated"; carried along.

    Attributes:
        time_values: times as numbers, float64 [T]: numbers as they are, dates as days since
            1970-01-01.
        history_y: counts of all known periods before the first one [H, S], or None if there are
            none.

    Example:
        >>> y = [[1, 0], [2, 0], [0, 5]]
        >>> p = Panel(torch.zeros(3, 2, 1), y, ["a", "b"], [2019, 2020, 2021], ["u"])
        >>> train, valid, test = p.split(valid=2020, test=2021)
        >>> test.batch(window=2).history[0]
        tensor([[1., 2.],
                [0., 0.]])
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        site_ids: Sequence[str],
        times: Sequence[Any],
        feature_names: Sequence[str],
        *,
        history_y: Any = None,
        counts: str = "required",
        source: str | None = None,
    ):
        x, y = _as_float32(x, "x"), _as_float32(y, "y")
        if x.ndim != 3:
            raise ValueError(f"Panel: x must have shape [T, S, P], got {list(x.shape)}.")
        if y.shape != x.shape[:2]:
            raise ValueError(
                f"Panel: y must have shape [T, S] = {list(x.shape[:2])}, got {list(y.shape)}."
            )
        if 0 in y.shape:
            raise ValueError(
                f"Panel: y must have at least one period and one site, got shape {list(y.shape)}."
            )
        site_ids, feature_names, times = (
            list(site_ids),
            list(feature_names),
            [_plain(t) for t in times],
        )
        for name, values, size in (
            ("site_ids", site_ids, x.shape[1]),
            ("times", times, x.shape[0]),
            ("feature_names", feature_names, x.shape[2]),
        ):
            if len(values) != size:
                raise ValueError(
                    f"Panel: {name} must have {size} entries for x {list(x.shape)}, got "
                    f"{len(values)}."
                )
            if name != "times" and not all(isinstance(v, str) for v in values):
                bad = next(v for v in values if not isinstance(v, str))
                raise TypeError(f"Panel: {name} must be strings, got {bad!r}.")
            repeated = _first_repeated(values)
            if repeated is not None:
                raise ValueError(
                    f"Panel: {name} must be distinct, got {repeated!r} more than once."
                )
        time_values = _time_values(times, "Panel", "times")
        if not (np.diff(time_values) > 0).all():
            i = int(np.argmin(np.diff(time_values) > 0))
            raise ValueError(f"Panel: times must ascend, got {times[i + 1]!r} after {times[i]!r}.")
        _check_one_of("Panel", "counts", counts, ("required", "optional"))
        if not torch.isfinite(x).all():
            t, s, p = (int(i) for i in torch.nonzero(~torch.isfinite(x))[0])
            raise ValueError(
                f"Panel: x must be finite, got {x[t, s, p].item()} for feature "
                f"{feature_names[p]!r}, site {site_ids[s]!r}, time {times[t]!r}."
            )
        if history_y is not None:
            history_y = _as_float32(history_y, "history_y").to(y.device)
            if history_y.ndim != 2 or history_y.shape[1] != y.shape[1]:
                raise ValueError(
                    f"Panel: history_y must have shape [H, {y.shape[1]}], got "
                    f"{list(history_y.shape)}."
                )
            labels = [f"{len(history_y) - h} before {times[0]!r}" for h in range(len(history_y))]
            _check_counts(history_y, site_ids, labels, "history_y", allow_missing=False)
        _check_counts(y, site_ids, times, "y", allow_missing=counts == "optional")

        self.x, self.y = x, y
        self.site_ids, self.times, self.feature_names = site_ids, times, feature_names
        self.time_values = torch.from_numpy(time_values)
        self.source = source
        # All known counts up to the last period, and the row of each period in them.
        self._timeline = y if history_y is None else torch.cat([history_y, y])
        self._rows = torch.arange(len(self._timeline) - len(y), len(self._timeline))

    # ---- reading ---------------------------------------------------------------------------------

    @classmethod
    def from_frame(
        cls,
        df: pd.DataFrame,
        *,
        site: str,
        time: str,
        count: str | None,
        features: Sequence[str] | None = None,
        missing: str = "error",
        duplicates: str = "error",
        counts: str = "required",
        source: str | None = None,
    ) -> Panel:
        """Read a long table with one row per site and period.

        Sites stand in ascending order (as numbers where all ids are digits), periods in time order,
        whatever the order of the rows.

        Args:
            df: the table.
            site: column of the site ids. They are strings: "00123" stays "00123", whole numbers
                become their digits, and white space around an id is taken off.
            time: column of the periods: numbers, dates or date strings ("2021-03").
            count: column of the counts; None if the table has none (then `counts` must be
                "optional").
            features: columns of the features; None takes all other numeric columns and says which
                it leaves out.
            missing: what to do if a site has no row for a period: "error", or "zero" for a count of
                zero there, with features from the site's nearest earlier row, else its nearest
                later one.
            duplicates: what to do with several rows of one site and period: "error", or "sum" their
                counts and average their features.
            counts: "optional" allows the last periods to have no counts, so that the future can be
                ranked.
            source: carried along as `panel.source`.
        """
        name = f"{cls.__name__}.from_frame"
        if not isinstance(df, pd.DataFrame):
            raise TypeError(f"{name}: df must be a pandas DataFrame, got {type(df).__name__}.")
        options = {
            "features": features,
            "missing": missing,
            "duplicates": duplicates,
            "counts": counts,
            "source": source,
        }
        return cls._read(
            df, name, lambda i: f"row {df.index[i]!r}", site=site, time=time, count=count, **options
        )

    @classmethod
    def from_csv(
        cls,
        path: str | os.PathLike,
        *,
        site: str,
        time: str,
        count: str | None,
        features: Sequence[str] | None = None,
        missing: str = "error",
        duplicates: str = "error",
        counts: str = "required",
        source: str | None = None,
        sep: str = ",",
        encoding: str | None = None,
    ) -> Panel:
        """Read a CSV file; see `from_frame` for the arguments.

        The site column is read as text. The encoding is UTF-8 (with or without a byte-order mark)
        or UTF-16 with one; any other must be named. A column that stands twice is taken once if
        both copies agree, else it is an error.
        """
        name = f"{cls.__name__}.from_csv"
        df = _read_csv(path, name, text=(site,), sep=sep, encoding=encoding)
        options = {
            "features": features,
            "missing": missing,
            "duplicates": duplicates,
            "counts": counts,
            "source": source,
        }
        return cls._read(
            df,
            name,
            lambda i: f"line {df.index[i] + 2}",
            site=site,
            time=time,
            count=count,
            **options,
        )

    @classmethod
    def from_parquet(
        cls,
        path: str | os.PathLike,
        *,
        site: str,
        time: str,
        count: str | None,
        features: Sequence[str] | None = None,
        missing: str = "error",
        duplicates: str = "error",
        counts: str = "required",
        source: str | None = None,
    ) -> Panel:
        """Read a Parquet file (needs `pyarrow`); see `from_frame` for the arguments."""
        name = f"{cls.__name__}.from_parquet"
        if not os.path.exists(path):
            raise FileNotFoundError(
                f"{name}: path must be an existing file, got {os.fspath(path)!r}."
            )
        try:
            df = pd.read_parquet(path)
        except ImportError as error:
            raise ImportError(
                f"{name}: path must be readable, but no Parquet reader is installed. Run `pip "
                "install pyarrow`, or save the table as CSV and use Panel.from_csv."
            ) from error
        options = {
            "features": features,
            "missing": missing,
            "duplicates": duplicates,
            "counts": counts,
            "source": source,
        }
        return cls._read(
            df, name, lambda i: f"row {df.index[i]!r}", site=site, time=time, count=count, **options
        )

    @classmethod
    def _read(
        cls,
        df: pd.DataFrame,
        name: str,
        where: Callable[[int], str],
        *,
        site: str,
        time: str,
        count: str | None,
        features: Sequence[str] | None,
        missing: str,
        duplicates: str,
        counts: str,
        source: str | None,
    ) -> Panel:
        _check_one_of(name, "missing", missing, ("error", "zero"))
        _check_one_of(name, "duplicates", duplicates, ("error", "sum"))
        _check_one_of(name, "counts", counts, ("required", "optional"))
        if count is None and counts != "optional":
            raise ValueError(
                f"{name}: count must name a column, got None. For a table without counts pass "
                'counts="optional".'
            )
        if len(df) == 0:
            raise ValueError(f"{name}: the table must have at least one row, got none.")
        df = _drop_repeated_columns(df, name, where)
        roles = {"site": site, "time": time} | ({} if count is None else {"count": count})
        for role, column in roles.items():
            _check_column(df, name, role, column)
        if len(set(roles.values())) < len(roles):
            raise ValueError(
                f"{name}: site, time and count must be different columns, got "
                f"{list(roles.values())}."
            )
        if isinstance(features, str):
            raise TypeError(
                f"{name}: features must be a list of columns, got the string {features!r}."
            )
        if features is not None:
            features = list(features)
            for column in features:
                _check_column(df, name, "features", column)
                if column in roles.values():
                    raise ValueError(
                        f"{name}: features must not hold the site, time or count column, got "
                        f"{column!r}."
                    )
            repeated = _first_repeated(features)
            if repeated is not None:
                raise ValueError(
                    f"{name}: features must be distinct, got {repeated!r} more than once."
                )
        else:
            features = _default_features(df, name, roles.values(), where)

        ids, site_code = _site_codes(df[site], name, site, where)
        times, time_code = _time_codes(df[time], name, time, where)
        y = (
            _count_values(df[count], name, count, where, counts)
            if count is not None
            else np.full(len(df), np.nan)
        )
        x = np.empty((len(df), len(features)), dtype=np.float64)
        for p, column in enumerate(features):
            x[:, p] = _feature_values(df[column], name, column, where)

        num_sites, num_times = len(ids), len(times)
        cell = time_code * num_sites + site_code
        rows_in_cell = np.bincount(cell, minlength=num_times * num_sites)
        if duplicates == "error" and rows_in_cell.max() > 1:
            cells, first_row = np.unique(cell, return_index=True)
            second = np.setdiff1d(np.arange(len(cell)), first_row)[0]
            first = first_row[np.searchsorted(cells, cell[second])]
            raise ValueError(
                f"{name}: df must have one row per site and time, got {len(cell) - len(cells)} "
                f"more, the first for site {ids[site_code[second]]!r} at time "
                f"{times[time_code[second]]!r} ({where(first)} and {where(second)}). "
                'Pass duplicates="sum" to add their counts and average their features.'
            )
        filled = rows_in_cell > 0
        if missing == "error" and not filled.all():
            t, s = divmod(int(np.argmin(filled)), num_sites)
            raise ValueError(
                f"{name}: df must have a row for every site and time, got {int((~filled).sum())} "
                f"missing of {filled.size}, the first for site {ids[s]!r} at time {times[t]!r} "
                f"(columns {site!r}, {time!r}). "
                'Add the rows, or pass missing="zero" if no row means a count of zero.'
            )
        per_cell = np.maximum(rows_in_cell, 1)
        grid_y = np.bincount(cell, weights=y, minlength=filled.size).reshape(num_times, num_sites)
        grid_x = np.empty((num_times * num_sites, len(features)))
        for p in range(len(features)):
            grid_x[:, p] = np.bincount(cell, weights=x[:, p], minlength=filled.size) / per_cell
        grid_x = grid_x.reshape(num_times, num_sites, len(features))
        if not filled.all():
            filled = filled.reshape(num_times, num_sites)
            _fill_forward_then_back(grid_x, filled)
            # In a period without counts, one to be predicted, an absent row is no zero.
            unknown = np.isnan(np.where(filled, grid_y, np.nan)).all(axis=1)
            grid_y[unknown[:, None] & ~filled] = np.nan
        if counts == "optional":
            _check_missing_counts_last(grid_y, ids, times, name, count)
        if np.nanmax(grid_y, initial=0) > _MAX_COUNT:
            raise ValueError(
                f"{name}: count {count!r} must be at most {_MAX_COUNT}, got "
                f"{np.nanmax(grid_y):.0f}."
            )
        _warn_of_gaps(times, name, time)
        return cls(
            grid_x, grid_y, ids, times, [str(f) for f in features], counts=counts, source=source
        )

    # ---- sizes and views -------------------------------------------------------------------------

    @property
    def num_times(self) -> int:
        return self.y.shape[0]

    @property
    def num_sites(self) -> int:
        return self.y.shape[1]

    @property
    def num_features(self) -> int:
        return self.x.shape[2]

    @property
    def device(self) -> torch.device:
        return self.y.device

    @property
    def has_counts(self) -> Tensor:
        """Which periods have counts, bool [T]."""
        return ~torch.isnan(self.y).any(dim=1)

    @property
    def history_y(self) -> Tensor | None:
        first = int(self._rows[0])
        return self._timeline[:first] if first > 0 else None

    def __repr__(self) -> str:
        span = (
            repr(self.times[0])
            if self.num_times == 1
            else f"{self.times[0]!r} to {self.times[-1]!r}"
        )
        unknown = int((~self.has_counts).sum())
        parts = [
            f"{self.num_times} times ({span})",
            f"{self.num_sites} sites",
            f"{self.num_features} features",
            f"{int(torch.nansum(self.y.double()))} events",
        ]
        if unknown:
            parts.append(f"no counts in the last {unknown}")
        if self.history_y is not None:
            parts.append(f"{len(self.history_y)} earlier periods of counts")
        if self.source:
            parts.append(f"source: {self.source}")
        return f"Panel({', '.join(parts)})"

    def to_frame(
        self, *, site: str = "site", time: str = "time", count: str = "count"
    ) -> pd.DataFrame:
        """The long table, one row per period and site, under the given column names."""
        taken = {site, time, count}
        if len(taken) < 3 or taken & set(self.feature_names):
            raise ValueError(
                "Panel.to_frame: site, time and count must be distinct and no feature names, got "
                f"{[site, time, count]} with features {self.feature_names}."
            )
        columns = {
            site: np.tile(np.array(self.site_ids, dtype=object), self.num_times),
            time: pd.Series(self.times).repeat(self.num_sites).array,
            count: self.y.cpu().numpy().ravel(),
        }
        x = self.x.cpu().numpy().reshape(-1, self.num_features)
        return pd.DataFrame(columns | {name: x[:, p] for p, name in enumerate(self.feature_names)})

    def to(self, device: str | torch.device) -> Panel:
        """The same panel with its tensors on `device`."""
        return self._replace(
            x=self.x.to(device), y=self.y.to(device), _timeline=self._timeline.to(device)
        )

    def select_times(self, times: Any) -> Panel:
        """The panel of these periods (one or several): earlier ones become history, later go."""
        return self._at(self._positions(times, "Panel.select_times", "times"))

    def split(self, *, valid: Any = None, test: Any = None) -> Splits:
        """Cut by time: train is everything before the first validation (or else test) period.

        Args:
            valid: a time, or a list of times, to validate on.
            test: a time, or a list of times, to test on; all after `valid`.

        Each part keeps the counts of all earlier periods as history, and none of later ones.

        Example: `train, valid, test = panel.split(valid=2020, test=[2021, 2022])`
        """
        if valid is None and test is None:
            raise ValueError("Panel.split: valid or test must be given, got neither.")
        valid_at = None if valid is None else self._positions(valid, "Panel.split", "valid")
        test_at = None if test is None else self._positions(test, "Panel.split", "test")
        if valid_at is not None and test_at is not None and valid_at[-1] >= test_at[0]:
            raise ValueError(
                f"Panel.split: test must come after valid, got test {self.times[test_at[0]]!r} "
                f"with valid {self.times[valid_at[-1]]!r}."
            )
        end = (valid_at if valid_at is not None else test_at)[0]
        if end == 0:
            raise ValueError(
                f"Panel.split: {'test' if valid_at is None else 'valid'} must leave earlier "
                f"periods to train on, got {self.times[0]!r}, the panel's first."
            )
        return Splits(
            self._at(list(range(end))),
            None if valid_at is None else self._at(valid_at),
            None if test_at is None else self._at(test_at),
        )

    def with_history(self, earlier: Panel) -> Panel:
        """This panel with `earlier`, of the same sites and wholly before it, as its history."""
        if not isinstance(earlier, Panel):
            raise TypeError(
                f"Panel.with_history: earlier must be a Panel, got {type(earlier).__name__}."
            )
        if earlier.site_ids != self.site_ids:
            raise ValueError(
                "Panel.with_history: earlier must have the same sites in the same order, got "
                f"{earlier.num_sites} sites for {self.num_sites}. Call "
                "panel.align(site_ids=earlier.site_ids) first."
            )
        if earlier.time_values[-1] >= self.time_values[0]:
            raise ValueError(
                f"Panel.with_history: earlier must end before {self.times[0]!r}, got one that ends "
                f"at {earlier.times[-1]!r}."
            )
        timeline = torch.cat([earlier._timeline.to(self.device), self.y])
        rows = torch.arange(len(timeline) - self.num_times, len(timeline))
        return self._replace(_timeline=timeline, _rows=rows)

    def align(
        self, *, site_ids: Sequence[str] | None = None, feature_names: Sequence[str] | None = None
    ) -> Panel:
        """This panel with the sites and features that a model was fitted on, in that order.

        Args:
            site_ids: the sites to have; the panel must hold these and no others. None leaves them.
            feature_names: the features to have; others are left out. None leaves them.
        """
        panel = self
        if site_ids is not None:
            order = _order(self.site_ids, list(site_ids), "site_ids", "site", exact=True)
            panel = panel._replace(
                x=panel.x[:, order],
                y=panel.y[:, order],
                _timeline=panel._timeline[:, order],
                site_ids=list(site_ids),
            )
        if feature_names is not None:
            order = _order(
                self.feature_names, list(feature_names), "feature_names", "feature", exact=False
            )
            panel = panel._replace(x=panel.x[:, :, order], feature_names=list(feature_names))
        return panel

    def with_features(self, x: Tensor, feature_names: Sequence[str]) -> Panel:
        """This panel with features x [T, S, P'] in place of its own."""
        if x.shape[:2] != self.y.shape or x.ndim != 3 or x.shape[2] != len(feature_names):
            raise ValueError(
                f"Panel.with_features: x must have shape [{self.num_times}, {self.num_sites}, "
                f"{len(feature_names)}], got {list(x.shape)}."
            )
        return self._replace(x=x, feature_names=list(feature_names))

    def batch(self, window: int | None = None, *, weights: Any = None) -> Batch:
        """The tensors a model and an objective take.

        Args:
            window: W, the number of earlier counts per period; None or 0 for no history. Before the
                first known period counts are taken as zero, as the published files of the 2025
                paper do.
            weights: weight of each period [T], or a function from time_values [T] to it, or None.
        """
        if window is not None and (
            isinstance(window, bool) or not isinstance(window, numbers.Integral) or window < 0
        ):
            raise ValueError(
                f"Panel.batch: window must be a whole number >= 0 or None, got {window!r}."
            )
        if callable(weights):
            weights = weights(self.time_values)
        if weights is not None:
            weights = torch.as_tensor(weights, dtype=torch.float32).to(self.device)
            if (
                weights.shape != (self.num_times,)
                or not (torch.isfinite(weights) & (weights >= 0)).all()
            ):
                raise ValueError(
                    f"Panel.batch: weights must be {self.num_times} finite numbers >= 0, got "
                    f"{weights.tolist()}."
                )
        time = self.time_values.to(device=self.device, dtype=torch.float32)
        return Batch(self.x, self.y, time, self._windows(int(window)) if window else None, weights)

    def _windows(self, window: int) -> Tensor:
        rows = self._rows.to(self.device)
        lag = rows[:, None] + torch.arange(-window, 0, device=self.device)  # [T, W]
        history = self._timeline[lag.clamp_min(0)].masked_fill((lag < 0)[:, :, None], 0)
        if torch.isnan(history).any():
            t = int(torch.nonzero(torch.isnan(history))[0, 0])
            raise ValueError(
                f"Panel.batch: window must reach back over periods with counts, got {window} for "
                f"time {self.times[t]!r}, before which some are unknown. Rank one period ahead at "
                "a time."
            )
        return history.permute(0, 2, 1).contiguous()

    def _positions(self, times: Any, name: str, argument: str) -> list[int]:
        several = isinstance(times, Iterable) and not isinstance(times, str | bytes)
        wanted = [_plain(t) for t in times] if several else [_plain(times)]
        if not wanted:
            raise ValueError(f"{name}: {argument} must hold at least one time, got none.")
        at = {t: i for i, t in enumerate(self.times)}
        positions = []
        for t in wanted:
            known = at[t] if isinstance(t, Hashable) and t in at else self._position_by_value(t)
            if known is None:
                raise ValueError(
                    f"{name}: {argument} must be among the panel's times, got {t!r}. It has "
                    f"{_listed(self.times)}."
                )
            positions.append(known)
        repeated = _first_repeated(positions)
        if repeated is not None:
            raise ValueError(
                f"{name}: {argument} must be distinct, got {self.times[repeated]!r} more than once."
            )
        return sorted(positions)

    def _position_by_value(self, time: Any) -> int | None:
        """The position of a time written another way than in the panel, as a date for its string."""
        try:
            values = _time_values([*self.times, time], "Panel", "times")
        except (TypeError, ValueError):
            return None
        same = np.flatnonzero(values[:-1] == values[-1])
        return int(same[0]) if same.size else None

    def _at(self, positions: list[int]) -> Panel:
        index = torch.tensor(positions)
        on_device = index.to(self.device)
        rows = self._rows[index]
        return self._replace(
            x=self.x[on_device],
            y=self.y[on_device],
            times=[self.times[i] for i in positions],
            time_values=self.time_values[index],
            _rows=rows,
            _timeline=self._timeline[: int(rows[-1]) + 1],
        )

    def _replace(self, **changes: Any) -> Panel:
        panel = object.__new__(type(self))
        panel.__dict__.update(self.__dict__ | changes)
        return panel


# ---- reading a file ------------------------------------------------------------------------------


def _read_csv(
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


def _drop_repeated_columns(
    df: pd.DataFrame, name: str, where: Callable[[int], str]
) -> pd.DataFrame:
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


def _check_column(df: pd.DataFrame, name: str, argument: str, column: Any) -> None:
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


def _default_features(
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


def _site_codes(
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
    repeated = _first_repeated(ids)
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


def _time_codes(
    column: pd.Series, name: str, label: str, where: Callable[[int], str]
) -> tuple[list[Any], np.ndarray]:
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"{name}: time {label!r} must have no missing values, got one at "
            f"{where(int(np.argmax(missing)))} ({int(missing.sum())} in all)."
        )
    codes, uniques = pd.factorize(column)
    given = [_plain(u) for u in uniques]
    values = _time_values(
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


def _count_values(
    column: pd.Series, name: str, label: str, where: Callable[[int], str], counts: str
) -> np.ndarray:
    values = _numbers(column, name, f"count {label!r}", where)
    missing = np.isnan(values)
    bad = ~missing & ~((values >= 0) & (values == np.floor(values)) & (values <= _MAX_COUNT))
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
            f"{name}: count {label!r} must hold whole numbers from 0 to {_MAX_COUNT}, got "
            f"{value:g} at {where(row)} ({int(bad.sum())} such rows). {advice}"
        )
    return values


def _feature_values(
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
    column: pd.Series, name: str, argument: str, where: Callable[[int], str]
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
            f"({int(bad.sum())} such rows)."
        )
    return values.to_numpy(dtype=np.float64)


def _fill_forward_then_back(x: np.ndarray, filled: np.ndarray) -> None:
    """Fill cells of x [T, S, P] without a row from the site's last filled period, else its next."""
    num_times = len(filled)
    steps = np.arange(num_times)[:, None]
    before = np.maximum.accumulate(np.where(filled, steps, -1), axis=0)
    after = np.minimum.accumulate(np.where(filled, steps, num_times)[::-1], axis=0)[::-1]
    source = np.where(before >= 0, before, after)
    x[:] = np.take_along_axis(x, source[:, :, None], axis=0)


def _check_missing_counts_last(
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


def _warn_of_gaps(times: list[Any], name: str, label: str) -> None:
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


# ---- small helpers -------------------------------------------------------------------------------


def _as_float32(value: Any, argument: str) -> Tensor:
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.ascontiguousarray(value))
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"Panel: {argument} must be a tensor or array of numbers, got {type(value).__name__}."
        ) from error
    return tensor.detach().to(torch.float32)


def _check_counts(
    y: Tensor, site_ids: list[str], times: Sequence[Any], argument: str, *, allow_missing: bool
) -> None:
    missing = torch.isnan(y)
    if allow_missing:
        _check_missing_counts_last(y.cpu().numpy(), site_ids, list(times), "Panel", argument)
    bad = ~((y >= 0) & (y == torch.floor(y)) & (y <= _MAX_COUNT)) & ~(missing & allow_missing)
    if bad.any():
        t, s = (int(i) for i in torch.nonzero(bad)[0])
        advice = ' For periods yet to come pass counts="optional".' if missing[t, s] else ""
        raise ValueError(
            f"Panel: {argument} must hold whole numbers from 0 to {_MAX_COUNT}, got "
            f"{y[t, s].item():g} for site {site_ids[s]!r} at time {times[t]!r}.{advice}"
        )


def _check_one_of(name: str, argument: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(
            f"{name}: {argument} must be one of {', '.join(map(repr, allowed))}, got {value!r}."
        )


def _plain(value: Any) -> Any:
    """Plain Python for NumPy and torch scalars, so that times compare as what they are."""
    if isinstance(value, np.datetime64):
        return pd.Timestamp(value)
    if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.ndim == 0):
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _time_values(
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


def _first_repeated(values: Sequence[Any]) -> Any:
    seen = set()
    for v in values:
        if v in seen:
            return v
        seen.add(v)
    return None


def _listed(values: Sequence[Any], most: int = 8) -> str:
    values = list(values)
    shown = ", ".join(repr(v) for v in values[:most])
    return shown if len(values) <= most else f"{shown}, … ({len(values)} in all)"


def _order(have: list[str], want: list[str], argument: str, noun: str, *, exact: bool) -> list[int]:
    at = {v: i for i, v in enumerate(have)}
    absent = [v for v in want if v not in at]
    if absent:
        near = difflib.get_close_matches(str(absent[0]), have[:10_000], n=1)
        advice = f" The nearest {noun} it has is {near[0]!r}." if near else ""
        raise ValueError(
            f"Panel.align: {argument} must all be in the panel, got {len(absent)} {noun}(s) that "
            f"it lacks: {_listed(absent)}.{advice} Add their rows or columns."
        )
    unknown = sorted(set(have) - set(want)) if exact else []
    if unknown:
        raise ValueError(
            f"Panel.align: {argument} must cover the panel, got {len(unknown)} unknown {noun}(s) "
            f"in the panel: {_listed(unknown)}. Drop their rows, or fit the model with them."
        )
    repeated = _first_repeated(want)
    if repeated is not None:
        raise ValueError(
            f"Panel.align: {argument} must be distinct, got {repeated!r} more than once."
        )
    return [at[v] for v in want]
