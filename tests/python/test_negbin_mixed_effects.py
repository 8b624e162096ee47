"""NegBinMixedEffects.fit: agreement with other libraries' equal models, recovery, coverage, tables,
predictions under uncertainty, and extreme inputs."""

import copy
import json
import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import optimize, stats

import topreach as tr
from topreach.distributions import Mixture, NegativeBinomial, Poisson, ZeroInflated
from topreach.models import NegBinMixedEffects

TIMES = 6


def simulated(
    seed=0,
    sites=120,
    features=2,
    *,
    sigma=(0.6, 0.3),
    rho=-0.4,
    family="nb1",
    dispersion=0.0,
    zero=None,
    intercept=0.6,
    beta=(0.4, -0.3),
    times=TIMES,
):
    """x, y, time drawn from the model by NumPy."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(times, sites, features))
    time = np.linspace(-1.5, 1.5, times)
    z = rng.normal(size=(2, sites))
    b0, b1 = sigma[0] * z[0], sigma[1] * (rho * z[0] + math.sqrt(1 - rho**2) * z[1])
    mean = np.exp(intercept + x @ np.array(beta[:features]) + b0 + np.outer(time, b1))
    if family == "poisson":
        y = rng.poisson(mean)
    elif family == "nb1":
        phi = math.exp(dispersion)
        y = rng.negative_binomial(mean / phi, 1 / (1 + phi))
    else:
        size = math.exp(dispersion)
        y = rng.negative_binomial(size, size / (size + mean))
    if zero is not None:
        y = np.where(rng.random(y.shape) < zero, 0, y)
    return torch.from_numpy(x), torch.from_numpy(y).double(), torch.from_numpy(time)


def without_effects(sites, features, **options):
    """The model with Sigma held at 0: plain regression."""
    model = NegBinMixedEffects(sites, features, **options).double()
    with torch.no_grad():
        model.raw_sigma.fill_(-40)
    model.raw_sigma.requires_grad_(False)
    model.raw_rho.requires_grad_(False)
    return model


# ---- other libraries -----------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["poisson", "nb1", "nb2", "zip", "zinb"])
def test_plain_regression_is_that_of_statsmodels(family):
    """Sigma = 0: estimates, log-likelihood and AIC of the same model there, and standard errors
    from differences of its likelihood."""
    discrete = pytest.importorskip("statsmodels.discrete.discrete_model")
    inflated = pytest.importorskip("statsmodels.discrete.count_model")
    numdiff = pytest.importorskip("statsmodels.tools.numdiff")
    zero = 0.3 if family.startswith("z") else None
    base = {"zip": "poisson", "zinb": "nb2"}.get(family, family)
    x, y, time = simulated(5, 150, family=base, sigma=(0, 0), zero=zero)
    exposure = torch.rand(y.shape, dtype=torch.float64) + 0.5
    design = np.column_stack((np.ones(y.numel()), x.flatten(0, 1).numpy()))
    counts, exposed = y.flatten().numpy(), exposure.flatten().numpy()
    model = without_effects(150, 2, family=base, zero_inflation=zero is not None)
    model.fit(x, y, time, exposure=exposure)
    if zero is None and family == "poisson":
        theirs = discrete.Poisson(counts, design, exposure=exposed)
    elif zero is None:
        theirs = discrete.NegativeBinomial(counts, design, exposure=exposed, loglike_method=family)
    else:
        kind = (
            inflated.ZeroInflatedPoisson
            if family == "zip"
            else (inflated.ZeroInflatedNegativeBinomialP)
        )
        theirs = kind(counts, design, exposure=exposed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = theirs.fit(disp=0, maxiter=2000, method="bfgs", gtol=1e-9)
        hessian = numdiff.approx_hess(theirs.params, theirs.model.loglike)
    errors = np.sqrt(np.diag(np.linalg.inv(-hessian)))
    # Theirs: [inflation logit], coefficients, [alpha: phi of nb1, 1 / size of nb2].
    ours = model.coefficients()
    first = 0 if zero is None else 1
    assert model.fit_.log_likelihood == pytest.approx(theirs.llf, abs=1e-6)
    assert np.allclose(ours["Estimate"], theirs.params[first : first + 3], atol=2e-4)
    assert np.allclose(ours["Std. Error"], errors[first : first + 3], rtol=2e-3)
    variance = model.variance_parameters()
    if base == "nb1":
        assert variance.loc["phi", "Estimate"] == pytest.approx(theirs.params[-1], rel=1e-3)
        assert variance.loc["phi", "Std. Error"] == pytest.approx(errors[-1], rel=5e-3)
    if base == "nb2":
        assert 1 / variance.loc["size", "Estimate"] == pytest.approx(theirs.params[-1], rel=1e-3)
    if zero is not None:
        probability = 1 / (1 + math.exp(-theirs.params[0]))
        assert variance.loc["zero_prob", "Estimate"] == pytest.approx(probability, abs=1e-4)
    assert model.fit_.num_parameters == len(theirs.params)
    assert model.fit_.aic == pytest.approx(-2 * theirs.llf + 2 * len(theirs.params), abs=1e-5)


def test_the_marginal_maximum_is_that_of_a_search_of_its_own():
    """Poisson with a random intercept, its likelihood by quadrature, maximised by SciPy: counts of
    a site are many, so Laplace's estimates differ by little."""
    x, y, time = simulated(1, 40, 1, family="poisson", sigma=(0.7, 0), rho=0, intercept=2.0)
    nodes = np.linspace(-7, 7, 561)  # the trapezoidal rule, fine for the narrowest integrand
    weights = stats.norm.pdf(nodes) * (nodes[1] - nodes[0])
    counts, design = y.numpy(), x[..., 0].numpy()

    def minus(theta):
        b0, beta, log_sigma = theta
        eta = b0 + beta * design[..., None] + math.exp(log_sigma) * nodes
        log_p = stats.poisson.logpmf(counts[..., None], np.exp(eta)).sum(0)
        top = log_p.max(-1, keepdims=True)
        total = (np.exp(log_p - top) * weights).sum(-1)
        return -(np.log(total) + top[:, 0]).sum()

    best = optimize.minimize(minus, [2.0, 0.4, -0.4], method="BFGS")
    model = NegBinMixedEffects(40, 1, family="poisson").double()
    value = model.fit(x, y, time * 0).fit_  # one time: the slope is not identified
    assert value.held.keys() == {"raw_sigma[1]", "raw_rho"}
    assert value.log_likelihood == pytest.approx(-best.fun, abs=0.1)  # 40 / (12 * 44)
    table = model.coefficients()
    assert np.allclose(table["Estimate"], best.x[:2], atol=5e-3)
    sigma = model.variance_parameters().loc["sd(intercept)"]
    assert sigma["Estimate"] == pytest.approx(math.exp(best.x[2]), abs=5e-3)
    assert table["Std. Error"].to_numpy() == pytest.approx(
        np.sqrt(np.diag(best.hess_inv))[:2],
        rel=0.1,  # BFGS's estimate of the curvature
    )


