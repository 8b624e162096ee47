"""One of several components for all sites at once: counts that depend on each other through it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from topreach.distributions.negative_binomial import NegativeBinomial
from topreach.distributions.poisson import Poisson
from topreach.distributions.zero_inflated import ZeroInflated
from topreach.ops import draw_key

Component = NegativeBinomial | Poisson | ZeroInflated
STREAM = 0x4D495854  # tells the key of the components' choice from that of their draws


@dataclass(frozen=True)
class Mixture:
    """P(y_1, …, y_S) = Σ_l w_l Π_s P_l(y_s): sites are independent given the component l only.

    What a model predicts whose parameters are uncertain: each component is one draw of them.
    `tr.expected_ratio_ranking` takes it, exactly.

    Args:
        weights: w, which sum to 1, [..., L].
        components: `NegativeBinomial`, `Poisson` or `ZeroInflated`, parameters [..., L, S].

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

    @property
    def mean(self) -> Tensor:
        """Σ_l w_l E_l[y], [..., S]."""
        return (self.weights.unsqueeze(-1) * self.components.mean).sum(-2)

    @property
    def variance(self) -> Tensor:
        """Of each site: that within components and that of their means, [..., S]."""
        w, mean = self.weights.unsqueeze(-1), self.components.mean
        spread = (mean - self.mean.unsqueeze(-2)).square()
        return (w * (self.components.variance + spread)).sum(-2)

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
        if key is None:
            key = draw_key(generator, self.weights.device)
        rows = self.weights.numel() // max(self.weights.shape[-1], 1)
        noise = torch.ops.topreach.topk_noise(key ^ STREAM, num_samples, rows, 1, "gumbel", 0)
        uniform = (-(-noise).exp()).exp().view(num_samples, *self.weights.shape[:-1], 1)
        below = self.weights.detach().cumsum(-1) <= uniform
        chosen = below.sum(-1).clamp_max(self.weights.shape[-1] - 1)  # [M, ...]

        def of_chosen(parameter: Tensor) -> Tensor:
            index = chosen[..., None, None].expand(*chosen.shape, 1, parameter.shape[-1])
            return parameter.detach().expand(num_samples, *parameter.shape).gather(-2, index)[
                ..., 0, :
            ]

        return _with_parameters(self.components, of_chosen).sample(1, key=key)[0]

    def log_prob(self, value: Tensor) -> Tensor:
        """log P of all sites of a row together, [...] of value [..., S]; [M, ...] of samples
        [M, ..., S]. Differentiable. See `site_log_prob` for each site's own."""
        parts = [part.log_prob(value).sum(-1) for part in self._parts()]
        return torch.logsumexp(torch.stack(parts, -1) + self.weights.log(), -1)

    def site_log_prob(self, value: Tensor) -> Tensor:
        """log P of each site by itself, [..., S] or [M, ..., S]. Differentiable."""
        parts = [part.log_prob(value) for part in self._parts()]
        return torch.logsumexp(torch.stack(parts, -1) + self.weights.log().unsqueeze(-2), -1)

    @torch.no_grad()
    def quantile(self, probability: float) -> Tensor:
        """The least count y of each site with P(Y <= y) >= probability, [..., S].

        Cost: a log-probability of all components for each count up to the largest quantile.

        Raises:
            ValueError: a probability outside (0, 1), or a quantile above a million.
        """
        if not 0 < probability < 1:
            raise ValueError(
                f"Mixture.quantile: probability must be above 0 and below 1, got {probability!r}."
            )
        mean = self.mean
        found = torch.full_like(mean, torch.nan)
        cdf = torch.zeros(mean.shape, dtype=torch.float64, device=mean.device)
        weights = self.weights.unsqueeze(-1)
        for count in range(1_000_001):
            value = torch.full((), float(count), dtype=mean.dtype, device=mean.device)
            pmf = (weights * self.components.log_prob(value).exp()).sum(-2, dtype=torch.float64)
            cdf += pmf
            found = torch.where(found.isnan() & (cdf >= probability), value, found)
            if not bool(found.isnan().any()):
                return found
        raise ValueError(
            "Mixture.quantile: probability must have a quantile of at most a million, got "
            f"{probability!r} for means up to {mean.max().item():g}."
        )

    def _parts(self):
        for index in range(self.weights.shape[-1]):
            yield _with_parameters(self.components, lambda p, i=index: p[..., i, :])


def _with_parameters(components: Component, change: Callable[[Tensor], Tensor]) -> Component:
    """The same distribution with every parameter [..., L, S] changed; those of one value for all
    are written out first."""
    shape = components.mean.shape

    def changed(distribution: Component) -> Component:
        fields = {}
        for field in dataclasses.fields(distribution):
            value = getattr(distribution, field.name)
            fields[field.name] = (
                change(value.expand(shape)) if isinstance(value, Tensor) else changed(value)
            )
        return type(distribution)(**fields)

    return changed(components)
