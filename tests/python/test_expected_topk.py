"""The expected top-K, exact and by mean field, against oracles that use other methods."""

import itertools
import subprocess
import sys

import mpmath
import numpy as np
import pytest
import reference
import torch
from scipy import special, stats

import topreach as tr

OPS = torch.ops.topreach
INF = float("inf")
# What the method states: the rules' agreement of 3e-5 leaves 1e-9, the grid 3e-11.
BOUND = 3e-9


def tensor(values, dtype=torch.float64):
    return torch.tensor(np.asarray(values), dtype=dtype)


def value_and_product(scores, k, sigma, v, method="exact"):
    """b and J v, in float64 whatever the dtype of scores."""
    scores = scores.detach().clone().requires_grad_()
    b = tr.expected_topk(scores, k, sigma=sigma, method=method)
    (g,) = torch.autograd.grad(b, scores, v.to(scores.dtype))
    assert b.dtype == g.dtype == scores.dtype
    return b.detach().double().numpy(), g.double().numpy()


def check(scores, k, sigma, v=None, dtype=torch.float64, bound=BOUND):
    """Value within `bound`, product within bound max |v| / sigma, of the convolution; float32
    results are rounded: eps / 2 of b, and of J v."""
    scores = tensor(scores, dtype)
    if v is None:
        v = np.random.default_rng(len(scores)).normal(size=len(scores))
    v = tensor(v, dtype)
    b, g = value_and_product(scores, k, sigma, v)
    v = v.double().numpy()
    want_b, want_g = reference.expected_topk(scores.double().numpy(), k, sigma, v)
    eps = torch.finfo(dtype).eps
    assert (np.abs(b - want_b) <= bound + eps * want_b).all()
    size = np.abs(v).max() / sigma
    assert (np.abs(g - want_g) <= bound * size + eps * np.abs(want_g)).all()
    if dtype == torch.float64:
        assert abs(b.sum() - k) <= bound * max(k, 1)
        assert abs(g.sum()) <= bound * size * len(v)


# ---- the reference itself ----------------------------------------------------------------------


def test_reference_equals_enumeration():
    """The convolution against every subset, integrated by quadrature."""
    scores = np.array([0.3, -0.2, 1.0, 0.3, 0.0, -1.5])
    for k in range(7):
        b, _ = reference.expected_topk(scores, k, 0.4, np.ones(6))
        want = reference.expected_topk_by_enumeration(scores, k, 0.4)
        assert np.abs(b - want).max() < 1e-9  # what quad was asked for, and 1e-11 for its ends


def test_reference_does_not_depend_on_its_step():
    rng = np.random.default_rng(0)
    scores, v = rng.normal(size=30), rng.normal(size=30)
    coarse = reference.expected_topk(scores, 7, 0.3, v)
    fine = reference.expected_topk(scores, 7, 0.3, v, step=0.02)
    for a, b in zip(coarse, fine):
        assert np.abs(a - b).max() < 1e-12


# ---- values and gradients ----------------------------------------------------------------------


def test_two_sites_closed_form():
    """b_0 = Phi(d), d = (r_0 - r_1) / (sigma sqrt 2); db_0/dr_0 = phi(d) / (sigma sqrt 2)."""
    for gap, sigma in itertools.product([0.0, 1e-3, 0.7, -2.0, 5.0, 30.0, 1e10], [0.01, 0.5, 40.0]):
        d = gap / sigma / np.sqrt(2)
        b, g = value_and_product(tensor([gap, 0.0]), 1, sigma, tensor([1.0, 0.0]))
        assert np.abs(b - [special.ndtr(d), special.ndtr(-d)]).max() < BOUND
        slope = stats.norm.pdf(d) / np.sqrt(2)
        assert np.abs(g * sigma - [slope, -slope]).max() < BOUND


