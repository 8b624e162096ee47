"""Counts and features of S sites over T periods, and how they are read from a table.

A `Panel` holds x [T, S, P] and y [T, S] with the names of its sites, periods and features, and
where there are such the exposure of each count and the interval that a suppressed one lies in. Every
choice that changes numbers (missing site-periods, duplicate rows, suppressed cells) is an argument
whose default is an error that names the row and the column.
"""

from __future__ import annotations

import difflib
import numbers
import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from . import columns as _columns


class Batch(NamedTuple):
    """What an objective sees of a panel.

    x [T, S, P], y [T, S], time [T], history [T, S, W] or None, weights [T] or None; `history[t, s]`
    holds the W counts before period t, oldest first. exposure and y_upper [T, S] or None, as in
    `Panel`.
    """

    x: Tensor
    y: Tensor
    time: Tensor
    history: Tensor | None = None
    weights: Tensor | None = None
    exposure: Tensor | None = None
    y_upper: Tensor | None = None


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
        exposure: what the counts are in proportion to [T, S], for instance the population at risk:
            finite and > 0; stored as float32. None where there is none.
        y_upper: [T, S] whole numbers >= y: where above y, the count is only known to lie in
            y..y_upper, as in a suppressed cell; NaN where y is. None: all counts are exact.
        counts: "optional" allows the last periods to have no counts (all their y are NaN), for
            ranking the future.
        source: a word on where the numbers come from, e.g. "simulated"; carried along.

    Attributes:
        time_values: times as numbers, float64 [T]: numbers as they are, dates as days since
            1970-01-01.
        history_y: counts of all known periods before the first one [H, S], or None if there are
            none.
        y_upper: None if all counts are exact. Where it is above y, y is the least that the count can
            be, in history_y too.

    What needs exact counts, as metrics and features of the past do, refuses a panel with suppressed
    ones; `at_bound` makes them exact. `NegBinMixedEffects` and `objectives.NLL` take them as they are.

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
        exposure: Any = None,
        y_upper: Any = None,
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
            [_columns.plain(t) for t in times],
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
            repeated = _columns.first_repeated(values)
            if repeated is not None:
                raise ValueError(
                    f"Panel: {name} must be distinct, got {repeated!r} more than once."
                )
        time_values = _columns.time_values(times, "Panel", "times")
        if not (np.diff(time_values) > 0).all():
            i = int(np.argmin(np.diff(time_values) > 0))
            raise ValueError(f"Panel: times must ascend, got {times[i + 1]!r} after {times[i]!r}.")
        _columns.check_one_of("Panel", "counts", counts, ("required", "optional"))
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
        if exposure is not None:
            exposure = _as_float32(exposure, "exposure").to(y.device)
            _check_exposure(exposure, y, site_ids, times)
        if y_upper is not None:
            y_upper = _as_float32(y_upper, "y_upper").to(y.device)
            _check_upper(y_upper, y, site_ids, times)
            y_upper = y_upper if bool((y_upper > y).any()) else None

        self.x, self.y = x, y
        self.site_ids, self.times, self.feature_names = site_ids, times, feature_names
        self.time_values = torch.from_numpy(time_values)
        self.source = source
        self.exposure = exposure
        # All known counts up to the last period, the most that they can be if some are not exact, and
        # the row of each period in them.
        self._low = y if history_y is None else torch.cat([history_y, y])
        self._high = y_upper
        if y_upper is not None and history_y is not None:
            self._high = torch.cat([history_y, y_upper])
        self._rows = torch.arange(len(self._low) - len(y), len(self._low))

    # ---- reading ---------------------------------------------------------------------------------

    @classmethod
    def from_frame(
        cls,
        df: pd.DataFrame,
        *,
        site: str,
        time: str,
        count: str | None,
        exposure: str | None = None,
        features: Sequence[str] | None = None,
        suppressed: Mapping[str, tuple[int, int]] | None = None,
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
            exposure: column of what the counts are in proportion to, such as the population, in every
                row; one number per site is repeated in its rows. None if there is none.
            features: columns of the features; None takes all other numeric columns and says which
                it leaves out.
            suppressed: what stands in the count column in place of a number -> the (least, most)
                count that it can be, as {"1-9": (1, 9), "Suppressed": (1, 9), "<5": (0, 4)}. None:
                such a cell is an error.
            missing: what to do if a site has no row for a period: "error", or "zero" for a count of
                zero there, with features and exposure from the site's nearest earlier row, else its
                nearest later one.
            duplicates: what to do with several rows of one site and period: "error", or "sum" their
                counts and average their features; their exposure must be the same.
            counts: "optional" allows the last periods to have no counts, so that the future can be
                ranked.
            source: carried along as `panel.source`.

        Raises:
            TypeError, ValueError: an argument or a cell that is not as above, with its row.

        Example:
            >>> df = pd.DataFrame({"county": ["a", "b"], "year": 2020, "deaths": ["12", "1-9"]})
            >>> columns = {"site": "county", "time": "year", "count": "deaths"}
            >>> p = Panel.from_frame(df, **columns, suppressed={"1-9": (1, 9)})
            >>> p.y, p.y_upper
            (tensor([[12.,  1.]]), tensor([[12.,  9.]]))
        """
        name = f"{cls.__name__}.from_frame"
        if not isinstance(df, pd.DataFrame):
            raise TypeError(f"{name}: df must be a pandas DataFrame, got {type(df).__name__}.")
        options = {
            "exposure": exposure,
            "features": features,
            "suppressed": suppressed,
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
        exposure: str | None = None,
        features: Sequence[str] | None = None,
        suppressed: Mapping[str, tuple[int, int]] | None = None,
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
        df = _columns.read_csv(path, name, text=(site,), sep=sep, encoding=encoding)
        options = {
            "exposure": exposure,
            "features": features,
            "suppressed": suppressed,
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
        exposure: str | None = None,
        features: Sequence[str] | None = None,
        suppressed: Mapping[str, tuple[int, int]] | None = None,
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
            "exposure": exposure,
            "features": features,
            "suppressed": suppressed,
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
        exposure: str | None,
        features: Sequence[str] | None,
        suppressed: Mapping[str, tuple[int, int]] | None,
        missing: str,
        duplicates: str,
        counts: str,
        source: str | None,
    ) -> Panel:
        _columns.check_one_of(name, "missing", missing, ("error", "zero"))
        _columns.check_one_of(name, "duplicates", duplicates, ("error", "sum"))
        _columns.check_one_of(name, "counts", counts, ("required", "optional"))
        if count is None and counts != "optional":
            raise ValueError(
                f"{name}: count must name a column, got None. For a table without counts pass "
                'counts="optional".'
            )
        if len(df) == 0:
            raise ValueError(f"{name}: the table must have at least one row, got none.")
        df = _columns.drop_repeated_columns(df, name, where)
        optional = {"count": count, "exposure": exposure}
        roles = {"site": site, "time": time}
        roles |= {role: column for role, column in optional.items() if column is not None}
        intervals = _columns.suppressed_intervals(suppressed, name)
        for role, column in roles.items():
            _columns.check_column(df, name, role, column)
        if len(set(roles.values())) < len(roles):
            raise ValueError(
                f"{name}: {', '.join(roles)} must be different columns, got {list(roles.values())}."
            )
        if isinstance(features, str):
            raise TypeError(
                f"{name}: features must be a list of columns, got the string {features!r}."
            )
        if features is not None:
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
                raise ValueError(
                    f"{name}: features must be distinct, got {repeated!r} more than once."
                )
        else:
            features = _columns.default_features(df, name, roles.values(), where)

        ids, site_code = _columns.site_codes(df[site], name, site, where)
        times, time_code = _columns.time_codes(df[time], name, time, where)
        y = y_upper = np.full(len(df), np.nan)
        if count is not None:
            y, y_upper = _columns.count_values(df[count], name, count, where, counts, intervals)
        x = np.empty((len(df), len(features)), dtype=np.float64)
        for p, column in enumerate(features):
            x[:, p] = _columns.feature_values(df[column], name, column, where)

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
        grid_exposure = None
        if exposure is not None:
            values = _columns.exposure_values(df[exposure], name, exposure, where)
            grid_exposure = np.empty(num_times * num_sites)
            grid_exposure[cell] = values
            differs = grid_exposure[cell] != values
            if differs.any():
                row = int(np.argmax(differs))
                raise ValueError(
                    f"{name}: exposure {exposure!r} must be the same in all rows of a site and time, "
                    f"got {values[row]:g} at {where(row)} and {grid_exposure[cell[row]]:g} for site "
                    f"{ids[site_code[row]]!r} at time {times[time_code[row]]!r}. Make one row of "
                    "them, with the exposure of all."
                )
            grid_exposure = grid_exposure.reshape(num_times, num_sites)
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
        grid_y, grid_upper = (
            np.bincount(cell, weights=v, minlength=filled.size).reshape(num_times, num_sites)
            for v in (y, y_upper)
        )
        grid_x = np.empty((num_times * num_sites, len(features)))
        for p in range(len(features)):
            grid_x[:, p] = np.bincount(cell, weights=x[:, p], minlength=filled.size) / per_cell
        grid_x = grid_x.reshape(num_times, num_sites, len(features))
        if not filled.all():
            filled = filled.reshape(num_times, num_sites)
            _columns.fill_forward_then_back(grid_x, filled)
            if grid_exposure is not None:
                _columns.fill_forward_then_back(grid_exposure[:, :, None], filled)
            # In a period without counts, one to be predicted, an absent row is no zero.
            unknown = np.isnan(np.where(filled, grid_y, np.nan)).all(axis=1)
            grid_y[unknown[:, None] & ~filled] = np.nan
            grid_upper[unknown[:, None] & ~filled] = np.nan
        if counts == "optional":
            _columns.check_missing_counts_last(grid_y, ids, times, name, count)
        if np.nanmax(grid_upper, initial=0) > _columns.MAX_COUNT:
            raise ValueError(
                f"{name}: count {count!r} must be at most {_columns.MAX_COUNT}, got "
                f"{np.nanmax(grid_upper):.0f}."
            )
        _columns.warn_of_gaps(times, name, time)
        return cls(
            grid_x,
            grid_y,
            ids,
            times,
            [str(f) for f in features],
            exposure=grid_exposure,
            y_upper=grid_upper,
            counts=counts,
            source=source,
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
    def is_exact(self) -> bool:
        """Whether all counts are exact, those of the past too."""
        return self._high is None

    @property
    def history_y(self) -> Tensor | None:
        first = int(self._rows[0])
        return self._low[:first] if first > 0 else None

    @property
    def y_upper(self) -> Tensor | None:
        if self._high is None:
            return None
        upper = self._high[self._rows.to(self.device)]
        return upper if bool((upper > self.y).any()) else None

    @property
    def _timeline(self) -> Tensor:
        """All known counts up to the last period [H + T, S]; an error if some are not exact."""
        if not self.is_exact:
            number = int((self._high > self._low).sum())
            raise ValueError(
                "Panel: counts must be exact where earlier ones are made use of, got "
                f"{number} that are only known to lie in an interval. Take "
                "panel.at_bound('lower') or panel.at_bound('upper')."
            )
        return self._low

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
        if self.y_upper is not None:
            number = int((self.y_upper > self.y).sum())
            most = int(torch.nansum(self.y_upper.double()))
            parts[-1] = f"{parts[-1][:-7]} to {most} events ({number} counts suppressed)"
        if self.exposure is not None:
            parts.append(f"exposure {self.exposure.min():g} to {self.exposure.max():g}")
        if unknown:
            parts.append(f"no counts in the last {unknown}")
        if self.history_y is not None:
            parts.append(f"{len(self.history_y)} earlier periods of counts")
        if self.source:
            parts.append(f"source: {self.source}")
        return f"Panel({', '.join(parts)})"

    def to_frame(
        self,
        *,
        site: str = "site",
        time: str = "time",
        count: str = "count",
        exposure: str = "exposure",
    ) -> pd.DataFrame:
        """The long table, one row per period and site, under the given column names; `exposure` only
        if the panel has one. A count known to lie in 1..9 only stands as "1-9"."""
        names = [site, time, count] + ([] if self.exposure is None else [exposure])
        if len(set(names)) < len(names) or set(names) & set(self.feature_names):
            raise ValueError(
                "Panel.to_frame: site, time, count and exposure must be distinct and no feature "
                f"names, got {names} with features {self.feature_names}."
            )
        counts = self.y.cpu().numpy().ravel()
        if self.y_upper is not None:
            upper = self.y_upper.cpu().numpy().ravel()
            bounds = zip(counts.tolist(), upper.tolist(), strict=True)
            counts = [f"{low:.0f}-{high:.0f}" if high > low else low for low, high in bounds]
        columns = {
            site: np.tile(np.array(self.site_ids, dtype=object), self.num_times),
            time: pd.Series(self.times).repeat(self.num_sites).array,
            count: counts,
        }
        if self.exposure is not None:
            columns[exposure] = self.exposure.cpu().numpy().ravel()
        x = self.x.cpu().numpy().reshape(-1, self.num_features)
        return pd.DataFrame(columns | {name: x[:, p] for p, name in enumerate(self.feature_names)})

    def to(self, device: str | torch.device) -> Panel:
        """The same panel with its tensors on `device`."""
        names = ("x", "y", "exposure", "_low", "_high")
        return self._replace(**{n: _moved(getattr(self, n), device) for n in names})

    def at_bound(self, bound: str) -> Panel:
        """This panel with its suppressed counts at their "lower" or "upper" bound, as exact counts,
        its history's too.

        Example:
            >>> p = Panel(torch.zeros(1, 1, 0), [[1]], ["a"], [2020], [], y_upper=[[9]])
            >>> p.at_bound("upper").y
            tensor([[9.]])
        """
        _columns.check_one_of("Panel.at_bound", "bound", bound, ("lower", "upper"))
        exact = self._low if bound == "lower" or self._high is None else self._high
        return self._replace(y=exact[self._rows.to(self.device)], _low=exact, _high=None)

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
        low, high = torch.cat([earlier._low.to(self.device), self.y]), None
        if earlier._high is not None or self.y_upper is not None:
            before = earlier._low if earlier._high is None else earlier._high
            own = self.y if self.y_upper is None else self.y_upper
            high = torch.cat([before.to(self.device), own])
        rows = torch.arange(len(low) - self.num_times, len(low))
        return self._replace(_low=low, _high=high, _rows=rows)

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
                exposure=None if panel.exposure is None else panel.exposure[:, order],
                _low=panel._low[:, order],
                _high=None if panel._high is None else panel._high[:, order],
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
        return Batch(
            self.x,
            self.y,
            time,
            self._windows(int(window)) if window else None,
            weights,
            self.exposure,
            self.y_upper,
        )

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
        wanted = [_columns.plain(t) for t in times] if several else [_columns.plain(times)]
        if not wanted:
            raise ValueError(f"{name}: {argument} must hold at least one time, got none.")
        at = {t: i for i, t in enumerate(self.times)}
        positions = []
        for t in wanted:
            known = at[t] if isinstance(t, Hashable) and t in at else self._position_by_value(t)
            if known is None:
                raise ValueError(
                    f"{name}: {argument} must be among the panel's times, got {t!r}. It has "
                    f"{_columns.listed(self.times)}."
                )
            positions.append(known)
        repeated = _columns.first_repeated(positions)
        if repeated is not None:
            raise ValueError(
                f"{name}: {argument} must be distinct, got {self.times[repeated]!r} more than once."
            )
        return sorted(positions)

    def _position_by_value(self, time: Any) -> int | None:
        """The position of a time written another way than in the panel, as a date for its string."""
        try:
            values = _columns.time_values([*self.times, time], "Panel", "times")
        except (TypeError, ValueError):
            return None
        same = np.flatnonzero(values[:-1] == values[-1])
        return int(same[0]) if same.size else None

    def _at(self, positions: list[int]) -> Panel:
        index = torch.tensor(positions)
        on_device = index.to(self.device)
        rows = self._rows[index]
        end = int(rows[-1]) + 1
        low, high = self._low[:end], None if self._high is None else self._high[:end]
        return self._replace(
            x=self.x[on_device],
            y=self.y[on_device],
            exposure=None if self.exposure is None else self.exposure[on_device],
            times=[self.times[i] for i in positions],
            time_values=self.time_values[index],
            _rows=rows,
            _low=low,
            _high=high if high is not None and bool((high > low).any()) else None,
        )

    def _replace(self, **changes: Any) -> Panel:
        panel = object.__new__(type(self))
        panel.__dict__.update(self.__dict__ | changes)
        return panel


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


def _moved(tensor: Tensor | None, device: str | torch.device) -> Tensor | None:
    return None if tensor is None else tensor.to(device)


def _check_exposure(
    exposure: Tensor, y: Tensor, site_ids: list[str], times: Sequence[Any]
) -> None:
    if exposure.shape != y.shape:
        raise ValueError(
            f"Panel: exposure must have shape [T, S] = {list(y.shape)}, got {list(exposure.shape)}."
        )
    bad = ~(torch.isfinite(exposure) & (exposure > 0))
    if bad.any():
        t, s = (int(i) for i in torch.nonzero(bad)[0])
        raise ValueError(
            f"Panel: exposure must be finite and > 0, got {exposure[t, s].item():g} for site "
            f"{site_ids[s]!r} at time {times[t]!r}. Fill it in, or leave the site out."
        )


def _check_upper(y_upper: Tensor, y: Tensor, site_ids: list[str], times: Sequence[Any]) -> None:
    if y_upper.shape != y.shape:
        raise ValueError(
            f"Panel: y_upper must have shape [T, S] = {list(y.shape)}, got {list(y_upper.shape)}."
        )
    good = (y_upper >= y) & (y_upper == torch.floor(y_upper)) & (y_upper <= _columns.MAX_COUNT)
    bad = ~(good | (torch.isnan(y) & torch.isnan(y_upper)))
    if bad.any():
        t, s = (int(i) for i in torch.nonzero(bad)[0])
        raise ValueError(
            f"Panel: y_upper must hold whole numbers from y to {_columns.MAX_COUNT}, got "
            f"{y_upper[t, s].item():g} with y = {y[t, s].item():g} for site {site_ids[s]!r} at time "
            f"{times[t]!r}. Give y itself where the count is exact."
        )


def _check_counts(
    y: Tensor, site_ids: list[str], times: Sequence[Any], argument: str, *, allow_missing: bool
) -> None:
    missing = torch.isnan(y)
    if allow_missing:
        _columns.check_missing_counts_last(
            y.cpu().numpy(), site_ids, list(times), "Panel", argument
        )
    bad = ~((y >= 0) & (y == torch.floor(y)) & (y <= _columns.MAX_COUNT)) & ~(
        missing & allow_missing
    )
    if bad.any():
        t, s = (int(i) for i in torch.nonzero(bad)[0])
        advice = ' For periods yet to come pass counts="optional".' if missing[t, s] else ""
        raise ValueError(
            f"Panel: {argument} must hold whole numbers from 0 to {_columns.MAX_COUNT}, got "
            f"{y[t, s].item():g} for site {site_ids[s]!r} at time {times[t]!r}.{advice}"
        )


def _order(have: list[str], want: list[str], argument: str, noun: str, *, exact: bool) -> list[int]:
    at = {v: i for i, v in enumerate(have)}
    absent = [v for v in want if v not in at]
    if absent:
        near = difflib.get_close_matches(str(absent[0]), have[:10_000], n=1)
        advice = f" The nearest {noun} it has is {near[0]!r}." if near else ""
        raise ValueError(
            f"Panel.align: {argument} must all be in the panel, got {len(absent)} {noun}(s) that "
            f"it lacks: {_columns.listed(absent)}.{advice} Add their rows or columns."
        )
    unknown = sorted(set(have) - set(want)) if exact else []
    if unknown:
        raise ValueError(
            f"Panel.align: {argument} must cover the panel, got {len(unknown)} unknown {noun}(s) "
            f"in the panel: {_columns.listed(unknown)}. Drop their rows, or fit the model with them."
        )
    repeated = _columns.first_repeated(want)
    if repeated is not None:
        raise ValueError(
            f"Panel.align: {argument} must be distinct, got {repeated!r} more than once."
        )
    return [at[v] for v in want]
