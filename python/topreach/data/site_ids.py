"""Ids of sites as text."""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from typing import Any

import pandas as pd

from topreach import _C
from topreach.data.messages import either


def in_order(table: Any, ids: list[str], caller: str, what: str, axis: int = 0) -> Any:
    """A Series or DataFrame with its rows (axis 1: columns) in the order of the ids. It is returned
    unchanged if its labels are positions, or if it has none.

    Raises:
        ValueError: labels that are not the ids, each once.
    """
    labels = table.axes[axis] if isinstance(table, pd.Series | pd.DataFrame) else None
    if labels is None or isinstance(labels, pd.RangeIndex):
        return table
    names = site_ids(labels, caller, what)
    if sorted(names) != sorted(ids):
        unknown = [n for n in names if n not in set(ids)] or [n for n in ids if n not in set(names)]
        detail = f"{unknown[0]!r}.{_C.did_you_mean(unknown[0], ids)}" if unknown else "one twice."
        raise ValueError(
            f"{caller}: {what} must be labelled by the {len(ids)} ids, each once, got {detail}"
        )
    return table.set_axis(names, axis=axis).reindex(ids, axis=axis)


def site_ids(values: Iterable[Any], caller: str, what: str) -> list[str]:
    """Each id as text: a whole number as its digits, text as it is, without blanks around it.

    Raises:
        TypeError: an id that is neither text nor a whole number, for instance 9001.5 or a blank
            cell; the message names it.
    """
    found = []
    for position, value in enumerate(values):
        if isinstance(value, str):
            found.append(value.strip())
        elif isinstance(value, numbers.Integral) and not isinstance(value, bool):
            found.append(str(int(value)))
        elif isinstance(value, tuple) and value:
            found.append(str(value))
        else:
            raise TypeError(
                f"{caller}: {what} must be text or whole numbers, got {value!r} at position "
                f"{position}. "
                + either(
                    f"Read ids as text: pd.read_csv(..., dtype={{{what!r}: str}}).",
                    "Fill in such cells, or drop their rows.",
                )
            )
    return found
