"""The base of all parts of `Events`: its arrays, window and records."""

from __future__ import annotations

from typing import Any, Self

from torch import Tensor

from .event_marks import MarkScaler
from .event_table import EventLog, EventSpec
from .moments import Resolution, moment_label, read_moment
from .places import Places


class EventBase:
    """See `Events` for the attributes."""

    times: Tensor
    place: Tensor
    flags: Tensor
    marks: Tensor
    ids: list[str]
    mark_names: list[str]
    places: list[str]
    types: list[str]
    start: float
    end: float
    complete_through: float
    is_dates: bool
    resolution: Resolution
    place_table: Places
    mark_scaler: MarkScaler
    source: str | None
    notes: list[str]
    _core: Any  # topreach::Events
    _log: EventLog  # all versions of all records
    _now: EventLog  # the present ones, in the order of `times`
    _spec: EventSpec

    def _with(self, log: EventLog, **changes: Any) -> Self:
        """Events of another log, or with another window, places or marks."""
        raise NotImplementedError

    @property
    def num_events(self) -> int:
        return len(self.times)

    @property
    def num_places(self) -> int:
        return len(self.places)

    @property
    def num_types(self) -> int:
        return len(self.types)

    @property
    def num_nodes(self) -> int:
        return self.num_places * self.num_types

    @property
    def nodes(self) -> list[tuple[str, str]]:
        """(place, type) of each of the M = I · S nodes."""
        return [(p, s) for p in self.places for s in self.types]

    @property
    def duration(self) -> float:
        """T: days from the window's start to complete_through. Models are fitted to (0, T]."""
        return self.complete_through - self.start

    def moment(
        self, value: Any, *, end: bool = False, name: str = "Events.moment", argument: str = "value"
    ) -> float:
        """The first moment of a date, or the last one if `end`, as a number (see `start`)."""
        form = self._spec.time_format
        return read_moment(value, name, argument, dates=self.is_dates, end=end, time_format=form)

    def label(self, time: float) -> str:
        """A time in days from the window's start, as a date."""
        return moment_label(self.start + float(time), self.is_dates)

    def __len__(self) -> int:
        return self.num_events
