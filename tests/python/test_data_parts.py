"""The parts of panels and events, each by itself: leaks, moments, the timeline, lags, sites,
places, blocks of time."""

from __future__ import annotations

import datetime
import math
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import topreach as tr
from topreach import _C
from topreach._C import Calendar
from topreach.data import leaks, moments, sites, timeline
from topreach.data.event_marks import MarkScaler, mark_columns
from topreach.data.moments import Resolution
from topreach.data.places import Places
from topreach.data.times import read_times

NAN = math.nan


def day(text):
    return float((datetime.date.fromisoformat(text) - datetime.date(1970, 1, 1)).days)


def said(call):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in found]


# ---- features that reveal the count --------------------------------------------------------------


def leak(x, y, exposure=None):
    """The warning about one feature."""
    return " ".join(said(lambda: leaks.warn_of_leaks(x[:, :, None], y, exposure, ["u"], "f")))


@pytest.fixture
def cells():
    """Counts of 40 sites in 2 periods, all different, and noise of the same shape."""
    random = np.random.default_rng(0)
    return random.permutation(80).reshape(2, 40) + 1.0, random.normal(size=(2, 40))


def test_a_feature_that_goes_with_the_count(cells):
    y, noise = cells
    assert "'u' goes with the count of its own period." in leak(np.exp(-y / 9), y)
    assert leak(noise, y) == ""
    people = np.exp(noise)
    assert "the rate of its own period" in leak(np.sqrt(y / people), y, people)
    assert leak(np.sqrt(y / people), y) == ""
    # Ranks of which the first m are reversed, near the limit: Spearman's 1 - 6 d / (n^3 - n).
    ranks = y - 1
    borders = set()
    for m in range(10, 30):
        moved = np.where(ranks < m, m - 1 - ranks, ranks)
        r = 1 - 6 * ((moved - ranks) ** 2).sum() / (80**3 - 80)
        assert (leak(moved, y) != "") == (r >= 0.98)
        borders.add(r >= 0.98)
    assert borders == {True, False}
    half = y.copy()
    half[:, :] = NAN
    half.ravel()[:29] = y.ravel()[:29]
    assert leak(y, half) == ""  # too few counts are known
    half.ravel()[29] = y.ravel()[29]
    assert leak(y, half) != ""


def test_a_feature_that_goes_with_the_sites_total(cells):
    y, _ = cells
    total = np.broadcast_to(y.sum(axis=0), y.shape)
    assert "'u' goes with the site's total over all periods" in leak(total**3, y)
    moving = total + np.array([[0.0], [1e-9]])
    assert "total" not in leak(moving, y)
    fewer = np.tile(y[:, :29], (1, 1))
    assert "total" not in leak(np.broadcast_to(fewer.sum(axis=0), fewer.shape), fewer)
    assert "count of its own period" in leak(y[:1], y[:1])  # one period: it is the count itself


def test_a_feature_that_is_zero_where_the_count_is():
    random = np.random.default_rng(1)
    for share, told in ((0.5, True), (0.05, False), (0.95, False)):
        y = (random.permutation(400) >= 400 * share).reshape(4, 100).astype(float)
        flag = np.where(y == 0, 0.0, random.normal(size=y.shape))
        assert ("it is zero exactly where that is" in leak(flag, y)) == told
        flag[0, 0] = 1.0 - (flag[0, 0] != 0)
        assert "zero exactly" not in leak(flag, y)


def test_large_tables_are_sampled():
    random = np.random.default_rng(2)
    y = random.poisson(3.0, (30, 1000)).astype(float)
    assert leak(2 * y + 1, y) != "" and leak(random.normal(size=y.shape), y) == ""
    assert said(lambda: leaks.warn_of_leaks(np.zeros((30, 1000, 0)), y, None, [], "f")) == []


