"""Counts and features of S sites over T periods.

A `Panel` holds x [T, S, P] and y [T, S] with the names of its sites, periods and features. If
given, it also holds the exposure of each count, the interval that a suppressed count lies in, and
when sites open and close. It knows its calendar, and so which periods have no row.

Every choice that changes numbers is an argument whose default is an error that names the row and
the column: missing site-periods, duplicate rows, suppressed cells, absent lags.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from topreach._C import Calendar

from . import checks as _checks
from . import columns as _columns
from .batch import Batch, Splits
from .cuts import TimeCuts
from .lags import ABSENT_LAGS, Lags
from .reader import csv_table, frame_table, parquet_table
from .sites import open_cells
from .timeline import Timeline, with_unknown
from .times import make_calendar, plain, read_times

__all__ = ["Batch", "Panel", "Splits"]


class Panel(TimeCuts, Lags):
    """Counts y [T, S] and features x [T, S, P] of S sites over T periods in time order.

    Args:
        x: features [T, S, P], finite; stored as float32.
        y: counts [T, S], whole numbers >= 0; stored as float32. NaN where a site is not open.
        site_ids: S distinct strings.
        times: T distinct times, ascending: numbers, dates, or date strings in one format; kept as
            given. A period between two of them that is left out is unknown, with a warning.
        feature_names: P distinct strings.
        history_y: counts [H, S] of earlier periods, oldest first, NaN where not known; or None.
        history_times: the H times of `history_y`. None: the periods just before `times[0]`.
        exposure: [T, S] a quantity that the counts are proportional to, such as the population at
            risk: finite and > 0; stored as float32. None: no exposure.
        y_upper: [T, S] whole numbers >= y. If above y, the count is only known to lie in
            y..y_upper, as in a suppressed cell; NaN where y is. None: all counts are exact.
        opened, closed: [S] when each site opens and closes, as numbers (see `time_values`); NaN for
            none. A site is open from the period it opens in to the one it closes in.
        counts: "optional" allows the last periods to have no counts (all their y are NaN), for
            ranking the future.
        calendar: a `Calendar` that the times must lie on. None: inferred from the times.
        time_format: how times are written, a strftime pattern, if they can be read in two ways.
        absent_lags: what `batch` does by default if an earlier count is not known: "error",
            "zero" or "nan"; see there.
        source: where the numbers come from, e.g. "simulated"; carried along.
        notes: the decisions that the reader of a table made, in sentences; carried along.

    Attributes:
        time_values: times as numbers, float64 [T]: numbers as they are, dates as days since
            1970-01-01.
        calendar: the `Calendar` of the periods.
        timeline: all known counts up to the last period, on the calendar's grid, float32 [N, S]:
            NaN where not known. Row `rows[t]` is period t. An error if some counts are suppressed.
        timeline_times: first moments of its periods, float64 [N].
        history_y: the timeline before the first period [H, S], or None if it is unknown.
        y_upper: None if all counts are exact. Where it is above y, y is the least that the count
            can be. The same holds in history_y.

    Metrics and features of the past need exact counts: they refuse a panel with suppressed ones.
    `at_bound` makes counts exact. `NegBinMixedEffects` and `objectives.NLL` take suppressed counts.

    Raises:
        TypeError, ValueError: an argument that is not as above; the message names the site and
        time.

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
        history_times: Sequence[Any] | None = None,
        exposure: Any = None,
        y_upper: Any = None,
        opened: Any = None,
        closed: Any = None,
        counts: str = "required",
        calendar: Calendar | None = None,
        time_format: str | None = None,
        absent_lags: str = "error",
        source: str | None = None,
        notes: Sequence[str] = (),
    ):
        x, y = _checks.as_float32(x, "x"), _checks.as_float32(y, "y")
        site_ids, feature_names = list(site_ids), list(feature_names)
        times = [plain(t) for t in times]
        _checks.check_shapes(x, y, site_ids, times, feature_names)
        _columns.check_one_of("Panel", "counts", counts, ("required", "optional"))
        _columns.check_one_of("Panel", "absent_lags", absent_lags, ABSENT_LAGS)
        read = read_times(times, "Panel", "times", time_format=time_format, calendar=calendar)
        if not (np.diff(read.values) > 0).all():
            i = int(np.argmin(np.diff(read.values) > 0))
            raise ValueError(f"Panel: times must ascend, got {times[i + 1]!r} after {times[i]!r}.")
        calendar = make_calendar(read, "Panel", "times", calendar)
        _checks.check_features(x, site_ids, times, feature_names)
        self.opened, self.closed = (
            _checks.as_moments(moments, len(site_ids), role)
            for role, moments in (("opened", opened), ("closed", closed))
        )
        is_open = open_cells(self.opened.numpy(), self.closed.numpy(), read.values, calendar)
        self.is_open = None if is_open is None else torch.from_numpy(is_open).to(y.device)
        _checks.check_counts(
            y, site_ids, times, "y", optional=counts == "optional", is_open=is_open
        )
        if exposure is not None:
            exposure = _checks.as_float32(exposure, "exposure").to(y.device)
            _checks.check_exposure(exposure, y, site_ids, times)
        if y_upper is not None:
            y_upper = _checks.as_float32(y_upper, "y_upper").to(y.device)
            _checks.check_upper(y_upper, y, site_ids, times)
            y_upper = y_upper if bool((y_upper > y).any()) else None

        self.x, self.y = x, y
        self.site_ids, self.times, self.feature_names = site_ids, times, feature_names
        self.time_values = torch.from_numpy(read.values)
        self.exposure = exposure
        self.source, self.notes, self.absent_lags = source, list(notes), absent_lags
        low, high, values, known = y, y_upper, read.values.tolist(), exposure
        if history_y is not None:
            history_y = _checks.as_float32(history_y, "history_y").to(y.device)
            _checks.check_history(history_y, site_ids, times[0])
            before = self._before(history_times, len(history_y), calendar)
            values = before + values
            low = torch.cat([history_y, y])
            high = None if y_upper is None else torch.cat([history_y, y_upper])
            known = with_unknown(history_y, exposure)
        elif history_times is not None:
            raise ValueError("Panel: history_times must come with history_y, got it alone.")
        self._line, rows = Timeline.place(calendar, values, low, high, known)
        self._rows = rows[len(low) - len(y) :]
        self._warn_of_gaps("Panel")

    def _before(self, times: Sequence[Any] | None, number: int, calendar: Calendar) -> list[float]:
        """The times of the history's rows."""
        first = float(self.time_values[0])
        if times is None:
            return [calendar.next(first, h - number) for h in range(number)]
        read = read_times(list(times), "Panel", "history_times", calendar=calendar)
        values = read.values.tolist()
        make_calendar(read, "Panel", "history_times", calendar)
        if len(values) != number:
            raise ValueError(
                f"Panel: history_times must have {number} entries like history_y, got "
                f"{len(values)}."
            )
        if not (np.diff([*values, first]) > 0).all():
            raise ValueError(
                f"Panel: history_times must ascend and end before {self.times[0]!r}, got "
                f"{_columns.listed(times)}."
            )
        return values

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
        opened: str | None = None,
        closed: str | None = None,
        time_format: str | None = None,
        calendar: Calendar | None = None,
        source: str | None = None,
    ) -> Panel:
        """Read a long table with one row per site and period.

        Sites are sorted in ascending order (as numbers if all ids are digits) and periods in time
        order, whatever the order of the rows.

        Warnings name periods without any row, ids that may be two spellings of one site, sites that
        seem to have ended, and features that agree too closely with the count of their own period.

        Args:
            df: the table.
            site: column of the site ids. They are strings: "00123" stays "00123", whole numbers
                become their digits, and white space around an id is taken off.
            time: column of the periods, in one format throughout: numbers (years), YYYYMM,
                YYYYMMDD, dates, "2021-03", "2021Q1", "2021-W05", "Nov-20", "Nov 2020" and similar
                forms. A column that may mean something else (fiscal years, quarters written as
                20211, Excel's day numbers) is an error until `time_format` says which.
            count: column of the counts; None if the table has none (then `counts` must be
                "optional").
            exposure: column of a quantity that the counts are proportional to, such as the
                population, in every row; one number per site is repeated in its rows. None: no
                exposure.
            features: columns of the features. None takes all other numeric columns: `panel.notes`
                lists those taken, a warning those left out.
            suppressed: text of the count column that replaces a number -> the (least, most) count
                that it can be, e.g. {"1-9": (1, 9), "Suppressed": (1, 9), "<5": (0, 4)}. Codes such
                as "-1" are possible; "" is a blank cell. None: such a cell is an error.
            missing: what to do if a site has no row for a period: "error", or "zero" for a count of
                zero there, with features and exposure from the site's nearest earlier row, else its
                nearest later one. A period without any row stays unknown.
            duplicates: what to do with several rows of one site and period: "error", or "sum" their
                counts and average their features; their exposure must be the same.
            counts: "optional" allows the last periods to have no counts, so that the future can be
                ranked.
            opened, closed: columns of the times when a site opens and closes, the same in all rows
                of a site; blank for none. Counts outside this span are NaN and need no row.
            time_format: how times are written: a strftime pattern such as "%d/%m/%Y" (see
                `Calendar`), or "number" for plain numbers. None: inferred from the column.
            calendar: a `Calendar` that the times must lie on, such as another panel's.
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
        options = {k: v for k, v in locals().items() if k not in ("cls", "df", "name")}
        if not isinstance(df, pd.DataFrame):
            raise TypeError(f"{name}: df must be a pandas DataFrame, got {type(df).__name__}.")
        return cls(**frame_table(df, name, lambda i: f"row {plain(df.index[i])!r}", **options))

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
        opened: str | None = None,
        closed: str | None = None,
        time_format: str | None = None,
        calendar: Calendar | None = None,
        source: str | None = None,
        sep: str | None = None,
        encoding: str | None = None,
        decimal: str = ".",
    ) -> Panel:
        """Read a CSV file; see `from_frame` for the other arguments.

        The site column is read as text. A column that occurs twice is taken once if both copies
        agree, else it is an error.

        Args:
            path: the file, which may be compressed (.gz, .bz2, .xz, .zip); "-" is standard input.
            sep: the separator. None takes the one of , ; tab and | under which the header has the
                columns that are named.
            encoding: None is UTF-8 (with or without a byte-order mark), or UTF-16 with one.
            decimal: the mark before decimals in numbers, "." or ",".
        """
        options = {k: v for k, v in locals().items() if k not in ("cls", "path")}
        return cls(**csv_table(path, f"{cls.__name__}.from_csv", **options))

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
        opened: str | None = None,
        closed: str | None = None,
        time_format: str | None = None,
        calendar: Calendar | None = None,
        source: str | None = None,
    ) -> Panel:
        """Read a Parquet file (needs `pyarrow`); see `from_frame` for the arguments."""
        options = {k: v for k, v in locals().items() if k not in ("cls", "path")}
        return cls(**parquet_table(path, f"{cls.__name__}.from_parquet", **options))

    # ---- views and changes -----------------------------------------------------------------------

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
        absent = len(self._line.absent(self._rows))
        if absent:
            parts.append(f"{absent} periods without rows")
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
        opened: str = "opened",
        closed: str = "closed",
    ) -> pd.DataFrame:
        """The long table, one row per period and site, under the given column names.

        `exposure`, `opened` and `closed` are included only if the panel has them. A count that is
        only known to lie in 1..9 is written as "1-9", an unknown count as NaN.

        Raises:
            ValueError: column names that are not distinct, or are those of features.
        """
        moments = {
            column: values
            for column, values in ((opened, self.opened), (closed, self.closed))
            if not bool(torch.isnan(values).all())
        }
        names = [site, time, count, *([] if self.exposure is None else [exposure]), *moments]
        if len(set(names)) < len(names) or set(names) & set(self.feature_names):
            raise ValueError(
                "Panel.to_frame: site, time, count and exposure must be distinct and no feature "
                f"names, got {names} with features {self.feature_names}."
            )
        least = self.y.cpu().numpy().ravel()
        counts: np.ndarray | list[str | float] = least
        if self.y_upper is not None:
            upper = self.y_upper.cpu().numpy().ravel()
            bounds = zip(least.tolist(), upper.tolist(), strict=True)
            counts = [f"{low:.0f}-{high:.0f}" if high > low else low for low, high in bounds]
        columns = {
            site: np.tile(np.array(self.site_ids, dtype=object), self.num_times),
            time: pd.Series(self.times).repeat(self.num_sites).array,
            count: counts,
        }
        if self.exposure is not None:
            columns[exposure] = self.exposure.cpu().numpy().ravel()
        for column, values in moments.items():
            labels = [None if np.isnan(v) else self.calendar.label(v) for v in values.tolist()]
            columns[column] = np.tile(np.array(labels, dtype=object), self.num_times)
        x = self.x.cpu().numpy().reshape(self.y.numel(), self.num_features)
        return pd.DataFrame(columns | {name: x[:, p] for p, name in enumerate(self.feature_names)})

    def to(self, device: str | torch.device) -> Panel:
        """The same panel with its tensors on `device`."""
        moved = {n: getattr(self, n) for n in ("x", "y", "exposure", "is_open")}
        moved = {n: None if t is None else t.to(device) for n, t in moved.items()}
        return self._replace(**moved, _line=self._line.to(device))

    def at_bound(self, bound: str) -> Panel:
        """This panel with its suppressed counts, and those of its history, set to their "lower" or
        "upper" bound, as exact counts.

        Example:
            >>> p = Panel(torch.zeros(1, 1, 0), [[1]], ["a"], [2020], [], y_upper=[[9]])
            >>> p.at_bound("upper").y
            tensor([[9.]])
        """
        _columns.check_one_of("Panel.at_bound", "bound", bound, ("lower", "upper"))
        line = self._line.bound(bound)
        return self._replace(y=line.low[self._rows.to(self.device)], _line=line)

    def align(
        self, *, site_ids: Sequence[str] | None = None, feature_names: Sequence[str] | None = None
    ) -> Panel:
        """This panel with the sites and features that a model was fitted on, in that order.

        Args:
            site_ids: the sites to have; the panel must hold these and no others. None: unchanged.
            feature_names: the features to have; others are left out. None: unchanged.
        """
        panel = self
        if site_ids is not None:
            order = _checks.order(self.site_ids, list(site_ids), "site_ids", "site", exact=True)
            panel = panel._replace(
                x=panel.x[:, order],
                y=panel.y[:, order],
                exposure=None if panel.exposure is None else panel.exposure[:, order],
                is_open=None if panel.is_open is None else panel.is_open[:, order],
                opened=panel.opened[order],
                closed=panel.closed[order],
                _line=panel._line.sites(order),
                site_ids=list(site_ids),
            )
        if feature_names is not None:
            order = _checks.order(
                self.feature_names, list(feature_names), "feature_names", "feature", exact=False
            )
            panel = panel._replace(x=panel.x[:, :, order], feature_names=list(feature_names))
        return panel

    def with_features(self, x: Tensor, feature_names: Sequence[str]) -> Panel:
        """This panel with features x [T, S, P'] instead of its own."""
        if x.shape[:2] != self.y.shape or x.ndim != 3 or x.shape[2] != len(feature_names):
            raise ValueError(
                f"Panel.with_features: x must have shape [{self.num_times}, {self.num_sites}, "
                f"{len(feature_names)}], got {list(x.shape)}."
            )
        return self._replace(x=x, feature_names=list(feature_names))

    def _replace(self, **changes: Any) -> Panel:
        panel = object.__new__(type(self))
        panel.__dict__.update(self.__dict__ | changes)
        return panel
