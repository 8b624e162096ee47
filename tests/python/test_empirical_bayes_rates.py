"""EmpiricalBayesRates against its definition in NumPy and SciPy, on simulated sites and in
rankers."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import topreach as tr
from topreach.data.panel import Panel
from topreach.models import EmpiricalBayesRates
from topreach.models.site_history import SiteHistory

rng = np.random.default_rng(1)


def simulated(sites=400, periods=8, seed=0, place=True):
    """Gamma rates that stay; half of the log rate is a smooth field over a square."""
    r = np.random.default_rng(seed)
    xy = r.uniform(0, 1, (sites, 2))
    field = 0.8 * np.sin(5 * xy[:, 0]) * np.cos(5 * xy[:, 1])
    rate = np.exp(field) * r.gamma(2.0, 0.5, sites)
    y = r.poisson(rate, (periods, sites))
    x = np.broadcast_to(xy, (periods, sites, 2)).copy()
    names = ["lat", "lon"] if place else ["a", "b"]
    ids = [str(i) for i in range(sites)]
    return Panel(x, y, ids, list(range(periods)), names), rate


def from_counts(y):
    """A panel that has only counts [T, S]."""
    periods, sites = y.shape
    ids = [str(i) for i in range(sites)]
    return Panel(np.zeros((periods, sites, 0)), y, ids, list(range(periods)), [])


def test_mean_is_the_posterior_mean_under_the_prior():
    """Bayes' rule with SciPy's Poisson probabilities; whole counts and no decay."""
    support = [0.2, 1.0, 5.0]
    model = EmpiricalBayesRates([math.inf], num_features=1, support=support)
    w = np.array([0.5, 0.3, 0.2])
    beta, phi = 0.4, 0.7
    with torch.no_grad():
        model.prior.copy_(torch.from_numpy(np.log(w))[None])
        model.weight.fill_(beta)
        model.raw_dispersion.fill_(math.log(phi))
    a, expected, rate = rng.poisson(3, 6), rng.uniform(1, 4, 6), rng.uniform(0.1, 2, 6)
    feature = rng.normal(size=6)
    x = torch.tensor(np.stack([a, expected, rate, feature], 1)[None])
    counts = model.double()(x)
    z = np.exp(beta * (feature - feature.mean()))
    likelihood = stats.poisson.pmf(a[:, None], (expected * z)[:, None] * np.array(support))
    posterior = w * likelihood / (likelihood @ w)[:, None]
    np.testing.assert_allclose(
        counts.mean[0].detach().numpy(), z * rate * (posterior @ support), rtol=1e-6
    )
    torch.testing.assert_close(counts.variance, (1 + phi) * counts.mean)


def test_correction_by_its_definition():
    """Three memories in NumPy: log-linear terms added, the sum of the forecasts as it was."""
    support = [0.3, 1.0, 3.0]
    model = EmpiricalBayesRates([1.0, 4.0, math.inf], support=support).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(0, 0.3, parameter.shape)))
    a, expected = rng.uniform(0, 6, (7, 3)), rng.uniform(0.5, 4, (7, 3))
    rate = rng.uniform(0.1, 2, (7, 3))
    x = torch.from_numpy(np.concatenate([a, expected, rate], 1)[None])
    w = np.exp(model.prior.detach().numpy())
    u = np.array(support)
    likelihood = w * np.exp(a[..., None] * np.log(u) - expected[..., None] * u)
    shrunken = rate * (likelihood @ u) / likelihood.sum(-1)
    share = np.exp(model.memory.detach().numpy())
    base = shrunken @ (share / share.sum())
    own = rate * (a + 0.5) / (expected + 0.5)
    apart = np.log(np.concatenate([shrunken, rate, own], 1)) - np.log(base)[:, None]
    terms = np.column_stack([apart, np.log(base) - np.log(base).mean()])
    mean = base * np.exp(terms @ model.correction.detach().numpy())
    mean *= base.sum() / mean.sum()
    np.testing.assert_allclose(model(x).mean[0].detach().numpy(), mean, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "window"),
    [("wander", 1), ("wander", None), ("drift", 3), ("drift", None), ("stay", 1)],
)
def test_not_below_means_of_past_counts_whatever_the_dynamics(name, window):
    """Rates that wander, drift or stay, ten periods ahead one by one: BPR at least that of a mean
    of the last counts, but for chance (three standard errors of the paired difference)."""
    r = np.random.default_rng(11)
    periods, sites, k = 24, 300, 30
    log_rate = np.log(2 * r.gamma(0.7, 1 / 0.7, sites) + 0.05)
    time = np.arange(periods)[:, None]
    moves = {
        "wander": np.cumsum(r.normal(0, 0.35, (periods, sites)), 0),
        "drift": r.normal(0, 0.12, sites) * (time - 12),
        "stay": np.zeros((periods, sites)),
    }
    y = r.poisson(np.exp(log_rate + moves[name]))
    panel = from_counts(y)
    ours, means = [], []
    for t in range(14, 24):
        train, _, test = panel.split(test=[t])
        ranker = tr.TopKRanker(k, progress=False).fit(train)
        test = test.select_times([t])
        ours.append(ranker.score(test))
        means.append(float(tr.metrics.bpr(tr.baselines.historical_mean(test, window), test.y, k)))
    difference = np.array(ours) - means
    error = difference.std(ddof=1) / math.sqrt(len(difference))
    assert difference.mean() > -3 * error
    if (name, window) in (("wander", None), ("drift", None), ("stay", 1)):  # the wrong memory
        assert difference.mean() > 3 * error


def test_memory_is_learnt():
    """For rates that wander the last count counts most; for rates that stay, the whole past."""
    r = np.random.default_rng(5)
    sites, periods = 400, 20
    start = r.normal(1.5, 0.7, sites)
    wander = np.exp(start + np.cumsum(r.normal(0, 0.5, (periods, sites)), 0))
    stay = np.broadcast_to(np.exp(start), (periods, sites))
    long_memory = []
    for rate in (wander, stay):
        model = tr.TopKRanker(40, progress=False).fit(from_counts(r.poisson(rate))).model_
        long_memory.append(model.memory.softmax(0)[-2:].sum().item())
    assert long_memory[0] < 0.2 and long_memory[1] > 0.7


def test_gradients_by_finite_differences():
    model = EmpiricalBayesRates([2.0, math.inf], num_features=1, support=[0.1, 1.0, 4.0]).double()
    x = torch.from_numpy(rng.uniform(0.5, 3, (2, 5, 7)))

    def mean(*parameters):
        names = [name for name, _ in model.named_parameters()]
        return torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), x).mean

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.tensor(rng.normal(size=parameter.shape) * 0.3))
    assert torch.autograd.gradcheck(mean, tuple(model.parameters()))


def test_posterior_risk_by_its_definition():
    """Bayes' rule in NumPy, for huge and tiny counts alike; float32 to its rounding."""
    support = np.array([0.01, 0.3, 1.0, 4.0, 30.0])
    log_w = rng.normal(size=(2, 5))
    counts, expected = rng.gamma(0.5, 4, (3, 13, 2)), rng.gamma(1.0, 3, (3, 13, 2))
    counts[0, 0], expected[0, 0] = 0.0, 0.0
    counts[0, 1], expected[0, 1] = 5e4, 1e4
    logits = log_w + counts[..., None] * np.log(support) - expected[..., None] * support
    p = np.exp(logits - logits.max(-1, keepdims=True))
    risk = (p @ support) / p.sum(-1)
    inputs = [torch.from_numpy(a) for a in (counts, expected, log_w, support)]
    found = torch.ops.topreach.posterior_risk(*inputs)
    np.testing.assert_allclose(found.numpy(), risk, rtol=1e-12)
    inputs[:2] = [a.float() for a in inputs[:2]]
    single = torch.ops.topreach.posterior_risk(*inputs)
    # Counts and expected are rounded to 6e-8, and logits up to 1e6 with them: for these only.
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy()[1:], risk[1:], rtol=2e-5)


