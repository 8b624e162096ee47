"""The meaning of the arguments of programs: limits, groups, locks and costs give the same program
in every form that they may have; arguments without meaning are refused."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import topreach as tr
from topreach import _C
from topreach.programs import Quotas, with_effect
from topreach.programs import solver as solver_module

AB = ["a", "a", "a", "b", "b"]
IDS = ["s0", "s1", "s2", "s3", "s4"]
FREE = 5  # an upper limit that is none: the number of sites


def group_names(grouping):
    """The name of each site's group, "" for none."""
    return [grouping.groups[g] if g >= 0 else "" for g in grouping.group]


def limits(program, place=0):
    """{group: (lower, upper)} of one of a program's groupings."""
    grouping = program.groupings[place]
    pairs = zip(grouping.lower, grouping.upper, strict=True)
    return dict(zip(grouping.groups, pairs, strict=True))


# ---- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        (0, None, {"a": (0, FREE), "b": (0, FREE)}),
        (1, 2, {"a": (1, 2), "b": (1, 2)}),
        ([1], [2], {"a": (1, 2), "b": (1, 2)}),
        ((1,), (2,), {"a": (1, 2), "b": (1, 2)}),
        ({"a": 1}, None, {"a": (1, FREE), "b": (0, FREE)}),
        ({"b": 1}, {"a": 2}, {"a": (0, 2), "b": (1, FREE)}),
        (pd.Series({"a": 1, "b": 2}), pd.Series({"a": 2}), {"a": (1, 2), "b": (2, FREE)}),
        (pd.Series({"a": np.nan, "b": 1}), {"a": None}, {"a": (0, FREE), "b": (1, FREE)}),
        ({" a ": "40%"}, {"b": "40%"}, {"a": (2, FREE), "b": (0, 1)}),
    ],
)
def test_limits_in_every_form(lower, upper, expected):
    """40 % of K = 3 is 1.2: two at least, one at most. A group without an entry has no limit."""
    assert limits(Quotas(3, AB, lower, upper)) == expected


def test_limits_of_several_groupings():
    table = pd.DataFrame({"town": AB, "all": "x"}, index=IDS)
    for lower in ({"town": 1, "all": 3}, [1, 3], (1, 3)):
        program = Quotas(3, table, lower, {"town": {"a": 2}})
        assert limits(program) == {"a": (1, 2), "b": (1, FREE)}
        assert limits(program, 1) == {"x": (3, FREE)}
    alone = Quotas(3, table, {"all": 3})  # a grouping without an entry has no limit
    assert limits(alone) == {"a": (0, FREE), "b": (0, FREE)}
    assert limits(Quotas(3, table, 1)) == {"a": (1, FREE), "b": (1, FREE)}  # one for all
    assert limits(Quotas(3, table, 1), 1) == {"x": (1, FREE)}
    one = pd.DataFrame({"town": AB})  # of one column, a mapping is from groups
    assert limits(Quotas(3, one, {"b": 1})) == {"a": (0, FREE), "b": (1, FREE)}
    with pytest.raises(ValueError, match="must be a mapping from groupings, town, all, got 'city'"):
        Quotas(3, table, {"city": 1})
    for wrong in ([1], [1, 2, 3]):
        message = f"lower must have an entry for each of 2 groupings, got {len(wrong)}"
        with pytest.raises(ValueError, match=message):
            Quotas(3, table, wrong)


# ---- groups --------------------------------------------------------------------------------------

BY_ID = dict(zip(IDS, AB, strict=True))


@pytest.mark.parametrize(
    ("groups", "label", "sites"),
    [
        (pd.Series(AB, IDS, name="town"), "town", IDS),
        (pd.Series(AB, IDS), "group", IDS),
        (BY_ID, "group", IDS),
        (pd.DataFrame({"town": AB}, index=IDS), "town", IDS),
        (AB, "group", []),
        (tuple(AB), "group", []),
        (np.array(AB), "group", []),
        (pd.Index(AB), "group", []),
        ([AB], "group", []),
        ((np.array(AB),), "group", []),
    ],
)
def test_groups_in_every_form(groups, label, sites):
    program = Quotas(2, groups, lower=1)
    (grouping,) = program.groupings
    assert (group_names(grouping), grouping.name, program.sites) == (AB, label, sites)
    if not isinstance(groups, pd.DataFrame) and len(groups) == 5:
        assert Quotas(2, groups, label="city").groupings[0].name == "city"
    assert program.best(torch.arange(5.0)).tolist() == [0, 0, 1, 0, 1]


