"""Counts of events, against plain counting of a table's rows, one by one."""

import re

import numpy as np
import pandas as pd
import pytest
import torch

import topreach as tr

PLACES, TYPES = ["A", "B", "C"], ["u", "v", "w"]
START, END = pd.Timestamp("2020-01-01"), pd.Timestamp("2021-12-31")


def table(number: int = 400, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    day = START + pd.to_timedelta(rng.integers(0, 731, number), unit="D")
    flags = rng.random((number, 3)) < 0.4
    flags[~flags.any(axis=1), 0] = True
    df = pd.DataFrame({"day": day, "town": rng.choice(PLACES, number, p=[0.6, 0.3, 0.1])})
    df[TYPES] = flags.astype(int)
    return df


def read(df=None, **options) -> tr.Events:
    columns = {"time": "day", "place": "town", "types": TYPES, "window": (START, END)}
    return tr.Events.from_frame(table() if df is None else df, **(columns | options))


@pytest.mark.parametrize(
    ("every", "frequency", "periods"),
    [("month", "M", 24), ("quarter", "Q", 8), ("year", "Y", 2), ("day", "D", 731)],
)
def test_counts_by_period(every, frequency, periods):
    df = table()
    period = df["day"].dt.to_period(frequency)
    grid = pd.period_range(START, END, freq=frequency)
    events = read(df)
    by_place = pd.crosstab(period, df["town"]).reindex(grid, fill_value=0)
    panel = events.counts(every)
    assert panel.num_times == periods and panel.site_ids == PLACES
    assert np.array_equal(panel.y, by_place)
    by_type = df.groupby(period)[TYPES].sum().reindex(grid, fill_value=0)
    assert np.array_equal(events.counts(every, "type").y, by_type)
    nodes = events.counts(every, "node")
    assert nodes.site_ids[:4] == ["A | u", "A | v", "A | w", "B | u"]
    for i, (place, kind) in enumerate(events.nodes):
        own = df[(df["town"] == place) & (df[kind] == 1)]
        wanted = own["day"].dt.to_period(frequency).value_counts().reindex(grid, fill_value=0)
        assert np.array_equal(nodes.y[:, i], wanted)
    assert panel.calendar.unit == every and panel.times[0].startswith("2020")


def test_weeks_begin_on_monday_and_whole_ones_only_are_there():
    df = table()
    panel = read(df).counts("week")
    assert panel.times[0] == "2020-01-06" and panel.times[-1] == "2021-12-20"
    monday = df["day"] - pd.to_timedelta(df["day"].dt.day_of_week, unit="D")
    wanted = (monday == pd.Timestamp("2020-01-13")).sum()
    assert panel.y[1].sum() == wanted
    left_out = [n for n in panel.notes if n.startswith("Left out")]
    assert left_out == [
        "Left out 2020-01-01 to 2020-01-05: not a whole period.",
        "Left out 2021-12-27 to 2021-12-31: not a whole period.",
    ]


def test_days_are_counted_from_the_windows_start():
    panel = read().counts(100)
    assert panel.num_times == 7 and panel.times[1] == "2020-04-10"
    assert (panel.calendar.unit, panel.calendar.step) == ("day", 100)
    assert "Left out 2021-12-01 to 2021-12-31: not a whole period." in panel.notes


def test_the_last_period_is_left_out_where_records_are_not_complete():
    events = read(complete_through="2021-10-15")
    panel = events.counts("month")
    assert panel.times[-1] == "2021-09"
    assert "Left out 2021-10-01 to 2021-10-15: not a whole period." in panel.notes
    assert torch.equal(panel.y, read().counts("month").y[:21])
    assert read(complete_through="2021-10-31").counts("month").times[-1] == "2021-10"


def test_history_is_not_counted():
    late = read(window=("2020-07-01", END))
    assert torch.equal(late.counts("month").y, read().counts("month").y[6:])


def test_times_as_numbers():
    df = pd.DataFrame({"t": [-1.5, 0.0, 0.5, 1.0, 1.5, 3.0, 3.75], "town": "A"})
    events = tr.Events.from_frame(df, time="t", place="town", window=(0, 3.75))
    panel = events.counts(1.0)
    assert panel.times == [0, 1, 2] and panel.y[:, 0].tolist() == [
        2,
        1,
        1,
    ]  # (0, 1], (1, 2], (2, 3]
    assert events.counts(0.5).num_times == 7
    with pytest.raises(ValueError, match="every must be a number > 0, as the times are numbers"):
        events.counts("month")


def test_the_panel_goes_to_another_model():
    panel = read(table(2000)).counts("month")
    ranker = tr.TopKRanker(1, model="empirical_bayes", progress=False).fit(panel)
    plan = ranker.rank()
    assert plan[plan["selected"]]["site"].tolist() == ["A"]


def test_shares_make_deaths_of_node_events():
    events = read()
    nodes = events.node_events()
    place = nodes.node // events.num_types
    deaths = torch.zeros(3, dtype=torch.float64).index_add(0, place, nodes.share)
    assert deaths.numpy() == pytest.approx(events.counts("year").y.sum(0).numpy(), abs=1e-12)
    assert len(nodes.times) == int(events.flags.sum())


def test_overlaps_that_are_exclusive_count_each_event_once():
    for overlap in ("primary", "sets"):
        assert read(overlap=overlap).counts("year", "node").y.sum() == 400


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("fortnight",),
            "every must be one of 'hour', 'day', 'week', 'month', 'quarter', 'year', or",
        ),
        ((1.5,), "every must be one of"),
        ((0,), "every must be one of"),
        ((True,), "every must be one of"),
        (("month", "county"), "by must be one of 'place', 'type', 'node', got 'county'"),
        ((800,), "every must leave a whole period between 2020-01-01 and 2021-12-31, got 800"),
    ],
)
def test_refusals_of_counts(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read().counts(*arguments)


# ---- network and blocks --------------------------------------------------------------------------


def test_shared_types_by_plain_counting():
    df = table()
    events = read(df)
    edges = events.block_edges("quarter", at=["2020-02-29"])
    found = events.shared_types(edges[:-1])
    assert found.together.shape == (9, 3, 3, 3) and found.events.shape == (9, 3)
    for b, edge in enumerate(edges[:-1].tolist()):
        before = df[df["day"] < START + pd.Timedelta(days=edge)]
        for i, place in enumerate(PLACES):
            flags = before.loc[before["town"] == place, TYPES].to_numpy()
            assert np.array_equal(found.together[b, i], flags.T @ flags)
            assert found.events[b, i] == len(flags)


def test_shared_types_are_strictly_before():
    df = pd.DataFrame({"t": [1.0, 2.0], "town": "A", "u": 1})
    events = tr.Events.from_frame(
        df, time="t", place="town", types=["u"], window=(0, 3), resolution=0
    )
    at = [0.0, 1.0, 1.0 + 1e-12, 2.0, 3.0]
    assert events.shared_types(at).events[:, 0].tolist() == [0, 0, 1, 1, 2]


def test_block_edges():
    events = read(window=("2020-01-15", "2020-06-10"), df=table().query("day <= '2020-06-10'"))
    edges = events.block_edges()
    labels = [events.label(t) for t in edges.tolist()]
    assert labels == [
        "2020-01-15", "2020-02-01", "2020-03-01", "2020-04-01", "2020-05-01", "2020-06-01",
        "2020-06-11",
    ]  # fmt: skip
    assert events.block_edges(None).tolist() == [0, events.duration]
    panel = covariates(["2020Q1", "2020Q2"])
    joined = events.block_edges(None, covariates=panel, at=["2020-01-20", "2019-01-01"])
    assert [events.label(t) for t in joined.tolist()] == [
        "2020-01-15", "2020-01-20", "2020-04-01", "2020-06-11",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="Events.block_edges: at must be a date"):
        events.block_edges(at=[3])


def covariates(times, sites=("B", "A", "C", "D")) -> tr.Panel:
    values = np.arange(len(times) * len(sites)).reshape(len(times), len(sites), 1)
    y = np.zeros(values.shape[:2])
    return tr.Panel(values, y, list(sites), list(times), ["coverage"])


def test_step_covariates_are_what_was_known():
    events = read(window=("2020-04-01", END))
    panel = covariates(
        ["2020Q1", "2020Q2", "2020Q3", "2020Q4", "2021Q1", "2021Q2", "2021Q3", "2021Q4"]
    )
    edges = events.block_edges("month")
    made = events.step_covariates(panel, edges)
    assert made.values.shape == (21, 3, 1) and made.names == ["coverage"]
    # April to June 2020 know the first quarter; places in the events' order: A, B, C.
    assert made.values[:3, :, 0].tolist() == [[1, 0, 2]] * 3
    assert made.values[3, :, 0].tolist() == [5, 4, 6]
    now = events.step_covariates(panel, edges, lag=0, by="node")
    assert now.values.shape == (21, 9, 1)
    assert now.values[0, :, 0].tolist() == [5, 5, 5, 4, 4, 4, 6, 6, 6]
    joined = made.joined(events.recent_rate(edges, by="place"))
    assert joined.values.shape == (21, 3, 2) and joined.names == ["coverage", "log_recent_rate"]


def test_a_table_of_covariates():
    df = pd.DataFrame(
        {"town": PLACES * 3, "year": np.repeat([2019, 2020, 2021], 3), "poor": np.arange(9.0)}
    )
    df["year"] = df["year"].astype(str) + "-01-01"
    panel = tr.Panel.from_frame(df, site="town", time="year", count=None, counts="optional")
    events = read()
    made = events.step_covariates(panel, events.block_edges("year"))
    assert made.values[:, :, 0].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"panel": covariates(["2020Q1", "2020Q2"])},
            "panel must have the period 2019Q4, which is what is known on 2020-01-01 with lag=1",
        ),
        (
            {"panel": covariates(["2020Q1"], ["A", "B"])},
            "every place of the events, got none of 'C'",
        ),
        ({"panel": covariates([1, 2])}, "panel must have dates as the events do, got numbers"),
        ({"lag": -1}, "lag must be a whole number >= 0, got -1"),
        ({"by": "type"}, "by must be one of 'place', 'node', got 'type'"),
        ({"edges": [1.0]}, "edges must be at least two ascending times"),
        ({"edges": [1.0, 1.0]}, "edges must be at least two ascending times"),
    ],
)
def test_refusals_of_covariates(change, message):
    events = read()
    arguments = {"panel": covariates(["2019Q4", "2020Q1"]), "edges": [0.0, 10.0]} | change
    with pytest.raises(ValueError, match=re.escape(message)):
        events.step_covariates(**arguments)


