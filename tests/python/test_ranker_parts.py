"""The parts of `TopKRanker` by themselves, with models that are fitted at once: the data that a fit
reads, the ranker's notes, and its period."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import topreach as tr
from topreach.forecasters import Needs, as_forecaster
from topreach.objectives import NLL, DecisionAware, DirectBPR
from topreach.ranking import RankerNote, fitting, serving
from topreach.ranking.topk_ranker import TopKRanker

S, T, K = 12, 6, 3
SITES = [f"s{i:02d}" for i in range(S)]
Y = np.random.default_rng(0).poisson(np.random.default_rng(1).gamma(1.0, 3.0, S), (T + 3, S)) * 1.0
NAN = math.nan


def panel(a=0, b=T, y=None, sites=range(S), **options):
    y = Y[a:b] if y is None else np.asarray(y)
    sites = list(sites)
    return tr.Panel(
        np.zeros((b - a, len(sites), 0)), y[:, sites], [SITES[i] for i in sites],
        list(range(2010 + a, 2010 + b)), [], **options,
    )  # fmt: skip


def quietly(call):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()


def notes_of(call):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    return [w for w in found if w.category is RankerNote]


def fit(*panels, k=K, **how):
    return quietly(lambda: TopKRanker(k, progress=False, **how).fit(*panels))


@pytest.fixture(scope="module")
def plain():
    return fit(panel())


class LastCount(torch.nn.Module):
    """Scores by the last count."""

    needs = Needs(features=False, window=1, sites=False, counts=False)
    window = 1
    is_probabilistic = False

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, history):
        return self.scale * history[..., -1]


class LastOfTwo(LastCount):
    needs = Needs(features=False, window=2, sites=False, counts=False)
    window = 2


def scorer(*panels, model=LastCount):
    return fit(*panels, model=model(), max_epochs=1)


# ---- what a fit reads ----------------------------------------------------------------------------


def resolved(**how):
    return TopKRanker(K, **how)._settings()


def test_which_objective_trains():
    for model, first in (("empirical_bayes", "direct"), ("negbin", "daml"), ("linear", "bpr")):
        assert fitting._objective_name(resolved(model=model)) == first
    for name in ("nll", "marginal", "bpr", "daml"):
        assert fitting._objective_name(resolved(model="negbin", objective=name)) == name
    own = NLL()
    assert fitting._objective_name(resolved(objective=own)) is own
    with pytest.raises(ValueError, match="objective must be 'auto'.* got 'mse'"):
        fitting._objective_name(resolved(objective="mse"))
    with pytest.raises(
        TypeError, match="one of 'bpr' for the model 'mlp', got 'nll'. A model that"
    ):
        fitting._objective_name(resolved(model="mlp", objective="nll"))
    with pytest.raises(TypeError, match="for the model 'negbin', got 'direct'.$"):
        fitting._objective_name(resolved(model="negbin", objective="direct"))


def test_the_noise_of_a_choice_is_in_the_unit_of_the_scores():
    """0.4 / S for ratio scores, a tenth of their spread for others; one that is given is theirs."""

    def made(objective="bpr", counts=True, **how):
        needs = Needs(counts=counts)
        return fitting._make_objective(resolved(model="negbin", **how), objective, needs, 40)

    ratio = made()
    assert isinstance(ratio, DirectBPR)
    assert (ratio.sigma, ratio.sigma_unit, ratio.k, ratio.topk) == (0.01, "score", K, "exact")
    for spread in (made(ranking="mean"), made(counts=False)):
        assert (spread.sigma, spread.sigma_unit) == (0.1, "spread")
    given = made(ranking="mean", sigma=0.7, topk="sampled", num_samples=9, model_samples=8)
    assert (given.sigma, given.sigma_unit, given.ranking) == (0.7, "score", "mean")
    assert (given.topk, given.num_samples, given.model_samples) == ("sampled", 9, 8)
    daml = made("daml", epsilon=0.5, weight=3.0)
    assert isinstance(daml, DecisionAware) and (daml.epsilon, daml.weight) == (0.5, 3.0)
    assert isinstance(made("nll"), NLL) and made(ratio) is ratio


def test_which_models_take_suppressed_counts():
    y = np.array(Y[:T])
    hidden = panel(y_upper=y + (y == 1))
    able, unable = Needs(suppressed=True), Needs(suppressed=False)
    number = int((Y[:T] == 1).sum())
    for needs, objective, taken in (
        (able, "marginal", True), (able, "nll", True), (able, NLL(), True), (able, "bpr", False),
        (able, "daml", False), (unable, "nll", False), (unable, NLL(), False),
    ):  # fmt: skip
        for parts in ((hidden, None), (panel(), hidden)):
            if taken:
                fitting._check_suppressed(*parts, needs, objective)
                continue
            with pytest.raises(ValueError, match=f"must have exact counts .*, got {number} that"):
                fitting._check_suppressed(*parts, needs, objective)
        fitting._check_suppressed(panel(), panel(), needs, objective)


def test_a_direct_fit_reads_the_last_periods():
    whole = panel()

    def last(weights, number):
        weights = None if weights is None else torch.tensor(weights)
        read, kept = fitting._last_read(whole, weights, number)
        return read.times, None if kept is None else kept.tolist()

    assert last(None, 2) == ([2014, 2015], None) and last(None, 1) == ([2015], None)
    assert last(None, 99)[0] == list(range(2010, 2016))
    assert last([1.0, 1, 1, 0, 1, 0], 2) == ([2012, 2013, 2014, 2015], [1, 0, 1, 0])
    assert last([1.0, 0, 0, 0, 0, 0], 1)[0] == list(range(2010, 2016))
    nothing = [0.0] * T
    assert last(nothing, 2) == (list(range(2010, 2016)), nothing)
    y = np.array(Y[:T])
    y[-2:] = NAN
    to_come = panel(y=y, counts="optional")
    assert fitting._last_read(to_come, None, 2)[0].times == [2012, 2013, 2014, 2015]


def test_weights_of_cells_that_are_known():
    y = torch.tensor([[1.0, NAN], [2.0, 3.0]])
    weights = torch.tensor([2.0, 5.0])
    assert fitting._known_weights(y, weights).tolist() == [[2, 0], [5, 5]]
    assert fitting._known_weights(y, None).tolist() == [[1, 0], [1, 1]]
    known = torch.ones(2, 2)
    assert fitting._known_weights(known, weights) is weights
    assert fitting._known_weights(known, None) is None and weights.tolist() == [2, 5]


def test_the_exposure_of_the_past():
    """A panel's own, else of the earlier one, else of the nearest period before, else after."""
    people = np.arange(1.0, 1 + T * S).reshape(T, S)
    earlier = panel(1, 3, exposure=people[1:3])
    later = panel(4, 6, exposure=people[4:6]).with_history(panel(0, 4))
    found = fitting.timeline_exposure(later, earlier).numpy()
    np.testing.assert_array_equal(found, people[[1, 1, 2, 2, 4, 5]])
    without = panel(4, 6).with_history(panel(0, 4))
    np.testing.assert_array_equal(
        fitting.timeline_exposure(without, earlier).numpy(), people[[1, 1, 2, 2, 2, 2]]
    )
    mixed = panel(1, 3, sites=range(S)[::-1], exposure=people[1:3, ::-1].copy())
    np.testing.assert_array_equal(fitting.timeline_exposure(later, mixed).numpy(), found)
    both = panel(3, 6, exposure=10 * people[3:6])
    np.testing.assert_array_equal(
        fitting.timeline_exposure(both, panel(0, T, exposure=people)).numpy(), 10 * people[3:6]
    )


