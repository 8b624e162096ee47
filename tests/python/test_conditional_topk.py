"""The conditional estimator of the perturbed top-K: b_i = mean_j 1 - F(x_ij) and
g_i = mean_j f(x_ij) (v_i - v_a) / sigma, x_ij from the K-th largest of the others
(kernels/perturbed_topk.h).

Expectations are tested over many rows, each with its own noise: means within 5 standard errors."""

import numpy as np
import pytest
import reference
import torch
from scipy import integrate, stats

import topreach as tr

KEY = torch.tensor([31, 415], dtype=torch.int64)
INF = float("inf")
NOISES = list(reference.DISTRIBUTION)


def vjp(scores, v, k, **options):
    scores = scores.detach().requires_grad_()
    options = dict(estimator="conditional", key=KEY) | options
    b = tr.perturbed_topk(scores, k, **options)
    return b.detach(), torch.autograd.grad(b, scores, v)[0]


def over_rows(scores, v, k, rows, **options):
    """Values and gradients of the same scores [S] in many rows, in float64."""
    many = torch.as_tensor(scores, dtype=torch.float64).repeat(rows, 1)
    return vjp(many, torch.as_tensor(v, dtype=torch.float64).repeat(rows, 1), k, **options)


def assert_mean_is(sample, want, slack=0.0):
    error = (sample.mean(0) - torch.as_tensor(want)).abs()
    assert (error <= 5 * sample.std(0) / len(sample) ** 0.5 + slack).all()


# ---- the same noise ------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sites, k", [(2, 1), (7, 5), (65, 20), (100, 99)])
def test_matches_reference(noise, dtype, sites, k):
    torch.manual_seed(sites)
    scores, v = torch.rand(2, sites, dtype=dtype), torch.rand(2, sites, dtype=dtype)
    sigma, draws = 0.25, 37
    b, g = vjp(scores, v, k, sigma=sigma, num_samples=draws, noise=noise)
    z = tr.topk_noise(KEY, draws, 2, sites, noise=noise)
    # x is rounded at 2 max r / sigma + |z|, |z| < 25; F and f have slopes of at most 1/2. Where not
    # tiny, they have errors of 1e-6 as floats and 1e-14 as doubles; then a sum of 37
    eps = torch.finfo(dtype).eps
    bound = eps * (2 / sigma + 25 + draws) + (1e-6 if dtype == torch.float32 else 1e-14)
    for row in range(2):
        want_b, want_g = reference.conditional_topk(
            scores[row].numpy(), k, sigma, z[:, row].numpy(), v[row].numpy(), noise
        )
        assert np.abs(b[row].numpy() - want_b.mean(0)).max() < bound
        assert np.abs(g[row].numpy() - want_g.mean(0)).max() < 2 * bound / sigma


def test_equal_v_has_no_gradient():
    """v_i - v_a = 0 for every draw: the rows of the Jacobian sum to 0, exactly."""
    scores = torch.rand(3, 200)
    for estimator, exact in (("conditional", True), ("score", False)):
        _, g = vjp(scores, torch.full_like(scores, 0.3), 20, sigma=0.1, estimator=estimator)
        assert (g == 0).all() == exact


def test_only_differences_of_scores_matter():
    """x is formed from differences: an exact shift changes no bit, except if u ties by rounding."""
    scores = torch.rand(2, 150, dtype=torch.float64).mul(1024).round() / 1024
    v = torch.rand(2, 150, dtype=torch.float64)
    for a, b in zip(vjp(scores, v, 20, sigma=0.5), vjp(scores + 64.0, v, 20, sigma=0.5)):
        assert torch.equal(a, b)


# ---- closed forms, quadrature, enumeration -------------------------------------------------------


def test_two_sites_closed_form():
    """P(site 0 wins) = Phi((r_0 - r_1) / (sigma sqrt 2)), and its derivative."""
    sigma, x = 0.5, 0.4 / (0.5 * 2**0.5)
    b, g = over_rows([0.3, -0.1], [1.0, 0.0], 1, 400, sigma=sigma, num_samples=50)
    assert_mean_is(b, [stats.norm.cdf(x), stats.norm.sf(x)])
    slope = stats.norm.pdf(x) / (sigma * 2**0.5)
    assert_mean_is(g, [slope, -slope])


def test_gumbel_noise_gives_softmax():
    """K = 1 with Gumbel noise: softmax(r / sigma), and its Jacobian."""
    sigma, sites = 0.7, 6
    torch.manual_seed(1)
    r, v = torch.randn(sites, dtype=torch.float64), torch.randn(sites, dtype=torch.float64)
    p = torch.softmax(r / sigma, -1)
    b, g = over_rows(r, v, 1, 1000, sigma=sigma, num_samples=20, noise="gumbel")
    assert_mean_is(b, p)
    assert_mean_is(g, p * (v - (p * v).sum()) / sigma)


