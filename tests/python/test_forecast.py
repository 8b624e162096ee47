"""Forecasts: distribution functions and quantiles against SciPy, joint against site probabilities,
draws, and users' forecasts, which work like the library's."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import distributions as td

import topreach as tr
from topreach.data.panel import Batch
from topreach.distributions import (
    Forecast,
    Mixture,
    NegativeBinomial,
    Poisson,
    SampledForecast,
    SiteMixture,
    TruncatedNormal,
    ZeroInflated,
)
from topreach.objectives import NLL, DecisionAware, DirectBPR

KEY = torch.tensor([3, 4])


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


NB = NegativeBinomial(double(0.02, 1.0, 7.5, 300.0, 1e6), double(3.0, 0.0, -1.0, 2.0, -14.0))
POISSON = Poisson(double(0.001, 1.0, 40.0, 3e3, 2e6))


def scipy_negbin(counts):
    return scipy.stats.nbinom(counts.total_count.numpy(), 1 / (1 + np.exp(counts.logits.numpy())))


# ---- distribution functions and quantiles --------------------------------------------------------


SCIPY = [
    pytest.param(NB, scipy_negbin(NB), id="negbin"),
    pytest.param(POISSON, scipy.stats.poisson(POISSON.rate.numpy()), id="poisson"),
]


@pytest.mark.parametrize("counts, oracle", SCIPY)
def test_cdf_is_that_of_scipy(counts, oracle):
    """Relative 2e-9: both sides lose digits with the square root of counts up to millions, and
    torch's gammaincc, which the Poisson takes, errs by 1.3e-9 of P(Y <= 33) at rate 40."""
    mean, sd = counts.mean, counts.variance.sqrt()
    for shift in (-3.0, -1.0, 0.0, 0.5, 2.0, 6.0):
        y = (mean + shift * sd).clamp_min(0).floor()
        np.testing.assert_allclose(counts.cdf(y), oracle.cdf(y.numpy()), rtol=2e-9, atol=1e-12)


@pytest.mark.parametrize("counts, oracle", SCIPY)
def test_quantile_is_that_of_scipy(counts, oracle):
    """And no probability lies below a count of 0."""
    assert (counts.cdf(-torch.ones(5)) == 0).all()
    for p in (0.001, 0.1, 0.5, 0.9, 0.999):
        np.testing.assert_array_equal(counts.quantile(p), oracle.ppf(p))


@pytest.mark.parametrize("p", [0.01, 0.5, 0.95])
def test_a_quantile_is_the_least_count_with_that_probability(p):
    """The definition, for every kind of distribution: P(Y <= q − 1) < p <= P(Y <= q)."""
    two = NegativeBinomial(double(1.0, 3.0).expand(4, 2) + torch.arange(4.0)[:, None], double(0.5))
    for counts in (
        NB,
        POISSON,
        ZeroInflated(NB, double(0.3)),
        ZeroInflated(POISSON, double(0.0, 0.2, 0.9, 0.999, 0.5)),
        Mixture(torch.full((4,), 0.25, dtype=torch.float64), two),
        SiteMixture(torch.zeros(3, 2).double(), td.Poisson(double(2.0, 50.0))),
        SampledForecast(torch.poisson(torch.full((40, 6), 3.0), generator=torch.Generator())),
    ):
        q = counts.quantile(p)
        assert (q == q.floor()).all()
        assert (counts.cdf(q.double()) >= p).all() and (counts.cdf(q.double() - 1) < p).all()


def test_a_mixture_has_site_probabilities_by_themselves():
    """The median of a mixture by hand: P(Y_s <= y) = Σ_l w_l P_l(Y_s <= y)."""
    mixture = Mixture(double(0.3, 0.7), Poisson(double(1.0, 30.0, 5.0, 6.0).reshape(2, 2)))
    table = sum(
        w * scipy.stats.poisson(rate).cdf(np.arange(100)[:, None])
        for w, rate in ((0.3, [1.0, 30.0]), (0.7, [5.0, 6.0]))
    )
    expected = (table < 0.5).sum(0)
    assert tr.count_quantile(mixture, 0.5).tolist() == expected.tolist()
    y = double(2.0, 9.0)
    pmf = [
        [scipy.stats.poisson(r).pmf(v) for r, v in zip(rates, y)]
        for rates in ((1.0, 30.0), (5.0, 6.0))
    ]
    joint = 0.3 * math.prod(pmf[0]) + 0.7 * math.prod(pmf[1])
    assert mixture.joint_log_prob(y).item() == pytest.approx(math.log(joint), rel=1e-12)
    site = [0.3 * a + 0.7 * b for a, b in zip(*pmf, strict=True)]
    np.testing.assert_allclose(mixture.site_log_prob(y).exp(), site, rtol=1e-12)
    assert not hasattr(mixture, "log_prob")


