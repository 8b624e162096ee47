"""Programs solved by search, in the ranker and in the objectives."""

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
TOWNS = pd.Series(list("aaabbbcc"), [str(i) for i in range(N)], name="town")
RURAL = pd.Series(list("ruurruru"), TOWNS.index, name="area")
KEPT = {
    "groups": TOWNS, "at_most": {"a": 1}, "quotas": tr.plan.Quotas(RURAL, {"r": 1}, {"u": 2}),
    "lock_out": ["6"], "gap": 0.0,
}  # fmt: skip
TOWNS_KEPT = {"groups": TOWNS, "at_most": {"a": 1}, "lock_out": ["6"], "gap": 0.01}  # no solver
WITH_QUOTAS = {
    "Budget": lambda **kept: tr.programs.Budget(
        6.0, pd.Series([1, 2, 3, 1, 2, 3, 1, 2], TOWNS.index), **kept
    ),
    "Spaced": lambda **kept: tr.programs.Spaced(
        3, [0, 1, 2, 3, 0, 1, 2, 3], [0] * 4 + [1] * 4, 1.2, sites=TOWNS.index, **kept
    ),
    "Connected": lambda **kept: tr.programs.Connected(3, NETWORK, **kept),
    "Coverage": lambda **kept: tr.programs.Coverage(3, NETWORK, **kept),
    "Spillover": lambda **kept: tr.programs.Spillover(3, NETWORK, 0.8, 0.3, COMES, **kept),
    "CallIn": lambda **kept: tr.programs.CallIn(3, NETWORK, COMES, 0.5, **kept),
}
FAIR_TO = ["x", "x", "y", "y", "y", "", "z", "z"]


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


def keeps(plan):
    town = TOWNS.to_numpy()[list(plan)].tolist()
    area = RURAL.to_numpy()[list(plan)].tolist()
    return town.count("a") <= 1 and area.count("r") >= 1 and area.count("u") <= 2 and 6 not in plan


@needs_highs
@pytest.mark.parametrize("name", WITH_QUOTAS)
def test_quotas_and_locks_against_all_plans(name):
    """Two groupings that cross and a lock; for `best`, `solve`, other orders, and from arguments as
    a model file keeps them."""
    program = WITH_QUOTAS[name](**KEPT)
    plans = [
        list(p) for k in range(N + 1) for p in itertools.combinations(range(N), k)
        if allowed(name, list(p)) and keeps(p)
    ]  # fmt: skip
    order = ["3", "1", "7", "0", "2", "6", "5", "4"]
    moved = program.for_sites("test", order)
    again = tr._C.make_program(name, program.config())
    assert again.config() == program.config() and "by area" in program.describe()
    for seed in range(5):
        y = np.random.default_rng(seed).gamma(1.0, 2.0, N)
        most = max(worth(name, p, y) for p in plans)
        for one in (program, again):
            chosen = one.best(torch.tensor(y)).nonzero().flatten().tolist()
            assert keeps(chosen) and allowed(name, chosen)
            assert worth(name, chosen, y) == pytest.approx(most)
        turned = moved.best(torch.tensor(y[[int(i) for i in order]])).nonzero().flatten().tolist()
        chosen = sorted(int(order[i]) for i in turned)
        assert keeps(chosen) and worth(name, chosen, y) == pytest.approx(most)


@needs_highs
def test_nested_quotas_as_shares_by_position():
    program = tr.programs.Spaced(
        4, range(8), [0] * 8, 1.5, groups=list("aaaabbbb"), at_least="50%", lock_in=[0], gap=0.0
    )
    y = torch.tensor([0.0, 9, 1, 9, 1, 9, 1, 9], dtype=torch.float64)
    assert program.best(y).nonzero().flatten().tolist() == [0, 3, 5, 7]


def least_share(plan, y):
    totals = {g: [0.0, 0.0] for g in set(FAIR_TO) - {""}}
    for i, group in enumerate(FAIR_TO):
        if group:
            totals[group][0] += y[i] * (i in plan)
            totals[group][1] += y[i]
    return min((held / all_of for held, all_of in totals.values() if all_of > 0), default=0.0)


