"""Counts of independent sites, each a mixture of the same kind of components with its own
weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Poisson

from topreach._C import Forecast
from topreach.distributions.forecast import CountForecast
from topreach.ops import draw_key


@dataclass(frozen=True)
class TruncatedNormal:
    """N(loc, scale²) given that it is positive: a component of `SiteMixture`.

    Args:
        loc: μ >= 0, the mode; scale: σ > 0. Of any shape that broadcasts to the mixture's logits.
    """

    loc: Tensor
    scale: Tensor


@dataclass(frozen=True)
class SiteMixture(CountForecast):
    """p(y_s) = Σ_l w_sl p_l(y_s), w_s = softmax(logits_s), independent over sites [D25 Eq. 14, 17].

    Every site draws its own component. If all sites of a row share the component, use `Mixture`.

    Args:
        logits: [..., S, L], float32 or float64.
        components: `TruncatedNormal` or `torch.distributions.Poisson`, with parameters that
            broadcast to the shape of logits: [..., 1, L] if sites share them.

    `tr.expected_ratio_ranking` of it is exact, without samples, for both kinds of components.

    Raises:
        TypeError: another kind of components.
        ValueError: parameters that do not broadcast to logits.

    Example:
        >>> rate = torch.tensor([1.0, 20.0])
        >>> counts = SiteMixture(torch.randn(5, 2), torch.distributions.Poisson(rate))
        >>> counts.sample(100).shape, counts.mean.shape
        (torch.Size([100, 5]), torch.Size([5]))
    """

    logits: Tensor
    components: TruncatedNormal | Poisson

    def __post_init__(self):
        shape = self.logits.shape
        if len(shape) < 2:
            raise ValueError(f"SiteMixture: logits must have shape [..., S, L], got {tuple(shape)}")
        for parameter in self.parameters[1:]:
            if parameter is None:
                continue
            if torch.broadcast_shapes(shape, parameter.shape) != shape:
                raise ValueError(
                    "SiteMixture: the components' parameters must broadcast to the shape of "
                    f"logits, {tuple(shape)}, got {tuple(parameter.shape)}"
                )

    @property
    def parameters(self) -> tuple[str, Tensor, Tensor | None]:
        """Family and parameters of the components, as the operators take them."""
        if isinstance(self.components, TruncatedNormal):
            return "truncated_normal", self.components.loc, self.components.scale
        if isinstance(self.components, Poisson):
            return "poisson", self.components.rate, None
        raise TypeError(
            "SiteMixture: components must be TruncatedNormal or torch.distributions.Poisson, got "
            f"{type(self.components).__name__}"
        )

    def _forecast(self) -> Forecast:
        family, first, second = self.parameters
        return Forecast.site_mixture(family, self.logits, first, second)

    @property
    def mean(self) -> Tensor:
        """Σ_l w_sl E_l[y], [..., S]; E_l = μ + σ φ(μ/σ)/Φ(μ/σ) for a truncated normal."""
        return self._moments()[0]

    @property
    def variance(self) -> Tensor:
        """[..., S]."""
        return self._moments()[1]

    def _moments(self) -> tuple[Tensor, Tensor]:
        family, first, second = self.parameters
        return torch.ops.topreach.site_mixture_moments(family, self.logits, first, second)

    def sample(
        self,
        num_samples: int,
        *,
        generator: torch.Generator | None = None,
        key: Tensor | None = None,
        row_offset: int = 0,
    ) -> Tensor:
        """Draw [M, ..., S], without gradient, by inversion; each probability is right to 1e-7.

        Draws of truncated normals are positive reals. Draws of Poissons are whole counts, and need
        a table of (rates) × (largest rate) doubles.

        Args:
            num_samples: M.
            generator: torch generator to draw the key from.
            key: int64 [2] from `draw_key`, instead of a generator. Draw m of a site depends on its
                parameters and (key, row_offset + row, site, m) alone; rows are the leading indices,
                flattened.
            row_offset: global number of the first row.

        Raises:
            ValueError: loc negative, scale or rate not positive, or one that is not finite (CPU).
        """
        if key is None:
            key = draw_key(generator, self.logits.device)
        family, first, second = self.parameters
        return torch.ops.topreach.site_mixture_sample(
            family, self.logits, first, second, num_samples, key, row_offset
        )

    def site_log_prob(self, value: Tensor) -> Tensor:
        """log p(value), elementwise: value [..., S], or samples [M, ..., S]; −inf below 0.

        A density for truncated normals. For Poissons value need not be whole (Γ interpolates).
        Differentiable in the parameters; finite throughout the range of float32 or float64.
        """
        family, first, second = self.parameters
        return torch.ops.topreach.site_mixture_log_prob(family, value, self.logits, first, second)

    log_prob = site_log_prob  # as in torch: sites are independent
