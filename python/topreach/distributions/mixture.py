"""Mixtures that draw one component for all sites at once, which makes the counts dependent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topreach._C import Forecast
from topreach.distributions.forecast import CountForecast
from topreach.distributions.negative_binomial import NegativeBinomial
from topreach.distributions.poisson import Poisson
from topreach.distributions.zero_inflated import ZeroInflated

Component = NegativeBinomial | Poisson | ZeroInflated


@dataclass(frozen=True)
class Mixture(CountForecast):
    """P(y_1, …, y_S) = Σ_l w_l Π_s P_l(y_s): sites are independent only given the component l.

    The prediction of a model with uncertain parameters: each component is one draw of them.
    `tr.expected_ratio_ranking` of it is exact.

    Args:
        weights: w, which sum to 1, [..., L].
        components: `NegativeBinomial`, `Poisson` or `ZeroInflated`, parameters [..., L, S].

    Sites depend on each other, so there is no `log_prob`. `site_log_prob` is the log-probability of
    each site by itself, `joint_log_prob` that of all sites of a row together.

    Raises:
        ValueError: weights that do not fit the components, are negative or do not sum to 1.

    Example:
        >>> draws = NegativeBinomial(torch.rand(50, 1000), torch.tensor(0.5))     # [L, S]
        >>> mixture = Mixture(torch.full((50,), 1 / 50), draws)
        >>> mixture.mean.shape, mixture.sample(7).shape
        (torch.Size([1000]), torch.Size([7, 1000]))
    """

    weights: Tensor
    components: Component

    def __post_init__(self):
        shape = self.components.mean.shape
        if len(shape) < 2 or self.weights.shape != shape[:-1]:
            raise ValueError(
                f"Mixture: weights must have shape [..., L] = {list(shape[:-1])}, that of the "
                f"components [..., L, S] without sites, got {list(self.weights.shape)}."
            )
        if not self.weights.is_meta and not (
            bool((self.weights >= 0).all())
            and bool(((self.weights.sum(-1) - 1).abs() < 1e-4).all())
        ):
            raise ValueError(
                "Mixture: weights must be >= 0 and sum to 1, got sums "
                f"{self.weights.sum(-1).flatten()[:5].tolist()}."
            )

    def _forecast(self) -> Forecast:
        return Forecast.mixture(self.weights, self.components._forecast())

    @property
    def mean(self) -> Tensor:
        """Σ_l w_l E_l[y], [..., S]."""
        return self._forecast().mean

    @property
    def variance(self) -> Tensor:
        """For each site: the variance within components plus that of their means, [..., S]."""
        return self._forecast().variance

    def sample(
        self,
        num_samples: int,
        *,
        generator: torch.Generator | None = None,
        key: Tensor | None = None,
    ) -> Tensor:
        """Draw counts [M, ..., S], without gradient: one component for all sites of a row.

        Args:
            num_samples: M.
            generator: torch generator to draw the key from.
            key: int64 [2] from `draw_key`, instead of a generator; it fixes the draws.
        """
        return self._forecast().sample(num_samples, generator=generator, key=key)

    def site_log_prob(self, value: Tensor) -> Tensor:
        """log P of each site by itself, [..., S] or [M, ..., S]. Differentiable."""
        return self._forecast().site_log_prob(value)
