"""Mixtures in which each site has its own weights [D25 Eq. 14, 17], against SciPy's truncated
normal and Poisson, quadrature of the ratio, and enumeration."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import distributions as td
from torch.nn.functional import softplus

import topreach as tr
from topreach.data.panel import Batch, Panel
from topreach.distributions import SiteMixture, TruncatedNormal
from topreach.models import NormalMixture, PoissonMixture
from topreach.objectives import NLL, DecisionAware, DirectBPR, SPOPlus

EPS = torch.finfo(torch.float64).eps
WEIGHTS = torch.tensor([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]], dtype=torch.float64)
LOC, SCALE, RATE = ([1.0, 6.0], [2.0, 0.5], [0.7, 4.0])


def tensor(values, requires_grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=requires_grad)


def normal_mixture(weights=WEIGHTS, loc=LOC, scale=SCALE):
    return SiteMixture(weights.log(), TruncatedNormal(tensor(loc), tensor(scale)))


def poisson_mixture(weights=WEIGHTS, rate=RATE):
    return SiteMixture(weights.log(), td.Poisson(tensor(rate)))


def scipy_normals(loc=LOC, scale=SCALE):
    pairs = zip(loc, scale, strict=True)
    return [stats.truncnorm(-m / s, np.inf, loc=m, scale=s) for m, s in pairs]


# ---- density, moments, draws ---------------------------------------------------------------------


def test_normal_density_is_scipys_and_right_in_the_tails():
    """Eq. 17, from 0 to where the density is e^−10⁶ and below what a float holds."""
    y = tensor([0.0, 0.3, 1.0, 5.9, 6.2, 30.0, 1e3])
    got = normal_mixture().log_prob(y[:, None].expand(-1, 3))
    parts = np.stack([c.logpdf(y.numpy()) for c in scipy_normals()], -1)
    for s in range(3):
        expected = np.logaddexp.reduce(parts + WEIGHTS[s].log().numpy(), axis=-1)
        np.testing.assert_allclose(got[:, s].numpy(), expected, rtol=1e-12)
    for dtype in (torch.float32, torch.float64):
        loc = torch.tensor([10.0, 0.01], dtype=dtype, requires_grad=True)
        scale = torch.tensor([0.2, 0.2], dtype=dtype, requires_grad=True)
        logits = torch.tensor([[30.0, -30.0]], dtype=dtype, requires_grad=True)
        far = SiteMixture(logits, TruncatedNormal(loc, scale)).log_prob(
            torch.tensor([[0.0], [100.0], [1e5]], dtype=dtype)
        )
        assert torch.isfinite(far).all()
        for gradient in torch.autograd.grad(far.sum(), (loc, scale, logits)):
            assert torch.isfinite(gradient).all()
    assert (normal_mixture().log_prob(tensor([-1.0, -0.1, 2.0]))[:2] == -math.inf).all()


def test_poisson_probabilities_are_scipys():
    y = torch.arange(12.0).double()
    got = poisson_mixture().log_prob(y[:, None].expand(-1, 3))
    parts = np.stack([stats.poisson(rate).pmf(y.numpy()) for rate in RATE], -1)
    expected = np.log(parts @ WEIGHTS.numpy().T)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)


def test_moments_are_scipys():
    for mixture, parts in (
        (normal_mixture(), scipy_normals()),
        (normal_mixture(loc=[0.0, 0.01], scale=[3.0, 0.2]), scipy_normals([0.0, 0.01], [3.0, 0.2])),
        (poisson_mixture(), [stats.poisson(rate) for rate in RATE]),
    ):
        means = tensor([part.mean() for part in parts])
        squares = tensor([part.var() + part.mean() ** 2 for part in parts])
        torch.testing.assert_close(mixture.mean, WEIGHTS @ means, rtol=1e-12, atol=0)
        variance = WEIGHTS @ squares - (WEIGHTS @ means) ** 2
        torch.testing.assert_close(mixture.variance, variance, rtol=1e-10, atol=0)


def test_normal_draws_have_the_right_distribution():
    """Kolmogorov–Smirnov of 20,000 draws a site against the mixture's distribution function."""
    y = normal_mixture().sample(20_000, key=tr.draw_key(torch.Generator().manual_seed(3)))
    assert (y > 0).all()
    for s in range(3):

        def cdf(x, s=s):
            parts = zip(WEIGHTS[s].numpy(), scipy_normals(), strict=True)
            return sum(w * c.cdf(x) for w, c in parts)

        assert stats.kstest(y[:, s].numpy(), cdf).pvalue > 1e-4
    correlation = np.corrcoef(y.T.numpy())
    assert np.abs(correlation[np.triu_indices(3, 1)]).max() < 5 / 20_000**0.5


