"""Panel: it holds the values of the table, and every data problem has an error or a rule."""

import copy
import datetime
import doctest
import io
import os
import pickle
import re
import threading
import warnings
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import topreach.data.columns
import topreach.data.panel
import topreach.data.reader
import topreach.data.times
from topreach.data.panel import Panel

COLUMNS = {"site": "tract", "time": "year", "count": "deaths"}


def table(num_sites=3, num_times=4, seed=0):
    generator = np.random.default_rng(seed)
    sites = [f"{s:05d}" for s in range(num_sites)]
    times = list(range(2018, 2018 + num_times))
    df = pd.DataFrame([(s, t) for t in times for s in sites], columns=["tract", "year"])
    df["deaths"] = generator.poisson(2.0, len(df))
    df["income"] = generator.normal(size=len(df)).astype(np.float32)
    df["lag"] = generator.poisson(1.0, len(df))
    return df


def read(df, **options):
    return Panel.from_frame(df, **(COLUMNS | options))


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode(encoding))
    return path


def assert_same(a, b):
    assert (a.site_ids, a.times, a.feature_names) == (b.site_ids, b.times, b.feature_names)
    assert torch.equal(a.x, b.x)
    assert torch.equal(a.y.nan_to_num(-1), b.y.nan_to_num(-1))


# ---- reading -------------------------------------------------------------------------------------


def test_every_cell_lands_in_its_place():
    df = table()
    panel = read(df)
    assert (panel.num_times, panel.num_sites, panel.num_features) == (4, 3, 2)
    assert panel.feature_names == ["income", "lag"]
    assert panel.x.dtype == panel.y.dtype == torch.float32
    for row in df.itertuples():
        t, s = panel.times.index(row.year), panel.site_ids.index(row.tract)
        assert panel.y[t, s] == row.deaths
        assert panel.x[t, s].tolist() == [np.float32(row.income), row.lag]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.randoms(use_true_random=False))
def test_row_order_does_not_matter_and_frames_round_trip(num_sites, num_times, random):
    df = table(num_sites, num_times)
    order = list(range(len(df)))
    random.shuffle(order)
    panel = read(df)
    assert_same(panel, read(df.iloc[order]))
    back = panel.to_frame(**COLUMNS)
    assert len(back) == len(df)
    assert_same(panel, read(back))


def test_csv_and_parquet_agree_with_the_frame(tmp_path):
    df = table()
    df.to_csv(tmp_path / "t.csv", index=False)
    assert_same(read(df), Panel.from_csv(tmp_path / "t.csv", **COLUMNS))
    pytest.importorskip("pyarrow")
    df.to_parquet(tmp_path / "t.parquet")
    assert_same(read(df), Panel.from_parquet(tmp_path / "t.parquet", **COLUMNS))


def test_ids_keep_leading_zeros_and_names_that_look_missing(tmp_path):
    path = write(tmp_path, "tract,year,deaths\n00123,1,2\n123,1,3\nNA,1,0\n 7 ,1,1\n")
    panel = Panel.from_csv(path, **COLUMNS)
    assert sorted(panel.site_ids) == ["00123", "123", "7", "NA"]


def test_sites_stand_in_the_order_of_their_numbers():
    df = pd.DataFrame({"tract": [10, 9, 100], "year": 1, "deaths": [1, 2, 3]})
    assert read(df).site_ids == ["9", "10", "100"]
    assert read(df.assign(tract=[10.0, 9.0, 100.0])).site_ids == ["9", "10", "100"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_with_a_mark(tmp_path, encoding):
    path = write(tmp_path, "tract,year,deaths\nPeñón,1,2\n", encoding)
    assert Panel.from_csv(path, **COLUMNS).site_ids == ["Peñón"]


def test_other_encodings_are_named(tmp_path):
    path = write(tmp_path, "tract,year,deaths\nPeñón,1,2\n", "latin-1")
    with pytest.raises(ValueError, match=r"from_csv: path must be UTF-8 .*0xf1.*latin-1"):
        Panel.from_csv(path, **COLUMNS)
    assert Panel.from_csv(path, encoding="latin-1", **COLUMNS).site_ids == ["Peñón"]


def test_blank_lines_are_left_out_and_lines_are_counted(tmp_path):
    path = write(tmp_path, "tract,year,deaths\na,1,2\n\nb,1,-3\n\n")
    with pytest.raises(ValueError, match=r"count 'deaths' .* got -3 at line 4"):
        Panel.from_csv(path, **COLUMNS)
    path = write(tmp_path, "tract,year,deaths\na,1,2\n\nb,1,3\n\n")
    assert Panel.from_csv(path, **COLUMNS).num_sites == 2


@pytest.mark.parametrize("text", ["", "\n"])
def test_empty_file(tmp_path, text):
    with pytest.raises(ValueError, match="empty file"):
        Panel.from_csv(write(tmp_path, text), **COLUMNS)


def test_header_only(tmp_path):
    with pytest.raises(ValueError, match="at least one row"):
        Panel.from_csv(write(tmp_path, "tract,year,deaths\n"), **COLUMNS)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.just(b"tract,year,deaths,u\n"), st.just(b"\xef\xbb\xbftract,year,deaths\n"), st.just(b"")
    ),
    st.one_of(st.binary(max_size=40), st.text('ab,01.;-"\n\r \x00', max_size=60).map(str.encode)),
)
def test_any_file_is_read_or_refused_in_words(tmp_path_factory, header, rest):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(header + rest)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Panel.from_csv(path, **COLUMNS)
    except (ValueError, TypeError) as error:
        assert str(error).startswith("Panel.from_csv: ")


