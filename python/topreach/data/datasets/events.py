"""Public tables of single events, or of sparse counts, counted over sites and periods."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from topreach._C import Calendar

from ..columns import check_one_of
from ..csv_files import read_csv
from ..events import Events
from ..panel import Panel
from .download import cache_folder

# Periods whose records were complete when the tables were downloaded.
COOK_QUARTERS = ("2014-10-01", "2023-04-01")  # from, up to
CHICAGO_MONTHS = ("2010-01", "2019-12")
_CONNECTICUT = ("2012-01-01", "2024-12-31")
_COOK_WINDOW = (COOK_QUARTERS[0], "2023-03-31")  # to the last day
_KM_PER_DEGREE = 111.195
# By the third to fifth digits of a town's number.
_COUNTIES = {
    "001": "Fairfield",
    "003": "Hartford",
    "005": "Litchfield",
    "007": "Middlesex",
    "009": "New Haven",
    "011": "New London",
    "013": "Tolland",
    "015": "Windham",
}


def ct_overdose(
    every: str = "year", *, opioid: bool = False, root: str | os.PathLike | None = None
) -> Panel:
    """Accidental drug deaths by town of Connecticut and year or quarter, 2012–2024; S = 169.

    Counts of `ct_overdose_deaths`. In 2015 and 2017 the date is the one on which the death was
    reported, so quarters of these years are a little late. Features: lat and lon of the town's
    centre, and log_population, the logarithm of its population in the 2019–2023 survey.

    Args:
        every: "year" or "quarter".
        opioid: whether to count only deaths with an opioid.
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
    rows, towns = _connecticut(name, root)
    if opioid:
        rows = rows[rows["opioid"] == 1]
    events = Events.from_frame(
        rows, time="date", place="town", places=towns, window=_CONNECTICUT, source=name
    )
    return _relabelled(events.counts(every), every)


def ct_overdose_deaths(
    place: str = "county",
    *,
    opioid: bool = False,
    marks: Sequence[str] = (),
    root: str | os.PathLike | None = None,
) -> Events:
    """Accidental drug deaths of Connecticut, 2012–2024, as dated events; 12,931 with a town.

    From the Office of the Chief Medical Examiner (data.ct.gov, rybz-nyjw). Dates are days; in 2015
    and 2017 they are the days on which deaths were reported. Places are those of the death; a few
    deaths have none and are left out. Types, of which a death may have several: heroin, fentanyl
    (or an analogue), oxycodone, methadone, other opioid (none of these), no opioid. Places have
    lat, lon and log_population: of the town, or the county's (the centre is the mean of its towns',
    by population).

    Args:
        place: "county" (the 8 counties used until 2022) or "town" (169).
        opioid: whether to have only deaths with an opioid (the column `opioid`; `any_opioid_raw`
            is blank for several years).
        marks: columns of the file, such as "sex" or "race". A blank text becomes "unknown", a blank
            age the median.
        root: as for `ct_overdose`.

    Raises:
        FileNotFoundError: the files are not there. ValueError: an unknown `place`; a town that is
            not in the list of towns.

    Example:
        >>> tr.datasets.ct_overdose_deaths().counts("month", by="type")
    """
    name = "ct_overdose_deaths"
    check_one_of(name, "place", place, ("county", "town"))
    rows, towns = _connecticut(name, root)
    if place == "county":
        towns["county"] = [_COUNTIES[geoid[2:5]] for geoid in towns["geoid"]]
        rows = rows.assign(county=rows["town"].map(towns.set_index("town")["county"]))
        towns = _county_centres(towns)
    any_opioid = rows["opioid"] == 1
    named = (rows[["heroin", "fentanyl", "fent_analog", "oxycodone", "methadone"]] == 1).any(axis=1)
    rows["other opioid"] = (any_opioid & ~named).astype(int)
    types = {
        "heroin": ["heroin"],
        "fentanyl": ["fentanyl", "fent_analog"],
        "oxycodone": ["oxycodone"],
        "methadone": ["methadone"],
        "other opioid": ["other opioid"],
    }
    return Events.from_frame(
        _filled(rows[any_opioid] if opioid else rows, marks),
        time="date",
        place=place,
        types=types,
        other=None if opioid else "no opioid",
        marks=marks,
        places=towns,
        window=_CONNECTICUT,
        source=name,
    )