def test_poisson_draws_have_the_right_distribution():
    """χ² of 20,000 draws a site; rates from tiny to large in one table."""
    rates = [1e-3, 0.7, 40.0, 3e3]
    weights = torch.full((3, 4), 0.25, dtype=torch.float64)
    y = poisson_mixture(weights, rates).sample(
        20_000, key=tr.draw_key(torch.Generator().manual_seed(4))
    )
    assert torch.equal(y, y.round())
    edges = [0.5, 1.5, 2.5, 4.5, 25.5, 35.5, 39.5, 45.5, 100.5, 2950.5, 3000.5, 3050.5]
    cdf = np.mean([stats.poisson(rate).cdf(edges) for rate in rates], axis=0)
    expected = np.diff([0, *cdf, 1]) * 20_000
    for s in range(3):
        found = np.histogram(y[:, s].numpy(), [-1, *edges, np.inf])[0]
        assert stats.chisquare(found, expected).pvalue > 1e-4


@pytest.mark.parametrize("mixture", [normal_mixture(), poisson_mixture()])
def test_draws_depend_on_key_row_and_number_alone(mixture):
    """The same bits for any split of the rows, as for the negative binomial's draws."""
    key = tr.draw_key(torch.Generator().manual_seed(5))
    rows = SiteMixture(mixture.logits.expand(6, 3, 2), mixture.components)
    whole = rows.sample(10, key=key)
    part = SiteMixture(mixture.logits.expand(2, 3, 2), mixture.components)
    assert torch.equal(whole[:, 4:], part.sample(10, key=key, row_offset=4))
    assert torch.equal(whole[:5], rows.sample(5, key=key))
    assert not torch.equal(whole[:, 0], whole[:, 1])
    torch.manual_seed(1)
    first = mixture.sample(4)
    torch.manual_seed(1)
    assert torch.equal(first, mixture.sample(4))


# ---- ratio ranking -------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_ratio_ranking_of_poisson_mixtures_by_enumeration(offset):
    """E[y_s / (c + Σ y)] summed over all counts up to where the rest is below 1e-16."""
    mixture = poisson_mixture()
    n = 26
    pmf = mixture.log_prob(torch.arange(float(n)).double()[:, None].expand(-1, 3)).exp()
    counts = torch.cartesian_prod(*[torch.arange(float(n)).double()] * 3)
    probability = pmf[counts.long(), torch.arange(3)].prod(-1)
    total = counts.sum(-1, keepdim=True) + offset
    share = torch.where(total > 0, counts / total.clamp_min(1e-9), 0.0)
    missed = 1 - probability.sum().item()
    torch.testing.assert_close(
        tr.expected_ratio_ranking(mixture, offset=offset),
        probability @ share,
        rtol=0,
        atol=1e-10 + missed,
    )


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize(
    "loc, scale", [(LOC, SCALE), ([0.05, 10.0], [2.0, 0.2]), ([0.0, 100.0], [0.2, 8.0])]
)
def test_ratio_ranking_of_normal_mixtures_by_quadrature(loc, scale, offset):
    """S = 2, ∫∫ y_s / (c + y_0 + y_1) p_0 p_1 by SciPy, component by component."""
    parts = scipy_normals(loc, scale)
    weights = WEIGHTS[:2]
    expected = np.zeros(2)
    nodes, gauss = np.polynomial.legendre.leggauss(400)
    grids = []
    for part in parts:
        low, high = max(0.0, part.ppf(1e-14)), part.isf(1e-14)
        x = low + (high - low) * (nodes + 1) / 2
        grids.append((x, gauss * (high - low) / 2 * part.pdf(x)))
    for i, j in itertools.product(range(2), repeat=2):
        (x0, w0), (x1, w1) = grids[i], grids[j]
        mass = weights[0, i].item() * weights[1, j].item() * np.outer(w0, w1)
        total = offset + x0[:, None] + x1[None]
        expected += [(mass * x0[:, None] / total).sum(), (mass * x1[None] / total).sum()]
    got = tr.expected_ratio_ranking(normal_mixture(weights, loc, scale), offset=offset)
    # Where a density reaches 0 the ratio is not smooth there, and the Gauss rule errs by about
    # 1e-6.
    tolerance = 1e-9 if min(np.divide(loc, scale)) > 7 or offset else 3e-6
    np.testing.assert_allclose(got.numpy(), expected, atol=tolerance)