@needs_highs
@pytest.mark.parametrize("floors", [None, 0.2, {"y": 0.4}])
@pytest.mark.parametrize("with_quotas", [False, True])
def test_fair_plans_against_all_plans(floors, with_quotas):
    kept = KEPT if with_quotas else {"gap": 0.0}
    program = tr.programs.Fair(4, FAIR_TO, floors=floors, sites=TOWNS.index, **kept)
    again = tr._C.make_program("Fair", program.config())
    assert again.config() == program.config()

    def fits(plan, y):
        if with_quotas and not keeps(plan):
            return False
        least = {None: {}, 0.2: dict.fromkeys("xyz", 0.2)}.get(
            floors if not isinstance(floors, dict) else "", floors
        )
        return all(
            sum(y[i] for i in plan if FAIR_TO[i] == g)
            >= share * sum(y[i] for i in range(N) if FAIR_TO[i] == g) - 1e-9
            for g, share in least.items()
        )

    solved = 0
    for seed in range(8):
        y = np.random.default_rng(seed).gamma(1.0, 2.0, N)
        values = torch.tensor(y)
        plans = [p for p in itertools.combinations(range(N), 4) if fits(p, y)]
        if not plans:
            with pytest.raises(ValueError, match="Fair.best: there must be a plan"):
                program.best(values)
            continue
        solved += 1

        def f(plan, y=y):
            return least_share(plan, y) if floors is None else sum(y[i] for i in plan)

        most = max(f(p) for p in plans)
        for one in (program, again):
            solution = one.solve(values)
            chosen = solution.plan.nonzero().flatten().tolist()
            assert fits(chosen, y) and f(chosen) == pytest.approx(most, abs=1e-7)
            assert solution.value == pytest.approx(most, abs=1e-7)
            assert float(one.reach(solution.plan, values)) == pytest.approx(most, abs=1e-7)
            assert float(one.bpr(values, values)) == pytest.approx(1)
        assert float(program.bpr(values.flip(0), values)) <= 1 + 1e-12
    assert solved > 2


def test_least_share_of_fractional_plans():
    program = tr.programs.Fair(3, FAIR_TO)
    y = torch.tensor(np.random.default_rng(0).gamma(1.0, 2.0, (3, N)))
    plan = torch.rand(3, N, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: program.reach(p, y), (plan,))
    hard = torch.tensor([1.0, 0, 1, 0, 0, 0, 1, 0], dtype=torch.float64)
    for row in y:
        assert float(program.reach(hard, row)) == pytest.approx(least_share([0, 2, 6], row.numpy()))
    assert program.reach(hard, torch.zeros(2, N)).tolist() == [0, 0]


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


@needs_highs
@pytest.mark.parametrize(
    "program, objective",
    [
        (lambda: WITH_QUOTAS["Budget"](**KEPT), "spo+"),
        (lambda: WITH_QUOTAS["Coverage"](**TOWNS_KEPT), "bpr"),
    ],
    ids=["budget", "coverage"],
)
def test_the_ranker_keeps_quotas_in_its_file(tmp_path, program, objective):
    """The plan keeps them, and so does the file, which the C++ Ranker reads."""
    made = program()
    if objective == "spo+":
        how = {"model": "linear", "window": 2, "objective": tr.objectives.SPOPlus(made)}
    else:
        loss = tr.objectives.DirectBPR(made, 0.1, topk="sampled", num_samples=4)
        how = {"model": "poisson_mixture", "objective": loss, "topk": "sampled"}
    ranker = tr.TopKRanker(made, max_epochs=2, seed=0, **how).fit(panel())
    plan = ranker.plan()[0].selected_ids()
    assert TOWNS[list(plan)].tolist().count("a") <= 1 and "6" not in plan
    ranker.save(tmp_path / "model.pt")
    again = tr.TopKRanker.load(tmp_path / "model.pt").plan()[0].selected_ids()
    assert again == plan
    if objective == "bpr":
        assert 0 <= ranker.score(panel()) <= 1 + 1e-6