# ---- moments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "dates", "expected"),
    [
        ("day", True, ("day", 1)), ("quarter", True, ("quarter", 1)), (0, True, ("", 0)),
        (0.0, False, ("", 0)), (0.5, False, ("", 0.5)), (2, False, ("", 2)),
        (Resolution("week", 1.0), True, ("week", 1)),
        (1, True, None), ("day", False, None), ("decade", True, None), (-1, False, None),
        (True, False, None), (math.inf, False, None), (NAN, False, None), (None, True, None),
    ],
)  # fmt: skip
def test_resolutions(given, dates, expected):
    if expected is None:
        with pytest.raises(ValueError, match="f: resolution must be"):
            Resolution.read(given, dates, "f")
        return
    read = Resolution.read(given, dates, "f")
    assert (read.unit, read.step) == expected


@pytest.mark.parametrize(
    ("times", "unit", "step"),
    [
        ([1, 2, 5], "", 1.0), ([1, 2.5], "", 0.0), (["2024-01-05"], "day", 1),
        (["2024-01-05 00:00", "2024-01-06 00:00"], "day", 1),
        (["2024-01-05 07:00", "2024-01-06 09:00"], "hour", 1),
        (["2024-01-05 07:30", "2024-01-06 09:00"], "minute", 1),
        (["2024-01-05 07:30:01", "2024-01-06 09:00:00"], "second", 1),
        (["2024-01", "2024-05"], "month", 1), (["2024Q1", "2024Q3"], "quarter", 1),
        (["2024-W05"], "week", 1), (["Jan-24", "Feb-24"], "month", 1),
        (["5/1/2024", "13/1/2024"], "day", 1),
    ],
)  # fmt: skip
def test_the_resolution_of_a_column(times, unit, step):
    found = Resolution.find(read_times(times, "f", "t"))
    assert (found.unit, found.step) == (unit, step)


def test_the_step_that_a_time_lies_in():
    def floor(unit, step, values):
        first, width = Resolution(unit, step).floor(np.array(values))
        return first.tolist(), width.tolist()

    assert floor("", 0.0, [1.25]) == ([1.25], [0]) and floor("", 0.5, [1.4, 2.5]) == (
        [1, 2.5],
        [0.5] * 2,
    )
    assert floor("", 0.1, [0.3]) == ([pytest.approx(0.3)], [0.1])  # 0.3 / 0.1 is below 3
    first, width = floor("hour", 1, [10 + 7.9 / 24, 10 + 8 / 24])
    assert first == pytest.approx([10 + 7 / 24, 10 + 8 / 24]) and width == [1 / 24] * 2
    assert floor("day", 1, [3.75]) == ([3], [1])
    assert floor("minute", 1, [1 / 1440 * 2.5])[0] == pytest.approx([2 / 1440])
    assert floor("month", 1, [day("2024-02-29"), day("2023-12-31")]) == (
        [day("2024-02-01"), day("2023-12-01")], [29, 31],
    )  # fmt: skip
    assert floor("week", 1, [day("2024-01-07")]) == ([day("2024-01-01")], [7])  # a Sunday
    assert floor("quarter", 1, [day("2024-05-05")]) == ([day("2024-04-01")], [91])
    assert floor("year", 1, [day("2023-05-05")]) == ([day("2023-01-01")], [365])
    assert [str(r) for r in (Resolution("day", 1), Resolution("", 0.5), Resolution("", 0))] == [
        "one day", "0.5", "exact",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "first", "last"),
    [
        ("2024-02-05", "2024-02-05", "2024-02-06"), ("2024-02", "2024-02-01", "2024-03-01"),
        ("2024Q1", "2024-01-01", "2024-04-01"), ("2024-W01", "2024-01-01", "2024-01-08"),
        (datetime.date(2024, 2, 5), "2024-02-05", "2024-02-06"),
    ],
)  # fmt: skip
def test_the_first_and_the_last_moment(value, first, last):
    read = [moments.read_moment(value, "f", "x", dates=True, end=end) for end in (False, True)]
    assert read == [day(first), day(last)]


