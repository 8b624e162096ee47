"""Objectives against their formulas written out, and against the gradient of the expectation they
estimate."""

import itertools
import math

import pytest
import torch
from torch import nn
from training_cases import LogLinear, PoissonCounts, Scorer, batch_of, panels

import topreach as tr
from topreach.data.panel import Batch
from topreach.models import NegBinMixedEffects
from topreach.objectives import NLL, DecisionAware, DirectBPR

TRAIN, _ = panels()
SAMPLED = {"ranking": "ratio", "topk": "sampled"}


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


def negbin(num_sites=9, num_times=4):
    """A small mixed-effects model in float64 with its parameters off their start, and a batch."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(num_times, num_sites, 2, generator=generator, dtype=torch.float64)
    y = torch.poisson(
        2 * torch.rand(num_times, num_sites, generator=generator, dtype=torch.float64),
        generator=generator,
    )
    time = torch.linspace(-1.3, 1.3, num_times, dtype=torch.float64)
    model = NegBinMixedEffects(num_sites, 2, link="softplus", penalty="map").double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator).double()
    return model, Batch(x, y, time, None, None)


def gradient_of(loss, model):
    """All parameters' gradients as one vector; zero where the loss does not depend on them."""
    parts = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    pairs = zip(parts, model.parameters(), strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in pairs])


def key(seed=0):
    return tr.draw_key(torch.Generator().manual_seed(seed))


# ---- likelihood ----------------------------------------------------------------------------------


def test_a_penalty_may_be_set_on_the_model_and_takes_what_it_names():
    """Not on its class alone."""
    model, batch = fitted_model(), TRAIN.batch()
    model.penalty = lambda time: time.sum()
    assert NLL()(model, batch).terms["penalty"].item() == pytest.approx(batch.time.sum().item())


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
    for wrong in (math.nan, math.inf, -1.0):
        with pytest.raises(ValueError, match="weights must be finite and not negative, got"):
            NLL(time_weights=torch.tensor([1.0, wrong, 1.0, 1.0]))(model, batch)
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
        objective = DirectBPR(1, sigma, num_samples=draws, topk="sampled")
        objective(model, batch_of(y), key=key(seed)).loss.backward()
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
    objective = DirectBPR(1, 0.4, num_samples=50, model_samples=2000, **SAMPLED)
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
    objective = DirectBPR(3, 0.5, ranking="mean", topk="sampled")
    value = objective(model, TRAIN.batch(), key=key())
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
    settings = {"num_samples": 40, "model_samples": 30, **SAMPLED}
    model, batch = fitted_model(), TRAIN.batch()
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


@pytest.mark.parametrize("settings", [{}, SAMPLED])
def test_hinge_is_off_where_the_reach_is_good_enough(settings):
    model, batch = negbin()
    off = DecisionAware(3, 0.05, 1e-6, **settings)(model, batch, key=key())
    assert off.terms["hinge"].item() == 0
    plain = gradient_of(NLL()(model, batch).loss, model)
    assert torch.equal(gradient_of(off.loss, model), plain) and plain.any()


@pytest.mark.parametrize(
    "objective",
    [
        DirectBPR(3, 0.05),
        DirectBPR(3, 0.05, **SAMPLED),
        DecisionAware(3, 0.05, 1.0),
        DecisionAware(3, 0.05, 1.0, topk="mean_field"),
        DecisionAware(3, 0.05, 1.0, **SAMPLED),
    ],
)
def test_periods_without_events_count_nothing(objective):
    """BPR is undefined there; the loss is finite and the reach part of its gradient zero."""
    model, batch = negbin()
    y = batch.y.clone()
    y[1] = 0
    batch = batch._replace(y=y)
    value = objective(model, batch, key=key())
    gradient = gradient_of(value.loss, model)
    assert (
        torch.isfinite(value.loss)
        and torch.isfinite(gradient).all()
        and torch.isfinite(value.terms["bpr"])
    )
    nothing = batch._replace(y=torch.zeros_like(y))
    value = objective(model, nothing, key=key())
    assert torch.isfinite(value.loss) and value.terms["bpr"].isnan()
    gradient = gradient_of(value.loss, model)
    if isinstance(objective, DirectBPR):
        assert value.loss.item() == 0 and not gradient.any()
    else:
        assert value.terms["hinge"].item() == 0
        assert torch.equal(gradient, gradient_of(NLL()(model, nothing).loss, model))


# ---- without sampling ----------------------------------------------------------------------------


