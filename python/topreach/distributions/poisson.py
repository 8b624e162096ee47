"""Poisson counts, one independent variable per site."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topreach.ops import draw_key

# A Poisson count is drawn as NegBin(n, mean rate) of a size n at which the two differ, in total
# variation by rate / n at most (Barbour, Holst and Janson 1992), no more than a draw's own error.
_LEAST_SIZE, _SIZE_PER_RATE = 1e12, 1e10


@dataclass(frozen=True)
class Poisson:
    """P(y) = e^−rate rate^y / y!.

    As `torch.distributions.Poisson`, but its draws are counter-based, like those of
    `NegativeBinomial`: a key gives the same bits for any batch split and thread count.

    Args:
        rate: λ >= 0, float32 or float64, [..., S].

    Example:
        >>> y = Poisson(torch.full((4, 10), 2.0)).sample(100)            # [100, 4, 10]
    """

    rate: Tensor

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
        rate = self.rate.detach().double()
        size = (rate * _SIZE_PER_RATE).clamp_min(_LEAST_SIZE)
        draws = torch.ops.topreach.negbin_sample(
            size, rate.log() - size.log(), num_samples, key, row_offset
        )
        return draws.to(self.rate.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """log P(value), elementwise: value [..., S], or samples [M, ..., S]. Differentiable."""
        value = value.to(self.rate.dtype)
        return torch.xlogy(value, self.rate) - self.rate - torch.lgamma(value + 1)
