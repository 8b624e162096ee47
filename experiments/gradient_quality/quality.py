"""The quality of an estimate of a gradient: its variance, bias and direction, and the time that it
takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

COSINE = 0.99  # the time to this cosine is reported


class Quality:
    """Independent estimates of P gradients, against the true ones.

    Only sums are kept, in float64, so any number of estimates can be added.
    """

    def __init__(self, true: Tensor):
        """``true``: [P, S], none of them zero."""
        self.true = true.double()
        self.norm = self.true.norm(dim=-1)
        self._sum = torch.zeros_like(self.true)
        self._squares = torch.zeros_like(self.norm)
        self._along: list[Tensor] = []
        self._cosine: list[Tensor] = []

    def add(self, estimates: Tensor) -> None:
        """``estimates``: [R, P, S]."""
        g = estimates.double()
        along = torch.einsum("rps,ps->rp", g, self.true)
        squares = g.square().sum(-1)
        self._sum += g.sum(0)
        self._squares += squares.sum(0)
        self._along.append(along / self.norm.square())
        # An estimate of zero has no direction.
        self._cosine.append(along / (squares.sqrt() * self.norm).clamp_min(1e-300))

    def summary(self) -> dict[str, float | None]:
        """Medians over the P gradients. Figures that need more than one estimate are None for one.

        relative_variance: E |g - E g|^2 / |g*|^2.
        bias, bias_se: |mean g - g*| / |g*|, and the size that chance alone gives it.
        slope, slope_se: mean of g . g* / |g*|^2, 1 without bias, and its standard error.
        cosine, cosine_sd: between g and g*, mean and standard deviation over the estimates.
        """
        along, cosine = torch.cat(self._along), torch.cat(self._cosine)
        count = len(along)
        mean = self._sum / count
        result: dict[str, float | None] = {
            "relative_variance": None,
            "bias": median((mean - self.true).norm(dim=-1) / self.norm),
            "bias_se": None,
            "slope": median(along.mean(0)),
            "slope_se": None,
            "cosine": median(cosine.mean(0)),
            "cosine_sd": None,
        }
        if count > 1:
            spread = (self._squares / count - mean.square().sum(-1)) * count / (count - 1)
            relative = spread.clamp_min(0) / self.norm.square()
            result["relative_variance"] = median(relative)
            result["bias_se"] = median((relative / count).sqrt())
            result["slope_se"] = median(along.std(0)) / math.sqrt(count)
            result["cosine_sd"] = median(cosine.std(0))
        return result


def median(values: Tensor) -> float:
    return float(values.double().quantile(0.5))


def draws_for(relative_variance: float, draws: int, cosine: float = COSINE) -> float:
    """Number of draws for a mean cosine of `cosine`, if the variance falls like 1 / draws.

    An unbiased g with relative variance r has a squared length near (1 + r) |g*|^2, and g . g* is
    near |g*|^2, so the cosine is near 1 / sqrt(1 + r).
    """
    return relative_variance * draws / (1 / cosine**2 - 1)


def seconds(call: Callable[[], object], device: torch.device, budget: float) -> float:
    """Time of one call: the least over the calls that fit into `budget` seconds, or over three if
    they fit into five times as much.

    It is the least because other work on the machine can only add time.
    """
    best, spent, rounds = math.inf, 0.0, 0
    while spent < (budget if rounds >= 3 else 5 * budget) and rounds < 1000:
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elapsed = time.perf_counter() - started
        best, spent, rounds = min(best, elapsed), spent + elapsed, rounds + 1
    return best
