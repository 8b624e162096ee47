"""A plan for the next period, and tables that add to the counts that the ranker knows.

Invariants: the plan depends on the known counts, not on how they were given (whole table, only the
new periods, in another order of sites). Errors name contradictions. Notes name unknown counts.
"""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import topreach as tr
from topreach.ranking import RankerNote

S, T, K = 40, 8, 5
SITES = [f"s{i:02d}" for i in range(S)]
KINDS = {
    "empirical_bayes": {},
    "negbin": {"objective": "nll", "max_epochs": 20},
    "marginal": {"model": "negbin", "objective": "marginal"},
    "linear": {"window": 2, "max_epochs": 20},
    "mlp": {"window": 2, "max_epochs": 20},
    "poisson_mixture": {"objective": "nll", "max_epochs": 20},
    "normal_mixture": {"objective": "nll", "max_epochs": 20},
}


def counts(seed=0, periods=T + 3, scale=3.0):
    rng = np.random.default_rng(seed)
    return rng.poisson(rng.gamma(1.0, scale, S), (periods, S)).astype(np.float32)


Y = counts()


def times(a, b, kind="number"):
    if kind == "number":
        return list(range(2010 + a, 2010 + b))
    quarters = pd.period_range("2010Q1", periods=b, freq="Q")
    return [str(q) for q in quarters[a:]]


def panel(a, b, kind="number", **options):
    return tr.Panel(np.zeros((b - a, S, 0)), Y[a:b], SITES, times(a, b, kind), [], **options)


FITTED = {}


def fitted(name, kind="number"):
    if (name, kind) not in FITTED:
        settings = {"model": name, "progress": False, "rank_samples": 100} | KINDS[name]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            FITTED[name, kind] = tr.TopKRanker(K, **settings).fit(panel(0, T, kind))
    return FITTED[name, kind]


def quietly(call):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()


@pytest.mark.parametrize("name", KINDS)
def test_next_period_without_a_table(name):
    """rank() plans for the period after the last known one, which the calendar names. A table with
    only that period's rows, and blank counts, gives the same plan."""
    ranker = fitted(name)
    plan = ranker.rank()
    assert set(plan["time"]) == {2010 + T} and plan["selected"].sum() == K
    blank = tr.Panel(
        np.zeros((1, S, 0)), np.full((1, S), np.nan), SITES, [2010 + T], [], counts="optional"
    )
    pd.testing.assert_frame_equal(plan, quietly(lambda: ranker.rank(blank)))
    pd.testing.assert_frame_equal(plan, quietly(lambda: ranker.rank(periods_ahead=1)))


def test_the_calendar_names_the_period():
    assert set(fitted("empirical_bayes", "quarters").rank()["time"]) == {"2012Q1"}
    later = quietly(lambda: fitted("empirical_bayes", "quarters").rank(periods_ahead=3))
    assert set(later["time"]) == {"2012Q3"}


@pytest.mark.parametrize("name", KINDS)
def test_the_plan_depends_on_what_is_known_alone(name):
    """Period T + 1, with period T's counts known: from the whole table, from a part of it, from
    the two new periods, from the new one with the other as its history, and with sites in another
    order."""
    ranker = fitted(name)
    whole = panel(0, T + 2).select_times([2010 + T + 1])
    part = panel(T - 3, T + 2).select_times([2010 + T + 1])
    short = panel(T, T + 2).select_times([2010 + T + 1])
    order = np.random.default_rng(1).permutation(S)
    mixed = tr.Panel(
        np.zeros((2, S, 0)),
        Y[T : T + 2][:, order],
        [SITES[i] for i in order],
        times(T, T + 2),
        [],
    ).select_times([2010 + T + 1])
    expected = quietly(lambda: ranker.rank(whole))
    for table in (part, short, mixed):
        found = quietly(lambda table=table: ranker.rank(table))
        if name in ("linear", "mlp"):  # equal scores keep the table's order of sites
            found = found.drop(columns=["rank", "selected"])
            expected = expected[list(found.columns)]
        pd.testing.assert_frame_equal(
            expected.sort_values("site", ignore_index=True),
            found.sort_values("site", ignore_index=True),
            rtol=1e-5,
        )
    # The same by periods_ahead, from a table that ends before.
    ahead = quietly(lambda: ranker.rank(panel(T, T + 1), periods_ahead=1))
    pd.testing.assert_frame_equal(expected, ahead[list(expected.columns)])


