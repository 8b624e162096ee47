"""Quotas on groups of sites, and programs by effect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from topreach import _C
from topreach._C import Program
from topreach.data.sites import warn_of_similar_ids
from topreach.programs.base import as_program
from topreach.programs.groupings import Column, grouping_of, read_column, read_lock, texts_of
from topreach.programs.solver import find_highs

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
            groups, in which groups without an entry have no limit. A limit is a number, None, or a
            share of K such as "30%": ⌈.3 K⌉ as a lower limit, ⌊.3 K⌋ as an upper one. For several
            groupings: a mapping {column: limits} (for a DataFrame), or a list with one entry for
            each.
        lock_in, lock_out: sites that are always, or never, in the plan: ids, or positions if
            groups are in the order of the sites.
        label: the word for a group in messages; default: the name of the Series or column, else
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
            grouping_of(column, low, high, k, _NAME)
            for column, low, high in zip(columns, lowers, uppers, strict=True)
        ]
        lock = read_lock(lock_in, lock_out, ids, count, _NAME)
        super().__init__(k, groupings, lock, ids)
        if self.crosses:
            find_highs()


def _columns(groups: Any, label: str | None) -> list[Column]:
    if isinstance(groups, pd.DataFrame):
        if groups.shape[1] == 0:
            raise ValueError(f"{_NAME}: groups must have a column, got none")
        return [_column(groups[name], str(name)) for name in groups.columns]
    if isinstance(groups, (list, tuple)) and groups and _is_grouping(groups[0]):
        return [_column(part, None) for part in groups]
    return [_column(groups, label)]


def _column(groups: Any, label: str | None) -> Column:
    column = read_column(groups, label, _NAME)
    warn_of_similar_ids(sorted({name for name in column.values if name}), _NAME, "group")
    return column


def _is_grouping(value: Any) -> bool:
    return isinstance(value, (pd.Series, Mapping, np.ndarray, list, tuple))


def _common_ids(columns: list[Column]) -> list[str]:
    first = columns[0]
    for other in columns[1:]:
        if len(other.values) != len(first.values):
            raise ValueError(
                f"{_NAME}: groups must be of the same sites in every grouping, got other ones in "
                f"{other.label!r}"
            )
        if other.ids != first.ids:
            other.in_order(first.ids, _NAME)
    return first.ids


def _for_each(columns: list[Column], limits: Any, name: str) -> list[Any]:
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


def with_effect(program: Program | int, effect: Any) -> _C.WithEffect:
    """A program whose plans are valued by the events that they prevent.

    Values, scores and counts y are multiplied by the effect e, so that plans maximise
    Σ e_i r_i x_i, and reach, `bpr`, the objectives and the ranker count events prevented,
    Σ e_i y_i x_i. At a site where acting does not help, e is 0. If a model ranks by shares of all
    events (ratio ranking), the shares are multiplied.

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
        ids, effect = texts_of(effect.index), effect.tolist()
    elif isinstance(effect, Mapping):
        ids, effect = texts_of(effect), list(effect.values())
    values = torch.as_tensor(effect, dtype=torch.float64)
    if values.dim() != 1:
        raise ValueError(f"with_effect: effect must have shape [S], got {tuple(values.shape)}")
    return _C.WithEffect(inner, values.tolist(), ids)