def test_moments_of_other_kinds():
    noon = [moments.read_moment("2024-02-05 12:00", "f", "x", dates=True, end=e) for e in (0, 1)]
    assert noon == [day("2024-02-05") + 0.5] * 2
    assert [moments.read_moment(2024, "f", "x", dates=False, end=e) for e in (0, 1)] == [2024] * 2
    own = {"dates": True, "end": False, "time_format": "%d/%m/%Y"}
    assert moments.read_moment("02/05/2024", "f", "x", **own) == day("2024-05-02")
    assert moments.read_moment("2024-05-02", "f", "x", **own) == day("2024-05-02")
    for value, dates in ((3, True), ("2024-01-01", False)):
        with pytest.raises(ValueError, match="f: x must"):
            moments.read_moment(value, "f", "x", dates=dates, end=False)
    assert moments.moment_label(day("2024-02-05"), True) == "2024-02-05"
    assert moments.moment_label(day("2024-02-05") + 0.25, True) == "2024-02-05 06:00"
    assert moments.moment_label(2.5, False) == moments.end_label(2.5, False) == "2.5"
    assert moments.end_label(day("2024-02-05"), True) == "2024-02-04"
    assert moments.end_label(day("2024-02-05") + 0.25, True) == "2024-02-05 06:00"
    assert moments.end_label(3.0, False) == "3"


# ---- the timeline and what looks back ------------------------------------------------------------


def test_a_timeline_has_a_row_for_each_period():
    years = Calendar.infer([2000.0, 2001.0], False, "", "")
    low = torch.tensor([[1.0, 2], [3, 4], [5, 6]])
    line, rows = timeline.Timeline.place(years, [2000.0, 2001, 2004], low, low + 1)
    assert rows.tolist() == [0, 1, 4] and line.times.tolist() == [2000, 2001, 2002, 2003, 2004]
    assert line.low[rows].equal(low) and line.low[2:4].isnan().all()
    assert line.upper[rows].equal(low + 1) and line.bound("upper").low[rows].equal(low + 1)
    assert line.bound("lower").low[rows].equal(low) and line.bound("upper").high is None
    assert line.absent(rows) == [2, 3] and line.absent(torch.tensor([0, 1, 2, 4])) == [3]
    assert line.until(2).low.equal(low[:2]) and line.until(2).high is not None
    exact = timeline.Timeline(years, 0, low, torch.cat([low[:1], low[1:] + 1]))
    assert exact.until(1).high is None and exact.until(2).high is not None
    assert line.sites([1]).low[0].tolist() == [2] and line.sites([1]).high[0].tolist() == [3]
    plain, _ = timeline.Timeline.place(years, [2000.0, 2001, 2004], low)
    assert plain.high is None and plain.upper is plain.low and plain.until(1).high is None
    back = plain.windows(torch.tensor([0, 1, 4]), 2)
    expected = [[[NAN] * 2, [NAN] * 2], [[NAN] * 2, [1, 2]], [[NAN] * 2, [NAN] * 2]]
    np.testing.assert_array_equal(back.numpy(), np.array(expected))
    assert plain.windows(torch.tensor([2]), 2)[0].tolist() == [[1, 2], [3, 4]]
    halves = Calendar.infer([2000.0, 2000.5], False, "", "")
    finer, place = line.regrid(halves)
    assert place.tolist() == [0, 2, -1, -1, 8] and finer.low[[0, 2, 8]].equal(low)
    assert len(finer.low) == 9 and finer.high[[0, 2, 8]].equal(low + 1)


def small(times=(2000, 2001, 2002), **how):
    y = np.arange(2.0 * len(times)).reshape(-1, 2)
    x = np.zeros((len(times), 2, 0))
    return tr.Panel(x, y, ["a", "b"], list(times), [], **how)


def test_lags_by_the_calendar():
    panel = small()
    assert panel.known_lags(0).tolist() == [True] * 3
    assert panel.known_lags(1).tolist() == [False, True, True]
    assert panel.known_lags(2).tolist() == [False, False, True]
    zeros = small(absent_lags="zero")
    assert zeros.known_lags(2).tolist() == [True] * 3
    assert panel.batch(absent_lags="zero").history is None and panel.batch(0).history is None
    history = panel.batch(2, absent_lags="zero").history  # [T, S, W]
    assert history.tolist() == [[[0, 0], [0, 0]], [[0, 0], [0, 1]], [[0, 2], [1, 3]]]
    assert zeros.batch(2, absent_lags="nan").history.equal(history)
    assert panel.batch(2, absent_lags="nan").history.isnan().sum() == 6
    for window in (-1, 1.0, True, "1"):
        with pytest.raises(ValueError, match="window must be a whole number >= 0"):
            panel.batch(window)
    with pytest.raises(
        ValueError, match="got 2 for time 2000: the count of 1998 is not known. Pass"
    ):
        panel.batch(2)
    gap = quiet(lambda: small((2000, 2001, 2003)))
    with pytest.raises(ValueError, match="for time 2003: the count of 2002 is not known. Rank one"):
        gap.select_times([2003]).batch(1)


