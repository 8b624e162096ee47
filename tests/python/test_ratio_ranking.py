"""Ratio ranking and its score-function gradients [D25 Eq. 6-7, Eq. 10, Appendix B.2]."""

import itertools
import subprocess
import sys

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import topreach as tr


def binary_outcomes(sites):
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=sites)), dtype=torch.float64)


# ---- values ------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    draws=st.integers(1, 70),
    shape=st.lists(st.integers(0, 3), max_size=2),
    sites=st.integers(1, 150),
    offset=st.sampled_from([0.0, 0.5, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 2**31),
)
def test_value_of_any_shape(draws, shape, sites, offset, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    y = torch.poisson(torch.rand(draws, *shape, sites, generator=generator) * 0.3, generator)
    total = y.double().sum(-1, keepdim=True) + offset
    want = torch.where(total > 0, y / total.clamp_min(1e-9), 0.0).mean(0)
    got = tr.ratio_ranking(y.to(dtype), offset=offset)
    assert got.dtype == dtype and got.shape == want.shape
    assert torch.allclose(got.double(), want, rtol=40 * torch.finfo(dtype).eps, atol=1e-12)


def test_periods_without_events_count_as_zero():
    y = torch.tensor([[[0.0, 0.0]], [[1.0, 3.0]]])
    assert tr.ratio_ranking(y).tolist() == [[0.125, 0.375]]
    assert torch.allclose(tr.ratio_ranking(y, offset=1.0), torch.tensor([[0.1, 0.3]]))


def test_poisson_closed_form():
    """Independent Poissons of rates n: E[y_s / 1.y] = (n_s / N)(1 - exp(-N))."""
    rates = torch.tensor([0.1, 0.4, 0.7, 0.05], dtype=torch.float64)
    torch.manual_seed(0)
    draws = 400_000
    y = torch.poisson(rates.expand(draws, 4))
    total = rates.sum()
    want = rates / total * (1 - torch.exp(-total))
    got = tr.ratio_ranking(y)
    share = torch.where(y.sum(-1, keepdim=True) > 0, y / y.sum(-1, keepdim=True), 0.0)
    assert ((got - want).abs() < 5 * share.std(0) / draws**0.5).all()


def test_appendix_b2():
    """The nine-site demonstration: exactly by enumeration, by the operator's Monte Carlo, and the
    table's BPR (10,000 trials) within 4 standard errors of the exact expectation."""
    high = torch.tensor([7.0] * 3 + [10.0] * 3 + [80.0] * 3, dtype=torch.float64)
    chance = torch.tensor([1.0] * 3 + [0.65] * 3 + [0.1] * 3, dtype=torch.float64)
    on = torch.cat([torch.ones(64, 3, dtype=torch.float64), binary_outcomes(6)], 1)
    outcomes = on * high
    probability = torch.where(on > 0, chance, 1 - chance).prod(-1)
    exact_ratio = reference.ratio_by_enumeration(outcomes, probability)
    mean = chance * high

    torch.manual_seed(0)
    draws = 50_000
    y = torch.bernoulli(chance.expand(draws, 9)) * high
    ratio = tr.ratio_ranking(y)
    share = y / y.sum(-1, keepdim=True)
    assert ((ratio - exact_ratio).abs() < 5 * share.std(0) / draws**0.5 + 1e-12).all()
    assert set(ratio.topk(3).indices.tolist()) == {0, 1, 2}  # type A
    assert set(mean.topk(3).indices.tolist()) == {6, 7, 8}  # type C

    table = {
        "mean": {1: 0.107, 3: 0.231, 6: 0.636},
        "ratio": {1: 0.538, 3: 0.625, 6: 0.810},
    }
    # Equal sites tie exactly in `mean` and in `exact_ratio`; any of them may be chosen.
    for name, ranking in (("mean", mean), ("ratio", exact_ratio)):
        for k, published in table[name].items():
            chosen = tr.topk_mask(ranking.float().double().round(decimals=6), k)
            best = outcomes.topk(k, dim=-1).values.sum(-1)
            reach = (outcomes * chosen).sum(-1) / best
            expected = (probability * reach).sum()
            spread = ((probability * (reach - expected) ** 2).sum() / 10_000).sqrt()
            assert abs(published - expected) < 4 * spread + 5e-4, (name, k)


# ---- gradients ---------------------------------------------------------------------------------


def bernoulli_problem(sites=4, rows=2000, draws=50, seed=0):
    """Independent Bernoulli sites with logits: exact gradients by enumeration, and many
    estimates."""
    torch.manual_seed(seed)
    logits = torch.randn(sites, dtype=torch.float64)
    g = torch.randn(sites, dtype=torch.float64)
    outcomes = binary_outcomes(sites)
    free = logits.clone().requires_grad_()
    p = torch.sigmoid(free)
    weight = torch.where(outcomes > 0, p, 1 - p).prod(-1)
    value = reference.ratio_by_enumeration(outcomes, weight)
    (exact,) = torch.autograd.grad(value @ g, free)
    y = torch.bernoulli(torch.sigmoid(logits).expand(draws, rows, sites))
    return logits, g, exact, y, outcomes, weight.detach()


def estimates(logits, g, y, estimator, offset=0.0):
    """Gradient with respect to the logits, one estimate per row: d log p / d logits = y - p."""
    log_prob = torch.zeros(y.shape if estimator == "diagonal" else y.shape[:2], dtype=y.dtype)
    log_prob.requires_grad_()
    r = tr.ratio_ranking(y, log_prob, offset=offset, estimator=estimator)
    (w,) = torch.autograd.grad(r, log_prob, g.expand_as(r))
    score = y - torch.sigmoid(logits)
    return ((w if estimator == "diagonal" else w[..., None]) * score).sum(0)


@pytest.mark.parametrize("estimator", ["score", "score_loo"])
def test_joint_estimators_are_unbiased(estimator):
    logits, g, exact, y, *_ = bernoulli_problem()
    got = estimates(logits, g, y, estimator)
    assert ((got.mean(0) - exact).abs() < 5 * got.std(0) / len(got) ** 0.5).all()


def test_diagonal_is_the_biased_shortcut():
    """Its expectation is E[g_s rho_s d log p(y_s)], which is not the gradient."""
    logits, g, exact, y, outcomes, weight = bernoulli_problem()
    got = estimates(logits, g, y, "diagonal")
    share = torch.where(
        outcomes.sum(-1, keepdim=True) > 0, outcomes / outcomes.sum(-1, keepdim=True), 0
    )
    want = (weight[:, None] * g * share * (outcomes - torch.sigmoid(logits))).sum(0)
    error = got.std(0) / len(got) ** 0.5
    assert ((got.mean(0) - want).abs() < 5 * error).all()
    assert ((got.mean(0) - exact).abs() > 20 * error).any()


def test_leave_one_out_has_less_variance():
    logits, g, _, y, *_ = bernoulli_problem()
    g = g + 2.0  # a reach far from zero, as in practice
    loo, plain = (estimates(logits, g, y, e).var(0).sum() for e in ("score_loo", "score"))
    assert loo < plain / 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_weights_equal_the_jacobian_route(dtype, offset):
    """The vector-Jacobian products against the M x T x S Jacobian built in full."""
    torch.manual_seed(0)
    y = torch.poisson(torch.rand(11, 3, 37, dtype=torch.float64)).to(dtype)
    g = torch.randn(3, 37, dtype=dtype)
    total = y.double().sum(-1, keepdim=True) + offset
    rho = torch.where(total > 0, y / total.clamp_min(1e-9), 0.0)
    for estimator in ("score", "score_loo", "diagonal"):
        log_prob = torch.zeros(y.shape if estimator == "diagonal" else y.shape[:2], dtype=dtype)
        log_prob.requires_grad_()
        r = tr.ratio_ranking(y, log_prob, offset=offset, estimator=estimator)
        (w,) = torch.autograd.grad(r, log_prob, g)
        if estimator == "score":
            want = (rho * g).sum(-1) / 11
        elif estimator == "diagonal":
            want = rho * g / 11
        else:  # each sample against the mean of the others
            others = (rho.sum(0) - rho) / 10
            want = ((rho - others) * g).sum(-1) / 11
        assert torch.allclose(w.double(), want, rtol=0, atol=40 * torch.finfo(dtype).eps)


def test_log_prob_of_each_site_is_summed():
    y = torch.poisson(torch.rand(6, 2, 5) * 3)
    g = torch.randn(2, 5)
    per_site = torch.randn(6, 2, 5, requires_grad=True)
    joint = per_site.detach().sum(-1).requires_grad_()
    a = torch.autograd.grad(tr.ratio_ranking(y, per_site), per_site, g)[0]
    b = torch.autograd.grad(tr.ratio_ranking(y, joint), joint, g)[0]
    assert torch.equal(a, b[..., None].expand_as(a))


def test_samples_get_no_gradient():
    y = torch.rand(3, 2, 4, requires_grad=True)
    log_prob = torch.zeros(3, 2, requires_grad=True)
    tr.ratio_ranking(y, log_prob).square().sum().backward()
    assert y.grad is None and log_prob.grad is not None


def test_same_bits_for_any_split_and_thread_count():
    torch.manual_seed(0)
    y = torch.poisson(torch.rand(103, 6, 1001))
    log_prob = torch.zeros(103, 6, requires_grad=True)
    g = torch.randn(6, 1001)
    threads = torch.get_num_threads()
    whole = tr.ratio_ranking(y, log_prob)
    (w,) = torch.autograd.grad(whole, log_prob, g, retain_graph=True)
    try:
        for n in (1, 2, 5):
            torch.set_num_threads(n)
            assert torch.equal(tr.ratio_ranking(y), whole)
            for rows in (slice(0, 2), slice(2, 6)):
                part = log_prob[:, rows].detach().requires_grad_()
                r = tr.ratio_ranking(y[:, rows], part)
                assert torch.equal(r, whole[rows])
                assert torch.equal(torch.autograd.grad(r, part, g[rows])[0], w[:, rows])
    finally:
        torch.set_num_threads(threads)


# ---- errors, torch's own checks ----------------------------------------------------------------


@pytest.mark.parametrize(
    "samples, log_prob, options, error, message",
    [
        (torch.ones(4), None, {}, ValueError, r"samples must have shape \[M, ..., S\], got \[4\]"),
        (
            torch.ones(0, 4),
            None,
            {},
            ValueError,
            r"at least one sample \(M >= 1\), got shape \[0, 4\]",
        ),
        (
            torch.ones(2, 4, dtype=torch.int64),
            None,
            {},
            TypeError,
            "samples must be float32 or float64, got Long",
        ),
        (torch.tensor([[1.0, -1.0]]), None, {}, ValueError, "must be finite counts, not negative"),
        (torch.tensor([[1.0, float("nan")]]), None, {}, ValueError, "sample 0, row 0"),
        (torch.tensor([[1.0, float("inf")]]), None, {}, ValueError, "must be finite counts"),
        (
            torch.ones(2, 4),
            None,
            {"offset": -1.0},
            ValueError,
            "offset must be finite and not negative, got -1",
        ),
        (
            torch.ones(2, 4),
            None,
            {"estimator": "exact"},
            ValueError,
            "estimator must be 'score', 'score_loo', 'diagonal' or 'go', got 'exact'",
        ),
        (torch.ones(2, 3, 4), torch.ones(2), {}, ValueError, r"log_prob must have shape \[2, 3\]"),
        (
            torch.ones(2, 3, 4),
            torch.ones(2, 3),
            {"estimator": "diagonal"},
            ValueError,
            "site by site",
        ),
        (
            torch.ones(2, 3, 4),
            torch.ones(2, 3).double(),
            {},
            TypeError,
            "log_prob must have the dtype of samples",
        ),
        (
            torch.ones(1, 3, 4),
            torch.ones(1, 3),
            {},
            ValueError,
            "samples must number at least 2 for estimator 'score_loo'",
        ),
    ],
)
def test_errors(samples, log_prob, options, error, message):
    with pytest.raises(error, match="ratio_ranking: .*" + message):
        tr.ratio_ranking(samples, log_prob, **options)


def test_backward_refuses_shapes_that_do_not_agree():
    y = torch.ones(5, 3, 8)
    with pytest.raises(
        ValueError, match=r"must have the shape of one sample, \[3, 8\], got \[3, 2\]"
    ):
        torch.ops.topreach.ratio_ranking_backward(
            torch.ones(3, 2), y, tr.ratio_ranking(y), 0.0, "score"
        )


@pytest.mark.parametrize("estimator", ["score", "score_loo", "diagonal"])
def test_opcheck(estimator):
    y = torch.poisson(torch.rand(5, 3, 8))
    log_prob = torch.zeros((5, 3, 8) if estimator == "diagonal" else (5, 3), requires_grad=True)
    torch.library.opcheck(torch.ops.topreach.ratio_ranking.default, (y, log_prob, 0.0, estimator))
    torch.library.opcheck(
        torch.ops.topreach.ratio_ranking_backward.default,
        (torch.randn(3, 8), y, tr.ratio_ranking(y), 0.0, estimator),
    )


def test_compiled_step_equals_eager():
    torch.manual_seed(0)
    y = torch.poisson(torch.rand(9, 3, 20))
    rate = torch.rand(3, 20, requires_grad=True)
    g = torch.randn(3, 20)

    def step(rate, y, g):
        log_prob = (y * rate.log() - rate).sum(-1)
        return (tr.ratio_ranking(y, log_prob) * g).sum()

    grads = [
        torch.autograd.grad(f(rate, y, g), rate)[0]
        for f in (step, torch.compile(step, fullgraph=True))
    ]
    assert torch.allclose(*grads, rtol=1e-4, atol=1e-6)


def test_memory_is_that_of_the_samples():
    """Backward needs no second array of the samples' size."""
    program = """
import torch, topreach as tr
def peak():  # kilobytes; getrusage would count the parent's too
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
y = torch.ones(500, 4, 10_000)     # 80 MB
log_prob = torch.zeros(500, 4, requires_grad=True)
tr.ratio_ranking(y[:2], log_prob[:2]).sum().backward()
before = peak()
tr.ratio_ranking(y, log_prob).sum().backward()
print(peak() - before)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) < 30_000  # kilobytes