# ---- what must hold ------------------------------------------------------------------------------


def test_the_maximum_is_one():
    """The gradient of the marginal likelihood is zero there, by autograd and by differences, and
    the covariance is the inverse of the differences' Hessian."""
    x, y, time = simulated(2)
    model = NegBinMixedEffects(120, 2).double().fit(x, y, time)
    assert model.fit_.converged and not model.fit_.held
    value = model.log_marginal(x, y, time).sum()
    assert value.item() == pytest.approx(model.fit_.log_likelihood, abs=1e-8)
    shared = [p for n, p in model.named_parameters() if not n.startswith("site")]
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(value, shared)])
    # Half of g' C g is the log-likelihood still to be gained.
    assert (gradient @ model.fit_.covariance @ gradient).item() < 1e-8

    def at(theta):
        other = copy.deepcopy(model)
        with torch.no_grad():
            for name, part in other._unpack(theta).items():
                getattr(other, name).copy_(part)
        return other.log_marginal(x, y, time).sum().item()

    theta, h = model.fit_.estimate, 1e-3
    information = torch.linalg.inv(model.fit_.covariance)
    for i in (0, 1, 3, 4):
        step = torch.zeros_like(theta)
        step[i] = h
        second = -(at(theta + step) - 2 * at(theta) + at(theta - step)) / h**2
        assert second == pytest.approx(information[i, i].item(), rel=1e-3)


def test_order_of_sites_and_origin_of_time_do_not_matter():
    x, y, time = simulated(3)
    model = NegBinMixedEffects(120, 2).double().fit(x, y, time)
    order = torch.randperm(120)
    moved = NegBinMixedEffects(120, 2).double().fit(x[:, order], y[:, order], time)
    assert moved.fit_.log_likelihood == pytest.approx(model.fit_.log_likelihood, abs=1e-6)
    assert torch.allclose(moved.site_intercept, model.site_intercept[order], atol=1e-4)
    # b0 + b1 t = (b0 - b1) + b1 (t + 1): another Sigma, the same likelihood and slopes.
    later = NegBinMixedEffects(120, 2).double().fit(x, y, time + 1)
    assert later.fit_.log_likelihood == pytest.approx(model.fit_.log_likelihood, abs=1e-6)
    assert torch.allclose(later.site_slope, model.site_slope, atol=1e-4)
    assert torch.allclose(later.site_intercept, model.site_intercept - model.site_slope, atol=1e-4)
    a, b = model.covariance, later.covariance
    assert b[1, 1].item() == pytest.approx(a[1, 1].item(), rel=1e-3)
    assert b[0, 0].item() == pytest.approx((a[0, 0] - 2 * a[0, 1] + a[1, 1]).item(), rel=1e-3)
    # Units of a feature: the coefficient and its error scale, the test does not.
    scaled = NegBinMixedEffects(120, 2).double().fit(x * torch.tensor([100.0, 1.0]) + 7, y, time)
    ours, theirs = scaled.coefficients(), model.coefficients()
    assert ours.loc["x0", "Estimate"] * 100 == pytest.approx(theirs.loc["x0", "Estimate"], rel=1e-4)
    assert ours.loc["x0", "z value"] == pytest.approx(theirs.loc["x0", "z value"], rel=1e-4)