def quiet(call):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()


def test_a_closed_site_had_no_events():
    panel = tr.Panel(np.zeros((3, 2, 0)), [[1, NAN], [2, NAN], [3, 4]], ["a", "b"],
                     [2000, 2001, 2002], [], opened=[NAN, 2002])  # fmt: skip
    history = panel.select_times([2002]).batch(2).history
    assert history.tolist() == [[[1, 2], [0, 0]]]
    assert panel.known_lags(2).tolist() == [False, False, True]


def test_weights_of_periods():
    panel = small()
    assert panel.batch().weights is None
    for given in ([0, 1, 2], torch.arange(3), lambda times: times - 2000):
        weights = panel.batch(weights=given).weights
        assert weights.tolist() == [0, 1, 2] and weights.dtype == torch.float32
    for wrong in ([1, 1], [1, 1, -1], [1, 1, NAN], [1, 1, math.inf], [[1, 1, 1]]):
        with pytest.raises(ValueError, match="weights must be 3 finite numbers >= 0"):
            panel.batch(weights=wrong)


def test_cuts_by_time():
    panel = small((2000, 2001, 2002, 2003))
    train, valid, test = panel.split(valid=2001, test=[2003, 2002])
    assert (train.times, valid.times, test.times) == ([2000], [2001], [2002, 2003])
    assert panel.split(test=2002)[0].times == [2000, 2001] and panel.split(test=2002).valid is None
    assert panel.split(valid="2002").train.times == [2000, 2001]
    for how, message in (
        ({}, "valid or test must be given, got neither"),
        ({"valid": 2000}, "valid must leave earlier periods to train on, got 2000"),
        ({"test": 2000}, "test must leave earlier periods to train on, got 2000"),
        (
            {"valid": 2002, "test": 2002},
            "test must come after valid, got test 2002 with valid 2002",
        ),
        ({"valid": [2001, 2003], "test": 2002}, "test must come after valid"),
        ({"valid": [2001, 2001]}, "valid must be distinct, got 2001 more than once"),
        ({"valid": 2005}, "valid must be among the panel's times, got 2005"),
        ({"valid": []}, "valid must hold at least one time, got none"),
        ({"valid": True}, "valid must be among the panel's times, got True"),
    ):
        with pytest.raises(ValueError, match=f"Panel.split: {message}"):
            panel.split(**how)
    with pytest.raises(ValueError, match="earlier must end before 2002, got one that ends at 2002"):
        test.with_history(panel.select_times([2001, 2002]))
    joined = test.with_history(train)
    assert joined.timeline.shape == (4, 2) and joined.history_y[0].tolist() == [0, 1]
    # A period without counts takes part in finding the calendar of both: years, not pairs of years.
    counts = [[1.0, 2.0], [NAN, NAN]]
    later = tr.Panel(np.zeros((2, 2, 0)), counts, ["a", "b"], [2002, 2003], [], counts="optional")
    joined = quiet(lambda: later.with_history(small((2000,))))
    assert joined.calendar.step == 1 and joined.timeline_times.tolist()[:3] == [2000, 2001, 2002]


# ---- sites ---------------------------------------------------------------------------------------


