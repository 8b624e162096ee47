"""Models: what predicts counts, or scores, for every site.

Each is an `nn.Module` whose constructor arguments stand in `config` (plain values), and each has
the same parameter names as its C++ twin in `csrc/models`.
"""

from topreach.models.empirical_bayes_rates import EmpiricalBayesRates
from topreach.models.linear_scorer import LinearScorer
from topreach.models.mixture import Mixture
from topreach.models.mlp_scorer import MLPScorer
from topreach.models.negative_binomial import NegativeBinomial
from topreach.models.negbin_mixed_effects import NegBinMixedEffects
from topreach.models.normal_mixture import NormalMixture
from topreach.models.poisson import Poisson
from topreach.models.poisson_mixture import PoissonMixture
from topreach.models.site_mixture import SiteMixture, TruncatedNormal
from topreach.models.zero_inflated import ZeroInflated

__all__ = [
    "EmpiricalBayesRates",
    "LinearScorer",
    "MLPScorer",
    "Mixture",
    "NegBinMixedEffects",
    "NegativeBinomial",
    "NormalMixture",
    "Poisson",
    "PoissonMixture",
    "SiteMixture",
    "TruncatedNormal",
    "ZeroInflated",
]
