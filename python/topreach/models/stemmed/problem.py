"""The inputs of the likelihood of a networked Hawkes process, from a table of events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from topreach.data.event_features import StepCovariates
from topreach.data.events import Events

__all__ = [
    "HawkesArguments",
    "Options",
    "Problem",
    "make_problem",
    "mark_pools",
    "month_days",
    "recent_rates",
]

PRIOR_WEIGHT = 5.0  # events by which a place's network is shrunk to that of all places
APART = 800.0  # a distance beyond which exp(-distance) is 0
THETAS = ("jaccard", "share", "none")
NETWORKS = ("full", "own")
REFRESHES = ("month", "week", "quarter", "year", "event")
_UNIT_DAYS = {
    "second": 1 / 86_400,
    "minute": 1 / 1440,
    "hour": 1 / 24,
    "week": 7.0,
    "month": 30.4,
    "quarter": 91.3,
    "year": 365.25,
}

_ops = torch.ops.topreach


class HawkesArguments(NamedTuple):
    """The first arguments of every `torch.ops.topreach.hawkes_*`, in order (csrc/ops/hawkes.h)."""

    time: Tensor
    node: Tensor
    marks: Tensor
    edges: Tensor
    weights: Tensor
    covariates: Tensor
    distance: Tensor
    refresh: Tensor
    joint: Tensor | None
    either: Tensor | None
    prior: Tensor | None
    prior_weight: float


@dataclass(frozen=True)
class Options:
    """The settings that turn events into a `Problem`: see `Stemmed`."""

    theta: str = "jaccard"
    network: str = "full"
    half_life: float | None = None  # months
    recent_rate: bool = True
    use_distance: bool = True
    use_marks: bool = True
    refresh: str = "month"  # when network and recent rate are recomputed


@dataclass(frozen=True)
class Problem:
    """One window of events, for all M nodes. P = p + q + 4 parameters of a node, in the order of
    `names`.

    arguments: over the whole window. now: the same at its end T, with network and covariates as
    known there: forecasts start from it. own: events of each node in the window, [M]. held: [M, P],
    parameters that the data do not identify; why: name of a held parameter -> reason.
    """

    arguments: HawkesArguments
    now: HawkesArguments
    names: list[str]
    covariates: list[str]
    scaling: Tensor  # [2, p]: mean and scale of the covariates
    own: Tensor
    share: Tensor  # [M], the share that a node's entry adds to the count of its place
    held: Tensor
    why: dict[str, str]
    duration: float
    resolution: float

    @property
    def num_nodes(self) -> int:
        return len(self.own)

    @property
    def num_covariates(self) -> int:
        return len(self.covariates)

    @property
    def num_marks(self) -> int:
        return self.arguments.marks.shape[1]

    def recent_rates(self, days: float) -> Tensor:
        """See `recent_rates`."""
        time, node = self.arguments.time, self.arguments.node
        return recent_rates(time, node, self.num_nodes, self.duration, days)

    def derivatives(
        self, nodes: Tensor, working: Tensor, order: int = 2
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Value [R], gradient [R, P] and Hessian [R, P, P] of items in working coordinates; a value
        is -inf where a rate is not positive at an event. order 1: the Hessian is 0."""
        p = self.num_covariates
        natural = _ops.hawkes_natural(working, p)
        value, gradient, hessian, failed = _ops.hawkes_derivatives(
            *self.arguments, nodes, natural, order
        )
        if order < 2:
            hessian = gradient.new_zeros(*gradient.shape, gradient.shape[1])
        gradient, hessian = _ops.hawkes_chain(working, gradient, hessian, p)
        if order < 2:
            hessian = torch.zeros_like(hessian)
        good = (failed < 0) & torch.isfinite(value)
        good &= torch.isfinite(gradient).all(1) & torch.isfinite(hessian).flatten(1).all(1)
        return (
            torch.where(good, value, -torch.inf),
            gradient.nan_to_num(0.0, 0.0, 0.0),
            hessian.nan_to_num(0.0, 0.0, 0.0),
        )


def recent_rates(
    time: Tensor, node: Tensor, num_nodes: int, duration: float, days: float
) -> Tensor:
    """Each node's mean rate per day in the last days of (0, duration], [M], shrunk
    towards its rate in the whole window with the weight of one event."""
    days = min(days, duration)
    own = torch.bincount(node[time > 0], minlength=num_nodes)
    recent = torch.bincount(node[time > duration - days], minlength=num_nodes).double()
    long = (own + 0.5) / duration
    return (recent + 1) / (days + 1 / long)


