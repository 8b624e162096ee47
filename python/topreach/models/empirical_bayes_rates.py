"""Rates of sites by empirical Bayes: a prior learnt from all sites, updated by each site's past."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from topreach.distributions.negative_binomial import NegativeBinomial

SUPPORT = 32  # points of the prior
# Standard deviations of the parameters' normal priors.
COVARIATE_SD = 0.3
MEMORY_SD = 3.0
CORRECTION_SD = 0.1
_LOWEST = 0.01  # relative risk of the first point
_STEPS = 100  # of the EM algorithm
_MAX_CELLS = 200_000  # periods × sites that everything but the prior is fitted to
_FIRST_CELLS = 20_000  # if there are many more, the start is found on about this many of them

_ops = torch.ops.topreach


class EmpiricalBayesRates(nn.Module):
    """Counts from each site's long memory, shrunk by a prior that is learnt from all sites.

    For each half-life h, `topreach.models.SiteHistory` gives three numbers: the site's decayed
    count A; the decayed count expected at its neighbours' risk, X = m E; and that risk at the level
    of the next period, R = L m. The site's risk relative to its neighbours has the discrete
    prior Σ_g w_hg δ(u_g), and A is Poisson(X u) with the past discounted (a power likelihood). So,
    with z = exp(β·(x − mean_s x)),

        ρ_h = Σ_g p_g u_g,   p = softmax_g(log w_hg + A log u_g − X z u_g)     (posterior mean)
        b   = log Σ_h a_h z R_h ρ_h,                            a = softmax(memory)
        log μ = b + c·f + constant, such that Σ_s μ = Σ_s exp b
        y   ~ NegBin(total_count μ / φ, logits log φ):          mean μ, variance (1 + φ) μ

    f [3 H + 1] holds the differences of other forecasts from b. For each h these are log z R_h ρ_h,
    shrunken by this memory alone; log z R_h, the neighbours'; and log z R_h (A + ½) / (X z + ½),
    the site's own, not shrunken. The last entry of f is b − mean_s b. So the counts decide how a
    long memory is weighed against a short one (trends), how far neighbours are trusted, and whether
    differences are stretched. c has a normal prior around 0, of sd 0.1. The sum of the forecasts
    stays that of the level L.

    The prior w is the nonparametric maximum-likelihood estimate (Robbins 1956; Laird 1978, JASA
    73:805) on a grid u of 32 points. Sites with few counts move towards their neighbours; hot spots
    far above their neighbours stay where they are.

    Args:
        half_lives: h, as given to `SiteHistory`.
        num_features: P, further features, whose differences between sites matter; 0 for none.
        support: u_g > 0, ascending; None for 32 points from 0.01 to 20 or, after `fit`, to twice
            the highest relative risk seen.

    Parameters: prior [H, G] (log w up to a constant), memory [H], weight [P] (β), correction
    [3 H + 1] (c), raw_dispersion [] (log φ).

    Example:
        >>> history = tr.models.SiteHistory().fit(train)
        >>> model = EmpiricalBayesRates(history.half_lives_)
        >>> model.fit(history.statistics(train), train.y)
        >>> counts = model(history.statistics(test))      # NegativeBinomial, [T, S]
    """

    is_probabilistic = True
    exposure_in_x = True  # the statistics of the past are per exposure

    def __init__(
        self,
        half_lives: Sequence[float],
        num_features: int = 0,
        support: Sequence[float] | None = None,
    ):
        super().__init__()
        name = type(self).__name__
        half_lives = [float(h) for h in half_lives]
        if not half_lives or not all(h > 0 for h in half_lives):
            raise ValueError(
                f"{name}: half_lives must be numbers > 0, at least one, got {half_lives}."
            )
        if isinstance(num_features, bool) or not isinstance(num_features, int) or num_features < 0:
            raise ValueError(
                f"{name}: num_features must be a whole number >= 0, got {num_features!r}."
            )
        self._extends = support is None
        support = _grid(20.0) if support is None else [float(u) for u in support]
        if len(support) < 2 or not all(
            0 < a < b < math.inf for a, b in zip(support, support[1:], strict=False)
        ):
            raise ValueError(
                f"{name}: support must be at least two numbers > 0, ascending, got {support}."
            )
        self.config: dict[str, Any] = {
            "half_lives": half_lives,
            "num_features": num_features,
            "support": support,
        }
        memories = len(half_lives)
        # float32 whatever the default dtype is.
        self.prior = _parameter(torch.zeros(memories, len(support)))
        self.memory = _parameter(torch.zeros(memories))
        self.weight = _parameter(torch.zeros(num_features))
        self.correction = _parameter(torch.zeros(3 * memories + 1))
        self.raw_dispersion = _parameter(torch.tensor(-1.0))

    def extra_repr(self) -> str:
        config = self.config
        return (
            f"half_lives={config['half_lives']}, num_features={config['num_features']}, "
            f"support of {len(config['support'])}"
        )

    def forward(self, x: Tensor) -> NegativeBinomial:
        """Counts predicted for x [..., S, 3 H + P]: A, X and R, H of each, then the features."""
        shrunken, near, own = self._forecasts(x)
        base = _ops.empirical_bayes_base(shrunken, self.memory)
        terms = _ops.empirical_bayes_terms(base, shrunken, near, own)
        return self._counts(base, terms)

    def penalty(self) -> Tensor:
        """Minus the log prior of memory, β and c, normal around 0, a scalar."""

        def minus_log_prior(part: Tensor, sd: float) -> Tensor:
            return 0.5 * (part / sd).square().sum()

        return (
            minus_log_prior(self.memory, MEMORY_SD)
            + minus_log_prior(self.weight, COVARIATE_SD)
            + minus_log_prior(self.correction, CORRECTION_SD)
        )

    @staticmethod
    def periods_used(num_sites: int) -> int:
        """How many of the last known periods `fit` reads, at most."""
        return max(1, _MAX_CELLS // num_sites)

    @torch.no_grad()
    def fit(self, x: Tensor, y: Tensor, weights: Tensor | None = None) -> EmpiricalBayesRates:
        """Fit the model to a panel, without an optimiser to tune.

        First the prior of each half-life is fitted, by EM on the marginal likelihood of the last
        period's past. Then memory and β, and then c, are fitted by the likelihood of the counts
        given their past, with the parameters' priors; φ is fitted with both. This uses the last
        periods that have a past, up to 200,000 counts.

        Args:
            x: [T, S, 3 H + P], as `forward` takes it.
            y: counts [T, S]. Unknown counts (NaN) and periods without any count are left out.
            weights: [T], >= 0: the weight of each period in the likelihood. They do not change the
                prior, which is learnt from the last period's past.

        Returns:
            self.

        Raises:
            ValueError: shapes that do not agree; no period with counts; a weight that is negative
                or not finite, or none above 0.
        """
        half_lives = len(self.memory)
        size = 3 * half_lives + len(self.weight)
        if x.ndim != 3 or x.shape[-1] != size or y.shape != x.shape[:-1]:
            raise ValueError(
                f"EmpiricalBayesRates.fit: x must have shape [T, S, {size}] and y [T, S], got "
                f"{list(x.shape)} and {list(y.shape)}."
            )
        rows = torch.nonzero(~torch.isnan(y).all(1))[:, 0]
        if not len(rows):
            raise ValueError("EmpiricalBayesRates.fit: y must have counts, got none.")
        newest = x[rows[-1], :, : 2 * half_lives].double().cpu()
        counts, expected = newest.split(half_lives, dim=1)
        if self._extends:
            high = ((counts + 1) / (expected + 1)).max().item()
            self.config["support"] = _grid(max(20.0, 2 * high))
        support = torch.tensor(self.config["support"], dtype=torch.float64)
        self.prior.copy_(_ops.discrete_prior(counts, expected, support, _STEPS))
        if weights is not None:
            weights = self._checked_weights(weights, len(y)).to(x.device)
            rows = rows[weights[rows] > 0]
            if not len(rows):
                raise ValueError(
                    "EmpiricalBayesRates.fit: weights must be above 0 for a period with counts, "
                    "got none."
                )
        past = x[rows, :, half_lives : 2 * half_lives].flatten(1)
        has_past = (past > 0).any(1)
        if has_past.any():
            rows = rows[has_past]
        rows = rows[-self.periods_used(y.shape[1]) :]
        weights = None if weights is None else weights[rows]
        self._fit_rest(x[rows].double(), y[rows].double(), weights)
        return self

    def _fit_rest(self, x: Tensor, y: Tensor, weights: Tensor | None) -> None:
        model = copy.deepcopy(self).double()
        for parameter in (model.memory, model.weight, model.correction):
            parameter.zero_()
        known = ~torch.isnan(y)
        cell_weights = None if weights is None else weights[:, None].expand_as(y)
        if not known.all():
            cell_weights = known.double() if cell_weights is None else cell_weights * known
            y = y.nan_to_num()
        # If cells are many, a part of the sites gives start and curvature: a third of the time.
        curvatures = None
        if y.numel() >= 4 * _FIRST_CELLS:
            part = slice(None, None, y.numel() // _FIRST_CELLS)
            own = None if cell_weights is None else cell_weights[:, part]
            curvatures = model._raise_likelihood(x[:, part], y[:, part], own, y.numel())
        model._raise_likelihood(x, y, cell_weights, y.numel(), curvatures)
        model.raw_dispersion.clamp_(-10, 10)
        self.load_state_dict(model.state_dict())

    def _raise_likelihood(
        self,
        x: Tensor,
        y: Tensor,
        weights: Tensor | None,
        cells: int,
        curvatures: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """Over memory, β and φ, without the correction; then over the correction and φ.

        x, y, weights may be those of a part of the sites; `cells` is the number for all sites.
        `curvatures` are second derivatives near the maximum, for each of the two searches. If x is
        a part, those found here are returned.
        """
        forecasts = None if len(self.weight) else self._forecasts(x)

        def first() -> NegativeBinomial:
            shrunken = (self._forecasts(x) if forecasts is None else forecasts)[0]
            return self._counts(_ops.empirical_bayes_base(shrunken, self.memory), None)

        def second() -> NegativeBinomial:
            return self._counts(base, terms)

        found = []
        for stage, (counts, parts) in enumerate(
            [(first, [self.memory, self.weight]), (second, [self.correction])]
        ):
            free = [part for part in (*parts, self.raw_dispersion) if part.numel()]
            if counts is second:
                shrunken, near, own = self._forecasts(x)
                base = _ops.empirical_bayes_base(shrunken, self.memory)
                terms = _ops.empirical_bayes_terms(base, shrunken, near, own)
            loss = partial(_loss, free, counts, self.penalty, y, weights, cells)
            if curvatures is not None:
                _descend(free, loss, curvatures[stage])
                continue
            optimizer = torch.optim.LBFGS(
                free, max_iter=100, line_search_fn="strong_wolfe", tolerance_change=1e-9
            )
            optimizer.step(loss)
            if y.numel() < cells:
                found.append(_curvature(free, loss))
        return found

    def _forecasts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each memory [..., S, H]: shrunken by its prior; the neighbours'; the site's own."""
        support = torch.tensor(self.config["support"], dtype=torch.float64, device=x.device)
        return _ops.empirical_bayes_forecasts(x, self.prior, self.weight, support)

    def _counts(self, base: Tensor, terms: Tensor | None) -> NegativeBinomial:
        correction = None if terms is None else self.correction
        mean = _ops.empirical_bayes_mean(base, terms, correction)
        return NegativeBinomial(mean * (-self.raw_dispersion).exp(), self.raw_dispersion)

    @staticmethod
    def _checked_weights(weights: Tensor, periods: int) -> Tensor:
        weights = torch.as_tensor(weights, dtype=torch.float64)
        if weights.shape != (periods,):
            raise ValueError(
                f"EmpiricalBayesRates.fit: weights must have shape [T] = [{periods}], got "
                f"{list(weights.shape)}."
            )
        bad = ~(torch.isfinite(weights) & (weights >= 0))
        if bad.any():
            raise ValueError(
                "EmpiricalBayesRates.fit: weights must be finite and >= 0, got "
                f"{weights[bad][0].item()}."
            )
        return weights


