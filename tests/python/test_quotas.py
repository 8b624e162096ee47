"""Quotas, and effects, as programs: plans, files, training."""

import itertools
import math
import os
import warnings
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import topreach as tr
from topreach import _C
from topreach.programs import Quotas, TopK, with_effect

DOUBLE = torch.float64
# A worked example: 12 sites; municipality i mod 3, rural from 6 on.
R12 = torch.tensor([1.0 + (7 * i + 3) % 12 for i in range(12)], dtype=DOUBLE)
MUNICIPALITY = [f"m{i % 3}" for i in range(12)]
RURAL = ["rural" if i >= 6 else "urban" for i in range(12)]

S, T, K = 40, 8, 8
SITES = [f"s{i:02d}" for i in range(S)]
TOWNS = pd.Series([f"town{i % 10}" for i in range(S)], index=SITES, name="town")
Y = (
    np.random.default_rng(0)
    .poisson(np.random.default_rng(1).gamma(1.0, 3.0, S), (T + 2, S))
    .astype(np.float32)
)

try:
    import highsbox

    os.environ.setdefault("TOPREACH_HIGHS", f"{highsbox.highs_lib_dir()}/libhighs.so")
    HIGHS = True
except ImportError:
    HIGHS = False
needs_highs = pytest.mark.skipif(not HIGHS, reason="highsbox is not installed")


def panel(a, b, sites=None):
    order = list(range(S)) if sites is None else sites
    return tr.Panel(
        np.zeros((b - a, S, 0)),
        Y[a:b][:, order],
        [SITES[i] for i in order],
        list(range(2010 + a, 2010 + b)),
        [],
    )


def quietly(call):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()


def fitted(program, **options):
    defaults = {"progress": False, "rank_samples": 100}
    return quietly(lambda: tr.TopKRanker(program, **defaults | options).fit(panel(0, T)))


# ---- plans ---------------------------------------------------------------------------------------


def test_published_answers():
    """The worked example: K = 5 with 2-3, 1-2 and 1-1: 48; without quotas, 4 sites: 42."""
    limits = {"m0": 2, "m1": 1, "m2": 1}, {"m0": 3, "m1": 2, "m2": 1}
    solution = Quotas(5, MUNICIPALITY, *limits).solve(R12)
    assert solution.value == 48 and solution.status == "optimal" and solution.gap is None
    assert R12[solution.plan > 0].sum() == 48
    assert Quotas(4, MUNICIPALITY).solve(R12).value == 42


@needs_highs
def test_crossing_groupings():
    """The worked example: 4 sites, 2 rural, each municipality: 41; solved as a linear program."""
    both = pd.DataFrame({"municipality": MUNICIPALITY, "area": RURAL})
    program = Quotas(4, both, lower={"municipality": 1, "area": 2})
    assert program.crosses
    solution = program.solve(R12)
    assert solution.value == pytest.approx(41) and solution.bound == pytest.approx(41)
    assert solution.status == "optimal" and solution.plan.sum() == 4
    assert program.best(R12.expand(2, 12)).sum() == 8
    again = _C.make_program(program.name(), program.config())
    assert again.solve(R12).value == pytest.approx(41)
    impossible = Quotas(4, both, lower={"municipality": {"m0": 4}, "area": {"rural": 3}})
    with pytest.raises(ValueError, match="no plan of k=4 meets together"):
        impossible.best(R12)


