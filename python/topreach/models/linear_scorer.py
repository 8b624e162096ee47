"""Linear score of a site from its recent counts and features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def scorer_input(
    name: str, history: Tensor, x: Tensor | None, window: int, num_features: int
) -> Tensor:
    """What scorers read of a site: its last W counts, oldest first, then its P features."""
    if history.ndim < 2 or history.shape[-1] != window:
        raise ValueError(
            f"{name}: history must have shape [..., S, W] with W = {window} past counts, got "
            f"{list(history.shape)}."
        )
    if num_features == 0:
        return history
    if x is None or x.shape != (*history.shape[:-1], num_features):
        raise ValueError(
            f"{name}: x must have shape {[*history.shape[:-1], num_features]}, got "
            f"{None if x is None else list(x.shape)}."
        )
    return torch.cat((history, x), dim=-1)


def check_scorer_sizes(name: str, window: int, num_features: int) -> None:
    if window < 0 or num_features < 0 or window + num_features == 0:
        raise ValueError(
            f"{name}: window and num_features must not be negative, and not both be 0, got "
            f"{window} and {num_features}."
        )


class LinearScorer(nn.Module):
    """r_s = w·[y_{s,t−W:t−1}, x_s] + b, the weights shared over sites and times [L23 §3].

    Args:
        window: W, past counts that are read.
        num_features: P, features that are read besides.

    Parameters, as in C++: linear.weight [1, W + P], linear.bias [1].

    Example:
        >>> LinearScorer(window=5)(torch.rand(4, 1328, 5)).shape
        torch.Size([4, 1328])
    """

    is_probabilistic = False

    def __init__(self, window: int, num_features: int = 0):
        super().__init__()
        check_scorer_sizes("LinearScorer", window, num_features)
        self.config: dict[str, Any] = {"window": int(window), "num_features": int(num_features)}
        self.window = int(window)
        self.linear = nn.Linear(window + num_features, 1)

    def forward(self, history: Tensor, x: Tensor | None = None) -> Tensor:
        """Scores [..., S] from history [..., S, W] and features x [..., S, P]."""
        features = scorer_input(
            "LinearScorer", history, x, self.window, self.config["num_features"]
        )
        return self.linear(features).squeeze(-1)
