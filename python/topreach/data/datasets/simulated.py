"""A simulated county with the summary figures of Cook County, for machines without data, and a
simulated Massachusetts, whose real counts must be requested.

Generative model, for sites s at places p_s and years t (the county: 1..8, 1 is history only):

    g_s = √(1−ω) f(p_s) + √ω e_s                         f: smooth Gaussian field; e: white noise
    log λ_s = σ Φ⁻¹((rank of g_s − ½) / S)               lognormal rates, the same set for any seed
    log λ_st = log λ_s + w_st,  w_st = w_s,t−1 + σ_w N   rates persist, and drift slowly
    y_st ~ NegBin(mean m_t λ_st / mean_s λ_st, shape r)  gamma–Poisson

m_t are the real set's mean counts per tract and year. σ, ω, σ_w and r are set so that summary
figures come near the real set's. For the county these are the variance, the share of zeros, the
correlation between years and the naive baselines' BPR. For Massachusetts they are the BPR of chance
and of the mean of seven years (2023 paper, Table 1: .243 and .587). tests/python/test_datasets.py
checks them.

The four vulnerability themes are percentile ranks of mixtures of log λ_s with other smooth fields.
Lags and the neighbours' mean are computed from the simulated counts.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from ..batch import Splits
from ..csv_files import read_csv
from ..panel import Panel
from .massachusetts import TEST, THEMES, TRAIN, VALID, split_years

NUM_SITES = 1328
TIMES = tuple(range(1, 9))
FEATURE_NAMES = (
    "deaths_sp_lag",
    "INTPTLAT",
    "INTPTLON",
    "svi_theme1",
    "svi_theme2",
    "svi_theme3",
    "svi_theme4",
    "svi_total_",
    "prev_deaths_05back",
    "prev_deaths_04back",
    "prev_deaths_03back",
    "prev_deaths_02back",
    "prev_deaths_01back",
)
# Mean deaths per tract in Cook County, 2015 to 2022.
_YEAR_MEAN = (0.464, 0.773, 0.835, 0.809, 0.910, 1.269, 1.348, 1.391)
_RATE_SD, _WHITE, _DRIFT_SD, _SHAPE = 0.96, 0.25, 0.08, 40.0
_LENGTH = 0.055  # degrees of latitude
_NUM_NEIGHBOURS = 6
# Weight of log λ_s in each theme, and of a field that all themes share.
_THEME_RATE = (0.45, 0.35, 0.35, 0.30)
_THEME_SHARED = (0.75, 0.45, 0.55, 0.15)
# The themes are measured again for 2017 and 2019, as in the real set.
_THEME_UPDATES = (3, 5)

MA_NUM_SITES = 1620
MA_YEARS = tuple(range(2001, 2022))
# Opioid-related overdose deaths of residents, all intents, 2001 to 2021, in tens: data briefs of
# the Massachusetts Department of Public Health.
_MA_DEATHS = (
    *(51, 53, 61, 51, 58, 66, 64, 62, 64, 56),
    *(66, 74, 96, 136, 171, 210, 205, 203, 202, 211, 230),
)
_MA_RATE_SD, _MA_WHITE, _MA_DRIFT_SD, _MA_SHAPE = 0.54, 0.35, 0.05, 7.0


def simulate_county(seed: int = 0) -> Splits:
    """A simulated panel with the size, periods, feature names and summary figures of `cook_county`.

    The numbers are not real, which a warning and `panel.source == "simulated"` say; site ids begin
    with 99999, which no real census tract does. See the module for the model. The same seed gives
    the same panel.

    Returns:
        `Splits(train, valid, test)`: periods 2–5, 6, and 7–8, with period 1 as history.
    """
    generator = _generator("simulate_county", seed)
    place = _places(generator)
    rate, counts = _counts(
        generator,
        place,
        _YEAR_MEAN,
        rate_sd=_RATE_SD,
        white=_WHITE,
        drift_sd=_DRIFT_SD,
        shape=_SHAPE,
    )
    raw_themes = _raw_themes(generator, place, rate)
    neighbours = _nearest(place)
    columns = []
    for i, time in enumerate(TIMES[1:], start=1):
        if i == 1 or time in _THEME_UPDATES:
            raw_themes = raw_themes + 0.15 * generator.standard_normal(raw_themes.shape)
            themes = _themes(raw_themes)
        none = np.zeros(NUM_SITES)
        lags = [counts[i - back] if i - back >= 0 else none for back in (5, 4, 3, 2, 1)]
        around = counts[i - 1][neighbours].mean(axis=1)
        columns.append(np.column_stack([around, place, themes, *lags]))
    panel = Panel(
        np.stack(columns),
        counts[1:],
        [f"99999{100 * (s + 1):06d}" for s in range(NUM_SITES)],
        TIMES[1:],
        FEATURE_NAMES,
        history_y=counts[:1],
        absent_lags="zero",  # as in `cook_county`
        source="simulated",
    )
    return panel.split(valid=6, test=[7, 8])


def simulate_massachusetts(
    seed: int = 0,
    *,
    centroids: str | os.PathLike | None = None,
    train: Iterable[int] = TRAIN,
    valid: Iterable[int] = VALID,
    test: Iterable[int] = TEST,
) -> Splits:
    """A simulated panel of the form of `ma_overdose`: S = 1620 tracts, years 2001 to 2021.

    The numbers are not real, which a warning and `panel.source == "simulated"` say; the statewide
    totals are about the real ones. Site ids begin with 99999, which no real census tract does. The
    vulnerability themes are the same in all years. See the module for the model. The same seed and
    places give the same panel.

    Args:
        seed: of the simulation.
        centroids: CSV file with the columns lat and lon of 1620 tracts, degrees; None simulates
            places too.
        train, valid, test: years, as for `ma_overdose`.

    Returns:
        `Splits(train, valid, test)`; each part has the counts of all earlier years as history.

    Raises:
        ValueError: a seed that is not a whole number >= 0; a file of centroids without 1620 rows of
            finite lat and lon; years that are not in 2001 to 2021 or not in order.

    Example:
        >>> train, valid, test = simulate_massachusetts(seed=1)
        >>> train.batch(window=5).history.shape
        torch.Size([5, 1620, 5])
    """
    generator = _generator("simulate_massachusetts", seed)
    simulated = _ma_places(generator)
    place = simulated if centroids is None else _read_places(Path(centroids))
    mean = [10 * tens / MA_NUM_SITES for tens in _MA_DEATHS]
    rate, counts = _counts(
        generator,
        place,
        mean,
        rate_sd=_MA_RATE_SD,
        white=_MA_WHITE,
        drift_sd=_MA_DRIFT_SD,
        shape=_MA_SHAPE,
    )
    features = np.column_stack([_themes(_raw_themes(generator, place, rate)), place])
    panel = Panel(
        np.repeat(features[None], len(MA_YEARS), axis=0),
        counts,
        [f"99999{100 * (s + 1):06d}" for s in range(MA_NUM_SITES)],
        MA_YEARS,
        [*THEMES, "lat", "lon"],
        source="simulated",
    )
    return split_years(panel, "simulate_massachusetts", train, valid, test)


def _generator(name: str, seed: int) -> np.random.Generator:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"{name}: seed must be a whole number >= 0, got {seed!r}.")
    warnings.warn(
        f"{name}: these numbers are SIMULATED. They stand for no real place, person or year.",
        UserWarning,
        stacklevel=3,
    )
    return np.random.default_rng(seed)


def _counts(
    generator: np.random.Generator,
    place: np.ndarray,
    year_mean: Iterable[float],
    *,
    rate_sd: float,
    white: float,
    drift_sd: float,
    shape: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The sites' standardised log rates [S] and the counts [T, S] of the module's model."""
    year_mean = np.array(list(year_mean))[:, None]
    noise = generator.standard_normal(len(place))
    mixed = np.sqrt(1 - white) * _field(generator, place) + np.sqrt(white) * noise
    rate = _normal_scores(mixed)
    steps = drift_sd * generator.standard_normal((len(year_mean), len(place)))
    steps[0] = 0
    intensity = np.exp(rate_sd * rate + np.cumsum(steps, axis=0))
    mean = year_mean * intensity / intensity.mean(axis=1, keepdims=True)
    gamma = generator.gamma(shape, 1 / shape, mean.shape)
    return rate, generator.poisson(mean * gamma).astype(float)


