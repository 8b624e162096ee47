"""Top-K under quotas: plans by enumeration, expectations by identities, draws and differences."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import topreach as tr

DOUBLE = torch.float64
# A worked example: r, sigma, l = 1, u = size, K = 4 of three groups.
SCORES = torch.tensor([0.9, 0.7, 0.65, 0.6, 0.4, 0.3, 0.2, 0.1], dtype=DOUBLE)
GROUPS = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
PUBLISHED = [0.91600, 0.50693, 0.34889, 0.22758, 0.68158, 0.31902, 0.68132, 0.31868]
SIGMA = 0.15
LIMITS = [
    ((1, 1, 1), (4, 2, 2), 4),
    ((0, 1, 1), (2, 2, 2), 4),
    ((0, 0, 0), (4, 2, 2), 3),
    ((2, 1, 1), (2, 1, 1), 4),
    ((1, 0, 1), (3, 1, 2), 5),
    ((0, 0, 2), (1, 1, 2), 2),
]


def allowed(plan, k, groups, lower, upper, parent, lock):
    """Whether a tuple of sites is an allowed plan."""
    counts = [0] * len(lower)
    for site in plan:
        g = groups[site]
        while g >= 0:
            counts[g] += 1
            g = parent[g]
    inside = all(low <= n <= high for low, n, high in zip(lower, counts, upper, strict=True))
    held = all((i in plan) if mark > 0 else (i not in plan) for i, mark in enumerate(lock) if mark)
    return len(plan) == k and inside and held


def plans(n, k, groups, lower, upper, parent, lock):
    return [
        plan
        for plan in itertools.combinations(range(n), k)
        if allowed(plan, k, groups, lower, upper, parent, lock)
    ]


@st.composite
def problems(draw, most_sites=9):
    """Nested or disjoint groups, locks, closed sites, ties: feasible or not."""
    n = draw(st.integers(1, most_sites))
    k = draw(st.integers(0, n))
    count = draw(st.integers(0, 4))
    groups = draw(st.lists(st.integers(-1, count - 1), min_size=n, max_size=n))
    # A parent has a higher number, so there is no circle.
    parent = [draw(st.sampled_from([-1, *range(g + 1, count)])) for g in range(count)]
    lower = [draw(st.integers(0, 2)) for _ in range(count)]
    upper = [low + draw(st.integers(0, n)) for low in lower]
    lock = draw(st.lists(st.sampled_from([0, 0, 0, 0, 1, -1]), min_size=n, max_size=n))
    level = st.sampled_from([-math.inf, *[float(v) for v in range(-3, 6)]])
    scores = draw(st.lists(level, min_size=n, max_size=n))
    return n, k, groups, lower, upper, parent, lock, scores


def whole(values):
    return torch.tensor(values, dtype=torch.int64)


@given(problems())
@settings(max_examples=400, deadline=None)
def test_the_best_plan_by_enumeration(problem):
    n, k, groups, lower, upper, parent, lock, scores = problem
    shut = [mark if r > -math.inf else min(mark, -1) for mark, r in zip(lock, scores, strict=True)]
    opened = [i for i, mark in enumerate(lock) if mark > 0 and scores[i] == -math.inf]
    every = [] if opened else plans(n, k, groups, lower, upper, parent, shut)

    def run(dtype):
        return tr.quota_topk(
            torch.tensor(scores, dtype=dtype),
            k,
            groups=whole(groups),
            lower=whole(lower),
            upper=whole(upper),
            parent=whole(parent),
            lock=whole(lock),
        )

    if not every:
        with pytest.raises(ValueError, match="quotas must be feasible|locked in must have a score"):
            run(DOUBLE)
        return
    for dtype in (DOUBLE, torch.float32):
        plan = tuple(run(dtype).nonzero().flatten().tolist())
        assert plan in every
        best = max(sum(scores[i] for i in other) for other in every)
        assert sum(scores[i] for i in plan) == best


def test_ties_go_to_the_lowest_index():
    mask = tr.quota_topk(torch.zeros(6), 3, groups=list("aabbcc"), lower=[0, 0, 1])
    assert mask.tolist() == [1, 1, 0, 0, 1, 0]


# ---- the expectation -----------------------------------------------------------------------------


def bounds(lower, upper):
    return {"groups": GROUPS, "lower": whole(lower), "upper": whole(upper)}


def test_the_published_expectation():
    """The worked example's answers: at least one in each group, K = 4."""
    b = tr.expected_quota_topk(SCORES, 4, groups=GROUPS, lower=1, sigma=SIGMA)
    np.testing.assert_allclose(b, PUBLISHED, atol=6e-6)
    assert b.sum() == pytest.approx(4, abs=1e-8)


