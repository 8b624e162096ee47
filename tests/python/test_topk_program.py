"""SPO+ and PG against enumeration of all choices of K sites, finite differences, and PyEPO."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import check_grad
from torch import nn
from training_cases import LogLinear, Scorer, batch_of, panels

import topreach as tr
from topreach.objectives import PerturbationGradient, SPOPlus

TRAIN, _ = panels()
EPS = torch.finfo(torch.float64).eps


class FreeScores(nn.Module):
    """r [T, S] are the parameters themselves."""

    is_probabilistic = False

    def __init__(self, scores):
        super().__init__()
        self.scores = nn.Parameter(torch.as_tensor(scores))

    def forward(self, x):
        return self.scores


def cases(count=20, periods=3, sites=7, seed=0):
    """Scores and counts in general position, float64."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield rng.normal(2, 2, (periods, sites)), rng.gamma(1.0, 3.0, (periods, sites))


def loss_of(objective, r, y):
    """(loss, gradient)."""
    model = FreeScores(r)
    batch = batch_of(y)._replace(y=torch.as_tensor(y))
    loss = objective(model, batch).loss
    return loss.item(), torch.autograd.grad(loss, model.scores)[0].numpy()


def best(v, k):
    """(max over all choices of k of v, the choice), by enumeration."""
    choices = [np.isin(np.arange(len(v)), c) for c in itertools.combinations(range(len(v)), k)]
    w = max(choices, key=lambda c: v[c].sum())
    return v[w].sum(), w.astype(float)


# ---- the definitions, by enumeration -------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 7])
def test_spo_plus_is_its_definition(k):
    """Elmachtoub & Grigas (2022), Definition 3, for a maximisation, by enumeration."""
    for r, y in cases():
        expected, gradient = 0.0, np.zeros_like(r)
        for t in range(len(r)):
            w_star = best(y[t], k)[1]
            gap, w_gap = best(2 * r[t] - y[t], k)
            expected += gap - 2 * r[t] @ w_star + y[t] @ w_star
            gradient[t] = 2 * (w_gap - w_star)
        loss, got = loss_of(SPOPlus(k), r, y)
        assert loss == pytest.approx(expected, abs=100 * EPS * np.abs(y).sum())
        np.testing.assert_array_equal(got, gradient)


@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("two_sides", [False, True])
def test_perturbation_gradient_is_its_definition(k, two_sides):
    """Huang & Gupta (2024): differences of z(v) = max_w v·w, z by enumeration."""
    h = 0.3
    for r, y in cases():
        expected, gradient = 0.0, np.zeros_like(r)
        for t in range(len(r)):
            up, down = r[t] + h * y[t] * two_sides, r[t] - h * y[t]
            width = h * (1 + two_sides)
            (z_up, w_up), (z_down, w_down) = best(up, k), best(down, k)
            expected -= (z_up - z_down) / width
            gradient[t] = (w_down - w_up) / width
        loss, got = loss_of(PerturbationGradient(k, h, two_sides), r, y)
        assert loss == pytest.approx(expected, abs=100 * EPS * np.abs(y).sum() / h)
        np.testing.assert_allclose(got, gradient, atol=10 * EPS / h)


# ---- theorems of the papers ----------------------------------------------------------------------


def test_spo_plus_bounds_the_regret_is_convex_and_has_subgradients():
    """Elmachtoub & Grigas (2022), Proposition 3: ℓ ≥ regret, convex in r; ℓ(r') ≥ ℓ(r) + g·(r' −
    r); 0 at r = y, and the same for r + a, since K sites are always chosen."""
    objective, k = SPOPlus(3), 3
    others = list(cases(seed=1))
    for (r, y), (other, _) in zip(cases(), others, strict=True):
        loss, gradient = loss_of(objective, r, y)
        rounding = 1000 * EPS * (np.abs(r).sum() + np.abs(y).sum())
        regret = sum(best(y[t], k)[0] - y[t] @ best(r[t], k)[1] for t in range(len(r)))
        assert loss >= regret - rounding
        there = loss_of(objective, other, y)[0]
        assert there >= loss + (gradient * (other - r)).sum() - rounding
        assert loss_of(objective, 0.3 * r + 0.7 * other, y)[0] <= (
            0.3 * loss + 0.7 * there + rounding
        )
        assert loss_of(objective, y, y)[0] == pytest.approx(0, abs=rounding)
        assert loss_of(objective, r + 5, y)[0] == pytest.approx(loss, abs=rounding)


