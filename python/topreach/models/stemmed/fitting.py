"""Trust-region Newton for all nodes at once, and empirical Bayes over nodes.

In working coordinates w = (log γ, β, log ν, softplus⁻¹ δ_g, ω, log δ_k) of a node u the fit
maximises ℓ_u(w) - ½ Σ_a λ_ua (w_a - m_ua)² + κ log(1 - ε - X_u(w)): likelihood, pooling prior and
barrier. X_u = (B r)_u / r_u, with r the recent rates of all nodes; X_u <= 1 - ε for all u keeps the
spectral radius of B below 1 - ε (Collatz-Wielandt).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from topreach.models.stemmed.problem import Problem, mark_pools

_ops = torch.ops.topreach

MOST_ITERATIONS = 100
MOST_STEPS = 1000  # of a search by gradients
DECREMENT = 1e-9  # Newton's method: a node has converged if its next step gains less
NEARLY = 1e-6  # the same for searches by gradients
BARRIER = 0.5  # κ
MARGIN = 0.02  # ε
PSEUDO_NODES = 4.0  # weight of the weak prior's variance in the pooled one
FEW_NODES = 10  # with fewer nodes, nothing is pooled
ROUNDS = 30  # of EM at most
START_LAGS = (3.0, 30.0, 300.0)  # 1 / δ_k, days


class Prior(NamedTuple):
    """Normal priors of the working coordinates, [M, P] each."""

    mean: Tensor
    precision: Tensor


class Limits(NamedTuple):
    """[M, P] each."""

    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class Barrier:
    """The inputs of X_u: source weights θ_uv(T) r_v / r_u [M, M], distances [M, M], and the W
    distinct marks of each source [W, q], with the source and their share of its records, [W]."""

    weight: Tensor
    distance: Tensor
    marks: Tensor
    source: Tensor
    share: Tensor
    covariates: int

    def load(self, nodes: Tensor, working: Tensor) -> Tensor:
        """X_u of items [R], differentiable in their working coordinates [R, P]."""
        p = self.covariates
        children, distance = (
            working[:, p + 1].exp(),
            torch.nn.functional.softplus(working[:, p + 2]),
        )
        effect = (working[:, p + 3 : -1] @ self.marks.T).exp() * self.share
        sources = effect.new_zeros(len(nodes), len(self.weight))
        mark = sources.index_add(1, self.source, effect)
        near = torch.exp(-distance[:, None] * self.distance[nodes]) * mark
        return children * (self.weight[nodes] * near).sum(1)

    def derivatives(
        self, nodes: Tensor, working: Tensor, order: int = 2
    ) -> tuple[Tensor, Tensor, Tensor]:
        """κ log(1 - ε - X) and its derivatives; -inf beyond the barrier. order 1: no Hessian."""
        size = working.shape[1]
        with torch.enable_grad():
            at = working.detach().clone().requires_grad_()
            room = 1 - MARGIN - self.load(nodes, at)
            value = BARRIER * room.clamp_min(1e-300).log()
            (gradient,) = torch.autograd.grad(value.sum(), at, create_graph=order > 1)
            rows = [
                torch.autograd.grad(gradient[:, a].sum(), at, retain_graph=a + 1 < size)[0]
                for a in range(size if order > 1 else 0)
            ]
            hessian = torch.stack(rows, 1) if rows else torch.zeros(len(at), size, size)
        value = torch.where(room > 0, value, -torch.inf)
        return value.detach(), gradient.detach(), hessian


def barrier_of(problem: Problem, rate: Tensor, seen: Tensor | None = None) -> Barrier:
    """The barrier at the window's end, with recent rates r [M]; seen, bool [M]: the sources that
    excite, None for all."""
    now, nodes = problem.now, problem.num_nodes
    theta = torch.ones(nodes, nodes, dtype=torch.float64)
    if now.joint is not None:
        theta = _ops.hawkes_theta(now.joint, now.either, now.prior, now.prior_weight, 0)
    if seen is not None:
        theta = theta * seen
    repeats = nodes // len(now.distance)
    distance = now.distance.repeat_interleave(repeats, 0).repeat_interleave(repeats, 1)
    start, pool = mark_pools(problem)
    number = start.diff()
    source = torch.arange(nodes).repeat_interleave(number)
    rows = torch.cat([source[:, None].double(), problem.arguments.marks[pool]], 1)
    rows, times = torch.unique(rows, dim=0, return_counts=True)
    source = rows[:, 0].long()
    return Barrier(
        theta * rate / rate[:, None],
        distance,
        rows[:, 1:],
        source,
        times / number[source],
        problem.num_covariates,
    )


@dataclass(frozen=True)
class Fitted:
    """Of all nodes: working coordinates [M, P], penalised value [M], log-likelihood [M], minus the
    Hessian of the penalised value [M, P, P], and whether each node has converged."""

    working: Tensor
    value: Tensor
    log_likelihood: Tensor
    information: Tensor
    converged: Tensor
    evaluations: int


def start_of(problem: Problem, lag: float) -> Tensor:
    """Working coordinates [M, P]: 60 % of events are immigrants, lags of mean `lag` days."""
    size, p = len(problem.names), problem.num_covariates
    start = torch.zeros(problem.num_nodes, size, dtype=torch.float64)
    start[:, 0] = ((0.6 * problem.own + 0.3) / problem.duration).log()
    start[:, p + 1] = math.log(0.2)
    start[:, -1] = -math.log(lag)
    return start


def weak_prior(problem: Problem) -> Prior:
    """The weak prior, centred at a start with lags of a month."""
    mean, p = start_of(problem, 30.0), problem.num_covariates
    sd = torch.full((len(problem.names),), 1.0, dtype=torch.float64)
    sd[0] = 2.0
    sd[p + 1] = 1.5
    sd[p + 2] = 2.0
    sd[p + 3 : -1] = 0.5
    sd[-1] = 1.5
    return Prior(mean, (1 / sd.square()).expand_as(mean).clone())


def no_prior(problem: Problem) -> Prior:
    mean = start_of(problem, 30.0)
    return Prior(mean, torch.zeros_like(mean))


def limits_of(problem: Problem) -> Limits:
    """log δ_k from log 1/T to log 1/resolution; the others far enough to mean 0 or be
    implausible."""
    p, nodes, size = problem.num_covariates, problem.num_nodes, len(problem.names)
    low = torch.full((nodes, size), -50.0, dtype=torch.float64)
    high = torch.full((nodes, size), 50.0, dtype=torch.float64)
    low[:, p + 1], high[:, p + 1] = -12.0, math.log(20.0)
    low[:, p + 2] = -15.0
    low[:, -1] = -math.log(problem.duration)
    high[:, -1] = -math.log(problem.resolution or 1e-6 * problem.duration)
    return Limits(low, high)


class Objective:
    """The penalised likelihood of items: `nodes` (all M, or each several times, from other starts),
    with rows of the prior. Counts its evaluations."""

    def __init__(
        self, problem: Problem, prior: Prior, barrier: Barrier | None, nodes: Tensor | None
    ):
        self.problem, self.prior, self.barrier = problem, prior, barrier
        self.nodes = torch.arange(problem.num_nodes) if nodes is None else nodes
        self.limits = Limits(*(part[self.nodes] for part in limits_of(problem)))
        self.held = problem.held[self.nodes]
        self.evaluations = 0

    def derivatives(self, rows: Tensor, at: Tensor, order: int = 2) -> tuple[Tensor, ...]:
        """Value, gradient, Hessian (0 for order 1), and the log-likelihood alone, of items at
        [R, P]."""
        self.evaluations += len(rows)
        nodes, precision = self.nodes[rows], self.prior.precision[rows]
        log_likelihood, gradient, hessian = self.problem.derivatives(nodes, at, order)
        apart = at - self.prior.mean[rows]
        value = log_likelihood - 0.5 * (precision * apart.square()).sum(1)
        gradient = gradient - precision * apart
        hessian = hessian - torch.diag_embed(precision)
        if self.barrier is not None:
            parts = self.barrier.derivatives(nodes, at, order)
            value, gradient, hessian = value + parts[0], gradient + parts[1], hessian + parts[2]
        return value, gradient, hessian, log_likelihood

    def gradients(self, rows: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """Value and gradient; the gradient is 0 for held coordinates."""
        value, gradient, _, _ = self.derivatives(rows, at, 1)
        return value, gradient.masked_fill(self.held[rows], 0.0)

    def begin(self, start: Tensor, order: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The start within the limits, and its derivatives. Where the value is not finite, the
        start gets fewer children."""
        w = start.clamp(self.limits.low, self.limits.high)
        everything = torch.arange(len(self.nodes))
        found = self.derivatives(everything, w, order)
        for _ in range(20):
            bad = ~torch.isfinite(found[0])
            if not bool(bad.any()):
                break
            w[bad, self.problem.num_covariates + 1] -= 0.7
            found = self.derivatives(everything, w, order)
        return w, found

    def bound(self, rows: Tensor, w: Tensor, gradient: Tensor) -> Tensor:
        """Coordinates that are held, or at a limit beyond which the value would rise."""
        low, high = self.limits.low[rows], self.limits.high[rows]
        return self.held[rows] | (w <= low) & (gradient < 0) | (w >= high) & (gradient > 0)

    def fitted(self, w: Tensor) -> Fitted:
        """The end of a search by gradients: converged if a Newton step gains less than NEARLY."""
        rows = torch.arange(len(self.nodes))
        value, gradient, hessian, log_likelihood = self.derivatives(rows, w)
        fixed = self.bound(rows, w, gradient)
        _, gain = _trust_step(gradient, hessian, fixed, torch.ones(len(w), dtype=w.dtype))
        return Fitted(w, value, log_likelihood, -hessian, gain < NEARLY, self.evaluations)


