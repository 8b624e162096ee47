"""A forecast that is given by its draws alone, for instance by simulation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topreach._C import Forecast
from topreach.distributions.forecast import CountForecast


@dataclass(frozen=True)
class SampledForecast(CountForecast):
    """Counts given by draws alone, each a joint draw of all sites (and periods).

    Mean, variance, `cdf`, `quantile` and `expected_ratio` are those of the draws. There is no
    log-probability: `site_log_prob` raises TypeError.

    Args:
        draws: [M, ..., S], float32 or float64, counts >= 0.

    Example:
        >>> forecast = SampledForecast(torch.tensor([[0.0, 2.0], [1.0, 3.0]]))
        >>> forecast.expected_ratio()
        tensor([0.1250, 0.8750])
    """

    draws: Tensor

    def __post_init__(self):
        self._forecast()

    def _forecast(self) -> Forecast:
        return Forecast.sampled(self.draws)

    @property
    def mean(self) -> Tensor:
        """Of the draws, [..., S]."""
        return self._forecast().mean

    @property
    def variance(self) -> Tensor:
        """Of the draws, unbiased, [..., S]."""
        return self._forecast().variance

    def sample(
        self,
        num_samples: int,
        *,
        generator: torch.Generator | None = None,
        key: Tensor | None = None,
    ) -> Tensor:
        """Whole draws, resampled with replacement, [M, ..., S]; a key fixes the choice."""
        return self._forecast().sample(num_samples, generator=generator, key=key)

    def site_log_prob(self, value: Tensor) -> Tensor:
        """Raises TypeError: draws have no probability."""
        return self._forecast().site_log_prob(value)
