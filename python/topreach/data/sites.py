"""The sites of a table: their ids, when they open and close, and two ids that may be one place."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from topreach import _C
from topreach._C import Calendar

from .columns import codes_of, first_repeated, is_whole
from .messages import option
from .times import read_times

# A site is taken to have ended if its last run of periods without events has a chance below this
# over the number of sites, given the mean of its periods before.
_RARE = 1e-4
_FADING = -np.log(0.01)  # the same for a site that another site may have replaced
_SUM_OF_ENOUGH = 10  # a site that equals the sum of all others is a total if it has so many events
_TOTAL = r"\b(grand |sub)?totals?\b|\ball sites\b|\boverall\b|\b(ins)?gesamt\b"
_YEAR_OF_MONTHS = 12  # periods that the newest is compared with
_DENSE = 0.9  # if this share of sites has a row in every period, a site whose rows end has ended


def site_codes(
    column: pd.Series, name: str, label: str, where: Callable[[int], str], noun: str = "site"
) -> tuple[list[str], np.ndarray]:
    """The ids in order (as numbers if all are digits), and each row's position among them.

    `noun` is the word for a site in messages.

    Raises:
        ValueError: missing or empty ids, ids that are neither text nor whole numbers, or ids that
            differ only in white space or type.
    """
    codes, given = codes_of(column)
    missing = codes < 0
    if missing.any():
        raise ValueError(
            f"{name}: {noun} {label!r} must have no missing values, got one at "
            f"{where(int(np.argmax(missing)))} ({int(missing.sum())} in all)."
        )
    ids = []
    for position, u in enumerate(given):
        if isinstance(u, float | np.floating) and float(u).is_integer():
            u = int(u)
        if not (isinstance(u, str) or is_whole(u)):
            first = where(int(np.argmax(codes == position)))
            raise ValueError(
                f"{name}: {noun} {label!r} must hold strings or whole numbers, got {u!r} at "
                f"{first}."
            )
        ids.append(str(u).strip())
    if "" in ids:
        row = where(int(np.argmax(codes == ids.index(""))))
        raise ValueError(f"{name}: {noun} {label!r} must have no empty ids, got one at {row}.")
    repeated = first_repeated(ids)
    if repeated is not None:
        one, other = [given[i] for i, u in enumerate(ids) if u == repeated][:2]
        row = where(int(np.argmax(codes == given.index(other))))
        raise ValueError(
            f"{name}: {noun} {label!r} must have ids that differ in more than white space or type, "
            f"got {one!r} and {other!r} (the latter at {row}). Make them the same, or different."
        )
    as_numbers = all(i.isascii() and i.isdigit() for i in ids)
    order = sorted(range(len(ids)), key=lambda i: (int(ids[i]), ids[i]) if as_numbers else ids[i])
    rank = np.empty(len(ids), dtype=np.int32)
    rank[order] = np.arange(len(ids))
    return [ids[i] for i in order], rank[codes]


# ---- opening and closing -------------------------------------------------------------------------


def site_moments(
    column: pd.Series,
    site: np.ndarray,
    ids: Sequence[str],
    calendar: Calendar,
    name: str,
    argument: str,
    where: Callable[[int], str],
) -> np.ndarray:
    """When each site opens or closes, float64 [S]; NaN if all its cells are blank.

    Raises:
        ValueError: a cell that is not a time, times of another kind than the table's, or two times
            for one site.
    """
    codes, given = codes_of(column)
    blank = [isinstance(g, str) and not g.strip() for g in given]
    values = np.full(len(given) + 1, np.nan)
    kept = [i for i, b in enumerate(blank) if not b]
    if kept:
        read = read_times(
            [given[i] for i in kept],
            name,
            argument,
            lambda i: " at " + where(int(np.argmax(codes == kept[i]))),
            calendar=calendar,
        )
        if read.dates != calendar.is_dates:
            raise ValueError(
                f"{name}: {argument} must hold {'dates' if calendar.is_dates else 'numbers'} as "
                f"the times do ({calendar.describe()}), got {given[kept[0]]!r}."
            )
        values[kept] = read.values
    per_row = values[codes]
    known = ~np.isnan(per_row)
    found = np.full(len(ids), np.nan)
    found[site[known]] = per_row[known]
    differs = known & (found[site] != per_row)
    if differs.any():
        row = int(np.argmax(differs))
        raise ValueError(
            f"{name}: {argument} must be one time per site, got {given[codes[row]]!r} at "
            f"{where(row)} and another in later rows of site {ids[site[row]]!r}."
        )
    return found


def period_of(times: np.ndarray, calendar: Calendar) -> np.ndarray:
    """The number of the period that each time lies in, float64; NaN stays NaN."""
    if not calendar.is_dates:
        return np.floor((times - calendar.origin) / calendar.step + 1e-6)
    values, place = np.unique(times, return_inverse=True)
    found = [np.nan if np.isnan(v) else float(calendar.index(v)) for v in values.tolist()]
    return np.array(found)[place.reshape(times.shape)]


def open_cells(
    opened: np.ndarray, closed: np.ndarray, times: np.ndarray, calendar: Calendar
) -> np.ndarray | None:
    """Which sites are open in which periods, bool [T, S]; None if all always are. A site is open
    from the period in which it opens to the period in which it closes, both included."""
    if np.isnan(opened).all() and np.isnan(closed).all():
        return None
    at = period_of(times, calendar)[:, None]
    first = np.nan_to_num(period_of(opened, calendar), nan=-np.inf)
    last = np.nan_to_num(period_of(closed, calendar), nan=np.inf)
    return (at >= first) & (at <= last)


# ---- one place twice -----------------------------------------------------------------------------


def plain_id(site: str) -> str:
    """A form that spellings of one id share: without case, accents and leading zeros and, if it has
    letters, without spaces and punctuation except between digits."""
    if not site.isascii():
        site = unicodedata.normalize("NFKD", site).casefold()
        site = "".join(c for c in site if not unicodedata.combining(c))
        site = re.sub(r"[^\w\s]", "-", site)
    return _C.plain_id(site)


def warn_of_similar_ids(ids: Sequence[str], name: str, noun: str = "site") -> None:
    """Warn of ids that differ only in case, accents, spaces or leading zeros, by name."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for site in ids:
        groups[plain_id(site)].append(site)
    similar = [group for group in groups.values() if len(group) > 1]
    if similar:
        shown = "; ".join(" and ".join(repr(s) for s in group) for group in similar[:5])
        warnings.warn(
            f"{name}: {noun}s must differ in more than case, accents, punctuation or leading "
            f"zeros, got {len(similar)} group(s): {shown}. Each is a {noun} of its own here: if "
            "two are one place, give them one id.",
            stacklevel=4,
        )