def test_lines_with_too_many_fields(tmp_path):
    for text in ("tract,year,deaths\na,1,2\nb,1,2,9\n", "tract,year,deaths\na,1,2,9\nb,1,2,9\n"):
        with pytest.raises(ValueError, match="as many fields in each line"):
            Panel.from_csv(write(tmp_path, text), **COLUMNS)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="path must be an existing file"):
        Panel.from_csv(tmp_path / "none.csv", **COLUMNS)
    with pytest.raises(IsADirectoryError, match="path must be a file"):
        Panel.from_csv(tmp_path, **COLUMNS)
    with pytest.raises(FileNotFoundError, match="path must be an existing file"):
        Panel.from_parquet(tmp_path / "none.parquet", **COLUMNS)


@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
def test_the_separator_is_found_or_given(tmp_path, sep):
    header = sep.join(["tract", "year", "deaths", '"a,b;c|d"'])
    path = write(tmp_path, f"{header}\n" + sep.join("a121") + "\n")
    assert Panel.from_csv(path, **COLUMNS).y.tolist() == [[2.0]]
    assert Panel.from_csv(path, sep=sep, **COLUMNS).feature_names == ["a,b;c|d"]
    other = "," if sep != "," else ";"
    with pytest.raises(ValueError, match="site must be one of the columns|another separator"):
        Panel.from_csv(path, sep=other, **COLUMNS)
    with pytest.raises(ValueError, match="sep must be one character, got ',,'"):
        Panel.from_csv(path, sep=",,", **COLUMNS)


