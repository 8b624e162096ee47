"""Ids of sites as text."""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterable
from typing import Any

import pandas as pd


def whole_rows(table: pd.DataFrame, caller: str, path: str | os.PathLike) -> pd.DataFrame:
    """The table of a CSV file, whose rows have as many fields as its header: pandas takes the
    first ones of longer rows for labels, and shifts the columns.

    Raises:
        ValueError: rows with more fields.
    """
    if isinstance(table.index, pd.RangeIndex):
        return table
    raise ValueError(
        f"{caller}: {os.fspath(path)} must have as many fields in each row as in its header, "
        f"{len(table.columns)}, got {len(table.columns) + table.index.nlevels} in line 2. Write "
        "fields that hold a comma in quotes."
    )


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
