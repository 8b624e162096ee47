"""Every option that a subcommand of `topreach plan` advertises does what it says, or is refused."""

import argparse

import numpy as np
import pandas as pd
import pytest

from topreach.cli.main import main
from topreach.cli.plan import PROGRAMS, add_arguments

ROWS = np.arange(6)
S, E, T = "s.csv", "e.csv", "t.csv"
# The fewest words that each subcommand needs.
LEAST = {
    "quotas": ["--scores", S, "--k", "2"],
    "budget": ["--scores", S, "--cost", "cost", "--budget", "5"],
    "spillover": ["--scores", S, "--k", "2", "--edges", E],
    "call-in": ["--scores", S, "--k", "2", "--edges", E],
    "coverage": ["--scores", S, "--k", "2", "--edges", E],
    "representatives": ["--edges", E],
    "tours": ["--scores", S, "--k", "2", "--edges", E, "--max-size", "3"],
    "subgraph": ["--edges", E, "--terminals", "00,03"],
    "assign": [
        "--need", "n.csv", "--need-columns", "id,n,lon,lat",
        "--places", "p.csv", "--place-columns", "id,n,lon,lat",
    ],
    "spaced": ["--scores", S, "--k", "2", "--distance", "1", "--lon", "lon", "--lat", "lat"],
    "connected": ["--scores", S, "--k", "2", "--edges", E],
    "phases": ["--scores", T, "--k", "2"],
    "fair": ["--scores", S, "--k", "2", "--fair-to", "town"],
}  # fmt: skip
GRAPHS = ("edges", "gal", "gwt", "radius", "nearest", "delaunay")
# A value that the option can have, and the other options that it needs.
VALUES = {
    "scores": [S], "site": ["site"], "value": ["score"], "period": ["2021"], "all_sites": [],
    "gap": ["0.01"], "time": ["60"], "out": ["-"], "geojson": ["map.json"], "force": [],
    "geometry": ["shapes.json"], "sep": [","], "encoding": ["utf-8"], "decimal": ["."],
    "debug": [], "k": ["3"], "groups": ["town", "--at-least", "1"],
    "at_least": ["1"], "at_most": ["2"], "lock_in": ["05"], "lock_out": ["00"],
    "effect": ["share"], "cost": ["cost"], "budget": ["4"], "edges": [E],
    "edge_columns": ["from,to"], "length": ["km"], "gal": ["g.gal"], "gwt": ["g.gwt"],
    "radius": ["20"], "nearest": ["2"], "delaunay": [], "lon": ["lon"], "lat": ["lat"],
    "planar": [], "drop_strangers": [], "treated": ["0.9"], "spilled": ["share"],
    "compliance": ["0.5"], "comes": ["0.5"], "passes": ["0.5"], "form": ["capped"],
    "weight_by_score": [], "reach": ["3"], "area": ["cost"], "pai": ["0.5"], "gain": ["score"],
    "size": ["cost"], "min_size": ["2"], "max_size": ["3"], "terminals": ["00,02"],
    "neighbours": [], "need": ["n.csv"], "need_columns": ["id,n,lon,lat"], "places": ["p.csv"],
    "place_columns": ["id,n,lon,lat"], "open_sites": ["1", "--opened-capacity", "2"],
    "opened_capacity": ["2"], "distance": ["0.5"], "opening": ["0.1"], "before": ["01"],
    "rest": ["1"], "most_visits": ["1"], "fair_to": ["town"], "floor": ["0.1"],
}  # fmt: skip


def parsers():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return next(a.choices for a in parser._actions if isinstance(a.choices, dict))


