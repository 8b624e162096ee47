"""A site's path over the periods in the Laplace marginal likelihood, against dense matrices,
quadrature and the Gaussian limit; draws about the mode; and NegBinMixedEffects with a path."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from scipy import optimize, special, stats

from topreach.models import NegBinMixedEffects, marginal_fit

OP = torch.ops.topreach.laplace_marginal
POSTERIOR = torch.ops.topreach.laplace_path_posterior
FAMILIES = ("poisson", "nb1", "nb2")
LINKS = list(itertools.product(("log", "softplus"), (False, True)))  # and zero inflation
TIMES = np.array([0.0, 1.0, 2.5, 3.0, 7.0, 8.0])  # gaps of 1, 1.5, 0.5, 4 and 1 periods


def f64(value):
    return torch.tensor(value, dtype=torch.float64)


def ar1(times, sigma, phi):
    """rho_t and s_t, and the covariance sigma^2 phi^|t - t'| that they must have."""
    rho = np.append(0.0, phi ** np.diff(times))
    steps = np.column_stack((rho, sigma * np.sqrt(1 - rho**2)))
    return f64(steps), sigma**2 * phi ** np.abs(np.subtract.outer(times, times))


def random_walk(times, sigma):
    """From 0 at the first time, with increments of variance sigma^2 dt: covariance sigma^2 min(t,
    t')."""
    gaps = np.append(0.0, np.diff(times))
    steps = np.column_stack((np.ones(len(times)), sigma * np.sqrt(gaps)))
    return f64(steps), sigma**2 * np.minimum.outer(times - times[0], times - times[0])


def paths(times=TIMES):
    return {
        "ar1": ar1(times, 0.5, 0.6),
        "ar1_close_to_1": ar1(times, 0.8, 0.999),
        "random_walk": random_walk(times, 0.4),
        "none": ar1(times, 0.0, 0.5),
    }


def log_p(family, y, upper, eta, exposure, d):
    """log P(y <= Y <= upper) from SciPy's distributions, elementwise."""
    mean = exposure * np.exp(eta)
    if family == "poisson":
        law = stats.poisson(mean)
    elif family == "nb1":
        law = stats.nbinom(mean, special.expit(-d))
    else:
        law = stats.nbinom(math.exp(d), math.exp(d) / (math.exp(d) + mean))
    total = law.logpmf(y)
    for more in range(1, int((upper - y).max()) + 1):
        total = np.where(y + more <= upper, np.logaddexp(total, law.logpmf(y + more)), total)
    return total


def problem(family, seed=0, sites=4):
    torch.manual_seed(seed)
    times = len(TIMES)
    eta = torch.randn(times, sites, dtype=torch.float64) * 0.5 + 0.3
    loading = torch.stack((torch.ones(times), f64(TIMES - 3.0) / 3), -1).double() @ f64(
        [[0.6, -0.2], [0.0, 0.3]]
    )
    y = torch.poisson(torch.full((times, sites), 2.0, dtype=torch.float64))
    y[0, 0], y[1, 1], y[3, 0] = 40.0, 17.0, 0.0
    if family == "nb1":  # whose large counts and intervals may have information of the wrong sign
        y.clamp_(max=3)
    upper = y.clone()
    if family != "nb1":
        upper[2] += 4
        upper[3, :2] += 9
    exposure = torch.rand(times, sites, dtype=torch.float64) + 0.5
    weights = torch.rand(times, sites, dtype=torch.float64) + 0.2
    weights[2, 1] = weights[5, 2] = weights[0, 3] = 0
    d = None if family == "poisson" else f64(0.3)
    return eta, loading, y, upper, exposure, weights, d, None, family, "log"


