"""Columns of times: read in one format throughout, or refused with the column and two rows."""

import datetime

import numpy as np
import pandas as pd
import pytest

from topreach.cli import main
from topreach.data.panel import Panel
from topreach.data.times import make_calendar, read_times, time_value


def read(given, **options):
    where = " at line {}".format
    times = read_times(given, "f", "time 'm'", lambda i: where(i + 2), **options)
    return times, make_calendar(times, "f", "time 'm'", None)


READ = [
    # what is written, the unit of its periods, the first day as ISO, the period after the last
    ([2019, 2020, 2022], "number", None, "2023"),
    (["2019", "2020"], "number", None, "2021"),
    ([2020.0, 2020.25, 2020.5], "number", None, "2020.75"),
    ([202011, 202012, 202101], "month", "2020-11-01", "202102"),
    ([20210101, 20210201], "month", "2021-01-01", "20210301"),
    ([202100, 202101], "number", None, "202102"),  # there is no month 0
    ([18990101, 20210101], "number", None, "21430101"),
    ([20210101, 21010101], "number", None, "21810101"),
    (["2021.09", "2021.10", "2021.11"], "month", "2021-09-01", "2021.12"),
    (["2021-01", "2021-04", "2021-07"], "quarter", "2021-01-01", "2021-10"),
    (["2021-1", "2021-2"], "month", "2021-01-01", "2021-3"),
    (["03/2021", "04/2021"], "month", "2021-03-01", "05/2021"),
    (["2021Q1", "2021Q2", "2021Q4"], "quarter", "2021-01-01", "2022Q1"),
    (["2021-Q4"], "quarter", "2021-10-01", "2022-Q1"),
    (["Q3 2021", "Q4 2021"], "quarter", "2021-07-01", "Q1 2022"),
    (["4Q20", "1Q21"], "quarter", "2020-10-01", "2Q21"),
    (["2020-W53", "2021-W01"], "week", "2020-12-28", "2021-W02"),
    (["2021W05-1", "2021W06-1"], "week", "2021-02-01", "2021W07-1"),
    (["Sep-20", "Oct-20", "Nov-20"], "month", "2020-09-01", "Dec-20"),
    (["NOV 2020", "DEC 2020"], "month", "2020-11-01", "JAN 2021"),
    (["May 2020", "June 2020"], "month", "2020-05-01", "July 2020"),
    (["1 Nov 2020", "1 Dec 2020"], "month", "2020-11-01", "1 Jan 2021"),
    (["Nov 1, 2020", "Dec 1, 2020"], "month", "2020-11-01", "Jan 1, 2021"),
    (["13/02/2021", "14/02/2021"], "day", "2021-02-13", "15/02/2021"),
    (["01/31/2021", "02/28/2021"], "month", "2021-01-31", "03/31/2021"),
    (["01.02.2021", "01.03.2021"], "month", "2021-02-01", "01.04.2021"),
    (["1/1/2019", "1/1/2020"], "year", "2019-01-01", "1/1/2021"),
    (["2021-01-04", "2021-01-11"], "week", "2021-01-04", "2021-01-18"),
    (["2021-05-31", "2021-06-30"], "month", "2021-05-31", "2021-07-31"),
    (
        ["2021-01-01T00:00:00Z", "2021-02-01T00:00:00Z"],
        "month",
        "2021-01-01",
        "2021-03-01T00:00:00Z",
    ),
    (["2021-01-01 08:00", "2021-01-01 16:00"], "hour", "2021-01-01", "2021-01-02 00:00"),
    (
        list(pd.to_datetime(["2021-01-01 08:00", "2021-01-01 16:00"])),
        "hour",
        "2021-01-01",
        "2021-01-02 00:00",
    ),
    (list(pd.period_range("2021Q3", periods=2, freq="Q")), "quarter", "2021-07-01", "2022Q1"),
    # Fiscal 2021 runs from July 2020: it is not called 2020.
    (list(pd.period_range("2020", periods=2, freq="Y-JUN")), "year", "2019-07-01", "2021-07-01"),
    (
        list(pd.period_range("2021Q1", periods=2, freq="Q-NOV")),
        "quarter",
        "2020-12-01",
        "2021-06-01",
    ),
    (list(pd.period_range("2021", periods=2, freq="Y")), "year", "2021-01-01", "2023"),
    (list(pd.to_datetime(["2020-01-31", "2020-02-29"])), "month", "2020-01-31", "2020-03-31"),
    (
        [np.datetime64("2020-01-01"), np.datetime64("2021-01-01")],
        "year",
        "2020-01-01",
        "2022-01-01",
    ),
    ([datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)], "day", "2020-01-01", "2020-01-03"),
]