@needs_highs
@given(st.data())
@settings(max_examples=40, deadline=None)
def test_groupings_by_enumeration(data):
    """Two groupings, nested or crossing, against all plans."""
    n = data.draw(st.integers(2, 8))
    k = data.draw(st.integers(1, n))
    columns = {
        # Of a column of blanks alone there is an error of its own.
        name: data.draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=1))
        + data.draw(st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=n - 1, max_size=n - 1))
        for name in ("one", "two")
    }
    assume(all(any(groups) for groups in columns.values()))  # a grouping names some group
    lower = {name: data.draw(st.integers(0, 2)) for name in columns}
    upper = {name: lower[name] + data.draw(st.integers(0, 4)) for name in columns}
    r = torch.tensor(data.draw(st.lists(st.integers(-3, 9), min_size=n, max_size=n))).double()

    def meets(plan):
        return all(
            lower[name] <= sum(groups[i] == g for i in plan) <= upper[name]
            for name, groups in columns.items()
            for g in set(groups) - {""}
        )

    every = [plan for plan in itertools.combinations(range(n), k) if meets(plan)]
    make = lambda: Quotas(k, pd.DataFrame(columns), lower, upper)  # noqa: E731
    if not every:
        with pytest.raises(ValueError, match="quotas must be feasible"):
            make().best(r)
        return
    plan = tuple(make().best(r).nonzero().flatten().tolist())
    assert plan in every
    assert r[list(plan)].sum() == max(r[list(other)].sum() for other in every)


def test_nested_groupings_need_no_solver():
    regions = ["n" if town in ("town0", "town1", "town2") else "s" for town in TOWNS]
    both = pd.DataFrame({"region": regions, "town": TOWNS})
    program = Quotas(12, both, lower={"town": 1}, upper={"region": {"n": 3}})
    assert not program.crosses
    plan = program.best(torch.arange(S).double()) > 0
    chosen = both[plan.numpy()]
    assert chosen["town"].nunique() == 10 and (chosen["region"] == "n").sum() == 3


def test_shares_are_rounded_so_that_they_hold():
    program = Quotas(7, RURAL[:12], lower={"rural": "30%"}, upper={"urban": "50%"})
    (grouping,) = program.groupings
    limits = dict(
        zip(grouping.groups, zip(grouping.lower, grouping.upper, strict=True), strict=True)
    )
    assert limits["rural"][0] == math.ceil(Fraction(3, 10) * 7) == 3
    assert limits["urban"][1] == 3
    assert Quotas(10, RURAL, lower={"rural": "30 %"}).groupings[0].lower == [3, 0]


def test_groups_by_id_are_matched_and_may_be_fewer():
    shuffled = TOWNS.sample(frac=1, random_state=0)
    program = Quotas(K, shuffled, lower={"town3": 2})
    ordered = program.for_sites("test", SITES)
    assert ordered.sites == SITES
    (grouping,) = ordered.groupings
    assert [grouping.groups[g] for g in grouping.group] == TOWNS.tolist()
    assert ordered.for_sites("test", SITES) is None
    with pytest.raises(ValueError, match="test: groups of Quotas must have every site, got none"):
        program.for_sites("test", ["s99", *SITES[1:]])
    with pytest.raises(ValueError, match="at least 2 in town 'town3' that has 1 site"):
        program.for_sites("test", [s for s in SITES if s not in ("s13", "s23", "s33")])
    by_order = Quotas(K, TOWNS.tolist()).for_sites("test", SITES)
    assert by_order.sites == SITES
    with pytest.raises(ValueError, match="a group for each of S = 39 sites, got 40"):
        Quotas(K, TOWNS.tolist()).check("test", 39)


def test_locks():
    program = Quotas(3, TOWNS, lower={"town0": 1}, lock_in=["s07"], lock_out=["s39", "s00"])
    plan = program.best(torch.arange(S).double()).nonzero().flatten().tolist()
    assert plan == [7, 30, 38]
    same = Quotas(3, TOWNS.tolist(), lower={"town0": 1}, lock_in=[7], lock_out=[39, 0])
    assert same.best(torch.arange(S).double()).nonzero().flatten().tolist() == plan


