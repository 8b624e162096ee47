"""Arguments of a wrong type or out of range, in the operators' Python functions."""

import numpy as np
import pytest
import torch

import topreach as tr

KEY = torch.tensor([1, 2], dtype=torch.int64)
SCORES, SAMPLES = torch.rand(2, 5), torch.ones(4, 2, 5)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: tr.topk_mask([1.0, 2.0], 1),
            "topk_mask: scores must be a torch.Tensor, got a list; convert",
        ),
        (lambda: tr.topk_mask(None, 1), "topk_mask: scores must be a torch.Tensor, got None"),
        (lambda: tr.topk_mask(SCORES, True), r"topk_mask: k must be an integer, got True \(bool\)"),
        (lambda: tr.topk_mask(SCORES, np.True_), "topk_mask: k must be an integer, got"),
        (lambda: tr.topk_mask(SCORES, 2.0), r"topk_mask: k must be an integer, got 2.0 \(float\)"),
        (lambda: tr.topk_mask(SCORES, "2"), "topk_mask: k must be an integer, got '2'"),
        (
            lambda: tr.topk_mask(SCORES, [2, 1]),
            "topk_mask: k must be an integer or a tensor .* got a list",
        ),
        (
            lambda: tr.expected_topk(SCORES.numpy(), 2, sigma=0.1),
            "expected_topk: scores must be .* got a ndarray",
        ),
        (
            lambda: tr.expected_topk(SCORES, None, sigma=0.1),
            "expected_topk: k must be an integer, got None",
        ),
        (
            lambda: tr.expected_topk(SCORES, 2, sigma="wide"),
            "expected_topk: sigma must be a number, got 'wide'",
        ),
        (
            lambda: tr.expected_topk(SCORES, 2, sigma=True),
            "expected_topk: sigma must be a number, got True",
        ),
        (
            lambda: tr.expected_topk(SCORES, 2, sigma=[0.1, 0.2]),
            "sigma must be a number or a tensor .* got a list",
        ),
        (
            lambda: tr.expected_topk(SCORES, 2, sigma=0.1, method=1),
            "expected_topk: method must be a string, got 1",
        ),
        (
            lambda: tr.perturbed_topk((1.0,), 1, sigma=0.1),
            "perturbed_topk: scores must be a torch.Tensor, got a tuple",
        ),
        (
            lambda: tr.perturbed_topk(SCORES, 1, sigma=0.1, num_samples=2.5),
            "perturbed_topk: num_samples must be an integer",
        ),
        (
            lambda: tr.perturbed_topk(SCORES, 1, sigma=0.1, key=[1, 2]),
            "perturbed_topk: key must be a torch.Tensor",
        ),
        (
            lambda: tr.perturbed_topk(SCORES, 1, sigma=0.1, row_offset=0.5),
            "perturbed_topk: row_offset must be an integer",
        ),
        (lambda: tr.ratio_ranking([[1.0]]), "ratio_ranking: samples must be a torch.Tensor"),
        (
            lambda: tr.ratio_ranking(SAMPLES, 0.5),
            "ratio_ranking: log_prob must be a torch.Tensor, got a float",
        ),
        (
            lambda: tr.ratio_ranking(SAMPLES, offset=None),
            "ratio_ranking: offset must be a number, got None",
        ),
        (lambda: tr.soft_bpr(SCORES, [1.0], 2), "soft_bpr: counts must be a torch.Tensor"),
        (lambda: tr.soft_bpr(SCORES, SCORES, False), "soft_bpr: k must be an integer, got False"),
        (lambda: tr.topk_noise((1, 2), 1, 1, 1), "topk_noise: key must be a torch.Tensor"),
        (lambda: tr.topk_noise(KEY, 1.0, 1, 1), "topk_noise: num_samples must be an integer"),
    ],
)
def test_wrong_types(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_integers_of_numpy(kind):
    k = kind(2)
    assert torch.equal(tr.topk_mask(SCORES, k), tr.topk_mask(SCORES, 2))
    a, b = (tr.expected_topk(SCORES, n, sigma=s) for n, s in ((k, np.float32(0.5)), (2, 0.5)))
    assert torch.equal(a, b)
    a, b = (
        tr.perturbed_topk(SCORES, n, sigma=0.5, num_samples=n, key=KEY, row_offset=n)
        for n in (k, 2)
    )
    assert torch.equal(a, b)
    assert torch.equal(tr.soft_bpr(SCORES, SCORES, k), tr.soft_bpr(SCORES, SCORES, 2))


OPS = torch.ops.topreach
ROWS = 2**32


@pytest.mark.parametrize("offset", [-1, ROWS - 1, ROWS, 2**63 - 1])
def test_row_numbers_do_not_wrap(offset):
    """Two rows from 2^32 - 1 on would repeat the noise of row 0."""
    calls = [
        lambda n: OPS.perturbed_topk(SCORES, 2, 0.1, 4, "score", "normal", KEY, n),
        lambda n: OPS.topk_noise(KEY, 1, 2, 3, "normal", n),
        lambda n: OPS.topk_noise_checksum(KEY, 1, 2, 3, "normal", n),
        lambda n: OPS.negbin_sample(SCORES, SCORES, 3, KEY, n),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="row_offset must keep row numbers between 0 and 2"):
            call(offset)
        call(ROWS - 2)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: OPS.bpr(SCORES, torch.ones(3, 5), 2),
            "bpr: counts must have a shape that broadcasts",
        ),
        (
            lambda: tr.soft_bpr(SCORES, torch.ones(3, 5), 2),
            "soft_bpr: counts must have a shape that broadcasts",
        ),
        (
            lambda: OPS.negbin_sample(SCORES, torch.ones(4), 2, KEY),
            "negbin_sample: logits must have a shape that broadcasts",
        ),
        (
            lambda: OPS.negbin_log_prob(torch.ones(7), SCORES, SCORES),
            "negbin_log_prob: value must have a shape that broadcasts",
        ),
        (
            lambda: OPS.expected_ratio_ranking(
                "negative_binomial", SCORES, torch.ones(4), None, 0.0
            ),
            "expected_ratio_ranking: odds must have a shape that broadcasts",
        ),
    ],
)
def test_shapes_that_do_not_agree(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_counts_of_the_soft_reach():
    """As in the metrics: a missing count is not a period without events."""
    bad = torch.ones(2, 5)
    bad[1, 2] = float("nan")
    with pytest.raises(ValueError, match="soft_bpr: counts must not be NaN, got NaN; leave out"):
        tr.soft_bpr(SCORES, bad, 2)
    with pytest.raises(ValueError, match="soft_bpr: counts must not be negative, got -1"):
        tr.soft_bpr(SCORES, -torch.ones(2, 5), 2)