def test_density_quantile_inverts_the_cdf():
    normal = SiteMixture(
        torch.zeros(2, 2).double(), TruncatedNormal(double(1.0, 9.0), double(2.0, 1.0))
    )
    for p in (0.01, 0.5, 0.99):
        torch.testing.assert_close(normal.cdf(normal.quantile(p)), torch.full((2,), p).double())
    oracle = 0.5 * sum(
        scipy.stats.truncnorm(-loc / s, np.inf, loc, s).cdf(4.0)
        for loc, s in ((1.0, 2.0), (9.0, 1.0))
    )
    assert normal.cdf(double(4.0, 4.0))[0].item() == pytest.approx(oracle, rel=1e-12)


# ---- draws alone ---------------------------------------------------------------------------------


def test_a_forecast_by_simulation_is_its_draws():
    draws = torch.tensor([[0.0, 2.0], [1.0, 3.0], [4.0, 4.0], [1.0, 0.0]])
    forecast = SampledForecast(draws)
    assert forecast.mean.tolist() == [1.5, 2.25]
    torch.testing.assert_close(forecast.variance, draws.var(0))
    assert forecast.quantile(0.5).tolist() == [1.0, 2.0]
    assert forecast.quantile(0.75).tolist() == [1.0, 3.0]
    assert forecast.cdf(torch.tensor([1.0, 2.5])).tolist() == [0.75, 0.5]
    torch.testing.assert_close(forecast.expected_ratio(), tr.ratio_ranking(draws))
    again = forecast.sample(500, key=KEY)
    rows = {tuple(row) for row in draws.tolist()}
    assert {tuple(row) for row in again.tolist()} == rows, "whole draws, all of them"
    assert torch.equal(again, forecast.sample(500, key=KEY))
    with pytest.raises(TypeError, match="draws only"):
        forecast.site_log_prob(draws[0])
    with pytest.raises(ValueError, match=r"draws must have shape \[M, ..., S\]"):
        SampledForecast(torch.ones(3))
    with pytest.raises(ValueError, match="probability must be above 0 and below 1"):
        forecast.quantile(1.0)


# ---- users' forecasts ----------------------------------------------------------------------------


class Own:
    """A Poisson forecast written by a user, with only the required methods."""

    def __init__(self, rate):
        self.rate = rate

    def mean(self):
        return self.rate

    def variance(self):
        return self.rate

    def sample(self, num_samples, *, key=None):
        return Poisson(self.rate).sample(num_samples, key=key)

    def site_log_prob(self, y):
        return td.Poisson(self.rate, validate_args=False).log_prob(y)


def test_a_forecast_of_ones_own_takes_part():
    rate = double(0.5, 3.0, 8.0).requires_grad_()
    own, ours = Forecast(Own(rate)), Poisson(rate)
    y = double(1.0, 0.0, 11.0)
    torch.testing.assert_close(own.mean, rate)
    torch.testing.assert_close(own.cdf(y), ours.cdf(y))
    assert torch.equal(own.quantile(0.9), ours.quantile(0.9))
    torch.testing.assert_close(own.joint_log_prob(y), ours.joint_log_prob(y))
    assert own.expected_ratio() is None and not own.has_expected_ratio
    low, high = double(0.0, 1.0, 2.0), double(3.0, 1.0, 9.0)
    torch.testing.assert_close(
        own.interval_log_prob(low, high), tr.interval_log_prob(ours, low, high)
    )
    gradients = [
        torch.autograd.grad(f.site_log_prob(y).sum(), rate)[0] for f in (own, ours, Forecast(ours))
    ]
    torch.testing.assert_close(gradients[0], gradients[1])
    assert torch.equal(gradients[1], gradients[2])
    with pytest.raises(TypeError, match="Series without sample, site_log_prob|without"):
        Forecast(object())


@pytest.mark.parametrize("make", [lambda r: Own(r), lambda r: td.Poisson(r), Poisson])
def test_objectives_take_any_forecast(make):
    class Model(torch.nn.Module):
        is_probabilistic = True

        def __init__(self):
            super().__init__()
            self.log_rate = torch.nn.Parameter(torch.linspace(-1, 1, 6).double())

        def forward(self, x):
            return make(self.log_rate.exp().expand(2, 6))

    torch.manual_seed(0)
    y = torch.poisson(torch.full((2, 6), 2.0).double())
    batch = Batch(torch.zeros(2, 6, 1), y, torch.arange(2.0))
    model = Model()
    found = []
    for objective in (
        NLL(),
        DirectBPR(2, 0.05, ranking="mean"),
        DirectBPR(2, 0.05, ranking="ratio", model_samples=20_000),
        DecisionAware(2, 0.05, ranking="mean"),
    ):
        loss = objective(model, batch, key=KEY).loss
        found.append(torch.autograd.grad(loss, model.log_rate)[0])
        assert torch.isfinite(loss) and found[-1].any()
    expected = (model.log_rate.exp() * 2 - y.sum(0)).detach()
    torch.testing.assert_close(found[0], expected)


# ---- likelihood of joint and incomplete counts ---------------------------------------------------