def newton(
    problem: Problem,
    start: Tensor,
    prior: Prior,
    barrier: Barrier | None,
    nodes: Tensor | None = None,
) -> Fitted:
    """The maximum of each item's penalised likelihood (see `Objective`), by trust regions with the
    exact Hessian. start, prior: a row for each item."""
    objective = Objective(problem, prior, barrier, nodes)
    limits = objective.limits
    w, (value, gradient, hessian, log_likelihood) = objective.begin(start, 2)
    radius = torch.ones(len(w), dtype=torch.float64)
    converged = torch.zeros(len(w), dtype=torch.bool)
    for _ in range(MOST_ITERATIONS):
        rows = torch.nonzero(~converged)[:, 0]
        if not len(rows):
            break
        fixed = objective.bound(rows, w[rows], gradient[rows])
        step, gain = _trust_step(gradient[rows], hessian[rows], fixed, radius[rows])
        done = gain < DECREMENT
        converged[rows[done]] = True
        rows, step, gain = rows[~done], step[~done], gain[~done]
        if not len(rows):
            continue
        trial = (w[rows] + step).clamp(limits.low[rows], limits.high[rows])
        found = objective.derivatives(rows, trial)
        ratio = ((found[0] - value[rows]) / gain).nan_to_num(-1.0, -1.0, -1.0)
        length = step.norm(dim=1)
        shrunk = torch.where(ratio < 0.25, 0.25 * length, radius[rows])
        grown = (ratio > 0.75) & (length > 0.9 * radius[rows])
        radius[rows] = torch.where(grown, 2 * radius[rows], shrunk).clamp(max=8.0)
        good = ratio > 1e-4
        kept = rows[good]
        w[kept] = trial[good]
        value[kept], gradient[kept] = found[0][good], found[1][good]
        hessian[kept], log_likelihood[kept] = found[2][good], found[3][good]
        # Within rounding error, no step can gain any more.
        converged[rows[radius[rows] < 1e-10]] = True
    return Fitted(w, value, log_likelihood, -hessian, converged, objective.evaluations)


