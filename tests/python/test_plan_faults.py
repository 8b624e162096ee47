"""Tables that gave, or could give, wrong plans: now the plan is correct, or there is an error."""

import itertools

import numpy as np
import pandas as pd
import pytest

import topreach as tr
from topreach.cli.main import main
from topreach.data.messages import wording

SITES = [str(i) for i in range(9)]


def best_of(scores, allowed):
    """The largest sum over all subsets that are allowed."""
    subsets = itertools.chain.from_iterable(
        itertools.combinations(range(len(scores)), r) for r in range(len(scores) + 1)
    )
    return max(sum(scores[i] for i in chosen) for chosen in subsets if allowed(chosen))


@pytest.mark.parametrize("scale", [1e-12, 1e-8, 1e-5, 1.0, 1e9])
def test_the_unit_of_scores_and_costs_does_not_matter(scale):
    """HiGHS's tolerances are absolute, so programs are solved in scaled units."""
    pytest.importorskip("highsbox")
    draw = np.random.default_rng(3)
    scores, cost = draw.random(9) * scale, draw.uniform(1, 4, 9)
    one, two = draw.integers(3, size=9), draw.integers(2, size=9)

    def counts(chosen, group):
        return [sum(group[i] == g for i in chosen) for g in range(3)]

    quotas = [tr.plan.Quotas(pd.Series(g.astype(str), SITES), at_most=2) for g in (one, two)]
    plan = tr.plan.quota_topk(scores, 4, ids=SITES, quotas=quotas)
    want = best_of(scores, lambda c: len(c) == 4 and max(*counts(c, one), *counts(c, two)) <= 2)
    assert plan.status == "optimal" and plan.value == pytest.approx(want, rel=1e-9)

    for unit in (1e-9, 1.0, 1e9):
        plan = tr.plan.budget_topk(scores, cost * unit, 7 * unit, ids=SITES)
        want = best_of(scores, lambda c: sum(cost[i] for i in c) <= 7)
        assert plan.value == pytest.approx(want, rel=1e-4)
        assert sum(cost[int(i)] for i in plan.ids) <= 7 + 1e-9

    totals = [scores[two == g].sum() for g in range(2)]

    def keeps_floors(chosen):
        held = [sum(scores[i] for i in chosen if two[i] == g) for g in range(2)]
        return len(chosen) == 4 and all(h >= 0.2 * t for h, t in zip(held, totals, strict=True))

    plan = tr.plan.fair(scores, 4, pd.Series(two.astype(str), SITES), floors=0.2, ids=SITES)
    assert plan.value == pytest.approx(best_of(scores, keeps_floors), rel=1e-6)

    rates = np.array([[3, 1, 0.0], [0, 2, 4], [5, 0, 1]]) * scale
    plan = tr.plan.phased(rates, 1, opening=1.5 * scale, ids=["a", "b", "c"])
    want = max(
        sum(rates[t, i] for t, i in enumerate(path))
        - 1.5 * scale * sum(path[t] != path[t - 1] or t == 0 for t in range(3))
        for path in itertools.product(range(3), repeat=3)
    )
    assert plan.value == pytest.approx(want, rel=1e-9)


PERIODS = pd.DataFrame(
    {
        "site": ["a", "b"] * 3,
        "time": ["2022", "2022", "2021", "2021", "2023", "2023"],
        "score": [0.0, 9, 0, 6, 8, 0],
    }
)


def test_periods_are_taken_in_the_order_of_time():
    pytest.importorskip("highsbox")
    plan = tr.plan.phased(PERIODS, 1, opening=5)
    assert plan.to_frame()["time"].tolist() == ["2021", "2022", "2023"]
    assert plan.tours == [["b"], ["b"], ["a"]] and plan.value == 6 + 9 + 8 - 10
    with pytest.raises(ValueError, match="the column 'time' must say the period.*, got a blank"):
        tr.plan.phased(PERIODS.assign(time=["2022", None, *PERIODS["time"][2:]]), 1)


def test_a_column_that_changes_between_periods_is_refused():
    table = PERIODS.assign(share=[1.0, 1, 1, 0, 1, 1])
    with pytest.raises(
        ValueError, match="effect must be the same for a site in all periods.*share"
    ):
        tr.plan.phased(table, 1, effect="share")


