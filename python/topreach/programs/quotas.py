"""Quotas on groups of sites, and programs by effect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from topreach import _C
from topreach._C import Program
from topreach.ops.quota import Limit, limit_count
from topreach.programs.base import as_program

_NAME = "Quotas"


class Quotas(_C.Quotas):
    """Plans with exactly K sites, at least `lower` and at most `upper` in every group.

    One grouping, or several of which each is finer than the next (municipalities in regions), are
    solved exactly in O(S); the smooth plan that training needs is exact for one grouping. Groupings
    that cross (municipality, and rural or not) are solved by HiGHS, `pip install highsbox`.

    `bpr` is the share of the best reach under the same quotas, in expectation under random
    tie-breaking for one grouping; for several, ties go to the lowest index. `chance` breaks the
    ties of each draw at random, with a fixed seed.

    Args:
        k: K, the number of sites.
        groups: the group of each site. A Series by site id, or a mapping {id: group}, is matched
            with the ranker's sites by id; a list or array is in the order of the ranker's sites.
            None and missing values: in no group. Several groupings: a DataFrame by site id with a
            column for each, or a list of the above.
        lower, upper: least and most sites of a group: one limit for all groups, or a mapping from
            groups, those without an entry having no limit. A limit is a number, None, or a share of
            K such as "30%": ⌈.3 K⌉ as a lower limit, ⌊.3 K⌋ as an upper one. For several groupings:
            a mapping {column: limits} (for a DataFrame), or a list with one entry for each.
        lock_in, lock_out: sites that are always, or never, in the plan: ids, or positions for
            groups in the order of the sites.
        label: what a group is called in messages; default: the name of the Series or column, else
            "group".

    Raises:
        ValueError: quotas that no plan meets; the message names the first group that cannot be met.
        TypeError: groups or limits of another type.

    Example:
        >>> towns = pd.Series({"0901": "Avon", "0902": "Avon", "0903": "Canton", "0904": "Canton"})
        >>> program = tr.programs.Quotas(2, towns, lower=1)
        >>> ranker = tr.TopKRanker(program).fit(train, valid)  # trains, ranks, scores under quotas
    """

    def __init__(
        self,
        k: int,
        groups: Any,
        lower: Any = 0,
        upper: Any = None,
        *,
        lock_in: Iterable[Any] = (),
        lock_out: Iterable[Any] = (),
        label: str | None = None,
    ):
        k = as_program(k, _NAME).size()
        if isinstance(groups, Program):
            raise TypeError(f"{_NAME}: groups must be groups of sites, got a Program")
        columns = _columns(groups, label)
        ids = _common_ids(columns)
        count = len(columns[0].values)
        lowers = _for_each(columns, lower, "lower")
        uppers = _for_each(columns, upper, "upper")
        groupings = [
            _grouping(column, low, high, k)
            for column, low, high in zip(columns, lowers, uppers, strict=True)
        ]
        lock = [0] * count
        for word, held, sign in (("lock_in", lock_in, 1), ("lock_out", lock_out, -1)):
            for place in _places(word, held, ids, count):
                if lock[place] == -sign:
                    raise ValueError(
                        f"{_NAME}: lock_in and lock_out must have no site in common, got "
                        f"{ids[place] if ids else place!r}"
                    )
                lock[place] = sign
        super().__init__(k, groupings, lock if any(lock) else [], ids)
        if self.crosses:
            _find_highs()


class _Column:
    """One grouping: labels of the sites, ids or none, and what it is called."""

    def __init__(self, values: Sequence[Any], ids: list[str], label: str):
        self.values = ["" if _is_missing(v) else _label(v) for v in values]
        self.ids, self.label = ids, label


def _label(value: Any) -> str:
    """A group's name as text: 1.0, as pandas reads whole numbers beside blanks, is "1"."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def _columns(groups: Any, label: str | None) -> list[_Column]:
    if isinstance(groups, pd.DataFrame):
        if groups.shape[1] == 0:
            raise ValueError(f"{_NAME}: groups must have a column, got none")
        return [_column(groups[name], str(name)) for name in groups.columns]
    if isinstance(groups, (list, tuple)) and groups and _is_grouping(groups[0]):
        return [_column(part, None) for part in groups]
    return [_column(groups, label)]


def _is_grouping(value: Any) -> bool:
    return isinstance(value, (pd.Series, Mapping, np.ndarray, list, tuple))


def _column(groups: Any, label: str | None) -> _Column:
    if isinstance(groups, pd.Series):
        named = label or (str(groups.name) if groups.name is not None else "group")
        return _Column(groups.tolist(), _ids(groups.index), named)
    if isinstance(groups, Mapping):
        return _Column(list(groups.values()), _ids(groups), label or "group")
    if isinstance(groups, torch.Tensor):
        groups = groups.tolist()
    if isinstance(groups, (str, bytes)) or not isinstance(groups, (Sequence, np.ndarray, pd.Index)):
        raise TypeError(
            f"{_NAME}: groups must be a Series or mapping by site id, or a list in the order of "
            f"the sites, got {type(groups).__name__}"
        )
    return _Column(list(groups), [], label or "group")


def _ids(index: Iterable[Any]) -> list[str]:
    return [str(name) for name in index]


