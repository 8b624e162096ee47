"""Operators of the networked Hawkes process against its definition [STEMMED Eq. 4-8]."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hawkes_reference import Case, random_case, random_parameters

ops = torch.ops.topreach


def derivatives(case: Case, nodes, z, order=2):
    """The operator's results as NumPy arrays: value, gradient, Hessian, first bad event."""
    found = ops.hawkes_derivatives(
        *case.arguments(), torch.as_tensor(nodes), torch.as_tensor(z), order
    )
    return [part.numpy() for part in found]


def slopes(function, z, step=1e-5):
    """Central differences of a function of one node's parameters."""
    rows = []
    for a in range(len(z)):
        high, low = z.copy(), z.copy()
        high[a] += step
        low[a] -= step
        rows.append((np.asarray(function(high)) - np.asarray(function(low))) / (2 * step))
    return np.array(rows)


@pytest.mark.parametrize("kind", ["jaccard", "share", "none"])
@pytest.mark.parametrize("seed", [0, 1])
def test_value_is_the_double_sum(kind, seed):
    case = random_case(seed, kind=kind)
    z = random_parameters(case)
    value, *_, failed = derivatives(case, np.arange(4), z, 0)
    expected = [case.log_likelihood(u, z[u]) for u in range(4)]
    # theta's counts are float32 whole numbers: exact.
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12)
    assert (failed == -1).all()


def test_compensator_is_the_quadrature_of_the_intensity():
    case = random_case(2)
    z = random_parameters(case)
    for u in (0, 3):
        own = sum(
            case.weights[case.block(t)] * np.log(case.intensity(u, z[u], t)) for t in case.own(u)
        )
        value = derivatives(case, [u], z[[u]], 0)[0][0]
        assert own - value == pytest.approx(case.quadrature(u, z[u]), rel=1e-9)