@pytest.mark.parametrize(("given", "unit", "first", "later"), READ, ids=lambda v: str(v)[:24])
def test_usual_forms_are_read_and_written_on(given, unit, first, later):
    times, calendar = read(given)
    assert calendar.unit == unit
    if first is not None:
        day = (datetime.date.fromisoformat(first) - datetime.date(1970, 1, 1)).days
        assert np.floor(times.values[0]) == day
    assert calendar.label(calendar.next(times.values[-1])) == later
    if all(isinstance(t, str) for t in given):
        assert [calendar.label(v) for v in times.values] == given


REFUSED = [
    (["01/02/2021", "01/03/2021"], {}, 'read in one way only.*line 2.*time_format="%d/%m/%Y"'),
    (["03-01-20", "03-02-20"], {}, "%d-%m-%y.*%m-%d-%y.*%y-%m-%d"),
    (["13/02/2021", "02/13/2021"], {}, "one way throughout, got '13/02/2021' at line 2 and '02/13"),
    (
        ["2021-01", "Jan 2022"],
        {},
        "one way throughout, got '2021-01' at line 2 and 'Jan 2022' at line 3",
    ),
    (["2019", "2020-01-01"], {}, "one way throughout"),
    (
        ["soon", "2019"],
        {},
        "numbers, dates or date strings such as '2021-03', got 'soon' at line 2",
    ),
    (["20-Nov", "20-Dec"], {}, "numbers, dates or date strings"),
    (["2021-02-28", "2021-02-30"], {}, "dates that exist, .* got '2021-02-30' at line 3"),
    (["Okt 2021"], {}, "months in English"),
    (["2021-W52", "2021-W53"], {}, "dates that exist.*2021-W53"),
    (
        ["2021-03-01T00:00:00-05:00", "2021-04-01T00:00:00-04:00"],
        {},
        "one UTC offset, got .*-04:00'",
    ),
    ([pd.Timestamp("2020-01-01", tz="UTC"), pd.Timestamp("2020-02-01")], {}, "one time zone"),
    ([2019, datetime.date(2020, 1, 1)], {}, "all numbers or all dates"),
    ([202101, 202113], {}, "a year and a week, got 202113 at line 3.*%G%V"),
    (["2021-01-01 08:10", "2021-01-01 16:00"], {}, "periods of one length.*Count the events"),
    ([*range(2000, 2010), 20211], {}, "so many periods out.*between 2009 and 20211"),
    ([2019, np.inf], {}, "must be finite"),
    (["13/02/2021"], {"time_format": "%m/%d/%Y"}, "written as time_format '%m/%d/%Y'"),
    (["13/02/2021"], {"time_format": "day first"}, "time_format must be a strftime pattern"),
    (["13/02/2021"], {"time_format": "%j"}, "time_format: .*%-letters"),
    (["a"], {"time_format": "number"}, "must hold numbers"),
]


