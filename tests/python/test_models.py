"""Models: equations, penalties, and the behaviour that torch users expect of a module."""

import copy
import io
import math
import pickle

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import nn

from topreach.distributions import NegativeBinomial
from topreach.models import (
    LinearScorer,
    MLPScorer,
    NegBinMixedEffects,
    NormalMixture,
    PoissonMixture,
)

KEY = torch.tensor([3, 5])


def mixed_effects(seed=0, sites=6, features=2, dtype=torch.float64, **options):
    torch.manual_seed(seed)
    model = NegBinMixedEffects(sites, features, **options).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def inputs(sites=6, features=2, times=4, dtype=torch.float64):
    torch.manual_seed(9)
    return torch.randn(times, sites, features, dtype=dtype), torch.linspace(
        -1, 1, times, dtype=dtype
    )


MODELS = [
    (lambda: NegBinMixedEffects(6, 2, link="softplus"), lambda: inputs(dtype=torch.float32)),
    (lambda: LinearScorer(3, 2), lambda: (torch.rand(4, 6, 3), torch.rand(4, 6, 2))),
    (lambda: MLPScorer(3, 2, hidden=(5, 4)), lambda: (torch.rand(4, 6, 3), torch.rand(4, 6, 2))),
]


def output_of(model, arguments):
    output = model(*arguments)
    return output.mean if isinstance(output, NegativeBinomial) else output


# ---- equations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["log", "softplus"])
def test_mean_is_eq_15(link):
    model, (x, time) = mixed_effects(link=link), inputs()
    eta = (
        model.intercept
        + torch.einsum("tsp,p->ts", x, model.weight)
        + model.site_intercept
        + time[:, None] * model.site_slope
    )
    mu = eta.exp() if link == "log" else nn.functional.softplus(eta)
    q = model.probs
    assert torch.allclose(model(x, time).mean, mu * q / (1 - q))


@pytest.mark.parametrize("link", ["log", "softplus"])
@pytest.mark.parametrize("mean", [0.05, 1.4, 30.0])
def test_untrained_model_predicts_the_initial_mean(link, mean):
    model = NegBinMixedEffects(5, 1, link=link, initial_mean=mean)
    predicted = model(torch.randn(3, 5, 1), torch.randn(3)).mean
    assert torch.allclose(predicted, torch.full((3, 5), mean), rtol=1e-5)


def test_leading_dimensions_and_no_features():
    model = NegBinMixedEffects(5, 0)
    counts = model(torch.zeros(2, 3, 5, 0), torch.randn(2, 3))
    assert counts.mean.shape == (2, 3, 5) and counts.sample(4, key=KEY).shape == (4, 2, 3, 5)
    assert model.penalty(torch.zeros(2, 3, 5, 0), torch.randn(2, 3)).shape == ()


def test_log_likelihood_and_gradients_against_scipy_and_differences():
    model, (x, time) = mixed_effects(), inputs()
    counts = model(x, time)
    y = counts.sample(1, key=KEY)[0]
    q = model.probs.item()
    want = stats.nbinom.logpmf(y.numpy(), counts.total_count.detach().numpy(), 1 - q)
    assert np.allclose(counts.log_prob(y).detach().numpy(), want, rtol=1e-12)

    for link in ("log", "softplus"):
        model = mixed_effects(link=link)
        # The information is held constant, as in the model.
        with torch.no_grad():
            counts = model(x, time)
            information = torch.ops.topreach.negbin_mixed_effects_information(
                counts.total_count, time, counts.mean, counts.variance, None, link
            )

        def loss(*parameters, link=link, information=information):
            b0, w, s0, s1, z, sigma, rho = parameters
            mu = torch.ops.topreach.negbin_mixed_effects_total_count(x, time, b0, w, s0, s1, link)
            penalty = torch.ops.topreach.negbin_mixed_effects_penalty
            return (
                -torch.ops.topreach.negbin_log_prob(y, mu, z).sum()
                + penalty(s0, s1, sigma, rho, information, "laplace")
                + penalty(s0, s1, sigma, rho, None, "map")
                + penalty(s0, s1, sigma, rho, None, "paper")
            )

        assert torch.autograd.gradcheck(loss, tuple(model.parameters()))