@pytest.mark.parametrize("k", [1.9, True, "1", [1.5, 1, 1]])
def test_phases_take_whole_numbers(k):
    with pytest.raises(TypeError, match="k must be a whole number"):
        tr.plan.phased(PERIODS, k)


def test_an_effect_below_0_is_refused():
    with pytest.raises(ValueError, match="effect must be shares from 0 to 1, got -0.5 for '0'"):
        tr.plan.quota_topk(np.ones(3), 1, effect=-0.5)


def test_tours_smaller_than_every_area_are_refused():
    graph = tr.Graph.from_edges([("a", "b"), ("b", "c")])
    with pytest.raises(ValueError, match="max_size must be at least the size of the smallest"):
        tr.plan.tours(np.ones(3), graph, 1, ids=graph.ids, max_size=0.5)


def test_a_number_for_k_does_not_drop_a_program():
    rows = [(f"{i:02d}", t, i + t % 2) for i in range(6) for t in range(2015, 2021)]
    table = pd.DataFrame(rows, columns=["site", "year", "n"])
    panel = tr.Panel.from_frame(table, site="site", time="year", count="n", features=[])
    groups = pd.Series(["A", "B"] * 3, [f"{i:02d}" for i in range(6)])
    ranker = tr.TopKRanker(tr.programs.Quotas(3, groups, lower=1)).fit(panel)
    with pytest.raises(ValueError, match="k must be a program.*would drop its constraints"):
        ranker.rank(k=1)
    assert ranker.rank(k=tr.programs.TopK(1))["selected"].sum() == 1
    assert ranker.with_program(1).rank()["selected"].sum() == 1
    with pytest.raises(ValueError, match="must name a site once, got '01' twice"):
        tr.programs.with_effect(3, pd.Series(1.0, ["01", "01"]))
    with pytest.raises(ValueError, match="groups must name the group of some site"):
        tr.programs.Quotas(3, [None] * 6, lower=1)
    tidy = tr.programs.Quotas(3, [" A", "A", "B", "B", None, 1.0], {"A": 1, 1: 1})
    assert tidy.describe() == "Quotas(k=3, 3 groups)"


def test_labelled_tables_are_read_by_label():
    """Not by position: columns, rows and places in another order give the same plan."""
    plan = tr.plan.quota_topk(pd.Series([1.0, 2, 3], list("abc")), 1)
    draws = pd.DataFrame([[5.0, 1, 0], [4, 0, 1]], columns=list("abc"))
    assert plan.information(draws) == plan.information(draws[["c", "a", "b"]])
    assert plan.stability(draws[["b", "c", "a"]])[0].index[0] == "a"
    with pytest.raises(ValueError, match="samples must be labelled by the 3 ids.*'z'"):
        plan.stability(draws.rename(columns={"a": "z"}))
    graph = tr.Graph.from_coordinates(
        list("abc"),
        pd.Series([9.0, 0, 1], list("cab")),
        pd.Series([0.0] * 3, list("abc")),
        radius=2,
    )
    assert graph.neighbours("a") == ["b"]
    with pytest.raises(ValueError, match="longitude within 360 and latitude within 90.*'b'"):
        tr.Graph.from_coordinates(list("ab"), [0, 1], [0, 100], radius=1, degrees=True)
    with wording("cli"), pytest.raises(ValueError, match="--lon and --lat must be longitude"):
        tr.Graph.from_coordinates(list("ab"), [0, 1], [0, 100], radius=1, degrees=True)
    with pytest.raises(ValueError, match="Did you mean '01'"):
        tr.Graph.from_edges([("1", "2")]).without_strangers(["01", "02"])


def test_places_of_an_assignment_are_read_by_label():
    pytest.importorskip("highsbox")
    need, room = pd.Series([3.0, 2.0], ["a", "b"]), pd.Series([2.0, 4.0], ["p", "q"])
    ways = pd.DataFrame([[1.0, 5.0], [6.0, 2.0]], index=["a", "b"], columns=["p", "q"])
    plans = [
        tr.plan.assign(need, room, given, radius=10)
        for given in (ways, ways.loc[["b", "a"], ["q", "p"]])
    ]
    assert plans[0].value == plans[1].value == 2 * 1 + 1 * 5 + 2 * 2
    pd.testing.assert_frame_equal(plans[0].flows, plans[1].flows)


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pd.DataFrame(
        {"site": list("abcd"), "score": [4, 3, 2, 1], "town": ["x", "x", "NA", ""]}
    ).to_csv("s.csv", index=False)
    (tmp_path / "ragged.csv").write_text("site,score\na,5,9\nb,6,9\n")
    (tmp_path / "edges.csv").write_text("from,to\na,b,c\n")
    (tmp_path / "list.json").write_text("[1, 2]")
    return tmp_path