def test_ids_in_order():
    def codes(given):
        ids, code = sites.site_codes(pd.Series(given), "f", "s", "row {}".format)
        return ids, code.tolist()

    assert codes(["10", "9", "10"]) == (["9", "10"], [1, 0, 1])
    assert codes(["10", "9", "x"]) == (["10", "9", "x"], [0, 1, 2])
    assert codes([10.0, 9.0]) == (["9", "10"], [1, 0]) and codes([" b", "a"]) == (
        ["a", "b"],
        [1, 0],
    )
    assert codes(["01", "1"]) == (["01", "1"], [0, 1]) == codes(["01", "1"])
    for given, message in (
        (["a", None, None], r"no missing values, got one at row 1 \(2 in all\)"),
        (["a", 1.5], "strings or whole numbers, got 1.5 at row 1"),
        ([True, False], "strings or whole numbers, got"),
        (["a", " "], "no empty ids, got one at row 1"),
        (["a", "b", "a "], "got 'a' and 'a ' .the latter at row 2"),
        (pd.Series(["b", 1, "1"], dtype=object), "got 1 and '1' .the latter at row 2"),
    ):
        with pytest.raises(ValueError, match=f"f: site 's' must .*{message}"):
            codes(given)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("São Paulo", "sao paulo", True), ("007", "7", True), ("0", "000", True),
        ("St. Mary", "St-Mary", True), ("A 1-2", "A 1.2", True), ("A 1-2", "A 12", False),
        ("A1", "A 1", True), ("1-2", "1.2", False), ("a  b", "A B", True), ("70", "7", False),
        ("7.0", "007", True), ("7.5", "7", False), ("7.", "7", False), (".0", "0", False),
        ("-7", "7", False), ("Foo–Bar", "foo bar", True), ("7..0", "7", False),
        (" 1  2", "1 2", True), ("12", "1 2", False), ("", "0", False), ("0.0", "0", True),
    ],
)  # fmt: skip
def test_spellings_of_one_id(one, other, alike):
    assert (sites.plain_id(one) == sites.plain_id(other)) == alike
    found = said(lambda: sites.warn_of_similar_ids([one, "quite another", other], "f"))
    assert len(found) == alike
    hint = f" Did you mean {other!r}? Ids are compared as text."
    if alike:
        assert f"got 1 group(s): {one!r} and {other!r}." in found[0]
    if one.isascii():
        assert _C.did_you_mean(one, ["quite another", other]) == (hint if alike else "")


def test_when_sites_are_open():
    """From the period in which a site opens to the period in which it closes, both included."""
    years = Calendar.infer([2000.0, 2001.0], False, "", "")
    times = np.arange(2000.0, 2004)
    assert sites.open_cells(np.full(2, NAN), np.full(2, NAN), times, years) is None
    is_open = sites.open_cells(
        np.array([2001.0, NAN, NAN]), np.array([2002.0, 2000.5, NAN]), times, years
    )
    assert is_open.T.astype(int).tolist() == [[0, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]]
    months = Calendar("month", 1, 0.0)
    found = sites.period_of(np.array([day("2024-01-31"), NAN, day("2024-02-01")]), months)
    assert np.isnan(found[1]) and found[2] - found[0] == 1


def test_the_spread_of_counts():
    """phi of Var = mu + phi mu^2 by moments, written out; none if counts spread less."""
    y = np.array([[0.0, 9], [8, 1], [1, NAN]])
    mean = [3.0, 5.0]
    excess = sum((v - m) ** 2 - m for row in y for v, m in zip(row, mean, strict=True) if v == v)
    assert sites._dispersion(y) == pytest.approx(excess / (3 * 9 + 2 * 25))
    assert sites._dispersion(np.ones((3, 2))) == 0 and sites._dispersion(np.zeros((3, 2))) == 0
    assert sites._dispersion(np.array([[NAN, 0.0], [NAN, 8]])) == pytest.approx((32 - 8) / 32)


# ---- places and marks ----------------------------------------------------------------------------