def test_a_group_is_text_and_a_blank_is_none():
    """1.0 is how pandas reads 1 beside a blank; 1.5 is a name of its own."""
    given = [1.0, np.float32(2), np.float64(1), 1.5, " x ", "  ", None, np.nan, pd.NA, 7]
    (grouping,) = Quotas(1, given).groupings
    assert group_names(grouping) == ["1", "2", "1", "1.5", "x", "", "", "", "", "7"]
    assert grouping.groups == ["1", "2", "1.5", "x", "7"]
    assert group_names(Quotas(1, torch.tensor([3, 4, 3])).groupings[0]) == ["3", "4", "3"]


def test_groupings_of_the_same_sites_in_another_order():
    """The second is put in the order of the first, by id."""
    other = pd.Series(["x", "x", "y", "y", "y"], IDS[::-1])
    program = Quotas(2, [pd.Series(AB, IDS), other])
    assert program.sites == IDS
    assert group_names(program.groupings[1]) == ["y", "y", "y", "x", "x"]
    assert [g.name for g in program.groupings] == ["group", "group"]
    for wrong in (other.rename({"s0": "s9"}), other[:4], ["x"] * 5):
        with pytest.raises(ValueError, match="groups must be of the same sites in every grouping"):
            Quotas(2, [pd.Series(AB, IDS), wrong])
    with pytest.raises(ValueError, match="groups must be of the same sites in every grouping"):
        Quotas(2, [AB, AB[:4]])


@pytest.mark.parametrize(
    ("groups", "error", "match"),
    [
        ("abc", TypeError, "got str"),
        (b"abc", TypeError, "got bytes"),
        ({"a", "b"}, TypeError, "got set"),
        (3, TypeError, "got int"),
        (tr.programs.TopK(1), TypeError, "groups must be groups of sites, got a Program"),
        (pd.DataFrame(index=IDS), ValueError, "groups must have a column, got none"),
        ([None, " "], ValueError, "groups must name the group of some site, got none"),
        ([], ValueError, "groups must name the group of some site, got none"),
    ],
)
def test_what_are_no_groups(groups, error, match):
    with pytest.raises(error, match=match):
        Quotas(1, groups)


# ---- locks ---------------------------------------------------------------------------------------


def test_locks_by_id_and_by_position():
    values = torch.tensor([1.0, 2, 3, 4, 5])
    by_id = Quotas(2, BY_ID, lock_in=["s0"], lock_out=["s4"])
    by_place = Quotas(2, AB, lock_in=np.array([0]), lock_out=[np.int64(4)])
    for program in (by_id, by_place):
        assert program.best(values).tolist() == [1, 0, 0, 1, 0]
        assert program.config()["lock"] == [1, 0, 0, 0, -1]
    assert Quotas(2, BY_ID, lock_out=["s4"]).best(values).tolist() == [0, 0, 1, 1, 0]
    assert Quotas(2, {1: "a", 2: "a"}, lock_in=[1]).config()["lock"] == [1, 0]  # ids are text
    assert Quotas(1, AB, lock_in=[4]).best(-values).tolist() == [0, 0, 0, 0, 1]  # the last place
    assert Quotas(2, AB).config().get("lock", []) == []
    everywhere = Quotas(2, AB[:2], lock_in=[0, 1])
    assert everywhere.config()["lock"] == [1, 1]


@pytest.mark.parametrize("wrong", [-1, 5, True, 1.0, "s1", None])
def test_what_is_no_position(wrong):
    for word in ("lock_in", "lock_out"):
        with pytest.raises(ValueError, match=f"{word} must be positions from 0 to 4"):
            Quotas(2, AB, **{word: [wrong]})


def test_what_cannot_be_locked():
    with pytest.raises(TypeError, match="lock_in must be a list of sites, got the string 's0'"):
        Quotas(2, BY_ID, lock_in="s0")
    with pytest.raises(ValueError, match="lock_out must be sites of groups, got 's9'."):
        Quotas(2, BY_ID, lock_out=["s0", "s9"])
    for groups, site in ((BY_ID, "s1"), (AB, 1)):
        with pytest.raises(ValueError, match=f"no site in common, got {site!r}"):
            Quotas(2, groups, lock_in=[site], lock_out=[site])


# ---- K instead of a program ----------------------------------------------------------------------


def test_a_whole_number_is_the_best_k_sites():
    for k in (1, 3, np.int64(3)):
        made = tr.programs.as_program(k)
        assert isinstance(made, tr.programs.TopK) and made.k == k
    own = tr.programs.TopK(2)
    assert tr.programs.as_program(own) is own
    for wrong in (True, 2.0, "2", None):
        with pytest.raises(TypeError, match="f: k must be a whole number >= 1 or a Program"):
            tr.programs.as_program(wrong, "f")
    for low in (0, -1):
        with pytest.raises(ValueError, match=f"f: k must be a whole number >= 1, got {low}"):
            tr.programs.as_program(low, "f")


# ---- effects -------------------------------------------------------------------------------------


