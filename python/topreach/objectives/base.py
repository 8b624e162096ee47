"""What the objectives share: calling a model, weights over time, keys, and the soft BPR of a
batch."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from topreach.data.panel import Batch
from topreach.distributions.counts import expected_ratio_ranking, has_expected_ratio_ranking
from topreach.ops import draw_key, expected_topk, perturbed_topk, ratio_ranking

TimeWeights = Callable[[Tensor], Tensor] | Sequence[float] | Tensor | None

BATCH_ARGUMENTS = ("x", "time", "history", "exposure")
_argument_cache: dict[Any, tuple[str, ...]] = {}


class ObjectiveValue(NamedTuple):
    """The scalar to minimise, and its parts for the history (detached scalars, by name)."""

    loss: Tensor
    terms: dict[str, Tensor]


def is_probabilistic(model: nn.Module) -> bool:
    """Whether the model's forward gives a distribution (`sample`, `log_prob`, `mean`) and not
    scores."""
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

    Returns a distribution over counts [T, S] for a probabilistic model, else scores [T, S].
    """
    names = accepted_arguments(type(model).forward, BATCH_ARGUMENTS)
    if not names:
        raise TypeError(
            f"{type(model).__name__}.forward: its arguments must be among x, time, history, "
            "exposure, got none of them. Name them so, or wrap the model in a module that does."
        )
    if batch.exposure is not None and "exposure" not in names:
        warnings.warn(
            f"{type(model).__name__} makes no use of the exposure: it learns and ranks by counts, "
            "not by counts per exposure. Use NegBinMixedEffects.",
            stacklevel=1,
        )
    return model(**{name: getattr(batch, name) for name in names})


def penalty(model: nn.Module, batch: Batch, weights: Tensor | None) -> Tensor | None:
    """The model's own penalty (−log prior) or None; it is given those of x, time, weights, exposure
    that it names."""
    function = getattr(model, "penalty", None)
    if not callable(function):
        return None
    values = {"x": batch.x, "time": batch.time, "weights": weights, "exposure": batch.exposure}
    names = accepted_arguments(type(model).penalty, tuple(values))
    return function(**{name: values[name] for name in names})


def period_weights(name: str, time_weights: TimeWeights, batch: Batch) -> Tensor | None:
    """`batch.weights` times `time_weights`, [T]; None where every weight is 1."""
    weights = batch.weights
    if time_weights is None:
        return weights
    own = time_weights(batch.time) if callable(time_weights) else time_weights
    own = torch.as_tensor(own, dtype=batch.y.dtype, device=batch.y.device)
    if own.shape != batch.time.shape:
        raise ValueError(
            f"{name}: time_weights must have shape [{len(batch.time)}], one per period of the "
            "batch, got "
            f"{list(own.shape)}. With minibatches give a function of time, or give them to the "
            "Trainer."
        )
    return own if weights is None else own * weights


def weighted_sum(values: Tensor, weights: Tensor | None) -> Tensor:
    return values.sum() if weights is None else (values * weights).sum()


def derived_key(key: Tensor, stream: int) -> Tensor:
    """Another key of the same kind (int64 [2], entries below 2^32) for a second source of noise."""
    step = torch.tensor([0x9E3779B9, 0x85EBCA6B], dtype=torch.int64, device=key.device) * stream
    return (key + step) & 0xFFFFFFFF


def resolved_ranking(name: str, ranking: str, distribution: Any) -> str:
    """What "auto" stands for: "exact" where `expected_ratio_ranking` knows the distribution, else
    "ratio". Raises TypeError for an "exact" that it does not know."""
    is_known = has_expected_ratio_ranking(distribution)
    if ranking == "auto":
        return "exact" if is_known else "ratio"
    if ranking == "exact" and not is_known:
        raise TypeError(
            f"{name}: ranking must be 'ratio' or 'mean' for counts of type "
            f"{type(distribution).__name__}, got 'exact', which expected_ratio_ranking does not "
            "know for them."
        )
    return ranking


