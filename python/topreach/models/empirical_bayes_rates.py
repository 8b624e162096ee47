"""Rates of sites by empirical Bayes: a discrete prior learnt from all sites, each site's past under it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from topreach.distributions.negative_binomial import NegativeBinomial

SUPPORT = 32  # points of the prior
# Standard deviations of the parameters' normal priors.
COVARIATE_SD = 0.3
MEMORY_SD = 3.0
CORRECTION_SD = 0.1
_LOWEST = 0.01  # relative risk of the first point
_STEPS = 100  # of the EM algorithm
_MAX_CELLS = 200_000  # periods × sites that all but the prior is fitted to
_SMALLEST = 1e-8  # mean count


class EmpiricalBayesRates(nn.Module):
    """Counts from each site's long memory, shrunk by a prior that is learnt from all sites.

    For each half-life h, `topreach.models.SiteHistory` gives the site's decayed count A, what it
    would have been at its neighbours' risk, X = m E, and that risk at the level of the period to come,
    R = L m. The site's risk relative to its neighbours has the discrete prior Σ_g w_hg δ(u_g), and A
    is Poisson(X u) with the past discounted (a power likelihood). So, with z = exp(β·(x − mean_s x)),

        ρ_h = Σ_g p_g u_g,   p = softmax_g(log w_hg + A log u_g − X z u_g)     (posterior mean)
        b   = log Σ_h a_h z R_h ρ_h,                            a = softmax(memory)
        log μ = b + c·f + constant, such that Σ_s μ = Σ_s exp b
        y   ~ NegBin(total_count μ / φ, logits log φ):          mean μ, variance (1 + φ) μ

    f [3 H + 1] has, for each h, how far three other forecasts are from b: log z R_h ρ_h, shrunken by
    the one memory; log z R_h, the neighbours'; log z R_h (A + ½) / (X z + ½), the site's own, not
    shrunken; and last b − mean_s b. So a long memory can count against a short one (trends), more or less
    trust go to neighbours, and differences be stretched, as far as the counts ask for it: c has a
    normal prior around 0, of sd 0.1. The sum of the forecasts stays that of the level L.

    The prior w is the nonparametric maximum-likelihood estimate (Robbins 1956; Laird 1978, JASA 73:805)
    on a grid u of 32 points: sites of few counts move to their neighbours, hot spots far above them
    stay where they are.

    Args:
        half_lives: h, as given to `SiteHistory`.
        num_features: P, further features, whose differences between sites matter; 0 for none.
        support: u_g > 0, ascending; None for 32 points from 0.01 to 20 or, after `fit`, to twice
            the highest relative risk that was seen.

    Parameters: prior [H, G] (log w up to a constant), memory [H], weight [P] (β), correction [3 H + 1]
    (c), raw_dispersion [] (log φ).

    Example:
        >>> history = tr.models.SiteHistory().fit(train)
        >>> model = EmpiricalBayesRates(history.half_lives_)
        >>> model.fit(history.statistics(train), train.y)
        >>> counts = model(history.statistics(test))      # NegativeBinomial, [T, S]
    """

    is_probabilistic = True

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
        self.prior = nn.Parameter(torch.zeros(len(half_lives), len(support)))
        self.memory = nn.Parameter(torch.zeros(len(half_lives)))
        self.weight = nn.Parameter(torch.zeros(num_features))
        self.correction = nn.Parameter(torch.zeros(3 * len(half_lives) + 1))
        self.raw_dispersion = nn.Parameter(torch.tensor(-1.0))

    def extra_repr(self) -> str:
        config = self.config
        return (
            f"half_lives={config['half_lives']}, num_features={config['num_features']}, "
            f"support of {len(config['support'])}"
        )

    def forward(self, x: Tensor) -> NegativeBinomial:
        """Counts predicted for x [..., S, 3 H + P]: A, X and R, H of each, then the features."""
        base, terms = self._terms(*self._rates(x))
        return self._counts(base, terms)

    def penalty(self) -> Tensor:
        """Minus the log prior of memory, β and c, normal around 0, a scalar."""
        parts = (
            (self.memory, MEMORY_SD),
            (self.weight, COVARIATE_SD),
            (self.correction, CORRECTION_SD),
        )
        return sum(0.5 * (part / sd).square().sum() for part, sd in parts)

    @torch.no_grad()
    def fit(self, x: Tensor, y: Tensor) -> EmpiricalBayesRates:
        """Fit the model to a panel, without an optimiser to tune.

        First the prior of each half-life, by EM on the marginal likelihood of the last period's past.
        The rest by the likelihood of the counts given each one's past, with the parameters' priors,
        over the last periods that have a past, up to 200,000 counts: first memory and β, then c; φ with
        both.

        Args:
            x: [T, S, 3 H + P], as `forward` takes it; `y`: counts [T, S]. Periods without counts (NaN)
                are left out.

        Returns:
            self.

        Raises:
            ValueError: shapes that do not agree; no period with counts.
        """
        half_lives = len(self.memory)
        size = 3 * half_lives + len(self.weight)
        if x.ndim != 3 or x.shape[-1] != size or y.shape != x.shape[:-1]:
            raise ValueError(
                f"EmpiricalBayesRates.fit: x must have shape [T, S, {size}] and y [T, S], got "
                f"{list(x.shape)} and {list(y.shape)}."
            )
        known = ~torch.isnan(y).any(1)
        if not known.any():
            raise ValueError("EmpiricalBayesRates.fit: y must have counts, got none.")
        x, y = x[known].double(), y[known].double()
        counts, expected = x[-1, :, :half_lives], x[-1, :, half_lives : 2 * half_lives]
        if self._extends:
            high = ((counts + 1) / (expected + 1)).max().item()
            self.config["support"] = _grid(max(20.0, 2 * high))
        u = torch.tensor(self.config["support"], dtype=torch.float64, device=x.device)
        for h in range(half_lives):
            self.prior[h] = _npmle(counts[..., h], expected[..., h], u).to(self.prior.dtype)
        has_past = (x[..., half_lives : 2 * half_lives] > 0).flatten(1).any(1)
        if has_past.any():
            x, y = x[has_past], y[has_past]
        last = max(1, _MAX_CELLS // y.shape[1])
        self._fit_rest(x[-last:], y[-last:])
        return self

    def _fit_rest(self, x: Tensor, y: Tensor) -> None:
        model = copy.deepcopy(self).double()
        for parameter in (model.memory, model.weight, model.correction):
            parameter.zero_()
        rates = None if len(model.weight) else model._rates(x)

        def first() -> NegativeBinomial:
            base, _ = model._terms(*(model._rates(x) if rates is None else rates))
            return model._counts(base, None)

        _maximise([model.memory, model.weight, model.raw_dispersion], first, model.penalty, y)
        base, terms = model._terms(*model._rates(x))
        _maximise(
            [model.correction, model.raw_dispersion],
            lambda: model._counts(base, terms),
            model.penalty,
            y,
        )
        model.raw_dispersion.clamp_(-10, 10)
        self.load_state_dict(model.state_dict())

    def _rates(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z R_h ρ_h, z R_h and z R_h (A + ½) / (X z + ½), [..., S, H] each."""
        half_lives = len(self.memory)
        if x.shape[-1] != 3 * half_lives + len(self.weight):
            raise ValueError(
                f"EmpiricalBayesRates: x must have {3 * half_lives + len(self.weight)} columns "
                f"(3 H + P), got {list(x.shape)}."
            )
        counts, expected, rate, features = x.split([half_lives] * 3 + [len(self.weight)], dim=-1)
        if len(self.weight):
            relative = (features - features.mean(-2, keepdim=True)) @ self.weight
            z = relative.clamp(-5, 5).exp()[..., None]
            expected, rate = expected * z, rate * z
        u = torch.tensor(self.config["support"], dtype=x.dtype, device=x.device)
        risk = []
        for h in range(half_lives):
            prior = self.prior[h].log_softmax(0)
            logits = prior + counts[..., h, None] * u.log() - expected[..., h, None] * u
            risk.append(logits.softmax(-1) @ u)
        own = (counts + 0.5) / (expected + 0.5)
        return rate * torch.stack(risk, -1), rate, rate * own

    def _terms(self, shrunken: Tensor, near: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """b [..., S] and f [..., S, 3 H + 1]."""
        base = (shrunken @ self.memory.softmax(0)).clamp_min(_SMALLEST).log()
        apart = torch.cat([shrunken, near, own], -1).clamp_min(_SMALLEST).log() - base[..., None]
        spread = base - base.mean(-1, keepdim=True)
        return base, torch.cat([apart, spread[..., None]], -1)

    def _counts(self, base: Tensor, terms: Tensor | None) -> NegativeBinomial:
        log_mean = base
        if terms is not None:
            log_mean = base + terms @ self.correction
            log_mean = log_mean + (
                base.logsumexp(-1, keepdim=True) - log_mean.logsumexp(-1, keepdim=True)
            )
        # 1e-8 to a hundred million.
        mean = log_mean.clamp(math.log(_SMALLEST), -math.log(_SMALLEST)).exp()
        return NegativeBinomial(mean * (-self.raw_dispersion).exp(), self.raw_dispersion)


@torch.enable_grad()
def _maximise(
    free: Sequence[nn.Parameter],
    counts: Callable[[], NegativeBinomial],
    penalty: Callable[[], Tensor],
    y: Tensor,
) -> None:
    """Raise the counts' penalised likelihood over the free parameters, the last of them log φ."""
    free = [parameter for parameter in free if parameter.numel()]
    optimizer = torch.optim.LBFGS(
        free, max_iter=100, line_search_fn="strong_wolfe", tolerance_change=1e-9
    )

    def closure() -> Tensor:
        # A weak prior keeps φ finite where counts are few or no more spread than Poisson's.
        loss = -counts().log_prob(y).sum() + penalty() + (free[-1] + 1).square() / 8
        loss = loss / y.numel()
        for parameter, grad in zip(free, torch.autograd.grad(loss, free), strict=True):
            parameter.grad = grad
        return loss.detach()

    optimizer.step(closure)


def _grid(high: float) -> list[float]:
    ratio = math.log(high / _LOWEST) / (SUPPORT - 1)
    return [_LOWEST * math.exp(ratio * g) for g in range(SUPPORT)]


def _npmle(counts: Tensor, expected: Tensor, u: Tensor) -> Tensor:
    """log w [G] that make A_s ~ Σ_g w_g Poisson(X_s u_g) likeliest, by EM from equal weights; a
    millionth of the mass is kept spread, so that no point is ever ruled out."""
    logits = counts[:, None] * u.log() - expected[:, None] * u
    likelihood = (logits - logits.amax(1, keepdim=True)).exp()
    w = torch.full_like(u, 1 / len(u))
    for _ in range(_STEPS):
        w = w * (likelihood / (likelihood @ w)[:, None]).mean(0)
    return ((1 - 1e-6) * w + 1e-6 / len(w)).log()
