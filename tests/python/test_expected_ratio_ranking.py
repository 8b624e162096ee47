"""The ratio ranking without samples [D25 Eq. 6], and the GO gradient of the one with samples."""

import itertools
import subprocess
import sys

import mpmath
import numpy as np
import pytest
import reference
import torch
from scipy import stats
from torch import distributions as td

import topreach as tr
from topreach import distributions
from topreach.distributions import NegativeBinomial, SiteMixture, ZeroInflated
from topreach.distributions.counts import has_expected_ratio_ranking

OP = torch.ops.topreach.expected_ratio_ranking
OPTIONS = {"dtype": torch.float64}
OFFSETS = [0.0, 0.01, 1.0, 1e6]
# The rule's error relative to r_s: 2.6e-11 for its step, 1e-11 at its ends, and rounding.
RULE = 5e-11


def tensor(*values):
    return torch.tensor(values, **OPTIONS)


def by_enumeration(tables, offset):
    """r of independent sites from their probabilities, a list for each site."""
    outcomes = torch.tensor(list(itertools.product(*(range(len(t)) for t in tables))), **OPTIONS)
    weights = torch.tensor([np.prod(row) for row in itertools.product(*tables)], **OPTIONS)
    return reference.ratio_by_enumeration(outcomes, weights, offset)


def inflate(table, pi):
    return [pi + (1 - pi) * table[0], *((1 - pi) * p for p in table[1:])]


# ---- values ------------------------------------------------------------------------------------

