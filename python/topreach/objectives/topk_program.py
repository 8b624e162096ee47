"""What SPO+ and PG share: the linear program whose solution is the top K, and the unit of the
counts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from topreach.objectives.base import (
    ObjectiveValue,
    ReachSettings,
    TimeWeights,
    forward,
    is_probabilistic,
    period_weights,
    weighted_sum,
)
from topreach.ops import draw_key, topk_mask
from topreach.panel import Batch


class TopKProgram:
    """Losses for max_w w·v over 0 <= w <= 1, Σ w = K, which TopKMask(v, K) solves [2023 paper Eq. 2,
    with exactly K sites]; see `SPOPlus` for the arguments."""

    def __init__(
        self,
        k: int,
        *,
        ranking: str,
        target: str | None,
        model_samples: int,
        ranking_estimator: str,
        offset: float,
        time_weights: TimeWeights,
    ):
        name = type(self).__name__
        for argument, value, least in (
            ("k", k, 1),
            ("model_samples", model_samples, 2 if ranking_estimator == "score_loo" else 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(
                    f"{name}: {argument} must be a whole number >= {least}, got {value!r}."
                )
        for argument, value, allowed in (
            ("ranking", ranking, ("auto", "exact", "ratio", "mean")),
            ("target", target, (None, "count", "share")),
            ("ranking_estimator", ranking_estimator, ("score", "score_loo", "diagonal")),
        ):
            if value not in allowed:
                raise ValueError(
                    f"{name}: {argument} must be one of {', '.join(map(repr, allowed))}, got "
                    f"{value!r}."
                )
        self.k, self.ranking, self.target, self.model_samples = k, ranking, target, model_samples
        self.ranking_estimator, self.offset = ranking_estimator, float(offset)
        self.time_weights = time_weights

    __repr__ = ReachSettings.__repr__
    config = ReachSettings.config
    _ranking_of = ReachSettings._ranking_of
    _ranking_scores = ReachSettings._ranking_scores

    def _loss(self, scores: Tensor, y: Tensor) -> Tensor:
        """The loss [T] of scores r [T, S] for counts y [T, S] in their unit."""
        raise NotImplementedError

    def _value(self, v: Tensor, at: Tensor) -> Tensor:
        """w·v, [T], for the choice w that is best at `at`, a constant."""
        return (v * topk_mask(at.detach(), self.k)).sum(-1)

    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        generator: torch.Generator | None = None,
        key: Tensor | None = None,
    ) -> ObjectiveValue:
        name = type(self).__name__
        weights = period_weights(name, self.time_weights, batch)
        output, probabilistic = forward(model, batch), is_probabilistic(model)
        if self.k > batch.y.shape[-1]:
            raise ValueError(
                f"{name}: k must be at most the number of sites S = {batch.y.shape[-1]}, got "
                f"{self.k}."
            )
        ranking = self._ranking_of(output, probabilistic)
        if ranking == "ratio" and key is None:
            key = draw_key(generator, batch.y.device)
        scores = self._ranking_scores(output, ranking, key)
        if scores.shape != batch.y.shape:
            raise ValueError(
                f"{name}: the model must give scores of shape [T, S] = {list(batch.y.shape)}, got "
                f"{list(scores.shape)}."
            )
        target = self.target
        if target is None:
            target = "share" if ranking in ("exact", "ratio") else "count"
        y = batch.y.to(scores.dtype)
        total = y.sum(-1, keepdim=True)
        if target == "share":
            y = y / torch.where(total > 0, total, torch.ones_like(total))
        has_events = total.squeeze(-1) > 0
        loss = self._loss(scores, y)
        loss = torch.where(has_events, loss, torch.zeros_like(loss))
        reach = torch.ops.topreach.bpr(scores.detach(), batch.y, self.k)
        bpr = torch.where(has_events, reach, torch.zeros_like(reach)).sum() / has_events.sum()
        return ObjectiveValue(weighted_sum(loss, weights), {"bpr": bpr})