@pytest.mark.parametrize(
    "arguments, error, match",
    [
        ((2, ["0900137000"] * 2 + ["x"]), ValueError, "^Quotas: quotas must be feasible, got at "
         "least 3 in municipality '0900137000' that has 2 sites$"),
        ((1, ["a", "b", "c"], 1), ValueError, "got lower bounds that sum to 3 for k=1"),
        ((4, ["a", "b", "c"]), ValueError, "k must be at most the number of sites S = 3, got 4"),
        ((0, ["a"]), ValueError, "k must be a whole number >= 1, got 0"),
        ((1, ["a"], {"b": 1}), ValueError, "got at least 1 in group 'b' that has no sites"),
        ((1, ["a"], 0, {"b": 1}), ValueError, "upper must name groups that have sites"),
        ((1, ["a"], "1"), ValueError, "lower must be a number of sites or a share such as '30%'"),
        ((1, "abc"), TypeError, "groups must be a Series or mapping"),
        ((1, ["a"], -1), ValueError, "lower must not be negative, got -1"),
    ],
)  # fmt: skip
def test_clear_errors(arguments, error, match):
    with pytest.raises(error, match=match):
        if "0900137000" in match:
            Quotas(*arguments, {"0900137000": 3}, label="municipality")
        else:
            Quotas(*arguments)


def test_more_clear_errors():
    with pytest.raises(ValueError, match="lock_in and lock_out must have no site in common"):
        Quotas(1, TOWNS, lock_in=["s01"], lock_out=["s01"])
    with pytest.raises(ValueError, match="lock_in must be sites of groups, got 'x'"):
        Quotas(1, TOWNS, lock_in=["x"])
    with pytest.raises(ValueError, match="topk must be 'exact' or 'sampled', got 'mean_field'"):
        Quotas(1, ["a", "b"]).soft(torch.zeros(2), 0.1, topk="mean_field")
    with pytest.raises(ValueError, match="make_program: Quotas must not have the argument q"):
        _C.make_program("Quotas", Quotas(1, ["a", "b"]).config() | {"q": 1.0})
    with pytest.raises(ValueError, match="name must be one of 'TopK', 'Quotas'.*got 'Best'"):
        _C.make_program("Best", {})


# ---- ties and chances ----------------------------------------------------------------------------


def random_ties(program, values, draws=20_000):
    """The mean plan with ties broken by noise that is smaller than any difference."""
    noise = 1e-6 * torch.randn(draws, len(values), dtype=DOUBLE)
    return program.best(values + noise).mean(0)


@pytest.mark.parametrize("limits", [(1, None), (0, 2), ({"a": 2, "b": 1}, {"c": 1})])
def test_bpr_is_expected_under_random_ties(limits):
    torch.manual_seed(0)
    groups = list("aaaabbbccc")
    values = torch.tensor([3.0, 1, 1, 0, 1, 0, 0, 1, 1, 3], dtype=DOUBLE)
    program = Quotas(5, groups, *limits)
    expected = program.expected_best(values)
    mean = random_ties(program, values)
    error = (expected * (1 - expected) / 20_000).clamp(min=0).sqrt()
    assert ((mean - expected).abs() <= 5 * error + 1e-6).all()
    assert expected.sum() == pytest.approx(5, abs=1e-8)
    y = torch.tensor([1.0, 5, 2, 2, 0, 1, 4, 1, 0, 3], dtype=DOUBLE)
    assert program.bpr(values, y) == pytest.approx(float(expected @ y / program.best_reach(y)))
    distinct = torch.arange(10).double()
    assert torch.equal(program.expected_best(distinct), program.best(distinct))


def test_chance_shares_ties_and_leaves_closed_sites_out():
    samples = torch.zeros(4000, 6, dtype=DOUBLE)
    samples[:, 5] = -math.inf
    chance = Quotas(2, list("aabbcc"), lower={"c": 1}).chance(samples)
    assert chance[[4, 5]].tolist() == [1, 0]
    # One place is left for four sites that are level.
    assert ((chance[:4] - 0.25).abs() < 5 * math.sqrt(0.25 * 0.75 / 4000)).all()
    assert torch.equal(chance, Quotas(2, list("aabbcc"), lower={"c": 1}).chance(samples))