def test_places_and_how_far_they_lie():
    table = pd.DataFrame({"id": ["b", "a"], "lat": [60.0, 60], "lon": [10.0, 11], "n": [1, 2]})
    places = Places.read(table, "town", "f")
    assert (places.ids, places.spherical, places.names) == (
        ["b", "a"],
        True,
        ("n",),
    ) and places.fixed
    assert places.values.tolist() == [[1], [2]]
    half = math.asin(math.cos(math.radians(60)) * math.sin(math.radians(0.5)))
    far = places.distances()
    assert (
        far[0, 1] == far[1, 0] == pytest.approx(2 * 6371.0088 * half, rel=1e-6) and far[0, 0] == 0
    )
    plane = Places.read(table.rename(columns={"lat": "x", "lon": "y"}), "town", "f")
    assert not plane.spherical and plane.distances()[0, 1] == 1
    bare = Places.read(table[["id"]], "town", "f")
    assert bare.coordinates is None and bare.values is None and bare.names == ()
    named = Places.read(table.rename(columns={"id": "town"}), "town", "f")
    assert named.ids == ["b", "a"] and Places.read(named, "town", "f") is named
    assert Places.read([" x", 7], "town", "f").ids == ["x", "7"]
    with pytest.raises(ValueError, match="must have coordinates, got none"):
        bare.distances()
    for given, error, message in (
        ("abc", TypeError, "must be a list of ids or a DataFrame, got str"),
        (3, TypeError, "must be a list of ids or a DataFrame, got int"),
        ([], ValueError, "distinct ids, at least one and none empty"),
        (["a", "a"], ValueError, "distinct ids, at least one and none empty"),
        (["a", " "], ValueError, "distinct ids, at least one and none empty"),
        (table[["n"]], ValueError, r"a column 'town', 'id' or 'place', got \['n'\]"),
        (pd.concat([table, table[1:]]), ValueError, "a row for each id, got 'a' again at row 1"),
        (table.assign(lat=[0, 90.5]), ValueError, "lat within 90 .* at row 1 of places"),
        (table.assign(lon=[0, -360.5]), ValueError, "lon within 360 .* at row 1 of places"),
        (table.assign(lon=[0, NAN]), ValueError, "places 'lon' must hold finite numbers, got nan"),
        (
            table.assign(n=[NAN, 1]),
            ValueError,
            "places 'n' must hold finite numbers, got nan at row 0",
        ),
    ):
        with pytest.raises(error, match=message):
            Places.read(given, "town", "f")
    assert Places.read(table.assign(lat=[90, -90], lon=[360, -360]), "t", "f").spherical


def test_marks_as_numbers():
    table = pd.DataFrame({"age": [30.0, 50, 40], "same": [2.0] * 3, "sex": ["F", "M", "M"],
                          "one": ["x"] * 3})  # fmt: skip
    scaler = MarkScaler.fit(table)
    assert scaler.names == ["age", "sex=F"] and scaler.dropped == ("same", "one")
    z = math.sqrt(3 / 2)
    np.testing.assert_allclose(scaler.transform(table), [[-z, 1], [z, 0], [0, 0]], atol=1e-15)
    assert MarkScaler.from_dict(scaler.to_dict()) == scaler
    level = MarkScaler.fit(pd.DataFrame({"c": ["b", "a", "b", "a", "c"]}))
    assert level.categories == {"c": ("a", "b", "c")}  # level ones by name
    strange = table.assign(sex=["F", "X", "M"])
    assert "got ['X']. They count as 'M'" in said(lambda: scaler.transform(strange))[0]
    assert quiet(lambda: scaler.transform(strange))[:, 1].tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match=re.escape("must have the columns ['sex']")):
        scaler.transform(table[["age"]])
    nearly = pd.DataFrame({"v": [1e9, 1e9 + 1e-7]})
    assert MarkScaler.fit(nearly).names == [] and MarkScaler.fit(table[:0]).names == []
    assert MarkScaler.fit(pd.DataFrame({"v": [1e9, 1e9 + 1]})).names == ["v"]


def test_which_cell_of_a_mark_is_wrong():
    def read(cells):
        return mark_columns(pd.DataFrame({"m": cells}), ["m"], "f", "row {}".format)["m"].tolist()

    assert read([1, 2]) == [1, 2] and read([" a", "b "]) == ["a", "b"]
    assert read(["1", "x"]) == ["1", "x"] and read(["1", "x", "2", "y"]) == ["1", "x", "2", "y"]
    assert read(["1", "2", "3"]) == ["1", "2", "3"]
    for cells, message in (
        ([1, NAN, NAN], r"finite numbers with none missing, got nan at row 1 \(2 such rows\). Fill "
                        r"them in, or"),
        ([1, math.inf], "got inf at row 1"),
        (["a", None], r"texts with none missing, got (nan|None) at row 1 .* a category such as"),
        (["1", "2", "x"], "numbers or categories, got 'x' at row 2, where most"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"f: marks 'm' must hold .*{message}"):
            read(cells)
