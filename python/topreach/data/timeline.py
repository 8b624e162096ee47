"""All known counts of a panel on its calendar's grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from topreach._C import Calendar


@dataclass(frozen=True)
class Timeline:
    """Counts of consecutive periods, the first of them known.

    calendar: of the periods. start: number of the first row's period in the calendar. low [N, S]:
    counts, NaN where not known. If `high` [N, S] is given, low and high are the least and the most
    that the counts can be. exposure [N, S]: what the counts are in proportion to, NaN where not
    known; None: no exposure.
    """

    calendar: Calendar
    start: int
    low: Tensor
    high: Tensor | None = None
    exposure: Tensor | None = None

    @staticmethod
    def place(
        calendar: Calendar,
        values: Sequence[float],
        low: Tensor,
        high: Tensor | None = None,
        exposure: Tensor | None = None,
    ) -> tuple[Timeline, Tensor]:
        """Rows [n, S] at ascending times [n] on the calendar's grid, and the row of each, int64
        [n]."""
        index = torch.tensor([calendar.index(v) for v in values], dtype=torch.int64)
        start, rows = int(index[0]), index - index[0]
        size = int(rows[-1]) + 1
        if size == len(rows):
            return Timeline(calendar, start, low, high, exposure), rows

        def spread(given: Tensor) -> Tensor:
            grid = given.new_full((size, given.shape[1]), torch.nan)
            grid[rows.to(given.device)] = given
            return grid

        return Timeline(calendar, start, low, high, exposure)._map(spread), rows

    def _map(self, change: Callable[[Tensor], Tensor]) -> Timeline:
        """The same with all that is known of its cells changed."""
        high = None if self.high is None else change(self.high)
        exposure = None if self.exposure is None else change(self.exposure)
        return replace(self, low=change(self.low), high=high, exposure=exposure)

    @property
    def times(self) -> Tensor:
        """First moments of the periods, float64 [N]."""
        at = self.calendar.at
        return torch.tensor([at(self.start + i) for i in range(len(self.low))], dtype=torch.float64)

    @property
    def upper(self) -> Tensor:
        return self.low if self.high is None else self.high

    def absent(self, rows: Tensor) -> list[int]:
        """Rows between the first and the last whose counts are all unknown, without `rows`."""
        unknown = torch.isnan(self.low).all(dim=1).cpu()
        unknown[rows] = False
        return torch.nonzero(unknown).flatten().tolist()

    def until(self, end: int) -> Timeline:
        """The first `end` rows, without `high` if all of their counts are exact."""
        cut = self._map(lambda cells: cells[:end])
        exact = cut.high is None or not bool((cut.high > cut.low).any())
        return replace(cut, high=None) if exact else cut

    def bound(self, bound: str) -> Timeline:
        return replace(self, low=self.low if bound == "lower" else self.upper, high=None)

    def sites(self, order: Sequence[int]) -> Timeline:
        return self._map(lambda cells: cells[:, order])

    def to(self, device: str | torch.device) -> Timeline:
        return self._map(lambda cells: cells.to(device))

    def regrid(self, calendar: Calendar) -> tuple[Timeline, Tensor]:
        """The same periods on another calendar's grid, and the new row of each old one [N] (-1 for
        rows of unknown counts that the new grid lacks)."""
        known = ~torch.isnan(self.low).all(dim=1).cpu()
        known[[0, -1]] = True
        old = torch.nonzero(known).flatten()
        values = self.times[old].tolist()
        at = old.to(self.low.device)
        kept = self._map(lambda cells: cells[at])
        made, rows = Timeline.place(calendar, values, kept.low, kept.high, kept.exposure)
        place = torch.full((len(self.low),), -1, dtype=torch.int64)
        place[old] = rows
        return made, place

    def windows(self, rows: Tensor, window: int) -> Tensor:
        """The W counts before each of these rows, oldest first [T, W, S]; NaN where not known."""
        device = self.low.device
        lag = rows.to(device)[:, None] + torch.arange(-window, 0, device=device)
        counts = self.low[lag.clamp_min(0)]
        return counts.masked_fill((lag < 0)[:, :, None], torch.nan)


def with_unknown(past: Tensor, exposure: Tensor | None) -> Tensor | None:
    """Exposure [T, S] after periods [H, S] whose exposure is not known: NaN there."""
    if exposure is None:
        return None
    return torch.cat([torch.full_like(past, torch.nan), exposure])
