"""Programs solved by search, as the ranker and the objectives take them."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import torch

import topreach as tr

nx = pytest.importorskip("networkx")
needs_highs = pytest.mark.skipif(not tr.plan.has_highs(), reason="HiGHS is not installed")
N = 8
GRAPH = nx.gnp_random_graph(N, 0.35, seed=2)
NETWORK = tr.Graph.from_networkx(GRAPH)
COMES = np.linspace(0.3, 1.0, N)
MAKERS = {
    "Budget": lambda: tr.programs.Budget(6.0, [1, 2, 3, 1, 2, 3, 1, 2], gap=0.0),
    "Spaced": lambda: tr.programs.Spaced(3, [0, 1, 2, 3, 0, 1, 2, 3], [0] * 4 + [1] * 4, 1.2,
                                         gap=0.0),
    "Connected": lambda: tr.programs.Connected(3, NETWORK, gap=0.0),
    "Coverage": lambda: tr.programs.Coverage(3, NETWORK, gap=0.0),
    "Spillover": lambda: tr.programs.Spillover(3, NETWORK, 0.8, 0.3, COMES, gap=0.0),
    "CallIn": lambda: tr.programs.CallIn(3, NETWORK, COMES, 0.5, gap=0.0),
}  # fmt: skip


def allowed(name, plan):
    if name == "Budget":
        return sum([1, 2, 3, 1, 2, 3, 1, 2][i] for i in plan) <= 6
    if name == "Spaced":
        places = [(i % 4, i // 4) for i in plan]
        return len(plan) == 3 and all(
            np.hypot(a[0] - b[0], a[1] - b[1]) >= 1.2 for a, b in itertools.combinations(places, 2)
        )
    if name == "Connected":
        return len(plan) == 3 and nx.is_connected(GRAPH.subgraph(plan))
    return len(plan) == 3


def worth(name, plan, y):
    """f(y, plan), from its definition."""
    if name in ("Budget", "Spaced", "Connected"):
        return y[plan].sum()
    near = nx.to_numpy_array(GRAPH, nodelist=range(N))
    if name == "Coverage":
        return y[(near + np.eye(N))[:, plan].any(axis=1)].sum()
    if name == "CallIn":
        q = near * (0.5 * COMES)[None] + np.diag(COMES)
        return (y * (1 - np.prod(1 - q[:, plan], axis=1))).sum()
    q = (near + np.eye(N)) * COMES[None]
    return (0.5 * COMES * y)[plan].sum() + (0.3 * y * (1 - np.prod(1 - q[:, plan], axis=1))).sum()


@needs_highs
@pytest.mark.parametrize("name", MAKERS)
def test_best_solve_and_reach_against_all_plans(name):
    program = MAKERS[name]()
    plans = [
        list(p) for k in range(N + 1) for p in itertools.combinations(range(N), k)
        if allowed(name, list(p))
    ]  # fmt: skip
    for seed in range(5):
        y = np.random.default_rng(seed).gamma(1.0, 2.0, N)
        most = max(worth(name, p, y) for p in plans)
        values = torch.tensor(y)
        solution = program.solve(values)
        chosen = solution.plan.nonzero().flatten().tolist()
        assert allowed(name, chosen) and worth(name, chosen, y) == pytest.approx(most)
        assert solution.value == pytest.approx(most) and solution.status == "optimal"
        assert solution.bound >= solution.value - 1e-9
        for plan in plans[:: max(1, len(plans) // 7)]:
            mask = torch.zeros(N, dtype=torch.float64)
            mask[plan] = 1
            reach = float(program.reach(mask, values))
            assert reach == pytest.approx(worth(name, plan, y), rel=1e-12)
        assert float(program.best_reach(values)) == pytest.approx(most)
        assert float(program.bpr(values, values)) == pytest.approx(1)


@pytest.mark.parametrize("name", ["Coverage", "Spillover", "CallIn"])
def test_reach_of_a_fractional_plan_is_its_expectation(name):
    program = MAKERS[name]()
    y = np.random.default_rng(1).gamma(1.0, 2.0, N)
    share = torch.linspace(0.0, 1.0, N, dtype=torch.float64, requires_grad=True)
    p = share.detach().numpy()
    expected = sum(
        np.prod(np.where(np.isin(range(N), plan), p, 1 - p)) * worth(name, list(plan), y)
        for k in range(N + 1)
        for plan in itertools.combinations(range(N), k)
    )
    assert program.reach(share, torch.tensor(y)).item() == pytest.approx(expected)
    inside = (share.detach() * 0.9 + 0.05).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: program.reach(s, torch.tensor(y)), (inside,))


@needs_highs
@pytest.mark.parametrize("name", MAKERS)
def test_arguments_give_the_program_back(name):
    program = MAKERS[name]()
    again = tr._C.make_program(program.name(), program.config())
    values = torch.arange(N, dtype=torch.float64) % 5
    assert program.name() == name and torch.equal(again.best(values), program.best(values))
    with pytest.raises(ValueError, match="must be of S = 5 sites, got one of 8"):
        program.best(torch.zeros(5))


@needs_highs
def test_another_order_of_sites():
    order = [str(i) for i in (3, 1, 7, 0, 2, 6, 5, 4)]
    y = np.random.default_rng(0).gamma(1.0, 2.0, N)
    for name in ("Connected", "Spillover", "CallIn"):
        program = MAKERS[name]()
        moved = program.for_sites("test", order)
        values = torch.tensor(y[[int(i) for i in order]])
        ours = {order[i] for i in moved.best(values).nonzero().flatten().tolist()}
        assert ours == {str(i) for i in program.best(torch.tensor(y)).nonzero().flatten().tolist()}
        with pytest.raises(ValueError, match="must be those of the ranker"):
            program.for_sites("test", [f"x{i}" for i in range(N)])


def panel():
    random = np.random.default_rng(0)
    rate = random.gamma(1.0, 3.0, N)
    rows = [(str(s), t, random.poisson(rate[s])) for t in range(12) for s in range(N)]
    frame = pd.DataFrame(rows, columns=["site", "year", "count"])
    return tr.Panel.from_frame(frame, site="site", time="year", count="count")


def test_the_ranker_trains_ranks_and_keeps_it(tmp_path):
    program = tr.programs.Spillover(3, NETWORK, 0.8, 0.3)
    ranker = tr.TopKRanker(
        program, model="poisson_mixture", objective="bpr", topk="sampled", max_epochs=3,
        seed=0,
    ).fit(panel())  # fmt: skip
    plan = ranker.plan()
    assert len(plan[0].selected_ids()) == 3
    ranker.save(tmp_path / "model.pt")
    again = tr.TopKRanker.load(tmp_path / "model.pt").plan()
    assert again[0].selected_ids() == plan[0].selected_ids()
    assert 0 < ranker.score(panel()) <= 1 + 1e-6


def test_wrong_arguments():
    with pytest.raises(ValueError, match="y must have one number for each of 2 sites, got 3"):
        tr.programs.Spaced(1, [0, 1], [0, 1, 2], 1.0)
    with pytest.raises(TypeError, match="unexpected argument 'seconds'"):
        tr.programs.Connected(2, NETWORK, seconds=3)
    with pytest.raises(ValueError, match="k must be at most the number of sites S = 8, got 9"):
        tr.programs.Coverage(9, NETWORK).best(torch.ones(N))