@pytest.mark.parametrize("lower, upper, k", LIMITS)
def test_the_expectation_is_that_of_draws(lower, upper, k):
    torch.manual_seed(0)
    draws = 40_000
    u = SCORES + SIGMA * torch.randn(draws, 8, dtype=DOUBLE)
    mean = tr.quota_topk(u, k, **bounds(lower, upper)).mean(0)
    b = tr.expected_quota_topk(SCORES, k, **bounds(lower, upper), sigma=SIGMA)
    error = (b * (1 - b) / draws).clamp(min=0).sqrt()
    assert ((mean - b).abs() <= 5 * error + 1e-7).all()
    assert b.sum() == pytest.approx(k, abs=1e-8)


@pytest.mark.parametrize("lower, upper, k", LIMITS)
def test_the_jacobian_is_that_of_finite_differences(lower, upper, k):
    """Symmetric, its rows sum to zero; forward and backward mode are the same."""

    def run(r):
        return tr.expected_quota_topk(r, k, **bounds(lower, upper), sigma=SIGMA)

    h = 1e-4  # of a function right to 1e-9: 1e-5 from its error, 1e-6 from the third derivative
    steps = h * torch.eye(8, dtype=DOUBLE)
    differences = torch.stack([(run(SCORES + e) - run(SCORES - e)) / (2 * h) for e in steps], -1)
    backward = torch.func.jacrev(run)(SCORES)
    np.testing.assert_allclose(backward, differences, atol=2e-5)
    np.testing.assert_allclose(backward, backward.T, atol=1e-7)
    np.testing.assert_allclose(backward.sum(1), 0, atol=1e-7)
    np.testing.assert_allclose(torch.func.jacfwd(run)(SCORES), backward, atol=1e-12)


def test_no_quota_is_expected_topk_and_fixed_numbers_factorise():
    """Two identities with expected_topk, which knows no groups."""
    torch.manual_seed(1)
    r, group = torch.randn(60, dtype=DOUBLE), torch.arange(60) % 5
    free = tr.expected_quota_topk(r, 17, groups=group, sigma=0.3)
    np.testing.assert_allclose(free, tr.expected_topk(r, 17, sigma=0.3), atol=1e-7)
    fixed = [2, 5, 0, 12, 3]
    b = tr.expected_quota_topk(r, 22, groups=group, lower=fixed, upper=fixed, sigma=0.3)
    for g, k in enumerate(fixed):
        np.testing.assert_allclose(
            b[group == g], tr.expected_topk(r[group == g], k, sigma=0.3), atol=1e-7
        )


@given(problems(), st.sampled_from([0.05, 1.0, 10.0]))
@settings(max_examples=100, deadline=None)
def test_expectations_of_random_problems(problem, sigma):
    """Σb = K, and the mean of draws; with locks and closed sites; or an error without a plan."""
    n, k, groups, lower, upper, _, lock, scores = problem
    shut = [mark if r > -math.inf else min(mark, -1) for mark, r in zip(lock, scores, strict=True)]
    closed_in = any(mark > 0 and r == -math.inf for mark, r in zip(lock, scores, strict=True))
    parent = [-1] * len(lower)
    feasible = not closed_in and plans(n, k, groups, lower, upper, parent, shut)
    r = torch.tensor(scores, dtype=DOUBLE)
    given_quotas = {
        "groups": whole(groups), "lower": whole(lower), "upper": whole(upper), "lock": whole(lock)
    }  # fmt: skip
    if not feasible:
        with pytest.raises(ValueError, match="quotas must be feasible|locked in must have a score"):
            tr.expected_quota_topk(r, k, **given_quotas, sigma=sigma)
        return
    b = tr.expected_quota_topk(r, k, **given_quotas, sigma=sigma)
    assert b.sum().item() == pytest.approx(k, abs=1e-7)
    torch.manual_seed(0)
    draws = 2000
    mean = tr.quota_topk(r + sigma * torch.randn(draws, n, dtype=DOUBLE), k, **given_quotas).mean(0)
    error = (b * (1 - b) / draws).clamp(min=0).sqrt()
    assert ((mean - b).abs() <= 6 * error + 2e-3).all()
    conditional = tr.perturbed_quota_topk(
        r, k, **given_quotas, sigma=sigma, num_samples=draws, key=torch.tensor([5, 6])
    )
    assert ((conditional - b).abs() <= 6 * error + 2e-3).all()