def lbfgs(
    problem: Problem,
    start: Tensor,
    prior: Prior,
    barrier: Barrier | None,
    nodes: Tensor | None = None,
) -> Fitted:
    """The same by L-BFGS with a strong Wolfe search [Liu and Nocedal 1989], item by item."""
    objective = Objective(problem, prior, barrier, nodes)
    low, high = objective.limits
    w, _ = objective.begin(start, 1)
    best = torch.full((len(w),), -torch.inf, dtype=torch.float64)
    for item in range(len(w)):
        row, at = torch.tensor([item]), w[item : item + 1].clone().requires_grad_()
        search = torch.optim.LBFGS(
            [at],
            max_iter=MOST_STEPS,
            max_eval=2 * MOST_STEPS,
            tolerance_grad=1e-6,
            tolerance_change=1e-12,
            line_search_fn="strong_wolfe",
        )

        def closure(row: Tensor = row, at: Tensor = at, item: int = item) -> Tensor:
            asked = at.detach().nan_to_num()
            inside = asked.clamp(low[item], high[item])
            value, gradient = objective.gradients(row, inside)
            if float(value) > float(best[item]):
                best[item], w[item] = value[0], inside[0]
            at.grad = -gradient.masked_fill(inside != asked, 0.0)
            return -value.clamp_min(-1e12).sum()

        search.step(closure)
    return objective.fitted(w)


