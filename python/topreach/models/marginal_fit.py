"""Maximum marginal likelihood: the optimiser, and its result with standard errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import pandas as pd
import torch
from torch import Tensor

Objective = Callable[[Tensor], tuple[float, Tensor]]

_GAIN_TOLERANCE = 1e-9  # the search ends when less log-likelihood than this can be gained
_LEAST_CURVATURE = 1e-6  # of the log-likelihood along a parameter that the data identify
# Loss of log-likelihood that holding a variance at 0 may cause, if other parameters stay free.
_BOUNDARY_COST = 1e-3


@dataclass(frozen=True)
class MarginalFit:
    """The result of `NegBinMixedEffects.fit`, in float64.

    Attributes:
        names: of the p parameters, as in `model.state_dict()`: "intercept", "weight[0]", …
        estimate: their values, [p].
        covariance: inverse of the observed information of the marginal likelihood, [p, p]; zero for
            parameters that were held.
        held: name -> why it was not estimated: at its boundary, held by the user, not identified.
        log_likelihood: the maximum.
        num_observations: counts of positive weight.
        converged: whether less than 1e-6 of log-likelihood is left to gain and the information is
            positive definite.
        message: the optimiser's message.
        num_evaluations: of the likelihood with its gradient.
        feature_names: of the coefficients.
        quadrature: nodes in each effect; 1 for Laplace's approximation.
        past_totals: sum of the counts over the sites, of each period fitted.
        past_exposure: likewise of their exposure; None without one.
        data: the arguments of `fit`; None for a fit restored from a file.
    """

    names: list[str]
    estimate: Tensor
    covariance: Tensor
    held: dict[str, str]
    log_likelihood: float
    num_observations: int
    converged: bool
    message: str
    num_evaluations: int
    feature_names: list[str]
    quadrature: int
    past_totals: list[float] = field(repr=False)
    past_exposure: list[float] | None = field(repr=False)
    data: dict[str, Any] | None = field(repr=False, default=None)

    @property
    def num_parameters(self) -> int:
        """Parameters that were estimated."""
        return len(self.names) - len(self.held)

    @property
    def aic(self) -> float:
        """2 p − 2 log L (Akaike 1974)."""
        return 2 * self.num_parameters - 2 * self.log_likelihood

    @property
    def bic(self) -> float:
        """p log N − 2 log L (Schwarz 1978), N the number of observations."""
        return self.num_parameters * math.log(self.num_observations) - 2 * self.log_likelihood

    def state(self) -> dict[str, Any]:
        """All but `data`, in plain numbers, strings, lists and dictionaries."""
        state = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "data"}
        return state | {
            "estimate": self.estimate.tolist(),
            "covariance": self.covariance.flatten().tolist(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> MarginalFit:
        """The fit that gave this `state`, without `data`."""
        p = len(state["names"])
        covariance = torch.tensor(state["covariance"], dtype=torch.float64).reshape(p, p)
        estimate = torch.tensor(state["estimate"], dtype=torch.float64)
        return cls(**(state | {"estimate": estimate, "covariance": covariance}))


@dataclass(frozen=True)
class Maximum:
    """The result of `maximise`: x [p], value, the inverse of minus the Hessian over the free
    parameters [p, p] (zero elsewhere), and how the search ended."""

    x: Tensor
    value: float
    covariance: Tensor
    held: dict[int, str]
    converged: bool
    message: str
    num_evaluations: int


def maximise(
    objective: Objective,
    start: Tensor,
    *,
    held: dict[int, str],
    limits: dict[int, tuple[float, float, str]],
    tied: dict[int, list[int]],
    names: list[str],
    max_iterations: int,
) -> Maximum:
    """The maximum of a smooth function, with its curvature.

    BFGS with halved steps, then Newton's method with the Hessian by central differences of the
    gradient, whose last one is the curvature. A parameter that runs beyond its limits is set on the
    limit and held (a variance at 0), and the search goes on with the others. A variance so small
    that parameters tied to it are not identified is also set to 0 and held, if the maximum hardly
    falls.

    Args:
        objective: x [p] -> (value, gradient [p]); a step to a value that is not finite is
            shortened.
        held: index -> why it stays at its start.
        limits: index -> (least, most, the meaning of being there).
        tied: index -> others that have no meaning once it is held at its least; they are held at 0
            with it.
        max_iterations: of BFGS and of Newton's method together.
    """
    x, held, count = start.clone(), dict(held), 0

    def evaluate(free: Tensor, at: Tensor) -> tuple[float, Tensor]:
        nonlocal count
        count += 1
        value, gradient = objective(at)
        return -value, -gradient[free]

    def beyond(at: Tensor) -> int | None:
        for index, (least, most, _) in limits.items():
            if index not in held and not least < at[index].item() < most:
                return index
        return None

    def vanishing(free: Tensor, at: Tensor, value: float) -> int | None:
        for index in tied.keys() - held.keys():
            moved = at.clone()
            moved[index] = limits[index][0]
            if evaluate(free, moved)[0] <= value + _BOUNDARY_COST:
                return index
        return None

    def line_search(free: Tensor, at: Tensor, value: float, slope: float, step: Tensor):
        """The first of step, step/2, … that lowers -objective by Armijo's rule, or None."""
        factor = 1.0
        for _ in range(50):
            moved = at.clone()
            moved[free] += factor * step
            found, gradient = evaluate(free, moved)
            if math.isfinite(found) and found <= value + 1e-4 * factor * slope:
                return moved, found, gradient
            factor /= 2
        return None

    left = max_iterations
    message, converged = f"stopped after {max_iterations} iterations", False
    covariance = torch.zeros(len(x), len(x), dtype=torch.float64)
    value = math.nan
    while True:
        free = torch.tensor([i for i in range(len(x)) if i not in held], dtype=torch.long)
        value, gradient = evaluate(free, x)
        if not math.isfinite(value):
            message = "the likelihood is not finite at the start"
            break
        if len(free) == 0:
            message, converged = "nothing was free to fit", True
            break
        outside = None
        inverse = torch.eye(len(free), dtype=torch.float64) / gradient.abs().max().clamp_min(1.0)
        first = True
        while left > 0:  # BFGS
            step = -inverse @ gradient
            step *= min(1.0, 2.0 / step.abs().max().item())
            slope = (gradient @ step).item()
            if slope > -_GAIN_TOLERANCE:
                break
            left -= 1
            found = line_search(free, x, value, slope, step)
            if found is None:
                break
            moved, value, changed = found
            s, r = (moved - x)[free], changed - gradient
            x, gradient = moved, changed
            curvature = (s @ r).item()
            if curvature > 1e-12 * (s.norm() * r.norm()).item():
                if first:
                    inverse = torch.eye(len(free), dtype=torch.float64) * curvature / (r @ r)
                    first = False
                a = torch.eye(len(free), dtype=torch.float64) - torch.outer(s, r) / curvature
                inverse = a @ inverse @ a.T + torch.outer(s, s) / curvature
            outside = beyond(x)
            if outside is not None:
                break
        while outside is None:  # Newton
            hessian = _hessian(lambda at: evaluate(free, at)[1], x, free)
            eigenvalues, vectors = torch.linalg.eigh(hessian)
            proper = eigenvalues[0].item() > _LEAST_CURVATURE
            along = vectors.T @ gradient
            step = -(vectors @ (along / eigenvalues.abs().clamp_min(_LEAST_CURVATURE)))
            slope = (gradient @ step).item()
            if slope > -1e-6:  # twice what is left to gain
                covariance.zero_()
                if proper:
                    covariance[free[:, None], free] = torch.linalg.inv(hessian)
                    message, converged = "converged", True
                elif (outside := vanishing(free, x, value)) is not None:
                    x[outside] = limits[outside][0]
                else:
                    flat = [names[free[i]] for i in vectors[:, 0].abs().topk(1).indices.tolist()]
                    message = (
                        "the information is not positive definite: the data do not tell "
                        f"{flat[0]} from the others"
                    )
                    covariance[free[:, None], free] = math.nan
                break
            if left == 0:
                covariance[free[:, None], free] = math.nan
                break
            left -= 1
            step *= min(1.0, 2.0 / step.abs().max().item())
            found = line_search(free, x, value, (gradient @ step).item(), step)
            if found is None:
                message = "no step raises the likelihood, though its gradient is not 0"
                covariance[free[:, None], free] = math.nan
                break
            x, value, gradient = found
            outside = beyond(x)
        if outside is None:
            break
        least, most, meaning = limits[outside]
        low = x[outside].item() <= least
        x[outside] = least if low else most
        held[outside] = meaning
        for other in tied.get(outside, []) if low else []:
            if other not in held:
                x[other] = 0.0
                held[other] = f"not identified where {names[outside]} is at its boundary"
    return Maximum(x, -value, covariance, held, converged, message, count)


