"""Blocks of time, and covariates that are constant within each: the values known at its start."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from topreach._C import Calendar

from . import columns as _columns
from .event_base import EventBase
from .moments import UNITS, moment_label, unit_calendar
from .panel import Panel
from .sites import period_of

PERIODS = tuple(u for u in UNITS if u not in ("second", "minute"))


@dataclass(frozen=True)
class StepCovariates:
    """Covariates y that are constant on each block (b_k, b_{k+1}], as known at b_k.

    values: float64 [B, I, p] for places, or [B, M, p] for nodes. edges: the B + 1 block edges, in
    days from the window's start. names: p strings.
    """

    values: Tensor
    edges: Tensor
    names: list[str]

    def joined(self, other: StepCovariates) -> StepCovariates:
        """These and others on the same blocks and for the same places or nodes.

        Raises:
            ValueError: other blocks, other sizes, or a name that both have.
        """
        name = "StepCovariates.joined"
        if not torch.equal(self.edges, other.edges):
            raise ValueError(
                f"{name}: other must have the same edges, got {len(other.edges)} for "
                f"{len(self.edges)}."
            )
        if self.values.shape[1] != other.values.shape[1]:
            raise ValueError(
                f"{name}: other must have shape [{len(self.values)}, {self.values.shape[1]}, p], "
                f"got {list(other.values.shape)}. For a place's value at each of its nodes pass "
                'by="node".'
            )
        repeated = _columns.first_repeated([*self.names, *other.names])
        if repeated is not None:
            raise ValueError(f"{name}: names must be distinct, got {repeated!r} more than once.")
        values = torch.cat([self.values, other.values], dim=2)
        return StepCovariates(values, self.edges, [*self.names, *other.names])


def period_calendar(every: Any, events: EventBase, name: str) -> Calendar:
    """The calendar of whole periods that `every` names; n days are counted from the window's
    start."""
    known = every in PERIODS if isinstance(every, str) else False
    if known and events.is_dates:
        return unit_calendar(every)
    number = isinstance(every, int | float) and not isinstance(every, bool)
    if number and 0 < every < np.inf and (not events.is_dates or float(every).is_integer()):
        unit = "day" if events.is_dates else "number"
        return Calendar(unit, float(every), events.start)
    wanted = (
        f"one of {', '.join(map(repr, PERIODS))}, or a whole number of days"
        if events.is_dates
        else "a number > 0, as the times are numbers"
    )
    raise ValueError(f"{name}: every must be {wanted}, got {every!r}.")


def block_edges(
    events: EventBase, every: Any, covariates: Panel | None, at: Iterable[Any], name: str
) -> Tensor:
    """See `Events.block_edges`."""
    begins = [events.moment(value, name=name, argument="at") for value in at]
    if covariates is not None:
        _check_panel(events, covariates, name)
        begins += covariates.time_values.tolist()
        begins.append(covariates.calendar.next(begins[-1]))
    also = np.array(begins, dtype=np.float64) - events.start
    if every is None:
        inner = np.unique(also[(also > 0) & (also < events.duration)])
        return torch.from_numpy(np.concatenate([[0.0], inner, [events.duration]]))
    calendar = period_calendar(every, events, name)
    return torch.from_numpy(events._core.block_edges(calendar, also))


def check_edges(events: EventBase, edges: Any, name: str) -> np.ndarray:
    values = np.asarray(edges, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not (np.diff(values) > 0).all():
        raise ValueError(
            f"{name}: edges must be at least two ascending times, in days from the window's start, "
            f"got shape {list(values.shape)}. events.block_edges() makes them."
        )
    return values


def step_covariates(
    events: EventBase, panel: Panel, edges: Any, lag: int, by: str, name: str
) -> StepCovariates:
    """See `Events.step_covariates`."""
    _check_panel(events, panel, name)
    _columns.check_one_of(name, "by", by, ("place", "node"))
    if not _columns.is_whole(lag) or lag < 0:
        raise ValueError(f"{name}: lag must be a whole number >= 0, got {lag!r}.")
    at = check_edges(events, edges, name)
    place = {p: i for i, p in enumerate(panel.site_ids)}
    absent = [p for p in events.places if p not in place]
    if absent:
        raise ValueError(
            f"{name}: panel must have every place of the events, got none of "
            f"{_columns.listed(absent)}."
        )
    calendar = panel.calendar
    row = {calendar.index(t): i for i, t in enumerate(panel.time_values.tolist())}
    wanted = period_of(events.start + at[:-1], calendar).astype(int) - lag
    missing = [i for i in wanted.tolist() if i not in row]
    if missing:
        k = wanted.tolist().index(missing[0])
        began = moment_label(events.start + float(at[k]), events.is_dates)
        raise ValueError(
            f"{name}: panel must have the period {calendar.label(calendar.at(missing[0]))}, which "
            f"is what is known on {began} with lag={lag}, got periods from {panel.times[0]!r} to "
            f"{panel.times[-1]!r}. Add it, or if a period's values are known when it begins, pass "
            "lag=0."
        )
    chosen = panel.x[[row[i] for i in wanted.tolist()]][:, [place[p] for p in events.places]]
    values = chosen.to(device="cpu", dtype=torch.float64)
    if by == "node":
        values = values.repeat_interleave(events.num_types, dim=1)
    return StepCovariates(values, torch.from_numpy(at.copy()), list(panel.feature_names))


def _check_panel(events: EventBase, panel: Any, name: str) -> None:
    if not isinstance(panel, Panel):
        raise TypeError(f"{name}: panel must be a Panel, got {type(panel).__name__}.")
    if panel.calendar.is_dates != events.is_dates:
        kinds = ("dates", "numbers") if events.is_dates else ("numbers", "dates")
        raise ValueError(f"{name}: panel must have {kinds[0]} as the events do, got {kinds[1]}.")


def recent_rate(events: EventBase, edges: Any, days: float, by: str, name: str) -> StepCovariates:
    """See `Events.recent_rate`."""
    _columns.check_one_of(name, "by", by, ("place", "node"))
    if not (isinstance(days, int | float) and 0 < days < np.inf):
        raise ValueError(f"{name}: days must be a finite number > 0, got {days!r}.")
    at = check_edges(events, edges, name)
    rate = events._core.recent_rate(at[:-1], days, by)
    return StepCovariates(
        torch.from_numpy(rate[:, :, None]), torch.from_numpy(at.copy()), ["log_recent_rate"]
    )