def test_ratio_ranking_of_one_truncated_normal_is_an_integral():
    """S = 1, c = 1: E[y / (1 + y)] by adaptive quadrature, from narrow to wide."""
    for loc, scale in ((0.0, 0.2), (3.0, 0.5), (0.1, 50.0), (500.0, 0.2)):
        part = scipy_normals([loc], [scale])[0]
        low, high = max(0.0, loc - 40 * scale), loc + 40 * scale
        expected = integrate.quad(
            lambda x, part=part: x / (1 + x) * part.pdf(x),
            low,
            high,
            points=[loc, loc + scale],
            epsabs=1e-13,
            limit=500,
        )[0]
        mixture = normal_mixture(torch.ones(1, 1).double(), [loc], [scale])
        got = tr.expected_ratio_ranking(mixture, offset=1.0).item()
        assert got == pytest.approx(expected, abs=1e-10)
        # c = 0: the only site has all events.
        assert tr.expected_ratio_ranking(mixture).item() == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("mixture", [normal_mixture(), poisson_mixture()])
def test_ratio_ranking_agrees_with_long_sampling(mixture):
    key = tr.draw_key(torch.Generator().manual_seed(6))
    y = mixture.sample(200_000, key=key)
    total = y.sum(-1, keepdim=True)
    share = torch.where(total > 0, y / total.clamp_min(1e-9), 0.0)
    error = share.std(0) / len(y) ** 0.5
    assert ((tr.expected_ratio_ranking(mixture) - share.mean(0)).abs() < 5 * error).all()


def test_gradients_are_those_of_finite_differences():
    """Central differences of density, moments and ratio ranking, in every parameter."""
    logits = tensor([[0.3, -1.0], [0.0, 2.0]], True)
    loc, scale = tensor(LOC, True), tensor(SCALE, True)
    rate = tensor(RATE, True)
    y = tensor([[0.5, 7.0], [3.0, 0.0]])

    def normal(function):
        return lambda a, b, c: function(SiteMixture(a, TruncatedNormal(b, c)))

    def poisson(function):
        return lambda a, b: function(SiteMixture(a, td.Poisson(b, validate_args=False)))

    for function in (
        lambda m: m.log_prob(y),
        lambda m: m.mean,
        lambda m: m.variance,
        lambda m: tr.expected_ratio_ranking(m),
        lambda m: tr.expected_ratio_ranking(m, offset=1.0),
    ):
        assert torch.autograd.gradcheck(normal(function), (logits, loc, scale), atol=1e-6)
        assert torch.autograd.gradcheck(poisson(function), (logits, rate), atol=1e-6)


def test_score_function_gradient_has_the_exact_one_as_its_mean():
    """D25 Eq. 10: over keys, the sampled ratio ranking's gradient averages to the exact one's."""
    loc = tensor(LOC, True)
    v = tensor([1.0, -2.0, 0.5])

    def ranking():
        return SiteMixture(WEIGHTS.log(), TruncatedNormal(loc, tensor(SCALE)))

    exact = torch.autograd.grad((tr.expected_ratio_ranking(ranking()) * v).sum(), loc)[0]
    found = []
    for seed in range(200):
        counts = ranking()
        y = counts.sample(200, key=tr.draw_key(torch.Generator().manual_seed(seed)))
        r = tr.ratio_ranking(y, counts.log_prob(y))
        found.append(torch.autograd.grad((r * v).sum(), loc)[0])
    found = torch.stack(found)
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - exact).abs() < 5 * error).all()
    assert (exact.abs() > 5 * error).any(), "the test must be able to see the gradient"


