"""Distributions of counts over sites, and what is known of them without samples."""

from topreach.distributions.mixture import Mixture
from topreach.distributions.negative_binomial import NegativeBinomial
from topreach.distributions.poisson import Poisson
from topreach.distributions.site_mixture import SiteMixture, TruncatedNormal
from topreach.distributions.zero_inflated import ZeroInflated

__all__ = [
    "Mixture",
    "NegativeBinomial",
    "Poisson",
    "SiteMixture",
    "TruncatedNormal",
    "ZeroInflated",
]