@pytest.mark.parametrize(
    "words, message",
    [
        ("quotas --scores ragged.csv --k 1 --out -", "as many fields in each line as its header's"),
        ("coverage --scores s.csv --edges edges.csv --k 1 --out -", "as many fields in each line"),
        ("quotas --scores s.csv --k 1 --out s.csv --force", "--out must be another file than"),
        ("quotas --scores s.csv --k 1 --out o --geojson o", "--geojson must be another file than"),
        ("quotas --scores s.csv --k 1 --groups town --out -", "--groups town needs --at-least"),
        (
            "quotas --scores s.csv --k 2 --groups town --at-least x=1,x=0 --out -",
            "given once for a group, got 'x' twice",
        ),
        ("quotas --scores s.csv --k 1 --out o --geojson g --geometry list.json", "with features"),
    ],
)
def test_the_command_line_refuses(words, message, files, capsys):
    before = (files / "s.csv").read_bytes()
    assert main(["plan", *words.split()]) == 2
    assert message in capsys.readouterr().err
    assert (files / "s.csv").read_bytes() == before and not (files / "o").exists()


def test_a_town_may_be_called_na(files, capsys):
    words = "plan quotas --scores s.csv --k 2 --groups town --at-least NA=1 --out -"
    assert main(words.split()) == 0
    said = capsys.readouterr()
    assert [line.split(",")[0] for line in said.out.splitlines()] == ["site", "a", "c"]
    assert "quota_topk: value 6, optimal" in said.err  # standard output holds the table alone


def test_a_model_is_not_overwritten_by_its_forecast(files, capsys):
    (files / "m.pt").write_bytes(b"model")
    words = "forecast --model m.pt --horizons 1 --out m.pt --force"
    assert main(words.split()) == 2
    assert "--out must be another file than --model" in capsys.readouterr().err
    assert (files / "m.pt").read_bytes() == b"model"


def test_places_without_events_have_a_rate():
    table = pd.DataFrame({"date": ["2024-01-05", "2024-01-07"] * 20, "town": ["A", "B"] * 20})
    table["date"] = pd.date_range("2023-01-03", periods=40, freq="9D").astype(str)
    events = tr.Events.from_frame(
        table,
        time="date",
        place="town",
        places=["A", "B", "Z"],
        window=("2023-01-01", "2023-12-31"),
    )
    model = tr.models.Stemmed().fit(events)
    assert any("No event in the window at 'Z'" in note for note in model.notes_)
    mean = model.forecast(1).mean[0]
    assert 0 < float(mean[2]) < float(mean[0])


def test_half_a_pair_of_coordinates_is_refused():
    table = pd.DataFrame({"date": ["2024-01-05", "2024-01-07"], "town": ["A", "B"]})
    for columns in ({"lat": [4, 5]}, {"Latitude": [4, 5], "Longitude": [1, 2]}):
        with pytest.raises(ValueError, match="both lat and lon, or both x and y"):
            tr.Events.from_frame(
                table, time="date", place="town", places=pd.DataFrame({"id": ["A", "B"], **columns})
            )


def test_a_mark_with_one_word_among_numbers_is_refused():
    table = pd.DataFrame({"date": pd.date_range("2024-01-01", periods=9).astype(str), "town": "A"})
    table["age"] = [*map(str, range(30, 38)), "old"]
    with pytest.raises(ValueError, match="marks 'age' must hold numbers or categories, got 'old'"):
        tr.Events.from_frame(table, time="date", place="town", marks=["age"])
    table["age"] = [1.0, 1e308, -1e308] * 3
    with pytest.raises(ValueError, match="spread is finite.*'age'"):
        tr.Events.from_frame(table, time="date", place="town", marks=["age"])