def test_a_comma_before_decimals(tmp_path):
    path = write(tmp_path, "tract;year;deaths;u\na;1;2;0,5\nb;1;3;1,5\n")
    with pytest.warns(UserWarning, match='left out the columns.*decimal=","'):
        assert Panel.from_csv(path, **COLUMNS).feature_names == []
    assert Panel.from_csv(path, decimal=",", **COLUMNS).x.flatten().tolist() == [0.5, 1.5]


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz", "zip"])
def test_compressed_files(tmp_path, ending):
    df = table()
    df.to_csv(tmp_path / f"t.csv.{ending}", index=False)
    assert_same(read(df), Panel.from_csv(tmp_path / f"t.csv.{ending}", **COLUMNS))
    whole = (tmp_path / f"t.csv.{ending}").read_bytes()
    (tmp_path / f"t.csv.{ending}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="path must be a (whole compressed|zip) file"):
        Panel.from_csv(tmp_path / f"t.csv.{ending}", **COLUMNS)


def test_a_zip_file_has_one_table(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("a.csv", "tract,year,deaths\na,1,2\n")
        archive.writestr("b.csv", "tract,year,deaths\na,1,2\n")
    with pytest.raises(ValueError, match="with one table, got 2 files"):
        Panel.from_csv(tmp_path / "t.zip", **COLUMNS)


def test_pipes_and_standard_input(tmp_path, monkeypatch):
    text = b"tract,year,deaths\na,1,2\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert Panel.from_csv("-", **COLUMNS).y.tolist() == [[2.0]]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(ValueError, match="standard input must hold a table, got nothing"):
        Panel.from_csv("-", **COLUMNS)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(text))
    writer.start()
    assert Panel.from_csv(pipe, **COLUMNS).y.tolist() == [[2.0]]
    writer.join()


# ---- columns -------------------------------------------------------------------------------------


def test_absent_columns_name_the_nearest():
    with pytest.raises(ValueError, match=r"site must be one of the columns.*'tract'"):
        read(table(), site="Tracts")
    with pytest.raises(ValueError, match=r"features must be .*Did you mean 'income'"):
        read(table(), features=["Income "])
    with pytest.raises(TypeError, match="features must be a list"):
        read(table(), features="income")
    with pytest.raises(ValueError, match="must not hold the site, time, count or exp"):
        read(table(), features=["deaths"])
    with pytest.raises(ValueError, match="features must be distinct"):
        read(table(), features=["lag", "lag"])
    with pytest.raises(ValueError, match="must be different columns"):
        read(table(), time="tract")
    with pytest.raises(TypeError, match="df must be a pandas DataFrame"):
        read({"tract": [1]})


def test_repeated_header_with_the_same_values_is_dropped_with_a_note(tmp_path):
    path = write(tmp_path, "tract,year,u,year,deaths\na,1,5,1,2\nb,1,6,1.0,3\n")
    with pytest.warns(UserWarning, match=r"dropped the repeated column\(s\) \['year'\]"):
        assert Panel.from_csv(path, **COLUMNS).feature_names == ["u"]


def test_repeated_header_with_other_values_is_an_error(tmp_path):
    path = write(tmp_path, "tract,year,u,u,deaths\na,1,5,5,2\nb,1,6,7,3\n")
    with pytest.raises(ValueError, match=r"distinct columns, got 'u' twice .*6.*7"):
        Panel.from_csv(path, **COLUMNS)


def test_frame_in_which_pandas_renamed_the_repeat(tmp_path):
    path = write(tmp_path, "tract,year,u,year,deaths\na,1,5,1,2\n")
    with pytest.warns(UserWarning, match=r"year\.1"):
        assert read(pd.read_csv(path)).feature_names == ["u"]
    path = write(tmp_path, "tract,year,u,u.1,deaths\na,1,5,6,2\n")
    assert read(pd.read_csv(path)).feature_names == ["u", "u.1"]


def test_columns_without_a_header_are_no_features(tmp_path):
    df = table()
    df.to_csv(tmp_path / "t.csv")  # with the row index as a nameless first column
    with pytest.warns(UserWarning, match=r"dropped 1 column\(s\) without a header"):
        assert_same(read(df), Panel.from_csv(tmp_path / "t.csv", **COLUMNS))
    with pytest.warns(UserWarning, match=r"without a header, \['Unnamed: 0'\]"):
        assert_same(read(df), read(pd.read_csv(tmp_path / "t.csv", dtype={"tract": str})))


def test_text_columns_are_left_out_with_a_note(tmp_path):
    path = write(tmp_path, "tract,year,deaths,name,u\na,1,2,Loop,1\nb,1,2,Pilsen,2\n")
    with pytest.warns(UserWarning, match=r"left out the columns \['name'\].*'Loop' at line 2"):
        assert Panel.from_csv(path, **COLUMNS).feature_names == ["u"]


def test_a_bad_cell_in_a_feature_is_located(tmp_path):
    path = write(tmp_path, "tract,year,deaths,u\na,1,2,1.5\nb,1,2,n/a?\n")
    with pytest.warns(UserWarning, match="'n/a\\?' at line 3"):
        assert Panel.from_csv(path, **COLUMNS).feature_names == []
    with pytest.raises(ValueError, match=r"features 'u' must be numeric, got 'n/a\?' at line 3"):
        Panel.from_csv(path, features=["u"], **COLUMNS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_features_must_be_finite(value):
    df = table().astype({"income": float})
    df.loc[5, "income"] = value
    with pytest.raises(ValueError, match=r"features 'income' must be finite .* at row 5"):
        read(df)


def test_dates_are_no_features():
    df = table().assign(day=pd.Timestamp("2020-01-01"))
    with pytest.raises(ValueError, match="features 'day' must be numeric"):
        read(df, features=["day"])


def test_no_features_and_flags():
    assert read(table(), features=[]).num_features == 0
    assert read(table().assign(flag=True), features=["flag"]).x.unique().tolist() == [1.0]


# ---- counts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-1, 0.5, np.nan, np.inf, 2.0**24 + 2, "x"])
def test_odd_counts_are_located(value):
    df = table()
    df["deaths"] = df["deaths"].astype(object)
    df.loc[7, "deaths"] = value
    with pytest.raises(ValueError, match=r"from_frame: count 'deaths' must .* at row 7 \(1 such"):
        read(df)


def test_counts_written_as_text_or_whole_floats_are_read():
    df = table()
    assert_same(read(df), read(df.assign(deaths=df["deaths"].astype(str))))
    assert_same(read(df), read(df.assign(deaths=df["deaths"].astype(float))))
    assert_same(read(df), read(df.assign(deaths=df["deaths"].astype("Int64"))))


def test_last_periods_may_lack_counts_if_asked_for():
    df = table()
    df["deaths"] = df["deaths"].where(df["year"] < 2020)
    with pytest.raises(ValueError, match='counts="optional"'):
        read(df)
    panel = read(df, counts="optional")
    assert panel.has_counts.tolist() == [True, True, False, False]
    assert "no counts in the last 2" in repr(panel)
    df.loc[(df["year"] == 2020) & (df["tract"] == "00001"), "deaths"] = 4
    with pytest.raises(ValueError, match=r"whole periods at the end only.*'00000'.*2020"):
        read(df, counts="optional")


def test_a_table_without_counts():
    df = table().drop(columns="deaths")
    assert not read(df, count=None, counts="optional").has_counts.any()
    with pytest.raises(ValueError, match="count must name a column"):
        read(df, count=None)
    with pytest.raises(ValueError, match="count must be one of the columns"):
        read(df, counts="optional")


# ---- sites and times -----------------------------------------------------------------------------


def test_absent_site_periods():
    df = table().drop(index=4)  # site 00001 in 2019
    with pytest.raises(ValueError, match=r"1 missing of 12, .*'00001' at time 2019"):
        read(df)
    panel, whole = read(df, missing="zero"), read(table())
    assert panel.y[1, 1] == 0
    assert torch.equal(panel.x[1, 1], whole.x[0, 1])  # from the period before
    mask = torch.ones(4, 3, dtype=torch.bool)
    mask[1, 1] = False
    assert torch.equal(panel.y[mask], whole.y[mask])
    assert torch.equal(panel.x[mask], whole.x[mask])
    first = read(table().drop(index=1), missing="zero")
    assert torch.equal(first.x[0, 1], whole.x[1, 1])  # no earlier one: from the next


def test_absent_rows_of_a_period_to_predict_are_no_zeros():
    df = table()
    df["deaths"] = df["deaths"].where(df["year"] < 2021)
    panel = read(df.drop(index=[4, 10]), missing="zero", counts="optional")
    assert panel.y[1, 1] == 0
    assert panel.y[3].isnan().all()


def test_repeated_site_periods():
    df = table()
    df = pd.concat([df, df.iloc[[5]].assign(deaths=10, income=9.0)], ignore_index=True)
    with pytest.raises(ValueError, match=r"'00002' at time 2019 \(row 5 and row 12\)"):
        read(df)
    panel = read(df, duplicates="sum")
    assert panel.y[1, 2] == df.loc[5, "deaths"] + 10
    assert panel.x[1, 2, 0] == pytest.approx((df.loc[5, "income"] + 9) / 2)


@pytest.mark.parametrize("bad", ["", "  ", None, np.nan])
def test_site_ids_must_be_there(bad):
    df = table()
    df.loc[2, "tract"] = bad
    with pytest.raises(ValueError, match=r"site 'tract' must .* at row 2"):
        read(df)


def test_ids_that_differ_in_white_space_only():
    df = table()
    df.loc[6, "tract"] = "00000 "
    with pytest.raises(ValueError, match=r"more than white space.*'00000' and '00000 '.*row 6"):
        read(df)


def test_fractional_ids():
    with pytest.raises(ValueError, match=r"strings or whole numbers, got 1.5 at row 1"):
        read(pd.DataFrame({"tract": [1.0, 1.5], "year": 1, "deaths": 0}))


def test_unsorted_times_are_put_in_order_by_value():
    df = pd.DataFrame({"tract": "a", "year": ["10", "9", "11"], "deaths": [10, 9, 11]})
    panel = read(df)
    assert panel.times == ["9", "10", "11"]
    assert panel.y.ravel().tolist() == [9, 10, 11]
    assert panel.time_values.tolist() == [9, 10, 11]


def test_dates():
    texts = ["2021-01", "2021-02", "2021-03"]
    days = [(datetime.date(2021, m, 1) - datetime.date(1970, 1, 1)).days for m in (1, 2, 3)]
    for times in (texts, pd.to_datetime(texts), [datetime.date(2021, m, 1) for m in (1, 2, 3)]):
        panel = read(pd.DataFrame({"tract": "a", "year": times, "deaths": [1, 2, 3]}))
        assert panel.time_values.tolist() == days
        assert panel.time_values.dtype == torch.float64
        assert panel.times == list(times)
        for wanted in ("2021-02", datetime.date(2021, 2, 1), pd.Timestamp("2021-02-01")):
            assert panel.select_times(wanted).y.tolist() == [[2.0]]
    quarters = pd.period_range("2021Q1", periods=3, freq="Q")
    panel = read(pd.DataFrame({"tract": "a", "year": quarters, "deaths": 1}))
    assert np.diff(panel.time_values).tolist() == [90, 91]


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([2019, None], "no missing values, got one at row 1"),
        (["2019", "soon"], "numbers, dates or date strings such as '2021-03', got 'soon' at row 1"),
        (["2021-01", "2021-1"], "write each time one way"),
        ([2019, np.inf], "must be finite"),
        ([2019, datetime.date(2020, 1, 1)], "all numbers or all dates"),
    ],
)
def test_times_that_cannot_be_ordered(times, message):
    df = pd.DataFrame({"tract": "a", "year": pd.Series(times, dtype=object), "deaths": 1})
    with pytest.raises(ValueError, match=re.escape(message)):
        read(df)


