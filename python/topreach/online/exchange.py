"""The messages between a cooperative and its agencies."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from topreach.models.stemmed.fitting import Prior

__all__ = ["Message", "Reply"]


@dataclass(frozen=True)
class Message:
    """From the cooperative; it says nothing about any single event.

    prior: mean m + C z_u and precision 1 / τ² of the working coordinates, [M, P] each. rate: [M],
    all nodes' recent rates per day, for the stability barrier. scaling: [2, p], mean and scale of
    the covariates. names: the P parameters.
    """

    prior: Prior
    rate: Tensor
    scaling: Tensor
    names: list[str]


@dataclass(frozen=True)
class Reply:
    """From an agency, of its m nodes: their numbers int64 [m], working coordinates ŵ [m, P],
    variance diag H⁻¹ [m, P], log-likelihood [m], and whether each has converged [m]."""

    nodes: Tensor
    working: Tensor
    variance: Tensor
    log_likelihood: Tensor
    converged: Tensor