@pytest.mark.parametrize("noise", ["logistic", "laplace"])
def test_best_of_four_by_quadrature(noise):
    """K = 1: b_i = int f_i prod_{k != i} F_k, and db_i/dr_k = -int f_i f_k prod_{l != i, k} F_l."""
    dist, sigma = reference.DISTRIBUTION[noise], 0.6
    r, v = np.array([0.2, 0.9, -0.4, 0.5]), np.array([1.0, 0.2, -0.7, 0.4])

    def integral(densities, functions):
        def integrand(t):
            x = (t - r) / sigma
            return np.prod(dist.pdf(x[densities]) / sigma) * np.prod(dist.cdf(x[functions]))

        cuts = [-40, *sorted(r), 40]  # the Laplace density has a kink at each score
        return sum(
            integrate.quad(integrand, *pair, epsabs=1e-12)[0] for pair in zip(cuts, cuts[1:])
        )

    every = np.arange(4)
    value = [integral([i], every != i) for i in every]
    g = np.zeros(4)
    for i in every:
        for k in every[every != i]:
            g[i] += integral([i, k], (every != i) & (every != k)) * (v[i] - v[k])
    b, slope = over_rows(r, v, 1, 1000, sigma=sigma, num_samples=20, noise=noise)
    assert_mean_is(b, value)
    assert_mean_is(slope, g)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("k", [1, 2, 4])
def test_small_case_by_enumeration(k, noise):
    """Value and gradient at S = 5 against a sum over subsets within an integral, and its
    differences."""
    sigma, dist = 0.4, reference.DISTRIBUTION[noise]
    scores = np.array([0.1, 0.5, -0.2, 0.45, 0.0])
    v = np.array([0.3, 1.0, -0.5, 0.2, 0.7])

    def exact(r):
        return reference.expected_topk_by_enumeration(r, k, sigma, dist)

    step = 1e-3  # the differences are right to step^2 and to the quadrature's 1e-9 / step
    slope = [(exact(scores + e) - exact(scores - e)) @ v / (2 * step) for e in step * np.eye(5)]
    b, g = over_rows(scores, v, k, 600, sigma=sigma, num_samples=30, noise=noise)
    assert_mean_is(b, exact(scores), slack=1e-8)
    assert_mean_is(g, slope, slack=2e-5)


@pytest.mark.parametrize("sites, k, sigma", [(1620, 100, 0.05), (300, 280, 0.3), (12, 6, 1.0)])
def test_agrees_with_the_exact_operator(sites, k, sigma):
    torch.manual_seed(sites)
    r, v = torch.rand(sites, dtype=torch.float64), torch.rand(sites, dtype=torch.float64)
    r.requires_grad_()
    exact = tr.expected_topk(r, k, sigma=sigma)
    (slope,) = torch.autograd.grad(exact, r, v)
    b, g = over_rows(r.detach(), v, k, 200, sigma=sigma, num_samples=20)
    # 5 standard errors hold at each of `sites` sites but for one in a thousand tests; sites of tiny
    # probability have skewed terms, hence the slack of the exact operator's own bound, 1e-6
    assert_mean_is(b, exact.detach(), slack=1e-6)
    assert_mean_is(g, slope, slack=1e-6 / sigma)


def test_expected_jacobian_is_symmetric():
    sites, rows, sigma = 6, 3000, 0.5
    r = torch.tensor([0.1, 0.4, -0.3, 0.2, 0.0, 0.5])
    columns = [over_rows(r, v, 2, rows, sigma=sigma, num_samples=10)[1] for v in torch.eye(sites)]
    jacobian = torch.stack(columns, -1)  # [rows, i, k]: d b_k / d r_i of one row's draws
    assert_mean_is(jacobian - jacobian.mT, torch.zeros(sites, sites))
    # its columns sum to 0 in expectation, but not for each draw: sum_i g_i
    total = jacobian.sum(1)
    assert_mean_is(total, torch.zeros(sites))
    assert (total.abs() > 1e-3).any()


def test_one_draw_is_unbiased():
    r, v = [0.0, 0.3, 0.1], [1.0, 0.0, 0.5]
    b, g = over_rows(r, v, 1, 20_000, sigma=0.5, num_samples=1)
    exact = torch.tensor(r, dtype=torch.float64, requires_grad=True)
    value = tr.expected_topk(exact, 1, sigma=0.5)
    (slope,) = torch.autograd.grad(value, exact, torch.tensor(v, dtype=torch.float64))
    assert_mean_is(b, value.detach())
    assert_mean_is(g, slope)


# ---- variance ------------------------------------------------------------------------------------


