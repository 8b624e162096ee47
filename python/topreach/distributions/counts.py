"""Exact summaries of count distributions: ratio ranking, distribution function, quantile, interval.

The computation is in C++; these functions find out which kind of distribution they were given.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributions as td
from torch.utils.checkpoint import checkpoint

from topreach._C import Forecast
from topreach.data.messages import either
from topreach.distributions.forecast import CountForecast, as_forecast, check_probability
from topreach.distributions.mixture import Mixture
from topreach.distributions.negative_binomial import NegativeBinomial
from topreach.distributions.poisson import Poisson
from topreach.distributions.sampled import SampledForecast
from topreach.distributions.site_mixture import SiteMixture
from topreach.distributions.zero_inflated import ZeroInflated, count_forecast

__all__ = [
    "count_cdf",
    "count_quantile",
    "expected_ratio_ranking",
    "has_expected_ratio_ranking",
    "has_interval_log_prob",
    "interval_log_prob",
]

BLOCK = 64  # counts whose probabilities count_cdf holds at a time

CountDistribution = (
    NegativeBinomial
    | Poisson
    | ZeroInflated
    | SiteMixture
    | Mixture
    | SampledForecast
    | Forecast
    | td.NegativeBinomial
    | td.Poisson
    | td.Bernoulli
    | td.Binomial
    | td.Independent
    | td.MixtureSameFamily
)


_FAMILIES = (
    NegativeBinomial,
    Poisson,
    td.NegativeBinomial,
    td.Poisson,
    td.Bernoulli,
    td.Binomial,
)


def expected_ratio_ranking(distribution: CountDistribution, offset: float = 0.0) -> Tensor:
    """Ratio ranking r_s = E[y_s / (offset + Σ_s y_s)], 0/0 := 0 [D25 Eq. 6], without samples.

    With u = e^−t and generating functions G, r_s = ∫₀^∞ e^−(c+1)t (G'_s/G_s)(u) Π_k G_k(u) dt: one
    integral over t for all sites, taken by the trapezoidal rule in log t.

    The rule replaces 1/z = ∫ e^−zt dt by a sum of exponentials with the same relative error,
    2.6e-11 (step 0.36), for every z. So every r_s has that relative error, whatever the
    distribution. The ends of the rule are set for each row so that they add less. There are about
    60 nodes, and more for means or odds above 1e5. On CUDA there are 128, and the error stays below
    1e-9 up to 1e14.

    Cost: O(T S) times the number of nodes, and about twenty MB of memory whatever S is, forward and
    backward. For Poisson, and for NegativeBinomial with one logit for all sites of a row (last
    dimension 1, or a scalar), just O(T S). The first derivative in all parameters is exact too;
    there is no second.

    Args:
        distribution: counts, independent over sites, with parameters [..., S]:
            `tr.distributions.NegativeBinomial`, `tr.distributions.Poisson`, or of
            `torch.distributions`: `NegativeBinomial`, `Poisson`, `Bernoulli`, `Binomial`;
            `tr.distributions.ZeroInflated` of these; `Independent(..., 1)` of these. For one
            component for all sites of a row: `tr.distributions.Mixture` or
            `MixtureSameFamily(Categorical [..., L], Independent(components [..., L, S], 1))`. For
            a component for each site: `tr.distributions.SiteMixture` or
            `MixtureSameFamily(Categorical [..., S, L], Poisson [..., S, L])` (155 nodes ×
            [..., S, L] numbers of memory; error 1e-10).
        offset: c >= 0 added to the denominator. 0 is the paper's definition; its authors' code uses
            1.

    Returns:
        r [..., S] in the dtype of the parameters; computed in float64.

    Raises:
        TypeError: another distribution, or parameters that are not float32 or float64.
        ValueError: parameters that are NaN, infinite or out of range (CPU; on CUDA, where the check
            would synchronise, such rows are NaN); a negative offset.

    Example:
        >>> counts = tr.distributions.NegativeBinomial(torch.rand(4, 1000), torch.tensor(0.5))
        >>> r = tr.expected_ratio_ranking(counts)                 # [4, 1000], differentiable
    """
    if isinstance(distribution, SiteMixture):
        family, first, second = distribution.parameters
        return torch.ops.topreach.site_mixture_expected_ratio_ranking(
            family, distribution.logits, first, second, offset
        )
    if isinstance(distribution, Mixture | SampledForecast | Forecast):
        ratio = distribution.expected_ratio(offset)
        if ratio is None:
            raise TypeError(
                "expected_ratio_ranking: distribution must know its expected ratio, got a Forecast "
                "that does not; use ratio_ranking(samples, log_prob)"
            )
        return ratio
    if isinstance(distribution, td.MixtureSameFamily):
        components = distribution.component_distribution
        if isinstance(components, td.Poisson):
            logits = distribution.mixture_distribution.logits
            return expected_ratio_ranking(SiteMixture(logits, components), offset=offset)
        if not isinstance(components, td.Independent):
            raise TypeError(
                "expected_ratio_ranking: the components of a mixture must be "
                "Independent(..., 1) over sites, or Poisson [..., S, L], got "
                + type(components).__name__
            )
        weights = distribution.mixture_distribution.probs
        parts = expected_ratio_ranking(components, offset=offset)
        return (weights.unsqueeze(-1) * parts).sum(-2)
    if isinstance(distribution, td.Independent):
        if distribution.reinterpreted_batch_ndims != 1:
            raise ValueError(
                "expected_ratio_ranking: Independent must have 1 dimension of sites, got "
                f"{distribution.reinterpreted_batch_ndims}"
            )
        return expected_ratio_ranking(distribution.base_dist, offset=offset)
    if not isinstance(distribution, ZeroInflated | td.Distribution | CountForecast):
        own = getattr(distribution, "expected_ratio", None)  # a user's forecast may have it
        if callable(own):
            return own(offset)
    if isinstance(distribution, ZeroInflated):
        parameters, zero_probs = _parameters(distribution.base), distribution.probs
    else:
        parameters, zero_probs = _parameters(distribution), None
    return torch.ops.topreach.expected_ratio_ranking(*parameters, zero_probs, offset)


def has_expected_ratio_ranking(distribution: object) -> bool:
    """Whether `expected_ratio_ranking` takes this distribution.

    Example:
        >>> has_expected_ratio_ranking(torch.distributions.Poisson(torch.ones(3)))
        True
    """
    if isinstance(distribution, Forecast):
        return distribution.has_expected_ratio
    ours = isinstance(distribution, CountForecast | td.Distribution)
    if not ours and callable(getattr(distribution, "expected_ratio", None)):
        return bool(getattr(distribution, "has_expected_ratio", True))
    if isinstance(distribution, Mixture | SampledForecast):
        return True
    if isinstance(distribution, td.MixtureSameFamily):
        distribution = distribution.component_distribution
        if not isinstance(distribution, td.Independent):
            return isinstance(distribution, td.Poisson)
    if isinstance(distribution, td.Independent):
        one_dimension = distribution.reinterpreted_batch_ndims == 1
        return one_dimension and has_expected_ratio_ranking(distribution.base_dist)
    base = distribution.base if isinstance(distribution, ZeroInflated) else distribution
    return isinstance(distribution, SiteMixture) or isinstance(base, _FAMILIES)


def _parameters(distribution) -> tuple[str, Tensor, Tensor | None]:
    """Family and parameters, as the operator takes them."""
    if isinstance(distribution, NegativeBinomial):
        return "negative_binomial", distribution.total_count, distribution.logits.double().exp()
    if isinstance(distribution, td.NegativeBinomial):
        # Read the argument that the distribution was made with: derived logits are clamped at 0.
        if "probs" in distribution.__dict__:
            p = distribution.probs.double()
            return "negative_binomial", distribution.total_count, p / (1 - p)
        return "negative_binomial", distribution.total_count, distribution.logits.double().exp()
    if isinstance(distribution, Poisson | td.Poisson):
        return "poisson", distribution.rate, None
    if isinstance(distribution, td.Bernoulli):
        probs = distribution.probs
        return "binomial", torch.ones((), dtype=probs.dtype, device=probs.device), probs
    if isinstance(distribution, td.Binomial):
        return "binomial", distribution.total_count, distribution.probs
    raise TypeError(
        "expected_ratio_ranking: distribution must be NegativeBinomial, Poisson, Bernoulli or "
        "Binomial, ZeroInflated of one, or a Mixture of them, got "
        f"{type(distribution).__name__}; for any other use ratio_ranking(samples, log_prob)"
    )


def count_cdf(distribution, samples: Tensor) -> Tensor:
    """P(Y_s <= y_s) of each sample and site, for any distribution of counts, differentiable.

    It is the running sum of exp(log_prob) over 0, 1, ..., max(samples), which
    ``ratio_ranking(..., estimator="go")`` differentiates. The error is at most (max + 1) rounding
    errors.

    Cost: (max + 1) x the parameters' elements log-probabilities, and as many again in backward if
    max is 64 or more; so it suits counts up to some thousands. Memory: a few times 64 x the
    parameters' elements, and an array like the samples for every 64 counts up to max. On CUDA,
    finding max waits for the device.

    Args:
        distribution: a forecast, with parameters [..., S].
        samples: [M, ..., S] counts.

    Returns:
        [M, ..., S], in the dtype of the log-probabilities.

    Raises:
        ValueError: samples that are negative or not whole.

    Example:
        >>> y = counts.sample(100)
        >>> cdf, log_prob = tr.count_cdf(counts, y), counts.site_log_prob(y)
        >>> r = tr.ratio_ranking(y, log_prob, cdf=cdf, estimator="go")
    """
    if samples.numel() == 0:
        return torch.zeros_like(samples)
    index = samples.long()
    if bool((index != samples).any()) or int(index.min()) < 0:
        raise ValueError("count_cdf: samples must be whole counts, not negative, got another value")
    shape, forecast = samples.shape[1:], as_forecast(distribution)

    def running_sum(start: int, stop: int, below: Tensor | float) -> Tensor:
        values = torch.arange(start, stop, dtype=samples.dtype, device=samples.device)
        log_prob = forecast.site_log_prob(values.view(-1, *[1] * len(shape)).expand(-1, *shape))
        return log_prob.exp().cumsum(0) + below

    def block(start: int, stop: int, cdf: Tensor, below: Tensor) -> tuple[Tensor, Tensor]:
        table = running_sum(start, stop, below)
        inside = (index >= start) & (index < stop)
        part = table.gather(0, (index - start).clamp(0, stop - start - 1))
        return torch.where(inside, part, cdf), table[-1]

    count = int(index.max()) + 1
    if count <= BLOCK:
        return running_sum(0, count, 0.0).gather(0, index)
    cdf, below = torch.zeros_like(samples), torch.zeros_like(samples[0])
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        cdf, below = checkpoint(block, start, stop, cdf, below, use_reentrant=False)
    return cdf


def interval_log_prob(distribution, low: Tensor, high: Tensor) -> Tensor:
    """log P(low <= Y <= high) of each site: the likelihood of a count known to lie in an interval.

    The probabilities of low, low + 1, ..., high are summed; log P(low) if both are equal.
    Differentiable in the parameters.

    Args:
        distribution: of whole counts, independent over sites: any that `expected_ratio_ranking`
            takes, except truncated normals and mixtures with one component for all sites.
        low, high: whole numbers [..., S], 0 <= low <= high.

    Returns:
        [..., S].

    Raises:
        TypeError: another distribution.
        ValueError: low or high that are not as above.

    Cost: log-probabilities, and memory, of (the widest interval + 1) × the elements.

    Example:
        >>> counts = tr.distributions.Poisson(torch.tensor([2.0, 2.0]))
        >>> tr.interval_log_prob(counts, torch.tensor([0.0, 1.0]), torch.tensor([0.0, 9.0])).exp()
        tensor([0.1353, 0.8646])
    """
    if not has_interval_log_prob(distribution):
        raise TypeError(
            "interval_log_prob: distribution must be of whole counts of independent sites, got "
            f"{type(distribution).__name__}. Fit another model"
            + either(", or take panel.at_bound('lower').", ".")
        )
    return _forecast_of(distribution).interval_log_prob(low, high)


def has_interval_log_prob(distribution: object) -> bool:
    """Whether `interval_log_prob` takes such a distribution.

    Example:
        >>> has_interval_log_prob(torch.distributions.Normal(0.0, 1.0))
        False
    """
    if isinstance(distribution, ZeroInflated | SiteMixture):
        return _forecast_of(distribution).whole_counts
    if isinstance(distribution, Forecast):
        return distribution.whole_counts and distribution.independent_sites
    return isinstance(distribution, _FAMILIES)


def count_quantile(distribution, probability: float) -> Tensor:
    """The least count y with P(Y_s <= y) >= probability, of each site.

    Args:
        distribution: a forecast of whole counts, with parameters [..., S].
        probability: above 0 and below 1; 0.5 is the median.

    Returns:
        Whole numbers [..., S], in the dtype of the mean; NaN where the mean is NaN.

    Raises:
        TypeError: a density, such as a `SiteMixture` of truncated normals.
        ValueError: a probability outside (0, 1).

    Cost: a bisection on the distribution function between mean ± standard deviations: some 5 to 25
    evaluations, however large the counts.

    Example:
        >>> counts = tr.distributions.NegativeBinomial(torch.ones(3), torch.zeros(()))
        >>> tr.count_quantile(counts, 0.5)
        tensor([0., 0., 0.])
    """
    check_probability("count_quantile", probability)
    forecast = _forecast_of(distribution)
    if not forecast.whole_counts:
        raise TypeError(
            "count_quantile: distribution must be of whole counts, got a density, as that of a "
            "SiteMixture of truncated normals. "
            + either(
                "Take its mean or its own quantile(), or fit a PoissonMixture.",
                "Fit --model poisson_mixture.",
            )
        )
    return forecast.quantile(probability)


def _forecast_of(distribution: object) -> Forecast:
    """The C++ object, whose bisections and incomplete beta functions are exact and fast."""
    if isinstance(distribution, Forecast):
        return distribution
    if isinstance(distribution, CountForecast):
        return distribution._forecast()
    return count_forecast(distribution)