def test_gaps_in_whole_numbered_times_are_noted():
    df = table()
    with pytest.warns(UserWarning, match="2019 has no row; its counts are not known, not zero"):
        panel = read(df[df["year"] != 2019])
    assert panel.timeline_times.tolist() == [2018, 2019, 2020, 2021]
    assert panel.rows.tolist() == [0, 2, 3]
    assert panel.timeline.isnan().all(dim=1).tolist() == [False, True, False, False]
    assert "1 periods without rows" in repr(panel)
    # No option fills it: not that for site-periods without a row, and not that for absent lags.
    with pytest.warns(UserWarning, match="2019 has no row"):
        zero = read(df[df["year"] != 2019], missing="zero")
    assert zero.timeline[1].isnan().all()
    assert zero.known_lags(1).tolist() == [False, False, True]
    with pytest.raises(ValueError, match="count of 2019 is not known"):
        zero.batch(1, absent_lags="zero")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(df)


ODD = st.one_of(
    st.integers(-2, 4),
    st.floats(allow_nan=True),
    st.text(max_size=3),
    st.none(),
    st.booleans(),
    st.dates(),
    st.binary(max_size=2),
    st.tuples(st.integers(0, 1)),
    st.just(pd.NaT),
    st.just(pd.NA),
    st.complex_numbers(),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(ODD, ODD, ODD, ODD), max_size=5),
    st.sampled_from(["error", "zero"]),
    st.sampled_from(["error", "sum"]),
    st.sampled_from(["required", "optional"]),
)
def test_anything_is_read_rightly_or_refused_in_words(rows, missing, duplicates, counts):
    df = pd.DataFrame(rows, columns=["tract", "year", "deaths", "u"], dtype=object)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            options = {"missing": missing, "duplicates": duplicates, "counts": counts}
            panel = read(df, features=["u"], **options)
    except (ValueError, TypeError) as error:
        assert str(error).startswith("Panel.from_frame: ")
        return
    assert torch.isfinite(panel.x).all()
    known = panel.y[panel.has_counts]
    assert (known == known.floor()).all()
    assert known.sum() == pd.to_numeric(df["deaths"].dropna()).sum()


def test_options_are_checked():
    for option in ("missing", "duplicates", "counts"):
        with pytest.raises(ValueError, match=f"{option} must be one of"):
            read(table(), **{option: "ignore"})


# ---- the constructor -----------------------------------------------------------------------------

