"""How good a choice was: metrics, naive forecasts to beat, and a backtest over past periods."""

from topreach.evaluation import baselines, intervals, metrics
from topreach.evaluation.backtest import backtest, compare, judge, origins
from topreach.evaluation.intervals import Interval, paired_interval, simultaneous_intervals

__all__ = [
    "Interval",
    "backtest",
    "baselines",
    "compare",
    "intervals",
    "judge",
    "metrics",
    "origins",
    "paired_interval",
    "simultaneous_intervals",
]