def warn_of_totals(ids: Sequence[str], y: np.ndarray, name: str) -> None:
    """Warnings that name sites which are the sum of all others, or called a total and the largest
    in every period.

    Args:
        ids: S site ids.
        y: counts [T, S]; NaN where unknown.
    """
    y = np.nan_to_num(y[~np.isnan(y).all(axis=1)]).astype(np.float64)
    others = y.sum(axis=1, keepdims=True) - y
    summed = (y == others).all(axis=0) & (y.sum(axis=0) >= _SUM_OF_ENOUGH)
    named = np.array([re.search(_TOTAL, site, re.IGNORECASE) is not None for site in ids])
    largest = np.array([(y[:, [s]] >= y).all() if named[s] else False for s in range(len(ids))])
    summed &= len(ids) > 2
    by_name = largest & (y.sum(axis=0) > 0) & ~summed
    for found, why in (
        (summed, "with as many events as all other sites together"),
        (by_name, "called a total, with the most events in every period"),
    ):
        if found.any():
            shown = ", ".join(repr(ids[s]) for s in np.flatnonzero(found)[:5])
            warnings.warn(
                f"{name}: sites must be places of one kind, got {shown}, {why}. Such a total is "
                "chosen before all places: drop its rows.",
                stacklevel=4,
            )


def warn_of_incomplete_periods(
    y: np.ndarray, has_row: np.ndarray, labels: Sequence[Any], name: str
) -> None:
    """Warnings that name periods which may not be wholly reported.

    Args:
        y: counts [T, S], the most that they can be; NaN where unknown or not open.
        has_row: bool [T, S]: whether the table has a row.
        labels: the T times, for the message.
    """
    known = ~np.isnan(y).all(axis=1)
    y, has_row = y[known], has_row[known]
    labels = [label for label, k in zip(labels, known, strict=True) if k]
    if len(y) < 4:
        return
    rows = has_row.sum(axis=1)
    usual = np.median(rows)
    few = np.flatnonzero(rows < usual / 2) if usual >= _DENSE * y.shape[1] else np.array([], int)
    if len(few):
        shown = ", ".join(f"{labels[t]!s} ({rows[t]})" for t in few[:5])
        warnings.warn(
            f"{name}: some periods have few rows, where others have {usual:.0f}: {shown}. Sites "
            "without a row count as 0 there: leave out periods that are not wholly reported.",
            stacklevel=4,
        )
    totals = np.nansum(y, axis=1)
    before, last = totals[:-1][-_YEAR_OF_MONTHS:], totals[-1]
    low = before.min()
    if last < low / 2 and low - last > 4 * np.sqrt(low):
        warnings.warn(
            f"{name}: {labels[-1]!s} has {last:.0f} events in all, where the {len(before)} periods "
            f"before have {low:.0f} to {before.max():.0f}. If it is not wholly reported, leave its "
            "rows out.",
            stacklevel=4,
        )


