"""Groups of sites, their limits and locks, from a user's arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from topreach import _C
from topreach.ops.quota import Limit, limit_count


class Column:
    """One grouping: the names of the sites' groups ("": in none), ids of the sites or none, and
    the word for a group."""

    def __init__(self, values: Sequence[Any], ids: list[str], label: str):
        self.values = [label_of(value) for value in values]
        self.ids, self.label = ids, label

    def in_order(self, ids: list[str], caller: str) -> None:
        """Put the sites in the order of `ids`.

        Raises:
            ValueError: other sites than these.
        """
        if sorted(self.ids) != sorted(ids):
            raise ValueError(
                f"{caller}: groups must be of the same sites in every grouping, got other ones in "
                f"{self.label!r}"
            )
        by_id = dict(zip(self.ids, self.values, strict=True))
        self.ids, self.values = ids, [by_id[name] for name in ids]


def label_of(value: Any) -> str:
    """A group's name as text, "" for none: 1.0, as pandas reads whole numbers beside blanks, is
    "1"."""
    if _is_missing(value):
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def texts_of(index: Iterable[Any]) -> list[str]:
    """Ids as text."""
    return [str(name) for name in index]


def read_column(groups: Any, label: str | None, caller: str) -> Column:
    """A Series or mapping by site id, or a list in the order of the sites.

    Raises:
        TypeError: something else.
    """
    if isinstance(groups, pd.Series):
        named = label or (str(groups.name) if groups.name is not None else "group")
        return Column(groups.tolist(), texts_of(groups.index), named)
    if isinstance(groups, Mapping):
        return Column(list(groups.values()), texts_of(groups), label or "group")
    if isinstance(groups, torch.Tensor):
        groups = groups.tolist()
    if isinstance(groups, (str, bytes)) or not isinstance(groups, (Sequence, np.ndarray, pd.Index)):
        raise TypeError(
            f"{caller}: groups must be a Series or mapping by site id, or a list in the order of "
            f"the sites, got {type(groups).__name__}"
        )
    return Column(list(groups), [], label or "group")


def grouping_of(
    column: Column,
    lower: Any,
    upper: Any,
    k: int | None,
    caller: str,
    words: tuple[str, str] = ("lower", "upper"),
) -> _C.Grouping:
    """The grouping with its limits, as a C++ object.

    Args:
        lower, upper: one limit for all groups, or a mapping from groups; see `limit_count`.
        k: number of sites, for shares of it; None: there are no shares.
        words: the names of the limits in messages.

    Raises:
        ValueError: no group, a limit of an unknown group, or a value that is not a limit.
    """
    names = [name for name in dict.fromkeys(column.values) if name]
    if not names:
        raise ValueError(f"{caller}: groups must name the group of some site, got none")
    count = len(column.values)

    def number(word: str, limit: Any, none: int) -> int:
        if k is None and isinstance(limit, str):
            raise ValueError(f"{caller}: {word} must be a number of sites without k, got {limit!r}")
        plain: Limit = None if _is_missing(limit) else limit
        return limit_count(caller, word, plain, k or 0, none, lower=word == words[0])

    def limits(word: str, given: Any, none: int) -> dict[str, int]:
        if isinstance(given, pd.Series):
            given = given.convert_dtypes().to_dict()  # 1.0 beside a blank is 1
        if not isinstance(given, Mapping):
            return dict.fromkeys(names, number(word, given, none))
        return {label_of(name): number(word, limit, none) for name, limit in given.items()}

    low, high = limits(words[0], lower, 0), limits(words[1], upper, count)
    unknown = [name for name in high if name not in set(names)]
    if unknown:
        raise ValueError(
            f"{caller}: {words[1]} must name groups that have sites, got {column.label} "
            f"{unknown[0]!r}.{_C.did_you_mean(unknown[0], names)}"
        )
    listed = list(dict.fromkeys([*low, *high]))
    return _C.Grouping.by_name(
        column.label,
        column.values,
        listed,
        [low.get(name, 0) for name in listed],
        [high.get(name, count) for name in listed],
        caller,
    )


def read_lock(
    lock_in: Iterable[Any], lock_out: Iterable[Any], ids: list[str], count: int, caller: str
) -> list[int]:
    """[S] of 1, in; -1, out; 0, free; or empty if no site is locked.

    Args:
        lock_in, lock_out: ids, or positions if sites have no ids.

    Raises:
        ValueError: an unknown site, or one in both.
        TypeError: a text instead of a list.
    """
    lock = [0] * count
    for word, held, sign in (("lock_in", lock_in, 1), ("lock_out", lock_out, -1)):
        for place in _places(word, held, ids, count, caller):
            if lock[place] == -sign:
                raise ValueError(
                    f"{caller}: lock_in and lock_out must have no site in common, got "
                    f"{ids[place] if ids else place!r}"
                )
            lock[place] = sign
    return lock if any(lock) else []


def _places(word: str, held: Iterable[Any], ids: list[str], count: int, caller: str) -> list[int]:
    if isinstance(held, str):
        raise TypeError(f"{caller}: {word} must be a list of sites, got the string {held!r}")
    where = {name: place for place, name in enumerate(ids)}
    found = []
    for site in held:
        if ids:
            if str(site) not in where:
                raise ValueError(
                    f"{caller}: {word} must be sites of groups, got {site!r}."
                    f"{_C.did_you_mean(str(site), ids)}"
                )
            found.append(where[str(site)])
        else:
            if isinstance(site, bool) or not hasattr(site, "__index__") or not 0 <= site < count:
                raise ValueError(
                    f"{caller}: {word} must be positions from 0 to {count - 1} where groups have "
                    f"no ids, got {site!r}"
                )
            found.append(int(site))
    return found