def test_torchs_mixture_of_poissons_is_the_same():
    """MixtureSameFamily over Poissons [..., S, L]: every site a mixture for itself."""
    ours = poisson_mixture()
    theirs = td.MixtureSameFamily(td.Categorical(WEIGHTS), td.Poisson(tensor(RATE).expand(3, 2)))
    torch.testing.assert_close(
        tr.expected_ratio_ranking(theirs), tr.expected_ratio_ranking(ours), rtol=1e-12, atol=0
    )
    y = tensor([[0.0, 3.0, 9.0]])
    torch.testing.assert_close(ours.log_prob(y), theirs.log_prob(y))
    torch.testing.assert_close(ours.mean, theirs.mean)


# ---- models --------------------------------------------------------------------------------------


def models(batch=()):
    torch.manual_seed(8)
    return [
        NormalMixture(5, 3, high=20, batch=batch).double(),
        PoissonMixture(5, 3, high=20, batch=batch).double(),
    ]


def test_parameters_and_what_they_mean():
    """App. D: μ and σ − 0.2 by softplus, weights by softmax; shared over sites but for the
    weights."""
    time = torch.zeros(4)
    normal, poisson = models((2,))
    assert {n: tuple(p.shape) for n, p in normal.named_parameters()} == {
        "logits": (2, 5, 3),
        "raw_mean": (2, 3),
        "raw_scale": (2, 3),
    }
    assert {n: tuple(p.shape) for n, p in poisson.named_parameters()} == {
        "logits": (2, 5, 3),
        "log_rate": (2, 3),
    }
    counts = normal(time)
    assert counts.mean.shape == (2, 4, 5) and counts.sample(6).shape == (6, 2, 4, 5)
    torch.testing.assert_close(counts.components.loc[1, 2, 0], softplus(normal.raw_mean[1]))
    scale = counts.components.scale[1, 2, 0]
    torch.testing.assert_close(scale, 0.2 + softplus(normal.raw_scale[1]))
    with torch.no_grad():
        normal.raw_scale.fill_(-1e3)
    assert (normal(time).components.scale >= 0.2).all()
    torch.testing.assert_close(poisson(time).components.rate[0, 0, 0], poisson.log_rate[0].exp())


def test_starts_lie_in_the_range_and_differ():
    for model in models((50,)):
        counts = model(torch.zeros(1))
        location = getattr(counts.components, "loc", None)
        location = counts.components.rate if location is None else location
        assert (location >= 0).all() and (location <= 20 + 1e-9).all()
        assert location.std() > 3  # uniform on [0, 20]: 5.8
        assert model.logits.exp().sum(-1).allclose(torch.ones(50, 5).double())


@pytest.mark.parametrize("which", [0, 1])
def test_a_batch_of_models_is_as_many_single_ones(which):
    """Values, draws' density and gradients of 3 starts at once, against one model each."""
    batched = models((3,))[which]
    single = models()[which]
    time = torch.zeros(2)
    y = torch.rand(2, 5).double().mul(15).round()
    total = NLL()(batched, Batch(None, y, time, None, None)).loss
    gradient = dict(
        zip(
            dict(batched.named_parameters()),
            torch.autograd.grad(total, list(batched.parameters())),
            strict=True,
        )
    )
    losses = []
    for b in range(3):
        single.load_state_dict({n: p[b] for n, p in batched.state_dict().items()})
        loss = NLL()(single, Batch(None, y, time, None, None)).loss
        losses.append(loss.item())
        for (name, _), g in zip(
            single.named_parameters(),
            torch.autograd.grad(loss, list(single.parameters())),
            strict=True,
        ):
            torch.testing.assert_close(gradient[name][b], g)
        torch.testing.assert_close(
            tr.expected_ratio_ranking(batched(time))[b], tr.expected_ratio_ranking(single(time))
        )
    assert total.item() == pytest.approx(sum(losses))