def test_perturbation_gradient_bounds_the_reach_and_tends_to_it():
    """Huang & Gupta (2024), Theorem 3.1: the backward form is never below −y·w*(r), both tend to it
    for h → 0, and an h too small for the order to change gives just that, with no gradient."""
    k = 3
    for r, y in cases():
        decision = -sum(y[t] @ best(r[t], k)[1] for t in range(len(r)))
        for h in (3.0, 0.3, 0.03):
            assert loss_of(PerturbationGradient(k, h), r, y)[0] >= decision - 1e-9
        for two_sides in (False, True):
            loss, gradient = loss_of(PerturbationGradient(k, 1e-7, two_sides), r, y)
            # z differs by h y·w: rounding of z is divided by h.
            assert loss == pytest.approx(decision, abs=100 * EPS * np.abs(r).sum() / 1e-7)
            assert not gradient.any()


@pytest.mark.parametrize(
    "objective", [SPOPlus(3), PerturbationGradient(3, 0.3), PerturbationGradient(3, 0.3, True)]
)
def test_gradient_is_that_of_finite_differences(objective):
    """Piecewise linear in r, so forward differences of 1e-6 within a piece are exact to
    rounding."""
    for r, y in cases(count=10):
        error = check_grad(
            lambda v, y=y, r=r: loss_of(objective, v.reshape(r.shape), y)[0],
            lambda v, y=y, r=r: loss_of(objective, v.reshape(r.shape), y)[1].ravel(),
            r.ravel(),
            epsilon=1e-6,
        )
        assert error < 1000 * EPS * np.abs(y).sum() / 0.3 / 1e-6


# ---- PyEPO ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sites, k", [(7, 3), (60, 20)])
def test_equal_to_pyepo(sites, k):
    """The implementation that the 2025 paper compares with, on the same inputs."""
    pyepo = pytest.importorskip("pyepo", reason="the extra `peers` is not installed")
    from pyepo.model.opt import optModel

    class TopK(optModel):
        """Choose exactly K of S."""

        def __init__(self):
            super().__init__()
            self.modelSense = pyepo.EPO.MAXIMIZE

        def _getModel(self):
            return None, list(range(sites))

        def setObj(self, c):
            self.c = np.asarray(c)

        def solve(self):
            w = np.zeros(sites)
            w[np.argsort(-self.c)[:k]] = 1
            return w, float(self.c @ w)

    optmodel = TopK()
    theirs = {
        "spo+": pyepo.func.SPOPlus(optmodel, reduction="sum"),
        "pgb": pyepo.func.perturbationGradient(optmodel, sigma=0.2, reduction="sum"),
        "pgc": pyepo.func.perturbationGradient(
            optmodel, sigma=0.2, two_sides=True, reduction="sum"
        ),
    }
    ours = {
        "spo+": SPOPlus(k),
        "pgb": PerturbationGradient(k, 0.2),
        "pgc": PerturbationGradient(k, 0.2, two_sides=True),
    }
    for r, y in cases(count=5, periods=4, sites=sites):
        c = torch.tensor(y)
        w = tr.topk_mask(c, k)
        z = (w * c).sum(-1, keepdim=True)
        for name, function in theirs.items():
            prediction = torch.tensor(r, requires_grad=True)
            arguments = (prediction, c, w, z) if name == "spo+" else (prediction, c)
            loss = function(*arguments)
            gradient = torch.autograd.grad(loss, prediction)[0].numpy()
            got, got_gradient = loss_of(ours[name], r, y)
            # PyEPO divides by h + 1e-7, and some versions solve in float32.
            scale = np.abs(y).sum() + np.abs(r).sum() / 0.2
            assert got == pytest.approx(loss.item(), abs=2e-6 * scale)
            np.testing.assert_allclose(got_gradient, gradient, rtol=1e-5, atol=1e-5)


# ---- within the library --------------------------------------------------------------------------