def cook_overdose_events(cell_km: float = 1.0, *, root: str | os.PathLike | None = None) -> Panel:
    """Opioid-overdose deaths by grid cell of Cook County and quarter, 2014 Q4 – 2023 Q1.

    Counts of `cook_overdose_deaths("cell")`, without the quarter under way in August 2014. The
    sites are the cells with a death in any period; other cells are left out. Features:
    lat and lon of the cell's centre.

    Args:
        cell_km: side of a cell in kilometres.
        root: folder that holds cook_overdose_events/cook_events.csv; without it `$TOPREACH_DATA`,
            then the user's cache.

    Raises:
        FileNotFoundError: the file is not there. ValueError: cell_km is not above 0.
    """
    name = "cook_overdose_events"
    rows, cells = _cook_cells(_cook(name, root), cell_km, name, from_day=COOK_QUARTERS[0])
    events = Events.from_frame(
        rows, time="date", place="cell", places=cells, window=_COOK_WINDOW, source=name
    )
    return _relabelled(events.counts("quarter"), "quarter")


def cook_overdose_deaths(
    place: str = "area",
    *,
    cell_km: float = 1.0,
    marks: Sequence[str] = (),
    root: str | os.PathLike | None = None,
) -> Events:
    """Opioid-overdose deaths of Cook County, August 2014 – July 2023, as dated events.

    From the Medical Examiner's archive (github.com/tufts-ml/opioid-overdose-models). Records are
    complete through March 2023. The times of day in the file are those at which deaths were found,
    so dates are taken as days. Types, of which a death may have several: fentanyl, heroin,
    methadone, other (none of these). Deaths without a place are left out.

    Args:
        place: "area" (Chicago's community areas, and elsewhere the county's districts, "district
            9") or "cell" (a square grid, cut along parallels and meridians).
        cell_km: side of a cell in kilometres.
        marks: columns of the file, as for `ct_overdose_deaths`.
        root: as for `cook_overdose_events`.

    Raises:
        FileNotFoundError: the file is not there. ValueError: an unknown `place`; cell_km is not
            above 0.
    """
    name = "cook_overdose_deaths"
    check_one_of(name, "place", place, ("area", "cell"))
    rows = _cook(name, root)
    if place == "cell":
        rows, places = _cook_cells(rows, cell_km, name)
    else:
        district = "district " + pd.to_numeric(rows["district"]).astype("Int64").astype(str)
        area = rows["chicago_community_area"]
        rows = rows.assign(area=area.where(area.notna(), district.where(rows["district"].notna())))
        rows = rows[rows["area"].notna()]
        centres = rows.groupby("area", sort=True)[["lat", "lon"]].mean()
        places = centres.rename_axis("area").reset_index()
    return Events.from_frame(
        _filled(rows, marks),
        time="date",
        place=place,
        types=["fentanyl", "heroin", "methadone"],
        other="other",
        marks=marks,
        places=places,
        window=(rows["date"].min(), rows["date"].max()),
        complete_through=min(_COOK_WINDOW[1], rows["date"].max()),
        source=name,
    )