def test_a_closed_site_is_never_in_the_plan():
    program = Quotas(2, TOWNS[:4], lower={"town0": 1}, label="town")
    values = torch.tensor([-math.inf, 1.0, 2.0, 3.0])
    for run in (program.best, lambda v: program.soft(v, 0.1), program.chance):
        with pytest.raises(ValueError, match="-inf.*got at least 1 in town 'town0' that has 0"):
            run(values[None] if run == program.chance else values)
    open_values = torch.tensor([0.0, 1.0, -math.inf, 3.0])
    assert program.best(open_values).tolist() == [1, 0, 0, 1]
    assert program.soft(open_values, 0.5)[2] == 0


# ---- smooth plans --------------------------------------------------------------------------------


def test_soft_is_exact_or_sampled():
    r = torch.randn(2, S, dtype=DOUBLE, requires_grad=True)
    program, key = Quotas(12, TOWNS, lower=1), torch.tensor([1, 2])
    exact = program.soft(r, 0.3)
    group = torch.arange(S) % 10
    same = tr.expected_quota_topk(r, 12, groups=group, lower=1, sigma=0.3)
    assert torch.equal(exact, same)
    sampled = program.soft(r, 0.3, topk="sampled", num_samples=30, key=key)
    assert torch.equal(
        sampled,
        tr.perturbed_quota_topk(
            r, 12, groups=group, lower=1, sigma=0.3, num_samples=30, estimator="score_loo", key=key
        ),
    )
    nested = Quotas(12, pd.DataFrame({"town": TOWNS, "all": "x"}), lower={"town": 1})
    assert torch.equal(nested.soft(r, 0.3, topk="sampled", num_samples=30, key=key), sampled)


# ---- a ranker under quotas -----------------------------------------------------------------------


def test_a_program_may_go_by_its_name():
    program = Quotas(12, TOWNS, lower=1)
    ranker = tr.TopKRanker(program=program)
    assert ranker.k is program and ranker.get_params()["k"] is program
    assert ranker.set_params(program=TopK(3)).k.k == 3
    for wrong in ({}, {"k": 3, "program": program}):
        with pytest.raises(TypeError, match="k, or program, must be given, got"):
            tr.TopKRanker(**wrong)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"model": "linear", "objective": "bpr", "window": 2, "max_epochs": 3},
        {"model": "negbin", "objective": "daml", "max_epochs": 3, "warm_start_epochs": 3},
        {"model": "poisson_mixture", "objective": "bpr", "topk": "sampled", "max_epochs": 3},
    ],
)
def test_the_ranker_trains_plans_scores_and_keeps_quotas(options, tmp_path):
    program = Quotas(12, TOWNS.sample(frac=1, random_state=1), lower=1, upper=2)
    ranker = fitted(program, **options)
    plan = ranker.rank()
    chosen = plan[plan["selected"]]
    assert len(chosen) == 12 and TOWNS[chosen["site"]].value_counts().between(1, 2).all()
    (whole,) = ranker.plan()
    assert whole.status == "optimal" and "Quotas(k=12, 10 groups by town)" in whole.program
    assert whole.value == pytest.approx(chosen["score"].sum())
    if ranker.ranker_.is_probabilistic:
        assert plan["chance_top_k"].sum() == pytest.approx(12)
    # BPR_C: against the best plan under the same quotas.
    test = panel(T, T + 1)
    own = ranker.program_.for_sites("test", SITES) or ranker.program_
    y = torch.as_tensor(Y[T]).double()
    scores = torch.as_tensor(quietly(lambda: ranker.site_scores(test))[0]).double()
    assert quietly(lambda: ranker.score(test)) == pytest.approx(
        float((own.best(scores) * y).sum() / own.best_reach(y)), abs=1e-6
    )
    path = tmp_path / "model.pt"
    ranker.save(path)
    again = tr.TopKRanker.load(path)
    pd.testing.assert_frame_equal(again.rank(), plan)
    assert again.program_.config() == ranker.program_.config()
    # A table in another order, and another program.
    other = panel(0, T + 1, sites=list(range(S))[::-1])
    same = quietly(lambda: again.rank(other, periods_ahead=1))
    newer = quietly(lambda: again.rank(panel(0, T + 1), periods_ahead=1))
    pd.testing.assert_frame_equal(
        same.sort_values("site", ignore_index=True).drop(columns="rank"),
        newer.sort_values("site", ignore_index=True).drop(columns="rank"),
    )
    free = ranker.with_program(12).plan()[0]
    assert free.value >= whole.value - 1e-9


