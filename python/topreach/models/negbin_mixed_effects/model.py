"""The model: its parameters and its prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from topreach.models.negbin_mixed_effects import fitting, likelihood
from topreach.models.negbin_mixed_effects.data import fit_data
from topreach.models.negbin_mixed_effects.names import (
    DISPERSIONS,
    SITE_PATHS,
    SITE_SLOPES,
    unpack,
)
from topreach.models.negbin_mixed_effects.reports import FitReports


class NegBinMixedEffects(FitReports):
    """Counts y_ts of a family with mean m_ts, and effects of each site [D25 Eq. 15 and App. E].

    η_ts = b0 + β·x_ts + b0_s + b1_s t;  μ = exposure · f(η), f = exp (``link="log"``, the paper's
    text) or softplus (``"softplus"``, its authors' code);  (b0_s, b1_s) ~ N(0, Σ), Σ from σ0, σ1,
    ρ.

    =========== ================================ ============= ==========================
    `family`    y                                mean m        variance
    =========== ================================ ============= ==========================
    ``nb1``     NegBin(total_count μ, probs q)   μ q / (1 − q) m (1 + φ), φ = q / (1 − q)
    ``nb2``     NegBin(total_count size, mean μ) μ             m + m² / size
    ``poisson`` Poisson(μ)                       μ             m
    =========== ================================ ============= ==========================

    The paper uses ``nb1``.

    With `zero_inflation` a count is 0 with chance π, and else from the family.

    **Effects that vary over time.** With `site_path`, each site's path a_ts is added to η_ts. It is
    a Gaussian process, independent between sites (Harvey 1989; as in glmmTMB's
    ``ar1(time + 0 | site)``):

    =============== ==================================================== ==========================
    `site_path`     a_ts                                                 expected d periods later
    =============== ==================================================== ==========================
    ``ar1``         mean 0, sd σa, correlation φ^d of times d apart      φ^d a_ts: it fades
    ``random_walk`` 0 at first, increments of variance σa² d             a_ts: it stays
    =============== ==================================================== ==========================

    Distances d are in periods: one is the median gap of the fitted times, which may be irregular.
    0 < φ < 1, so that φ^d is defined for every d. `fit` integrates the paths out like the other
    effects. The model then predicts with the conditional modes of the paths at the fitted times
    and, at later times and in between, with their expectation given those modes.

    **Beyond the fitted times.** If a slope on the log scale goes on for ever, forecasts explode.
    With `site_slopes` "damped" (the default), a slope counts h periods after the last fitted time
    as if d + d² + … + d^h = d (1 − d^h) / (1 − d) periods had passed, d = `slope_damping` (Gardner
    and McKenzie 1985). "linear" lets it go on, "none" is a model without slopes. `check_forecast`
    compares the expected totals with those of the past. docs/mixed-effects.md says why d = ¼.

    **Fitting.** `fit` maximises the marginal likelihood of (b0, β, Σ, dispersion, π), the effects
    integrated out by Laplace's approximation or by adaptive quadrature, both with an exact
    gradient, and sets the effects to their conditional modes. It gives standard errors, intervals,
    `summary` and `predictive`. (The joint density of effects and Σ has no maximum: it grows without
    bound as b = 0, σ → 0.)

    For training by steps, with a decision in the loss, effects are parameters like the others. Then
    `penalty` is added to the negative log-likelihood for them:

    ``"laplace"``
        Σ_s [½ b_sᵀ Σ⁻¹ b_s + ½ log det(I + Σ H_s)]. With −log p(y | b) it is minus the log marginal
        likelihood by Laplace's approximation, if b is the mode. The information of the site's
        counts about its effects, H_s = Σ_t w_t W_ts [[1, t], [t, t²]], W = (d mean/dη)² / Var[y],
        is held constant. So b is the posterior mode given Σ, and Σ is fitted to the counts. Never
        negative. It allows minibatches of periods, and DAML can move one site's effects, which
        `fit` cannot.
    ``"map"``
        −Σ_s log N(b_s; 0, Σ) − log p(σ0²) − log p(σ1²) [Eq. 18-20], with inverse-gamma(shape 1,
        scale 0.1) priors on the variances. The paper gives no priors, but without them there is no
        mode. A half-normal prior on σ, whose density is finite at 0, does not give one either. Even
        with these priors, the mode shrinks Σ towards 0 as the number of sites grows.
    ``"paper"``
        mean_s ½ b_sᵀ Σ⁻¹ b_s, as in the authors' code: no log|Σ|, and a mean where the prior has a
        sum. It favours large Σ and soon does not regularise at all: stop early.

    To hold Σ fixed: ``model.raw_sigma.requires_grad_(False)``, and ``raw_rho``. `fit` also leaves
    parameters unchanged that do not require a gradient.

    Args:
        num_sites: S.
        num_features: P.
        family: "nb1", "nb2" or "poisson".
        zero_inflation: whether there are extra zeros.
        link: "log" or "softplus".
        penalty: "laplace", "map" or "paper".
        site_path: None, "ar1" or "random_walk". A model with a path can only be fitted by `fit`.
        site_slopes: "damped", "linear" or "none".
        slope_damping: d of "damped", from 0 to 1.
        slope_until, slope_period: for "damped", the last fitted time and the length of a period.
            `fit` sets them. Without them slopes go on linearly.
        initial_mean: mean count that the untrained model predicts, > 0: give that of the training
            data. The other parameters start at β = 0, b = 0, q = ½ or size = 1, π = 0.1, σ0 = σ1 =
            σa = 0.3, ρ = 0, φ = ½, a = 0.

    Parameters, float32 unless moved, as in C++: intercept [], weight [P], site_intercept [S],
    site_slope [S], raw_probs [] (logit q; "nb1") or raw_size [] (log size; "nb2"), raw_zero_probs
    [] (logit π; with zero inflation), raw_sigma [2] (softplus), raw_rho [] (tanh); with a path
    raw_path_sigma [] (softplus; σa), for "ar1" raw_path_rho [] (sigmoid; φ), and the buffers
    path_time [T] and path_effect [T, S], the fitted times and the path there. Scale time to about
    unit variance, so that one prior fits intercepts and slopes.

    Fitted attributes: fit_, a `MarginalFit`.

    Raises:
        ValueError: num_sites < 1, num_features < 0, initial_mean not positive, an unknown name.

    Example:
        >>> model = NegBinMixedEffects(num_sites=50, num_features=3).fit(x, y, time)
        >>> model.summary()
        >>> model.predictive(x_next, time_next).mean
    """

    is_probabilistic = True

    def __init__(
        self,
        num_sites: int,
        num_features: int,
        *,
        family: Literal["nb1", "nb2", "poisson"] = "nb1",
        zero_inflation: bool = False,
        link: Literal["log", "softplus"] = "log",
        penalty: Literal["laplace", "map", "paper"] = "laplace",
        site_path: Literal["ar1", "random_walk"] | None = None,
        initial_mean: float = 1.0,
        site_slopes: Literal["damped", "linear", "none"] = "damped",
        slope_damping: float = 0.25,
        slope_until: float | None = None,
        slope_period: float | None = None,
    ):
        super().__init__()
        name = type(self).__name__
        if num_sites < 1:
            raise ValueError(f"{name}: num_sites must be at least 1, got {num_sites}.")
        if num_features < 0:
            raise ValueError(f"{name}: num_features must not be negative, got {num_features}.")
        if family not in DISPERSIONS:
            raise ValueError(f"{name}: family must be 'nb1', 'nb2' or 'poisson', got {family!r}.")
        if not isinstance(zero_inflation, bool):
            raise ValueError(
                f"{name}: zero_inflation must be True or False, got {zero_inflation!r}."
            )
        if link not in ("log", "softplus"):
            raise ValueError(f"{name}: link must be 'log' or 'softplus', got {link!r}.")
        if penalty not in ("laplace", "map", "paper"):
            raise ValueError(
                f"{name}: penalty must be 'laplace', 'map' or 'paper', got {penalty!r}."
            )
        if site_path is not None and site_path not in SITE_PATHS:
            raise ValueError(
                f"{name}: site_path must be None, 'ar1' or 'random_walk', got {site_path!r}."
            )
        if site_slopes not in SITE_SLOPES:
            raise ValueError(
                f"{name}: site_slopes must be 'damped', 'linear' or 'none', got {site_slopes!r}."
            )
        if not 0 <= slope_damping <= 1:
            raise ValueError(f"{name}: slope_damping must be from 0 to 1, got {slope_damping!r}.")
        initial_mean = float(initial_mean)
        start = torch.ops.topreach.negbin_mixed_effects_start(initial_mean, link, zero_inflation)
        intercept, zero_logit, raw_sigma, raw_path_sigma = start.float().unbind()
        self.config = {
            "num_sites": int(num_sites),
            "num_features": int(num_features),
            "family": family,
            "zero_inflation": zero_inflation,
            "link": link,
            "penalty": penalty,
            "initial_mean": initial_mean,
            "site_slopes": site_slopes,
            "slope_damping": float(slope_damping),
        }
        if slope_until is not None and slope_period is not None:
            self.config |= {"slope_until": float(slope_until), "slope_period": float(slope_period)}
        if site_path is not None:
            self.config["site_path"] = site_path

        def zeros(*shape: int) -> Tensor:  # float32 whatever torch's default type is
            return torch.zeros(shape, dtype=torch.float32)

        self.intercept = nn.Parameter(intercept.clone())
        self.weight = nn.Parameter(zeros(num_features))
        self.site_intercept = nn.Parameter(zeros(num_sites))
        self.site_slope = nn.Parameter(zeros(num_sites), requires_grad=site_slopes != "none")
        if (dispersion := DISPERSIONS[family]) is not None:
            self.register_parameter(dispersion, nn.Parameter(zeros()))
        if zero_inflation:
            self.raw_zero_probs = nn.Parameter(zero_logit.clone())
        self.raw_sigma = nn.Parameter(raw_sigma.expand(2).clone())
        self.raw_rho = nn.Parameter(zeros())
        if site_path is not None:
            self.raw_path_sigma = nn.Parameter(raw_path_sigma.clone())
            if site_path == "ar1":
                self.raw_path_rho = nn.Parameter(zeros())
            self.register_buffer("path_time", zeros(0))
            self.register_buffer("path_effect", zeros(0, num_sites))

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        """Sizes the buffers of the path to the periods of the fit that is loaded."""
        if "site_path" in self.config:
            time, effect = (state_dict.get(prefix + n) for n in ("path_time", "path_effect"))
            sites = self.config["num_sites"]
            if time is not None and effect is not None and effect.shape == (time.numel(), sites):
                self.path_time = self.path_time.new_zeros(time.shape)
                self.path_effect = self.path_effect.new_zeros(effect.shape)
                if not bool((time.diff() >= 0).all()):
                    args[-1].append(
                        f"path_time must be finite and not decrease, got {time.tolist()}"
                    )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def penalty(
        self,
        x: Tensor | None = None,
        time: Tensor | None = None,
        weights: Tensor | None = None,
        exposure: Tensor | None = None,
    ) -> Tensor:
        """The penalty of the site effects, a scalar (see the class).

        Args:
            x, time: those of the counts being fitted; needed by "laplace", not read by the others.
            weights: w_t, like `time`: the weight of each period in the likelihood; 1 if None.
            exposure: like that of `forward`.

        Raises:
            ValueError: a model with a `site_path`; no x and time for "laplace".
        """
        if "site_path" in self.config:
            raise ValueError(
                "NegBinMixedEffects.penalty: site_path must be None for training by steps, got "
                f"{self.config['site_path']!r}. Use fit, or TopKRanker(objective='marginal')."
            )
        information = None
        if self.config["penalty"] == "laplace":
            if x is None or time is None:
                raise ValueError(
                    "NegBinMixedEffects.penalty: x and time must be given for penalty='laplace', "
                    "got None; pass those of the counts being fitted."
                )
            with torch.no_grad():
                information = self._information(x, time, weights, exposure)
        return torch.ops.topreach.negbin_mixed_effects_penalty(
            self.site_intercept,
            self.site_slope,
            self.raw_sigma,
            self.raw_rho,
            information,
            self.config["penalty"],
        )

    def _information(
        self, x: Tensor, time: Tensor, weights: Tensor | None, exposure: Tensor | None
    ) -> Tensor:
        mu = self._total_count(x, time)
        counts = self._distribution(dict(self.named_parameters()), mu, exposure)
        return torch.ops.topreach.negbin_mixed_effects_information(
            mu, time, counts.mean, counts.variance, weights, self.config["link"]
        )

    # ---- the marginal likelihood -----------------------------------------------------------------

    def log_marginal(
        self,
        x: Tensor,
        y: Tensor,
        time: Tensor,
        *,
        y_upper: Tensor | None = None,
        exposure: Tensor | None = None,
        weights: Tensor | None = None,
        quadrature: int = 1,
    ) -> Tensor:
        """log p(y_s) of each site, its effects integrated out as `fit` does, [S].

        Differentiable once in all parameters but the site effects and paths, which are not read.
        Arguments as in `fit`. With a `site_path` one period is the median gap of the fitted times
        or, before there is a fit, of `time`. Source: [D25 Eq. 15], Tierney and Kadane (1986), Skaug
        and Fournier (2006).
        """
        data = fit_data(self, "log_marginal", x, y, time, y_upper, exposure, weights, quadrature)
        parameters = {name: value.double() for name, value in self.named_parameters()}
        return likelihood.marginal(self, parameters, data)[0]

    def fit(
        self,
        x: Tensor,
        y: Tensor,
        time: Tensor,
        *,
        y_upper: Tensor | None = None,
        exposure: Tensor | None = None,
        weights: Tensor | None = None,
        feature_names: Sequence[str] | None = None,
        site_ids: Sequence[str] | None = None,
        quadrature: int = 1,
        max_iterations: int = 500,
    ) -> NegBinMixedEffects:
        """Maximum marginal likelihood; sets the parameters, and the effects to their modes.

        BFGS and then Newton's method, in float64, from the mean of the counts (the present
        parameters are not read, but those with ``requires_grad=False`` are left as they are). A
        variance that runs to 0, or a dispersion to that of Poisson, is held there and `fit_.held`
        says so; `fit_.converged` says whether to trust the rest. A fit that did not converge warns.

        Args:
            x: features [T, S, P].
            y: counts [T, S].
            time: [T], centred and scaled to about unit variance; with a `site_path` from early to
                late.
            y_upper: [T, S]: if above y, the count is only known to lie in y..y_upper (a suppressed
                cell "1-9" has y = 1 and y_upper = 9); None: all counts are exact.
            exposure: [T, S] > 0, for instance the population: the mean is proportional to it.
            weights: of each period [T], or each count [T, S], >= 0; 0 leaves a count out.
            feature_names: P names for the tables; x0, x1, … if None.
            site_ids: S names; 0, 1, … if None.
            quadrature: n: 1 is Laplace's approximation. With n > 1 the effects are integrated out
                by adaptive Gauss-Hermite quadrature, n nodes in each of the two, so n² in all (Liu
                and Pierce 1994). The error vanishes as n grows, and the cost grows by n². Not with
                a `site_path`, whose integral has a dimension for every period.
            max_iterations: of both methods together.

        Returns:
            The model itself.

        Raises:
            ValueError: a `site_path` and quadrature > 1; shapes that do not agree; counts that are
                not whole; no count above 0; features that are constant or depend linearly on
                others; time far from 0, or not ascending with a `site_path`.
        """
        fitting.fit(
            self,
            x,
            y,
            time,
            y_upper,
            exposure,
            weights,
            feature_names,
            site_ids,
            quadrature,
            max_iterations,
        )
        return self

    def _marginal(
        self, parameters: dict[str, Tensor], data: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        return likelihood.marginal(self, parameters, data)

    def _unpack(self, theta: Tensor) -> dict[str, Tensor]:
        return unpack(self, theta)