def test_maximum_likelihood_recovers_a_mixture_of_poissons():
    """Two sites that mix rates 2 and 12 by .3 and .7: within 5 standard errors of the truth, by the
    observed information of the fit."""
    truth = poisson_mixture(tensor([[0.7, 0.3], [0.3, 0.7]]), [2.0, 12.0])
    y = truth.sample(2000, key=tr.draw_key(torch.Generator().manual_seed(9)))
    torch.manual_seed(0)
    model = PoissonMixture(2, 2, high=20).double()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = -model(torch.zeros(1)).log_prob(y).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    rate, order = model.log_rate.exp().detach().sort()
    logits = model.logits.detach()[:, order]

    def negative(log_rate, slope):
        logits = torch.stack([slope, torch.zeros_like(slope)], -1)
        parts = td.Poisson(log_rate.exp(), validate_args=False)
        return -SiteMixture(logits, parts).log_prob(y).sum()

    point = (rate.log(), logits[:, 0] - logits[:, 1])
    blocks = torch.autograd.functional.hessian(negative, point)
    hessian = torch.cat([torch.cat(row, 1) for row in blocks])
    error = hessian.inverse().diagonal().sqrt()
    odds = torch.tensor([0.7 / 0.3, 0.3 / 0.7]).double().log()
    truth = torch.cat([tensor([2.0, 12.0]).log(), odds])
    assert ((torch.cat(point) - truth).abs() < 5 * error).all()


def test_trainer_ranker_and_objectives_take_them():
    """A module like any other: fit, validation, rank; the deterministic objective is exact."""
    torch.manual_seed(2)
    rates = torch.tensor([1.0] * 6 + [8.0] * 2)
    y = torch.poisson(rates.expand(12, 8))
    panel = Panel(torch.zeros(12, 8, 0), y, [f"s{i}" for i in range(8)], list(range(12)), [])
    train, valid, _ = panel.split(valid=[10, 11])
    for make in (NormalMixture, PoissonMixture):
        model = make(8, 2, high=12)
        ranker = tr.TopKRanker(2, model=model, objective="nll", max_epochs=150, lr=0.1)
        ranker.fit(train, valid)
        assert set(ranker.rank(valid).groupby("time").head(2)["site"]) == {"s6", "s7"}
    for objective in (DirectBPR(2, 0.05), DecisionAware(2, 0.05, 1.0), SPOPlus(2)):
        value = objective(model, train.batch())
        assert torch.isfinite(value.loss)
        gradient = torch.autograd.grad(value.loss, list(model.parameters()), allow_unused=True)
        assert all(torch.isfinite(g).all() for g in gradient if g is not None)


