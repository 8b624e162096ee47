"""The inputs of a plan: scores by site, and other columns by site."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from topreach import _C
from topreach.data.messages import either
from topreach.data.site_ids import site_ids
from topreach.data.times import plain, read_times

# Arguments by site that are chances or shares of its events, and amounts that cannot be negative.
CHANCES = ("comes", "passes", "compliance")
SHARES = ("effect", "treated", "spilled", *CHANCES)
AMOUNTS = ("cost", "size", "area", "opening", "capacity", "opened_capacity")

# Errors of the C++ library that name a site by its number; others speak of groups, places or pairs.
_BY_SITE = re.compile(
    r": (scores|cost|weight|treated|spilled|compliance|comes|passes|opening|x|y|gain|size|events|"
    r"area|need|sites locked in) must "
)


@dataclass(frozen=True)
class Sites:
    """S sites with ids as text, their scores, and the other columns of their table.

    Attributes:
        ids: [S].
        scores: float64 [S], or [H, S] for several periods.
        table: the other columns, indexed by id; for several periods, those that are equal in all.
        varying: columns that differ between periods.
        periods: labels of the H periods, or none.
    """

    ids: list[str]
    scores: np.ndarray
    table: pd.DataFrame
    periods: tuple[str, ...] = ()
    varying: tuple[str, ...] = ()

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Within the block, errors of the C++ library, which numbers the sites, name the site's id
        and, if there are several periods, the period."""
        try:
            yield
        except ValueError as error:
            found = re.search(r"(?<=site )\d+(?![\d'])", str(error))
            if found is None or not _BY_SITE.search(str(error)):
                raise
            period, row = divmod(int(found[0]), len(self.ids))
            name = repr(self.ids[row])
            if self.scores.ndim > 1 and "scores" in str(error):
                name += f" in {self.periods[period]}"
            elif period:
                raise
            text = str(error)
            raise ValueError(text[: found.start()] + name + text[found.end() :]) from None

    def column(self, given: Any, caller: str, what: str) -> np.ndarray | None:
        """A column by site: None; a number for all; a column's name; a Series or dict by id; or
        values in the order of the sites.

        Raises:
            ValueError: a name that the table does not have, an id without a value, or another
                length.
        """
        if given is None:
            return None
        if isinstance(given, str):
            if given in self.varying:
                raise ValueError(
                    f"{caller}: {what} must be the same for a site in all periods, got the column "
                    f"{given!r}, which changes. Give one value for each site."
                )
            if given not in self.table.columns:
                have = ", ".join(map(str, self.table.columns)) or "no further columns"
                raise ValueError(
                    f"{caller}: {what} must be a column of scores, got {given!r}; it has {have}."
                )
            return self.table[given].to_numpy()
        if np.ndim(given) == 0 and not isinstance(given, Mapping):
            return np.full(len(self.ids), given)
        if isinstance(given, Mapping):
            given = pd.Series(given)
        if isinstance(given, pd.Series):
            values = given.copy()
            values.index = pd.Index(site_ids(given.index, caller, what))
            if values.index.has_duplicates:
                twice = values.index[values.index.duplicated()][0]
                raise ValueError(f"{caller}: {what} must name a site once, got {twice!r} twice.")
            missing = [i for i in self.ids if i not in values.index]
            if missing:
                raise ValueError(
                    f"{caller}: {what} must have a value for every site, got none for "
                    f"{missing[0]!r} and {len(missing) - 1} more."
                    f"{_C.did_you_mean(missing[0], list(values.index))}"
                )
            return values.reindex(self.ids).to_numpy()
        values = np.asarray(given)
        if values.shape != (len(self.ids),):
            raise ValueError(
                f"{caller}: {what} must have one value for each of {len(self.ids)} sites, got "
                f"shape {values.shape}."
            )
        return values

    def numbers(self, given: Any, caller: str, what: str, default: float) -> np.ndarray:
        """The same as float64 [S]; `default` if None is given."""
        column = self.column(default if given is None else given, caller, what)
        assert column is not None
        values = pd.to_numeric(pd.Series(column), errors="coerce").to_numpy(dtype=float)
        if np.isnan(values).any():
            at = int(np.flatnonzero(np.isnan(values))[0])
            raise ValueError(
                f"{caller}: {what} must be numbers, got {plain(column[at])!r} for {self.ids[at]!r}."
            )
        if what in SHARES + AMOUNTS:
            wrong = (values < 0) | ~np.isfinite(values) | ((values > 1) & (what in SHARES))
            if wrong.any():
                at = int(np.argmax(wrong))
                unit = "chances" if what in CHANCES else "shares"
                kind = f"{unit} from 0 to 1" if what in SHARES else "numbers >= 0"
                raise ValueError(
                    f"{caller}: {what} must be {kind}, got {plain(column[at])!r} for "
                    f"{self.ids[at]!r}."
                )
        return values

    def rows(self, given: Any, caller: str, what: str) -> np.ndarray:
        """Rows of sites given by id. Raises ValueError for an unknown one."""
        if isinstance(given, str):
            raise TypeError(f"{caller}: {what} must be a list of ids, got the text {given!r}.")
        wanted = site_ids([] if given is None else given, caller, what)
        index = {name: row for row, name in enumerate(self.ids)} if wanted else {}
        for name in wanted:
            if name not in index:
                raise ValueError(
                    f"{caller}: {what} must be ids of the {len(self.ids)} sites, got {name!r}."
                    f"{_C.did_you_mean(name, self.ids)}"
                )
        return np.asarray([index[name] for name in wanted], dtype=np.int64)