def test_newest_counts_matter():
    """Counts since the fit change the default model's plan: it is not that of the fit's own
    past."""
    ranker = fitted("empirical_bayes")
    old = ranker.rank(periods_ahead=1).set_index("site")["expected_count"]
    new = ranker.rank(panel(T, T + 1), periods_ahead=1).set_index("site")["expected_count"]
    assert not np.allclose(old, new[old.index])


def test_a_period_already_learnt_says_so_and_uses_its_past():
    """Ranking the last fitted period from its rows alone uses the periods before it, and says that
    the model has learned from it."""
    ranker = fitted("empirical_bayes")
    with pytest.warns(RankerNote, match="has learned from '2017'"):
        alone = ranker.rank(panel(T - 1, T))
    whole = quietly(lambda: ranker.rank(panel(0, T).select_times([2010 + T - 1])))
    pd.testing.assert_frame_equal(alone, whole)


def test_far_periods_and_gaps_are_said():
    ranker = fitted("empirical_bayes")
    with pytest.warns(RankerNote, match="2019 is planned from counts up to 2017, 2 periods before"):
        ranker.rank(periods_ahead=2)
    late = tr.Panel(np.zeros((1, S, 0)), Y[T : T + 1], SITES, [2010 + T + 2], [])
    with pytest.warns(RankerNote, match="counts of '2018', '2019' are not known"):
        ranker.rank(late, periods_ahead=1)


@pytest.mark.parametrize("name", ["empirical_bayes", "marginal", "linear"])
def test_another_kind_of_time_is_refused(name):
    dates = [f"{2010 + t}-01-01" for t in range(T, T + 2)]
    other = tr.Panel(np.zeros((2, S, 0)), Y[T : T + 2], SITES, dates, [])
    with pytest.raises(ValueError, match="times must be numbers as in training"):
        fitted(name).rank(other)


def test_counts_that_contradict_are_refused():
    changed = Y[: T + 1].copy()
    changed[3, 7] += 1
    table = tr.Panel(np.zeros((T + 1, S, 0)), changed, SITES, times(0, T + 1), [])
    with pytest.raises(ValueError, match=r"site 's07' in 2013, where it knows"):
        fitted("empirical_bayes").rank(table, periods_ahead=1)


def test_sites_are_checked():
    ranker = fitted("empirical_bayes")
    fewer = tr.Panel(np.zeros((1, S - 1, 0)), Y[T : T + 1, 1:], SITES[1:], [2010 + T], [])
    with pytest.raises(ValueError, match=r"1 site\(s\) that it lacks: 's00'"):
        ranker.rank(fewer)
    other = tr.Panel(np.zeros((1, S, 0)), Y[T : T + 1], [*SITES[1:], "new"], [2010 + T], [])
    with pytest.raises(ValueError, match=r"1 unknown site\(s\) that it does not know: 'new'. Drop"):
        ranker.rank(other)
    other = tr.Panel(np.zeros((1, S, 0)), Y[T : T + 1], ["S 00", *SITES[1:]], [2010 + T], [])
    with pytest.raises(ValueError, match="'S 00'. Did you mean 's00'. Ids are compared as text"):
        ranker.rank(other)


def test_absent_lags_are_no_zeros():
    """A scorer reads the counts just before the period: a gap there is an error, not a zero."""
    late = tr.Panel(np.zeros((1, S, 0)), Y[T + 1 : T + 2], SITES, [2010 + T + 1], [])
    with pytest.raises(ValueError, match="the 2 periods before 2019 must have counts"):
        fitted("linear").rank(late)


