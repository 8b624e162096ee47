"""Counts with extra zeros, beyond those of a base distribution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from topreach._C import Forecast
from topreach.distributions.forecast import CountForecast, as_forecast
from topreach.distributions.negative_binomial import NegativeBinomial
from topreach.distributions.poisson import Poisson
from topreach.ops import draw_key


@dataclass(frozen=True)
class ZeroInflated(CountForecast):
    """P(0) = π + (1 − π) P_base(0), P(y) = (1 − π) P_base(y): π is the chance of a structural zero.

    Lambert (1992), Zero-inflated Poisson regression; one independent variable per site.

    Args:
        base: the distribution of the other counts: `NegativeBinomial` or `Poisson`, or a torch
            distribution of counts (`torch.distributions.Poisson`, ...), with parameters [..., S].
        probs: π in [0, 1], broadcast to the shape of ``base``.

    Raises:
        ValueError: probs that do not broadcast to the shape of ``base``.

    Example:
        >>> counts = ZeroInflated(NegativeBinomial(torch.full((4, 10), 2.0), torch.tensor(0.0)),
        ...                       probs=torch.tensor(0.3))
        >>> y = counts.sample(100)            # [100, 4, 10]
    """

    base: NegativeBinomial | Poisson | Distribution
    probs: Tensor

    def __post_init__(self):
        shape = self.base.mean.shape
        if torch.broadcast_shapes(shape, self.probs.shape) != shape:
            raise ValueError(
                f"ZeroInflated: probs must broadcast to the shape of base, {tuple(shape)}, got "
                f"{tuple(self.probs.shape)}"
            )

    def _forecast(self) -> Forecast:
        return Forecast.zero_inflated(count_forecast(self.base), self.probs)

    @property
    def mean(self) -> Tensor:
        """(1 − π) E_base[y], [..., S]."""
        return self._moments()[0]

    @property
    def variance(self) -> Tensor:
        """(1 − π) (Var_base[y] + π E_base[y]²), [..., S]."""
        return self._moments()[1]

    def _moments(self) -> tuple[Tensor, Tensor]:
        return torch.ops.topreach.zero_inflated_moments(
            self.base.mean, self.base.variance, self.probs
        )

    def sample(
        self,
        num_samples: int,
        *,
        generator: torch.Generator | None = None,
        key: Tensor | None = None,
        row_offset: int = 0,
    ) -> Tensor:
        """Draw counts [M, ..., S], without gradient.

        Args:
            num_samples: M.
            generator: torch generator to draw the key from.
            key: int64 [2] from `draw_key`, instead of a generator; see `NegativeBinomial.sample`.
            row_offset: global number of the first row.

        Raises:
            ValueError: a key or generator for a torch distribution, which draws from torch's own
                generator only; and as the base raises.
        """
        base = self.base
        keyed = isinstance(base, NegativeBinomial | Poisson)
        if not keyed and not (key is None and generator is None):
            raise ValueError(
                "ZeroInflated: key and generator must be None for a base of torch.distributions, "
                "which draws from torch's own generator; use torch.manual_seed"
            )
        if key is None:
            key = draw_key(generator, self.probs.device)
        if isinstance(base, NegativeBinomial | Poisson):
            y = base.sample(num_samples, key=key, row_offset=row_offset)
        else:
            y = base.sample((num_samples,))
        return torch.ops.topreach.zero_inflated_zeros(y, self.probs, key, row_offset)

    def site_log_prob(self, value: Tensor) -> Tensor:
        """log P(value), elementwise: value [..., S], or samples [M, ..., S]. Differentiable."""
        base = as_forecast(self.base).site_log_prob(value)
        return torch.ops.topreach.zero_inflated_log_prob(base, self.probs, value)

    log_prob = site_log_prob  # as in torch: sites are independent


def count_forecast(distribution: object) -> Forecast:
    """The C++ object of a forecast; for a torch distribution, that of the same family."""
    if isinstance(distribution, td.Poisson):
        return Forecast.poisson(distribution.rate)
    if isinstance(distribution, td.NegativeBinomial):
        return Forecast.negative_binomial(distribution.total_count, distribution.logits)
    if isinstance(distribution, td.Bernoulli):
        return Forecast.bernoulli(distribution.probs)
    if isinstance(distribution, td.Binomial):
        return Forecast.binomial(distribution.total_count, distribution.probs)
    return Forecast(distribution)
