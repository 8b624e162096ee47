"""Multi-layer perceptron score of a site from its recent counts and features."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import nn

from topreach.models.linear_scorer import Scorer


class MLPScorer(Scorer):
    """r_s = MLP([y_{s,t−W:t−1} / scale, x_s]), ReLU between layers, weights shared over sites [L23
    §3].

    Args:
        window: W, the number of past counts read.
        num_features: P, the number of features read.
        hidden: units of the hidden layers; 50 and 10 in the paper.
        scale: as in `LinearScorer`.

    Parameters, as in C++: layers.0.weight, layers.0.bias, layers.1.weight, …; buffer history_scale
    []. They are float32 whatever torch's default dtype is; inputs are cast.

    Example:
        >>> MLPScorer(window=5, num_features=2)(torch.rand(4, 9, 5), torch.rand(4, 9, 2)).shape
        torch.Size([4, 9])
    """

    def __init__(
        self,
        window: int,
        num_features: int = 0,
        hidden: Sequence[int] = (50, 10),
        *,
        scale: float | None = None,
    ):
        super().__init__(window, num_features, scale)
        hidden = [int(units) for units in hidden]
        if any(units < 1 for units in hidden):
            raise ValueError(f"MLPScorer: hidden must hold positive sizes, got {hidden}.")
        self.config["hidden"] = hidden
        widths = [window + num_features, *hidden, 1]
        self.layers = nn.ModuleList(
            nn.Linear(a, b, dtype=torch.float32) for a, b in pairwise(widths)
        )

    def _layers(self) -> Sequence[nn.Linear]:
        return cast("list[nn.Linear]", list(self.layers))  # a ModuleList knows modules only
