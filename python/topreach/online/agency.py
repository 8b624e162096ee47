"""An agency that learns about its own places from events that others share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from topreach.data import columns as _columns
from topreach.data.events import Events
from topreach.models.stemmed import fitting
from topreach.models.stemmed.problem import Problem, make_problem
from topreach.online.cooperative import Cooperative
from topreach.online.exchange import Message, Reply

__all__ = ["Agency"]

Node = tuple[str, str]  # place, type
Filter = Callable[[Node, Node], bool]


class Agency:
    """An agency that fits its own nodes, and sees only events that others share [STEMMED Sec. 6].

    It takes from the cooperative the quantities that all nodes have in common
    (`Cooperative.message`), fits, and sends back ŵ and diag H⁻¹. Its events leave it only through
    the shared table. It always sees its own events.

    Args:
        cooperative: holds the shared table.
        places: its own places.
        share: whose events each of its nodes sees: "all"; "type": those of its own type;
            ("distance", d): of places within d kilometres (or units of x and y); the name of a
            numeric column of `places`, such as "county": of places with the same value; or a
            function of two nodes (place, type), its own and another, that returns whether the first
            sees the events of the second.

    Attributes: nodes int64 [m]; sees bool [m, M].

    Example:
        >>> agency = tr.online.Agency(shared, ["Derby", "Ansonia"], share=("distance", 30))
        >>> reply = agency.fit(shared.message())
        >>> message = shared.pool([reply, *others])         # the prior that all of them imply
    """

    def __init__(
        self,
        cooperative: Cooperative,
        places: Sequence[str],
        share: str | tuple[str, float] | Filter = "all",
    ):
        name = "Agency"
        if not isinstance(cooperative, Cooperative):
            raise TypeError(
                f"{name}: cooperative must be a Cooperative, got {type(cooperative).__name__}."
            )
        events = cooperative.complete
        if isinstance(places, str):
            raise TypeError(f"{name}: places must be a list of ids, got {places!r}.")
        absent = [p for p in places if p not in events.places]
        if absent or not places:
            raise ValueError(
                f"{name}: places must be ids of the shared table's places, at least one, got "
                f"{_columns.listed(absent)}."
            )
        self.cooperative, self.places, self.share = cooperative, list(places), share
        self.nodes = torch.tensor([u for u, (p, _) in enumerate(events.nodes) if p in places])
        self.sees = self._visible(events, name)
        self._working: Tensor | None = None

    def fit(self, message: Message | None = None) -> Reply:
        """Fit the own nodes to the events that they see, up to the time for which the shared table
        is complete.

        Args:
            message: prior, rates and scaling. None: those of the cooperative's last fit.

        Raises:
            ValueError: a message for other parameters; nodes that see no event.
        """
        name = "Agency.fit"
        message = self.cooperative.message() if message is None else message
        model, events = self.cooperative.fitted, self.cooperative.complete
        if message.names != model.names_ or len(message.rate) != events.num_nodes:
            raise ValueError(
                f"{name}: message must be for the parameters {model.names_} of {events.num_nodes} "
                f"nodes, got {message.names} of {len(message.rate)}. Take cooperative.message()."
            )
        covariates = self.cooperative.covariates
        given = None if covariates is None else covariates(events)
        parts: list[Reply] = []
        for seen, which in self._groups():
            shape = (events.num_places, events.num_types)
            view = events.seen_at(seen.view(shape).numpy())
            problem = make_problem(view, model.options, given, name, message.scaling)
            barrier = None
            if model.stable:
                barrier = fitting.barrier_of(problem, message.rate, seen)
            fitted = self._fit_nodes(problem, message, barrier, which)
            own = self.nodes[which]
            inverse = fitting.inverse_of(
                fitted.information, problem.held[own], message.prior.precision[own]
            )
            variance = inverse.diagonal(dim1=1, dim2=2)
            parts.append(
                Reply(
                    self.nodes[which],
                    fitted.working,
                    variance,
                    fitted.log_likelihood,
                    fitted.converged,
                )
            )
        order = torch.cat([part.nodes for part in parts]).argsort()
        reply = Reply(
            *(
                torch.cat([getattr(part, field) for part in parts])[order]
                for field in Reply.__dataclass_fields__
            )
        )
        self._working = reply.working
        return reply

    def _fit_nodes(
        self, problem: Problem, message: Message, barrier: fitting.Barrier | None, which: Tensor
    ) -> fitting.Fitted:
        nodes = self.nodes[which]
        if self._working is None:
            return fitting.best_starts(problem, message.prior, barrier, nodes)
        prior = fitting.Prior(*(part[nodes] for part in message.prior))
        return fitting.newton(problem, self._working[which], prior, barrier, nodes)

    def missing(self) -> Tensor:
        """By how much the own nodes' rates per day are too low because of the records that they do
        not see, [m], under the cooperative's parameters and network: Σ θ W e^{-δ_k (T - t_x)} over
        those records [STEMMED Theorem 4.1, where it is an equality]. It falls with the distance of
        these records as e^{-δ_g dist}."""
        state, model = self.cooperative.state, self.cooperative.fitted
        added = (state.theta(model) * state.memory)[self.nodes]
        return (added * ~self.sees).sum(1)

    def _groups(self) -> list[tuple[Tensor, Tensor]]:
        """Groups of nodes that see the same nodes: those nodes, bool [M], and their positions."""
        kinds, group = torch.unique(self.sees, dim=0, return_inverse=True)
        return [(kinds[g], torch.nonzero(group == g)[:, 0]) for g in range(len(kinds))]

    def _visible(self, events: Events, name: str) -> Tensor:
        """bool [m, M]."""
        places, types, share = events.num_places, events.num_types, self.share
        node = torch.arange(places * types)
        place, kind = node // types, node % types
        own = torch.tensor([p in self.places for p in events.places])[place]
        if share == "all":
            seen = torch.ones(len(self.nodes), len(node), dtype=torch.bool)
        elif share == "type":
            seen = kind[self.nodes, None] == kind
        elif callable(share):
            pairs = [(events.nodes[u], v) for u in self.nodes.tolist() for v in events.nodes]
            seen = torch.tensor([bool(share(u, v)) for u, v in pairs]).view(len(self.nodes), -1)
        elif isinstance(share, str):
            value = self._column(events, share, name)[place]
            seen = value[self.nodes, None] == value
        else:
            limit = self._limit(share, name)
            near = events.place_table.distances(name) <= limit
            seen = near[place[self.nodes]][:, place]
        return seen | own

    @staticmethod
    def _column(events: Events, column: str, name: str) -> Tensor:
        table = events.place_table
        if column not in table.names or table.values is None:
            raise ValueError(
                f"{name}: share must be 'all', 'type', ('distance', d), a function, or a numeric "
                f"column of the events' places, {list(table.names)}, got {column!r}. Give "
                "Events.from_frame places=, a table with that column."
            )
        return table.values[:, table.names.index(column)]

    @staticmethod
    def _limit(share: Any, name: str) -> float:
        if isinstance(share, tuple) and len(share) == 2 and share[0] == "distance":
            limit = share[1]
            if isinstance(limit, int | float) and not isinstance(limit, bool) and limit >= 0:
                return float(limit)
        raise ValueError(
            f"{name}: share must be 'all', 'type', ('distance', d) with d >= 0, a column of the "
            f"events' places or a function, got {share!r}."
        )
