"""Negative binomial counts, one independent variable per site."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topreach._C import Forecast
from topreach.distributions.forecast import CountForecast
from topreach.ops import draw_key


@dataclass(frozen=True)
class NegativeBinomial(CountForecast):
    """NegBin(total_count n, logits z): P(y) = Γ(n + y) / (Γ(n) y!) (1 − p)^n p^y, p = sigmoid(z).

    torch's convention: mean n e^z, variance n e^z (1 + e^z). n >= 0 is any real number. Unlike
    `torch.distributions.NegativeBinomial`, draws and log-probabilities come from fused kernels: the
    draws are counter-based (a key gives the same bits for any batch split and thread count), and
    both are accurate for tiny and huge parameters.

    Args:
        total_count: n, float32 or float64, broadcast with logits to [..., S].
        logits: z, of the same dtype.

    Example:
        >>> counts = NegativeBinomial(torch.full((4, 10), 2.0), torch.tensor(0.0))
        >>> y = counts.sample(100)            # [100, 4, 10]
        >>> counts.site_log_prob(y).shape
        torch.Size([100, 4, 10])
    """

    total_count: Tensor
    logits: Tensor

    def _forecast(self) -> Forecast:
        return Forecast.negative_binomial(self.total_count, self.logits)

    @property
    def mean(self) -> Tensor:
        """n e^z, [..., S]."""
        return torch.ops.topreach.negbin_moments(self.total_count, self.logits)[0]

    @property
    def variance(self) -> Tensor:
        """n e^z (1 + e^z), [..., S]."""
        return torch.ops.topreach.negbin_moments(self.total_count, self.logits)[1]

    def sample(
        self,
        num_samples: int,
        *,
        generator: torch.Generator | None = None,
        key: Tensor | None = None,
        row_offset: int = 0,
    ) -> Tensor:
        """Draw counts [M, ..., S], without gradient; each probability is right to 2^-32.

        Args:
            num_samples: M.
            generator: torch generator to draw the key from.
            key: int64 [2] from `draw_key`, instead of a generator. Draw m of a site depends on its
                parameters and (key, row_offset + row, site, m) alone; rows are the leading indices,
                flattened.
            row_offset: global number of the first row.

        Raises:
            ValueError: total_count negative, NaN or infinite, or logits NaN or +inf (CPU; on CUDA
                such sites are NaN).
        """
        if key is None:
            key = draw_key(generator, self.total_count.device)
        return torch.ops.topreach.negbin_sample(
            self.total_count, self.logits, num_samples, key, row_offset
        )

    def site_log_prob(self, value: Tensor) -> Tensor:
        """log P(value), elementwise: value [..., S], or samples [M, ..., S].

        Differentiable once in total_count and logits. value need not be whole (Γ interpolates).

        Raises:
            ValueError: value negative, infinite or NaN, or total_count negative (CPU; NaN on CUDA).
        """
        return torch.ops.topreach.negbin_log_prob(
            value.to(self.total_count.dtype), self.total_count, self.logits
        )

    log_prob = site_log_prob  # as in torch: sites are independent