@pytest.mark.parametrize("sites", [3, 6, 8])
def test_equals_enumeration(sites):
    """Every subset of the other sites, by quadrature."""
    scores = np.random.default_rng(sites).normal(size=sites)
    for k in {1, 2, sites // 2, sites - 1}:
        b = tr.expected_topk(tensor(scores), k, sigma=0.5).numpy()
        want = reference.expected_topk_by_enumeration(scores, k, 0.5)
        assert np.abs(b - want).max() < BOUND + 1e-9


def test_jacobian_of_pairs_by_mpmath():
    """w_ik = int f_i f_k P(K - 1 of the others lie above t) dt over all subsets, to 20 digits."""
    scores, k, sigma = [0.4, -0.3, 0.1, 0.9, -0.8], 2, 0.6
    sites = range(len(scores))
    want = np.zeros((5, 5))
    with mpmath.workdps(20):
        for i, j in itertools.combinations(sites, 2):
            others = [s for s in sites if s not in (i, j)]

            def integrand(t):
                above = [mpmath.ncdf((r - t) / sigma) for r in scores]
                chosen = sum(
                    mpmath.fprod(above[s] if s in subset else 1 - above[s] for s in others)
                    for subset in itertools.combinations(others, k - 1)
                )
                return chosen * mpmath.npdf(t, scores[i], sigma) * mpmath.npdf(t, scores[j], sigma)

            w = float(mpmath.quad(integrand, mpmath.linspace(-8, 8, 17)))
            want[i, j] = want[j, i] = -w
            want[i, i] += w
            want[j, j] += w
    got = torch.autograd.functional.jacobian(
        lambda r: tr.expected_topk(r, k, sigma=sigma), tensor(scores)
    )
    assert np.abs(got.numpy() - want).max() < BOUND / sigma


LINE = np.linspace(-1.0, 1.0, 40)
NORMAL = np.random.default_rng(5).normal(size=60)
CASES = {
    "all equal": (np.zeros(30), 7, 0.2),
    "equal, two": (np.zeros(2), 1, 1e-3),
    "equal, k = S - 1": (np.full(50, 3.0), 49, 2.0),
    "heavy ties": (np.round(NORMAL), 20, 0.3),
    "tie across the budget": ([3.0, 1.0, 1.0, 1.0, 0.0], 2, 0.1),
    "two clusters": (np.r_[np.zeros(20), np.full(20, 5.0)] + 0.01 * NORMAL[:40], 20, 1.0),
    "two clusters, the budget inside one": (np.r_[np.zeros(20), np.full(20, 9.0)], 7, 1.0),
    "a site between two blocks": (np.r_[np.full(15, 8.0), 0.0, np.full(60, -6.0)], 16, 1.0),
    "one more than that": (np.r_[np.full(15, 8.0), 0.0, np.full(60, -6.0)], 17, 1.0),
    "one less": (np.r_[np.full(15, 8.0), 0.0, np.full(60, -6.0)], 15, 1.0),
    "a sure site, a tail of many": (np.r_[2.6, 2.6, 2.6, 0.0, np.full(140, -6.14)], 4, 1.0),
    "geometric spacing": (1.5 ** np.arange(24), 9, 10.0),
    "geometric, falling": (-(1.5 ** np.arange(24)), 9, 10.0),
    "sigma wide": (LINE, 10, 1e4),
    "sigma narrow": (LINE, 10, 1e-3),
    "gap of 8.9 sigma": (np.r_[np.zeros(9), np.full(9, -8.9)], 9, 1.0),
    "gap of 17.9 sigma": (np.r_[np.zeros(9), np.full(9, -17.9)], 9, 1.0),
    "gap of 18.1 sigma": (np.r_[np.zeros(9), np.full(9, -18.1)], 9, 1.0),
    "sites at the edge of those that count": (
        np.r_[27.0, 18.0, 9.0, 0.0, -9.0, -18.0, -27.0],
        3,
        1.0,
    ),
    "k = 1": (NORMAL, 1, 0.4),
    "k = S - 1": (NORMAL, 59, 0.4),
    "offset of 1e6": (1e6 + np.round(NORMAL * 16) / 16, 11, 0.25),
    "three": ([0.0, 0.1, 0.5], 2, 0.3),
    "four, far apart": ([0.0, 3.0, 6.0, 9.0], 2, 1.0),
    "heavy tail": (np.exp(2 * NORMAL), 12, 0.2),
    "many inactive": (np.r_[NORMAL[:12], np.full(50, -1e5), np.full(40, 1e5)], 45, 0.5),
    "tiny units": (1e-30 * NORMAL, 17, 3e-31),
    "huge units": (1e30 * NORMAL, 17, 3e29),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_hard_cases(case, dtype):
    check(*CASES[case], dtype=dtype)


@pytest.mark.parametrize("seed", range(40))
def test_random_cases(seed):
    """Random shapes of every kind: a small version of the searches that found the hard cases."""
    rng = np.random.default_rng(seed)
    sites = int(rng.integers(2, 70))
    x = {
        0: lambda: rng.normal(size=sites) * 10 ** rng.uniform(-1, 2),
        1: lambda: np.round(rng.normal(size=sites) * 2) * rng.choice([0.5, 3.0]),
        2: lambda: rng.choice([-6.0, 0.0, 4.0], size=sites) + rng.normal(size=sites) * 0.1,
        3: lambda: rng.pareto(1.0, size=sites) * 10 ** rng.uniform(-1, 1),
    }[seed % 4]()
    sigma = 10 ** rng.uniform(-3, 3)
    v = rng.normal(size=sites) if rng.random() < 0.5 else 100 + (rng.random(sites) < 0.3)
    check(x * sigma, int(rng.integers(1, sites)), sigma, v)


def by_clusters(x, counts, k, v):
    """(b, J v) for clusters of equal sites at x (sigma 1): binomial laws convolved, pair by pair
    with one site of each cluster taken out."""
    cumulated = np.cumsum(np.asarray(counts)[np.argsort(-np.asarray(x))])
    order = np.sort(x)[::-1]
    low = order[np.searchsorted(cumulated, k + 1)] - 10
    high = order[np.searchsorted(cumulated, k)] + 10
    t = np.linspace(low, high, 6001)
    mean = (np.array(counts)[:, None] * special.ndtr(np.array(x)[:, None] - t)).sum(0)
    t = t[np.abs(mean - k) < 50 + 12 * np.sqrt(mean)]
    t = np.linspace(t[0], t[-1], 2400)
    above = [special.ndtr(a - t) for a in x]
    f = [stats.norm.pdf(a - t) for a in x]

    def law(a, c):  # P(k - 1 others above), one site of clusters a and c taken out
        total = np.zeros((k, len(t)))
        total[0] = 1.0
        for q, count in enumerate(counts):
            left = count - (q == a) - (q == c)
            if left < 0:
                return np.zeros(len(t))
            own = stats.binom.pmf(np.arange(k)[:, None], left, above[q])
            size = 1 << (2 * k).bit_length()
            total = np.fft.irfft(
                np.fft.rfft(total, size, axis=0) * np.fft.rfft(own, size, axis=0), size, axis=0
            )[:k]
        return total[k - 1]

    clusters = range(len(x))
    b, w = np.zeros(len(x)), np.zeros((len(x), len(x)))
    for a, c in itertools.product(clusters, clusters):
        chance = law(a, c) * (t[1] - t[0])
        b[a] += (counts[c] - (a == c)) * (above[a] * f[c] * chance).sum()
        w[a, c] = (f[a] * f[c] * chance).sum()
    ends = np.cumsum(counts)[:-1]
    sums = np.array([part.sum() for part in np.split(v, ends)])
    return np.repeat(b, counts), np.repeat(w @ counts, counts) * v - np.repeat(w @ sums, counts)


@pytest.mark.parametrize(
    "x, counts, k",
    [
        ([0.0], [100_000], 30),
        ([0.0, 1.0], [20_000, 300], 100),
        ([6.0, 0.0], [50, 10_000], 51),
        ([2.0, 0.0, -0.5], [5, 1, 3000], 20),
        ([12.5, 6.45, 6.3, 1.2, 0.0], [48, 2, 2, 6, 1280], 50),
    ],
)
def test_many_sites_in_clusters(x, counts, k):
    """Rows that go through the grid: 1e5 equal sites, a small V beside a large cluster (the last
    as on the cranes, where all but fifty sites are empty)."""
    v = np.random.default_rng(0).normal(size=sum(counts))
    want_b, want_g = by_clusters(x, counts, k, v)
    b, g = value_and_product(tensor(np.repeat(x, counts)), k, 1.0, tensor(v))
    # the FFT rounds by 1e-16 of the largest chance, times 1e5 sites in b's sum
    assert np.abs(b - want_b).max() < BOUND + 1e-11 * len(v) ** 0.5
    assert np.abs(g - want_g).max() < 4 * BOUND * np.abs(v).max()


@pytest.mark.parametrize("sigma, k", [(0.02, 60), (0.2, 30), (1.0, 125)])
def test_grid_and_direct_sites(sigma, k):
    """Continuous scores: some sites on the grid, some direct."""
    scores = np.random.default_rng(1).normal(size=250)
    check(scores, k, sigma)


@pytest.mark.parametrize("sites, k, sigma", [(5, 2, 0.5), (12, 5, 0.3), (40, 3, 0.1), (2, 1, 1.0)])
@pytest.mark.parametrize("method", ["exact", "mean_field"])
def test_gradcheck(sites, k, sigma, method):
    """torch's own finite differences, both modes: step 1e-6, so the value is smooth to 1e-11."""
    scores = tensor(np.random.default_rng(sites).normal(size=(2, sites))).requires_grad_()
    torch.autograd.gradcheck(
        lambda r: tr.expected_topk(r, k, sigma=sigma, method=method), scores,
        atol=3e-5, rtol=1e-4, check_forward_ad=True,
    )  # fmt: skip


def test_finite_differences_at_1620_sites():
    scores = tensor(np.random.default_rng(2).normal(size=1620))
    v = tensor(np.random.default_rng(3).normal(size=1620))
    for sigma in (0.01, 0.1, 1.0):
        _, g = value_and_product(scores, 100, sigma, v)
        w = tensor(np.random.default_rng(4).normal(size=1620))
        h = (
            1e-3 * sigma
        )  # error h^2 / 6 of the third derivative, < 1e-6 / sigma; 1e-11 / h of the values
        reach = [(tr.expected_topk(scores + e * w, 100, sigma=sigma) * v).sum() for e in (h, -h)]
        got = float((reach[0] - reach[1]) / (2 * h))
        want = float((tensor(g) * w).sum())
        assert abs(got - want) < 1e-5 / sigma + 1e-5 * abs(want)


# ---- invariants --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["exact", "mean_field"])
def test_jacobian_is_symmetric_with_rows_summing_to_zero(method):
    scores = tensor(np.random.default_rng(0).normal(size=25))
    jacobian = torch.autograd.functional.jacobian(
        lambda r: tr.expected_topk(r, 6, sigma=0.3, method=method), scores
    )
    assert torch.allclose(jacobian, jacobian.T, rtol=0, atol=BOUND / 0.3)
    assert jacobian.sum(-1).abs().max() < 25 * BOUND / 0.3
    off = jacobian - jacobian.diag().diag()
    assert off.max() < BOUND / 0.3  # sites compete


def test_shift_scale_and_reflection():
    """b(r + c) = b(r); b(a r; a sigma) = b(r; sigma); b_K(r) = 1 - b_(S-K)(-r)."""
    scores = tensor(np.random.default_rng(0).normal(size=200))
    b = tr.expected_topk(scores, 30, sigma=0.2)
    for other in (
        tr.expected_topk(scores + 3.5, 30, sigma=0.2),
        tr.expected_topk(scores * 1e-7, 30, sigma=0.2e-7),
        1 - tr.expected_topk(-scores, 170, sigma=0.2),
    ):
        assert (b - other).abs().max() < 2 * BOUND


@pytest.mark.parametrize("method", ["exact", "mean_field"])
def test_sites_are_ordered_as_their_scores(method):
    scores = tensor(np.sort(np.random.default_rng(0).normal(size=300)))
    b = tr.expected_topk(scores, 40, sigma=0.5, method=method)
    assert (b.diff() > -BOUND).all()


# ---- what is certain ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["exact", "mean_field"])
@pytest.mark.parametrize(
    "scores, k, sigma",
    [
        ([3.0, 1.0, 2.0, 1.0], 0, 0.1),
        ([3.0, 1.0, 2.0, 1.0], 4, 0.1),
        ([3.0, 1.0, 2.0, 1.0], 2, 0.0),
        ([3.0, 1.0, 1.0, 1.0], 2, 0.0),
        ([3.0, 1.0, 2.0, 1.0], 2, 1e-3),
        ([3.0, 1.0, 2.0, 0.5], 3, 5e-324),
        ([3.0, -INF, 2.0, -INF], 2, 0.5),
        ([3.0, -INF, 2.0, -INF], 3, 0.5),
        ([-INF, -INF, -INF, -INF], 2, 0.5),
        ([INF, 1.0, 1.0, 1.0], 1, 0.5),
        ([INF, INF, 1.0, 1.0], 1, 0.5),
        ([1.0], 1, 0.5),
    ],
)
def test_certain_choices_are_hard(scores, k, sigma, method, dtype):
    """The mask, lowest index first, and a zero gradient: no NaN."""
    scores = tensor(scores, dtype).requires_grad_()
    b = tr.expected_topk(scores, k, sigma=sigma, method=method)
    assert torch.equal(b, tr.topk_mask(scores.detach(), k))
    (g,) = torch.autograd.grad(b, scores, torch.arange(1.0, len(scores) + 1).to(dtype))
    assert torch.equal(g, torch.zeros_like(g))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["exact", "mean_field"])
def test_masked_and_forced_sites(method, dtype):
    """-inf takes no part, +inf is always chosen; the rest is as if they were not there."""
    rest = tensor(np.random.default_rng(0).normal(size=20), dtype)
    inf = torch.full((2,), INF, dtype=dtype)
    whole = torch.cat([inf, rest, -inf]).requires_grad_()
    b = tr.expected_topk(whole, 7, sigma=0.4, method=method)
    alone = rest.requires_grad_()
    want = tr.expected_topk(alone, 5, sigma=0.4, method=method)
    eps = torch.finfo(dtype).eps
    assert b[:2].tolist() == [1, 1] and b[-2:].tolist() == [0, 0]
    assert (b[2:-2] - want).abs().max() <= eps
    v = torch.randn(24, dtype=dtype)
    (g,) = torch.autograd.grad(b, whole, v)
    (want,) = torch.autograd.grad(want, alone, v[2:-2])
    assert g[:2].tolist() == [0, 0] and g[-2:].tolist() == [0, 0]
    assert torch.allclose(g[2:-2], want, rtol=0, atol=40 * eps * float(v.abs().max()))


def test_sigma_to_zero_tends_to_the_mask():
    scores = tensor(np.random.default_rng(0).normal(size=50))
    gap = scores.sort().values.diff().min()
    for sigma in (gap / 20, gap / 1e6, gap * 1e-300):
        b = tr.expected_topk(scores, 9, sigma=float(sigma))
        assert torch.equal(b, tr.topk_mask(scores, 9))


def test_ties_are_shared():
    b = tr.expected_topk(tensor([5.0, 1.0, 1.0, 1.0, -5.0]), 2, sigma=1e-6)
    assert np.abs(b.numpy() - [1, 1 / 3, 1 / 3, 1 / 3, 0]).max() < BOUND


def test_sigma_so_wide_that_all_are_equal():
    b = tr.expected_topk(tensor(NORMAL), 12, sigma=1e12)
    assert np.abs(b.numpy() - 0.2).max() < BOUND


# ---- shapes, batches, threads ------------------------------------------------------------------


@pytest.mark.parametrize("method", ["exact", "mean_field"])
@pytest.mark.parametrize("sites", [7, 300, 9000])
def test_a_row_does_not_depend_on_the_batch(sites, method):
    """Shape [S], [..., S], not contiguous; mixed with hard rows: the same bits."""
    rows = tensor(np.random.default_rng(0).normal(size=(2, 3, sites)))
    rows[1, 1, 0] = 1e9
    v = torch.randn_like(rows)
    k = 1 + sites // 20
    b, g = value_and_product(rows, k, 0.2, v, method)
    for i, j in itertools.product(range(2), range(3)):
        alone = value_and_product(rows[i, j], k, 0.2, v[i, j], method)
        assert np.array_equal(alone[0], b[i, j]) and np.array_equal(alone[1], g[i, j])
    apart = torch.empty(3, 2, 2 * sites, dtype=rows.dtype).transpose(0, 1)[..., ::2].copy_(rows)
    assert not apart.is_contiguous()
    again = value_and_product(apart, k, 0.2, v, method)
    assert np.array_equal(again[0], b) and np.array_equal(again[1], g)


@pytest.mark.parametrize("method", ["exact", "mean_field"])
def test_empty_batches(method):
    for shape in [(0, 5), (2, 0, 5)]:
        scores = torch.empty(shape, requires_grad=True)
        b = tr.expected_topk(scores, 2, sigma=0.1, method=method)
        assert b.shape == shape
        assert torch.autograd.grad(b.sum(), scores)[0].shape == shape
    assert tr.expected_topk(torch.empty(3, 0), 0, sigma=0.1, method=method).shape == (3, 0)


def test_threads_do_not_change_bits():
    """One thread and two, in processes of their own."""
    program = """
import sys, torch, topreach as tr
torch.set_num_threads(int(sys.argv[1]))
torch.manual_seed(0)
for shape, k in [((9, 300), 20), ((2, 30_000), 300)]:
    for method in ("exact", "mean_field"):
        r = torch.randn(shape, requires_grad=True)
        b = tr.expected_topk(r, k, sigma=0.1, method=method)
        (g,) = torch.autograd.grad(b, r, torch.randn(shape))
        print(hash(b.detach().numpy().tobytes()), hash(g.numpy().tobytes()))
"""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program, str(threads)],
            capture_output=True,
            text=True,
            check=True,
            env={**__import__("os").environ, "PYTHONHASHSEED": "0"},
        ).stdout
        for threads in (1, 2)
    }
    assert len(outputs) == 1