class Fixed(torch.nn.Module):
    is_probabilistic = True

    def __init__(self, counts):
        super().__init__()
        self.counts, self.unused = counts, torch.nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return self.counts


def test_nll_weighs_periods_of_a_joint_distribution():
    """−Σ_t w_t log p(y_t) with the joint p of a period, Eq. 8; and NaN cells integrate out."""
    generator = torch.Generator().manual_seed(0)
    rate = 3 * torch.rand(2, 4, 5, generator=generator, dtype=torch.float64) + 0.1  # [T, L, S]
    counts = Mixture(torch.full((2, 4), 0.25, dtype=torch.float64), Poisson(rate))
    y = torch.poisson(torch.full((2, 5), 2.0, dtype=torch.float64), generator=generator)
    batch = Batch(torch.zeros(2, 5, 1), y, torch.arange(2.0))
    joint = counts.joint_log_prob(y)
    weights = double(0.5, 3.0)
    loss = NLL()(Fixed(counts), batch._replace(weights=weights)).loss
    assert loss.item() == pytest.approx(-(weights * joint).sum().item(), rel=1e-12)
    unknown = y.clone()
    unknown[0, 2] = torch.nan
    part = Mixture(counts.weights, Poisson(rate[..., [0, 1, 3, 4]]))
    expected = part.joint_log_prob(y[:, [0, 1, 3, 4]])[0] + joint[1]
    loss = NLL()(Fixed(counts), batch._replace(y=unknown)).loss
    assert loss.item() == pytest.approx(-expected.item(), rel=1e-12)
    for independent in (Poisson(rate[:, 0]), td.Poisson(rate[:, 0])):
        want = -td.Poisson(rate[:, 0]).log_prob(y).masked_fill(unknown.isnan(), 0).sum()
        loss = NLL()(Fixed(independent), batch._replace(y=unknown)).loss
        assert loss.item() == pytest.approx(want.item(), rel=1e-12)


def test_suppressed_counts_and_unknown_ones():
    counts = Poisson(double(1.0, 2.0, 3.0).expand(2, 3))
    y = double(0.0, 1.0, 2.0, 4.0, math.nan, 0.0).reshape(2, 3)
    upper = y.clone()
    upper[0, 0] = 4
    batch = Batch(torch.zeros(2, 3, 1), y, torch.arange(2.0), y_upper=upper)
    pois = scipy.stats.poisson
    expected = -(
        math.log(pois(1.0).cdf(4))
        + pois(2.0).logpmf(1)
        + pois(3.0).logpmf(2)
        + pois(1.0).logpmf(4)
        + pois(3.0).logpmf(0)
    )
    assert NLL()(Fixed(counts), batch).loss.item() == pytest.approx(expected, rel=1e-12)
    for objective in (DecisionAware(1, 0.1), DirectBPR(1, 0.1)):
        with pytest.raises(ValueError, match="y must be exact counts, got 1.*Train by NLL"):
            objective(Fixed(counts), batch)


def test_unknown_counts_are_no_period_without_events():
    """A NaN count is refused; a site that is marked as closed is not read."""
    counts = Poisson(double(1.0, 2.0, 3.0).expand(2, 3))
    y = double(0.0, math.nan, 2.0, 4.0, 1.0, 0.0).reshape(2, 3)
    batch = Batch(torch.zeros(2, 3, 1), y, torch.arange(2.0))
    for objective in (
        DirectBPR(1, 0.1),
        DecisionAware(1, 0.1),
        tr.objectives.SPOPlus(1),
        tr.objectives.PerturbationGradient(1),
    ):
        with pytest.raises(ValueError, match="y must be known, got a NaN count"):
            objective(Fixed(counts), batch)
        value = objective(Fixed(counts), batch._replace(open=~y.isnan()))
        assert torch.isfinite(value.loss) and 0 <= value.terms["bpr"] <= 1


def test_a_penalty_is_a_scalar():
    model = Fixed(Poisson(torch.ones(1, 3)))
    model.penalty = lambda: None
    batch = Batch(torch.zeros(1, 3, 1), torch.ones(1, 3), torch.zeros(1))

    class Wrong(Fixed):
        def penalty(self):
            return torch.zeros(2)

    with pytest.raises(ValueError, match="penalty must be a scalar"):
        NLL()(Wrong(model.counts), batch)


def test_objectives_take_a_program():
    """K and TopK(K) are the same; numpy integers count."""
    counts = Poisson(double(1.0, 2.0, 3.0).expand(2, 3))
    batch = Batch(torch.zeros(2, 3, 1), torch.tensor([[1.0, 0, 2], [4, 1, 0]]), torch.arange(2.0))
    losses = [
        DirectBPR(k, 0.1)(Fixed(counts), batch).loss.item()
        for k in (2, np.int64(2), tr.programs.TopK(2))
    ]
    assert losses[0] == losses[1] == losses[2]
    assert DirectBPR(tr.programs.TopK(2), 0.1).config()["k"] == 2