def test_locked_and_closed_sites_are_certain():
    lock = whole([0, 0, -1, 0, 1, 0, 0, 0])
    scores = SCORES.clone()
    scores[1] = -math.inf
    scores.requires_grad_()
    b = tr.expected_quota_topk(scores, 4, groups=GROUPS, lower=1, sigma=SIGMA, lock=lock)
    assert b[[1, 2]].tolist() == [0, 0] and b[4] == 1  # exactly
    assert b.sum().item() == pytest.approx(4, abs=1e-8)
    # The others: K = 3 of five, at least one of {0, 3} and of {6, 7}, and 5 alone.
    rest = SCORES[[0, 3, 5, 6, 7]]
    same = tr.expected_quota_topk(rest, 3, groups=list("aabcc"), lower=[1, 0, 1], sigma=SIGMA)
    np.testing.assert_allclose(b[[0, 3, 5, 6, 7]].detach(), same, atol=1e-9)
    grad = torch.autograd.grad((b * torch.arange(8)).sum(), scores)[0]
    assert not grad[[1, 2, 4]].any() and grad[[0, 3, 5]].abs().min() > 0


def test_without_noise_it_is_the_mask():
    scores = SCORES.clone().requires_grad_()
    for run in (tr.expected_quota_topk, tr.perturbed_quota_topk):
        b = run(scores, 4, groups=GROUPS, lower=1, sigma=0.0)
        assert b.tolist() == tr.quota_topk(SCORES, 4, groups=GROUPS, lower=1).tolist()
        assert not torch.autograd.grad(b.sum(), scores)[0].any()


# ---- perturbation --------------------------------------------------------------------------------


def test_score_loo_is_its_definition():
    """Plans of the same noise as perturbed_topk's, and the leave-one-out gradient from them."""
    draws = 23
    key = tr.draw_key(torch.Generator().manual_seed(5))
    scores = torch.stack([SCORES, SCORES.flip(0)]).requires_grad_()
    v = torch.randn(2, 8, dtype=DOUBLE)
    b = tr.perturbed_quota_topk(
        scores, 4, groups=GROUPS, lower=1, sigma=SIGMA, num_samples=draws, estimator="score_loo",
        key=key,
    )  # fmt: skip
    z = tr.topk_noise(key, draws, 2, 8).double()
    mask = tr.quota_topk(scores.detach() + SIGMA * z, 4, groups=GROUPS, lower=1)
    np.testing.assert_allclose(b.detach(), mask.mean(0), atol=1e-15)
    reach = (mask * v).sum(-1, keepdim=True)
    expected = ((reach - reach.mean(0)) * z).sum(0) / ((draws - 1) * SIGMA)
    np.testing.assert_allclose(torch.autograd.grad((b * v).sum(), scores)[0], expected, atol=1e-12)


@pytest.mark.parametrize("estimator", ["score_loo", "conditional"])
@pytest.mark.parametrize("lower, upper, k", LIMITS)
def test_perturbation_is_unbiased_for_the_exact_expectation(lower, upper, k, estimator):
    repeats, scores = 400, SCORES.clone().requires_grad_()
    v = torch.tensor([3.0, 1, 2, 0, 4, 1, 0, 2], dtype=DOUBLE)
    exact = tr.expected_quota_topk(scores, k, **bounds(lower, upper), sigma=SIGMA)
    truth = torch.autograd.grad((exact * v).sum(), scores)[0]
    rows = SCORES.expand(repeats, 8).clone().requires_grad_()
    b = tr.perturbed_quota_topk(
        rows, k, **bounds(lower, upper), sigma=SIGMA, num_samples=50, estimator=estimator,
        key=torch.tensor([1, 2]),
    )  # fmt: skip
    grads = torch.autograd.grad((b * v).sum(), rows)[0]
    for found, wanted in ((b.detach(), exact.detach()), (grads, truth)):
        error = found.std(0) / math.sqrt(repeats)
        assert ((found.mean(0) - wanted).abs() <= 5 * error + 1e-7).all()