def dense(arguments, covariance, s):
    """Laplace's value, the mode of (u, a) and the covariance H^-1 of them, of one site, with dense
    matrices: the joint density in (u, white noise), maximised by SciPy; l2 by differences."""
    eta, loading, y, upper, exposure, weights, d, _, family, _ = arguments
    eta, y, upper, exposure, weights = (a.numpy()[:, s] for a in (eta, y, upper, exposure, weights))
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0))
    v = np.hstack((loading.numpy(), root))

    def cells(at):
        return log_p(family, y, upper, at, exposure, None if d is None else d.item())

    def minus(z):
        return z @ z / 2 - (weights * cells(eta + v @ z)).sum()

    def slope(z, h=1e-5):
        at = eta + v @ z
        return z - v.T @ (weights * (cells(at + h) - cells(at - h)) / (2 * h))

    z = optimize.minimize(
        minus, np.zeros(v.shape[1]), jac=slope, method="BFGS", options={"gtol": 1e-8}
    ).x
    at, h = eta + v @ z, 1e-3
    information = -weights * (cells(at + h) - 2 * cells(at) + cells(at - h)) / h**2
    assert (information > -1e-6).all()  # where log p is concave H is the observed information
    hessian = np.eye(len(z)) + v.T @ (information[:, None] * v)
    to_path = np.block([[np.eye(2), np.zeros((2, len(root)))], [np.zeros((len(root), 2)), root]])
    return (
        -minus(z) - np.linalg.slogdet(hessian)[1] / 2,
        to_path @ z,
        to_path @ np.linalg.inv(hessian) @ to_path.T,
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", list(paths()))
def test_value_mode_and_precision_are_those_of_dense_matrices(family, kind):
    """Irregular times, censored counts, exposure, missing periods. Second differences with h =
    1e-3 are right to h^2 / 12 of the fourth derivative, so to 1e-6 of the information here."""
    steps, covariance = paths()[kind]
    arguments = problem(family)
    value, modes, precision = OP(*arguments, steps)
    assert modes.shape == (4, 8) and precision.shape == (4, 9)
    for s in range(4):
        want, mode, spread = dense(arguments, covariance, s)
        assert value[s].item() == pytest.approx(want, abs=1e-5)
        assert np.allclose(modes[s].numpy(), mode, atol=1e-5)
        h = precision[s, [0, 1, 1, 2]].reshape(2, 2)
        assert np.allclose(torch.linalg.inv(h).numpy(), spread[:2, :2], atol=1e-5)
        _, variance = POSTERIOR(
            precision[s : s + 1, 3:], arguments[1], steps, torch.zeros(1, 8).double()
        )
        assert np.allclose(variance[0].numpy(), np.diag(spread)[2:], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("link", "zero_inflated"), LINKS)
@pytest.mark.parametrize("censored", [False, True])
def test_gradient_against_differences(family, link, zero_inflated, censored):
    """Of the value and of the modes of effects and path, in all that they depend on, rho_t and s_t
    among it; with information of the wrong sign in some cells."""
    eta, loading, y, upper, exposure, weights, d, *_ = problem(family)
    y[0, 0], y[1, 1] = 40.0, 17.0
    upper = torch.maximum(upper, y + f64([0, 8, 3, 0])) if censored else None
    z = f64(-0.7) if zero_inflated else None
    given = [p for p in (d, z) if p is not None]
    steps = f64([[0.3, 0.6], [0.7, 0.5], [0.9, 0.3], [0.4, 0.7], [1.0, 0.4], [-0.8, 0.0]])

    def outputs(eta, loading, steps, *shared):
        shared = list(shared)
        dispersion = None if d is None else shared.pop(0)
        zero_logit = None if z is None else shared.pop(0)
        return OP(
            eta, loading, y, upper, exposure, weights, dispersion, zero_logit, family, link, steps
        )[:2]

    arguments = [p.clone().requires_grad_() for p in (eta, loading, steps, *given)]
    assert torch.autograd.gradcheck(outputs, arguments, eps=1e-5, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["ar1", "random_walk"])
def test_close_to_quadrature_over_the_predictors(family, kind):
    """Three periods: the integral over the three linear predictors with their dense covariance, by
    Gauss-Hermite rules about the mode, scaled by the curvature there (Liu and Pierce 1994). For
    counts near 30 Laplace's error is below .02."""
    times = np.array([0.0, 1.0, 3.0])
    steps, covariance = ar1(times, 0.5, 0.7) if kind == "ar1" else random_walk(times, 0.4)
    loading = np.column_stack((np.full(3, 0.6), [-0.3, 0.0, 0.3]))
    prior = covariance + loading @ loading.T
    precision = np.linalg.inv(prior)
    d = {"poisson": None, "nb1": -0.5, "nb2": 1.5}[family]
    eta = np.full(3, 3.3 - (d if family == "nb1" else 0.0))
    y = np.array([22.0, 31.0, 55.0])

    def joint(b):
        return log_p(family, y, y, eta + b, 1.0, d).sum() - b @ precision @ b / 2

    mode = optimize.minimize(lambda b: -joint(b), np.zeros(3), method="BFGS").x
    e = np.eye(3) * 1e-3
    curvature = [
        [
            joint(mode + a + b) - joint(mode + a - b) - joint(mode - a + b) + joint(mode - a - b)
            for b in e
        ]
        for a in e
    ]
    root = np.linalg.cholesky(np.linalg.inv(-np.array(curvature) / 4e-6))
    x, w = np.polynomial.hermite_e.hermegauss(24)
    total = -np.inf
    for at in itertools.product(range(24), repeat=3):
        node = x[list(at)]
        total = np.logaddexp(
            total, joint(mode + root @ node) + node @ node / 2 + np.log(w[list(at)]).sum()
        )
    want = total + np.log(np.diag(root)).sum() - np.linalg.slogdet(2 * np.pi * prior)[1] / 2
    value, _, _ = OP(
        f64(eta)[:, None],
        f64(loading),
        f64(y)[:, None],
        None,
        None,
        None,
        None if d is None else f64(d),
        None,
        family,
        "log",
        steps,
    )
    assert value.item() == pytest.approx(want, abs=2e-2)


@pytest.mark.parametrize("kind", ["ar1", "random_walk", "ar1_close_to_1"])
def test_gaussian_limit(kind):
    """Poisson counts near m = 1e8 are log y ~ N(eta, 1 / y) but for a cubic term below
    T E|z|^3 / (6 sqrt m) = 2e-4: the likelihood is that of a multivariate normal (the Kalman
    filter's)."""
    steps, covariance = paths()[kind]
    _, loading, *_ = problem("poisson")
    rng = np.random.default_rng(4)
    eta = np.full(6, math.log(1e8))
    total = covariance + loading.numpy() @ loading.numpy().T
    y = np.round(np.exp(eta + rng.multivariate_normal(np.zeros(6), total)))
    value, modes, _ = OP(
        f64(eta)[:, None],
        loading,
        f64(y)[:, None],
        None,
        None,
        None,
        None,
        None,
        "poisson",
        "log",
        steps,
    )
    seen = total + np.diag(1 / y)
    residual = np.log(y) - eta
    peak = stats.poisson.logpmf(y, y) + np.log(2 * np.pi / y) / 2
    want = peak.sum() + stats.multivariate_normal(np.zeros(6), seen).logpdf(residual)
    assert value.item() == pytest.approx(want, abs=1e-3)
    path = covariance @ np.linalg.solve(seen, residual)
    assert np.allclose(modes[0, 2:].numpy(), path, atol=1e-3)


def test_a_path_without_variance_changes_nothing():
    for family in FAMILIES:
        arguments = [
            p.clone().requires_grad_() if i < 2 else p for i, p in enumerate(problem(family))
        ]
        outputs = []
        for path in ((), (paths()["none"][0],)):
            value, modes, precision = OP(*arguments, *path)
            gradient = torch.autograd.grad(value.sum() + modes[:, :2].sum(), arguments[:2])
            outputs.append((value, modes[:, :2], precision[:, :3], *gradient))
        for a, b in zip(*outputs, strict=True):
            assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)
        assert (modes[:, 2:] == 0).all()