def cases():
    for name, parser in parsers().items():
        for action in parser._actions:
            if action.dest != "help":
                yield pytest.param(name, action.dest, action.option_strings[0])


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = pd.DataFrame(
        {
            "site": [f"0{i}" for i in ROWS],
            "time": "2021",
            "score": [0.5, 0.4, 0.3, 0.2, 0.6, 0.1],
            "town": ["a", "b"] * 3,
            "cost": [1.0, 2, 1, 1, 3, 1],
            "share": [0.5, 0.6, 0.2, 0.0, 1.0, 0.7],
            "lon": ROWS % 3 / 10,
            "lat": 41 + ROWS // 3 / 10,
        }
    )
    table.to_csv(S, index=False)
    pd.concat([table, table.assign(time="2022", score=table["score"][::-1].to_numpy())]).to_csv(
        T, index=False
    )
    edges = [("00", "01"), ("01", "02"), ("03", "04"), ("04", "05"), ("00", "03"), ("02", "05")]
    pd.DataFrame(edges, columns=["from", "to"]).assign(km=1.0).to_csv(E, index=False)
    pairs = {
        f"0{i}": [b if a == f"0{i}" else a for a, b in edges if f"0{i}" in (a, b)] for i in ROWS
    }
    (tmp_path / "g.gal").write_text(
        "0 6 x id\n" + "".join(f"{a} {len(b)}\n{' '.join(b)}\n" for a, b in pairs.items())
    )
    (tmp_path / "g.gwt").write_text(
        "0 6 x id\n" + "".join(f"{a} {c} 1.5\n" for a, b in pairs.items() for c in b)
    )
    table.assign(id=table["site"], n=1)[["id", "n", "lon", "lat"]].to_csv("n.csv", index=False)
    table.assign(id=table["site"], n=ROWS % 2 * 3)[["id", "n", "lon", "lat"]].to_csv(
        "p.csv", index=False
    )
    shapes = ", ".join(
        f'{{"type": "Feature", "properties": {{"site": "0{i}"}}, '
        f'"geometry": {{"type": "Point", "coordinates": [{i}, 41]}}}}'
        for i in ROWS
    )
    (tmp_path / "shapes.json").write_text(
        f'{{"type": "FeatureCollection", "features": [{shapes}]}}'
    )


def words_of(name, dest, flag):
    words = [*LEAST[name]]
    its = [flag, *VALUES[dest]]
    if dest in ("at_least", "at_most"):
        its = ["--groups", "town", *its]
    if dest in GRAPHS and "--edges" in words:
        at = words.index("--edges")
        words = words[:at] + words[at + 2 :]
    if dest in ("radius", "nearest", "delaunay", "planar") and name != "assign":
        its += ["--lon", "lon", "--lat", "lat"]
    if dest == "planar" and name != "spaced":
        at = words.index("--edges") if "--edges" in words else len(words)
        words = [*words[:at], *words[at + 2 :], "--radius", "0.15"]
    if name == "spaced" and dest == "planar":
        its += ["--distance", "0.05"]
    if dest == "geometry":
        its += ["--geojson", "map.json"]
    if dest == "geojson" and name not in ("subgraph", "representatives"):
        its += (
            ["--lon", "lon", "--lat", "lat"]
            if "--lon" in str(parsers()[name].format_help())
            else []
        )
    return [*words, *its]


@pytest.mark.parametrize(("name", "dest", "flag"), cases())
def test_every_option_of_every_program(files, capsys, name, dest, flag):
    out = [] if dest == "out" else ["--out", "out.csv"]
    words = ["plan", name, *words_of(name, dest, flag), *out]
    if name in ("representatives", "subgraph") and dest in (
        "radius",
        "nearest",
        "delaunay",
        "planar",
    ):
        assert main(words) == 2  # no coordinates without scores
        assert "needs --scores" in capsys.readouterr().err
        return
    if dest == "geojson" and "--lon" not in words:
        words += ["--geometry", "shapes.json"]
    assert main(words) == 0, capsys.readouterr().err


def test_the_least_words_are_enough_and_all_programs_are_here(files, capsys):
    assert set(LEAST) == set(PROGRAMS)
    for name, words in LEAST.items():
        assert main(["plan", name, *words, "--out", f"{name}.csv"]) == 0, capsys.readouterr().err
