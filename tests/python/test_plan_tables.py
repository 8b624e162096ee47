"""Tables that `topreach plan` reads: separators, blanks, shares, sums; errors name the cell."""

import numpy as np
import pandas as pd
import pytest

import topreach as tr
from topreach.cli.main import main

ROWS = np.arange(6)
SCORES = pd.DataFrame(
    {
        "site": [f"0{i}" for i in ROWS],
        "score": [5.5, 4.5, 3.5, 2.5, 1.5, 0.5],
        "town": ["a", "a", "b", "", "b", ""],
        "cost": [1.5, 2.0, 1.0, 1.0, 3.0, 0.5],
        "share": [0.5, 1.0, 0.25, 0.0, 1.0, 0.75],
    }
)


def plan(tmp_path, capsys, table, *words, code=0, **how):
    path, out = tmp_path / "s.csv", tmp_path / "out.csv"
    if isinstance(table, pd.DataFrame):
        table.to_csv(path, index=False, **how)
    else:
        path.write_bytes(table)
    name, *rest = words
    found = main(["plan", name, "--scores", str(path), *rest, "--out", str(out), "--force"])
    said = capsys.readouterr()
    assert found == code, said.err
    if code:
        (line,) = [x for x in said.err.splitlines() if not x.startswith("note:")]
        return line
    return pd.read_csv(out, dtype={"site": str})["site"].tolist(), said.out + said.err


@pytest.mark.parametrize(
    ("how", "more"),
    [
        ({"sep": ";"}, []),
        ({"sep": ";", "decimal": ","}, ["--decimal", ","]),
        ({"sep": "\t"}, ["--sep", "\\t"]),
        ({"encoding": "utf-8-sig"}, []),
        ({"encoding": "utf-16"}, []),
        ({"sep": "#", "encoding": "latin-1"}, ["--sep", "#", "--encoding", "latin-1"]),
    ],
)
def test_text_of_any_kind(tmp_path, capsys, how, more):
    wanted = tr.plan.budget_topk(SCORES, "cost", 3.0).ids
    table = SCORES.assign(name="Café")
    words = ["budget", "--cost", "cost", "--budget", "3", *more]
    assert plan(tmp_path, capsys, table, *words, **how)[0] == wanted


def test_sites_without_a_group_are_said(tmp_path, capsys):
    words = ["quotas", "--k", "3", "--groups", "town", "--at-least", "1"]
    ids, said = plan(tmp_path, capsys, SCORES, *words)
    assert ids == ["00", "01", "02"] and "note: 2 site(s) have no town, and no limit by it." in said
    whole = SCORES.assign(town=SCORES["town"].replace("", "c"))
    assert "have no town" not in plan(tmp_path, capsys, whole, *words)[1]
    assert tr.plan.quota_topk(SCORES, 3, groups="town", at_least=1).notes == [
        "2 site(s) have no town, and no limit by it."
    ]


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        ({"share": [0.5, 1.0, 0.25, 0.0, 60.0, 0.75]}, ["quotas", "--k", "2", "--effect", "share"],
         "--effect must be shares from 0 to 1, got 60 for '04'"),
        ({"cost": [1.5, 2.0, -1.0, 1.0, 3.0, 0.5]}, ["budget", "--cost", "cost", "--budget", "3"],
         "--cost must be numbers >= 0, got -1 for '02'"),
        ({"score": [1e308] * 6}, ["quotas", "--k", "2"],
         "--scores must have a finite sum, got one above 1e308. Divide them all"),
        ({"score": [1.0, np.inf, 0, 0, 0, 0]}, ["quotas", "--k", "2"],
         "--scores must be numbers (-inf: the site is closed), got inf at site '01'"),
        ({"score": [1, 2, "many", 4, 5, 6]}, ["quotas", "--k", "2"],
         "--scores must be numbers, got 'many' for site '02'"),
        ({"site": ["00", "01", " ", "03", "04", "05"]}, ["quotas", "--k", "2"],
         "the column 'site' must name the site of each row, got a blank in line 4 of"),
        ({"site": ["00", "01", "01", "03", "04", "05"]}, ["quotas", "--k", "2"],
         "--scores must name a site once, got '01' twice"),
    ],
)  # fmt: skip
def test_errors_name_the_cell(tmp_path, capsys, change, words, message):
    table = SCORES.assign(**change)
    assert message in plan(tmp_path, capsys, table, *words, code=2)


