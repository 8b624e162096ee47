"""Reads a table with one row per event into the records of `Events`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from topreach._C import Events as Core

from . import columns as _columns
from .event_marks import mark_columns
from .messages import either, option
from .moments import Resolution, written_unit
from .places import Places
from .sites import site_codes, warn_of_similar_ids
from .times import Times, plain, read_times

ONE_TYPE = "event"
OVERLAPS = ("flags", "primary", "sets")
Where = Callable[[int], str]


@dataclass(frozen=True)
class EventSpec:
    """The columns of a table by role: the arguments of `Events.from_frame` of the same names."""

    time: str
    place: str
    types: str | tuple[str, ...] | Mapping[str, str | Sequence[str]] | None = None
    types_sep: str | None = None
    other: str | None = None
    overlap: str = "flags"
    marks: tuple[str, ...] = ()
    reported: str | None = None
    id: str | None = None
    time_format: str | None = None

    def text_columns(self) -> list[str]:
        """Columns to read as text from a text table."""
        joined = [self.types] if isinstance(self.types, str) else []
        named = [self.time, self.place, self.id, self.reported, *joined]
        return [c for c in named if isinstance(c, str)]

    def flag_columns(self) -> dict[str, list[str]]:
        """Type -> its 0/1 columns, if types are given by such columns."""
        if self.types is None or isinstance(self.types, str):
            return {}
        if isinstance(self.types, Mapping):
            return {str(t): [c] if isinstance(c, str) else list(c) for t, c in self.types.items()}
        return {t: [t] for t in self.types}

    def check(self, df: pd.DataFrame, name: str) -> None:
        _columns.check_one_of(name, "overlap", self.overlap, OVERLAPS)
        flags = [c for group in self.flag_columns().values() for c in group]
        if self.types is not None and not isinstance(self.types, str) and not flags:
            raise ValueError(f"{name}: types must name at least one column, got none.")
        if self.types_sep is not None and not isinstance(self.types, str):
            raise ValueError(
                f"{name}: types_sep must come with types, the name of one column, got "
                f"{self.types!r}."
            )
        if self.other is not None and not flags:
            raise ValueError(
                f"{name}: other must come with types as several 0/1 columns, got {self.types!r}."
            )
        roles: list[tuple[str, Any]] = [("time", self.time), ("place", self.place)]
        roles += [(r, getattr(self, r)) for r in ("reported", "id") if getattr(self, r) is not None]
        roles += [("types", c) for c in flags]
        if isinstance(self.types, str):
            roles.append(("types", self.types))
        roles += [("marks", c) for c in self.marks]
        for role, column in roles:
            _columns.check_column(df, name, role, column)
        repeated = _columns.first_repeated([c for r, c in roles if r not in ("types", "marks")])
        if repeated is not None:
            raise ValueError(
                f"{name}: time, place, reported and id must be different columns, got "
                f"{repeated!r} twice."
            )
        again = _columns.first_repeated(
            [*(self.types if isinstance(self.types, tuple) else set(flags)), *self.marks]
        )
        if again is not None:
            raise ValueError(
                f"{name}: types and marks must be different columns, got {again!r} twice."
            )


@dataclass(frozen=True)
class EventLog:
    """Versions of records, oldest first; a later version of an id takes the earlier one's place.

    rows: id, time (as written), floor and width (where the event lies), place, primary (its first
    type), reported, known (when this version was known), removed. flags: bool, a column per type.
    marks: float64 or text, a column per mark column.
    """

    rows: pd.DataFrame
    flags: pd.DataFrame
    marks: pd.DataFrame

    def take(self, which: np.ndarray) -> EventLog:
        """Some of the rows, by position."""
        parts = (self.rows, self.flags, self.marks)
        return EventLog(*(part.iloc[which].reset_index(drop=True) for part in parts))

    def known_by(self, moment: float) -> EventLog:
        return self.take(np.flatnonzero(self.rows["known"].to_numpy() <= moment))

    def current(self) -> EventLog:
        """The last version of each record, without the removed ones."""
        last = ~self.rows["id"].duplicated(keep="last").to_numpy()
        return self.take(np.flatnonzero(last & ~self.rows["removed"].to_numpy(bool)))

    def followed_by(self, later: EventLog) -> EventLog:
        flags = pd.concat([self.flags, later.flags], ignore_index=True)
        return EventLog(
            pd.concat([self.rows, later.rows], ignore_index=True),
            flags.astype("boolean").fillna(False).astype(bool),
            pd.concat([self.marks, later.marks], ignore_index=True),
        )

    def with_rows(self, **columns: Any) -> EventLog:
        return replace(self, rows=self.rows.assign(**columns))


def frame_events(
    df: pd.DataFrame,
    name: str,
    where: Where,
    spec: EventSpec,
    *,
    resolution: Any = None,
    places: Places | None = None,
    dates: bool | None = None,
) -> tuple[EventLog, Resolution, bool, Places]:
    """The records of a table, how exactly their times are known, whether they are dates, and the
    places (those given, or all that occur).

    Args:
        name: the function to name in errors.
        where: "row 7" for a row's position, for errors.
        dates: whether the times must be dates; None: either.
    """
    df = _columns.drop_repeated_columns(df, name, where)
    spec.check(df, name)
    if len(df) == 0:
        raise ValueError(f"{name}: the table must have at least one row, got none.")
    times = _times(df[spec.time], name, f"time {spec.time!r}", where, spec.time_format)
    if dates is not None and times.dates != dates:
        kinds = ("dates", "numbers") if dates else ("numbers", "dates")
        raise ValueError(
            f"{name}: time {spec.time!r} must hold {kinds[0]} as the events so far, got {kinds[1]}."
        )
    resolution = (
        Resolution.find(times)
        if resolution is None
        else Resolution.read(resolution, times.dates, name)
    )
    floor, width = resolution.floor(times.values)
    ids, code = site_codes(df[spec.place], name, spec.place, where, "place")
    if places is None:
        warn_of_similar_ids(ids, name, "place")
        places = Places(ids)
    else:
        unknown = sorted(set(ids) - set(places.ids))
        if unknown:
            first = {p: i for i, p in enumerate(ids)}[unknown[0]]
            raise ValueError(
                f"{name}: place {spec.place!r} must be one of places at "
                f"{where(int(np.argmax(code == first)))}, got {places.unknown(unknown[0])}"
            )
    place = np.array(ids, dtype=object)[code]
    flags, primary = _types(df, name, where, spec)
    marks = mark_columns(df, spec.marks, name, where)
    reported = np.full(len(df), np.nan)
    known = floor + width
    if spec.reported is not None:
        reported, known = _reported(df, name, where, spec, times, floor, width)
    rows = pd.DataFrame(
        {
            "id": _ids(df, name, where, spec, times.values, place, flags, marks),
            "time": times.values,
            "floor": floor,
            "width": width,
            "place": place,
            "primary": primary,
            "reported": reported,
            "known": known,
            "removed": False,
        }
    )
    return EventLog(rows, flags, marks), resolution, times.dates, places


# ---- columns -------------------------------------------------------------------------------------


def _times(
    column: pd.Series, name: str, argument: str, where: Where, time_format: str | None
) -> Times:
    """A time for each row; datetimes to the second."""
    if pd.api.types.is_datetime64_any_dtype(column):
        column = column.dt.floor("s")
    codes, given = _columns.codes_of(column)
    blank = np.array([isinstance(g, str) and not g.strip() for g in given] + [True])
    missing = blank[codes]
    if missing.any():
        raise ValueError(
            f"{name}: {argument} must have no missing values, got one at "
            f"{where(int(np.argmax(missing)))} ({int(missing.sum())} in all). Fill them in, or "
            "drop the rows."
        )
    read = read_times(
        given,
        name,
        argument,
        lambda i: " at " + where(int(np.argmax(codes == i))),
        time_format=time_format,
    )
    return Times(read.values[codes], read.dates, read.unit, read.format)


def _reported(
    df: pd.DataFrame,
    name: str,
    where: Where,
    spec: EventSpec,
    times: Times,
    floor: np.ndarray,
    width: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """When each event was reported, as written, and when it was known: at the end of the day (or
    month) of the report, and not before the end of the event's own day."""
    argument = f"reported {spec.reported!r}"
    form = spec.time_format if spec.time_format == "number" else None
    read = _times(df[spec.reported], name, argument, where, form)
    if read.dates != times.dates:
        kind = "dates" if times.dates else "numbers"
        raise ValueError(f"{name}: {argument} must hold {kind} as time {spec.time!r} does.")
    unit = written_unit(read) if read.dates else "clock"
    end = read.values
    if unit != "clock":
        first, length = Resolution(unit, 1.0).floor(read.values)
        end = first + length
    early = (end < floor) | ((end == floor) & (unit != "clock"))
    if early.any():
        row = int(np.argmax(early))
        raise ValueError(
            f"{name}: {argument} must not come before the event (column {spec.time!r}), got "
            f"{plain(df[spec.reported].iloc[row])!r} for {plain(df[spec.time].iloc[row])!r} at "
            f"{where(row)} ({int(early.sum())} such rows). Mend one of the two."
        )
    return read.values, np.maximum(end, floor + width)


