"""Public tables of single events, or of sparse counts, counted over sites and periods."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from ..columns import check_one_of
from ..csv_files import read_csv
from ..panel import Panel
from .download import cache_folder

# Periods whose records were complete when the tables were drawn.
CONNECTICUT_YEARS = (2012, 2024)
COOK_QUARTERS = ("2014-10-01", "2023-04-01")  # from, up to
CHICAGO_MONTHS = ("2010-01", "2019-12")
_KM_PER_DEGREE = 111.195


def ct_overdose(
    every: str = "year", *, opioid: bool = False, root: str | os.PathLike | None = None
) -> Panel:
    """Accidental drug deaths by town of Connecticut and year or quarter, 2012–2024; S = 169.

    From the Office of the Chief Medical Examiner (data.ct.gov, rybz-nyjw). In 2015 and 2017 the
    date is the one on which the death was reported, so quarters of these years are a little late.
    Towns are those of the death. Features: lat and lon of the town's centre, and log_population,
    the logarithm of its population in the 2019–2023 survey.

    Args:
        every: "year" or "quarter".
        opioid: whether to count only deaths with an opioid (the column `opioid`; `any_opioid_raw`
            is blank for several years).
        root: folder that holds ct_overdose_events/ct_events.csv and geo/ct_towns.csv; without it
            `$TOPREACH_DATA`, then the user's cache.

    Raises:
        FileNotFoundError: the files are not there. ValueError: an unknown `every`; a town that is
            not in the list of towns.

    Example:
        >>> tr.datasets.ct_overdose("quarter").split(test=["2024-01-01", "2024-04-01"])
    """
    name = "ct_overdose"
    check_one_of(name, "every", every, ("year", "quarter"))
    folder = _find(
        name,
        ("ct_overdose_events/ct_events.csv", "geo/ct_towns.csv"),
        root,
        "data.ct.gov, rybz-nyjw",
    )
    events = read_csv(folder / "ct_overdose_events/ct_events.csv", name, text=("date", "town"))
    towns = read_csv(folder / "geo/ct_towns.csv", name, text=("town", "geoid"))
    # A few deaths have no town.
    events = events[events["town"].fillna("").str.strip() != ""]
    unknown = sorted(set(events["town"]) - set(towns["town"]))
    if unknown:
        raise ValueError(f"{name}: towns must all be in ct_towns.csv, got {unknown[:5]}.")
    if opioid:
        events = events[events["opioid"] == 1]
    date = pd.to_datetime(events["date"])
    first, last = CONNECTICUT_YEARS
    step = "YS" if every == "year" else "QS"
    starts = pd.date_range(f"{first}-01-01", f"{last}-12-31", freq=step)
    period = starts.searchsorted(date, side="right") - 1
    at = pd.Series(range(len(towns)), index=towns["town"])
    y = _counts(period, at[events["town"]].to_numpy(), len(starts), len(towns))
    x = towns[["lat", "lon"]].to_numpy(float)
    population = np.log(towns["population_acs2023"].to_numpy(float))
    times = [t.year if every == "year" else t.date().isoformat() for t in starts]
    return _panel(
        np.column_stack([x, population]),
        y,
        towns["town"],
        times,
        ["lat", "lon", "log_population"],
        name,
    )


def cook_overdose_events(cell_km: float = 1.0, *, root: str | os.PathLike | None = None) -> Panel:
    """Opioid-overdose deaths by grid cell of Cook County and quarter, 2014 Q4 – 2023 Q1.

    One row per death in the Medical Examiner's archive; cells of a square grid, cut along parallels
    and meridians, so that no tract is needed. The sites are the cells with a death in any period: a
    cell that never had one is in no one's ranking. Deaths without coordinates are left out, and so
    are the quarter under way in August 2014 and those from April 2023 (June and July are not
    complete). Features: lat and lon of the cell's centre.

    Args:
        cell_km: side of a cell in kilometres.
        root: folder that holds cook_overdose_events/cook_events.csv; without it `$TOPREACH_DATA`,
            then the user's cache.

    Raises:
        FileNotFoundError: the file is not there. ValueError: cell_km is not above 0.
    """
    name = "cook_overdose_events"
    if not 0 < cell_km < np.inf:
        raise ValueError(f"{name}: cell_km must be a finite number > 0, got {cell_km!r}.")
    folder = _find(
        name,
        ("cook_overdose_events/cook_events.csv",),
        root,
        "github.com/tufts-ml/opioid-overdose-models",
    )
    events = read_csv(folder / "cook_overdose_events/cook_events.csv", name, text=("date",))
    date = pd.to_datetime(events["date"])
    start, end = (pd.Timestamp(day) for day in COOK_QUARTERS)
    used = (date >= start) & (date < end) & events["lat"].notna() & events["lon"].notna()
    starts = pd.date_range(start, end, freq="QS", inclusive="left")
    period = starts.searchsorted(date[used], side="right") - 1
    lat, lon = events.loc[used, "lat"].to_numpy(), events.loc[used, "lon"].to_numpy()
    height = cell_km / _KM_PER_DEGREE
    width = height / np.cos(np.deg2rad(41.8))
    cell = np.floor(np.column_stack([lat / height, lon / width])).astype(int)
    cells, site = np.unique(cell, axis=0, return_inverse=True)
    y = _counts(period, site.ravel(), len(starts), len(cells))
    ids = [f"{a}_{b}" for a, b in cells]
    times = [t.date().isoformat() for t in starts]
    return _panel((cells + 0.5) * [height, width], y, ids, times, ["lat", "lon"], name)


def chicago_assault(*, root: str | os.PathLike | None = None) -> Panel:
    """Aggravated assaults by 150 m cell of Chicago and month, 2010–2019; S = 26,637, T = 120.

    From the Crime Open Database (github.com/mpjashby/crimemappingdata), by the City of Chicago.
    Features: lat and lon of the cell's centre.

    Args:
        root: folder that holds chicago_assault/cells_150m.csv and counts_monthly_150m.csv; without
            it `$TOPREACH_DATA`, then the user's cache.

    Raises:
        FileNotFoundError: the files are not there. ValueError: counts of a cell or month that is
            not.
    """
    name = "chicago_assault"
    files = ("chicago_assault/cells_150m.csv", "chicago_assault/counts_monthly_150m.csv")
    folder = _find(name, files, root, "github.com/mpjashby/crimemappingdata")
    cells = read_csv(folder / files[0], name, text=("cell",))
    counts = read_csv(folder / files[1], name, text=("cell",))
    times = [str(month) for month in pd.period_range(*CHICAGO_MONTHS, freq="M")]
    at = pd.Series(range(len(cells)), index=cells["cell"])
    month = counts["month0"].to_numpy()
    if not counts["cell"].isin(at.index).all() or not ((month >= 0) & (month < len(times))).all():
        raise ValueError(
            f"{name}: counts must be of cells in cells_150m.csv and of months 0 to "
            f"{len(times) - 1}, got others."
        )
    y = _counts(
        month, at[counts["cell"]].to_numpy(), len(times), len(cells), counts["count"].to_numpy()
    )
    return _panel(
        cells[["lat", "lon"]].to_numpy(float), y, cells["cell"], times, ["lat", "lon"], name
    )


def _find(name: str, files: tuple[str, ...], root: str | os.PathLike | None, home: str) -> Path:
    """The folder that holds all `files`, which are cut down from their public home, so not
    downloaded."""
    places = [root] if root is not None else [os.environ.get("TOPREACH_DATA"), cache_folder()]
    for place in places:
        if place and all((Path(place).expanduser() / file).is_file() for file in files):
            return Path(place).expanduser()
    raise FileNotFoundError(
        f"{name}: root must be a folder with {' and '.join(files)}, got "
        f"{'none' if root is None else repr(os.fspath(root))}. Set TOPREACH_DATA to it; the "
        f"records come from {home}."
    )


def _counts(
    period: np.ndarray, site: np.ndarray, periods: int, sites: int, number: np.ndarray | int = 1
) -> np.ndarray:
    y = np.zeros((periods, sites))
    np.add.at(y, (np.asarray(period), site), number)
    return y


def _panel(x, y, ids, times, names, source) -> Panel:
    wide = np.broadcast_to(np.asarray(x, float), (len(y), *np.shape(x))).copy()
    return Panel(wide, y, [str(i) for i in ids], times, names, source=source)