def gradient_ascent(
    problem: Problem,
    start: Tensor,
    prior: Prior,
    barrier: Barrier | None,
    nodes: Tensor | None = None,
) -> Fitted:
    """Steps along the gradient, like the paper's gradient descent on minus the likelihood. The
    length doubles after a gain and is quartered until there is one. Slow; kept for comparison."""
    objective = Objective(problem, prior, barrier, nodes)
    low, high = objective.limits
    w, _ = objective.begin(start, 1)
    rows = torch.arange(len(w))
    value, gradient = objective.gradients(rows, w)
    length = 0.1 / gradient.norm(dim=1).clamp_min(1e-12)
    for _ in range(MOST_STEPS):
        trial = (w + length[:, None] * gradient).clamp(low, high)
        found, slope = objective.gradients(rows, trial)
        good = found > value
        w = torch.where(good[:, None], trial, w)
        value = torch.where(good, found, value)
        gradient = torch.where(good[:, None], slope, gradient)
        length = torch.where(good, 2 * length, 0.25 * length)
    return objective.fitted(w)


Solver = Callable[..., Fitted]
SOLVERS: dict[str, Solver] = {"newton": newton, "lbfgs": lbfgs, "gradient": gradient_ascent}


def _trust_step(
    gradient: Tensor, hessian: Tensor, fixed: Tensor, radius: Tensor
) -> tuple[Tensor, Tensor]:
    """The step that maximises the quadratic model within the radius, and its gain, [R, P] and
    [R]."""
    free = (~fixed).double()
    g = gradient * free
    curvature = -hessian * free[:, :, None] * free[:, None, :]
    curvature = curvature + torch.diag_embed(1 - free)
    size, axes = torch.linalg.eigh(curvature)
    along = (axes.mT @ g[:, :, None])[:, :, 0]
    lowest = size[:, :1]
    low = (-lowest).clamp_min(0) + 1e-10 * size.abs().amax(1, keepdim=True)

    def length(shift: Tensor) -> Tensor:
        return (along / (size + shift)).norm(dim=1, keepdim=True)

    inside = (lowest > 0) & (length(torch.zeros_like(low)) <= radius[:, None])
    high = low + along.norm(dim=1, keepdim=True) / radius[:, None] + 1e-300
    for _ in range(60):
        middle = torch.where(low > 0, (low * high).sqrt(), 0.5 * (low + high))
        long = length(middle) > radius[:, None]
        low, high = torch.where(long, middle, low), torch.where(long, high, middle)
    shift = torch.where(inside, torch.zeros_like(high), high)
    at = along / (size + shift)
    step = (axes @ at[:, :, None])[:, :, 0] * free
    gain = (along * at).sum(1) - 0.5 * (size * at.square()).sum(1)
    return step, gain


