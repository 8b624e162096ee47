"""The marginal likelihood by Laplace's approximation and by quadrature: families, censoring,
gradient."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import special, stats

import topreach  # noqa: F401 (loads the operators)

OP = torch.ops.topreach.laplace_marginal
CASES = list(itertools.product(("poisson", "nb1", "nb2"), ("log", "softplus"), (False, True)))


def f64(value):
    return torch.tensor(value, dtype=torch.float64)


def problem(family, zero_inflated, *, times=4, sites=5, seed=0):
    """eta, loading, y, upper, exposure, weights, dispersion, zero_logit, some counts large."""
    torch.manual_seed(seed)
    eta = torch.randn(times, sites, dtype=torch.float64) * 0.5 + 0.3
    loading = torch.randn(times, 2, dtype=torch.float64) * 0.6
    y = torch.poisson(torch.full((times, sites), 2.0, dtype=torch.float64))
    y[0, 0], y[1, 1], y[3, 0] = 40.0, 17.0, 0.0
    upper = y.clone()
    upper[2] += 8
    upper[3, :2] += 30
    exposure = torch.rand(times, sites, dtype=torch.float64) + 0.5
    weights = torch.rand(times, sites, dtype=torch.float64) + 0.2
    dispersion = None if family == "poisson" else f64(0.3)
    zero_logit = f64(-0.7) if zero_inflated else None
    return eta, loading, y, upper, exposure, weights, dispersion, zero_logit


def log_pmf(family, link, y, eta, exposure, dispersion, zero_logit):
    """From SciPy's distributions, elementwise."""
    mean = exposure * (np.exp(eta) if link == "log" else np.log1p(np.exp(eta)))
    if family == "poisson":
        log_p = stats.poisson.logpmf(y, mean)
    elif family == "nb1":
        log_p = stats.nbinom.logpmf(y, mean, special.expit(-dispersion))
    else:
        size = math.exp(dispersion)
        log_p = stats.nbinom.logpmf(y, size, size / (size + mean))
    if zero_logit is None:
        return log_p
    log_p = log_p + special.log_expit(-zero_logit)
    return np.where(y == 0, np.logaddexp(special.log_expit(zero_logit), log_p), log_p)


def numbers(value):
    return None if value is None else value.numpy() if value.ndim else value.item()


@pytest.mark.parametrize(("family", "link", "zero_inflated"), CASES)
def test_without_effects_it_is_the_sum_of_log_probabilities(family, link, zero_inflated):
    """Loading 0: nothing to integrate. Intervals are the sum of the probabilities in them."""
    eta, loading, y, upper, exposure, weights, d, z = problem(family, zero_inflated)
    args = (eta.numpy(), exposure.numpy(), numbers(d), numbers(z))
    for high in (None, upper):
        value, modes, precision = OP(
            eta, loading * 0, y, high, exposure, weights, d, z, family, link
        )
        want = np.full(y.shape, -np.inf)
        top = y if high is None else high
        for count in range(int(top.max()) + 1):
            inside = (y.numpy() <= count) & (count <= top.numpy())
            log_p = log_pmf(family, link, np.full(y.shape, count), *args)
            want = np.where(inside, np.logaddexp(want, log_p), want)
        want = (weights.numpy() * want).sum(0)
        assert np.allclose(value.numpy(), want, rtol=1e-12)
        assert torch.equal(modes, torch.zeros_like(modes))
        assert torch.equal(precision, f64([1.0, 0, 1]).expand(5, 3))


@pytest.mark.parametrize(("family", "link", "zero_inflated"), CASES)
@pytest.mark.parametrize("censored", [False, True])
def test_gradient_against_differences(family, link, zero_inflated, censored):
    """Of the value and of the modes, in all that they depend on; with wrong-signed information in
    some cells."""
    eta, loading, y, upper, exposure, weights, d, z = problem(family, zero_inflated)
    given = [p for p in (d, z) if p is not None]

    def outputs(eta, loading, *shared):
        shared = list(shared)
        dispersion = None if d is None else shared.pop(0)
        zero_logit = None if z is None else shared.pop(0)
        high = upper if censored else None
        return OP(eta, loading, y, high, exposure, weights, dispersion, zero_logit, family, link)[
            :2
        ]

    arguments = [p.clone().requires_grad_() for p in (eta, loading, *given)]
    assert torch.autograd.gradcheck(outputs, arguments, eps=1e-5, atol=1e-7, rtol=1e-6)


