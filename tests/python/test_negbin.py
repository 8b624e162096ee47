"""Negative binomial draws and log-probabilities [D25 Eq. 15], against scipy, mpmath and torch."""

import math
import os
import subprocess
import sys

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

import topreach as tr
from topreach.distributions import NegativeBinomial

sample = torch.ops.topreach.negbin_sample
log_prob = torch.ops.topreach.negbin_log_prob

KEY = torch.tensor([20250, 4])


def f64(value):
    return torch.as_tensor(value, dtype=torch.float64)


# ---- draws: the distribution ---------------------------------------------------------------------

# (total_count, logits): short and long tables, tables that start above 0, and rejection with small
# and large shape, small and large rate.
SETTINGS = [
    (1.0, 0.0),
    (0.3, 0.5),
    (0.02, -1.0),
    (7.0, -2.5),
    (60.0, -1.0),
    (900.0, -2.0),
    (3e4, -4.0),
    (0.5, 2.5),
    (0.01, 4.5),
    (0.4, 6.0),
    (5.0, 3.5),
    (80.0, 3.0),
    (2e3, 0.5),
    (1e5, 2.0),
]


@pytest.mark.parametrize(("n", "z"), SETTINGS)
def test_draws_follow_scipy(n, z):
    draws = sample(torch.full((500,), n).double(), f64(z), 400, KEY, 3).flatten().numpy()
    law = stats.nbinom(n, special.expit(-z))
    assert np.array_equal(draws, np.floor(draws)) and draws.min() >= 0
    # Cells of about equal probability, bounded by quantiles.
    edges = np.unique(law.ppf(np.linspace(0, 1, 61)[1:-1]))
    expected = np.diff(np.concatenate(([0.0], law.cdf(edges), [1.0]))) * draws.size
    seen = np.bincount(np.searchsorted(edges, draws), minlength=expected.size)
    keep = expected > 20
    expected = np.append(expected[keep], expected[~keep].sum())
    seen = np.append(seen[keep], seen[~keep].sum())
    keep = expected > 0
    statistic = ((seen - expected)[keep] ** 2 / expected[keep]).sum()
    assert stats.chi2.sf(statistic, max(keep.sum() - 1, 1)) > 1e-6
    mean, variance, kurtosis = law.stats("mvk")
    assert abs(draws.mean() - mean) < 5 * math.sqrt(variance / draws.size)
    spread = ((draws - mean) ** 2).mean()
    assert abs(spread - variance) < 5 * variance * math.sqrt((2 + kurtosis) / draws.size)


@pytest.mark.parametrize("mean", [1e4, 1e6, 1e8])
def test_huge_means_are_gammas(mean):
    """y / mean tends to Gamma(n) / n: Kolmogorov-Smirnov against scipy's continuous law."""
    n = 2.5
    z = math.log(mean / n)
    draws = sample(torch.full((20000,), n).double(), f64(z), 1, KEY).flatten().numpy()
    assert stats.kstest(draws / mean, stats.gamma(n, scale=1 / n).cdf).pvalue > 1e-5
    poisson_like = sample(torch.full((20000,), 1e12).double(), f64(math.log(mean / 1e12)), 1, KEY)
    standard = (poisson_like.flatten().numpy() - mean) / math.sqrt(mean)
    assert stats.kstest(standard, "norm").pvalue > 1e-5


def test_point_masses_and_limits():
    n = torch.tensor([0.0, 1e-30, 3.0, 0.0])
    z = torch.tensor([0.0, 0.0, -math.inf, 80.0])
    assert (sample(n, z, 1000, KEY) == 0).all()
    assert sample(torch.empty(3, 0), torch.zeros(()), 5, KEY).shape == (5, 3, 0)
    assert sample(torch.ones(3), torch.zeros(()), 0, KEY).shape == (0, 3)
    assert sample(torch.tensor(2.0), torch.tensor(0.1), 7, KEY).shape == (7,)


