"""A mixture of truncated normals whose components are shared over sites."""

from __future__ import annotations

import torch
from torch import Tensor

from topreach.distributions.site_mixture import SiteMixture, TruncatedNormal
from topreach.models.site_mixture_model import SiteMixtureModel


class NormalMixture(SiteMixtureModel):
    """y_ts ~ Σ_l w_sl N₊(μ_l, σ_l²), the same for every period [D25 Eq. 14, 17 and App. D].

    N₊ is the normal given that it is positive. It has a density, so counts are treated as reals.
    All sites share μ_l = softplus(raw_mean_l) and σ_l = 0.2 + softplus(raw_scale_l), which is kept
    away from 0 so that no component collapses on one count. Each site has its own
    w_s = softmax(logits_s). Given these, sites are independent.

    Args:
        num_sites: S.
        num_components: L.
        low, high: the range of the counts, in which the components' modes start.
        batch: leading shape of all parameters: that many models at once, e.g. for several starts.

    Parameters, as in C++: raw_mean [*batch, L], raw_scale [*batch, L], logits [*batch, S, L]. They
    start at random (torch's generator): μ uniform on [low, high], σ uniform on [0.25, 0.25 + (high
    − low)/4], w_s Dirichlet(½). Several starts are advisable: the likelihood has local maxima.

    Raises:
        ValueError: num_sites or num_components below 1, or not 0 <= low < high.

    Example:
        >>> model = NormalMixture(num_sites=7, num_components=2, high=100)
        >>> counts = model(time)                         # [T, S], for time [T]
        >>> loss = -counts.site_log_prob(y).sum()
        >>> r = tr.expected_ratio_ranking(counts)
    """

    raw_mean: Tensor
    raw_scale: Tensor
    logits: Tensor
    _parameters_of = ("raw_mean", "raw_scale", "logits")
    _start = torch.ops.topreach.normal_mixture_start

    def forward(self, time: Tensor) -> SiteMixture:
        """Counts at times [...]: a distribution over [*batch, ..., S]."""
        loc, scale = torch.ops.topreach.normal_mixture_components(self.raw_mean, self.raw_scale)
        components = TruncatedNormal(
            self._over_time(loc.unsqueeze(-2), time), self._over_time(scale.unsqueeze(-2), time)
        )
        return SiteMixture(self._over_time(self.logits, time), components)
