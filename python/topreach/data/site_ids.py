"""Ids of sites as text."""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from typing import Any


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
                f"{position}. Read ids as text: pd.read_csv(..., dtype={{{what!r}: str}})."
            )
    return found
