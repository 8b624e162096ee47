"""The attributes of a panel, and what can be computed from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from topreach._C import Calendar

from .messages import either
from .reader import warn_of_absent_periods
from .timeline import Timeline

if TYPE_CHECKING:
    from .panel import Panel


class PanelViews:
    """The attributes of `Panel`, which its constructor sets, and properties of them."""

    x: Tensor  # [T, S, P]
    y: Tensor  # [T, S]
    site_ids: list[str]
    times: list[Any]
    feature_names: list[str]
    time_values: Tensor  # [T]
    exposure: Tensor | None  # [T, S]
    opened: Tensor  # [S]
    closed: Tensor  # [S]
    is_open: Tensor | None  # [T, S]
    source: str | None
    notes: list[str]
    absent_lags: str
    _line: Timeline
    _rows: Tensor  # [T]

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
        return ~torch.isnan(self.y).all(dim=1)

    @property
    def is_exact(self) -> bool:
        """Whether all counts are exact, including those of the past."""
        return self._line.high is None

    @property
    def calendar(self) -> Calendar:
        return self._line.calendar

    @property
    def labels(self) -> list[str]:
        """The periods as the calendar writes them [T]."""
        return [self.calendar.label(float(t)) for t in self.time_values]

    @property
    def rows(self) -> Tensor:
        """The row of each period in the timeline, int64 [T]."""
        return self._rows

    @property
    def timeline(self) -> Tensor:
        """All known counts up to the last period [N, S]; an error if some are not exact."""
        if self._line.high is not None:
            number = int((self._line.high > self._line.low).sum())
            raise ValueError(
                "Panel: counts must be exact where earlier ones are made use of, got "
                f"{number} that are only known to lie in an interval."
                + either(" Take panel.at_bound('lower') or panel.at_bound('upper').", "")
            )
        return self._line.low

    @property
    def timeline_times(self) -> Tensor:
        """First moments of the timeline's periods, float64 [N]."""
        return self._line.times

    @property
    def timeline_exposure(self) -> Tensor | None:
        """Exposure of the timeline's counts [N, S], NaN where not known; None: no exposure."""
        return self._line.exposure

    @property
    def history_y(self) -> Tensor | None:
        first = int(self._rows[0])
        return self._line.low[:first] if first > 0 else None

    @property
    def history_times(self) -> Tensor | None:
        """First moments of the history's periods, float64 [H]; None without history."""
        first = int(self._rows[0])
        return self.timeline_times[:first] if first > 0 else None

    @property
    def y_upper(self) -> Tensor | None:
        if self._line.high is None:
            return None
        upper = self._line.high[self._rows.to(self.device)]
        return upper if bool((upper > self.y).any()) else None

    def _warn_of_gaps(self, name: str) -> None:
        times = self.timeline_times
        absent = [self.calendar.label(float(times[i])) for i in self._line.absent(self._rows)]
        warn_of_absent_periods(absent, name)

    def _replace(self, **changes: Any) -> Panel:
        """The panel with other values of some attributes; `Panel` implements it."""
        raise NotImplementedError
