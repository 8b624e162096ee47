"""Fitting a model by an objective: loop, validation, checkpoints, and guards."""

from topreach.training.guards import (
    NonFiniteLossError,
    NothingLearnt,
    TrainingInterrupted,
    beats_past_means,
    compare_with_past_means,
)
from topreach.training.trainer import Trainer

__all__ = [
    "NonFiniteLossError",
    "NothingLearnt",
    "Trainer",
    "TrainingInterrupted",
    "beats_past_means",
    "compare_with_past_means",
]