def _types(
    df: pd.DataFrame, name: str, where: Where, spec: EventSpec
) -> tuple[pd.DataFrame, np.ndarray]:
    """Which types each row names, bool, and the first of them."""
    if spec.types is None:
        flags = pd.DataFrame({ONE_TYPE: np.ones(len(df), dtype=bool)})
        return flags, np.full(len(df), ONE_TYPE, dtype=object)
    if isinstance(spec.types, str):
        return _listed_types(df[spec.types], name, where, spec)
    flags = pd.DataFrame(
        {
            kind: np.any([_flag(df[c], name, c, where) for c in group], axis=0)
            for kind, group in spec.flag_columns().items()
        }
    )
    none = ~flags.to_numpy().any(axis=1)
    if spec.other is not None:
        if spec.other in flags.columns:
            raise ValueError(
                f"{name}: other must be a name that is not among types, got {spec.other!r}."
            )
        flags[spec.other] = none
    elif none.any():
        row = int(np.argmax(none))
        raise ValueError(
            f"{name}: types {list(flags.columns)} must have a 1 in each row, got none at "
            f"{where(row)} ({int(none.sum())} such rows). Drop these rows, or give them a type of "
            f"their own: {option('other', 'other')}."
        )
    return flags, np.array(flags.columns, dtype=object)[flags.to_numpy().argmax(axis=1)]


