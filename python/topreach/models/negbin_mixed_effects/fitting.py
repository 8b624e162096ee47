"""Maximum marginal likelihood: starts, limits, and the result of the search."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from topreach.data.messages import either
from topreach.models import marginal_fit
from topreach.models.marginal_fit import MarginalFit
from topreach.models.negbin_mixed_effects.data import fit_data, num_periods
from topreach.models.negbin_mixed_effects.likelihood import factor, inverse_softplus, marginal
from topreach.models.negbin_mixed_effects.mixed_effects import MixedEffects
from topreach.models.negbin_mixed_effects.names import parameter_names, shared, unpack

_NO_SIGMA = 1e-4  # a standard deviation of the effects that counts as 0


def fit(
    model: MixedEffects,
    x: Tensor,
    y: Tensor,
    time: Tensor,
    y_upper: Tensor | None,
    exposure: Tensor | None,
    weights: Tensor | None,
    feature_names: Sequence[str] | None,
    site_ids: Sequence[str] | None,
    quadrature: int,
    max_iterations: int,
) -> None:
    data = fit_data(model, "fit", x, y, time, y_upper, exposure, weights, quadrature)
    data["reference"] = data["time"]
    data = {key: value.cpu() if isinstance(value, Tensor) else value for key, value in data.items()}
    for argument, names, size in (
        ("feature_names", feature_names, model.config["num_features"]),
        ("site_ids", site_ids, model.config["num_sites"]),
    ):
        if names is not None and len(names) != size:
            raise ValueError(
                f"NegBinMixedEffects.fit: {argument} must have {size} entries, got {len(names)}."
            )
    features = list(feature_names or (f"x{p}" for p in range(model.config["num_features"])))
    data["site_ids"] = list(site_ids or range(model.config["num_sites"]))
    names = parameter_names(model)
    back, start, unit = _coordinates(model, data, features)
    held = _held(model, data)
    index = {name: i for i, name in enumerate(names)}
    at_zero = "at its boundary 0"
    least_sigma = inverse_softplus(_NO_SIGMA * unit) / unit
    limits = {index[f"raw_sigma[{i}]"]: (least_sigma, 50.0, at_zero) for i in (0, 1)}
    tied = {i: [index["raw_rho"]] for i in limits}
    limits[index["raw_rho"]] = (-6.0, 6.0, "at its boundary, -1 or 1")
    if "raw_path_sigma" in index:
        at = index["raw_path_sigma"]
        limits[at] = (least_sigma, 50.0, at_zero)
        if "raw_path_rho" in index:
            tied[at] = [index["raw_path_rho"]]
            limits[index["raw_path_rho"]] = (-8.0, 10.0, "at its boundary, 0 or 1")
    for name, least, most, meaning in (
        ("raw_probs", -12.0, 30.0, "at the boundary where the counts are Poisson"),
        ("raw_size", -30.0, 12.0, "at the boundary where the counts are Poisson"),
        ("raw_zero_probs", -12.0, 30.0, at_zero),
    ):
        if name in index:
            limits[index[name]] = (least, most, meaning)

    def objective(at: Tensor) -> tuple[float, Tensor]:
        theta = (back[0] @ at + back[1]).requires_grad_()
        value = marginal(model, unpack(model, theta), data)[0].sum()
        if not math.isfinite(value.item()):
            return math.nan, torch.zeros_like(at)
        (gradient,) = torch.autograd.grad(value, theta)
        return value.item(), back[0].T @ gradient

    best = marginal_fit.maximise(
        objective,
        start,
        held={index[name]: why for name, why in held.items()},
        limits=limits,
        tied=tied,
        names=names,
        max_iterations=max_iterations,
    )
    theta = back[0] @ best.x + back[1]
    parameters = unpack(model, theta)
    _, modes, _ = marginal(model, parameters, data)
    effects = modes[:, :2] @ factor(parameters).T
    with torch.no_grad():
        for name, value in parameters.items():
            getattr(model, name).copy_(value)
        model.site_intercept.copy_(effects[:, 0])
        if model.config["site_slopes"] != "none":
            model.site_slope.copy_(effects[:, 1])
        if "site_path" in model.config:
            model.path_time = data["time"].to(model.path_time)
            model.path_effect = modes[:, 2:].T.contiguous().to(model.path_effect)
    if model.config["site_slopes"] == "damped":
        model.set_fitted_times(data["time"][(data["weights"] > 0).any(1)])
    totals, exposed = _past(data)
    model.fit_ = MarginalFit(
        names=names,
        estimate=theta,
        covariance=back[0] @ best.covariance @ back[0].T,
        held={names[i]: why for i, why in best.held.items()},
        log_likelihood=best.value,
        num_observations=int((data["weights"] > 0).sum()),
        converged=best.converged,
        message=best.message,
        num_evaluations=best.num_evaluations,
        feature_names=features,
        quadrature=quadrature,
        past_totals=totals,
        past_exposure=exposed,
        data=data,
    )
    if not best.converged:
        said = best.message
        for p, feature in enumerate(features):
            said = said.replace(f"weight[{p}]", f"the weight of {feature!r}")
        warnings.warn(
            f"NegBinMixedEffects.fit: did not converge: {said}." + either(" See fit_.", ""),
            RuntimeWarning,
            stacklevel=3,
        )


def _past(data: dict[str, Any]) -> tuple[list[float], list[float] | None]:
    """Totals of the counts over the sites of each period seen, and of their exposure."""
    seen = data["weights"] > 0
    rows = seen.any(1)
    y = data["y"] if data["y_upper"] is None else (data["y"] + data["y_upper"]) / 2
    totals = torch.where(seen, y, 0).sum(1)[rows].tolist()
    if data["exposure"] is None:
        return totals, None
    return totals, torch.where(seen, data["exposure"], 0).sum(1)[rows].tolist()


def _coordinates(
    model: MixedEffects, data: dict[str, Any], features: list[str]
) -> tuple[tuple[Tensor, Tensor], Tensor, float]:
    """(A, c), start, unit. The search is over φ, with θ = A φ + c: in φ features are standardised,
    and the intercept is the log mean at their means. `unit` is the unit of η."""
    weights, x, y = data["weights"], data["x"], data["y"]
    seen = weights > 0
    counts = torch.where(seen, y, 0)
    upper = counts if data["y_upper"] is None else torch.where(seen, data["y_upper"], 0)
    total, exposed = ((counts + upper) / 2 * weights).sum(), weights.sum()
    if not bool(upper.sum() > 0):
        raise ValueError(
            "NegBinMixedEffects.fit: y must have a count above 0, got none: with zeros alone "
            "the likelihood has no maximum."
        )
    if data["exposure"] is not None:
        exposed = (torch.where(seen, data["exposure"], 0) * weights).sum()
    time = data["time"]
    if time.abs().max() > 100:
        raise ValueError(
            "NegBinMixedEffects.fit: time must be centred and scaled to about unit variance, "
            f"got values from {time.min():g} to {time.max():g}; pass (time - mean) / sd."
        )
    share = (weights / weights.sum()).unsqueeze(-1)
    centre = (x * share).sum((0, 1))
    spread = ((x - centre).square() * share).sum((0, 1)).sqrt()
    for p, name in enumerate(features):
        if not spread[p] > 1e-9 * (1 + centre[p].abs()):
            raise ValueError(
                f"NegBinMixedEffects.fit: x must have no constant feature, got {name!r}, which "
                f"is {centre[p]:g} throughout; leave it out."
            )
    z = ((x - centre) / spread * share.sqrt()).flatten(0, 1)
    if len(features) > 0:
        eigenvalues, vectors = torch.linalg.eigh(z.T @ z)
        if eigenvalues[0] < 1e-9 * len(features):
            share = vectors[:, 0].abs()
            among = torch.argsort(share, descending=True)
            named = [features[p] for p in among.tolist() if share[p] > 0.1 * share.max()][:6]
            raise ValueError(
                "NegBinMixedEffects.fit: x must have no feature that depends linearly on "
                f"others, got such a dependence among {', '.join(map(repr, named))}; leave one out."
            )
    names = parameter_names(model)
    index = {name: i for i, name in enumerate(names)}
    a, c = torch.eye(len(names), dtype=torch.float64), torch.zeros(len(names)).double()
    free = {name: value.requires_grad for name, value in shared(model).items()}
    start = torch.cat([value.detach().double().cpu().flatten() for value in shared(model).values()])
    # Under the softplus link η has the unit of the counts, and so have σ and the coefficients.
    mean = (total / exposed).item()
    unit = max(1.0, mean) if model.config["link"] == "softplus" else 1.0
    for name in ("raw_sigma[0]", "raw_sigma[1]", "raw_path_sigma"):
        if name in index:
            a[index[name], index[name]] = unit
            start[index[name]] /= unit
    for name, value in (
        ("raw_sigma[0]", inverse_softplus(0.5 * unit) / unit),
        ("raw_sigma[1]", inverse_softplus(0.3 * unit) / unit),
        ("raw_rho", 0.0),
        ("raw_path_sigma", inverse_softplus(0.3 * unit) / unit),
        ("raw_path_rho", 1.0),
        ("raw_probs", 0.0),
        ("raw_size", 0.5),
        ("raw_zero_probs", -2.0),
    ):
        if name in index and free[name.split("[")[0]]:
            start[index[name]] = value
    periods = num_periods(data)  # see _held
    no_sigma = inverse_softplus(_NO_SIGMA * unit) / unit
    if (periods < 2 or model.config["site_slopes"] == "none") and free["raw_sigma"]:
        start[index["raw_sigma[1]"]] = no_sigma
    if periods < 3 and free.get("raw_path_sigma"):
        start[index["raw_path_sigma"]] = no_sigma
    if free["weight"]:
        for p in range(len(features)):
            at = index[f"weight[{p}]"]
            a[at, at] = unit / spread[p]
            start[at] = 0.0
            if free["intercept"]:
                a[index["intercept"], at] = -centre[p] * unit / spread[p]
    if free["intercept"]:
        if model.config["link"] == "log":
            start[index["intercept"]] = math.log(mean)
            if "raw_probs" in index and free["raw_probs"]:
                a[index["intercept"], index["raw_probs"]] = -1.0
            elif "raw_probs" in index:
                c[index["intercept"]] = -start[index["raw_probs"]]
        else:
            a[index["intercept"], index["intercept"]] = unit
            start[index["intercept"]] = inverse_softplus(mean) / unit
    return (a, c), start, unit


def _held(model: MixedEffects, data: dict[str, Any]) -> dict[str, str]:
    """The parameters that are not searched for, and why."""
    held = {
        name: "held: it needs no gradient"
        for name in parameter_names(model)
        if not shared(model)[name.split("[")[0]].requires_grad
    }
    if model.config["site_slopes"] == "none":
        for name in ("raw_sigma[1]", "raw_rho"):
            held.setdefault(name, "the model has no slopes")
    periods = num_periods(data)
    if periods < 2:
        for name in ("raw_sigma[1]", "raw_rho"):
            held.setdefault(name, "not identified by one period")
    if periods < 3:
        for name in {"raw_path_sigma", "raw_path_rho"} & shared(model).keys():
            held.setdefault(name, "not identified by fewer than three periods")
    return held