def test_has_far_less_variance():
    """Measured at this size: gradient 600 times less than score_loo's, value 100 times less."""
    torch.manual_seed(0)
    r, v = torch.rand(300), torch.rand(300)
    spread = {}
    for estimator in ("score_loo", "conditional"):
        b, g = over_rows(r, v, 30, 200, sigma=0.05, estimator=estimator)
        spread[estimator] = b.var(0).sum(), g.var(0).sum()
    for loo, conditional, times in zip(spread["score_loo"], spread["conditional"], (20, 100)):
        assert conditional < loo / times


@pytest.mark.parametrize("sigma", [0.01, 1.0])
def test_rows_sum_to_k_in_expectation(sigma):
    """Per draw the sum's variance is about V = sum P (1 - P) <= min(K, S - K); over J draws V /
    J."""
    torch.manual_seed(0)
    r = torch.rand(1620)
    b, _ = over_rows(r, r, 100, 200, sigma=sigma)
    total = b.sum(-1)
    assert_mean_is(total[:, None], [100.0])
    p = tr.expected_topk(r.double(), 100, sigma=sigma)
    variance = (p * (1 - p)).sum() / 100
    # V / J is a first-order value; the sample's variance is known to sqrt(2 / 200) = 10 %
    assert 0.4 * variance < total.var() < 1.7 * variance
    assert total.std() < 1.2


# ---- edges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masked_and_forced_sites(noise, dtype):
    scores = torch.tensor([[0.0, -INF, 0.5, INF, 0.2, -INF]], dtype=dtype)
    v = torch.rand(1, 6, dtype=dtype)
    b, g = vjp(scores, v, 3, sigma=1.0, num_samples=50, noise=noise)
    assert b[0, [1, 5]].tolist() == [0, 0] and b[0, 3] == 1
    assert (g[0, [1, 3, 5]] == 0).all() and (g[0, [0, 2, 4]] != 0).all()
    assert ((b > 0) & (b < 1))[0, [0, 2, 4]].all()
    # the forced site takes a place, the masked ones none: the rest is a separate problem
    open_sites = tr.expected_topk(scores[0, [0, 2, 4]], 2, sigma=1.0)
    if noise == "normal":
        many, _ = over_rows(scores[0], v[0], 3, 500, sigma=1.0, num_samples=20)
        assert_mean_is(many[:, [0, 2, 4]], open_sites, slack=1e-6)
    # exactly k open sites, or fewer, or more than k forced: nothing is left to chance
    for k in (4, 5):
        b, g = vjp(scores, v, k, sigma=1.0, noise=noise)
        assert torch.equal(b, tr.topk_mask(scores, k)) and (g == 0).all()
    for value in (INF, -INF):
        b, g = vjp(torch.full((4,), value, dtype=dtype), v[0, :4], 2, sigma=1.0, noise=noise)
        assert b.tolist() == [1, 1, 0, 0] and (g == 0).all()
    scores = torch.tensor([INF, 0.0, INF, INF, -INF], dtype=dtype)
    b, g = vjp(scores, v[0, :5], 2, sigma=1.0, noise=noise)
    assert b.tolist() == [1, 0, 1, 0, 0] and (g == 0).all()


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_gaps_and_small_sigma_give_the_hard_mask(noise, dtype):
    torch.manual_seed(0)
    scores = torch.randperm(200).to(dtype)
    v = torch.rand(200, dtype=dtype)
    for sigma in (1e-4, 1e-12, torch.finfo(dtype).tiny):
        b, g = vjp(scores, v, 20, sigma=sigma, noise=noise)
        assert torch.equal(b, tr.topk_mask(scores, 20)) and (g == 0).all()
    b, g = vjp(scores * 1e30, v, 20, sigma=1.0, noise=noise)
    assert torch.equal(b, tr.topk_mask(scores, 20)) and (g == 0).all()


def test_equal_scores():
    scores, v = torch.zeros(4, 50), torch.rand(4, 50)
    b, g = vjp(scores, v, 10, sigma=1.0, num_samples=500)
    assert (b - 0.2).abs().max() < 0.05 and not g.isnan().any()
    # far below the resolution of the scores, where u ties: finite, and between 0 and 1
    b, g = vjp(scores + 1e7, v, 10, sigma=1e-3)
    assert ((b >= 0) & (b <= 1)).all() and g.isfinite().all()


def test_must_not_pass_gradcheck():
    """g is the gradient of the expectation; for a fixed key the value has another derivative."""
    scores = torch.randn(6, dtype=torch.float64, requires_grad=True)
    passed = torch.autograd.gradcheck(
        lambda s: tr.perturbed_topk(
            s, 2, sigma=1.0, num_samples=50, estimator="conditional", key=KEY
        ),
        (scores,),
        raise_exception=False,
    )
    assert not passed
