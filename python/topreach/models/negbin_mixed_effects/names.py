"""Names of families and paths, and those of a model's parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from topreach.models.negbin_mixed_effects.mixed_effects import MixedEffects

DISPERSIONS: dict[str, str | None] = {"nb1": "raw_probs", "nb2": "raw_size", "poisson": None}
SITE_PATHS = {"ar1": "ar1", "random_walk": "random walk"}  # and their names in a table
R_FAMILIES = {"nb1": "nbinom1", "nb2": "nbinom2", "poisson": "poisson"}
SITE_SLOPES = ("damped", "linear", "none")


def shared(model: MixedEffects) -> dict[str, nn.Parameter]:
    """The parameters except the site effects, in order."""
    return {
        name: value
        for name, value in model.named_parameters()
        if name not in ("site_intercept", "site_slope")
    }


def parameter_names(model: MixedEffects) -> list[str]:
    """A name for each number in these parameters: "intercept", "weight[0]", …"""
    return [
        name if value.ndim == 0 else f"{name}[{i}]"
        for name, value in shared(model).items()
        for i in range(value.numel())
    ]


def unpack(model: MixedEffects, theta: Tensor) -> dict[str, Tensor]:
    """The parameters by name, from one vector of them all."""
    parts, at = {}, 0
    for name, value in shared(model).items():
        parts[name] = theta[at : at + value.numel()].reshape(value.shape)
        at += value.numel()
    return parts