def test_the_default_model_learns_from_validation_periods_too():
    """As from one panel; with weights, the validation periods count fully."""
    whole = fit(panel(0, T + 1))
    parts = fit(panel(0, T - 1), panel(T - 1, T + 1))
    np.testing.assert_allclose(parts.predict(), whole.predict(), rtol=1e-5)
    assert parts.ranker_.file(True).fitted_times == [2010.0 + t for t in range(T + 1)]
    assert parts.last_period_ == whole.last_period_ == str(2010 + T)
    weights = [0.0, 0.5, 2.0, 1.0, 3.0]
    weighted = fit(panel(0, T - 1), panel(T - 1, T + 1), time_weights=weights)
    same = fit(panel(0, T + 1), time_weights=[*weights, 1.0, 1.0])
    np.testing.assert_allclose(weighted.predict(), same.predict(), rtol=1e-4)
    assert not np.allclose(weighted.predict(), whole.predict(), rtol=1e-3)
    seen = []
    fit(panel(), time_weights=lambda times: seen.append(times.tolist()) or torch.ones(T))
    assert seen == [[2010.0 + t for t in range(T)]]


def test_time_is_scaled_by_the_fitted_periods():
    ranker = fit(panel())
    years = np.arange(2010, 2010 + T)
    assert ranker.time_origin_ == pytest.approx(years.mean())
    assert ranker.time_scale_ == pytest.approx(years.std())
    assert fit(panel(0, 1)).time_scale_ == 1.0


