"""The counts before each period of a panel, and the tensors of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import columns as _columns
from .batch import Batch
from .messages import option
from .sites import open_cells
from .views import PanelViews

ABSENT_LAGS = ("error", "zero", "nan")


class Lags(PanelViews):
    """The methods of `Panel` that look back over earlier counts."""

    def known_lags(self, window: int) -> Tensor:
        """Which periods have all W earlier counts of all sites, bool [T].

        A site that was not open in an earlier period had no events there. In a panel made with
        `absent_lags="zero"`, counts before the first known period are known to be zero.
        """
        self._check_window("Panel.known_lags", window)
        history = self._windows(int(window), zero_before=self.absent_lags == "zero")
        return ~torch.isnan(history).flatten(1).any(dim=1)

    def batch(
        self,
        window: int | None = None,
        *,
        weights: Any = None,
        absent_lags: str | None = None,
    ) -> Batch:
        """The tensors a model and an objective take.

        Args:
            window: W, the number of earlier counts per period; None or 0 for no history. They are
                counts of the W calendar periods before it, whether or not these have rows.
            weights: weight of each period [T], or a function from time_values [T] to it, or None.
            absent_lags: what to do if one of them is not known. "error": refuse. "zero": counts
                before the first known period are zero, as in the published files of the 2025 paper;
                other unknown counts are still an error. "nan": leave NaN there. None: as the
                panel was made, by default "error". A panel made with "zero" has these zeros
                whatever is given here. `known_lags` tells which periods have all lags.

        Raises:
            ValueError: a window or weights that are not as above; lags that are not known.
        """
        if window is not None:
            self._check_window("Panel.batch", window)
        if absent_lags is None:
            absent_lags = self.absent_lags
        _columns.check_one_of("Panel.batch", "absent_lags", absent_lags, ABSENT_LAGS)
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
        history = None
        if window:
            zero_before = "zero" in (absent_lags, self.absent_lags)
            history = self._windows(int(window), zero_before=zero_before)
            if absent_lags != "nan" and bool(torch.isnan(history).any()):
                self._raise_absent(history, int(window))
            history = history.permute(0, 2, 1).contiguous()
        time = self.time_values.to(device=self.device, dtype=torch.float32)
        tensors = (
            self.x,
            self.y,
            time,
            history,
            weights,
            self.exposure,
            self.y_upper,
            self.is_open,
        )
        return Batch(*tensors)

    @staticmethod
    def _check_window(name: str, window: Any) -> None:
        if not _columns.is_whole(window) or window < 0:
            raise ValueError(f"{name}: window must be a whole number >= 0 or None, got {window!r}.")

    def _windows(self, window: int, *, zero_before: bool) -> Tensor:
        """The W counts before each period [T, W, S]; NaN where not known."""
        self.timeline  # noqa: B018 - refuses suppressed counts
        history = self._line.windows(self._rows, window)
        lag = self._rows[:, None] + torch.arange(-window, 0)
        if zero_before:
            history = history.masked_fill((lag < 0).to(self.device)[:, :, None], 0)
        if self.is_open is not None:
            calendar = self.calendar
            at = [calendar.at(self._line.start + int(i)) for i in lag.flatten()]
            cells = open_cells(self.opened.numpy(), self.closed.numpy(), np.array(at), calendar)
            assert cells is not None  # nor is `is_open`
            closed = torch.from_numpy(~cells).reshape(self.num_times, window, self.num_sites)
            history = history.masked_fill(closed.to(self.device), 0)
        return history

    def _raise_absent(self, history: Tensor, window: int) -> None:
        t, w, _ = (int(i) for i in torch.nonzero(torch.isnan(history))[0])
        row = int(self._rows[t]) - window + w
        lag = self.calendar.label(self.calendar.at(self._line.start + row))
        if row < 0:
            advice = (
                f"Pass a smaller window, leave the first periods out (Panel.known_lags), or pass "
                f"{option('absent_lags', 'zero')} to take counts before "
                f"{self.calendar.label(float(self.timeline_times[0]))} as zero."
            )
        else:
            advice = (
                "Rank one period ahead at a time, or leave such periods out (Panel.known_lags)."
            )
        raise ValueError(
            f"Panel.batch: window must reach back over periods with counts, got {window} for "
            f"time {self.times[t]!r}: the count of {lag} is not known. {advice}"
        )
