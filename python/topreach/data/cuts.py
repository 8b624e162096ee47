"""A panel cut by time, joined to an earlier one, or put on another calendar."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Any

import torch

from topreach._C import Calendar

from . import columns as _columns
from .batch import Splits
from .timeline import Timeline, with_unknown
from .times import plain, time_value
from .views import PanelViews

if TYPE_CHECKING:
    from .panel import Panel


class TimeCuts(PanelViews):
    """The methods of `Panel` that choose or join periods."""

    def select_times(self, times: Any) -> Panel:
        """The panel of these periods (one or several). Earlier ones become history, later ones are
        dropped.

        A time may be written in any way that the calendar can read: "2019-01-01" finds a datetime
        of that day, 2021 the text "2021".
        """
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
        end = min([*(valid_at or ()), *(test_at or ())])
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
        """This panel with `earlier`, of the same sites and wholly before it, as its history.

        Periods between the two are unknown, with a warning that names them.

        Raises:
            ValueError: other sites, periods of another kind, or ones that do not come before.
        """
        name = "Panel.with_history"
        if not isinstance(earlier, TimeCuts):
            raise TypeError(f"{name}: earlier must be a Panel, got {type(earlier).__name__}.")
        if earlier.site_ids != self.site_ids:
            raise ValueError(
                f"{name}: earlier must have the same sites in the same order, got "
                f"{earlier.num_sites} sites for {self.num_sites}. Call "
                "panel.align(site_ids=earlier.site_ids) first."
            )
        calendar = self._common_calendar(earlier, name)
        if earlier.time_values[-1] >= self.time_values[0]:
            raise ValueError(
                f"{name}: earlier must end before {self.times[0]!r}, got one that ends "
                f"at {earlier.times[-1]!r}."
            )
        past, _ = earlier._line.to(self.device).regrid(calendar)
        low, high = torch.cat([past.low, self.y]), None
        if past.high is not None or self.y_upper is not None:
            own = self.y if self.y_upper is None else self.y_upper
            high = torch.cat([past.upper, own])
        values = past.times.tolist() + self.time_values.tolist()
        exposure = with_unknown(past.low, self.exposure)
        if past.exposure is not None:
            own = torch.full_like(self.y, torch.nan) if self.exposure is None else self.exposure
            exposure = torch.cat([past.exposure, own])
        line, rows = Timeline.place(calendar, values, low, high, exposure)
        joined = self._replace(_line=line, _rows=rows[-self.num_times :])
        joined._warn_of_gaps(name)
        return joined

    def _common_calendar(self, earlier: Panel, name: str) -> Calendar:
        """A calendar that the periods of both lie on."""
        mine, theirs = self.calendar, earlier.calendar
        single = len(self._line.low) == 1, len(earlier._line.low) == 1
        if mine.is_dates != theirs.is_dates or (mine.unit != theirs.unit and not any(single)):
            theirs.check_same(name, mine)
        unit = mine.unit if single[1] and not single[0] else theirs.unit
        if all(single) and mine.unit != theirs.unit:
            unit = ""
        known = {
            float(v)
            for panel in (self, earlier)
            for v, row in zip(panel.timeline_times, panel._line.low, strict=True)
            if not bool(torch.isnan(row).all())
        } | {*self.time_values.tolist(), *earlier.time_values.tolist()}
        values = sorted(known)
        if all(theirs.begins(v) for v in values) and not single[1]:
            return theirs
        unit = unit if mine.is_dates else ""
        try:
            return Calendar.infer(values, mine.is_dates, unit, mine.format)
        except ValueError as error:
            raise ValueError(
                f"{name}: earlier must have periods of the same kind: {error}"
            ) from None

    def on_calendar(self, calendar: Calendar) -> Panel:
        """This panel with its counts on another calendar's grid, such as a fitted model's.

        One or few periods do not show how long a period is; the calendar of a longer panel does.

        Raises:
            ValueError: numbers for dates or the reverse; a period that does not begin where one of
                the calendar's does.
        """
        name = "Panel.on_calendar"
        if calendar.is_dates != self.calendar.is_dates:
            calendar.check_same(name, self.calendar)
        for time, value in zip(self.times, self.time_values.tolist(), strict=True):
            if not calendar.begins(value):
                raise ValueError(
                    f"{name}: times must begin a period of the calendar ({calendar.describe()}), "
                    f"got {time!r}."
                )
        try:
            line, place = self._line.regrid(calendar)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        return self._replace(_line=line, _rows=place[self._rows])

    def _positions(self, times: Any, name: str, argument: str) -> list[int]:
        several = isinstance(times, Iterable) and not isinstance(times, str | bytes)
        wanted = [plain(t) for t in times] if several else [plain(times)]
        if not wanted:
            raise ValueError(f"{name}: {argument} must hold at least one time, got none.")
        at = {t: i for i, t in enumerate(self.times)}
        by_row = {int(row): i for i, row in enumerate(self._rows)}
        positions = []
        for t in wanted:
            known = at.get(t) if isinstance(t, Hashable) and not isinstance(t, bool) else None
            if known is None:
                value = time_value(t, self.calendar)
                if value is not None:
                    known = by_row.get(self.calendar.index(value) - self._line.start)
            if known is None:
                raise ValueError(
                    f"{name}: {argument} must be among the panel's times, got {t!r}. It has "
                    f"{_columns.listed(self.labels)}."
                )
            positions.append(known)
        repeated = _columns.first_repeated(positions)
        if repeated is not None:
            raise ValueError(
                f"{name}: {argument} must be distinct, got {self.times[repeated]!r} more than once."
            )
        return sorted(positions)

    def _at(self, positions: list[int]) -> Panel:
        index = torch.tensor(positions)
        on_device = index.to(self.device)
        rows = self._rows[index]
        chosen = {n: getattr(self, n) for n in ("x", "y", "exposure", "is_open")}
        return self._replace(
            **{n: None if t is None else t[on_device] for n, t in chosen.items()},
            times=[self.times[i] for i in positions],
            time_values=self.time_values[index],
            _rows=rows,
            _line=self._line.until(int(rows[-1]) + 1),
        )