def features_panel(a, b, blank=False):
    rng = np.random.default_rng(5)
    still, moving = rng.normal(size=S), rng.normal(size=(T + 3, S))
    x = np.stack([np.broadcast_to(still, (b - a, S)), moving[a:b]], -1)
    y = np.full((b - a, S), np.nan) if blank else Y[a:b]
    return tr.Panel(x, y, SITES, times(a, b), ["still", "moving"], counts="optional")


@pytest.mark.parametrize("name", ["negbin", "marginal", "linear"])
def test_missing_features_of_the_next_period_are_named(name):
    settings = {"model": name, "progress": False, "rank_samples": 50} | KINDS[name]
    ranker = quietly(lambda: tr.TopKRanker(K, **settings).fit(features_panel(0, T)))
    with pytest.raises(ValueError, match=r"features of 2018 must be given.*got none of 'moving'"):
        ranker.rank()
    plan = quietly(lambda: ranker.rank(features_panel(T, T + 1, blank=True)))
    again = quietly(lambda: ranker.rank(features_panel(T, T + 1, blank=True), periods_ahead=1))
    pd.testing.assert_frame_equal(plan, again)


@pytest.mark.parametrize("settings", [{}, {"model": "negbin", "objective": "marginal"}])
def test_exposure_of_the_next_period(settings):
    """Expected counts follow the exposure of the period. Without one, that of the last period is
    used, with a note."""
    people = np.random.default_rng(2).uniform(500, 5000, S).astype(np.float32)
    exposure = np.broadcast_to(people, (T, S)).copy()
    ranker = quietly(
        lambda: tr.TopKRanker(K, progress=False, **settings).fit(panel(0, T, exposure=exposure))
    )
    with pytest.warns(RankerNote, match="exposure of '2018' is taken as that of 2017"):
        same = ranker.rank().set_index("site")["expected_count"]
    double = tr.Panel(
        np.zeros((1, S, 0)),
        np.full((1, S), np.nan),
        SITES,
        [2010 + T],
        [],
        counts="optional",
        exposure=2 * exposure[:1],
    )
    twice = quietly(lambda: ranker.rank(double)).set_index("site")["expected_count"]
    np.testing.assert_allclose(twice[same.index], 2 * same, rtol=2e-3)


def test_a_closed_site_is_never_chosen():
    best = int(np.argmax(Y[:T].sum(0)))
    closed = np.full(S, np.nan)
    closed[best] = 2010 + T - 1
    ranker = quietly(lambda: tr.TopKRanker(K, progress=False).fit(panel(0, T, closed=closed)))
    with pytest.warns(RankerNote, match=f"not open are left out: '{SITES[best]}'"):
        plan = ranker.rank().set_index("site")
    row = plan.loc[SITES[best]]
    assert not row["selected"] and row["expected_count"] == 0 and row["chance_top_k"] == 0
    assert plan["selected"].sum() == K


def ratio_by_sums(probabilities):
    """E[y_s / sum of y] of independent counts, by the distribution of the others' sum;
    probabilities [S, N]."""
    ratios = []
    for s, own in enumerate(probabilities):
        law = np.ones(1)
        for other in np.delete(probabilities, s, axis=0):
            law = np.convolve(law, other)
        y, rest = np.arange(len(own))[:, None], np.arange(len(law))[None]
        share = np.divide(y, y + rest, out=np.zeros((len(own), len(law))), where=y + rest > 0)
        ratios.append(own @ share @ law)
    return np.array(ratios)


