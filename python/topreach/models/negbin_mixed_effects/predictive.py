"""Predictions with the uncertainty of parameters and site effects."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from topreach.distributions.mixture import Mixture
from topreach.models.negbin_mixed_effects.data import with_times
from topreach.models.negbin_mixed_effects.likelihood import (
    factor,
    inverse_pairs,
    loading,
    marginal,
    path_steps,
)
from topreach.models.negbin_mixed_effects.mixed_effects import MixedEffects
from topreach.models.negbin_mixed_effects.names import unpack
from topreach.models.negbin_mixed_effects.tables import fitted_data


def predictive(
    model: MixedEffects,
    x: Tensor,
    time: Tensor,
    num_draws: int,
    exposure: Tensor | None,
    generator: torch.Generator | None,
) -> Mixture:
    fit, data = fitted_data(model, "predictive")
    if isinstance(num_draws, bool) or not isinstance(num_draws, int) or num_draws < 1:
        raise ValueError(
            f"NegBinMixedEffects.predictive: num_draws must be a whole number >= 1, got "
            f"{num_draws!r}."
        )
    sites, features = model.config["num_sites"], model.config["num_features"]
    if x.ndim != 3 or tuple(x.shape[1:]) != (sites, features) or time.shape != x.shape[:1]:
        raise ValueError(
            f"NegBinMixedEffects.predictive: x must have shape [T, {sites}, {features}] and "
            f"time [T], got {list(x.shape)} and {list(time.shape)}."
        )
    if (exposure is None) != (data["exposure"] is None):
        raise ValueError(
            "NegBinMixedEffects.predictive: exposure must be given as in the fit, got "
            f"{'None' if exposure is None else 'one'}."
        )
    if not bool(torch.isfinite(fit.covariance).all()):
        raise ValueError(
            "NegBinMixedEffects.predictive: the fit must have converged to a maximum with a "
            f"covariance, got none: {fit.message}."
        )
    eigenvalues, vectors = torch.linalg.eigh(fit.covariance)
    root = vectors * eigenvalues.clamp_min(0).sqrt()
    noise = torch.randn(num_draws, len(root), generator=generator, dtype=torch.float64)
    mus, draws = [], []
    x, time = x.detach().double().cpu(), time.detach().double().cpu()
    ahead, new = model.slope_time(time), None
    if "site_path" in model.config:
        data, new = with_times(data, time)
    for row in fit.estimate + noise @ root.T:
        parameters = unpack(model, row)
        effects, path = _draw_effects(model, parameters, data, generator)
        mus.append(
            torch.ops.topreach.negbin_mixed_effects_total_count(
                x,
                ahead,
                parameters["intercept"],
                parameters["weight"],
                effects[:, 0],
                effects[:, 1],
                model.config["link"],
                None if new is None else path[new],
            )
        )
        draws.append(parameters)
    like = model.intercept
    mu = torch.stack(mus, 1).to(like).clamp_min(1e-30)  # [T', L, S]; float32 may underflow
    drawn: dict[str, Tensor] = {
        name: torch.stack([draw[name] for draw in draws]).to(like)[:, None].expand_as(mu)
        for name in ("raw_probs", "raw_size", "raw_zero_probs")
        if name in draws[0]
    }
    if exposure is not None:
        exposure = exposure.unsqueeze(1).expand_as(mu)
    weights = torch.full(mu.shape[:2], 1 / num_draws).to(like)
    return Mixture(weights, model._distribution(drawn, mu, exposure))


def _draw_effects(
    model: MixedEffects,
    parameters: dict[str, Tensor],
    data: dict[str, Any],
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Effects [S, 2] and path [T, S], given the parameters and the counts; T = 0 without."""
    _, modes, precision = marginal(model, parameters, data)
    noise = torch.randn(modes.shape, generator=generator, dtype=torch.float64)
    steps = path_steps(model, parameters, data)
    if steps is None:
        root = torch.linalg.cholesky(inverse_pairs(precision))
        drawn = modes + (root @ noise.unsqueeze(-1)).squeeze(-1)
    else:
        rows = loading(parameters, data["time"])
        drawn = (
            modes
            + torch.ops.topreach.laplace_path_posterior(precision[:, 3:], rows, steps, noise)[0]
        )
    return drawn[:, :2] @ factor(parameters).T, drawn[:, 2:].T