# ---- differentiation by torch ------------------------------------------------------------------


@pytest.mark.parametrize("method", ["exact", "mean_field"])
def test_forward_mode_equals_backward(method):
    """J is symmetric: J v either way, by dual numbers and by torch.func.jvp."""
    scores, v = (
        torch.randn(2, 3, 40, dtype=torch.float64),
        torch.randn(2, 3, 40, dtype=torch.float64),
    )

    def choose(r):
        return tr.expected_topk(r, 6, sigma=0.3, method=method)

    b, backward = value_and_product(scores, 6, 0.3, v, method)
    value, forward = torch.func.jvp(choose, (scores,), (v,))
    assert np.array_equal(value, b) and np.array_equal(forward, backward)
    with torch.autograd.forward_ad.dual_level():
        dual = choose(torch.autograd.forward_ad.make_dual(scores, v))
        assert np.array_equal(torch.autograd.forward_ad.unpack_dual(dual).tangent, backward)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_function_transforms():
    """vmap, grad and both Jacobians of torch.func, against the rows of backward."""
    scores = torch.randn(4, 9, dtype=torch.float64)

    def choose(r):
        return tr.expected_topk(r, 3, sigma=0.5)

    assert torch.equal(torch.func.vmap(choose)(scores), choose(scores))
    want = torch.autograd.functional.jacobian(choose, scores[0])
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        assert torch.allclose(transform(choose)(scores[0]), want, rtol=0, atol=1e-12)
    g = torch.func.grad(lambda r: choose(r)[0])(scores[0])
    assert torch.allclose(g, want[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["exact", "mean_field"])
def test_differentiating_twice_raises(method):
    scores = torch.randn(10, requires_grad=True)
    b = tr.expected_topk(scores, 3, sigma=0.5, method=method)
    (g,) = torch.autograd.grad(b.square().sum(), scores, create_graph=True)
    with pytest.raises(
        RuntimeError,
        match="expected_topk: .* must be differentiated once only, got a second derivative",
    ):
        torch.autograd.grad(g.sum(), scores)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["exact", "mean_field"])