@pytest.mark.parametrize(
    ("name", "ranking"),
    [
        ("empirical_bayes", "exact"),
        ("empirical_bayes", "ratio"),
        ("negbin", "exact"),
        ("poisson_mixture", "exact"),
    ],
)
def test_events_of_a_closed_site_are_not_in_the_denominator(name, ranking):
    """The site with most events closes: the shares of the others grow, and are those that the law
    of their own sum gives."""
    few = np.argsort(-Y[:T].sum(0))[:6]
    closed = np.full(6, np.nan)
    closed[0] = 2010 + T - 1
    of_few = tr.Panel(
        np.zeros((T, 6, 0)), Y[:T][:, few], [SITES[s] for s in few], times(0, T), [], closed=closed
    )
    settings = {"model": name, "progress": False, "ranking": ranking} | KINDS[name]
    ranker = quietly(lambda: tr.TopKRanker(2, rank_samples=20_000, **settings).fit(of_few))
    plan = quietly(ranker.rank).set_index("site").loc[of_few.site_ids]
    values = torch.arange(120.0)[:, None].expand(-1, 6)[:, None]
    probability = quietly(ranker.predict_distribution).site_log_prob(values).exp()
    probability = probability.detach()[:, 0].T
    expected = ratio_by_sums(probability[1:].double().numpy())
    assert probability.sum(1).min() > 1 - 1e-6
    near = {"rtol": 1e-5} if ranking == "exact" else {"atol": 4 * 0.5 / np.sqrt(20_000)}
    np.testing.assert_allclose(plan["score"].to_numpy()[1:], expected, **near)
    assert plan["score"].iloc[0] == -np.inf


def test_a_failed_refit_leaves_the_old_ranker_whole():
    ranker = quietly(lambda: tr.TopKRanker(K, progress=False).fit(panel(0, T)))
    before = ranker.rank()
    ranker.set_params(k=S + 1)
    with pytest.raises(ValueError, match="k must be at most the number of sites"):
        ranker.fit(panel(0, T + 1))
    pd.testing.assert_frame_equal(ranker.rank(), before)  # set_params counts at the next fit


def test_another_k_at_once():
    ranker = fitted("empirical_bayes")
    assert ranker.rank(k=3)["selected"].sum() == 3
    assert ranker.with_program(2).rank()["selected"].sum() == 2
    assert ranker.rank(k=np.int64(4))["selected"].sum() == 4
    with pytest.raises(TypeError, match="got True"):
        ranker.rank(k=True)


@pytest.mark.parametrize("name", KINDS)
def test_saved_and_loaded_is_the_same(name, tmp_path):
    ranker = fitted(name)
    ranker.save(tmp_path / "model.pt")
    loaded = tr.TopKRanker.load(tmp_path / "model.pt")
    pd.testing.assert_frame_equal(ranker.rank(), loaded.rank())
    assert loaded.last_period_ == "2017" and loaded.k == K


def test_a_loaded_ranker_is_fitted_anew_as_it_was(tmp_path):
    settings = {"family": "nb2", "zero_inflation": True, "objective": "marginal"}
    ranker = quietly(
        lambda: tr.TopKRanker(K, model="negbin", progress=False, **settings).fit(panel(0, T))
    )
    ranker.save(tmp_path / "model.pt")
    loaded = tr.TopKRanker.load(tmp_path / "model.pt")
    assert loaded.settings["family"] == "nb2" and loaded.settings["zero_inflation"] is True


def test_without_the_past_a_table_is_needed(tmp_path):
    ranker = fitted("empirical_bayes")
    ranker.save(tmp_path / "model.pt", with_past=False)
    loaded = tr.TopKRanker.load(tmp_path / "model.pt")
    with pytest.warns(RankerNote, match="No counts before 2018 are known"):
        loaded.rank()
    again = quietly(lambda: loaded.rank(panel(0, T), periods_ahead=1))
    pd.testing.assert_frame_equal(again, ranker.rank())


def test_no_changed_byte_is_read(tmp_path):
    """Of 300 files with flipped or cut bytes none loads: the digest covers every byte."""
    path = tmp_path / "model.pt"
    fitted("empirical_bayes").save(path)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    loaded = 0
    for i in range(300):
        data = bytearray(good)
        if i % 3 == 0:
            data = data[: rng.integers(0, len(good))]
        for _ in range(rng.integers(1, 4)):
            if len(data) and i % 3:
                data[rng.integers(0, len(data))] ^= 1 << rng.integers(0, 8)
        if bytes(data) == good:
            continue
        path.write_bytes(bytes(data))
        try:
            tr.TopKRanker.load(path)
            loaded += 1
        except ValueError:
            pass
    assert loaded == 0