@pytest.mark.parametrize("model", ["poisson_mixture", "normal_mixture"])
def test_ranker_makes_saves_and_loads_them(tmp_path, model):
    """By name, as the other models: fitted by likelihood and by DAML, with sites that differ in
    rate told apart; what is read back ranks alike."""
    torch.manual_seed(3)
    rates = torch.tensor([1.0] * 6 + [9.0] * 2)
    y = torch.poisson(rates.expand(12, 8))
    panel = Panel(torch.zeros(12, 8, 0), y, [f"s{i}" for i in range(8)], list(range(12)), [])
    train, valid, _ = panel.split(valid=[10, 11])
    for objective in ("nll", "auto"):
        ranker = tr.TopKRanker(
            2, model=model, objective=objective, max_epochs=100, lr=0.1, progress=False
        ).fit(train, valid)
        assert ranker.model_.config["high"] == train.y.max() and ranker.ranking_ == "exact"
        assert ranker.model_.config["num_components"] == 4
        assert set(ranker.rank(valid).query("selected")["site"]) == {"s6", "s7"}
        # Every period has the same forecast: within 5 standard errors of the sites' own means.
        forecast = ranker.predict(valid)
        assert (forecast[0] == forecast[1]).all()
        error = 5 * (train.y.var(0).numpy().clip(1) / train.num_times) ** 0.5
        if objective == "nll":
            assert (abs(forecast[0] - train.y.mean(0).numpy()) < error).all()
    path = tmp_path / "model.pt"
    ranker.save(path)
    again = tr.TopKRanker.load(path)
    assert again.get_params()["num_components"] == 4 and again.model == model
    assert again.rank(valid).equals(ranker.rank(valid))
    upper = train.y + (train.y == 1)
    hidden = Panel(train.x, train.y, train.site_ids, train.times, [], y_upper=upper)
    ranker.set_params(objective="nll")
    if model == "poisson_mixture":
        assert ranker.predict(valid, kind="median").shape == (2, 8)
        assert ranker.fit(hidden).predict(valid)[0, :6].mean() > train.y[:, :6].mean()
    else:
        with pytest.raises(TypeError, match="count_quantile: distribution must be of whole counts"):
            ranker.predict(valid, kind="median")
        with pytest.raises(ValueError, match="must have exact counts"):
            ranker.fit(hidden)


def test_one_distribution_serves_all_periods():
    """A model evaluated at one time broadcasts over the batch's periods, for the same loss with
    less work."""
    model = models((3,))[0]
    y = torch.rand(6, 5).double().mul(15).round()
    every = Batch(None, y.expand(3, 6, 5), torch.zeros(6), None, None)
    for objective in (NLL(), DecisionAware(2, 0.05, 0.9, ranking="exact", topk="exact")):
        once = objective(model, every._replace(time=torch.zeros(1)))
        torch.testing.assert_close(once.loss, objective(model, every).loss)


def test_compiled_and_opcheck():
    key = torch.tensor([1, 2])
    mixture = normal_mixture()
    family, first, second = mixture.parameters
    torch.library.opcheck(
        torch.ops.topreach.site_mixture_sample.default,
        (family, mixture.logits, first, second, 5, key, 0),
    )
    model = models()[0]

    def loss(y, time):
        return -model(time).log_prob(y).sum()

    y, time = torch.rand(4, 5).double(), torch.zeros(4)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(loss, backend="aot_eager")(y, time), loss(y, time))


def test_clear_errors():
    logits = torch.zeros(3, 2)
    message = "components must be TruncatedNormal or .*Poisson, got Normal"
    with pytest.raises(TypeError, match=message):
        SiteMixture(logits, td.Normal(0.0, 1.0))
    with pytest.raises((ValueError, RuntimeError), match="broadcast"):
        SiteMixture(logits, td.Poisson(torch.ones(5, 3, 2)))
    with pytest.raises(ValueError, match=r"logits must have shape \[..., S, L\]"):
        SiteMixture(torch.zeros(3), td.Poisson(torch.ones(3)))
    for loc, scale, match in (
        ([-1.0, 1.0], [1.0, 1.0], "loc must be finite and not negative"),
        ([1.0, 1.0], [0.0, 1.0], "scale must be finite and positive"),
    ):
        bad = SiteMixture(logits, TruncatedNormal(torch.tensor(loc), torch.tensor(scale)))
        with pytest.raises(ValueError, match=match):
            bad.sample(3)
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        poisson_mixture().sample(0)
    with pytest.raises(ValueError, match="y must have shape"):
        poisson_mixture().log_prob(torch.zeros(4))
    with pytest.raises(ValueError, match="offset must be finite and not negative"):
        tr.expected_ratio_ranking(poisson_mixture(), offset=-1.0)
    for make in (NormalMixture, PoissonMixture):
        for wrong, match in (
            ({"num_sites": 0}, f"{make.__name__}: num_sites must be a whole number >= 1, got 0"),
            ({"num_components": 0}, "num_components"),
            ({"low": 5, "high": 5}, "low and high must be 0 <= low < high"),
            ({"high": math.inf}, "low and high"),
        ):
            with pytest.raises(ValueError, match=match):
                make(**{"num_sites": 3, **wrong})
