"""Stemmed: fits of events whose process is known [STEMMED Sec. 2-4]."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hawkes_reference import Case, clusters, events_of, table_of
from scipy import optimize, stats

import topreach as tr
from topreach.models.stemmed import fitting, reports
from topreach.models.stemmed.problem import make_problem

ops = torch.ops.topreach
NODES, RATE, CHILDREN, LAG, END = 12, 0.8, 0.45, 0.6, 120.0


def stemmed(**options):
    given = {"theta": "none", "network": "own", "recent_rate": False}
    return tr.models.Stemmed(**(given | options))


def fitted(model, events, *rest, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(events, *rest, **options)


@pytest.fixture(scope="module")
def simulated():
    return clusters(
        np.full(NODES, RATE), CHILDREN * np.eye(NODES), np.full(NODES, LAG), END, seed=1
    )


@pytest.fixture(scope="module")
def events(simulated):
    time, node, _ = simulated
    return events_of(time, node, END, places=NODES)


@pytest.fixture(scope="module")
def alone(events):
    return fitted(stemmed(pooled=False), events)


@pytest.fixture(scope="module")
def pooled(events):
    return fitted(stemmed(), events)


def test_three_solvers_look_for_one_maximum(events, pooled):
    """L-BFGS and Newton's method share no step; ascent along the gradient comes near from below."""
    plain = {"pooled": False, "stable": False}
    newton, found, slow = (
        fitted(stemmed(**plain, solver=solver), events)
        for solver in ("newton", "lbfgs", "gradient")
    )
    free = [0, 1, 3]  # the distance decay is held
    torch.testing.assert_close(found.working_[:, free], newton.working_[:, free], rtol=0, atol=1e-3)
    torch.testing.assert_close(found.log_likelihood_, newton.log_likelihood_, rtol=0, atol=1e-6)
    assert bool(found.converged_.all()) and found.evaluations_ > newton.evaluations_
    both = fitted(stemmed(solver="lbfgs"), events)
    torch.testing.assert_close(both.log_likelihood_, pooled.log_likelihood_, rtol=0, atol=1e-3)
    assert bool((slow.log_likelihood_ < newton.log_likelihood_ + 1e-8).all())
    assert bool((slow.log_likelihood_ > newton.log_likelihood_ - 1.0).all())
    assert slow.evaluations_ > 10 * found.evaluations_


