"""TableSpec, and warnings about tables: sites that change, columns that leak, two wordings."""

import doctest
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import topreach.data.messages
import topreach.data.table
from topreach.data import Panel, TableSpec, wording

COLUMNS = {"site": "id", "time": "q", "count": "n"}
QUARTERS = [f"{2012 + t // 4}Q{t % 4 + 1}" for t in range(8)]


def table(seed=0, sites=40):
    rng = np.random.default_rng(seed)
    df = pd.DataFrame(
        [(f"s{s:02d}", q) for q in QUARTERS for s in range(sites)], columns=["id", "q"]
    )
    return df.assign(n=rng.poisson(6, len(df)), u=rng.normal(size=len(df)))


def warned(df, **options):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        panel = Panel.from_frame(df, **(COLUMNS | options))
    return panel, [str(w.message) for w in seen]


# ---- one object ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_a_spec_reads_frames_and_files_alike(tmp_path, ending):
    df = table().assign(n=lambda d: d["n"].where(d["n"] > 2, -1))
    spec = TableSpec(**COLUMNS, features=["u"], suppressed={"-1": (np.int64(0), 2)})
    path = tmp_path / f"t.{ending}"
    if ending == "parquet":
        pytest.importorskip("pyarrow")
        df.to_parquet(path)
    else:
        df.to_csv(path, index=False, sep=";")
    one, other = spec.read(df), spec.read(path)
    assert torch.equal(one.y, other.y) and torch.equal(one.y_upper, other.y_upper)
    assert torch.equal(one.x, other.x) and one.times == other.times == QUARTERS
    assert spec.header(path) == spec.header(df) == ["id", "q", "n", "u"]
    again = TableSpec.from_dict(spec.to_dict())
    assert again == spec
    assert spec.to_dict() == {
        "site": "id", "time": "q", "count": "n", "features": ["u"], "suppressed": {"-1": [0, 2]}
    }  # fmt: skip
    # A table of periods to come need not have the count.
    future = spec.read(df.drop(columns="n"), counts="optional", calendar=one.calendar)
    assert not future.has_counts.any() and future.calendar == one.calendar


def test_bad_specs():
    with pytest.raises(ValueError, match="TableSpec.from_dict: state must have site and time"):
        TableSpec.from_dict({"site": "id"})
    with pytest.raises(ValueError, match="no other fields"):
        TableSpec.from_dict({"site": "id", "time": "q", "colour": "red"})
    with pytest.raises(ValueError, match=r"suppressed must give \(least, most\)"):
        TableSpec(**COLUMNS, suppressed={"*": (True, 2)})


def test_blank_cells_can_be_suppressed_counts_and_still_be_yet_to_come(tmp_path):
    df = table().astype({"n": float})
    df.loc[3, "n"] = np.nan
    df.loc[df["q"] == QUARTERS[-1], "n"] = np.nan
    df.to_csv(tmp_path / "t.csv", index=False)
    for source in (df, tmp_path / "t.csv"):
        panel = TableSpec(**COLUMNS, suppressed={"": (1, 9)}).read(source, counts="optional")
        assert (panel.y[0, 3], panel.y_upper[0, 3]) == (1, 9)
        assert panel.has_counts.tolist() == [True] * 7 + [False]
        with pytest.raises(ValueError, match=r"got nan at .*suppressed=\{'': \(1, 9\)\}"):
            TableSpec(**COLUMNS).read(source)


# ---- sites that change ---------------------------------------------------------------------------


def test_opening_and_closing_times_leave_cells_unknown():
    df = table()
    df["from"] = np.where(df["id"] == "s03", "2012Q3", "")
    df["until"] = np.where(df["id"] == "s05", "2013Q1", None)
    df = df[~((df["id"] == "s05") & (df["q"] > "2013Q1"))]  # closed sites need no rows
    df.loc[(df["id"] == "s03") & (df["q"] < "2012Q3"), "n"] = 0  # and zeros are no counts there
    panel, _ = warned(df, opened="from", closed="until")
    missing = torch.zeros(8, 40, dtype=torch.bool)
    missing[:2, 3] = missing[5:, 5] = True
    assert torch.equal(panel.y.isnan(), missing)
    assert panel.has_counts.all()
    assert panel.opened.dtype == torch.float64 and panel.opened[3] == panel.calendar.parse("2012Q3")
    assert panel.closed[5] == panel.calendar.parse("2013Q1") and panel.closed[3].isnan()
    # A site that was not open had no events.
    assert panel.known_lags(2).tolist() == [False] * 2 + [True] * 6
    assert panel.select_times("2012Q3").batch(2).history[0, 3].tolist() == [0, 0]
    late = panel.align(site_ids=panel.site_ids[::-1]).select_times(["2013Q3"])
    assert late.closed[34] == panel.closed[5]
    assert torch.equal(late.batch().open, ~late.y.isnan()) and not late.batch().open[0, 34]
    frame = panel.to_frame(**COLUMNS)
    again, _ = warned(frame, opened="opened", closed="closed", features=panel.feature_names)
    assert torch.equal(again.y.nan_to_num(-1), panel.y.nan_to_num(-1))
    df.loc[(df["id"] == "s03") & (df["q"] == "2012Q1"), "n"] = 4
    with pytest.raises(ValueError, match="blank or 0 where a site is not open, got 4 at row 3 "):
        warned(df, opened="from", closed="until")
    df.loc[(df["id"] == "s03") & (df["q"] == "2012Q1"), "n"] = 0
    df.loc[(df["id"] == "s03") & (df["q"] == "2012Q4"), "from"] = "2012Q2"
    with pytest.raises(ValueError, match="must be one time per site"):
        warned(df, opened="from", closed="until")