def test_torch_reads_the_file_as_plain_values(tmp_path):
    fitted("empirical_bayes").save(tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert content["format"] == "topreach-model" and content["format_version"] == 2


# ---- as docs/architecture.md says ----------------------------------------------------------------


class LastCount(torch.nn.Module):
    """A user's forecaster: scores by the last count."""

    needs = tr.models.Needs(features=False, window=1, sites=False, counts=False)
    window = 1

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, history):
        return self.scale * history[..., -1]


def test_a_forecaster_of_ones_own(tmp_path):
    ranker = quietly(
        lambda: tr.TopKRanker(K, model=LastCount(), max_epochs=2, progress=False).fit(panel(0, T))
    )
    plan = ranker.rank()
    best = np.argsort(-Y[T - 1], kind="stable")[:K]
    chosen = set(plan[plan["selected"]]["site"])
    last = Y[T - 1]
    assert all(last[SITES.index(s)] >= last[best[-1]] for s in chosen)
    with pytest.raises(TypeError, match="LastCount"):
        ranker.save(tmp_path / "model.pt")


def test_a_module_that_does_not_say_what_it_needs():
    class Silent(torch.nn.Module):
        def forward(self, history):
            return history[..., -1]

    with pytest.raises(TypeError, match="Silent must say what it needs"):
        tr.TopKRanker(K, model=Silent(), progress=False).fit(panel(0, T))


class OneOfEachPair(tr.programs.Program):
    """A user's program: the better site of each pair (0, 1), (2, 3), ..."""

    def name(self):
        return "OneOfEachPair"

    def config(self):
        return []

    def size(self):
        return 10**6

    def check(self, function, sites):
        if sites % 2:
            raise ValueError(f"{function}: sites must be even in number, got {sites}")

    def best(self, values):
        pairs = values.unflatten(-1, (-1, 2))
        first = (pairs[..., :1] >= pairs[..., 1:]).to(values.dtype)
        return torch.cat([first, 1 - first], -1).flatten(-2)


@pytest.mark.parametrize("model", ["empirical_bayes", "linear"])
def test_a_program_of_ones_own(model, tmp_path):
    """It plans, and by perturbation it trains."""
    program = OneOfEachPair()
    settings = {"topk": "sampled", "num_samples": 20, "max_epochs": 3, "window": 2}
    ranker = quietly(
        lambda: tr.TopKRanker(program, model=model, progress=False, **settings).fit(panel(0, T))
    )
    plan = ranker.rank().set_index("site").loc[SITES]
    chosen = plan["selected"].to_numpy().reshape(-1, 2)
    scores = plan["score"].to_numpy().reshape(-1, 2)
    assert (chosen.sum(1) == 1).all()
    assert (scores[chosen] >= scores[~chosen]).all()
    assert 0 < quietly(lambda: ranker.score(panel(T, T + 1))) <= 1
    with pytest.raises(TypeError, match="OneOfEachPair"):
        ranker.save(tmp_path / "model.pt")


def test_soft_of_a_program_of_ones_own_has_the_gradient_of_its_expectation():
    """Of one pair, E[plan] = Φ((v0 − v1) / (σ √2)): value and gradient, within 4 standard
    errors."""
    values = torch.tensor([[0.3, 0.0]], dtype=torch.float64, requires_grad=True)
    draws = 200_000
    soft = OneOfEachPair().soft(
        values, 0.5, topk="sampled", num_samples=draws, key=torch.tensor([1, 2])
    )
    normal = torch.distributions.Normal(0.0, 1.0)
    z = torch.tensor(0.3 / (0.5 * 2**0.5), dtype=torch.float64)
    p = normal.cdf(z)
    assert abs(soft[0, 0] - p) < 4 * (p * (1 - p) / draws) ** 0.5
    soft[0, 0].backward()
    density = normal.log_prob(z).exp() / (0.5 * 2**0.5)
    # A draw's gradient is (b − mean) z / σ, of variance at most 1 / (4 σ²).
    assert abs(values.grad[0, 0] - density) < 4 * (1 / (4 * 0.25) / draws) ** 0.5