def test_covariance_is_eq_19():
    model = mixed_effects()
    s0, s1 = nn.functional.softplus(model.raw_sigma)
    rho = model.raw_rho.tanh()
    want = torch.stack((s0 * s0, rho * s0 * s1, rho * s0 * s1, s1 * s1)).reshape(2, 2)
    assert torch.allclose(model.covariance, want)


# ---- penalties -----------------------------------------------------------------------------------


def test_penalties_against_linear_algebra():
    model, (x, time) = mixed_effects(), inputs()
    weights = torch.rand(4, dtype=torch.float64)
    b = torch.stack((model.site_intercept, model.site_slope), -1)
    quadratic = 0.5 * torch.einsum("si,ij,sj->s", b, model.covariance.inverse(), b)
    counts = model(x, time)
    slope = counts.mean  # d mean / d eta under the log link
    w = weights[:, None] * slope**2 / counts.variance
    t = time[:, None].expand_as(w)
    h = torch.stack((w, w * t, w * t, w * t * t), -1).sum(0).reshape(-1, 2, 2)
    want = (quadratic + 0.5 * torch.logdet(torch.eye(2).double() + model.covariance @ h)).sum()
    assert torch.allclose(model.penalty(x, time, weights), want)
    paper = mixed_effects(penalty="paper")
    assert torch.allclose(paper.penalty(), quadratic.mean())
    joint = mixed_effects(penalty="map")
    want = -stats.multivariate_normal.logpdf(
        b.detach().numpy(), np.zeros(2), joint.covariance.detach().numpy()
    ).sum()
    variances = joint.covariance.diagonal().detach().numpy()
    want -= stats.invgamma.logpdf(variances, 1, scale=0.1).sum()
    assert np.isclose(joint.penalty().item(), want)


def test_map_has_a_mode_where_the_plain_joint_density_has_none():
    """At b = 0, sigma -> 0: the joint density of Eq. 20 falls without end, "map" turns up again."""
    values = []
    for sigma in (1e-1, 1e-2, 1e-3, 1e-4):
        model = mixed_effects(penalty="map")
        with torch.no_grad():
            model.site_intercept.zero_()
            model.site_slope.zero_()
            model.raw_sigma.fill_(sigma).expm1_().log_()
        values.append(model.penalty().item())
    assert values[1] < values[2] < values[3]
    assert values[3] > 1e6  # scale / sigma^2, twice


def test_laplace_is_close_to_the_marginal_likelihood():
    """One site, slope known to be 0: -log of the integral over its intercept, by quadrature,
    differs from NLL + penalty at the best intercept by what Laplace's approximation leaves out; the
    two agree on which sigma0 is best."""
    periods, sigmas = 40, np.array([0.2, 0.4, 0.8, 1.6, 3.2])
    torch.manual_seed(0)
    x, time = torch.zeros(periods, 1, 0, dtype=torch.float64), torch.zeros(periods).double()
    model = NegBinMixedEffects(1, 0).double()
    with torch.no_grad():
        model.site_intercept.fill_(0.9)
        y = model(x, time).sample(1, key=KEY)[0]

    def nll(b):
        with torch.no_grad():
            model.site_intercept.fill_(b)
            return -model(x, time).log_prob(y).sum().item()

    grid = np.linspace(-1.5, 3, 901)
    curve = np.array([nll(b) for b in grid])
    laplace, exact = [], []
    for sigma in sigmas:
        with torch.no_grad():
            model.raw_sigma.fill_(math.log(math.expm1(sigma)))
        prior = stats.norm.logpdf(grid, scale=sigma)
        best = curve.min()
        exact.append(best - math.log(integrate.simpson(np.exp(best - curve + prior), x=grid)))
        at = grid[np.argmin(curve - prior)]
        value = nll(at)
        laplace.append(value + model.penalty(x, time).item())
    laplace, exact = np.array(laplace), np.array(exact)
    assert np.argmin(laplace) == np.argmin(exact)
    # Within .1 nats of each other over all sigma; the integral of the sites' slope is 1.
    assert np.ptp(laplace - exact) < 0.1