@torch.enable_grad()
def _loss(
    free: Sequence[nn.Parameter],
    counts: Callable[[], NegativeBinomial],
    penalty: Callable[[], Tensor],
    y: Tensor,
    weights: Tensor | None,
    cells: int,
) -> Tensor:
    """Minus the penalised log-likelihood per cell, whose gradient goes into `free`, the last of
    them log φ. The priors are those of `cells` cells."""
    log_prob = counts().log_prob(y)
    if weights is not None:
        log_prob = log_prob * weights
    # A weak prior keeps log φ finite if counts are few or no more spread than Poisson's.
    prior = penalty() + (free[-1] + 1).square() / 8
    loss = (prior - log_prob.sum() * (cells / y.numel())) / cells
    for parameter, grad in zip(free, torch.autograd.grad(loss, free), strict=True):
        parameter.grad = grad
    return loss.detach()


def _gradient(free: Sequence[nn.Parameter]) -> Tensor:
    parts = []
    for parameter in free:
        assert parameter.grad is not None  # `_loss` has set it
        parts.append(parameter.grad.flatten())
    return torch.cat(parts)


def _curvature(free: Sequence[nn.Parameter], loss: Callable[[], Tensor]) -> Tensor:
    """Second derivatives of the loss by differences of its gradient."""
    at, step = parameters_to_vector(free), 1e-4
    rows = []
    for i in range(len(at)):
        sides = []
        for sign in (1.0, -1.0):
            moved = at.clone()
            moved[i] += sign * step
            vector_to_parameters(moved, free)
            loss()
            sides.append(_gradient(free))
        rows.append((sides[0] - sides[1]) / (2 * step))
    vector_to_parameters(at, free)
    matrix = torch.stack(rows)
    return (matrix + matrix.T) / 2


def _descend(free: Sequence[nn.Parameter], loss: Callable[[], Tensor], curvature: Tensor) -> None:
    """Newton's steps with a curvature that is nearly right, until they gain less than 1e-11."""
    size, axes = torch.linalg.eigh(curvature)
    inverse = (axes / size.abs().clamp_min(1e-6 * size.abs().max())) @ axes.T
    value = loss()
    for _ in range(50):
        at, gradient = parameters_to_vector(free), _gradient(free)
        move = inverse @ gradient
        gain = (gradient @ move).item()
        for halving in range(30):
            vector_to_parameters(at - move * 0.5**halving, free)
            new = loss()
            if new <= value - 1e-4 * 0.5**halving * gain:
                break
        else:
            vector_to_parameters(at, free)
            return
        value = new
        if gain < 2e-11:
            return


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.to(torch.float32))


def _grid(high: float) -> list[float]:
    ratio = math.log(high / _LOWEST) / (SUPPORT - 1)
    return [_LOWEST * math.exp(ratio * g) for g in range(SUPPORT)]
