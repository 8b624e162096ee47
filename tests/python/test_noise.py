"""The noise of perturbed_topk: Philox4x32-10 through Box-Muller or an inverse distribution
function."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

import topreach as tr

KEY = torch.tensor([20230101, 77], dtype=torch.int64)
DISTRIBUTION = {
    "normal": stats.norm,
    "gumbel": stats.gumbel_r,
    "logistic": stats.logistic,
    "laplace": stats.laplace,
}


@pytest.fixture(scope="module", params=list(DISTRIBUTION))
def sample(request):
    return request.param, tr.topk_noise(KEY, 40, 5, 10_000, noise=request.param)


def test_moments(sample):
    kind, z = sample
    dist, n = DISTRIBUTION[kind], z.numel()
    x = z.double().numpy().ravel()
    central = (x - dist.mean()) / dist.std()
    _, _, skew, excess = dist.stats(moments="mvsk")
    kurtosis = excess + 3
    assert abs(central.mean()) < 5 / np.sqrt(n)
    assert abs(central.var() - 1) < 5 * np.sqrt((kurtosis - 1) / n)
    # sd of the third standardised moment: 15 for a normal; taken from the sample otherwise
    third = central**3
    assert abs(third.mean() - skew) < 5 * third.std() / np.sqrt(n)


def test_kolmogorov_smirnov(sample):
    kind, z = sample
    assert stats.kstest(z.numpy().ravel(), DISTRIBUTION[kind].cdf).pvalue > 1e-3


def test_tails(sample):
    """The share beyond far quantiles, both sides, within 5 binomial standard errors."""
    kind, z = sample
    dist, x = DISTRIBUTION[kind], z.numpy().ravel()
    for p in (1e-2, 1e-3, 1e-4, 1e-5):
        slack = 5 * np.sqrt(p / x.size)
        assert abs((x < dist.ppf(p)).mean() - p) < slack
        assert abs((x > dist.isf(p)).mean() - p) < slack


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["draws", "rows", "sites"])
@pytest.mark.parametrize("lag", [1, 2, 3])
def test_independence_across_counters(sample, axis, lag):
    """Correlation of values and of squares along every axis of the counter: 5 standard errors."""
    kind, z = sample
    x = DISTRIBUTION[kind].cdf(z.double().numpy()) - 0.5
    a = np.take(x, range(lag, x.shape[axis]), axis)
    b = np.take(x, range(0, x.shape[axis] - lag), axis)
    for f, g in ((a, b), (a**2 - 1 / 12, b**2 - 1 / 12)):
        product = f * g
        assert abs(product.mean()) < 5 * product.std() / np.sqrt(product.size)


@pytest.mark.parametrize("lag", [16, 32, 48, 64])
def test_independence_within_a_counter(sample, lag):
    """Sites 16 apart share a Philox counter and, in pairs, a Box-Muller radius."""
    kind, z = sample
    x = DISTRIBUTION[kind].cdf(z.double().numpy()) - 0.5
    product = x[..., lag:] * x[..., :-lag]
    assert abs(product.mean()) < 5 * product.std() / np.sqrt(product.size)
    squares = (x[..., lag:] ** 2 - 1 / 12) * (x[..., :-lag] ** 2 - 1 / 12)
    assert abs(squares.mean()) < 5 * squares.std() / np.sqrt(squares.size)


def test_keys_rows_and_streams_differ():
    base = tr.topk_noise(KEY, 3, 2, 64)
    assert not torch.equal(base, tr.topk_noise(KEY + torch.tensor([1, 0]), 3, 2, 64))
    assert not torch.equal(base, tr.topk_noise(KEY + torch.tensor([0, 1]), 3, 2, 64))
    assert torch.equal(base[:, 1:], tr.topk_noise(KEY, 3, 1, 64, row_offset=1))
    assert len(base.unique()) == base.numel()


def test_prefixes_agree():
    """Neither S nor J nor the number of rows changes a value that stays."""
    large = tr.topk_noise(KEY, 5, 4, 1000)
    assert torch.equal(large[:3, :2, :70], tr.topk_noise(KEY, 3, 2, 70))


def test_against_libm():
    """Box-Muller from Philox's words in double precision: absolute error below 1e-6."""

    def philox(counter, key):
        mask = np.uint64(0xFFFFFFFF)
        x, y, z, w = (np.uint64(c) for c in counter)
        k0, k1 = (int(k) for k in key)
        for _ in range(10):
            p, q = np.uint64(0xD2511F53) * x, np.uint64(0xCD9E8D57) * z
            x, y, z, w = (
                (q >> np.uint64(32)) ^ y ^ np.uint64(k0),
                q & mask,
                (p >> np.uint64(32)) ^ w ^ np.uint64(k1),
                p & mask,
            )
            k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
        return [float(v) for v in (x, y, z, w)]

    assert [int(v) for v in philox((0, 0, 0, 0), (0, 0))] == [
        0x6627E8D5,
        0xE169C58D,
        0xBC57AC4C,
        0x9B00DBD8,
    ]
    got = tr.topk_noise(KEY, 2, 2, 200)
    for draw, row, block in [(0, 0, 0), (1, 1, 17), (1, 0, 33), (0, 1, 47)]:
        words = philox((block, draw, row, 0), KEY.tolist())
        site = 64 * (block // 16) + block % 16
        for pair in (0, 2):
            radius = np.sqrt(-2 * np.log((words[pair] // 2 + 0.5) / 2**31))
            angle = 2 * np.pi * words[pair + 1] / 2**32
            for offset, value in ((pair, np.sin(angle)), (pair + 1, np.cos(angle))):
                if site + 16 * offset < 200:
                    assert abs(float(got[draw, row, site + 16 * offset]) - radius * value) < 2e-6


def test_checksum_is_the_xor_of_the_noise():
    for kind in DISTRIBUTION:
        for sites in (1, 16, 63, 64, 65, 1000):
            z = tr.topk_noise(KEY, 7, 3, sites, noise=kind)
            bits = z.view(torch.int32).numpy()
            xor = np.bitwise_xor.reduce(np.bitwise_xor.reduce(bits, axis=-1), axis=0)
            got = torch.ops.topreach.topk_noise_checksum(KEY, 7, 3, sites, kind)
            assert (got.numpy().astype(np.uint32).view(np.int32) == xor).all()


PROGRAM = """
import torch, topreach as tr
key = torch.tensor([5, 6])
out = []
for dtype in (torch.float32, torch.float64):
    scores = torch.linspace(0, 1, 3 * 137, dtype=dtype).reshape(3, 137).sin().requires_grad_()
    for noise in ("normal", "gumbel", "logistic", "laplace"):
        for estimator in ("score_loo", "conditional"):
            b = tr.perturbed_topk(scores, 11, sigma=0.2, num_samples=23, noise=noise, key=key,
                                  estimator=estimator)
            (g,) = torch.autograd.grad((b * scores.detach().cos()).sum(), scores)
            out += [b.detach().double().view(torch.int64), g.double().view(torch.int64)]
        out += [torch.ops.topreach.topk_noise_checksum(key, 23, 3, 137, noise)]
    y = (scores.detach() * 5).floor().reshape(3, 1, 137).repeat(10, 2, 1)
    log_prob = torch.zeros(30, 2, dtype=dtype, requires_grad=True)
    r = tr.ratio_ranking(y, log_prob)
    (g,) = torch.autograd.grad((r * scores.detach()[0]).sum(), log_prob)
    out += [r.detach().double().view(torch.int64), g.double().view(torch.int64)]
print([int(t.sum()) for t in out])
"""


def test_same_bits_on_every_instruction_set():
    """Noise, values and gradients: baseline, AVX2 and AVX-512 builds of the same loops, bit for bit
    (sums of the bit patterns, modulo 2^64)."""
    prints = set()
    for capability in ("baseline", "avx2", "avx512"):
        env = os.environ | {"TOPREACH_CPU_CAPABILITY": capability}
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True
        )
        prints.add(run.stdout)
    assert len(prints) == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((KEY.float(), 1, 1, 1), "key must be int64"),
        ((KEY[:1], 1, 1, 1), r"key must have shape \[2\]"),
        ((KEY, -1, 1, 1), "must not be negative"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        tr.topk_noise(*arguments)
    with pytest.raises(ValueError, match="noise must be 'normal', .* or 'laplace', got 'cauchy'"):
        tr.topk_noise(KEY, 1, 1, 1, noise="cauchy")
