"""Reports of a fitted model: tables, summary, predictions with their uncertainty."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from torch import Tensor

from topreach.distributions.mixture import Mixture
from topreach.models.marginal_fit import MarginalFit
from topreach.models.negbin_mixed_effects import tables
from topreach.models.negbin_mixed_effects.forecast_check import ForecastCheck, check_forecast
from topreach.models.negbin_mixed_effects.mixed_effects import MixedEffects
from topreach.models.negbin_mixed_effects.names import parameter_names
from topreach.models.negbin_mixed_effects.predictive import predictive as draw_predictive
from topreach.models.negbin_mixed_effects.summary import Summary
from topreach.models.negbin_mixed_effects.summary import summary as summarise


class FitReports(MixedEffects):
    """Methods of `NegBinMixedEffects` that read its fit, `fit_`."""

    def fit_state(self) -> dict[str, Any] | None:
        """The parts of a fit that `summary`, `coefficients` and `variance_parameters` read, as
        plain numbers, strings, lists and dictionaries, for a file. It does not hold the counts of
        the fit. None for a model that was not fitted by `fit`."""
        return self.fit_.state() if hasattr(self, "fit_") else None

    def set_fit_state(self, state: dict[str, Any] | None) -> None:
        """Restore the result of `fit_state`. `random_effects`, `path_effects` and `predictive` also
        need the counts, and raise an error without them.

        Raises:
            ValueError: names that are not those of this model's parameters.
        """
        if state is None:
            return
        fit = MarginalFit.from_state(state)
        if fit.names != parameter_names(self):
            raise ValueError(
                "NegBinMixedEffects.set_fit_state: names must be those of the model's parameters, "
                f"{parameter_names(self)}, got {fit.names}."
            )
        self.fit_ = fit

    def coefficients(self, level: float = 0.95) -> pd.DataFrame:
        """The fixed effects: Estimate, Std. Error, z value, Pr(>|z|) and a Wald interval.

        Under the log link "(Intercept)" is the intercept of the family's log mean, so b0 + logit q
        for "nb1"; under softplus it is that of η. Errors come from the observed information of the
        marginal likelihood; they are NaN for parameters that were held.
        """
        return tables.coefficients(self, level)

    def variance_parameters(self, level: float = 0.95) -> pd.DataFrame:
        """σ and ρ of the site effects, those of their paths, the dispersion and the chance of an
        extra zero.

        Columns Estimate, Std. Error (delta method) and a Wald interval, formed on the unconstrained
        scale and taken to the natural one. Rows "sd(intercept)", "sd(slope)", "cor"; with a path
        "sd(path)" and "cor(path)" of neighbouring periods ("ar1") or "sd(step)" from one to the
        next ("random_walk"); and, if the family has them, "phi" (nb1: variance m (1 + φ)), "size"
        (nb2: m + m²/size), "zero_prob".
        """
        return tables.variance_parameters(self, level)

    def random_effects(self) -> pd.DataFrame:
        """Conditional modes of the site effects given the fitted parameters, by site: intercept,
        slope, and their standard errors (se_intercept, se_slope) from the inverse of the observed
        information about them."""
        return tables.random_effects(self)

    def path_effects(self) -> pd.DataFrame:
        """Conditional modes of the sites' paths given the fitted parameters, by site and time of
        the fit: effect, and its standard error (se_effect) from the inverse of the observed
        information about effects and path.

        Raises:
            ValueError: a model without `site_path`, or one that is not fitted.
        """
        return tables.path_effects(self)

    def summary(self) -> Summary:
        """The fit in the form that R's glmmTMB prints. `print` it, or show it in a notebook."""
        return summarise(self)

    def check_forecast(
        self, x: Tensor, time: Tensor, exposure: Tensor | None = None
    ) -> ForecastCheck:
        """Totals over the sites expected for features x [T, S, P] at times [T], beside the range of
        the fitted periods' totals; with an exposure [T, S], of their totals per unit of it.

        Raises:
            ValueError: a model that was not fitted by `fit`; exposure given to only one of fit and
                forecast.
        """
        return check_forecast(self, x, time, exposure)

    def predictive(
        self,
        x: Tensor,
        time: Tensor,
        num_draws: int = 200,
        *,
        exposure: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Mixture:
        """Counts predicted with the uncertainty of parameters and site effects, for any periods.

        Each of L draws takes the parameters from N(θ̂, I⁻¹), I the observed information of the
        marginal likelihood (unconstrained scale), and then each site's effects from the normal
        approximation to their distribution given those parameters and the counts of the fit. With a
        `site_path` the whole path is drawn, through the fitted times and on to those of `time`: the
        further ahead, the more uncertain. Sites are independent given the draw, so that
        `tr.expected_ratio_ranking` of it is exact for the L draws.

        If the sites' effects are uncertain, E[y_s / Σ y] is no longer ordered like E[y_s]: the mean
        of a site with an uncertain rate comes mostly from a few large draws, in which Σ y is large
        too. Without the uncertainty both orders agree for "nb1" and Poisson.

        Args:
            x: features [T', S, P] of the periods to predict.
            time: [T'], on the scale of the fit; beyond it the sites' slopes are damped, see
                `site_slopes`.
            num_draws: L.
            exposure: [T', S] or None, as in the fit.
            generator: to draw with; torch's own if None.

        Returns:
            `Mixture` with components [T', L, S], in the dtype of the parameters.
        """
        return draw_predictive(self, x, time, num_draws, exposure, generator)