def _hessian(gradient: Callable[[Tensor], Tensor], x: Tensor, free: Tensor) -> Tensor:
    """Central differences of the gradient, step 1e-4. The third derivative of the gradient and its
    rounding each add an error near 1e-8 of the curvature."""
    rows = []
    for index in free.tolist():
        step = 1e-4 * (1 + x[index].abs().item())
        up, down = x.clone(), x.clone()
        up[index] += step
        down[index] -= step
        rows.append((gradient(up) - gradient(down)) / (2 * step))
    hessian = torch.stack(rows)
    return (hessian + hessian.T) / 2


# ---- tables --------------------------------------------------------------------------------------


def normal_quantile(level: float) -> float:
    """z with P(|Z| < z) = level."""
    return math.sqrt(2) * torch.erfinv(torch.tensor(level, dtype=torch.float64)).item()


def wald_table(
    names: list[str],
    estimates: Tensor,
    errors: Tensor,
    level: float,
    *,
    tests: bool,
    scale: Callable[[Tensor], Tensor] = lambda value: value,
) -> pd.DataFrame:
    """Estimate, standard error and interval, of each row; with z and p-value if `tests`.

    Estimates and errors are on the scale on which the interval is formed. `scale` maps the estimate
    and the interval's ends to the natural scale; the error is mapped by the delta method.
    """
    natural = estimates.clone().requires_grad_()
    (slope,) = torch.autograd.grad(scale(natural).sum(), natural)
    z = normal_quantile(level)
    table = {
        "Estimate": scale(estimates).numpy(),
        "Std. Error": (slope.abs() * errors).numpy(),
    }
    if tests:
        ratio = estimates / errors
        table["z value"] = ratio.numpy()
        table["Pr(>|z|)"] = torch.erfc(ratio.abs() / math.sqrt(2)).numpy()
    tail = 100 * (1 - level) / 2
    table[f"{tail:g} %"] = scale(estimates - z * errors).numpy()
    table[f"{100 - tail:g} %"] = scale(estimates + z * errors).numpy()
    return pd.DataFrame(table, index=pd.Index(names))


