"""The meaning of the arguments of plans, in every form that they may have: scores, columns by site,
ids, quotas, locks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import topreach as tr
from topreach.plan.constraints import Constraints, Quotas, read_groups, whole
from topreach.plan.inputs import Sites, read_sites
from topreach.programs.arguments import all_quotas

IDS = ["a", "b", "c"]
TABLE = pd.DataFrame({"site": IDS, "score": [3.0, 2.0, 1.0], "town": ["x", "y", "x"]})


def made(scores, **how):
    sites = read_sites(scores, "f", **how)
    return sites.ids, sites.scores.tolist()


# ---- scores --------------------------------------------------------------------------------------


def test_scores_in_every_form():
    expected = (IDS, [3, 2, 1])
    assert made(TABLE) == made(TABLE.set_index("site")) == expected
    assert made(pd.Series([3.0, 2, 1], IDS)) == made(dict(zip(IDS, "321", strict=True))) == expected
    for array in ([3, 2, 1], np.array([3, 2, 1]), torch.tensor([3.0, 2, 1], requires_grad=True)):
        assert made(array, ids=IDS) == expected
        assert made(array) == (["0", "1", "2"], [3, 2, 1])
    renamed = TABLE.rename(columns={"site": "id", "score": "risk"})
    assert made(renamed, site="id", value="risk") == expected
    assert made(pd.Series([1.0], [7])) == (["7"], [1])  # ids are text


def test_which_column_of_a_table_is_the_score():
    """The one that is named, else "score", else "expected_count"."""
    both = TABLE.assign(expected_count=[7.0, 8, 9])
    assert made(both)[1] == [3, 2, 1]
    assert made(both.drop(columns="score"))[1] == [7, 8, 9]
    assert made(both, value="expected_count")[1] == [7, 8, 9]
    with pytest.raises(ValueError, match="must have a column 'score', got site, town. Name the"):
        read_sites(TABLE.drop(columns="score"), "f")
    with pytest.raises(ValueError, match="must have the column 'risk', got site, score, town"):
        read_sites(TABLE, "f", value="risk")
    with pytest.raises(ValueError, match="must have the column 'id', got site, score, town"):
        read_sites(TABLE, "f", site="id")


def test_what_else_a_table_says_is_kept_by_site():
    sites = read_sites(TABLE, "f")
    assert list(sites.table.columns) == ["score", "town"] and list(sites.table.index) == IDS
    assert (sites.periods, sites.varying) == ((), ())
    assert read_sites([1.0], "f").table.columns.empty


@pytest.mark.parametrize(
    ("scores", "how", "message"),
    [
        ([[1.0, 2.0]], {}, r"scores must have shape \[S\], got \[1, 2\]"),
        ([1.0], {"periods": True}, r"scores must have shape \[H, S\], got \[1\]"),
        ([1.0, 2.0], {"ids": ["a"]}, "ids must name each of 2 sites, got 1 of them"),
        ([1.0, 2.0], {"ids": ["a", "a"]}, "scores must name a site once, got 'a' twice"),
        ([], {}, "scores must have at least one site, got none"),
        (TABLE[:0], {}, "scores must have at least one site, got none"),
        ({"a": 1.0, "b": "x", "c": "y"}, {}, "scores must be numbers, got 'x' for site 'b'"),
        (TABLE.assign(score=[1, np.nan, np.nan]), {}, "scores must be numbers, got nan for site"),
        (TABLE.assign(site=["a", "b", "a"]), {}, "scores must name a site once, got 'a' twice"),
    ],
)  # fmt: skip
def test_what_are_no_scores(scores, how, message):
    with pytest.raises(ValueError, match=f"^f: {message}"):
        read_sites(scores, "f", **how)


# ---- periods -------------------------------------------------------------------------------------

TWO = pd.concat([TABLE.assign(time=2025), TABLE.assign(time=2024, score=[1.0, 5, 9])])


def test_one_of_several_periods():
    assert made(TWO, period=2024)[1] == made(TWO, period="2024")[1] == [1, 5, 9]
    assert made(TWO[3:]) == (IDS, [1, 5, 9])  # there is but one
    with pytest.raises(ValueError, match="f: period must be one of scores, got 2023"):
        read_sites(TWO, "f", period=2023)
    with pytest.raises(ValueError, match="must be of one period, got 2, from 2025 on"):
        read_sites(TWO, "f")
    blank = TWO.assign(time=[2025, 2025, None, 2025, 2025, None]).reset_index(drop=True)
    with pytest.raises(ValueError, match="f: the column .time. must say the .* a blank in row 2"):
        read_sites(blank[:3], "f")


def test_all_periods_in_the_order_of_time():
    shuffled = TWO.sample(frac=1, random_state=1)
    sites = read_sites(shuffled, "f", periods=True)
    assert sites.periods == ("2024", "2025")
    at = [sites.ids.index(i) for i in IDS]
    assert sites.scores[:, at].tolist() == [[1, 5, 9], [3, 2, 1]]
    assert sites.varying == () and sites.table.loc[IDS, "town"].tolist() == ["x", "y", "x"]
    array = read_sites([[1.0, 2], [3, 4]], "f", periods=True)
    assert array.periods == ("1", "2") and array.ids == ["0", "1"]
    for alone in (read_sites(TABLE, "f", periods=True),
                  read_sites(TWO, "f", periods=True, period=2025)):  # fmt: skip
        assert alone.periods == ("1",) and alone.scores.tolist() == [[3, 2, 1]]


def test_what_changes_between_periods_is_of_no_site():
    """This includes a value in one period and a blank in the other."""
    table = TWO.assign(
        moving=range(6), still=[1, 2, 3] * 2, filled=[None, "p", "q", "o", "p", "q"],
        blank=[None, 1, 2] * 2,
    )  # fmt: skip
    sites = read_sites(table, "f", periods=True)
    assert set(sites.varying) == {"moving", "filled"}
    assert sites.column("still", "f", "x").tolist() == [1, 2, 3]
    for name in ("moving", "filled"):
        with pytest.raises(ValueError, match=f"the same for a site in all periods.*'{name}'"):
            sites.column(name, "f", "x")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (TWO[:5], "every site in every period, got none for 'c' in 2024"),
        (pd.concat([TWO, TWO[:1]]), "a site once a period, got 'a' twice in 2025"),
        (TWO.assign(time=["2025", "2025", " ", "2024", "2024", "2024"]).reset_index(drop=True),
         "the column .time. must say the period of each row, got a blank in row 2"),
        (TWO.assign(time=["2025", None, "2025", "2024", "2024", "2024"]).reset_index(drop=True),
         "the column .time. must say the period of each row, got a blank in row 1"),
    ],
)  # fmt: skip
def test_periods_that_are_not_whole(table, message):
    with pytest.raises(ValueError, match=f"^f: .*{message}"):
        read_sites(table, "f", periods=True)


# ---- columns by site -----------------------------------------------------------------------------

SITES = Sites(
    IDS,
    np.array([3.0, 2, 1]),
    pd.DataFrame({"size": [1, 2, 3], "town": ["x", "y", "x"]}, IDS),
)


def test_a_column_in_every_form():
    for given in (
        "size",
        [1, 2, 3],
        np.array([1, 2, 3]),
        {"c": 3, "a": 1, "b": 2},
        pd.Series([3, 1, 2, 9], ["c", "a", "b", "z"]),  # others are passed over
    ):
        assert SITES.column(given, "f", "size").tolist() == [1, 2, 3]
        assert SITES.numbers(given, "f", "size", 0.0).tolist() == [1, 2, 3]
    for number in (7, np.float64(7), np.array(7)):
        assert SITES.column(number, "f", "size").tolist() == [7, 7, 7]
    assert SITES.column(None, "f", "size") is None
    assert SITES.numbers(None, "f", "size", 0.5).tolist() == [0.5] * 3
    assert SITES.numbers(["1", "2", "3"], "f", "size", 0.0).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("area", "must be a column of scores, got 'area'; it has size, town"),
        ([1, 2], r"must have one value for each of 3 sites, got shape \(2,\)"),
        ([[1, 2, 3]], r"must have one value for each of 3 sites, got shape \(1, 3\)"),
        ({"b": 1}, "must have a value for every site, got none for 'a' and 1 more"),
        (pd.Series([1, 2, 3, 4], ["a", "b", "c", "b"]), "must name a site once, got 'b' twice"),
        ("town", "must be numbers, got 'x' for 'a'"),
        ([1, np.nan, np.nan], "must be numbers, got nan for 'b'"),
    ],
)
def test_what_is_no_column_of_numbers(given, message):
    with pytest.raises(ValueError, match=f"^f: size {message}"):
        SITES.numbers(given, "f", "size", 0.0)
    bare = Sites(IDS, SITES.scores, pd.DataFrame(index=IDS))
    with pytest.raises(ValueError, match="it has no further columns"):
        bare.column("area", "f", "size")


def test_rows_by_id():
    assert SITES.rows(["c", "a"], "f", "x").tolist() == [2, 0]
    assert SITES.rows(None, "f", "x").tolist() == SITES.rows((), "f", "x").tolist() == []
    with pytest.raises(ValueError, match="f: x must be ids of the 3 sites, got 'z'"):
        SITES.rows(["a", "z"], "f", "x")
    with pytest.raises(TypeError, match="f: x must be a list of ids, got the text 'a'"):
        SITES.rows("a", "f", "x")


# ---- groups and quotas ---------------------------------------------------------------------------


def test_groups_in_every_form():
    for given, called in (
        ("town", "town"),
        (["x", "y", "x"], "group"),
        (pd.Series(["x", "x", "y"], ["a", "c", "b"], name="city"), "city"),
        ({"a": "x", "b": "y", "c": " x"}, "group"),
    ):
        name, groups, group = read_groups(SITES, given, "f")
        assert (name, groups, group.tolist()) == (called, ["x", "y"], [0, 1, 0])
        assert read_groups(SITES, given, "f", "ward")[0] == "ward"
    many = [1.0, np.nan, None, pd.NA, " ", 2.5, np.float32(3), 1]
    sites = Sites([str(i) for i in range(8)], np.zeros(8), pd.DataFrame(index=range(8)))
    _, groups, group = read_groups(sites, many, "f")
    assert groups == ["1", "2.5", "3"] and group.tolist() == [0, -1, -1, -1, -1, 1, 2, 0]
    for nothing in (None, ["", None, " "]):
        with pytest.raises(ValueError, match="f: groups must name"):
            read_groups(SITES, nothing, "f")


def best(k, scores=(5.0, 4.0, 3.0, 2.0, 1.0, 0.0), **how):
    plan = tr.plan.quota_topk(list(scores), k, groups=["a", "a", "a", "b", "b", ""], **how)
    return [int(i) for i in plan.ids]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, [0, 1, 2]),
        ({"at_least": 1}, [0, 1, 3]),
        ({"at_least": "1"}, [0, 1, 3]),
        ({"at_least": {"b": "34%"}}, [0, 3, 4]),
        ({"at_least": {"b": "33.333%"}}, [0, 1, 3]),
        ({"at_most": {"a": "34%"}}, [0, 3, 4]),
        ({"at_most": {"a": "66.6%"}}, [0, 3, 4]),
        ({"at_most": {"a": "66.667%"}}, [0, 1, 3]),
        ({"at_most": 1}, [0, 3, 5]),
        ({"at_most": {"a": 0}}, [3, 4, 5]),
        ({"at_least": {"b": 2}, "at_most": {"b": 2}}, [0, 3, 4]),
        ({"at_least": {"b": "0%"}, "at_most": "100%"}, [0, 1, 2]),
    ],
)
def test_quotas_in_every_form(how, expected):
    """Shares are of K = 3: at least is rounded up, at most is rounded down."""
    assert best(3, **how) == expected


def test_two_of_each_of_two_groups_are_not_three():
    with pytest.raises(ValueError, match="lower bounds that sum to 4 for k=3"):
        best(3, at_least=" 34 % ")  # 1.02 of 3


@pytest.mark.parametrize("word", ["at_least", "at_most"])
@pytest.mark.parametrize(
    ("quota", "message"),
    [
        ("2.5", "must be a whole number or a share such as '30%', got '2.5'"),
        ("101%", "must be a whole number or a share such as '30%', got '101%'"),
        ("100.1%", "must be a whole number or a share such as '30%', got '100.1%'"),
        ("-1", "must be a whole number or a share such as '30%', got '-1'"),
        ("%", "must be a whole number or a share such as '30%', got '%'"),
        (-1, "must be a whole number >= 0 or a share such as '30%', got -1"),
        (1.0, "must be a whole number >= 0 or a share such as '30%', got 1.0"),
        (True, "must be a whole number >= 0 or a share such as '30%', got True"),
        ({"c": 1}, "must name groups, got 'c'; there are a, b."),
    ],
)
def test_what_is_no_quota(word, quota, message):
    with pytest.raises(ValueError) as error:
        best(3, **{word: quota})
    assert str(error.value).startswith(f"quota_topk: {word} {message}")


def test_a_share_needs_k():
    with pytest.raises(ValueError, match=r"got '30%' \(a share needs k\)"):
        tr.plan.budget_topk([1.0, 2.0], 1.0, 2, groups=["a", "b"], at_least="30%")
    with pytest.raises(ValueError, match="got 'x'.$"):
        tr.plan.budget_topk([1.0, 2.0], 1.0, 2, groups=["a", "b"], at_least="x")


def test_several_groupings_and_one_of_the_arguments():
    own, other = Quotas(["p", "p", "q"], at_most=1), Quotas("town")
    town = {"groups": "town", "at_least": 1, "at_most": 2}
    # That of the arguments comes first.
    assert all_quotas(town | {"quotas": [own]}, "f") == [Quotas("town", 1, 2), own]
    for given, expected in ((own, [own]), ([own, other], [own, other]), (None, []), ((), [])):
        assert all_quotas({"quotas": given}, "f") == expected
    for bounds in ({"at_least": 1}, {"at_most": 1}, {"at_least": 0}):
        with pytest.raises(ValueError, match="f: at_least and at_most must come with groups"):
            all_quotas(bounds, "f")
    kept = Constraints(2, own)
    assert kept.groups == {}
    assert len(kept.groupings(SITES, "f")) == 1
    ((name, (groups, group)),) = kept.groups.items()
    assert (name, groups, group.tolist()) == ("group", ["p", "q"], [0, 0, 1])


# ---- locks and K ---------------------------------------------------------------------------------


def test_locks():
    def lock(put_in, put_out):
        return Constraints(1, (), put_in, put_out).lock(SITES, "f")

    assert lock(["a"], ["c"]).tolist() == [1, 0, -1] and lock(["a"], ["c"]).dtype == np.int8
    assert lock([], ["b"]).tolist() == [0, -1, 0] and lock(["b"], []).tolist() == [0, 1, 0]
    assert lock([], []).tolist() == [] and lock([], []).dtype == np.int8
    with pytest.raises(ValueError, match="f: a site must not be locked in and out, got 'b' in"):
        lock(["c", "b"], ["b", "c"])
    assert best(2, lock_in=["4"]) == [0, 4] and best(2, lock_out=["0"]) == [1, 2]


@pytest.mark.parametrize("k", [0, 1, 3, np.int64(2)])
def test_k_from_none_to_all(k):
    plan = tr.plan.quota_topk([3.0, 2, 1], k)
    assert len(plan.ids) == k and plan.value == sum([3, 2, 1][:k])


@pytest.mark.parametrize(
    ("k", "error", "message"),
    [
        (4, ValueError, "k must be from 0 to the number of sites S = 3, got 4"),
        (-1, ValueError, "k must be from 0 to the number of sites S = 3, got -1"),
        (True, TypeError, "k must be a whole number, got True"),
        (1.0, TypeError, "k must be a whole number, got 1.0"),
    ],
)
def test_what_is_no_k(k, error, message):
    with pytest.raises(error, match=message):
        tr.plan.quota_topk([3.0, 2, 1], k)


def test_whole_numbers():
    assert whole(0, "f", "rest") == 0 and type(whole(np.int64(3), "f", "rest")) is int
    with pytest.raises(ValueError, match="f: rest must be a whole number >= 0, got -1"):
        whole(-1, "f", "rest")
    for wrong in (True, 1.0, "1", None):
        with pytest.raises(TypeError, match="f: rest must be a whole number, got"):
            whole(wrong, "f", "rest")
