"""PG, a surrogate by a finite difference in the direction of the counts."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from topreach import _C
from topreach.data.panel import Batch
from topreach.objectives.base import ObjectiveValue, TimeWeights, open_sites, period_weights
from topreach.objectives.linear_program import LinearProgramSettings
from topreach.programs import Program


class PerturbationGradient(LinearProgramSettings):
    """PG: lowers −Σ_t w_t [z(r_t) − z(r_t − h y_t)] / h, z(v) = max_w v·w over the program's plans.

    By Danskin's theorem z has the derivative y·w*(r) in the direction y. So for h → 0 the loss is
    minus the events that the choice by the scores r reaches; the gradient of that is zero almost
    everywhere. At h > 0 the gradient is (w*(r − h y) − w*(r)) / h, with w*(v) = TopKMask(v, K).
    The backward difference is never below minus the events reached. ``two_sides`` takes the central
    difference, [z(r + h y) − z(r − h y)] / (2h), which is closer to minus the events reached. A
    period without events counts as zero and gives no gradient. Sources: Huang & Gupta (2024),
    Decision-focused learning with directional gradients; a competitor in the 2025 paper, §5.2,
    where PyEPO computes it (one side). The sum over periods is PyEPO's ``reduction="sum"``.

    Args:
        k: a `Program`, or K, the number of sites that can be acted on, for `TopK(K)`.
        sigma: h, the width of the difference, in units of r / y. It must be so large that r − h y
            orders the sites differently from r; else there is no gradient.
        two_sides: central instead of backward difference.
        ranking, target, model_samples, ranking_estimator, offset, time_weights: see `SPOPlus`.
            target affects only the scale of h and of the loss.

    Calling it: see `DirectBPR`.
        Returns ObjectiveValue(loss [], {"bpr": mean over periods with events, without noise}).

    Raises:
        ValueError: sigma not positive, and as `SPOPlus`.

    Example:
        >>> objective = PerturbationGradient(k=100, sigma=0.1)
        >>> objective(LinearScorer(window=5), train.batch(window=5)).loss.backward()
    """

    def __init__(
        self,
        k: int | Program,
        sigma: float = 0.1,
        two_sides: bool = False,
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
            ranking=ranking,
            target=target,
            model_samples=model_samples,
            ranking_estimator=ranking_estimator,
            offset=offset,
            time_weights=time_weights,
        )
        if not (sigma > 0 and math.isfinite(sigma)):
            raise ValueError(
                f"PerturbationGradient: sigma must be positive and finite, got {sigma!r}."
            )
        self.sigma, self.two_sides = float(sigma), bool(two_sides)

    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        generator: torch.Generator | None = None,
        key: Tensor | None = None,
    ) -> ObjectiveValue:
        weights = period_weights("PerturbationGradient", self.time_weights, batch)
        output = self._output(model, batch)
        return ObjectiveValue(
            *_C.perturbation_gradient(
                output,
                batch.y,
                self.program,
                self._ranking_options(generator, key),
                sigma=self.sigma,
                two_sides=self.two_sides,
                target=self.target or "auto",
                weights=weights,
                open=open_sites(batch),
            )
        )
