"""The operators bpr and soft_bpr (L23 Eq. 5, D25 Eq. 2), by enumeration of tie-breakings."""

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import topreach  # noqa: F401  (registers the operators)

bpr = torch.ops.topreach.bpr
soft_bpr = torch.ops.topreach.soft_bpr


def bpr_by_enumeration(scores, counts, k):
    """Mean reach over all sets of k sites that a sort of the scores may put first."""
    best = sum(sorted(counts, reverse=True)[:k])
    if best == 0:
        return math.nan
    last = sorted(scores, reverse=True)[k - 1]
    above = [s for s, r in enumerate(scores) if r > last]
    tied = [s for s, r in enumerate(scores) if r == last]
    reaches = [
        sum(counts[s] for s in (*above, *chosen)) for chosen in combinations(tied, k - len(above))
    ]
    return sum(reaches) / len(reaches) / best


@settings(max_examples=200, deadline=None)
@given(data=st.data(), sites=st.integers(1, 7), rows=st.integers(1, 3))
def test_expectation_over_tie_breakings(data, sites, rows):
    k = data.draw(st.integers(1, sites))
    cell = st.lists(st.integers(0, 3), min_size=sites, max_size=sites)
    scores = data.draw(st.lists(cell, min_size=rows, max_size=rows))
    counts = data.draw(st.lists(cell, min_size=rows, max_size=rows))
    got = bpr(torch.tensor(scores).double(), torch.tensor(counts), k)
    want = torch.tensor([bpr_by_enumeration(r, y, k) for r, y in zip(scores, counts, strict=True)])
    assert torch.allclose(got, want.double(), equal_nan=True, atol=1e-12)


def test_mean_over_random_permutations():
    torch.manual_seed(0)
    scores = torch.randint(0, 4, (40,)).double()
    counts = torch.randint(0, 3, (40,)).double()
    values = []
    for _ in range(4000):
        order = torch.randperm(40)
        chosen = order[scores[order].sort(descending=True, stable=True).indices[:12]]
        values.append(counts[chosen].sum() / counts.topk(12).values.sum())
    values = torch.stack(values)
    error = values.std() / math.sqrt(len(values))
    assert abs(values.mean() - bpr(scores, counts, 12)) < 5 * error


def test_leading_shapes_broadcast():
    scores, counts = torch.randn(5, 1, 3, 9), torch.randint(0, 4, (2, 3, 9))
    got = bpr(scores, counts, 4)
    assert got.shape == (5, 2, 3) and got.dtype == torch.float32
    assert torch.allclose(got[4, 1, 2], bpr(scores[4, 0, 2], counts[1, 2], 4))


def test_masked_sites_and_whole_budget():
    scores = torch.tensor([-math.inf, 1.0, 0.0, math.inf])
    counts = torch.tensor([9.0, 1.0, 0.0, 2.0])
    assert torch.allclose(bpr(scores, counts, 2), torch.tensor(3 / 11))
    assert bpr(scores, counts, 4) == 1


def test_perfect_and_worst():
    counts = torch.rand(3, 20)
    assert torch.allclose(bpr(counts, counts, 6), torch.ones(3))
    worst = counts.sort(-1).values[:, :6].sum(-1) / counts.topk(6).values.sum(-1)
    assert torch.allclose(bpr(-counts, counts, 6), worst)


@pytest.mark.parametrize("op", [bpr, soft_bpr])
def test_bad_arguments(op):
    one = torch.ones(2, 5)
    for k in (0, -1, 6):
        with pytest.raises(ValueError, match="k must be between 1 and S = 5"):
            op(one, one, k)
    with pytest.raises(ValueError, match="the same S"):
        op(one, one[:, :4], 2)
    with pytest.raises(TypeError, match="must be floating point"):
        op(one.long(), one, 2)


def test_bad_values():
    one = torch.ones(2, 5)
    broken = one.clone()
    broken[1, 3] = math.nan
    with pytest.raises(ValueError, match="scores must not be NaN"):
        bpr(broken, one, 2)
    with pytest.raises(ValueError, match="counts must not be NaN"):
        bpr(one, broken, 2)
    with pytest.raises(ValueError, match="counts must not be negative"):
        bpr(one, -one, 2)


def test_soft_bpr_of_a_hard_choice_is_bpr():
    torch.manual_seed(1)
    scores, counts = torch.randn(4, 15), torch.randint(0, 5, (4, 15)).float()
    mask = torch.ops.topreach.topk_mask(scores, 4)
    assert torch.allclose(soft_bpr(mask, counts, 4), bpr(scores, counts, 4))


def test_soft_bpr_gradient():
    counts = torch.randint(0, 5, (3, 6)).double()
    b = torch.rand(3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda b: soft_bpr(b, counts, 2), (b,))
    assert torch.autograd.gradgradcheck(lambda b: soft_bpr(b, counts, 2), (b,))


def test_periods_without_events_have_no_gradient():
    b = torch.rand(3, 4, requires_grad=True)
    counts = torch.tensor([[0.0, 0, 0, 0], [1, 2, 3, 4], [0, 0, 0, 0]])
    value = soft_bpr(b, counts, 2)
    assert value.isnan().tolist() == [True, False, True]
    torch.where(counts.sum(-1) > 0, value, 0.0).sum().backward()
    assert torch.equal(b.grad[[0, 2]], torch.zeros(2, 4))
    assert torch.allclose(b.grad[1], counts[1] / 7)


def test_opcheck():
    scores = torch.randn(3, 6)
    counts = torch.randint(1, 5, (3, 6)).float()
    torch.library.opcheck(torch.ops.topreach.bpr.default, (scores, counts, 2))
    torch.library.opcheck(torch.ops.topreach.soft_bpr.default, (scores.requires_grad_(), counts, 2))
