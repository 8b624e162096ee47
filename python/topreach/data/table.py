"""How to read a table, as one object that the command line and the model file use."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import pandas as pd

from topreach._C import Calendar

from . import columns as _columns
from .csv_files import read_header
from .messages import caller
from .panel import Panel


@dataclass(frozen=True)
class TableSpec:
    """Everything that says how to read a long table with one row per site and period.

    The fields are the arguments of `Panel.from_frame` and `Panel.from_csv` of the same names; they
    are checked when a table is read.

    Example:
        >>> spec = TableSpec(site="tract", time="quarter", count="deaths", missing="zero")
        >>> panel = spec.read("deaths.csv.gz")
        >>> TableSpec.from_dict(spec.to_dict()) == spec
        True
    """

    site: str
    time: str
    count: str | None = None
    exposure: str | None = None
    features: tuple[str, ...] | _columns.AllBut | None = None
    suppressed: Mapping[str, tuple[int, int]] | None = None
    missing: str = "error"
    duplicates: str = "error"
    opened: str | None = None
    closed: str | None = None
    time_format: str | None = None
    sep: str | None = None
    encoding: str | None = None
    decimal: str = "."

    def __post_init__(self) -> None:
        if isinstance(self.features, Sequence) and not isinstance(self.features, str):
            object.__setattr__(self, "features", tuple(self.features))
        if isinstance(self.suppressed, Mapping):
            checked = _columns.suppressed_intervals(self.suppressed, "TableSpec")
            object.__setattr__(self, "suppressed", checked or None)

    def read(
        self,
        table: str | os.PathLike | pd.DataFrame,
        *,
        counts: str = "required",
        calendar: Calendar | None = None,
        source: str | None = None,
    ) -> Panel:
        """The panel of a table.

        Args:
            table: a DataFrame, or the path of a CSV file (also .gz, .bz2, .xz, .zip; "-" is
                standard input) or of a Parquet file (.parquet, .pq).
            counts: "optional" allows the last periods to have no counts. The table may then lack
                the count column.
            calendar: a `Calendar` that the times must lie on, such as a fitted model's.
            source: carried along as `panel.source`.

        Raises:
            TypeError, ValueError, FileNotFoundError: as `Panel.from_csv`.
        """
        options = self._options() | {"counts": counts, "calendar": calendar, "source": source}
        if counts == "optional" and self.count is not None and self.count not in self.header(table):
            options["count"] = None
            options["suppressed"] = None
        text = {name: options.pop(name) for name in ("sep", "encoding", "decimal")}
        if isinstance(table, pd.DataFrame):
            return Panel.from_frame(table, **options)
        if is_parquet(table):
            return Panel.from_parquet(table, **options)
        return Panel.from_csv(table, **options, **text)

    def header(self, table: str | os.PathLike | pd.DataFrame) -> list[str]:
        """The names of a table's columns."""
        if isinstance(table, pd.DataFrame):
            return [str(c) for c in table.columns]
        name = caller("TableSpec.header")
        if is_parquet(table):
            if not os.path.isfile(table):
                raise FileNotFoundError(f"{name}: path must be an existing file, got {table!r}.")
            try:
                from pyarrow.parquet import read_schema
            except ImportError:
                return [str(c) for c in pd.read_parquet(table).columns]
            return [str(c) for c in read_schema(table).names]
        wanted = [c for c in (self.site, self.time, self.count) if c is not None]
        return read_header(table, name, wanted=wanted, sep=self.sep, encoding=self.encoding)

    def with_features(self, features: Sequence[str] | None) -> TableSpec:
        return replace(self, features=None if features is None else tuple(features))

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, for a file; fields with their default are left out."""
        made = asdict(self)
        if isinstance(self.features, tuple):
            made["features"] = list(self.features)
        if self.suppressed is not None:
            made["suppressed"] = {text: list(ends) for text, ends in self.suppressed.items()}
        defaults = {f.name: f.default for f in fields(self)}
        return {name: value for name, value in made.items() if value != defaults[name]}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> TableSpec:
        """The spec that `to_dict` returned.

        Raises:
            ValueError: an unknown field, or no site or time.
        """
        known = {f.name for f in fields(cls)}
        unknown, absent = set(state) - known, {"site", "time"} - set(state)
        if unknown or absent:
            raise ValueError(
                f"TableSpec.from_dict: state must have site and time and no other fields than "
                f"{', '.join(sorted(known))}, got {sorted(state)}."
            )
        return cls(**state)

    def _options(self) -> dict[str, Any]:
        options = {f.name: getattr(self, f.name) for f in fields(self)}
        if isinstance(self.features, tuple):
            options["features"] = list(self.features)
        return options


def is_parquet(path: str | os.PathLike) -> bool:
    """Whether a path has the extension of a Parquet file."""
    return str(os.fspath(path)).lower().endswith((".parquet", ".pq"))
