"""A simulated county with the summary figures of Cook County, for machines without data.

Generative model, for sites s at places p_s and years t = 1..8 (1 is history only):

    g_s = √(1−ω) f(p_s) + √ω e_s                         f: smooth Gaussian field; e: white noise
    log λ_s = σ Φ⁻¹((rank of g_s − ½) / S)               lognormal rates, the same set for any seed
    log λ_st = log λ_s + w_st,  w_st = w_s,t−1 + σ_w N   rates persist, and drift slowly
    y_st ~ NegBin(mean m_t λ_st / mean_s λ_st, shape r)  gamma–Poisson

m_t are the real set's mean counts per tract and year; σ, ω, σ_w and r are set so that variance,
share of zeros, correlation between years and the naive baselines' BPR come near the real ones
(tests/python/test_datasets.py holds them together). The four vulnerability themes are percentile
ranks of mixtures of log λ_s with smooth fields of their own; lags and the neighbours' mean are
computed from the simulated counts.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch

from ..panel import Panel, Splits

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
# The themes are measured anew for 2017 and 2019, as in the real set.
_THEME_UPDATES = (3, 5)


def simulate_county(seed: int = 0) -> Splits:
    """A simulated panel with the size, periods, feature names and summary figures of `cook_county`.

    The numbers are not real, which a warning and `panel.source == "simulated"` say; site ids begin
    with 99999, which no real census tract does. See the module for the model. The same seed gives
    the same panel.

    Returns:
        `Splits(train, valid, test)`: periods 2–5, 6, and 7–8, with period 1 as history.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"simulate_county: seed must be a whole number >= 0, got {seed!r}.")
    warnings.warn(
        "simulate_county: these numbers are SIMULATED. They stand for no real place, person or "
        "year.",
        UserWarning,
        stacklevel=2,
    )
    generator = np.random.default_rng(seed)
    place = _places(generator)
    white = generator.standard_normal(NUM_SITES)
    mixed = np.sqrt(1 - _WHITE) * _field(generator, place) + np.sqrt(_WHITE) * white
    rate = _normal_scores(mixed)
    log_rate = _RATE_SD * rate
    steps = _DRIFT_SD * generator.standard_normal((len(TIMES), NUM_SITES))
    steps[0] = 0
    intensity = np.exp(log_rate + np.cumsum(steps, axis=0))
    mean = np.array(_YEAR_MEAN)[:, None] * intensity / intensity.mean(axis=1, keepdims=True)
    counts = generator.poisson(mean * generator.gamma(_SHAPE, 1 / _SHAPE, mean.shape)).astype(float)

    shared = _field(generator, place)
    raw_themes = np.stack(
        [
            a * rate + b * shared + np.sqrt(1 - a**2 - b**2) * _field(generator, place, 0.5)
            for a, b in zip(_THEME_RATE, _THEME_SHARED, strict=True)
        ],
        axis=1,
    )
    neighbours = _nearest(place)
    columns = []
    for i, time in enumerate(TIMES[1:], start=1):
        if i == 1 or time in _THEME_UPDATES:
            raw_themes = raw_themes + 0.15 * generator.standard_normal(raw_themes.shape)
            themes = _percentile(raw_themes)
            total = _percentile(themes.sum(axis=1, keepdims=True))
        none = np.zeros(NUM_SITES)
        lags = [counts[i - back] if i - back >= 0 else none for back in (5, 4, 3, 2, 1)]
        around = counts[i - 1][neighbours].mean(axis=1)
        columns.append(np.column_stack([around, place, themes, total, *lags]))
    panel = Panel(
        np.stack(columns),
        counts[1:],
        [f"99999{100 * (s + 1):06d}" for s in range(NUM_SITES)],
        TIMES[1:],
        FEATURE_NAMES,
        history_y=counts[:1],
        source="simulated",
    )
    return panel.split(valid=6, test=[7, 8])


def _places(generator: np.random.Generator) -> np.ndarray:
    """Latitude and longitude [S, 2] in a county-sized box, denser towards its eastern side."""
    latitude = 41.48 + 0.66 * generator.beta(1.6, 1.2, NUM_SITES)
    longitude = -88.24 + 0.70 * generator.beta(3.2, 1.4, NUM_SITES)
    return np.column_stack([latitude, longitude])


def _kilometre_like(place: np.ndarray) -> np.ndarray:
    return place * np.array([1.0, np.cos(np.deg2rad(41.8))])


def _field(generator: np.random.Generator, place: np.ndarray, white: float = 0.0) -> np.ndarray:
    """A smooth Gaussian field by 256 random Fourier features, a share of it white noise."""
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