def _common_ids(columns: list[_Column]) -> list[str]:
    first = columns[0]
    for other in columns[1:]:
        if sorted(other.ids) != sorted(first.ids) or len(other.values) != len(first.values):
            raise ValueError(
                f"{_NAME}: groups must be of the same sites in every grouping, got other ones in "
                f"{other.label!r}"
            )
        if other.ids != first.ids:
            by_id = dict(zip(other.ids, other.values, strict=True))
            other.ids, other.values = first.ids, [by_id[name] for name in first.ids]
    return first.ids


def _for_each(columns: list[_Column], limits: Any, name: str) -> list[Any]:
    """The limits of each grouping."""
    if len(columns) == 1:
        if isinstance(limits, (list, tuple)) and len(limits) == 1:
            return list(limits)
        return [limits]
    labels = [column.label for column in columns]
    if isinstance(limits, Mapping):
        strangers = [label for label in limits if label not in labels]
        if strangers:
            raise ValueError(
                f"{_NAME}: {name} must be a mapping from groupings, {', '.join(labels)}, got "
                f"{strangers[0]!r}"
            )
        return [limits.get(label) for label in labels]
    if isinstance(limits, (list, tuple)):
        if len(limits) != len(columns):
            raise ValueError(
                f"{_NAME}: {name} must have an entry for each of {len(columns)} groupings, got "
                f"{len(limits)}"
            )
        return list(limits)
    return [limits] * len(columns)


def _grouping(column: _Column, lower: Any, upper: Any, k: int) -> _C.Grouping:
    names = [name for name in dict.fromkeys(column.values) if name]
    if not names:
        raise ValueError(f"{_NAME}: groups must name the group of some site, got none")
    count = len(column.values)

    def limits(word: str, given: Any, none: int) -> dict[str, int]:
        if isinstance(given, pd.Series):
            given = given.convert_dtypes().to_dict()  # 1.0 beside a blank is 1
        if not isinstance(given, Mapping):
            return {name: limit_count(_NAME, word, given, k, none) for name in names}
        return {
            _label(name): limit_count(_NAME, word, _limit(limit), k, none)
            for name, limit in given.items()
        }

    low, high = limits("lower", lower, 0), limits("upper", upper, count)
    unknown = [name for name in high if name not in set(names)]
    if unknown:
        raise ValueError(
            f"{_NAME}: upper must name groups that have sites, got {column.label} {unknown[0]!r}"
        )
    listed = list(dict.fromkeys([*low, *high]))
    return _C.Grouping(
        column.label,
        column.values,
        listed,
        [low.get(name, 0) for name in listed],
        [high.get(name, count) for name in listed],
    )


def _limit(value: Any) -> Limit:
    return None if _is_missing(value) else value


def _places(word: str, held: Iterable[Any], ids: list[str], count: int) -> list[int]:
    if isinstance(held, str):
        raise TypeError(f"{_NAME}: {word} must be a list of sites, got the string {held!r}")
    where = {name: place for place, name in enumerate(ids)}
    found = []
    for site in held:
        if ids:
            if str(site) not in where:
                raise ValueError(f"{_NAME}: {word} must be sites of groups, got {site!r}")
            found.append(where[str(site)])
        else:
            if isinstance(site, bool) or not hasattr(site, "__index__") or not 0 <= site < count:
                raise ValueError(
                    f"{_NAME}: {word} must be positions from 0 to {count - 1} where groups have no "
                    f"ids, got {site!r}"
                )
            found.append(int(site))
    return found


def _find_highs() -> None:
    """Tell the library where the package `highsbox` keeps HiGHS, if it is installed."""
    from topreach.programs.solver import find_highs

    find_highs()


def with_effect(program: Program | int, effect: Any) -> _C.WithEffect:
    """A program whose plans are worth what they prevent.

    Values, scores and counts y are multiplied by the effect e, so that plans maximise
    Σ e_i r_i x_i, and reach, `bpr`, the objectives and the ranker count events prevented,
    Σ e_i y_i x_i. Where acting is of no use, e is 0. A model that is ranked by shares of all events
    (ratio ranking) has its shares multiplied.

    Args:
        program: any `Program`, or K.
        effect: the share of a site's events that acting there prevents, >= 0. A Series or mapping
            by site id is matched with the ranker's sites; a list or tensor [S] is in their order.

    Raises:
        ValueError: effects that are negative or not finite.

    Example:
        >>> ranker = tr.TopKRanker(tr.programs.with_effect(100, shares)).fit(train, valid)
    """
    inner = as_program(program, "with_effect")
    ids: list[str] = []
    if isinstance(effect, pd.Series):
        if effect.index.has_duplicates:
            twice = effect.index[effect.index.duplicated()][0]
            raise ValueError(f"with_effect: effect must name a site once, got {twice!r} twice")
        ids, effect = _ids(effect.index), effect.tolist()
    elif isinstance(effect, Mapping):
        ids, effect = _ids(effect), list(effect.values())
    values = torch.as_tensor(effect, dtype=torch.float64)
    if values.dim() != 1:
        raise ValueError(f"with_effect: effect must have shape [S], got {tuple(values.shape)}")
    return _C.WithEffect(inner, values.tolist(), ids)
