"""A shared table that grows, its state, and agencies that see part of it [STEMMED Sec. 6]."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hawkes_reference import clusters, table_of

import topreach as tr
from topreach.models.stemmed import fitting

FIRST, LAST, DAYS = "2022-01-01", "2023-12-31", 730
PLACES = pd.DataFrame(
    {
        "place": [f"p{i}" for i in range(5)],
        "x": [0.0, 8.0, 20.0, 40.0, 90.0],
        "y": [0.0, 6.0, 0.0, 30.0, 0.0],
        "county": [1, 1, 2, 2, 3],
    }
)
COLUMNS = {
    "time": "date",
    "place": "place",
    "types": ["a", "b"],
    "marks": ["age"],
    "id": "id",
    "places": PLACES,
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Matrices here are small: threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rows_of(days: float, seed: int) -> pd.DataFrame:
    """5 places x 2 types; a third of the events have both types, and times are days. The number of
    children falls with distance, so that δ_g is identified."""
    xy = PLACES[["x", "y"]].to_numpy()
    distance = np.linalg.norm(xy[:, None] - xy, axis=2)
    children = 0.3 * np.exp(-5.0 * distance / distance.max())
    time, place, _ = clusters(np.full(5, 0.15), children, np.full(5, 12.0), days, seed=seed)
    table = table_of(time, place)
    rng = np.random.default_rng(seed)
    kind = rng.integers(3, size=len(table))
    table["a"], table["b"] = (kind != 1).astype(int), (kind != 0).astype(int)
    table["age"] = rng.normal(40.0, 10.0, len(table))
    day = pd.Timestamp(FIRST) + pd.to_timedelta(np.floor(table["t"]), unit="D")
    table["date"] = day.dt.strftime("%Y-%m-%d")
    return table


def between(rows: pd.DataFrame, first: str, last: str) -> pd.DataFrame:
    return rows[(rows["date"] >= first) & (rows["date"] <= last)]


@pytest.fixture(scope="module")
def rows():
    return rows_of(DAYS + 200.0, seed=4)


@pytest.fixture(scope="module")
def events(rows):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tr.Events.from_frame(between(rows, FIRST, LAST), window=(FIRST, LAST), **COLUMNS)


@pytest.fixture(scope="module")
def central(events):
    """A fitted cooperative without uploads."""
    return tr.online.Cooperative().start(events)


def changed(events, rows):
    """January's uploads: three records late, three corrected in all columns, two deleted."""
    late = between(rows, "2023-12-01", LAST).iloc[:3].assign(id=["late0", "late1", "late2"])
    january = between(rows, "2024-01-01", "2024-01-31")
    wrong = between(rows, "2023-11-01", "2023-11-30").iloc[:3]
    wrong = wrong.assign(date="2023-12-20", place=["p4", "p0", "p2"], a=1, b=1, age=71.0)
    later = events.revise(pd.concat([late, january, wrong]), at="2024-01-31")
    gone = between(rows, "2023-12-20", LAST)["id"].iloc[:2].tolist()
    return later.delete(gone, at="2024-01-31")


# ---- the state -----------------------------------------------------------------------------------