@pytest.mark.parametrize("crossing", [False, pytest.param(True, marks=needs_highs)])
def test_several_groupings_train_and_repeat(crossing):
    """Nested and crossing ones by perturbation, seeded."""
    second = [f"r{i % 10 // 4}" if not crossing else f"r{i // 15}" for i in range(S)]
    both = pd.DataFrame({"town": TOWNS, "region": second})
    program = Quotas(12, both, lower={"town": 1, "region": 2})
    assert program.crosses == crossing
    options = {"model": "linear", "objective": "bpr", "window": 2, "num_samples": 4}
    ranker, again = (fitted(program, max_epochs=1, **options) for _ in range(2))
    plan = quietly(ranker.rank)
    pd.testing.assert_frame_equal(plan, quietly(again.rank))
    chosen = both.loc[plan[plan["selected"]]["site"]]
    assert chosen["town"].nunique() == 10 and chosen["region"].value_counts().min() >= 2


def test_objectives_follow_the_quotas():
    """SPO+ and PG, by enumeration of the plans allowed."""
    rng = np.random.default_rng(0)
    program = Quotas(3, list("aaabbb"), lower=1, upper=2)
    every = [
        plan for plan in itertools.combinations(range(6), 3) if 1 <= sum(i < 3 for i in plan) <= 2
    ]
    r, y = rng.normal(2, 2, 6), rng.gamma(1.0, 3.0, 6)
    top = lambda v: max(v[list(plan)].sum() for plan in every)  # noqa: E731
    best = max(every, key=lambda plan: y[list(plan)].sum())
    loss, _ = _C.spo_plus(torch.as_tensor(r)[None], torch.as_tensor(y)[None], program)
    expected = top(2 * r - y) - 2 * r[list(best)].sum() + y[list(best)].sum()
    assert loss.item() == pytest.approx(expected)
    h = 0.4
    loss, _ = _C.perturbation_gradient(
        torch.as_tensor(r)[None], torch.as_tensor(y)[None], program, sigma=h
    )
    assert loss.item() == pytest.approx(-(top(r) - top(r - h * y)) / h)


def test_a_file_of_an_impossible_quota_is_refused(tmp_path):
    ranker = fitted(Quotas(12, TOWNS, lower=1))
    file = ranker.ranker_.file(True)
    assert file.program["config"]["sites"] == SITES
    with pytest.raises(ValueError, match="a group for each of S = 40 sites"):
        file.set_program(Quotas(2, ["a", "b"]))
        _C.Ranker(file)


class Guess(tr.programs.Program):
    """A heuristic: the first K sites."""

    def name(self):
        return "Guess"

    def config(self):
        return {"text": "a", "list": [1.0, 2.0], "names": ["x"]}

    def size(self):
        return 3

    def check(self, function, sites):
        pass

    def best(self, values):
        mask = torch.zeros_like(values)
        mask[..., :3] = 1
        return mask

    def solve(self, values):
        plan = self.best(values)
        return tr.programs.Solution(plan, float(values[:3].sum()), status="heuristic")


def test_a_heuristic_is_called_one():
    program = Guess()
    assert "text='a', list=[1, 2], names=['x']" in _C.Program.describe(program)
    ranker = fitted(program)
    with pytest.warns(tr.ranking.RankerNote, match="is 'heuristic': how far it is"):
        (plan,) = ranker.plan()
    assert plan.status == "heuristic" and plan.bound is None