GOOD = {
    "x": torch.zeros(2, 3, 1),
    "y": torch.ones(2, 3),
    "site_ids": ["a", "b", "c"],
    "times": [1, 2],
    "feature_names": ["u"],
}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(2, 3)}, ValueError, "x must have shape [T, S, P], got [2, 3]"),
        ({"y": torch.zeros(3, 2)}, ValueError, "y must have shape [T, S] = [2, 3], got [3, 2]"),
        ({"y": "counts"}, TypeError, "y must be a tensor or array of numbers"),
        ({"site_ids": ["a", "b"]}, ValueError, "site_ids must have 3 entries"),
        ({"site_ids": ["a", "b", "a"]}, ValueError, "site_ids must be distinct, got 'a'"),
        ({"site_ids": ["a", "b", 3]}, TypeError, "site_ids must be strings, got 3"),
        ({"times": [2, 1]}, ValueError, "times must ascend, got 1 after 2"),
        ({"times": [1, object]}, TypeError, "times must hold numbers, dates"),
        ({"feature_names": []}, ValueError, "feature_names must have 1 entries"),
        ({"x": torch.full((2, 3, 1), torch.nan)}, ValueError, "x must be finite, got nan"),
        ({"y": -torch.ones(2, 3)}, ValueError, "y must hold whole numbers from 0"),
        ({"y": torch.full((2, 3), torch.nan)}, ValueError, 'counts="optional"'),
        ({"history_y": torch.zeros(2, 2)}, ValueError, "history_y must have shape [H, 3]"),
        ({"history_y": -torch.ones(2, 3)}, ValueError, "history_y must hold whole numbers"),
        ({"counts": "maybe"}, ValueError, "counts must be one of"),
        (
            {"x": torch.zeros(0, 3, 1), "y": torch.zeros(0, 3), "times": []},
            ValueError,
            "at least one period",
        ),
    ],
)
def test_constructor_errors(change, error, message):
    with pytest.raises(error, match=re.escape(message)):
        Panel(**(GOOD | change))


def test_arrays_and_scalars_of_other_kinds():
    panel = Panel(
        np.zeros((2, 3, 1), dtype=np.int32),
        np.ones((2, 3), dtype=np.float64),
        ["a", "b", "c"],
        np.array([2019, 2020]),
        ["u"],
        source="a test",
    )
    assert panel.times == [2019, 2020]
    assert all(type(t) is int for t in panel.times)
    assert "2 times (2019 to 2020), 3 sites, 1 features, 6 events" in repr(panel)
    assert "source: a test" in repr(panel)


# ---- cutting by time -----------------------------------------------------------------------------


def test_split_parts_and_their_history():
    panel = read(table(num_times=6))
    train, valid, test = panel.split(valid=2021, test=[2022, 2023])
    assert (train.times, valid.times, test.times) == ([2018, 2019, 2020], [2021], [2022, 2023])
    assert train.history_y is None
    assert torch.equal(valid.history_y, panel.y[:3])
    assert torch.equal(test.history_y, panel.y[:4])
    assert torch.equal(torch.cat([train.y, valid.y, test.y]), panel.y)
    assert torch.equal(torch.cat([train.x, valid.x, test.x]), panel.x)
    assert torch.equal(test.time_values, panel.time_values[4:])
    assert panel.split(test=2023).valid is None
    assert panel.split(valid=2023).test is None


@settings(max_examples=50, deadline=None)
@given(st.integers(3, 8), st.integers(1, 10), st.data())
def test_windows_are_the_counts_before(num_times, window, data):
    """history[t, s, w] = y at t − W + w, whatever the cut; before the first count it is not
    known."""
    panel = read(table(num_times=num_times, seed=num_times))
    chosen = data.draw(st.sets(st.sampled_from(panel.times), min_size=1))
    part = panel.select_times(chosen)
    history = part.batch(window=window, absent_lags="nan").history
    assert history.shape == (len(chosen), panel.num_sites, window)
    assert part.known_lags(window).tolist() == (~history.isnan()).all(2).all(1).tolist()
    for i, period in enumerate(sorted(chosen)):
        for w in range(window):
            t = panel.times.index(period) - window + w
            if t >= 0:
                assert torch.equal(history[i, :, w], panel.y[t])
            else:
                assert history[i, :, w].isnan().all()
    zero = part.batch(window=window, absent_lags="zero").history
    other = Panel(
        panel.x, panel.y, panel.site_ids, panel.times, panel.feature_names, absent_lags="zero"
    ).select_times(chosen)
    assert other.known_lags(window).all()
    assert torch.equal(other.batch(window, absent_lags="nan").history, zero)
    assert torch.equal(zero, history.nan_to_num(0))
    if part.known_lags(window).all():
        assert torch.equal(part.batch(window=window).history, history)
    else:
        with pytest.raises(ValueError, match=r"is not known\..*absent_lags=\"zero\""):
            part.batch(window=window)


def test_no_part_knows_later_counts():
    panel = read(table(num_times=6))
    later = panel.select_times([2018, 2019, 2020, 2021, 2022, 2023])
    later.y[4:] = 99
    part = panel.select_times([2019, 2021])
    assert len(part.timeline) == 4
    assert part.select_times(2019).timeline.shape[0] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "valid or test must be given"),
        ({"valid": 2030}, "valid must be among the panel's times, got 2030"),
        ({"valid": 2020, "test": 2019}, "test must come after valid"),
        ({"valid": 2018}, "valid must leave earlier periods"),
        ({"test": []}, "test must hold at least one time"),
        ({"test": [2019, 2019]}, "test must be distinct"),
    ],
)
def test_split_errors(options, message):
    with pytest.raises(ValueError, match=message):
        read(table()).split(**options)


