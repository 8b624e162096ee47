"""TopKRanker: fit, predict, rank, score, save and load, with the interface of scikit-learn."""

import hashlib
import io
import os
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from training_cases import LogLinear, panels

from topreach.data.panel import Panel
from topreach.forecasters import needs_of
from topreach.models import Needs, NegBinMixedEffects
from topreach.objectives import NLL, DecisionAware, DirectBPR
from topreach.programs import TopK
from topreach.ranking import NotFittedError, RankerNote, TopKRanker
from topreach.ranking.fitting import prepare
from topreach.training.trainer import Trainer

TRAIN, VALID = panels(num_times=8, num_sites=20)
QUICK = {
    "model": "negbin",
    "max_epochs": 6,
    "warm_start_epochs": 6,
    "validate_every": 2,
    "num_samples": 10,
    "model_samples": 10,
    "rank_samples": 50,
    "progress": False,
}


def ranker(k=4, **changes):
    return TopKRanker(k, **{**QUICK, **changes})


FITTED = {}


def _share(samples, k):
    return TopK(k).chance(samples)


def batch_of(r, panel):
    """The panel as the fitted model takes it."""
    needs = needs_of(r.model_)
    return prepare(
        panel,
        r.standardizer_,
        r.time_origin_,
        r.time_scale_,
        needs,
        needs.window,
        r.site_history_,
        TRAIN,
        r.uses_exposure_,
    )