def month_days(is_dates: bool) -> float:
    """A month in the unit of the times."""
    return 365.25 / 12 if is_dates else 1.0


def mark_pools(problem: Problem) -> tuple[Tensor, Tensor]:
    """Records whose marks a node's new events may have: its own; if it has none, those of its
    type; else all."""
    node = problem.arguments.node
    types = problem.num_nodes // len(problem.now.distance)
    start, pool = [0], []
    for u in range(problem.num_nodes):
        own = torch.nonzero(node == u)[:, 0]
        if not len(own):
            own = torch.nonzero(node % types == u % types)[:, 0]
        if not len(own):
            own = torch.arange(len(node))
        pool.append(own)
        start.append(start[-1] + len(own))
    return torch.tensor(start), torch.cat(pool)


def make_problem(
    events: Events,
    options: Options,
    covariates: StepCovariates | None,
    name: str,
    scaling: Tensor | None = None,
) -> Problem:
    """The problem of an events table; `name`: the function to name in errors; scaling [2, p]: mean
    and scale of the covariates, if not their own."""
    if covariates is None:
        every = "month" if options.refresh == "event" else options.refresh
        edges = events.block_edges(every if events.is_dates else 1.0)
    else:
        edges = covariates.edges.double()
        if edges[0] != 0 or abs(float(edges[-1]) - events.duration) > 1e-9:
            raise ValueError(
                f"{name}: covariates must have edges from 0 to {events.duration:g}, got "
                f"{float(edges[0]):g} to {float(edges[-1]):g}. Make them with "
                "events.step_covariates(panel, events.block_edges())."
            )
    if options.refresh == "event":
        edges, covariates = _at_each_event(events, edges, covariates)
    places, types = events.num_places, events.num_types
    num_nodes = places * types
    entries = events.node_events()
    inside = entries.times <= events.duration
    time, node = entries.times[inside], entries.node[inside]
    own = torch.bincount(node[time > 0], minlength=num_nodes)
    if not int(own.sum()):
        raise ValueError(f"{name}: events must lie in the window, got none in it.")
    share = torch.bincount(node, weights=entries.share[inside], minlength=num_nodes)
    entered = torch.bincount(node, minlength=num_nodes)
    share = torch.where(entered > 0, share / entered.clamp_min(1), 1.0)
    marks = events.marks[entries.event[inside]] if options.use_marks else events.marks[:0, :0]
    if not options.use_marks:
        marks = torch.zeros(len(time), 0, dtype=torch.float64)

    blocks, end = edges[:-1], torch.tensor([events.duration], dtype=torch.float64)
    values, last, scaling, covariate_names = _covariates(
        events, options, covariates, edges, name, scaling
    )
    tables = last_tables = (None, None, None)
    if options.theta != "none" and options.network == "full":
        at = torch.cat([blocks, end])
        shared = events.shared_types(at)
        joint, either, prior = _ops.hawkes_network(shared.together, shared.events, options.theta)
        tables = joint[:-1], either[:-1], prior[:-1]
        last_tables = joint[-1:], either[-1:], prior[-1:]
    distance, why = _distances(events, options)
    weights = torch.ones(len(blocks), dtype=torch.float64)
    if options.half_life is not None:
        days = options.half_life * month_days(events.is_dates)
        weights = torch.exp2(-(events.duration - edges[1:]) / days)
        counted = float(weights[torch.searchsorted(edges, time[time > 0]) - 1].sum())
        if counted < 1:
            raise ValueError(
                f"{name}: half_life must be so long that events count, got {options.half_life:g} "
                f"months: those of the window count {counted:.2g} together. Give a longer one, or "
                "None."
            )
    arguments = HawkesArguments(
        time,
        node,
        marks,
        edges,
        weights,
        values,
        distance,
        torch.arange(len(blocks)),
        *tables,
        PRIOR_WEIGHT,
    )
    now = arguments._replace(
        edges=torch.cat([torch.zeros(1, dtype=torch.float64), end]),
        weights=torch.ones(1, dtype=torch.float64),
        covariates=last,
        refresh=torch.zeros(1, dtype=torch.int64),
        joint=last_tables[0],
        either=last_tables[1],
        prior=last_tables[2],
    )
    mark_names = events.mark_names if options.use_marks else []
    names = ["log_base", *covariate_names, "log_children", "distance", *mark_names, "log_decay"]
    held = torch.zeros(num_nodes, len(names), dtype=torch.bool)
    if "distance" in why:
        held[:, names.index("distance")] = True
    return Problem(
        arguments,
        now,
        names,
        covariate_names,
        scaling,
        own,
        share,
        held,
        why,
        events.duration,
        _UNIT_DAYS.get(events.resolution.unit, 1.0) * events.resolution.step,
    )


