"""A budget and a noise scale for each row, and the gradient in the noise scale."""

import numpy as np
import pytest
import reference
import torch
from scipy import stats

import topreach as tr

KEY = torch.tensor([123, 456], dtype=torch.int64)
INF = float("inf")
F64 = torch.float64
METHODS = ["exact", "mean_field"]
BOUND = 3e-9  # of the exact operator


def normal(*shape, seed=0, dtype=F64):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def by_rows(f, scores, k, sigma):
    return torch.stack([f(r, int(a), float(s)) for r, a, s in zip(scores, k, sigma, strict=True)])


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_masks_of_rows(dtype):
    scores = normal(5, 30, dtype=dtype).mul(2).round()  # ties
    scores[1, ::2], scores[2, ::3] = -INF, INF
    k = torch.tensor([0, 17, 25, 30, 3])
    want = torch.stack([tr.topk_mask(r, int(a)) for r, a in zip(scores, k, strict=True)])
    assert torch.equal(tr.topk_mask(scores, k), want)
    assert torch.equal(tr.topk_mask(scores, k.int()), want)
    assert torch.equal(tr.topk_mask(scores, torch.tensor(4)), tr.topk_mask(scores, 4))
    many = scores.expand(2, 5, 30)
    assert torch.equal(tr.topk_mask(many, k), want.expand(2, 5, 30))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("method", METHODS)
def test_expected_topk_of_rows(method, dtype):
    """Row by row with numbers: the bound of each, and the rounding of the result."""
    scores, v = normal(6, 40, dtype=dtype), normal(6, 40, seed=1, dtype=dtype)
    scores[1, ::4], scores[2, :3] = -INF, INF
    k = torch.tensor([0, 7, 12, 40, 39, 1])
    sigma = torch.tensor([0.3, 1.0, 0.02, 0.5, 3.0, 0.0], dtype=dtype)
    leaf = scores.clone().requires_grad_()
    got = tr.expected_topk(leaf, k, sigma=sigma, method=method)
    (g,) = torch.autograd.grad(got, leaf, v)
    other = scores.clone().requires_grad_()
    want = by_rows(lambda r, a, s: tr.expected_topk(r, a, sigma=s, method=method), other, k, sigma)
    (want_g,) = torch.autograd.grad(want, other, v)
    eps = torch.finfo(dtype).eps
    assert got.dtype == dtype and (got - want).abs().max() <= 2 * (BOUND + eps)
    size = (v.abs().amax(-1) / sigma.clamp_min(1e-9)).unsqueeze(-1)
    assert ((g - want_g).abs() <= 4 * (BOUND + eps) * size).all()


@pytest.mark.parametrize("estimator", ["score", "score_loo", "conditional"])
def test_perturbed_topk_of_rows(estimator):
    """The same noise as with numbers, in units of sigma: the same sets but for ties within
    rounding."""
    scores = normal(6, 40)
    k = torch.tensor([0, 7, 12, 40, 39, 1])
    sigma = torch.tensor([0.3, 1.0, 0.02, 0.5, 3.0, 0.0], dtype=F64)
    options = dict(num_samples=60, estimator=estimator, key=KEY)
    got = tr.perturbed_topk(scores, k, sigma=sigma, **options)
    for row, (a, s) in enumerate(zip(k.tolist(), sigma.tolist(), strict=True)):
        want = tr.perturbed_topk(scores[row], a, sigma=s, row_offset=row, **options)
        assert (got[row] - want).abs().max() < 1e-12
    gradients = []
    for value in (0.3, torch.tensor(0.3, dtype=F64)):
        leaf = scores.clone().requires_grad_()
        b = tr.perturbed_topk(leaf, 7, sigma=value, **options)
        gradients.append(torch.autograd.grad(b, leaf, normal(6, 40, seed=1))[0])
    assert torch.allclose(*gradients, rtol=1e-9, atol=1e-9)


