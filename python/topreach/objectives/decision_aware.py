"""Decision-aware maximum likelihood (DAML)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from topreach import _C
from topreach.data.panel import Batch
from topreach.objectives.base import (
    ObjectiveValue,
    ReachSettings,
    TimeWeights,
    penalty,
    period_weights,
)
from topreach.objectives.nll import check_likelihood
from topreach.programs import Program


class DecisionAware(ReachSettings):
    """DAML: lowers Σ_t w_t [λ max(0, ε − BPR_t) − log p(y_t)] + penalty.

    The likelihood, and a hinge that acts while the top-K decision of a period reaches less than ε
    of the best possible reach. A period without events has no hinge. BPR_t is that of `DirectBPR`,
    with the same settings. By default it is exact, so nothing is sampled.

    The paper samples BPR_t (`DirectBPR` says how to do so). The hinge of a sampled BPR is biased:
    E max(0, ε − BPR_t) is above max(0, ε − E BPR_t) if the samples vary around ε. Source: 2025
    paper Eq. 13 and Algorithm A.1.

    Args:
        k: a `Program`, or K, the number of sites that can be acted on, for `TopK(K)`.
        sigma: σ, the standard deviation of the noise on the ranking.
        epsilon: ε in (0, 1], the BPR below which the hinge acts; with 1 it always acts.
        weight: λ, the weight of the hinge; 30 in the paper.
        num_samples, model_samples, ranking, topk, estimator, ranking_estimator, noise, offset,
            sigma_unit, time_weights: see `DirectBPR`.

    Calling it: see `DirectBPR`; the model must be probabilistic.
        Returns ObjectiveValue(loss [], {"nll", "penalty" if the model has one, "hinge", "bpr"}).

    Raises:
        ValueError: epsilon or weight out of range; and as `DirectBPR`. Suppressed counts too: the
            likelihood could take their intervals, the hinge cannot. Train by NLL.
        TypeError: the model gives scores and so has no likelihood; and as `DirectBPR`.

    Example:
        >>> objective = DecisionAware(100, sigma=3e-4, epsilon=0.85)
        >>> value = objective(model, train.batch())
        >>> sorted(value.terms)
        ['bpr', 'hinge', 'nll', 'penalty']
    """

    def __init__(
        self,
        k: int | Program,
        sigma: float,
        epsilon: float = 1.0,
        weight: float = 30.0,
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
            sigma=sigma,
            num_samples=num_samples,
            model_samples=model_samples,
            ranking=ranking,
            topk=topk,
            estimator=estimator,
            ranking_estimator=ranking_estimator,
            noise=noise,
            offset=offset,
            sigma_unit=sigma_unit,
            time_weights=time_weights,
        )
        if not 0 < epsilon <= 1:
            raise ValueError(f"DecisionAware: epsilon must be in (0, 1], got {epsilon!r}.")
        if not (weight >= 0 and weight < float("inf")):
            raise ValueError(f"DecisionAware: weight must be finite and >= 0, got {weight!r}.")
        self.epsilon, self.weight = float(epsilon), float(weight)

    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        generator: torch.Generator | None = None,
        key: Tensor | None = None,
    ) -> ObjectiveValue:
        weights = period_weights("DecisionAware", self.time_weights, batch)
        check_likelihood("DecisionAware", model)
        output = self._output(model, batch)
        options = self._reach_options(batch, weights, generator, key)
        return ObjectiveValue(
            *_C.decision_aware(
                output,
                batch.y,
                options,
                epsilon=self.epsilon,
                weight=self.weight,
                penalty=penalty(model, batch, weights),
            )
        )