def test_information_has_no_gradient_and_sigma_may_be_held():
    model, (x, time) = mixed_effects(), inputs()
    model.raw_sigma.requires_grad_(False)
    model.raw_rho.requires_grad_(False)
    model.penalty(x, time).backward()
    assert model.site_intercept.grad is not None and model.raw_sigma.grad is None
    assert model.weight.grad is None and model.intercept.grad is None


def test_fit_recovers_spread_of_site_effects():
    """Effects drawn with sigma0 = .8 over 12 periods: the fitted sigma0 comes near; with none, it
    falls well below."""
    sites, periods = 300, 12
    fitted = {}
    for truth in (0.8, 0.0):
        torch.manual_seed(2)
        x, time = torch.zeros(periods, sites, 0), torch.linspace(-1.7, 1.7, periods)
        source = NegBinMixedEffects(sites, 0)
        with torch.no_grad():
            source.site_intercept.copy_(truth * torch.randn(sites))
            y = source(x, time).sample(1, key=KEY)[0]
        model = NegBinMixedEffects(sites, 0, initial_mean=y.mean().item())
        adam = torch.optim.Adam(model.parameters(), lr=0.05)
        for _ in range(400):
            adam.zero_grad()
            loss = -model(x, time).log_prob(y).sum() + model.penalty(x, time)
            loss.backward()
            adam.step()
        fitted[truth] = model.covariance.diag().sqrt().detach()
    assert abs(fitted[0.8][0] - 0.8) < 0.12 and fitted[0.8][1] < 0.2
    assert fitted[0.0][0] < 0.2


# ---- scorers -------------------------------------------------------------------------------------


def test_scorers_are_their_formulas():
    history, x = torch.rand(4, 6, 3), torch.rand(4, 6, 2)
    both = torch.cat((history, x), -1)
    linear = LinearScorer(3, 2)
    assert torch.allclose(linear(history, x), both @ linear.linear.weight[0] + linear.linear.bias)
    mlp = MLPScorer(3, 2)
    assert [layer.out_features for layer in mlp.layers] == [50, 10, 1]
    h = both
    for i, layer in enumerate(mlp.layers):
        h = h @ layer.weight.T + layer.bias
        h = h if i == 2 else h.clamp_min(0)
    assert torch.allclose(mlp(history, x), h[..., 0], atol=1e-6)
    assert LinearScorer(3)(history).shape == (4, 6)


@pytest.mark.parametrize("make", [LinearScorer, MLPScorer])
def test_scorers_do_not_depend_on_the_unit_of_the_counts(make):
    """`prepare` divides by the mean past count, once; the same scores for counts in thousands."""
    history, scores = 3 * torch.rand(4, 6, 3), []
    for unit in (1.0, 1024.0):  # a power of two: the same bits
        torch.manual_seed(0)
        scorer = make(3)
        scorer.prepare(unit * history)
        assert scorer.history_scale.item() == pytest.approx(unit * history.mean().item(), rel=1e-6)
        scorer.prepare(7 * history)  # trained further: the unit stays
        scores.append(scorer(unit * history))
    assert torch.equal(*scores)
    raw = make(3, scale=1.0)
    raw.prepare(history)
    assert raw.history_scale.item() == 1
    with pytest.raises(ValueError, match="scale must be a finite number > 0"):
        make(3, scale=0.0)


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (lambda: LinearScorer(3, 2), lambda: (torch.rand(4, 6, 3), torch.rand(4, 6, 2))),
        (lambda: MLPScorer(3, 2), lambda: (torch.rand(4, 6, 3), torch.rand(4, 6, 2))),
        (lambda: NormalMixture(6, 2), lambda: (torch.zeros(4),)),
        (lambda: PoissonMixture(6, 2), lambda: (torch.zeros(4),)),
    ],
)
def test_parameters_are_float32_whatever_the_default(make, arguments):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        model = make()
    finally:
        torch.set_default_dtype(before)
    assert all(p.dtype == torch.float32 for p in model.state_dict().values())
    output = model(*arguments())
    output = output if isinstance(output, torch.Tensor) else output.mean
    assert output.dtype == torch.float32


