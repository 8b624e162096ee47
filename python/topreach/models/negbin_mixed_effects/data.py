"""The arguments of a fit: checked, and in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from topreach.models.negbin_mixed_effects.mixed_effects import MixedEffects


def fit_data(
    model: MixedEffects,
    method: str,
    x: Tensor,
    y: Tensor,
    time: Tensor,
    y_upper: Tensor | None,
    exposure: Tensor | None,
    weights: Tensor | None,
    quadrature: int = 1,
) -> dict[str, Any]:
    """The arguments checked, in float64; weights written out as [T, S]; `reference`, the times
    whose median gap is one period of a path."""
    name = f"NegBinMixedEffects.{method}"
    sites, features = model.config["num_sites"], model.config["num_features"]
    if x.ndim != 3 or tuple(x.shape[1:]) != (sites, features):
        raise ValueError(
            f"{name}: x must have shape [T, S, P] with S = {sites} and P = {features}, got "
            f"{list(x.shape)}."
        )
    shape = x.shape[:2]
    if time.shape != shape[:1]:
        raise ValueError(f"{name}: time must have shape [{shape[0]}], got {list(time.shape)}.")
    if weights is not None and weights.shape == shape[:1]:
        weights = weights.unsqueeze(-1).expand(shape)
    for argument, value in (
        ("y", y),
        ("y_upper", y_upper),
        ("exposure", exposure),
        ("weights", weights),
    ):
        if value is not None and value.shape != shape:
            raise ValueError(
                f"{name}: {argument} must have shape [T, S] = {list(shape)}, got "
                f"{list(value.shape)}."
            )
    for argument, value in (("x", x), ("time", time)):
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name}: {argument} must be finite, got NaN or infinity in it.")
    if "site_path" in model.config and bool((time.diff() < 0).any()):
        raise ValueError(
            f"{name}: time must not decrease, for a path goes from each period to the next, got "
            f"{time.tolist()[:10]}; sort the periods."
        )
    if weights is not None and not bool((torch.isfinite(weights) & (weights >= 0)).all()):
        raise ValueError(
            f"{name}: weights must be finite and not negative, got values down to "
            f"{weights.min().item():g}."
        )

    fitted = getattr(model, "path_time", None)

    def double(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.detach().double()

    return {
        "quadrature": quadrature,
        "x": double(x),
        "y": double(y),
        "time": double(time),
        "y_upper": double(y_upper),
        "exposure": double(exposure),
        "weights": torch.ones_like(y, dtype=torch.float64) if weights is None else double(weights),
        "reference": double(time if fitted is None or fitted.numel() == 0 else fitted),
    }


def num_periods(data: dict[str, Any]) -> int:
    """Times that differ and have counts."""
    return len(torch.unique(data["time"][(data["weights"] > 0).any(1)]))


def with_times(data: dict[str, Any], time: Tensor) -> tuple[dict[str, Any], Tensor]:
    """The data of a fit with further periods at `time` [T'] without counts, and their rows."""
    times = torch.cat((data["time"], time))
    order = torch.argsort(times, stable=True)
    added = {"time": times[order]}
    for key, value in data.items():
        if key in ("x", "y", "y_upper", "exposure", "weights") and value is not None:
            empty = value.new_full((len(time), *value.shape[1:]), float(key == "exposure"))
            added[key] = torch.cat((value, empty))[order]
    return data | added, torch.argsort(order)[len(data["time"]) :]