FAMILIES = {
    "negative_binomial": (
        lambda: td.NegativeBinomial(tensor(0.7, 2.5, 1e-3), tensor(0.3, 0.05, 0.2)),
        lambda: [
            stats.nbinom.pmf(range(45), n, 1 - p) for n, p in [(0.7, 0.3), (2.5, 0.05), (1e-3, 0.2)]
        ],
    ),
    "shared": (
        lambda: NegativeBinomial(tensor(0.7, 2.5, 0.0), torch.logit(tensor(0.3)[0])),
        lambda: [stats.nbinom.pmf(range(50), n, 0.7) for n in [0.7, 2.5]] + [[1.0]],
    ),
    "poisson": (
        lambda: td.Poisson(tensor(0.5, 3.0, 1e-6)),
        lambda: [stats.poisson.pmf(range(35), m) for m in [0.5, 3.0, 1e-6]],
    ),
    "bernoulli": (
        lambda: td.Bernoulli(tensor(0.5, 1.0, 0.0, 1e-7)),
        lambda: [[1 - p, p] for p in [0.5, 1.0, 0.0, 1e-7]],
    ),
    "binomial": (
        lambda: td.Binomial(tensor(7, 1, 0, 3), tensor(0.4, 0.99999, 0.5, 1.0)),
        lambda: [
            stats.binom.pmf(range(8), n, p)
            for n, p in [(7, 0.4), (1, 0.99999), (0, 0.5), (3, 1.0)]
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("inflated", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_enumeration(family, inflated, offset):
    """Every outcome of small problems; supports end where less than 1e-14 is left."""
    counts, tables = (make() for make in FAMILIES[family])
    if inflated:
        pi = torch.linspace(0, 1, len(tables), **OPTIONS)
        counts = ZeroInflated(counts, pi)
        tables = [inflate(table, float(chance)) for table, chance in zip(tables, pi)]
    want = by_enumeration(tables, offset)
    got = tr.expected_ratio_ranking(counts, offset=offset)
    assert ((got - want).abs() <= RULE * want + 1e-14 / (1 + offset)).all()


def generating_function(family, n, o, pi, t):
    """(log G(u), G'(u) / G(u)) at u = e^-t, to mpmath's precision."""
    v = -mpmath.expm1(-t)
    if family == "poisson":
        log_g, slope = -n * v, n
    elif family == "binomial":
        log_g, slope = n * mpmath.log1p(-o * v), n * o / (1 - o * v)
    else:
        log_g, slope = -n * mpmath.log1p(o * v), n * o / (1 + o * v)
    g = mpmath.exp(log_g)
    d = pi + (1 - pi) * g
    return mpmath.log(d), (1 - pi) * g * slope / d


def by_quadrature(family, n, o, pi, c):
    """int_0^inf e^-(c+1)t (G'_s/G_s) prod G dt by mpmath, piecewise over log t."""
    sites = len(n)
    o, pi = o or [0.0] * sites, pi or [0.0] * sites
    with mpmath.workdps(50):
        values = [[mpmath.mpf(x) for x in row] for row in (n, o, pi)]
        mean = sum(max(a * b, a) for a, b in zip(values[0], values[1]))
        low = -mpmath.log(mean + max(values[1]) + 1 + c) - 45
        high = mpmath.log(mpmath.mpf(80) / (1 + c))

        def integrand(x, s):
            t = mpmath.exp(x)
            terms = [generating_function(family, *site, t) for site in zip(*values)]
            return t * mpmath.exp(sum(a for a, _ in terms) - (c + 1) * t) * terms[s][1]

        pieces = mpmath.linspace(low, high, 2 + int((high - low) / 4))
        rule = {"method": "gauss-legendre", "maxdegree": 4}
        return [float(mpmath.quad(lambda x: integrand(x, s), pieces, **rule)) for s in range(sites)]


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize(
    "family, n, o, pi",
    [
        ("poisson", [1e-6], None, None),
        ("poisson", [1e5, 1e-6, 3.0], None, None),
        ("poisson", [1e5, 1.0], None, [0.5, 0.0]),
        ("poisson", [1e5, 1.0], None, [1 - 1e-9, 1e-9]),
        ("negative_binomial", [1e-6, 1e-6], [1.0, 0.01], None),
        ("negative_binomial", [1e-3, 20.0, 0.5], [1e6, 0.01, 1.0], None),
        ("negative_binomial", [1e-6, 1e5], [1e12, 1e-6], None),
        ("negative_binomial", [0.01, 2.0], [1e12, 1e5], None),
        ("negative_binomial", [1e9, 1e-2], [1e-9, 1e3], None),
        ("negative_binomial", [3.0, 1e4, 0.0], [1.0, 10.0, 0.5], [0.999, 0.3, 0.5]),
        ("binomial", [100_000.0, 3.0], [0.3, 0.9], None),
        ("binomial", [100_000.0, 7.0], [1e-8, 1 - 1e-8], [1e-9, 0.7]),
        ("binomial", [1.0, 1.0, 1.0], [1e-9, 1 - 1e-9, 0.5], None),
    ],
)
def test_extreme_parameters(family, n, o, pi, offset):
    """Tiny and huge rates, dispersions twelve orders apart, chances next to 0 and 1; every r_s to
    its own relative error."""
    want = torch.tensor(by_quadrature(family, n, o, pi, offset), **OPTIONS)
    pair = [None if row is None else tensor(*row) for row in (o, pi)]
    got = OP(family, tensor(*n), *pair, offset)
    assert ((got - want).abs() <= RULE * want + 1e-16).all()


def test_closed_forms():
    """Poisson and one p for all sites: r_s = (n_s / N) (1 - P(Y = 0)); Poisson with c = 1:
    E[1 / (1 + Y)] = (1 - e^-N) / N; one site with c = 0: P(Y > 0)."""
    n = torch.rand(3, 40, **OPTIONS) * 4
    total = n.sum(-1, keepdim=True)
    z = tensor(-0.4)
    chance = -torch.expm1(-total * torch.nn.functional.softplus(z))
    got = tr.expected_ratio_ranking(NegativeBinomial(n, z))
    assert torch.allclose(got, n / total * chance, rtol=RULE, atol=0)
    # with the logit written out for every site, another method is used
    spread = tr.expected_ratio_ranking(NegativeBinomial(n, z.expand(3, 40)))
    assert torch.allclose(got, spread, rtol=2 * RULE, atol=0)
    poisson = td.Poisson(n)
    want = -n / total * torch.expm1(-total)
    assert torch.allclose(tr.expected_ratio_ranking(poisson), want, rtol=RULE, atol=0)
    want = n / total * (1 + torch.expm1(-total) / total)
    assert torch.allclose(tr.expected_ratio_ranking(poisson, offset=1.0), want, rtol=RULE, atol=0)
    one = tr.expected_ratio_ranking(td.Poisson(tensor(2.0)))
    assert abs(one.item() - (1 - np.exp(-2.0))) < RULE


def test_sums_to_the_chance_of_any_event():
    """sum_s r_s = P(Y > 0) for c = 0, over mixed families' worth of dispersion and 5000 sites."""
    torch.manual_seed(0)
    n, z = torch.rand(5000, **OPTIONS) * 1e-3, torch.randn(5000, **OPTIONS) * 3
    r = tr.expected_ratio_ranking(NegativeBinomial(n, z))
    want = -torch.expm1(-(n * torch.nn.functional.softplus(z)).sum())
    assert abs(r.sum() / want - 1) < RULE


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_many_sites_against_samples(offset):
    """300 sites of mixed dispersion, some zero-inflated: within 5 standard errors of 200,000
    draws."""
    torch.manual_seed(1)
    n, z = torch.rand(300, **OPTIONS), torch.randn(300, **OPTIONS) * 2
    counts = ZeroInflated(NegativeBinomial(n, z), torch.rand(300, **OPTIONS).round() * 0.6)
    y = counts.sample(200_000)
    share = y / (offset + y.sum(-1, keepdim=True))
    error = share.std(0) / len(y) ** 0.5
    got = tr.expected_ratio_ranking(counts, offset=offset)
    assert ((got - share.mean(0)).abs() < 5 * error).all()


def test_mixture_by_enumeration():
    """Dependence as in Appendix B.2: all sites share one state of the world. The outcomes of each
    component are enumerated."""
    weights = tensor(0.2, 0.5, 0.3)
    total_count = tensor(2, 3, 1).expand(3, 3)
    probs = tensor(0.1, 0.9, 0.5, 0.7, 0.2, 0.0, 1.0, 0.3, 0.3).view(3, 3)
    parts = td.Independent(td.Binomial(total_count, probs), 1)
    mixture = td.MixtureSameFamily(td.Categorical(weights), parts)
    want = sum(
        w * by_enumeration([stats.binom.pmf(range(4), n, p) for n, p in zip([2, 3, 1], row)], 0.5)
        for w, row in zip(weights, probs.tolist())
    )
    got = tr.expected_ratio_ranking(mixture, offset=0.5)
    assert torch.allclose(got, want, rtol=RULE, atol=0)
    alone = tr.expected_ratio_ranking(parts, offset=0.5)
    assert alone.shape == (3, 3) and torch.allclose(weights @ alone, want, rtol=RULE, atol=0)


def test_shapes_and_float32():
    n, z = torch.rand(2, 3, 50), torch.randn(50)
    for counts, shape in [
        (NegativeBinomial(n, z), (2, 3, 50)),
        (NegativeBinomial(n, z[0]), (2, 3, 50)),
        (NegativeBinomial(n, z[:3, None]), (2, 3, 50)),
        (NegativeBinomial(n[0, 0, 0], z), (50,)),
        (ZeroInflated(NegativeBinomial(n, z[0]), torch.tensor(0.5)), (2, 3, 50)),
        (NegativeBinomial(torch.rand(0, 50), z), (0, 50)),
        (NegativeBinomial(torch.rand(2, 0), z[0]), (2, 0)),
    ]:
        r = tr.expected_ratio_ranking(counts)
        assert r.dtype == torch.float32 and r.shape == shape
        wide = counts.base if isinstance(counts, ZeroInflated) else counts
        wide = NegativeBinomial(wide.total_count.double(), wide.logits.double())
        if isinstance(counts, ZeroInflated):
            wide = ZeroInflated(wide, counts.probs.double())
        assert torch.equal(r, tr.expected_ratio_ranking(wide).float())


def test_a_row_does_not_depend_on_the_others():
    n, z = torch.rand(3, 50, **OPTIONS), torch.randn(3, 50, **OPTIONS)
    n[1] *= 1e6
    whole = tr.expected_ratio_ranking(NegativeBinomial(n, z))
    for row in range(3):
        alone = tr.expected_ratio_ranking(NegativeBinomial(n[row], z[row]))
        assert torch.allclose(whole[row], alone, rtol=RULE, atol=0)


# ---- gradients ---------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("inflated", [False, True])
@pytest.mark.parametrize("family", ["shared", "negative_binomial", "poisson", "bernoulli"])
def test_gradcheck(family, inflated, offset):
    torch.manual_seed(0)
    first = torch.rand(2, 4, **OPTIONS).add(0.05)
    second = torch.randn(2, 1 if family == "shared" else 4, **OPTIONS)
    make = {
        "shared": NegativeBinomial,
        "negative_binomial": NegativeBinomial,
        "poisson": lambda rate, _: td.Poisson(rate),
        "bernoulli": lambda _, z: td.Bernoulli(logits=z),
    }[family]
    pi = torch.rand(4, **OPTIONS)

    def ranking(first, second, pi):
        counts = make(first, second)
        return tr.expected_ratio_ranking(
            ZeroInflated(counts, pi) if inflated else counts, offset=offset
        )

    arguments = [x.requires_grad_() for x in (first, second, pi)]
    torch.autograd.gradcheck(ranking, arguments, atol=1e-7, rtol=1e-6)


def test_gradients_at_the_ends():
    """Where a site cannot have events, and where it surely has: against enumeration's
    derivative."""

    def enumerated(p, pi):
        outcomes = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), **OPTIONS)
        on = (1 - pi) * p
        return reference.ratio_by_enumeration(
            outcomes, torch.where(outcomes > 0, on, 1 - on).prod(-1)
        )

    g = tensor(0.3, -1.0, 2.0)
    p, pi = tensor(0.0, 1.0, 0.5).requires_grad_(), tensor(0.0, 1.0, 0.0).requires_grad_()
    want = torch.autograd.grad(enumerated(p, pi), (p, pi), g)
    r = tr.expected_ratio_ranking(ZeroInflated(td.Bernoulli(p), pi))
    for got, expected in zip(torch.autograd.grad(r, (p, pi), g), want):
        assert torch.allclose(got, expected, rtol=0, atol=2 * RULE)
    # one site certain to have 1e5 events or so: its zero inflation frees the other's share
    rate, pi = tensor(1e5, 1.0), tensor(0.0, 0.0).requires_grad_()
    r = tr.expected_ratio_ranking(ZeroInflated(td.Poisson(rate), pi))
    (got,) = torch.autograd.grad(r[1], pi)
    # of site 1: P(y_1 > 0), less its share now, 1e-5; of site 0's probability of none: its own r
    assert abs(got[0] - (1 - np.exp(-1.0) - r[1].item())) < 1e-9
    # no site has events: dr_s/dn_s = log(1 + odds), from (n_s / N) (1 - (1 + odds)^-N)
    n = torch.zeros(3, **OPTIONS, requires_grad=True)
    r = tr.expected_ratio_ranking(NegativeBinomial(n, torch.zeros((), **OPTIONS)))
    (got,) = torch.autograd.grad(r, n, g)
    assert torch.allclose(got, g * np.log(2.0), rtol=RULE, atol=0)
    assert r.tolist() == [0.0, 0.0, 0.0]
    # p = 0 in torch's NegativeBinomial, whose own logits are clamped: dr_s/dp_s = n_s (1 + ...)
    p = torch.zeros(1, **OPTIONS, requires_grad=True)
    r = tr.expected_ratio_ranking(td.NegativeBinomial(tensor(2.0), p))
    assert r.item() == 0 and abs(torch.autograd.grad(r, p)[0].item() - 2.0) < 4 * RULE


def test_twice_differentiating_raises():
    n = torch.rand(5, **OPTIONS, requires_grad=True)
    (g,) = torch.autograd.grad(
        tr.expected_ratio_ranking(td.Poisson(n)).square().sum(), n, create_graph=True
    )
    with pytest.raises(
        RuntimeError,
        match="expected_ratio_ranking: .* must be differentiated once only, got a second "
        "derivative",
    ):
        torch.autograd.grad(g.sum(), n)


def test_memory_does_not_grow_with_the_nodes():
    """100,000 sites: one array of sites by nodes would be 50 MB, and the plain formula holds
    six."""
    program = """
import torch, topreach as tr
def peak():  # kilobytes; getrusage would count the parent's too
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
def step(sites):
    n, z, pi = (torch.rand(1, sites, requires_grad=True) for _ in range(3))
    tr.expected_ratio_ranking(tr.distributions.NegativeBinomial(n, z)).sum().backward()
    inflated = tr.distributions.ZeroInflated(tr.distributions.NegativeBinomial(n, z), pi)
    tr.expected_ratio_ranking(inflated).sum().backward()
step(100)
before = peak()
step(100_000)
print(peak() - before)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) < 60_000  # kilobytes: 20 blocks of 1 MB, 20 arrays of 0.8 MB, allocator


# ---- errors, torch's own checks ----------------------------------------------------------------

ONES = torch.ones(3)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (
            ("gamma", ONES, None, None, 0.0),
            ValueError,
            "family must be 'poisson', 'negative_binomial' or 'binomial', got 'gamma'",
        ),
        (
            ("poisson", ONES, ONES, None, 0.0),
            ValueError,
            "second must be None for family 'poisson'",
        ),
        (
            ("binomial", ONES, None, None, 0.0),
            ValueError,
            "probs must be given for family 'binomial'",
        ),
        (
            ("poisson", torch.ones(3).long(), None, None, 0.0),
            TypeError,
            "rate must be float32 or float64, got Long",
        ),
        (
            ("poisson", torch.ones(()), None, None, 0.0),
            ValueError,
            r"rate must have shape \[..., S\], got a scalar",
        ),
        (
            ("poisson", -ONES, None, None, 0.0),
            ValueError,
            "rate must be finite and not negative, got -1",
        ),
        (
            ("poisson", ONES / 0, None, None, 0.0),
            ValueError,
            "rate must be finite and not negative, got inf",
        ),
        (
            ("negative_binomial", ONES, ONES * float("nan"), None, 0.0),
            ValueError,
            "odds must be finite and not negative, got nan",
        ),
        (
            ("negative_binomial", ONES.double(), ONES.double() * 1e308, None, 0.0),
            ValueError,
            "mean count of a row must be finite",
        ),
        (
            ("binomial", ONES, ONES * 1.5, None, 0.0),
            ValueError,
            r"probs must lie in \[0, 1\], got 1.5",
        ),
        (
            ("binomial", ONES * 1.5, ONES, None, 0.0),
            ValueError,
            "total_count must be whole, got .*1.5",
        ),
        (
            ("poisson", ONES, None, -ONES, 0.0),
            ValueError,
            r"zero_probs must lie in \[0, 1\], got -1",
        ),
        (
            ("poisson", ONES, None, None, -1.0),
            ValueError,
            "offset must be finite and not negative, got -1",
        ),
        (("poisson", ONES, None, None, float("nan")), ValueError, "offset must be finite"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match="expected_ratio_ranking: .*" + message):
        OP(*arguments)


def test_names_what_it_knows():
    with pytest.raises(TypeError, match=r"got Geometric; for any other use ratio_ranking\(samples"):
        tr.expected_ratio_ranking(td.Geometric(ONES / 2))
    parts = td.Poisson(torch.ones(2, 3))
    with pytest.raises(ValueError, match="Independent must have 1 dimension of sites, got 2"):
        tr.expected_ratio_ranking(td.Independent(parts, 2))
    flat = td.MixtureSameFamily(td.Categorical(ONES), td.Bernoulli(ONES / 2))
    with pytest.raises(TypeError, match="must be Independent"):
        tr.expected_ratio_ranking(flat)


def known_and_unknown():
    """Distributions of counts [2, 3], by name, and whether their ratio ranking is known."""
    n, half = torch.rand(2, 3), torch.full((2, 3), 0.5)
    draws = distributions.NegativeBinomial(torch.rand(2, 4, 3), torch.tensor(0.5))
    categorical = td.Categorical(torch.ones(2, 4))
    yield "negative binomial", distributions.NegativeBinomial(n, torch.tensor(0.5)), True
    yield "Poisson", distributions.Poisson(n), True
    yield "zero-inflated", distributions.ZeroInflated(distributions.Poisson(n), half), True
    yield "mixture", distributions.Mixture(torch.full((2, 4), 0.25), draws), True
    sites = distributions.SiteMixture(torch.randn(2, 3, 4), td.Poisson(torch.rand(4)))
    yield "site mixture", sites, True
    yield "torch's negative binomial", td.NegativeBinomial(n, half), True
    yield "torch's Poisson", td.Poisson(n), True
    yield "torch's Bernoulli", td.Bernoulli(half), True
    yield "torch's binomial", td.Binomial(3, half), True
    yield "independent", td.Independent(td.Poisson(n), 1), True
    parts = td.Independent(td.Poisson(torch.rand(2, 4, 3)), 1)
    yield "torch's mixture", td.MixtureSameFamily(categorical, parts), True
    yield "geometric", td.Geometric(half), False
    yield "independent geometric", td.Independent(td.Geometric(half), 1), False
    yield "inflated geometric", distributions.ZeroInflated(td.Geometric(half), half), False


@pytest.mark.parametrize(
    ("distribution", "known"),
    [pytest.param(d, known, id=name) for name, d, known in known_and_unknown()],
)
def test_tells_beforehand_what_it_knows(distribution, known):
    """Ranking "auto" of the objectives depends on this."""
    assert has_expected_ratio_ranking(distribution) is known
    if known:
        assert tr.expected_ratio_ranking(distribution).shape == (2, 3)
    else:
        with pytest.raises(TypeError):
            tr.expected_ratio_ranking(distribution)


@pytest.mark.parametrize("family", ["poisson", "negative_binomial", "binomial"])
@pytest.mark.parametrize("inflated", [False, True])
def test_opcheck(family, inflated):
    first = torch.randint(1, 4, (2, 5)).double().requires_grad_()
    second = None if family == "poisson" else torch.rand(5, **OPTIONS, requires_grad=True)
    pi = torch.rand(2, 1, requires_grad=True) if inflated else None
    torch.library.opcheck(OP.default, (family, first, second, pi, 1.0))
    # which has no derivative of its own
    first, second, pi = (None if x is None else x.detach() for x in (first, second, pi))
    torch.library.opcheck(
        torch.ops.topreach.expected_ratio_ranking_backward.default,
        (torch.randn(2, 5), family, first, second, pi, 1.0),
    )


def test_compiled_step_equals_eager():
    n, z = torch.rand(3, 20, requires_grad=True), torch.zeros((), requires_grad=True)
    g = torch.randn(3, 20)

    def step(n, z):
        return (tr.expected_ratio_ranking(NegativeBinomial(n, z)) * g).sum()

    grads = [
        torch.autograd.grad(f(n, z), (n, z)) for f in (step, torch.compile(step, fullgraph=True))
    ]
    for a, b in zip(*grads):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-7)


# ---- zero-inflated counts ----------------------------------------------------------------------


def test_zero_inflated_log_prob_and_moments():
    n, z, pi = tensor(0.5, 3.0, 1.0), tensor(0.2, -1.0, 1.0), tensor(0.3, 0.0, 0.9)
    counts = ZeroInflated(NegativeBinomial(n, z), pi)
    y = torch.arange(200, **OPTIONS)[:, None].expand(200, 3)
    pmf = stats.nbinom.pmf(y.numpy(), n.numpy(), 1 - torch.sigmoid(z).numpy())
    want = torch.from_numpy(pmf) * (1 - pi) + pi * (y == 0)
    p = counts.log_prob(y).exp()
    assert torch.allclose(p, want, rtol=1e-12, atol=0)
    assert torch.allclose((p * y).sum(0), counts.mean, rtol=1e-10)
    assert torch.allclose((p * y**2).sum(0) - counts.mean**2, counts.variance, rtol=1e-10)


def test_zero_inflated_log_prob_at_the_ends():
    """P_base(0) = e^-1000 underflows, and chances of 0 and 1: finite values and gradients."""
    rate = tensor(1000.0, 1000.0, 2.0, 2.0).requires_grad_()
    pi = tensor(0.0, 0.25, 0.0, 1.0).requires_grad_()
    value = ZeroInflated(td.Poisson(rate), pi).log_prob(torch.zeros(4, **OPTIONS))
    assert torch.allclose(value, tensor(-1000.0, np.log(0.25), -2.0, 0.0))
    grads = torch.autograd.grad(value.sum(), (rate, pi))
    assert torch.allclose(grads[0], tensor(-1.0, 0.0, -1.0, 0.0))
    assert torch.allclose(grads[1][1:], tensor(4.0, np.exp(2) - 1, 1 - np.exp(-2.0)))
    small = ZeroInflated(td.Poisson(tensor(0.7)), tensor(0.4).requires_grad_())
    torch.autograd.gradcheck(
        lambda pi: ZeroInflated(td.Poisson(tensor(0.7, 3.0)), pi).log_prob(tensor(0.0, 1.0)),
        small.probs,
    )


def test_zero_inflated_sampling():
    torch.manual_seed(0)
    rate, pi = tensor(3.0, 0.5, 2.0).expand(2, 3), tensor(0.4, 1.0, 0.0)
    for base in (td.Poisson(rate), NegativeBinomial(rate, torch.zeros((), **OPTIONS))):
        counts = ZeroInflated(base, pi)
        y = counts.sample(100_000)
        assert y.shape == (100_000, 2, 3) and y.dtype == torch.float64
        none = counts.log_prob(y[0] * 0).exp()
        for moment, want in ((y, counts.mean), ((y == 0).double(), none)):
            error = moment.std(0) / len(y) ** 0.5
            assert ((moment.mean(0) - want).abs() <= 5 * error).all()
    key = tr.draw_key()
    assert torch.equal(counts.sample(9, key=key), counts.sample(9, key=key))
    part = ZeroInflated(NegativeBinomial(rate[1:], counts.base.logits), pi)
    assert torch.equal(counts.sample(9, key=key)[:, 1:], part.sample(9, key=key, row_offset=1))


def test_zero_inflated_errors():
    with pytest.raises(ValueError, match=r"probs must broadcast to the shape of base, \(3,\), got"):
        ZeroInflated(td.Poisson(ONES), torch.ones(2, 3))
    with pytest.raises(ValueError, match="key and generator must be None for a base of torch"):
        ZeroInflated(td.Poisson(ONES), ONES).sample(3, key=tr.draw_key())


# ---- distribution functions and the GO gradient ------------------------------------------------


@pytest.mark.parametrize("most", [30, 300])
def test_count_cdf(most):
    """Against scipy, in one block of counts and in several; the gradient by finite differences."""
    n = tensor(0.5, 3.0, 40.0) * most / 30
    z = tensor(0.0, 0.5, -1.0)
    y = torch.randint(0, most, (20, 2, 3)).double()
    y[0, 0, 0] = most
    counts = NegativeBinomial(n.requires_grad_(), z)
    cdf = tr.count_cdf(counts, y)
    want = stats.nbinom.cdf(y.numpy(), n.detach().numpy(), 1 - torch.sigmoid(z).numpy())
    assert torch.allclose(cdf, torch.from_numpy(want), rtol=0, atol=1e-13)
    (got,) = torch.autograd.grad(cdf.sum(), n)
    step = 1e-5
    change = [
        stats.nbinom.cdf(y.numpy(), n.detach().numpy() + e, 1 - torch.sigmoid(z).numpy())
        for e in (step, -step)
    ]
    want = torch.from_numpy((change[0] - change[1]) / (2 * step)).sum((0, 1))
    assert torch.allclose(got, want, rtol=1e-5, atol=1e-7)


def test_count_cdf_errors():
    for bad in (-1.0, 0.5):
        with pytest.raises(ValueError, match="count_cdf: samples must be whole counts"):
            tr.count_cdf(td.Poisson(ONES), torch.tensor([[bad, 1.0, 1.0]]))


@pytest.mark.parametrize("kind", ["negbin", "poisson", "zero_inflated", "site_mixture"])
def test_interval_log_prob(kind):
    """Against SciPy's distribution functions; the gradient by finite differences."""
    low, high = tensor([0.0, 1.0, 3.0], [2.0, 0.0, 1.0]), tensor([0.0, 9.0, 3.0], [40.0, 4.0, 9.0])
    a, b = tensor(0.5, 3.0, 12.0), tensor(0.3, 0.5, -1.0)
    make, cdf = {
        "negbin": (
            lambda a, b: NegativeBinomial(a, b),
            lambda y, a, b: stats.nbinom.cdf(y, a, 1 / (1 + np.exp(b))),
        ),
        "poisson": (
            lambda a, b: tr.distributions.Poisson(a),
            lambda y, a, b: stats.poisson.cdf(y, a),
        ),
        "zero_inflated": (
            lambda a, b: ZeroInflated(td.Poisson(a), torch.sigmoid(b)),
            lambda y, a, b: (y >= 0) * (1 + (stats.poisson.cdf(y, a) - 1) / (1 + np.exp(b))),
        ),
        "site_mixture": (
            lambda a, b: SiteMixture(torch.stack([b, -b], -1), td.Poisson(tensor(1.0, 8.0))),
            lambda y, a, b: (
                stats.poisson.cdf(y, 8.0)
                + (stats.poisson.cdf(y, 1.0) - stats.poisson.cdf(y, 8.0)) / (1 + np.exp(-2 * b))
            ),
        ),
    }[kind]
    parameters = [p.requires_grad_() for p in (a, b)]
    got = tr.interval_log_prob(make(a, b), low, high)
    numbers = (a.detach().numpy(), b.detach().numpy())
    want = cdf(high.numpy(), *numbers) - cdf(low.numpy() - 1, *numbers)
    # The difference of two distribution functions is good to a few roundings of 1.
    assert torch.allclose(got.exp(), torch.from_numpy(want), rtol=0, atol=1e-13)
    exact = tr.interval_log_prob(make(a, b), low, low)
    assert torch.equal(exact, make(a, b).log_prob(low))
    assert torch.autograd.gradcheck(
        lambda a, b: tr.interval_log_prob(make(a, b), low, high), parameters
    )


def test_interval_log_prob_errors():
    counts, one = tr.distributions.Poisson(ONES), torch.ones_like(ONES)
    for low, high in ((one, 0 * one), (-one, one), (one / 2, one)):
        with pytest.raises(ValueError, match="interval_log_prob: low and high must be whole"):
            tr.interval_log_prob(counts, low, high)
    with pytest.raises(ValueError, match="interval_log_prob: low and high must have one shape"):
        tr.interval_log_prob(counts, one, one[:2])
    normals = SiteMixture(torch.zeros(3, 1), tr.distributions.TruncatedNormal(ONES[:1], ONES[:1]))
    for other in (normals, td.Normal(ONES, ONES), td.Independent(td.Poisson(ONES), 1)):
        with pytest.raises(TypeError, match="interval_log_prob: distribution must be of whole"):
            tr.interval_log_prob(other, one, one)


def go_problem(offset, sites=30, rows=300, draws=40):
    """Gradients of g.r for total_count and logits: exact, and one estimate a row by each method."""
    torch.manual_seed(3)
    n, z = torch.rand(sites, **OPTIONS) * 2 + 0.05, torch.randn(sites, **OPTIONS)
    g = torch.randn(sites, **OPTIONS)
    rest = [n.clone().requires_grad_(), z.clone().requires_grad_()]
    r = tr.expected_ratio_ranking(NegativeBinomial(*rest), offset=offset)
    exact = torch.cat(torch.autograd.grad(r, rest, g))
    estimates = {}
    for estimator in ("go", "score_loo"):
        own = [x.expand(rows, sites).clone().requires_grad_() for x in (n, z)]
        counts = NegativeBinomial(*own)
        torch.manual_seed(4)
        y = counts.sample(draws)
        log_prob = counts.log_prob(y)
        cdf = tr.count_cdf(counts, y) if estimator == "go" else None
        r = tr.ratio_ranking(y, log_prob, offset=offset, estimator=estimator, cdf=cdf)
        estimates[estimator] = torch.cat(torch.autograd.grad(r, own, g.expand_as(r)), -1)
    return exact, estimates


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_go_is_unbiased_and_of_small_variance(offset):
    """Within 5 standard errors of the exact gradient; the leave-one-out score has 20 times its
    variance or more (measured: 57)."""
    exact, estimates = go_problem(offset)
    for got in estimates.values():
        assert ((got.mean(0) - exact).abs() < 5 * got.std(0) / len(got) ** 0.5).all()
    go, loo = (estimates[e].var(0).sum() for e in ("go", "score_loo"))
    print(float(loo / go))
    assert loo > 20 * go


def test_go_weights_by_hand():
    """R(y + e_s) - R(y) computed from its definition, for samples with and without events."""
    torch.manual_seed(0)
    y = torch.poisson(torch.rand(7, 2, 5, **OPTIONS))
    y[0] = 0
    log_prob, g = torch.rand(7, 2, 5, **OPTIONS), torch.randn(2, 5, **OPTIONS)
    for offset in (0.0, 0.5):
        cdf = torch.zeros(7, 2, 5, **OPTIONS, requires_grad=True)
        r = tr.ratio_ranking(y, log_prob, offset=offset, estimator="go", cdf=cdf)
        assert torch.equal(r, tr.ratio_ranking(y, offset=offset))
        (got,) = torch.autograd.grad(r, cdf, g)

        def reach(y):
            return (g * torch.nan_to_num(y / (offset + y.sum(-1, keepdim=True)))).sum(-1)

        for s in range(5):
            up = y.clone()
            up[..., s] += 1
            want = -(reach(up) - reach(y)) / log_prob[..., s].exp() / 7
            assert torch.allclose(got[..., s], want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_go_survives_vanishing_probabilities(dtype):
    n = torch.ones(1, 2, dtype=dtype, requires_grad=True)
    counts = NegativeBinomial(n, torch.tensor(-8.0, dtype=dtype))
    y = torch.tensor([[[200.0, 1.0]], [[0.0, 0.0]]], dtype=dtype)  # p = e^-1600
    cdf = tr.count_cdf(counts, y)
    r = tr.ratio_ranking(y, counts.log_prob(y), estimator="go", cdf=cdf)
    (got,) = torch.autograd.grad(r[0, 0], n)
    assert got.isfinite().all()


@pytest.mark.parametrize(
    "log_prob, cdf, error, message",
    [
        (None, None, ValueError, "log_prob and cdf must be given for estimator 'go'"),
        (
            torch.ones(4),
            torch.ones(4, 3),
            ValueError,
            r"log_prob must have shape \[4, 3\] for estimator 'go', got \[4\]",
        ),
        (torch.ones(4, 3), torch.ones(4), ValueError, r"cdf must have shape \[4, 3\]"),
        (
            torch.ones(4, 3),
            torch.ones(4, 3).double(),
            TypeError,
            "cdf must have the dtype of samples",
        ),
    ],
)
def test_go_errors(log_prob, cdf, error, message):
    with pytest.raises(error, match="ratio_ranking: .*" + message):
        tr.ratio_ranking(torch.ones(4, 3), log_prob, estimator="go", cdf=cdf)


def test_go_opcheck():
    y = torch.poisson(torch.rand(5, 3, 8))
    log_prob, cdf = torch.randn(5, 3, 8), torch.rand(5, 3, 8, requires_grad=True)
    ops = torch.ops.topreach
    torch.library.opcheck(ops.ratio_ranking_go.default, (y, log_prob, cdf, 0.0))
    torch.library.opcheck(
        ops.ratio_ranking_go_backward.default, (torch.randn(3, 8), y, log_prob, 0.0)
    )