def test_the_network_is_taken_anew_at_each_event():
    """With blocks that begin at each event, theta at an event is that of all before it; a model of
    months sees the month's first day alone."""
    time, node, _ = clusters(np.full(4, 0.6), np.full((4, 4), 0.1), np.full(4, 0.5), 60.0, seed=3)
    table = table_of(time, node % 2)
    table["k0"] = (node // 2 == 0).astype(int)
    table["k1"] = ((node // 2 == 1) | (node % 3 == 0)).astype(int)
    columns = {"time": "t", "place": "place", "id": "id", "resolution": 0, "window": (0, 60)}
    events = tr.Events.from_frame(table, types=["k0", "k1"], **columns)
    model = fitted(
        tr.models.Stemmed(refresh="event", recent_rate=False, pooled=False, use_distance=False),
        events,
    )
    problem = model.problem_
    edges = problem.arguments.edges.numpy()
    assert set(events.times.tolist()) <= set(edges.tolist())
    times, flags, place = events.times.numpy(), events.flags.numpy().astype(float), events.place
    together = np.zeros((len(edges) - 1, 2, 2, 2))
    number = np.zeros((len(edges) - 1, 2))
    for k, edge in enumerate(edges[:-1]):
        for i in range(2):
            seen = flags[(times < edge) & (place.numpy() == i)]
            together[k, i], number[k, i] = seen.T @ seen, len(seen)
    a = problem.arguments
    case = Case(
        a.time.numpy(),
        a.node.numpy(),
        a.marks.numpy(),
        edges,
        a.weights.numpy(),
        a.covariates.numpy(),
        a.distance.numpy(),
        np.arange(len(edges) - 1),
        together,
        number,
    )
    natural = ops.hawkes_natural(model.working_, 0).numpy()
    for u in range(4):
        want = case.log_likelihood(u, natural[u])
        assert float(model.log_likelihood_[u]) == pytest.approx(want, rel=1e-10)
    monthly = fitted(tr.models.Stemmed(recent_rate=False, pooled=False, use_distance=False), events)
    assert not torch.allclose(monthly.log_likelihood_, model.log_likelihood_)
    with pytest.raises(ValueError, match="refresh must be one of 'month'.*'event'"):
        tr.models.Stemmed(refresh="hour")


def test_another_solver_is_refused():
    with pytest.raises(ValueError, match="solver must be one of 'newton', 'lbfgs', 'gradient'"):
        stemmed(solver="adam")


def test_simulation_based_calibration():
    """Parameters drawn from the prior, events from them: each truth's place in its fitted posterior
    is uniform [Talts et al. 2018]. 150 nodes, each a process of its own of 3 parameters."""
    nodes, end = 150, 300.0
    draw = np.random.default_rng(11)
    centre, sd = np.array([np.log(0.5), np.log(0.4), 0.0]), np.array([0.3, 0.25, 0.4])
    true = centre + sd * draw.normal(size=(nodes, 3))
    rate, children, lag = np.exp(true[:, 0]), np.exp(true[:, 1]), np.exp(-true[:, 2])
    alone = [
        clusters(rate[u, None], children[u, None, None], lag[u, None], end, seed=100 + u)[0]
        for u in range(nodes)
    ]
    time, node = np.concatenate(alone), np.repeat(np.arange(nodes), [len(t) for t in alone])
    events = events_of(time, node, end, places=nodes)
    model = stemmed(pooled=False, stable=False)
    problem = make_problem(events, model.options, None, "test")
    free = [0, 1, 3]
    mean, precision = torch.zeros(nodes, 4), torch.ones(nodes, 4)
    mean[:, free], precision[:, free] = torch.tensor(centre).float(), torch.tensor(sd**-2).float()
    prior = fitting.Prior(mean.double(), precision.double())
    found = fitting.newton(problem, prior.mean.clone(), prior, None)
    assert bool(found.converged.all())
    covariance = fitting.inverse_of(found.information, problem.held, prior.precision)
    spread = covariance.diagonal(dim1=1, dim2=2).sqrt()[:, free]
    place = stats.norm.cdf(((torch.from_numpy(true) - found.working[:, free]) / spread).numpy())
    for parameter in range(3):
        assert stats.kstest(place[:, parameter], "uniform").pvalue > 1e-3
    held = ((place > 0.05) & (place < 0.95)).mean()
    assert abs(held - 0.9) < 4 * np.sqrt(0.09 / place.size)
    # The data tell more than the prior did.
    assert bool((spread.mean(0) < 0.8 * torch.from_numpy(sd)).all())


def truth():
    """Working coordinates of the simulated process, [M, 4]."""
    one = torch.tensor([np.log(RATE), np.log(CHILDREN), 0.0, -np.log(LAG)], dtype=torch.float64)
    return one.expand(NODES, -1).clone()


def case_of(model, kind="none"):
    """A model's problem for the brute force, with theta = 1."""
    a = model.problem_.arguments
    places = len(a.distance)
    types = model.problem_.num_nodes // places
    ones = np.ones((1, places, types, types))
    return Case(
        a.time.numpy(),
        a.node.numpy(),
        a.marks.numpy(),
        a.edges.numpy(),
        a.weights.numpy(),
        a.covariates.numpy(),
        a.distance.numpy(),
        a.refresh.numpy() * 0,
        ones,
        ones[:, :, 0, 0],
        kind,
    )


# ---- recovery ------------------------------------------------------------------------------------

FREE = [0, 1, 3]


def test_recovers_the_parameters(alone, pooled):
    """Each estimate within 4.5 standard errors of the truth: 36 of them."""
    for model in (alone, pooled):
        assert model.converged_.all()
        se = model.covariance_.diagonal(dim1=1, dim2=2).sqrt()[:, FREE]
        error = (model.working_ - truth())[:, FREE]
        assert float((error / se).abs().max()) < 4.5
    # The mean over nodes by its own standard error.
    z = (error.mean(0) / (error.std(0) / NODES**0.5)).abs()
    assert float(z.max()) < 4.5


def test_pooling_shrinks_and_comes_nearer(alone, pooled):
    spread = [m.working_[:, FREE].std(0) for m in (alone, pooled)]
    assert bool((spread[1] < spread[0]).all())
    error = [(m.working_ - truth())[:, FREE].square().mean(0) for m in (alone, pooled)]
    assert float(error[1].sum()) < float(error[0].sum())
    width = [m.covariance_.diagonal(dim1=1, dim2=2)[:, FREE].mean(0) for m in (alone, pooled)]
    assert bool((width[1] < width[0]).all())
    assert pooled.prior_kind_ == "pooled" and alone.prior_kind_ == "none"


def test_at_the_maximum_the_compensator_counts_the_events(alone):
    """Lambda_u = n_u where the likelihood is not penalised: the score of a common factor."""
    table = alone.residuals().table
    free = fitted(stemmed(pooled=False, stable=False), alone.events_).residuals().table
    np.testing.assert_allclose(free["expected"], free["events"], rtol=1e-4)
    np.testing.assert_allclose(table["expected"], table["events"], rtol=0.02)


def test_the_likelihood_is_that_of_a_self_exciting_process(alone):
    """SEPP: the log-likelihood by the definition, a node with its own events only."""
    case = case_of(alone)
    z = alone.parameters_.numpy()
    for u in (0, 7):
        own = case.time[case.node == u]
        mu, a, d = np.exp(z[u, 0]), np.exp(z[u, 1]), z[u, -1]
        gap = own[:, None] - own
        rate = mu + a * np.where(gap > 0, np.exp(-d * np.maximum(gap, 0)), 0).sum(1)
        expected = np.log(rate).sum() - mu * END - a / d * -np.expm1(-d * (END - own)).sum()
        assert float(alone.log_likelihood_[u]) == pytest.approx(expected, rel=1e-10)


def test_a_peers_optimizer_finds_no_higher_maximum(alone):
    """SciPy's Nelder-Mead on the definition."""
    own = np.sort(alone.events_.times.numpy()[alone.events_.place.numpy() == 3])

    def loss(w):
        mu, n, d = np.exp(w)
        gap = own[:, None] - own
        rate = mu + n * d * np.where(gap > 0, np.exp(-d * np.maximum(gap, 0)), 0).sum(1)
        return -(np.log(rate).sum() - mu * END - n * -np.expm1(-d * (END - own)).sum())

    start = truth()[3, FREE].numpy()
    best = optimize.minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-6})
    free = fitted(stemmed(pooled=False, stable=False), alone.events_)
    np.testing.assert_allclose(free.working_[3, FREE], best.x, atol=1e-3)
    assert float(free.log_likelihood_[3]) >= -best.fun - 1e-6


def test_far_starts_meet_one_maximum(pooled):
    problem = pooled.problem_
    for rate, children, lag in ((5.0, 2.0, 0.1), (0.1, 0.02, 20.0), (1.0, 0.9, 6.0)):
        start = pooled.working_.clone()
        start[:, 0] = np.log(RATE * rate)
        start[:, 1], start[:, 3] = np.log(children), -np.log(lag)
        found = fitting.newton(problem, start, pooled.prior_, None)
        again = fitting.newton(problem, pooled.working_, pooled.prior_, None)
        assert found.converged.all()
        torch.testing.assert_close(found.value, again.value, rtol=0, atol=1e-6)
        torch.testing.assert_close(found.working, again.working, rtol=0, atol=1e-3)


def test_a_refit_starts_where_the_last_ended(pooled, events):
    warm = fitted(stemmed(), events, start=pooled)
    assert warm.evaluations_ <= 3 * NODES  # one round of Laplace-EM
    torch.testing.assert_close(warm.working_, pooled.working_, rtol=0, atol=1e-3)
    with pytest.raises(ValueError, match="start must have the same nodes and parameters"):
        stemmed(network="own", use_marks=True, recent_rate=True).fit(events, start=pooled)


# ---- invariants ----------------------------------------------------------------------------------


def test_permuted_places_give_permuted_results(simulated, pooled):
    time, node, _ = simulated
    order = np.random.default_rng(3).permutation(NODES)
    where = [f"p{i}" for i in order]
    other = fitted(stemmed(), events_of(time, node, END, places=NODES, where=where))
    assert other.events_.places == where
    torch.testing.assert_close(other.working_, pooled.working_[order], rtol=0, atol=1e-6)
    torch.testing.assert_close(other.covariance_, pooled.covariance_[order], rtol=1e-4, atol=1e-8)


def test_ties_are_broken_by_id_whatever_the_order_of_rows(simulated):
    time, node, _ = simulated
    table = table_of(np.floor(10 * time), node)
    columns = {"time": "t", "place": "place", "id": "id", "window": (0, 600), "resolution": 1}
    table = table[table["t"] < 600]
    one = tr.Events.from_frame(table, **columns)
    two = tr.Events.from_frame(table.sample(frac=1, random_state=2), **columns)
    found = [fitted(stemmed(pooled=False), e) for e in (one, two)]
    order = [found[1].events_.places.index(p) for p in found[0].events_.places]
    assert torch.equal(found[0].working_, found[1].working_[order])


def test_weights_of_time_and_their_sandwich(events):
    """cov = H(w)^-1 (J + prior) H(w)^-1 with J of the squared weights, by hand."""
    model = fitted(stemmed(half_life=30.0, stable=False), events)
    problem = model.problem_
    edges = problem.arguments.edges
    weights = 0.5 ** ((END - edges[1:]) / 30.0)
    torch.testing.assert_close(problem.arguments.weights, weights)

    def information(w):
        arguments = problem.arguments._replace(weights=w)
        natural = ops.hawkes_natural(model.working_, 0)
        _, g, h, _ = ops.hawkes_derivatives(*arguments, torch.arange(NODES), natural, 2)
        return -ops.hawkes_chain(model.working_, g, h, 0)[1]

    prior = torch.diag_embed(model.prior_.precision)
    h = (information(weights) + prior)[:, FREE][:, :, FREE]
    middle = (information(weights.square()) + prior)[:, FREE][:, :, FREE]
    expected = torch.linalg.inv(h) @ middle @ torch.linalg.inv(h)
    found = model.covariance_[:, FREE][:, :, FREE]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    assert float(model.covariance_[:, 2].abs().max()) == 0  # held


def test_growth_is_kept_stable():
    """Events that become more frequent look like more than one child each; the barrier prevents
    it [STEMMED 4]."""
    draw = np.random.default_rng(5)
    end, nodes = 100.0, 6
    time = end * draw.beta(4.0, 1.0, 1500)
    node = draw.integers(nodes, size=len(time))
    order = np.argsort(time)
    grown = events_of(time[order], node[order], end, places=nodes)
    loose = fitted(stemmed(network="full", stable=False, pooled=False), grown)
    firm = fitted(stemmed(network="full", pooled=False), grown)
    assert firm.spectral_radius < 1 < loose.spectral_radius + 0.05
    assert firm.spectral_radius < loose.spectral_radius
    eigen = np.abs(np.linalg.eigvals(firm.branching_matrix().numpy())).max()
    assert firm.spectral_radius == pytest.approx(eigen)


def test_the_barrier_knows_skewed_marks():
    """A rare mark of great effect: the mean of e^(omega m) over records counts, not a normal
    approximation of it."""
    time, node, _ = clusters(np.full(2, 0.5), 0.3 * np.eye(2), np.full(2, 0.5), 200.0, seed=4)
    table = table_of(time, node)
    draw = np.random.default_rng(6)
    table["m"] = np.where(draw.random(len(table)) < 0.03, "rare", "common")
    columns = {"time": "t", "place": "place", "id": "id", "resolution": 0, "window": (0, 200)}
    events = tr.Events.from_frame(table, marks=["m"], **columns)
    model = fitted(stemmed(pooled=False), events)
    barrier = fitting.barrier_of(model.problem_, model.problem_.recent_rates(365.25))
    working = model.working_.clone()
    working[:, 3] = 4.0
    model.working_ = working
    nodes = torch.arange(2)
    expected = model.branching_matrix().diagonal()
    torch.testing.assert_close(barrier.load(nodes, working), expected)


def test_a_posterior_is_no_wider_than_its_prior():
    """Also where the Hessian is not negative, as it may be at a limit of the coordinates."""
    precision = torch.tensor([[4.0, 1.0, 2.0]], dtype=torch.float64)
    held = torch.tensor([[False, False, True]])
    information = torch.diag_embed(precision + torch.tensor([[3.0, -1.5, 0.0]]))
    found = fitting.inverse_of(information, held, precision)[0].diagonal()
    torch.testing.assert_close(found, torch.tensor([1 / 7, 1.0, 0.0], dtype=torch.float64))
    matrix = torch.tensor([[[3.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 0.0]]]).double()
    found = fitting.inverse_of(matrix, held, 0 * precision)[0]
    torch.testing.assert_close(found[:2, :2], torch.linalg.inv(matrix[0, :2, :2]))
    assert not found[2].any()


def test_held_parameters_are_named(pooled, simulated):
    assert pooled.held_ == {"distance": "each node excites itself only"}
    table = pooled.summary()
    held = table[table["held"]]
    assert held["parameter"].unique().tolist() == ["distance_decay"] and len(held) == NODES
    assert (held["se"] == 0).all() and (table[~table["held"]]["se"] > 0).all()
    time, node, _ = simulated
    few = node < 2
    small = events_of(time[few], node[few], END, places=2)
    other = fitted(stemmed(network="full", use_distance=False), small)
    assert other.held_ == {"distance": "use_distance=False"}
    single = events_of(time[node == 0], node[node == 0], END, places=1)
    assert "one place" in fitted(stemmed(network="full"), single).held_["distance"]


def test_summary_has_natural_scales(pooled):
    table = pooled.summary(level=0.9)
    assert list(table["parameter"][:4]) == ["base_rate", "children", "distance_decay", "mean_lag"]
    row = table[(table["node"] == "p4 | s0") & (table["parameter"] == "mean_lag")].iloc[0]
    w, se = -float(pooled.working_[4, 3]), float(pooled.covariance_[4, 3, 3]) ** 0.5
    assert row["estimate"] == pytest.approx(np.exp(w))
    assert row["lower"] == pytest.approx(np.exp(w - 1.6448536 * se))
    assert row["upper"] == pytest.approx(np.exp(w + 1.6448536 * se))
    assert ((table["lower"] <= table["estimate"]) & (table["estimate"] <= table["upper"])).all()


# ---- residuals, shares, network ------------------------------------------------------------------


def test_residuals_are_exponential_under_the_truth(events):
    """Time rescaling: increments of the compensator are Exp(1) [Brown et al. 2002]."""
    model = fitted(stemmed(), events)
    model.working_ = truth()
    found = model.residuals()
    test = stats.kstest(found.increments.numpy(), "expon")
    assert found.ks == pytest.approx(test.statistic, rel=1e-9)
    assert test.pvalue > 0.01
    assert len(found.increments) == len(events) and found.table["events"].sum() == len(events)
    # Wrong parameters are found out.
    model.working_ = truth() - torch.tensor([0.0, 3.0, 0.0, 0.0])
    assert stats.kstest(model.residuals().increments.numpy(), "expon").pvalue < 1e-6
    qq = found.qq(9)
    np.testing.assert_allclose(qq["observed"], qq["expected"], rtol=0.1, atol=0.02)


def test_triggered_share_is_the_share_of_children(simulated, pooled, monkeypatch):
    monkeypatch.setattr(reports, "DRAWS", 60)
    _, node, immigrant = simulated
    whole = pooled.triggered_share("all").iloc[0]
    assert whole["lower"] < 1 - immigrant.mean() < whole["upper"]
    by_place = pooled.triggered_share("place")
    assert by_place["place"].tolist() == pooled.events_.places
    assert ((by_place["lower"] >= 0) & (by_place["upper"] <= 1)).all()
    true = np.array([1 - immigrant[node == u].mean() for u in range(NODES)])
    inside = (by_place["lower"] <= true) & (true <= by_place["upper"])
    assert inside.mean() >= 0.7  # 90 % bands, 12 places
    over_time = pooled.triggered_share("type", every=30.0)
    assert len(over_time) == 4 and over_time["share"].between(0, 1).all()


def test_regular_events_have_no_children_and_it_is_poisson_regression():
    """Events more even than Poisson: children -> 0, and base rate and slope are those of a Poisson
    GLM on the blocks."""
    draw = np.random.default_rng(8)
    edges = np.linspace(0, 400, 21)
    y = draw.normal(size=(20, 1, 1))
    counts = np.round(20 * np.exp(0.5 * y[:, 0, 0])).astype(int)
    time = np.concatenate(
        [a + (np.arange(n) + 0.5) / n * 20 for a, n in zip(edges, counts, strict=False)]
    )
    events = events_of(time, np.zeros(len(time), int), 400.0, places=1)
    covariates = tr.data.event_features.StepCovariates(
        torch.from_numpy(y), torch.from_numpy(edges), ["x"]
    )
    model = fitted(stemmed(pooled=False), events, covariates)
    table = model.summary().set_index("parameter")
    assert table.loc["children", "estimate"] < 1e-3
    mean, scale = model.problem_.scaling[:, 0].tolist()
    slope = table.loc["x", "estimate"] / scale
    base = np.log(table.loc["base_rate", "estimate"]) - slope * mean

    def loss(w):
        eta = w[0] + w[1] * y[:, 0, 0]
        return 20 * np.exp(eta).sum() - counts @ eta

    expected = optimize.minimize(loss, np.zeros(2), tol=1e-10).x
    np.testing.assert_allclose([base, slope], expected, atol=2e-3)


@pytest.fixture(scope="module")
def overlapping():
    """2 places x 2 types with events that have both."""
    draw = np.random.default_rng(11)
    time = np.sort(draw.uniform(0, 300, 400))
    table = table_of(time, draw.integers(2, size=400))
    kind = draw.integers(3, size=400)
    table["a"], table["b"] = (kind != 1).astype(int), (kind != 0).astype(int)
    columns = {"time": "t", "place": "place", "id": "id", "types": ["a", "b"], "resolution": 0}
    return tr.Events.from_frame(table, **columns, window=(0, 300)), table


@pytest.mark.parametrize("theta", ["jaccard", "share"])
def test_network_at_a_date_is_the_count_of_events_before_it(overlapping, theta):
    events, table = overlapping
    model = fitted(stemmed(theta=theta, network="full"), events)
    for at in (100.0, None):
        before = table[table["t"] < (300.0 if at is None else at)]
        found = model.network(at)
        natural = model.parameters_.numpy()
        for i, place in enumerate(events.places):
            for s, kind in enumerate("ab"):
                near = before[before["place"] == place]

                def ratio(rows, kind=kind):
                    both = ((rows[kind] == 1) & (rows["a"] == 1)).sum()
                    either = ((rows[kind] == 1) | (rows["a"] == 1)).sum()
                    return both, (len(rows) if theta == "share" else either)

                both, either = ratio(near)
                all_both, all_either = ratio(before)
                expected = (both + 5 * all_both / all_either) / (either + 5)
                alpha = np.exp(natural[2 * i + s, 1])
                value = found.loc[f"{place} | {kind}", f"{place} | a"]
                assert value == pytest.approx(alpha * expected, rel=1e-6)
    assert (model.branching_matrix().numpy() >= 0).all()


def test_mutual_excitation_alone_is_one_weight_for_all_sources(overlapping):
    """MEPP: theta = 1 and no distance; the value is that of the definition."""
    events, _ = overlapping
    model = fitted(stemmed(network="full", use_distance=False, use_marks=False), events)
    network = model.network().to_numpy()
    np.testing.assert_allclose(network, np.repeat(network[:, :1], 4, axis=1))
    case, z = case_of(model), model.parameters_.numpy()
    for u in (0, 3):
        expected = case.log_likelihood(u, z[u])
        assert float(model.log_likelihood_[u]) == pytest.approx(expected, rel=1e-10)


def test_aic_counts_free_parameters(alone, pooled):
    expected = 2 * 3 * NODES - 2 * float(alone.log_likelihood_.sum())
    assert alone.aic == pytest.approx(expected)
    with pytest.raises(ValueError, match="must be by maximum likelihood"):
        _ = pooled.aic


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"theta": "both"}, ValueError, "theta must be one of 'jaccard', 'share', 'none'"),
        ({"network": "all"}, ValueError, "network must be one of 'full', 'own', got 'all'"),
        ({"half_life": 0}, ValueError, "half_life must be a number of months > 0, got 0"),
        ({"half_life": True}, ValueError, "half_life must be a number of months > 0, got True"),
        ({"recent_rate": 1}, TypeError, "recent_rate must be True or False, got 1"),
        ({"use_marks": None}, TypeError, "use_marks must be True or False"),
        ({"pooled": "yes"}, TypeError, "pooled must be True or False, got 'yes'"),
        ({"anchor": -1}, ValueError, "anchor must be a number of months > 0 or None, got -1"),
    ],
)
def test_wrong_options(options, error, message):
    with pytest.raises(error, match=f"Stemmed: {message}"):
        tr.models.Stemmed(**options)