@pytest.mark.parametrize("kind", ["jaccard", "share"])
def test_gradient_and_hessian_are_differences(kind):
    case = random_case(3, kind=kind)
    z = random_parameters(case)
    _, gradient, hessian, _ = derivatives(case, np.arange(4), z)
    for u in range(4):
        expected = slopes(lambda at, u=u: case.log_likelihood(u, at), z[u])
        np.testing.assert_allclose(gradient[u], expected, rtol=1e-6, atol=1e-6)
        expected = slopes(lambda at, u=u: derivatives(case, [u], at[None], 1)[1][0], z[u])
        np.testing.assert_allclose(hessian[u], expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(hessian, hessian.transpose(0, 2, 1), rtol=1e-12)


def test_derivatives_for_working_coordinates():
    case = random_case(4)
    z = torch.from_numpy(random_parameters(case))
    w = ops.hawkes_working(z, 2)
    torch.testing.assert_close(ops.hawkes_natural(w, 2), z, rtol=1e-12, atol=1e-12)
    alpha, decay = z[:, 3].exp(), z[:, -1]
    torch.testing.assert_close(w[:, 3], (alpha / decay).log())
    torch.testing.assert_close(torch.nn.functional.softplus(w[:, 4]), z[:, 4])
    torch.testing.assert_close(w[:, -1], decay.log())

    def at(u, working):
        natural = ops.hawkes_natural(torch.from_numpy(working)[None], 2)
        _, g, h, _ = ops.hawkes_derivatives(*case.arguments(), torch.tensor([u]), natural, 2)
        return ops.hawkes_chain(torch.from_numpy(working)[None], g, h, 2)

    for u in range(4):
        start = w[u].numpy()

        def value(working, u=u):
            natural = ops.hawkes_natural(torch.from_numpy(working)[None], 2)
            return case.log_likelihood(u, natural[0].numpy())

        gradient, hessian = at(u, start)
        np.testing.assert_allclose(gradient[0], slopes(value, start), rtol=1e-6, atol=1e-6)
        expected = slopes(lambda v, u=u: at(u, v)[0][0].numpy(), start)
        np.testing.assert_allclose(hessian[0], expected, rtol=1e-6, atol=1e-6)


def test_ticks_published_value():
    """tick's own test: decay 2, mu (1, 3), adjacency [[2, 3], [4, 1]], T = 4.25; its loss is
    (-l - M T) / n. tick's kernel is alpha delta e^(-delta t)."""
    time = np.array([0.31, 0.93, 1.29, 2.32, 4.25, 0.12, 1.19, 2.12, 2.41, 3.35, 4.21])
    node = np.repeat([0, 1], [5, 6])
    order = np.argsort(time)
    adjacency = torch.tensor([[2.0, 3.0], [4.0, 1.0]])
    table = adjacency[None, :, :, None]
    found = ops.hawkes_log_likelihood(
        torch.from_numpy(time[order]),
        torch.from_numpy(node[order]),
        torch.zeros(11, 0, dtype=torch.float64),
        torch.tensor([0.0, 4.25], dtype=torch.float64),
        torch.ones(1, dtype=torch.float64),
        torch.zeros(1, 2, 0, dtype=torch.float64),
        torch.zeros(1, 1, dtype=torch.float64),
        torch.zeros(1, dtype=torch.int64),
        table,
        torch.ones_like(table),
        torch.zeros(1, 2, 2, dtype=torch.float64),
        0.0,
        torch.tensor([0, 1]),
        torch.tensor(
            [[0.0, np.log(2.0), 0.0, 2.0], [np.log(3.0), np.log(2.0), 0.0, 2.0]],
            dtype=torch.float64,
        ),
    )
    assert (-found.sum() - 2 * 4.25) / 11 == pytest.approx(2.9434509731246283, abs=1e-12)


# decay: baseline, adjacency, log-likelihood. tick 0.8.0.2,
# ModelHawkesExpKernLogLik on the events below, minimised over both by SciPy's BFGS; its loss is
# (-l - T) / n. The last decay is the likeliest.
TICKS_FITS = {
    0.9: (0.68494777, 0.57067707, -208.06470506),
    1.3: (0.76573029, 0.51957156, -206.77467043),
    2.0: (0.87812310, 0.44889566, -208.32155105),
    1.3060138: (0.76684746, 0.51886753, -206.77447545),
}


def one_nodes_events():
    """478 events of one node over 300 days: .8 a day, .5 children each, decay 1.3."""
    draw = np.random.default_rng(2)
    events = list(draw.uniform(0, 300.0, draw.poisson(0.8 * 300.0)))
    parents = list(events)
    while parents:
        children = []
        for t in parents:
            for lag in draw.exponential(1 / 1.3, draw.poisson(0.5)):
                if t + lag < 300.0:
                    children.append(t + lag)
        events += children
        parents = children
    return np.sort(events)


@pytest.mark.parametrize("decay", list(TICKS_FITS))
def test_ticks_fit_is_the_maximum_here(decay):
    """The value there is tick's, the slope is 0, and the curvature makes it a maximum."""
    baseline, adjacency, log_likelihood = TICKS_FITS[decay]
    time = torch.from_numpy(one_nodes_events())
    assert len(time) == 478
    one = torch.ones(1, 1, 1, 1)
    arguments = (
        time,
        torch.zeros(478, dtype=torch.int64),
        torch.zeros(478, 0, dtype=torch.float64),
        torch.tensor([0.0, 300.0], dtype=torch.float64),
        torch.ones(1, dtype=torch.float64),
        torch.zeros(1, 1, 0, dtype=torch.float64),
        torch.zeros(1, 1, dtype=torch.float64),
        torch.zeros(1, dtype=torch.int64),
        one,
        one,
        torch.zeros(1, 1, 1, dtype=torch.float64),
        0.0,
        torch.tensor([0]),
    )
    z = [np.log(baseline), np.log(adjacency * decay), 0.0, decay]
    at = torch.tensor([z], dtype=torch.float64)
    value, gradient, hessian, _ = ops.hawkes_derivatives(*arguments, at, 2)
    assert value.item() == pytest.approx(log_likelihood, abs=1e-7)
    assert gradient[0, :2].abs().max() < 2e-5
    assert torch.linalg.eigvalsh(hessian[0, :2, :2]).max() < -10
    if decay == max(TICKS_FITS, key=lambda d: TICKS_FITS[d][2]):
        # log(alpha) = log(adjacency) + log(decay): the slope in the decay at a fixed adjacency.
        assert abs((gradient[0, 3] + gradient[0, 1] / decay).item()) < 1e-4


# ---- invariants ----------------------------------------------------------------------------------


def test_a_batch_is_its_items_bit_for_bit():
    case = random_case(5)
    z = random_parameters(case)
    nodes = [2, 0, 3, 1, 2, 2]
    together = derivatives(case, nodes, z[nodes])
    for r, u in enumerate(nodes):
        for many, one in zip(together, derivatives(case, [u], z[[u]]), strict=True):
            assert np.array_equal(many[r], one[0])


def test_order_leaves_the_value_alone():
    case = random_case(5)
    z = random_parameters(case)
    found = [derivatives(case, np.arange(4), z, order) for order in (0, 1, 2)]
    for other in found[:2]:
        np.testing.assert_allclose(other[0], found[2][0], rtol=1e-13)
    np.testing.assert_allclose(found[1][1], found[2][1], rtol=1e-11, atol=1e-12)
    assert found[0][1].size == found[0][2].size == found[1][2].size == 0


def test_the_order_of_ties_does_not_matter():
    case = random_case(6)
    tied = np.flatnonzero(case.time == case.time[21])
    assert len(tied) >= 3 or len(np.unique(case.time)) < len(case.time)
    order = np.arange(len(case.time))
    same = np.flatnonzero(np.isclose(case.time, case.time[np.diff(case.time).argmin()]))
    order[same] = order[same][::-1]
    other = case.changed(node=case.node[order], marks=case.marks[order])
    z = random_parameters(case)
    for a, b in zip(
        derivatives(case, np.arange(4), z), derivatives(other, np.arange(4), z), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_a_block_cut_in_two_is_the_same():
    case = random_case(7)
    cut = 0.5 * (case.edges[2] + case.edges[3])
    other = case.changed(
        edges=np.insert(case.edges, 3, cut),
        weights=np.insert(case.weights, 2, case.weights[2]),
        covariates=np.insert(case.covariates, 2, case.covariates[2], axis=0),
        refresh=np.insert(case.refresh, 2, case.refresh[2]),
    )
    z = random_parameters(case)
    for a, b in zip(
        derivatives(case, np.arange(4), z), derivatives(other, np.arange(4), z), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_time_in_other_units():
    """t -> 3 t: gamma, alpha, delta_k / 3 and l - n log 3, with weights 1."""
    case = random_case(8)
    case = case.changed(weights=np.ones(5))
    other = case.changed(time=case.time * 3, edges=case.edges * 3)
    z = random_parameters(case)
    slow = z.copy()
    slow[:, [0, 3]] -= np.log(3)
    slow[:, -1] /= 3
    own = np.array([len(case.own(u)) for u in range(4)])
    a, b = (derivatives(c, np.arange(4), p, 0)[0] for c, p in ((case, z), (other, slow)))
    np.testing.assert_allclose(b, a - own * np.log(3), rtol=1e-12)


def test_without_excitation_it_is_poisson_regression():
    case = random_case(9)
    case = case.changed(weights=np.ones(5))
    z = random_parameters(case)
    z[:, 3] = -800.0
    value = derivatives(case, np.arange(4), z, 0)[0]
    for u in range(4):
        eta = z[u, 0] + case.covariates[:, u] @ z[u, 1:3]
        count = np.bincount(case.block(case.own(u)), minlength=5)
        expected = count @ eta - np.exp(eta) @ np.diff(case.edges)
        assert value[u] == pytest.approx(expected, rel=1e-12)


def test_nodes_without_events_and_an_empty_table():
    case = random_case(10)
    z = random_parameters(case)
    few = case.changed(node=np.where(case.node == 2, 1, case.node))
    assert derivatives(few, [2], z[[2]], 0)[0][0] == pytest.approx(few.log_likelihood(2, z[2]))
    none = case.changed(time=case.time[:0], node=case.node[:0], marks=case.marks[:0])
    value, gradient, hessian, _ = derivatives(none, [1], z[[1]])
    assert value[0] == pytest.approx(none.log_likelihood(1, z[1]), rel=1e-12)
    assert (gradient[0, 3:] == 0).all() and (hessian[0, 3:, 3:] == 0).all()


def test_theorem_4_1():
    """Records that one agency does not see take their own terms from its intensity, exactly; with
    distance they count for e^(-delta_g dist) less, with time for e^(-delta_k tau) less."""
    case = random_case(11)
    z = random_parameters(case)
    seen = np.ones(len(case.time), bool)
    lost = np.flatnonzero(case.time < case.edges[-1])[[-9, -4]]
    seen[lost] = False
    less = case.changed(time=case.time[seen], node=case.node[seen], marks=case.marks[seen])
    pool_start = torch.arange(5)
    base = [
        ops.hawkes_state(*c.arguments(), torch.from_numpy(z), pool_start, torch.arange(4), False)
        for c in (case, less)
    ]
    end = case.edges[-1]
    theta = case.theta(4)
    term = np.zeros(4)
    for u in range(4):
        alive = np.exp(-z[u, -1] * (end - case.time[lost]))
        term[u] = (theta[u, case.node[lost]] * case.jump(u, z[u])[lost] * alive).sum()
    np.testing.assert_allclose(base[0][1] - base[1][1], term, rtol=1e-9, atol=1e-14)

    # As the distance to the place of the lost records grows, the difference falls by the factor.
    far = case.changed(node=np.where(case.node >= 2, case.node, case.node))
    gap = []
    lost_node = case.node[lost[0]]
    u = 3 - lost_node  # at the other place
    for apart in (0.2, 0.9):
        moved = far.changed(distance=np.array([[0.0, apart], [apart, 0.0]]))
        one = np.delete(np.arange(len(far.time)), lost[0])
        short = moved.changed(time=far.time[one], node=far.node[one], marks=far.marks[one])
        rates = [
            ops.hawkes_state(
                *c.arguments(), torch.from_numpy(z), pool_start, torch.arange(4), False
            )
            for c in (moved, short)
        ]
        gap.append(float((rates[0][1] - rates[1][1])[u]))
    assert gap[1] / gap[0] == pytest.approx(np.exp(-z[u, 4] * 0.7), rel=1e-7)


# ---- autograd ------------------------------------------------------------------------------------


def test_autograd_is_the_gradient():
    case = random_case(12)
    z = torch.from_numpy(random_parameters(case)).requires_grad_()
    nodes = torch.arange(4)
    value = ops.hawkes_log_likelihood(*case.arguments(), nodes, z)
    (found,) = torch.autograd.grad((value * torch.tensor([1.0, 2.0, -1.0, 0.5])).sum(), z)
    gradient = derivatives(case, nodes.numpy(), z.detach().numpy(), 1)[1]
    np.testing.assert_allclose(
        found, gradient * np.array([[1.0], [2.0], [-1.0], [0.5]]), rtol=1e-12
    )
    assert torch.autograd.gradcheck(
        lambda p: ops.hawkes_log_likelihood(*case.arguments(), nodes, p), z
    )


def test_opcheck():
    case = random_case(13)
    nodes = torch.tensor([0, 2])
    z = torch.from_numpy(random_parameters(case)[[0, 2]])
    torch.library.opcheck(ops.hawkes_derivatives.default, (*case.arguments(), nodes, z, 2))
    given = (*case.arguments(), nodes, z.requires_grad_())
    torch.library.opcheck(ops.hawkes_log_likelihood.default, given)
    torch.library.opcheck(ops.hawkes_log_likelihood_gradient.default, (*given[:-1], z.detach()))


def test_the_log_likelihood_is_differentiated_twice_and_forward():
    """By autograd: gradients and second derivatives are those of finite differences, torch.func's
    Hessian that of the kernels; a third derivative is refused, not wrong."""
    case = random_case(13)
    arguments, nodes = case.arguments(), torch.tensor([0, 2])
    z = torch.from_numpy(random_parameters(case)[[0, 2]])

    def value(at):
        return ops.hawkes_log_likelihood(*arguments, nodes, at)

    leaf = z.clone().requires_grad_()
    assert torch.autograd.gradcheck(value, (leaf,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda at: value(at).square(), (leaf,), atol=1e-4)
    hessian = ops.hawkes_derivatives(*arguments, nodes, z, 2)[2]
    blocks = torch.func.hessian(lambda at: value(at).sum())(z)
    for item in range(2):
        torch.testing.assert_close(blocks[item, :, item], hessian[item], rtol=1e-12, atol=1e-12)
    (first,) = torch.autograd.grad(value(leaf).square().sum(), leaf, create_graph=True)
    with pytest.raises(ValueError, match="must be differentiated twice at most"):
        torch.autograd.grad(first.sum(), leaf, create_graph=True)


# ---- the course and the network ------------------------------------------------------------------


def test_course_is_the_definition():
    case = random_case(14)
    z = random_parameters(case)
    start, rate, base, compensator, total, block_base = (
        part.numpy()
        for part in ops.hawkes_course(*case.arguments(), torch.arange(4), torch.from_numpy(z))
    )
    for u in range(4):
        mine = slice(start[u], start[u + 1])
        own = case.own(u)
        assert start[u + 1] - start[u] == len(own)
        blocks = case.block(own)
        expected = [case.intensity(u, z[u], t) for t in own]
        np.testing.assert_allclose(rate[mine], expected, rtol=1e-11)
        np.testing.assert_allclose(base[mine], [case.base(u, z[u], k) for k in blocks], rtol=1e-12)
        parts = [case.integral(u, z[u], case.edges[k], case.edges[k + 1], k) for k in range(5)]
        np.testing.assert_allclose(total[u], parts, rtol=1e-11)
        np.testing.assert_allclose(
            block_base[u],
            [case.base(u, z[u], k) * (case.edges[k + 1] - case.edges[k]) for k in range(5)],
            rtol=1e-12,
        )
        expected = [
            sum(parts[:k]) + case.integral(u, z[u], case.edges[k], t, k)
            for t, k in zip(own, blocks, strict=True)
        ]
        np.testing.assert_allclose(compensator[mine], expected, rtol=1e-10)


@pytest.mark.parametrize("kind", ["jaccard", "share"])
def test_network_is_the_formula(kind):
    case = random_case(20, kind=kind)
    tables = ops.hawkes_network(
        torch.from_numpy(case.together), torch.from_numpy(case.events), kind
    )
    for k, r in ((0, 0), (2, 1), (4, 2)):
        theta = ops.hawkes_theta(*tables, 5.0, r)
        np.testing.assert_allclose(theta, case.theta(k), rtol=1e-12)
        np.testing.assert_allclose(theta, theta.T, rtol=1e-12)
    if kind == "jaccard":
        np.testing.assert_allclose(theta.diagonal(), 1.0)
    nothing = [torch.zeros_like(torch.from_numpy(a)) for a in (case.together, case.events)]
    theta = ops.hawkes_theta(*ops.hawkes_network(*nothing, kind), 5.0, 0)
    np.testing.assert_allclose(theta, np.kron(np.ones((2, 2)), np.eye(2)))


# ---- errors --------------------------------------------------------------------------------------


def swapped(position, value):
    def change(arguments):
        arguments[position] = value(arguments[position]) if callable(value) else value
        return arguments

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (swapped(0, lambda t: t.flip(0)), "time must be finite and ascend, got a later one"),
        (swapped(0, lambda t: t * float("nan")), "time must be finite .* not finite"),
        (swapped(0, lambda t: t[:-1]), r"marks must have shape \[N, q\] with N = 59"),
        (swapped(1, lambda n: n[:-1]), r"node must have shape \[N\] = \[60\], got \[59\]"),
        (swapped(1, lambda n: n + 3), "node must lie from 0 to M - 1 = 3, got 6"),
        (swapped(1, lambda n: n - 1), "node must lie from 0 to M - 1 = 3, got -1"),
        (swapped(2, lambda m: m / 0), "marks and covariates must be finite"),
        (swapped(3, lambda e: e[:1]), "edges must be at least two, got 1"),
        (swapped(3, lambda e: e * 0), "edges must be finite and ascend"),
        (swapped(4, lambda w: w[:-1]), r"weights must have shape \[B\] = \[5\]"),
        (swapped(4, lambda w: -w), "weights finite and >= 0"),
        (swapped(5, lambda y: y[:, :3]), r"covariates must have shape \[B, M, p\]"),
        (swapped(6, lambda d: d[:, :1]), r"distance must have shape \[I, I\]"),
        (swapped(6, lambda d: -d), "distance and weights finite and >= 0"),
        (swapped(7, lambda r: r.flip(0)), "refresh must ascend from 0"),
        (
            swapped(8, lambda j: j[:1]),
            r"joint and either must have shape \[Q, S, S, I\] with Q >= 3",
        ),
        (swapped(9, None), "joint, either and prior must be given together"),
        (swapped(12, lambda u: u + 1), "item_node must lie from 0 to M - 1 = 3, got 4"),
        (swapped(13, lambda z: z[:, 1:]), r"parameters must have shape \[R, p \+ q \+ 4\]"),
        (swapped(14, 3), "order must be 0, 1 or 2, got 3"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    case = random_case(21)
    z = torch.from_numpy(random_parameters(case))
    arguments = change([*case.arguments(), torch.arange(4), z, 2])
    with pytest.raises(ValueError, match=f"hawkes_log_likelihood: .*{message}"):
        ops.hawkes_derivatives(*arguments)


def test_a_rate_that_is_not_positive_is_a_named_error():
    case = random_case(22)
    z = random_parameters(case)
    z[:, 0] = -np.inf
    z[:, 3] = -np.inf
    value, _, _, failed = derivatives(case, [1], z[[1]], 0)
    first = np.flatnonzero((case.node == 1) & (case.time > 0))[0]
    assert not np.isfinite(value[0]) and failed[0] == first
    with pytest.raises(
        ValueError, match=f"rate above 0 at every event, .* node 1 at event {first}"
    ):
        ops.hawkes_log_likelihood(*case.arguments(), torch.tensor([1]), torch.from_numpy(z[[1]]))
