"""Negative log likelihood, or MAP if the model has a prior."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from topreach import _C
from topreach.data.panel import Batch
from topreach.objectives.base import (
    ObjectiveValue,
    TimeWeights,
    forward,
    is_probabilistic,
    penalty,
    period_weights,
)


def check_likelihood(name: str, model: nn.Module) -> None:
    """Raise TypeError for a model that gives scores."""
    if not is_probabilistic(model):
        raise TypeError(
            f"{name}: model must be probabilistic (its forward gives a distribution), got "
            f"{type(model).__name__}. "
            "A model that gives scores has no likelihood: train it with DirectBPR."
        )


class NLL:
    """Maximum likelihood: lowers −Σ_t w_t log p(y_t) + penalty.

    p(y_t) is the joint probability of a period's counts: the product over sites if these are
    independent. A cell whose y is NaN, of a site that is not open, is left out.
    A count that is only known to lie in y..y_upper (a suppressed cell) enters by log P(y ≤ Y ≤
    y_upper); see `tr.interval_log_prob` for its cost, and for the distributions that it takes.
    The penalty is the model's own −log prior (random effects of `NegBinMixedEffects`), so this is
    MAP for models that have one. Sources: 2025 paper Eq. 8 and Eq. 20.

    Args:
        time_weights: w_t: a function from the batch's time [T] to weights [T], or one weight per
            period; None for 1.

    Calling it:
        model: probabilistic; `forward` gives a forecast of counts [T, S] (see `tr.distributions`).
        batch: x [T, S, P], y [T, S], time [T]; exposure and y_upper [T, S] or None.
        Returns ObjectiveValue(loss [], {"nll": [], "penalty": []}).

    Raises:
        TypeError: the model gives scores and so has no likelihood.
        ValueError: weights over time of another shape than [T], negative or not finite; counts that
            are not whole numbers >= 0.

    Example:
        >>> value = NLL()(model, train.batch())
        >>> value.loss.backward()
    """

    def __init__(self, time_weights: TimeWeights = None):
        self.time_weights = time_weights

    def __repr__(self) -> str:
        return "NLL()"

    def config(self) -> dict[str, Any]:
        return {}

    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        generator: torch.Generator | None = None,
        key: Tensor | None = None,
    ) -> ObjectiveValue:
        weights = period_weights("NLL", self.time_weights, batch)
        check_likelihood("NLL", model)
        return ObjectiveValue(
            *_C.nll(
                forward(model, batch),
                batch.y,
                weights=weights,
                penalty=penalty(model, batch, weights),
                y_upper=batch.y_upper,
            )
        )