def test_history_given_and_joined():
    panel = Panel(**GOOD, history_y=[[5, 6, 7]])
    assert panel.timeline_times.tolist() == [0, 1, 2]
    early = panel.batch(window=2, absent_lags="zero").history
    assert early[0].tolist() == [[0, 5], [0, 6], [0, 7]]
    assert panel.batch(window=1).history[0].tolist() == [[5], [6], [7]]
    with pytest.warns(UserWarning, match="0, -1, -2|-2, -1, 0"):
        far = Panel(**GOOD, history_y=[[5, 6, 7]], history_times=[-3])
    assert far.timeline_times.tolist() == [-3, -2, -1, 0, 1, 2]
    for times, message in (([1], "end before 1"), ([0, 0], "2|have 1 entries"), ([0.5], "history")):
        with pytest.raises(ValueError, match=message):
            Panel(**GOOD, history_y=[[5, 6, 7]], history_times=times)
    whole = read(table(num_times=6))
    early, late = whole.select_times([2018, 2019, 2020]), read(table(num_times=6).iloc[9:])
    joined = late.with_history(early)
    assert torch.equal(joined.batch(3).history, whole.batch(3, absent_lags="zero").history[3:])
    with pytest.raises(ValueError, match="earlier must end before 2021"):
        late.with_history(whole)
    with pytest.raises(ValueError, match="earlier must have the same sites"):
        late.with_history(Panel(**GOOD))


def test_batch():
    panel = Panel(**GOOD)
    x, y, time, history, weights, exposure, y_upper, is_open = panel.batch()
    assert x is panel.x
    assert y is panel.y
    assert time.tolist() == [1, 2]
    assert time.dtype == torch.float32
    assert history is None
    assert weights is None
    assert is_open is None
    assert panel.batch(weights=[1, 2]).weights.tolist() == [1, 2]
    assert panel.batch(weights=lambda t: 0.5 ** (2 - t)).weights.tolist() == [0.5, 1.0]
    for bad in ([1], [1, -1], [1, np.nan]):
        with pytest.raises(ValueError, match="weights must be 2 finite numbers"):
            panel.batch(weights=bad)
    for bad in (-1, 1.5, True):
        with pytest.raises(ValueError, match="window must be a whole number"):
            panel.batch(window=bad)


def test_windows_do_not_reach_over_unknown_counts():
    panel = Panel(**(GOOD | {"y": torch.full((2, 3), torch.nan)}), counts="optional")
    assert panel.select_times(1).batch(1, absent_lags="zero").history.eq(0).all()
    with pytest.raises(ValueError, match="window must reach back over periods with counts"):
        panel.batch(window=1)


# ---- a model's sites and features ----------------------------------------------------------------


def test_align_reorders():
    panel = read(table(), features=["income", "lag"]).split(test=2021).test
    order = ["00002", "00000", "00001"]
    other = panel.align(site_ids=order, feature_names=["lag"])
    assert (other.site_ids, other.feature_names) == (order, ["lag"])
    for new, site in enumerate(order):
        old = panel.site_ids.index(site)
        assert torch.equal(other.y[:, new], panel.y[:, old])
        assert torch.equal(other.x[:, new, 0], panel.x[:, old, 1])
        assert torch.equal(other.history_y[:, new], panel.history_y[:, old])
    assert_same(panel.align(), panel)


def test_align_errors():
    panel = read(table())
    with pytest.raises(ValueError, match=r"1 site\(s\) that it lacks: '00004'.* nearest"):
        panel.align(site_ids=["00000", "00001", "00002", "00004"])
    with pytest.raises(ValueError, match=r"1 unknown site\(s\) in the panel: '00002'"):
        panel.align(site_ids=["00000", "00001"])
    with pytest.raises(ValueError, match="must be distinct"):
        panel.align(site_ids=["00000", "00001", "00002", "00002"])
    with pytest.raises(ValueError, match=r"feature\(s\) that it lacks: 'incomes'.*'income'"):
        panel.align(feature_names=["incomes"])


def test_moving_and_replacing_features():
    panel = Panel(**GOOD)
    assert panel.to("cpu").device == torch.device("cpu")
    meta = panel.to("meta")
    assert meta.x.is_meta
    assert meta.y.is_meta
    with pytest.raises(ValueError, match="x must have shape"):
        panel.with_features(torch.zeros(2, 3, 2), ["u"])
    with pytest.raises(ValueError, match="no feature names"):
        panel.to_frame(site="u")


# ---- exposure and suppressed counts --------------------------------------------------------------

SUPPRESSED = {"1-9": (1, 9), "1–4": (1, 4), "*": (0, 9)}


def suppressed_table():
    df = table(num_sites=4, num_times=3).drop(columns="lag")
    df["deaths"] = [12, "1-9", "1–4", 0, "*", 7.0, "3", 5, " 1-9 ", 40, 41, 42]
    df["people"] = np.tile([1000.5, 20, 3e6, 1], 3)
    return df


def with_all(**options):
    return read(suppressed_table(), exposure="people", suppressed=SUPPRESSED, **options)


def assert_same_intervals(a, b):
    assert_same(a, b)
    assert torch.equal(a.y_upper, b.y_upper) and torch.equal(a.exposure, b.exposure)