def _connecticut(name: str, root: str | os.PathLike | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Deaths with a town, and the towns."""
    files = ("ct_overdose_events/ct_events.csv", "geo/ct_towns.csv")
    folder = _find(name, files, root, "data.ct.gov, rybz-nyjw")
    rows = read_csv(folder / files[0], name, text=("date", "town"))
    towns = read_csv(folder / files[1], name, text=("town", "geoid"))
    rows = rows[rows["town"].fillna("").str.strip() != ""].copy()
    unknown = sorted(set(rows["town"]) - set(towns["town"]))
    if unknown:
        raise ValueError(f"{name}: towns must all be in ct_towns.csv, got {unknown[:5]}.")
    towns["log_population"] = np.log(towns["population_acs2023"].to_numpy(float))
    return rows, towns[["town", "geoid", "lat", "lon", "log_population"]].copy()


def _county_centres(towns: pd.DataFrame) -> pd.DataFrame:
    people = np.exp(towns["log_population"])
    by_county = towns.assign(
        people=people, lat=towns["lat"] * people, lon=towns["lon"] * people
    ).groupby("county", sort=True)[["people", "lat", "lon"]]
    total = by_county.sum()
    return pd.DataFrame(
        {
            "county": total.index,
            "lat": (total["lat"] / total["people"]).to_numpy(),
            "lon": (total["lon"] / total["people"]).to_numpy(),
            "log_population": np.log(total["people"].to_numpy()),
        }
    )


def _cook(name: str, root: str | os.PathLike | None) -> pd.DataFrame:
    file = "cook_overdose_events/cook_events.csv"
    folder = _find(name, (file,), root, "github.com/tufts-ml/opioid-overdose-models")
    return read_csv(folder / file, name, text=("date", "chicago_community_area"))


def _cook_cells(
    rows: pd.DataFrame, cell_km: float, name: str, *, from_day: str | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Deaths with coordinates and their cells; with `from_day` only those in COOK_QUARTERS."""
    if not 0 < cell_km < np.inf:
        raise ValueError(f"{name}: cell_km must be a finite number > 0, got {cell_km!r}.")
    used = rows["lat"].notna() & rows["lon"].notna()
    if from_day is not None:
        used &= (rows["date"] >= from_day) & (rows["date"] < COOK_QUARTERS[1])
    rows = rows[used]
    height = cell_km / _KM_PER_DEGREE
    width = height / np.cos(np.deg2rad(41.8))
    at = np.floor(np.column_stack([rows["lat"] / height, rows["lon"] / width])).astype(int)
    cells, cell = np.unique(at, axis=0, return_inverse=True)
    ids = np.array([f"{a}_{b}" for a, b in cells], dtype=object)
    centres = (cells + 0.5) * [height, width]
    places = pd.DataFrame({"cell": ids, "lat": centres[:, 0], "lon": centres[:, 1]})
    return rows.assign(cell=ids[cell.ravel()]), places


def _filled(rows: pd.DataFrame, marks: Sequence[str]) -> pd.DataFrame:
    """Mark columns without blanks."""
    filled = {}
    for column in marks:
        values = rows[column]
        is_number = pd.api.types.is_numeric_dtype(values)
        filled[column] = values.fillna(values.median() if is_number else "unknown")
    return rows.assign(**filled)


def _relabelled(panel: Panel, every: str) -> Panel:
    """Years as numbers, quarters by their first day."""
    first = Calendar("day", 1, 0)
    times = [
        int(t) if every == "year" else first.label(panel.time_values[i].item())
        for i, t in enumerate(panel.times)
    ]
    return Panel(panel.x, panel.y, panel.site_ids, times, panel.feature_names, source=panel.source)


def chicago_assault(*, root: str | os.PathLike | None = None) -> Panel:
    """Aggravated assaults by 150 m cell of Chicago and month, 2010–2019; S = 26,637, T = 120.

    From the Crime Open Database (github.com/mpjashby/crimemappingdata), by the City of Chicago.
    Features: lat and lon of the cell's centre.

    Args:
        root: folder that holds chicago_assault/cells_150m.csv and counts_monthly_150m.csv; without
            it `$TOPREACH_DATA`, then the user's cache.

    Raises:
        FileNotFoundError: the files are not there. ValueError: counts of an unknown cell or
            month.
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
    """The folder that holds all `files`. They are extracts of public tables, so they cannot be
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