def brute_force(model, events):
    """R [M, M] and S [M] by double loops over records and nodes, with θ by its definition."""
    z, types = model.parameters_.numpy(), events.num_types
    p, size = model.problem_.num_covariates, events.num_nodes
    distance = events.distances().numpy()
    time = events.duration
    memory = np.zeros((size, size))
    c = np.zeros((events.num_places, types, types))
    for x in range(len(events)):
        t, i = float(events.times[x]), int(events.place[x])
        if t > time:
            continue
        flags = events.flags[x].numpy()
        c[i] += np.outer(flags, flags)
        for s in np.flatnonzero(flags):
            for u in range(size):
                log = z[u, 1 + p] - z[u, 2 + p] * distance[u // types, i]
                log += z[u, 3 + p : -1] @ events.marks[x].numpy() - z[u, -1] * (time - t)
                memory[u, i * types + s] += np.exp(log)
    total = np.zeros(size)
    for u in range(size):
        for v in range(size):
            (i, s), (j, r) = divmod(u, types), divmod(v, types)

            def ratio(at, s=s, r=r):
                return c[at, s, r].sum(), (c[at, s, s] + c[at, r, r] - c[at, s, r]).sum()

            both, either = ratio(sorted({i, j}))
            every, all_either = ratio(list(range(events.num_places)))
            total[u] += (both + 5.0 * every / all_either) / (either + 5.0) * memory[u, v]
    return memory, total


def test_the_state_is_the_double_sum(events, central):
    state, model = central.state, central.fitted
    memory, total = brute_force(model, events)
    np.testing.assert_allclose(state.memory, memory, rtol=1e-12, atol=1e-14)
    # θ's tables are float32, as in the likelihood.
    np.testing.assert_allclose(state.excitation(model), total, rtol=1e-6)
    exact = model.dynamics(model.working_, None, second=False)[0]
    torch.testing.assert_close(state.excitation(model), exact.excitation, rtol=1e-12, atol=0)


@pytest.mark.parametrize("lag", [0.0, 45.0])
def test_a_moved_state_is_that_from_scratch(events, central, rows, lag):
    """New, late, corrected and deleted records, with records that reach the state only when the
    report lag has passed."""
    model = central.fitted
    before = events.complete_to(events.end - lag)
    later = changed(events, rows)
    later = later.complete_to(later.end - lag)
    moved = tr.online.State.of(model, before).moved(model, before, later)
    fresh = tr.online.State.of(model, later)
    assert moved.time == fresh.time
    torch.testing.assert_close(moved.memory, fresh.memory, rtol=1e-12, atol=1e-12)
    assert torch.equal(moved.together, fresh.together) and torch.equal(moved.number, fresh.number)
    torch.testing.assert_close(
        moved.excitation(model), fresh.excitation(model), rtol=1e-12, atol=1e-12
    )
    assert not torch.allclose(moved.memory, tr.online.State.of(model, before).memory, rtol=1e-3)


def test_many_uploads_do_not_drift(events, central, rows):
    """Half a year of uploads that each delete a record."""
    model, known = central.fitted, events
    state = tr.online.State.of(model, known)
    new = between(rows, "2024-01-01", "2024-06-30").sort_values("date")
    for last in pd.date_range("2024-01-07", "2024-06-30", freq="14D"):
        day = last.strftime("%Y-%m-%d")
        part = between(new, (last - pd.Timedelta(days=13)).strftime("%Y-%m-%d"), day)
        later = known.revise(part if len(part) else None, at=day)
        if len(part) > 1:
            later = later.delete([part["id"].iloc[0]], at=day)
        state, known = state.moved(model, known, later), later
    fresh = tr.online.State.of(model, known)
    torch.testing.assert_close(state.memory, fresh.memory, rtol=1e-12, atol=1e-12)
    assert torch.equal(state.together, fresh.together)


@pytest.mark.parametrize("options", [{"network": "own"}, {"theta": "none"}, {"use_marks": False}])
def test_states_of_other_settings(events, rows, options):
    """Against hawkes_state, and moved against scratch."""
    model = tr.models.Stemmed(pooled=False, recent_rate=False, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(events)
    state = tr.online.State.of(model, events)
    exact = model.dynamics(model.working_, None, second=False)[0]
    torch.testing.assert_close(state.excitation(model), exact.excitation, rtol=1e-12, atol=1e-14)
    later = changed(events, rows)
    fresh = tr.online.State.of(model, later)
    moved = state.moved(model, events, later)
    torch.testing.assert_close(moved.memory, fresh.memory, rtol=1e-12, atol=1e-12)


def test_an_event_at_the_state_s_time_counts_once():
    """It acts from T on, and is counted in the network after T, whenever the state moves."""
    table = pd.DataFrame({"t": [1.0, 5.0, 6.0], "place": ["p0", "p1", "p0"], "id": ["0", "1", "2"]})
    small = tr.Events.from_frame(
        table, time="t", place="place", id="id", resolution=0, window=(0, 8)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = tr.models.Stemmed(recent_rate=False).fit(small)
    state = tr.online.State.of(model, small.complete_to(4.5))
    for end in (5.0, 5.5, 6.0, 8.0):
        before = small.complete_to(state.time)
        state = state.moved(model, before, small.complete_to(end))
        fresh = tr.online.State.of(model, small.complete_to(end))
        torch.testing.assert_close(state.memory, fresh.memory, rtol=1e-13, atol=0)
        assert torch.equal(state.number, fresh.number)


def test_event_terms_check_their_arguments():
    terms = torch.ops.topreach.hawkes_event_terms
    lag, node, marks = torch.tensor([1.0, 2.0]), torch.tensor([0, 1]), torch.zeros(2, 1)
    z, far = torch.zeros(2, 5), torch.zeros(2, 2)
    found = terms(lag, torch.tensor([1.0, -1.0]), node, marks, far, z)
    assert found.tolist() == [[1.0, -1.0], [1.0, -1.0]]
    assert terms(lag[:0], lag[:0], node[:0], marks[:0], far, z).tolist() == [[0, 0], [0, 0]]
    for wrong, message in (
        ((-lag, lag, node, marks, far, z), "lag must be finite and >= 0"),
        ((lag, lag, node + 1, marks, far, z), "node must lie from 0 to M - 1 = 1"),
        ((lag, lag[:1], node, marks, far, z), "lag, sign and node must have shape"),
        ((lag, lag, node, marks, far, z[:, :4]), "parameters must have shape"),
        ((lag, lag, node, marks, far[0], z), "distance must have shape"),
    ):
        with pytest.raises((ValueError, RuntimeError), match=message):
            terms(*wrong)
    torch.library.opcheck(
        terms,
        (lag, lag, node, marks, far, z),
        test_utils=("test_schema", "test_autograd_registration"),
    )


# ---- Theorem 4.1 ---------------------------------------------------------------------------------


def test_the_gap_of_a_one_sided_difference_is_exact(events, central):
    """Same parameters and θ: the rate that does not know some records is too low by just their
    terms."""
    model, state = central.fitted, central.state
    theta = state.theta(model)
    known = events.seen_at(np.array([[True, True]] * 3 + [[False, True], [False, False]]))
    less = (theta * tr.online.State.of(model, known).memory).sum(1)
    hidden = [u for u, (p, s) in enumerate(events.nodes) if p == "p4" or (p, s) == ("p3", "a")]
    gap = (theta * state.memory)[:, hidden].sum(1)
    torch.testing.assert_close(state.excitation(model) - less, gap, rtol=1e-10, atol=1e-14)


def test_two_sided_differences_are_bounded(events, central):
    """|λ¹ - λ²| is at most the sum of terms of the records that either does not know."""
    model, state = central.fitted, central.state
    theta = state.theta(model)
    one = events.seen_at(np.array([[True, False]] * 5))
    other = events.seen_at(np.array([[False, True]] * 5))
    first, second = (tr.online.State.of(model, e).memory for e in (one, other))
    gap = ((theta * first).sum(1) - (theta * second).sum(1)).abs()
    bound = (theta * state.memory).sum(1)
    assert (gap <= bound + 1e-14).all() and (gap < 0.999 * bound).any()


def test_the_gap_falls_with_distance_and_time(events, central):
    """It is e^{-δ_g dist} for one record at several places, and falls by e^{-δ_k τ}."""
    model = central.fitted
    z, p = model.parameters_, model.problem_.num_covariates
    far = events.distances()[0]
    lag = torch.zeros(5, dtype=torch.float64)
    node = torch.arange(0, 10, 2)
    marks = torch.zeros(5, 1, dtype=torch.float64)
    distance = model.problem_.now.distance
    ops = torch.ops.topreach
    terms = ops.hawkes_event_terms(lag, lag + 1, node, marks, distance, z)[0, node]
    torch.testing.assert_close(terms, terms[0] * torch.exp(-z[0, 2 + p] * far))
    later = ops.hawkes_event_terms(lag + 9.0, lag + 1, node, marks, distance, z)[0, node]
    torch.testing.assert_close(later, terms * torch.exp(-9.0 * z[0, -1]))


# ---- the cooperative -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(events, rows):
    """Uploads of January to April, of which March's causes a refit; and the forecasts made."""
    shared = tr.online.Cooperative(report_lag=1, horizon=4).start(events)
    made = {}
    january = between(rows, "2024-01-01", "2024-01-31")
    late = between(rows, "2023-12-01", LAST).iloc[:3].assign(id=["late0", "late1", "late2"])
    wrong = between(rows, "2023-11-01", "2023-11-30").iloc[:3].assign(date="2023-12-20", place="p4")
    gone = between(rows, "2023-12-20", LAST)["id"].iloc[:2].tolist()
    shared.upload(pd.concat([late, january, wrong]), at="2024-01-31", deleted=gone)
    made["2024-01-31"] = shared.forecast()
    same = between(rows, "2024-01-25", "2024-02-29")  # January's last days again, unchanged
    shared.upload(same, at="2024-02-29")
    made["2024-02-29"] = shared.forecast()
    made["2024-03-10"] = shared.forecast("2024-03-10")
    shared.upload(between(rows, "2024-03-01", "2024-03-31"), at="2024-03-31")
    made["2024-03-31"] = shared.forecast()
    shared.upload(between(rows, "2024-04-01", "2024-04-30"), at="2024-04-30")
    made["2024-04-30"] = shared.forecast()
    return shared, made


def test_uploads_are_counted(shared, rows):
    history = shared[0].history
    assert history["kind"].tolist() == [
        "start",
        "refit",
        "upload",
        "upload",
        "upload",
        "refit",
        "upload",
    ]
    january = len(between(rows, "2024-01-01", "2024-01-31"))
    row = history.iloc[2]
    assert (row["added"], row["corrected"], row["deleted"]) == (january + 3, 3, 2)
    assert history.iloc[3]["added"] == len(between(rows, "2024-02-01", "2024-02-29"))
    assert history.iloc[3]["corrected"] == 0
    assert history["at"].tolist()[2:5] == ["2024-01-31", "2024-02-29", "2024-03-31"]
    assert history["complete_through"].tolist()[2:5] == ["2023-12-31", "2024-01-31", "2024-02-29"]
    assert history["warm"].tolist()[1] is False and history["warm"].tolist()[5] is True
    assert (history["spectral_radius"].dropna() < 1).all()


@pytest.mark.parametrize("day", ["2024-01-31", "2024-02-29", "2024-03-10", "2024-03-31"])
def test_a_past_forecast_is_made_again(shared, day):
    """From the records known then, with the fit in force then, although later uploads changed."""
    shared, made = shared
    again, first = shared.forecast(as_of=day), made[day]
    assert again.labels == first.labels and len(first.labels) == 4
    torch.testing.assert_close(again.mean, first.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(again.variance, first.variance, rtol=1e-10, atol=1e-12)


def test_forecasts_cross_the_report_lag(shared):
    shared, made = shared
    assert made["2024-02-29"].labels[0] == "2024-03"
    assert made["2024-03-10"].labels[0] == "2024-04"
    state = shared.complete
    assert state.label(state.duration) == "2024-04-01"  # a month before the last upload


def test_the_state_follows_the_uploads(shared):
    shared, _ = shared
    fresh = tr.online.State.of(shared.fitted, shared.complete)
    torch.testing.assert_close(shared.state.memory, fresh.memory, rtol=1e-12, atol=1e-12)
    assert torch.equal(shared.state.together, fresh.together)


def test_without_uploads_a_forecast_is_the_model_s(events, central):
    """In all modes."""
    for mode in ("moments", "mean", "branching"):
        options = {"mode": mode, "num_samples": 50, "parameter_draws": 3}
        one = central.forecast(periods=3, **options)
        other = central.fitted.forecast(3, **options)
        assert one.labels == other.labels
        torch.testing.assert_close(one.mean, other.mean, rtol=1e-10, atol=1e-12)
        if one.variance is not None:
            torch.testing.assert_close(one.variance, other.variance, rtol=1e-9, atol=1e-12)


def test_a_warm_refit_is_that_from_scratch(rows):
    """The same maximum, in fewer evaluations; the prior of few nodes is fixed. One of the eight
    nodes has two maxima, and stays at the old one unless it is fitted from all starts."""
    four = rows[rows["place"] != "p4"]
    columns = COLUMNS | {"places": PLACES[:4]}
    known = tr.Events.from_frame(between(four, FIRST, LAST), window=(FIRST, LAST), **columns)
    shared = tr.online.Cooperative(refit_every=3).start(known)
    shared.upload(between(four, "2024-01-01", "2024-03-31"), at="2024-03-31")
    warm = shared.fitted
    assert shared.history["warm"].tolist() == [None, False, None, True]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cold = tr.models.Stemmed().fit(shared.events)
    assert warm.evaluations_ < 0.5 * cold.evaluations_
    same = (warm.working_ - cold.working_).abs().amax(1) < 1e-3
    assert same.sum() >= 7
    torch.testing.assert_close(
        warm.log_likelihood_[same], cold.log_likelihood_[same], rtol=0, atol=1e-5
    )
    torch.testing.assert_close(warm.covariance_[same], cold.covariance_[same], rtol=1e-2, atol=1e-4)
    assert torch.equal(shared.refit(warm=False).fitted.working_, cold.working_)


def test_a_warm_refit_learns_the_prior_anew(shared):
    """Laplace-EM continues from the last prior; the result fits the new modes, not the old ones."""
    warm, first = shared[0].fitted, shared[0]._steps[1].model
    variance = warm.covariance_.diagonal(dim1=1, dim2=2)
    weak = fitting.weak_prior(warm.problem_)
    implied = fitting.prior_of(warm.working_, variance, weak, None)

    def apart(prior):
        return ((prior.mean - implied.mean).abs() * implied.precision.sqrt())[0]

    assert warm.rounds_ >= 1
    assert apart(warm.prior_).max() < 0.2 * apart(first.prior_).max()


def test_new_places_are_fitted_at_once(rows):
    frame = between(rows, FIRST, "2023-06-30")
    columns = {k: v for k, v in COLUMNS.items() if k not in ("places", "marks")}
    known = tr.Events.from_frame(
        frame[frame["place"] != "p4"], window=(FIRST, "2023-06-30"), **columns
    )
    shared = tr.online.Cooperative(tr.models.Stemmed(pooled=False), refit_every=None).start(known)
    first = shared.forecast(periods=2)
    shared.upload(between(rows, "2023-07-01", "2023-07-31"), at="2023-07-31")
    assert shared.history["kind"].tolist() == ["start", "refit", "upload", "refit"]
    assert shared.history["warm"].tolist()[-1] is False
    assert shared.forecast(periods=1).sites == [f"p{i}" for i in (0, 1, 2, 3, 4)]
    again = shared.forecast(as_of="2023-06-30", periods=2)
    assert again.sites == first.sites
    torch.testing.assert_close(again.mean, first.mean, rtol=1e-12, atol=0)


def test_an_empty_table_is_nothing_new(rows):
    shared, like = (tr.online.Cooperative() for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for one, records in ((shared, rows.iloc[:0]), (like, None)):
            first = between(rows, FIRST, LAST)
            one.start(tr.Events.from_frame(first, window=(FIRST, LAST), **COLUMNS))
            one.upload(records, at="2024-01-31")
    pd.testing.assert_frame_equal(shared.history, like.history)
    assert torch.equal(shared.forecast().mean, like.forecast().mean)


def test_errors_name_what_to_do(events, shared, rows):
    shared, _ = shared
    with pytest.raises(RuntimeError, match=r"Call start\(events\)"):
        tr.online.Cooperative().forecast()
    with pytest.raises(ValueError, match="report_lag must be a whole number >= 0, got -1"):
        tr.online.Cooperative(report_lag=-1)
    with pytest.raises(TypeError, match="model must be a Stemmed"):
        tr.online.Cooperative("stemmed")
    with pytest.raises(TypeError, match="events must be Events"):
        tr.online.Cooperative().start(rows)
    with pytest.raises(ValueError, match="window must be longer than report_lag"):
        tr.online.Cooperative(report_lag=24).start(events)
    with pytest.raises(ValueError, match="Cooperative.upload: at must not come before the window"):
        shared.upload(None, at="2024-03-31")
    with pytest.raises(ValueError, match="deleted must leave an event to learn from"):
        shared.upload(None, at="2024-12-31", deleted=shared.events.ids)
    with pytest.raises(ValueError, match="use forecast\\(as_of=...\\)"):
        shared.refit("2024-03-31")
    with pytest.raises(ValueError, match="use as_of='2024-03-31'"):
        shared.forecast("2024-03-31")
    with pytest.raises(ValueError, match="before the first fit.*events.until"):
        shared.forecast(as_of="2023-06-30")
    with pytest.raises(ValueError, match="after the last upload.*Pass it as at"):
        shared.forecast(as_of="2024-12-31")
    with pytest.raises(ValueError, match="at must be None with as_of"):
        shared.forecast("2024-05-31", as_of="2024-03-31")
    before = shared.history
    with pytest.raises(ValueError, match="Cooperative.upload: deleted must all be among"):
        shared.upload(None, at="2024-05-31", deleted=["nobody"])
    with pytest.raises(TypeError, match="Cooperative.upload: records must be Events or a DataF"):
        shared.upload([1], at="2024-05-31")
    with pytest.raises(ValueError, match="Cooperative.upload: place must be one of the columns"):
        shared.upload(rows.iloc[:0].drop(columns="place"), at="2024-05-31")
    pd.testing.assert_frame_equal(shared.history, before)
    note = shared.forecast("2024-07-31").notes[-1]
    assert "last upload was of 2024-04-30" in note
    with pytest.raises(ValueError, match="State.of"):
        shared.state.moved(shared.fitted, shared.complete, events)


# ---- events --------------------------------------------------------------------------------------


def test_revise_keeps_unchanged_records(events, rows):
    again = events.revise(between(rows, "2023-06-01", LAST), at="2024-01-31")
    assert again.changes_since(events) == [] and len(again) == len(events)
    assert torch.equal(again.times, events.times)
    one = between(rows, "2023-06-01", LAST).iloc[[0]]
    gone = again.delete(one["id"].tolist(), at="2024-02-29")
    back = gone.revise(one, at="2024-03-31")
    assert sorted(back.ids) == sorted(events.ids)
    assert back.changes_since(gone) == one["id"].tolist()
    assert back.until("2024-03-15").num_events == len(events) - 1
    with pytest.raises(ValueError, match="earlier must be a state that these events come from"):
        events.changes_since(back)


def test_what_is_seen(events):
    mask = np.array([[True, True], [True, False], [False, False], [True, True], [True, True]])
    seen = events.seen_at(mask)
    flags = events.flags.numpy() & mask[events.place.numpy()]
    assert len(seen) == flags.any(1).sum()
    assert np.array_equal(seen.flags.numpy(), flags[flags.any(1)])
    assert seen.nodes == events.nodes and seen.duration == events.duration
    with pytest.raises(ValueError, match=r"nodes must be bool \[5, 2\]"):
        events.seen_at(mask[:2])


# ---- agencies ------------------------------------------------------------------------------------


def test_an_agency_that_sees_all_finds_the_central_fit(central):
    agency = tr.online.Agency(central, ["p3", "p1"])
    reply, model = agency.fit(), central.fitted
    assert reply.nodes.tolist() == [2, 3, 6, 7] and reply.converged.all()
    se = model.covariance_.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(reply.working, model.working_[reply.nodes], rtol=0, atol=1e-4)
    torch.testing.assert_close(reply.variance, se[reply.nodes], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(
        reply.log_likelihood, model.log_likelihood_[reply.nodes], rtol=0, atol=1e-5
    )
    assert (agency.missing() == 0).all()


def test_a_round_of_replies_is_a_round_of_the_central_fit(central):
    """m and τ² by the agencies are those that Laplace-EM makes of the central modes."""
    agencies = [
        tr.online.Agency(central, ["p0", "p2", "p4"]),
        tr.online.Agency(central, ["p1", "p3"]),
    ]
    message = central.pool([agency.fit() for agency in agencies])
    model = central.fitted
    variance = model.covariance_.diagonal(dim1=1, dim2=2)
    wanted = fitting.prior_of(model.working_, variance, fitting.weak_prior(model.problem_), None)
    torch.testing.assert_close(message.prior.mean, wanted.mean, rtol=0, atol=1e-4)
    torch.testing.assert_close(message.prior.precision, wanted.precision, rtol=1e-3, atol=0)
    again = agencies[0].fit(message)
    assert again.converged.all()
    with pytest.raises(ValueError, match="replies must cover each of the 10 nodes once, got 6"):
        central.pool([again])


@pytest.mark.parametrize(
    ("share", "sees"),
    [
        ("type", lambda p, s, own: s == own),
        (("distance", 25.0), lambda p, s, own: p in ("p0", "p1", "p2")),
        ("county", lambda p, s, own: p in ("p0", "p1")),
        (lambda one, other: other[0] == "p4", lambda p, s, own: p in ("p0", "p4")),
    ],
)
def test_what_an_agency_does_not_see_does_not_matter(central, events, share, sees):
    """Its fit is the same whatever the hidden records are, and its gap is Theorem 4.1's sum."""
    agency = tr.online.Agency(central, ["p0"], share=share)
    reply = agency.fit()
    model, state = central.fitted, central.state
    for row, own in enumerate("ab"):
        wanted = [p == "p0" or sees(p, s, own) for p, s in events.nodes]
        assert agency.sees[row].tolist() == wanted
        gap = (state.theta(model) * state.memory)[row, ~torch.tensor(wanted)].sum()
        torch.testing.assert_close(agency.missing()[row], gap)
    hidden = ~agency.sees.any(0).view(5, 2).numpy()
    if hidden.any():
        alone = tr.models.Stemmed(pooled=False)
        poorer = tr.online.Cooperative(alone).start(events.seen_at(~hidden))
        other = tr.online.Agency(poorer, ["p0"], share=share).fit(central.message())
        assert torch.equal(reply.working, other.working)
    assert not torch.allclose(reply.working, model.working_[:2], atol=1e-3)


def test_agencies_errors(central):
    agency = tr.online.Agency
    with pytest.raises(ValueError, match="places must be ids of the shared table's places.*p9"):
        agency(central, ["p9"])
    with pytest.raises(TypeError, match="places must be a list"):
        agency(central, "p0")
    with pytest.raises(
        ValueError, match=r"column of the events' places, \['county'\], got 'state'"
    ):
        agency(central, ["p0"], share="state")
    with pytest.raises(ValueError, match="d >= 0"):
        agency(central, ["p0"], share=("distance", -1))
    with pytest.raises(TypeError, match="cooperative must be a Cooperative"):
        agency(None, ["p0"])
    message = tr.online.Message(central.message().prior, central.message().rate, None, ["x"])
    with pytest.raises(ValueError, match=r"Take cooperative.message\(\)"):
        agency(central, ["p0"]).fit(message)
