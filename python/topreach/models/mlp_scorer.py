"""Multi-layer perceptron score of a site from its recent counts and features."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from topreach.models.linear_scorer import check_scorer_sizes, scorer_input


class MLPScorer(nn.Module):
    """r_s = MLP([y_{s,t−W:t−1}, x_s]), ReLU between layers, weights shared over sites [L23 §3].

    Args:
        window: W, past counts that are read.
        num_features: P, features that are read besides.
        hidden: units of the hidden layers; 50 and 10 in the paper.

    Parameters, as in C++: layers.0.weight, layers.0.bias, layers.1.weight, …

    Example:
        >>> MLPScorer(window=5, num_features=2)(torch.rand(4, 9, 5), torch.rand(4, 9, 2)).shape
        torch.Size([4, 9])
    """

    is_probabilistic = False

    def __init__(self, window: int, num_features: int = 0, hidden: Sequence[int] = (50, 10)):
        super().__init__()
        check_scorer_sizes("MLPScorer", window, num_features)
        hidden = [int(units) for units in hidden]
        if any(units < 1 for units in hidden):
            raise ValueError(f"MLPScorer: hidden must hold positive sizes, got {hidden}.")
        self.config: dict[str, Any] = {
            "window": int(window),
            "num_features": int(num_features),
            "hidden": hidden,
        }
        self.window = int(window)
        widths = [window + num_features, *hidden, 1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, history: Tensor, x: Tensor | None = None) -> Tensor:
        """Scores [..., S] from history [..., S, W] and features x [..., S, P]."""
        h = scorer_input("MLPScorer", history, x, self.window, self.config["num_features"])
        for i, layer in enumerate(self.layers):
            h = layer(torch.relu(h) if i else h)
        return h.squeeze(-1)
