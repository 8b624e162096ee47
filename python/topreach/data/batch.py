"""The tensors of a batch, and the parts of a split."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from .panel import Panel


class Batch(NamedTuple):
    """The tensors of a panel that an objective takes.

    x [T, S, P], y [T, S], time [T], history [T, S, W] or None, weights [T] or None; `history[t, s]`
    holds the W counts before period t, oldest first. exposure and y_upper [T, S] or None, as in
    `Panel`. open [T, S]: which sites are open in which periods; None: all are. y is NaN where
     a site is not open; history may hold NaN if it was asked for with `absent_lags="nan"`.
    """

    x: Tensor
    y: Tensor
    time: Tensor
    history: Tensor | None = None
    weights: Tensor | None = None
    exposure: Tensor | None = None
    y_upper: Tensor | None = None
    open: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with `change` of each tensor that it has.

        Example: `batch.map(lambda t: t[-1:])` is its last period.
        """
        return Batch._make(None if t is None else change(t) for t in self)


class Splits(NamedTuple):
    """A panel cut by time; `valid` or `test` is None if it was not asked for."""

    train: Panel
    valid: Panel | None
    test: Panel | None
