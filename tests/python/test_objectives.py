"""Objectives against their formulas written out, and against the gradient of the expectation they
estimate."""

import itertools
import math

import pytest
import torch
from torch import nn
from training_cases import LogLinear, PoissonCounts, Scorer, batch_of, panels

import topreach as tr
from topreach.objectives import NLL, DecisionAware, DirectBPR

TRAIN, _ = panels()


def fitted_model():
    model = LogLinear(12, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([0.4, -0.1]))
        model.site.copy_(torch.linspace(-0.5, 0.5, 12))
    return model


class FreeScores(nn.Module):
    """r [T, S] are the parameters themselves."""

    is_probabilistic = False

    def __init__(self, scores):
        super().__init__()
        self.scores = nn.Parameter(torch.as_tensor(scores, dtype=torch.float32))

    def forward(self, x):
        return self.scores


def key(seed=0):
    return tr.draw_key(torch.Generator().manual_seed(seed))


# ---- likelihood ----------------------------------------------------------------------------------


def test_nll_is_the_sum_over_periods_and_sites_plus_the_penalty():
    """2025 paper, Eq. 8 and 20, for Poisson counts and a ridge."""
    model, batch = fitted_model(), TRAIN.batch()
    value = NLL()(model, batch)
    rate = model(batch.x).mean.double()
    y = batch.y.double()
    expected = sum(
        -torch.distributions.Poisson(rate[t, s]).log_prob(y[t, s]).item()
        for t, s in itertools.product(range(len(y)), range(12))
    )
    assert value.terms["nll"].item() == pytest.approx(expected, rel=1e-5)
    assert value.terms["penalty"].item() == pytest.approx(0.5 * (model.site**2).sum().item())
    assert value.loss.item() == pytest.approx(expected + value.terms["penalty"].item(), rel=1e-5)


def test_weights_over_time_count_periods():
    """Weight 2 is the same as the period twice, weight 0 as if it were not there; the penalty
    counts once."""
    model, batch = fitted_model(), TRAIN.batch()
    twice = [0, 1, 1, 3]
    repeated = batch._replace(x=batch.x[twice], y=batch.y[twice], time=batch.time[twice])
    weights = torch.tensor([1.0, 2.0, 0.0, 1.0])
    expected = NLL()(model, repeated).loss
    for value in (
        NLL()(model, batch._replace(weights=weights)),
        NLL(time_weights=weights)(model, batch),
        NLL(time_weights=weights.tolist())(model, batch),
        NLL(time_weights=lambda time: weights[time.long()])(model, batch),
        NLL(time_weights=[1.0, 1.0, 0.0, 1.0])(
            model, batch._replace(weights=torch.tensor([1.0, 2.0, 5.0, 1.0]))
        ),
    ):
        assert value.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    with pytest.raises(ValueError, match=r"time_weights must have shape \[4\].*Trainer"):
        NLL(time_weights=[1.0, 2.0])(model, batch)


def test_scorers_have_no_likelihood():
    scorer, batch = Scorer(2, 2), TRAIN.batch(window=2)
    with pytest.raises(TypeError, match="NLL: model must be probabilistic.*Scorer.*DirectBPR"):
        NLL()(scorer, batch)
    with pytest.raises(TypeError, match="DecisionAware: model must be probabilistic.*DirectBPR"):
        DecisionAware(3, 0.1, 1.0)(scorer, batch)


# ---- reach ---------------------------------------------------------------------------------------


