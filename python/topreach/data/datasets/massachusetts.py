"""Opioid-overdose deaths per census tract of Massachusetts, whose counts must be requested."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np

from ..batch import Splits
from ..csv_files import read_csv
from ..panel import Panel

# The 2023 paper's protocol, and the lags W that its scorers read.
TRAIN, VALID, TEST = tuple(range(2013, 2018)), (2018,), (2019, 2020)
WINDOW = 5
THEMES = ("svi_theme1", "svi_theme2", "svi_theme3", "svi_theme4", "svi_total")


def ma_overdose(
    path: str | os.PathLike,
    *,
    train: Iterable[int] = TRAIN,
    valid: Iterable[int] = VALID,
    test: Iterable[int] = TEST,
) -> Splits:
    """Opioid-overdose deaths per census tract of Massachusetts and calendar year; S = 1620.

    Death certificates are released on request by the Massachusetts Registry of Vital Records and
    Statistics; geocode them to tracts of the 2020 census, count them by year, and join the CDC's
    Social Vulnerability Index. Nothing can be downloaded here. `simulate_massachusetts` gives a
    panel of the same form.

    The file: a CSV table with a row for every tract and year, tracts without deaths included, and

    ==========================  ===========================================================
    geoid                       tract, 11 digits beginning with 25
    year                        calendar year, every year from the first to the last
    deaths                      opioid-related overdose deaths of residents, a whole number
    svi_theme1 … svi_theme4,    percentile ranks in [0, 1] of the four themes and of their
    svi_total                   sum (the CDC's file has −999 for missing: fill those in)
    any other numeric column    a further feature, e.g. lat and lon of the centroid
    ==========================  ===========================================================

    Args:
        path: the CSV file.
        train, valid, test: years of the parts, ascending, each whole part before the next. The
            default is the 2023 paper's protocol: 2013–2017, 2018, 2019–2020. The 2025 paper's is
            `train=range(2011, 2019), valid=[2019], test=[2020, 2021]`.

    Returns:
        `Splits(train, valid, test)`; each part has the counts of all earlier years as its history,
        of which at least W = 5 come before the first training year.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a column is missing or out of its range, a tract lacks a year, the years of the
            parts are not in the file or not in order, or fewer than five years come before them.

    Source: Heuton et al. 2023, section 3 (data, protocol); Heuton et al. 2025, section 5.2.

    Example:
        >>> train, valid, test = tr.datasets.ma_overdose("ma_deaths.csv")
        >>> history = train.batch(window=5).history       # counts of 2008–2012 for 2013, and so on
    """
    name = "ma_overdose"
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{name}: path must be an existing CSV file, got {os.fspath(path)!r}. The counts come "
            "on request from the Massachusetts Registry of Vital Records and Statistics; without "
            "them use simulate_massachusetts."
        )
    table = read_csv(path, name, text=("geoid",))
    expected = ("geoid", "year", "deaths", *THEMES)
    absent = [column for column in expected if column not in table]
    if absent:
        raise ValueError(
            f"{name}: path must hold the columns {', '.join(expected)}, got none named "
            f"{', '.join(absent)}; it has {', '.join(map(str, table.columns))}."
        )
    tract = table["geoid"].astype(str).str.strip()
    foreign = tract[~tract.str.fullmatch(r"25\d{9}")]
    if len(foreign):
        raise ValueError(
            f"{name}: geoid must be 11 digits beginning with 25, got {foreign.iloc[0]!r} in line "
            f"{foreign.index[0] + 2}. Read it as text, so that no digit is lost."
        )
    panel = Panel.from_frame(table, site="geoid", time="year", count="deaths", source=name)
    for theme in THEMES:
        values = panel.x[:, :, panel.feature_names.index(theme)]
        wrong = (values < 0) | (values > 1)
        if wrong.any():
            t, s = (int(i) for i in wrong.nonzero()[0])
            raise ValueError(
                f"{name}: {theme} must be in [0, 1], got {values[t, s].item():g} for tract "
                f"{panel.site_ids[s]} in {panel.times[t]}. Fill in what the CDC gives as -999."
            )
    return split_years(panel, name, train, valid, test)


def split_years(
    panel: Panel, name: str, train: Iterable[int], valid: Iterable[int], test: Iterable[int]
) -> Splits:
    """The three parts of a panel of consecutive years, checked."""
    years = np.array(panel.times)
    if (np.diff(years) != 1).any():
        raise ValueError(f"{name}: year must run without gaps, got {panel.times}.")
    parts = {key: list(part) for key, part in (("train", train), ("valid", valid), ("test", test))}
    wanted = [year for part in parts.values() for year in part]
    for key, part in parts.items():
        if not part or not set(part) <= set(panel.times):
            raise ValueError(
                f"{name}: {key} must be years from {panel.times[0]} to {panel.times[-1]}, got "
                f"{part}."
            )
    if (np.diff(wanted) <= 0).any():
        raise ValueError(
            f"{name}: train, valid and test must be ascending years, each part after the one "
            f"before, got {parts['train']}, {parts['valid']}, {parts['test']}."
        )
    if panel.times.index(wanted[0]) < WINDOW:
        raise ValueError(
            f"{name}: train must begin at least {WINDOW} years after the first year, "
            f"{panel.times[0]}, got {wanted[0]}."
        )
    return Splits(*(panel.select_times(part) for part in parts.values()))