def test_wrong_arguments_of_fit(events, pooled):
    with pytest.raises(TypeError, match="events must be Events, got Panel"):
        stemmed().fit(events.counts(10.0))
    with pytest.raises(ValueError, match=r"pool_by must be finite numbers \[I, z\]"):
        stemmed().fit(events, pool_by=[1.0, 2.0])
    with pytest.raises(ValueError, match="pool_by must differ between nodes"):
        stemmed().fit(events, pool_by=[1.0] * NODES)
    edges = torch.tensor([0.0, END], dtype=torch.float64)
    make = tr.data.event_features.StepCovariates
    constant = make(torch.ones(1, NODES, 1, dtype=torch.float64), edges, ["x"])
    with pytest.raises(ValueError, match=r"covariates must change over time, got \['x'\]"):
        stemmed().fit(events, constant)
    short = make(torch.ones(1, NODES, 1, dtype=torch.float64), edges / 2, ["x"])
    with pytest.raises(ValueError, match="covariates must have edges from 0 to 120"):
        stemmed().fit(events, short)
    other = make(torch.rand(2, 3, 1, dtype=torch.float64), torch.tensor([0.0, 1.0, END]), ["x"])
    with pytest.raises(ValueError, match="covariates must have values of all 12 places"):
        stemmed().fit(events, other)
    for call in ("forecast", "summary", "residuals", "network", "triggered_share"):
        with pytest.raises(RuntimeError, match="the model must be fitted first"):
            getattr(stemmed(), call)()
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 1.5"):
        pooled.summary(level=1.5)
    with pytest.raises(ValueError, match="by must be one of"):
        pooled.triggered_share("county")
