"""Perturbed top-K and the hard mask [L23 Eq. 3-4, D25 Eq. 11]."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import topreach as tr

KEY = torch.tensor([123, 456], dtype=torch.int64)
INF = float("inf")


def vjp(scores, v, k, **options):
    scores = scores.detach().requires_grad_()
    b = tr.perturbed_topk(scores, k, **options)
    return b.detach(), torch.autograd.grad(b, scores, v)[0]


# ---- against the plain reference with the same noise ---------------------------------------------


@pytest.mark.parametrize("estimator", ["score", "score_loo"])
@pytest.mark.parametrize("noise", ["normal", "gumbel", "logistic", "laplace"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sites, k", [(2, 1), (7, 5), (64, 3), (100, 99), (1620, 100)])
def test_matches_reference(estimator, noise, dtype, sites, k):
    torch.manual_seed(sites)
    scores = torch.rand(3, sites, dtype=dtype)
    v = torch.rand(3, sites, dtype=dtype)
    options = dict(sigma=0.3, num_samples=37, estimator=estimator, noise=noise, key=KEY)
    b, g = vjp(scores, v, k, **options)
    z = tr.topk_noise(KEY, 37, 3, sites, noise=noise)
    assert torch.equal(b, reference.perturbed_topk(scores, k, 0.3, z))
    want = reference.perturbed_topk_vjp(scores, k, 0.3, z, v, estimator, noise)
    # rounding: a sum of J products in blocks, each of size |w_j z_j|, and a dot product of k terms;
    # the Gumbel score is known to float32, the logistic one too
    eps = torch.finfo(torch.float32 if noise in ("gumbel", "logistic") else dtype).eps
    largest = reference.score(z, noise).abs().max() + 1
    bound = eps * (37 + k) * v.max() * k * largest / 0.3
    assert (g - want).abs().max() < bound
    assert torch.nn.functional.cosine_similarity(g.double().flatten(), want.flatten(), 0) > 1 - 1e-6


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(0, 3), max_size=3),
    sites=st.integers(1, 200),
    draws=st.integers(2, 25),
    levels=st.integers(1, 5),
    data=st.data(),
)
def test_any_shape_with_ties_and_infinities(shape, sites, draws, levels, data):
    """Few score levels and a noise far below float32 resolution of some of them: ties are
    common."""
    k = data.draw(st.integers(0, sites))
    seed = data.draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(levels, (*shape, sites), generator=generator).float() * 1e6
    special = torch.rand(scores.shape, generator=generator)
    scores[special < 0.1] = -INF
    scores[special > 0.97] = INF
    sigma = data.draw(st.sampled_from([1e-4, 0.05, 1.0, 1e6]))
    b = tr.perturbed_topk(scores, k, sigma=sigma, num_samples=draws, key=KEY)
    rows = scores.reshape(-1, sites)
    z = tr.topk_noise(KEY, draws, len(rows), sites)
    want = reference.perturbed_topk(rows, k, sigma, z).reshape(scores.shape)
    # the reference divides a sum of J ones by J, as the kernel does: equal bits
    assert torch.equal(b, want)
    assert torch.allclose(b.sum(-1), torch.full(scores.shape[:-1], float(k)))


# ---- closed forms and enumeration ----------------------------------------------------------------


def test_two_sites_closed_form():
    """P(site 0 wins) = Phi((r0 - r1) / (sigma sqrt 2)), and its derivative."""
    rows, draws, sigma = 400, 500, 0.5
    scores = torch.tensor([0.3, -0.1], dtype=torch.float64).repeat(rows, 1)
    v = torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(rows, 1)
    for estimator in ("score", "score_loo"):
        b, g = vjp(scores, v, 1, sigma=sigma, num_samples=draws, estimator=estimator, key=KEY)
        x = 0.4 / (sigma * 2**0.5)
        p = stats.norm.cdf(x)
        assert abs(b[:, 0].mean() - p) < 5 * np.sqrt(p * (1 - p) / (rows * draws))
        slope = stats.norm.pdf(x) / (sigma * 2**0.5)
        for site, want in ((0, slope), (1, -slope)):
            got = g[:, site]
            assert abs(got.mean() - want) < 5 * got.std() / rows**0.5


def test_gumbel_noise_gives_softmax():
    """K = 1 with Gumbel noise: softmax(r / sigma), and its Jacobian."""
    rows, draws, sigma, sites = 3000, 200, 0.7, 6
    torch.manual_seed(1)
    one, weight = torch.randn(sites, dtype=torch.float64), torch.randn(sites, dtype=torch.float64)
    p = torch.softmax(one / sigma, -1)
    want = p * (weight - (p * weight).sum()) / sigma
    b, _ = vjp(
        one.repeat(rows, 1), weight.repeat(rows, 1), 1, sigma=sigma, num_samples=draws,
        noise="gumbel", key=KEY,
    )  # fmt: skip
    spread = torch.sqrt(p * (1 - p) / (rows * draws))
    assert ((b.mean(0) - p).abs() < 5 * spread).all()
    _, g = vjp(
        one.repeat(rows, 1), weight.repeat(rows, 1), 1, sigma=sigma, num_samples=draws,
        noise="gumbel", estimator="score_loo", key=KEY,
    )  # fmt: skip
    assert ((g.mean(0) - want).abs() < 5 * g.std(0) / rows**0.5).all()


@pytest.mark.parametrize("k", [1, 2, 4])
def test_small_case_by_enumeration(k):
    """Value and gradient at S = 5 against a sum over all subsets and a one-dimensional integral."""
    sigma, rows, draws = 0.4, 600, 300
    scores = np.array([0.1, 0.5, -0.2, 0.45, 0.0])
    v = np.array([0.3, 1.0, -0.5, 0.2, 0.7])
    exact = reference.expected_topk_by_enumeration(scores, k, sigma)
    assert abs(exact.sum() - k) < 1e-8
    step, slope = 1e-4, np.zeros(5)
    for s in range(5):
        shifted = [scores.copy(), scores.copy()]
        shifted[0][s] += step
        shifted[1][s] -= step
        up, down = (reference.expected_topk_by_enumeration(x, k, sigma) for x in shifted)
        slope[s] = (up - down) @ v / (2 * step)
    many = torch.tensor(scores).repeat(rows, 1)
    for estimator in ("score", "score_loo"):
        b, g = vjp(
            many, torch.tensor(v).repeat(rows, 1), k, sigma=sigma, num_samples=draws,
            estimator=estimator, key=KEY,
        )  # fmt: skip
        error = np.sqrt(exact * (1 - exact) / (rows * draws))
        assert (np.abs(b.mean(0).numpy() - exact) < 5 * error).all()
        assert (np.abs(g.mean(0).numpy() - slope) < 5 * g.std(0).numpy() / rows**0.5).all()


def test_leave_one_out_has_less_variance():
    scores = torch.rand(200, 300)
    v = torch.rand(200, 300)
    grads = {
        e: vjp(
            scores[:1].repeat(200, 1), v[:1].repeat(200, 1), 30, sigma=0.05, estimator=e, key=KEY
        )[1]
        for e in ("score", "score_loo")
    }
    assert grads["score_loo"].var(0).sum() < grads["score"].var(0).sum() / 20


# ---- reproducibility -----------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["score_loo", "conditional"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_bits_for_any_split_and_thread_count(dtype, estimator):
    torch.manual_seed(0)
    scores, v = torch.randn(13, 777, dtype=dtype), torch.randn(13, 777, dtype=dtype)
    options = dict(sigma=0.3, num_samples=101, estimator=estimator, key=KEY)
    threads = torch.get_num_threads()
    whole = vjp(scores, v, 50, **options)
    try:
        for n in (1, 2, 3, 7):
            torch.set_num_threads(n)
            for got, want in zip(vjp(scores, v, 50, **options), whole):
                assert torch.equal(got, want)
            for cut in (1, 6, 12):
                head = vjp(scores[:cut], v[:cut], 50, **options)
                tail = vjp(scores[cut:], v[cut:], 50, row_offset=cut, **options)
                for a, b, want in zip(head, tail, whole):
                    assert torch.equal(torch.cat([a, b]), want)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("estimator", ["score_loo", "conditional"])
def test_one_long_row_on_any_thread_count(estimator):
    scores, v = torch.rand(1, 30_000), torch.rand(1, 30_000)
    options = dict(sigma=0.01, num_samples=40, estimator=estimator, key=KEY)
    threads = torch.get_num_threads()
    results = []
    try:
        for n in (1, 2, 5):
            torch.set_num_threads(n)
            results.append(vjp(scores, v, 500, **options))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert torch.equal(result[0], results[0][0]) and torch.equal(result[1], results[0][1])


def test_leading_shapes_and_strides():
    scores = torch.randn(2, 3, 4, 50)
    b = tr.perturbed_topk(scores, 9, sigma=0.5, key=KEY)
    assert torch.equal(
        b.reshape(24, 50), tr.perturbed_topk(scores.reshape(24, 50), 9, sigma=0.5, key=KEY)
    )
    strided = scores.transpose(0, 3)
    assert torch.equal(
        tr.perturbed_topk(strided, 2, sigma=0.5, key=KEY),
        tr.perturbed_topk(strided.contiguous(), 2, sigma=0.5, key=KEY),
    )
    one = tr.perturbed_topk(scores[0, 0, 0], 9, sigma=0.5, key=KEY)
    assert torch.equal(one, b[0, 0, 0])


def test_seeds_rule():
    scores = torch.randn(50)
    torch.manual_seed(3)
    a = tr.perturbed_topk(scores, 5, sigma=1.0)
    b = tr.perturbed_topk(scores, 5, sigma=1.0)
    torch.manual_seed(3)
    assert torch.equal(a, tr.perturbed_topk(scores, 5, sigma=1.0))
    assert not torch.equal(a, b)
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(a, tr.perturbed_topk(scores, 5, sigma=1.0, generator=generator))
    large = KEY + (1 << 32)
    assert torch.equal(
        tr.perturbed_topk(scores, 5, sigma=1.0, key=KEY),
        tr.perturbed_topk(scores, 5, sigma=1.0, key=large),
    )


# ---- edges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sites, k, sigma",
    [(5, 0, 1.0), (5, 5, 1.0), (5, 2, 0.0), (5, 2, 1e-39), (1, 1, 1.0), (1, 0, 1.0)],
)
@pytest.mark.parametrize("estimator", ["score", "score_loo", "conditional"])
def test_hard_cases_have_no_gradient(sites, k, sigma, estimator):
    scores = torch.tensor([[0.3, 0.1, 0.9, 0.2, 0.9]])[:, :sites]
    b, g = vjp(scores, torch.ones_like(scores), k, sigma=sigma, estimator=estimator, key=KEY)
    assert torch.equal(b, tr.topk_mask(scores, k))
    assert torch.equal(g, torch.zeros_like(g))


def test_small_sigma_tends_to_the_hard_mask():
    torch.manual_seed(0)
    scores, v = torch.rand(4, 200, dtype=torch.float64), torch.rand(4, 200, dtype=torch.float64)
    b, g = vjp(scores, v, 20, sigma=1e-12, estimator="score_loo", key=KEY)
    assert torch.equal(b, tr.topk_mask(scores, 20))
    # every draw picks the same set, so the centred weights vanish but for the rounding of b . v
    assert g.abs().max() < 20 * 2.3e-16 * 20 / 1e-12
    tiny = torch.finfo(torch.float32).tiny
    b, g = vjp(scores.float(), v.float(), 20, sigma=tiny, key=KEY)
    assert torch.equal(b, tr.topk_mask(scores.float(), 20)) and not g.isnan().any()


def test_masked_and_forced_sites():
    scores = torch.tensor([[0.0, -INF, 0.5, INF, 0.2, -INF]])
    b, g = vjp(scores, torch.rand(1, 6), 3, sigma=1.0, num_samples=1000, key=KEY)
    assert b[0, 1] == 0 and b[0, 5] == 0 and b[0, 3] == 1
    assert (g[0, [1, 3, 5]] == 0).all() and (g[0, [0, 2, 4]] != 0).all()
    # fewer open sites than k: masked ones fill up, lowest index first
    b = tr.perturbed_topk(scores, 5, sigma=1.0, key=KEY)
    assert b.tolist() == [[1, 1, 1, 1, 1, 0]]
    assert tr.perturbed_topk(torch.full((4,), -INF), 2, sigma=1.0, key=KEY).tolist() == [1, 1, 0, 0]
    assert tr.perturbed_topk(torch.full((4,), INF), 2, sigma=1.0, key=KEY).tolist() == [1, 1, 0, 0]


def test_topk_mask():
    scores = torch.tensor([[1.0, 3.0, 3.0, 2.0, 3.0], [-INF, INF, 0.0, -INF, INF]])
    assert tr.topk_mask(scores, 2).tolist() == [[0, 1, 1, 0, 0], [0, 1, 0, 0, 1]]
    assert tr.topk_mask(scores, 4).tolist() == [[0, 1, 1, 1, 1], [1, 1, 1, 0, 1]]
    assert tr.topk_mask(scores[0], 0).sum() == 0
    assert tr.topk_mask(scores.double(), 5).dtype == torch.float64
    torch.manual_seed(0)
    many = torch.randint(30, (50, 999)).double()
    for k in (1, 10, 500, 998):
        chosen = torch.sort(many, dim=-1, descending=True, stable=True).indices[:, :k]
        assert torch.equal(tr.topk_mask(many, k), torch.zeros_like(many).scatter_(1, chosen, 1.0))


def test_sorted_and_constant_scores():
    """Inputs on which selection algorithms become quadratic stay quick and correct."""
    for scores in (
        torch.arange(100_000.0), -torch.arange(100_000.0), torch.zeros(100_000),
        torch.arange(100_000.0).exp(), torch.cat([torch.zeros(50_000), torch.ones(50_000)]),
        torch.arange(100_000.0) * 1e30,
    ):  # fmt: skip
        for k in (1, 777, 50_000, 99_999):
            chosen = torch.sort(scores, descending=True, stable=True).indices[:k]
            assert torch.equal(
                tr.topk_mask(scores, k), torch.zeros_like(scores).scatter_(0, chosen, 1.0)
            )


@pytest.mark.parametrize("shape", [(0, 5), (2, 0, 5)])
def test_empty_batches(shape):
    for estimator in ("score", "conditional"):
        scores = torch.zeros(shape, requires_grad=True)
        b = tr.perturbed_topk(scores, 2, sigma=1.0, estimator=estimator, key=KEY)
        b.sum().backward()
        assert b.shape == shape and scores.grad.shape == shape


@pytest.mark.parametrize("estimator", ["score", "conditional"])
def test_memory_does_not_grow_with_draws(estimator):
    """J x S floats would take 1.6 GB for 2000 draws; they may add 40 MB to what 100 draws take."""
    program = """