# ---- modules -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "arguments"), MODELS)
def test_state_dict_pickle_deepcopy(make, arguments):
    model, given = make(), arguments()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    want = output_of(model, given)
    other = type(model)(**model.config)
    other.load_state_dict(model.state_dict())
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    third = make()
    third.load_state_dict(torch.load(buffer, weights_only=True))
    for copied in (other, third, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert copied.config == model.config
        assert torch.equal(output_of(copied, given), want)


@pytest.mark.parametrize(("make", "arguments"), MODELS)
def test_moves_between_dtypes_and_devices(make, arguments):
    model = make().to(torch.float64)
    assert output_of(model, [a.double() for a in arguments()]).dtype == torch.float64
    meta = make().to("meta")
    assert output_of(meta, [a.to("meta") for a in arguments()]).device.type == "meta"


@pytest.mark.parametrize(("make", "arguments"), MODELS)
def test_config_is_plain(make, arguments):
    for value in make().config.values():
        assert isinstance(value, int | float | str | bool | list)


def test_parameter_names_are_those_of_the_file_format():
    names = list(NegBinMixedEffects(3, 2).state_dict())
    assert names == [
        "intercept",
        "weight",
        "site_intercept",
        "site_slope",
        "raw_probs",
        "raw_sigma",
        "raw_rho",
    ]
    assert list(LinearScorer(3).state_dict()) == ["history_scale", "linear.weight", "linear.bias"]
    assert list(MLPScorer(3).state_dict())[1:3] == ["layers.0.weight", "layers.0.bias"]


# ---- errors, operators ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_sites": 0}, "num_sites must be at least 1"),
        ({"num_features": -1}, "num_features must not be negative"),
        ({"link": "probit"}, "link must be"),
        ({"penalty": "none"}, "penalty must be"),
        ({"initial_mean": 0.0}, "initial_mean must be positive"),
        ({"initial_mean": math.nan}, "initial_mean must be positive"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        NegBinMixedEffects(**{"num_sites": 3, "num_features": 2, **arguments})


def test_bad_inputs():
    model, (x, time) = NegBinMixedEffects(6, 2), inputs(dtype=torch.float32)
    with pytest.raises(ValueError, match="x must have shape"):
        model(x[..., :1], time)
    with pytest.raises(ValueError, match="x must have shape"):
        model(x[:, :5], time)
    with pytest.raises(ValueError, match="time must have"):
        model(x, time[:2])
    with pytest.raises(ValueError, match="x and time must be given"):
        model.penalty()
    with pytest.raises(ValueError, match="history must have shape"):
        LinearScorer(3)(torch.rand(4, 6, 2))
    with pytest.raises(ValueError, match="x must have shape"):
        MLPScorer(3, 2)(torch.rand(4, 6, 3))
    with pytest.raises(ValueError, match="not both be 0"):
        LinearScorer(0)
    with pytest.raises(ValueError, match="hidden must hold positive"):
        MLPScorer(3, hidden=(5, 0))


def test_opcheck():
    model, (x, time) = mixed_effects(), inputs()
    p = {name: parameter.detach().requires_grad_() for name, parameter in model.named_parameters()}
    effects = (p["site_intercept"], p["site_slope"])
    total_count = (x, time, p["intercept"], p["weight"], *effects, "softplus")
    torch.library.opcheck(torch.ops.topreach.negbin_mixed_effects_total_count.default, total_count)
    mu = torch.rand(4, 6, dtype=torch.float64)
    torch.library.opcheck(
        torch.ops.topreach.negbin_mixed_effects_information.default,
        (mu, time, 2 * mu, 6 * mu, torch.rand(4, dtype=torch.float64), "log"),
    )
    information = torch.rand(6, 3, dtype=torch.float64)
    for penalty in ("laplace", "map", "paper"):
        torch.library.opcheck(
            torch.ops.topreach.negbin_mixed_effects_penalty.default,
            (*effects, p["raw_sigma"], p["raw_rho"], information, penalty),
        )


def test_compiled_loss_equals_eager():
    model, (x, time) = mixed_effects(dtype=torch.float32), inputs(dtype=torch.float32)
    y = model(x, time).sample(1, key=KEY)[0]

    def loss(x, time, y):
        return -model(x, time).log_prob(y).sum() + model.penalty(x, time)

    compiled = torch.compile(loss, backend="aot_eager")
    want = torch.autograd.grad(loss(x, time, y), model.parameters())
    got = torch.autograd.grad(compiled(x, time, y), model.parameters())
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