def test_opcheck(method, dtype):
    scores = torch.randn(2, 12, dtype=dtype, requires_grad=True)
    torch.library.opcheck(OPS.expected_topk.default, (scores, 4, 0.3, method))
    _, bounds = OPS.expected_topk(scores.detach(), 4, 0.3, method)
    arguments = (torch.randn(2, 12, dtype=dtype), scores.detach(), bounds, 4, 0.3, method)
    torch.library.opcheck(OPS.expected_topk_jvp.default, arguments)


def test_meta():
    b, bounds = OPS.expected_topk(torch.empty(2, 5, device="meta"), 2, 0.1, "exact")
    assert b.shape == (2, 5) and bounds.shape == (2, 2) and bounds.dtype == torch.float64


def test_compiled_step_equals_eager():
    scores, v = torch.randn(3, 50, requires_grad=True), torch.randn(3, 50)

    def step(r):
        return (tr.expected_topk(torch.tanh(r), 5, sigma=0.1) * v).sum()

    grads = [
        torch.autograd.grad(f(scores), scores)[0]
        for f in (step, torch.compile(step, fullgraph=True))
    ]
    assert torch.allclose(*grads, rtol=1e-4, atol=1e-5)


# ---- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((torch.zeros(3), 4, 0.1, "exact"), ValueError, "k must be between 0 and S = 3, got 4"),
        ((torch.zeros(3), -1, 0.1, "exact"), ValueError, "k must be between 0 and S = 3, got -1"),
        (
            (torch.zeros(()), 0, 0.1, "exact"),
            ValueError,
            r"scores must have shape \[..., S\], got a scalar",
        ),
        (
            (torch.zeros(3).long(), 1, 0.1, "exact"),
            TypeError,
            "scores must be float32 or float64, got Long",
        ),
        (
            (torch.zeros(3).half(), 1, 0.1, "exact"),
            TypeError,
            "scores must be float32 or float64, got Half",
        ),
        (
            (torch.zeros(3), 1, -0.1, "exact"),
            ValueError,
            "sigma must be finite and not negative, got -0.1",
        ),
        ((torch.zeros(3), 1, float("nan"), "exact"), ValueError, "sigma must be finite"),
        ((torch.zeros(3), 1, INF, "mean_field"), ValueError, "sigma must be finite"),
        (
            (torch.zeros(3), 1, 0.1, "sinkhorn"),
            ValueError,
            "method must be 'exact' or 'mean_field', got 'sinkhorn'",
        ),
    ],
)
def test_errors(arguments, error, message):
    scores, k, sigma, method = arguments
    with pytest.raises(error, match="expected_topk: " + message):
        tr.expected_topk(scores, k, sigma=sigma, method=method)