def test_a_constant_path_is_an_intercept():
    """rho = 1 without steps: a_t = a_1, so its variance adds to that of the intercept."""
    arguments = list(problem("nb2"))
    time = f64(TIMES - 3.0) / 3
    arguments[1] = torch.stack((torch.ones_like(time), time), -1) * f64([0.6, 0.3])
    steps = torch.zeros(6, 2).double()
    steps[:, 0] = 1
    steps[0, 1] = 0.8
    value, modes, _ = OP(*arguments, steps)
    assert torch.allclose(modes[:, 2:], modes[:, 2:3].expand(-1, 6))
    wider = list(arguments)
    wider[1] = torch.stack((torch.ones_like(time), time), -1) * f64([1.0, 0.3])
    want, others, _ = OP(*wider)
    assert torch.allclose(value, want, rtol=1e-12)
    assert torch.allclose(0.6 * modes[:, 0] + modes[:, 2], others[:, 0], atol=1e-9)
    # And the limits of AR(1) are reached without a jump.
    for phi in (1 - 1e-9, 1 - 1e-13):
        near, *_ = OP(*arguments, ar1(TIMES, 0.8, phi)[0])
        assert torch.allclose(near, want, atol=20 * (1 - phi) * 100 + 1e-9)


def test_missing_periods_are_longer_gaps():
    """Without periods 2 and 3 the path goes on over a gap of their lengths together."""
    *arguments, family, link = problem("poisson")
    arguments[5] = torch.ones_like(arguments[0])
    arguments[5][[2, 3]] = 0
    arguments[2][2] = math.nan  # not read
    keep = [0, 1, 4, 5]
    fewer = [None if a is None else a[keep] if a.ndim == 2 else a for a in arguments]
    for kind in ("ar1", "random_walk"):
        value, modes, precision = OP(*arguments, family, link, paths()[kind][0])
        want, others, rest = OP(*fewer, family, link, paths(TIMES[keep])[kind][0])
        assert torch.allclose(value, want, rtol=1e-12)
        at = [0, 1, *(2 + k for k in keep)]
        assert torch.allclose(modes[:, at], others, atol=1e-9)
        assert torch.allclose(precision[:, :3], rest[:, :3], rtol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("zero_inflated", [False, True])
def test_modes_are_found_from_anywhere(family, zero_inflated):
    """Empty sites, huge counts where the start predicts next to none, weight 0; wide and narrow
    paths. Value and gradient are finite, and the mode solves a = K r, r the scores of the
    counts."""
    y = f64([[0.0, 1e6, 3.0, 0.0, 7.0, 2e5]]).expand(6, 6).clone()
    y[1, 2] = 1e5
    eta = f64([0.0, -5.0, 1.0, 12.0, -12.0, 3.0]).expand(6, 6)
    weights = torch.ones_like(y)
    weights[:, 4] = 0
    d = None if family == "poisson" else f64(0.2)
    z = f64(-1.0) if zero_inflated else None
    _, loading, *_ = problem(family)
    for sigma, phi in itertools.product((1e-3, 0.3, 3.0, 30.0), (0.1, 0.999)):
        steps, covariance = ar1(TIMES, sigma, phi)
        variables = [p.clone().requires_grad_() for p in (eta, loading, steps)]
        value, modes, precision = OP(
            variables[0], variables[1], y, None, None, weights, d, z, family, "log", variables[2]
        )
        assert value.isfinite().all() and modes.isfinite().all()
        assert (precision[:, 0] * precision[:, 2] > precision[:, 1] ** 2).all()
        for gradient in torch.autograd.grad(value.sum(), variables):
            assert gradient.isfinite().all()
        assert value[4] == 0 and (modes[4] == 0).all()
        if family == "poisson" and not zero_inflated:
            at = eta + (modes.detach()[:, 2:] + modes.detach()[:, :2] @ loading.T).T
            score = (y - at.exp()) * weights
            # Newton's last step leaves less than 1e-15 in the log-density: scores right to 3e-8 of
            # their standard deviations, and rounding of y.
            error = 1e-7 * at.exp().sqrt() + 1e-12 * y
            slack = f64(covariance) @ error
            assert ((f64(covariance) @ score - modes[:, 2:].T).abs() <= slack + 1e-9).all()


def test_draws_have_the_covariance_of_the_dense_matrix():
    """A draw is linear in its noise: its matrix D, from unit vectors, has D D' = H^-1."""
    size = 8
    information = f64([0.7, 3.0, 0.0, 12.0, -0.02, 1.0])
    _, loading, *_ = problem("poisson")
    for steps, covariance in paths().values():
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0))
        v = np.hstack((loading.numpy(), root))
        hessian = np.eye(size) + v.T @ (information.numpy()[:, None] * v)
        to_path = np.block([[np.eye(2), np.zeros((2, 6))], [np.zeros((6, 2)), root]])
        want = to_path @ np.linalg.inv(hessian) @ to_path.T
        matrix, variance = POSTERIOR(
            information.expand(size, 6), loading, steps, torch.eye(size).double()
        )
        assert np.allclose((matrix.T @ matrix).numpy(), want, atol=1e-12)
        assert np.allclose(variance.numpy(), np.diag(want)[2:], atol=1e-12)