def test_validation_with_and_without_exposure():
    people = np.ones((T + 1, S))
    pairs = (
        (panel(exposure=people[:T]), panel(T, T + 1)),
        (panel(), panel(T, T + 1, exposure=people[:1])),
    )
    for pair in pairs:
        with pytest.raises(ValueError, match="valid must have an exposure if panel has one"):
            fit(*pair)
    ranker = fit(panel(exposure=people[:T]), panel(T, T + 1, exposure=people[:1]))
    assert ranker.uses_exposure_ and not fit(panel()).uses_exposure_
    unused = scorer(panel(exposure=people[:T])).notes_
    assert "makes no use of the exposure" in unused[0] and not scorer(panel()).uses_exposure_


def test_what_a_fit_notes(tmp_path):
    """A checkpoint is for training by steps; a path of sites for the marginal likelihood."""
    told = TopKRanker(K, checkpoint=tmp_path / "c", progress=False)
    assert any(
        "checkpoint is not used" in note for note in quietly(lambda: told.fit(panel())).notes_
    )
    assert not any("checkpoint" in note for note in fit(panel()).notes_)
    stepwise = fit(panel(), model=LastCount(), max_epochs=1, checkpoint=tmp_path / "c")
    assert not any("checkpoint" in note for note in stepwise.notes_)
    with pytest.raises(ValueError, match="site_path must be None for training by steps, got 'ar1'"):
        fit(panel(), model="negbin", objective="nll", site_path="ar1")


class Backwards(LastCount):
    """The fewer events, the better."""

    def forward(self, history):
        return -self.scale * history[..., -1]


def test_a_model_worse_than_the_mean_of_the_past_is_said():
    """Of the validation periods, if there are any."""

    def said(*panels, model):
        notes = fit(*panels, model=model(), max_epochs=1, lr=1e-6).notes_
        return [note for note in notes if "the mean of past counts reaches" in note]

    (training,) = said(panel(), model=Backwards)
    assert training.startswith("In the training periods ")
    (validation,) = said(panel(), panel(T, T + 2), model=Backwards)
    assert validation.startswith("In the validation periods ")


def test_each_stage_of_training_starts_from_the_models_own_fit():
    """With a step of next to nothing, decision-aware training leaves that fit as it is."""
    parts, test = (panel(0, T), panel(T, T + 1)), panel(T, T + 2)
    how = {"max_epochs": 1, "warm_start_epochs": 2, "lr": 1e-9, "validate_every": 1}
    daml, nll = (fit(*parts, objective=o, **how) for o in ("daml", "nll"))
    assert daml.warm_start_ is not None and nll.warm_start_ is None
    expected = quietly(lambda: nll.predict(test))
    np.testing.assert_allclose(quietly(lambda: daml.predict(test)), expected, rtol=1e-4)
    other = fit(*parts, model="negbin", objective="daml", **how)
    assert other.warm_start_ is not None and other.trainer_ is not other.warm_start_
    assert fit(parts[0], objective="daml", **how).warm_start_ is None  # nothing to validate on
    for epochs in (0, 1):
        begun = fit(*parts, objective="daml", **how | {"warm_start_epochs": epochs}).warm_start_
        assert len(begun.history_ if begun is not None else []) == epochs


def test_a_seed_is_of_one_fit_alone():
    fits = [fit(panel(), model="linear", window=1, max_epochs=1, seed=s) for s in (3, 3, 4)]
    values = [f.model_.state_dict() for f in fits]
    same = [all(torch.equal(values[0][n], v[n]) for n in v) for v in values]
    assert same == [True, True, False]
    state = torch.get_rng_state()
    fit(panel())
    assert torch.equal(torch.get_rng_state(), state)


