"""How good a choice was: metrics, and the naive forecasts to beat."""

from topreach.evaluation import baselines, metrics

__all__ = ["baselines", "metrics"]
