"""Models that predict counts, or scores, for every site.

Each is an `nn.Module` that keeps its constructor arguments in `config` (plain values), and has the
same parameter names as its C++ twin in `csrc/models`.
"""

from topreach._C import Needs
from topreach.models.empirical_bayes_rates import EmpiricalBayesRates
from topreach.models.linear_scorer import LinearScorer
from topreach.models.mlp_scorer import MLPScorer
from topreach.models.negbin_mixed_effects import NegBinMixedEffects
from topreach.models.neighbours import nearest_neighbours
from topreach.models.normal_mixture import NormalMixture
from topreach.models.poisson_mixture import PoissonMixture
from topreach.models.site_history import SiteHistory
from topreach.models.stemmed import Stemmed

__all__ = [
    "EmpiricalBayesRates",
    "LinearScorer",
    "MLPScorer",
    "NegBinMixedEffects",
    "Needs",
    "NormalMixture",
    "PoissonMixture",
    "SiteHistory",
    "Stemmed",
    "nearest_neighbours",
]