def coefficient_lines(table: pd.DataFrame) -> list[str]:
    """A coefficient table as R prints it, with stars."""
    stars = [
        "" if math.isnan(p) else next((s for b, s in _STARS if p < b), " ")
        for p in table["Pr(>|z|)"]
    ]
    columns = [
        [_digits(value) for value in table["Estimate"]],
        [_digits(value) for value in table["Std. Error"]],
        ["" if math.isnan(v) else f"{v:.2f}" for v in table["z value"]],
        [_p_value(p) for p in table["Pr(>|z|)"]],
    ]
    head = ["Estimate", "Std. Error", "z value", "Pr(>|z|)"]
    cells = [[h, *column] for h, column in zip(head, columns, strict=True)]
    lines = aligned(["", *table.index], *cells)
    return [f"{line} {mark}".rstrip() for line, mark in zip(lines, [""] + stars, strict=True)]


def aligned(labels: list[str], *columns: list[str]) -> list[str]:
    """Lines with the labels on the left and the columns right-aligned."""
    left = max(len(label) for label in labels)
    widths = [max(len(cell) for cell in column) for column in columns]
    return [
        " ".join(
            [label.ljust(left)]
            + [cells[i].rjust(w) for cells, w in zip(columns, widths, strict=True)]
        ).rstrip()
        for i, label in enumerate(labels)
    ]


_STARS = [(0.001, "***"), (0.01, "**"), (0.05, "*"), (0.1, ".")]
SIGNIFICANCE = "Signif. codes:  0 '***' 0.001 '**' 0.01 '*' 0.05 '.' 0.1 ' ' 1"


def _digits(value: float) -> str:
    return "NA" if math.isnan(value) else f"{value:#.5g}" if abs(value) < 1e5 else f"{value:.4e}"


def _p_value(p: float) -> str:
    if math.isnan(p):
        return "NA"
    return "< 2e-16" if p < 2e-16 else f"{p:.3g}"
