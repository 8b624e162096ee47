"""The constraints of a plan: K, quotas, sites locked in and out."""

from __future__ import annotations

import numbers
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from topreach import _C
from topreach.data.sites import warn_of_similar_ids
from topreach.plan.inputs import Sites
from topreach.programs.arguments import Quota, Quotas
from topreach.programs.groupings import label_of


@dataclass(frozen=True)
class Constraints:
    """K sites, quotas and locks: the constraints that every choice of sites can have.

    Args:
        k: number of sites; None: any number, for programs that allow it.
        quotas: `Quotas`, or several; groups of one may lie within or across those of another.
        lock_in, lock_out: ids of sites that must, or must not, be in the plan.

    The functions of `topreach.plan` make it from their arguments of the same names.

    Example:
        >>> Constraints(3, Quotas("town", at_least=1), lock_out=["09001"]).k
        3
    """

    k: int | None = None
    quotas: Quotas | Sequence[Quotas] = ()
    lock_in: Sequence[Any] = ()
    lock_out: Sequence[Any] = ()
    _groupings: dict[str, tuple[list[str], np.ndarray]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def core(self, sites: Sites, caller: str, *, free: bool = False) -> _C.PlanConstraints:
        """The constraints as a C++ object; `free`: with K alone."""
        k = _whole(self.k, caller, len(sites.ids))
        if free:
            return _C.PlanConstraints(k, [], np.empty(0, np.int8))
        return _C.PlanConstraints(k, self.groupings(sites, caller), self.lock(sites, caller))

    def lock(self, sites: Sites, caller: str) -> np.ndarray:
        """int8 [S]: 1 in, -1 out, 0 free; empty if none is locked."""
        put_in = sites.rows(self.lock_in, caller, "lock_in")
        put_out = sites.rows(self.lock_out, caller, "lock_out")
        if not len(put_in) and not len(put_out):
            return np.empty(0, np.int8)
        both = set(put_in) & set(put_out)
        if both:
            raise ValueError(
                f"{caller}: a site must not be locked in and out, got "
                f"{sites.ids[min(both)]!r} in both."
            )
        lock = np.zeros(len(sites.ids), np.int8)
        lock[put_in] = 1
        lock[put_out] = -1
        return lock

    def groupings(self, sites: Sites, caller: str) -> list[_C.Grouping]:
        many = [self.quotas] if isinstance(self.quotas, Quotas) else list(self.quotas)
        k = None if self.k is None else int(self.k)
        made = []
        for quota in many:
            name, groups, group = read_groups(sites, quota.groups, caller, quota.name)
            sizes = np.bincount(group[group >= 0], minlength=len(groups))
            lower = _bounds(
                quota.at_least, groups, np.zeros(len(groups), int), k, caller, "at_least"
            )
            upper = _bounds(quota.at_most, groups, sizes, k, caller, "at_most")
            self._groupings.setdefault(name, (groups, group))  # the first one of this name
            made.append(_C.Grouping(name, groups, group, lower, upper))
        return made

    def notes(self) -> list[str]:
        """Notes on the last plan: sites that are in no group, so that no quota applies to them."""
        found = []
        for name, (_, group) in self._groupings.items():
            number = int((group < 0).sum())
            if number:
                found.append(f"{number} site(s) have no {name}, and no limit by it.")
        return found

    @property
    def groups(self) -> dict[str, tuple[list[str], np.ndarray]]:
        """For each grouping of the last plan, the groups' names and each site's group (-1: in
        none)."""
        return self._groupings


def read_groups(
    sites: Sites, given: Any, caller: str, name: str | None = None
) -> tuple[str, list[str], np.ndarray]:
    """The grouping's name, the groups' names in order, and each site's group (-1: in none)."""
    column = sites.column(given, caller, "groups")
    if column is None:
        raise ValueError(f"{caller}: groups must name each site's group, got None.")
    called = name or (given if isinstance(given, str) else getattr(given, "name", None)) or "group"
    labels = [label_of(value) for value in column]
    groups = sorted({label for label in labels if label})
    if not groups:
        raise ValueError(f"{caller}: groups must name at least one group, got blanks alone.")
    warn_of_similar_ids(groups, caller, "group")
    number = {label: i for i, label in enumerate(groups)}
    return str(called), groups, np.asarray([number.get(label, -1) for label in labels], np.int32)


def read_floors(
    floors: float | Mapping[str, float] | None, names: Sequence[str], caller: str
) -> np.ndarray:
    """The least share of each group [G] in the order of `names`; empty if None is given. A group
    without an entry has 0.

    Raises:
        ValueError: a floor of an unknown group.
    """
    if floors is None:
        return np.empty(0)
    if not isinstance(floors, Mapping):
        return np.full(len(names), float(floors))
    least = {str(group): float(share) for group, share in floors.items()}
    unknown = [group for group in least if group not in names]
    if unknown:
        raise ValueError(
            f"{caller}: floors must name groups, got {unknown[0]!r}."
            f"{_C.did_you_mean(unknown[0], list(names))}"
        )
    return np.asarray([least.get(group, 0.0) for group in names])


def whole(value: Any, caller: str, what: str) -> int:
    """A whole number >= 0. Raises TypeError, ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{caller}: {what} must be a whole number, got {value!r}.")
    if value < 0:
        raise ValueError(f"{caller}: {what} must be a whole number >= 0, got {value!r}.")
    return int(value)


def _whole(k: Any, caller: str, sites: int) -> int:
    if k is None:
        return -1
    is_whole = isinstance(k, numbers.Integral) and not isinstance(k, bool)
    if is_whole and not 0 <= k <= sites:
        raise ValueError(f"{caller}: k must be from 0 to the number of sites S = {sites}, got {k}.")
    return whole(k, caller, "k")


def _bounds(
    quota: Quota, groups: list[str], default: np.ndarray, k: int | None, caller: str, what: str
) -> np.ndarray:
    bounds = np.asarray(default, np.int64).copy()
    if quota is None:
        return bounds
    if not isinstance(quota, Mapping):
        bounds[:] = _count(quota, k, caller, what)
        return bounds
    number = {name: i for i, name in enumerate(groups)}
    for name, its in quota.items():
        if str(name) not in number:
            raise ValueError(
                f"{caller}: {what} must name groups, got {name!r}; there are "
                f"{', '.join(groups[:10])}{' ...' if len(groups) > 10 else ''}."
            )
        bounds[number[str(name)]] = _count(its, k, caller, what)
    return bounds


def _count(quota: Any, k: int | None, caller: str, what: str) -> int:
    if isinstance(quota, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", quota)
        if found and found[2] and k is not None and float(found[1]) <= 100:
            # In whole thousandths of a percent, so that 30 % of 10 is 3 and not 4.
            parts = round(float(found[1]) * 1000) * k
            return -(-parts // 100_000) if what == "at_least" else parts // 100_000
        if found and not found[2] and "." not in found[1]:
            return int(found[1])
        why = " (a share needs k)" if found and found[2] and k is None else ""
        raise ValueError(
            f"{caller}: {what} must be a whole number or a share such as '30%', got {quota!r}{why}."
        )
    if isinstance(quota, bool) or not isinstance(quota, numbers.Integral) or quota < 0:
        raise ValueError(
            f"{caller}: {what} must be a whole number >= 0 or a share such as '30%', got {quota!r}."
        )
    return int(quota)