def test_posterior_risk_gradients():
    support = torch.tensor([0.1, 0.7, 2.0, 9.0], dtype=torch.float64)

    def variables(*shape):
        return torch.from_numpy(rng.uniform(0.2, 4, shape)).requires_grad_()

    arguments = (variables(11, 3), variables(11, 3), variables(3, 4), support)
    op = torch.ops.topreach.posterior_risk
    assert torch.autograd.gradcheck(op, arguments)
    torch.library.opcheck(op.default, arguments)
    with pytest.raises(ValueError, match="expected must have the shape of counts"):
        op(torch.ones(3, 2), torch.ones(2, 2), torch.ones(2, 4), support)
    with pytest.raises(ValueError, match=r"prior must have shape \[H, G\] with H = 2"):
        op(torch.ones(3, 2), torch.ones(3, 2), torch.ones(3, 4), support)


def test_discrete_prior_is_em():
    """The EM step in NumPy, a hundred times; the same bits for any number of threads."""
    sites, steps = 3001, 100
    u = np.array([0.05, 0.4, 1.0, 2.5, 8.0])
    counts = rng.poisson(rng.gamma(0.8, 2.0, (sites, 2))).astype(float)
    expected = rng.uniform(0.2, 3, (sites, 2))
    tensors = [torch.from_numpy(a) for a in (counts, expected, u)]
    found = torch.ops.topreach.discrete_prior(*tensors, steps)
    for h in range(2):
        likelihood = stats.poisson.pmf(counts[:, h, None], expected[:, h, None] * u)
        w = np.full(5, 0.2)
        for _ in range(steps):
            w = w * (likelihood / (likelihood @ w)[:, None]).mean(0)
        w = (1 - 1e-6) * w + 1e-6 / 5
        np.testing.assert_allclose(found[h].exp().numpy(), w, rtol=1e-9)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(torch.ops.topreach.discrete_prior(*tensors, steps), found)
        torch.set_num_threads(1)
        assert torch.equal(torch.ops.topreach.discrete_prior(*tensors, steps), found)
    finally:
        torch.set_num_threads(threads)


