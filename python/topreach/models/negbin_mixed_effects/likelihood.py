"""The model's marginal likelihood, by the operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from topreach.models.negbin_mixed_effects.names import DISPERSIONS

if TYPE_CHECKING:
    from topreach.models.negbin_mixed_effects.mixed_effects import MixedEffects


def marginal(
    model: MixedEffects, parameters: dict[str, Tensor], data: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor]:
    """(log p(y_s) [S], modes [S, 2], precision [S, 3]) of parameters in float64; with a path modes
    [S, 2 + T] and precision [S, 3 + T]."""
    dispersion = DISPERSIONS[model.config["family"]]
    return torch.ops.topreach.negbin_mixed_effects_marginal(
        data["x"],
        data["y"],
        data["time"],
        data["y_upper"],
        data["exposure"],
        data["weights"],
        parameters["intercept"],
        parameters["weight"],
        parameters["raw_sigma"],
        parameters["raw_rho"],
        None if dispersion is None else parameters[dispersion],
        parameters.get("raw_zero_probs"),
        path_steps(model, parameters, data),
        model.config["family"],
        model.config["link"],
        data["quadrature"],
    )


def path_steps(
    model: MixedEffects, parameters: dict[str, Tensor], data: dict[str, Any]
) -> Tensor | None:
    """Steps of the path [T, 2], as the operators take them."""
    if "site_path" not in model.config:
        return None
    return torch.ops.topreach.negbin_mixed_effects_path_steps(
        data["time"],
        data["reference"],
        parameters["raw_path_sigma"],
        parameters.get("raw_path_rho"),
    )


def factor(parameters: dict[str, Tensor]) -> Tensor:
    """L [2, 2], lower triangular, with L Lᵀ = Σ."""
    return torch.ops.topreach.negbin_mixed_effects_factor(
        parameters["raw_sigma"], parameters["raw_rho"]
    )


def loading(parameters: dict[str, Tensor], time: Tensor) -> Tensor:
    """Rows Lᵀ (1, t), [T, 2]."""
    return torch.ops.topreach.negbin_mixed_effects_loading(
        time, parameters["raw_sigma"], parameters["raw_rho"]
    )


def inverse_pairs(precision: Tensor) -> Tensor:
    """[S, 2, 2] of the upper triangles [S, 3]."""
    a, b, c = precision.unbind(-1)
    return torch.linalg.inv(torch.stack((a, b, b, c), -1).reshape(-1, 2, 2))


def inverse_softplus(value: float) -> float:
    return torch.ops.topreach.inverse_softplus(torch.tensor(value, dtype=torch.float64)).item()