def by_quadrature(eta, loading, y, log_p, nodes=80):
    """log of the integral over u of one site, by adaptive Gauss-Hermite rules (Liu and Pierce
    1994): centred on the mode, which is searched for here, and scaled by the curvature there."""
    from scipy.optimize import minimize

    def joint(u):
        return log_p(eta + loading @ u).sum() - u @ u / 2

    start = minimize(
        lambda u: -joint(u),
        np.zeros(2),
        method="Nelder-Mead",
        options={"xatol": 1e-8, "fatol": 1e-12},
    )
    e = np.eye(2) * 1e-3
    curvature = [
        [
            joint(start.x + a + b)
            - joint(start.x + a - b)
            - joint(start.x - a + b)
            + joint(start.x - a - b)
            for b in e
        ]
        for a in e
    ]
    root = np.linalg.cholesky(np.linalg.inv(-np.array(curvature) / 4e-6))
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    total = -np.inf
    for (a, wa), (b, wb) in itertools.product(zip(x, w, strict=True), repeat=2):
        u = start.x + root @ np.array([a, b])
        term = joint(u) + (a * a + b * b) / 2 + math.log(wa) + math.log(wb)
        total = np.logaddexp(total, term)
    return total + np.log(np.diag(root)).sum() - math.log(2 * math.pi)


@pytest.mark.parametrize("family", ["poisson", "nb1", "nb2"])
@pytest.mark.parametrize(("mean", "bound"), [(60.0, 1e-2), (6.0, 2e-2), (0.3, 0.1)])
def test_close_to_adaptive_quadrature(family, mean, bound):
    """Laplace's relative error is O(1/n), n the counts of a site: small for large counts. The
    bounds for sparse counts are stated here."""
    rng = np.random.default_rng(3)
    times, sites = 5, 3
    loading = np.column_stack((np.full(times, 0.6), 0.3 * np.linspace(-1.4, 1.4, times)))
    eta = np.full((times, sites), math.log(mean))
    d = {"poisson": None, "nb1": -0.5, "nb2": 1.5}[family]
    if family == "nb1":
        eta = eta - d
    y = rng.poisson(mean * rng.gamma(4, 0.25, (times, sites))).astype(float)
    value, _, _ = OP(
        torch.from_numpy(eta),
        torch.from_numpy(loading),
        torch.from_numpy(y),
        None,
        None,
        None,
        None if d is None else f64(d),
        None,
        family,
        "log",
    )
    for s in range(sites):

        def log_p(at, s=s):
            return log_pmf(family, "log", y[:, s], at, 1.0, d, None)

        want = by_quadrature(eta[:, s], loading, y[:, s], log_p)
        assert abs(value[s].item() - want) < bound


def test_error_falls_with_the_counts():
    """Poisson, one effect: the error at mean m behaves like 1/m."""
    loading = np.column_stack((np.full(4, 0.8), np.zeros(4)))
    errors = []
    for mean in (5.0, 20.0, 80.0):
        y = np.round(mean * np.array([0.5, 0.8, 1.2, 1.6]))
        eta = np.full((4, 1), math.log(mean))
        value, _, _ = OP(
            torch.from_numpy(eta),
            torch.from_numpy(loading),
            torch.from_numpy(y)[:, None],
            None,
            None,
            None,
            None,
            None,
            "poisson",
            "log",
        )
        want = by_quadrature(
            eta[:, 0], loading, y, lambda at, y=y: stats.poisson.logpmf(y, np.exp(at))
        )
        errors.append(abs(value.item() - want))
    assert errors[0] < 0.02
    for before, after in itertools.pairwise(errors):
        assert 2.5 < before / after < 6


def test_modes_are_stationary_and_precision_is_the_curvature():
    eta, loading, y, _, exposure, weights, d, _ = problem("nb2", False)
    _, modes, precision = OP(eta, loading, y, None, exposure, weights, d, None, "nb2", "log")

    def joint(u, s):
        at = eta.numpy()[:, s] + loading.numpy() @ u
        log_p = log_pmf("nb2", "log", y.numpy()[:, s], at, exposure.numpy()[:, s], 0.3, None)
        return (weights.numpy()[:, s] * log_p).sum() - u @ u / 2

    h = 1e-4
    for s in range(5):
        u = modes[s].numpy()
        e = np.eye(2) * h
        gradient = [(joint(u + e[i], s) - joint(u - e[i], s)) / (2 * h) for i in (0, 1)]
        assert np.allclose(gradient, 0, atol=1e-6)  # h^2 and rounding / h
        hessian = [
            (
                joint(u + e[i] + e[j], s)
                - joint(u + e[i] - e[j], s)
                - joint(u - e[i] + e[j], s)
                + joint(u - e[i] - e[j], s)
            )
            / (4 * h * h)
            for i, j in ((0, 0), (0, 1), (1, 1))
        ]
        assert np.allclose(-np.array(hessian), precision[s].numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["poisson", "nb1", "nb2"])
