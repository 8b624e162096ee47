"""Counts that are zero with a chance of their own, whatever the base distribution says."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from topreach.distributions.negative_binomial import NegativeBinomial
from topreach.distributions.poisson import Poisson
from topreach.ops import draw_key, topk_noise

STREAM = 0x5A45524F  # tells the key of the structural zeros from that of the base's draws


@dataclass(frozen=True)
class ZeroInflated:
    """P(0) = π + (1 − π) P_base(0), P(y) = (1 − π) P_base(y): π is the chance of a structural zero.

    Lambert (1992), Zero-inflated Poisson regression; one independent variable per site.

    Args:
        base: the counts otherwise: `NegativeBinomial` or `Poisson`, or a torch distribution of
            counts (`torch.distributions.Poisson`, ...), with parameters [..., S].
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

    @property
    def mean(self) -> Tensor:
        """(1 − π) E_base[y], [..., S]."""
        return (1 - self.probs) * self.base.mean

    @property
    def variance(self) -> Tensor:
        """(1 − π) (Var_base[y] + π E_base[y]²), [..., S]."""
        return (1 - self.probs) * (self.base.variance + self.probs * self.base.mean.square())

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
                generator only; what the base raises.
        """
        keyed = isinstance(self.base, NegativeBinomial | Poisson)
        if not keyed and not (key is None and generator is None):
            raise ValueError(
                "ZeroInflated: key and generator must be None for a base of torch.distributions, "
                "which draws from torch's own generator; use torch.manual_seed"
            )
        if key is None:
            key = draw_key(generator, self.probs.device)
        if keyed:
            y = self.base.sample(num_samples, key=key, row_offset=row_offset)
        else:
            y = self.base.sample((num_samples,))
        sites = y.shape[-1]
        rows = y[0].numel() // max(sites, 1)
        noise = topk_noise(
            key ^ STREAM, num_samples, rows, sites, noise="gumbel", row_offset=row_offset
        )
        uniform = (-(-noise).exp()).exp().view(y.shape)  # the Gumbel distribution function
        return y.masked_fill(uniform < self.probs, 0)

    def log_prob(self, value: Tensor) -> Tensor:
        """log P(value), elementwise: value [..., S], or samples [M, ..., S]. Differentiable."""
        base = self.base.log_prob(value)
        probs, base = torch.broadcast_tensors(self.probs, base)
        zero = value == 0
        # Zeros by log P0 + log(1 + π (1/P0 − 1)), which nothing cancels in, unless 1/P0 is vast.
        near = zero & (base > -50)
        far = zero & ~near & (probs > 0)
        inflated = base + torch.log1p(probs * torch.expm1(-base.clamp_min(-50)))
        rest = base + torch.log1p(-torch.where(near, 0, probs))
        structural = torch.where(far, probs, 1).log()
        return torch.where(
            near, inflated, torch.where(far, torch.logaddexp(structural, rest), rest)
        )
