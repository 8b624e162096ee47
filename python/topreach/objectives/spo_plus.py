"""SPO+, a convex surrogate for the regret of a choice."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from topreach import _C
from topreach.data.panel import Batch
from topreach.objectives.base import ObjectiveValue, open_sites, period_weights
from topreach.objectives.linear_program import LinearProgramSettings


class SPOPlus(LinearProgramSettings):
    """SPO+: lowers Σ_t w_t [max_w (2r_t − y_t)·w − 2 r_t·w*(y_t) + y_t·w*(y_t)].

    w ranges over the program's plans and w*(v) is the best one for v: TopKMask(v, K) for K sites.
    The loss is convex in the scores r, 0 for r = y, and never below the regret y·w*(y) − y·w*(r),
    the events missed by choosing with r; its subgradient is 2 (w*(2r − y) − w*(y)). So r predicts
    y, and must be in the unit of y: see `target`. A period without events counts as zero and gives
    no gradient. Sources: Elmachtoub & Grigas (2022), Smart "predict, then optimize", Definition 3;
    a competitor in the 2025 paper, §5.2, where PyEPO computes it. The sum over periods is PyEPO's
    ``reduction="sum"``.

    Args:
        k: a `Program`, or K, the number of sites that can be acted on, for `TopK(K)`.
        ranking: r of a probabilistic model, as in `DirectBPR`; no effect for a scorer.
        target: the unit of y in the loss: "count", y itself; "share", y / Σ_s y. None: the unit of
            r, which is shares for the ratio ranking, counts for the mean and for a scorer. The code
            published with the 2025 paper compares the ratio ranking with counts: target="count".
        model_samples, ranking_estimator, offset, time_weights: see `DirectBPR`.

    Calling it: see `DirectBPR`.
        Returns ObjectiveValue(loss [], {"bpr": mean over periods with events, without noise}).

    Raises:
        ValueError: k below 1 or above S, an unknown name, scores of another shape than y,
            weights over time that are negative or not finite.

    Example:
        >>> objective = SPOPlus(k=100)
        >>> objective(LinearScorer(window=5), train.batch(window=5)).loss.backward()
    """

    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        generator: torch.Generator | None = None,
        key: Tensor | None = None,
    ) -> ObjectiveValue:
        weights = period_weights("SPOPlus", self.time_weights, batch)
        output = self._output(model, batch)
        return ObjectiveValue(
            *_C.spo_plus(
                output,
                batch.y,
                self.program,
                self._ranking_options(generator, key),
                target=self.target or "auto",
                weights=weights,
                open=open_sites(batch),
            )
        )