@pytest.mark.parametrize("zero_inflated", [False, True])
def test_modes_are_found_from_anywhere(family, zero_inflated):
    """Empty sites, huge counts where the start predicts next to none, weight 0, a single period."""
    y = torch.tensor([[0.0, 1e6, 3.0, 0.0, 7.0, 2e5]], dtype=torch.float64).expand(3, 6).clone()
    y[1, 2] = 1e5
    eta = torch.tensor([0.0, -5.0, 1.0, 12.0, -12.0, 3.0], dtype=torch.float64).expand(3, 6)
    weights = torch.ones_like(y)
    weights[:, 4] = 0
    y[:, 4] = math.nan  # not read
    d = None if family == "poisson" else f64(0.2)
    z = f64(-1.0) if zero_inflated else None
    for scale in (1e-3, 0.3, 3.0, 30.0):
        loading = torch.tensor([[1.0, -1.0], [1.0, 0.0], [1.0, 1.0]], dtype=torch.float64) * scale
        eta_ = eta.clone().requires_grad_()
        value, modes, precision = OP(eta_, loading, y, None, None, weights, d, z, family, "log")
        assert value.isfinite().all() and modes.isfinite().all()
        # At the mode u = sum_t l1_t v_t, and d value / d eta without the determinant's part is l1.
        assert (precision[:, 0] * precision[:, 2] > precision[:, 1] ** 2).all()
        (gradient,) = torch.autograd.grad(value.sum(), eta_)
        assert gradient.isfinite().all()
        assert value[4] == 0 and (modes[4] == 0).all() and (gradient[:, 4] == 0).all()
        if family == "poisson" and not zero_inflated and scale >= 3:  # the data rule
            at = (eta + loading @ modes.T).exp()
            for s in (1, 5):
                assert torch.allclose(at[:, s].sum(), y[:, s].sum(), rtol=0.01)


def singular_site(d):
    """A site of Cook County whose two explanations of a zero, extra or by a falling rate, meet near
    d = -3.82: its observed information is singular at the mode."""
    eta = torch.tensor([[4.5239], [4.8623], [5.5580], [6.1269]], dtype=torch.float64)
    time = torch.tensor([-1.3416, -0.4472, 0.4472, 1.3416], dtype=torch.float64)
    loading = torch.ops.topreach.negbin_mixed_effects_loading(
        time, f64([-0.66862, -1.0365]), f64(-0.46448)
    )
    y = torch.tensor([[1.0], [8.0], [2.0], [0.0]], dtype=torch.float64)
    return (eta - 3.8 - d, loading, y, None, None, None, d, f64(-5.8), "nb1", "log")


def test_a_singular_information_does_not_make_the_value_infinite():
    """Its logarithm changes smoothly into that of the information without negative terms. The
    gradient agrees with differences on both sides and at the worst point, and precisions stay away
    from singular ones. The error is that of points without this change (.73 at d = -3.6)."""
    worst = 0.0
    for at in torch.linspace(-4.0, -3.6, 41, dtype=torch.float64):
        d = at.clone().requires_grad_()
        value, _, precision = OP(*singular_site(d))
        (gradient,) = torch.autograd.grad(value.sum(), d)
        h = 1e-6
        up, down = (OP(*singular_site(at + step))[0].item() for step in (h, -h))
        # The third derivative is large there: relative to it, h^2.
        assert gradient.item() == pytest.approx((up - down) / (2 * h), rel=1e-3, abs=1e-4)
        assert torch.linalg.det(precision[0, [0, 1, 1, 2]].reshape(2, 2)) >= 0.5
        integral = OP(*singular_site(at), None, 25)[0].item()
        worst = max(worst, abs(value.item() - integral))
    assert worst < 0.75