def test_other_refusals():
    events = read()
    with pytest.raises(TypeError, match="panel must be a Panel, got list"):
        events.step_covariates([], [0.0, 1.0])
    with pytest.raises(ValueError, match="days must be a finite number > 0"):
        events.recent_rate([0.0, 1.0], days=0)
    one = events.recent_rate([0.0, 1.0])
    with pytest.raises(ValueError, match="names must be distinct, got 'log_recent_rate'"):
        one.joined(one)
    with pytest.raises(ValueError, match="other must have the same edges"):
        one.joined(events.recent_rate([0.0, 2.0]))
    with pytest.raises(ValueError, match=re.escape("shape [1, 9, p], got [1, 3, 1]")):
        one.joined(events.recent_rate([0.0, 1.0], by="place"))


def test_recent_rate_by_its_formula():
    df = table()
    events = read(df, window=("2020-07-01", END))
    edges = events.block_edges("month")
    made = events.recent_rate(edges, days=365)
    first = (df["day"].min() - pd.Timestamp("2020-07-01")).days  # of the first record
    for k, edge in enumerate(edges[:-1].tolist()):
        age = edge - (df["day"] - pd.Timestamp("2020-07-01")).dt.days
        counts = np.array(
            [
                ((df["town"] == p) & (df[s] == 1) & (age > 0) & (age <= 365)).sum()
                for p, s in events.nodes
            ]
        )
        # The first record is somewhere within its day.
        shift = float(events.times[0]) - first
        observed = min(365.0, edge - first - shift)
        mean = counts.mean() / observed
        wanted = np.log((counts + 0.5) / (observed + 0.5 / mean))
        assert made.values[k, :, 0].numpy() == pytest.approx(wanted, abs=1e-9)


def test_recent_rate_without_a_past():
    events = read()
    rate = events.recent_rate([0.0, 31.0], days=100)
    assert rate.values.numpy() == pytest.approx(np.log(1 / 100), abs=1e-12)  # one event in 100 days