def _flag(column: pd.Series, name: str, label: str, where: Where) -> np.ndarray:
    codes, given = _columns.codes_of(column)
    values = np.full(len(given) + 1, -1)
    for i, value in enumerate(given):
        text = str(plain(value)).strip().lower()
        values[i] = {"1": 1, "0": 0, "true": 1, "false": 0}.get(text, -1)
    found = values[codes]
    if (found < 0).any():
        row = int(np.argmax(found < 0))
        raise ValueError(
            f"{name}: types {label!r} must hold 0 or 1, got {plain(column.iloc[row])!r} at "
            f"{where(row)} ({int((found < 0).sum())} such rows). Write 1 where the event is of "
            "the type and 0 where it is not; for one column that names the types, pass its name "
            f"{either('as types', 'alone as --types')}."
        )
    return found == 1


def _listed_types(
    column: pd.Series, name: str, where: Where, spec: EventSpec
) -> tuple[pd.DataFrame, np.ndarray]:
    """Types from one column, each cell one name, or several with `types_sep` between."""
    codes, given = _columns.codes_of(column)
    lists = []
    for value in given:
        text = str(plain(value))
        parts = [text] if spec.types_sep is None else text.split(spec.types_sep)
        lists.append([p.strip() for p in parts if p.strip()])
    lists.append([])
    empty = np.array([not names for names in lists])[codes]
    if empty.any():
        row = int(np.argmax(empty))
        raise ValueError(
            f"{name}: types {spec.types!r} must name a type in each row, got none at {where(row)} "
            f"({int(empty.sum())} such rows). Fill them in, or drop the rows."
        )
    kinds = sorted({p for names in lists for p in names})
    if set(kinds) <= {"0", "1", "0.0", "1.0"}:  # hardly meant as the name of a type
        mend = either(
            f"pass types=[{spec.types!r}]",
            "name the type of the rows with 0 as well: --other NAME",
        )
        raise ValueError(
            f"{name}: types {spec.types!r} must hold the names of types, got only "
            f"{' and '.join(kinds)}. If 1 says that an event is of this type, {mend}."
        )
    warn_of_similar_ids(kinds, name, "type")
    table = np.array([[kind in names for kind in kinds] for names in lists])
    first = np.array([names[0] if names else "" for names in lists], dtype=object)
    return pd.DataFrame(table[codes], columns=kinds), first[codes]


def _ids(
    df: pd.DataFrame,
    name: str,
    where: Where,
    spec: EventSpec,
    times: np.ndarray,
    place: np.ndarray,
    flags: pd.DataFrame,
    marks: pd.DataFrame,
) -> np.ndarray:
    """The ids of a column. Without one, ids are made of each row's content, so that the order of
    rows does not matter; rows with equal content are numbered."""
    if spec.id is None:
        names = np.array(flags.columns, dtype=object)
        of_code: dict[bytes, str] = {}
        seen: Counter[str] = Counter()
        texts = []
        table = flags.to_numpy()
        content = zip(times, place, table, marks.itertuples(index=False, name=None), strict=True)
        for time, where_, row, mark in content:
            key = row.tobytes()
            if key not in of_code:
                of_code[key] = "+".join(sorted(names[row]))
            text = repr((float(time), str(where_), of_code[key], mark))
            seen[text] += 1
            texts.append(f"{text} {seen[text]}")
        return np.array([f"{h:016x}" for h in Core.hashes(texts).tolist()], dtype=object)
    column = df[spec.id]
    missing = column.isna().to_numpy() | (column.astype(str).str.strip() == "").to_numpy()
    if missing.any():
        row = int(np.argmax(missing))
        raise ValueError(
            f"{name}: id {spec.id!r} must have no missing values, got one at {where(row)} "
            f"({int(missing.sum())} in all)."
        )
    ids = np.array([str(plain(v)).strip() for v in column], dtype=object)
    again = pd.Series(ids).duplicated().to_numpy()
    if again.any():
        row = int(np.argmax(again))
        first = int(np.argmax(ids == ids[row]))
        raise ValueError(
            f"{name}: id {spec.id!r} must be distinct, got {ids[row]!r} at {where(first)} and at "
            f"{where(row)} ({int(again.sum())} repeated in all). Drop one of the rows"
            + either("; for a corrected record, use events.correct.", ", or correct the ids.")
        )
    return ids
