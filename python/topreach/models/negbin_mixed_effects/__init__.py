"""Regression of counts with an intercept and a slope over time for each site.

`model` makes the parameters and fits, `mixed_effects` predicts, `data` checks arguments,
`likelihood` calls the operators, `fitting` maximises, `tables`, `summary` and `forecast_check`
report the result, `predictive` draws.
"""

from topreach.models.negbin_mixed_effects.forecast_check import ForecastCheck
from topreach.models.negbin_mixed_effects.model import NegBinMixedEffects
from topreach.models.negbin_mixed_effects.summary import Summary

__all__ = ["ForecastCheck", "NegBinMixedEffects", "Summary"]