def test_weights_are_repetitions_and_zero_leaves_out():
    x, y, time = simulated(4, 60)
    weights = torch.ones(TIMES).double()
    weights[-1] = 0
    spoiled = y.clone()
    spoiled[-1] = math.nan
    a = NegBinMixedEffects(60, 2).double().fit(x, spoiled, time, weights=weights)
    b = NegBinMixedEffects(60, 2).double().fit(x[:-1], y[:-1], time[:-1])
    assert a.fit_.log_likelihood == pytest.approx(b.fit_.log_likelihood, abs=1e-6)
    assert a.fit_.num_observations == b.fit_.num_observations == 60 * (TIMES - 1)
    weights[0] = 2
    index = torch.tensor([0, *range(TIMES - 1)])
    c = NegBinMixedEffects(60, 2).double().fit(x, spoiled, time, weights=weights)
    d = NegBinMixedEffects(60, 2).double().fit(x[index], y[index], time[index])
    assert c.fit_.log_likelihood == pytest.approx(d.fit_.log_likelihood, abs=1e-6)
    # A hundredfold exposure is an intercept lower by log 100.
    e = (
        NegBinMixedEffects(60, 2)
        .double()
        .fit(x[:-1], y[:-1], time[:-1], exposure=torch.full_like(y[:-1], 100))
    )
    assert e.intercept.item() == pytest.approx(b.intercept.item() - math.log(100), abs=1e-3)


def test_censored_counts():
    """Cells 1-9 suppressed: the estimates stay near those of the full table, with larger errors; a
    fit to y = 1 there is far off."""
    x, y, time = simulated(6, 300, intercept=2.3, family="poisson")
    hidden = (y >= 1) & (y <= 9)
    low, high = torch.where(hidden, 1.0, y), torch.where(hidden, 9.0, y)
    fits = [
        NegBinMixedEffects(300, 2, family="poisson").double().fit(x, given, time, **more)
        for given, more in ((y, {}), (low, {"y_upper": high}), (low, {}))
    ]
    full, censored, naive = (model.coefficients() for model in fits)
    assert (censored["Std. Error"] > full["Std. Error"]).all()
    difference = (censored["Estimate"] - full["Estimate"]).abs()
    # Errors of what suppression takes away, at most four of them.
    extra = (censored["Std. Error"] ** 2 - full["Std. Error"] ** 2) ** 0.5
    assert (difference < 4 * extra).all()
    assert abs(naive.loc["(Intercept)", "Estimate"] - full.loc["(Intercept)", "Estimate"]) > 0.3


def test_stepwise_likelihood_takes_exposure_and_intervals():
    """NLL of the model, against SciPy's distribution functions; the penalty's information against
    (d mean / d eta)^2 / variance."""
    torch.manual_seed(0)
    x, y, time = simulated(3, 20, 1)
    model = NegBinMixedEffects(20, 1).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    exposure = torch.rand(y.shape, dtype=torch.float64) * 3 + 0.1
    hidden = (y >= 1) & (y <= 9)
    low, high = torch.where(hidden, 1.0, y), torch.where(hidden, 9.0, y)
    batch = tr.Batch(x, low, time, exposure=exposure, y_upper=high)
    value = tr.objectives.NLL()(model, batch)
    q = model.probs.item()
    eta = model.intercept + x[..., 0] * model.weight + model.site_intercept
    eta = (eta + time[:, None] * model.site_slope).detach()
    mu = (exposure * eta.exp()).numpy()
    of = stats.nbinom(mu, 1 - q)
    within = sum(of.pmf(count) for count in range(1, 10))
    chance = np.where(hidden, within, of.pmf(y.numpy()))
    assert value.terms["nll"].item() == pytest.approx(-np.log(chance).sum(), rel=1e-9)
    w = mu * q  # of the log link: mean^2 / variance, mean mu q / (1 - q)
    expected = np.stack([w.sum(0), (w * time[:, None].numpy()).sum(0)], -1)
    information = model._information(x, time, None, exposure)
    np.testing.assert_allclose(information[:, :2].numpy(), expected, rtol=1e-9)
    assert value.terms["penalty"] == model.penalty(x, time, exposure=exposure)
    value.loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())
    with pytest.raises(ValueError, match="DirectBPR: y must be exact counts, got "):
        tr.objectives.DirectBPR(3, 0.1)(model, batch)


@pytest.mark.parametrize(("family", "dispersion"), [("nb1", 0.3), ("nb2", 1.0), ("poisson", None)])
def test_recovery_and_coverage(family, dispersion):
    """95 % intervals over 12 panels: their coverage of 5 or 6 parameters is binomial; Laplace's
    bias is small at these counts. 99.9 % limits for n = 60 at .95: at least 50."""
    truth = {"(Intercept)": 1.2, "x0": 0.4, "x1": -0.3}
    spread = {"sd(intercept)": 0.6, "sd(slope)": 0.3, "cor": -0.4}
    if family == "nb1":
        spread["phi"] = math.exp(0.3)
    elif family == "nb2":
        spread["size"] = math.exp(1.0)
    hits, total = 0, 0
    for seed in range(12):
        x, y, time = simulated(
            100 + seed, 100, family=family, dispersion=dispersion or 0.0, intercept=1.2
        )
        model = NegBinMixedEffects(100, 2, family=family).double().fit(x, y, time)
        for table, values in ((model.coefficients(), truth), (model.variance_parameters(), spread)):
            for row, value in values.items():
                low, high = table.loc[row, "2.5 %"], table.loc[row, "97.5 %"]
                assert low < table.loc[row, "Estimate"] < high
                hits += low <= value <= high
                total += 1
    assert stats.binom.cdf(hits, total, 0.95) > 5e-4
    assert total >= 72


