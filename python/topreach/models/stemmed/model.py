"""STEMMED: a networked Hawkes process of events by place and type."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from topreach.data import columns as _columns
from topreach.data.event_features import StepCovariates
from topreach.data.events import Events
from topreach.models.stemmed import fitting, reports
from topreach.models.stemmed import forecast as futures
from topreach.models.stemmed.notes import fit_notes
from topreach.models.stemmed.problem import (
    Problem,
    checked_options,
    make_problem,
    mark_pools,
    month_days,
)

BARRIER_MONTHS = 12.0  # of the recent rates in the barrier

_ops = torch.ops.topreach


class Stemmed(nn.Module):
    """Events in continuous time that make further events likelier, at M = I · S nodes (place i,
    type s) [STEMMED Eq. 4-8]:

        λ_u(t) = γ_u e^{β_u·y_u(t)}
                 + Σ_v α_u e^{-δ_g,u dist_ij} θ_uv(t) Σ_{x∈v, t_x<t} e^{ω_u·m_x - δ_k,u (t - t_x)}

    y: covariates, constant on blocks of time. θ: how often the two types occur together near the
    two places. m: marks. Every parameter is the receiving node's own, pooled over nodes by
    empirical Bayes. Times are days. If a table's times are numbers, one unit of them counts as a
    month wherever months are named here.

    Args:
        theta: "jaccard": events that name both types over events that name either, so that a node
            excites itself fully; "share", as in the paper: over all events there; "none": 1.
        network: "full", or "own": each node excites only itself.
        half_life: in months; older blocks of time (see `refresh`) have a lower weight in the
            likelihood, which is constant within a block. None: equal weights.
        recent_rate: whether the log of a node's own rate in the last year is a covariate, so that
            growth is not taken for excitation.
        use_distance, use_marks: whether excitation falls with distance, and depends on marks.
            Places without coordinates are all at distance 1 from each other.
        refresh: when network and recent rate are recomputed: each "week", "month", "quarter" or
            "year" (each unit, if times are numbers), or at each "event". The last makes N blocks,
            so that a fit costs N M² for each node.
        pooled: whether nodes share a prior that is learnt from all of them; with fewer than 10
            nodes it is a weak fixed one. False: maximum likelihood of each node alone.
        stable: whether a barrier keeps the expected number of children per event below 1.
        solver: "newton": trust regions with the exact Hessian. For comparison: "lbfgs", and
            "gradient", ascent along the gradient as in the paper, which seldom converges. All three
            search for the same maximum.
        anchor: in months: forecasts relax to the mean rate of this many last months. None: they
            follow the fitted process for ever.

    "self-exciting" (SEPP): network="own", theta="none"; "mutually exciting" (MEPP): theta="none",
    use_distance=False; the paper's own: theta="share", recent_rate=False, anchor=None.

    Fitted attributes: working_ [M, P] (working coordinates: log γ, β, log(α/δ_k), softplus⁻¹ δ_g,
    ω, log δ_k), covariance_ [M, P, P], log_likelihood_ [M], names_ (P), converged_ [M],
    spectral_radius, held_ (parameter -> why it is held), notes_, events_.

    Example:
        >>> events = tr.datasets.ct_overdose_deaths(opioid=True)   # counties
        >>> model = tr.models.Stemmed().fit(events)
        >>> model.forecast(12).to_frame()                          # the next 12 months
    """

    is_probabilistic = True
    prior_: fitting.Prior
    working_: Tensor  # [M, P]
    covariance_: Tensor  # [M, P, P]
    # Buffers of a fitted model
    known: Tensor  # []
    weight: Tensor  # [I, M]
    working: Tensor
    covariance: Tensor

    def __init__(
        self,
        theta: str = "jaccard",
        network: str = "full",
        half_life: float | None = None,
        *,
        recent_rate: bool = True,
        use_distance: bool = True,
        use_marks: bool = True,
        refresh: str = "month",
        pooled: bool = True,
        stable: bool = True,
        solver: str = "newton",
        anchor: float | None = 12.0,
    ):
        super().__init__()
        name = type(self).__name__
        self.options = checked_options(
            name,
            theta=theta,
            network=network,
            half_life=half_life,
            recent_rate=recent_rate,
            use_distance=use_distance,
            use_marks=use_marks,
            refresh=refresh,
        )
        for field, value in (("pooled", pooled), ("stable", stable)):
            if not isinstance(value, bool):
                raise TypeError(f"{name}: {field} must be True or False, got {value!r}.")
        futures.check_anchor(name, anchor)
        _columns.check_one_of(name, "solver", solver, tuple(fitting.SOLVERS))
        self.solver = solver
        self.pooled, self.stable, self.anchor = pooled, stable, anchor
        self.config: dict[str, Any] = {
            "theta": theta,
            "network": network,
            "half_life": half_life,
            "recent_rate": recent_rate,
            "use_distance": use_distance,
            "use_marks": use_marks,
            "refresh": refresh,
            "pooled": pooled,
            "stable": stable,
            "anchor": anchor,
        }

    def fit(
        self,
        events: Events,
        covariates: StepCovariates | None = None,
        *,
        pool_by: Any = None,
        start: Stemmed | None = None,
    ) -> Stemmed:
        """Fit to a table of events, over its window up to `complete_through`.

        Args:
            covariates: from `events.step_covariates(panel, events.block_edges())`.
            pool_by: [M, z] or [I, z], covariates of the prior's mean, such as population or
                poverty.
            start: a fitted model of the same nodes and parameters, from whose parameters and prior
                the fit starts (a refit).

        Raises:
            TypeError, ValueError: arguments that are not as above; a window without events;
                covariates that never change.
        """
        name = "Stemmed.fit"
        if not isinstance(events, Events):
            raise TypeError(
                f"{name}: events must be Events, got {type(events).__name__}. Make them with "
                "Events.from_frame; a Panel of counts has no times of events."
            )
        problem = make_problem(events, self.options, covariates, name)
        z = _pool_by(pool_by, events, name)
        pool_start, pool = mark_pools(problem)
        barrier = None
        if self.stable:
            days = BARRIER_MONTHS * month_days(True) if events.is_dates else problem.duration
            barrier = fitting.barrier_of(problem, problem.recent_rates(days))
        if start is not None:
            _check_start(start, problem, events, name)
        prior_kind = "pooled" if self.pooled else "none"
        solve = fitting.SOLVERS[self.solver]
        if self.pooled:
            begin = None if start is None else (start.working_, start.prior_)
            fitted, prior, rounds = fitting.pool(problem, barrier, z, begin, solve)
            if rounds == 0:
                prior_kind = "weak"
        else:
            prior, rounds = fitting.no_prior(problem), 0
            if start is None:
                fitted = fitting.best_starts(problem, prior, barrier, solve=solve)
            else:
                fitted = solve(problem, start.working_, prior, barrier)
        covariance = self._covariance(problem, fitted, prior)
        # Nothing can fail from here on.
        self.events_, self.problem_, self.prior_, self.rounds_ = events, problem, prior, rounds
        self.pool_start_, self.pool_, self.prior_kind_ = pool_start, pool, prior_kind
        self.pool_by_ = z
        self.working_, self.covariance_ = fitted.working, covariance
        self.log_likelihood_, self.converged_ = fitted.log_likelihood, fitted.converged
        self.evaluations_ = fitted.evaluations
        self.names_, self.held_ = list(problem.names), dict(problem.why)
        self.covariates_ = covariates
        self.notes_ = fit_notes(self)
        self._serve()
        for note in self.notes_:
            warnings.warn(f"{name}: {note}", UserWarning, stacklevel=2)
        return self

    def _covariance(self, problem: Problem, fitted: fitting.Fitted, prior: Any) -> Tensor:
        """H⁻¹; with weights of time H⁻¹ (J + Λ) H⁻¹, J minus the Hessian with squared weights."""
        inverse = fitting.inverse_of(fitted.information, problem.held, prior.precision)
        if self.options.half_life is None:
            return inverse
        squared = problem.arguments._replace(weights=problem.arguments.weights.square())
        other = dataclasses.replace(problem, arguments=squared)
        _, _, hessian = other.derivatives(torch.arange(problem.num_nodes), fitted.working)
        middle = torch.diag_embed(prior.precision) - hessian
        free = (~problem.held).double()
        middle = middle * free[:, :, None] * free[:, None, :]
        return inverse @ middle @ inverse

    def _serve(self) -> None:
        """Register the buffers that a model file holds: see csrc/models/stemmed.h. `known`, which a
        ranker sets, is the number of periods of counts in the file."""
        events = self.events_
        self.scope_ = futures.Scope(
            list(events.places), list(events.types), events.is_dates, events.start, events.duration
        )
        rate = None if self.anchor is None else self.recent_rates(self.anchor)
        dynamics, _ = self.dynamics(self.working_, rate, second=self.spreads_marks)
        weight, _ = futures.aggregate(self.scope_, self.problem_.share, "place")
        end = torch.tensor(events.start + events.duration, dtype=torch.float64)
        buffers = {
            **dynamics._asdict(),
            "weight": weight,
            "end": end,
            "known": torch.tensor(0),
            "working": self.working_,
            "covariance": self.covariance_,
        }
        for name, value in buffers.items():
            self.register_buffer(name, value.clone())

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Takes the buffers of a fitted model, as a model file holds them."""
        wanted = {*futures.Dynamics._fields, "weight", "end", "known", "working", "covariance"}
        if set(state_dict) != wanted:
            raise RuntimeError(
                f"Stemmed.load_state_dict: state must have {sorted(wanted)}, got "
                f"{sorted(state_dict)}."
            )
        for name, value in state_dict.items():
            self.register_buffer(name, value.clone())
        self.working_, self.covariance_, self.notes_ = self.working, self.covariance, []
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def fit_state(self) -> dict[str, Any]:
        """Names for a model file, which `forecast` needs in a loaded model."""
        scope = self.scope_._asdict()
        return scope | {"is_dates": int(scope["is_dates"])}

    def set_fit_state(self, state: dict[str, Any]) -> None:
        scope = futures.Scope(**{name: state[name] for name in futures.Scope._fields})
        self.scope_ = scope._replace(
            places=list(scope.places), types=list(scope.types), is_dates=bool(scope.is_dates)
        )

    @property
    def spreads_marks(self) -> bool:
        """Whether variances include the spread of marks between events: [M, M, M] numbers."""
        return self.problem_.num_marks > 0 and self.problem_.num_nodes <= futures.MOST_NODES

    @property
    def holds_events(self) -> bool:
        """Whether the model was fitted here; one from a model file has no events."""
        return hasattr(self, "events_")

    @property
    def share(self) -> Tensor:
        """[M]: the share that an event of each node adds to the count of its place."""
        return self.weight.sum(0)

    @property
    def saved_dynamics(self) -> futures.Dynamics:
        """The process after the fit as in the model file, relaxed to recent rates if `anchor`."""
        return futures.Dynamics(*(getattr(self, name) for name in futures.Dynamics._fields))

    # ---- what was fitted -------------------------------------------------------------------------

    @property
    def parameters_(self) -> Tensor:
        """Natural parameters [M, P]: log γ, β, log α, δ_g, ω, δ_k."""
        self._fitted("parameters_")
        return _ops.hawkes_natural(self.working_, self.problem_.num_covariates)

    def dynamics(
        self, working: Tensor, rate: Tensor | None, *, second: bool
    ) -> tuple[futures.Dynamics, Tensor]:
        """The process after the fit under these working coordinates [M, P], relaxed to recent rates
        [M] if given; and the factors by which that lowered each node's excitation."""
        problem = self.problem_
        natural = _ops.hawkes_natural(working, problem.num_covariates)
        return futures.dynamics_of(
            problem.now, natural, self.pool_start_, self.pool_, rate, second=second
        )

    def branching_matrix(self) -> Tensor:
        """B [M, M]: expected children at node u (row) of an event at node v, with θ at the end."""
        self._fitted("branching_matrix")
        return self.dynamics(self.working_, None, second=False)[0].branching

    @property
    def spectral_radius(self) -> float:
        """ρ(B): below 1 the process is stable."""
        return futures.spectral_radius(self.branching_matrix())

    def network(self, at: Any = None) -> pd.DataFrame:
        """A [M, M] at a date: how much an event of the column's node adds at once to the rate of
        the row's, for mean marks 0 [STEMMED Fig. 1]. None: at the end."""
        self._fitted("network")
        return reports.network(self, at)

    def summary(self, *, level: float = 0.95) -> pd.DataFrame:
        """A row per node and parameter: node, parameter, estimate, lower, upper (on the natural
        scale: base rate per day, children per event, mean lag in days, ...), estimate and se of the
        working coordinate, and whether it is held."""
        self._fitted("summary")
        return reports.summary(self, level)

    @property
    def aic(self) -> float:
        """2 · free parameters - 2 log-likelihood.

        Raises:
            ValueError: the fit is pooled or weighted, so that AIC's count of parameters does not
                apply.
        """
        self._fitted("aic")
        if self.pooled or self.options.half_life is not None:
            raise ValueError(
                "Stemmed.aic: the fit must be by maximum likelihood, got one that is pooled or "
                "weighted. Fit with pooled=False, half_life=None."
            )
        free = int((~self.problem_.held).sum())
        return 2 * free - 2 * float(self.log_likelihood_.sum())

    def triggered_share(self, by: str = "place", every: str | None = None) -> pd.DataFrame:
        """The share of events that other events triggered, 1 - ∫μ / ∫λ, with a 90 % band from draws
        of the parameters [STEMMED Fig. 2]. by: "place", "type", "node" or "all"; every: also by
        month, quarter, year."""
        self._fitted("triggered_share")
        return reports.triggered_share(self, by, every)

    def residuals(self) -> reports.Residuals:
        """Time-rescaling residuals: under the model a node's compensator grows by Exp(1) between
        its events."""
        self._fitted("residuals")
        return reports.residuals(self)

    # ---- forecasts -------------------------------------------------------------------------------

    def recent_rates(self, months: float) -> Tensor:
        """Each node's mean rate per day in the last months, [M], shrunk towards its rate in the
        whole window with the weight of one event."""
        self._fitted("recent_rates")
        return self.problem_.recent_rates(months * month_days(self.events_.is_dates))

    def draws(self, number: int, generator: torch.Generator) -> list[Tensor]:
        """Working coordinates [M, P] from N(ŵ, H⁻¹), within the fit's limits."""
        self._fitted("draws")
        size, axes = torch.linalg.eigh(self.covariance_)
        root = axes * size.clamp_min(0).sqrt()[:, None, :]
        limits = fitting.limits_of(self.problem_)
        noise = torch.randn(number, *self.working_.shape, generator=generator, dtype=torch.float64)
        moved = self.working_ + torch.einsum("mab,nmb->nma", root, noise)
        return list(torch.minimum(torch.maximum(moved, limits.low), limits.high))

    def forecast(
        self,
        periods: int = 12,
        *,
        every: str | float = "month",
        mode: str = "moments",
        num_samples: int = 1000,
        anchor: Any = "fit",
        cumulative: bool = False,
        by: str = "place",
        parameter_draws: int = 20,
        seed: int = 0,
    ) -> futures.StemmedForecast:
        """Counts of the next whole periods.

        Args:
            periods: how many.
            every: their length, as in `Events.counts`.
            mode: "moments": exact mean and variance at the estimate, as a negative binomial;
                "mean": only the mean; "branching": simulated paths; "thinning": the same
                distribution by the paper's Algorithm 2, which is slow; "paper": its Algorithm 1,
                which leaves out events triggered by events of the same period.
            num_samples: paths of the simulated modes.
            anchor: months, None, or "fit" for the model's own.
            cumulative: counts from the first period to each, instead of each one's own.
            by: "place" (events, each once), "node" or "type".
            parameter_draws: how many draws of the parameters the paths share; 0: the estimate.
            seed: of paths and draws.

        Raises:
            ValueError: an argument that is not as above; a process that is not stable and has no
                anchor.
        """
        name = "Stemmed.forecast"
        if not self.holds_events:
            if not hasattr(self, "scope_"):
                self._fitted("forecast")
            if mode not in ("moments", "mean") or anchor not in ("fit", self.anchor):
                raise ValueError(
                    f"{name}: mode must be 'moments' or 'mean', with the fit's own anchor, for a "
                    f"model from a file, which holds no events, got mode {mode!r}. Fit it to the "
                    "events."
                )
        return futures.forecast(
            self,
            periods,
            every=every,
            mode=mode,
            num_samples=num_samples,
            anchor=anchor,
            cumulative=cumulative,
            by=by,
            parameter_draws=parameter_draws,
            seed=seed,
            name=name,
        )

    def _fitted(self, method: str) -> None:
        if hasattr(self, "events_"):
            return
        if hasattr(self, "working_"):
            raise RuntimeError(
                f"Stemmed.{method}: the model must hold its events, which a model file does not. "
                "Fit it to the events; or plan with the ranker that was loaded."
            )
        raise RuntimeError(f"Stemmed.{method}: the model must be fitted first. Call fit().")


