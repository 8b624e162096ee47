"""The interface of every forecast of counts."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch import distributions as td

from topreach._C import Forecast


class CountForecast:
    """Base of the distributions of this package: views of the C++ class `Forecast`.

    Subclasses define `mean`, `variance`, `sample`, `site_log_prob` and `_forecast`; the rest is
    defined here. Shapes: counts [..., S]; samples [M, ..., S].
    """

    def _forecast(self) -> Forecast:
        """The same distribution as a C++ object; the parameters are shared."""
        raise NotImplementedError

    def joint_log_prob(self, value: Tensor) -> Tensor:
        """log P of all sites of a row together, [...] or [M, ...]; NaN cells are left out.

        Differentiable. The sum of `site_log_prob` if sites are independent.
        """
        return self._forecast().joint_log_prob(value)

    def cdf(self, value: Tensor) -> Tensor:
        """P(Y_s <= value_s), [..., S] or [M, ..., S], float64, without gradient."""
        return self._forecast().cdf(value)

    def quantile(self, probability: float) -> Tensor:
        """The least value of each site with P(Y_s <= value) >= probability, [..., S].

        Raises:
            ValueError: a probability outside (0, 1).
        """
        return self._forecast().quantile(probability)

    def expected_ratio(self, offset: float = 0.0) -> Tensor | None:
        """E[y_s / (offset + Σ y)], [..., S], or None if it can only be estimated from draws."""
        return self._forecast().expected_ratio(offset)


class TorchForecast:
    """A distribution of `torch.distributions`, or an object with `mean` and `log_prob`, as a
    forecast.

    Args:
        distribution: counts [..., S] with `mean`, `log_prob(value)` and `sample`. A log_prob of
            shape [...] is the joint one of all sites, one of shape [..., S] that of each site.
    """

    def __init__(self, distribution: Any):
        self.distribution = distribution
        sites, whole = distribution, True
        if isinstance(sites, td.MixtureSameFamily):
            sites = sites.component_distribution
        while isinstance(sites, td.Independent):
            sites = sites.base_dist
        if isinstance(sites, td.Distribution):
            whole = bool(getattr(sites.support, "is_discrete", True))
        self.whole_counts = whole
        self.independent_sites = not (
            isinstance(distribution, td.MixtureSameFamily) and len(distribution.event_shape) > 0
        )

    @property
    def mean(self) -> Tensor:
        return _value(self.distribution, "mean")

    @property
    def variance(self) -> Tensor:
        if not hasattr(self.distribution, "variance"):
            raise TypeError(
                f"variance: {type(self.distribution).__name__} must have a variance, got none."
            )
        return _value(self.distribution, "variance")

    def sample(self, num_samples: int, *, key: Tensor | None = None) -> Tensor:
        if not isinstance(self.distribution, td.Distribution):
            return self.distribution.sample(num_samples, key=key)
        device = self.mean.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            if key is not None:
                high, low = key.tolist()
                torch.manual_seed((high << 31) ^ low)
            return self.distribution.sample((num_samples,))

    def site_log_prob(self, value: Tensor) -> Tensor:
        distribution = self.distribution
        if hasattr(distribution, "site_log_prob"):
            return distribution.site_log_prob(value)
        if isinstance(distribution, td.Independent):
            return TorchForecast(distribution.base_dist).site_log_prob(value)
        if isinstance(distribution, td.MixtureSameFamily) and len(distribution.event_shape) > 0:
            components = TorchForecast(distribution.component_distribution)
            weights = distribution.mixture_distribution.logits.log_softmax(-1).unsqueeze(-1)
            return (components.site_log_prob(value.unsqueeze(-2)) + weights).logsumexp(-2)
        log_prob = distribution.log_prob(value)
        if log_prob.shape[-1:] != value.shape[-1:] or log_prob.dim() < value.dim():
            raise TypeError(
                f"site_log_prob: {type(distribution).__name__}.log_prob must give one number per "
                f"site, got shape {list(log_prob.shape)} for counts {list(value.shape)}. Define "
                "site_log_prob(y) beside it."
            )
        return log_prob

    def joint_log_prob(self, value: Tensor) -> Tensor:
        distribution = self.distribution
        unknown = value.isnan()
        if hasattr(distribution, "joint_log_prob"):
            return distribution.joint_log_prob(value)
        known = value.masked_fill(unknown, 0.0)
        log_prob = (
            self.site_log_prob(known)
            if hasattr(distribution, "site_log_prob")
            else distribution.log_prob(known)
        )
        if log_prob.dim() == value.dim():
            return log_prob.masked_fill(unknown, 0.0).sum(-1)
        if bool(unknown.any()):
            if not self.independent_sites:
                raise ValueError(
                    "joint_log_prob: y must be known for a distribution with a joint log_prob "
                    "only, got NaN. Use tr.distributions.Mixture, which leaves unknown cells out."
                )
            return self.site_log_prob(known).masked_fill(unknown, 0.0).sum(-1)
        return log_prob

    @property
    def has_expected_ratio(self) -> bool:
        from topreach.distributions.counts import has_expected_ratio_ranking

        return has_expected_ratio_ranking(self.distribution)

    def expected_ratio(self, offset: float = 0.0) -> Tensor:
        from topreach.distributions.counts import expected_ratio_ranking

        return expected_ratio_ranking(self.distribution, offset)

    def __getattr__(self, name: str) -> Any:
        # A user's distribution may implement more of the interface.
        if name in ("cdf", "quantile") and not isinstance(self.distribution, td.Distribution):
            return getattr(self.distribution, name)
        raise AttributeError(name)


def as_forecast(distribution: Any) -> Any:
    """An object with the interface of a forecast: the argument itself, or a wrapper around it.

    Args:
        distribution: a class of `tr.distributions`, a `Forecast`, a `torch.distributions`
            distribution, or an object of your own with `mean`, `variance`, `sample(M, key=)` and
            `site_log_prob(y)` (or `log_prob`).

    Raises:
        TypeError: something else; the message names what is missing.
    """
    if isinstance(distribution, Forecast) or hasattr(distribution, "_forecast"):
        return distribution
    missing = [name for name in ("mean", "sample") if not hasattr(distribution, name)]
    if not (hasattr(distribution, "site_log_prob") or hasattr(distribution, "log_prob")):
        missing.append("site_log_prob")
    if missing:
        raise TypeError(
            "as_forecast: distribution must have mean, variance, sample(M, key=) and "
            f"site_log_prob(y), got {type(distribution).__name__} without {', '.join(missing)}. "
            "For draws alone use tr.distributions.SampledForecast(draws)."
        )
    return TorchForecast(distribution)


def _value(distribution: Any, name: str) -> Tensor:
    value = getattr(distribution, name)
    return value() if callable(value) and not isinstance(value, Tensor) else value


def check_probability(name: str, probability: float) -> None:
    """Raise ValueError unless 0 < probability < 1."""
    if not (0 < probability < 1 and math.isfinite(probability)):
        raise ValueError(f"{name}: probability must be above 0 and below 1, got {probability!r}")