def written_out(model, batch, k, sigma):
    """BPR_t [D25 Eq. 2] from the two expectations: E[y_s / Σ y] by its closed form for negative
    binomial counts with one p, (n_s / N)(1 − P(Σ y = 0)), and the top-K by summing over all sets of
    K sites the probability that they are the K best, each an integral over the lowest of them."""
    counts = model(batch.x, batch.time)
    n, q = counts.total_count.detach().double(), counts.logits.detach().sigmoid().double()
    total = n.sum(-1, keepdim=True)
    r = n / total * (1 - (1 - q) ** total)
    t = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    found = []
    for row, y in zip(r, batch.y.double(), strict=True):
        # z of the K-th best is at t: density of site i there, others in the set above, the rest
        # below.
        at = row.unsqueeze(-1) + sigma * t  # [S, nodes]: where site i stands
        reach = 0.0
        for chosen in itertools.combinations(range(len(row)), k):
            probability = 0.0
            for lowest in chosen:
                integrand = torch.exp(-t.square() / 2) / math.sqrt(2 * math.pi)
                for other in range(len(row)):
                    if other != lowest:
                        u = (at[lowest] - row[other]) / sigma
                        above = 0.5 * torch.erfc(u / math.sqrt(2))
                        integrand = integrand * (above if other in chosen else 1 - above)
                probability += torch.trapezoid(integrand, t).item()
            reach += probability * y[list(chosen)].sum().item()
        found.append(reach / y.topk(k).values.sum().item())
    return torch.tensor(found, dtype=torch.float64)


def test_deterministic_daml_is_its_formula_by_enumeration():
    """2025 paper, Eq. 13, both expectations from every set of K sites. expected_topk is right to
    1e-6 in each of S memberships (as a rule 1e-9)."""
    model, batch = negbin(num_sites=6, num_times=3)
    bpr = written_out(model, batch, 2, 0.07)
    value = DecisionAware(2, 0.07, 0.63, 7.0)(model, batch)
    hinge = 7.0 * (0.63 - bpr).clamp_min(0).sum()
    assert 0 < (bpr < 0.63).sum() < 3, "a period on either side"
    assert value.terms["hinge"].item() == pytest.approx(hinge.item(), abs=7e-6)
    assert value.terms["bpr"].item() == pytest.approx(bpr.mean().item(), abs=1e-6)
    assert value.loss.item() == pytest.approx((NLL()(model, batch).loss + hinge).item(), abs=7e-6)
    direct = DirectBPR(2, 0.07)(model, batch)
    assert direct.loss.item() == pytest.approx(-bpr.sum().item(), abs=3e-6)


@pytest.mark.parametrize("topk", ["exact", "mean_field"])
@pytest.mark.parametrize("epsilon", [1.0, 0.75])
def test_gradient_of_deterministic_daml_in_every_parameter(topk, epsilon):
    """Against the five-point central difference in float64, whose error is h⁴ f⁽⁵⁾ / 30 plus
    1.5 e / h for an error e of the values: 7 S T 1e-9 at worst is not reached; 1e-5 of the
    gradient's length is far below any single part that could be left out."""
    model, batch = negbin()
    objective = DecisionAware(3, 0.05, epsilon, 7.0, topk=topk)
    value = objective(model, batch)
    assert value.terms["hinge"] > 0
    gradient = gradient_of(value.loss, model)
    theta = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    h, differences = 1e-3, torch.zeros_like(theta)

    def loss(at):
        torch.nn.utils.vector_to_parameters(at, model.parameters())
        with torch.no_grad():
            return objective(model, batch).loss

    for i in range(len(theta)):
        step = h * torch.eye(len(theta), dtype=theta.dtype)[i]
        near, far = (
            loss(theta + step) - loss(theta - step),
            loss(theta + 2 * step) - loss(theta - 2 * step),
        )
        differences[i] = (8 * near - far) / (12 * h)
    torch.nn.utils.vector_to_parameters(theta, model.parameters())
    assert len(theta) == 1 + 2 + 9 + 9 + 1 + 2 + 1 and gradient.ne(0).all()
    error = (gradient - differences).norm() / gradient.norm()
    assert error < 1e-5, error


