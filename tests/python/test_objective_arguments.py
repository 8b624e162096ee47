"""Arguments of the objectives: settings and their defaults, the arguments of the model, weights
over time, and outputs that are refused."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from training_cases import LogLinear, batch_of, panels

import topreach as tr
from topreach.objectives import NLL, DecisionAware, DirectBPR, PerturbationGradient, SPOPlus
from topreach.objectives import base as base_module

TRAIN, _ = panels()
REACH = {
    "k": 3,
    "model_samples": 100,
    "ranking": "auto",
    "ranking_estimator": "score_loo",
    "offset": 0.0,
    "sigma": 0.1,
    "num_samples": 100,
    "topk": "exact",
    "estimator": "score_loo",
    "noise": "normal",
    "sigma_unit": "score",
}
LINEAR = {
    "k": 3,
    "model_samples": 100,
    "ranking": "auto",
    "ranking_estimator": "score_loo",
    "offset": 0.0,
    "target": None,
}
MAKERS = {
    "DirectBPR": lambda **how: DirectBPR(3, 0.1, **how),
    "DecisionAware": lambda **how: DecisionAware(3, 0.1, **how),
    "SPOPlus": lambda **how: SPOPlus(3, **how),
    "PerturbationGradient": lambda **how: PerturbationGradient(3, **how),
}


class FreeScores(nn.Module):
    """r are the parameters themselves."""

    def __init__(self, scores):
        super().__init__()
        self.scores = nn.Parameter(torch.as_tensor(scores, dtype=torch.float32))

    def forward(self, x):
        return self.scores


# ---- settings ------------------------------------------------------------------------------------


def test_defaults_of_every_objective():
    """As documented: lambda = 30, an epsilon at which the hinge always acts, 100 draws."""
    assert DirectBPR(3, 0.1).config() == REACH
    assert DecisionAware(3, 0.1).config() == REACH | {"epsilon": 1.0, "weight": 30.0}
    assert SPOPlus(3).config() == LINEAR
    assert PerturbationGradient(3).config() == LINEAR | {"sigma": 0.1, "two_sides": False}
    assert NLL().config() == {} and repr(NLL()) == "NLL()"


def test_settings_are_kept_as_plain_values():
    """Weights over time, which may be a function, are left out."""
    given = DirectBPR(
        np.int64(3), np.float32(0.5), num_samples=np.int64(7), offset=1, time_weights=[1.0]
    ).config()
    assert given == REACH | {"sigma": 0.5, "num_samples": 7, "offset": 1.0}
    assert {type(given["k"]), type(given["num_samples"])} == {int}
    quotas = tr.programs.Quotas(3, ["a"] * 12, lower=1)
    objective = SPOPlus(quotas)
    assert objective.k == 3
    assert objective.config() == {"program": quotas.describe()} | {
        name: value for name, value in LINEAR.items() if name != "k"
    }
    assert repr(SPOPlus(3)).startswith("SPOPlus(k=3, model_samples=100, ")


@pytest.mark.parametrize("name", MAKERS)
def test_a_leave_one_out_estimate_needs_two_draws(name):
    make = MAKERS[name]
    draws = ["model_samples"] if name in ("SPOPlus", "PerturbationGradient") else [
        "model_samples", "num_samples",
    ]  # fmt: skip
    for argument in draws:
        own = {"model_samples": "ranking_estimator", "num_samples": "estimator"}[argument]
        assert make(**{argument: 2}).config()[argument] == 2
        assert make(**{argument: 1, own: "score"}).config()[argument] == 1
        for wrong, how in ((1, "score_loo"), (0, "score"), (True, "score"), (2.0, "score")):
            least = 2 if how == "score_loo" else 1
            message = f"{name}: {argument} must be a whole number >= {least}, got {wrong!r}"
            with pytest.raises(ValueError, match=message):
                make(**{argument: wrong, own: how})


def test_which_noise_goes_with_which_choice():
    for noise in ("normal", "gumbel", "logistic", "laplace"):
        assert DirectBPR(3, 0.1, topk="sampled", noise=noise).noise == noise
        for topk in ("exact", "mean_field"):
            if noise == "normal":
                assert DirectBPR(3, 0.1, topk=topk, noise=noise).topk == topk
                continue
            with pytest.raises(ValueError, match=f"noise must be 'normal' for topk='{topk}'"):
                DirectBPR(3, 0.1, topk=topk, noise=noise)
    for unit in ("score", "spread"):
        assert DirectBPR(3, 0.1, sigma_unit=unit).sigma_unit == unit
    with pytest.raises(ValueError, match="sigma_unit must be one of 'score', 'spread', got 'x'"):
        DirectBPR(3, 0.1, sigma_unit="x")


def test_ranges_and_their_ends():
    for epsilon in (1e-9, 0.5, 1.0):
        assert DecisionAware(3, 0.1, epsilon).epsilon == epsilon
    for epsilon in (0.0, -0.5, 1.0 + 1e-9, math.nan):
        with pytest.raises(ValueError, match="epsilon must be in"):
            DecisionAware(3, 0.1, epsilon)
    for weight in (0.0, 0.5, 1e9):
        assert DecisionAware(3, 0.1, weight=weight).weight == weight
    for weight in (-1e-9, math.inf, math.nan):
        with pytest.raises(ValueError, match="weight must be finite and >= 0"):
            DecisionAware(3, 0.1, weight=weight)
    for sigma in (1e-9, 0.5, 2.0):
        assert DirectBPR(3, sigma).sigma == PerturbationGradient(3, sigma).sigma == sigma
    for sigma in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="sigma must be > 0"):
            DirectBPR(3, sigma)
        with pytest.raises(ValueError, match="sigma must be positive and finite"):
            PerturbationGradient(3, sigma)


# ---- what a model is called with -----------------------------------------------------------------


def test_arguments_that_a_function_takes_by_keyword():
    def plain(x, time): ...
    def by_keyword(x, *, exposure): ...
    def all_of_them(**arguments): ...
    def by_place(x, /, time): ...
    def none(image, *rest): ...

    names = ("x", "time", "exposure")
    for function, expected in (
        (plain, ("x", "time")),
        (by_keyword, ("x", "exposure")),
        (all_of_them, names),
        (by_place, ("time",)),
        (none, ()),
    ):
        for _ in range(2):  # the second time it is remembered
            assert base_module.accepted_arguments(function, names) == expected
    assert base_module.accepted_arguments(plain, ("time",)) == ("time",)  # other names, anew
    assert base_module.accepted_arguments(LogLinear(2, 1).forward, names) == ("x",)


class Recorder(nn.Module):
    """Scores from its features; keeps what it was given."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.order = nn.Parameter(torch.zeros(2, dtype=torch.int64), requires_grad=False)
        self.weight = nn.Parameter(torch.ones((), dtype=dtype))

    def forward(self, x, time, exposure=None, history=None):
        self.given = {"x": x, "time": time, "exposure": exposure, "history": history}
        return self.weight * x[..., 0]

    def penalty(self, weights, exposure, time):
        self.of_penalty = {"weights": weights, "exposure": exposure, "time": time}
        return (weights.double() * time.double()).sum() * self.weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_is_given_what_it_names_in_its_own_dtype(dtype):
    """That of its first floating-point parameter; whole numbers and what is absent stay so."""
    batch = batch_of(torch.arange(6.0).reshape(2, 3), torch.ones(2, 3, 1).double())
    batch = batch._replace(
        time=torch.arange(2), exposure=torch.full((2, 3), 2.0).half(), weights=torch.ones(2).half()
    )
    model = Recorder(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it names the exposure
        scores = base_module.forward(model, batch)
    assert scores.dtype == dtype and scores.tolist() == [[1] * 3] * 2
    assert model.given["x"].dtype == model.given["exposure"].dtype == dtype
    assert model.given["time"].dtype == torch.int64 and model.given["history"] is None
    value = base_module.penalty(model, batch, torch.tensor([3.0, 5.0]))
    assert value.item() == 5 and model.of_penalty["weights"].dtype == dtype
    assert model.of_penalty["exposure"].dtype == dtype
    assert model.of_penalty["time"].dtype == torch.int64


class Bare(nn.Module):
    """No parameter, so no dtype of its own."""

    def forward(self, x):
        self.given = x
        return x[..., 0]


def test_a_model_without_parameters_and_penalty_is_given_the_batch_as_it_is():
    batch = batch_of(torch.ones(2, 3), torch.ones(2, 3, 1).double())
    model = Bare()
    assert base_module.forward(model, batch).dtype == model.given.dtype == torch.float64
    assert base_module.penalty(model, batch, None) is None
    model.penalty = 3.0  # a setting of that name is no function
    assert base_module.penalty(model, batch, None) is None


def test_an_exposure_that_is_not_used_is_said():
    batch = batch_of(torch.ones(2, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        base_module.forward(Bare(), batch)
    with pytest.warns(UserWarning, match="Bare makes no use of the exposure"):
        base_module.forward(Bare(), batch._replace(exposure=torch.ones(2, 3)))


# ---- weights over time ---------------------------------------------------------------------------


def test_weights_of_the_batch_times_those_of_the_objective():
    batch, own = batch_of(torch.ones(3, 2)), torch.tensor([1.0, 2.0, 4.0])
    weighted = batch._replace(weights=torch.tensor([3.0, 5.0, 0.5]))

    def weights(given, batch):
        return base_module.period_weights("f", given, batch)

    assert weights(None, batch) is None and weights(None, weighted) is weighted.weights
    for given in (own, own.tolist(), lambda time: 2**time):
        found = weights(given, batch)
        assert found.tolist() == [1, 2, 4] and found.dtype == batch.y.dtype
        assert weights(given, weighted).tolist() == [3, 10, 2]
    double = batch._replace(y=batch.y.double())
    assert weights(own, double).dtype == torch.float64
    for wrong in ([1.0], torch.ones(3, 1), 1.0):
        with pytest.raises(ValueError, match=r"f: time_weights must have shape \[3\]"):
            weights(wrong, batch)


@pytest.mark.parametrize("name", MAKERS)
def test_every_objective_is_a_sum_over_weighted_periods(name):
    """Weight 2 counts a period twice, weight 0 not at all."""
    model, batch = LogLinear(12, 2), TRAIN.batch()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([0.4, -0.1]))
    twice = [0, 1, 1, 3]
    repeated = batch._replace(x=batch.x[twice], y=batch.y[twice], time=batch.time[twice])
    expected = MAKERS[name](ranking="mean")(model, repeated).loss
    given = MAKERS[name](ranking="mean", time_weights=[1.0, 2.0, 0.0, 1.0])(model, batch).loss
    assert given.item() == pytest.approx(expected.item(), rel=1e-5)


# ---- outputs that are refused --------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in MAKERS if n != "DecisionAware"])
def test_outputs_of_another_kind_or_shape(name):
    """DecisionAware takes no scores at all."""
    y = torch.arange(8.0).reshape(2, 4) % 5
    make = MAKERS[name]
    whole = make()(FreeScores(torch.tensor([[1.0, 2, 3, 4]] * 2)), batch_of(y))
    one_row = make()(FreeScores(torch.tensor([[1.0, 2, 3, 4]])), batch_of(y))
    assert one_row.loss.item() == pytest.approx(whole.loss.item())  # it serves all periods
    for shape in ((4,), (2, 1), (3, 4), (2, 3), (1, 1, 4)):
        message = rf"{name}: the model must give scores of shape \[T, S\] = \[2, 4\]"
        with pytest.raises(ValueError, match=message):
            make()(FreeScores(torch.zeros(shape)), batch_of(y))

    class NotSaid(LogLinear):
        is_probabilistic = False

    with pytest.raises(TypeError, match=f"{name}: the model must give scores.*is_probabilistic"):
        make()(NotSaid(12, 2), TRAIN.batch())


@pytest.mark.parametrize("name", MAKERS)
def test_counts_known_to_an_interval_are_refused(name):
    batch = TRAIN.batch()
    message = f"{name}: y must be exact counts, got 2 that are only known to lie in an interval"
    upper = batch.y.clone()
    upper[0, :2] += 3
    with pytest.raises(ValueError, match=message):
        MAKERS[name]()(LogLinear(12, 2), batch._replace(y_upper=upper))


@pytest.mark.parametrize("name", MAKERS)
def test_exact_ranking_is_for_counts_that_it_knows(name):
    """The counts of LogLinear are a class of these tests, which the library does not know: "auto"
    draws from them."""
    model, batch = LogLinear(12, 2), TRAIN.batch()
    key = torch.tensor([1, 2])
    auto, drawn = (
        MAKERS[name](ranking=ranking)(model, batch, key=key).loss for ranking in ("auto", "ratio")
    )
    assert torch.equal(auto, drawn)
    with pytest.raises(TypeError, match=f"{name}: ranking must be 'ratio' or 'mean' for counts of"):
        MAKERS[name](ranking="exact")(model, batch)
    known = tr.models.NegBinMixedEffects(12, 2, initial_mean=1.5)
    found = [MAKERS[name](ranking=r)(known, batch).loss for r in ("auto", "exact")]
    assert torch.equal(*found)


@pytest.mark.parametrize("name", MAKERS)
def test_closed_sites_take_no_part(name):
    """A site that is closed in all periods has no effect."""
    model, batch = LogLinear(12, 2), TRAIN.batch()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([0.4, -0.1]))
        model.site[0] = 3.0  # the best by far
    is_open = torch.ones(4, 12, dtype=torch.bool)
    is_open[:, 0] = False
    closed = batch._replace(open=is_open, y=batch.y.masked_fill(~is_open, torch.nan))
    less = LogLinear(11, 2)
    with torch.no_grad():
        less.weight.copy_(model.weight)
        less.site.copy_(model.site[1:])
    fewer = batch._replace(x=batch.x[:, 1:], y=batch.y[:, 1:])
    objective = MAKERS[name](ranking="mean")
    found, expected = objective(model, closed), objective(less, fewer)
    assert found.terms["bpr"].item() == pytest.approx(expected.terms["bpr"].item(), rel=1e-5)