def test_ids_that_may_be_one_site_are_named():
    names = [
        "HARTFORD",
        "Hartford",
        "New Haven",
        "NewHaven",
        "Peñón",
        "Penon",
        "0012",
        "12",
        "A1-11",
        "A11-1",
    ]
    df = table(sites=len(names))
    df["id"] = df["id"].map({f"s{i:02d}": name for i, name in enumerate(names)})
    _, notes = warned(df)
    found = next(n for n in notes if "case, accents" in n)
    for pair in ("'HARTFORD' and 'Hartford'", "'New Haven' and 'NewHaven'", "'0012' and '12'"):
        assert pair in found
    assert "Penon" in found and "A11-1" not in found
    assert not any("case" in n for n in warned(table())[1])


def test_a_site_that_ends_as_a_longer_id_begins_is_named():
    df = table()
    df["id"] = df["id"].replace({"s07": "75", "s08": "75A", "s09": "751"})
    df.loc[(df["id"] == "75") & (df["q"] >= "2013Q1"), "n"] = 0
    df.loc[df["id"].isin(["75A", "751"]) & (df["q"] < "2013Q1"), "n"] = 0
    _, notes = warned(df)
    assert any("some sites have ended: '75' (last in 2012Q4)" in n for n in notes)
    assert any("'75' ended when '75A' began (2013Q1)" in n and "751" not in n for n in notes)


def test_chance_zeros_are_no_ends():
    """Of 200 tables of 40 Poisson sites, at the level of 1e-4 each, hardly one has a warning."""
    ended = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        df = table(seed).assign(n=rng.poisson(rng.gamma(0.5, 2.0, 320)))
        ended += any("ended" in n for n in warned(df, features=[])[1])
    assert ended <= 1


def test_a_quarter_without_rows_stays_unknown():
    df = table()
    for missing in ("error", "zero"):
        panel, notes = warned(df[df["q"] != "2012Q3"], missing=missing)
        assert any("2012Q3 has no row; its counts are not known, not zero" in n for n in notes)
        assert panel.num_times == 7 and panel.timeline.shape[0] == 8
        assert panel.timeline[2].isnan().all()
        assert panel.known_lags(1).tolist() == [False, True, False, True, True, True, True]
    earlier, later = panel.select_times(["2012Q1", "2012Q2"]), panel.select_times("2013Q4")
    one = Panel(later.x, later.y, later.site_ids, later.times, later.feature_names)
    with pytest.warns(UserWarning, match="2012Q3, 2012Q4, 2013Q1, 2013Q2, 2013Q3 have no row"):
        assert one.with_history(earlier).timeline.shape[0] == 8


# ---- features ------------------------------------------------------------------------------------


def test_features_are_listed_and_leaks_named():
    df = table().assign(rate=lambda d: d["n"] / 3, people=1000.0)
    df["deaths_2012_2013"] = df.groupby("id")["n"].transform("sum")
    df["any"] = np.where(df["n"] > 5, df["n"] % 3 + 1, 0) + 0.5
    panel, notes = warned(df)
    assert panel.notes == [
        "Numeric columns that have no other role are read as features: u, rate, people, "
        "deaths_2012_2013, any."
    ]
    found = next(n for n in notes if "tell the count" in n)
    assert "'rate' goes with the count of its own period" in found
    assert "'deaths_2012_2013' goes with the site's total" in found
    assert "'u'" not in found and "'any'" not in found
    assert not any("tell" in n for n in warned(table())[1])
    sparse = table().assign(n=lambda d: d["n"] % 2 * d["n"], mark=lambda d: (d["n"] > 0) * 2.0)
    assert any("zero exactly where" in n for n in warned(sparse)[1])


# ---- two readers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "python", "cli"),
    [
        ({"n": "<5"}, "suppressed={'<5': (0, 4)}", "--suppressed '<5=0-4'"),
        ({"n": -1}, "suppressed={'-1': (1, 9)}", "--suppressed '-1=1-9'"),
        ({"q": "01/02/2021"}, 'time_format="%d/%m/%Y"', "--time-format '%d/%m/%Y'"),
        ({"id": "s00"}, 'duplicates="sum"', "--duplicates sum"),
        ({}, 'missing="zero"', "--missing zero"),
    ],
)
def test_advice_speaks_to_its_reader(change, python, cli):
    df = table().assign(**change)
    if not change:
        df = df.iloc[1:]
    for style, advice in (("python", python), ("cli", cli)):
        with wording(style), pytest.raises(ValueError) as caught:
            Panel.from_frame(df, **COLUMNS)
        assert advice in str(caught.value)
        assert ("Panel" in str(caught.value)) == (style == "python")
    with pytest.raises(ValueError, match="style must be"), wording("shouted"):
        pass


def test_frames_of_panels_without_features():
    df = table()[["id", "q", "n"]]
    panel, _ = warned(df)
    back = panel.to_frame(**COLUMNS)
    assert back.astype({"n": int}).equals(df.astype({"id": object, "q": object})) or (
        back["n"].tolist() == df["n"].tolist() and back["id"].tolist() == df["id"].tolist()
    )


def test_examples_in_the_docstrings():
    assert doctest.testmod(topreach.data.messages).failed == 0
