"""Counts of events by period, by node and by types that occur together; and blocks of time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import columns as _columns
from .event_base import EventBase
from .event_features import (
    StepCovariates,
    block_edges,
    period_calendar,
    recent_rate,
    step_covariates,
)
from .moments import end_label, moment_label
from .panel import Panel


class NodeEvents(NamedTuple):
    """Events by node: an event of c types gives c entries with the same time.

    times: float64 [n], ascending, in days from the window's start. node: int64 [n], i · S + s.
    event: int64 [n], the event's row. share: float64 [n], 1/c.
    """

    times: Tensor
    node: Tensor
    event: Tensor
    share: Tensor


class SharedTypes(NamedTuple):
    """together: float64 [B, I, S, S], events that name both types (on the diagonal, one type).
    events: float64 [B, I], events of any type."""

    together: Tensor
    events: Tensor


class EventCounts(EventBase):
    """Formulas are those of topreach::Events (csrc/events.h)."""

    def counts(
        self, every: str | float = "month", by: str = "place", *, source: str | None = None
    ) -> Panel:
        """Counts by period, as a `Panel` for every other model.

        Only whole periods between the window's start and `complete_through` are included; a note
        says what is left out. A period without events counts 0.

        Args:
            every: "hour", "day", "week" (from Monday), "month", "quarter", "year", or a number of
                days from the window's start (of units, if times are numbers).
            by: "place": each event once, with the places' coordinates and covariates as features.
                "type": events that name a type, at all places. "node": events at each place and
                type, sites "place | type"; an event of c types counts at c of them, so their sum
                exceeds the number of events. `node_events().share` has the weights 1/c that
                correct this.
            source: as `panel.source`. None: that of the events.

        Raises:
            ValueError: another `every` or `by`; a window without a whole period.
        """
        name = "Events.counts"
        _columns.check_one_of(name, "by", by, ("place", "type", "node"))
        calendar = period_calendar(every, self, name)
        start, end = self.start, self.complete_through
        begins = start + self._core.whole_periods(calendar)
        if not len(begins):
            raise ValueError(
                f"{name}: every must leave a whole period between "
                f"{moment_label(start, self.is_dates)} and {end_label(end, self.is_dates)}, got "
                f"{every!r}."
            )
        notes = list(self.notes)
        for a, b in ((start, begins[0]), (begins[-1], end)):
            if b - a > 1e-9:
                notes.append(
                    f"Left out {moment_label(a, self.is_dates)} to {end_label(b, self.is_dates)}: "
                    "not a whole period."
                )
        y = self._core.counts(begins - start, by)
        if by == "place":
            ids = self.places
        else:
            ids = self.types if by == "type" else [f"{p} | {s}" for p, s in self.nodes]
        x, names = self._place_features(by)
        labels = [calendar.label(t) if self.is_dates else t for t in begins[:-1].tolist()]
        return Panel(
            np.broadcast_to(x, (len(y), *x.shape)).copy(),
            y,
            ids,
            labels,
            names,
            calendar=calendar,
            source=self.source if source is None else source,
            notes=notes,
        )

    def _place_features(self, by: str) -> tuple[np.ndarray, list[str]]:
        places, parts, names = self.place_table, [], []
        if by == "type":
            return np.zeros((self.num_types, 0)), []
        if places.coordinates is not None:
            parts.append(places.coordinates.numpy())
            names += ["lat", "lon"] if places.spherical else ["x", "y"]
        if places.values is not None:
            parts.append(places.values.numpy())
            names += places.names
        x = np.concatenate(parts, axis=1) if parts else np.zeros((self.num_places, 0))
        return (np.repeat(x, self.num_types, axis=0) if by == "node" else x), names

    def node_events(self) -> NodeEvents:
        """Each event at each of its nodes; the shares of one event sum to 1."""
        return NodeEvents(*(torch.from_numpy(a) for a in self._core.node_events()))

    def shared_types(self, times: Any) -> SharedTypes:
        """How often types occur together at each place, of the events strictly before each time.

        A network between types is computed from these counts: see docs/events.md.

        Args:
            times: B ascending times in days from the window's start, e.g. `edges[:-1]` for the
                blocks of `block_edges`.

        Example:
            >>> df = pd.DataFrame({"t": [1.0, 2.0], "town": ["A", "A"], "u": [1, 1], "v": [0, 1]})
            >>> columns = {"time": "t", "place": "town", "types": ["u", "v"]}
            >>> events = Events.from_frame(df, **columns, resolution=0, window=(0, 3))
            >>> events.shared_types([2.0, 3.0]).together[:, 0].tolist()
            [[[1.0, 0.0], [0.0, 0.0]], [[2.0, 1.0], [1.0, 1.0]]]
        """
        together, events = self._core.shared_types(np.asarray(times, dtype=np.float64))
        return SharedTypes(torch.from_numpy(together), torch.from_numpy(events))

    def block_edges(
        self,
        every: str | float | None = "month",
        *,
        covariates: Panel | None = None,
        at: Iterable[Any] = (),
    ) -> Tensor:
        """Edges b_0 = 0 < ... < b_B = T of blocks in which covariates and network are constant,
        float64 [B + 1], in days from the window's start.

        Args:
            every: periods that blocks begin with, as in `counts`; None for none.
            covariates: a panel whose periods begin blocks too.
            at: other dates at which blocks begin.
        """
        return block_edges(self, every, covariates, at, "Events.block_edges")

    def step_covariates(
        self, panel: Panel, edges: Any, *, lag: int = 1, by: str = "place"
    ) -> StepCovariates:
        """Features of a panel as step covariates: on each block (b_k, b_{k+1}], the values known at
        b_k.

        Args:
            panel: features of every place by period; a table of covariates becomes one by
                `Panel.from_frame(df, count=None, counts="optional", ...)`.
            edges: B + 1 block edges, as from `block_edges`.
            lag: 1: a period's values are known when it has ended; 0: when it begins; n > 1: n - 1
                periods after its end.
            by: "place" or "node" (a place's values at each of its nodes).

        Raises:
            ValueError: a place or a period that the panel lacks.
        """
        return step_covariates(self, panel, edges, lag, by, "Events.step_covariates")

    def recent_rate(self, edges: Any, *, days: float = 365.0, by: str = "node") -> StepCovariates:
        """log of each node's (or place's) own recent rate per day, known at b_k: of the n events in
        [b_k - days, b_k), log((n + 1/2) / (o + 1/(2 r))).

        o: days of that span since the first event or the window's start. r: the mean rate of all
        nodes in the span, or one event in `days` if there were none. So a node without events has
        a rate below r, but not 0. Start the window a year after the first record, so that the
        first blocks have a past.
        """
        return recent_rate(self, edges, days, by, "Events.recent_rate")

    def distances(self, *, scaled: bool = True) -> Tensor:
        """Distances between places, float64 [I, I]: kilometres by latitude and longitude
        (haversine), or in the units of x and y; divided by the largest if `scaled`.

        Raises:
            ValueError: the places have no coordinates.
        """
        found = self.place_table.distances("Events.distances")
        largest = float(found.max())
        return found / largest if scaled and largest > 0 else found
