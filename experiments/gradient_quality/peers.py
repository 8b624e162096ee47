"""Other packages' top-K, on the same problem: PyEPO's perturbed optimiser, difftopk's relaxations.

PyEPO estimates the same expectation, with the estimator of the papers or with a leave-one-out
baseline. The relaxations define another soft mask. Their temperature is set so that the mask is as
soft as the exact one, with equal sum |b - hard mask|, and also to the value with the best cosine.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

import topreach as tr

from .quality import Quality, seconds
from .topk import Problem, exact, sampled

PACKAGES = ("difftopk", "pyepo")
TEMPERATURES = np.logspace(-1.5, 1.5, 7)  # tried for the best cosine, times the matched one


def missing() -> list[str]:
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def pull(mask: Callable[[Tensor], Tensor], problem: Problem) -> tuple[Tensor, Tensor]:
    """Mask and vector-Jacobian product, [P, S]."""
    free = problem.scores.detach().clone().requires_grad_()
    b = mask(free)
    (gradient,) = torch.autograd.grad(b, free, problem.v)
    return b.detach(), gradient


# ---- PyEPO ---------------------------------------------------------------------------------------


def pyepo_perturbed(problem: Problem, draws: int, *, baseline: bool) -> torch.nn.Module:
    """PyEPO's perturbed optimiser for top-K, which is solved by a partial sort."""
    from pyepo import EPO
    from pyepo.func import perturbedOpt
    from pyepo.model.opt import optModel

    class TopK(optModel):
        modelSense = EPO.MAXIMIZE

        def __init__(self, sites: int, k: int):
            self.sites, self.k = sites, k
            super().__init__()

        def _getModel(self):
            return None, range(self.sites)

        def setObj(self, c):
            self._c = np.asarray(c)

        def solve(self):
            mask = np.zeros(self.sites, dtype=np.float32)
            chosen = np.argpartition(-self._c, self.k - 1)[: self.k]
            mask[chosen] = 1
            return mask, float(self._c[chosen].sum())

    sites = problem.scores.shape[-1]
    with contextlib.redirect_stdout(io.StringIO()):
        return perturbedOpt(
            TopK(sites, problem.k),
            n_samples=draws,
            sigma=problem.sigma,
            variance_reduction=baseline,
        )


def judge_pyepo(problem: Problem, draws: int, repeats: int, budget: float) -> list[dict]:
    rows = []
    ours = {False: "score", True: "score_loo"}
    for baseline in (False, True):
        operator = pyepo_perturbed(problem, draws, baseline=baseline)
        quality = Quality(problem.gradient)
        for _ in range(repeats):
            quality.add(pull(operator, problem)[1][None])
        spent = seconds(lambda op=operator: pull(op, problem), problem.scores.device, budget)
        same = seconds(
            lambda b=baseline: list(sampled(ours[b], problem, draws, 1, 0)),
            problem.scores.device,
            budget,
        )
        name = "pyepo perturbedOpt" + (", leave-one-out" if baseline else ", plain")
        rows.append(
            {"method": name, "like": ours[baseline], "temperature": problem.sigma}
            | quality.summary()
            | {"milliseconds": 1e3 * spent, "topreach_milliseconds": 1e3 * same}
        )
    return rows


# ---- relaxations ---------------------------------------------------------------------------------


def relaxations(problem: Problem) -> dict[str, Callable[[float], Callable[[Tensor], Tensor]]]:
    """Functions by name: each takes a temperature and returns the soft mask as a function of the
    scores."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints on import
        import difftopk

    sites, k = problem.scores.shape[-1], problem.k
    padded = 2 ** math.ceil(math.log2(sites))  # the bitonic network needs a power of two
    found = {
        # A soft permutation: [site, rank] with the best last, or [rank, site] with the best first.
        "difftopk NeuralSort": lambda tau: (
            lambda r: difftopk.NeuralSort(tau=tau)(r)[:, :, -k:].sum(2)
        ),
        "difftopk SoftSort": lambda tau: lambda r: difftopk.SoftSort(tau=tau)(r)[:, :k].sum(1),
    }
    if padded > 256:
        return found  # with padded x padded matrices the network would take minutes

    def network(tau: float) -> Callable[[Tensor], Tensor]:
        with contextlib.redirect_stdout(io.StringIO()):
            net = difftopk.DiffTopkNet(
                "bitonic", padded, k, steepness=1 / tau, distribution="logistic"
            )

        def mask(r: Tensor) -> Tensor:
            low = r.detach().min(-1, keepdim=True).values - 1e3 * tau
            fill = low.expand(-1, padded - sites)
            return net(torch.cat([r, fill], -1))[1].sum(-1)[:, :sites]

        return mask

    found["difftopk sorting network"] = network
    return found


def judge_relaxations(problem: Problem, budget: float) -> list[dict]:
    hard = tr.topk_mask(problem.scores, problem.k)
    softness = float((problem.value - hard).abs().sum(-1).mean())
    rows = []
    for name, make in relaxations(problem).items():

        def soft(tau: float, make=make) -> float:
            with torch.no_grad():
                return float((make(tau)(problem.scores) - hard).abs().sum(-1).mean())

        matched = bisect(soft, softness, problem.sigma)
        quality = Quality(problem.gradient)
        quality.add(pull(make(matched), problem)[1][None])
        found = quality.summary()
        best = found["cosine"]
        for factor in TEMPERATURES:
            trial = Quality(problem.gradient)
            trial.add(pull(make(matched * factor), problem)[1][None])
            best = max(best, trial.summary()["cosine"])
        operator = make(matched)
        spent = seconds(lambda: pull(operator, problem), problem.scores.device, budget)
        same = seconds(
            lambda: exact(problem.scores, problem.v, problem.k, problem.sigma),
            problem.scores.device,
            budget,
        )
        rows.append(
            {"method": name, "like": "exact", "temperature": matched}
            | {key: found[key] for key in ("cosine", "slope")}
            | {
                "best_cosine": best,
                "milliseconds": 1e3 * spent,
                "topreach_milliseconds": 1e3 * same,
            }
        )
    return rows


def bisect(function: Callable[[float], float], target: float, guess: float) -> float:
    """The positive number at which an increasing function is `target`, to a hundredth."""
    low = high = guess
    while function(high) < target and high < 1e6 * guess:
        high *= 4
    while function(low) > target and low > 1e-6 * guess:
        low /= 4
    while high / low > 1.01:
        middle = math.sqrt(low * high)
        if function(middle) < target:
            low = middle
        else:
            high = middle
    return math.sqrt(low * high)


def study(problem: Problem, draws: int, repeats: int, budget: float) -> list[dict]:
    """A row for each method that is installed and can handle this number of sites."""
    rows = []
    if importlib.util.find_spec("pyepo") is not None:
        rows += judge_pyepo(problem, draws, repeats, budget)
    if importlib.util.find_spec("difftopk") is not None:
        rows += judge_relaxations(problem, budget)
    return rows
