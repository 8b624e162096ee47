"""Is a difference between two methods more than chance? Intervals from paired differences.

The values are differences of a figure, for instance BPR, between two methods, one for each test
period. Both methods saw the same periods, so the differences vary much less than the figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
FEWEST = 3


class Interval(NamedTuple):
    """A mean difference and its 95 % interval; low and high are NaN for under three values."""

    mean: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there were enough values for an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def sign(self) -> int:
        """1 or -1 if the interval lies wholly above or below 0, else 0."""
        if not self.known:
            return 0
        return int(self.low > 0) - int(self.high < 0)

    def __str__(self) -> str:
        if not self.known:
            return f"{self.mean:+.3f} (too few periods for an interval)"
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def paired_interval(differences: Sequence[float], *, seed: int = 0) -> Interval:
    """Interval for the mean of paired differences, for one comparison that was chosen beforehand.

    A percentile bootstrap over periods. For few periods it is expanded, so that for normal values
    it is as wide as Student's. Source: Hesterberg 2015, The American Statistician 69:371.

    Args:
        differences: one for each test period; periods without a figure (NaN) are left out.
        seed: of the resamples.

    Example:
        >>> paired_interval([0.25, 0.5, 0.75]).mean
        0.5
    """
    values = np.asarray(differences, dtype=float)
    values = values[np.isfinite(values)]
    if len(values) < FEWEST:
        return Interval(float(values.mean()) if len(values) else math.nan, math.nan, math.nan)
    n = len(values)
    drawn = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))
    draws = values[drawn].mean(axis=1)
    tail = expanded_tail(n)
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(float(values.mean()), float(low), float(high))


def simultaneous_intervals(
    differences: Mapping[str, Sequence[float]], *, seed: int = 0
) -> dict[str, Interval]:
    """Intervals for several comparisons that hold simultaneously: with 95 % chance no true mean
    lies outside its interval. So they stay valid for the comparison that turned out best.

    The interval of method m is mean_m ± c s_m, s_m the standard error over periods. The factor c is
    a quantile of the largest |mean*_m − mean_m| / s_m over the methods, in a bootstrap that takes
    the same periods for all of them. The quantile is expanded for few periods as in
    `paired_interval`. Source: the max-t method, Romano & Wolf 2005, Econometrica 73:1237.

    Args:
        differences: by method, one value for each test period, in the same order. A period that is
            NaN for one method is left out for all.

    Example:
        >>> found = simultaneous_intervals({"a": [0.1, 0.2, 0.4], "b": [0.0, 0.3, 0.1]})
        >>> found["a"].low < paired_interval([0.1, 0.2, 0.4]).low
        True
    """
    names = list(differences)
    if not names:
        return {}
    counts = {len(differences[name]) for name in names}
    if len(counts) > 1:
        raise ValueError(
            "simultaneous_intervals: differences must have one value for each period for every "
            f"method, got {sorted(counts)} values."
        )
    table = np.array([differences[name] for name in names], dtype=float)
    table = table[:, np.isfinite(table).all(axis=0)]
    n = table.shape[1]
    if n < FEWEST:
        means = table.mean(axis=1) if n else np.full(len(names), math.nan)
        return {m: Interval(float(v), math.nan, math.nan) for m, v in zip(names, means)}
    means = table.mean(axis=1)
    # Rounding leaves some 1e-17 where all differences are equal: there is nothing to resample.
    error = table.std(axis=1) / math.sqrt(n)
    varies = error > 1e-12
    factor = 0.0
    if varies.any():
        # How often each period is drawn, [RESAMPLES, n]: all methods share the draw.
        drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
        draws = table[varies] @ drawn.T / n
        largest = np.abs((draws - means[varies, None]) / error[varies, None]).max(axis=0)
        factor = float(np.quantile(largest, 1 - 2 * expanded_tail(n)))
    return {
        name: Interval(float(mean), float(mean - factor * s), float(mean + factor * s))
        for name, mean, s in zip(names, means, error)
    }


def expanded_tail(n: int) -> float:
    """Tail of the bootstrap's distribution to cut off for a 95 % interval from n values.

    With it the interval is as wide as Student's for normal values: Φ(−√(n / (n − 1)) t_{n−1}),
    Hesterberg 2015. Student's quantile by its series in 1 / (n − 1), to 2 % from n = 3 on.
    """
    normal = NormalDist()
    z, v = normal.inv_cdf(0.975), n - 1
    t = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    return normal.cdf(-math.sqrt(n / v) * t)
