"""What a notebook shows for `topreach.plan`: signatures with all arguments, examples that run."""

from __future__ import annotations

import doctest
import inspect
import re

import pytest
import torch

import topreach as tr
from topreach.data import graph
from topreach.plan import assignment, choices, judged, networks
from topreach.plan.arguments import ChoiceArguments, read_choice, takes
from topreach.programs import arguments, planned

FUNCTIONS = [
    name for name in tr.plan.__all__ if inspect.isfunction(getattr(tr.plan, name))
    and name not in ("has_highs", "highs_version")
]  # fmt: skip


MODULES = [arguments, assignment, choices, graph, judged, networks, planned]


@pytest.mark.parametrize("name", ["Budget", "Spaced", "Connected", "Coverage", "Spillover",
                                  "CallIn", "Fair"])  # fmt: skip
def test_a_program_says_what_it_takes_and_refuses(name):
    function = getattr(tr.programs, name)
    for part in ("Args:", "Raises:", "Example:", ">>> "):
        assert part in function.__doc__, part
    shown = inspect.signature(function).parameters
    assert {"groups", "at_least", "at_most", "quotas", "lock_in", "lock_out", "gap"} <= {*shown}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_says_what_it_takes_gives_and_refuses(name):
    function = getattr(tr.plan, name)
    text = function.__doc__
    for part in ("Args:", "Returns:", "Raises:", "Example:", ">>> "):
        assert part in text, part
    parameters = inspect.signature(function).parameters.values()
    assert all(p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters)
    shared = set(ChoiceArguments.__annotations__) if "as for `quota_topk`" in text else set()
    said = set(re.findall(r"\w+", text))
    assert {p.name for p in parameters} - shared <= said


@pytest.mark.skipif(not tr.plan.has_highs(), reason="HiGHS is not installed")
@pytest.mark.parametrize("module", MODULES)
def test_examples(module):
    found = doctest.testmod(module, extraglobs={"tr": tr, "torch": torch})
    assert found.failed == 0 and found.attempted > 0


def test_shared_arguments_are_shown_with_type_and_default():
    shown = inspect.signature(tr.plan.quota_topk).parameters
    assert [*shown][:2] == ["scores", "k"] and shown["gap"].default == 1e-4
    assert shown["site"].default == "site" and shown["groups"].default is None
    assert shown["at_least"].annotation == "Quota"
    assert "period" not in inspect.signature(tr.plan.phased).parameters
    assert "effect" not in inspect.signature(tr.plan.coverage).parameters


def test_unknown_and_missing_arguments():
    with pytest.raises(TypeError, match=r"^quota_topk: got an unexpected keyword argument 'group'"):
        tr.plan.quota_topk([1.0], 1, group=["a"])
    with pytest.raises(TypeError, match=r"^coverage: missing a required argument: 'graph'"):
        tr.plan.coverage([1.0])


def test_defaults_are_filled_in_and_values_passed_on():
    @takes(ChoiceArguments)
    def asked(scores, **shared):
        return shared

    given = asked([1.0], gap=0.5, lock_in=["0"])
    assert given["gap"] == 0.5 and given["lock_in"] == ["0"] and given["effect"] is None
    choice = read_choice("asked", [1.0, 2.0], 1, asked([1.0], gap=0.5, effect=[1.0, 0.5]))
    assert choice.gap == 0.5 and choice.with_k(2).kept.k == 2 and choice.kept.k == 1
    assert choice.effect.tolist() == [1.0, 0.5]
    with pytest.raises(ValueError, match=r"asked: effect must be .* got -1 for '1'"):
        read_choice("asked", [1.0, 2.0], 1, asked([1.0], effect=[1.0, -1.0]))
