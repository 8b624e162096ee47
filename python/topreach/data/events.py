"""Dated events: their places, times, types and marks, and which events were known at which time."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from topreach._C import Events as Core

from .csv_files import read_csv
from .event_changes import EventChanges
from .event_counts import EventCounts, NodeEvents, SharedTypes
from .event_marks import MarkScaler
from .event_table import EventLog, EventSpec, Where, frame_events
from .messages import caller, either, option
from .moments import Resolution, end_label, moment_label, read_moment
from .places import Places
from .times import plain

__all__ = ["Events", "NodeEvents", "SharedTypes"]

_STATE = (
    "start",
    "end",
    "complete_through",
    "is_dates",
    "resolution",
    "types",
    "mark_scaler",
    "source",
    "notes",
)

# Events from which on one far from all others is likely wrong.
_ENOUGH_FOR_A_WINDOW = 20
# Rows from which on it is no chance that each has an equal.
_ENOUGH_TO_REPEAT = 10


class Events(EventCounts, EventChanges):
    """N events in continuous time at I places, of S types, with q marks.

    Made by `from_frame` or `from_csv`. Events are immutable: `until`, `append`, `correct` and
    `delete` return new ones. `counts` returns the `Panel` that other models take.

    Attributes:
        times: float64 [N], ascending: days (or the table's unit, if times are numbers) from the
            window's start. Those <= 0 are history, from before the window.
        place: int64 [N], positions in `places`. flags: bool [N, S], the types that each event has.
        marks: float64 [N, q]: z-scores, and 0/1 for categories. mark_names: q strings.
        ids: N strings.
        places, types: I and S strings. nodes: the M = I · S pairs of them; node i · S + s.
        start, end, complete_through: the window, and until when records are complete, as numbers
            (days since 1970-01-01 if `is_dates`). duration: T, days from start to
            complete_through.
        resolution: how exactly times are known. notes: the reader's decisions, in sentences.
        mark_scaler: how marks were made from their columns.

    Example:
        >>> df = pd.DataFrame({"day": ["2024-01-05", "2024-01-09", "2024-02-11"],
        ...                    "town": ["A", "B", "A"], "drug": ["heroin", "fentanyl", "heroin"]})
        >>> events = Events.from_frame(df, time="day", place="town", types="drug",
        ...                            window=("2024-01-01", "2024-02-29"))
        >>> events.counts("month").y
        tensor([[1., 1.],
                [1., 0.]])
    """

    def __init__(
        self,
        log: EventLog,
        *,
        start: float,
        end: float,
        complete_through: float,
        is_dates: bool,
        resolution: Resolution,
        places: Places,
        spec: EventSpec,
        types: Sequence[str] = (),
        mark_scaler: MarkScaler | None = None,
        source: str | None = None,
        notes: Sequence[str] = (),
    ):
        self._log, self._spec = log, spec
        self.start, self.end, self.complete_through = start, end, complete_through
        self.is_dates, self.resolution, self.place_table = is_dates, resolution, places
        self.source, self.notes = source, list(notes)
        now = log.current()
        self.mark_scaler = MarkScaler.fit(now.marks) if mark_scaler is None else mark_scaler
        shift = Core.shifts(now.rows["id"].tolist())
        at = now.rows["floor"].to_numpy() + now.rows["width"].to_numpy() * shift - start
        order = np.lexsort([now.rows["id"].to_numpy(str), at])
        now = now.take(order)
        types, flags = _types_of(now, log, spec.overlap, types)
        self._now = now
        position = {p: i for i, p in enumerate(places.ids)}
        self._core = Core(
            places=places.ids,
            types=types,
            mark_names=self.mark_scaler.names,
            ids=now.rows["id"].tolist(),
            times=at[order],
            place=[position[p] for p in now.rows["place"]],
            flags=flags.astype(np.uint8),
            marks=self.mark_scaler.transform(now.marks, "Events"),
            complete_through=complete_through - start,
            end=end - start,
            start=start,
            dates=is_dates,
        )
        self.places, self.types = list(places.ids), list(types)
        self.ids, self.mark_names = self._core.ids, self._core.mark_names
        self.times = torch.from_numpy(self._core.times)
        self.place = torch.from_numpy(self._core.place)
        self.flags = torch.from_numpy(self._core.flags).bool()
        self.marks = torch.from_numpy(self._core.marks)

    # ---- reading ---------------------------------------------------------------------------------

    @classmethod
    def from_frame(
        cls,
        df: pd.DataFrame,
        *,
        time: str,
        place: str,
        types: str | Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
        types_sep: str | None = None,
        other: str | None = None,
        overlap: str = "flags",
        marks: Sequence[str] | None = None,
        reported: str | None = None,
        id: str | None = None,
        resolution: str | float | None = None,
        window: tuple[Any, Any] | None = None,
        complete_through: Any = None,
        places: Any = None,
        time_format: str | None = None,
        source: str | None = None,
    ) -> Events:
        """Read a table with one row per event.

        Args:
            df: the table.
            time: column of the times: dates, dates with a time of day, or numbers (in days, or in
                any unit; all rates are then per that unit).
            place: column of the place ids.
            types: the types that an event has, one or several: columns of 0 and 1; or a mapping
                type -> column(s), any of which names it; or one column with the type's name. None:
                all events are of one type.
            types_sep: the separator between several names in the one column of types, such as ";".
                None: each cell is one name.
            other: with columns of 0 and 1, the type of events that have none of them. None: such a
                row is an error.
            overlap: how to treat an event of several types. "flags": it has all of them, at one
                time. "primary": it has only the first of them (in the order of `types`, or in the
                cell). "sets": each combination is one type, such as "fentanyl+heroin".
            marks: columns with further facts about an event. Numbers become z-scores, texts of k
                categories k - 1 marks of 0 and 1 (the most frequent category has none). Constant
                columns are dropped, with a note.
            reported: column of the time when each event was reported, which `until` uses.
            id: column of distinct ids, by which records are corrected. None: made of each row's
                content.
            resolution: how exactly times are known: "second", "minute", "hour", "day", "week",
                "month", "quarter", "year", or 0 for exact times; for times that are
                numbers, a number. An event is placed within its day (or hour, ...) by a number in
                (0, 1) that its id alone determines. None: for dates the coarsest unit in which all
                times are whole, for numbers 1 if all are whole, else 0.
            window: (start, end): the time that the table covers. For dates, the whole of both
                days (or months) belongs to it. Events before the start are history: they affect
                later events, and are not counted. None: from the first event's day to the last
                one's, which leaves out the quiet time before and after; a note says so.
            complete_through: last day (or month, ...) for which records are complete, if reports
                come late. None: the window's end.
            places: the places: a list of ids, or a DataFrame with a column of ids (named as `place`
                or "id"), lat and lon (or x and y) and numeric covariates. None: all that occur.
            time_format: how times are written: a strftime pattern (see `Calendar`), or "number".
            source: carried along as `events.source`.

        Raises:
            TypeError, ValueError: an argument or a cell that is not as above; the message names the
                row and the column, and how to mend it.

        Example:
            >>> df = pd.DataFrame({"t": [0.5, 2.25, 2.25], "town": ["A", "A", "B"],
            ...                    "heroin": [1, 0, 1], "fentanyl": [0, 1, 1]})
            >>> events = Events.from_frame(df, time="t", place="town", window=(0, 4),
            ...                            types=["heroin", "fentanyl"])
            >>> events
            Events(3 events, 2 places, 2 types, 0 marks, (0, 4])
        """
        name = f"{cls.__name__}.from_frame"
        if not isinstance(df, pd.DataFrame):
            raise TypeError(f"{name}: df must be a pandas DataFrame, got {type(df).__name__}.")
        options = {k: v for k, v in locals().items() if k not in ("cls", "df", "name")}
        return cls._read(df, name, lambda i: f"row {plain(df.index[i])!r}", **options)

    @classmethod
    def from_csv(
        cls,
        path: str | os.PathLike,
        *,
        time: str,
        place: str,
        types: str | Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
        types_sep: str | None = None,
        other: str | None = None,
        overlap: str = "flags",
        marks: Sequence[str] | None = None,
        reported: str | None = None,
        id: str | None = None,
        resolution: str | float | None = None,
        window: tuple[Any, Any] | None = None,
        complete_through: Any = None,
        places: Any = None,
        time_format: str | None = None,
        source: str | None = None,
        sep: str | None = None,
        encoding: str | None = None,
        decimal: str = ".",
    ) -> Events:
        """Read a CSV file; see `from_frame` for the other arguments.

        Args:
            path: the file, which may be compressed (.gz, .bz2, .xz, .zip); "-" is standard input.
            sep: the separator. None takes the one of , ; tab and | under which the header has the
                columns that are named.
            encoding: None is UTF-8 (with or without a byte-order mark), or UTF-16 with one.
            decimal: the mark before decimals in numbers, "." or ",".
        """
        name = f"{cls.__name__}.from_csv"
        kept = ("cls", "path", "name", "sep", "encoding", "decimal")
        options = {k: v for k, v in locals().items() if k not in kept}
        text = _spec(options, caller(name)).text_columns()
        df = read_csv(path, name, text=text, sep=sep, encoding=encoding, decimal=decimal)
        index = df.index
        return cls._read(df, name, lambda i: f"line {index[i] + 2}", **options)

    @classmethod
    def _read(
        cls,
        df: pd.DataFrame,
        name: str,
        where: Where,
        *,
        resolution: Any,
        window: tuple[Any, Any] | None,
        complete_through: Any,
        places: Any,
        source: str | None,
        **columns: Any,
    ) -> Events:
        name = caller(name)
        spec = _spec(columns, name)
        table = None if places is None else Places.read(places, spec.place, name)
        log, found, dates, table = frame_events(
            df, name, where, spec, resolution=resolution, places=table
        )
        rows, notes = log.rows, []
        if window is None:
            _check_none_apart(rows["floor"].to_numpy(), dates, spec, name, where)
            start, end = float(rows["floor"].min()), float((rows["floor"] + rows["width"]).max())
            if found.step == 0:  # the first event belongs to the window
                start = float(np.nextafter(start, -np.inf))
            notes.append(
                "The window is from the first event to the last: "
                f"{moment_label(start, dates)} to {end_label(end, dates)}. Give "
                + either("window=(start, end)", "--start and --end")
                + " if the table covers more."
            )
        else:
            if isinstance(window, str) or not isinstance(window, Sequence) or len(window) != 2:
                raise ValueError(f"{name}: window must be (start, end), got {window!r}.")
            start, end = (
                read_moment(
                    value, name, argument, dates=dates, end=last, time_format=spec.time_format
                )
                for value, last, argument in zip(
                    window,
                    (False, True),
                    (either("window", "--start"), either("window", "--end")),
                    strict=True,
                )
            )
        complete = end
        if complete_through is not None:
            complete = read_moment(
                complete_through,
                name,
                "complete_through",
                dates=dates,
                end=True,
                time_format=spec.time_format,
            )
        if not start < complete <= end:
            raise ValueError(
                f"{name}: {either('window must have start', '--start must be')} < "
                f"{option('complete_through')} <= {either('end', '--end')}, got "
                f"{moment_label(start, dates)}, {end_label(complete, dates)} and "
                f"{end_label(end, dates)}."
            )
        _check_within(rows, end, dates, spec, name, where)
        if (
            spec.id is None
            and len(df) >= _ENOUGH_TO_REPEAT
            and bool(df.duplicated(keep=False).all())
        ):
            notes.append(
                "Every row stands in the table more than once, and each counts as an event. Drop "
                "the repeated rows if the table was put together twice, or give each event an id "
                f"({option('id')})."
            )
        if found.step:
            notes.append(
                f"Times are known to {found}: each event lies within it where its id says."
            )
        cut = int(((rows["floor"] < start) & (rows["floor"] + rows["width"] > start)).sum())
        if cut:
            notes.append(
                f"The window begins at {moment_label(start, dates)}, within {found} of {cut} "
                "event(s): whether they lie in it is not known, and their ids say. Let it begin "
                f"with {found}."
            )
        made = cls(
            log,
            start=start,
            end=end,
            complete_through=complete,
            is_dates=dates,
            resolution=found,
            places=table,
            spec=spec,
            source=source,
            notes=notes,
        )
        dropped = made.mark_scaler.dropped
        if dropped:
            made.notes.append(f"Left out the marks {list(dropped)}, which are constant.")
        return made

    # ---- views -----------------------------------------------------------------------------------

    def __repr__(self) -> str:
        sizes = (
            f"{self.num_events} events, {self.num_places} places, {self.num_types} types, "
            f"{len(self.mark_names)} marks"
        )
        span = f"({self.start:g}, {self.end:g}]"
        if self.is_dates:
            span = f"{moment_label(self.start, True)} to {end_label(self.end, True)}"
        if self.complete_through < self.end:
            span += f", complete through {end_label(self.complete_through, self.is_dates)}"
        return f"Events({sizes}, {span})"

    def summary(self) -> pd.DataFrame:
        """A row per type and one for all: events in the window, how many of them have no other
        type, events before it, the share of all, and places with any."""
        flags, in_window = self.flags, (self.times > 0) & (self.times <= self.duration)
        alone = flags.sum(dim=1) == 1
        total = max(int(in_window.sum()), 1)
        rows = []
        for s, kind in [*enumerate(self.types), (None, "all")]:
            has = torch.ones_like(alone) if s is None else flags[:, s]
            now = has & in_window
            rows.append(
                {
                    "type": kind,
                    "events": int(now.sum()),
                    "alone": int((now & alone).sum()),
                    "history": int((has & (self.times <= 0)).sum()),
                    "share": int(now.sum()) / total,
                    "places": len(self.place[now].unique()),
                }
            )
        return pd.DataFrame(rows)

    def to_frame(self) -> pd.DataFrame:
        """A row per event: id, time (as written), days (from the window's start), place, a 0/1
        column per type, the mark columns as they were given, and reported."""
        rows = self._now.rows
        time = rows["time"].to_numpy()
        frame = pd.DataFrame({"id": self.ids, "time": _stamps(time) if self.is_dates else time})
        frame["days"], frame["place"] = self.times.numpy(), rows["place"].to_numpy()
        for s, kind in enumerate(self.types):
            frame[kind] = self.flags[:, s].int().numpy()
        for column in self._now.marks.columns:
            frame[column] = self._now.marks[column].to_numpy()
        reported = rows["reported"].to_numpy()
        if not np.isnan(reported).all():
            frame["reported"] = _stamps(reported) if self.is_dates else reported
        return frame

    def to_csv(self, path: str | os.PathLike) -> None:
        """Write the arrays as text that C++ reads: topreach::Events::read_csv (docs/events.md)."""
        self._core.write_csv(os.fspath(path))

    # ---- other states ----------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        state = {field: getattr(self, field) for field in _STATE}
        return state | {"places": self.place_table, "spec": self._spec}

    def _with(self, log: EventLog, **changes: Any) -> Events:
        return type(self)(log, **(self._state() | changes))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self._log, self._state())


def _rebuilt(cls: type[Events], log: EventLog, state: dict[str, Any]) -> Events:
    return cls(log, **state)


def _spec(options: Mapping[str, Any], name: str) -> EventSpec:
    """The columns that the arguments of a reader name."""
    types, marks = options["types"], options["marks"]
    if isinstance(types, Sequence) and not isinstance(types, str):
        types = tuple(types)
    if not (types is None or isinstance(types, str | tuple | Mapping)):
        raise TypeError(
            f"{name}: types must be a column, a list of columns or a mapping type -> column(s), "
            f"got {type(types).__name__}."
        )
    if isinstance(marks, str):
        raise TypeError(f"{name}: marks must be a list of columns, got {marks!r}.")
    fields = {f: options[f] for f in EventSpec.__dataclass_fields__}
    return EventSpec(**(fields | {"types": types, "marks": tuple(marks or ())}))


def _types_of(
    now: EventLog, log: EventLog, overlap: str, known: Sequence[str]
) -> tuple[list[str], np.ndarray]:
    """The S types (those in `known` first), and which of them each record has, bool [N, S]."""
    base = list(log.flags.columns)
    flags = now.flags.to_numpy(bool)
    if overlap == "flags":
        kinds = [*known, *(k for k in base if k not in known)]
        return kinds, flags[:, [base.index(k) for k in kinds]]
    if overlap == "primary":
        kinds = [*known, *(k for k in base if k not in known)]
        own = now.rows["primary"].to_numpy()
    else:
        sets = np.unique(log.flags.to_numpy(bool), axis=0)
        names = ["+".join(k for k, has in zip(base, row, strict=True) if has) for row in sets]
        order = sorted(range(len(names)), key=lambda i: (int(sets[i].sum()), names[i]))
        kinds = [*known, *(names[i] for i in order if names[i] not in known)]
        own = np.array(
            ["+".join(k for k, has in zip(base, row, strict=True) if has) for row in flags], object
        )
    return kinds, own[:, None] == np.array(kinds, dtype=object)[None]


def _check_none_apart(
    floor: np.ndarray, dates: bool, spec: EventSpec, name: str, where: Where
) -> None:
    """Refuses a first or last event that is further from all others than these from each other: a
    wrong year would make the window as long."""
    if len(floor) < _ENOUGH_FOR_A_WINDOW:
        return
    order = np.argsort(floor, kind="stable")
    few = 1 + len(floor) // 1000
    rest = floor[order[-few - 1]] - floor[order[few]]
    gaps = np.diff(floor[order])
    for apart, row, beside in (
        (gaps[:few].max(), order[0], order[few]),
        (gaps[-few:].max(), order[-1], order[-few - 1]),
    ):
        if apart > rest > 0:
            raise ValueError(
                f"{name}: time {spec.time!r} must not lie far from all other events, got "
                f"{moment_label(floor[row], dates)} at {where(int(row))} and the next at "
                f"{moment_label(floor[beside], dates)}. Mend it, or say what the table covers by "
                f"{either('window=(start, end)', '--start and --end')}."
            )


def _check_within(
    rows: pd.DataFrame, end: float, dates: bool, spec: EventSpec, name: str, where: Where
) -> None:
    late = (rows["floor"] + rows["width"] > end + 1e-9).to_numpy()
    if late.any():
        row = int(np.argmax(late))
        raise ValueError(
            f"{name}: time {spec.time!r} must not lie after the window's end, "
            f"{end_label(end, dates)}, got {moment_label(rows['time'].iloc[row], dates)} at "
            f"{where(row)} ({int(late.sum())} such rows). "
            f"{either('Let the window end later', 'Give a later --end')}, or "
            "drop the rows."
        )


def _stamps(values: np.ndarray) -> pd.Series:
    """Days since 1970-01-01 as dates, to the second."""
    seconds = np.round(values * 86_400)
    return pd.Series(pd.to_datetime(seconds, unit="s"))