class RankingSettings:
    """The settings that every objective of a choice has, checked: K, and how sites are ranked. See
    `DirectBPR` for what they mean."""

    def __init__(
        self,
        k: int,
        *,
        model_samples: int,
        ranking: str,
        ranking_estimator: str,
        offset: float,
        time_weights: TimeWeights,
    ):
        self._check_whole("k", k, 1)
        self._check_whole("model_samples", model_samples, 2 if ranking_estimator == "score_loo" else 1)
        self._check_one_of("ranking", ranking, ("auto", "exact", "ratio", "mean"))
        self._check_one_of(
            "ranking_estimator", ranking_estimator, ("score", "score_loo", "diagonal")
        )
        self.k, self.model_samples, self.ranking = k, model_samples, ranking
        self.ranking_estimator, self.offset = ranking_estimator, float(offset)
        self.time_weights = time_weights

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.config().items())})"

    def config(self) -> dict[str, Any]:
        """The settings as plain values; weights over time, which may be a function, are left
        out."""
        return {name: value for name, value in vars(self).items() if name != "time_weights"}

    def _check_whole(self, argument: str, value: Any, least: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
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

    def _ranking_of(self, output: Any, probabilistic: bool) -> str:
        """ "exact", "ratio", "mean" or, for a scorer, "score"."""
        if not probabilistic:
            return "score"
        return resolved_ranking(type(self).__name__, self.ranking, output)

    def _ranking_scores(
        self, output: Any, ranking: str, batch: Batch, key: Tensor | None
    ) -> Tensor:
        """r [T, S], or [1, S] where one ranking serves all periods, with its gradient."""
        name, y = type(self).__name__, batch.y
        if batch.y_upper is not None:
            raise ValueError(
                f"{name}: y must be exact counts, got {int((batch.y_upper > y).sum())} that are only "
                "known to lie in an interval: what a choice reaches is not known then. Train by NLL, "
                "or take panel.at_bound('lower')."
            )
        if self.k > y.shape[-1]:
            raise ValueError(
                f"{name}: k must be at most the number of sites S = {y.shape[-1]}, got {self.k}."
            )
        if ranking == "score":
            scores = output
        elif ranking == "mean":
            scores = output.mean
        elif ranking == "exact":
            scores = expected_ratio_ranking(output, offset=self.offset)
        else:
            with torch.no_grad():
                samples = output.sample(self.model_samples, key=key)
            log_prob = output.log_prob(samples)
            if self.ranking_estimator != "diagonal":
                log_prob = log_prob.sum(-1)
            scores = ratio_ranking(
                samples, log_prob, offset=self.offset, estimator=self.ranking_estimator
            )
        once = (*y.shape[:-2], 1, y.shape[-1])
        if scores.shape not in (y.shape, once):
            raise ValueError(
                f"{name}: the model must give scores of shape [T, S] = {list(y.shape)}, got "
                f"{list(scores.shape)}."
            )
        return scores


class ReachSettings(RankingSettings):
    """The settings that every objective with a soft BPR has, checked; see `DirectBPR` for what they
    mean."""

    def __init__(
        self,
        k: int,
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
        if topk != "sampled" and noise != "normal":
            raise ValueError(
                f"{name}: noise must be 'normal' for topk={topk!r}, got {noise!r}. Use "
                "topk='sampled' for other noise."
            )
        self.sigma, self.num_samples = float(sigma), num_samples
        self.topk, self.estimator, self.noise = topk, estimator, noise

    def _soft_bpr(
        self,
        output: Any,
        probabilistic: bool,
        batch: Batch,
        generator: torch.Generator | None,
        key: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """BPR_t of the soft top-K [T], 0 without gradient where a period has no events, and
        where it has any."""
        ranking = self._ranking_of(output, probabilistic)
        if key is None and (ranking == "ratio" or self.topk == "sampled"):
            key = draw_key(generator, batch.y.device)
        scores = self._ranking_scores(output, ranking, batch, key)
        if self.topk == "sampled":
            membership = perturbed_topk(
                scores,
                self.k,
                sigma=self.sigma,
                num_samples=self.num_samples,
                estimator=self.estimator,
                noise=self.noise,
                key=derived_key(key, 1),
            )
        else:
            membership = expected_topk(scores, self.k, sigma=self.sigma, method=self.topk)
        has_events = batch.y.sum(-1) > 0
        # Periods without events are cut off on both sides, so that neither 0/0 nor its gradient
        # gets through.
        membership = torch.where(has_events.unsqueeze(-1), membership, membership.detach())
        value = torch.ops.topreach.soft_bpr(membership, batch.y, self.k)
        return torch.where(has_events, value, torch.zeros_like(value)), has_events

    def _mean_bpr(self, value: Tensor, has_events: Tensor) -> Tensor:
        """For the history: the mean over periods with events, NaN without any."""
        return value.detach().sum() / has_events.sum()