def write_model_file(content, path):
    """A model file of this content with the correct digest."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    label = b"topreach-sha256:"
    archive = buffer.getvalue()[:-2] + (len(label) + 64).to_bytes(2, "little")
    path.write_bytes(archive + label + hashlib.sha256(archive).hexdigest().encode())


def fitted(model="negbin", **changes):
    """Fitted once per kind; the tests do not change it."""
    key = (model, *sorted(changes.items()))
    if key not in FITTED:
        FITTED[key] = ranker(model=model, **changes).fit(TRAIN, VALID)
    return FITTED[key]


# ---- the interface of scikit-learn ---------------------------------------------------------------


def test_constructor_stores_arguments_only():
    everything = TopKRanker(3).get_params()
    assert everything["k"] == 3
    assert vars(TopKRanker(3)) == everything | {"settings": {}}
    hidden = [7]
    r = TopKRanker(-5, model="nonsense", hidden=hidden)  # checked in fit, as scikit-learn does
    assert r.get_params()["hidden"] is hidden
    assert r.set_params(model="mlp", k=2) is r and (r.model, r.k) == ("mlp", 2)
    with pytest.raises(TypeError, match="'depth' must be a setting"):
        r.set_params(depth=2)
    assert repr(TopKRanker(5, lr=0.5)) == "TopKRanker(5, lr=0.5)"


def test_clones_as_an_estimator():
    base = pytest.importorskip("sklearn.base", reason="scikit-learn is not installed")
    r = fitted()
    copy = base.clone(r)
    assert copy is not r and not hasattr(copy, "model_")
    left, right = r.get_params(), copy.get_params()
    assert {n: v for n, v in left.items()} == {n: v for n, v in right.items()}


def test_not_fitted():
    for method in ("predict", "rank", "score", "site_scores", "score_repeats"):
        with pytest.raises(NotFittedError, match=f"TopKRanker.{method}: .*Call fit"):
            getattr(ranker(), method)(TRAIN)
    with pytest.raises(NotFittedError):
        ranker().save("nowhere")
    assert issubclass(NotFittedError, ValueError) and issubclass(NotFittedError, AttributeError)


def test_fit_returns_self_and_does_not_change_its_arguments():
    module = LogLinear(20, 2)
    before = {n: v.clone() for n, v in module.state_dict().items()}
    r = ranker(model=module, objective="nll")
    parameters = dict(r.get_params())
    assert r.fit(TRAIN, VALID) is r
    assert all(torch.equal(v, before[n]) for n, v in module.state_dict().items())
    assert r.model_ is not module and r.get_params() == parameters
    assert (
        r.site_ids_ == TRAIN.site_ids
        and r.feature_names_in_ == ["u", "v"]
        and r.n_features_in_ == 2
    )


@pytest.mark.parametrize("settings", [{}, {"ranking": "ratio", "topk": "sampled"}])
def test_same_seed_same_model(settings):
    a, b, c = (ranker(seed=s, **settings).fit(TRAIN, VALID) for s in (0, 0, 1))
    assert a.rank(VALID).equals(b.rank(VALID)) and not a.rank(VALID).equals(c.rank(VALID))
    # Without sampling the seed is that of chance_top_k alone.
    columns = ["site", "score", "expected_count"]
    assert a.rank(VALID)[columns].equals(c.rank(VALID)[columns]) == (not settings)


def test_ranking_auto_is_exact_where_the_model_allows_it():
    """The default draws nothing but chance_top_k; `rank` scores by E[y_s / Σ y], which for one p
    over sites is (n_s / N)(1 − P(Σ y = 0))."""
    r = fitted()
    assert r.ranking_ == "exact" and r.trainer_.objective.topk == "exact"
    assert isinstance(r.trainer_.objective, DecisionAware)
    q = r.model_.probs.item()
    n = r.predict(VALID).astype(float) * (1 - q) / q
    total = n.sum(axis=1, keepdims=True)
    expected = n / total * (1 - (1 - q) ** total)
    # Counts and scores are float32.
    np.testing.assert_allclose(r.site_scores(VALID), expected, rtol=1e-5)
    table = r.rank(VALID)
    assert (table["chance_top_k"].nunique() > 5) and table["chance_top_k"].between(0, 1).all()
    assert fitted(ranking="ratio").ranking_ == "ratio" and fitted("mlp").ranking_ == "score"
    unknown = ranker(model=LogLinear(20, 2)).fit(TRAIN, VALID)
    assert unknown.ranking_ == "ratio" and 0 < unknown.score(VALID) <= 1
    with pytest.raises(TypeError, match="ranking must be 'ratio' or 'mean' for counts of type"):
        ranker(model=LogLinear(20, 2), ranking="exact").fit(TRAIN, VALID)


# ---- kinds of model and objective ----------------------------------------------------------------


@pytest.mark.parametrize("objective", ["auto", "daml", "nll", "bpr"])
def test_negbin(objective):
    r = fitted(objective=objective)
    assert (r.warm_start_ is not None) == (objective in ("auto", "daml"))
    assert 0 < r.score(VALID) <= 1
    assert r.predict(VALID).shape == (2, 20) and (r.predict(VALID) > 0).all()


def test_marginal_likelihood_is_the_models_own_fit(tmp_path):
    r = ranker(model="negbin", objective="marginal", link="log").fit(TRAIN, VALID)
    assert r.history_ is None and r.trainer_ is None and 0 < r.score(VALID) <= 1
    model = r.model_
    batch = batch_of(r, TRAIN)
    value = model.log_marginal(batch.x, batch.y, batch.time).sum().item()
    assert value == pytest.approx(model.fit_.log_likelihood, abs=1e-3)  # parameters in float32
    assert list(model.random_effects().index) == r.site_ids_
    r.save(tmp_path / "model.pt")
    again = TopKRanker.load(tmp_path / "model.pt")
    np.testing.assert_array_equal(again.site_scores(VALID), r.site_scores(VALID))
    with pytest.raises(
        TypeError, match="objective must be one of 'bpr' for the model 'mlp', got 'marginal'"
    ):
        ranker(model="mlp", objective="marginal").fit(TRAIN, VALID)


def expected_with_path(r):
    """Expected counts of VALID by the formula, one and two periods after the fitted ones."""
    model, batch = r.model_, batch_of(r, VALID)
    eta = (
        model.intercept
        + batch.x @ model.weight
        + model.site_intercept
        + (model.slope_time(batch.time)[:, None] * model.site_slope)
    )
    phi = model.raw_path_rho.sigmoid().item() if model.config["site_path"] == "ar1" else 1.0
    path = model.path_effect[-1] * torch.tensor([[phi], [phi**2]])
    return (eta.exp() * path.exp() * model.raw_probs.exp()).detach().numpy()


def module_mean(r):
    batch = batch_of(r, VALID)
    with torch.no_grad():
        return r.model_(batch.x, batch.time).mean.numpy()


@pytest.mark.parametrize("site_path", [None, "ar1", "random_walk"])
def test_the_ranker_predicts_as_its_module(site_path):
    r = ranker(model="negbin", objective="marginal", link="log", site_path=site_path).fit(TRAIN)
    expected = module_mean(r) if site_path is None else expected_with_path(r)
    np.testing.assert_allclose(r.predict(VALID), expected, rtol=1e-4)


@pytest.mark.parametrize("site_path", ["ar1", "random_walk"])
def test_site_effects_that_vary_over_time(site_path, tmp_path):
    """Through fit, rank, predict, save and load; the path counts, and fades for "ar1" alone."""
    arguments = dict(model="negbin", objective="marginal", link="log", site_path=site_path)
    r = ranker(**arguments).fit(TRAIN, VALID)
    assert f"site_path={site_path!r}" in repr(r)
    assert r.model_.config["site_path"] == site_path
    assert r.model_.path_effect.shape == TRAIN.y.shape
    np.testing.assert_allclose(expected_with_path(r), module_mean(r), rtol=1e-4)
    assert 0 < r.score(VALID) <= 1
    r.save(tmp_path / "model.pt")
    again = TopKRanker.load(tmp_path / "model.pt")
    np.testing.assert_array_equal(again.site_scores(VALID), r.site_scores(VALID))
    assert again.settings["site_path"] == site_path and again.objective == "marginal"
    again.fit(TRAIN)
    np.testing.assert_allclose(again.predict(VALID), r.predict(VALID), rtol=1e-5)
    without = torch.load(tmp_path / "model.pt", weights_only=True)
    for name, bad in (
        ("path_effect", torch.zeros(2, 20)),
        ("path_time", without["state"]["path_time"].flip(0)),
    ):
        content = without | {"state": without["state"] | {name: bad}}
        write_model_file(content, tmp_path / "bad.pt")
        with pytest.raises(ValueError, match=f"(?s)set_path: {name.removeprefix('path_')} must"):
            TopKRanker.load(tmp_path / "bad.pt")


def test_paths_are_for_the_marginal_likelihood():
    for objective in ("nll", "auto", "daml", "bpr"):
        with pytest.raises(
            ValueError,
            match="site_path must be None for training by steps, got 'ar1'.*objective=.marginal",
        ):
            ranker(model="negbin", objective=objective, site_path="ar1").fit(TRAIN)
    # Of another kind of model it is passed over, as every setting of another kind.
    with_path, without = (
        ranker(model="empirical_bayes", **changes).fit(TRAIN)
        for changes in ({"site_path": "ar1"}, {})
    )
    assert (with_path.site_scores(VALID) == without.site_scores(VALID)).all()
    message = "site_path must be None, 'ar1' or 'random_walk', got 'ma1'"
    with pytest.raises(ValueError, match=message):
        ranker(model="negbin", objective="marginal", site_path="ma1").fit(TRAIN)


@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_scorers(model):
    r = fitted(model, window=2)
    assert 0 < r.score(VALID) <= 1
    with pytest.raises(TypeError, match="predict: the model must predict counts"):
        r.predict(VALID)
    ranked = r.rank(VALID)
    assert ranked["expected_count"].isna().all() and ranked["chance_top_k"].isna().all()
    for objective in ("daml", "nll"):
        message = f"objective must be one of 'bpr' for the model '{model}'.*that gives scores"
        with pytest.raises(TypeError, match=message):
            ranker(model=model, objective=objective).fit(TRAIN)


def test_scorers_rank_sites_they_have_not_seen():
    other = Panel(
        VALID.x[:, :5], VALID.y[:, :5], [f"new{i}" for i in range(5)], VALID.times, ["u", "v"]
    )
    ranked = fitted("linear", window=1).rank(other.select_times(other.times[1:]))
    assert set(ranked["site"]) == {f"new{i}" for i in range(5)}


def test_own_objective_and_own_module():
    r = ranker(
        model=LogLinear(20, 2), objective=DirectBPR(4, 0.1, num_samples=5, model_samples=5)
    ).fit(TRAIN, VALID)
    assert 0 < r.score(VALID) <= 1
    with pytest.raises(TypeError, match="save: the model must be one of the library's"):
        r.save("nowhere")


def test_warm_start_gives_the_floor():
    """2025 paper, App. C.2.2: the likeliest among those that rank at least as well as the
    likelihood fit."""
    r = ranker(max_epochs=20).fit(TRAIN, VALID)
    warm = r.warm_start_
    floor = warm.history_.set_index("epoch").loc[warm.best_epoch_, "valid_bpr"]
    h = r.history_.dropna(subset=["valid_nll"]).set_index("epoch")
    good = h[h["valid_bpr"] >= floor]
    expected = good["valid_nll"].idxmin() if len(good) else h["valid_bpr"].idxmax()
    assert r.best_epoch_ == expected
    assert ranker(warm_start_epochs=0).fit(TRAIN, VALID).warm_start_ is None
    assert ranker().fit(TRAIN).warm_start_ is None


def test_warm_start_goes_on_from_the_likelihood_fit():
    """With a hinge that is off, DAML is the likelihood fit: goes on from it, or repeats it."""
    settings = dict(epsilon=1e-9, optimizer="sgd", lr=1e-4)
    likely = ranker(objective="nll", **settings).fit(TRAIN)
    anew = ranker(warm_start=False, **settings).fit(TRAIN)
    further = ranker(warm_start=True, **settings).fit(TRAIN)
    losses = [r.history_["nll"].tolist() for r in (likely, anew, further)]
    assert losses[1] == pytest.approx(losses[0]) and losses[2][0] < losses[0][-1]


def test_inputs_are_scaled_by_the_training_rows_alone():
    r = fitted()
    x = TRAIN.x.reshape(-1, 2).double()
    torch.testing.assert_close(r.standardizer_.mean_, x.mean(0))
    assert r.time_origin_ == pytest.approx(np.mean(TRAIN.times)) and r.time_scale_ == pytest.approx(
        np.std(TRAIN.times)
    )
    one = ranker(objective="nll").fit(TRAIN.select_times(TRAIN.times[-1:]))
    assert one.time_scale_ == 1.0


def test_constant_features_are_dropped_with_a_warning():
    x = torch.cat([TRAIN.x, torch.ones(*TRAIN.y.shape, 1)], dim=-1)
    with pytest.warns(UserWarning, match="constant"):
        r = ranker(objective="nll").fit(
            Panel(x, TRAIN.y, TRAIN.site_ids, TRAIN.times, ["u", "v", "one"])
        )
    assert len(r.model_.weight) == 2


def test_time_weights_get_the_panels_own_times():
    seen = []

    def weights(time):
        seen.append(time.tolist())
        return (time >= 3).float()

    ranker(objective="nll", time_weights=weights).fit(TRAIN)
    assert seen == [TRAIN.times]


# ---- ranking -------------------------------------------------------------------------------------


def test_rank_table():
    r = fitted()
    table = r.rank(VALID)
    assert list(table.columns) == [
        "time",
        "site",
        "score",
        "expected_count",
        "chance_top_k",
        "rank",
        "selected",
    ]
    assert len(table) == 40
    for time, part in table.groupby("time"):
        assert sorted(part["site"]) == TRAIN.site_ids and list(part["rank"]) == list(range(1, 21))
        assert part["score"].is_monotonic_decreasing and part["selected"].sum() == 4
        assert (
            part["chance_top_k"].sum() == pytest.approx(4, rel=1e-5)
            and part["chance_top_k"].between(0, 1).all()
        )
        counts = dict(zip(TRAIN.site_ids, r.predict(VALID)[VALID.times.index(time)], strict=True))
        assert part["expected_count"].tolist() == pytest.approx([counts[s] for s in part["site"]])


def test_a_period_is_ranked_alike_alone_and_with_others():
    r = fitted()
    both = r.rank(VALID)
    alone = r.rank(VALID.select_times(VALID.times[1:]))
    assert both[both["time"] == VALID.times[1]].reset_index(drop=True).equals(alone)


def test_sites_are_matched_by_id():
    r, order = fitted(), torch.randperm(20, generator=torch.Generator().manual_seed(1))
    mixed = Panel(
        VALID.x[:, order],
        VALID.y[:, order],
        [VALID.site_ids[i] for i in order],
        VALID.times,
        VALID.feature_names,
    )
    assert r.rank(mixed).equals(r.rank(VALID)) and r.score(mixed) == r.score(VALID)
    assert (r.predict(mixed) == r.predict(VALID)).all() and (
        r.score_repeats(mixed, 3) == r.score_repeats(VALID, 3)
    ).all()
    less = Panel(
        VALID.x[:, :9], VALID.y[:, :9], VALID.site_ids[:9], VALID.times, VALID.feature_names
    )
    with pytest.raises(ValueError, match="s09"):
        r.rank(less)
    with pytest.raises(ValueError, match="'v'"):
        r.rank(VALID.with_features(VALID.x[..., :1], ["u"]))


def test_chance_of_the_top_k_shares_the_last_places_among_ties():
    samples = torch.tensor(
        [[3.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [4.0, 3.0, 2.0, 1.0], [1.0, 1.0, 0.0, 5.0]]
    )
    expected = torch.tensor(
        [[1, 1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.5, 0.5], [1, 1, 0, 0], [0.5, 0.5, 0, 1]],
        dtype=torch.float64,
    ).mean(0)
    torch.testing.assert_close(_share(samples, 2), expected)


def test_equal_scores_stand_in_the_order_of_the_sites():
    class Flat(nn.Module):
        needs = Needs(counts=False)

        def __init__(self):
            super().__init__()
            self.level = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return self.level + 0 * x[..., 0]

    r = ranker(model=Flat(), objective=lambda m, batch: m.level**2).fit(TRAIN, VALID)
    table = r.rank(VALID.select_times(VALID.times[:1]))
    assert (
        list(table["site"]) == TRAIN.site_ids
        and list(table.query("selected")["site"]) == TRAIN.site_ids[:4]
    )


def test_future_without_counts_can_be_ranked_but_not_scored():
    future = Panel(
        VALID.x,
        torch.full_like(VALID.y, torch.nan),
        VALID.site_ids,
        VALID.times,
        ["u", "v"],
        counts="optional",
    )
    r = fitted()
    assert r.rank(future).equals(r.rank(VALID))
    with pytest.raises(ValueError, match="must have counts"):
        r.score(future)


def test_score_is_the_mean_over_periods_with_events():
    y = VALID.y.clone()
    y[0] = 0
    half = Panel(VALID.x, y, VALID.site_ids, VALID.times, VALID.feature_names)
    r = ranker(ranking="mean").fit(TRAIN)  # it has not seen the counts that are changed
    assert r.score(half) == pytest.approx(r.score(VALID.select_times(VALID.times[1:])))
    top = r.rank(VALID.select_times(VALID.times[1:])).query("selected")["site"]
    counts = dict(zip(VALID.site_ids, VALID.y[1].tolist(), strict=True))
    best = sum(sorted(counts.values())[-4:])
    assert r.score(half) == pytest.approx(sum(counts[s] for s in top) / best, abs=1e-6)


def test_repeated_rankings_spread_around_the_score():
    r = fitted(ranking="ratio")
    a, b = r.score_repeats(VALID, 40), r.score_repeats(VALID, 40)
    assert a.shape == (40,) and (a == b).all() and ((a >= 0) & (a <= 1)).all() and a.std() > 0
    assert abs(a.mean() - r.score(VALID)) < 5 * a.std()
    assert r.score_repeats(VALID, 20, samples=2000).std() < a.std()
    for steady in (fitted(), fitted(ranking="mean")):
        assert (steady.score_repeats(VALID, 5) == steady.score(VALID)).all()


# ---- exposure and suppressed counts --------------------------------------------------------------


def with_exposure(panel, exposure, y_upper=None):
    return Panel(
        panel.x,
        panel.y,
        panel.site_ids,
        panel.times,
        panel.feature_names,
        history_y=panel.history_y,
        exposure=exposure,
        y_upper=y_upper,
    )


def test_the_unit_of_the_exposure_does_not_matter():
    """Persons or thousands of persons: under the log link the intercept moves by log 1000, and
    predictions, for the exposure of the panel that is ranked, are the same."""
    people = 1000 * (1 + torch.rand(TRAIN.y.shape, generator=torch.Generator().manual_seed(0)))
    fits, losses = [], []
    for unit in (1.0, 1000.0):
        train, valid = (with_exposure(p, people[: p.num_times] / unit) for p in (TRAIN, VALID))
        by_steps = ranker(objective="nll", link="log", max_epochs=1).fit(train)
        losses.append(by_steps.history_["loss"][0])
        fits.append((ranker(objective="marginal", link="log").fit(train, valid), valid))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)  # at the start, in float32
    (a, own), (b, other) = fits
    moved = b.model_.intercept.item() - a.model_.intercept.item()
    # The fit ends with at most 1e-6 of log-likelihood to gain: parameters within 1e-3.
    assert moved == pytest.approx(np.log(1000), abs=1e-3)
    np.testing.assert_allclose(a.predict(own), b.predict(other), rtol=2e-3)
    # Twice the people, twice the events; at one site, more of the events in all [D25 Eq. 6].
    twice = own.exposure.clone()
    twice[:, 3] *= 2
    changed = with_exposure(own, twice)
    np.testing.assert_allclose(a.predict(changed)[:, 3], 2 * a.predict(own)[:, 3], rtol=1e-5)
    q = a.model_.probs.item()
    n = a.predict(changed).astype(float) * (1 - q) / q
    total = n.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        a.site_scores(changed), n / total * (1 - (1 - q) ** total), rtol=1e-5
    )
    row = a.rank(changed).query("site == 's03'")
    np.testing.assert_allclose(row["expected_count"], a.predict(changed)[:, 3], rtol=1e-5)


def test_exposure_is_saved_and_asked_for(tmp_path):
    exposure = torch.rand(TRAIN.y.shape) + 0.5
    train, valid = (with_exposure(p, exposure[: p.num_times]) for p in (TRAIN, VALID))
    r = ranker(objective="marginal").fit(train, valid)
    assert r.uses_exposure_ and not fitted().uses_exposure_
    r.save(tmp_path / "model.pt")
    again = TopKRanker.load(tmp_path / "model.pt")
    assert again.uses_exposure_
    np.testing.assert_array_equal(again.site_scores(valid), r.site_scores(valid))
    for of, panel, message in (
        (again, VALID, "exposure must be given .*fitted to counts per exposure, got none"),
        (fitted(), valid, "must have no exposure, as the training panel, got one"),
    ):
        for method in ("predict", "rank", "site_scores", "score"):
            with pytest.raises(ValueError, match=message):
                getattr(of, method)(panel)
    for pair in ((train, VALID), (TRAIN, valid)):
        message = "TopKRanker.fit: valid must have an exposure if panel has"
        with pytest.raises(ValueError, match=message):
            ranker(objective="nll").fit(*pair)
        with pytest.raises(ValueError, match="Trainer.fit: valid must have an exposure if train"):
            Trainer(NLL(), progress=False).fit(NegBinMixedEffects(20, 2), *pair)
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    write_model_file(content | {"uses_exposure": "yes"}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="uses_exposure must be true or false, got .*String"):
        TopKRanker.load(tmp_path / "model.pt")


@pytest.mark.parametrize("model", ["empirical_bayes", "linear", "mlp"])
def test_models_that_cannot_take_exposure_or_intervals_say_so(model):
    exposure = torch.rand(TRAIN.y.shape) + 0.5
    if model == "empirical_bayes":
        r = ranker(model=model, objective="auto").fit(with_exposure(TRAIN, exposure))
        assert r.uses_exposure_
        assert 0 < r.score(with_exposure(VALID, exposure[: VALID.num_times])) <= 1
    else:
        with pytest.warns(RankerNote, match="makes no use of the exposure"):
            r = ranker(model=model, objective="auto", window=2).fit(with_exposure(TRAIN, exposure))
        assert not r.uses_exposure_ and 0 < r.score(VALID) <= 1
    upper = TRAIN.y + (TRAIN.y == 1)
    message = "TopKRanker.fit: panel must have exact counts for this model .*, got .*negbin"
    with pytest.raises(ValueError, match=message):
        ranker(model=model, objective="auto").fit(with_exposure(TRAIN, None, upper))


def test_suppressed_counts_are_fitted_by_likelihood_and_not_scored():
    hidden = (TRAIN.y >= 1) & (TRAIN.y <= 2)
    train = with_exposure(TRAIN, None, torch.where(hidden, 2.0, TRAIN.y))
    valid = with_exposure(VALID, None, torch.where((VALID.y >= 1) & (VALID.y <= 2), 2.0, VALID.y))
    r = ranker(objective="marginal", link="log").fit(train)
    model, batch = r.model_, batch_of(r, train)
    value = model.log_marginal(batch.x, batch.y, batch.time, y_upper=batch.y_upper).sum().item()
    assert value == pytest.approx(model.fit_.log_likelihood, abs=1e-3)
    stepwise = ranker(objective="nll").fit(train, valid)
    assert stepwise.trainer_.monitor_ == "nll"
    assert not {"valid_bpr", "valid_mae"} & set(stepwise.history_)
    assert stepwise.history_["valid_nll"].dropna().is_monotonic_decreasing
    for method in ("score", "score_repeats"):
        message = f"{method}: panel must have exact counts, got .*at_bound"
        with pytest.raises(ValueError, match=message):
            getattr(r, method)(valid)
    assert 0 < r.score(valid.at_bound("lower")) <= 1 and 0 < r.score(valid.at_bound("upper")) <= 1
    assert r.rank(valid).equals(r.rank(VALID))  # what is ranked by does not read the counts
    for objective in ("bpr", "daml"):
        with pytest.raises(ValueError, match="panel must have exact counts .*objective=.marginal"):
            ranker(objective=objective, warm_start_epochs=0).fit(train)
    for objective in (DirectBPR(4, 0.1), DecisionAware(4, 0.1)):
        with pytest.raises(ValueError, match="y must be exact counts, got .* Train by NLL"):
            ranker(objective=objective, warm_start_epochs=0).fit(train)
    assert ranker(objective=NLL()).fit(train, valid).trainer_.monitor_ == "nll"
    with pytest.raises(ValueError, match="monitor must be a metric of this model and panel"):
        ranker(objective=LikelihoodOfYourOwn(), k=4).fit(train, valid)


class LikelihoodOfYourOwn:
    def __call__(self, model, batch):
        return NLL()(model, batch).loss


def test_suppressed_counts_and_exposure_recover_the_rates():
    """Counties with cells 1-9 suppressed, as published tables of deaths have them: rates nearer to
    the truth than with such cells left out, at their middle, at their least, or taken as zero."""
    rng = np.random.default_rng(8)
    sites, times = 150, 5
    people = np.exp(rng.normal(10, 1.0, sites))
    rate = 2e-4 * np.exp(0.5 * rng.normal(size=sites))
    deaths = rng.poisson(people * rate, (times, sites))
    df = pd.DataFrame(
        {
            "county": np.tile(np.arange(sites), times),
            "year": np.repeat(np.arange(times), sites),
            "people": np.tile(people, times),
            "deaths": deaths.ravel(),
        }
    )
    columns = {"site": "county", "time": "year", "count": "deaths", "exposure": "people"}
    hidden = df["deaths"].between(1, 9)
    assert 0.5 < hidden.mean() < 0.9

    def error(table, **options):
        panel = Panel.from_frame(table, **columns, features=[], **options)
        r = ranker(objective="marginal", link="log", rank_samples=1).fit(panel)
        assert r.model_.fit_.converged
        return distance(r.predict(panel))

    def distance(expected_counts):
        return np.sqrt(np.mean(np.log(expected_counts.mean(0) / people / rate) ** 2))

    words = df.assign(deaths=df["deaths"].astype(object).mask(hidden, "1-9"))
    suppressed = error(words, suppressed={"1-9": (1, 9)})
    everything = error(df)
    others = [error(df.assign(deaths=df["deaths"].mask(hidden, value))) for value in (5, 1, 0)]
    panel = Panel.from_frame(df, **columns, features=[])
    batch = panel.batch()
    time = (batch.time - batch.time.mean()) / batch.time.std(correction=0)
    weights = torch.from_numpy(~hidden.to_numpy()).reshape(times, sites).float()
    model = NegBinMixedEffects(sites, 0)
    model.fit(batch.x, batch.y, time, exposure=batch.exposure, weights=weights)
    with torch.no_grad():
        others.append(distance(model(batch.x, time, batch.exposure).mean.numpy()))
    print(everything, suppressed, others)
    assert everything < suppressed < 0.8 * min(others)


# ---- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "window", "ranking"),
    [
        ("negbin", 5, "auto"),
        ("negbin", 5, "ratio"),
        ("negbin", 5, "mean"),
        ("linear", 2, "auto"),
        ("mlp", 3, "auto"),
    ],
)
def test_saved_and_loaded_it_ranks_alike(tmp_path, model, window, ranking):
    r = fitted(model, window=window, ranking=ranking)
    r.save(tmp_path / "model.pt")
    assert os.listdir(tmp_path) == ["model.pt"]
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert type(content) is dict and type(content["state"]) is dict
    assert content["format"] == "topreach-model" and content["format_version"] == 2
    assert content["config"].get("window", 0) == (0 if model == "negbin" else window)
    assert content["program"] == {"name": "TopK", "config": {"k": 4}}
    exact = ranking == "auto" and model == "negbin"
    assert content["ranking"] == ("exact" if exact else "score" if model != "negbin" else ranking)
    again = TopKRanker.load(tmp_path / "model.pt")
    assert again.ranking_ == content["ranking"]
    assert (again.score_repeats(VALID, 3) == r.score_repeats(VALID, 3)).all()
    assert again.rank(VALID).equals(r.rank(VALID)) and again.score(VALID) == r.score(VALID)
    again.save(tmp_path / "again.pt")
    assert TopKRanker.load(tmp_path / "again.pt").rank(VALID).equals(r.rank(VALID))


def test_load_refuses_what_is_no_model_file(tmp_path):
    path = tmp_path / "model.pt"
    with pytest.raises(ValueError, match="must be a file"):
        TopKRanker.load(path)
    fitted().save(path)
    whole, content = path.read_bytes(), torch.load(path, weights_only=True)
    for cut in (0, 10, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="damaged, cut short"):
            TopKRanker.load(path)
    torch.save(content, path)
    with pytest.raises(ValueError, match="does not end with a digest"):
        TopKRanker.load(path)
    write_model_file(content, path)
    assert TopKRanker.load(path).rank(VALID).equals(fitted().rank(VALID))
    for change, match in (
        ({"format": "other"}, "another kind"),
        ({"format_version": 1}, "format_version must be 2, got 1 .*fit the model again"),
        ({"format_version": 3}, "format_version must be 2, got 3 .*update topreach"),
        ({"model": "Oracle"}, "model must be one of .*, got Oracle"),
        ({"state": {}}, "state of NegBinMixedEffects must have 7 tensors, got 0"),
        ({"standardizer": {}}, "standardizer.feature_names must be a list, got none"),
        ({"ranking": "score"}, "ranking must be 'exact', 'ratio' or 'mean' .*, got 'score'"),
        ({"ranking": "median"}, "ranking must be 'exact', 'ratio', 'mean' or 'score', got another"),
    ):
        write_model_file(content | change, path)
        with pytest.raises(ValueError, match=match):
            TopKRanker.load(path)
    pd.to_pickle({"format": pd.Timestamp(0)}, path)
    with pytest.raises(ValueError, match="damaged, cut short or of another kind"):
        TopKRanker.load(path)


def test_resume_through_both_stages(tmp_path):
    whole = ranker(max_epochs=9).fit(TRAIN, VALID)
    path = tmp_path / "run.pt"
    ranker(max_epochs=4, checkpoint=path).fit(TRAIN, VALID)
    assert sorted(os.listdir(tmp_path)) == ["run.pt", "run.pt.warm"]
    again = ranker(max_epochs=9, checkpoint=path).fit(TRAIN, VALID, resume=True)
    assert list(again.history_["loss"]) == list(whole.history_["loss"])
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.model_.parameters(), again.model_.parameters(), strict=True)
    )


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"k": 0}, ValueError, "k must be a whole number >= 1, got 0"),
        ({"k": 21}, ValueError, "k must be at most the number of sites S = 20, got 21"),
        (
            {"model": "forest"},
            ValueError,
            "model must be one of 'empirical_bayes', 'negbin', 'linear', 'mlp'",
        ),
        ({"objective": "mse"}, ValueError, "objective must be 'auto'"),
        (
            {"ranking": "median"},
            ValueError,
            "ranking must be one of 'auto', 'exact', 'ratio', 'mean'",
        ),
        ({"topk": "hard"}, ValueError, "topk must be one of 'exact', 'mean_field', 'sampled'"),
        ({"rank_samples": 0}, ValueError, "rank_samples"),
        ({"epsilon": 2.0}, ValueError, "epsilon"),
    ],
)
def test_clear_errors(changes, error, match):
    with pytest.raises(error, match=match):
        ranker(**changes).fit(TRAIN, VALID)


def test_a_table_is_no_panel():
    with pytest.raises(TypeError, match="Panel.from_frame"):
        ranker().fit(TRAIN.to_frame())


# ---- real data -----------------------------------------------------------------------------------


@pytest.mark.skipif(not os.environ.get("TOPREACH_DATA"), reason="TOPREACH_DATA is not set")
def test_cook_county_by_likelihood():
    """Test MAE <= 1.0 and BPR >= .80 (the paper's Table C.2: 1.03 and .78)."""
    from topreach.data.datasets import cook_county

    train, valid, test = cook_county()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        r = TopKRanker(
            100,
            model="negbin",
            objective="nll",
            link="softplus",
            max_epochs=60,
            validate_every=5,
            progress=False,
        ).fit(train, valid)
    assert np.abs(r.predict(test) - test.y.numpy()).mean() <= 1.0
    assert r.score(test) >= 0.80


def test_score_refuses_counts_that_are_missing():
    counts = torch.tensor([[3.0, 2, 1], [3, 1, 2], [2, 2, 0], [4, 1, 1]])
    sites, times = ["a", "b", "c"], [2001, 2002, 2003, 2004]
    ranker = TopKRanker(1, progress=False).fit(
        Panel(torch.zeros(3, 3, 0), counts[:3], sites, times[:3], [])
    )
    last = counts[3:].clone()
    assert ranker.score(Panel(torch.zeros(1, 3, 0), last, sites, [2004], [])) == 1
    last[:] = torch.nan
    holed = Panel(torch.zeros(1, 3, 0), last, sites, [2004], [], counts="optional")
    with pytest.raises(ValueError, match="score: panel must have counts .* got 3 .* 'a' in 2004"):
        ranker.score(holed)