def test_mean_by_autograd_of_a_plain_formula():
    """The whole forward pass and its gradients against a softmax in ATen, features included."""
    support = [0.1, 0.5, 1.0, 3.0]
    model = EmpiricalBayesRates([2.0, math.inf], num_features=2, support=support).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.tensor(rng.normal(size=parameter.shape) * 0.3))
    x = torch.from_numpy(rng.uniform(0.1, 4, (3, 9, 8)))
    upstream = torch.from_numpy(rng.normal(size=(3, 9)))
    a, expected, rate, features = x.split([2, 2, 2, 2], -1)
    z = ((features - features.mean(-2, keepdim=True)) @ model.weight).exp()[..., None]
    u = torch.tensor(support, dtype=torch.float64)
    p = (model.prior + a[..., None] * u.log() - (expected * z)[..., None] * u).softmax(-1)
    shrunken, near = rate * z * (p @ u), rate * z
    base = (shrunken @ model.memory.softmax(0)).log()
    own = near * (a + 0.5) / (expected * z + 0.5)
    terms = torch.cat([shrunken, near, own], -1).log() - base[..., None]
    terms = torch.cat([terms, (base - base.mean(-1, keepdim=True))[..., None]], -1)
    mean = (base + terms @ model.correction).exp()
    mean = mean * base.exp().sum(-1, keepdim=True) / mean.sum(-1, keepdim=True)
    parameters = [q for name, q in model.named_parameters() if name != "raw_dispersion"]
    expected_grads = torch.autograd.grad((mean * upstream).sum(), parameters)
    found = model(x).mean
    torch.testing.assert_close(found, mean, rtol=1e-12, atol=0)
    for ours, theirs in zip(
        torch.autograd.grad((found * upstream).sum(), parameters), expected_grads, strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def fitted_to(y, x=None, weights=None):
    """A model of three memories on counts [T, S] with random statistics [T, S, 9]."""
    r = np.random.default_rng(8)
    periods, sites = y.shape
    if x is None:
        x = torch.from_numpy(r.uniform(0.2, 3, (periods, sites, 9)))
    return EmpiricalBayesRates([1.0, 4.0, math.inf]).fit(x, y, weights), x


def test_weights_of_periods():
    """Weight 0 leaves a period out; weight 2 counts it twice; equal weights change nothing."""
    y = torch.from_numpy(rng.poisson(1.5, (6, 80)).astype(float))
    plain, x = fitted_to(y)
    same, _ = fitted_to(y, x, torch.ones(6))
    weighted, _ = fitted_to(y, x, torch.tensor([0.0, 1, 2, 0, 1, 1]))
    rows = [1, 2, 2, 4, 5]
    repeated, _ = fitted_to(y[rows], x[rows])
    for (name, a), b, c, d in zip(
        plain.named_parameters(),
        same.parameters(),
        weighted.parameters(),
        repeated.parameters(),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(c, d, rtol=2e-3, atol=2e-4)
        assert name in ("prior", "weight") or not torch.equal(a, c)
    for bad, message in (
        (torch.ones(5), r"weights must have shape \[T\] = \[6\]"),
        (torch.tensor([1.0, 1, 1, 1, 1, -1]), "weights must be finite and >= 0, got -1"),
        (torch.zeros(6), "weights must be above 0 for a period with counts"),
    ):
        with pytest.raises(ValueError, match=message):
            fitted_to(y, x, bad)


def test_unknown_counts_take_no_part():
    """Periods and single cells; the fit is the best for the counts that are known."""
    y = torch.from_numpy(rng.poisson(1.5, (6, 80)).astype(float))
    y[:, 79] = 1.0
    whole, x = fitted_to(y)
    y[2] = torch.nan  # a period
    without, _ = fitted_to(y, x)
    rows = [0, 1, 3, 4, 5]
    dropped, _ = fitted_to(y[rows], x[rows])
    for a, b in zip(without.parameters(), dropped.parameters(), strict=True):
        assert torch.equal(a, b)
    y = torch.from_numpy(rng.poisson(1.5, (6, 80)).astype(float))
    y[1, 3] = y[4, 70:] = torch.nan
    found = fitted_to(y, x)[0]
    assert all(torch.isfinite(parameter).all() for parameter in found.parameters())
    # Were the unknown counts taken as zero, the fit would be another.
    zeros = fitted_to(y.nan_to_num(), x)[0]
    assert not torch.allclose(found.memory, zeros.memory, rtol=1e-4)
    # As likely as can be: no step along a parameter raises the likelihood of the known counts.
    model = found.double()

    def objective():
        log_prob = model(x).log_prob(y.nan_to_num())[~torch.isnan(y)]
        return -log_prob.sum() + model.penalty() + (model.raw_dispersion + 1).square() / 8

    best = objective().item()
    with torch.no_grad():
        for i in range(len(model.correction)):
            for step in (-0.01, 0.01):
                model.correction[i] += step
                assert objective().item() > best - 1e-4
                model.correction[i] -= step


def test_statistics_of_the_last_periods_suffice():
    """fit reads no more of them than periods_used says."""
    y = torch.from_numpy(rng.poisson(1.5, (9, 30000)).astype(float))
    used = EmpiricalBayesRates.periods_used(30000)
    assert used == 6
    whole, x = fitted_to(y)
    part, _ = fitted_to(y[-used:], x[-used:])
    for a, b in zip(whole.parameters(), part.parameters(), strict=True):
        assert torch.equal(a, b)


def test_float64_as_the_default_type():
    y = torch.from_numpy(rng.poisson(1.5, (4, 50)).astype(float))
    single, x = fitted_to(y)
    torch.set_default_dtype(torch.float64)
    try:
        double, _ = fitted_to(y, x)
    finally:
        torch.set_default_dtype(torch.float32)
    for a, b in zip(single.parameters(), double.parameters(), strict=True):
        assert b.dtype == torch.float32 and torch.equal(a, b)


def test_prior_is_found():
    """Half of the sites at risk 0.5, half at 1.5, a hundred events expected: mass is at the two."""
    sites = 4000
    risk = np.repeat([0.5, 1.5], sites // 2)
    a = torch.from_numpy(rng.poisson(100 * risk)).float()
    x = torch.stack([a, torch.full((sites,), 100.0), torch.ones(sites)], -1)[None]
    y = torch.from_numpy(rng.poisson(risk)).float()[None]
    model = EmpiricalBayesRates([math.inf], support=[0.25, 0.5, 1.0, 1.5, 2.0]).fit(x, y)
    w = model.prior.softmax(-1)[0].detach().numpy()
    # A share of 1/2 of 4000 sites has a standard error of .008.
    np.testing.assert_allclose(w, [0, 0.5, 0, 0.5, 0], atol=4 * 0.008)
    # Counts given their risk are Poisson: next to no dispersion is left.
    assert model.raw_dispersion.exp() < 0.1


def test_em_does_not_lose_to_a_gamma_prior():
    """The NPMLE's marginal likelihood is at least that of a gamma prior, up to the grid and EM."""
    sites = 2000
    rate = rng.gamma(1.5, 1 / 1.5, sites)
    a = rng.poisson(4 * rate)
    x = torch.tensor(np.stack([a, np.full(sites, 4.0), np.ones(sites)], 1)[None]).float()
    model = EmpiricalBayesRates([math.inf]).fit(x, torch.ones(1, sites))
    u = np.array(model.config["support"])
    w = model.prior.softmax(-1)[0].detach().numpy()
    ours = np.log(stats.poisson.pmf(a[:, None], 4 * u) @ w).mean()
    gamma = stats.nbinom.logpmf(a, 1.5, 1.5 / 5.5).mean()
    assert ours > gamma - 0.002


def test_shrunken_rates_are_nearer_to_the_truth_than_means():
    panel, rate = simulated()
    train, _, test = panel.split(test=[7])
    ranker = tr.TopKRanker(40, progress=False).fit(train)
    ours = ((ranker.predict(test)[0] - rate) ** 2).mean()
    mean = ((train.y.mean(0).numpy() - rate) ** 2).mean()
    assert ours < mean
    # With neighbours it does better than without.
    alone = tr.TopKRanker(40, site_history=SiteHistory(coordinates=None)).fit(train)
    assert ours < ((alone.predict(test)[0] - rate) ** 2).mean()


def test_features_that_tell_are_used():
    panel, rate = simulated(place=False)
    noise = panel.x[..., :1]
    telling = torch.from_numpy(np.log(rate)).float().expand(8, -1)[..., None]
    wide = panel.with_features(torch.cat([noise, telling], -1), ["noise", "telling"])
    train, _, test = wide.split(test=[7])
    ranker = tr.TopKRanker(40).fit(train)
    noise_weight, weight = ranker.model_.weight.tolist()
    # The coefficient of a standardised log rate is its sd, about 0.85, less the shrinkage.
    assert weight > 0.4 and abs(noise_weight) < 0.1


def test_validation_periods_are_learnt_from_too():
    panel, _ = simulated(periods=10)
    train, valid, test = panel.split(valid=[7, 8], test=[9])
    both = tr.TopKRanker(40).fit(train, valid)
    whole = tr.TopKRanker(40).fit(panel.select_times(list(range(9))))
    assert both.trainer_ is None and both.history_ is None and not both.interrupted_
    # The features' scale is that of the training panel, so the two agree but for that.
    np.testing.assert_allclose(both.predict(test), whole.predict(test), rtol=0.01)


@pytest.mark.parametrize("objective", ["nll", "daml", "bpr"])
def test_objectives_go_on_from_it(objective):
    panel, _ = simulated(sites=60)
    train, valid, _ = panel.split(valid=[6], test=[7])
    ranker = tr.TopKRanker(
        6,
        objective=objective,
        max_epochs=4,
        warm_start_epochs=4,
        validate_every=2,
        progress=False,
        site_history=SiteHistory((4.0, math.inf)),
    ).fit(train, valid)
    assert ranker.trainer_ is not None and ranker.ranking_ == "exact"
    assert np.isfinite(ranker.history_["loss"]).all()


def test_save_and_load(tmp_path):
    panel, _ = simulated(sites=50)
    train, valid, test = panel.split(valid=[6], test=[7])
    ranker = tr.TopKRanker(5).fit(train, valid)
    ranker.save(tmp_path / "model.pt")
    again = tr.TopKRanker.load(tmp_path / "model.pt")
    assert again.model == "empirical_bayes" and again.rank(test).equals(ranker.rank(test))
    # The file knows the past: next year's table may have no counts at all.
    later = Panel(test.x, test.y, test.site_ids, test.times, test.feature_names)
    assert later.history_y is None
    valid_too = tr.TopKRanker(5).fit(panel.select_times(list(range(7))))
    np.testing.assert_array_equal(valid_too.predict(later), valid_too.predict(test))


def test_predict_median():
    panel, _ = simulated(sites=50)
    train, _, test = panel.split(test=[7])
    ranker = tr.TopKRanker(5).fit(train)
    mean, median = ranker.predict(test)[0], ranker.predict(test, kind="median")[0]
    phi = ranker.model_.raw_dispersion.exp().item()
    np.testing.assert_array_equal(median, stats.nbinom.ppf(0.5, mean / phi, 1 / (1 + phi)))
    counts = ranker.predict_distribution(test)
    np.testing.assert_array_equal(counts.mean[0].detach().numpy(), mean)
    exact = stats.nbinom.logpmf(test.y[0].numpy(), mean / phi, 1 / (1 + phi))
    np.testing.assert_allclose(counts.site_log_prob(test.y)[0].detach().numpy(), exact, rtol=1e-4)
    with pytest.raises(ValueError, match="kind must be 'mean' or 'median'"):
        ranker.predict(test, kind="mode")


@pytest.mark.parametrize("probability", [0.01, 0.5, 0.9, 0.999])
def test_quantiles_equal_scipys(probability):
    n = torch.tensor([0.01, 0.3, 2.0, 40.0], dtype=torch.float64)
    z = torch.tensor(0.8, dtype=torch.float64)
    found = tr.count_quantile(tr.distributions.NegativeBinomial(n, z), probability)
    p = 1 - z.sigmoid().item()
    np.testing.assert_array_equal(found.numpy(), stats.nbinom.ppf(probability, n.numpy(), p))
    with pytest.raises(ValueError, match="probability must be above 0 and below 1"):
        tr.count_quantile(tr.distributions.NegativeBinomial(n, z), 1.0)


def test_smallest_panels():
    for sites, periods in ((1, 1), (2, 1), (3, 2)):
        y = rng.poisson(2.0, (periods, sites))
        panel = Panel(
            np.zeros((periods, sites, 0)), y, [str(i) for i in range(sites)], range(periods), []
        )
        assert np.isfinite(tr.TopKRanker(1).fit(panel).predict(panel)).all()
    nothing = Panel(np.zeros((3, 4, 0)), np.zeros((3, 4)), list("abcd"), range(3), [])
    assert np.isfinite(tr.TopKRanker(1).fit(nothing).predict(nothing)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "half_lives must be numbers > 0"),
        (([1.0], -1), "num_features must be a whole number >= 0"),
        (([1.0], 0, [1.0]), "support must be at least two numbers"),
        (([1.0], 0, [2.0, 1.0]), "support must be at least two numbers"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        EmpiricalBayesRates(*arguments)


def test_more_errors():
    model = EmpiricalBayesRates([1.0])
    with pytest.raises(ValueError, match="x must have 3 columns"):
        model(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="x must have shape"):
        model.fit(torch.zeros(2, 3, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="y must have counts"):
        model.fit(torch.zeros(1, 3, 3), torch.full((1, 3), torch.nan))
    panel, _ = simulated(sites=10, periods=2)
    with pytest.raises(TypeError, match="site_history must be a SiteHistory"):
        tr.TopKRanker(2, site_history=3).fit(panel)
