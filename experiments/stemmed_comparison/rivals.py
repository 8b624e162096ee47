"""The rivals of the point process: forecasts from monthly counts y [T, M] alone.

Each takes the counts so far and gives the mean of the next months, [H, M], and their variance if it
has one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
from scipy import optimize
from scipy.special import gammaln

HORIZON = 12
Forecast = tuple[np.ndarray, np.ndarray | None]


def recent_mean(y: np.ndarray, months: int) -> Forecast:
    return np.repeat(y[-months:].mean(0)[None], HORIZON, 0), None


def seasonal_naive(y: np.ndarray) -> Forecast:
    """The counts of the same months a year before."""
    return y[-12:].copy(), None


def arima(y: np.ndarray) -> Forecast:
    """ARIMA(1, 1, 1) of each series by statsmodels; never below 0. For a constant series, or if the
    fit fails, the mean of 12 months."""
    from statsmodels.tsa.arima.model import ARIMA

    mean, variance = (
        np.repeat(part(y[-12:], axis=0)[None], HORIZON, 0) for part in (np.mean, np.var)
    )
    for u in range(y.shape[1]):
        series = y[:, u]
        if np.ptp(series) == 0:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = ARIMA(series, order=(1, 1, 1))
                found = model.fit().get_forecast(HORIZON)
                if not np.isfinite(found.predicted_mean).all():
                    continue
                mean[:, u], variance[:, u] = found.predicted_mean, found.var_pred_mean
        except (ValueError, np.linalg.LinAlgError):
            continue
    return np.maximum(mean, 0), variance


def autoregression(y: np.ndarray, groups: np.ndarray) -> Forecast:
    """VAR(1) with a constant by least squares, among the nodes of each group; never below 0. A VAR
    of all series has more coefficients than there are months."""
    mean = np.zeros((HORIZON, y.shape[1]))
    variance = np.zeros_like(mean)
    for group in np.unique(groups):
        own = np.flatnonzero(groups == group)
        x = np.c_[np.ones(len(y) - 1), y[:-1, own]]
        # The least-squares solution of least norm, if there are fewer months than coefficients.
        weight = np.linalg.lstsq(x, y[1:, own], rcond=None)[0]
        rest = y[1:, own] - x @ weight
        noise = rest.T @ rest / max(len(x) - x.shape[1], 1)
        now, spread, step = y[-1, own], np.zeros((len(own), len(own))), weight[1:].T
        for h in range(HORIZON):
            now = weight[0] + step @ now
            spread = step @ spread @ step.T + noise
            mean[h, own], variance[h, own] = now, np.diag(spread)
    mean = np.clip(np.nan_to_num(mean, nan=0.0), 0, 10 * y.max(0) + 1)
    return mean, np.clip(np.nan_to_num(variance, nan=1e6), 1e-3, 1e6)


def endemic_epidemic(y: np.ndarray, neighbours: np.ndarray) -> Forecast:
    """y_t ~ NB2(n_u (e + l y_{t-1,u} / n_u + f Σ_v w_uv y_{t-1,v} / n_v)), as R's hhh4 with
    offsets. n_u is the node's mean of the last two years. All nodes share e, l, f and the
    dispersion, by maximum likelihood on the last five years. Means ahead are exact; variances are
    those of one step."""
    y = y[-60:]
    level = y[-24:].mean(0) + 0.02
    weight = neighbours * level[:, None] / level
    before, after = y[:-1], y[1:]
    near = before @ weight.T

    def loss(w: np.ndarray) -> float:
        e, own, other, size = np.exp(w)
        mean = e * level + own * before + other * near + 1e-9
        r = 1 / size
        value = gammaln(after + r) - gammaln(r) - gammaln(after + 1)
        value += r * np.log(r / (r + mean)) + after * np.log(mean / (r + mean))
        return -value.mean()

    start = np.log([0.6, 0.2, 0.1, 0.1])
    found = optimize.minimize(loss, start, method="L-BFGS-B", bounds=[(-12, 2)] * 4).x
    e, own, other, size = np.exp(found)
    flow = own * np.eye(y.shape[1]) + other * weight
    mean, now = [], y[-1]
    for _ in range(HORIZON):
        now = e * level + flow @ now
        mean.append(now)
    ahead = np.array(mean)
    return ahead, ahead + size * ahead**2


def neighbours_of(distance: np.ndarray, types: int) -> np.ndarray:
    """Weights between nodes of one type at other places, e^(-3 dist), in rows that sum to 1."""
    near = np.exp(-3 * distance / max(distance.max(), 1e-12))
    np.fill_diagonal(near, 0)
    near /= np.maximum(near.sum(1, keepdims=True), 1e-12)
    return np.kron(near, np.eye(types))


def rivals(
    groups: np.ndarray, neighbours: np.ndarray
) -> dict[str, Callable[[np.ndarray], Forecast]]:
    return {
        "ARIMA(1,1,1)": arima,
        "VAR(1), all series": partial(autoregression, groups=np.zeros_like(groups)),
        "VAR(1) by type": partial(autoregression, groups=groups),
        "mean of 3 months": partial(recent_mean, months=3),
        "mean of 6 months": partial(recent_mean, months=6),
        "mean of 12 months": partial(recent_mean, months=12),
        "seasonal naive": seasonal_naive,
        "hhh4-like": partial(endemic_epidemic, neighbours=neighbours),
    }