def test_suppressed_cells_are_intervals_and_the_exposure_is_no_feature():
    panel = with_all()
    assert panel.feature_names == ["income"]
    assert panel.y.tolist() == [[12, 1, 1, 0], [0, 7, 3, 5], [1, 40, 41, 42]]
    assert panel.y_upper.tolist() == [[12, 9, 4, 0], [9, 7, 3, 5], [9, 40, 41, 42]]
    assert panel.exposure.dtype == torch.float32
    assert panel.exposure[2].tolist() == [1000.5, 20, 3e6, 1]
    assert "153 to 181 events (4 counts suppressed)" in repr(panel)
    assert "exposure 1 to 3e+06" in repr(panel)
    for kind in ("category", "string"):
        df = suppressed_table()
        df["deaths"] = df["deaths"].map(str).astype(kind)
        assert_same_intervals(panel, read(df, exposure="people", suppressed=SUPPRESSED))
    exact = read(table(), suppressed=SUPPRESSED)
    assert exact.y_upper is None and exact.exposure is None


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_intervals_and_exposure_round_trip_through_files(tmp_path, kind):
    panel, columns = with_all(), COLUMNS | {"exposure": "people"}
    path, frame = tmp_path / f"t.{kind}", panel.to_frame(**columns)
    assert frame["deaths"].tolist()[:4] == [12, "1-9", "1-4", 0]
    if kind == "csv":
        frame.to_csv(path, index=False)
        reader = Panel.from_csv
    else:
        pytest.importorskip("pyarrow")
        frame.assign(deaths=frame["deaths"].astype(str)).to_parquet(path)
        reader = Panel.from_parquet
    spans = {"1-9": (1, 9), "1-4": (1, 4), "0-9": (0, 9)}
    assert_same_intervals(panel, reader(path, **columns, suppressed=spans))
    with pytest.raises(ValueError, match=r"got '1-9' at .*suppressed=\{'1-9': \(1, 9\)\}"):
        reader(path, **columns)


def test_cells_that_are_numbers_can_stand_for_suppressed_counts():
    df = table(1, 3).assign(deaths=[-1, 9999, 4])
    panel = read(df, suppressed={"-1": (1, 9), "9999": (0, 2)})
    assert panel.y.flatten().tolist() == [1, 0, 4]
    assert panel.y_upper.flatten().tolist() == [9, 2, 4]


def test_repeated_rows_add_their_bounds_and_share_their_exposure():
    df = suppressed_table()
    twice = pd.concat([df, df])
    panel = read(twice, exposure="people", suppressed=SUPPRESSED, duplicates="sum")
    one = with_all()
    assert torch.equal(panel.y, 2 * one.y) and torch.equal(panel.y_upper, 2 * one.y_upper)
    assert torch.equal(panel.exposure, one.exposure)
    twice = pd.concat([df, df.assign(people=2.0)])
    with pytest.raises(
        ValueError, match="exposure 'people' must be the same in all rows of a site"
    ):
        read(twice, exposure="people", suppressed=SUPPRESSED, duplicates="sum")


def test_absent_rows_take_the_nearest_exposure():
    df = suppressed_table()
    df["people"] = np.arange(12) + 1.0
    panel = read(
        df.drop(index=[0, 5, 10]), exposure="people", suppressed=SUPPRESSED, missing="zero"
    )
    # Site 0 takes that of the next year, sites 1 and 2 that of the year before.
    assert panel.exposure.tolist() == [[5, 2, 3, 4], [5, 2, 7, 8], [9, 10, 7, 12]]
    assert panel.y[0, 0] == panel.y_upper[0, 0] == 0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            0,
            r"exposure 'people' must be finite and > 0 .* got 0 at row 5 \(1 such rows\)\. Fill in",
        ),
        (-3, "got -3 at row 5"),
        (np.nan, "got nan at row 5"),
        (np.inf, "got inf at row 5"),
        (1e-60, "got 1e-60 at row 5"),
        ("many", "exposure 'people' must be numeric, got 'many' at row 5"),
    ],
)
def test_bad_exposure_in_a_table(value, message):
    df = suppressed_table()
    df["people"] = df["people"].astype(object)
    df.loc[5, "people"] = value
    with pytest.raises(ValueError, match=message):
        read(df, exposure="people", suppressed=SUPPRESSED)


def test_bad_words_for_suppressed_counts():
    df = suppressed_table()
    with pytest.raises(ValueError, match=r"got '\*' at row 4 .*suppressed=\{'\*': \(least, most\)"):
        read(df, suppressed={"1-9": (1, 9), "1–4": (1, 4)})
    with pytest.raises(
        TypeError, match=r"suppressed must be a mapping such as \{'1-9': \(1, 9\)\}"
    ):
        read(df, suppressed=(1, 9))
    for ends in ((9, 1), (-1, 3), (1.0, 9), (1,), "19", (True, 3), (1, 2**24 + 1)):
        with pytest.raises(ValueError, match=r"suppressed must give \(least, most\)"):
            Panel.from_csv(  # before a large file is read
                "no such file.csv", site="a", time="b", count="c", suppressed={"<5": ends}
            )
        with pytest.raises(ValueError, match=r"suppressed must give \(least, most\)"):
            read(df, suppressed={"*": ends})
    for text in ("NA", " ", 7.5):
        with pytest.raises(ValueError, match="suppressed must have texts as keys"):
            read(df, suppressed={text: (1, 9)})
    with pytest.raises(ValueError, match="exposure must be one of the columns.*'people'"):
        read(df, exposure="People", suppressed=SUPPRESSED)
    with pytest.raises(ValueError, match="must be different columns"):
        read(df, exposure="deaths", suppressed=SUPPRESSED)
    with pytest.raises(ValueError, match="features must not hold .* exposure column"):
        read(df, exposure="people", features=["people"], suppressed=SUPPRESSED)