@pytest.mark.parametrize("estimator", ["score", "score_loo", "conditional"])
def test_the_sampled_top_k_has_the_deterministic_mean(estimator):
    """DirectBPR is linear in b̂, so at the exact ranking its sampled value and gradient are
    unbiased estimates of the deterministic ones."""
    model, batch = negbin()
    exact = DirectBPR(3, 0.05)(model, batch)
    expected = torch.cat([exact.loss.detach().reshape(1), gradient_of(exact.loss, model)])
    objective = DirectBPR(3, 0.05, num_samples=200, topk="sampled", estimator=estimator)
    found = []
    for seed in range(200):
        value = objective(model, batch, key=key(seed))
        gradient = gradient_of(value.loss, model)
        found.append(torch.cat([value.loss.detach().reshape(1), gradient]))
    found = torch.stack(found)
    error = found.std(0) / math.sqrt(len(found))
    free = error > 0  # parameters that the ranking does not depend on have gradient 0
    assert ((found.mean(0) - expected).abs()[free] < 5 * error[free]).all()
    assert not expected[~free].any() and free.sum() == 1 + 1 + 2 + 9 + 9 + 1
    assert (expected.abs() > 10 * error)[free].any(), "the test must be able to see the gradient"


def test_the_sampled_ranking_tends_to_the_exact_one():
    """With M draws the ranking errs by O(1/√M), and its soft top-K is biased by O(1/M)."""
    model, batch = negbin()
    exact = gradient_of(DirectBPR(3, 0.1)(model, batch).loss, model)
    distance = {}
    for draws in (100, 1000):
        objective = DirectBPR(3, 0.1, model_samples=draws, ranking="ratio")
        found = torch.stack(
            [gradient_of(objective(model, batch, key=key(s)).loss, model) for s in range(100)]
        )
        error = found.std(0) / 10
        distance[draws] = (found - exact).norm(dim=1).mean()
        if draws == 1000:
            assert ((found.mean(0) - exact).abs() <= 5 * error + 0.02 * exact.norm()).all()
    assert 0.2 < distance[1000] / distance[100] < 0.5, "about 1/√10"


def test_the_hinge_of_a_sampled_reach_is_biased():
    """At ε = E BPR_t the hinge is 0. With BPR_t sampled, nearly normal with standard deviation s_t,
    its mean is λ Σ_t s_t / √(2π) (Jensen), and it acts half of the time."""
    model, batch = negbin()
    batch = batch._replace(x=batch.x[:1], y=batch.y[:1], time=batch.time[:1])
    epsilon = -DirectBPR(3, 0.05)(model, batch).loss.item()
    exact = DecisionAware(3, 0.05, epsilon, 7.0)(model, batch)
    assert exact.terms["hinge"].item() < 7e-6
    sampled = DecisionAware(3, 0.05, epsilon, 7.0, num_samples=100, topk="sampled")
    values = [sampled(model, batch, key=key(s)).terms for s in range(400)]
    hinge = torch.stack([v["hinge"] for v in values])
    bpr = torch.stack([v["bpr"] for v in values])
    error = hinge.std() / 20
    assert abs(bpr.mean() - epsilon) < 5 * bpr.std() / 20
    # s itself is known to 1/√800, and J = 100 draws leave a skewness of a tenth at most.
    expected = 7 * bpr.std() / math.sqrt(2 * math.pi)
    assert hinge.mean() > 10 * error and abs(hinge.mean() - expected) < 5 * error + 0.05 * expected
    assert 0.4 < hinge.gt(0).double().mean() < 0.6


@pytest.mark.parametrize(
    "objective",
    [
        DecisionAware(3, 0.05),
        DecisionAware(3, 0.05, 0.8, topk="mean_field"),
        DecisionAware(3, 0.05, ranking="exact", topk="exact"),
        DecisionAware(3, 0.05, ranking="mean"),
        DirectBPR(3, 0.05),
    ],
)
def test_deterministic_objectives_draw_nothing(objective):
    """The same bits every time, whatever the key, and torch's generators are left alone."""
    model, batch = negbin()
    own = torch.Generator().manual_seed(7)
    states = torch.get_rng_state(), own.get_state()
    found = []
    for arguments in ({}, {}, {"generator": own}, {"key": key(5)}):
        value = objective(model, batch, **arguments)
        found.append(torch.cat([value.loss.detach().reshape(1), gradient_of(value.loss, model)]))
    assert all(torch.equal(found[0], other) for other in found[1:])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert torch.equal(own.get_state(), states[1])


def test_objectives_of_a_scorer_are_deterministic_too():
    scores = FreeScores(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)))
    batch = batch_of(torch.arange(24.0).reshape(3, 8) % 5)
    value = DirectBPR(2, 0.3)(scores, batch)
    b = tr.expected_topk(scores.scores, 2, sigma=0.3)
    expected = -((b * batch.y).sum(-1) / batch.y.topk(2).values.sum(-1)).sum()
    assert value.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    field = DirectBPR(2, 0.3, topk="mean_field")(scores, batch).loss
    b = tr.expected_topk(scores.scores, 2, sigma=0.3, method="mean_field")
    expected = -((b * batch.y).sum(-1) / batch.y.topk(2).values.sum(-1)).sum()
    assert field.item() == pytest.approx(expected.item(), rel=1e-6)
    assert field.item() != value.loss.item()