# ---- tables --------------------------------------------------------------------------------------


def test_summary_is_that_of_r():
    x, y, time = simulated(7, zero=0.2)
    model = NegBinMixedEffects(120, 2, zero_inflation=True).double()
    model.fit(x, y, time, feature_names=["poverty", "age"])
    text = str(model.summary())
    assert repr(model.summary()) == text
    for part in (
        " Family: nbinom1  ( log )",
        "AIC",
        "BIC",
        "logLik",
        "df.resid",
        "Std.Dev.",
        "Corr",
        "Number of obs: 720, groups:  site, 120",
        "Dispersion parameter for nbinom1 family (): ",
        "Conditional model:",
        "Estimate Std. Error z value Pr(>|z|)",
        "(Intercept)",
        "poverty",
        "Zero-inflation model:",
        "Signif. codes:",
    ):
        assert part in text
    assert f"{model.fit_.aic:.1f}" in text
    assert model.fit_.bic == pytest.approx(
        model.fit_.aic + (math.log(720) - 2) * model.fit_.num_parameters
    )
    table = model.coefficients(level=0.9)
    assert list(table.index) == ["(Intercept)", "poverty", "age"]
    assert list(table.columns) == ["Estimate", "Std. Error", "z value", "Pr(>|z|)", "5 %", "95 %"]
    row = table.loc["age"]
    assert row["Pr(>|z|)"] == pytest.approx(2 * stats.norm.sf(abs(row["z value"])))
    assert row["95 %"] == pytest.approx(row["Estimate"] + 1.6448536 * row["Std. Error"])


def test_random_effects_and_their_errors():
    """Poisson, intercepts only: the mode solves its equation, and its error is that of the
    posterior by quadrature (counts are many)."""
    x, y, time = simulated(
        8, 30, 0, family="poisson", sigma=(0.7, 0), rho=0, intercept=2.5, beta=()
    )
    model = NegBinMixedEffects(30, 0, family="poisson").double()
    names = [f"tract {s}" for s in range(30)]
    model.fit(x, y, time * 0, site_ids=names)
    table = model.random_effects()
    assert list(table.index) == names and table.index.name == "site"
    assert np.allclose(table["intercept"], model.site_intercept.detach().numpy())
    sigma = model.variance_parameters().loc["sd(intercept)", "Estimate"]
    b = np.linspace(-3, 3, 4001)
    for s in (0, 7):
        log_p = stats.poisson.logpmf(
            y[:, s].numpy()[:, None], np.exp(model.intercept.item() + b)
        ).sum(0) + stats.norm.logpdf(b, scale=sigma)
        p = np.exp(log_p - log_p.max())
        p /= p.sum()
        mean = (p * b).sum()
        sd = math.sqrt((p * (b - mean) ** 2).sum())
        assert table.iloc[s]["se_intercept"] == pytest.approx(sd, rel=0.02)
        assert table.iloc[s]["intercept"] == pytest.approx(b[p.argmax()], abs=2e-3)


# ---- predictions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["nb1", "nb2", "poisson"])
@pytest.mark.parametrize("zero", [None, 0.2])
def test_predictive(family, zero):
    x, y, time = simulated(9, 40, family=family, zero=zero)
    model = NegBinMixedEffects(40, 2, family=family, zero_inflation=zero is not None)
    model.fit(x.float(), y.float(), time.float())
    generator = torch.Generator().manual_seed(1)
    ahead = torch.tensor([1.5, 2.1])
    mixture = model.predictive(x[:2].float(), ahead, 60, generator=generator)
    assert isinstance(mixture, Mixture) and mixture.mean.shape == (2, 40)
    plug_in = model(x[:2].float(), ahead)
    # Wider than the plug-in distribution, and centred on it up to the errors of the effects.
    assert (mixture.variance > plug_in.variance).float().mean() > 0.8
    assert (mixture.mean.log() - plug_in.mean.log()).abs().median() < 0.3
    ranking = tr.expected_ratio_ranking(mixture)
    assert ranking.shape == (2, 40) and ranking.sum(-1).max() <= 1 + 1e-5
    samples = mixture.sample(4000, key=torch.tensor([1, 2]))
    assert torch.equal(samples, mixture.sample(4000, key=torch.tensor([1, 2])))
    error = samples.std(0) / math.sqrt(4000)
    assert ((samples.mean(0) - mixture.mean).abs() < 5 * error).all()
    ratio = samples / samples.sum(-1, keepdim=True)
    error = ratio.std(0) / math.sqrt(4000)
    assert ((ratio.mean(0) - ranking).abs() < 5 * error + 1e-6).all()
    values = torch.arange(60.0)[:, None, None].expand(60, 2, 40)
    cdf = mixture.site_log_prob(values).exp().cumsum(0)
    middle = mixture.quantile(0.5).long()
    assert (cdf.gather(0, middle[None])[0] >= 0.5 - 1e-5).all()
    assert (cdf.gather(0, (middle - 1).clamp_min(0)[None])[0] < 0.5 + 1e-5)[middle > 0].all()
    joint = mixture.joint_log_prob(samples[:3])
    parts = mixture.components.site_log_prob(samples[:3].unsqueeze(-2)).sum(-1).double()
    assert torch.allclose(joint.double(), parts.logsumexp(-1) - math.log(60), rtol=1e-5)