def test_gradient_in_sigma_closed_form():
    """Two sites: b_0 = Phi(d), d = gap / (sigma sqrt 2); db_0/dsigma = -phi(d) d / sigma."""
    gaps = torch.tensor([0.0, 1e-3, 0.7, -2.0, 1e6])
    sigma = torch.tensor([0.01, 0.5, 1.0, 3.0, 1.0], dtype=F64, requires_grad=True)
    scores = torch.stack([gaps.double(), torch.zeros(5, dtype=F64)], -1)
    b = tr.expected_topk(scores, 1, sigma=sigma)
    (g,) = torch.autograd.grad(b[:, 0].sum(), sigma)
    s = sigma.detach().numpy()
    d = gaps.double().numpy() / (s * np.sqrt(2))
    assert np.abs(g.numpy() * s + stats.norm.pdf(d) * d).max() < 10 * BOUND


@pytest.mark.parametrize("sites, k", [(5, 2), (12, 5), (40, 3)])
@pytest.mark.parametrize("method", METHODS)
def test_gradient_in_sigma_by_finite_differences(sites, k, method):
    scores = normal(3, sites).requires_grad_()
    sigma = torch.tensor([0.5, 0.2, 1.5], dtype=F64, requires_grad=True)
    torch.autograd.gradcheck(
        lambda r, s: tr.expected_topk(r, k, sigma=s, method=method), (scores, sigma),
        atol=3e-5, rtol=1e-4, check_forward_ad=True,
    )  # fmt: skip
    one = torch.tensor(0.5, dtype=F64, requires_grad=True)
    rows = torch.tensor([k, k - 1, k + 1])
    torch.autograd.gradcheck(
        lambda s: tr.expected_topk(scores.detach(), rows, sigma=s, method=method), (one,),
        atol=3e-5, rtol=1e-4,
    )  # fmt: skip


@pytest.mark.parametrize("estimator", ["score", "score_loo", "conditional"])
def test_gradient_in_sigma_of_draws_is_unbiased(estimator):
    """Mean over 400 rows of noise against the exact operator: within 5 of its standard errors."""
    rows, scores, v = 400, normal(8), normal(8, seed=1)
    sigma = torch.full((rows,), 0.6, dtype=F64, requires_grad=True)
    b = tr.perturbed_topk(
        scores.expand(rows, 8), 3, sigma=sigma, num_samples=200, estimator=estimator, key=KEY
    )
    (g,) = torch.autograd.grad((b * v).sum(), sigma)
    one = torch.tensor(0.6, dtype=F64, requires_grad=True)
    (want,) = torch.autograd.grad((tr.expected_topk(scores, 3, sigma=one) * v).sum(), one)
    assert abs(g.mean() - want) < 5 * g.std() / rows**0.5


def test_what_is_certain_has_no_gradient_and_no_nan():
    scores = torch.tensor(
        [[3.0, 1, 2, 0], [5, -INF, -INF, 0], [INF, INF, 1, 1], [1e30, 1, 0, -1e30]]
    )
    sigma = torch.tensor([0.0, 0.1, 0.5, 1e-30], requires_grad=True)
    leaf = scores.clone().requires_grad_()
    for method in METHODS:
        b = tr.expected_topk(leaf, 2, sigma=sigma, method=method)
        assert torch.equal(b, tr.topk_mask(scores, 2))
        for g in torch.autograd.grad(b, (leaf, sigma), torch.rand(4, 4)):
            assert torch.equal(g, torch.zeros_like(g))


def test_float32_scores_far_from_zero_keep_their_differences():
    """r = 1e6 + x: the quotient is formed in float64 after the K-th score is taken off."""
    x = (normal(60) * 16).round() / 16
    want, _ = reference.expected_topk((1e6 + x).numpy(), 11, 0.25, np.ones(60))
    got = tr.expected_topk((1e6 + x).float(), 11, sigma=torch.tensor(0.25))
    assert np.abs(got.numpy() - want).max() < BOUND + 1.2e-7


