"""Negative binomial regression with an intercept and a slope over time for each site."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from topreach.models.negative_binomial import NegativeBinomial


class NegBinMixedEffects(nn.Module):
    """y_ts ~ NegBin(total_count μ_ts, probs q) with site effects [D25 Eq. 15 and App. E].

    η_ts = b0 + β·x_ts + b0_s + b1_s t;  μ = exp(η) (``link="log"``, the paper's text) or
    softplus(η) (``"softplus"``, its authors' code); mean count μ q / (1 − q);
    (b0_s, b1_s) ~ N(0, Σ), Σ from σ0, σ1, ρ.

    `penalty` is what is added to the negative log-likelihood for the site effects:

    ``"laplace"``
        Σ_s [½ b_sᵀ Σ⁻¹ b_s + ½ log det(I + Σ H_s)]: Laplace's approximation to minus the log marginal
        likelihood. H_s = Σ_t w_t W_ts [[1, t], [t, t²]], W = (d mean/dη)² / Var[y], tells how much
        the site's counts know about its effects; it is held constant. So b is the posterior mode
        given Σ, and Σ is fitted to what the counts support. Never negative.
    ``"map"``
        −Σ_s log N(b_s; 0, Σ) − log p(σ0²) − log p(σ1²) [Eq. 18-20], with inverse-gamma(shape 1, scale
        0.1) priors on the variances. The paper gives none, but without them the joint density of
        effects and Σ has no maximum: it grows without bound as b = 0, σ → 0, with a half-normal
        prior on σ too, whose density is finite at 0. Even so the mode shrinks Σ towards 0 as the
        sites grow in number.
    ``"paper"``
        mean_s ½ b_sᵀ Σ⁻¹ b_s, as the authors' code has it: no log|Σ|, and a mean where the prior has
        a sum. It favours large Σ and soon does not regularise at all: stop early.

    To hold Σ fixed: ``model.raw_sigma.requires_grad_(False)``, and ``raw_rho``.

    Args:
        num_sites: S.
        num_features: P.
        link: "log" or "softplus".
        penalty: "laplace", "map" or "paper".
        initial_mean: mean count that the untrained model predicts, > 0: give that of the training
            data. The rest starts at β = 0, b = 0, q = ½, σ0 = σ1 = 0.3, ρ = 0.

    Parameters, as in C++: intercept [], weight [P], site_intercept [S], site_slope [S],
    raw_probs [] (logit q), raw_sigma [2] (softplus), raw_rho [] (tanh). Scale time to about unit
    variance, so that one prior fits intercepts and slopes.

    Raises:
        ValueError: num_sites < 1, num_features < 0, initial_mean not positive, an unknown name.

    Example:
        >>> model = NegBinMixedEffects(num_sites=50, num_features=3, initial_mean=1.4)
        >>> counts = model(x, time)                   # x [T, 50, 3], time [T]
        >>> loss = -counts.log_prob(y).sum() + model.penalty(x, time)
    """

    is_probabilistic = True

    def __init__(
        self,
        num_sites: int,
        num_features: int,
        *,
        link: Literal["log", "softplus"] = "log",
        penalty: Literal["laplace", "map", "paper"] = "laplace",
        initial_mean: float = 1.0,
    ):
        super().__init__()
        name = type(self).__name__
        if num_sites < 1:
            raise ValueError(f"{name}: num_sites must be at least 1, got {num_sites}.")
        if num_features < 0:
            raise ValueError(f"{name}: num_features must not be negative, got {num_features}.")
        if link not in ("log", "softplus"):
            raise ValueError(f"{name}: link must be 'log' or 'softplus', got {link!r}.")
        if penalty not in ("laplace", "map", "paper"):
            raise ValueError(
                f"{name}: penalty must be 'laplace', 'map' or 'paper', got {penalty!r}."
            )
        initial_mean = float(initial_mean)
        if not 0 < initial_mean < math.inf:
            raise ValueError(
                f"{name}: initial_mean must be positive and finite, got {initial_mean}."
            )
        self.config: dict[str, Any] = {
            "num_sites": int(num_sites),
            "num_features": int(num_features),
            "link": link,
            "penalty": penalty,
            "initial_mean": initial_mean,
        }
        start = _inverse_softplus(initial_mean) if link == "softplus" else math.log(initial_mean)
        self.intercept = nn.Parameter(torch.tensor(start))
        self.weight = nn.Parameter(torch.zeros(num_features))
        self.site_intercept = nn.Parameter(torch.zeros(num_sites))
        self.site_slope = nn.Parameter(torch.zeros(num_sites))
        self.raw_probs = nn.Parameter(torch.tensor(0.0))
        self.raw_sigma = nn.Parameter(torch.full((2,), _inverse_softplus(0.3)))
        self.raw_rho = nn.Parameter(torch.tensor(0.0))

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value!r}" for key, value in self.config.items())

    def forward(self, x: Tensor, time: Tensor) -> NegativeBinomial:
        """Counts predicted for features x [..., S, P] and times [...]."""
        return NegativeBinomial(self._total_count(x, time), self.raw_probs)

    def penalty(
        self, x: Tensor | None = None, time: Tensor | None = None, weights: Tensor | None = None
    ) -> Tensor:
        """The penalty of the site effects, a scalar (see the class).

        Args:
            x, time: those of the counts being fitted; needed by "laplace", not read by the others.
            weights: w_t, like `time`: the weight of each period in the likelihood; 1 if None.
        """
        information = None
        if self.config["penalty"] == "laplace":
            if x is None or time is None:
                raise ValueError(
                    "NegBinMixedEffects.penalty: x and time must be given for penalty='map', got "
                    "None; pass those of the counts being fitted."
                )
            with torch.no_grad():
                information = torch.ops.topreach.negbin_mixed_effects_information(
                    self._total_count(x, time), time, self.raw_probs, weights, self.config["link"]
                )
        return torch.ops.topreach.negbin_mixed_effects_penalty(
            self.site_intercept,
            self.site_slope,
            self.raw_sigma,
            self.raw_rho,
            information,
            self.config["penalty"],
        )

    @property
    def probs(self) -> Tensor:
        """q, []."""
        return self.raw_probs.sigmoid()

    @property
    def covariance(self) -> Tensor:
        """Σ of a site's (intercept, slope), [2, 2]."""
        sigma, rho = nn.functional.softplus(self.raw_sigma), self.raw_rho.tanh()
        cross = rho * sigma[0] * sigma[1]
        return torch.stack((sigma[0] ** 2, cross, cross, sigma[1] ** 2)).reshape(2, 2)

    def _total_count(self, x: Tensor, time: Tensor) -> Tensor:
        return torch.ops.topreach.negbin_mixed_effects_total_count(
            x,
            time,
            self.intercept,
            self.weight,
            self.site_intercept,
            self.site_slope,
            self.config["link"],
        )


def _inverse_softplus(value: float) -> float:
    return value + math.log(-math.expm1(-value))