def test_it_does_not_depend_on_threads_order_or_dtype():
    arguments = list(problem("nb1", sites=300))
    order = torch.randperm(300)
    steps = paths()["ar1"][0]

    def gradients(arguments, steps):
        arguments = [
            p.clone().requires_grad_() if i in (0, 1, 6) else p for i, p in enumerate(arguments)
        ]
        steps = steps.clone().requires_grad_()
        value, modes, _ = OP(*arguments, steps)
        wanted = (*arguments[:2], arguments[6], steps)
        return value, torch.autograd.grad(value.sum() + modes.sum(), wanted)

    value, grads = gradients(arguments, steps)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        again, same = gradients(arguments, steps)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(value, again)
    assert all(torch.equal(a, b) for a, b in zip(grads, same, strict=True))
    moved = [
        p[:, order] if isinstance(p, torch.Tensor) and p.shape == (6, 300) else p for p in arguments
    ]
    permuted, other = gradients(moved, steps)
    assert torch.equal(permuted, value[order]) and torch.equal(other[0], grads[0][:, order])
    assert torch.allclose(other[3], grads[3], rtol=1e-10)
    single, _, _ = OP(
        *[p.float() if isinstance(p, torch.Tensor) else p for p in arguments], steps.float()
    )
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), value, rtol=1e-5, atol=1e-5)


def test_opcheck():
    arguments = [
        p.clone().requires_grad_() if i in (0, 1, 6) else p for i, p in enumerate(problem("nb2"))
    ]
    steps = paths()["ar1"][0].clone().requires_grad_()
    torch.library.opcheck(OP.default, (*arguments, steps))
    _, _, precision = OP(*arguments, steps)
    torch.library.opcheck(
        POSTERIOR.default,
        (precision[:, 3:], arguments[1].detach(), steps.detach(), torch.randn(4, 8).double()),
    )