def test_draws_are_independent():
    """Correlation of draws next to each other in draw, row and site; and for neighbouring keys."""
    y = sample(torch.full((40, 50), 1.3), torch.tensor(0.2), 100, KEY)
    other = sample(torch.full((40, 50), 1.3), torch.tensor(0.2), 100, KEY + 1)
    pairs = [(y[1:], y[:-1]), (y[:, 1:], y[:, :-1]), (y[..., 1:], y[..., :-1]), (y, other)]
    for a, b in pairs:
        r = np.corrcoef(a.flatten(), b.flatten())[0, 1]
        assert abs(r) < 5 / math.sqrt(a.numel())


# ---- draws: reproducible -------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 6),
    sites=st.integers(1, 70),
    draws=st.integers(1, 9),
    cut=st.integers(0, 6),
    offset=st.integers(0, 2**31),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_same_draws_for_any_split(rows, sites, draws, cut, offset, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    n = torch.exp(4 * torch.randn(rows, sites, generator=generator)).to(dtype)
    z = (3 * torch.randn(rows, sites, generator=generator)).to(dtype)
    whole = sample(n, z, draws, KEY, offset)
    cut = min(cut, rows)
    parts = [sample(n[:cut], z[:cut], draws, KEY, offset)]
    parts.append(sample(n[cut:], z[cut:], draws, KEY, offset + cut))
    assert torch.equal(torch.cat(parts, 1), whole)
    assert torch.equal(sample(n, z, draws + 3, KEY, offset)[:draws], whole)
    fewer = torch.arange(0, sites - 1)
    if len(fewer):
        assert torch.equal(sample(n[:, :-1], z[:, :-1], draws, KEY, offset), whole[..., :-1])


def test_same_draws_for_any_thread_count_and_instruction_set():
    script = (
        "import torch, topreach, hashlib; torch.set_num_threads(int(__import__('sys').argv[1]));"
        "g = torch.Generator().manual_seed(1);"
        "n = torch.exp(3 * torch.randn(5, 333, generator=g));"
        "z = 2 * torch.randn(5, 333, generator=g);"
        "y = torch.ops.topreach.negbin_sample(n, z, 13, torch.tensor([5, 6]));"
        "p = torch.ops.topreach.negbin_log_prob(y, n, z);"
        "print(hashlib.sha256(y.numpy().tobytes() + p.numpy().tobytes()).hexdigest())"
    )
    digests = set()
    for isa in ("baseline", "avx2", "avx512"):
        for threads in ("1", "2"):
            environment = {**os.environ, "TOPREACH_CPU_CAPABILITY": isa}
            run = [sys.executable, "-c", script, threads]
            digests.add(
                subprocess.run(run, env=environment, capture_output=True, check=True).stdout
            )
    assert len(digests) == 1


def test_a_seed_gives_the_draws():
    counts = NegativeBinomial(torch.ones(2, 5), torch.tensor(0.0))
    torch.manual_seed(4)
    first = counts.sample(3)
    torch.manual_seed(4)
    assert torch.equal(first, counts.sample(3, key=tr.draw_key()))
    generator = torch.Generator().manual_seed(4)
    assert torch.equal(first, counts.sample(3, generator=generator))


# ---- log-probability -----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1e-3, 0.4, 1.0, 9.0, 250.0, 1e5])
@pytest.mark.parametrize("z", [-6.0, -0.5, 0.0, 3.0])
def test_log_prob_is_scipys(n, z):
    y = np.concatenate((np.arange(80), [100, 500, 1e4, 1e6]))
    got = log_prob(torch.from_numpy(y), f64(n), f64(z)).numpy()
    want = stats.nbinom.logpmf(y, n, special.expit(-z))
    assert np.allclose(got, want, rtol=1e-9, atol=1e-9)


def exact_log_prob(y, n, z):
    with mpmath.workdps(60):
        y, n, z = mpmath.mpf(y), mpmath.mpf(n), mpmath.mpf(z)
        return (
            mpmath.loggamma(n + y)
            - mpmath.loggamma(n)
            - mpmath.loggamma(y + 1)
            - n * mpmath.log1p(mpmath.exp(z))
            - y * mpmath.log1p(mpmath.exp(-z))
        )


def exact_slopes(y, n, z):
    with mpmath.workdps(60):
        y, n, z = mpmath.mpf(y), mpmath.mpf(n), mpmath.mpf(z)
        p = 1 / (1 + mpmath.exp(-z))
        slope = mpmath.digamma(n + y) - mpmath.digamma(n) - mpmath.log1p(mpmath.exp(z))
        return slope, y - (n + y) * p


EXTREMES = [
    (y, n, z)
    for y in (0.0, 1.0, 2.5, 63.0, 64.0, 1e3, 1e8)
    for n in (1e-12, 1e-3, 7.5, 8.0, 1e6, 1e12)
    for z in (-40.0, -5.0, 0.1, 12.0, 90.0)
]


def test_extremes_against_mpmath():
    """log P to 1e-13 of itself; slopes to 1e-12 of the terms that they are the difference of."""
    y, n, z = (f64(column) for column in zip(*EXTREMES, strict=True))
    n.requires_grad_(), z.requires_grad_()
    got = log_prob(y, n, z)
    dn, dz = torch.autograd.grad(got.sum(), (n, z))
    for i, (y, n, z) in enumerate(EXTREMES):
        want = float(exact_log_prob(y, n, z))
        assert abs(got[i].item() - want) <= 1e-11 + 1e-13 * abs(want), (y, n, z)
        slope_n, slope_z = (float(slope) for slope in exact_slopes(y, n, z))
        softplus = np.logaddexp(0, z)
        assert abs(dn[i].item() - slope_n) <= 1e-12 * (abs(slope_n + softplus) + softplus), (
            y,
            n,
            z,
        )
        terms = y * special.expit(-z) + n * special.expit(z)
        assert abs(dz[i].item() - slope_z) <= 1e-12 * terms, (y, n, z)


def test_float32_loses_nothing_to_large_totals():
    """lgamma(y + n) - lgamma(n) in float32 has no digit left at n = 1e6; the fused form has all."""
    n = torch.full((50,), 1e6)
    z = torch.full((), math.log(3e-6))
    y = torch.arange(50.0)
    want = stats.nbinom.logpmf(y.numpy(), 1e6, special.expit(-z.double().item()))
    assert np.allclose(log_prob(y, n, z).numpy(), want, rtol=3e-7, atol=1e-6)
    naive = torch.distributions.NegativeBinomial(n, logits=z).log_prob(y)
    assert (naive.numpy() - want).__abs__().max() > 0.1


@pytest.mark.parametrize("value_shape", [(7, 3, 5), (3, 5), (5,), (2, 7, 3, 5), ()])
@pytest.mark.parametrize("n_shape", [(3, 5), (5,), (3, 1), ()])
@pytest.mark.parametrize("z_shape", [(), (1, 5), (3, 5)])
def test_broadcasting_values_and_gradients(value_shape, n_shape, z_shape):
    torch.manual_seed(0)
    value = torch.randint(0, 9, value_shape).double()
    n = torch.rand(n_shape, dtype=torch.float64).add(0.1).requires_grad_()
    z = torch.randn(z_shape, dtype=torch.float64).requires_grad_()
    got = log_prob(value, n, z)
    want = torch.distributions.NegativeBinomial(n, logits=z, validate_args=False).log_prob(value)
    assert got.shape == want.shape and torch.allclose(got, want)
    g = torch.randn_like(want)
    mine = torch.autograd.grad(got, (n, z), g)
    theirs = torch.autograd.grad(want, (n, z), g)
    for a, b in zip(mine, theirs, strict=True):
        assert a.shape == b.shape and torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_gradients_by_finite_differences():
    torch.manual_seed(1)
    value = torch.randint(0, 200, (6, 4, 9)).double()
    value[0] += 0.5
    n = (torch.rand(4, 9, dtype=torch.float64) * 20 + 0.05).requires_grad_()
    z = torch.randn(4, 9, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda n, z: log_prob(value, n, z), (n, z))


def test_score_has_mean_zero():
    """E[d log p / d theta] = 0 under the model: draws and log-probability belong together."""
    n = torch.full((300,), 1.7).double().requires_grad_()
    z = f64(0.4).requires_grad_()
    y = sample(n, z, 2000, KEY)
    total = y.numel()
    dn, dz = torch.autograd.grad(log_prob(y, n, z).sum() / total, (n, z))
    with torch.no_grad():
        slope_n = torch.digamma(n + y) - torch.digamma(n) - torch.nn.functional.softplus(z)
        slope_z = y - (n + y) * z.sigmoid()
    assert abs(dn.sum()) < 5 * slope_n.std() / math.sqrt(total)
    assert abs(dz) < 5 * slope_z.std() / math.sqrt(total)


def test_degenerate_parameters():
    got = log_prob(f64([0.0, 2.0, 0.0, 2.0, 70.0]), f64([0.0, 0.0, 2.0, 2.0, 2.0]),
                   f64([0.3, 0.3, -math.inf, -math.inf, -math.inf]))  # fmt: skip
    assert got.tolist() == [0.0, -math.inf, 0.0, -math.inf, -math.inf]
    assert log_prob(f64([1.0]), f64([math.nan]), f64([0.0])).isnan().all()
    n = f64([1e-320]).requires_grad_()
    log_prob(f64([0.0]), n, f64([0.3])).backward()
    assert n.grad.isfinite().all()


# ---- errors, compilation -------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_bad_values_raise(bad):
    one = torch.ones(2, 3)
    broken = one.clone()
    broken[1, 2] = bad
    with pytest.raises(ValueError, match="row 1, site 2"):
        sample(broken, torch.zeros(()), 4, KEY)
    with pytest.raises(ValueError, match="row 1, site 2"):
        log_prob(broken, one, torch.zeros(()))
    if bad != -1.0:
        with pytest.raises(ValueError, match="logits must be below"):
            sample(one, broken, 4, KEY)
    else:
        with pytest.raises(ValueError, match="total_count must not be negative"):
            log_prob(one, broken, torch.zeros(()))


def test_bad_types_raise():
    one = torch.ones(3)
    with pytest.raises(TypeError, match="total_count must be float32 or float64"):
        sample(one.long(), one, 4, KEY)
    with pytest.raises(TypeError, match="logits must have the dtype"):
        sample(one, one.double(), 4, KEY)
    with pytest.raises(ValueError, match="num_samples must not be negative"):
        sample(one, one, -1, KEY)
    with pytest.raises(ValueError, match="key must have shape"):
        sample(one, one, 4, KEY[:1])
    with pytest.raises(TypeError, match="value must have the dtype"):
        log_prob(one.double(), one, one)


def test_double_backward_raises():
    n = torch.ones(3).requires_grad_()
    slope = torch.autograd.grad(
        log_prob(torch.ones(3), n, torch.zeros(3)).sum(), n, create_graph=True
    )
    with pytest.raises(
        RuntimeError,
        match="negbin_log_prob: .* must be differentiated once only, got a second derivative",
    ):
        slope[0].sum().backward()


def test_draws_have_no_gradient():
    n = torch.ones(3, requires_grad=True)
    assert not sample(n, torch.zeros(()), 4, KEY).requires_grad


def test_opcheck():
    n, z = torch.rand(3, 8, requires_grad=True), torch.tensor(0.2, requires_grad=True)
    y = sample(n, z, 5, KEY)
    torch.library.opcheck(torch.ops.topreach.negbin_sample.default, (n, z, 5, KEY, 0))
    torch.library.opcheck(torch.ops.topreach.negbin_log_prob.default, (y, n, z))
    torch.library.opcheck(
        torch.ops.topreach.negbin_log_prob_backward.default,
        (torch.randn(5, 3, 8), y, n.detach(), z.detach()),
    )


def test_compiled_step_equals_eager():
    torch.manual_seed(0)
    n, z = torch.rand(3, 8).add(0.1).requires_grad_(), torch.tensor(0.2, requires_grad=True)

    def step(n, z):
        y = sample(n, z, 6, KEY)
        loss = -log_prob(y, n, z).sum(-1).mean()
        return loss, *torch.autograd.grad(loss, (n, z))

    def forward(n, z):
        return -log_prob(sample(n, z, 6, KEY), n, z).sum(-1).mean()

    compiled = torch.compile(forward, backend="aot_eager", fullgraph=True)
    loss = compiled(n, z)
    for a, b in zip((loss, *torch.autograd.grad(loss, (n, z))), step(n, z), strict=True):
        assert torch.allclose(a, b)
