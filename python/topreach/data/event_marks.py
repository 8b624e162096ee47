"""Marks of events as numbers: z-scores of numeric columns, dummies of categories."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .times import plain

# A column whose spread is within a few roundings of its values counts as constant.
_ROUNDING = 8 * np.finfo(np.float64).eps


@dataclass(frozen=True)
class MarkScaler:
    """How mark columns become numbers: learned from one table, and applied to it and later ones.

    numbers: column -> (mean, standard deviation); its mark is the z-score. categories: column ->
    its categories, the most frequent first; each of the others has a 0/1 mark, "column=category".
    dropped: columns that were constant, and so have no mark.

    Example:
        >>> df = pd.DataFrame({"age": [30.0, 50.0], "sex": ["F", "M"]})
        >>> scaler = MarkScaler.fit(df)
        >>> scaler.names
        ['age', 'sex=M']
        >>> scaler.transform(pd.DataFrame({"age": [60.0], "sex": ["F"]}))
        array([[2., 0.]])
    """

    numbers: Mapping[str, tuple[float, float]]
    categories: Mapping[str, tuple[str, ...]]
    dropped: tuple[str, ...] = ()

    @classmethod
    def fit(cls, marks: pd.DataFrame) -> MarkScaler:
        """Learn from the checked columns of a table (`mark_columns`): float64, or text."""
        numbers: dict[str, tuple[float, float]] = {}
        categories: dict[str, tuple[str, ...]] = {}
        dropped = []
        for column in marks.columns:
            values = marks[column]
            if values.dtype == np.float64:
                with np.errstate(over="ignore", invalid="ignore"):
                    mean, scale = float(values.mean()), float(values.std(ddof=0))
                if len(values) and not (np.isfinite(mean) and np.isfinite(scale)):
                    raise ValueError(
                        f"MarkScaler.fit: marks must be numbers whose spread is finite, got values "
                        f"up to {float(values.abs().max()):g} in the column {column!r}."
                    )
                if len(values) and scale > _ROUNDING * float(values.abs().max()):
                    numbers[column] = (mean, scale)
                    continue
            else:
                found = values.value_counts()
                order = sorted(found.index, key=lambda c: (-found[c], c))
                if len(order) > 1:
                    categories[column] = tuple(order)
                    continue
            dropped.append(column)
        return cls(numbers, categories, tuple(dropped))

    @property
    def names(self) -> list[str]:
        """The marks, in the order of their columns here: numbers, then categories."""
        dummies = [f"{c}={value}" for c, values in self.categories.items() for value in values[1:]]
        return [*self.numbers, *dummies]

    def transform(self, marks: pd.DataFrame, name: str = "MarkScaler.transform") -> np.ndarray:
        """Marks [N, q], float64. A category that the scaler has not seen counts as the most
        frequent one, with a warning.

        Raises:
            ValueError: a column is missing.
        """
        absent = [c for c in (*self.numbers, *self.categories) if c not in marks.columns]
        if absent:
            raise ValueError(f"{name}: marks must have the columns {absent}, got none of them.")
        parts = [
            ((marks[column].to_numpy(float) - mean) / scale)[:, None]
            for column, (mean, scale) in self.numbers.items()
        ]
        for column, known in self.categories.items():
            values = marks[column].to_numpy(object)
            new = sorted(set(values) - set(known))
            if new:
                warnings.warn(
                    f"{name}: marks {column!r} must be among {list(known)}, got {new[:5]}. They "
                    f"count as {known[0]!r}, the most frequent.",
                    stacklevel=3,
                )
            parts.append((values[:, None] == np.array(known[1:], object)[None]).astype(float))
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(marks), 0))

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, for a file."""
        return {
            "numbers": {c: list(pair) for c, pair in self.numbers.items()},
            "categories": {c: list(values) for c, values in self.categories.items()},
            "dropped": list(self.dropped),
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> MarkScaler:
        return cls(
            {c: (float(m), float(s)) for c, (m, s) in state["numbers"].items()},
            {c: tuple(values) for c, values in state["categories"].items()},
            tuple(state["dropped"]),
        )


def mark_columns(
    df: pd.DataFrame, columns: Sequence[str], name: str, where: Callable[[int], str]
) -> pd.DataFrame:
    """The mark columns of a table: float64, or text for categories.

    Raises:
        ValueError: a missing cell, or a number that is not finite.
    """
    made = {}
    for column in columns:
        values = df[column]
        is_number = pd.api.types.is_numeric_dtype(values)
        bad = values.isna().to_numpy()
        if is_number:
            numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
            bad = ~np.isfinite(numbers)
        if bad.any():
            row = int(np.argmax(bad))
            kind = "finite numbers" if is_number else "texts"
            advice = "" if is_number else ", write a category such as 'unknown'"
            raise ValueError(
                f"{name}: marks {column!r} must hold {kind} with none missing, got "
                f"{plain(values.iloc[row])!r} at {where(row)} ({int(bad.sum())} such rows). Fill "
                f"them in{advice}, or leave the column out of marks."
            )
        if not is_number:
            read = pd.to_numeric(values, errors="coerce").notna().to_numpy()
            if len(values) > 2 and len(values) / 2 < read.sum() < len(values):
                row = int(np.argmin(read))
                raise ValueError(
                    f"{name}: marks {column!r} must hold numbers or categories, got "
                    f"{plain(values.iloc[row])!r} at {where(row)}, where most rows hold numbers. "
                    "Mend the cell, or leave the column out of marks."
                )
        made[column] = numbers if is_number else values.astype(str).str.strip().to_numpy(object)
    return pd.DataFrame(made, index=pd.RangeIndex(len(df)))
