"""The state of a networked Hawkes process between two fits: the excitation by past events.

A node's rate at T is μ_u + Σ_v θ_uv R_uv with

    R_uv(T) = Σ_{x∈v, t_x<=T} α_u e^{-δ_g,u dist + ω_u·m_x - δ_k,u (T - t_x)}

With fixed parameters R(T') = e^{-δ_k (T' - T)} R(T), plus a term for each record that was added,
minus a term for each that was removed, whenever it happened. The network's counts are sums over
records too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from topreach.data.events import Events
from topreach.models.stemmed import Stemmed

_ops = torch.ops.topreach


class Entries(NamedTuple):
    """Records, once at each of their nodes: time [n], node [n], marks [n, q]."""

    time: Tensor
    node: Tensor
    marks: Tensor


@dataclass(frozen=True)
class State:
    """At `time`, days from the window's start: memory R [M, M] (receiver, source), without θ; and,
    of the records before `time`, together [I, S, S] (those that name both types) and number [I].

    Example:
        >>> state = tr.online.State.of(model, events)        # from scratch
        >>> state = state.moved(model, events, later)        # by the records that changed
        >>> state.excitation(model)                          # Σ_v θ_uv R_uv
    """

    time: float
    memory: Tensor
    together: Tensor
    number: Tensor

    @classmethod
    def of(cls, model: Stemmed, events: Events, parameters: Tensor | None = None) -> State:
        """From scratch, at the events' `complete_through`, in O(N M). parameters: natural ones, [M,
        P], if not the model's."""
        _check_nodes(model, events, "State.of")
        time = events.duration
        known = entries(model, events, torch.nonzero(events.times <= time)[:, 0])
        memory = _terms(model, known, time, 1.0, parameters)
        shared = events.shared_types([time])
        return cls(time, memory, shared.together[0], shared.events[0])

    def moved(self, model: Stemmed, earlier: Events, later: Events) -> State:
        """The state at the later events' `complete_through`: the decayed state, and the terms of
        the records that are new, late, corrected or deleted; O(M) for each of them.

        Args:
            earlier: the events of this state.
            later: these after append, correct, delete or revise, complete to the same time or
                later.
        """
        name = "State.moved"
        _check_nodes(model, later, name)
        if later.start != earlier.start or later.duration < self.time:
            raise ValueError(
                f"{name}: later must be complete to no earlier time than the state's, "
                f"{earlier.label(self.time)}, got {later.label(later.duration)}. Make a state from "
                "scratch with State.of."
            )
        ids = later.changes_since(earlier)
        old, new = _rows(earlier, ids), _rows(later, ids)
        begin, end = self.time, later.duration
        # An event at T acts from T on, and is counted in the network after T.
        passed = torch.arange(*torch.searchsorted(later.times, _pair(begin, end), right=True))
        counted = torch.arange(*torch.searchsorted(later.times, _pair(begin, end)))
        memory = self.memory * torch.exp(-model.parameters_[:, -1:] * (end - begin))
        gone = old[earlier.times[old] <= begin]
        came = torch.cat([new[later.times[new] <= end], passed[~torch.isin(passed, new)]])
        memory = memory + _terms(model, entries(model, earlier, gone), end, -1.0)
        memory = memory + _terms(model, entries(model, later, came), end, 1.0)
        together, number = self.together.clone(), self.number.clone()
        gone = old[earlier.times[old] < begin]
        came = torch.cat([new[later.times[new] < end], counted[~torch.isin(counted, new)]])
        for events, rows, sign in ((earlier, gone, -1.0), (later, came, 1.0)):
            flags, place = events.flags[rows].double(), events.place[rows]
            together.index_add_(0, place, flags[:, :, None] * flags[:, None, :], alpha=sign)
            number.index_add_(0, place, torch.ones(len(rows), dtype=torch.float64), alpha=sign)
        return State(end, memory, together, number)

    def tables(self, model: Stemmed) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The network's tables for `torch.ops.topreach.hawkes_*`; None if θ is 1."""
        if model.problem_.now.joint is None:
            return None, None, None
        return _ops.hawkes_network(self.together[None], self.number[None], model.options.theta)

    def theta(self, model: Stemmed) -> Tensor:
        """θ [M, M] by all records so far."""
        joint, either, prior = self.tables(model)
        if joint is None:
            return torch.ones_like(self.memory)
        return _ops.hawkes_theta(joint, either, prior, model.problem_.now.prior_weight, 0)

    def excitation(self, model: Stemmed) -> Tensor:
        """S [M], the excitation by past events in each node's rate per day."""
        return (self.theta(model) * self.memory).sum(1)


def entries(model: Stemmed, events: Events, rows: Tensor) -> Entries:
    """The records in these rows, in order, at their nodes."""
    row, kind = torch.nonzero(events.flags[rows], as_tuple=True)
    rows = rows[row]
    marks = events.marks[rows] if model.options.use_marks else events.marks[rows, :0]
    return Entries(events.times[rows], events.place[rows] * events.num_types + kind, marks)


def _terms(
    model: Stemmed, known: Entries, time: float, sign: float, parameters: Tensor | None = None
) -> Tensor:
    return _ops.hawkes_event_terms(
        time - known.time,
        torch.full_like(known.time, sign),
        known.node,
        known.marks,
        model.problem_.now.distance,
        model.parameters_ if parameters is None else parameters,
    )


def _pair(begin: float, end: float) -> Tensor:
    return torch.tensor([begin, end], dtype=torch.float64)


def _rows(events: Events, ids: list[str]) -> Tensor:
    """The rows of the present records of these ids."""
    found = pd.Index(events.ids).get_indexer(pd.Index(ids, dtype=object))
    return torch.from_numpy(found[found >= 0].astype("int64"))


def _check_nodes(model: Any, events: Events, name: str) -> None:
    fitted = model.events_
    if events.nodes != fitted.nodes or events.mark_names != fitted.mark_names:
        raise ValueError(
            f"{name}: events must have the model's places, types and marks, got "
            f"{events.num_places} x {events.num_types} nodes and marks {events.mark_names} for "
            f"{fitted.num_places} x {fitted.num_types} and {fitted.mark_names}. Fit the model to "
            "them; for what was known earlier use events.until(date, like=...)."
        )