def test_what_can_be_fitted_to():
    for given in (pd.DataFrame(), None, [1]):
        with pytest.raises(TypeError, match="TopKRanker.fit: panel must be a Panel, got"):
            TopKRanker(K).fit(given)
        if given is not None:
            with pytest.raises(TypeError, match="TopKRanker.fit: valid must be a Panel, got"):
                TopKRanker(K).fit(panel(), given)
    with pytest.raises(
        TypeError, match="panel must be Events for the model 'stemmed', got a Panel"
    ):
        TopKRanker(K, model="stemmed").fit(panel())
    table = pd.DataFrame({"day": ["2024-01-05", "2024-02-09"], "town": ["A", "B"]})
    events = tr.Events.from_frame(table, time="day", place="town", window=("2024-01", "2024-03"))
    with pytest.raises(TypeError, match="Panel for the model 'empirical_bayes', got Events. Pass"):
        TopKRanker(1).fit(events)
    for how in ({"valid": panel()}, {"resume": True}):
        with pytest.raises(ValueError, match="valid and resume must not be given with events"):
            TopKRanker(1, model="stemmed").fit(events, **how)


# ---- what a ranker says --------------------------------------------------------------------------


def test_the_median_is_the_least_count_with_a_chance_of_one_half(plain):
    median = plain.predict(kind="median")
    forecast = plain.predict_distribution()
    below = forecast.cdf(torch.tensor(median) - 1).numpy()
    at = forecast.cdf(torch.tensor(median)).numpy()
    assert (at >= 0.5 - 1e-6).all() and (below < 0.5)[median > 0].all() and median.any()
    np.testing.assert_array_equal(plain.predict(), plain.predict(kind="mean"))
    assert plain.predict().shape == (1, S) and plain.predict(panel(T, T + 2)).shape == (2, S)
    with pytest.raises(ValueError, match="kind must be 'mean' or 'median', got 'mode'"):
        plain.predict(kind="mode")


def test_scores_are_shares_of_what_is_possible(plain):
    test = panel(T, T + 2)
    scores = quietly(lambda: plain.site_scores(test))
    shares = [
        y[np.argsort(-row)[:K]].sum() / np.sort(y)[-K:].sum()
        for row, y in zip(scores, Y[T : T + 2], strict=True)
    ]
    assert quietly(lambda: plain.score(test)) == pytest.approx(np.mean(shares))
    repeats = quietly(lambda: plain.score_repeats(test, 4))
    assert repeats.tolist() == [quietly(lambda: plain.score(test))] * 4  # nothing is drawn
    other = panel(T, T + 2, sites=[*range(1, S), 0])
    assert quietly(lambda: plain.score(other)) == pytest.approx(np.mean(shares))


def test_repeats_draw_as_many_as_they_are_told():
    ranker = fit(panel(), ranking="ratio", rank_samples=3)
    test = panel(T, T + 1)
    few, same, many = (
        quietly(lambda n=n: ranker.score_repeats(test, 60, samples=n)) for n in (None, 3, 500)
    )
    assert few.shape == (60,) and (few == same).all() and many.std() < few.std()
    assert len(set(few.tolist())) > 3


def test_repeats_leave_closed_sites_out():
    """The site with most events is closed when the test begins: it takes none of the K places."""
    best = int(np.argmax(Y[:T].sum(0)))
    y, closed = Y.copy(), np.full(S, NAN)
    y[T:, best], closed[best] = NAN, 2010 + T - 1
    ranker = fit(panel(closed=closed), ranking="ratio", rank_samples=3000)
    test = panel(T, T + 1, y=y[T : T + 1], closed=closed)
    shares = quietly(lambda: ranker.score_repeats(test, 4))
    order = [s for s in np.argsort(-Y[:T].sum(0)) if s != best]
    reach = y[T, order[:K]].sum() / np.sort(y[T, order])[-K:].sum()
    np.testing.assert_allclose(shares, reach, rtol=1e-6)


