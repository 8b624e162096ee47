"""A fitted process with a state later than its fit, from which forecasts between refits start."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from topreach.data.events import Events
from topreach.models.stemmed import Stemmed
from topreach.models.stemmed import forecast as futures
from topreach.models.stemmed.problem import month_days, recent_rates
from topreach.online.state import State, entries

_ops = torch.ops.topreach


class Jumps(NamedTuple):
    """Jumps of the rate at an event, without θ: mean [M, M] (receiver, source) and second moments
    [M, M, M] (source first) or [0]."""

    mean: Tensor
    second: Tensor


class Standing:
    """Parameters and marks of new events are the fit's; excitation, network, recent rates and the
    covariate made of them are the state's. A `futures.Process`.

    jumps: mean jumps and their second moments without θ, if known: those of the fit do not change.
    """

    def __init__(self, model: Stemmed, events: Events, state: State, jumps: Jumps | None = None):
        self.model, self.events, self.state = model, events, state
        self.anchor, self.working_, self.share = model.anchor, model.working_, model.share
        self.pool_start_, self.pool_ = model.pool_start_, model.pool_
        self.notes_ = list(model.notes_)
        self.scope_ = model.scope_._replace(duration=events.duration)
        joint, either, prior = state.tables(model)
        now = model.problem_.now._replace(
            covariates=self._covariates(), joint=joint, either=either, prior=prior
        )
        self.problem_ = replace(model.problem_, now=now)
        self.holds_events, self.spreads_marks = True, model.spreads_marks
        self.jumps = jumps or self._jumps(model.parameters_, self.spreads_marks)

    def moved(self, later: Events) -> Standing:
        """Between two fits: see `State.moved`."""
        state = self.state.moved(self.model, self.events, later)
        return Standing(self.model, later, state, self.jumps)

    def _jumps(self, natural: Tensor, second: bool) -> Jumps:
        plain = self.problem_.now._replace(joint=None, either=None, prior=None)
        found = _ops.hawkes_state(*plain, natural, self.pool_start_, self.pool_, second)
        return Jumps(found[2], found[3])

    def _covariates(self) -> Tensor:
        """[1, M, p], standardised: the given ones as at the fit, the recent rate as it is now."""
        problem, values = self.model.problem_, self.model.problem_.now.covariates
        if not self.model.options.recent_rate:
            return values
        mean, scale = problem.scaling[:, 0]
        at = self.state.time
        rate = (self.events.recent_rate([at, at + 1.0]).values - mean) / scale
        return torch.cat([rate, values[:, :, 1:]], 2)

    @property
    def saved_dynamics(self) -> futures.Dynamics:
        return self.dynamics(self.working_, None, second=True)[0]

    def dynamics(
        self, working: Tensor, rate: Tensor | None, *, second: bool
    ) -> tuple[futures.Dynamics, Tensor]:
        """As `Stemmed.dynamics`."""
        size = self.problem_.num_covariates
        if working is self.working_:
            natural, state, jumps = self.model.parameters_, self.state, self.jumps
        else:
            natural = _ops.hawkes_natural(working, size)
            state = State.of(self.model, self.events, natural)
            jumps = self._jumps(natural, second and self.spreads_marks)
        effects = natural[:, 1 : 1 + size] * self.problem_.now.covariates[0]
        theta = state.theta(self.model)
        squares = jumps.second[:0]
        if second and jumps.second.numel():
            squares = jumps.second * theta.T[:, :, None] * theta.T[:, None, :]
        process = futures.Dynamics(
            (natural[:, 0] + effects.sum(1)).exp(),
            natural[:, -1],
            (theta * state.memory).sum(1),
            theta * jumps.mean,
            squares,
        )
        return futures.relaxed(process, rate)

    def draws(self, number: int, generator: torch.Generator) -> list[Tensor]:
        return self.model.draws(number, generator)

    def recent_rates(self, months: float) -> Tensor:
        """[M], per day, to the state's time."""
        now = self.state.time
        known = entries(self.model, self.events, torch.nonzero(self.events.times <= now)[:, 0])
        days = months * month_days(self.events.is_dates)
        return recent_rates(known.time, known.node, self.problem_.num_nodes, now, days)
