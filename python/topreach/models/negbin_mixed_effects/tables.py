"""Tables of a fit: coefficients, variance parameters, effects of the sites."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from topreach.models import marginal_fit
from topreach.models.marginal_fit import MarginalFit
from topreach.models.negbin_mixed_effects.likelihood import (
    factor,
    inverse_pairs,
    loading,
    marginal,
    path_steps,
)
from topreach.models.negbin_mixed_effects.mixed_effects import MixedEffects
from topreach.models.negbin_mixed_effects.names import unpack

SLOPE_ROWS = ("sd(slope)", "cor")


def fitted(model: MixedEffects, method: str, level: float = 0.5) -> MarginalFit:
    """The result of `fit`."""
    if not hasattr(model, "fit_"):
        raise ValueError(
            f"NegBinMixedEffects.{method}: the model must have been fitted by its own fit "
            "method, got one that was not. Call model.fit(x, y, time)."
        )
    if not 0 < level < 1:
        raise ValueError(
            f"NegBinMixedEffects.{method}: level must be above 0 and below 1, got {level!r}."
        )
    return model.fit_


def fitted_data(model: MixedEffects, method: str) -> tuple[MarginalFit, dict[str, Any]]:
    """The result of `fit`, and its arguments."""
    fit = fitted(model, method)
    if fit.data is None:
        raise ValueError(
            f"NegBinMixedEffects.{method}: the counts of the fit must be at hand, got a fit "
            "restored from a file, which does not hold them. Call model.fit(x, y, time) again."
        )
    return fit, fit.data


def has_slopes(model: MixedEffects) -> bool:
    return model.config.get("site_slopes") != "none"


def path_row(model: MixedEffects) -> str:
    return "sd(step)" if model.config.get("site_path") == "random_walk" else "sd(path)"


def errors_of(variance: Tensor) -> Tensor:
    """Standard errors; NaN where nothing was estimated."""
    return torch.where(variance > 0, variance, torch.nan).sqrt()


def coefficients(model: MixedEffects, level: float) -> pd.DataFrame:
    fit = fitted(model, "coefficients", level)
    jacobian, names = _fixed_effects(model)
    variance = jacobian @ fit.covariance @ jacobian.T
    errors = errors_of(variance.diagonal())
    return marginal_fit.wald_table(names, jacobian @ fit.estimate, errors, level, tests=True)


def variance_parameters(model: MixedEffects, level: float) -> pd.DataFrame:
    fit = fitted(model, "variance_parameters", level)
    index = {name: i for i, name in enumerate(fit.names)}
    tables = []
    for row, name, scale in (
        ("sd(intercept)", "raw_sigma[0]", nn.functional.softplus),
        ("sd(slope)", "raw_sigma[1]", nn.functional.softplus),
        ("cor", "raw_rho", torch.tanh),
        (path_row(model), "raw_path_sigma", nn.functional.softplus),
        ("cor(path)", "raw_path_rho", torch.sigmoid),
        ("phi", "raw_probs", torch.exp),
        ("size", "raw_size", torch.exp),
        ("zero_prob", "raw_zero_probs", torch.sigmoid),
    ):
        if name not in index or (row in SLOPE_ROWS and not has_slopes(model)):
            continue
        at = index[name]
        variance = fit.covariance[at, at]
        if name in fit.held:
            variance = torch.full((), torch.nan, dtype=torch.float64)
        tables.append(
            marginal_fit.wald_table(
                [row],
                fit.estimate[at : at + 1],
                errors_of(variance[None]),
                level,
                tests=False,
                scale=scale,
            )
        )
    return pd.concat(tables)


def random_effects(model: MixedEffects) -> pd.DataFrame:
    fit, data = fitted_data(model, "random_effects")
    parameters = unpack(model, fit.estimate)
    _, modes, precision = marginal(model, parameters, data)
    root = factor(parameters)
    effects = modes[:, :2] @ root.T
    spread = root @ torch.linalg.cholesky(inverse_pairs(precision[:, :3]))
    errors = spread.square().sum(-1).sqrt()
    return pd.DataFrame(
        {
            "intercept": effects[:, 0].numpy(),
            "slope": effects[:, 1].numpy(),
            "se_intercept": errors[:, 0].numpy(),
            "se_slope": errors[:, 1].numpy(),
        },
        index=pd.Index(data["site_ids"], name="site"),
    )


def path_effects(model: MixedEffects) -> pd.DataFrame:
    fit, data = fitted_data(model, "path_effects")
    if "site_path" not in model.config:
        raise ValueError(
            "NegBinMixedEffects.path_effects: site_path must be 'ar1' or 'random_walk', got None."
        )
    parameters = unpack(model, fit.estimate)
    _, modes, precision = marginal(model, parameters, data)
    variance = torch.ops.topreach.laplace_path_posterior(
        precision[:, 3:],
        loading(parameters, data["time"]),
        path_steps(model, parameters, data),
        torch.zeros_like(modes),
    )[1]
    index = pd.MultiIndex.from_product(
        (data["site_ids"], data["time"].tolist()), names=("site", "time")
    )
    return pd.DataFrame(
        {
            "effect": modes[:, 2:].flatten().numpy(),
            "se_effect": variance.clamp_min(0).sqrt().flatten().numpy(),
        },
        index=index,
    )


def _fixed_effects(model: MixedEffects) -> tuple[Tensor, list[str]]:
    """The matrix from parameters to reported coefficients, and their names."""
    fit = model.fit_
    rows = ["intercept"] + [n for n in fit.names if n.startswith("weight[")]
    jacobian = torch.zeros(len(rows), len(fit.names), dtype=torch.float64)
    for row, name in enumerate(rows):
        jacobian[row, fit.names.index(name)] = 1.0
    if "raw_probs" in fit.names and model.config["link"] == "log":
        jacobian[0, fit.names.index("raw_probs")] = 1.0
    return jacobian, ["(Intercept)", *fit.feature_names]
