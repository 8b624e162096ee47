"""What SPO+ and PG share: the linear program whose solution is the top K, and the unit of the
counts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from topreach.data.panel import Batch
from topreach.objectives.base import (
    ObjectiveValue,
    RankingSettings,
    TimeWeights,
    forward,
    is_probabilistic,
    period_weights,
    weighted_sum,
)
from topreach.ops import draw_key, topk_mask


class TopKProgram(RankingSettings):
    """Losses for max_w w·v over 0 <= w <= 1, Σ w = K, which TopKMask(v, K) solves [2023 paper Eq. 2,
    with exactly K sites]; see `SPOPlus` for the arguments."""

    def __init__(
        self,
        k: int,
        ranking: str = "auto",
        target: str | None = None,
        model_samples: int = 100,
        ranking_estimator: str = "score_loo",
        *,
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
        self._check_one_of("target", target, (None, "count", "share"))
        self.target = target

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
        weights = period_weights(type(self).__name__, self.time_weights, batch)
        output, probabilistic = forward(model, batch), is_probabilistic(model)
        ranking = self._ranking_of(output, probabilistic)
        if ranking == "ratio" and key is None:
            key = draw_key(generator, batch.y.device)
        scores = self._ranking_scores(output, ranking, batch, key)
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