def test_which_panels_are_scored(plain):
    blank = np.array(Y[T : T + 2])
    blank[1] = NAN
    with pytest.raises(ValueError, match="score: panel must have counts for all its periods"):
        plain.score(panel(T, T + 2, y=blank, counts="optional"))
    y = Y[T : T + 1]
    with pytest.raises(ValueError, match=f"exact counts, got {int((y > 5).sum())} that are only"):
        plain.score(panel(T, T + 1, y_upper=y + (y > 5)))
    for method in ("score", "score_repeats", "site_scores", "rank", "plan", "predict"):
        with pytest.raises(
            TypeError, match=f"TopKRanker.{method}: panel must be a Panel, got list"
        ):
            getattr(plain, method)([1])
    for wrong in (True, 1.5, "1"):
        with pytest.raises(TypeError, match="periods_ahead must be a whole number >= 1"):
            plain.rank(periods_ahead=wrong)


def test_periods_whose_last_counts_are_not_known_are_left_out():
    ranker = scorer(panel(0, 4), model=LastOfTwo)
    bare = panel(T, T + 3)  # nothing is known before
    found = []
    notes = notes_of(lambda: found.append(ranker.rank(bare)))
    assert set(found[0]["time"]) == {2018}
    assert any("2016 to 2017 left out: the counts before are not" in str(n.message) for n in notes)
    one = scorer(panel(0, 4))
    notes = notes_of(lambda: found.append(one.rank(bare)))
    assert set(found[1]["time"]) == {2017, 2018}
    assert any(str(n.message).startswith("2016 left out") for n in notes)
    with pytest.raises(ValueError, match="for the model reads them"):
        one.rank(panel(T, T + 1))
    with pytest.raises(ValueError, match="for the model reads them"):
        scorer(panel(0, 4), model=LastOfTwo).rank(panel(T, T + 1), periods_ahead=1)


def test_notes_are_said_at_the_callers_line(plain):
    """Once each, with a capital letter; by `rank` for its plans, by others for their inputs."""
    for call in (
        lambda: plain.rank(panel(T - 1, T)),
        lambda: plain.plan(panel(T - 1, T)),
        lambda: plain.site_scores(panel(T - 1, T)),
        lambda: plain.score(panel(T - 1, T)),
    ):
        notes = notes_of(call)
        texts = [str(n.message) for n in notes]
        assert len(set(texts)) == len(texts) and any("has learned from '2015'" in t for t in texts)
        assert all(
            n.filename == __file__ and t[0].isupper() for n, t in zip(notes, texts, strict=True)
        )
    assert notes_of(plain.rank) == []