def test_uncertain_sites_rank_lower_by_ratio():
    """Two kinds of sites of equal mean, of which one is uncertain: E[y / sum] prefers the certain
    ones, by enumeration of the components; the mean ranking cannot tell them apart."""
    torch.manual_seed(0)
    draws, sites = 400, 6
    rate = torch.full((draws, sites), 4.0, dtype=torch.float64)
    spread = torch.exp(1.2 * torch.randn(draws, 3, dtype=torch.float64) - 0.72)
    rate[:, 3:] *= spread / spread.mean(0)
    mixture = Mixture(torch.full((draws,), 1 / draws, dtype=torch.float64), Poisson(rate))
    assert torch.allclose(mixture.mean, torch.full((sites,), 4.0).double())
    ranking = tr.expected_ratio_ranking(mixture)
    # Poisson: E[y_s / Y] = (rate_s / total) (1 - exp(-total)), given the component.
    total = rate.sum(-1, keepdim=True)
    want = (rate / total * -torch.expm1(-total)).mean(0)
    assert torch.allclose(ranking, want, rtol=1e-8)
    assert ranking[:3].min() > 1.1 * ranking[3:].max()


def test_distributions_of_families():
    """Poisson and zero inflation draw from keys, and their draws have the right distribution."""
    poisson = Poisson(torch.tensor([0.0, 0.3, 4.0, 150.0]))
    y = poisson.sample(20000, key=torch.tensor([5, 6]))
    assert torch.equal(y, poisson.sample(20000, key=torch.tensor([5, 6])))
    assert (y[:, 0] == 0).all()
    for s, rate in ((1, 0.3), (2, 4.0), (3, 150.0)):
        counts = np.bincount(y[:, s].long().numpy())
        expected = 20000 * stats.poisson.pmf(np.arange(len(counts)), rate)
        keep = expected > 5
        statistic = ((counts - expected) ** 2 / expected)[keep].sum()
        assert statistic < stats.chi2.ppf(1 - 1e-5, keep.sum())
    value = torch.tensor([3.0, 2.0, 0.0, 140.0])
    want = stats.poisson.logpmf(value.numpy(), poisson.rate.numpy())
    assert np.allclose(poisson.log_prob(value).numpy(), want, rtol=1e-5)
    inflated = ZeroInflated(poisson, torch.tensor(0.4))
    zeros = (inflated.sample(20000, key=torch.tensor([5, 6])) == 0).float().mean(0)
    chance = inflated.log_prob(torch.zeros(4)).exp()
    assert ((zeros - chance).abs() < 5 * (chance * (1 - chance) / 20000).sqrt() + 1e-6).all()
    assert torch.allclose(
        tr.expected_ratio_ranking(inflated),
        tr.expected_ratio_ranking(
            ZeroInflated(torch.distributions.Poisson(poisson.rate), torch.tensor(0.4))
        ),
    )


# ---- training by steps, in every family ----------------------------------------------------------


@pytest.mark.parametrize("family", ["nb1", "nb2", "poisson"])
@pytest.mark.parametrize("zero_inflation", [False, True])
def test_every_family_trains_by_steps(family, zero_inflation):
    """The joint form with the Laplace penalty: W = (d mean/d eta)² / variance by autograd, and a
    DAML step with gradients in all parameters."""
    x, y, time = simulated(10, 12)
    exposure = torch.rand(y.shape).double() + 0.5
    model = NegBinMixedEffects(
        12, 2, family=family, zero_inflation=zero_inflation, link="softplus"
    ).double()
    with torch.no_grad():
        model.site_intercept.normal_()
    assert torch.allclose(
        NegBinMixedEffects(12, 2, family=family, zero_inflation=zero_inflation, initial_mean=3.0)(
            x.float() * 0, time.float()
        ).mean,
        torch.tensor(3.0),
    )
    counts = model(x, time, exposure)
    (slope,) = torch.autograd.grad(counts.mean.sum(), model.site_intercept, retain_graph=True)
    information = model._information(x, time, None, exposure)
    each = torch.stack(
        [
            torch.autograd.grad(counts.mean[t].sum(), model.site_intercept, retain_graph=True)[0]
            for t in range(TIMES)
        ]
    )
    assert torch.allclose(each.sum(0), slope)
    assert torch.allclose(information[:, 0], (each**2 / counts.variance).sum(0))
    objective = tr.objectives.DecisionAware(3, 0.1, 1.0)
    batch = tr.Batch(x, y, time)
    objective(model, batch).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


