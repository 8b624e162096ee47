"""Events as known at an earlier date, and records that are added, corrected and deleted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import pandas as pd

from . import columns as _columns
from .event_base import EventBase
from .event_table import EventLog, frame_events
from .moments import end_label, moment_label
from .places import Places
from .times import plain


class EventChanges(EventBase):
    """Each method returns new events, which keep all versions of all records."""

    def until(
        self, date: Any, *, complete_through: Any = None, like: EventBase | None = None
    ) -> Self:
        """The events as known at the end of a day (or month, ...), or at a moment.

        Events reported later are left out (without `reported`: events that happened later). Later
        uploads, corrections and deletions are undone. The marks are scaled by the records known
        then. Places and types stay. The window ends at that date, unless it ended before.

        Args:
            complete_through: until when records were complete then. None: the date itself or, if
                events have times of report, as long before it as records now are complete before
                the window's end.
            like: events of that time or before. Their places, types and scaling of marks are used,
                so a model that was fitted to them still applies.

        Raises:
            ValueError: a date before the window's start; a record at a place that `like` lacks.

        Example:
            >>> df = pd.DataFrame({"day": ["2024-01-05", "2024-01-09"], "town": ["A", "B"],
            ...                    "seen": ["2024-03-01", "2024-01-10"]})
            >>> events = Events.from_frame(df, time="day", place="town", reported="seen",
            ...                            window=("2024-01-01", "2024-03-31"))
            >>> events.until("2024-02-29").num_events
            1
        """
        name = "Events.until"
        moment = self._last_moment(date, name, "date")
        end = min(moment, self.end)
        complete = min(end, self.complete_through)
        if complete_through is not None:
            complete = self._last_moment(complete_through, name, "complete_through")
        elif self._spec.reported is not None:
            complete = end - (self.end - self.complete_through)
        self._check_window(complete, end, name, "date")
        log = self._log.known_by(moment)
        if like is None:
            return self._with(log, end=end, complete_through=complete, mark_scaler=None)
        absent = sorted(set(log.rows["place"]) - set(like.places))
        if absent:
            raise ValueError(
                f"{name}: like must have the places of all that was known then, got none of "
                f"{_columns.listed(absent)}."
            )
        flags = log.flags[[c for c in log.flags.columns if c in like._log.flags.columns]]
        return self._with(
            EventLog(log.rows, flags, log.marks),
            end=end,
            complete_through=complete,
            mark_scaler=like.mark_scaler,
            places=like.place_table,
            types=like.types,
        )

    def complete_to(self, time: float) -> Self:
        """The same records, taken to be complete only up to a moment (a number like `start`: for
        dates, days since 1970-01-01).

        Raises:
            ValueError: a moment that is not after the start, or after `complete_through`.
        """
        if not self.start < time <= self.complete_through + 1e-9:
            raise ValueError(
                "Events.complete_to: time must lie after the window's start, "
                f"{moment_label(self.start, self.is_dates)}, and not after complete_through, "
                f"{end_label(self.complete_through, self.is_dates)}, got {time!r}."
            )
        return self._with(self._log, complete_through=float(time))

    def append(
        self,
        other: EventBase | pd.DataFrame,
        *,
        at: Any = None,
        end: Any = None,
        complete_through: Any = None,
    ) -> Self:
        """These events and others with new ids.

        The scaling of marks stays. New types and, unless `places` was given, new places are added
        at the end of the lists.

        Args:
            other: events, or a table with the columns that these were read from.
            at: when they were uploaded; `until` an earlier day leaves them out. None: each is known
                from when it was reported or, without times of report, from when it happened.
            end: the new end of the window. None: the end of `other` (for a table, its last event)
                or the day of `at`, if that is later than the present end.
            complete_through: as in `Events.from_frame`. None: that of `other` (for a table, the new
                end) if its window ends later than this one, else unchanged.

        Raises:
            ValueError: an id that was there before; a place that is not in `places`; an event after
                the upload or after the window's end.
        """
        name = "Events.append"
        log, table, last, complete = self._records(other, name)
        self._check_ids(log, set(self._log.rows["id"]), name, known=False)
        if at is not None:
            log = self._known_at(log, at, name)
            last = max(last, self._last_moment(at, name, "at"))
        if end is not None:
            last = self._last_moment(end, name, "end")
            complete = min(complete, last)
        if complete_through is not None:
            complete = self._last_moment(complete_through, name, "complete_through")
        self._check_window(complete, last, name, "end")
        joined = self._log.followed_by(log)
        late = (joined.rows["floor"] + joined.rows["width"] > last + 1e-9).to_numpy()
        if late.any():
            row = joined.rows.iloc[int(np.argmax(late))]
            raise ValueError(
                f"{name}: end must not come before an event, got "
                f"{end_label(last, self.is_dates)} and an event on "
                f"{moment_label(row['time'], self.is_dates)} (id {row['id']!r})."
            )
        return self._with(joined, end=last, complete_through=complete, places=table)

    def correct(self, other: EventBase | pd.DataFrame, *, at: Any) -> Self:
        """Replace records of known ids. The new versions hold from the end of the day `at` on.

        Args:
            other: events, or a table with the columns that these were read from (`id` among them).

        Raises:
            ValueError: an id that is not there; a date before that of the record's last version.
        """
        name = "Events.correct"
        log, table, *_ = self._records(other, name)
        self._check_ids(log, set(self.ids), name, known=True)
        log = self._known_at(log, at, name)
        self._check_order(log.rows["id"], float(log.rows["known"].iloc[0]), at, name)
        end = max(self.end, float(log.rows["known"].iloc[0]))
        return self._with(self._log.followed_by(log), end=end, places=table)

    def delete(self, ids: Iterable[str], *, at: Any) -> Self:
        """Remove the records of these ids, from the end of the day `at` on.

        Raises:
            ValueError: an id that is not there; a date before that of the record's last version.
        """
        return self._delete(ids, at, "Events.delete", "ids")

    def _delete(self, ids: Iterable[str], at: Any, name: str, argument: str) -> Self:
        wanted = [ids] if isinstance(ids, str) else [str(i) for i in ids]
        position = {i: n for n, i in enumerate(self.ids)}
        absent = [i for i in wanted if i not in position]
        if absent:
            raise ValueError(
                f"{name}: {argument} must all be among the events', got {_columns.listed(absent)}."
            )
        moment = self._last_moment(at, name, "at")
        self._check_order(wanted, moment, at, name)
        gone = self._now.take(np.array([position[i] for i in wanted], dtype=int))
        gone = gone.with_rows(known=moment, removed=True)
        return self._with(self._log.followed_by(gone), end=max(self.end, moment))

    def revise(self, other: EventBase | pd.DataFrame | None, *, at: Any) -> Self:
        """Apply an upload: add records of new ids, and replace those of known ids that differ.

        The window's end becomes `at`, and records count as complete up to it. A deleted record is
        restored if the upload contains it. The scaling of marks stays.

        Args:
            other: events, or a table with the columns that these were read from. None, or a table
                without rows: only the window's end changes.
            at: day of the upload; `until` an earlier day leaves it out.

        Raises:
            ValueError: a place that is not in `places`; an event after the upload; a date before
                that of a record's last version.

        Example:
            >>> df = pd.DataFrame({"day": ["2024-01-05"], "town": ["A"], "case": ["c1"]})
            >>> events = Events.from_frame(df, time="day", place="town", id="case",
            ...                            window=("2024-01-01", "2024-01-31"))
            >>> new = pd.DataFrame({"day": ["2024-01-06", "2024-02-02"], "town": ["A", "A"],
            ...                     "case": ["c1", "c2"]})
            >>> events.revise(new, at="2024-02-29").num_events
            2
        """
        return self._revise(other, at, "Events.revise", "other")

    def _revise(self, other: Any, at: Any, name: str, argument: str) -> Self:
        moment = self._last_moment(at, name, "at")
        if moment < self.end:
            raise ValueError(
                f"{name}: at must not come before the window's end, got {at!r} for "
                f"{end_label(self.end, self.is_dates)}."
            )
        if isinstance(other, pd.DataFrame) and not len(other):
            self._spec.check(other, name)
            other = None
        if other is None:
            return self._with(self._log, end=moment, complete_through=moment)
        log, table, *_ = self._records(other, name, argument)
        log = self._known_at(log.take(np.flatnonzero(~self._unchanged(log))), at, name)
        self._check_order(log.rows["id"], moment, at, name)
        joined = self._log.followed_by(log)
        return self._with(joined, end=moment, complete_through=moment, places=table)

    def changes_since(self, earlier: EventBase) -> list[str]:
        """Ids of the records that were added, corrected or deleted since the state `earlier`.

        Raises:
            ValueError: these events do not come from `earlier` by append, correct, delete, revise.
        """
        before, now = earlier._log.rows["id"], self._log.rows["id"]
        if not now.iloc[: len(before)].equals(before):
            raise ValueError(
                "Events.changes_since: earlier must be a state that these events come from by "
                f"append, correct, delete or revise, got one with {len(before)} versions of "
                f"records for {len(now)} here."
            )
        return list(dict.fromkeys(now.iloc[len(before) :]))

    def seen_at(self, nodes: Any) -> Self:
        """The present records as someone knows them who sees only some nodes.

        An event keeps only those of its types that are seen, and is left out if none is. Window,
        places, types and scaling of marks stay.

        Args:
            nodes: bool [I, S], which places and types are seen.
        """
        mask = np.asarray(nodes)
        if mask.shape != (self.num_places, self.num_types) or mask.dtype != bool:
            raise ValueError(
                f"Events.seen_at: nodes must be bool [{self.num_places}, {self.num_types}], got "
                f"{mask.dtype} {list(mask.shape)}."
            )
        seen = self.flags.numpy() & mask[self.place.numpy()]
        kept = np.flatnonzero(seen.any(axis=1))
        log = self._now.take(kept)
        if self._spec.overlap == "flags":
            flags = pd.DataFrame(seen[kept], columns=list(self.types))
            log = EventLog(log.rows, flags[list(log.flags.columns)], log.marks)
        return self._with(log)

    # ---- checks ----------------------------------------------------------------------------------

    def _last_moment(self, value: Any, name: str, argument: str) -> float:
        return self.moment(value, end=True, name=name, argument=argument)

    def _check_window(self, complete: float, end: float, name: str, argument: str) -> None:
        if not self.start < complete <= end:
            raise ValueError(
                f"{name}: {argument} must leave start < complete_through <= end, got "
                f"{moment_label(self.start, self.is_dates)}, {end_label(complete, self.is_dates)} "
                f"and {end_label(end, self.is_dates)}."
            )

    def _records(
        self, other: Any, name: str, argument: str = "other"
    ) -> tuple[EventLog, Places, float, float]:
        """Records of `other`, all places, and the window's end and complete_through with them."""
        fixed, end, complete = self.place_table.fixed, self.end, self.complete_through
        if isinstance(other, pd.DataFrame):
            log, _, _, read = frame_events(
                other,
                name,
                lambda i: f"row {plain(other.index[i])!r}",
                self._spec,
                resolution=self.resolution,
                places=self.place_table if fixed else None,
                dates=self.is_dates,
            )
            places = read.ids
            last = float((log.rows["floor"] + log.rows["width"]).max())
            if last > end:
                end = complete = last
        elif isinstance(other, EventBase):
            log, places = other._log.current(), other.places
            if other.is_dates != self.is_dates or other._spec.overlap != self._spec.overlap:
                kinds = ["dates" if e.is_dates else "numbers" for e in (self, other)]
                raise ValueError(
                    f"{name}: {argument} must have times and overlap as here, {kinds[0]} and "
                    f"{self._spec.overlap!r}, got {kinds[1]} and {other._spec.overlap!r}."
                )
            if list(other._log.marks.columns) != list(self._log.marks.columns):
                raise ValueError(
                    f"{name}: {argument} must have the mark columns "
                    f"{list(self._log.marks.columns)}, got {list(other._log.marks.columns)}."
                )
            if other.end > end:
                end, complete = other.end, other.complete_through
        else:
            raise TypeError(
                f"{name}: {argument} must be Events or a DataFrame, got {type(other).__name__}."
            )
        table, have = self.place_table, set(self.places)
        new = [p for p in places if p not in have]
        if new and fixed:
            raise ValueError(f"{name}: place must be one of places, got {table.unknown(new[0])}")
        return log, Places([*table.ids, *new]) if new else table, end, complete

    def _check_ids(self, log: EventLog, have: set[str], name: str, *, known: bool) -> None:
        wrong = [i for i in log.rows["id"] if (i in have) != known]
        if wrong and known:
            raise ValueError(
                f"{name}: other must have ids of these events, got {_columns.listed(wrong)}. To "
                "add records, use events.append."
            )
        if wrong:
            advice = "To change records, use events.correct."
            if self._spec.id is None:
                advice = "Are these rows here already? If not, give each event an id (id=)."
            raise ValueError(
                f"{name}: other must have new ids, got {_columns.listed(wrong)}. {advice}"
            )

    def _known_at(self, log: EventLog, at: Any, name: str) -> EventLog:
        moment = self._last_moment(at, name, "at")
        late = (log.rows["floor"] + log.rows["width"] > moment + 1e-9).to_numpy()
        if late.any():
            row = log.rows.iloc[int(np.argmax(late))]
            raise ValueError(
                f"{name}: at must not come before an event, got {at!r} for one on "
                f"{moment_label(row['time'], self.is_dates)} (id {row['id']!r})."
            )
        return log.with_rows(known=moment)

    def _check_order(self, ids: Iterable[str], moment: float, at: Any, name: str) -> None:
        """Raise if `moment` comes before the last version of one of these records."""
        rows = self._log.rows
        known = dict(zip(rows["id"], rows["known"], strict=True))
        early = [i for i in ids if known.get(i, moment) > moment]
        if early:
            raise ValueError(
                f"{name}: at must not come before a record's last version, got {at!r} for one of "
                f"{end_label(known[early[0]], self.is_dates)} (id {early[0]!r})."
            )

    def _unchanged(self, log: EventLog) -> np.ndarray:
        """Which records of `log` are present already with the same content."""
        kinds = list(dict.fromkeys([*self._log.flags.columns, *log.flags.columns]))

        def content(part: EventLog) -> pd.DataFrame:
            rows = part.rows[["time", "place", "primary", "reported"]]
            flags = part.flags.reindex(columns=kinds, fill_value=False)
            return pd.concat([rows, flags, part.marks], axis=1, keys=[0, 1, 2])

        here = pd.Index(self._now.rows["id"]).get_indexer(log.rows["id"])
        same = here >= 0
        mine, theirs = content(self._now.take(here[same])), content(log.take(np.flatnonzero(same)))
        same[same] = ((mine == theirs) | (mine.isna() & theirs.isna())).all(axis=1).to_numpy()
        return same