def test_conditional_has_less_variance():
    rows = SCORES.expand(200, 8).clone().requires_grad_()
    spread = {}
    for estimator in ("score_loo", "conditional"):
        b = tr.perturbed_quota_topk(
            rows, 4, groups=GROUPS, lower=1, sigma=SIGMA, num_samples=20, estimator=estimator,
            key=torch.tensor([3, 4]),
        )  # fmt: skip
        spread[estimator] = torch.autograd.grad(b[:, :3].sum(), rows)[0].var(0).sum()
    assert spread["conditional"] < spread["score_loo"] / 5


@pytest.mark.parametrize("estimator", ["score_loo", "conditional"])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_rows_and_threads_do_not_change_a_bit(estimator, dtype):
    torch.manual_seed(2)
    scores = torch.randn(7, 50, dtype=dtype)
    group, key, v = torch.arange(50) % 6, torch.tensor([7, 8]), torch.randn(7, 50, dtype=dtype)

    def run(part, first, weight):
        part = part.clone().requires_grad_()
        b = tr.perturbed_quota_topk(
            part, 12, groups=group, lower=1, upper=4, sigma=0.2, num_samples=37,
            estimator=estimator, key=key, row_offset=first,
        )  # fmt: skip
        return torch.stack([b.detach(), torch.autograd.grad((b * weight).sum(), part)[0]])

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole_batch = run(scores, 5, v)
        torch.set_num_threads(4)
        again = run(scores, 5, v)
    finally:
        torch.set_num_threads(threads)
    parts = [run(scores[i : i + 2], 5 + i, v[i : i + 2]) for i in range(0, 7, 2)]
    assert torch.equal(whole_batch, again)
    assert torch.equal(whole_batch, torch.cat(parts, 1))


# ---- as operators --------------------------------------------------------------------------------

OPS = torch.ops.topreach
ARGUMENTS = (4, GROUPS, whole([1, 1, 1]), whole([4, 2, 2]))
KEY = torch.tensor([1, 2])


def cases():
    scores = SCORES.clone().requires_grad_()
    parent, lock = whole([-1, 2, -1]), whole([0] * 7 + [1])
    return [
        (OPS.quota_topk, (SCORES, *ARGUMENTS)),
        (OPS.quota_topk, (SCORES, *ARGUMENTS[:3], whole([4, 2, 4]), parent, lock)),
        (OPS.expected_quota_topk, (scores, *ARGUMENTS, 0.2)),
        (OPS.expected_quota_topk, (scores, *ARGUMENTS, 0.2, lock)),
        (OPS.expected_quota_topk_jvp, (SCORES, SCORES, *ARGUMENTS, 0.2)),
        (OPS.perturbed_quota_topk, (scores, *ARGUMENTS, 0.2, 10, "conditional", KEY)),
        (OPS.perturbed_quota_topk, (scores, *ARGUMENTS, 0.2, 10, "score_loo", KEY, 3)),
        (
            OPS.perturbed_quota_topk_backward,
            (SCORES, SCORES, SCORES, *ARGUMENTS, 0.2, 10, "score_loo", KEY, 0),
        ),
    ]


@pytest.mark.parametrize("op, arguments", cases())
def test_opcheck(op, arguments):
    torch.library.opcheck(op, arguments)


def test_vmap_and_forward_mode():
    torch.manual_seed(3)
    rows = torch.randn(3, 8, dtype=DOUBLE)

    def exact(r):
        return tr.expected_quota_topk(r, 4, groups=GROUPS, lower=1, sigma=SIGMA)

    def sampled(r):
        return tr.perturbed_quota_topk(r, 4, groups=GROUPS, lower=1, sigma=SIGMA, key=KEY)

    for run in (exact, sampled):
        np.testing.assert_array_equal(torch.func.vmap(run)(rows), run(rows))
        v = torch.randn(8, dtype=DOUBLE)
        tangent = torch.func.jvp(run, (SCORES,), (v,))[1]
        np.testing.assert_allclose(tangent, torch.func.vjp(run, SCORES)[1](v)[0], atol=1e-12)
    jacobians = torch.func.vmap(torch.func.jacrev(exact))(rows)
    np.testing.assert_allclose(jacobians[1], torch.func.jacrev(exact)(rows[1]), atol=1e-12)
    with pytest.raises(NotImplementedError):
        torch.func.hessian(lambda r: exact(r).square().sum())(SCORES)


def test_autocast_computes_in_float32():
    half = SCORES.to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert tr.quota_topk(half, 4, groups=GROUPS, lower=1).dtype == torch.float32
        assert tr.expected_quota_topk(half, 4, groups=GROUPS, sigma=0.1).dtype == torch.float32
        b = tr.perturbed_quota_topk(half, 4, groups=GROUPS, sigma=0.1)
        assert b.dtype == torch.float32