def test_parts_of_a_panel_keep_exposure_and_intervals():
    panel = with_all()
    train, valid, test = panel.split(valid=2019, test=2020)
    assert train.y_upper.tolist() == [[12, 9, 4, 0]] and valid.y_upper.tolist() == [[9, 7, 3, 5]]
    assert torch.equal(test.exposure, panel.exposure[2:]) and test.y_upper[0, 0] == 9
    order = ["00002", "00000", "00003", "00001"]
    mixed = panel.align(site_ids=order)
    assert mixed.y_upper[0].tolist() == [4, 12, 0, 9]
    assert mixed.exposure[0].tolist() == [3e6, 1000.5, 1, 20]
    for other in (
        panel.to("cpu"),
        pickle.loads(pickle.dumps(panel)),
        copy.deepcopy(panel),
        panel.with_features(panel.x, panel.feature_names),
        mixed.align(site_ids=panel.site_ids),
    ):
        assert_same_intervals(panel, other)
    assert torch.equal(panel.batch().exposure, panel.exposure)
    assert torch.equal(panel.batch().y_upper, panel.y_upper)
    # Periods whose counts are all exact are as if there were no intervals.
    assert panel.select_times(2019).align(site_ids=panel.site_ids).y_upper is not None
    whole = Panel(**GOOD, y_upper=[[1, 1, 1], [1, 5, 1]])
    assert whole.select_times(1).y_upper is None
    assert whole.select_times(1).batch(1, absent_lags="zero").history.eq(0).all()


def test_what_needs_exact_counts_refuses_intervals():
    from topreach.evaluation import baselines
    from topreach.models import site_history as features

    panel = Panel(**GOOD, y_upper=[[1, 5, 1], [1, 1, 1]], exposure=torch.ones(2, 3))
    late = panel.select_times(2)
    assert late.y_upper is None and late.history_y.tolist() == [[1, 1, 1]]
    for made in (
        lambda p: p.batch(1),
        baselines.last_period,
        baselines.historical_mean,
        features.SiteHistory().fit,
    ):
        with pytest.raises(ValueError, match=r"got 1 that are only known .*panel\.at_bound"):
            made(late)
        made(late.at_bound("lower"))
    assert late.batch().y_upper is None
    assert baselines.last_period(late.at_bound("upper")).tolist() == [[1, 5, 1]]
    assert panel.at_bound("upper").y.tolist() == [[1, 5, 1], [1, 1, 1]]
    assert torch.equal(panel.at_bound("lower").y, panel.y)
    assert torch.equal(panel.at_bound("lower").exposure, panel.exposure)
    assert Panel(**GOOD).at_bound("upper").y is not None
    with pytest.raises(ValueError, match="bound must be one of 'lower', 'upper', got 'middle'"):
        panel.at_bound("middle")
    # Joined history keeps its intervals.
    after = Panel(**(GOOD | {"times": [3, 4]}))
    joined = after.with_history(panel)
    assert joined.y_upper is None and joined.at_bound("upper").history_y[0, 1] == 5
    with pytest.raises(ValueError, match="got 1 that are only known"):
        joined.batch(window=2)


def test_periods_to_come_have_exposure_and_no_bounds():
    y, upper = torch.ones(2, 3), torch.full((2, 3), 4.0)
    y[1] = upper[1] = torch.nan
    panel = Panel(**(GOOD | {"y": y}), y_upper=upper, exposure=torch.ones(2, 3), counts="optional")
    assert panel.select_times(2).y_upper is None and panel.has_counts.tolist() == [True, False]
    df = suppressed_table().astype({"deaths": object})
    df.loc[df["year"] == 2020, "deaths"] = np.nan
    future = read(df, exposure="people", suppressed=SUPPRESSED, counts="optional")
    assert future.exposure[2, 1] == 20 and torch.isnan(future.y_upper[2]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exposure": torch.ones(3)}, "exposure must have shape [T, S] = [2, 3], got [3]"),
        ({"exposure": [[1, 1, 1], [1, 0, 1]]}, "got 0 for site 'b' at time 2"),
        ({"exposure": [[1, np.nan, 1]] * 2}, "got nan for site 'b' at time 1"),
        ({"exposure": [[1, np.inf, 1]] * 2}, "got inf for site 'b'"),
        ({"y_upper": torch.ones(2, 2)}, "y_upper must have shape [T, S] = [2, 3], got [2, 2]"),
        ({"y_upper": torch.zeros(2, 3)}, "got 0 with y = 1 for site 'a' at time 1"),
        ({"y_upper": torch.full((2, 3), 1.5)}, "y_upper must hold whole numbers from y"),
        ({"y_upper": torch.full((2, 3), torch.nan)}, "got nan with y = 1"),
        ({"y_upper": torch.full((2, 3), 2.0**25)}, "from y to 16777216"),
    ],
)
def test_bad_exposure_and_bounds(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Panel(**GOOD, **change)


def test_pickle_and_copy():
    panel = read(table()).split(test=2021).test
    for other in (pickle.loads(pickle.dumps(panel)), copy.deepcopy(panel)):
        assert_same(panel, other)
        assert torch.equal(panel.history_y, other.history_y)


def test_examples_in_the_docstrings():
    assert doctest.testmod(topreach.data.panel).failed == 0


# ---- size ----------------------------------------------------------------------------------------


def test_half_a_million_rows_are_read_without_a_python_loop(monkeypatch):
    """Python functions that are called for rows or cells are called for distinct values only."""
    num_sites, num_times = 10_000, 50
    df = pd.DataFrame(
        {
            "tract": np.tile(np.arange(num_sites), num_times).astype(str),
            "year": np.repeat(np.arange(num_times), num_sites),
            "deaths": np.random.default_rng(0).poisson(1.0, num_sites * num_times).astype(str),
            "u": 1.0,
        }
    ).sample(frac=1, random_state=0)
    calls = 0
    plain = topreach.data.times.plain

    def counted(value):
        nonlocal calls
        calls += 1
        return plain(value)

    for module in (topreach.data.columns, topreach.data.times, topreach.data.reader):
        monkeypatch.setattr(module, "plain", counted)
    assert read(df, suppressed={"*": (1, 9)}).num_sites == num_sites
    assert calls < 1000
