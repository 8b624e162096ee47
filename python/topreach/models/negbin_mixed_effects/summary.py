"""The fit in the form that R's glmmTMB prints."""

from __future__ import annotations

from topreach.models import marginal_fit
from topreach.models.negbin_mixed_effects.mixed_effects import MixedEffects
from topreach.models.negbin_mixed_effects.names import R_FAMILIES, SITE_PATHS
from topreach.models.negbin_mixed_effects.tables import (
    coefficients,
    errors_of,
    fitted,
    has_slopes,
    path_row,
    variance_parameters,
)


class Summary(str):
    """Text that a session shows as `print` does, without quotes."""

    def __repr__(self) -> str:
        return str(self)


def summary(model: MixedEffects) -> Summary:
    fit = fitted(model, "summary")
    config = model.config
    family, link = R_FAMILIES[config["family"]], config["link"]
    lines = [f" Family: {family}  ( {link} )"]
    if config["zero_inflation"]:
        lines.append(" Zero inflation: constant  ( logit )")
    residual = fit.num_observations - fit.num_parameters
    lines += [
        "",
        *marginal_fit.aligned(
            ["", ""],
            ["AIC", f"{fit.aic:.1f}"],
            ["BIC", f"{fit.bic:.1f}"],
            ["logLik", f"{fit.log_likelihood:.1f}"],
            ["-2*log(L)", f"{-2 * fit.log_likelihood:.1f}"],
            ["df.resid", str(residual)],
        ),
    ]
    table = variance_parameters(model, 0.95)["Estimate"]
    slopes = has_slopes(model)
    sd = table[["sd(intercept)", "sd(slope)"] if slopes else ["sd(intercept)"]].tolist()
    lines += ["", "Random effects:", "", "Conditional model:"]
    groups, parts, correlations = ["site"], ["(Intercept)"], [""]
    if slopes:
        groups, parts = ["site", ""], ["(Intercept)", "time"]
        correlations.append("NA" if "raw_rho" in fit.held else f"{table['cor']:.2f}")
    if "site_path" in config:
        groups, parts = [*groups, "site.1"], [*parts, path_row(model)[3:-1]]
        sd.append(table[path_row(model)])
        number = "NA" if "raw_path_rho" in fit.held else f"{table.get('cor(path)', 1):.2f}"
        correlations.append(f"{number} ({SITE_PATHS[config['site_path']]})")
    lines += marginal_fit.aligned(
        ["Groups", *groups],
        ["Name", *parts],
        ["Variance", *(f"{value**2:.5g}" for value in sd)],
        ["Std.Dev.", *(f"{value:.5g}" for value in sd)],
        ["Corr", *correlations],
    )
    if fit.quadrature > 1:
        lines.append(f"Adaptive Gauss-Hermite quadrature, {fit.quadrature} nodes in each effect")
    lines.append(f"Number of obs: {fit.num_observations}, groups:  site, {config['num_sites']}")
    for row, text in (
        ("phi", f"Dispersion parameter for {family} family (): "),
        ("size", f"Dispersion parameter for {family} family (): "),
    ):
        if row in table:
            lines += ["", f"{text}{table[row]:.3g}"]
    fixed = coefficients(model, 0.95)
    lines += ["", "Conditional model:", *marginal_fit.coefficient_lines(fixed)]
    small = fixed["Pr(>|z|)"].min()
    if config["zero_inflation"]:
        at = fit.names.index("raw_zero_probs")
        error = errors_of(fit.covariance[at, at][None])
        zero = marginal_fit.wald_table(
            ["(Intercept)"], fit.estimate[at : at + 1], error, 0.95, tests=True
        )
        lines += ["", "Zero-inflation model:", *marginal_fit.coefficient_lines(zero)]
        small = min(small, zero["Pr(>|z|)"].min())
    if small < 0.1:
        lines += ["---", marginal_fit.SIGNIFICANCE]
    notes = [
        f"{name}: {why}"
        for name, why in fit.held.items()
        if slopes or name not in ("raw_sigma[1]", "raw_rho")
    ]
    if not fit.converged:
        notes.append(f"NOT CONVERGED: {fit.message}")
    if notes:
        lines += ["", *notes]
    return Summary("\n".join(lines))
