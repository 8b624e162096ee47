"""The settings of `TopKRanker`: their defaults, their ranges, and how they are given."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

import numpy as np
import pytest

import topreach as tr
from topreach.ranking import settings
from topreach.ranking.topk_ranker import TopKRanker


def test_defaults_of_the_settings():
    assert asdict(settings.Decision()) == {
        "sigma": None, "epsilon": 1.0, "weight": 30.0, "topk": "exact", "num_samples": 100,
        "model_samples": 100,
    }  # fmt: skip
    assert asdict(settings.Training()) == {
        "optimizer": "adam", "lr": 0.02, "max_epochs": 300, "warm_start_epochs": 200,
        "warm_start": False, "validate_every": 5, "patience": None, "batch_size": None,
        "clip_gradient": None, "time_weights": None, "checkpoint": None,
    }  # fmt: skip
    assert asdict(settings.Ranking()) == {"by": "auto", "samples": 1000}
    assert settings.SHORT["rank_samples"] == ("ranking", "samples")
    assert settings.SHORT["epsilon"] == ("decision", "epsilon")
    assert settings.SHORT["lr"] == ("training", "lr")
    ranker = TopKRanker(3)
    assert ranker.get_params() == {
        "k": 3, "model": "empirical_bayes", "objective": "auto", "decision": None,
        "training": None, "ranking": None, "seed": 0, "device": None, "progress": True,
    }  # fmt: skip


def test_whole_numbers():
    settings.check_whole("n", 0, 0)
    settings.check_whole("n", np.int64(3), 3)
    for wrong, least in ((-1, 0), (2, 3), (True, 0), (1.0, 0), ("1", 0)):
        with pytest.raises(ValueError, match=f"TopKRanker: n must be a whole number >= {least}"):
            settings.check_whole("n", wrong, least)


@pytest.mark.parametrize(
    ("made", "name", "least"),
    [
        (settings.Training, "warm_start_epochs", 0),
        (partial(settings.Ranking, "auto"), "samples", 1),
    ],
)
def test_the_least_that_a_setting_can_be(made, name, least):
    made(**{name: least})
    with pytest.raises(
        ValueError, match=f"{name} must be a whole number >= {least}, got {least - 1}"
    ):
        made(**{name: least - 1})


def test_a_setting_by_its_own_name_goes_before_that_of_the_object():
    decision = settings.Decision(epsilon=0.5, weight=7.0)
    made = TopKRanker(
        3, decision=decision, epsilon=0.25, lr=0.5, rank_samples=9, window=4, model="linear",
        ranking=settings.Ranking("mean", 5),
    )._settings()  # fmt: skip
    assert (made.decision.epsilon, made.decision.weight, made.training.lr) == (0.25, 7.0, 0.5)
    assert (made.ranking.by, made.ranking.samples, made.forecaster.window) == ("mean", 9, 4)
    assert TopKRanker(3, ranking="ratio")._settings().ranking == settings.Ranking("ratio")
    assert TopKRanker(3)._settings().ranking == settings.Ranking("auto")
    with pytest.raises(TypeError, match="TopKRanker: 'depth' must be a setting, got none such"):
        TopKRanker(3, depth=2)


def test_what_differs_from_the_defaults_is_shown():
    assert repr(TopKRanker(3)) == "TopKRanker(3)"
    assert repr(TopKRanker(3, seed=0, model="empirical_bayes")) == "TopKRanker(3)"
    assert repr(TopKRanker(0, seed=1, progress=False)) == "TopKRanker(0, seed=1, progress=False)"
    assert repr(TopKRanker(3, lr=0.02)) == "TopKRanker(3, lr=0.02)"
    ranker = TopKRanker(3)
    assert not ranker.__sklearn_is_fitted__() and ranker.set_params(seed=5).seed == 5
    assert ranker.set_params(program=tr.programs.TopK(4), lr=1.0).k.k == 4
    assert ranker.get_params()["lr"] == 1.0 and ranker.set_params(lr=2.0).settings == {"lr": 2.0}


def test_words():
    settings.check_one_of("n", "a", ("a", "b"))
    with pytest.raises(ValueError, match="TopKRanker: n must be one of 'a', 'b', got 'c'"):
        settings.check_one_of("n", "c", ("a", "b"))
