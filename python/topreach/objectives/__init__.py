"""Training objectives: the losses that the optimiser lowers.

An objective is called as `objective(model, batch, *, generator=None, key=None)` and returns an
`ObjectiveValue`.
"""

from topreach.objectives.base import ObjectiveValue, forward
from topreach.objectives.decision_aware import DecisionAware
from topreach.objectives.direct_bpr import DirectBPR
from topreach.objectives.nll import NLL
from topreach.objectives.perturbation_gradient import PerturbationGradient
from topreach.objectives.spo_plus import SPOPlus

__all__ = [
    "NLL",
    "DecisionAware",
    "DirectBPR",
    "ObjectiveValue",
    "PerturbationGradient",
    "SPOPlus",
    "forward",
]
