"""Forecasts of counts: exactly by moments, or by simulation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from topreach.data import columns as _columns
from topreach.data.event_features import period_calendar
from topreach.data.messages import either
from topreach.data.sites import period_of
from topreach.distributions.negative_binomial import NegativeBinomial
from topreach.models.stemmed.problem import HawkesArguments, Problem
from topreach.ops import draw_key

MODES = ("moments", "mean", "branching", "thinning", "paper")

MOST_NODES = 128  # with marks: their second moments are [M, M, M]

_ops = torch.ops.topreach


class Dynamics(NamedTuple):
    """The process after the fit: base rate [M], decay [M], excitation [M], mean jumps [M, M]
    (receiver, source), and their second moments [M, M, M] or [0]."""

    base: Tensor
    decay: Tensor
    excitation: Tensor
    jump: Tensor
    second: Tensor

    @property
    def branching(self) -> Tensor:
        """Expected children at u of an event at v, [M, M]."""
        return self.jump / self.decay[:, None]


class Scope(NamedTuple):
    """The places, types and window of a process, which a model file keeps of its events."""

    places: list[str]
    types: list[str]
    is_dates: bool
    start: float
    duration: float

    @property
    def nodes(self) -> list[tuple[str, str]]:
        return [(p, s) for p in self.places for s in self.types]


class Periods(NamedTuple):
    """Whole periods after the fit. edges: days from the fit's end, 0 first. If `lag`, the first
    piece ends where the first period begins, and is not part of the forecast."""

    edges: Tensor
    lag: bool
    labels: list[Any]
    times: list[float]


def dynamics_of(
    now: HawkesArguments,
    natural: Tensor,
    pool_start: Tensor,
    pool: Tensor,
    rate: Tensor | None,
    *,
    second: bool,
) -> tuple[Dynamics, Tensor]:
    """The dynamics under parameters [M, P], relaxed to recent rates [M] if given; and the factors
    [M] by which that lowered the excitation."""
    base, excitation, jump, squares = _ops.hawkes_state(*now, natural, pool_start, pool, second)
    return relaxed(Dynamics(base, natural[:, -1], excitation, jump, squares), rate)


def relaxed(process: Dynamics, rate: Tensor | None) -> tuple[Dynamics, Tensor]:
    """A process that relaxes to these rates [M] (None: as it is), and the factors [M] by which that
    lowered its excitation."""
    if rate is None:
        return process, torch.ones_like(process.decay)
    base, factor = _ops.hawkes_anchor(process.decay, process.jump, rate)
    second = process.second
    if second.numel():
        second = second * factor[:, None] * factor
    jump, excitation = factor[:, None] * process.jump, factor * process.excitation
    return Dynamics(base, process.decay, excitation, jump, second), factor


def periods_after(
    scope: Scope, number: int, every: str | float, name: str, after: float | None = None
) -> Periods:
    """`number` whole periods, of which the first begins at or after the fit's end (or the moment
    `after`, if that is later)."""
    # `period_calendar` reads only is_dates and start of the events, which a scope has.
    calendar = period_calendar(every, scope, name)  # type: ignore[arg-type]
    end = scope.start + scope.duration
    begin = end if after is None else max(end, after)
    at = int(period_of(np.array([begin]), calendar)[0])
    if calendar.at(at) < begin - 1e-9:
        at += 1
    starts = [calendar.at(at + i) for i in range(number + 1)]
    edges = np.array(starts) - end
    edges[np.abs(edges) < 1e-9] = 0.0
    lag = edges[0] > 0
    if lag:
        edges = np.concatenate([[0.0], edges])
    labels = [calendar.label(t) if scope.is_dates else t for t in starts[:-1]]
    return Periods(torch.from_numpy(edges), bool(lag), labels, starts[:-1])


@dataclass(frozen=True)
class StemmedForecast:
    """Counts of T periods at S places (or nodes, or types).

    Attributes:
        mean, variance: float64 [T, S]; variance is None for mode "mean". In events: an event of
            several types counts once at its place.
        samples: float64 [N, T, S] of N simulated futures, or None.
        sites: S ids. labels: T periods, as the calendar writes them.
        cumulative: whether period t holds the counts from the first period to t.
        notes: cautions about these figures, in sentences.
    """

    mean: Tensor
    variance: Tensor | None
    samples: Tensor | None
    sites: list[str]
    labels: list[Any]
    cumulative: bool
    notes: list[str]

    @cached_property
    def distribution(self) -> NegativeBinomial:
        """The negative binomial of these moments, [T, S]: for the exact ratio ranking.

        Raises:
            ValueError: the forecast has only means.
        """
        if self.variance is None:
            raise ValueError(
                "StemmedForecast.distribution: the forecast must have variances, got mode 'mean'. "
                "Take mode='moments'."
            )
        return NegativeBinomial(*_ops.negbin_of_moments(self.mean, self.variance))

    def quantile(self, probability: float) -> Tensor:
        """[T, S]: of the samples if there are any, else of `distribution`."""
        if not 0 < probability < 1:
            raise ValueError(
                "StemmedForecast.quantile: probability must lie between 0 and 1, got "
                f"{probability!r}."
            )
        if self.samples is None:
            return self.distribution.quantile(probability)
        # torch.quantile takes at most some 16 million numbers.
        return torch.from_numpy(np.quantile(self.samples.numpy(), probability, axis=0))

    def rank(self, k: int, *, period: int = 0) -> pd.DataFrame:
        """Sites of one period, best first, by the expected share of all events that each catches
        (ratio ranking, exact under `distribution`). Columns site, score, expected_count, rank,
        selected."""
        if not 0 < k <= len(self.sites):
            raise ValueError(
                f"StemmedForecast.rank: k must lie from 1 to {len(self.sites)}, got {k}."
            )
        ratio = self.distribution.expected_ratio()
        assert ratio is not None  # it exists for negative binomials
        score = ratio[period]
        order = score.argsort(descending=True, stable=True).tolist()
        return pd.DataFrame(
            {
                "site": [self.sites[i] for i in order],
                "score": score[order].numpy(),
                "expected_count": self.mean[period, order].numpy(),
                "rank": np.arange(1, len(order) + 1),
                "selected": np.arange(len(order)) < k,
            }
        )

    def to_frame(self, *, level: float = 0.9) -> pd.DataFrame:
        """A row per period and site: time, horizon (from 1), site, mean, and, if known, sd,
        lower and upper of the interval that holds a count with chance `level`."""
        periods, sites = self.mean.shape
        frame = pd.DataFrame(
            {
                "time": np.repeat(np.array(self.labels, dtype=object), sites),
                "horizon": np.repeat(np.arange(1, periods + 1), sites),
                "site": self.sites * periods,
                "mean": self.mean.flatten().numpy(),
            }
        )
        if self.variance is not None:
            frame["sd"] = self.variance.sqrt().flatten().numpy()
            frame["lower"] = self.quantile((1 - level) / 2).flatten().numpy()
            frame["upper"] = self.quantile((1 + level) / 2).flatten().numpy()
        return frame


class Process(Protocol):
    """The interface that a forecast needs: a fitted `Stemmed`, or one with a later state."""

    anchor: float | None
    notes_: list[str]
    pool_start_: Tensor
    pool_: Tensor
    problem_: Problem
    scope_: Scope
    working_: Tensor

    @property
    def holds_events(self) -> bool: ...
    @property
    def spreads_marks(self) -> bool: ...
    @property
    def share(self) -> Tensor: ...
    @property
    def saved_dynamics(self) -> Dynamics: ...
    def dynamics(
        self, working: Tensor, rate: Tensor | None, *, second: bool
    ) -> tuple[Dynamics, Tensor]: ...
    def draws(self, number: int, generator: torch.Generator) -> list[Tensor]: ...
    def recent_rates(self, months: float) -> Tensor: ...


def forecast(
    model: Process,
    number: int,
    *,
    every: str | float,
    mode: str,
    num_samples: int,
    anchor: Any,
    cumulative: bool,
    by: str,
    parameter_draws: int,
    seed: int,
    name: str,
    after: float | None = None,
) -> StemmedForecast:
    """See `Stemmed.forecast`; after: the moment from which periods are asked for."""
    _check_arguments(number, mode, num_samples, parameter_draws, by, seed, name)
    anchor = model.anchor if anchor == "fit" else anchor
    check_anchor(name, anchor)
    parameter_draws = min(parameter_draws, num_samples)
    periods = periods_after(model.scope_, number, every, name, after)
    weight, sites = aggregate(model.scope_, model.share, by)
    notes = list(model.notes_)
    rate = None
    if model.holds_events:
        rate = model.recent_rates(anchor) if anchor is not None else None
        dynamics, _ = model.dynamics(
            model.working_, rate, second=mode == "moments" and model.spreads_marks
        )
    else:
        dynamics = model.saved_dynamics
    radius = spectral_radius(dynamics.branching)
    if radius >= 1:
        raise ValueError(
            f"{name}: the spectral radius must be below 1 for a forecast, got {radius:.2f}: each "
            "event has more than one child. "
            + either(
                "Pass anchor=12, or fit with stable=True.",
                "Fit it again with topreach fit --events.",
            )
        )
    if periods.lag:
        notes.append(f"The forecast begins at {periods.labels[0]}, after the fit's end.")
    samples = variance = None
    skip = 1 if periods.lag else 0
    if mode in ("moments", "mean"):
        base = dynamics.base.expand(len(periods.edges) - 1, -1)
        second = dynamics.second if dynamics.second.numel() else None
        mean, covariance = _ops.hawkes_moments(
            base,
            dynamics.decay,
            dynamics.excitation,
            dynamics.jump,
            second,
            periods.edges,
            mode == "moments",
            False,
        )
        mean = mean[skip:] @ weight.T
        if mode == "moments":
            if cumulative and number > 1:
                covariance = _cumulative(dynamics, second, periods, skip)
            else:
                covariance = covariance[skip:]
            variance = torch.einsum("su,tuv,sv->ts", weight, covariance, weight)
        if cumulative:
            mean = mean.cumsum(0)
    else:
        counts = _simulated(
            model, periods.edges, mode, num_samples, rate, parameter_draws, seed, name
        )
        samples = counts[:, skip:].double() @ weight.T
        if cumulative:
            samples = samples.cumsum(1)
        mean, variance = samples.mean(0), samples.var(0)
    return StemmedForecast(mean, variance, samples, sites, periods.labels, cumulative, notes)


def check_anchor(name: str, anchor: Any) -> None:
    number = isinstance(anchor, int | float) and not isinstance(anchor, bool)
    if anchor is not None and not (number and anchor > 0):
        raise ValueError(f"{name}: anchor must be a number of months > 0 or None, got {anchor!r}.")


def _check_arguments(
    periods: Any,
    mode: Any,
    num_samples: Any,
    parameter_draws: Any,
    by: Any,
    seed: Any,
    name: str,
) -> None:
    for argument, value, least in (
        ("periods", periods, 1),
        ("num_samples", num_samples, 2),
        ("parameter_draws", parameter_draws, 0),
    ):
        if not _columns.is_whole(value) or value < least:
            raise ValueError(
                f"{name}: {argument} must be a whole number >= {least}, got {value!r}."
            )
    if not _columns.is_whole(seed) or not 0 <= seed < 2**63:
        raise ValueError(f"{name}: seed must be a whole number from 0 to 2^63 - 1, got {seed!r}.")
    _columns.check_one_of(name, "mode", mode, MODES)
    _columns.check_one_of(name, "by", by, ("place", "node", "type"))


def _cumulative(dynamics: Dynamics, second: Tensor | None, periods: Periods, skip: int) -> Tensor:
    """Covariances of counts from the first period to each, [T, M, M]."""
    found = []
    for end in range(skip + 1, len(periods.edges)):
        edges = periods.edges[: skip + 1].tolist() + [float(periods.edges[end])]
        at = torch.tensor(sorted(set(edges)), dtype=torch.float64)
        base = dynamics.base.expand(len(at) - 1, -1)
        found.append(
            _ops.hawkes_moments(
                base,
                dynamics.decay,
                dynamics.excitation,
                dynamics.jump,
                second,
                at,
                True,
                False,
            )[1][-1]
        )
    return torch.stack(found)


def _simulated(
    model: Process,
    edges: Tensor,
    mode: str,
    num_samples: int,
    rate: Tensor | None,
    parameter_draws: int,
    seed: int,
    name: str,
) -> Tensor:
    """Counts int32 [N, T, M]."""
    generator = torch.Generator().manual_seed(seed)
    sets = [model.working_]
    if parameter_draws:
        sets = model.draws(parameter_draws, generator)
    problem = model.problem_
    p = problem.num_covariates
    parameters, excitations, bases = [], [], []
    for working in sets:
        natural = _ops.hawkes_natural(working, p)
        dynamics, factor = model.dynamics(working, rate, second=False)
        natural = natural.clone()
        natural[:, p + 1] += factor.clamp_min(1e-300).log()
        parameters.append(natural)
        excitations.append(dynamics.excitation)
        bases.append(dynamics.base.expand(len(edges) - 1, -1))
    counts, failed = _ops.hawkes_simulate(
        *problem.now,
        torch.stack(parameters),
        torch.stack(excitations),
        torch.stack(bases),
        edges,
        model.pool_start_,
        model.pool_,
        num_samples,
        mode,
        max(10_000_000 // num_samples, 100 * int(problem.own.sum())),
        draw_key(generator),
    )
    if bool(failed.any()):
        raise ValueError(
            f"{name}: paths must stay finite, got {int(failed.sum())} of {num_samples} that "
            "explode. Pass anchor=12, or parameter_draws=0."
        )
    return counts


def aggregate(scope: Scope, share: Tensor, by: str) -> tuple[Tensor, list[str]]:
    """Weights [S, M] that turn counts of nodes into counts of places, types or nodes."""
    places, types = len(scope.places), len(scope.types)
    if by == "node":
        sites = [f"{p} | {s}" for p, s in scope.nodes]
        return torch.eye(places * types, dtype=torch.float64), sites
    place, kind = torch.arange(places * types) // types, torch.arange(places * types) % types
    if by == "type":
        return (torch.arange(types)[:, None] == kind).double(), list(scope.types)
    own = (torch.arange(places)[:, None] == place).double()
    return own * share, list(scope.places)


def spectral_radius(matrix: Tensor) -> float:
    return float(torch.linalg.eigvals(matrix).abs().max())