def read_sites(
    scores: Any,
    caller: str,
    *,
    ids: Any = None,
    value: str | None = None,
    site: str = "site",
    period: Any = None,
    periods: bool = False,
) -> Sites:
    """Read scores in any of the forms that a user may give.

    Args:
        scores: a table of `ranker.rank()` or another with a column of ids and one of scores; a
            Series by id; or an array or tensor [S] ([H, S] if `periods`).
        ids: the sites of an array; None: "0", "1", ...
        value: the table's column to take; None: "score", or "expected_count" if there is none.
        site: the table's column of ids; without one the index.
        period: which of a table's periods; None: its only one.
        periods: keep all periods.

    Raises:
        ValueError: a site twice, several periods, a missing column, another shape.
    """
    if isinstance(scores, pd.DataFrame):
        return _from_table(scores, caller, value, site, period, periods)
    if isinstance(scores, pd.Series | Mapping):
        series = pd.Series(scores)
        found = site_ids(series.index, caller, "scores")
        values = _as_numbers(series, caller, found)
        return _checked(Sites(found, values, pd.DataFrame(index=pd.Index(found))), caller)
    values = scores
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    values = np.asarray(values, dtype=float)
    if values.ndim != (2 if periods else 1):
        shape = "[H, S]" if periods else "[S]"
        raise ValueError(f"{caller}: scores must have shape {shape}, got {list(values.shape)}.")
    number = values.shape[-1]
    found = site_ids(range(number) if ids is None else ids, caller, "ids")
    if len(found) != number:
        raise ValueError(
            f"{caller}: ids must name each of {number} sites, got {len(found)} of them."
        )
    labels = tuple(str(t + 1) for t in range(len(values))) if periods else ()
    return _checked(Sites(found, values, pd.DataFrame(index=pd.Index(found)), labels), caller)