def test_labels_mappings_and_shares():
    towns = ["x", "x", "x", "y", "y", None, "z", "z"]
    same = [
        tr.quota_topk(SCORES, 5, groups=towns, lower={"y": 2, "z": "20%"}, upper={"x": "40%"}),
        tr.quota_topk(SCORES, 5, groups=towns, lower=[0, 2, 1], upper=[2, None, None]),
        tr.quota_topk(
            SCORES, 5, groups=whole([0, 0, 0, 1, 1, -1, 2, 2]), lower=[0, 2, 1], upper=[2, 9, 9]
        ),
    ]
    assert same[0].tolist() == [1, 1, 0, 1, 1, 0, 1, 0]
    assert all(torch.equal(same[0], other) for other in same[1:])


@pytest.mark.parametrize(
    "arguments, error, match",
    [
        ({"lower": [3, 0, 0]}, ValueError, "got lower bounds that sum to 3 for k=2"),
        ({"lower": [0, 0, 3]}, ValueError, "got at least 3 in group 2 that has 2 sites"),
        ({"upper": [0, 1, 0]}, ValueError, "got only 1 sites that may be chosen for k=2"),
        ({"lower": 2, "upper": 1}, ValueError, "got at least 2 and at most 1 in group 0"),
        ({"upper": 1, "lock": whole([1, 1] + [0] * 6)}, ValueError, "at most 1 in group 0 where 2"),
        ({"lower": -1}, ValueError, "lower must not be negative, got -1"),
        ({"lower": "30"}, ValueError, "lower must be a number of sites or a share such as '30%'"),
        ({"groups": SCORES}, TypeError, "groups must be integers"),
        ({"groups": "aabb"}, TypeError, "groups must be an integer tensor"),
        ({"groups": whole([0, 1])}, ValueError, r"groups must have shape \[S\] = \[8\]"),
        ({"lower": whole([0, 0, 0, 0])}, ValueError, "upper must have shape"),
        ({"lower": {"a": 1}}, TypeError, "got a mapping"),
        ({"lock": whole([2] + [0] * 7)}, ValueError, "lock must be 1"),
        ({"parent": whole([1, 0, -1])}, ValueError, "group 0 that lies within itself"),
        ({"k": 9}, ValueError, "k must be between 0 and S = 8, got 9"),
        ({"k": 2.0}, TypeError, "k must be an integer"),
        ({"scores": SCORES.half()}, TypeError, "scores must be float32 or float64"),
        ({"scores": SCORES * math.nan}, ValueError, "scores must not be NaN"),
        ({"scores": [1.0]}, TypeError, "scores must be a torch.Tensor"),
    ],
)
def test_clear_errors(arguments, error, match):
    given_arguments = {"scores": SCORES, "k": 2, "groups": GROUPS, **arguments}
    with pytest.raises(error, match=match):
        tr.quota_topk(given_arguments.pop("scores"), given_arguments.pop("k"), **given_arguments)


def test_closed_sites_name_the_group_and_the_row():
    scores = SCORES.repeat(3, 1)
    scores[1, 6:] = -math.inf
    for run in (
        lambda: tr.quota_topk(scores, 4, groups=GROUPS, lower=1),
        lambda: tr.perturbed_quota_topk(scores, 4, groups=GROUPS, lower=1, sigma=0.1),
    ):
        with pytest.raises(ValueError, match=r"-inf in row 1, got at least 1 in group 2 that has"):
            run()
    with pytest.raises(ValueError, match="got at least 1 in group 2 that has 0 sites"):
        tr.expected_quota_topk(scores, 4, groups=GROUPS, lower=1, sigma=0.1)


def test_what_has_no_form():
    with pytest.raises(ValueError, match="groups must be disjoint, got nested ones"):
        tr.perturbed_quota_topk(
            SCORES, 4, groups=GROUPS, sigma=0.1, parent=whole([2, -1, -1]), estimator="conditional"
        )
    with pytest.raises(ValueError, match="estimator must be 'score_loo' or 'conditional'"):
        tr.perturbed_quota_topk(SCORES, 4, groups=GROUPS, sigma=0.1, estimator="score")
    with pytest.raises(ValueError, match="sigma must be finite and not negative"):
        tr.expected_quota_topk(SCORES, 4, groups=GROUPS, sigma=-1.0)
