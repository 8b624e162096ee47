"""The arguments for constraints that every choice of sites can have. They are declared and
explained here, once, for the programs and for `topreach.plan`."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypedDict, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
Quota = int | str | Mapping[str, int | str] | None


@dataclass(frozen=True)
class Quotas:
    """Groups of sites, and how many sites of each a plan has.

    Args:
        groups: a column of the table of scores, a Series or dict by site id, or one name for each
            site in order. A blank or missing name: in no group.
        at_least, at_most: a number for all groups, a share of K such as "30%" (at least: rounded
            up, at most: rounded down), or a dict by group. None: no bound.
        name: the word for a group in messages; None: the column's name, else "group".

    The function that takes it knows the sites and checks it: it raises ValueError for unknown
    groups and for limits that cannot be met.

    Example:
        >>> towns = Quotas(["a", "a", "b"], at_least=1, name="town")
        >>> rural = Quotas({"0": "rural", "1": "urban", "2": "rural"}, at_least={"rural": "50%"})
        >>> tr.plan.quota_topk([5.0, 4.0, 3.0], 2, quotas=[towns, rural]).ids
        ['0', '2']
    """

    groups: Any
    at_least: Quota = None
    at_most: Quota = None
    name: str | None = None


class Keeping(TypedDict, total=False):
    """The constraints of a choice of sites.

    groups, at_least, at_most: one grouping, as for `Quotas`. quotas: `Quotas`, or several.
    lock_in, lock_out: ids of sites that must, or must not, be in the plan.
    """

    groups: Any
    at_least: Quota
    at_most: Quota
    quotas: Quotas | Sequence[Quotas] | None
    lock_in: Sequence[Any]
    lock_out: Sequence[Any]


class ProgramArguments(Keeping, total=False):
    """Arguments of the programs that are solved by search.

    gap: relative gap that is good enough (1e-4). time: seconds for each plan.
    """

    gap: float
    time: float


DEFAULTS: dict[str, Any] = {
    "lock_in": (),
    "lock_out": (),
    "site": "site",
    "gap": 1e-4,
    "time": math.inf,
}  # the default of the others is None


def takes(shared: type) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Spells out a function's `**shared`: its signature shows each argument with type and default,
    a call gets the defaults, and an unknown name is a TypeError.

    Args:
        shared: the TypedDict of these arguments.
    """
    # The types as written in the source: ForwardRef("Quota") is shown as Quota.
    types = {name: kind.__forward_arg__ for name, kind in shared.__annotations__.items()}

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        own = inspect.signature(function)
        named = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        extra = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=DEFAULTS.get(name), annotation=kind
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


def all_quotas(given: Mapping[str, Any], caller: str) -> list[Quotas]:
    """The groupings of the arguments `groups`, `at_least`, `at_most` and `quotas`.

    Raises:
        ValueError: a limit without groups.
    """
    quotas, groups = given.get("quotas"), given.get("groups")
    lower, upper = given.get("at_least"), given.get("at_most")
    many = [quotas] if isinstance(quotas, Quotas) else list(quotas or ())
    if groups is not None:
        many.insert(0, Quotas(groups, lower, upper))
    elif lower is not None or upper is not None:
        raise ValueError(f"{caller}: at_least and at_most must come with groups, got none.")
    return many
