"""Shared by the objectives: calling a model, weights over time, and settings. The mathematics is in
C++."""

from __future__ import annotations

import inspect
import numbers
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from topreach import _C
from topreach.data.messages import either
from topreach.data.panel import Batch
from topreach.distributions.counts import has_expected_ratio_ranking
from topreach.distributions.forecast import as_forecast
from topreach.programs import Program, TopK, as_program

TimeWeights = Callable[[Tensor], Tensor] | Sequence[float] | Tensor | None

BATCH_ARGUMENTS = ("x", "time", "history", "exposure")
_argument_cache: dict[Any, tuple[str, ...]] = {}


class ObjectiveValue(NamedTuple):
    """The scalar to minimise, and its parts for the history (detached scalars, by name)."""

    loss: Tensor
    terms: dict[str, Tensor]


def is_probabilistic(model: nn.Module) -> bool:
    """Whether the model's forward gives a distribution of counts and not scores."""
    return bool(getattr(model, "is_probabilistic", False))


def accepted_arguments(function: Callable[..., Any], names: Sequence[str]) -> tuple[str, ...]:
    """Those of `names` that the function takes by keyword."""
    function = getattr(function, "__func__", function)
    cache_key = (function, tuple(names))
    if cache_key not in _argument_cache:
        parameters = inspect.signature(function).parameters.values()
        by_name = {
            p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        }
        everything = any(p.kind is p.VAR_KEYWORD for p in parameters)
        _argument_cache[cache_key] = tuple(n for n in names if everything or n in by_name)
    return _argument_cache[cache_key]


def forward(model: nn.Module, batch: Batch) -> Any:
    """Call the model with those of x [T,S,P], time [T], history [T,S,W], exposure [T,S] that its
    `forward` names. Warns of an exposure that it does not name.

    Floating-point inputs are cast to the dtype of the model's first parameter.

    Returns a distribution over counts [T, S] for a probabilistic model, else scores [T, S].
    """
    names = accepted_arguments(type(model).forward, BATCH_ARGUMENTS)
    if not names:
        raise TypeError(
            f"{type(model).__name__}.forward: its arguments must be among x, time, history, "
            "exposure, got none of them. Name them so, or wrap the model in a module that does."
        )
    in_x = getattr(model, "exposure_in_x", False)
    if batch.exposure is not None and "exposure" not in names and not in_x:
        warnings.warn(
            f"{type(model).__name__} makes no use of the exposure: it learns and ranks by counts, "
            f"not by counts per exposure. Use {either('NegBinMixedEffects', '--model negbin')}.",
            stacklevel=1,
        )
    return model(**_cast(model, {name: getattr(batch, name) for name in names}))


def penalty(model: nn.Module, batch: Batch, weights: Tensor | None) -> Tensor | None:
    """The model's own penalty (−log prior) or None; it is given those of x, time, weights, exposure
    that it names."""
    function = getattr(model, "penalty", None)
    if not callable(function):
        return None
    values = {"x": batch.x, "time": batch.time, "weights": weights, "exposure": batch.exposure}
    names = accepted_arguments(function, tuple(values))
    return function(**_cast(model, {name: values[name] for name in names}))