# ---- the edge ------------------------------------------------------------------------------------


def test_boundaries_are_reported():
    """No spread between sites and Poisson counts: Sigma and phi run to their boundaries, are held
    there, and the table says so."""
    x, y, time = simulated(14, 200, family="poisson", sigma=(0, 0), intercept=1.5)
    model = NegBinMixedEffects(200, 2).double().fit(x, y, time)
    assert model.fit_.converged
    assert model.fit_.held
    variance = model.variance_parameters()
    for row, name in (
        ("sd(intercept)", "raw_sigma[0]"),
        ("sd(slope)", "raw_sigma[1]"),
        ("phi", "raw_probs"),
    ):
        if name in model.fit_.held:
            assert "boundary" in model.fit_.held[name]
            assert variance.loc[row, "Estimate"] < 2e-4 and math.isnan(
                variance.loc[row, "Std. Error"]
            )
            assert name in str(model.summary())
        else:
            assert variance.loc[row, "Estimate"] < 0.25
    # The fixed effects are those of the plain regression, or nearly.
    plain = without_effects(200, 2, family="poisson").fit(x, y, time)
    assert np.allclose(
        model.coefficients()["Estimate"], plain.coefficients()["Estimate"], atol=0.02
    )
    assert model.predictive(x, time, 3).mean.isfinite().all()


def test_one_site_one_period_and_empty_sites():
    x, y, time = simulated(11, 80, 1)
    one = NegBinMixedEffects(80, 1).double().fit(x[:1], y[:1], time[:1] * 0)
    assert {"raw_sigma[1]", "raw_rho"} <= one.fit_.held.keys()
    assert "not identified by one period" in str(one.summary())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one site says nothing about the spread between sites
        single = NegBinMixedEffects(1, 1, family="poisson").double()
        single.fit(x[:, :1], y[:, :1] + 1, time)
    assert math.isfinite(single.fit_.log_likelihood)
    empty = y.clone()
    empty[:, :30] = 0
    model = NegBinMixedEffects(80, 1).double().fit(x, empty, time)
    assert model.fit_.converged and (model.site_intercept[:30] < 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(y=a["y"] * 0), "y must have a count above 0"),
        (lambda a: a.update(y=a["y"] - 1), "y must hold whole numbers"),
        (lambda a: a.update(y=a["y"][:2]), r"y must have shape \[T, S\] = \[6, 20\]"),
        (lambda a: a.update(x=a["x"][..., :1]), r"x must have shape \[T, S, P\]"),
        (lambda a: a.update(x=a["x"] / 0), "x must be finite"),
        (lambda a: a["x"][..., 1].fill_(3), "x must have no constant feature, got 'x1'"),
        (lambda a: a["x"][..., 1].copy_(2 * a["x"][..., 0]), "x must have no feature that depends"),
        (lambda a: a.update(time=a["time"][:2]), r"time must have shape \[6\]"),
        (lambda a: a.update(time=a["time"] + 2018), "time must be centred and scaled"),
        (lambda a: a.update(exposure=a["y"] * 0), "exposure must be positive"),
        (lambda a: a.update(weights=-torch.ones(6)), "weights must be finite and not negative"),
        (lambda a: a.update(weights=torch.ones(5)), r"weights must have shape"),
        (lambda a: a.update(y_upper=a["y"] - 1), "upper must hold whole numbers not below y"),
        (lambda a: a.update(feature_names=["a"]), "feature_names must have 2 entries"),
        (lambda a: a.update(site_ids=["a"]), "site_ids must have 20 entries"),
    ],
)
def test_fit_refuses(change, message):
    x, y, time = simulated(12, 20)
    arguments = {"x": x, "y": y, "time": time}
    change(arguments)
    with pytest.raises(ValueError, match=message):
        NegBinMixedEffects(20, 2).fit(**arguments)


