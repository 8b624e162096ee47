"""How a ranker is trained and how it ranks: small objects, each with its defaults."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from torch import optim

from topreach.objectives.base import TimeWeights

RANKINGS = ("auto", "exact", "ratio", "mean")
TOPKS = ("exact", "mean_field", "sampled")


def check_whole(name: str, value: Any, least: int) -> None:
    """Raise ValueError unless the value is a whole number >= least; True and False are not
    numbers."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
        raise ValueError(f"TopKRanker: {name} must be a whole number >= {least}, got {value!r}.")


def check_one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(
            f"TopKRanker: {name} must be one of {', '.join(map(repr, allowed))}, got {value!r}."
        )


@dataclass(frozen=True)
class Decision:
    """How training takes the choice into account, for objectives "daml" and "bpr".

    Args:
        sigma: σ, the noise that smooths the choice. None: 0.4 / S for ratio scores, whose mean is
            1 / S, in their own unit; else 0.1 of the scores' standard deviation over sites.
        epsilon: ε of DAML, the share of the best possible reach below which the hinge acts; with 1
            it always acts.
        weight: λ of DAML, the weight of the hinge.
        topk: the smoothed choice: "exact" or "mean_field" (without draws), or "sampled".
        num_samples: J, draws of the noise per step, for "sampled".
        model_samples: M, draws of the model per step, if it is ranked from draws.
    """

    sigma: float | None = None
    epsilon: float = 1.0
    weight: float = 30.0
    topk: str = "exact"
    num_samples: int = 100
    model_samples: int = 100

    def __post_init__(self) -> None:
        check_one_of("topk", self.topk, TOPKS)


@dataclass(frozen=True)
class Training:
    """How a model is trained by steps; see `Trainer` for the other fields.

    Args:
        warm_start_epochs: epochs of the likelihood fit before DAML, whose validation BPR is DAML's
            floor [D25 App. C.2.2]; 0 leaves it out. Without a validation panel it is left out
            unless `warm_start`.
        warm_start: whether DAML continues from that fit's parameters, or starts afresh.
        time_weights: weight of each period: a function of the panel's own time values, or T
            numbers.
        checkpoint: file for the state of the run, to resume from. The likelihood fit before DAML
            writes its own beside it, with ".warm" added.
    """

    optimizer: str | Callable[..., optim.Optimizer] = "adam"
    lr: float = 0.02
    max_epochs: int = 300
    warm_start_epochs: int = 200
    warm_start: bool = False
    validate_every: int = 5
    patience: int | None = None
    batch_size: int | None = None
    clip_gradient: float | None = None
    time_weights: TimeWeights = None
    checkpoint: str | os.PathLike | None = None

    def __post_init__(self) -> None:
        check_whole("warm_start_epochs", self.warm_start_epochs, 0)


@dataclass(frozen=True)
class Ranking:
    """The quantity by which sites are ranked.

    Args:
        by: "exact", the ratio ranking E[y_s / Σ y] without draws; "ratio", the same from draws;
            "mean", E[y_s]; or "auto": "exact" if the forecast allows it, else "ratio". A scorer
            ranks by its score.
        samples: draws of the fitted model, for "ratio" and for each site's chance to be in the best
            plan.
    """

    by: str = "auto"
    samples: int = 1000

    def __post_init__(self) -> None:
        check_one_of("ranking", self.by, RANKINGS)
        check_whole("rank_samples", self.samples, 1)


# Settings that may be given to TopKRanker by name -> the object that has it, and its name there.
SHORT = {
    **{f.name: ("decision", f.name) for f in fields(Decision)},
    **{f.name: ("training", f.name) for f in fields(Training)},
    "rank_samples": ("ranking", "samples"),
}