def test_negative_information_of_a_cell_stays_as_it_is():
    """NB1 is not log-concave: the determinant is that of the sum over the site's cells, by second
    differences of SciPy's log-probabilities, though some cells' are negative."""
    loading = np.column_stack((np.full(5, 0.3), 0.1 * np.linspace(-1.5, 1.5, 5)))
    eta, y, d = np.full(5, -2.0), np.array([3.0, 5, 2, 0, 6]), 0.2

    def cells(at):
        return log_pmf("nb1", "log", y, at, 1.0, d, None)

    value, modes, precision = OP(
        torch.from_numpy(eta)[:, None],
        torch.from_numpy(loading),
        torch.from_numpy(y)[:, None],
        None,
        None,
        None,
        f64(d),
        None,
        "nb1",
        "log",
    )
    u, h = modes[0].numpy(), 1e-3
    at = eta + loading @ u
    information = -(cells(at + h) - 2 * cells(at) + cells(at - h)) / h**2
    assert information.min() < -1e-3
    hessian = np.eye(2) + loading.T @ (information[:, None] * loading)
    want = cells(at).sum() - u @ u / 2 - np.linalg.slogdet(hessian)[1] / 2
    assert value.item() == pytest.approx(want, abs=1e-6)
    assert np.allclose(precision[0, [0, 1, 1, 2]].reshape(2, 2).numpy(), hessian, atol=1e-5)


# ---- adaptive Gauss-Hermite quadrature -----------------------------------------------------------


@pytest.mark.parametrize(("family", "link", "zero_inflated"), CASES)
def test_gradient_of_quadrature_against_differences(family, link, zero_inflated):
    """Of the value and of the modes, for odd and even numbers of nodes."""
    eta, loading, y, upper, exposure, weights, d, z = problem(family, zero_inflated)
    given = [p for p in (d, z) if p is not None]

    def outputs(nodes, eta, loading, *shared):
        shared = list(shared)
        dispersion = None if d is None else shared.pop(0)
        zero_logit = None if z is None else shared.pop(0)
        return OP(
            eta,
            loading,
            y,
            upper,
            exposure,
            weights,
            dispersion,
            zero_logit,
            family,
            link,
            None,
            nodes,
        )[:2]

    for nodes in (2, 5):
        arguments = [p.clone().requires_grad_() for p in (eta, loading, *given)]
        assert torch.autograd.gradcheck(
            lambda *a, n=nodes: outputs(n, *a), arguments, eps=1e-5, atol=1e-7, rtol=1e-6
        )


@pytest.mark.parametrize("family", ["poisson", "nb1", "nb2"])
@pytest.mark.parametrize("mean", [6.0, 0.3])
def test_quadrature_goes_to_the_integral(family, mean):
    """One node is Laplace; the error against dense two-dimensional quadrature about a mode found by
    another search falls with the nodes, to 1e-6 at 25 in each effect. 4 and 7 nodes are of the
    orders 2 and 3 in the number of counts, (k + 2) // 3 of k nodes; 2 and 3 nodes are of that of
    Laplace."""
    rng = np.random.default_rng(3)
    times, sites = 5, 3
    loading = np.column_stack((np.full(times, 0.6), 0.3 * np.linspace(-1.4, 1.4, times)))
    d = {"poisson": None, "nb1": -0.5, "nb2": 1.5}[family]
    eta = np.full((times, sites), math.log(mean) - (d if family == "nb1" else 0.0))
    y = rng.poisson(mean * rng.gamma(4, 0.25, (times, sites))).astype(float)
    arguments = (
        torch.from_numpy(eta),
        torch.from_numpy(loading),
        torch.from_numpy(y),
        None,
        None,
        None,
        None if d is None else f64(d),
        None,
        family,
        "log",
        None,
    )
    laplace = OP(*arguments[:-1])
    one = OP(*arguments, 1)
    assert all(torch.equal(a, b) for a, b in zip(laplace, one, strict=True))
    want = [
        by_quadrature(
            eta[:, s],
            loading,
            y[:, s],
            lambda at, s=s: log_pmf(family, "log", y[:, s], at, 1.0, d, None),
        )
        for s in range(sites)
    ]
    errors = [np.abs(OP(*arguments, nodes)[0].numpy() - want).max() for nodes in (1, 4, 7, 25)]
    assert errors[2] < errors[1] < errors[0] and errors[2] < errors[0] / 3
    assert errors[3] < 1e-6  # of the oracle: 80 nodes, and its mode to 1e-8


def test_quadrature_where_the_information_is_singular():
    """The nodes are spread without the negative information: 9 in each effect agree with 61."""
    for d in (-3.9, -3.82, -3.7):
        few, many = (OP(*singular_site(f64(d)), None, nodes)[0].item() for nodes in (9, 61))
        assert few == pytest.approx(many, abs=1e-3)
        assert abs(many - OP(*singular_site(f64(d)))[0].item()) > 0.1  # Laplace is far off


def test_quadrature_does_not_depend_on_threads():
    eta, loading, y, _, exposure, weights, d, z = problem("nb1", True, sites=200)
    arguments = (eta, loading, y, None, exposure, weights, d, z, "nb1", "log", None, 4)
    value = OP(*arguments)[0]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(OP(*arguments)[0], value)
    finally:
        torch.set_num_threads(threads)