def test_errors():
    arguments = problem("nb1")
    message = r"laplace_marginal: path must have shape \[T, 2\] with T = 6"
    with pytest.raises(ValueError, match=message):
        OP(*arguments, torch.zeros(6))
    with pytest.raises(TypeError, match="path must be float32 or float64"):
        OP(*arguments, torch.zeros(6, 2, dtype=torch.long))
    good = [torch.zeros(4, 6), torch.zeros(6, 2), torch.zeros(6, 2), torch.zeros(4, 8)]
    for at, bad, message in (
        (0, torch.zeros(6), r"information must have shape \[S, T\]"),
        (1, torch.zeros(5, 2), r"loading must have shape \[T, 2\] with T = 6"),
        (2, torch.zeros(6, 3), r"path must have shape \[T, 2\] with T = 6"),
        (3, torch.zeros(4, 6), r"noise must have shape \[S, 2 \+ T\] = \[4, 8\], got \[4, 6\]"),
    ):
        with pytest.raises(ValueError, match="laplace_path_posterior: " + message):
            POSTERIOR(*good[:at], bad, *good[at + 1 :])


# ---- NegBinMixedEffects with a path --------------------------------------------------------------


def simulated(
    seed,
    *,
    kind="ar1",
    times=20,
    sites=100,
    sigma=0.5,
    phi=0.7,
    family="poisson",
    intercept=0.8,
    effects=(0.6, 0.3),
):
    """x, y, time and the paths, drawn by NumPy: AR(1) or random walk over even periods."""
    rng = np.random.default_rng(seed)
    x, time = rng.normal(size=(times, sites, 2)), np.linspace(-1.5, 1.5, times)
    b0, b1 = (s * rng.normal(size=sites) for s in effects)
    path = np.zeros((times, sites))
    noise = rng.normal(size=(times, sites))
    if kind == "ar1":
        path[0] = sigma * noise[0]
    for t in range(1, times):
        step = math.sqrt(1 - phi**2) if kind == "ar1" else 1.0
        path[t] = (phi if kind == "ar1" else 1.0) * path[t - 1] + sigma * step * noise[t]
    mean = np.exp(intercept + x @ np.array([0.4, -0.3]) + b0 + np.outer(time, b1) + path)
    y = rng.poisson(mean) if family == "poisson" else rng.negative_binomial(mean, 0.5)
    return torch.from_numpy(x), torch.from_numpy(y).double(), torch.from_numpy(time), path


def model_of(y, site_path="ar1", **options):
    return NegBinMixedEffects(y.shape[1], 2, site_path=site_path, **options).double()


@pytest.mark.parametrize(("kind", "family"), [("ar1", "poisson"), ("random_walk", "nb1")])
def test_recovery_and_coverage(kind, family):
    """95 % intervals over 6 panels: binomial coverage, of 7 parameters; 99.95 % limits. The modes
    go with the paths."""
    sigma = 0.5 if kind == "ar1" else 0.2
    truth = {"(Intercept)": 0.8, "x0": 0.4, "x1": -0.3}
    spread = {"sd(intercept)": 0.6, "sd(slope)": 0.3}
    ar1, walk = {"sd(path)": 0.5, "cor(path)": 0.7}, {"sd(step)": 0.2, "phi": 1.0}
    spread |= ar1 if kind == "ar1" else walk
    hits, total = 0, 0
    for seed in range(6):
        x, y, time, path = simulated(seed, kind=kind, sigma=sigma, family=family)
        model = model_of(y, kind, family=family).fit(x, y, time)
        assert model.fit_.converged and not model.fit_.held
        for table, values in ((model.coefficients(), truth), (model.variance_parameters(), spread)):
            assert values.keys() <= set(table.index)
            for row, value in values.items():
                low, high = table.loc[row, "2.5 %"], table.loc[row, "97.5 %"]
                hits += low <= value <= high
                total += 1
        effects = model.path_effects()
        assert effects.index.names == ["site", "time"] and len(effects) == path.size
        found = effects["effect"].to_numpy().reshape(path.T.shape)
        assert np.allclose(found, model.path_effect.T.numpy())
        assert np.corrcoef(found.ravel(), path.T.ravel())[0, 1] > 0.4
    assert stats.binom.cdf(hits, total, 0.95) > 5e-4