def test_rows_of_vmap():
    scores, sigma, k = (
        normal(4, 9),
        torch.tensor([0.1, 0.5, 1.0, 0.0], dtype=F64),
        torch.arange(1, 5),
    )

    def f(r, a, s):
        return tr.expected_topk(r, a, sigma=s)

    assert torch.equal(torch.func.vmap(f)(scores, k, sigma), f(scores, k, sigma))

    def h(r, a, s):
        return tr.perturbed_topk(r, a, sigma=s, key=KEY)

    assert torch.equal(torch.func.vmap(h)(scores, k, sigma), h(scores, k, sigma))
    learnt = torch.func.vmap(
        torch.func.grad(lambda s, r: tr.expected_topk(r, 3, sigma=s)[0]), (0, None)
    )
    want = torch.stack(
        [torch.func.grad(lambda s: tr.expected_topk(scores[0], 3, sigma=s)[0])(s) for s in sigma]
    )
    assert torch.allclose(learnt(sigma, scores[0]), want, rtol=1e-12, atol=1e-12)


def test_opcheck_and_compile():
    ops = torch.ops.topreach
    scores, k = normal(3, 9).requires_grad_(), torch.tensor([1, 2, 3])
    sigma = torch.tensor([0.5, 0.2, 1.0], dtype=F64, requires_grad=True)
    torch.library.opcheck(ops.expected_topk_rows.default, (scores, 0, 0.0, k, sigma, "exact"))
    torch.library.opcheck(
        ops.perturbed_topk_rows.default,
        (scores, 0, 0.0, k, sigma, 8, "conditional", "normal", KEY, 0),
    )
    torch.library.opcheck(ops.topk_mask_rows.default, (scores.detach(), k))
    torch.library.opcheck(ops.soft_rows.default, (sigma.detach(), "f"))

    def step(r, s):
        return tr.expected_topk(r.tanh(), k, sigma=s).square().sum()

    want = torch.autograd.grad(step(scores, sigma), (scores, sigma))
    got = torch.autograd.grad(torch.compile(step, fullgraph=True)(scores, sigma), (scores, sigma))
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "k, sigma, error, message",
    [
        (
            torch.tensor([1, 4]),
            0.1,
            ValueError,
            "topk_mask: k must be between 0 and S = 3, got 4 in row 1",
        ),
        (torch.tensor([1, -1]), 0.1, ValueError, "k must be between 0 and S = 3, got -1 in row 1"),
        (
            torch.tensor([1, 1, 1]),
            0.1,
            ValueError,
            r"k must have the leading shape of scores, \[2\]",
        ),
        (torch.tensor([1.0, 1.0]), 0.1, TypeError, "k must be an integer or a tensor of integers"),
        (
            torch.tensor([True, True]),
            0.1,
            TypeError,
            "k must be an integer or a tensor of integers",
        ),
        (
            1,
            torch.tensor([0.1, -0.5]),
            ValueError,
            "sigma must be finite and not negative, got -0.5",
        ),
        (1, torch.tensor([0.1, float("nan")]), ValueError, "sigma must be finite"),
        (1, torch.tensor([0.1, INF]), ValueError, "sigma must be finite"),
        (
            1,
            torch.tensor([0.1] * 3),
            ValueError,
            r"sigma must have the leading shape of scores, \[2\]",
        ),
        (1, torch.tensor([1, 1]), TypeError, "sigma must be a number or a floating-point tensor"),
        (4, torch.tensor(0.1), ValueError, "k must be between 0 and S = 3, got 4"),
    ],
)
def test_errors(k, sigma, error, message):
    with pytest.raises(error, match=message):
        tr.expected_topk(torch.zeros(2, 3), k, sigma=sigma)
    with pytest.raises(error, match=message):
        tr.perturbed_topk(torch.zeros(2, 3), k, sigma=sigma, key=KEY)