@pytest.mark.parametrize(("given", "options", "message"), REFUSED, ids=lambda v: str(v)[:24])
def test_what_cannot_be_read_is_refused_in_words(given, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(given, **options)
    assert str(caught.value).startswith("f: time")


@pytest.mark.parametrize("value", [True, None, 1j, (1,), b"2021"])
def test_what_is_no_time_is_a_type_error(value):
    with pytest.raises(TypeError, match="must hold numbers, dates or date strings"):
        read([value])


def test_time_format_says_which():
    days = [
        datetime.date(2021, 2, 1).toordinal() - 719163,
        datetime.date(2021, 3, 1).toordinal() - 719163,
    ]
    assert read(["01/02/2021", "01/03/2021"], time_format="%d/%m/%Y")[0].values.tolist() == days
    assert read(["1/2/2021", "1/3/2021"], time_format="%d/%m/%Y")[1].format == "%-d/%-m/%Y"
    assert read([202101, 202105], time_format="%G%V")[1].unit == "week"
    assert read([202101, 202113], time_format="number")[0].dates is False
    assert read([2019, 2020], time_format="%Y")[1].unit == "year"


def test_a_time_is_found_however_it_is_written():
    _, quarters = read(["2018Q4", "2019Q1"])
    for written in ("2019Q1", "2019-01-01", "2019-01", pd.Timestamp("2019-01-01"), "Jan 2019"):
        assert time_value(written, quarters) == quarters.parse("2019Q1")
    for written in ("2019-02-01", 2019, "01/02/2019", "soon", None, True):
        assert time_value(written, quarters) is None
    _, years = read([2019, 2020])
    assert time_value("2020", years) == 2020 and time_value("2020-01-01", years) is None


def test_a_calendar_that_is_given_rules():
    x, y = np.zeros((1, 1, 0)), [[1]]
    _, quarters = read(["2018Q4", "2019Q1"])
    panel = Panel(x, y, ["a"], ["2020-01-01"], [], calendar=quarters)
    assert panel.calendar == quarters and panel.times == ["2020-01-01"]
    with pytest.raises(ValueError, match=r"must begin a period .* got 2020-02-01"):
        Panel(x, y, ["a"], ["2020-02-01"], [], calendar=quarters)
    with pytest.raises(ValueError, match="times must be dates as in training"):
        Panel(x, y, ["a"], [2020], [], calendar=quarters)


YEARS = range(2019, 2022)
QUARTERS = [(y, q) for y in YEARS for q in range(1, 5)]
MONTHS = [(y, m) for y in (2019, 2020) for m in range(1, 13)]
# What is written, what it may be, the format that is advised for it and the unit that this reads.
DOUBTFUL = [
    (["2009/10", "2010/11", "2011/12"], "years from one to the next", "%Y/%m", "month"),
    (["2019-20", "2020-21"], "years from one to the next, got '2019-20'", None, None),
    (["2019/2020", "2020/2021"], "years from one to the next", None, None),
    ([f"{y}-{q}" for y, q in QUARTERS], "a year and a quarter, got '2020-1'", "%Y-%q", "quarter"),
    ([f"{y}-{q}" for y, q in QUARTERS], "a year and a quarter", "%Y-%-m", "month"),
    ([f"{q}/{y}" for y, q in QUARTERS], "a year and a quarter", "%q/%Y", "quarter"),
    ([f"{y}-{h}" for y in YEARS for h in (1, 2)], "a year and a half of it", "%Y-%-m", "month"),
    ([f"{y}{q}" for y, q in QUARTERS], "a year and a quarter, got '20201'", "%Y%q", "quarter"),
    ([10 * y + q for y, q in QUARTERS], "a year and a quarter, got 20201", "%Y%q", "quarter"),
    ([f"{y}.{q}" for y, q in QUARTERS], "a year and a quarter", "%Y.%q", "quarter"),
    ([y + m / 100 for y, m in MONTHS], "a year and a month", "number", "number"),
    ([f"{y - 2000}{m:02d}" for y, m in MONTHS], "a year and a month", "%y%m", "month"),
    ([f"{m:02d}{y - 2000}" for y, m in MONTHS], "without separators, got '0119'", "%m%y", "month"),
    ([f"{m:02d}{y}" for y, m in MONTHS], "dates without separators", "%m%Y", "month"),
    ([f"01{m:02d}{y}" for y, m in MONTHS], "dates without separators", "%d%m%Y", "month"),
    ([10_000 * m + y for y, m in MONTHS], "dates that end in the year", None, None),
    ([2019_365, 2020_001, 2020_002], "a year and a day of it", "number", "number"),
    (
        [44197, 44228, 44256, 44287],
        "as Excel counts them, got 44197.*2021-01-01",
        "number",
        "number",
    ),
    ([1577836800, 1580515200, 1583020800], "seconds since 1970.*2020-01-01", "number", "number"),
]


@pytest.mark.parametrize(("given", "what", "form", "unit"), DOUBTFUL, ids=lambda v: str(v)[:24])
def test_what_may_be_another_thing_is_refused_until_the_format_is_said(given, what, form, unit):
    with pytest.raises(ValueError, match=f"f: time 'm' must not hold .* that may be .*{what}") as e:
        read(given)
    assert " at line " in str(e.value)
    if form is None:
        return
    assert f'time_format="{form}"' in str(e.value)
    times, calendar = read(given, time_format=form)
    assert (len(times.values), calendar.unit) == (len(given), unit)
    if unit == "quarter":  # they follow each other
        steps = [
            calendar.distance(a, b) for a, b in zip(times.values, times.values[1:], strict=False)
        ]
        assert set(steps) == {1}


@pytest.mark.parametrize(
    "given",
    [
        list(range(1, 13)),
        ["01", "02", "12"],
        [1901, 1905, 1911, 2001],
        [1, 2, 3, 4, 11, 12],
        [44197, 44204, 44211],
        [2019.0, 2019.25, 2019.5, 2019.75, 2020.0],
        [20191, 20192, 20193, 20194, 20195],
        ["2019-1", "2019-2", "2019-3", "2019-4"],
        ["2019-1", "2019-5", "2020-1"],
        ["2011-12"],
    ],
    ids=str,
)
def test_what_is_plain_stays_so(given):
    assert len(read(given)[0].values) == len(given)


def test_doubtful_times_at_the_command_line(tmp_path, capsys):
    rows = [f"s{s},{y}{q},{s + q}" for y, q in QUARTERS for s in range(3)]
    (tmp_path / "t.csv").write_text("site,time,n\n" + "\n".join(rows) + "\n")
    words = ["fit", "--data", str(tmp_path / "t.csv"), "--site", "site", "--time", "time"]
    words += ["--count", "n", "--k", "1", "--out", str(tmp_path / "m.pt"), "--quiet"]
    assert main(words) == 2
    assert "a year and a quarter, got '20201' at line 14. Pass --time-format '%Y%q'" in (
        capsys.readouterr().err
    )
    assert main([*words, "--time-format", "%Y%q"]) == 0
    capsys.readouterr()
    assert main(["rank", "--model", str(tmp_path / "m.pt"), "--out", "-"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("20221,")