@pytest.mark.parametrize("kind", ["ar1", "random_walk"])
def test_fit_is_that_of_a_gaussian_model_for_large_counts(kind):
    """log y of counts near e^9 is N(eta, 1/y) to 1e-2: the estimates are those of the multivariate
    normal likelihood with dense covariance, maximised by SciPy over the same parameters."""
    sigma = 0.4 if kind == "ar1" else 0.2
    x, y, time, _ = simulated(3, kind=kind, times=8, sites=40, sigma=sigma, intercept=9.0)
    model = model_of(y, kind, family="poisson").fit(x, y, time)
    t, design = time.numpy(), np.concatenate((np.ones((8, 40, 1)), x.numpy()), -1)
    lag = np.abs(np.subtract.outer(np.arange(8), np.arange(8)))
    walk = np.minimum.outer(np.arange(8), np.arange(8))
    log_y, noise = np.log(y.numpy()), 1 / y.numpy()

    def covariance(theta):
        s0, s1, sa = np.exp(theta[:3])
        cross = s0 * s1 * np.tanh(theta[3])
        effects = s0**2 + cross * np.add.outer(t, t) + s1**2 * np.outer(t, t)
        return effects + sa**2 * (special.expit(theta[4]) ** lag if kind == "ar1" else walk)

    def minus(theta):
        size = 5 if kind == "ar1" else 4
        residual = log_y - design @ theta[size:]
        seen = covariance(theta) + noise.T[:, :, None] * np.eye(8)
        _, log_det = np.linalg.slogdet(seen)
        squares = residual.T[:, None] @ np.linalg.solve(seen, residual.T[..., None])
        return (log_det.sum() + squares.sum()) / 2

    start = [-0.5, -1.0, -1.0, 0.0, *([0.5] if kind == "ar1" else []), 9.0, 0.4, -0.3]
    best = optimize.minimize(minus, start, method="BFGS").x
    table = model.variance_parameters()["Estimate"]
    row = "sd(path)" if kind == "ar1" else "sd(step)"
    errors = model.variance_parameters()["Std. Error"]
    for name, want in (
        ("sd(intercept)", math.exp(best[0])),
        ("sd(slope)", math.exp(best[1])),
        (row, math.exp(best[2])),
        ("cor", math.tanh(best[3])),
        *([("cor(path)", special.expit(best[4]))] if kind == "ar1" else []),
    ):
        assert table[name] == pytest.approx(want, abs=0.05 * errors[name]), name
    coefficients = model.coefficients()
    close = 0.05 * coefficients["Std. Error"].to_numpy()
    assert (np.abs(coefficients["Estimate"].to_numpy() - best[-3:]) < close).all()


def test_the_maximum_is_one():
    """The gradient is zero there, and the covariance is the inverse of the Hessian by differences
    of the value."""
    x, y, time, _ = simulated(1)
    model = model_of(y, family="poisson").fit(x, y, time)
    value = model.log_marginal(x, y, time).sum()
    assert value.item() == pytest.approx(model.fit_.log_likelihood, abs=1e-8)
    shared = [p for n, p in model.named_parameters() if not n.startswith("site")]
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(value, shared)])
    assert (gradient @ model.fit_.covariance @ gradient).item() < 1e-8
    information, h = torch.linalg.inv(model.fit_.covariance), 1e-3
    for name in ("raw_path_sigma", "raw_path_rho", "intercept"):
        parameter, values = getattr(model, name), []
        at = parameter.item()
        for step in (h, 0, -h):
            with torch.no_grad():
                parameter.fill_(at + step)
                values.append(model.log_marginal(x, y, time).sum().item())
        with torch.no_grad():
            parameter.fill_(at)
        second = -(values[0] - 2 * values[1] + values[2]) / h**2
        i = model.fit_.names.index(name)
        assert second == pytest.approx(information[i, i].item(), rel=1e-3)


def test_without_variation_over_time_the_path_is_held_at_zero():
    """And the rest is the fit without a path; or nearly, where a small variance is found."""
    x, y, time, _ = simulated(5, sigma=0.0, times=8)
    plain = NegBinMixedEffects(100, 2, family="poisson").double().fit(x, y, time)
    for kind in ("ar1", "random_walk"):
        model = model_of(y, kind, family="poisson").fit(x, y, time)
        assert model.fit_.converged
        gained = model.fit_.log_likelihood - plain.fit_.log_likelihood
        assert -1e-5 < gained < 4
        if "raw_path_sigma" in model.fit_.held:
            assert gained < 1e-5
            assert "raw_path_sigma: at its boundary 0" in str(model.summary())
            assert torch.allclose(model.site_intercept, plain.site_intercept, atol=1e-3)
        fixed = model_of(y, kind, family="poisson")
        with torch.no_grad():
            fixed.raw_path_sigma.fill_(-40)
        for name in ("raw_path_sigma", "raw_path_rho"):
            if hasattr(fixed, name):
                getattr(fixed, name).requires_grad_(False)
        fixed.fit(x, y, time)
        assert fixed.fit_.log_likelihood == pytest.approx(plain.fit_.log_likelihood, abs=1e-6)
        assert "held: it needs no gradient" in str(fixed.summary())