def inverse_of(information: Tensor, held: Tensor, precision: Tensor) -> Tensor:
    """Inverse of minus the Hessian on the free coordinates, 0 elsewhere, [M, P, P].

    In no direction is it larger than the inverse of the prior's precision [M, P]: at a limit of the
    coordinates the Hessian need not be negative, but data never reduce the prior's information.
    Without a prior, directions without information are given very little.
    """
    free = (~held).double()
    root = torch.where(precision > 0, precision, 1.0).rsqrt() * free
    matrix = information * root[:, :, None] * root[:, None, :] + torch.diag_embed(1 - free)
    size, axes = torch.linalg.eigh(matrix)
    least = torch.where((precision > 0).all(1, keepdim=True), 1.0, 1e-8)
    inverse = (axes / torch.maximum(size, least)[:, None, :]) @ axes.mT
    return inverse * root[:, :, None] * root[:, None, :]


def best_starts(
    problem: Problem,
    prior: Prior,
    barrier: Barrier | None,
    nodes: Tensor | None = None,
    solve: Solver = newton,
) -> Fitted:
    """The best of several starts for each of the nodes, in one batch; prior: a row for each node of
    the problem."""
    nodes = torch.arange(problem.num_nodes) if nodes is None else nodes
    repeated = nodes.repeat(len(START_LAGS))
    starts = torch.cat([start_of(problem, lag)[nodes] for lag in START_LAGS])
    priors = Prior(*(part[repeated] for part in prior))
    found = solve(problem, starts, priors, barrier, repeated)
    best = found.value.view(len(START_LAGS), -1).argmax(0) * len(nodes) + torch.arange(len(nodes))
    return Fitted(
        found.working[best],
        found.value[best],
        found.log_likelihood[best],
        found.information[best],
        found.converged[best],
        found.evaluations,
    )


def prior_of(working: Tensor, variance: Tensor, weak: Prior, pool_by: Tensor | None) -> Prior:
    """The pooling prior by modes ŵ and diag H⁻¹ of all nodes, [M, P] each: w_u ~ N(m + C z_u, diag
    τ²), τ² = mean[(ŵ - m - C z)² + H⁻¹], blended with the weak prior's variance as that of 4
    further nodes."""
    nodes = len(working)
    z = torch.ones(nodes, 1, dtype=torch.float64)
    if pool_by is not None:
        z = torch.cat([z, pool_by], 1)
    ridge = 1e-3 * torch.eye(z.shape[1], dtype=torch.float64)
    ridge[0, 0] = 0.0
    mean = z @ torch.linalg.solve(z.T @ z + nodes * ridge, z.T @ working)
    spread = ((working - mean).square() + variance).sum(0)
    tau2 = (spread + PSEUDO_NODES / weak.precision[0]) / (nodes + PSEUDO_NODES)
    return Prior(mean, (1 / tau2).expand_as(mean).clone())


def pool(
    problem: Problem,
    barrier: Barrier | None,
    pool_by: Tensor | None,
    start: tuple[Tensor, Prior] | None = None,
    solve: Solver = newton,
) -> tuple[Fitted, Prior, int]:
    """Laplace-EM: from modes and curvature of all nodes to their prior and back, until convergence.

    start: modes and prior to begin with. Returns the fit, the prior and the number of rounds. With
    too few nodes there are 0 rounds, and the prior is the weak one."""
    weak = weak_prior(problem)
    few = problem.num_nodes < FEW_NODES
    prior = weak if start is None or few else start[1]
    if start is None:
        fitted = best_starts(problem, prior, barrier, solve=solve)
    else:
        fitted = solve(problem, start[0], prior, barrier)
    if few:
        return fitted, prior, 0
    evaluations = fitted.evaluations
    for count in range(1, ROUNDS + 1):
        inverse = inverse_of(fitted.information, problem.held, prior.precision)
        variance = inverse.diagonal(dim1=1, dim2=2)
        new = prior_of(fitted.working, variance, weak, pool_by)
        moved = ((new.mean - prior.mean).abs() * new.precision.sqrt()).max()
        moved = torch.maximum(moved, (new.precision / prior.precision).log().abs().max())
        prior = new
        fitted = solve(problem, fitted.working, prior, barrier)
        evaluations += fitted.evaluations
        if float(moved) < 2e-2:
            break
    return replace(fitted, evaluations=evaluations), prior, count
