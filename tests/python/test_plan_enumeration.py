"""Every program of `topreach.plan` against enumeration of all plans, on random instances of up to
12 sites, some of them infeasible. A bound never lies on the wrong side of the value."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import topreach as tr

nx = pytest.importorskip("networkx")
pytestmark = pytest.mark.skipif(not tr.plan.has_highs(), reason="HiGHS is not installed")
FEW = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def subsets(sites, k=None):
    sizes = range(sites + 1) if k is None else [k]
    for size in sizes:
        for chosen in itertools.combinations(range(sites), size):
            yield list(chosen)


def agrees(make, allowed, value, *, least=False):
    """`make()` gives the best value over `allowed`, or says that there is none."""
    best = min if least else max
    expected = best((value(plan) for plan in allowed), default=None)
    if expected is None:
        try:
            plan = make()
        except ValueError as error:
            assert "must" in str(error)
            return None
        assert plan.status == "infeasible" and plan.value is None and plan.notes
        return None
    plan = make()
    assert plan.status == "optimal"
    assert plan.value == pytest.approx(expected, abs=1e-7)
    assert plan.value <= plan.bound + 1e-12 if not least else plan.value >= plan.bound - 1e-12
    if plan.program not in ("fair", "phased", "tours"):
        chosen = [int(i) for i in plan.ids]
        assert value(sorted(chosen)) == pytest.approx(expected, abs=1e-7)
        assert sorted(chosen) in [sorted(p) for p in allowed]
    return plan


class Instance:
    """A random problem of n sites: scores, costs, two groupings with quotas, locks, a graph."""

    def __init__(self, seed):
        self.random = random = np.random.default_rng(seed)
        self.n = n = int(random.integers(4, 11))
        self.k = int(random.integers(1, n))
        self.r = random.normal(1, 1, n).round(2) if seed % 3 else random.integers(0, 4, n) * 1.0
        self.cost = random.integers(0, 5, n) * 1.0
        self.fine = random.integers(0, 3, n)
        nested = random.random() < 0.5
        self.coarse = self.fine // 2 if nested else random.integers(0, 2, n)
        self.graph = nx.gnp_random_graph(n, 0.35, seed=int(seed))
        self.lock_in = [0] if random.random() < 0.2 else []
        self.lock_out = [n - 1] if random.random() < 0.2 else []
        self.lower = {g: int(random.integers(0, 2)) for g in np.unique(self.fine)}
        self.upper = {g: self.lower[g] + int(random.integers(0, 3)) for g in self.lower}
        self.coarse_upper = int(random.integers(1, n + 1))

    @property
    def network(self):
        return tr.Graph.from_networkx(self.graph)

    @property
    def kept(self):
        return {
            "quotas": [
                tr.plan.Quotas(self.fine, self.lower, self.upper),
                tr.plan.Quotas(self.coarse, None, self.coarse_upper),
            ],
            "lock_in": self.lock_in,
            "lock_out": self.lock_out,
            "gap": 0.0,
        }

    def keeps(self, plan):
        fine = {g: sum(self.fine[i] == g for i in plan) for g in self.lower}
        coarse = [sum(self.coarse[i] == g for i in plan) for g in np.unique(self.coarse)]
        return (
            all(self.lower[g] <= fine[g] <= self.upper[g] for g in fine)
            and max(coarse) <= self.coarse_upper
            and set(self.lock_in) <= set(plan)
            and not set(self.lock_out) & set(plan)
        )

    def allowed(self, k=None):
        return [plan for plan in subsets(self.n, k) if self.keeps(plan)]

    def total(self, plan):
        return float(self.r[plan].sum()) if plan else 0.0


instances = st.integers(0, 10**6).map(Instance)


@FEW
@given(instances)
def test_quotas(one):
    agrees(lambda: tr.plan.quota_topk(one.r, one.k, **one.kept), one.allowed(one.k), one.total)


@FEW
@given(instances, st.booleans(), st.booleans())
def test_budget(one, with_k, with_quotas):
    budget = float(one.random.integers(0, int(one.cost.sum()) + 1))
    k = one.k if with_k else None
    plans = one.allowed(k) if with_quotas else list(subsets(one.n, k))
    kept = one.kept if with_quotas else {"gap": 0.0}
    allowed = [plan for plan in plans if one.cost[plan].sum() <= budget]
    agrees(lambda: tr.plan.budget_topk(one.r, one.cost, budget, k, **kept), allowed, one.total)


@FEW
@given(instances)
def test_locks_without_k(one):
    budget = float(one.cost.sum() / 2)
    allowed = [
        plan
        for plan in subsets(one.n)
        if one.cost[plan].sum() <= budget and 1 in plan and 2 not in plan
    ]
    agrees(
        lambda: tr.plan.budget_topk(one.r, one.cost, budget, lock_in=[1], lock_out=[2], gap=0.0),
        allowed,
        one.total,
    )


@FEW
@given(instances, st.booleans(), st.booleans())
def test_spillover_with_compliance_and_quotas(one, with_quotas, all_come):
    treated = one.random.random(one.n)
    spilled = treated * one.random.random(one.n)
    comes = np.ones(one.n) if all_come else one.random.random(one.n)
    scores = np.abs(one.r)

    def value(plan):
        missed = np.ones(one.n)
        for i in range(one.n):
            for j in plan:
                if i == j or one.graph.has_edge(i, j):
                    missed[i] *= 1 - comes[j]
        direct = ((treated - spilled) * scores * comes)[plan].sum() if plan else 0.0
        return float(direct + (spilled * scores * (1 - missed)).sum())

    kept = one.kept if with_quotas else {"gap": 0.0}
    allowed = one.allowed(one.k) if with_quotas else list(subsets(one.n, one.k))
    plan = agrees(
        lambda: tr.plan.spillover(
            scores, one.network, one.k, treated=treated, spilled=spilled, compliance=comes, **kept
        ),
        allowed,
        value,
    )
    if plan is not None:
        y = np.abs(one.random.normal(size=one.n))
        scores = y  # the objective is linear in the scores: what happened takes their place
        judged = plan.evaluate(y)
        assert judged["reach"] == pytest.approx(value(sorted(int(i) for i in plan.ids)))
        assert judged["bpr"] == pytest.approx(judged["reach"] / max(map(value, allowed)), abs=1e-6)


@FEW
@given(instances, st.booleans(), st.booleans(), st.booleans())
def test_call_ins(one, capped, with_quotas, weighted):
    comes, passes = one.random.random(one.n), one.random.random(one.n)
    weight = np.abs(one.r) if weighted else np.ones(one.n)
    q = nx.to_numpy_array(one.graph) * (comes * passes)[None] + np.diag(comes)

    def reach(plan):
        return float((weight * (1 - np.prod(1 - q[:, plan], axis=1))).sum())

    def value(plan):
        return (
            float((weight * np.minimum(1, q[:, plan].sum(axis=1))).sum()) if capped else reach(plan)
        )

    kept = one.kept if with_quotas else {"gap": 0.0}
    allowed = one.allowed(one.k) if with_quotas else list(subsets(one.n, one.k))
    plan = agrees(
        lambda: tr.plan.call_in(
            weight, one.network, one.k, comes=comes, passes=passes,
            form="capped" if capped else "exact", weight_by_score=weighted, **kept,
        ),
        allowed,
        value,
    )  # fmt: skip
    if plan is not None:
        assert plan.reach == pytest.approx(reach([int(i) for i in plan.ids]))


@FEW
@given(instances, st.booleans())
def test_maximal_coverage(one, with_quotas):
    weight = np.abs(one.r)
    reach = nx.to_numpy_array(one.graph) + np.eye(one.n)
    allowed = one.allowed(one.k) if with_quotas else list(subsets(one.n, one.k))
    kept = one.kept if with_quotas else {"gap": 0.0}

    def value(plan):
        return float(weight[reach[:, plan].any(axis=1)].sum())

    agrees(lambda: tr.plan.coverage(weight, one.network, one.k, **kept), allowed, value)


@FEW
@given(instances, st.booleans())
def test_representatives(one, with_locks):
    cost = 1.0 + one.cost
    locks = {"lock_in": [0], "lock_out": [1]} if with_locks else {}
    allowed = [
        plan
        for plan in subsets(one.n)
        if nx.is_dominating_set(one.graph, plan)
        and (not with_locks or (0 in plan and 1 not in plan))
    ]
    agrees(
        lambda: tr.plan.dominating_set(one.network, cost, gap=0.0, **locks),
        allowed,
        lambda plan: float(cost[plan].sum()),
        least=True,
    )


@FEW
@given(instances, st.booleans())
def test_fewest_seeds_for_a_reach(one, all_come):
    comes = np.ones(one.n) if all_come else one.random.random(one.n)
    q = nx.to_numpy_array(one.graph) * comes[None] + np.diag(comes)

    def reach(plan):
        return float((1 - np.prod(1 - q[:, plan], axis=1)).sum())

    theta = one.random.random() * 1.05 * reach(list(range(one.n)))
    allowed = [plan for plan in subsets(one.n) if reach(plan) >= theta]
    agrees(
        lambda: tr.plan.dominating_set(one.network, reach=theta, comes=comes, gap=0.0),
        allowed,
        lambda plan: float(len(plan)),
        least=True,
    )


@FEW
@given(instances, st.booleans(), st.booleans())
def test_spacing(one, plane, with_quotas):
    x, y = one.random.random((2, one.n)).round(1)
    far = np.hypot(x[:, None] - x, y[:, None] - y)
    close = far < 0.4 if plane else nx.to_numpy_array(one.graph) > 0
    plans = one.allowed(one.k) if with_quotas else list(subsets(one.n, one.k))
    allowed = [p for p in plans if not any(close[a, b] for a, b in itertools.combinations(p, 2))]
    how = {"x": x, "y": y, "distance": 0.4} if plane else {"graph": one.network}
    kept = one.kept if with_quotas else {"gap": 0.0}
    agrees(lambda: tr.plan.spaced(one.r, one.k, **how, **kept), allowed, one.total)


@FEW
@given(instances, st.booleans())
def test_connected_plans(one, with_quotas):
    plans = one.allowed(one.k) if with_quotas else list(subsets(one.n, one.k))
    allowed = [p for p in plans if nx.is_connected(one.graph.subgraph(p))]
    kept = one.kept if with_quotas else {"gap": 0.0}
    agrees(lambda: tr.plan.connected(one.r, one.network, one.k, **kept), allowed, one.total)


@FEW
@given(instances, st.sampled_from(["free", "rest", "once", "quotas"]))
def test_phases(one, rule):
    n, periods, k = min(one.n, 5), 3, min(one.k, 2)
    scores = one.random.normal(1, 1, (periods, n)).round(2)
    opening = one.random.random(n).round(2)
    before = [0]
    how, group = {}, one.fine[:n]
    if rule == "rest":
        how = {"rest": 1}
    elif rule == "once":
        how = {"most_visits": 1}
    elif rule == "quotas":
        how = {"groups": group, "at_most": 1}

    def fits(plans):
        visits = np.zeros((periods, n))
        for t, plan in enumerate(plans):
            visits[t, plan] = 1
        if rule == "rest" and (visits[1:] + visits[:-1] > 1).any():
            return False
        if rule == "once" and (visits.sum(axis=0) > 1).any():
            return False
        if rule == "quotas":
            return all(len({group[i] for i in plan}) == len(plan) for plan in plans)
        return True

    def value(plans):
        total, was = 0.0, set(before)
        for t, plan in enumerate(plans):
            total += scores[t, plan].sum() - opening[sorted(set(plan) - was)].sum()
            was = set(plan)
        return float(total)

    allowed = [plans for plans in itertools.product(subsets(n, k), repeat=periods) if fits(plans)]
    plan = agrees(
        lambda: tr.plan.phased(scores, k, opening=opening, before=before, gap=0.0, **how),
        allowed,
        value,
    )
    if plan is not None:
        made = [sorted(int(i) for i in part) for part in plan.tours]
        assert fits(made) and value(made) == pytest.approx(plan.value)


@FEW
@given(instances, st.booleans())
def test_fairness(one, with_floor):
    scores, groups = np.abs(one.r), np.unique(one.fine)

    def least(plan):
        held = [scores[[i for i in plan if one.fine[i] == g]].sum() for g in groups]
        all_of = [scores[one.fine == g].sum() for g in groups]
        return min((h / a for h, a in zip(held, all_of, strict=True) if a > 0), default=1.0)

    plans = list(subsets(one.n, one.k))
    if not with_floor:
        agrees(lambda: tr.plan.fair(scores, one.k, one.fine, gap=0.0), plans, least)
        return
    plan = agrees(
        lambda: tr.plan.fair(scores, one.k, one.fine, floors=0.2, gap=0.0),
        [p for p in plans if least(p) >= 0.2 - 1e-9],
        lambda p: float(scores[p].sum()),
    )
    if plan is not None and plan.value > 0:
        free = np.sort(scores)[::-1][: one.k].sum()
        assert plan.price_of_constraints == pytest.approx(1 - plan.value / free, abs=1e-9)


@FEW
@given(instances, st.integers(1, 2), st.integers(2, 4))
def test_tours(one, k, longest):
    gain = one.r - 0.8
    paths = {}

    def grow(path):
        paths[frozenset(path)] = gain[path].sum()
        for node in one.graph[path[-1]]:
            if node not in path and len(path) < longest:
                grow([*path, node])

    for node in one.graph:
        grow([node])
    good = [(v, p) for p, v in paths.items() if v > 0]
    best = max((v for v, _ in good), default=0.0)
    if k == 2:
        pairs = [v + w for (v, p), (w, q) in itertools.combinations(good, 2) if not p & q]
        best = max([best, *pairs])
    plan = tr.plan.tours(np.zeros(one.n), one.network, k, gain=gain, max_size=longest, gap=0.0)
    assert plan.status == "optimal"
    assert plan.value == pytest.approx(best, abs=1e-9)


@FEW
@given(instances)
def test_least_trees_and_nodes_that_cannot_be_replaced(one):
    size = min(3, one.n)
    terminals = list(range(size))
    parts = list(nx.connected_components(one.graph))

    def least(graph):
        """Edges of the least forest: subsets of nodes that join the terminals of each part."""
        best = None
        for extra in subsets(one.n):
            nodes = {*terminals, *extra} & set(graph)
            inside = graph.subgraph(nodes)
            joined = all(
                len({i for i, c in enumerate(nx.connected_components(inside)) if c & part}) <= 1
                for part in (set(terminals) & p for p in parts)
                if part
            )
            if joined:
                edges = nx.minimum_spanning_tree(inside).number_of_edges()
                best = edges if best is None else min(best, edges)
        return best

    plan = tr.plan.subgraph(one.network, terminals)
    assert plan.status == "optimal" and plan.value == least(one.graph)
    for node in {*plan.essential, *plan.replaceable}:
        without = one.graph.copy()
        without.remove_node(int(node))
        longer = least(without)
        assert (node in plan.essential) == (longer is None or longer > plan.value)


@FEW
@given(instances)
def test_prices_of_treatment_coverage(one):
    """The one-sided prices equal those from solving again with one unit more or less, and lie on
    either side of the dual."""
    scipy = pytest.importorskip("scipy.optimize")
    n, m = 4, 3
    need = one.random.integers(1, 6, n) * 1.0
    room = one.random.integers(1, 7, m) * 1.0
    ways = one.random.random((n, m)).round(2)
    reach = ways <= 0.7

    def solved(need, room):
        rows, cols = np.nonzero(reach)
        cost = np.r_[ways[rows, cols], np.full(n, 50.0)]
        equal = np.zeros((n, len(cost)))
        equal[rows, np.arange(len(rows))] = 1
        equal[np.arange(n), len(rows) + np.arange(n)] = 1
        upper = np.zeros((m, len(cost)))
        upper[cols, np.arange(len(rows))] = 1
        return scipy.linprog(cost, upper, room, equal, need)

    plan = tr.plan.assign(need, room, ways, radius=0.7, unserved=50.0)
    base = solved(need, room)
    assert plan.value == pytest.approx(base.fun)
    table = plan.to_frame().set_index("site").loc[[str(i) for i in range(n)]]
    for name, sign, size, given_, dual in (
        ("need", 1, n, table, base.eqlin.marginals),
        ("capacity", -1, m, plan.places, base.ineqlin.marginals),
    ):
        for i in range(size):
            step = np.eye(size)[i]
            changes = []
            for way in (1, -1):
                more = (
                    solved(need + way * step, room) if sign > 0 else solved(need, room + way * step)
                )
                changes.append(more.fun - base.fun)
            assert given_[f"{name}_more"].iloc[i] == pytest.approx(changes[0], abs=1e-7)
            assert given_[f"{name}_less"].iloc[i] == pytest.approx(changes[1], abs=1e-7)
            # The value is convex in need and in capacity.
            assert -changes[1] - 1e-7 <= dual[i] <= changes[0] + 1e-7


@FEW
@given(instances, st.integers(1, 2))
def test_new_sites(one, number):
    need = one.random.integers(1, 6, 4) * 1.0
    room = np.array([3.0, 0, 0, 0])
    ways = one.random.random((4, 4)).round(2)
    how = {"radius": 0.8, "unserved": 50.0, "prices": False}
    values = [
        tr.plan.assign(need, room + 4 * np.isin(range(4), plan), ways, **how).value
        for size in range(number + 1)
        for plan in itertools.combinations((1, 2, 3), size)
    ]
    plan = tr.plan.assign(need, room, ways, open_sites=number, opened_capacity=4.0, gap=0.0, **how)
    assert plan.value == pytest.approx(min(values))
    assert plan.places["opened"].sum() <= number
