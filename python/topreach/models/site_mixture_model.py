"""The base of NormalMixture and PoissonMixture."""

from __future__ import annotations

import numbers
from typing import Any

import torch
from torch import Tensor, nn


class SiteMixtureModel(nn.Module):
    """The base of NormalMixture and PoissonMixture: their arguments, logits [*batch, S, L], and a
    random start."""

    is_probabilistic = True

    def __init__(
        self,
        num_sites: int,
        num_components: int = 2,
        *,
        low: float = 0.0,
        high: float = 10.0,
        batch: tuple[int, ...] = (),
    ):
        super().__init__()
        name = type(self).__name__
        for argument, value in (("num_sites", num_sites), ("num_components", num_components)):
            whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
            if not whole or value < 1:
                raise ValueError(f"{name}: {argument} must be a whole number >= 1, got {value!r}.")
        low, high = float(low), float(high)
        if not 0 <= low < high < float("inf"):
            raise ValueError(
                f"{name}: low and high must be 0 <= low < high, finite, got {low} and {high}."
            )
        self.config: dict[str, Any] = {
            "num_sites": int(num_sites),
            "num_components": int(num_components),
            "low": low,
            "high": high,
            "batch": tuple(int(size) for size in batch),
        }
        for parameter, value in zip(self._parameters_of, self._start(**self.config), strict=True):
            self.register_parameter(parameter, nn.Parameter(value))

    _parameters_of: tuple[str, ...]  # names, as `_start` gives the values
    _start: Any  # the operator that makes them at random

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value!r}" for key, value in self.config.items())

    @staticmethod
    def _over_time(parameter: Tensor, time: Tensor) -> Tensor:
        """[*batch, S, L] for every one of `time` [...]: a view [*batch, ..., S, L]."""
        return torch.ops.topreach.mixture_over_time(parameter, time)
