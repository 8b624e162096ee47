"""Linear score of a site from its recent counts and features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Scorer(nn.Module):
    """The base of `LinearScorer` and `MLPScorer`: their inputs, and the unit of the counts.

    Past counts are divided by the buffer `history_scale`, a count that is typical of the training
    data. So neither the start nor the learning rate depends on the unit of the counts.
    """

    is_probabilistic = False
    history_scale: Tensor  # []

    def __init__(self, window: int, num_features: int, scale: float | None):
        super().__init__()
        name = type(self).__name__
        if window < 0 or num_features < 0 or window + num_features == 0:
            raise ValueError(
                f"{name}: window and num_features must not be negative, and not both be 0, got "
                f"{window} and {num_features}."
            )
        if scale is not None and not 0 < scale < float("inf"):
            raise ValueError(f"{name}: scale must be a finite number > 0 or None, got {scale!r}.")
        self.config: dict[str, Any] = {"window": int(window), "num_features": int(num_features)}
        self.window = int(window)
        self._scale_is_set = scale is not None
        self.register_buffer("history_scale", torch.tensor(scale or 1.0, dtype=torch.float32))

    def _layers(self) -> Sequence[nn.Linear]:
        raise NotImplementedError

    def forward(self, history: Tensor, x: Tensor | None = None) -> Tensor:
        """Scores [..., S] from history [..., S, W] and features x [..., S, P]."""
        layers = self._layers()
        return torch.ops.topreach.scorer_forward(
            type(self).__name__,
            history,
            x,
            self.history_scale,
            self.window,
            [layer.weight for layer in layers],
            [layer.bias for layer in layers],
        )

    def prepare(self, history: Tensor) -> None:
        """Set `history_scale` to the mean of these past counts [..., S, W], once.

        The `Trainer` calls it before the first step. It does nothing if the scale was given, is set
        already or was loaded, or if there are no past counts above 0.
        """
        known = history[torch.isfinite(history)]
        mean = float(known.double().mean()) if known.numel() else 0.0
        if not self._scale_is_set and float(self.history_scale) == 1.0 and mean > 0:
            self.history_scale.fill_(mean)
        self._scale_is_set = True


class LinearScorer(Scorer):
    """r_s = w·[y_{s,t−W:t−1} / scale, x_s] + b, the weights shared over sites and times [L23 §3].

    Args:
        window: W, the number of past counts read.
        num_features: P, the number of features read.
        scale: past counts are divided by it. None takes their mean in the training data, when the
            model is first trained. 1 leaves counts as they are, as in the paper.

    Parameters, as in C++: linear.weight [1, W + P], linear.bias [1]; buffer history_scale []. They
    are float32 whatever torch's default dtype is; inputs are cast.

    Example:
        >>> LinearScorer(window=5)(torch.rand(4, 1328, 5)).shape
        torch.Size([4, 1328])
    """

    def __init__(self, window: int, num_features: int = 0, *, scale: float | None = None):
        super().__init__(window, num_features, scale)
        self.linear = nn.Linear(window + num_features, 1, dtype=torch.float32)

    def _layers(self) -> Sequence[nn.Linear]:
        return (self.linear,)