def test_other_refusals():
    with pytest.raises(ValueError, match="family must be 'nb1', 'nb2' or 'poisson', got 'nb3'"):
        NegBinMixedEffects(3, 1, family="nb3")
    with pytest.raises(ValueError, match="zero_inflation must be True or False, got 1"):
        NegBinMixedEffects(3, 1, zero_inflation=1)
    model = NegBinMixedEffects(20, 2)
    for method in ("summary", "coefficients", "variance_parameters", "random_effects"):
        with pytest.raises(ValueError, match=f"{method}: the model must have been fitted"):
            getattr(model, method)()
    x, y, time = simulated(13, 20)
    with pytest.raises(ValueError, match=r"exposure must have shape \[6, 20\]"):
        model(x.float(), time.float(), torch.ones(6))
    with pytest.warns(RuntimeWarning, match="did not converge: stopped after 2 iterations"):
        model.fit(x.float(), y.float(), time.float(), max_iterations=2)
    assert "NOT CONVERGED" in model.summary()
    with pytest.raises(ValueError, match="must have converged"):
        model.predictive(x.float(), time.float())
    model.fit(x.float(), y.float(), time.float())
    with pytest.raises(ValueError, match="num_draws must be a whole number >= 1, got 0"):
        model.predictive(x.float(), time.float(), 0)
    with pytest.raises(ValueError, match=r"x must have shape \[T, 20, 2\]"):
        model.predictive(x[:, :5].float(), time.float())
    with pytest.raises(ValueError, match="exposure must be given as in the fit"):
        model.predictive(x.float(), time.float(), exposure=y.float() + 1)
    with pytest.raises(ValueError, match="level must be above 0 and below 1, got 95"):
        model.coefficients(level=95)
    again = copy.deepcopy(model)
    pd.testing.assert_frame_equal(again.coefficients(), model.coefficients())
    base = NegativeBinomial(torch.ones(3, 4), torch.tensor(0.0))
    with pytest.raises(ValueError, match=r"weights must have shape \[..., L\] = \[3\]"):
        Mixture(torch.ones(4) / 4, base)
    with pytest.raises(ValueError, match="weights must be >= 0 and sum to 1"):
        Mixture(torch.ones(3), base)
    with pytest.raises(ValueError, match="probability must be above 0 and below 1"):
        Mixture(torch.ones(3) / 3, base).quantile(1.0)


# ---- quadrature, slopes beyond the fit, files, large counts --------------------------------------


def test_fit_by_quadrature():
    """It ends where the gradient of the quadrature's likelihood is zero; it lowers the bias of
    Laplace's estimates of sparse counts; the summary says so; a path refuses it."""
    x, y, time = simulated(21, 150, 1, family="poisson", intercept=-0.8, sigma=(1.0, 0.4))
    model = NegBinMixedEffects(150, 1, family="poisson").double().fit(x, y, time, quadrature=9)
    value = model.log_marginal(x, y, time, quadrature=9).sum()
    assert value.item() == pytest.approx(model.fit_.log_likelihood, abs=1e-8)
    shared = [p for n, p in model.named_parameters() if not n.startswith("site")]
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(value, shared)])
    assert (gradient @ model.fit_.covariance @ gradient).item() < 1e-8
    many = model.log_marginal(x, y, time, quadrature=25).sum().item()
    laplace = model.log_marginal(x, y, time).sum().item()
    assert abs(value.item() - many) < 0.01 < abs(laplace - many)
    assert "quadrature, 9 nodes in each effect" in str(model.summary())
    path = NegBinMixedEffects(150, 1, family="poisson", site_path="ar1").double()
    with pytest.raises(ValueError, match="quadrature must be 1 with a path, got 3"):
        path.fit(x, y, time, quadrature=3)


@pytest.mark.parametrize("damping", [0.0, 0.5, 1.0])
def test_slopes_are_damped_beyond_the_fitted_times(damping):
    """Gardner and McKenzie (1985): d + ... + d^h periods of slope after h periods, by a loop;
    within the fitted times nothing changes, and d = 1 is "linear"."""
    x, y, time = simulated(22, 30, 1)
    model = NegBinMixedEffects(30, 1, slope_damping=damping).double().fit(x, y, time)
    linear = NegBinMixedEffects(30, 1, site_slopes="linear").double().fit(x, y, time)
    assert torch.equal(model(x, time).mean, linear(x, time).mean)
    gap = (time[1] - time[0]).item()
    for h in (1, 2, 5):
        stretched = time[-1] + gap * sum(damping**i for i in range(1, h + 1))
        got = model(x[:1], time[-1:] + h * gap).mean
        assert torch.allclose(got, linear(x[:1], stretched[None]).mean, rtol=1e-9)
    again = NegBinMixedEffects(**model.config).double()
    again.load_state_dict(model.state_dict())
    later = time[-1:] + 3 * gap
    assert torch.equal(again(x[:1], later).mean, model(x[:1], later).mean)
    drawn = model.predictive(x[:1], time[-1:] + gap, 300)
    assert (drawn.mean.log() - model(x[:1], time[-1:] + gap).mean.log()).abs().median() < 0.2