import sys, torch, topreach as tr
def peak():  # kilobytes; getrusage would count the parent's too
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
scores = torch.rand(1, 200_000, requires_grad=True)
def step(draws):
    tr.perturbed_topk(scores, 100, sigma=.01, num_samples=draws,
    estimator=sys.argv[1]).sum().backward()
for _ in range(3):  # until the allocator keeps what it was given back
    step(100)
before = peak()
step(2000)
print(peak() - before)
"""
    run = subprocess.run(
        [sys.executable, "-c", program, estimator], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) < 40_000  # kilobytes


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, error, message",
    [
        (
            dict(scores=torch.zeros(3, dtype=torch.int64)),
            TypeError,
            "scores must be float32 or float64, got Long",
        ),
        (
            dict(scores=torch.tensor(1.0)),
            ValueError,
            r"scores must have shape \[..., S\], got a scalar",
        ),
        (
            dict(scores=torch.tensor([[0.0, 1, 2], [0, float("nan"), 2]])),
            ValueError,
            "scores must not be NaN, got NaN in row 1, site 1",
        ),
        (dict(k=-1), ValueError, "k must be between 0 and S = 3, got -1"),
        (dict(k=4), ValueError, "k must be between 0 and S = 3, got 4"),
        (dict(sigma=-0.1), ValueError, "sigma must be finite and not negative, got -0.1"),
        (dict(sigma=float("nan")), ValueError, "sigma must be finite"),
        (dict(sigma=INF), ValueError, "sigma must be finite"),
        (dict(num_samples=0), ValueError, "num_samples must be at least 1 .* got 0"),
        (
            dict(num_samples=1, estimator="score_loo"),
            ValueError,
            "num_samples must be at least 2 .* got 1",
        ),
        (
            dict(estimator="exactly"),
            ValueError,
            "estimator must be 'score', 'score_loo' or 'conditional', got 'exactly'",
        ),
        (
            dict(noise="cauchy"),
            ValueError,
            "noise must be 'normal', 'gumbel', 'logistic' or 'laplace', got 'cauchy'",
        ),
        (dict(key=KEY[:1]), ValueError, r"key must have shape \[2\], got \[1\]"),
        (dict(key=KEY.double()), TypeError, "key must be int64, got Double"),
        (
            dict(row_offset=-1),
            ValueError,
            "row_offset must keep row numbers between 0 and 2\\^32 - 1, got -1",
        ),
        (dict(row_offset=2**32), ValueError, "row_offset must keep row numbers"),
    ],
)
def test_errors_name_function_argument_and_value(change, error, message):
    arguments = dict(scores=torch.zeros(3), k=1, sigma=1.0, key=KEY) | change
    scores, k = arguments.pop("scores"), arguments.pop("k")
    with pytest.raises(error, match="perturbed_topk: " + message):
        tr.perturbed_topk(scores, k, **arguments)


def test_topk_mask_errors():
    with pytest.raises(ValueError, match="topk_mask: k must be between 0 and S = 3, got 4"):
        tr.topk_mask(torch.zeros(3), 4)
    with pytest.raises(
        ValueError, match="topk_mask: scores must not be NaN, got NaN in row 0, site 2"
    ):
        tr.topk_mask(torch.tensor([0.0, 0.0, float("nan")]), 1)


# ---- torch's own checks --------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["score", "score_loo", "conditional"])
def test_opcheck(estimator):
    scores = torch.randn(3, 20, requires_grad=True)
    torch.library.opcheck(
        torch.ops.topreach.perturbed_topk.default, (scores, 4, 0.5, 8, estimator, "normal", KEY, 0)
    )
    torch.library.opcheck(torch.ops.topreach.topk_mask.default, (scores.detach(), 4))
    options = (4, 0.5, 8, estimator, "normal", KEY)
    saved = torch.ops.topreach.perturbed_topk(scores.detach(), *options)
    torch.library.opcheck(
        torch.ops.topreach.perturbed_topk_backward.default,
        (torch.randn(3, 20), scores.detach(), *saved, *options, 0),
    )
    torch.library.opcheck(torch.ops.topreach.topk_noise.default, (KEY, 2, 3, 5, "normal", 0))
    torch.library.opcheck(
        torch.ops.topreach.topk_noise_checksum.default, (KEY, 2, 3, 5, "normal", 0)
    )


@pytest.mark.parametrize("estimator", ["score_loo", "conditional"])
def test_compiled_step_equals_eager(estimator):
    layer = torch.nn.Linear(4, 1)
    x, y = torch.randn(3, 60, 4), torch.rand(3, 60)

    def step(layer, x, y, key):
        b = tr.perturbed_topk(layer(x).squeeze(-1), 7, sigma=0.3, key=key, estimator=estimator)
        return -(b * y).sum()

    grads = []
    for run in (step, torch.compile(step, fullgraph=True)):
        model = copy.deepcopy(layer)
        loss = run(model, x, y, KEY)
        loss.backward()
        grads.append((loss.detach(), model.weight.grad, model.bias.grad))
    for a, b in zip(*grads):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def test_monte_carlo_must_not_pass_gradcheck():
    """The value is piecewise constant for a fixed key: finite differences cannot see its
    gradient."""
    scores = torch.randn(6, dtype=torch.float64, requires_grad=True)
    passed = torch.autograd.gradcheck(
        lambda s: tr.perturbed_topk(s, 2, sigma=1.0, num_samples=50, key=KEY),
        (scores,),
        raise_exception=False,
    )
    assert not passed


def test_backward_refuses_shapes_that_do_not_agree():
    """The operator can be called on its own; it must not read past its arguments."""
    scores = torch.randn(3, 20)
    b, threshold, tied, boundary = torch.ops.topreach.perturbed_topk(
        scores, 4, 0.5, 8, "conditional", "normal", KEY
    )
    backward = torch.ops.topreach.perturbed_topk_backward
    rest = (boundary, 4, 0.5, 8, "conditional", "normal", KEY, 0)
    with pytest.raises(ValueError, match=r"grad and membership must have the shape of scores"):
        backward(torch.randn(3, 2), scores, b, threshold, tied, *rest)
    with pytest.raises(ValueError, match=r"threshold and last_tied must have shape \[3, 8\]"):
        backward(b, scores, b, threshold[:, :2], tied, *rest)
    with pytest.raises(ValueError, match=r"boundary must have shape \[3, 8, 2\].* got \[3, 7, 2\]"):
        backward(b, scores, b, threshold, tied, boundary[:, 1:], *rest[1:])
    with pytest.raises(ValueError, match=r"boundary must have shape \[3, 0, 2\]"):
        backward(b, scores, b, threshold, tied, boundary, 4, 0.5, 8, "score", "normal", KEY, 0)
    for site in (-1, 20):
        with pytest.raises(ValueError, match=f"boundary must hold sites, 0 to 19, .* got {site}"):
            backward(b, scores, b, threshold, tied, torch.full_like(boundary, site), *rest[1:])


@pytest.mark.parametrize("estimator", ["score", "conditional"])
def test_double_backward_raises(estimator):
    scores = torch.randn(6, requires_grad=True)
    b = tr.perturbed_topk(scores, 2, sigma=1.0, estimator=estimator, key=KEY)
    (g,) = torch.autograd.grad(b.square().sum(), scores, create_graph=True)
    with pytest.raises(
        RuntimeError,
        match="perturbed_topk: .* must be differentiated once only, got a second derivative",
    ):
        g.sum().backward()