def _at_each_event(
    events: Events, edges: Tensor, covariates: StepCovariates | None
) -> tuple[Tensor, StepCovariates | None]:
    """Blocks that also begin at each event, and the covariates on them."""
    times = events.times[(events.times > 0) & (events.times < events.duration)]
    finer = torch.unique(torch.cat([edges, times]))
    if covariates is not None:
        block = torch.searchsorted(edges, finer[:-1], right=True) - 1
        covariates = StepCovariates(covariates.values[block], finer, covariates.names)
    return finer, covariates


def _covariates(
    events: Events,
    options: Options,
    given: StepCovariates | None,
    edges: Tensor,
    name: str,
    scaling: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, list[str]]:
    """Standardised values on the blocks [B, M, p], those at the end [1, M, p], [2, p], and names.

    At the end a covariate has its last block's value, but the recent rate is recomputed."""
    nodes = events.num_nodes
    parts, ends, names = [], [], []
    if options.recent_rate:
        end = torch.tensor([events.duration, events.duration + 1.0], dtype=torch.float64)
        parts.append(events.recent_rate(edges).values)
        ends.append(events.recent_rate(end).values)
        names.append("log_recent_rate")
    if given is not None:
        values = given.values.double()
        if values.shape[1] == events.num_places != nodes:
            values = values.repeat_interleave(events.num_types, dim=1)
        if values.shape[1] != nodes:
            raise ValueError(
                f"{name}: covariates must have values of all {events.num_places} places or all "
                f"{nodes} nodes, got {values.shape[1]}."
            )
        fixed = (values == values[:1]).flatten(0, 1).all(0)
        if bool(fixed.any()):
            constant = [n for n, c in zip(given.names, fixed.tolist(), strict=True) if c]
            raise ValueError(
                f"{name}: covariates must change over time, got {constant}, which do not: a node's "
                "base rate holds them already. Leave them out, or give them as pool_by, where they "
                "explain how nodes differ."
            )
        parts.append(values)
        ends.append(values[-1:])
        names += given.names
    if not parts:
        empty = torch.zeros(len(edges) - 1, nodes, 0, dtype=torch.float64)
        return empty, empty[:1], torch.zeros(2, 0, dtype=torch.float64), []
    values, last = torch.cat(parts, 2), torch.cat(ends, 2)
    if scaling is None:
        mean, scale = values.flatten(0, 1).mean(0), values.flatten(0, 1).std(0, correction=0)
        scaling = torch.stack([mean, torch.where(scale > 0, scale, 1.0)])
    mean, scale = scaling
    return (values - mean) / scale, (last - mean) / scale, scaling, names


def _distances(events: Events, options: Options) -> tuple[Tensor, dict[str, str]]:
    """Distances of places [I, I] (of nodes, if each node excites itself only). Also "distance" ->
    reason, if the decay of excitation with distance is held."""
    if options.network == "own":
        nodes = events.num_nodes
        apart = APART * (1 - torch.eye(nodes, dtype=torch.float64))
        return apart, {"distance": "each node excites itself only"}
    if not options.use_distance:
        zero = torch.zeros(events.num_places, events.num_places, dtype=torch.float64)
        return zero, {"distance": "use_distance=False"}
    if events.place_table.coordinates is None:
        # All other places are equally far: only the same place and other places are distinguished.
        distance = 1 - torch.eye(events.num_places, dtype=torch.float64)
    else:
        distance = events.distances().double()
    if float(distance.max()) == 0:
        return distance, {"distance": "there is one place, or all lie at one point"}
    return distance, {}


def checked_options(name: str, **given: Any) -> Options:
    """Options from arguments; an error names a wrong one."""
    for field, allowed in (("theta", THETAS), ("network", NETWORKS), ("refresh", REFRESHES)):
        if given.get(field) not in allowed:
            raise ValueError(
                f"{name}: {field} must be one of {', '.join(map(repr, allowed))}, got "
                f"{given.get(field)!r}."
            )
    half_life = given["half_life"]
    if half_life is not None and not (
        isinstance(half_life, int | float) and not isinstance(half_life, bool) and half_life > 0
    ):
        raise ValueError(f"{name}: half_life must be a number of months > 0, got {half_life!r}.")
    for field in ("recent_rate", "use_distance", "use_marks"):
        if not isinstance(given[field], bool):
            raise TypeError(f"{name}: {field} must be True or False, got {given[field]!r}.")
    return Options(**given)