def test_a_variance_that_vanishes_without_reaching_zero_is_held_there():
    """-sigma^2 (1 + rho^2) with sigma = e^a: the search stops where little is left to gain, at a
    sigma so small that nothing is known of rho; both are held, and the third parameter is
    estimated."""

    def objective(x):
        sigma2 = (2 * x[0]).exp()
        value = -sigma2 * (1 + x[1] ** 2) - (x[2] - 1) ** 2
        slope = torch.stack((-2 * sigma2 * (1 + x[1] ** 2), -2 * sigma2 * x[1], -2 * (x[2] - 1)))
        return value.item(), slope

    best = marginal_fit.maximise(
        objective,
        f64([-1.0, 0.5, 0.0]),
        held={},
        limits={0: (-30.0, 30.0, "at its boundary 0")},
        tied={0: [1]},
        names=["log_sigma", "rho", "mean"],
        max_iterations=200,
    )
    assert best.converged and best.held.keys() == {0, 1}
    assert best.x[2].item() == pytest.approx(1, abs=1e-4)
    assert best.covariance[2, 2].item() == pytest.approx(0.5, rel=1e-4)


def test_units_of_time_and_missing_periods():
    """Distances are counted in periods, so phi does not depend on the unit of time. A period of
    weight 0 has no counts, and leaving it out makes a longer gap."""
    x, y, time, _ = simulated(6)
    model = model_of(y, family="poisson").fit(x, y, time)
    moved = model_of(y, family="poisson").fit(x, y, time * 3 + 0.5)
    assert moved.fit_.log_likelihood == pytest.approx(model.fit_.log_likelihood, abs=1e-5)
    for name in ("sd(path)", "cor(path)"):
        assert moved.variance_parameters().loc[name, "Estimate"] == pytest.approx(
            model.variance_parameters().loc[name, "Estimate"], abs=2e-3
        )
    weights, spoiled = torch.ones(20).double(), y.clone()
    weights[[4, 5, 11]] = 0
    spoiled[[4, 5, 11]] = math.nan
    keep = [t for t in range(20) if t not in (4, 5, 11)]
    a = model_of(y, family="poisson").fit(x, spoiled, time, weights=weights)
    b = model_of(y, family="poisson").fit(x[keep], y[keep], time[keep])
    assert a.fit_.log_likelihood == pytest.approx(b.fit_.log_likelihood, abs=1e-6)
    assert torch.allclose(a.path_effect[keep], b.path_effect, atol=1e-3)
    # What the second expects at the missing times is what the first has there.
    between = b._path_at(time[[4, 5, 11]])
    assert torch.allclose(between, a.path_effect[[4, 5, 11]], atol=1e-3)


def test_it_predicts_with_the_path():
    x, y, time, _ = simulated(7, times=12)
    for kind in ("ar1", "random_walk"):
        model = model_of(y, kind, family="poisson", site_slopes="linear").fit(x, y, time)
        gap = (time[1] - time[0]).item()
        phi = model.raw_path_rho.sigmoid().item() if kind == "ar1" else 1.0
        eta = (
            model.intercept
            + x @ model.weight
            + model.site_intercept
            + (time[:, None] * model.site_slope)
        )
        assert torch.allclose(model(x, time).mean.log(), eta + model.path_effect)
        ahead = torch.tensor([1.5 + 2 * gap, -1.5 - gap], dtype=torch.float64)
        eta = (
            model.intercept
            + x[:2] @ model.weight
            + model.site_intercept
            + (ahead[:, None] * model.site_slope)
        )
        path = torch.stack((phi**2 * model.path_effect[-1], phi * model.path_effect[0]))
        assert torch.allclose(model(x[:2], ahead).mean.log(), eta + path)
        again = NegBinMixedEffects(100, 2, family="poisson", site_path=kind).double()
        assert torch.equal(again(x, time).mean, torch.ones_like(y))  # not fitted: no path
        again.load_state_dict(model.state_dict())
        assert torch.equal(again(x, time).mean, model(x, time).mean)
        assert torch.equal(copy.deepcopy(model)(x, time).mean, model(x, time).mean)
        with pytest.raises(RuntimeError, match="path_effect"):
            again.load_state_dict(model.state_dict() | {"path_effect": torch.zeros(12, 99)})