def _from_table(
    table: pd.DataFrame, caller: str, value: str | None, site: str, period: Any, periods: bool
) -> Sites:
    if value is None:
        value = next((name for name in ("score", "expected_count") if name in table), None)
        if value is None:
            raise ValueError(
                f"{caller}: scores must have a column 'score', got "
                f"{', '.join(map(str, table.columns))}. Name the column by value=."
            )
    elif value not in table:
        raise ValueError(
            f"{caller}: scores must have the column {value!r}, got "
            f"{', '.join(map(str, table.columns))}."
        )
    if site not in table and site != "site":
        raise ValueError(
            f"{caller}: scores must have the column {site!r}, got "
            f"{', '.join(map(str, table.columns))}."
        )
    if "time" in table:
        blank = table["time"].isna()
        if blank.any() and not periods:
            raise _blank_time(table["time"], blank, caller)
        if period is not None:
            table = table[table["time"].astype(str) == str(period)]
            if table.empty:
                raise ValueError(f"{caller}: period must be one of scores, got {period!r}.")
        elif not periods and table["time"].nunique() > 1:
            raise ValueError(
                f"{caller}: scores must be of one period, got {table['time'].nunique()}, from "
                f"{table['time'].iloc[0]} on. Choose one by period=."
            )
    if table.empty:
        raise ValueError(f"{caller}: scores must have at least one site, got none.")
    names = site_ids(table[site] if site in table else table.index, caller, site)
    values = _as_numbers(table[value], caller, names)
    rest = table.drop(columns=[c for c in (site,) if c in table]).copy()
    rest.index = pd.Index(names)
    if not periods:
        return _checked(Sites(names, values, rest), caller)
    if "time" not in table or period is not None:
        return _checked(Sites(names, values[None], rest, ("1",)), caller)
    order = _in_order(table["time"], caller)
    first = list(dict.fromkeys(names))
    wide = pd.DataFrame({"time": table["time"].to_numpy(), "site": names, "value": values})
    if wide.duplicated(["time", "site"]).any():
        row = wide[wide.duplicated(["time", "site"])].iloc[0]
        raise ValueError(
            f"{caller}: scores must name a site once a period, got {row['site']!r} twice in "
            f"{row['time']}."
        )
    matrix = wide.pivot(index="time", columns="site", values="value").reindex(
        index=order, columns=first
    )
    if matrix.isna().any(axis=None):
        at = matrix.isna().stack()
        time, name = at[at].index[0]
        raise ValueError(
            f"{caller}: scores must have every site in every period, got none for {name!r} in "
            f"{time}."
        )
    one = rest.groupby(level=0, sort=False).nunique(dropna=False).max()
    varying = tuple(c for c in rest.columns if c not in ("time", value) and one[c] > 1)
    rest = rest[~rest.index.duplicated()].drop(columns=[*varying])
    return _checked(Sites(first, matrix.to_numpy(), rest, tuple(map(str, order)), varying), caller)


def _blank_time(times: pd.Series, blank: pd.Series, caller: str) -> ValueError:
    row = times.index[int(np.argmax(blank.to_numpy()))]
    return ValueError(
        f"{caller}: the column 'time' must say the period of each row, got a blank in "
        f"{either(f'row {row!r}', f'line {row + 2}')}."
    )


def _in_order(times: pd.Series, caller: str) -> list[Any]:
    """The periods, early ones first."""
    blank = times.isna() | (times.astype(str).str.strip() == "")
    if blank.any():
        raise _blank_time(times, blank, caller)
    periods = list(dict.fromkeys(times))
    moments = read_times(periods, caller, "time").values
    return [periods[i] for i in np.argsort(moments, kind="stable")]


def _as_numbers(column: pd.Series, caller: str, ids: list[str]) -> np.ndarray:
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
    if np.isnan(values).any():
        at = int(np.flatnonzero(np.isnan(values))[0])
        raise ValueError(
            f"{caller}: scores must be numbers, got {plain(column.iloc[at])!r} for site "
            f"{ids[at]!r}."
        )
    return values


def _checked(sites: Sites, caller: str) -> Sites:
    seen: set[str] = set()
    for name in sites.ids:
        if name in seen:
            raise ValueError(f"{caller}: scores must name a site once, got {name!r} twice.")
        seen.add(name)
    if not sites.ids:
        raise ValueError(f"{caller}: scores must have at least one site, got none.")
    return sites
