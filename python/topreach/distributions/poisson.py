"""Poisson counts, one independent variable per site."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topreach._C import Forecast
from topreach.distributions.forecast import CountForecast
from topreach.ops import draw_key


@dataclass(frozen=True)
class Poisson(CountForecast):
    """P(y) = e^−rate rate^y / y!.

    Like `torch.distributions.Poisson`, but with counter-based draws, as in `NegativeBinomial`: a
    key gives the same bits for any batch split and thread count.

    Args:
        rate: λ >= 0, float32 or float64, [..., S].

    Example:
        >>> y = Poisson(torch.full((4, 10), 2.0)).sample(100)            # [100, 4, 10]
    """

    rate: Tensor

    def _forecast(self) -> Forecast:
        return Forecast.poisson(self.rate)

    @property
    def mean(self) -> Tensor:
        """λ, [..., S]."""
        return self.rate

    @property
    def variance(self) -> Tensor:
        """λ, [..., S]."""
        return self.rate

    def sample(
        self,
        num_samples: int,
        *,
        generator: torch.Generator | None = None,
        key: Tensor | None = None,
        row_offset: int = 0,
    ) -> Tensor:
        """Draw counts [M, ..., S], without gradient; see `NegativeBinomial.sample`.

        Raises:
            ValueError: a rate that is negative, NaN or infinite (CPU; NaN on CUDA).
        """
        if key is None:
            key = draw_key(generator, self.rate.device)
        return torch.ops.topreach.poisson_sample(self.rate, num_samples, key, row_offset)

    def site_log_prob(self, value: Tensor) -> Tensor:
        """log P(value), elementwise: value [..., S], or samples [M, ..., S]. Differentiable."""
        return torch.ops.topreach.poisson_log_prob(value, self.rate)

    log_prob = site_log_prob  # as in torch: sites are independent
