"""Regression of counts with an intercept and a slope over time for each site."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor, nn

from topreach.distributions.mixture import Mixture
from topreach.distributions.negative_binomial import NegativeBinomial
from topreach.distributions.poisson import Poisson
from topreach.distributions.zero_inflated import ZeroInflated
from topreach.models import marginal_fit
from topreach.models.marginal_fit import MarginalFit

FAMILIES = {"nb1": "raw_probs", "nb2": "raw_size", "poisson": None}  # and their dispersion
SITE_PATHS = {"ar1": "ar1", "random_walk": "random walk"}  # and how a table calls them
_FAMILY_NAMES = {"nb1": "nbinom1", "nb2": "nbinom2", "poisson": "poisson"}  # as in R
_NO_SIGMA = 1e-4  # a standard deviation of the effects that counts as 0


class NegBinMixedEffects(nn.Module):
    """Counts y_ts of a family with mean m_ts, and effects of each site [D25 Eq. 15 and App. E].

    η_ts = b0 + β·x_ts + b0_s + b1_s t;  μ = exposure · f(η), f = exp (``link="log"``, the paper's text)
    or softplus (``"softplus"``, its authors' code);  (b0_s, b1_s) ~ N(0, Σ), Σ from σ0, σ1, ρ.

    ========== ========================================== ================ =========================
    `family`   y                                          mean m           variance
    ========== ========================================== ================ =========================
    ``nb1``    NegBin(total_count μ, probs q), the paper's μ q / (1 − q)   m (1 + φ), φ = q / (1 − q)
    ``nb2``    NegBin(total_count size, mean μ)           μ                m + m² / size
    ``poisson`` Poisson(μ)                                μ                m
    ========== ========================================== ================ =========================

    With `zero_inflation` a count is 0 with chance π, and else from the family.

    **Effects that vary over time.** With `site_path` a path a_ts of the site's own is added to η_ts,
    a Gaussian process that the sites draw independently (Harvey 1989; as in glmmTMB's
    ``ar1(time + 0 | site)``):

    =============== ==================================================== ==========================
    `site_path`     a_ts                                                 expected d periods later
    =============== ==================================================== ==========================
    ``ar1``         mean 0, sd σa, correlation φ^d of times d apart      φ^d a_ts: it fades
    ``random_walk`` 0 at first, increments of variance σa² d             a_ts: it stays
    =============== ==================================================== ==========================

    Distances d are in periods: one is the median gap of the fitted times, which may be irregular.
    0 < φ < 1, for only then has φ^d a meaning for every d. `fit` integrates the paths out like the
    other effects; the model then predicts with their conditional modes at the fitted times, and with
    what is to be expected given those at later times and between.

    **Fitting.** `fit` maximises the marginal likelihood of (b0, β, Σ, dispersion, π), the effects
    integrated out by Laplace's approximation, exact gradient and all, and sets the effects to their
    conditional modes. It gives standard errors, intervals, `summary` and `predictive`. (The joint
    density of effects and Σ has no maximum to be found: it grows without bound as b = 0, σ → 0.)

    For training by steps, with a decision in the loss, effects are parameters like the others and
    `penalty` is what is added to the negative log-likelihood for them:

    ``"laplace"``
        Σ_s [½ b_sᵀ Σ⁻¹ b_s + ½ log det(I + Σ H_s)]: minus the log marginal likelihood by Laplace, were
        b the mode. H_s = Σ_t w_t W_ts [[1, t], [t, t²]], W = (d mean/dη)² / Var[y], tells how much
        the site's counts know about its effects; it is held constant. So b is the posterior mode
        given Σ, and Σ is fitted to what the counts support. Never negative. Minibatches of periods
        are sound with it, and DAML can move one site's effects, which `fit` cannot.
    ``"map"``
        −Σ_s log N(b_s; 0, Σ) − log p(σ0²) − log p(σ1²) [Eq. 18-20], with inverse-gamma(shape 1, scale
        0.1) priors on the variances. The paper gives none, but without them there is no mode, nor
        with a half-normal prior on σ, whose density is finite at 0. Even so the mode shrinks Σ
        towards 0 as the sites grow in number.
    ``"paper"``
        mean_s ½ b_sᵀ Σ⁻¹ b_s, as the authors' code has it: no log|Σ|, and a mean where the prior has
        a sum. It favours large Σ and soon does not regularise at all: stop early.

    To hold Σ fixed: ``model.raw_sigma.requires_grad_(False)``, and ``raw_rho``; `fit` too leaves
    parameters alone that need no gradient.

    Args:
        num_sites: S.
        num_features: P.
        family: "nb1", "nb2" or "poisson".
        zero_inflation: whether there are extra zeros.
        link: "log" or "softplus".
        penalty: "laplace", "map" or "paper".
        site_path: None, "ar1" or "random_walk". A model with a path is fitted by `fit` alone.
        initial_mean: mean count that the untrained model predicts, > 0: give that of the training
            data. The rest starts at β = 0, b = 0, q = ½ or size = 1, π = 0.1, σ0 = σ1 = σa = 0.3, ρ = 0,
            φ = ½, a = 0.

    Parameters, as in C++: intercept [], weight [P], site_intercept [S], site_slope [S],
    raw_probs [] (logit q; "nb1") or raw_size [] (log size; "nb2"), raw_zero_probs [] (logit π; with
    zero inflation), raw_sigma [2] (softplus), raw_rho [] (tanh); with a path raw_path_sigma []
    (softplus; σa), for "ar1" raw_path_rho [] (sigmoid; φ), and the buffers path_time [T] and
    path_effect [T, S], the fitted times and the path there. Scale time to about unit variance, so
    that one prior fits intercepts and slopes.

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
    ):
        super().__init__()
        name = type(self).__name__
        if num_sites < 1:
            raise ValueError(f"{name}: num_sites must be at least 1, got {num_sites}.")
        if num_features < 0:
            raise ValueError(f"{name}: num_features must not be negative, got {num_features}.")
        if family not in FAMILIES:
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
        initial_mean = float(initial_mean)
        if not 0 < initial_mean < math.inf:
            raise ValueError(
                f"{name}: initial_mean must be positive and finite, got {initial_mean}."
            )
        self.config: dict[str, Any] = {
            "num_sites": int(num_sites),
            "num_features": int(num_features),
            "family": family,
            "zero_inflation": zero_inflation,
            "link": link,
            "penalty": penalty,
            "initial_mean": initial_mean,
        }
        if site_path is not None:  # without one the model file is as it was before there were paths
            self.config["site_path"] = site_path
        start = initial_mean / 0.9 if zero_inflation else initial_mean
        start = _inverse_softplus(start) if link == "softplus" else math.log(start)
        self.intercept = nn.Parameter(torch.tensor(start))
        self.weight = nn.Parameter(torch.zeros(num_features))
        self.site_intercept = nn.Parameter(torch.zeros(num_sites))
        self.site_slope = nn.Parameter(torch.zeros(num_sites))
        if FAMILIES[family] is not None:
            self.register_parameter(FAMILIES[family], nn.Parameter(torch.tensor(0.0)))
        if zero_inflation:
            self.raw_zero_probs = nn.Parameter(torch.tensor(math.log(0.1 / 0.9)))
        self.raw_sigma = nn.Parameter(torch.full((2,), _inverse_softplus(0.3)))
        self.raw_rho = nn.Parameter(torch.tensor(0.0))
        if site_path is not None:
            self.raw_path_sigma = nn.Parameter(torch.tensor(_inverse_softplus(0.3)))
            if site_path == "ar1":
                self.raw_path_rho = nn.Parameter(torch.tensor(0.0))
            self.register_buffer("path_time", torch.zeros(0))
            self.register_buffer("path_effect", torch.zeros(0, num_sites))

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        """The path of a fit is as long as its periods were many."""
        if "site_path" in self.config:
            time, effect = (state_dict.get(prefix + n) for n in ("path_time", "path_effect"))
            sites = self.config["num_sites"]
            if time is not None and effect is not None and effect.shape == (time.numel(), sites):
                self.path_time = self.path_time.new_zeros(time.shape)
                self.path_effect = self.path_effect.new_zeros(effect.shape)
                if not bool((time.diff() >= 0).all()):
                    args[-1].append(f"path_time must be finite and not decrease, got {time.tolist()}")
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value!r}" for key, value in self.config.items())

    def forward(
        self, x: Tensor, time: Tensor, exposure: Tensor | None = None
    ) -> NegativeBinomial | Poisson | ZeroInflated:
        """Counts predicted for features x [..., S, P], times [...] and exposure [..., S] (1 if
        None)."""
        mu = torch.ops.topreach.negbin_mixed_effects_total_count(
            x,
            time,
            self.intercept,
            self.weight,
            self.site_intercept,
            self.site_slope,
            self.config["link"],
            self._path_at(time),
        )
        return self._distribution(dict(self.named_parameters()), mu, exposure)

    def _path_at(self, time: Tensor) -> Tensor | None:
        if "site_path" not in self.config:
            return None
        return torch.ops.topreach.negbin_mixed_effects_path_at(
            time, self.path_time, self.path_effect, getattr(self, "raw_path_rho", None)
        )

    def _distribution(self, parameters: dict[str, Tensor], mu: Tensor, exposure: Tensor | None):
        if exposure is not None:
            if exposure.shape != mu.shape:
                raise ValueError(
                    f"NegBinMixedEffects: exposure must have shape {list(mu.shape)}, got "
                    f"{list(exposure.shape)}."
                )
            mu = mu * exposure.to(mu.dtype)
        family = self.config["family"]
        if family == "nb1":
            counts = NegativeBinomial(mu, parameters["raw_probs"])
        elif family == "nb2":
            size = parameters["raw_size"]
            counts = NegativeBinomial(size.exp().expand_as(mu), mu.log() - size)
        else:
            counts = Poisson(mu)
        if self.config["zero_inflation"]:
            return ZeroInflated(counts, parameters["raw_zero_probs"].sigmoid())
        return counts

    def penalty(
        self, x: Tensor | None = None, time: Tensor | None = None, weights: Tensor | None = None,
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
        mu = torch.ops.topreach.negbin_mixed_effects_total_count(
            x,
            time,
            self.intercept,
            self.weight,
            self.site_intercept,
            self.site_slope,
            self.config["link"],
        )
        probs = getattr(self, "raw_probs", None)
        if probs is None or exposure is not None or self.config["zero_inflation"]:
            # The operator's W is (μ'/μ)² μ q w: q = 1, and the rest of mean² / variance in w.
            counts = self._distribution(dict(self.named_parameters()), mu, exposure)
            share = counts.mean / mu * (counts.mean / counts.variance)
            weights = share if weights is None else share * weights.unsqueeze(-1)
            probs = torch.full((), math.inf, dtype=mu.dtype, device=mu.device)
        return torch.ops.topreach.negbin_mixed_effects_information(
            mu, time, probs, weights, self.config["link"]
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
    ) -> Tensor:
        """log p(y_s) of each site, its effects integrated out by Laplace's approximation, [S].

        Differentiable once in all parameters but the site effects and paths, which are not read;
        arguments as in `fit`. With a `site_path` one period is the median gap of the fitted times,
        or of these before there is a fit. Source: [D25 Eq. 15], Tierney and Kadane (1986), Skaug and
        Fournier (2006).
        """
        data = self._data("log_marginal", x, y, time, y_upper, exposure, weights)
        parameters = {name: value.double() for name, value in self.named_parameters()}
        return self._marginal(parameters, data)[0]

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
        max_iterations: int = 500,
    ) -> NegBinMixedEffects:
        """Maximum marginal likelihood; sets the parameters, and the effects to their modes.

        BFGS and then Newton's method, in float64, from the mean of the counts (the present
        parameters are not read, but those with ``requires_grad=False`` are left as they are). A
        variance that runs to 0, or a dispersion to that of Poisson, is held there and `fit_.held`
        says so; `fit_.converged` says whether to trust the rest. A fit that ended elsewhere warns.

        Args:
            x: features [T, S, P].
            y: counts [T, S].
            time: [T], centred and scaled to about unit variance; with a `site_path` from early to
                late.
            y_upper: [T, S]: where it is above y, the count is only known to lie in y..y_upper (a
                suppressed cell "1-9" has y = 1 and y_upper = 9); None: all counts are exact.
            exposure: [T, S] > 0, for instance the population: the mean is proportional to it.
            weights: of each period [T], or each count [T, S], >= 0; 0 leaves a count out.
            feature_names: P names for the tables; x0, x1, … if None.
            site_ids: S names; 0, 1, … if None.
            max_iterations: of both methods together.

        Returns:
            The model itself.

        Raises:
            ValueError: shapes that do not agree, counts that are not whole, no count above 0,
                features that are constant or depend linearly on others, time far from 0, or not
                ascending with a `site_path`.
        """
        data = self._data("fit", x, y, time, y_upper, exposure, weights)
        data["reference"] = data["time"]
        data = {key: None if value is None else value.cpu() for key, value in data.items()}
        for argument, names, size in (
            ("feature_names", feature_names, self.config["num_features"]),
            ("site_ids", site_ids, self.config["num_sites"]),
        ):
            if names is not None and len(names) != size:
                raise ValueError(
                    f"NegBinMixedEffects.fit: {argument} must have {size} entries, got "
                    f"{len(names)}."
                )
        features = list(feature_names or (f"x{p}" for p in range(self.config["num_features"])))
        data["feature_names"] = features
        data["site_ids"] = list(site_ids or range(self.config["num_sites"]))
        names = self._parameter_names()
        back, start = self._coordinates(data, features)
        held = self._held(data)
        index = {name: i for i, name in enumerate(names)}
        at_zero = "at its boundary 0"
        limits = {
            index[f"raw_sigma[{i}]"]: (_inverse_softplus(_NO_SIGMA), 50.0, at_zero) for i in (0, 1)
        }
        tied = {i: [index["raw_rho"]] for i in limits}
        limits[index["raw_rho"]] = (-6.0, 6.0, "at its boundary, -1 or 1")
        if "raw_path_sigma" in index:
            at = index["raw_path_sigma"]
            limits[at] = (_inverse_softplus(_NO_SIGMA), 50.0, at_zero)
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
            value = self._marginal(self._unpack(theta), data)[0].sum()
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
        parameters = self._unpack(theta)
        _, modes, _ = self._marginal(parameters, data)
        effects = modes[:, :2] @ _factor(parameters).T
        with torch.no_grad():
            for name, value in parameters.items():
                getattr(self, name).copy_(value)
            self.site_intercept.copy_(effects[:, 0])
            self.site_slope.copy_(effects[:, 1])
            if "site_path" in self.config:
                self.path_time = data["time"].to(self.path_time)
                self.path_effect = modes[:, 2:].T.contiguous().to(self.path_effect)
        self.fit_ = MarginalFit(
            names=names,
            estimate=theta,
            covariance=back[0] @ best.covariance @ back[0].T,
            held={names[i]: why for i, why in best.held.items()},
            log_likelihood=best.value,
            num_observations=int((data["weights"] > 0).sum()),
            converged=best.converged,
            message=best.message,
            num_evaluations=best.num_evaluations,
            data=data,
        )
        if not best.converged:
            warnings.warn(
                f"NegBinMixedEffects.fit: did not converge: {best.message}. See fit_.",
                RuntimeWarning,
                stacklevel=2,
            )
        return self

    def _data(
        self,
        method: str,
        x: Tensor,
        y: Tensor,
        time: Tensor,
        y_upper: Tensor | None,
        exposure: Tensor | None,
        weights: Tensor | None,
    ) -> dict[str, Any]:
        """The arguments checked, in float64; weights written out as [T, S]; `reference`, the times
        whose median gap is one period of a path."""
        name = f"NegBinMixedEffects.{method}"
        sites, features = self.config["num_sites"], self.config["num_features"]
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
            ("y", y), ("y_upper", y_upper), ("exposure", exposure), ("weights", weights),
        ):
            if value is not None and value.shape != shape:
                raise ValueError(
                    f"{name}: {argument} must have shape [T, S] = {list(shape)}, got "
                    f"{list(value.shape)}."
                )
        for argument, value in (("x", x), ("time", time)):
            if not bool(torch.isfinite(value).all()):
                raise ValueError(f"{name}: {argument} must be finite, got NaN or infinity in it.")

        if "site_path" in self.config and bool((time.diff() < 0).any()):
            raise ValueError(
                f"{name}: time must not decrease, for a path goes from each period to the next, got "
                f"{time.tolist()[:10]}; sort the periods."
            )
        if weights is not None and not bool((torch.isfinite(weights) & (weights >= 0)).all()):
            raise ValueError(
                f"{name}: weights must be finite and not negative, got values down to "
                f"{weights.min().item():g}."
            )

        fitted = getattr(self, "path_time", None)

        def double(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.detach().double()

        return {
            "x": double(x),
            "y": double(y),
            "time": double(time),
            "y_upper": double(y_upper),
            "exposure": double(exposure),
            "weights": torch.ones_like(y, dtype=torch.float64)
            if weights is None
            else double(weights),
            "reference": double(time if fitted is None or fitted.numel() == 0 else fitted),
        }

    def _marginal(self, parameters: dict[str, Tensor], data: dict[str, Any]):
        """(log p(y_s) [S], modes [S, 2], precision [S, 3]) of parameters in float64; with a path
        modes [S, 2 + T] and precision [S, 3 + T]."""
        dispersion = FAMILIES[self.config["family"]]
        return torch.ops.topreach.laplace_marginal(
            data["x"] @ parameters["weight"] + parameters["intercept"],
            _loading(parameters, data["time"]),
            data["y"],
            data["y_upper"],
            data["exposure"],
            data["weights"],
            None if dispersion is None else parameters[dispersion],
            parameters.get("raw_zero_probs"),
            self.config["family"],
            self.config["link"],
            self._steps(parameters, data),
        )

    def _steps(self, parameters: dict[str, Tensor], data: dict[str, Any]) -> Tensor | None:
        """Of the path [T, 2], as the operators take them."""
        if "site_path" not in self.config:
            return None
        return torch.ops.topreach.negbin_mixed_effects_path_steps(
            data["time"],
            data["reference"],
            parameters["raw_path_sigma"],
            parameters.get("raw_path_rho"),
        )

    def _shared(self) -> dict[str, nn.Parameter]:
        """The parameters but the site effects, in order."""
        return {
            name: value
            for name, value in self.named_parameters()
            if name not in ("site_intercept", "site_slope")
        }

    def _parameter_names(self) -> list[str]:
        return [
            name if value.ndim == 0 else f"{name}[{i}]"
            for name, value in self._shared().items()
            for i in range(value.numel())
        ]

    def _unpack(self, theta: Tensor) -> dict[str, Tensor]:
        parts, at = {}, 0
        for name, value in self._shared().items():
            parts[name] = theta[at : at + value.numel()].reshape(value.shape)
            at += value.numel()
        return parts

    def _coordinates(self, data: dict[str, Any], features: list[str]):
        """(A, c), start: the search is over φ, θ = A φ + c, in which features are standardised and
        the intercept is the log mean at their means."""
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
                among = torch.argsort(vectors[:, 0].abs(), descending=True)[:2].tolist()
                raise ValueError(
                    "NegBinMixedEffects.fit: x must have no feature that depends linearly on "
                    f"others, got such a dependence, most of all in {features[among[0]]!r} and "
                    f"{features[among[-1]]!r}; leave one out."
                )
        names = self._parameter_names()
        index = {name: i for i, name in enumerate(names)}
        a, c = torch.eye(len(names), dtype=torch.float64), torch.zeros(len(names)).double()
        free = {name: value.requires_grad for name, value in self._shared().items()}
        start = torch.cat(
            [value.detach().double().cpu().flatten() for value in self._shared().values()]
        )
        for name, value in (
            ("raw_sigma[0]", _inverse_softplus(0.5)),
            ("raw_sigma[1]", _inverse_softplus(0.3)),
            ("raw_rho", 0.0),
            ("raw_path_sigma", _inverse_softplus(0.3)),
            ("raw_path_rho", 1.0),
            ("raw_probs", 0.0),
            ("raw_size", 0.5),
            ("raw_zero_probs", -2.0),
        ):
            if name in index and free[name.split("[")[0]]:
                start[index[name]] = value
        periods = _num_periods(data)  # see _held
        if periods < 2 and free["raw_sigma"]:
            start[index["raw_sigma[1]"]] = _inverse_softplus(_NO_SIGMA)
        if periods < 3 and free.get("raw_path_sigma"):
            start[index["raw_path_sigma"]] = _inverse_softplus(_NO_SIGMA)
        if free["weight"]:
            for p in range(len(features)):
                at = index[f"weight[{p}]"]
                a[at, at] = 1 / spread[p]
                start[at] = 0.0
                if free["intercept"]:
                    a[index["intercept"], at] = -centre[p] / spread[p]
        if free["intercept"]:
            mean = (total / exposed).item()
            if self.config["link"] == "log":
                start[index["intercept"]] = math.log(mean)
                if "raw_probs" in index and free["raw_probs"]:
                    a[index["intercept"], index["raw_probs"]] = -1.0
                elif "raw_probs" in index:
                    c[index["intercept"]] = -start[index["raw_probs"]]
            else:
                start[index["intercept"]] = _inverse_softplus(mean)
        return (a, c), start

    def _held(self, data: dict[str, Any]) -> dict[str, str]:
        held = {
            name: "held: it needs no gradient"
            for name in self._parameter_names()
            if not self._shared()[name.split("[")[0]].requires_grad
        }
        periods = _num_periods(data)
        if periods < 2:
            for name in ("raw_sigma[1]", "raw_rho"):
                held.setdefault(name, "not identified by one period")
        if periods < 3:
            for name in {"raw_path_sigma", "raw_path_rho"} & self._shared().keys():
                held.setdefault(name, "not identified by fewer than three periods")
        return held

    # ---- what a fit tells ------------------------------------------------------------------------

    def coefficients(self, level: float = 0.95) -> pd.DataFrame:
        """The fixed effects: Estimate, Std. Error, z value, Pr(>|z|) and a Wald interval.

        "(Intercept)" is that of the log mean of the family under the log link, so b0 + logit q for
        "nb1", and that of η under softplus. Errors from the observed information of the marginal
        likelihood; NaN for what was held.
        """
        fit = self._fitted("coefficients", level)
        jacobian, names = self._fixed_effects()
        variance = jacobian @ fit.covariance @ jacobian.T
        errors = _errors(variance.diagonal())
        return marginal_fit.wald_table(
            names, jacobian @ fit.estimate, errors, level, tests=True
        )

    def variance_parameters(self, level: float = 0.95) -> pd.DataFrame:
        """σ and ρ of the site effects, those of their paths, the dispersion and the chance of an
        extra zero.

        Columns Estimate, Std. Error (delta method) and a Wald interval, formed on the unconstrained
        scale and taken to the natural one. Rows "sd(intercept)", "sd(slope)", "cor"; with a path
        "sd(path)" and "cor(path)" of neighbouring periods ("ar1") or "sd(step)" from one to the next
        ("random_walk"); and where the family has them "phi" (nb1: variance m (1 + φ)), "size" (nb2:
        m + m²/size), "zero_prob".
        """
        fit = self._fitted("variance_parameters", level)
        index = {name: i for i, name in enumerate(fit.names)}
        tables = []
        for row, name, scale in (
            ("sd(intercept)", "raw_sigma[0]", nn.functional.softplus),
            ("sd(slope)", "raw_sigma[1]", nn.functional.softplus),
            ("cor", "raw_rho", torch.tanh),
            (self._path_row(), "raw_path_sigma", nn.functional.softplus),
            ("cor(path)", "raw_path_rho", torch.sigmoid),
            ("phi", "raw_probs", torch.exp),
            ("size", "raw_size", torch.exp),
            ("zero_prob", "raw_zero_probs", torch.sigmoid),
        ):
            if name not in index:
                continue
            at = index[name]
            variance = fit.covariance[at, at]
            if name in fit.held:
                variance = torch.full((), torch.nan, dtype=torch.float64)
            tables.append(
                marginal_fit.wald_table(
                    [row], fit.estimate[at : at + 1], _errors(variance[None]), level,
                    tests=False, scale=scale,
                )
            )
        return pd.concat(tables)

    def random_effects(self) -> pd.DataFrame:
        """Conditional modes of the site effects given the fitted parameters, by site: intercept,
        slope, and their standard errors (se_intercept, se_slope) from the inverse of the observed
        information about them."""
        fit = self._fitted("random_effects", 0.5)
        parameters = self._unpack(fit.estimate)
        _, modes, precision = self._marginal(parameters, fit.data)
        factor = _factor(parameters)
        effects = modes[:, :2] @ factor.T
        spread = factor @ torch.linalg.cholesky(_inverse_pairs(precision[:, :3]))
        errors = spread.square().sum(-1).sqrt()
        return pd.DataFrame(
            {
                "intercept": effects[:, 0].numpy(),
                "slope": effects[:, 1].numpy(),
                "se_intercept": errors[:, 0].numpy(),
                "se_slope": errors[:, 1].numpy(),
            },
            index=pd.Index(fit.data["site_ids"], name="site"),
        )

    def path_effects(self) -> pd.DataFrame:
        """Conditional modes of the sites' paths given the fitted parameters, by site and time of the
        fit: effect, and its standard error (se_effect) from the inverse of the observed information
        about effects and path.

        Raises:
            ValueError: a model without `site_path`, or one that is not fitted.
        """
        fit = self._fitted("path_effects", 0.5)
        if "site_path" not in self.config:
            raise ValueError(
                "NegBinMixedEffects.path_effects: site_path must be 'ar1' or 'random_walk', got None."
            )
        parameters = self._unpack(fit.estimate)
        _, modes, precision = self._marginal(parameters, fit.data)
        variance = torch.ops.topreach.laplace_path_posterior(
            precision[:, 3:],
            _loading(parameters, fit.data["time"]),
            self._steps(parameters, fit.data),
            torch.zeros_like(modes),
        )[1]
        index = pd.MultiIndex.from_product(
            (fit.data["site_ids"], fit.data["time"].tolist()), names=("site", "time")
        )
        return pd.DataFrame(
            {
                "effect": modes[:, 2:].flatten().numpy(),
                "se_effect": variance.clamp_min(0).sqrt().flatten().numpy(),
            },
            index=index,
        )

    def _path_row(self) -> str:
        return "sd(step)" if self.config.get("site_path") == "random_walk" else "sd(path)"

    def summary(self) -> Summary:
        """The fit as R's glmmTMB prints one; `print` it, or look at it in a notebook."""
        fit = self._fitted("summary", 0.5)
        config = self.config
        family, link = _FAMILY_NAMES[config["family"]], config["link"]
        lines = [f" Family: {family}  ( {link} )"]
        if config["zero_inflation"]:
            lines.append(" Zero inflation: constant  ( logit )")
        residual = fit.num_observations - fit.num_parameters
        lines += ["", *marginal_fit.aligned(
            ["", ""],
            ["AIC", f"{fit.aic:.1f}"],
            ["BIC", f"{fit.bic:.1f}"],
            ["logLik", f"{fit.log_likelihood:.1f}"],
            ["-2*log(L)", f"{-2 * fit.log_likelihood:.1f}"],
            ["df.resid", str(residual)],
        )]
        table = self.variance_parameters()["Estimate"]
        sd = table[["sd(intercept)", "sd(slope)"]].tolist()
        lines += ["", "Random effects:", "", "Conditional model:"]
        groups, parts = ["site", ""], ["(Intercept)", "time"]
        correlations = ["", "NA" if "raw_rho" in fit.held else f"{table['cor']:.2f}"]
        if "site_path" in config:
            groups, parts = [*groups, "site.1"], [*parts, self._path_row()[3:-1]]
            sd.append(table[self._path_row()])
            number = "NA" if "raw_path_rho" in fit.held else f"{table.get('cor(path)', 1):.2f}"
            correlations.append(f"{number} ({SITE_PATHS[config['site_path']]})")
        lines += marginal_fit.aligned(
            ["Groups", *groups],
            ["Name", *parts],
            ["Variance", *(f"{value**2:.5g}" for value in sd)],
            ["Std.Dev.", *(f"{value:.5g}" for value in sd)],
            ["Corr", *correlations],
        )
        lines.append(
            f"Number of obs: {fit.num_observations}, groups:  site, {config['num_sites']}"
        )
        for row, text in (
            ("phi", f"Dispersion parameter for {family} family (): "),
            ("size", f"Dispersion parameter for {family} family (): "),
        ):
            if row in table:
                lines += ["", f"{text}{table[row]:.3g}"]
        coefficients = self.coefficients()
        lines += ["", "Conditional model:", *marginal_fit.coefficient_lines(coefficients)]
        small = coefficients["Pr(>|z|)"].min()
        if config["zero_inflation"]:
            at = fit.names.index("raw_zero_probs")
            error = _errors(fit.covariance[at, at][None])
            zero = marginal_fit.wald_table(
                ["(Intercept)"], fit.estimate[at : at + 1], error, 0.95, tests=True
            )
            lines += ["", "Zero-inflation model:", *marginal_fit.coefficient_lines(zero)]
            small = min(small, zero["Pr(>|z|)"].min())
        if small < 0.1:
            lines += ["---", marginal_fit.SIGNIFICANCE]
        notes = [f"{name}: {why}" for name, why in fit.held.items()]
        if not fit.converged:
            notes.append(f"NOT CONVERGED: {fit.message}")
        if notes:
            lines += ["", *notes]
        return Summary("\n".join(lines))

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

        Where the sites' effects are uncertain, E[y_s / Σ y] is no longer ordered like E[y_s]: a site
        of uncertain rate has a mean that a few large values carry, and in those draws Σ y is large
        too. Without the uncertainty both orders agree for "nb1" and Poisson.

        Args:
            x: features [T', S, P] of the periods to predict.
            time: [T'], on the scale of the fit; beyond it the sites' slopes go on.
            num_draws: L.
            exposure: [T', S] or None, as in the fit.
            generator: to draw with; torch's own if None.

        Returns:
            `Mixture` with components [T', L, S], in the dtype of the parameters.
        """
        fit = self._fitted("predictive", 0.5)
        if isinstance(num_draws, bool) or not isinstance(num_draws, int) or num_draws < 1:
            raise ValueError(
                f"NegBinMixedEffects.predictive: num_draws must be a whole number >= 1, got "
                f"{num_draws!r}."
            )
        sites, features = self.config["num_sites"], self.config["num_features"]
        if x.ndim != 3 or tuple(x.shape[1:]) != (sites, features) or time.shape != x.shape[:1]:
            raise ValueError(
                f"NegBinMixedEffects.predictive: x must have shape [T, {sites}, {features}] and "
                f"time [T], got {list(x.shape)} and {list(time.shape)}."
            )
        if (exposure is None) != (fit.data["exposure"] is None):
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
        etas, draws = [], []
        x, time = x.detach().double().cpu(), time.detach().double().cpu()
        data, new = fit.data, None
        if "site_path" in self.config:
            data, new = _with_times(fit.data, time)
        for row in fit.estimate + noise @ root.T:
            parameters = self._unpack(row)
            effects, path = self._draw_effects(parameters, data, generator)
            etas.append(
                x @ parameters["weight"]
                + parameters["intercept"]
                + effects[:, 0]
                + time.unsqueeze(-1) * effects[:, 1]
                + (0 if new is None else path[new])
            )
            draws.append(parameters)
        like = self.intercept
        eta = torch.stack(etas, 1)  # [T', L, S]
        mu = eta.exp() if self.config["link"] == "log" else nn.functional.softplus(eta)
        mu = mu.to(like).clamp_min(1e-30)
        shared = {
            name: torch.stack([draw[name] for draw in draws]).to(like)[:, None].expand_as(mu)
            for name in ("raw_probs", "raw_size", "raw_zero_probs")
            if name in draws[0]
        }
        if exposure is not None:
            exposure = exposure.unsqueeze(1).expand_as(mu)
        weights = torch.full(mu.shape[:2], 1 / num_draws).to(like)
        return Mixture(weights, self._distribution(shared, mu, exposure))

    def _draw_effects(
        self, parameters: dict[str, Tensor], data: dict[str, Any], generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Effects [S, 2] and path [T, S], given the parameters and the counts; T = 0 without."""
        _, modes, precision = self._marginal(parameters, data)
        noise = torch.randn(modes.shape, generator=generator, dtype=torch.float64)
        steps = self._steps(parameters, data)
        if steps is None:
            root = torch.linalg.cholesky(_inverse_pairs(precision))
            drawn = modes + (root @ noise.unsqueeze(-1)).squeeze(-1)
        else:
            loading = _loading(parameters, data["time"])
            drawn = modes + torch.ops.topreach.laplace_path_posterior(
                precision[:, 3:], loading, steps, noise
            )[0]
        return drawn[:, :2] @ _factor(parameters).T, drawn[:, 2:].T

    def _fixed_effects(self) -> tuple[Tensor, list[str]]:
        """The matrix from parameters to reported coefficients, and their names."""
        fit = self.fit_
        rows = ["intercept"] + [n for n in fit.names if n.startswith("weight[")]
        jacobian = torch.zeros(len(rows), len(fit.names), dtype=torch.float64)
        for row, name in enumerate(rows):
            jacobian[row, fit.names.index(name)] = 1.0
        if "raw_probs" in fit.names and self.config["link"] == "log":
            jacobian[0, fit.names.index("raw_probs")] = 1.0
        return jacobian, ["(Intercept)", *fit.data["feature_names"]]

    def _fitted(self, method: str, level: float) -> MarginalFit:
        if not hasattr(self, "fit_"):
            raise ValueError(
                f"NegBinMixedEffects.{method}: the model must have been fitted by its own fit "
                "method, got one that was not. Call model.fit(x, y, time)."
            )
        if not 0 < level < 1:
            raise ValueError(
                f"NegBinMixedEffects.{method}: level must be above 0 and below 1, got {level!r}."
            )
        return self.fit_

    @property
    def probs(self) -> Tensor:
        """q, [], of family "nb1"."""
        return self.raw_probs.sigmoid()

    @property
    def covariance(self) -> Tensor:
        """Σ of a site's (intercept, slope), [2, 2]."""
        sigma, rho = nn.functional.softplus(self.raw_sigma), self.raw_rho.tanh()
        cross = rho * sigma[0] * sigma[1]
        return torch.stack((sigma[0] ** 2, cross, cross, sigma[1] ** 2)).reshape(2, 2)


class Summary(str):
    """Text that shows itself as it is, in a session as under `print`."""

    def __repr__(self) -> str:
        return str(self)


def _inverse_softplus(value: float) -> float:
    return value + math.log(-math.expm1(-value))


def _factor(parameters: dict[str, Tensor]) -> Tensor:
    """L [2, 2], lower triangular, with L Lᵀ = Σ."""
    return torch.ops.topreach.negbin_mixed_effects_factor(
        parameters["raw_sigma"], parameters["raw_rho"]
    )


def _loading(parameters: dict[str, Tensor], time: Tensor) -> Tensor:
    """Rows Lᵀ (1, t), [T, 2]."""
    return torch.stack((torch.ones_like(time), time), -1) @ _factor(parameters)


def _num_periods(data: dict[str, Any]) -> int:
    """Times that differ and have counts."""
    return len(torch.unique(data["time"][(data["weights"] > 0).any(1)]))


def _with_times(data: dict[str, Any], time: Tensor) -> tuple[dict[str, Any], Tensor]:
    """The data of a fit with periods at `time` [T'] in which nothing is seen, and their rows."""
    times = torch.cat((data["time"], time))
    order = torch.argsort(times, stable=True)
    added = {"time": times[order]}
    for key, value in data.items():
        if key in ("x", "y", "y_upper", "exposure", "weights") and value is not None:
            empty = value.new_full((len(time), *value.shape[1:]), float(key == "exposure"))
            added[key] = torch.cat((value, empty))[order]
    return data | added, torch.argsort(order)[len(data["time"]) :]


def _errors(variance: Tensor) -> Tensor:
    """Standard errors; NaN where nothing was estimated."""
    return torch.where(variance > 0, variance, torch.nan).sqrt()


def _inverse_pairs(precision: Tensor) -> Tensor:
    """[S, 2, 2] of the upper triangles [S, 3]."""
    a, b, c = precision.unbind(-1)
    return torch.linalg.inv(torch.stack((a, b, b, c), -1).reshape(-1, 2, 2))
