"""Loaders of public event tables: counts against plain counting, and pitfalls of the files."""

import csv
import math
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from topreach.data.datasets import (
    chicago_assault,
    cook_overdose_deaths,
    cook_overdose_events,
    ct_overdose,
    ct_overdose_deaths,
)

needs_data = pytest.mark.skipif(
    not os.environ.get("TOPREACH_DATA"), reason="needs real data: set TOPREACH_DATA to its folder"
)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def small(tmp_path):
    write(
        tmp_path / "ct_overdose_events/ct_events.csv",
        "date,town,opioid,any_opioid_raw\n2012-03-31,Ansonia,1,\n2012-04-01,Ansonia,0,\n"
        "2024-12-31,Bethany,1,Y\n2013-01-01,,1,Y\n",
    )
    write(
        tmp_path / "geo/ct_towns.csv",
        "town,geoid,lat,lon,population_acs2023\nAnsonia,0900901220,41.3,-73.1,100\n"
        "Bethany,0900904580,41.4,-73.0,200\n",
    )
    write(
        tmp_path / "cook_overdose_events/cook_events.csv",
        "date,lat,lon\n2014-09-30,41.8,-87.7\n2014-10-01,41.8,-87.7\n2015-01-01,41.8,-87.7\n"
        "2015-01-02,41.8,-87.7\n2015-01-03,,\n2015-02-01,41.9,-87.7\n2023-04-01,41.8,-87.7\n",
    )
    write(
        tmp_path / "chicago_assault/cells_150m.csv",
        "cell,lat,lon\n007,41.6,-87.6\n8,41.7,-87.6\n9,41.8,-87.6\n",
    )
    write(
        tmp_path / "chicago_assault/counts_monthly_150m.csv",
        "cell,month0,count\n007,0,2\n9,119,3\n",
    )
    return tmp_path


def test_connecticut(small):
    years = ct_overdose(root=small)
    assert years.times == list(range(2012, 2025)) and years.site_ids == ["Ansonia", "Bethany"]
    assert years.y.sum() == 3 and years.y[0].tolist() == [2, 0] and years.y[-1].tolist() == [0, 1]
    quarters = ct_overdose("quarter", root=small)
    assert quarters.times[:2] == ["2012-01-01", "2012-04-01"] and quarters.num_times == 52
    assert quarters.y[:2, 0].tolist() == [1, 1]
    assert ct_overdose(opioid=True, root=small).y[0].tolist() == [1, 0]
    assert years.x[0, :, 2].numpy() == pytest.approx(np.log([100, 200]))


def test_cook_events(small):
    panel = cook_overdose_events(root=small)
    assert panel.times[0] == "2014-10-01" and panel.times[-1] == "2023-01-01"
    assert panel.num_sites == 2 and panel.y[0].sum() == 1 and panel.y[1].sum() == 3
    assert panel.y.sum() == 4
    # A cell is a kilometre high: the centre is within half of one of the death.
    assert abs(panel.x[0, 0, 0].item() - 41.8) < 0.5 / 111
    assert cook_overdose_events(500.0, root=small).num_sites == 1


@pytest.fixture
def deaths(tmp_path):
    """Tables with the columns that events need: types, marks, districts."""
    write(
        tmp_path / "ct_overdose_events/ct_events.csv",
        "date,town,opioid,heroin,fentanyl,fent_analog,oxycodone,methadone,sex,age\n"
        "2012-03-31,Ansonia,1,1,1,0,0,0,M,30\n2012-04-01,Ansonia,0,0,0,0,0,0,F,40\n"
        "2024-12-31,Bethany,1,0,0,1,0,0,M,\n2013-01-01,,1,1,0,0,0,0,M,50\n"
        "2013-02-01,Avon,1,0,0,0,0,0,,60\n",
    )
    write(
        tmp_path / "geo/ct_towns.csv",
        "town,geoid,lat,lon,population_acs2023\nAnsonia,0900901220,41.3,-73.1,100\n"
        "Bethany,0900904580,41.6,-73.4,200\nAvon,0900302060,41.8,-72.8,50\n",
    )
    write(
        tmp_path / "cook_overdose_events/cook_events.csv",
        "date,lat,lon,chicago_community_area,district,fentanyl,heroin,methadone,sex\n"
        "2014-08-12,41.8,-87.7,LOOP,3,1,0,0,M\n2015-01-02,41.9,-87.9,,9,0,0,0,M\n"
        "2015-01-03,,,,,1,1,0,F\n2023-04-01,41.8,-87.7,LOOP,3,1,1,0,F\n",
    )
    return tmp_path


