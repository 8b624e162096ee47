"""The operators on a real GPU, against the CPU: the same noise, thresholds and counts, bit for bit.

Skipped where there is no GPU; the same kernels run there under the host emulation of
tests/kernels/cuda_emulation.
"""

import pytest
import torch

import topreach as tr
from topreach._library import build_info

pytestmark = [
    pytest.mark.skipif(
        not build_info()["cuda"], reason="the library was built without CUDA (TOPREACH_CUDA)"
    ),
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="torch sees no GPU (torch.cuda.is_available())"
    ),
]

OPS = torch.ops.topreach
KEY = torch.tensor([12345, 678910], dtype=torch.int64)
DTYPES = [torch.float32, torch.float64]
INF, NAN = float("inf"), float("nan")


def random_scores(*shape, dtype, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def no_sync():
    """Any call that waits for the device raises."""
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode(before)


@pytest.mark.parametrize("noise", ["normal", "gumbel", "logistic", "laplace"])
@pytest.mark.parametrize("sites", [1, 9, 64, 1620])
def test_noise_has_the_bits_of_the_cpu(noise, sites):
    cpu = OPS.topk_noise(KEY, 7, 3, sites, noise, 5)
    gpu = OPS.topk_noise(KEY.cuda(), 7, 3, sites, noise, 5)
    assert torch.equal(cpu.view(torch.int32), gpu.cpu().view(torch.int32))
    sums = OPS.topk_noise_checksum(KEY.cuda(), 7, 3, sites, noise, 5)
    assert torch.equal(OPS.topk_noise_checksum(KEY, 7, 3, sites, noise, 5), sums.cpu())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("noise", ["normal", "gumbel", "logistic", "laplace"])
@pytest.mark.parametrize(
    "rows, sites, k, draws",
    [(3, 9, 2, 25), (10, 1620, 100, 100), (2, 1620, 1619, 33), (1, 100_000, 1000, 100),
     (1, 20_000, 10_000, 20), (70_000, 9, 3, 10)],
)  # fmt: skip
def test_perturbed_topk_is_that_of_the_cpu(dtype, noise, rows, sites, k, draws):
    scores = random_scores(rows, sites, dtype=dtype)
    v = random_scores(rows, sites, dtype=dtype, seed=1)
    scores[0, : sites // 4] = -INF
    for estimator in ["score", "score_loo", "conditional"]:
        options = (k, 0.1, draws, estimator, noise)
        cpu = OPS.perturbed_topk(scores, *options, KEY, 3)
        gpu = OPS.perturbed_topk(scores.cuda(), *options, KEY.cuda(), 3)
        for a, b in zip(cpu, gpu):
            assert torch.equal(a, b.cpu())
        g_cpu = OPS.perturbed_topk_backward(v, scores, *cpu, *options, KEY, 3)
        g_gpu = OPS.perturbed_topk_backward(v.cuda(), scores.cuda(), *gpu, *options, KEY.cuda(), 3)
        if estimator != "score_loo":
            assert torch.equal(g_cpu, g_gpu.cpu())
        else:
            # the centre b . v is a double sum in another order, rounded to the dtype; it enters
            # J weights of mean_j w_j score(z_j) / sigma with scores below 25
            eps = torch.finfo(dtype).eps
            bound = 25 / 0.1 * (eps + 1.2e-16 * sites) * (cpu[0] * v).abs().sum(-1, keepdim=True)
            bound = bound + 25 / 0.1 * eps * v.abs().sum(-1, keepdim=True)
            assert ((g_cpu - g_gpu.cpu()).abs() <= bound).all()


def test_repeats_bit_for_bit():
    scores = random_scores(4, 1328, dtype=torch.float32).cuda().requires_grad_()
    v = random_scores(4, 1328, dtype=torch.float32, seed=1).cuda()
    results = []
    for _ in range(5):
        b = tr.perturbed_topk(scores, 100, sigma=0.1, estimator="score_loo", key=KEY.cuda())
        results.append((b.detach(), torch.autograd.grad(b, scores, v)[0]))
    for b, g in results[1:]:
        assert torch.equal(b, results[0][0]) and torch.equal(g, results[0][1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_mask_and_special_values(dtype):
    scores = random_scores(6, 100, dtype=dtype).mul(2).round().div(2)  # ties
    scores[1, ::3] = -INF
    scores[2, ::3] = INF
    scores[3, 5:] = -INF
    for k in [0, 1, 10, 99, 100]:
        assert torch.equal(tr.topk_mask(scores, k), tr.topk_mask(scores.cuda(), k).cpu())
        b = tr.perturbed_topk(scores, k, sigma=0.1, key=KEY)
        on_gpu = tr.perturbed_topk(scores.cuda(), k, sigma=0.1, key=KEY.cuda())
        assert torch.equal(b, on_gpu.cpu())


@pytest.mark.parametrize("dtype", DTYPES)
def test_budgets_and_noise_of_rows_are_those_of_the_cpu(dtype):
    """Masks bit for bit; the soft choices to their error bounds, as with numbers. A budget or sigma
    out of range makes its row NaN."""
    scores = random_scores(4, 60, dtype=dtype)
    k, sigma = torch.tensor([0, 7, 60, 3]), torch.tensor([0.3, 0.1, 0.5, 0.0], dtype=dtype)
    on_gpu = [t.cuda() for t in (scores, k, sigma)]
    assert torch.equal(tr.topk_mask(scores, k), tr.topk_mask(*on_gpu[:2]).cpu())
    b = tr.expected_topk(scores, k, sigma=sigma)
    assert (b - tr.expected_topk(*on_gpu[:2], sigma=on_gpu[2]).cpu()).abs().max() < 1e-6
    b = tr.perturbed_topk(scores, k, sigma=sigma, key=KEY)
    assert torch.equal(b, tr.perturbed_topk(*on_gpu[:2], sigma=on_gpu[2], key=KEY.cuda()).cpu())
    bad_k, bad_sigma = torch.tensor([1, 61, -1, 2]).cuda(), torch.tensor([1.0, -1, NAN, 1]).cuda()
    wanted = [False, True, True, False]
    assert tr.topk_mask(on_gpu[0], bad_k).isnan().all(-1).tolist() == wanted
    assert tr.expected_topk(on_gpu[0], bad_k, sigma=0.1).isnan().all(-1).tolist() == wanted
    assert tr.expected_topk(on_gpu[0], 5, sigma=bad_sigma).isnan().all(-1).tolist() == wanted


@pytest.mark.parametrize("sigma, k", [(0.1, 5), (0.0, 5), (0.1, 0), (0.1, 50)])
@pytest.mark.parametrize("estimator", ["score_loo", "conditional"])
def test_nan_rows_are_nan_without_waiting(estimator, sigma, k, no_sync):
    scores = torch.zeros(3, 50, device="cuda")
    scores[1].index_fill_(0, torch.arange(7, 8, device="cuda"), float("nan"))
    scores.requires_grad_()
    key = torch.arange(2, device="cuda")
    b = tr.perturbed_topk(scores, k, sigma=sigma, estimator=estimator, key=key)
    (g,) = torch.autograd.grad(b, scores, torch.ones_like(b))
    torch.cuda.set_sync_debug_mode("default")
    for result in [b.detach(), g]:
        assert result.isnan().all(-1).tolist() == [False, True, False]
        assert result.isnan().any(-1).tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("estimator", ["score", "score_loo", "diagonal"])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_ratio_ranking_is_that_of_the_cpu(dtype, estimator, offset):
    generator = torch.Generator().manual_seed(0)
    y = torch.poisson(torch.full((77, 4, 1328), 0.3, dtype=dtype), generator=generator)
    y[3] = 0
    g = random_scores(4, 1328, dtype=dtype)
    r = OPS.ratio_ranking(y, None, offset, estimator)
    assert torch.equal(r, OPS.ratio_ranking(y.cuda(), None, offset, estimator).cpu())
    w = OPS.ratio_ranking_backward(g, y, r, offset, estimator)
    on_gpu = OPS.ratio_ranking_backward(g.cuda(), y.cuda(), r.cuda(), offset, estimator).cpu()
    if estimator == "score_loo":
        bound = g.abs().max() * (1.2e-16 * 1328 + 2 * torch.finfo(dtype).eps)
        assert (w - on_gpu).abs().max() <= bound
    else:
        assert torch.equal(w, on_gpu)
    y[5, 2, 7] = -1
    rows = OPS.ratio_ranking(y.cuda(), None, offset, estimator).isnan()
    assert rows.all(-1).tolist() == rows.any(-1).tolist() == [False, False, True, False]


@pytest.mark.parametrize("dtype", DTYPES)
def test_negbin_is_that_of_the_cpu(dtype):
    n = random_scores(4, 1328, dtype=dtype).mul(3).exp()
    z = random_scores(4, 1328, dtype=dtype, seed=1)
    y = OPS.negbin_sample(n, z, 21, KEY, 2)
    assert torch.equal(y, OPS.negbin_sample(n.cuda(), z.cuda(), 21, KEY.cuda(), 2).cpu())
    results = []
    for device in ["cpu", "cuda"]:
        parameters = [t.to(device).requires_grad_() for t in (n.detach(), z.detach())]
        log_prob = OPS.negbin_log_prob(y.to(device), *parameters)
        grads = torch.autograd.grad(log_prob, parameters, torch.ones_like(log_prob))
        results.append([log_prob.detach().cpu(), *(g.cpu() for g in grads)])
    for a, b in zip(*results):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "rows, sites, k, sigma",
    [(3, 2, 1, 0.5), (4, 12, 5, 0.2), (10, 1620, 100, 0.01), (10, 1620, 100, 0.1),
     (2, 1620, 1619, 1.0), (1, 100_000, 1000, 0.1), (300, 50, 7, 0.3)],
)  # fmt: skip
def test_expected_topk_is_that_of_the_cpu(dtype, rows, sites, k, sigma):
    """The same method with sums in another order: 1e-9 apart (and equal after rounding to float but
    for a last digit), and so are the products in units of max |v| / sigma."""
    scores = random_scores(rows, sites, dtype=dtype)
    v = random_scores(rows, sites, dtype=dtype, seed=1)
    for method in ["exact", "mean_field"]:
        results = []
        for device in ["cpu", "cuda"]:
            own = scores.to(device, copy=True).requires_grad_()
            b = tr.expected_topk(own, k, sigma=sigma, method=method)
            (g,) = torch.autograd.grad(b, own, v.to(device))
            results.append((b.detach().cpu(), g.cpu()))
        rounding = 1e-9 + torch.finfo(dtype).eps
        assert (results[0][0] - results[1][0]).abs().max() <= rounding
        bound = 4 * rounding * v.abs().max() / sigma
        assert (results[0][1] - results[1][1]).abs().max() <= bound


@pytest.mark.parametrize("method", ["exact", "mean_field"])
def test_expected_topk_hard_and_nan_rows_without_waiting(method, no_sync):
    scores = torch.zeros(4, 50, device="cuda")
    scores[1].index_fill_(0, torch.arange(7, 8, device="cuda"), float("nan"))
    scores[2].index_fill_(0, torch.arange(5, device="cuda"), 1e3)
    scores[3].index_fill_(0, torch.arange(5, 50, device="cuda"), -INF)
    scores.requires_grad_()
    b = tr.expected_topk(scores, 5, sigma=0.1, method=method)
    (g,) = torch.autograd.grad(b, scores, torch.rand_like(b))
    again = tr.expected_topk(scores, 5, sigma=0.1, method=method)
    torch.cuda.set_sync_debug_mode("default")
    for result in [b.detach(), g]:
        assert result.isnan().all(-1).tolist() == [False, True, False, False]
        assert result.isnan().any(-1).tolist() == [False, True, False, False]
    assert torch.equal(b.nan_to_num(), again.nan_to_num())
    assert b[2:, :5].eq(1).all() and b[2:, 5:].eq(0).all() and g[2:].eq(0).all()


def quotas_of(sites, nested=False):
    """(groups, lower, upper, parent, lock) that K = 40 of `sites` sites can meet."""
    groups = torch.arange(sites) % 7 - 1
    lower, upper = torch.tensor([2, 0, 5, 1, 0, 0]), torch.tensor([9, 3, sites, 12, 0, sites])
    parent = torch.tensor([-1, 0, 0, -1, 3, 3]) if nested else None
    if nested:
        upper = torch.tensor([30, 3, sites, 25, 5, sites])
    lock = torch.zeros(sites, dtype=torch.int64)
    lock[3], lock[5] = 1, -1
    return groups, lower, upper, parent, lock


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("sites", [120, 3000])
def test_quota_topk_is_that_of_the_cpu(dtype, nested, sites):
    scores = random_scores(5, sites, dtype=dtype).mul(4).round().div(4)  # ties
    scores[1, 20 : sites // 2] = -INF
    quotas = quotas_of(sites, nested)
    want = OPS.quota_topk(scores, 40, *quotas)
    assert torch.equal(OPS.quota_topk(scores.cuda(), 40, *quotas).cpu(), want)
    refused = scores.cuda()
    refused[2, 7] = NAN
    refused[3] = -INF  # the CPU raises
    rows = OPS.quota_topk(refused, 40, *quotas).isnan()
    assert rows.all(-1).tolist() == rows.any(-1).tolist() == [False, False, True, True, False]
    with pytest.raises(ValueError, match="quotas must be feasible, got at least"):
        OPS.quota_topk(scores.cuda(), 40, *quotas[:4], torch.full((sites,), -1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("estimator", ["score_loo", "conditional"])
@pytest.mark.parametrize("sites", [120, 3000])
def test_perturbed_quota_topk_is_that_of_the_cpu(dtype, estimator, sites):
    scores, v = (random_scores(4, sites, dtype=dtype, seed=i) for i in range(2))
    scores[1, 20 : sites // 2] = -INF
    groups, lower, upper, parent, lock = quotas_of(sites, estimator == "score_loo")
    options = (40, groups, lower, upper, 0.3, 33, estimator)
    want = OPS.perturbed_quota_topk(scores, *options, KEY, 3, parent, lock)
    got = OPS.perturbed_quota_topk(scores.cuda(), *options, KEY.cuda(), 3, parent, lock)
    assert torch.equal(got.cpu(), want)
    back = OPS.perturbed_quota_topk_backward
    g = back(v, scores, want, *options, KEY, 3, parent, lock)
    on_gpu = back(v.cuda(), scores.cuda(), got, *options, KEY.cuda(), 3, parent, lock).cpu()
    if estimator == "conditional":
        assert torch.equal(on_gpu, g)
    else:  # b_j . v - b . v is a double sum in another order, times |z| < 7
        bound = 7 / 0.3 * 2.3e-16 * sites * v.abs().sum(-1, keepdim=True)
        assert ((on_gpu - g).abs() <= bound + torch.finfo(dtype).eps * g.abs()).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sites, sigma", [(120, 0.02), (120, 0.3), (800, 0.1), (2000, 3.0)])
def test_expected_quota_topk_is_that_of_the_cpu(dtype, sites, sigma):
    """The same nodes with sums in another order."""
    groups, lower, upper, _, lock = quotas_of(sites)
    scores, v = (random_scores(3, sites, dtype=dtype, seed=i) for i in range(2))
    scores[1, 20 : sites // 2] = -INF
    results = []
    for device in ["cpu", "cuda"]:
        own = scores.to(device, copy=True).requires_grad_()
        b = OPS.expected_quota_topk(own, 40, groups, lower, upper, sigma, lock)
        (g,) = torch.autograd.grad(b, own, v.to(device))
        results.append((b.detach().cpu(), g.cpu()))
    rounding = 1e-11 + torch.finfo(dtype).eps
    assert (results[0][0] - results[1][0]).abs().max() <= rounding
    assert (results[0][1] - results[1][1]).abs().max() <= 4 * rounding * v.abs().max() / sigma


def hawkes_case(events=700, places=4, types=2, blocks=5, marks=3):
    """The arguments of hawkes_derivatives up to `parameters`, float64, an item for each node."""
    generator = torch.Generator().manual_seed(0)
    nodes = places * types

    def uniform(*shape):
        return torch.rand(*shape, dtype=torch.float64, generator=generator)

    place = uniform(places, 2)
    either = torch.randint(5, 30, (blocks, types, types, places), generator=generator).float()
    parameters = torch.tensor([-0.5, 0.3, -1.0, 0.8, 0.2, -0.1, 0.1, 2.0], dtype=torch.float64)
    return [
        (uniform(events) * 31 - 1).sort().values,
        torch.randint(nodes, (events,), generator=generator),
        uniform(events, marks),
        torch.linspace(0, 30, blocks + 1, dtype=torch.float64),
        0.5 + uniform(blocks),
        uniform(blocks, nodes, 1),
        torch.cdist(place, place),
        torch.arange(blocks),
        (either / 2).floor(),
        either,
        uniform(blocks, types, types),
        5.0,
        torch.arange(nodes),
        parameters + 0.1 * uniform(nodes, len(parameters)),
    ]


def test_hawkes_derivatives_are_those_of_the_cpu():
    """Sums over events in another order: 1e-12 of an item's largest entry; repeats bit for bit."""
    case = hawkes_case()
    on_gpu = [a.cuda() if isinstance(a, torch.Tensor) else a for a in case]
    want = OPS.hawkes_derivatives(*case, 2)
    got = OPS.hawkes_derivatives(*on_gpu, 2)
    for a, b in zip(want, got):
        largest = a.abs().reshape(len(a), -1).amax(-1).clamp_min(1)
        off = (a - b.cpu()).abs().reshape(len(a), -1).amax(-1)
        assert (off <= 1e-12 * largest).all()
    again = OPS.hawkes_derivatives(*case[:-1], on_gpu[-1], 2)  # events may stay on the CPU
    assert all(torch.equal(a, b) for a, b in zip(got, again))
    lower = OPS.hawkes_derivatives(*on_gpu, 1)
    assert torch.equal(lower[0], got[0]) and torch.equal(lower[1], got[1])
    own = on_gpu[-1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        OPS.hawkes_log_likelihood(*on_gpu[:-1], own).sum(), own, create_graph=True
    )
    (product,) = torch.autograd.grad(gradient.sum(), own)
    assert torch.equal(gradient.detach(), got[1])
    assert torch.allclose(product, got[2].sum(-1), rtol=1e-12, atol=1e-9)


def exact_step(n, z, y):
    """A decision-aware step without samples, with the exact ranking and the exact choice."""
    r = tr.expected_ratio_ranking(tr.distributions.NegativeBinomial(n, z))
    b = tr.expected_topk(r, 50, sigma=1e-3)
    return torch.autograd.grad(-(b * y).sum(), [n, z])


def test_an_exact_step_is_that_of_the_cpu_and_never_waits(no_sync):
    n, z = torch.rand(4, 1328).add(0.5), torch.rand(4, 1328)
    y = torch.rand(4, 1328)
    on_gpu = [t.cuda().requires_grad_() for t in (n, z)]
    y_gpu = y.cuda()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    grads = exact_step(*on_gpu, y_gpu)
    torch.cuda.set_sync_debug_mode("default")
    for a, b in zip(exact_step(n.requires_grad_(), z.requires_grad_(), y), grads):
        assert torch.allclose(a, b.cpu(), rtol=1e-4, atol=1e-5 * float(a.abs().max()))


def test_an_exact_step_runs_in_a_cuda_graph():
    n = torch.rand(4, 1328, device="cuda").add(0.5).requires_grad_()
    z = torch.zeros(4, 1328, device="cuda", requires_grad=True)
    y = torch.rand(4, 1328, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        exact_step(n, z, y)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = exact_step(n, z, y)
    for scale in [1.0, 0.5]:
        with torch.no_grad():
            n.mul_(scale)
        graph.replay()
        for a, b in zip(captured, exact_step(n, z, y)):
            assert torch.equal(a, b)


def training_step(n, z, y, key, estimator):
    """One decision-aware step: sample, rank, choose, and the gradient of the reach."""
    samples = OPS.negbin_sample(n, z, 20, key, 0)
    log_prob = OPS.negbin_log_prob(samples, n, z).sum(-1)
    r = tr.ratio_ranking(samples, log_prob)
    b = tr.perturbed_topk(r, 50, sigma=0.001, estimator=estimator, key=key)
    return torch.autograd.grad(-(b * y).sum(), [n, z])


@pytest.mark.parametrize("estimator", ["score_loo", "conditional"])
def test_a_training_step_never_waits(estimator, no_sync):
    n = torch.ones(4, 1328, device="cuda", requires_grad=True)
    z = torch.zeros(4, 1328, device="cuda", requires_grad=True)
    y, key = torch.ones(4, 1328, device="cuda"), torch.arange(2, device="cuda")
    grads = training_step(n, z, y, key, estimator)
    torch.cuda.set_sync_debug_mode("default")
    assert all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize("estimator", ["score_loo", "conditional"])
def test_a_training_step_runs_in_a_cuda_graph(estimator):
    n = torch.rand(4, 1328, device="cuda").add(0.5).requires_grad_()
    z = torch.zeros(4, 1328, device="cuda", requires_grad=True)
    y, key = torch.rand(4, 1328, device="cuda"), KEY.cuda()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        training_step(n, z, y, key, estimator)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = training_step(n, z, y, key, estimator)
    for seed in [1, 2]:  # the key is read on the device: a replay draws anew
        key.copy_(torch.tensor([seed, seed + 1]))
        graph.replay()
        for a, b in zip(captured, training_step(n, z, y, key, estimator)):
            assert torch.equal(a, b)


def test_uses_the_current_stream_and_the_tensors_device():
    scores = random_scores(2, 500, dtype=torch.float32)
    want = tr.perturbed_topk(scores, 20, sigma=0.1, key=KEY)
    device = torch.device("cuda", torch.cuda.device_count() - 1)
    stream = torch.cuda.Stream(device)
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)
        got = tr.perturbed_topk(
            scores.to(device, non_blocking=True), 20, sigma=0.1, key=KEY.to(device)
        )
    stream.synchronize()
    assert got.device == device and torch.equal(got.cpu(), want)


def test_rejects_a_key_on_another_device():
    with pytest.raises(ValueError, match="key must be on the device of the other arguments"):
        tr.perturbed_topk(torch.zeros(9, device="cuda"), 2, sigma=0.1, key=KEY)