def test_a_number_for_another_program(plain):
    assert plain.rank(k=5)["selected"].sum() == 5
    assert plain.with_program(2).k == 2 and plain.with_program(2).rank()["selected"].sum() == 2
    groups = pd.Series(["a", "b"] * (S // 2), SITES)
    under = fit(panel(), k=tr.programs.Quotas(K, groups[::-1], lower=1))
    for k in (2, True, "2"):
        with pytest.raises(ValueError, match="k must be a program.*would drop its constraints"):
            under.rank(k=k)
    assert under.rank(k=tr.programs.TopK(2))["selected"].sum() == 2
    other = plain.with_program(tr.programs.Quotas(4, groups[::-1], lower=2))
    assert other.program_.sites == SITES and other.rank()["selected"].sum() == 4
    assert under.with_program(2).k == 2


# ---- files ---------------------------------------------------------------------------------------


def test_a_loaded_ranker_knows_what_the_file_says(plain, tmp_path):
    plain.save(tmp_path / "m.pt")
    loaded = TopKRanker.load(tmp_path / "m.pt")
    assert (loaded.k, loaded.model, loaded.settings) == (
        K,
        "empirical_bayes",
        {"rank_samples": 1000},
    )
    assert loaded.interrupted_ is False and loaded.notes_ == [] and loaded.ranking_ == "exact"
    for name in ("trainer_", "warm_start_", "history_", "best_epoch_", "best_score_"):
        assert getattr(loaded, name) is None and getattr(plain, name) is None
    assert loaded.site_ids_ == SITES and loaded.n_features_in_ == 0 == len(loaded.feature_names_in_)
    assert (loaded.last_period_, loaded.uses_exposure_) == (str(2009 + T), False)
    assert not loaded.model_.training and loaded.site_history_ is not None
    mean = fit(panel(), ranking="mean", rank_samples=7)
    mean.save(tmp_path / "m.pt")
    again = TopKRanker.load(tmp_path / "m.pt")
    assert again.ranking == "mean" and again.settings["rank_samples"] == 7
    steps = fit(panel(), model="linear", window=2, max_epochs=1)
    steps.save(tmp_path / "m.pt")
    scores = TopKRanker.load(tmp_path / "m.pt")
    assert (scores.ranking, scores.ranking_, scores.settings["window"]) == (None, "score", 2)
    assert scores.site_history_ is None and steps.interrupted_ is False
    assert steps.best_epoch_ == 1 and len(steps.history_) == 1


def test_tables_within_tables_are_written_as_text():
    state = {"a": {"x": [1, 2]}, "b": "text", "c": 3, "d": "json"}
    flat = serving._flat(state)
    assert flat == state | {"a": 'json:{"x": [1, 2]}'} and serving._nested(flat) == state


def test_what_is_known_of_the_past(plain):
    """Counts, the least and the most that they can be, and periods without any are no rows."""
    file = plain.ranker_.file(True)
    assert file.past_times == [2010.0 + t for t in range(T)]
    np.testing.assert_array_equal(file.past_counts.numpy(), Y[:T].astype(np.float32))
    assert file.past_upper is None and file.past_exposure is None
    y = np.array(Y[:T])
    y[:, 0], closed = NAN, np.full(S, NAN)
    y[0, 0], closed[0] = 1.0, 2010
    closing = fit(panel(y=y, closed=closed))
    file = closing.ranker_.file(True)
    np.testing.assert_array_equal(np.array(file.closed), closed)
    assert file.past_times == plain.ranker_.file(True).past_times  # known but for one site
    np.testing.assert_array_equal(file.past_counts.numpy()[:, 1:], Y[:T, 1:].astype(np.float32))
    hidden = panel(T, T + 1, y_upper=Y[T : T + 1] + 1)
    for reads_the_past in (plain, scorer(panel())):
        with pytest.raises(ValueError, match=f"exact counts for this model, got {S} that are"):
            reads_the_past.rank(hidden)
    by_site = fit(panel(), model="negbin", objective="nll", max_epochs=1)
    assert quietly(lambda: by_site.rank(hidden))["selected"].sum() == K  # it reads no counts


def test_only_what_the_library_has_is_in_a_file():
    from topreach.ranking.serving import is_library_program

    class Own(tr.programs.Program):
        def name(self):
            return "Own"

        def config(self):
            return {}

    assert is_library_program(tr.programs.TopK(2))
    assert is_library_program(tr.programs.Quotas(1, ["a"]))
    assert not is_library_program(Own())
    assert not is_library_program(tr.programs.with_effect(Own(), [1.0]))
    assert as_forecaster("linear", {"window": 3}) == replace(as_forecaster("linear", {}), window=3)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([1.0, 1.0, 1.0], ValueError, rf"must have shape \[{T}\].*got \[3\]"),
        ([1.0] * (T + 1), ValueError, "must have shape"),
        ([1.0] * (T - 1) + [float("nan")], ValueError, "must be finite, >= 0 and not all 0"),
        ([-1.0] * T, ValueError, "must be finite"),
        ([0.0] * T, ValueError, "must be finite, >= 0 and not all 0"),
        ("late", TypeError, "must be numbers, or a function that gives them, got str"),
    ],
    ids=str,
)
@pytest.mark.parametrize("how", [{}, {"model": "linear", "window": 2, "max_epochs": 1}], ids=str)
def test_wrong_weights_are_refused_for_every_model(how, weights, error, message):
    with pytest.raises(error, match=f"TopKRanker.fit: time_weights {message}"):
        fit(panel(), time_weights=weights, **how)


def test_weights_are_those_of_the_panels_periods_whatever_the_window():
    """A model that reads W past counts leaves the first W periods out, and their weights."""
    some = [1.0] * (T - 1) + [3.0]
    states = []
    for first in (1.0, 100.0):
        how = {"model": "linear", "window": 2, "max_epochs": 2}
        made = fit(panel(), time_weights=[first, first, *some[2:]], **how)
        states.append(made.model_.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