def test_connecticut_deaths(deaths):
    events = ct_overdose_deaths(root=deaths)
    assert events.places == ["Hartford", "New Haven"]
    assert events.types[-2:] == ["other opioid", "no opioid"] and events.num_events == 4
    assert events.flags.sum(dim=0).tolist() == [1, 2, 0, 0, 1, 1]
    # The centre by population, and the sum of the towns' people.
    assert events.place_table.coordinates[1].tolist() == pytest.approx([41.5, -73.3])
    assert events.place_table.values[1].tolist() == pytest.approx([np.log(300)])
    assert events.duration == 4749  # 13 years
    towns = ct_overdose_deaths("town", opioid=True, marks=["sex", "age"], root=deaths)
    assert towns.places == ["Ansonia", "Bethany", "Avon"] and towns.num_events == 3
    assert towns.types[-1] == "other opioid" and towns.mark_names == ["age", "sex=unknown"]
    assert towns.counts("year").y.sum(0).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="place must be one of 'county', 'town'"):
        ct_overdose_deaths("state", root=deaths)


def test_cook_deaths(deaths):
    events = cook_overdose_deaths(root=deaths)
    assert events.places == ["LOOP", "district 9"] and events.num_events == 3
    assert events.types == ["fentanyl", "heroin", "methadone", "other"]
    assert events.end - events.complete_through == 1  # 1 April 2023
    assert events.counts("month").num_times == 103  # September 2014 to March 2023
    cells = cook_overdose_deaths("cell", marks=["sex"], root=deaths)
    assert cells.num_places == 2 and cells.mark_names == ["sex=F"]
    with pytest.raises(ValueError, match="place must be one of 'area', 'cell'"):
        cook_overdose_deaths("tract", root=deaths)


def test_chicago(small):
    panel = chicago_assault(root=small)
    assert panel.site_ids == ["007", "8", "9"] and panel.num_times == 120
    assert panel.times[0] == "2010-01" and panel.times[-1] == "2019-12"
    assert panel.y[0].tolist() == [2, 0, 0] and panel.y[-1].tolist() == [0, 0, 3]
    assert panel.y.sum() == 5


def test_errors(small, tmp_path, monkeypatch):
    monkeypatch.delenv("TOPREACH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for load in (ct_overdose, cook_overdose_events, chicago_assault):
        with pytest.raises(FileNotFoundError, match="root must be a folder with .*, got none"):
            load()
        with pytest.raises(FileNotFoundError, match="root must be a folder"):
            load(root=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="every must be"):
        ct_overdose("month", root=small)
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="cell_km must be a finite number > 0"):
            cook_overdose_events(wrong, root=small)
    write(small / "ct_overdose_events/ct_events.csv", "date,town,opioid\n2012-03-31,Nowhere,1\n")
    with pytest.raises(ValueError, match="towns must all be in ct_towns.csv, got .'Nowhere'"):
        ct_overdose(root=small)
    write(small / "chicago_assault/counts_monthly_150m.csv", "cell,month0,count\n8,120,1\n")
    with pytest.raises(ValueError, match="counts must be of cells"):
        chicago_assault(root=small)
    (small / "geo/ct_towns.csv").unlink()  # one of the two files of a set
    with pytest.raises(FileNotFoundError, match="a folder with .*ct_events.csv and .*ct_towns.csv"):
        ct_overdose(root=small)


@needs_data
def test_real_files():
    """Sizes as published, and a site's counts by plain counting of the lines."""
    years, quarters = ct_overdose(), ct_overdose("quarter")
    assert years.num_sites == 169
    assert np.array_equal(quarters.y.reshape(13, 4, 169).sum(1), years.y)
    with open(Path(os.environ["TOPREACH_DATA"]) / "ct_overdose_events/ct_events.csv") as file:
        counted = Counter((row["date"][:4], row["town"]) for row in csv.DictReader(file))
    hartford = years.site_ids.index("Hartford")
    assert years.y[:, hartford].tolist() == [counted[str(t), "Hartford"] for t in years.times]
    chicago = chicago_assault()
    assert (chicago.num_times, chicago.num_sites) == (120, 26637)
    assert cook_overdose_events().num_times == 34
    deaths = ct_overdose_deaths()
    assert (deaths.num_events, deaths.num_places) == (12931, 8)
    assert deaths.counts("year").y.sum(1).tolist() == years.y.sum(1).tolist()
    assert ct_overdose_deaths("town").counts("year").y.tolist() == years.y.tolist()
    areas = cook_overdose_deaths()
    assert (areas.num_events, areas.num_places) == (11348, 88)
    quarters = cook_overdose_deaths("cell").counts("quarter")
    assert quarters.y.sum(1).tolist() == cook_overdose_events().y.sum(1).tolist()