def test_direct_bpr_of_a_scorer_with_little_noise_is_the_hard_bpr():
    """2023 paper, Eq. 5: -Σ_t y·TopK(r)/y·TopK(y), counted by hand."""
    scores = [[5.0, 4.0, 3.0, 2.0], [1.0, 2.0, 3.0, 4.0], [9.0, 1.0, 2.0, 3.0]]
    counts = [[0.0, 1.0, 2.0, 3.0], [4.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    value = DirectBPR(2, 1e-6)(FreeScores(scores), batch_of(counts))
    assert value.loss.item() == pytest.approx(-(1 / 5 + 2 / 5), rel=1e-6)
    assert value.terms["bpr"].item() == pytest.approx((1 / 5 + 2 / 5) / 2, rel=1e-6)


def test_gradient_of_direct_bpr_has_the_right_mean():
    """S = 2, K = 1: E[b_0] = Φ((r_0 − r_1)/(σ√2)), so d(−BPR)/dr_0 = −(y_0 − y_1)/max(y)
    φ(·)/(σ√2)."""
    r, y, sigma, draws, repeats = torch.tensor([[0.3, 0.1]]), [[1.0, 4.0]], 0.5, 50, 400
    model = FreeScores(r)
    gradients = []
    for seed in range(repeats):
        model.zero_grad()
        DirectBPR(1, sigma, num_samples=draws)(model, batch_of(y), key=key(seed)).loss.backward()
        gradients.append(model.scores.grad[0].clone())
    gradients = torch.stack(gradients)
    u = (0.3 - 0.1) / (sigma * math.sqrt(2))
    expected = (
        -(1 - 4) / 4 * math.exp(-(u**2) / 2) / math.sqrt(2 * math.pi) / (sigma * math.sqrt(2))
    )
    error = gradients.std(0) / math.sqrt(repeats)
    assert ((gradients.mean(0) - torch.tensor([expected, -expected])).abs() < 5 * error).all()


def test_gradient_through_the_ratio_ranking_has_the_right_mean():
    """The whole chain of Algorithm A.1 on a model small enough to enumerate: E over the top-K noise
    by S = 2 closed form at the true ratio ranking; many model samples make r nearly exact, so the
    chain rule holds."""

    class Two(nn.Module):
        is_probabilistic = True

        def __init__(self):
            super().__init__()
            self.log_rate = nn.Parameter(torch.tensor([[0.2, -0.1]], dtype=torch.float64))

        def forward(self, x):
            return PoissonCounts(self.log_rate.exp())

    def exact_loss(log_rate):
        # Poisson: r_s = (λ_s/Λ)(1 − e^{−Λ}).
        rate = log_rate.exp()
        ranking = rate / rate.sum() * (1 - torch.exp(-rate.sum()))
        b0 = 0.5 * (
            1 + torch.erf((ranking[0, 0] - ranking[0, 1]) / (0.4 * math.sqrt(2)) / math.sqrt(2))
        )
        return -(b0 * 3 + (1 - b0) * 1) / 3

    model, gradients = Two(), []
    batch = batch_of([[3.0, 1.0]])
    batch = batch._replace(y=batch.y.double())
    objective = DirectBPR(1, 0.4, num_samples=50, model_samples=2000)
    for seed in range(200):
        model.zero_grad()
        objective(model, batch, key=key(seed)).loss.backward()
        gradients.append(model.log_rate.grad[0].clone())
    exact = torch.autograd.grad(exact_loss(model.log_rate), model.log_rate)[0][0]
    gradients = torch.stack(gradients)
    error = gradients.std(0) / math.sqrt(len(gradients))
    assert ((gradients.mean(0) - exact).abs() < 5 * error).all()
    assert (exact.abs() > 10 * error).any(), "the test must be able to see the gradient"


def test_mean_ranking_differentiates_the_mean():
    model = fitted_model()
    value = DirectBPR(3, 0.5, ranking="mean")(model, TRAIN.batch(), key=key())
    r = model(TRAIN.x).mean
    from topreach.objectives.base import derived_key

    b = tr.perturbed_topk(
        r, 3, sigma=0.5, num_samples=100, estimator="score_loo", key=derived_key(key(), 1)
    )
    expected = -((b * TRAIN.y).sum(-1) / TRAIN.y.topk(3).values.sum(-1)).sum()
    assert value.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    got = torch.autograd.grad(value.loss, model.weight)[0]
    torch.testing.assert_close(
        got, torch.autograd.grad(expected, model.weight)[0], rtol=1e-4, atol=1e-6
    )


# ---- decision-aware ------------------------------------------------------------------------------


def test_daml_is_likelihood_plus_hinge():
    """2025 paper, Eq. 13, from its parts with the same noise."""
    model, batch, settings = fitted_model(), TRAIN.batch(), {"num_samples": 40, "model_samples": 30}
    value = DecisionAware(3, 0.05, 0.8, 7.0, **settings)(model, batch, key=key())
    nll = NLL()(model, batch)
    per_period = []
    for t in range(4):
        only = batch._replace(weights=torch.eye(4)[t])
        per_period.append(-DirectBPR(3, 0.05, **settings)(model, only, key=key()).loss.item())
    hinge = 7.0 * sum(max(0.0, 0.8 - bpr) for bpr in per_period)
    assert 0 < sum(bpr < 0.8 for bpr in per_period)
    assert value.terms["hinge"].item() == pytest.approx(hinge, rel=1e-5)
    assert value.terms["bpr"].item() == pytest.approx(sum(per_period) / 4, rel=1e-5)
    assert value.loss.item() == pytest.approx(nll.loss.item() + hinge, rel=1e-6)


def test_hinge_is_off_where_the_reach_is_good_enough():
    model, batch = fitted_model(), TRAIN.batch()
    off = DecisionAware(3, 0.05, 1e-6)(model, batch, key=key())
    assert off.terms["hinge"].item() == 0
    gradient = torch.autograd.grad(off.loss, list(model.parameters()))
    plain = torch.autograd.grad(NLL()(model, batch).loss, list(model.parameters()))
    for a, b in zip(gradient, plain, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("objective", [DirectBPR(3, 0.05), DecisionAware(3, 0.05, 1.0)])
def test_periods_without_events_count_nothing(objective):
    """MATH §1: BPR is undefined there; the loss is finite and the reach part of its gradient
    zero."""
    model = fitted_model()
    y = TRAIN.y.clone()
    y[1] = 0
    batch = TRAIN.batch()._replace(y=y)
    value = objective(model, batch, key=key())
    gradient = torch.autograd.grad(value.loss, model.site)[0]
    assert (
        torch.isfinite(value.loss)
        and torch.isfinite(gradient).all()
        and torch.isfinite(value.terms["bpr"])
    )
    nothing = batch._replace(y=torch.zeros_like(y))
    value = objective(model, nothing, key=key())
    assert torch.isfinite(value.loss) and value.terms["bpr"].isnan()
    gradient = torch.autograd.grad(value.loss, model.site)[0]
    if isinstance(objective, DirectBPR):
        assert value.loss.item() == 0 and not gradient.any()
    else:
        assert value.terms["hinge"].item() == 0
        torch.testing.assert_close(
            gradient, torch.autograd.grad(NLL()(model, nothing).loss, model.site)[0]
        )


def test_key_and_generator_rule_the_noise():
    model, batch, objective = fitted_model(), TRAIN.batch(), DecisionAware(3, 0.05, 1.0)
    losses = [objective(model, batch, key=key(s)).loss.item() for s in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    losses = [
        objective(model, batch, generator=torch.Generator().manual_seed(s)).loss.item()
        for s in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]
    torch.manual_seed(0)
    assert objective(model, batch).loss.item() == losses[0]


def test_clear_errors():
    for wrong, match in (
        ({"k": 0}, "k must be a whole number >= 1, got 0"),
        ({"k": 2.5}, "k must be a whole number"),
        ({"sigma": 0.0}, "sigma must be > 0"),
        ({"sigma": float("nan")}, "sigma must be > 0"),
        ({"num_samples": 1}, "num_samples must be a whole number >= 2"),
        ({"model_samples": 0}, "model_samples"),
        ({"ranking": "median"}, "ranking must be one of 'ratio', 'mean'"),
        ({"estimator": "exactly"}, "estimator must be one of"),
        ({"ranking_estimator": "x"}, "ranking_estimator"),
        ({"noise": "cauchy"}, "noise must be one of"),
    ):
        with pytest.raises(ValueError, match=match):
            DirectBPR(**{"k": 3, "sigma": 0.1, **wrong})
    for wrong, match in (
        ({"epsilon": 0.0}, r"epsilon must be in \(0, 1\]"),
        ({"weight": -1.0}, "weight must be"),
    ):
        with pytest.raises(ValueError, match=match):
            DecisionAware(**{"k": 3, "sigma": 0.1, "epsilon": 1.0, **wrong})
    with pytest.raises(ValueError, match="k must be at most the number of sites S = 12, got 13"):
        DirectBPR(13, 0.1)(fitted_model(), TRAIN.batch())
    with pytest.raises(ValueError, match=r"scores of shape \[T, S\]"):
        DirectBPR(1, 0.1)(FreeScores(torch.zeros(3)), TRAIN.batch())

    class Odd(nn.Module):
        def forward(self, image):
            return image

    with pytest.raises(TypeError, match="arguments must be among x, time, history"):
        DirectBPR(1, 0.1)(Odd(), TRAIN.batch())


@pytest.mark.slow
@pytest.mark.parametrize("objective", [NLL(), DecisionAware(10, 0.01, 1.0), DirectBPR(10, 0.01)])
def test_a_compiled_training_step_is_the_eager_one(objective):
    """Objective and backward through torch.compile with inductor on the CPU."""
    from topreach.models import NegBinMixedEffects

    train, _ = panels(num_sites=40)
    model = NegBinMixedEffects(40, 2, link="softplus", initial_mean=train.y.mean().item())
    batch = train.batch()

    def loss(key):
        return objective(model, batch, key=key).loss

    expected = loss(key())
    gradient = torch.autograd.grad(expected, list(model.parameters()), allow_unused=True)
    torch._dynamo.reset()
    value = torch.compile(loss)(key())
    compiled = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)
    for a, b in zip(compiled, gradient, strict=True):
        if a is None or b is None:
            assert (a is None or not a.any()) and (b is None or not b.any())
        else:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
