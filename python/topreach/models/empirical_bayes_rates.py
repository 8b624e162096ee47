"""Rates of sites by empirical Bayes: a discrete prior learnt from all sites, each site's past under it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from topreach.models.negative_binomial import NegativeBinomial

SUPPORT = 32  # points of the prior
COVARIATE_SD = 0.3  # of the normal prior of the coefficients
_LOWEST = 0.01  # relative risk of the first point
_STEPS = 100  # of the EM algorithm
_MAX_CELLS = 200_000  # periods × sites that the covariates and the dispersion are fitted to


class EmpiricalBayesRates(nn.Module):
    """Counts from each site's long memory, shrunk by a prior that is learnt from all sites.

    For each half-life h, `topreach.features.SiteHistory` gives the site's decayed count A, what it
    would have been at its neighbours' risk, X = m E, and that risk at the level of the period to come,
    R = L m. The site's risk relative to its neighbours has the discrete prior Σ_g w_hg δ(u_g), and A
    is Poisson(X u) with the past discounted (a power likelihood). So, with z = exp(β·(x − mean_s x)),

        ρ_h = Σ_g p_g u_g,   p = softmax_g(log w_hg + A log u_g − X z u_g)     (posterior mean)
        μ   = z Σ_h a_h R_h ρ_h,                                a = softmax(memory)
        y   ~ NegBin(total_count μ / φ, logits log φ):          mean μ, variance (1 + φ) μ

    The prior is the nonparametric maximum-likelihood estimate (Robbins 1956; Laird 1978, JASA 73:805)
    on a grid u of 32 points: sites of few counts move to their neighbours, hot spots far above them
    stay where they are. All half-lives have the same say unless an objective trains `memory`.

    Args:
        half_lives: h, as given to `SiteHistory`.
        num_features: P, further features, whose differences between sites matter; 0 for none.
        support: u_g > 0, ascending; None for 32 points from 0.01 to 20 or, after `fit_prior`, to twice
            the highest relative risk that was seen.

    Parameters: prior [H, G] (log w up to a constant), memory [H], weight [P] (β), raw_dispersion []
    (log φ).

    Example:
        >>> history = tr.features.SiteHistory().fit(train)
        >>> model = EmpiricalBayesRates(history.half_lives_)
        >>> model.fit_prior(history.statistics(train), train.y)
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
        self.raw_dispersion = nn.Parameter(torch.tensor(-1.0))

    def extra_repr(self) -> str:
        config = self.config
        return (
            f"half_lives={config['half_lives']}, num_features={config['num_features']}, "
            f"support of {len(config['support'])}"
        )

    def forward(self, x: Tensor) -> NegativeBinomial:
        """Counts predicted for x [..., S, 3 H + P]: A, X and R, H of each, then the features."""
        mean = self._mean(x)
        return NegativeBinomial(mean * (-self.raw_dispersion).exp(), self.raw_dispersion)

    def penalty(self) -> Tensor:
        """Minus the log prior of β, normal with mean 0 and sd 0.3 each, a scalar."""
        return 0.5 * self.weight.square().sum() / COVARIATE_SD**2

    @torch.no_grad()
    def fit_prior(self, x: Tensor, y: Tensor) -> EmpiricalBayesRates:
        """Fit everything but `memory` to the panel, without an optimiser to tune.

        The prior of each half-life by EM on the marginal likelihood of the last period's past; then,
        with it fixed, β (where there are features) and φ by the likelihood of the counts given each
        one's past, over the last periods, up to 200,000 counts.

        Args:
            x: [T, S, 3 H + P], as `forward` takes it; `y`: counts [T, S]. Periods without counts (NaN)
                are left out.

        Returns:
            self.

        Raises:
            ValueError: shapes that do not agree; no period with counts.
        """
        size = 3 * len(self.memory) + len(self.weight)
        if x.ndim != 3 or x.shape[-1] != size or y.shape != x.shape[:-1]:
            raise ValueError(
                f"EmpiricalBayesRates.fit_prior: x must have shape [T, S, {size}] and y [T, S], got "
                f"{list(x.shape)} and {list(y.shape)}."
            )
        known = ~torch.isnan(y).any(1)
        if not known.any():
            raise ValueError("EmpiricalBayesRates.fit_prior: y must have counts, got none.")
        x, y = x[known], y[known]
        counts, expected, _, _ = self._parts(x[-1].double())
        if self._extends:
            high = ((counts + 1) / (expected + 1)).max().item()
            self.config["support"] = _grid(max(20.0, 2 * high))
        u = torch.tensor(self.config["support"], dtype=torch.float64, device=x.device)
        for h in range(len(self.memory)):
            self.prior[h] = _npmle(counts[..., h], expected[..., h], u).to(self.prior.dtype)
        last = max(1, _MAX_CELLS // y.shape[1])
        self._fit_rest(x[-last:], y[-last:])
        return self

    def _fit_rest(self, x: Tensor, y: Tensor) -> None:
        free = [self.raw_dispersion, *([self.weight] if len(self.weight) else [])]
        with torch.enable_grad():
            optimizer = torch.optim.LBFGS(
                free, max_iter=25, line_search_fn="strong_wolfe", tolerance_change=1e-7
            )
            mean = None if len(self.weight) else self._mean(x).detach()

            def closure() -> Tensor:
                optimizer.zero_grad()
                mu = self._mean(x) if mean is None else mean
                counts = NegativeBinomial(mu * (-self.raw_dispersion).exp(), self.raw_dispersion)
                # A weak prior keeps φ finite where counts are few or no more spread than Poisson's.
                loss = -counts.log_prob(y).sum() + self.penalty()
                loss = (loss + 0.5 * (self.raw_dispersion + 1).square() / 4) / y.numel()
                loss.backward()
                return loss

            optimizer.step(closure)
        for parameter in self.parameters():
            parameter.grad = None
        self.raw_dispersion.clamp_(-10, 10)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        half_lives = len(self.memory)
        return x.split([half_lives, half_lives, half_lives, x.shape[-1] - 3 * half_lives], dim=-1)

    def _mean(self, x: Tensor) -> Tensor:
        if x.shape[-1] != 3 * len(self.memory) + len(self.weight):
            raise ValueError(
                f"EmpiricalBayesRates: x must have {3 * len(self.memory) + len(self.weight)} columns "
                f"(3 H + P), got {list(x.shape)}."
            )
        counts, expected, rate, features = self._parts(x)
        z = torch.ones((), dtype=x.dtype, device=x.device)
        if len(self.weight):
            relative = (features - features.mean(-2, keepdim=True)) @ self.weight
            z = relative.clamp(-5, 5).exp()
        u = torch.tensor(self.config["support"], dtype=x.dtype, device=x.device)
        share = self.memory.softmax(0)
        total = torch.zeros_like(counts[..., 0])
        for h in range(len(share)):
            prior = self.prior[h].log_softmax(0)
            logits = prior + counts[..., h, None] * u.log() - (expected[..., h] * z)[..., None] * u
            total = total + share[h] * rate[..., h] * (logits.softmax(-1) @ u)
        return (total * z).clamp_min(1e-8)


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