def test_a_model_without_slopes():
    """It is the intercept model: the fit at one time for all, whose slopes are not identified."""
    x, y, time = simulated(23, 60, 1, family="poisson")
    model = NegBinMixedEffects(60, 1, family="poisson", site_slopes="none").double()
    model.fit(x, y, time)
    same = NegBinMixedEffects(60, 1, family="poisson").double().fit(x, y, time * 0)
    assert model.fit_.log_likelihood == pytest.approx(same.fit_.log_likelihood, abs=1e-4)
    assert (model.site_slope == 0).all() and model.fit_.converged
    assert "sd(slope)" not in model.variance_parameters().index
    assert "time" not in str(model.summary())
    assert torch.equal(model(x[:1], time[:1]).mean, model(x[:1], time[-1:] + 9).mean)
    for options in ({"site_slopes": "curved"}, {"slope_damping": 1.5}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
            NegBinMixedEffects(3, 1, **options)


def test_a_forecast_is_compared_with_the_past():
    x, y, time = simulated(24, 50, 1)
    model = NegBinMixedEffects(50, 1).double().fit(x, y, time)
    totals = y.sum(1)
    check = model.check_forecast(x[-1:], time[-1:])
    assert check.expected[0] == pytest.approx(model(x[-1:], time[-1:]).mean.sum().item())
    assert (check.least, check.most) == ([totals.min().item()], [totals.max().item()])
    with torch.no_grad():
        model.intercept += 3
    assert model.check_forecast(x, time).outside == [True] * TIMES
    exposure = torch.rand(y.shape, dtype=torch.float64) + 0.5
    model.fit(x, y, time, exposure=exposure)
    doubled = model.check_forecast(x[-1:], time[-1:], 2 * exposure[-1:])
    rate = totals / exposure.sum(1)
    assert doubled.most[0] == pytest.approx((rate.max() * 2 * exposure[-1].sum()).item())
    with pytest.raises(ValueError, match="exposure must be given as in the fit, got None"):
        model.check_forecast(x, time)


def test_a_fit_is_kept_in_plain_values():
    """By way of JSON: the same summary and tables from a model that was never fitted."""
    x, y, time = simulated(25, 60, zero=0.2)
    model = NegBinMixedEffects(60, 2, zero_inflation=True).double()
    assert model.fit_state() is None
    model.fit(x, y, time, feature_names=["poverty", "age"])
    state = json.loads(json.dumps(model.fit_state()))
    again = NegBinMixedEffects(**model.config).double()
    again.load_state_dict(model.state_dict())
    again.set_fit_state(state)
    assert str(again.summary()) == str(model.summary()) and "poverty" in again.summary()
    pd.testing.assert_frame_equal(again.variance_parameters(), model.variance_parameters())
    assert again.fit_.aic == model.fit_.aic
    assert again.check_forecast(x, time) == model.check_forecast(x, time)
    for method in (again.random_effects, lambda: again.predictive(x, time)):
        with pytest.raises(ValueError, match="the counts of the fit must be at hand"):
            method()
    with pytest.raises(ValueError, match="names must be those of the model's parameters"):
        NegBinMixedEffects(60, 2).set_fit_state(state)


def test_dependent_features_are_named():
    x, y, time = simulated(26, 40, 2)
    x = torch.cat((x, x.sum(-1, keepdim=True)), -1)
    with pytest.raises(ValueError) as error:
        NegBinMixedEffects(40, 3).fit(x, y, time, feature_names=["white", "black", "both"])
    assert all(repr(name) in str(error.value) for name in ("white", "black", "both"))


def test_sites_that_are_not_open_yet():
    """Cells of weight 0 and NaN, the first periods of some sites: the fit to those cells alone does
    not read them."""
    x, y, time = simulated(27, 60, 1)
    weights = torch.ones_like(y)
    weights[:3, :20] = 0
    spoiled = torch.where(weights > 0, y, math.nan)
    other = torch.where(weights > 0, y, 7.0)
    a, b = (
        NegBinMixedEffects(60, 1).double().fit(x, given, time, weights=weights)
        for given in (spoiled, other)
    )
    assert a.fit_.log_likelihood == b.fit_.log_likelihood
    assert a.fit_.num_observations == 60 * TIMES - 60
    assert all(math.isfinite(total) for total in a.fit_.past_totals)


def test_parameters_are_float32_whatever_the_default():
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        model = NegBinMixedEffects(12, 1, site_path="ar1")
        assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
        x, y, time = simulated(28, 12, 1)
        model = NegBinMixedEffects(12, 1).fit(x.float(), y.float(), time.float())
        assert model(x.float(), time.float()).mean.dtype == torch.float32
        assert model.predictive(x.float(), time.float(), 5).mean.isfinite().all()
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("link", ["log", "softplus"])
@pytest.mark.parametrize("mean", [0.1, 1e2, 1e4, 1e6])
def test_counts_of_any_size_recover_the_truth(link, mean):
    """Poisson counts of sites with different rates: the sites' totals are met within five standard
    errors, and the spread of the rates within its own for 80 sites (sd / sqrt 160)."""
    rng = np.random.default_rng(29)
    spread = 0.4
    factor = 1 + spread * np.clip(rng.normal(size=80), -2, 2)
    rate = mean * (factor if link == "softplus" else np.exp(factor - 1))
    y = torch.from_numpy(rng.poisson(rate, (TIMES, 80))).double()
    x, time = torch.zeros(TIMES, 80, 0).double(), torch.linspace(-1.5, 1.5, TIMES).double()
    model = (
        NegBinMixedEffects(80, 0, family="poisson", link=link, site_slopes="none")
        .double()
        .fit(x, y, time)
    )
    assert model.fit_.converged
    got = model(x, time).mean.detach().sum(0).numpy()
    total = y.sum(0).numpy()
    assert abs(got.sum() - total.sum()) < 5 * math.sqrt(total.sum())
    if mean >= 1e2:  # the prior's pull is within the noise of the counts
        assert (np.abs(got - total) < 5 * np.sqrt(total) + 1).all()
        sd = model.variance_parameters().loc["sd(intercept)", "Estimate"]
        unit = mean if link == "softplus" else 1.0
        assert sd / unit == pytest.approx(np.std(factor), rel=5 / math.sqrt(160))
