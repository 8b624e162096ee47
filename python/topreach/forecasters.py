"""The forecasters that `TopKRanker` knows by name: how each is made and how it is fitted.

The inputs and outputs of each (`Needs`) are defined once, in the C++ registry
(`_C.forecaster_registry`), which also loads forecasters from model files. docs/architecture.md says
how to add one.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import nn

from topreach import _C
from topreach.data.panel import Panel
from topreach.models import (
    EmpiricalBayesRates,
    LinearScorer,
    MLPScorer,
    NegBinMixedEffects,
    NormalMixture,
    PoissonMixture,
    SiteHistory,
    Stemmed,
)

KINDS = {kind.short_name: kind for kind in _C.forecaster_registry()}
Needs = _C.Needs


class Task(NamedTuple):
    """The task that a forecaster is made for."""

    panel: Panel
    num_features: int  # after standardising
    history: SiteHistory | None
    seed: int


@dataclass(frozen=True)
class Forecaster:
    """Makes an unfitted model. Subclasses hold its settings; `name` is its key in the registry.

    `objectives`: the ways to fit the model, the default first. "direct" and "marginal" are the
    model's own `fit`, without training steps; the others are training objectives.
    """

    name: ClassVar[str] = ""
    objectives: ClassVar[tuple[str, ...]] = ("daml", "nll", "bpr")

    @property
    def needs(self) -> Needs:
        return KINDS[self.name].needs

    def make(self, task: Task) -> nn.Module:
        raise NotImplementedError(f"{type(self).__name__}.make")

    def fit_history(
        self, panel: Panel, timeline_exposure: torch.Tensor | None
    ) -> SiteHistory | None:
        """A fitted summary of the past; None for a model that reads no past."""
        return None


@dataclass(frozen=True)
class EmpiricalBayes(Forecaster):
    """`EmpiricalBayesRates`: counts from the whole past of a site and of its neighbours.

    Args:
        site_history: the summary of the past, a `SiteHistory`; None for its defaults. It is
            copied.
    """

    name: ClassVar[str] = "empirical_bayes"
    objectives: ClassVar[tuple[str, ...]] = ("direct", "nll", "daml", "bpr")
    site_history: SiteHistory | None = None

    def __post_init__(self) -> None:
        if self.site_history is not None and not isinstance(self.site_history, SiteHistory):
            raise TypeError(
                "TopKRanker: site_history must be a SiteHistory or None, got "
                f"{type(self.site_history).__name__}."
            )

    def make(self, task: Task) -> nn.Module:
        assert task.history is not None
        return EmpiricalBayesRates(task.history.half_lives_, task.num_features)

    def fit_history(
        self, panel: Panel, timeline_exposure: torch.Tensor | None
    ) -> SiteHistory | None:
        history = SiteHistory() if self.site_history is None else copy.deepcopy(self.site_history)
        return history.fit(panel, timeline_exposure=timeline_exposure)


@dataclass(frozen=True)
class NegBin(Forecaster):
    """`NegBinMixedEffects`: counts from features and time, with effects of each site [D25 Eq. 15].

    Args:
        link: "log" (the papers' text) or "softplus" (their code). None: "softplus" for mean counts
            below 10, where it ranks better, else "log", which does not depend on the counts' unit.
        penalty: of the site effects in training by steps; None for the model's default.
        site_path: None, "ar1" or "random_walk": effects that vary over time, for "marginal" only.
        family: "nb1", "nb2" or "poisson"; zero_inflation: whether there are extra zeros.
    """

    name: ClassVar[str] = "negbin"
    objectives: ClassVar[tuple[str, ...]] = ("daml", "nll", "marginal", "bpr")
    link: Literal["log", "softplus"] | None = None
    penalty: Literal["laplace", "map", "paper"] | None = None
    site_path: Literal["ar1", "random_walk"] | None = None
    family: Literal["nb1", "nb2", "poisson"] = "nb1"
    zero_inflation: bool = False

    def make(self, task: Task) -> nn.Module:
        chosen: dict[str, Any] = {} if self.penalty is None else {"penalty": self.penalty}
        panel = task.panel
        exposure = 1.0 if panel.exposure is None else panel.exposure.double().nanmean().item()
        mean = max(panel.y.double().nanmean().item(), 1e-4)
        return NegBinMixedEffects(
            panel.num_sites,
            task.num_features,
            link=self.link or ("softplus" if mean < 10 else "log"),
            site_path=self.site_path,
            family=self.family,
            zero_inflation=self.zero_inflation,
            initial_mean=mean / exposure,
            **chosen,
        )


@dataclass(frozen=True)
class Linear(Forecaster):
    """`LinearScorer`: a linear score of a site's last `window` counts and its features [L23 §3]."""

    name: ClassVar[str] = "linear"
    objectives: ClassVar[tuple[str, ...]] = ("bpr",)
    window: int = 5

    def make(self, task: Task) -> nn.Module:
        return LinearScorer(self.window, task.num_features)


@dataclass(frozen=True)
class MLP(Forecaster):
    """`MLPScorer`: a multi-layer perceptron on the same inputs [L23 §3]; `hidden`: its widths."""

    name: ClassVar[str] = "mlp"
    objectives: ClassVar[tuple[str, ...]] = ("bpr",)
    window: int = 5
    hidden: Sequence[int] = (50, 10)

    def make(self, task: Task) -> nn.Module:
        return MLPScorer(self.window, task.num_features, hidden=tuple(self.hidden))


@dataclass(frozen=True)
class _Mixture(Forecaster):
    num_components: int = 4
    _model: ClassVar[type] = PoissonMixture

    def make(self, task: Task) -> nn.Module:
        high = max(float(task.panel.y.nan_to_num().max()), 1.0)
        return self._model(task.panel.num_sites, self.num_components, high=high)


@dataclass(frozen=True)
class PoissonMixtureOf(_Mixture):
    """`PoissonMixture`: mixtures of shared Poissons, the same in every period [D25 Eq. 14]."""

    name: ClassVar[str] = "poisson_mixture"


@dataclass(frozen=True)
class NormalMixtureOf(_Mixture):
    """`NormalMixture`: the same with shared truncated normals [D25 Eq. 14, 17]."""

    name: ClassVar[str] = "normal_mixture"
    _model: ClassVar[type] = NormalMixture


@dataclass(frozen=True)
class StemmedOf(Forecaster):
    """`Stemmed`: a networked point process, learnt from `Events`; it plans for whole periods.

    Args:
        every: the period of a plan: "week", "month", "quarter", "year" or a number of days.
        theta, network, half_life, recent_rate, use_distance, use_marks, refresh, pooled, stable,
            anchor: arguments of `Stemmed`.
    """

    name: ClassVar[str] = "stemmed"
    objectives: ClassVar[tuple[str, ...]] = ("direct",)
    every: str | float = "month"
    theta: str = "jaccard"
    network: str = "full"
    half_life: float | None = None
    recent_rate: bool = True
    use_distance: bool = True
    use_marks: bool = True
    refresh: str = "month"
    pooled: bool = True
    stable: bool = True
    anchor: float | None = 12.0

    def unfitted(self) -> Stemmed:
        options = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        options.pop("every")
        return Stemmed(**options)


class OwnModule(Forecaster):
    """A user's module. It is copied and not changed.

    The class states its inputs: `needs = tr.models.Needs(...)`. `forward` takes any of these by
    name: x, time, history, exposure. It returns a forecast (`needs.counts`) or scores, [T, S]. A
    ranker with such a model works like any other, but cannot be saved to a model file.
    """

    module: nn.Module

    def __init__(self, module: nn.Module):
        object.__setattr__(self, "module", module)
        object.__setattr__(self, "objectives", ("daml", "nll", "bpr"))
        if not self.needs.counts:
            object.__setattr__(self, "objectives", ("bpr",))

    @property
    def needs(self) -> Needs:
        return needs_of(self.module)

    def make(self, task: Task) -> nn.Module:
        return copy.deepcopy(self.module)


def needs_of(module: nn.Module) -> Needs:
    """The needs of a module: its attribute `needs`, or those of its kind in the registry.

    Raises:
        TypeError: a user's class without `needs`.
    """
    for kind in KINDS.values():
        if kind.name == type(module).__name__:
            fields: dict[str, Any] = {n: getattr(kind.needs, n) for n in NEEDS}
            return Needs(**fields | {"window": int(getattr(module, "window", 0) or 0)})
    needs = getattr(module, "needs", None)
    if isinstance(needs, Needs):
        return needs
    raise TypeError(
        f"TopKRanker: {type(module).__name__} must say what it needs, got no attribute `needs`. "
        "Set in the class, for instance, needs = tr.models.Needs(time=True, counts=True): which "
        "of features, time, window and exposure forward takes, and whether it predicts counts or "
        "gives scores."
    )


NEEDS = (
    "features",
    "time",
    "past",
    "window",
    "exposure",
    "suppressed",
    "sites",
    "counts",
    "events",
)
FORECASTERS: dict[str, type[Forecaster]] = {
    cls.name: cls
    for cls in (EmpiricalBayes, NegBin, Linear, MLP, NormalMixtureOf, PoissonMixtureOf, StemmedOf)
}
# Settings that may be given to TopKRanker by their own name.
SETTINGS = sorted({f.name for cls in FORECASTERS.values() for f in dataclasses.fields(cls)})


def as_forecaster(model: Any, settings: dict[str, Any]) -> Forecaster:
    """The forecaster of this name, with these settings; or the one that was given.

    Raises:
        ValueError: an unknown name. TypeError: settings that the forecaster does not have, or
            another kind of object.
    """
    if isinstance(model, str):
        if model not in FORECASTERS:
            raise ValueError(
                f"TopKRanker: model must be one of {', '.join(map(repr, FORECASTERS))}, a "
                f"forecaster or a module, got {model!r}."
            )
        known = {f.name for f in dataclasses.fields(FORECASTERS[model])}
        # Settings of other kinds of model are ignored, so that a search can try several kinds.
        return FORECASTERS[model](**{n: v for n, v in settings.items() if n in known})
    if isinstance(model, nn.Module):
        return OwnModule(model)
    if isinstance(model, Forecaster):
        return dataclasses.replace(model, **settings) if settings else model
    raise TypeError(
        "TopKRanker: model must be a name, a forecaster of topreach.forecasters or a torch "
        f"module, got {type(model).__name__}."
    )