def test_rows_of_another_length_and_repeated_columns(tmp_path, capsys):
    said = plan(tmp_path, capsys, b"site,score\n1,2\n2,3,4\n", "quotas", "--k", "1", code=2)
    assert "as many fields in each line as its header's 2, got 3 in line 3. Mend" in said
    said = plan(tmp_path, capsys, b"site,score,score\n1,2,2\n2,3,4\n", "quotas", "--k", "1", code=2)
    assert "got 'score' twice with different values (3 and 4 at line 3 of" in said


def test_edges_and_places_of_other_separators(tmp_path, capsys):
    edges = tmp_path / "e.csv"
    edges.write_text("a;b;km\n00;01;1,5\n\n02;03;2,5\n", encoding="utf-8-sig")
    graph = tr.data.Graph.from_edges(edges, weight="km", decimal=",")
    assert graph.edges()["weight"].tolist() == [1.5, 2.5] and graph.ids == ["00", "01", "02", "03"]
    edges.write_text("a;b\n00;01\n\n02;\n")
    with pytest.raises(ValueError, match="b must be an id, got a blank in line 4 of"):
        tr.data.Graph.from_edges(edges)
    need, places = tmp_path / "need.csv", tmp_path / "places.csv"
    need.write_text("zip;n;x;y\n01;3;0;40,5\n02;4;1;\n")
    places.write_text("id;room;x;y\n1;9;0;40\n1;9;1;41\n")
    words = [
        "plan", "assign", "--need", str(need), "--need-columns", "zip,n,x,y", "--places",
        str(places), "--place-columns", "id,room,x,y", "--decimal", ",", "--out", "-",
    ]  # fmt: skip
    assert main(words) == 2
    assert "y must be a number in each row, got none in line 3 of" in capsys.readouterr().err
    need.write_text("zip;n;x;y\n01;3;0;40,5\n02;4;1;95\n")
    assert main(words) == 2
    assert "--capacity" not in (said := capsys.readouterr().err)
    assert "capacity must name a place once, got '1' twice" in said
    places.write_text("id;room;x;y\n1;9;0;40\n2;9;1;41\n")
    assert main(words) == 2
    assert "latitudes from -90 to 90, got 1 and 95 for '02'" in capsys.readouterr().err
    need.write_text("zip;n;x;y\n01;3;0;40,5\n02;4;1;41,0\n")
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("01,3")


def test_errors_of_the_library_name_site_and_period():
    scores = np.ones((2, 3))
    scores[1, 2] = -np.inf
    with pytest.raises(ValueError, match=r"scores must be numbers, got -inf at site '2' in 2"):
        tr.plan.phased(scores, 1)
    with pytest.raises(ValueError, match="locked in must be open, got site 'b' with a score"):
        tr.plan.quota_topk({"a": 1.0, "b": -np.inf}, 1, lock_in=["b"])


def test_small_gains_make_tours_too():
    pytest.importorskip("highsbox")
    graph = tr.data.Graph.from_edges([(str(i), str(i + 1)) for i in range(9)])
    gain = np.array([3.0, 1, 4, 1, 5, 9, 2, 6, 5, 3])
    plans = [tr.plan.tours(gain, graph, 2, max_size=3, gain=gain * f) for f in (1, 1e-12, 1e12)]
    assert [p.value / f for p, f in zip(plans, (1, 1e-12, 1e12), strict=True)] == pytest.approx(
        [30.0] * 3, rel=1e-12
    )


def test_programs_name_the_site():
    shares = pd.Series([0.5, 1.5], ["a", "b"])
    with pytest.raises(
        ValueError, match="effect must be a share from 0 to 1, got 1.5 for site 'b'"
    ):
        tr.programs.with_effect(1, shares)
    with pytest.raises(ValueError, match="Budget: cost must be a number >= 0, got -1 for site 'y'"):
        tr.programs.Budget(3.0, pd.Series([1.0, -1.0], ["x", "y"]))
    graph = tr.data.Graph.from_edges([("a", "b"), ("b", "c")])
    with pytest.raises(ValueError, match="comes must be a share from 0 to 1, got nan for site 'c'"):
        tr.programs.CallIn(1, graph, comes=pd.Series([0.5, 0.5], ["a", "b"]))