def _cast(model: nn.Module, arguments: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
    """Floating-point tensors in the dtype of the model's first parameter."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    if dtype is None:
        return arguments
    return {
        name: value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in arguments.items()
    }


def period_weights(name: str, time_weights: TimeWeights, batch: Batch) -> Tensor | None:
    """`batch.weights` times `time_weights`, [T]; None if every weight is 1."""
    weights = batch.weights
    if time_weights is None:
        return weights
    own = time_weights(batch.time) if callable(time_weights) else time_weights
    own = torch.as_tensor(own, dtype=batch.y.dtype, device=batch.y.device)
    if own.shape != batch.time.shape:
        raise ValueError(
            f"{name}: time_weights must have shape [{len(batch.time)}], one per period of the "
            f"batch, got {list(own.shape)}. With minibatches give a function of time, or give them "
            "to the Trainer."
        )
    return own if weights is None else own * weights


def open_sites(batch: Batch) -> Tensor | None:
    """Which cells [T, S] can be chosen: `batch.open`, or None if all can."""
    return getattr(batch, "open", None)


def derived_key(key: Tensor, stream: int) -> Tensor:
    """Another key of the same kind (int64 [2], entries below 2^32) for a second source of noise."""
    return _C.derived_key(key, stream)


def resolved_ranking(name: str, ranking: str, distribution: Any) -> str:
    """The ranking with "auto" resolved: "exact" if the distribution has an expected ratio, else
    "ratio".

    Raises:
        TypeError: "exact" for a distribution without an expected ratio.
    """
    if ranking == "exact" and not has_expected_ratio_ranking(distribution):
        raise TypeError(
            f"{name}: ranking must be 'ratio' or 'mean' for counts of type "
            f"{type(distribution).__name__}, got 'exact', which expected_ratio_ranking does not "
            "know for them."
        )
    return _C.resolved_ranking(name, ranking, distribution)


class ProgramSettings:
    """The checked settings of every objective that judges a choice: the program, and how sites are
    ranked. See `DirectBPR` for their meaning."""

    def __init__(
        self,
        k: int | Program,
        *,
        model_samples: int,
        ranking: str,
        ranking_estimator: str,
        offset: float,
        time_weights: TimeWeights,
    ):
        self.program = as_program(k, type(self).__name__)
        least = 2 if ranking_estimator == "score_loo" else 1
        self._check_whole("model_samples", model_samples, least)
        self._check_one_of("ranking", ranking, ("auto", "exact", "ratio", "mean"))
        self._check_one_of(
            "ranking_estimator", ranking_estimator, ("score", "score_loo", "diagonal")
        )
        self.model_samples, self.ranking = int(model_samples), ranking
        self.ranking_estimator, self.offset = ranking_estimator, float(offset)
        self.time_weights = time_weights

    @property
    def k(self) -> int:
        """The largest number of sites in a plan: K for `TopK`."""
        return self.program.size()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.config().items())})"

    def config(self) -> dict[str, Any]:
        """The settings as plain values, without weights over time, which may be a function."""
        settings = dict(vars(self))
        program = settings.pop("program")
        settings.pop("time_weights")
        first = {"k": program.k} if isinstance(program, TopK) else {"program": program.describe()}
        return first | settings

    def _check_whole(self, argument: str, value: Any, least: int) -> None:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
            raise ValueError(
                f"{type(self).__name__}: {argument} must be a whole number >= {least}, got "
                f"{value!r}."
            )

    def _check_one_of(self, argument: str, value: Any, allowed: tuple[Any, ...]) -> None:
        if value not in allowed:
            raise ValueError(
                f"{type(self).__name__}: {argument} must be one of "
                f"{', '.join(map(repr, allowed))}, got {value!r}."
            )

    def _output(self, model: nn.Module, batch: Batch) -> Any:
        """The model's forecast or scores [T, S] for a batch that has exact counts."""
        name, y = type(self).__name__, batch.y
        if batch.y_upper is not None:
            raise ValueError(
                f"{name}: y must be exact counts, got {int((batch.y_upper > y).sum())} that are "
                "only known to lie in an interval: what a choice reaches is not known then. Train "
                "by NLL, or take panel.at_bound('lower')."
            )
        self.program.check(name, y.shape[-1])
        output = forward(model, batch)
        if not is_probabilistic(model) and not isinstance(output, Tensor):
            raise TypeError(
                f"{name}: the model must give scores [T, S], got {type(output).__name__}. If that "
                "is a distribution of counts, set is_probabilistic = True in the class."
            )
        shape = output.shape if isinstance(output, Tensor) else as_forecast(output).mean.shape
        if tuple(shape) not in (tuple(y.shape), (*y.shape[:-2], 1, y.shape[-1])):
            raise ValueError(
                f"{name}: the model must give scores of shape [T, S] = {list(y.shape)}, got "
                f"{list(shape)}."
            )
        if is_probabilistic(model):
            resolved_ranking(name, self.ranking, output)
        return output

    def _ranking_options(self, generator: torch.Generator | None, key: Tensor | None) -> Any:
        return _C.RankingOptions(
            ranking=self.ranking,
            model_samples=self.model_samples,
            ranking_estimator=self.ranking_estimator,
            offset=self.offset,
            key=key,
            generator=generator,
        )


class ReachSettings(ProgramSettings):
    """The checked settings of every objective with a soft BPR; see `DirectBPR` for their
    meaning."""

    def __init__(
        self,
        k: int | Program,
        sigma: float,
        num_samples: int = 100,
        model_samples: int = 100,
        ranking: str = "auto",
        topk: str = "exact",
        estimator: str = "score_loo",
        ranking_estimator: str = "score_loo",
        *,
        noise: str = "normal",
        offset: float = 0.0,
        sigma_unit: str = "score",
        time_weights: TimeWeights = None,
    ):
        super().__init__(
            k,
            model_samples=model_samples,
            ranking=ranking,
            ranking_estimator=ranking_estimator,
            offset=offset,
            time_weights=time_weights,
        )
        name = type(self).__name__
        self._check_whole("num_samples", num_samples, 2 if estimator == "score_loo" else 1)
        if not sigma > 0:
            raise ValueError(f"{name}: sigma must be > 0 for a gradient to exist, got {sigma!r}.")
        self._check_one_of("topk", topk, ("exact", "mean_field", "sampled"))
        self._check_one_of("estimator", estimator, ("score", "score_loo", "conditional"))
        self._check_one_of("noise", noise, ("normal", "gumbel", "logistic", "laplace"))
        self._check_one_of("sigma_unit", sigma_unit, ("score", "spread"))
        if topk != "sampled" and noise != "normal":
            raise ValueError(
                f"{name}: noise must be 'normal' for topk={topk!r}, got {noise!r}. Use "
                "topk='sampled' for other noise."
            )
        self.sigma, self.num_samples = float(sigma), int(num_samples)
        self.topk, self.estimator, self.noise = topk, estimator, noise
        self.sigma_unit = sigma_unit

    def _reach_options(
        self,
        batch: Batch,
        weights: Tensor | None,
        generator: torch.Generator | None,
        key: Tensor | None,
    ) -> Any:
        return _C.ReachOptions(
            self.program,
            sigma=self.sigma,
            num_samples=self.num_samples,
            model_samples=self.model_samples,
            ranking=self.ranking,
            topk=self.topk,
            estimator=self.estimator,
            ranking_estimator=self.ranking_estimator,
            noise=self.noise,
            offset=self.offset,
            weights=weights,
            key=key,
            generator=generator,
            open=open_sites(batch),
            sigma_unit=self.sigma_unit,
        )