def test_effects_in_every_form():
    effect = [0.5, 0.0, 1.0]
    values = torch.tensor([3.0, 9.0, 1.0], dtype=torch.float64)
    for given, sites in (
        (effect, []),
        (torch.tensor(effect), []),
        (np.array(effect), []),
        (pd.Series(effect, list("xyz")), list("xyz")),
        ({"x": 0.5, "y": 0.0, "z": 1.0}, list("xyz")),
        ({1: 0.5, 2: 0.0, 3: 1.0}, list("123")),
    ):
        program = with_effect(1, given)
        assert program.effect == effect and program.config().get("effect_sites", []) == sites
        assert program.best(values).tolist() == [1, 0, 0]
    for shape in ((), (1, 3)):
        with pytest.raises(ValueError, match="effect must have shape .S., got"):
            with_effect(1, torch.ones(shape))
    with pytest.raises(ValueError, match="effect must name a site once, got 'y' twice"):
        with_effect(1, pd.Series(effect, ["x", "y", "y"]))


# ---- programs solved by search -------------------------------------------------------------------

PATH = tr.Graph.from_edges([("a", "b"), ("b", "c"), ("c", "d")])


def test_defaults_are_those_that_the_documentation_says():
    """A treated person saves all, their neighbour half; a person who is called comes, and tells."""
    every = {"treated": [1.0] * 4, "spilled": [0.5] * 4, "compliance": [1.0] * 4}
    config = tr.programs.Spillover(2, PATH).config()
    assert {name: config[name] for name in every} == every
    config = tr.programs.CallIn(2, PATH).config()
    assert config["comes"] == config["passes"] == [1.0] * 4
    signature = inspect.signature(Quotas.__init__).parameters
    assert signature["lower"].default == 0 and signature["upper"].default is None


def test_the_network_of_a_program_is_that_of_the_graph():
    """Each edge once, by rows of the graph's ids."""
    config = tr.programs.Coverage(2, PATH).config()
    pairs = list(zip(config["from"], config["to"], strict=True))
    assert sorted(pairs) == [(0, 1), (1, 2), (2, 3)]
    assert config["sites"] == PATH.ids == list("abcd") and config["k"] == 2


def test_costs_by_id_by_position_and_as_one_number():
    costs = pd.Series([3.0, 2.0, 1.0], [7, 8, 9])
    program = tr.programs.Budget(3, costs)
    assert program.config()["cost"] == [3, 2, 1] and program.config()["sites"] == ["7", "8", "9"]
    other = tr.programs.Budget(3, costs, sites=[9, 7, 8])
    assert other.config()["cost"] == [1, 3, 2] and other.config()["sites"] == ["9", "7", "8"]
    assert tr.programs.Budget(3, [3, 2, 1]).config().get("sites", []) == []
    same = tr.programs.Budget(3, 1.5, sites=list("xyz"))
    assert same.config()["cost"] == [1.5] * 3
    # Two columns by id are matched with each other, in the order of the first.
    x, y = pd.Series([1.0, 2.0], ["p", "q"]), pd.Series([20.0, 10.0], ["q", "p"])
    spaced = tr.programs.Spaced(1, x, y, 1.0).config()
    assert (spaced["sites"], spaced["x"], spaced["y"]) == (["p", "q"], [1, 2], [10, 20])


def test_how_long_and_how_close():
    config = tr.programs.Budget(3, [1.0], 1, gap=0.25, time=7).config()
    assert (config["k"], config["gap"], config["time"]) == (1, 0.25, 7)
    usual = tr.programs.Budget(3, [1.0]).config()
    endless = tr.programs.Budget(3, [1.0], time=float("inf")).config()
    assert endless == usual and "time" not in usual and usual.get("k", -1) == -1
    with pytest.raises(TypeError, match="Budget: got an unexpected keyword argument 'slack'"):
        tr.programs.Budget(3, [1.0], slack=1, wait=2)


# ---- the solver ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("platform", "ending"), [("linux", ".so"), ("darwin", ".dylib")])
def test_where_highs_is_found(platform, ending, monkeypatch, tmp_path):
    """In the first folder of the package that holds it; no package, or one without, says
    nothing."""
    said = []
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(_C, "set_highs_library", said.append)
    find = solver_module.find_highs.__wrapped__
    folders = [tmp_path / "empty", tmp_path / "one", tmp_path / "two"]
    libraries = [folder / "highs_dist" / "lib" / f"libhighs{ending}" for folder in folders]
    for library in libraries:
        library.parent.mkdir(parents=True)

    def package(found):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)

    for nothing in (None, SimpleNamespace(submodule_search_locations=None)):
        package(nothing)
        find()
    package(SimpleNamespace(submodule_search_locations=[str(folder) for folder in folders]))
    find()
    assert said == []
    for library in libraries[1:]:
        library.write_bytes(b"")
    find()
    assert said == [str(libraries[1])]
