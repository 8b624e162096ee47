"""The arguments that functions of `topreach.plan` share: declared, given their defaults and read
here, once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import numpy as np

from topreach import _C
from topreach.plan.constraints import Constraints
from topreach.plan.inputs import Sites, read_sites
from topreach.plan.plan import Plan
from topreach.plan.problem import Problem, chosen_sum
from topreach.programs.arguments import Keeping, all_quotas, takes
from topreach.programs.solver import find_highs

__all__ = [
    "Choice",
    "ChoiceArguments",
    "PhaseArguments",
    "ReachArguments",
    "TourArguments",
    "read_choice",
    "takes",
]


class Reading(TypedDict, total=False):
    """How scores are read, and when the search for a plan may stop.

    ids: sites of an array. value: the table's column of scores ("score"). site: its column of ids.
    gap: relative gap that is good enough. time: seconds.
    """

    ids: Any
    value: str | None
    site: str
    gap: float
    time: float


class ReachArguments(Keeping, Reading, total=False):
    """Arguments of programs on a network. period: which of a table's periods."""

    period: Any


class TourArguments(Reading, total=False):
    """Arguments of `tours`. period: as above. lock_out: ids that must not be in the plan."""

    period: Any
    lock_out: Sequence[Any]


class ChoiceArguments(ReachArguments, total=False):
    """Arguments of programs whose value is a sum of scores. effect: the share of a site's events
    that acting there prevents."""

    effect: Any


class PhaseArguments(Keeping, Reading, total=False):
    """Arguments of programs that take all periods of a table."""

    effect: Any


@dataclass(frozen=True)
class Choice:
    """A requested choice of sites: the shared arguments after reading.

    Attributes:
        name: the function that was called, for messages.
        sites: ids, scores and columns.
        kept: K, quotas, locks.
        gap, time: relative gap that is good enough, and seconds.
        effect: share [S] of a site's events that acting there prevents; None: 1.
    """

    name: str
    sites: Sites
    kept: Constraints
    gap: float
    time: float
    effect: np.ndarray | None = None

    def numbers(self, given: Any, what: str, default: float) -> np.ndarray:
        """A column by site; see `Sites.numbers`."""
        return self.sites.numbers(given, self.name, what, default)

    def with_k(self, k: int) -> Choice:
        """The same choice with K sites."""
        return replace(self, kept=replace(self.kept, k=k))

    def solved(
        self,
        run: Callable[[np.ndarray, _C.PlanConstraints], _C.PlanSolved],
        *,
        objective: Callable[[np.ndarray, _C.PlanSolved], float] | None = chosen_sum,
        rows: Callable[[np.ndarray, _C.PlanConstraints], np.ndarray] | None = None,
        free_topk: bool = False,
    ) -> Plan:
        """The plan for the scores; see `Problem` for the arguments."""
        find_highs()
        problem = Problem(
            self.name, self.sites, self.kept, run, objective, self.effect, rows, free_topk
        )
        return Plan(problem, problem.solve(self.sites.scores))


def read_choice(
    name: str, scores: Any, k: int | None, shared: Mapping[str, Any], *, periods: bool = False
) -> Choice:
    """Read the arguments of a function.

    Args:
        name: the function. scores, k: its arguments.
        shared: its other shared arguments, as `takes` fills them in.
        periods: whether it takes all periods of the scores.

    Raises:
        ValueError: scores, quotas, locks or effects that do not fit each other.
    """
    sites = read_sites(
        scores,
        name,
        ids=shared["ids"],
        value=shared["value"],
        site=shared["site"],
        period=shared.get("period"),
        periods=periods,
    )
    kept = Constraints(
        k, all_quotas(shared, name), shared.get("lock_in", ()), shared.get("lock_out", ())
    )
    effect = _effect(name, sites, shared.get("effect"))
    return Choice(name, sites, kept, shared["gap"], shared["time"], effect)


def _effect(name: str, sites: Sites, given: Any) -> np.ndarray | None:
    if given is None:
        return None
    share = sites.numbers(given, name, "effect", 1.0)
    if (share < 0).any():
        at = int(np.argmax(share < 0))
        raise ValueError(
            f"{name}: effect must be the share of a site's events that acting there prevents, >= "
            f"0, got {float(share[at])!r} for {sites.ids[at]!r}."
        )
    return share
