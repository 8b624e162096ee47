"""Every operator under torch.func (grad, jvp, vmap), autocast, and a second differentiation."""

import math

import pytest
import torch

import topreach as tr

OPS = torch.ops.topreach
KEY = torch.tensor([123, 456], dtype=torch.int64)
F64 = torch.float64


def counts(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.poisson(torch.full(shape, 1.5, dtype=F64), generator=generator)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


# name -> (function of the differentiable arguments, those arguments, whether finite differences see
# the derivative). The rows of dimension 0 are what vmap takes apart.
def cases():
    samples = counts(20, 4, 6)
    log_prob, per_site = normal(20, 4), normal(20, 4, 6, seed=1)
    n, z = normal(4, 6).exp(), normal(4, 6, seed=2)
    zero = normal(4, 6, seed=3).sigmoid()

    def perturbed(estimator):
        return lambda r: tr.perturbed_topk(
            r, 2, sigma=0.5, num_samples=50, estimator=estimator, key=KEY
        )

    return {
        "expected_topk": (lambda r: tr.expected_topk(r, 2, sigma=0.5), (normal(4, 6),), True),
        "mean_field": (
            lambda r: tr.expected_topk(r, 2, sigma=0.5, method="mean_field"),
            (normal(4, 6),),
            True,
        ),
        "perturbed score": (perturbed("score"), (normal(4, 6),), False),
        "perturbed score_loo": (perturbed("score_loo"), (normal(4, 6),), False),
        "perturbed conditional": (perturbed("conditional"), (normal(4, 6),), False),
        "ratio score": (
            lambda p: tr.ratio_ranking(samples, p, offset=0.5, estimator="score"),
            (log_prob,),
            False,
        ),
        "ratio score_loo": (lambda p: tr.ratio_ranking(samples, p), (log_prob,), False),
        "ratio diagonal": (
            lambda p: tr.ratio_ranking(samples, p, estimator="diagonal"),
            (per_site,),
            False,
        ),
        "ratio go": (
            lambda c: tr.ratio_ranking(samples, per_site - 3, estimator="go", cdf=c),
            (per_site,),
            False,
        ),
        "negbin_log_prob": (lambda n, z: OPS.negbin_log_prob(samples, n, z), (n, z), True),
        "expected_ratio": (
            lambda n, o, p: OPS.expected_ratio_ranking("negative_binomial", n, o, p, 0.0),
            (n, z.exp(), zero),
            True,
        ),
        "soft_bpr": (lambda b: tr.soft_bpr(b, counts(4, 6) + 1, 2), (normal(4, 6),), True),
    }


CASES = cases()


@pytest.mark.parametrize("name", CASES)
def test_vjp_of_torch_func_is_backward(name):
    f, arguments, _ = CASES[name]
    value, pull = torch.func.vjp(f, *arguments)
    v = torch.randn_like(value)
    leaves = [a.clone().requires_grad_() for a in arguments]
    want = f(*leaves)
    assert torch.equal(value, want.detach())
    for got, expected in zip(pull(v), torch.autograd.grad(want, leaves, v), strict=True):
        assert torch.equal(got, expected)
    gradient = torch.func.grad(lambda *a: (f(*a) * v).sum())(*arguments)
    assert torch.equal(gradient, pull(v)[0])


@pytest.mark.parametrize("name", [n for n in CASES if n != "expected_ratio"])
def test_forward_mode(name):
    """u . J t in both modes. The Monte Carlo top-K uses its estimate of J^T t, since J^T = J in
    expectation, so its tangent is the gradient for t. The rankings' estimates are linear in
    log_prob, so the two modes are exact transposes."""
    f, arguments, _ = CASES[name]
    tangents = tuple(torch.randn_like(a) for a in arguments)
    value, tangent = torch.func.jvp(f, arguments, tangents)
    assert torch.equal(value, f(*arguments))
    if name.startswith("perturbed"):
        (want,) = torch.func.vjp(f, *arguments)[1](tangents[0])
        assert torch.equal(tangent, want)
        return
    u = torch.randn_like(value)
    back = torch.func.vjp(f, *arguments)[1](u)
    want = sum((g * t).sum() for g, t in zip(back, tangents, strict=True))
    size = sum((g * t).abs().sum() for g, t in zip(back, tangents, strict=True))
    # expected_topk: right to 3e-9 in units of max |v| / sigma; the others to rounding of their sums
    bound = 1e-6 if name in ("expected_topk", "mean_field") else 1e-12 * float(size)
    assert abs((u * tangent).sum() - want) < bound


def test_expected_ratio_ranking_refuses_forward_mode():
    f, arguments, _ = CASES["expected_ratio"]
    with pytest.raises(NotImplementedError, match="expected_ratio_ranking: .* reverse mode"):
        torch.func.jvp(f, arguments, arguments)


@pytest.mark.parametrize("name", [n for n, (_, _, exact) in CASES.items() if exact])
def test_gradients_by_finite_differences(name):
    f, arguments, _ = CASES[name]
    leaves = tuple(a.clone().requires_grad_() for a in arguments)
    assert torch.autograd.gradcheck(f, leaves, atol=3e-5, rtol=1e-4)


# ---- vmap --------------------------------------------------------------------------------------


def batched(*dims):
    """Tensors [4, 5, 6] with the batch dimension moved where `dims` says."""
    return [normal(4, 5, 6, seed=i).movedim(0, d) for i, d in enumerate(dims)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("estimator", ["score", "score_loo", "conditional"])
def test_vmap_gives_each_row_noise_of_its_own(estimator, dim):
    """A batch is more rows: the same bits as the batch in front, in value and gradient."""
    (r,) = batched(dim)

    def f(x):
        return tr.perturbed_topk(x, 2, sigma=0.5, num_samples=30, estimator=estimator, key=KEY)

    front = r.movedim(dim, 0)
    assert torch.equal(torch.func.vmap(f, in_dims=dim)(r), f(front))
    v = normal(4, 5, 6, seed=9)
    got = torch.func.vmap(lambda x, w: torch.func.vjp(f, x)[1](w)[0], in_dims=(dim, 0))(r, v)
    assert torch.equal(got, torch.func.vjp(f, front)[1](v)[0])
    same = torch.func.vmap(f)(front[:1].expand(4, 5, 6))
    assert not torch.equal(same[0], same[1])
    nested = torch.func.vmap(torch.func.vmap(f))(front)
    assert torch.equal(nested, f(front))


def test_vmap_over_gradients_and_keys():
    """jacrev: one set of draws, many v, each with the row numbers of forward. Keys: each its own
    draws."""
    r = normal(5, 6)

    def f(x, key=KEY):
        return tr.perturbed_topk(x, 2, sigma=0.5, num_samples=30, key=key)

    (jacobian,) = torch.autograd.functional.jacobian(f, (r,))
    assert torch.equal(torch.func.jacrev(f)(r), jacobian)
    keys = torch.stack([KEY, KEY + 1])
    got = torch.func.vmap(f, in_dims=(None, 0))(r, keys)
    assert torch.equal(got, torch.stack([f(r, k) for k in keys]))
    both = torch.func.vmap(f)(torch.stack([r, r]), keys)
    assert torch.equal(both, got)
    noise = torch.func.vmap(lambda k: tr.topk_noise(k, 3, 2, 5))(keys)
    assert torch.equal(noise, torch.stack([tr.topk_noise(k, 3, 2, 5) for k in keys]))


def test_vmap_asks_how_keys_are_to_be_drawn():
    r = normal(4, 6)

    def f(x):
        return tr.perturbed_topk(x, 2, sigma=0.5)

    with pytest.raises(RuntimeError, match="randomness"):
        torch.func.vmap(f)(r)
    assert torch.func.vmap(f, randomness="different")(r).shape == (4, 6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_vmap_of_operators_on_rows(dim):
    (r,) = batched(dim)
    front = r.movedim(dim, 0)
    y = counts(4, 5, 6)
    functions = [
        lambda x: tr.topk_mask(x, 2),
        lambda x: tr.expected_topk(x, 2, sigma=0.5),
        lambda x: torch.func.grad(lambda s: tr.expected_topk(s, 2, sigma=0.5)[..., 0].sum())(x),
        lambda x: torch.func.jvp(lambda s: tr.expected_topk(s, 2, sigma=0.5), (x,), (x,))[1],
    ]
    for f in functions:
        assert torch.equal(torch.func.vmap(f, in_dims=dim)(r), f(front))
    for f in (lambda x, c: OPS.bpr(x, c, 2), lambda x, c: tr.soft_bpr(x, c, 2)):
        got = torch.func.vmap(f, in_dims=(dim, 0))(r, y)
        assert torch.allclose(got, f(front, y), rtol=1e-14, atol=0, equal_nan=True)
        shared = torch.func.vmap(f, in_dims=(dim, None))(r, y[0, 0])
        assert torch.allclose(shared, f(front, y[0, 0]), rtol=1e-14, atol=0, equal_nan=True)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("estimator", ["score", "score_loo", "diagonal", "go"])
def test_vmap_of_the_ratio_ranking(estimator):
    y = counts(20, 4, 5, 6)
    per_site = normal(20, 4, 5, 6) - 3
    log_prob = per_site if estimator in ("diagonal", "go") else per_site.sum(-1)

    def f(samples, p):
        cdf = {"cdf": p} if estimator == "go" else {}
        return tr.ratio_ranking(samples, p, estimator=estimator, **cdf)

    want, v = f(y, log_prob), normal(4, 5, 6, seed=4)
    assert torch.equal(torch.func.vmap(f, in_dims=(1, 1))(y, log_prob), want)
    got = torch.func.vmap(
        lambda s, p, w: torch.func.vjp(lambda q: f(s, q), p)[1](w)[0], in_dims=(1, 1, 0), out_dims=1
    )(y, log_prob, v)
    assert torch.equal(got, torch.func.vjp(lambda q: f(y, q), log_prob)[1](v)[0])
    shared = torch.func.vmap(f, in_dims=(None, 1))(y[:, 0], log_prob)
    assert torch.equal(shared[0], f(y[:, 0], log_prob[:, 0]))


@pytest.mark.filterwarnings("error")
def test_vmap_of_counts():
    """Parameters of unlike shapes: what vmap gives is what a loop gives."""
    n, z = normal(4, 5, 6).exp(), normal(4, 6)
    y = counts(4, 3, 5, 6)

    def loop(f, *arguments):
        return torch.stack([f(*row) for row in zip(*arguments, strict=True)])

    def log_prob(value, a, b):
        return OPS.negbin_log_prob(value, a, b)

    def gradients(value, a, b):
        return torch.cat(
            [
                g.flatten()
                for g in torch.func.vjp(lambda p, q: log_prob(value, p, q), a, b)[1](
                    torch.ones(3, 5, 6, dtype=F64)
                )
            ]
        )

    for f in (log_prob, gradients):
        got = torch.func.vmap(f)(y, n, z)
        assert torch.allclose(got, loop(f, y, n, z), rtol=1e-13, atol=1e-13)

    def ranking(a, b):
        return OPS.expected_ratio_ranking("negative_binomial", a, b.exp(), None, 0.5)

    def ranking_gradients(a, b):
        pulled = torch.func.vjp(ranking, a, b)[1](a)
        return torch.cat([g.flatten() for g in pulled])

    for f in (ranking, ranking_gradients):
        assert torch.allclose(torch.func.vmap(f)(n, z), loop(f, n, z), rtol=1e-9, atol=1e-12)
    # counts are drawn row by row, as for the batch in front
    draws = torch.func.vmap(lambda a, b: OPS.negbin_sample(a, b, 7, KEY), out_dims=1)(n, z)
    assert torch.equal(draws, OPS.negbin_sample(n, z.unsqueeze(1), 7, KEY))
    numbers = torch.func.vmap(lambda a: OPS.negbin_sample(a, a.log(), 7, KEY))(n[:, 0, 0])
    assert numbers.shape == (4, 7) and len({tuple(row.tolist()) for row in numbers}) > 1


@pytest.mark.filterwarnings("error")
def test_vmap_of_other_counts_gives_each_row_noise_of_its_own():
    """Draws are those of the batch as leading rows, whatever is batched."""
    rate, zero, draws = normal(4, 5, 6).exp(), normal(4, 6).sigmoid(), counts(7, 4, 5, 6) + 1

    got = torch.func.vmap(lambda r: OPS.poisson_sample(r, 7, KEY), out_dims=1)(rate)
    assert torch.equal(got, OPS.poisson_sample(rate, 7, KEY))
    flat = torch.full((4, 6), 3.0, dtype=F64)
    rows = torch.func.vmap(lambda r: OPS.poisson_sample(r, 9, KEY))(flat)
    assert len({tuple(row.flatten().tolist()) for row in rows}) == 4

    def zeros(y, p):
        return OPS.zero_inflated_zeros(y, p, KEY)

    got = torch.func.vmap(zeros, in_dims=(1, 0), out_dims=1)(draws, zero)
    assert torch.equal(got, zeros(draws, zero.unsqueeze(1)))
    got = torch.func.vmap(zeros, in_dims=(1, None), out_dims=1)(draws, zero[0])
    assert torch.equal(got, zeros(draws, zero[0]))

    logits, first = normal(4, 5, 6, 3), normal(4, 1, 3).exp()

    def mixture(weights, rates):
        return OPS.site_mixture_sample("poisson", weights, rates, None, 7, KEY)

    got = torch.func.vmap(mixture, out_dims=1)(logits, first)
    assert torch.equal(got, mixture(logits, first.unsqueeze(1)))


@pytest.mark.filterwarnings("error")
def test_vmap_takes_moments_and_log_probabilities_apart():
    m, v, p, y = normal(4, 6).exp(), normal(4, 6).exp(), normal(4, 6).sigmoid(), counts(4, 6)
    for f, given in (
        (lambda a, b: OPS.negbin_moments(a, b)[1], (m, v)),
        (lambda a, b: OPS.negbin_of_moments(a, a + b)[1], (m, v)),
        (OPS.poisson_log_prob, (y, m)),
        (lambda a, b, c: OPS.zero_inflated_moments(a, b, c)[1], (m, v, p)),
        (OPS.zero_inflated_log_prob, (-m, p, y)),
    ):
        got = torch.func.vmap(f)(*given)
        want = torch.stack([f(*row) for row in zip(*given, strict=True)])
        assert torch.allclose(got, want, rtol=1e-14, atol=0)


# ---- autocast ----------------------------------------------------------------------------------


def test_autocast_of_distributions_computes_in_float32():
    """The bits of the same call in float32."""
    a, b, y = (normal(3, 6, seed=i).bfloat16() for i in range(3))
    y, logits, first = y.abs().round(), normal(3, 6, 2).bfloat16(), normal(3, 1, 2).exp().bfloat16()
    loading = torch.ones(3, 2, dtype=torch.bfloat16)

    def laplace(eta, z, counts):
        return OPS.laplace_marginal(eta, z, counts, None, None, None, None, None, "poisson", "log")[
            0
        ]

    def density(values, weights, loc):
        return OPS.site_mixture_log_prob("truncated_normal", values, weights, loc, loc)

    for f, given in (
        (lambda x: OPS.poisson_sample(x, 5, KEY), (a.abs(),)),
        (lambda v, x: OPS.poisson_log_prob(v, x), (y, a.abs())),
        (lambda x, z: OPS.negbin_moments(x, z)[1], (a.abs(), b)),
        (lambda x, z: OPS.negbin_of_moments(x, z)[1], (a.abs(), a.abs() + 1)),
        (lambda x, p: OPS.zero_inflated_moments(x, x, p)[1], (a.abs(), b.sigmoid())),
        (lambda x, p, v: OPS.zero_inflated_log_prob(x, p, v), (-a.abs(), b.sigmoid(), y)),
        (density, (y, logits, first)),
        (laplace, (a, loading, y)),
    ):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = f(*given)
        assert got.dtype == torch.float32
        assert torch.equal(got, f(*(x.float() for x in given)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_float32(dtype):
    """The same bits as converting by hand; the gradient comes back in the dtype of the argument."""
    r = normal(3, 20).to(dtype).requires_grad_()
    y = counts(3, 20)
    y_low = y.to(dtype)
    sigma = torch.tensor(0.5)
    functions = [
        lambda x: tr.topk_mask(x.detach(), 4),
        lambda x: tr.expected_topk(x, 4, sigma=0.5),
        lambda x: tr.expected_topk(x, 4, sigma=sigma),
        lambda x: tr.perturbed_topk(x, 4, sigma=0.5, key=KEY),
        lambda x: tr.perturbed_topk(x, 4, sigma=sigma, key=KEY),
        lambda x: OPS.bpr(x.detach(), y, 4),
        lambda x: tr.soft_bpr(x, y, 4),
        lambda x: tr.ratio_ranking(
            y_low.unsqueeze(0).float(),
            x.sum(-1, keepdim=True).T.float()[:1].expand(1, 3),
            estimator="score",
        ),
        lambda x: OPS.negbin_log_prob(y_low.to(x.dtype), x.exp(), x),
        lambda x: OPS.negbin_sample(x.detach().exp(), x.detach(), 5, KEY),
        lambda x: OPS.expected_ratio_ranking("poisson", x.exp(), None, None, 0.0),
    ]
    for f in functions:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = f(r)
        want = f(r.detach().float().requires_grad_()) if "exp" not in f.__code__.co_names else None
        assert got.dtype == torch.float32
        if want is not None:
            assert torch.equal(got.detach(), want.detach())
        if got.requires_grad:
            (g,) = torch.autograd.grad(got.sum(), r)
            assert g.dtype == dtype and g.isfinite().all()


def test_autocast_in_a_model():
    layer = torch.nn.Linear(4, 1)
    x, y = torch.randn(3, 20, 4), counts(3, 20).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = layer(x).squeeze(-1)
        assert scores.dtype == torch.bfloat16
        loss = -tr.soft_bpr(tr.expected_topk(scores, 4, sigma=0.3), y, 4).mean()
    loss.backward()
    assert math.isfinite(loss) and layer.weight.grad.abs().sum() > 0


# ---- a second derivative -------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in CASES if n != "soft_bpr"])
def test_a_second_derivative_is_refused_by_name(name):
    f, arguments, _ = CASES[name]
    leaves = [a.clone().requires_grad_() for a in arguments]
    (g, *_) = torch.autograd.grad(f(*leaves).square().sum(), leaves, create_graph=True)
    operator = {"pe": "perturbed_topk", "ra": "ratio_ranking", "ne": "negbin_log_prob"}.get(
        name[:2], "expected_ratio_ranking" if name == "expected_ratio" else "expected_topk"
    )
    message = f"{operator}.*must be differentiated once only, got a second derivative"
    with pytest.raises(RuntimeError, match=message):
        torch.autograd.grad(g.sum(), leaves)
    if name != "expected_ratio":  # which refuses every tangent
        with pytest.raises(NotImplementedError, match=message):
            torch.func.jvp(torch.func.grad(lambda a: f(a, *arguments[1:]).square().sum()),
                           arguments[:1], arguments[:1])  # fmt: skip
