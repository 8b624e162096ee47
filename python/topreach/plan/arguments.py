"""The arguments that functions of `topreach.plan` share: declared, given their defaults and read
here, once."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypedDict, TypeVar

import numpy as np

from topreach import _C
from topreach.plan.constraints import Constraints, Quota, Quotas, make_constraints
from topreach.plan.inputs import Sites, read_sites
from topreach.plan.plan import Plan
from topreach.plan.problem import Problem, chosen_sum
from topreach.programs.solver import find_highs

P = ParamSpec("P")
R = TypeVar("R")


class Keeping(TypedDict, total=False):
    """What a choice of sites keeps.

    groups, at_least, at_most: one grouping, as for `Quotas`. quotas: `Quotas`, or several.
    lock_in, lock_out: ids that must be in the plan, or must not.
    """

    groups: Any
    at_least: Quota
    at_most: Quota
    quotas: Quotas | Sequence[Quotas] | None
    lock_in: Sequence[Any]
    lock_out: Sequence[Any]


class Reading(TypedDict, total=False):
    """How scores are read, and how long a plan is sought.

    ids: sites of an array. value: the table's column of scores ("score"). site: its column of ids.
    gap: relative gap that is good enough. time: seconds.
    """

    ids: Any
    value: str | None
    site: str
    gap: float
    time: float


class ReachArguments(Keeping, Reading, total=False):
    """Of programs on a network. period: which of a table's periods."""

    period: Any


class TourArguments(Reading, total=False):
    """Of `tours`. period: as above. lock_out: ids that must not be in the plan."""

    period: Any
    lock_out: Sequence[Any]


class ChoiceArguments(ReachArguments, total=False):
    """Of programs that add up scores. effect: the share of a site's events that acting prevents."""

    effect: Any


class PhaseArguments(Keeping, Reading, total=False):
    """Of programs that take all periods of a table."""

    effect: Any


_DEFAULTS: dict[str, Any] = {
    "lock_in": (),
    "lock_out": (),
    "site": "site",
    "gap": 1e-4,
    "time": math.inf,
}  # of the others: None


def takes(shared: type) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Spells out a function's `**shared`: its signature shows each argument with type and default,
    a call gets the defaults, and another name is a TypeError.

    Args:
        shared: the TypedDict of these arguments.
    """
    # As they are written: ForwardRef("Quota") is Quota.
    types = {name: kind.__forward_arg__ for name, kind in shared.__annotations__.items()}

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        own = inspect.signature(function)
        named = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        extra = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS.get(name), annotation=kind
            )
            for name, kind in types.items()
        ]
        shown = own.replace(parameters=[*named, *extra])

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                bound = shown.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{function.__name__}: {error}.") from None
            bound.apply_defaults()
            return function(*bound.args, **bound.kwargs)

        call.__signature__ = shown  # type: ignore[attr-defined]
        return call

    return decorate


@dataclass(frozen=True)
class Choice:
    """A choice of sites that is asked for: the shared arguments as they are used.

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
        """The same with K sites."""
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
    """The arguments that a function got.

    Args:
        name: the function. scores, k: as it got them.
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
    kept = make_constraints(
        k,
        shared.get("groups"),
        shared.get("at_least"),
        shared.get("at_most"),
        shared.get("quotas"),
        shared.get("lock_in", ()),
        shared["lock_out"],
        name,
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
