"""The two open data sets of Heuton et al. 2025, "Decision-aware training of … models"."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from ..batch import Splits
from ..columns import drop_repeated_columns
from ..csv_files import read_csv
from ..panel import Panel
from .download import RemoteFile, find_folder

HOME = (
    "https://raw.githubusercontent.com/tufts-ml/decision-aware-topk/"
    "91b7829196fdc54268898baf8b5f6dd2d54f1550/data"
)
COOK_COUNTY = {
    "train_x.csv": RemoteFile(
        557263, "4cc68283ce261f84f44b7c5789a24a1201466c9433a1b5785b8e1e2907a72ec0"
    ),
    "train_y.csv": RemoteFile(
        85021, "de55aa5c1fbab335a8609a3c15bf5ad9787fd58f92fc305cb3e7a8c659621e2d"
    ),
    "valid_x.csv": RemoteFile(
        125921, "ffba4ff441a8198c91a03c93c6c8e4acdcdfcd28d1fb58c00d0f6922a579145e"
    ),
    "valid_y.csv": RemoteFile(
        21277, "ac554ee5782646cf6c5690b60f01ca00ff857ecf3c2c1e44ca4e3998d0604d51"
    ),
    "test_x.csv": RemoteFile(
        251816, "f34c4ad1121fabcefc4ab5967959a0a76d2b2d17a43c0332839a3539224e8e23"
    ),
    "test_y.csv": RemoteFile(
        42548, "d6bb1d5162182dde107b46f94ab1e77899f48c805062d509031f43a9918df4b5"
    ),
}
AERIAL_SURVEYS = {
    "train_x.csv": RemoteFile(
        1437535, "a6f43236f9fe5a461489844ffe7767c8cd439de506c086674d07e1f2bf72b4dc"
    ),
    "train_y.csv": RemoteFile(
        244343, "a337998b07cf10372b2356cce8c329b9294e28412e5aa03f0736b7325e6a5e39"
    ),
    "valid_x.csv": RemoteFile(
        575035, "a2b71615840faddcfa5b5660da11487f9119706e5d2672eb74918e12b65df6a2"
    ),
    "valid_y.csv": RemoteFile(
        97738, "5387b04e27e4ef714d9b7b02e087ffbab0146c3e8cf16b93b5a2da0f39e23ad3"
    ),
    "test_x.csv": RemoteFile(
        574991, "c68741eaf18b05ff536c6c034ff7e21419e4f6df14983e0c804d82a49aec40d5"
    ),
    "test_y.csv": RemoteFile(
        97732, "27aee5ef96851f352361026c680733bd11ddff1f76b9b92c333055116401cf47"
    ),
}


def cook_county(root: str | os.PathLike | None = None) -> Splits:
    """Opioid-overdose deaths per census tract of Cook County, Illinois, and year; S = 1328.

    Periods are the data's own numbers: train 2–5 (2016–2019), validation 6 (2020), test 7 and 8
    (2021, 2022). The 13 features are all columns but the tract (`geoid`), the count and `timestep`
    (which occurs twice in the header). `timestep` is the panel's time coordinate: standardise it
    with the training times if a model takes it. `prev_deaths_05back` is 0 throughout training, so a
    `Standardizer` drops it. The history holds period 1 (2015), read from the lags.

    Args:
        root: folder with the six CSV files, or one that holds them in `cook_county/`. Without it:
            `$TOPREACH_DATA`, the user's cache, or a download (1.1 MB) from the public home,
            github.com/tufts-ml/decision-aware-topk.

    Returns:
        `Splits(train, valid, test)`, parts of one panel: each has the counts of all earlier periods
        as its history.
    """
    folder = find_folder("cook_county", "cook_county", COOK_COUNTY, HOME, root)
    # The data begin in 2015, period 1. Before that, the longer lags hold filler values.
    panel = _read(folder, "cook_county", count="deaths", lags=["prev_deaths_01back"])
    return panel.split(valid=6, test=[7, 8])


def aerial_surveys(root: str | os.PathLike | None = None) -> Splits:
    """Whooping cranes seen from the air per 500 m box and two months at Aransas, Texas; S = 1338.

    Periods: train 161–175, validation 176–181, test 182–187. The features are all columns but the
    box (`geoid`), the count and `timestep`. The history holds periods 156–160, read from the lags.

    Args:
        root: folder with the six CSV files, or one that holds them in `aerial_surv/`. Without it:
            `$TOPREACH_DATA`, the user's cache, or a download (3.0 MB) from the public home,
            github.com/tufts-ml/decision-aware-topk.

    Returns:
        `Splits(train, valid, test)`, parts of one panel: each has the counts of all earlier periods
        as its history.
    """
    folder = find_folder("aerial_surveys", "aerial_surv", AERIAL_SURVEYS, HOME, root)
    lags = [f"prev_counts_0{back}back" for back in (5, 4, 3, 2, 1)]
    panel = _read(folder, "aerial_surveys", count="counts", lags=lags)
    return panel.split(valid=list(range(176, 182)), test=list(range(182, 188)))


def _read(folder: Path, source: str, *, count: str, lags: list[str]) -> Panel:
    keys = ["geoid", "timestep"]
    parts = []
    for part in ("train", "valid", "test"):
        x = read_csv(folder / f"{part}_x.csv", source, text=("geoid",))
        y = read_csv(folder / f"{part}_y.csv", source, text=("geoid",))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            x = drop_repeated_columns(x, source, "row {}".format)
        rows = x.merge(y, on=keys, how="outer", validate="one_to_one", indicator=True)
        unmatched = rows[rows["_merge"] != "both"]
        if len(unmatched):
            site, time = (unmatched[key].iloc[0] for key in keys)
            raise ValueError(
                f"{source}: {part}_x.csv and {part}_y.csv must have the same rows, got "
                f"{len(unmatched)} in one only, "
                f"the first for site {site!r} at time {time}. Get the files again."
            )
        parts.append(rows.drop(columns="_merge"))
    df = pd.concat(parts, ignore_index=True)
    with warnings.catch_warnings():  # e.g. of boxes without recent birds
        warnings.simplefilter("ignore", UserWarning)
        panel = Panel.from_frame(df, site="geoid", time="timestep", count=count)
    first = panel.x[0, :, [panel.feature_names.index(lag) for lag in lags]]
    history = np.ascontiguousarray(first.T.numpy())
    return Panel(
        panel.x,
        panel.y,
        panel.site_ids,
        panel.times,
        panel.feature_names,
        history_y=history,
        # As in the files' own lag columns, counts before the first known period are zero.
        absent_lags="zero",
        source=source,
    )