def test_wrong_quotas():
    with pytest.raises(ValueError, match="Coverage: quotas must be feasible, got at least 4 in to"):
        tr.programs.Coverage(5, NETWORK, groups=TOWNS, at_least={"a": 4})
    with pytest.raises(ValueError, match="Coverage: at_least and at_most must come with groups"):
        tr.programs.Coverage(3, NETWORK, at_least=1)
    with pytest.raises(ValueError, match="a group for each of 8 sites, got 2"):
        tr.programs.Coverage(3, NETWORK, groups=["a", "b"])
    with pytest.raises(ValueError, match="of the same sites in every grouping"):
        tr.programs.Coverage(3, NETWORK, groups={"a": "x"})
    with pytest.raises(ValueError, match="at_most must be a number of sites without k, got '30%'"):
        tr.programs.Budget(3.0, [1, 2], groups=["a", "b"], at_most="30%")
    with pytest.raises(ValueError, match="Budget: lock_in and lock_out must have no site in comm"):
        tr.programs.Budget(3.0, [1, 2], lock_in=[0], lock_out=[0])
    with pytest.raises(ValueError, match="Fair: floors must name groups, got 'w'"):
        tr.programs.Fair(3, FAIR_TO, floors={"w": 0.1})
    with pytest.raises(ValueError, match="Fair: floors must be shares from 0 to 1, got 2"):
        tr.programs.Fair(3, FAIR_TO, floors=2.0)
    with pytest.raises(ValueError, match="fair_to must name a group, got none"):
        tr.programs.Fair(3, ["", ""])


def test_wrong_arguments():
    with pytest.raises(ValueError, match="y must have one number for each of 2 sites, got 3"):
        tr.programs.Spaced(1, [0, 1], [0, 1, 2], 1.0)
    with pytest.raises(TypeError, match="Connected: got an unexpected keyword argument 'seconds'"):
        tr.programs.Connected(2, NETWORK, seconds=3)
    with pytest.raises(ValueError, match="k must be at most the number of sites S = 8, got 9"):
        tr.programs.Coverage(9, NETWORK).best(torch.ones(N))


@pytest.mark.parametrize(
    ("model", "settings"), [("empirical_bayes", {}), ("linear", {"window": 2, "max_epochs": 3})]
)
def test_fairness_is_trained_for_and_kept_in_a_file(model, settings, tmp_path):
    """The plan's least share of a group is the largest there is, by enumeration."""
    pytest.importorskip("highsbox")
    draw = np.random.default_rng(0)
    counts = draw.poisson(draw.gamma(1.0, 3.0, 8), (8, 8)).astype(np.float32)
    sites = [f"s{i}" for i in range(8)]
    panel = tr.Panel(np.zeros((8, 8, 0)), counts, sites, list(range(2010, 2018)), [])
    group = np.array([0, 1, 0, 0, 1, 1, 0, 1])
    fair = tr.programs.Fair(3, dict(zip(sites, ["ab"[g] for g in group], strict=True)))
    ranker = tr.TopKRanker(fair, model=model, progress=False, **settings).fit(panel)
    plan = ranker.rank().set_index("site").loc[sites]
    ranker.save(tmp_path / "fair.pt")
    again = tr.TopKRanker.load(tmp_path / "fair.pt").rank().set_index("site").loc[sites]
    assert (again["selected"] == plan["selected"]).all() and plan["selected"].sum() == 3
    score = plan["score"].to_numpy()
    if model == "empirical_bayes":  # shares of scores that are not negative

        def least(chosen):
            shares = [score[[s for s in chosen if group[s] == g]].sum() for g in (0, 1)]
            return min(share / score[group == g].sum() for g, share in enumerate(shares))

        best = max(least(chosen) for chosen in itertools.combinations(range(8), 3))
        assert least(np.flatnonzero(plan["selected"])) == pytest.approx(best, rel=1e-4)
