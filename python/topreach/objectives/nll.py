"""Negative log likelihood, or MAP where the model has a prior."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from topreach.data.panel import Batch
from topreach.distributions.counts import interval_log_prob
from topreach.objectives.base import (
    ObjectiveValue,
    TimeWeights,
    forward,
    is_probabilistic,
    penalty,
    period_weights,
    weighted_sum,
)


def negative_log_likelihood(
    name: str, model: nn.Module, output: Any, batch: Batch, weights: Tensor | None
) -> dict[str, Tensor]:
    """The terms nll = −Σ_t w_t Σ_s log p(y_ts) and, if the model has one, penalty."""
    if not is_probabilistic(model):
        raise TypeError(
            f"{name}: model must be probabilistic (its forward gives a distribution), got "
            f"{type(model).__name__}. "
            "A model that gives scores has no likelihood: train it with DirectBPR."
        )
    if batch.y_upper is None:
        log_prob = output.log_prob(batch.y)
    else:
        log_prob = interval_log_prob(output, batch.y, batch.y_upper)
    terms = {"nll": weighted_sum(-log_prob.sum(-1), weights)}
    own = penalty(model, batch, weights)
    if own is not None:
        terms["penalty"] = own
    return terms


class NLL:
    """Maximum likelihood: lowers −Σ_t w_t Σ_s log p(y_ts) + penalty.

    A count that is only known to lie in y..y_upper (a suppressed cell) enters by log P(y ≤ Y ≤
    y_upper); see `tr.interval_log_prob` for its cost, and for the distributions that it takes.
    The penalty is the model's own −log prior (random effects of `NegBinMixedEffects`), so this is
    MAP for models that have one. Sources: 2025 paper Eq. 8 and Eq. 20.

    Args:
        time_weights: w_t: a function from the batch's time [T] to weights [T], or one weight per
            period; None for 1.

    Calling it:
        model: probabilistic; `forward` gives a distribution with `log_prob(y [T, S])` -> [T, S].
        batch: x [T, S, P], y [T, S], time [T]; exposure and y_upper [T, S] or None.
        Returns ObjectiveValue(loss [], {"nll": [], "penalty": []}).

    Raises:
        TypeError: the model gives scores and so has no likelihood.

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
        output = forward(model, batch)
        terms = negative_log_likelihood("NLL", model, output, batch, weights)
        loss = terms["nll"] + terms["penalty"] if "penalty" in terms else terms["nll"]
        return ObjectiveValue(loss, {name: term.detach() for name, term in terms.items()})