def warn_of_changed_sites(
    ids: Sequence[str],
    y: np.ndarray,
    upper: np.ndarray | None,
    has_row: np.ndarray,
    labels: Sequence[Any],
    name: str,
) -> None:
    """Warn of sites that ended, and of sites with a longer id that began at that time.

    Args:
        ids: S site ids.
        y: counts [T, S], the least that they can be; NaN where unknown or not open.
        upper: the most that they can be [T, S]; None: y.
        has_row: bool [T, S]: whether the table has a row.
        labels: the T times, for the message.
    """
    known = ~np.isnan(y).all(axis=1)
    upper = y if upper is None else upper
    y, upper, has_row = y[known], upper[known], has_row[known]
    labels = [label for label, k in zip(labels, known, strict=True) if k]
    num_times, num_sites = y.shape
    if num_times < 3:
        return
    events = np.nan_to_num(upper) > 0
    active = events.any(axis=0)
    first = np.argmax(events, axis=0)
    last = num_times - 1 - np.argmax(events[::-1], axis=0)
    silent = num_times - 1 - last
    mean = np.nansum(y, axis=0) / (last + 1)
    still_open = ~np.isnan(y[-1])
    # -log of the chance of so many zeros: negative binomial, with one dispersion for the table.
    spread = _dispersion(y)
    evidence = silent * (np.log1p(mean * spread) / spread if spread > 1e-6 else mean)
    rare = evidence > -np.log(_RARE / num_sites)
    # In a table that has rows in every period for nearly every site (see _DENSE).
    always = has_row.all(axis=0)
    ends = has_row.any(axis=0) & ~has_row[-1]
    begun = np.argmax(has_row, axis=0)
    row_last = num_times - 1 - np.argmax(has_row[::-1], axis=0)
    unbroken = has_row.sum(axis=0) == row_last - begun + 1
    rows_end = ends & unbroken & (always.mean() >= _DENSE)
    gone = active & still_open & (rare & (silent > 0) | rows_end)
    if gone.any():
        which = np.flatnonzero(gone)
        at = np.where(rows_end, row_last, last)
        shown = [f"{ids[s]!r} (last in {labels[at[s]]!s})" for s in which[:5]]
        more = f", … ({len(which)} in all)" if len(which) > 5 else ""
        warnings.warn(
            f"{name}: some sites have ended: {', '.join(shown)}{more} have no events or rows "
            "since, after many before. They can still be selected: if they are closed, give a "
            f"column of closing times ({option('closed')}), or drop their rows.",
            stacklevel=4,
        )
    fading = active & (silent > 0) & ((evidence > _FADING) | ends)
    at = {site: i for i, site in enumerate(ids)}
    pairs = []
    for i in np.flatnonzero(active & (first > 0)).tolist():
        site = ids[i]
        for length in range(1, len(site)):
            j = at.get(site[:length])
            if j is None or not fading[j] or not last[j] < first[i] <= last[j] + 2:
                continue
            if site[length].isdigit() and site[length - 1].isdigit():
                continue  # 7 and 75 are different numbers
            pairs.append((ids[j], site, labels[first[i]]))
    if pairs:
        shown = [f"{old!r} ended when {new!r} began ({when!s})" for old, new, when in pairs[:5]]
        warnings.warn(
            f"{name}: one site may stand under two ids: {', '.join(shown)}. If it was renamed, "
            "give all its rows one id; if it was split, give opening and closing times "
            f"({option('opened')}, {option('closed')}).",
            stacklevel=4,
        )


def _dispersion(y: np.ndarray) -> float:
    """φ of Var = μ + φ μ², by moments, from counts [T, S] with one mean per site."""
    mean = np.nanmean(np.where(np.isnan(y).all(axis=0), 0.0, y), axis=0)
    excess = np.nansum((y - mean) ** 2 - mean)
    scale = np.sum((~np.isnan(y)).sum(axis=0) * mean**2)
    return float(max(excess / scale, 0.0)) if scale > 0 else 0.0
