"""Distributions of counts over sites: what models predict."""

from topreach.distributions.forecast import Forecast, as_forecast
from topreach.distributions.mixture import Mixture
from topreach.distributions.negative_binomial import NegativeBinomial
from topreach.distributions.poisson import Poisson
from topreach.distributions.sampled import SampledForecast
from topreach.distributions.site_mixture import SiteMixture, TruncatedNormal
from topreach.distributions.zero_inflated import ZeroInflated

__all__ = [
    "Forecast",
    "Mixture",
    "NegativeBinomial",
    "Poisson",
    "SampledForecast",
    "SiteMixture",
    "TruncatedNormal",
    "ZeroInflated",
    "as_forecast",
]