def _raw_themes(generator: np.random.Generator, place: np.ndarray, rate: np.ndarray) -> np.ndarray:
    shared = _field(generator, place)
    return np.stack(
        [
            a * rate + b * shared + np.sqrt(1 - a**2 - b**2) * _field(generator, place, 0.5)
            for a, b in zip(_THEME_RATE, _THEME_SHARED, strict=True)
        ],
        axis=1,
    )


def _themes(raw: np.ndarray) -> np.ndarray:
    """The four themes and their total, percentile ranks [S, 5]."""
    themes = _percentile(raw)
    return np.column_stack([themes, _percentile(themes.sum(axis=1, keepdims=True))])


def _ma_places(generator: np.random.Generator) -> np.ndarray:
    """Latitude and longitude [S, 2]: half around Boston, half over the state."""
    near = generator.normal([42.33, -71.10], [0.12, 0.14], (MA_NUM_SITES, 2))
    far = generator.uniform([41.60, -73.30], [42.80, -70.60], (MA_NUM_SITES, 2))
    return np.where(generator.random((MA_NUM_SITES, 1)) < 0.5, near, far)


def _read_places(path: Path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(
            f"simulate_massachusetts: centroids must be an existing CSV file, got {str(path)!r}."
        )
    table = read_csv(path, "simulate_massachusetts", text=("geoid",))
    absent = [name for name in ("lat", "lon") if name not in table]
    if absent:
        raise ValueError(
            f"simulate_massachusetts: centroids must have the columns lat and lon, got "
            f"{list(table.columns)}."
        )
    place = table[["lat", "lon"]].to_numpy(dtype=float)
    if len(place) != MA_NUM_SITES or not np.isfinite(place).all():
        raise ValueError(
            f"simulate_massachusetts: centroids must have {MA_NUM_SITES} rows of finite lat and "
            f"lon, got {len(place)} rows, {int((~np.isfinite(place)).sum())} values not finite."
        )
    return place


def _places(generator: np.random.Generator) -> np.ndarray:
    """Latitude and longitude [S, 2] in a county-sized box, denser towards its eastern side."""
    latitude = 41.48 + 0.66 * generator.beta(1.6, 1.2, NUM_SITES)
    longitude = -88.24 + 0.70 * generator.beta(3.2, 1.4, NUM_SITES)
    return np.column_stack([latitude, longitude])


def _kilometre_like(place: np.ndarray) -> np.ndarray:
    return place * np.array([1.0, np.cos(np.deg2rad(41.8))])


def _field(generator: np.random.Generator, place: np.ndarray, white: float = 0.0) -> np.ndarray:
    """A smooth Gaussian field by 256 random Fourier features; `white` is the share of white
    noise."""
    frequency = generator.standard_normal((2, 256)) / _LENGTH
    phase = generator.uniform(0, 2 * np.pi, 256)
    weight = generator.standard_normal(256)
    smooth = _standard(np.cos(_kilometre_like(place) @ frequency + phase) @ weight)
    return np.sqrt(1 - white) * smooth + np.sqrt(white) * generator.standard_normal(len(place))


def _nearest(place: np.ndarray) -> np.ndarray:
    p = _kilometre_like(place)
    distance = ((p[:, None] - p[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    return np.argsort(distance, axis=1)[:, :_NUM_NEIGHBOURS]


def _percentile(values: np.ndarray) -> np.ndarray:
    return values.argsort(axis=0).argsort(axis=0) / (len(values) - 1)


def _normal_scores(values: np.ndarray) -> np.ndarray:
    """Standard normal quantiles of the ranks: the same order, an exactly normal sample."""
    rank = torch.from_numpy((values.argsort().argsort() + 0.5) / len(values))
    return torch.special.ndtri(rank).numpy()


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()
