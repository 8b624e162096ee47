"""The parameters and the prediction from them, which all parts of the model use."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from topreach.distributions.negative_binomial import NegativeBinomial
from topreach.distributions.poisson import Poisson
from topreach.distributions.zero_inflated import ZeroInflated
from topreach.models.marginal_fit import MarginalFit
from topreach.models.negbin_mixed_effects import likelihood
from topreach.models.negbin_mixed_effects.names import DISPERSIONS


class MixedEffects(nn.Module):
    """The part of `NegBinMixedEffects` that predicts. `NegBinMixedEffects` makes the parameters."""

    config: dict[str, Any]
    intercept: nn.Parameter  # []
    weight: nn.Parameter  # [P]
    site_intercept: nn.Parameter  # [S]
    site_slope: nn.Parameter  # [S]
    raw_sigma: nn.Parameter  # [2]
    raw_rho: nn.Parameter  # []
    # Only some families, zero inflation and paths have these.
    raw_probs: nn.Parameter  # []
    raw_size: nn.Parameter  # []
    raw_zero_probs: nn.Parameter  # []
    raw_path_sigma: nn.Parameter  # []
    raw_path_rho: nn.Parameter  # []
    path_time: Tensor  # [T]
    path_effect: Tensor  # [T, S]
    fit_: MarginalFit  # once there is a fit

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value!r}" for key, value in self.config.items())

    def forward(
        self, x: Tensor, time: Tensor, exposure: Tensor | None = None
    ) -> NegativeBinomial | Poisson | ZeroInflated:
        """Counts predicted for features x [..., S, P], times [...] and exposure [..., S] (1 if
        None)."""
        mu = self._total_count(x, time)
        return self._distribution(dict(self.named_parameters()), mu, exposure)

    def _total_count(self, x: Tensor, time: Tensor) -> Tensor:
        return torch.ops.topreach.negbin_mixed_effects_total_count(
            x,
            self.slope_time(time),
            self.intercept,
            self.weight,
            self.site_intercept,
            self.site_slope,
            self.config["link"],
            self._path_at(time),
        )

    def slope_time(self, time: Tensor) -> Tensor:
        """The time that slopes are multiplied by: `time` itself until the last fitted one, damped
        beyond it if `site_slopes` is "damped"."""
        if self.config["site_slopes"] != "damped" or "slope_until" not in self.config:
            return time
        return torch.ops.topreach.negbin_mixed_effects_slope_time(
            time,
            self.config["slope_until"],
            self.config["slope_period"],
            self.config["slope_damping"],
        )

    def set_fitted_times(self, time: Tensor) -> None:
        """Set the times [T] that the counts were fitted to: beyond the last, slopes are damped. One
        period is the median gap between them. `fit` calls it; call it after training by steps."""
        times = torch.unique(time.detach().double())
        gap = times.diff().median().item() if len(times) > 1 else 1.0
        self.config |= {"slope_until": times[-1].item(), "slope_period": gap}

    def _path_at(self, time: Tensor) -> Tensor | None:
        if "site_path" not in self.config:
            return None
        return torch.ops.topreach.negbin_mixed_effects_path_at(
            time, self.path_time, self.path_effect, getattr(self, "raw_path_rho", None)
        )

    def _distribution(
        self, parameters: dict[str, Tensor], mu: Tensor, exposure: Tensor | None
    ) -> NegativeBinomial | Poisson | ZeroInflated:
        family = self.config["family"]
        dispersion = DISPERSIONS[family]
        first, second = torch.ops.topreach.negbin_mixed_effects_counts(
            mu, None if dispersion is None else parameters[dispersion], exposure, family
        )
        counts = Poisson(first) if family == "poisson" else NegativeBinomial(first, second)
        if self.config["zero_inflation"]:
            return ZeroInflated(counts, parameters["raw_zero_probs"].sigmoid())
        return counts

    @property
    def probs(self) -> Tensor:
        """q, [], of family "nb1"."""
        return self.raw_probs.sigmoid()

    @property
    def covariance(self) -> Tensor:
        """Σ of a site's (intercept, slope), [2, 2]."""
        root = likelihood.factor(dict(self.named_parameters()))
        return root @ root.T
