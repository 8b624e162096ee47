"""Forecasts of the networked Hawkes process: its state, moments and simulation by operators."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hawkes_reference import random_case, random_parameters
from scipy import integrate, linalg

ops = torch.ops.topreach


def state_of(case, z):
    """Pools: own records; their state by the operator."""
    pools = [np.flatnonzero(case.node == v) for v in range(case.nodes)]
    start = torch.from_numpy(np.r_[0, np.cumsum([len(p) for p in pools])])
    record = torch.from_numpy(np.concatenate(pools))
    found = ops.hawkes_state(*case.arguments(), torch.from_numpy(z), start, record, True)
    return pools, start, record, found


def test_state_is_the_definition():
    case = random_case(15)
    z = random_parameters(case)
    pools, _, _, (base, excitation, jump, second) = state_of(case, z)
    theta, end = case.theta(4), case.edges[-1]
    jumps = np.array([theta[u, case.node] * case.jump(u, z[u]) for u in range(4)])
    alive = np.exp(-z[:, -1:] * (end - case.time))
    alive[:, case.time > end] = 0
    np.testing.assert_allclose(base, [case.base(u, z[u], 4) for u in range(4)], rtol=1e-12)
    np.testing.assert_allclose(excitation, (jumps * alive).sum(1), rtol=1e-11)
    for v, pool in enumerate(pools):
        # An event at v excites by theta_uv, with the marks of one of its pool.
        np.testing.assert_allclose(jump[:, v], jumps[:, pool].mean(1), rtol=1e-11)
        outer = np.einsum("un,wn->uw", jumps[:, pool], jumps[:, pool]) / len(pool)
        np.testing.assert_allclose(second[v], outer, rtol=1e-11)


def test_moments_of_one_node_are_the_closed_forms():
    """S -> alpha mu / (delta - alpha); lambda_bar = gamma / (1 - n); Var N / t -> lambda_bar /
    (1 - n)^2 [Hawkes 1971]."""
    mu, decay, alpha, start = 2.0, 1.5, 0.9, 0.4
    tensors = [torch.tensor([v], dtype=torch.float64) for v in (decay, start)]
    jump = torch.tensor([[alpha]], dtype=torch.float64)
    edges = torch.tensor([0.0, 0.5, 2.0, 40.0, 60.0], dtype=torch.float64)
    base = torch.full((4, 1), mu, dtype=torch.float64)
    mean, variance = ops.hawkes_moments(base, *tensors, jump, None, edges, True, True)
    kappa, limit = decay - alpha, alpha * mu / (decay - alpha)
    t = edges[1:].numpy()
    expected = (mu + limit) * t + (start - limit) * -np.expm1(-kappa * t) / kappa
    np.testing.assert_allclose(mean[:, 0], expected, rtol=1e-11)
    n = alpha / decay
    growth = (mean[3] - mean[2]) / 20
    assert float(growth) == pytest.approx(mu / (1 - n), rel=1e-8)
    slope = float((variance[3] - variance[2]).squeeze() / 20)
    assert slope == pytest.approx(mu / (1 - n) ** 3, rel=1e-6)
    # Without excitation the counts are Poisson.
    none = ops.hawkes_moments(base, tensors[0], 0 * tensors[1], 0 * jump, None, edges, True, False)
    length = np.diff(edges)
    np.testing.assert_allclose(none[0][:, 0], mu * length, rtol=1e-12)
    np.testing.assert_allclose(none[1][:, 0, 0], mu * length, rtol=1e-10)


@pytest.mark.parametrize("cumulative", [True, False])
def test_moments_are_the_differential_equations(cumulative):
    """Against an integrator of another library; the base rate changes between periods."""
    case = random_case(16)
    z = random_parameters(case)
    base, s, jump, second = state_of(case, z)[3]
    decay = torch.from_numpy(z[:, -1].copy())
    edges = torch.tensor([0.0, 0.7, 1.5, 4.0], dtype=torch.float64)
    rates = base * torch.tensor([[1.0], [2.0], [0.5]], dtype=torch.float64)
    mean, covariance = ops.hawkes_moments(rates, decay, s, jump, second, edges, True, cumulative)
    m = 4
    flow = np.block(
        [[jump.numpy() - np.diag(decay), np.zeros((m, m))], [np.eye(m), np.zeros((m, m))]]
    )
    jumps = np.zeros((m, 2 * m, 2 * m))
    for v in range(m):
        jumps[v, :m, :m] = second[v]
        jumps[v, :m, m + v] = jumps[v, m + v, :m] = jump[:, v]
        jumps[v, m + v, m + v] = 1

    def change(_, x, mu):
        x, v = x[: 2 * m], x[2 * m :].reshape(2 * m, 2 * m)
        dx = flow @ x + np.r_[jump.numpy() @ mu, mu]
        dv = flow @ v + v @ flow.T + np.tensordot(mu + x[:m], jumps, 1)
        return np.r_[dx, dv.ravel()]

    x = np.r_[s, np.zeros(m + 4 * m * m)]
    for h in range(3):
        if not cumulative:  # counts begin anew; what is known of S stays uncertain
            x[m : 2 * m] = 0
            v = x[2 * m :].reshape(2 * m, 2 * m)
            v[m:], v[:, m:] = 0, 0
        span = (float(edges[h]), float(edges[h + 1]))
        solved = integrate.solve_ivp(
            change, span, x, args=(rates[h].numpy(),), rtol=1e-10, atol=1e-12
        )
        x = solved.y[:, -1]
        np.testing.assert_allclose(mean[h], x[m : 2 * m], rtol=1e-7)
        expected = x[2 * m :].reshape(2 * m, 2 * m)[m:, m:]
        np.testing.assert_allclose(covariance[h], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("mode, paths", [("branching", 20_000), ("thinning", 6_000)])
def test_simulation_has_these_moments(mode, paths):
    """Within 4 standard errors; correlations within 4 / sqrt(paths), a little more for skewness."""
    case = random_case(17)
    z = random_parameters(case)
    _, start, record, (base, s, jump, second) = state_of(case, z)
    edges = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)
    rates = base * torch.tensor([[1.0], [1.7]], dtype=torch.float64)
    decay = torch.from_numpy(z[:, -1].copy())
    mean, covariance = ops.hawkes_moments(rates, decay, s, jump, second, edges, True, False)
    counts, failed = ops.hawkes_simulate(
        *case.arguments(),
        torch.from_numpy(z)[None],
        s[None],
        rates[None],
        edges,
        start,
        record,
        paths,
        mode,
        100_000,
        torch.tensor([3, 4]),
    )
    assert not failed.any()
    x = counts.double()
    sd = covariance.diagonal(dim1=1, dim2=2).sqrt()
    assert float(((x.mean(0) - mean).abs() / (sd / paths**0.5)).max()) < 4
    for h in range(2):
        found = torch.cov(x[:, h].T)
        apart = (found - covariance[h]).abs() / (sd[h][:, None] * sd[h])
        assert float(apart.max()) < 10 / paths**0.5


def test_paper_mode_has_its_closed_mean():
    """Algorithm 1: L = Poisson(mu A + S E_0(A)), all at the period's end: what is born within a
    period has no children there."""
    mu, decay, alpha, s0, paths = 6.0, 8.0, 5.6, 14.0, 20_000
    case = random_case(18, kind="none")
    one = case.changed(
        time=np.array([0.5]), node=np.array([0]), marks=np.zeros((1, 0)), edges=np.array([0.0, 1]),
        weights=np.ones(1), covariates=np.zeros((1, 1, 0)), distance=np.zeros((1, 1)),
        refresh=np.array([0]), together=np.ones((1, 1, 1, 1)), events=np.ones((1, 1)),
    )  # fmt: skip
    z = torch.tensor([[[np.log(mu), np.log(alpha), 0.0, decay]]], dtype=torch.float64)
    edges = torch.arange(5.0, dtype=torch.float64)
    counts, _ = ops.hawkes_simulate(
        *one.arguments(), z, torch.tensor([[s0]], dtype=torch.float64),
        torch.full((1, 4, 1), mu, dtype=torch.float64), edges, torch.tensor([0, 1]),
        torch.tensor([0]), paths, "paper", 10_000, torch.tensor([1, 2]),
    )  # fmt: skip
    expected, s = [], s0
    for _ in range(4):
        expected.append(mu + s * -np.expm1(-decay) / decay)
        s = s * np.exp(-decay) + alpha * expected[-1]
    x = counts[:, :, 0].double()
    error = (x.mean(0) - torch.tensor(expected)).abs() / (x.std(0) / paths**0.5)
    assert float(error.max()) < 4
    # The truth is 20 a month from the start.
    assert expected[0] == pytest.approx(7.75, abs=0.01)


def test_draws_depend_on_key_and_path_alone():
    case = random_case(19)
    z = random_parameters(case)
    _, start, record, (base, s, *_) = state_of(case, z)
    edges = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def simulate(paths, key, mode="branching"):
        return ops.hawkes_simulate(
            *case.arguments(), torch.from_numpy(z)[None], s[None], base[None, None], edges, start,
            record, paths, mode, 10_000, torch.tensor(key),
        )[0]  # fmt: skip

    many = simulate(50, [7, 8])
    assert torch.equal(many, simulate(50, [7, 8]))
    assert torch.equal(many[:20], simulate(20, [7, 8]))
    assert not torch.equal(many, simulate(50, [7, 9]))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert torch.equal(many, simulate(50, [7, 8]))
    torch.set_num_threads(threads)


def test_anchored_dynamics_relax_to_the_recent_rate():
    """(B r)_u <= .8 r_u, base = (I - B) r: the long-run rate is r."""
    draw = torch.Generator().manual_seed(0)
    decay = 1 + torch.rand(5, generator=draw, dtype=torch.float64)
    jump = torch.rand(5, 5, generator=draw, dtype=torch.float64)
    jump[0] *= 0.01  # this one needs no scaling
    rate = 0.5 + torch.rand(5, generator=draw, dtype=torch.float64)
    base, factor = ops.hawkes_anchor(decay, jump, rate)
    b = factor[:, None] * jump / decay[:, None]
    assert float(factor.max()) <= 1 and float(factor[0]) == 1
    assert bool((b @ rate <= 0.8 * rate * (1 + 1e-12)).all())
    torch.testing.assert_close(base, rate - b @ rate)
    edges = torch.tensor([0.0, 200.0, 201.0], dtype=torch.float64)
    mean, _ = ops.hawkes_moments(
        base.expand(2, -1), decay, 3 * rate, factor[:, None] * jump, None, edges, False, False
    )
    torch.testing.assert_close(mean[1], rate, rtol=1e-8, atol=0)


def test_theorem_4_1_of_forecasts():
    """Excitation that differs by dS gives rates that differ by e^((K - D) tau) dS: this is slower
    than the decay, and grows where each event has more than one child."""
    decay = torch.tensor([1.0, 2.0], dtype=torch.float64)
    base = torch.tensor([[0.3, 0.2]] * 2, dtype=torch.float64)
    change = torch.tensor([0.5, 0.0], dtype=torch.float64)
    for scale, fades in ((0.5, True), (1.5, False)):
        jump = scale * torch.tensor([[0.6, 0.4], [0.8, 1.2]], dtype=torch.float64)
        gaps = []
        for tau in (1.0, 6.0):
            edges = torch.tensor([0.0, tau, tau + 1e-4], dtype=torch.float64)
            means = [
                ops.hawkes_moments(base, decay, s, jump, None, edges, False, False)[0][1]
                for s in (change, 0 * change)
            ]
            gap = ((means[0] - means[1]) / 1e-4).numpy()
            flow = linalg.expm((tau + 5e-5) * (jump.numpy() - np.diag(decay)))
            np.testing.assert_allclose(gap, flow @ change.numpy(), rtol=1e-6)
            assert gap[0] > 0.5 * np.exp(-tau)
            gaps.append(gap.sum())
        assert (gaps[1] < gaps[0]) == fades