def _pool_by(given: Any, events: Events, name: str) -> Tensor | None:
    if given is None:
        return None
    z = torch.as_tensor(given, dtype=torch.float64)
    if z.ndim == 1:
        z = z[:, None]
    if len(z) == events.num_places:
        z = z.repeat_interleave(events.num_types, dim=0)
    nodes = events.num_places * events.num_types
    if z.ndim != 2 or len(z) != nodes or not bool(torch.isfinite(z).all()):
        raise ValueError(
            f"{name}: pool_by must be finite numbers [I, z] or [M, z] with I = "
            f"{events.num_places} and M = {nodes}, got shape {list(z.shape)}."
        )
    scale = z.std(0, correction=0)
    if bool((scale == 0).any()):
        raise ValueError(f"{name}: pool_by must differ between nodes, got a constant column.")
    return (z - z.mean(0)) / scale


def _check_start(start: Stemmed, problem: Problem, events: Events, name: str) -> None:
    start._fitted("fit")
    if start.events_.nodes != events.nodes or start.names_ != problem.names:
        raise ValueError(
            f"{name}: start must have the same nodes and parameters as the events, got "
            f"{len(start.events_.nodes)} nodes and {start.names_} for {len(events.nodes)} and "
            f"{problem.names}. Fit anew, without start."
        )
