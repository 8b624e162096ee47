"""A mixture of Poissons whose rates are shared over sites."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Poisson

from topreach.distributions.site_mixture import SiteMixture
from topreach.models.site_mixture_model import SiteMixtureModel


class PoissonMixture(SiteMixtureModel):
    """y_ts ~ Σ_l w_sl Poisson(λ_l), the same for every period: [D25 Eq. 14] for counts.

    All sites share λ_l = exp(log_rate_l). Each site has its own w_s = softmax(logits_s). Given
    these, sites are independent.

    Args:
        num_sites: S.
        num_components: L.
        low, high: the range of the counts, in which the rates start.
        batch: leading shape of all parameters: that many models at once, e.g. for several starts.

    Parameters, as in C++: log_rate [*batch, L], logits [*batch, S, L]. They start at random
    (torch's generator): λ uniform on [low, high], w_s Dirichlet(½).

    Raises:
        ValueError: num_sites or num_components below 1, or not 0 <= low < high.

    Example:
        >>> model = PoissonMixture(num_sites=1328, num_components=4, high=8)
        >>> counts = model(time)                         # [T, S], for time [T]
        >>> loss = -counts.site_log_prob(y).sum()
        >>> r = tr.expected_ratio_ranking(counts)
    """

    log_rate: Tensor
    logits: Tensor
    _parameters_of = ("log_rate", "logits")
    _start = torch.ops.topreach.poisson_mixture_start

    def forward(self, time: Tensor) -> SiteMixture:
        """Counts at times [...]: a distribution over [*batch, ..., S]."""
        rate = self._over_time(self.log_rate.exp().unsqueeze(-2), time)
        return SiteMixture(self._over_time(self.logits, time), Poisson(rate, validate_args=False))