# ---- effects -------------------------------------------------------------------------------------


def test_effect_weighs_values_scores_and_counts():
    effect = torch.tensor([1.0, 0.1, 0.5, 0.0, 0.9], dtype=DOUBLE)
    r = torch.tensor([1.0, 9.0, 3.0, 8.0, -math.inf], dtype=DOUBLE)
    y = torch.tensor([2.0, 4.0, 5.0, 1.0, 3.0], dtype=DOUBLE)
    program = with_effect(2, effect)
    assert program.best(r).tolist() == [1, 0, 1, 0, 0]
    assert program.solve(r).value == pytest.approx(2.5)
    assert program.best_reach(y) == pytest.approx(2.7 + 2.5)
    assert program.bpr(r, y) == pytest.approx((2 + 2.5) / (2.7 + 2.5))
    inner = TopK(2)
    v = r[:4].clone().requires_grad_()
    four = with_effect(2, effect[:4])
    soft = four.soft(v, 0.5)
    assert torch.equal(soft, inner.soft(v * effect[:4], 0.5))
    assert four.soft_bpr(soft, y[:4]).item() == pytest.approx(
        float((soft * effect[:4] * y[:4]).sum() / four.best_reach(y[:4]))
    )
    grad = torch.autograd.grad((soft * y[:4]).sum(), v, retain_graph=True)[0]
    assert grad[3] == 0 and grad.isfinite().all()
    again = _C.make_program(program.name(), program.config())
    assert isinstance(again, tr.programs.WithEffect) and again.config() == program.config()
    assert again.describe() == "TopK(k=2, by effect)"
    for bad in ([-1.0] * 5, [math.nan] * 5, []):
        with pytest.raises(ValueError, match="effect must"):
            with_effect(2, bad)


@pytest.mark.parametrize("inner", [K, Quotas(12, TOWNS, lower=1)])
def test_effects_through_the_ranker(inner, tmp_path):
    effect = pd.Series(np.random.default_rng(2).uniform(0, 1, S), index=SITES)
    ranker = fitted(with_effect(inner, effect.sample(frac=1, random_state=3)))
    plan = ranker.rank()
    plain = fitted(K).rank().set_index("site")
    ordered = plan.set_index("site")
    np.testing.assert_allclose(
        ordered["score"], (plain["score"] * effect)[ordered.index], rtol=1e-6
    )
    assert plan["score"].is_monotonic_decreasing
    chosen = plan[plan["selected"]]
    best = (inner if isinstance(inner, Quotas) else TopK(inner)).best(
        torch.as_tensor(ordered["score"][SITES].to_numpy())
    )
    assert set(chosen["site"]) == {SITES[i] for i in best.nonzero().flatten().tolist()}
    ranker.save(tmp_path / "m.pt")
    pd.testing.assert_frame_equal(tr.TopKRanker.load(tmp_path / "m.pt").rank(), plan)
    assert 0 < quietly(lambda: ranker.score(panel(T, T + 1))) <= 1


def test_effects_on_a_program_of_ones_own():
    effect = np.linspace(0, 1, S)
    ranker = fitted(with_effect(Guess(), effect))
    (plan,) = quietly(ranker.plan)
    assert plan.status == "heuristic" and sorted(plan.selected_ids()) == SITES[:3]
    with pytest.raises(TypeError, match="the program must be one of the library's"):
        ranker.save("nowhere.pt")


def test_effects_train():
    """A scorer trained for events prevented prevents more than one trained for events."""
    effect = pd.Series(np.where(np.arange(S) % 2, 1.0, 0.05), index=SITES)
    program = with_effect(K, effect)
    ranker = fitted(program, model="linear", objective="bpr", window=2, max_epochs=30)
    chosen = quietly(lambda: ranker.rank().query("selected"))["site"]
    assert (effect[chosen] == 1).mean() > 0.8