def test_nan_is_named():
    scores = torch.zeros(2, 4)
    scores[1, 2] = float("nan")
    with pytest.raises(
        ValueError, match="^expected_topk: scores must not be NaN, got NaN in row 1, site 2"
    ):
        tr.expected_topk(scores, 2, sigma=0.1)


@pytest.mark.parametrize(
    "v, bounds, message",
    [
        (
            torch.zeros(4),
            torch.zeros(2).double(),
            "v must have the shape, dtype and device of scores",
        ),
        (torch.zeros(3).double(), torch.zeros(2).double(), "v must have the shape, dtype"),
        (torch.zeros(3), torch.zeros(2), "bounds must be float64 of shape"),
        (torch.zeros(3), torch.zeros(3).double(), "bounds must be float64 of shape"),
    ],
)
def test_product_errors(v, bounds, message):
    with pytest.raises(ValueError, match="expected_topk_jvp: " + message):
        OPS.expected_topk_jvp(v, torch.zeros(3), bounds, 1, 0.1, "exact")


# ---- chances, and the mean field ---------------------------------------------------------------


def test_topk_probability_by_simulation():
    """400,000 draws of the scores' errors; each chance within 5 of its standard errors."""
    scores, draws = tensor(np.random.default_rng(0).normal(size=30)), 400_000
    torch.manual_seed(0)
    got = tr.topk_probability(scores, 8, sigma=0.7)
    seen = torch.zeros(30, dtype=torch.float64)
    for _ in range(8):
        z = torch.randn(draws // 8, 30, dtype=torch.float64)
        seen += tr.topk_mask(scores + 0.7 * z, 8).sum(0)
    error = (got * (1 - got) / draws).sqrt()
    assert ((seen / draws - got).abs() < 5 * error).all()
    assert torch.equal(got, tr.expected_topk(scores, 8, sigma=0.7))


def test_perturbed_topk_tends_to_it():
    scores = torch.randn(50, generator=torch.Generator().manual_seed(1))
    b = tr.expected_topk(scores, 9, sigma=0.5)
    draws = 100_000
    sampled = tr.perturbed_topk(
        scores, 9, sigma=0.5, num_samples=draws, key=torch.tensor([3, 4], dtype=torch.int64)
    )
    error = (b * (1 - b) / draws).sqrt()
    assert ((sampled - b).abs() < 5 * error + 1e-6).all()


def test_mean_field_by_its_definition():
    """tau solves sum Phi((r - tau) / sigma) = K; b = Phi; J v = f (v - sum f v / sum f) / sigma."""
    for sites, k, sigma in [(2, 1, 0.3), (12, 5, 0.1), (500, 60, 0.02), (20_000, 300, 0.5)]:
        scores = np.random.default_rng(sites).normal(size=sites)
        v = np.random.default_rng(1).normal(size=sites)
        low, high = scores.min() - 40 * sigma, scores.max() + 40 * sigma
        for _ in range(200):
            tau = 0.5 * (low + high)
            if special.ndtr((scores - tau) / sigma).sum() > k:
                low = tau
            else:
                high = tau
        b, g = value_and_product(tensor(scores), k, sigma, tensor(v), "mean_field")
        f = stats.norm.pdf((scores - tau) / sigma)
        # tau to 1e-13 sigma on the grid, whose weights interpolate P to 3e-11
        assert np.abs(b - special.ndtr((scores - tau) / sigma)).max() < 1e-9
        want = f * (v - (f @ v) / f.sum()) / sigma
        assert np.abs(g - want).max() < 1e-8 * np.abs(v).max() / sigma


def test_mean_field_error_falls_with_the_number_of_sites():
    """Against exact: less than 1 / S of the largest value apart, 1 / V in effect."""
    errors = []
    for sites in (50, 500, 5000):
        scores = tensor(np.random.default_rng(0).normal(size=sites))
        b = [
            tr.expected_topk(scores, sites // 10, sigma=0.5, method=m)
            for m in ("exact", "mean_field")
        ]
        errors.append(float((b[0] - b[1]).abs().max()))
    assert errors[0] < 0.03 and errors[1] < errors[0] / 5 and errors[2] < errors[1] / 5