def test_predictions_are_the_less_certain_the_further_ahead():
    """Parameters held: log rates of the draws are normal with the moments of the posterior, by
    dense matrices from the op's own modes and information (whose values other tests hold to
    SciPy's)."""
    x, y, time, _ = simulated(8, times=6, sites=20)
    model = model_of(y, family="poisson", site_slopes="linear").fit(x, y, time)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.fit(x, y, time)
    assert model.fit_.num_parameters == 0
    gap = (time[1] - time[0]).item()
    third = time[2].item()
    ahead = f64([third, third + gap / 3, 1.5 + gap, 1.5 + 3 * gap, 1.5 + 40 * gap])
    draws = 4000
    generator = torch.Generator().manual_seed(3)
    mixture = model.predictive(x[:1].expand(5, -1, -1), ahead, draws, generator=generator)
    log_rate = mixture.components.rate.log()  # [T', L, S]
    sigma = torch.nn.functional.softplus(model.raw_path_sigma).item()
    phi = model.raw_path_rho.sigmoid().item()
    everything = torch.cat((time, ahead)).numpy() / gap
    prior = sigma**2 * phi ** np.abs(np.subtract.outer(everything, everything))
    rows = np.column_stack((np.ones(11), torch.cat((time, ahead)).numpy()))
    prior += rows @ model.covariance.detach().numpy() @ rows.T
    _, _, precision = model._marginal(
        {name: value.double() for name, value in model.named_parameters()}, model.fit_.data
    )
    known, new = prior[:6, :6], prior[:6, 6:]
    for s in range(20):
        information = precision[s, 3:].detach().numpy()
        spread = prior[6:, 6:] - new.T @ np.linalg.solve(known + np.diag(1 / information), new)
        centre = model(x[:1].expand(5, -1, -1), ahead).mean.log()[:, s].detach().numpy()
        sample = log_rate[:, :, s].numpy()
        error = np.sqrt(np.diag(spread) / draws)
        assert (np.abs(sample.mean(1) - centre) < 5 * error).all()
        # 10 comparisons of each of 20 sites: normal limits of a sample variance at 5 sd.
        found = np.cov(sample)
        scale = np.sqrt(np.outer(np.diag(spread), np.diag(spread)) + spread**2)
        assert (np.abs(found - spread) < 5 * scale / math.sqrt(draws)).all()
    variance = log_rate.var(1).mean(-1)
    assert variance[0] < variance[1] and variance[2] < variance[3] < variance[4]


def test_exposure_censoring_and_few_periods():
    x, y, time, _ = simulated(9, times=10, sites=60, family="nb1")
    exposure = torch.rand(y.shape, dtype=torch.float64) + 0.5
    hidden = (y >= 1) & (y <= 4)
    low, high = torch.where(hidden, 1.0, y), torch.where(hidden, 4.0, y)
    model = model_of(y).fit(x, low, time, y_upper=high, exposure=exposure)
    full = model_of(y).fit(x, y, time, exposure=exposure)
    assert model.fit_.converged
    # Errors of what suppression takes away, at most four of them.
    difference = model.coefficients()["Estimate"] - full.coefficients()["Estimate"]
    extra = model.coefficients()["Std. Error"] ** 2 - full.coefficients()["Std. Error"] ** 2
    assert (difference.abs() < 4 * extra.clip(lower=1e-4) ** 0.5).all()
    mixture = model.predictive(x[:2], time[-2:] + 1, 5, exposure=exposure[:2])
    assert mixture.mean.isfinite().all()
    short = model_of(y, family="poisson").fit(x[:2], y[:2], time[:2])
    assert {"raw_path_sigma", "raw_path_rho"} <= short.fit_.held.keys()
    assert "not identified by fewer than three periods" in str(short.summary())


def test_summary_names_the_path():
    x, y, time, _ = simulated(10, times=8, sites=60)
    text = str(model_of(y, family="poisson").fit(x, y, time).summary())
    line = next(line for line in text.splitlines() if line.startswith("site.1"))
    assert line.split()[1] == "path" and line.endswith("(ar1)")
    text = str(model_of(y, "random_walk", family="poisson").fit(x, y, time).summary())
    line = next(line for line in text.splitlines() if line.startswith("site.1"))
    assert line.split()[1] == "step" and line.endswith("1.00 (random walk)")


def test_the_model_refuses():
    x, y, time, _ = simulated(11, times=4, sites=10)
    message = "site_path must be None, 'ar1' or 'random_walk', got 'ar2'"
    with pytest.raises(ValueError, match=message):
        NegBinMixedEffects(3, 1, site_path="ar2")
    model = model_of(y)
    with pytest.raises(ValueError, match="time must not decrease.*sort the periods"):
        model.fit(x, y, time.flip(0))
    message = "penalty: site_path must be None for training by steps.*fit"
    with pytest.raises(ValueError, match=message):
        model.penalty(x, time)
    with pytest.raises(ValueError, match="path_effects: the model must have been fitted"):
        model.path_effects()
    plain = NegBinMixedEffects(10, 2).double().fit(x, y, time)
    with pytest.raises(ValueError, match="path_effects: site_path must be 'ar1' or 'random_walk'"):
        plain.path_effects()