@pytest.mark.parametrize("make", [SPOPlus, PerturbationGradient])
def test_probabilistic_models_are_ranked_in_the_unit_of_the_target(make):
    """Mean ranking predicts counts and ratio ranking shares; the 2025 paper's code has counts for
    both."""
    model, batch = LogLinear(12, 2), TRAIN.batch()
    share = batch.y / batch.y.sum(-1, keepdim=True)
    key = tr.draw_key(torch.Generator().manual_seed(1))
    samples = model(batch.x).sample(50, key=key)
    ratio = tr.ratio_ranking(samples)
    free = {
        ("mean", None): (model(batch.x).mean, batch.y),
        ("mean", "share"): (model(batch.x).mean, share),
        ("ratio", None): (ratio, share),
        ("ratio", "count"): (ratio, batch.y),
    }
    for (ranking, target), (r, y) in free.items():
        objective = make(3, ranking=ranking, target=target, model_samples=50)
        value = objective(model, batch, key=key)
        expected = make(3)(FreeScores(r.detach()), batch._replace(y=y)).loss
        assert value.loss.item() == pytest.approx(expected.item(), rel=1e-5)
        assert value.terms["bpr"].item() == pytest.approx(tr.metrics.bpr(r.detach(), batch.y, 3))
        assert torch.isfinite(torch.autograd.grad(value.loss, model.weight)[0]).all()
    assert objective(model, batch, key=key).loss == value.loss  # the key rules the draws


@pytest.mark.parametrize("make", [SPOPlus, PerturbationGradient])
def test_the_ratio_ranking_is_exact_where_the_distribution_allows_it(make):
    model = tr.models.NegBinMixedEffects(12, 2, initial_mean=1.5)
    batch = TRAIN.batch()
    r = tr.expected_ratio_ranking(model(batch.x, batch.time))
    share = batch.y / batch.y.sum(-1, keepdim=True)
    expected = make(3)(FreeScores(r.detach()), batch._replace(y=share)).loss.item()
    state = torch.get_rng_state()
    for ranking in ("auto", "exact"):
        value = make(3, ranking=ranking)(model, batch)
        assert value.loss.item() == pytest.approx(expected, rel=1e-5)
        value.loss.backward()
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(TypeError, match="ranking must be 'ratio' or 'mean' for counts of type"):
        make(3, ranking="exact")(LogLinear(12, 2), batch)


@pytest.mark.parametrize("make", [SPOPlus, PerturbationGradient])
def test_periods_without_events_and_weights(make):
    r, y = next(cases())
    y[1] = 0
    loss, gradient = loss_of(make(2), r, y)
    kept, expected = loss_of(make(2), r[[0, 2]], y[[0, 2]])
    assert loss == pytest.approx(kept)
    np.testing.assert_allclose(gradient[[0, 2]], expected)
    assert not gradient[1].any()
    doubled = loss_of(make(2, time_weights=[2.0, 1.0, 0.0]), r, y)
    assert doubled[0] == pytest.approx(2 * loss_of(make(2), r[:1], y[:1])[0])
    nothing = make(2)(FreeScores(r), batch_of(0 * y)._replace(y=torch.zeros(3, 7).double()))
    assert nothing.loss.item() == 0 and math.isnan(nothing.terms["bpr"].item())


@pytest.mark.parametrize("objective", [SPOPlus(3), PerturbationGradient(3, 0.5)])
def test_training_by_it_raises_the_reach(objective):
    """A scorer that starts at random learns what the counts depend on."""
    train, valid = panels(num_times=12, num_sites=40)
    torch.manual_seed(0)
    model = Scorer(2, 2)
    before = objective(model, train.batch(window=2)).terms["bpr"].item()
    trainer = tr.Trainer(objective, max_epochs=60, lr=0.05)
    trainer.fit(model, train.batch(window=2))
    assert objective(model, train.batch(window=2)).terms["bpr"].item() > before + 0.1


def test_clear_errors():
    for make in (SPOPlus, PerturbationGradient):
        for wrong, match in (
            ({"k": 0}, f"{make.__name__}: k must be a whole number >= 1, got 0"),
            ({"ranking": "median"}, "ranking must be one of"),
            ({"target": "rate"}, "target must be one of None, 'count', 'share', got 'rate'"),
            ({"model_samples": 1}, "model_samples must be a whole number >= 2"),
            ({"ranking_estimator": "x"}, "ranking_estimator"),
        ):
            with pytest.raises(ValueError, match=match):
                make(**{"k": 3, **wrong})
        with pytest.raises(ValueError, match="k must be at most the number of sites S = 12"):
            make(13)(LogLinear(12, 2), TRAIN.batch())
        with pytest.raises(ValueError, match=r"scores of shape \[T, S\]"):
            make(1)(FreeScores(torch.zeros(3)), TRAIN.batch())
    for sigma in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="PerturbationGradient: sigma must be positive"):
            PerturbationGradient(3, sigma)
    assert "two_sides=True" in repr(PerturbationGradient(3, 0.2, two_sides=True))