def test_auto_is_exact_where_the_distribution_allows_it():
    model, batch = negbin()
    auto, exact = DirectBPR(3, 0.05), DirectBPR(3, 0.05, ranking="exact")
    assert torch.equal(auto(model, batch).loss, exact(model, batch).loss)
    # PoissonCounts is a class of this test, which the library does not know: draws.
    other, counts = fitted_model(), TRAIN.batch()
    ratio = DirectBPR(3, 0.05, ranking="ratio")
    losses = [objective(other, counts, key=key()).loss for objective in (auto, ratio)]
    assert torch.equal(*losses)
    assert not torch.equal(losses[0], auto(other, counts, key=key(1)).loss)
    with pytest.raises(TypeError, match="DirectBPR: ranking must be 'ratio' or 'mean' for.*Poisso"):
        exact(other, counts)


def test_offset_is_in_the_exact_ranking():
    """c in E[y_s / (c + Σ y)], which the authors' code sets to 1."""
    model, batch = negbin()
    r = tr.expected_ratio_ranking(model(batch.x, batch.time), offset=1.0)
    expected = -DirectBPR(3, 0.05)(FreeScores(r.detach().float()), batch).loss
    found = -DirectBPR(3, 0.05, offset=1.0)(model, batch).loss
    # Scores rounded to float32 move BPR by at most S 2^-24 max r / sigma a period.
    assert found.item() == pytest.approx(expected.item(), abs=1e-4)
    assert abs(found.item() + DirectBPR(3, 0.05)(model, batch).loss.item()) > 1e-3


def test_weights_over_time_in_deterministic_daml():
    """Weight 2 is the same as the period twice, weight 0 as if it were not there; the penalty
    counts once."""
    model, batch = negbin()
    twice = [0, 1, 1, 3]
    repeated = batch._replace(x=batch.x[twice], y=batch.y[twice], time=batch.time[twice])
    weights = torch.tensor([1.0, 2.0, 0.0, 1.0], dtype=torch.float64)
    objective = DecisionAware(3, 0.05, 0.9)
    expected = objective(model, repeated)
    gradient = gradient_of(expected.loss, model)
    weighted = DecisionAware(3, 0.05, 0.9, time_weights=[1.0, 2.0, 0.0, 1.0])
    for value in (objective(model, batch._replace(weights=weights)), weighted(model, batch)):
        assert value.loss.item() == pytest.approx(expected.loss.item(), rel=1e-12)
        torch.testing.assert_close(gradient_of(value.loss, model), gradient)


def test_key_and_generator_rule_the_noise():
    model, batch = fitted_model(), TRAIN.batch()
    objective = DecisionAware(3, 0.05, 1.0, **SAMPLED)
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
        ({"sigma": 0.0}, "sigma must be > 0"),
        ({"sigma": float("nan")}, "sigma must be > 0"),
        ({"num_samples": 1}, "num_samples must be a whole number >= 2"),
        ({"model_samples": 0}, "model_samples"),
        ({"ranking": "median"}, "ranking must be one of 'auto', 'exact', 'ratio', 'mean'"),
        ({"topk": "hard"}, "topk must be one of 'exact', 'mean_field', 'sampled', got 'hard'"),
        ({"noise": "gumbel"}, "noise must be 'normal' for topk='exact', got 'gumbel'.*sampled"),
        ({"estimator": "exactly"}, "estimator must be one of"),
        ({"ranking_estimator": "x"}, "ranking_estimator"),
        ({"noise": "cauchy"}, "noise must be one of"),
    ):
        with pytest.raises(ValueError, match=match):
            DirectBPR(**{"k": 3, "sigma": 0.1, **wrong})
    for wrong in (2.5, True, "3", None):
        message = "DirectBPR: k must be a whole number >= 1 or a Program"
        with pytest.raises(TypeError, match=message):
            DirectBPR(wrong, 0.1)
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
@pytest.mark.parametrize(
    "objective",
    [
        NLL(),
        DecisionAware(10, 0.01),
        DecisionAware(10, 0.01, **SAMPLED),
        DirectBPR(10, 0.01),
        DirectBPR(10, 0.01, **SAMPLED),
    ],
)
def test_a_compiled_training_step_is_the_eager_one(objective):
    """Objective and backward through torch.compile with inductor on the CPU."""
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