def test_quadrature_refuses():
    eta, loading, y, _, exposure, weights, d, _ = problem("nb1", False)
    arguments = (eta, loading, y, None, exposure, weights, d, None, "nb1", "log")
    for nodes in (0, 101):
        message = f"quadrature must be from 1 to 100 nodes, got {nodes}"
        with pytest.raises(ValueError, match=message):
            OP(*arguments, None, nodes)
    path = torch.zeros(4, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="quadrature must be 1 with a path, got 3"):
        OP(*arguments, path, 3)


def test_it_does_not_depend_on_threads_order_or_dtype():
    eta, loading, y, upper, exposure, weights, d, z = problem("nb1", True, sites=300)
    y, upper = y.clamp_max(9), upper.clamp(max=9)

    def gradients(order):
        arguments = [p.clone().requires_grad_() for p in (eta[:, order], loading, d, z)]
        value, modes, _ = OP(
            arguments[0],
            arguments[1],
            y[:, order],
            None,
            exposure[:, order],
            weights[:, order],
            arguments[2],
            arguments[3],
            "nb1",
            "log",
        )
        return value, torch.autograd.grad(value.sum() + modes.sum(), arguments)

    everything = torch.arange(300)
    value, grads = gradients(everything)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        again, same = gradients(everything)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(value, again)
    assert all(torch.equal(a, b) for a, b in zip(grads, same, strict=True))
    order = torch.randperm(300)
    moved, other = gradients(order)
    assert torch.equal(moved, value[order]) and torch.equal(other[0], grads[0][:, order])
    single, _, _ = OP(
        eta.float(),
        loading.float(),
        y.float(),
        None,
        exposure.float(),
        weights.float(),
        d.float(),
        z.float(),
        "nb1",
        "log",
    )
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), value, rtol=1e-5, atol=1e-5)


def test_opcheck():
    eta, loading, y, upper, exposure, weights, d, z = problem("nb2", True)
    arguments = (
        eta.requires_grad_(),
        loading.requires_grad_(),
        y,
        upper,
        exposure,
        weights,
        d.requires_grad_(),
        z.requires_grad_(),
        "nb2",
        "log",
    )
    torch.library.opcheck(OP.default, arguments)
    torch.library.opcheck(OP.default, (*arguments, None, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "nb3"}, "family must be 'nb1', 'nb2' or 'poisson', got 'nb3'"),
        ({"link": "probit"}, "link must be 'log' or 'softplus'"),
        ({"eta": torch.zeros(3)}, r"eta must have shape \[T, S\]"),
        ({"loading": torch.zeros(3, 2)}, r"loading must have shape \[T, 2\] with T = 4"),
        ({"y": torch.zeros(4, 4)}, r"y must have shape \[T, S\]"),
        ({"y": torch.full((4, 5), -1.0)}, "y must hold whole numbers >= 0, got -1 at period 0"),
        ({"y": torch.full((4, 5), 0.5)}, "y must hold whole numbers >= 0, got 0.5"),
        ({"y": torch.full((4, 5), math.nan)}, "y must hold whole numbers >= 0, got nan"),
        ({"upper": torch.zeros(4, 5)}, "upper must hold whole numbers not below y"),
        ({"upper": torch.full((4, 5), math.inf)}, "upper must hold whole numbers not below y"),
        ({"exposure": torch.zeros(4, 5)}, "exposure must be positive and finite, got 0"),
        ({"weights": -torch.ones(4, 5)}, "weights must be finite and not negative, got -1"),
        ({"dispersion": None}, "dispersion must be given for family 'nb1'"),
        ({"family": "poisson"}, "dispersion must be None for family 'poisson'"),
        ({"dispersion": torch.zeros(2)}, "dispersion must be a scalar"),
    ],
)
def test_errors(change, message):
    eta, loading, y, upper, exposure, weights, d, z = problem("nb1", True)
    given = dict(
        eta=eta,
        loading=loading,
        y=y,
        upper=upper,
        exposure=exposure,
        weights=weights,
        dispersion=d,
        zero_logit=z,
        family="nb1",
        link="log",
    )
    with pytest.raises(ValueError, match="laplace_marginal: " + message):
        OP(*{**given, **change}.values())


def test_an_overflow_is_nan_not_a_number():
    value, _, _ = OP(
        torch.full((1, 1), 800.0).double(),
        torch.zeros(1, 2).double(),
        torch.ones(1, 1).double(),
        None,
        None,
        None,
        None,
        None,
        "poisson",
        "log",
    )
    assert not value.isfinite().any()
