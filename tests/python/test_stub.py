"""The stub `_C.pyi` agrees with the signatures of pybind11: the same classes, members and
arguments, the same ones optional."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import topreach
from topreach import _C

PACKAGE = Path(topreach.__file__).parent
STUB = ast.parse((PACKAGE / "_C.pyi").read_text())
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}
FUNCTIONS = [node.name for node in STUB.body if isinstance(node, ast.FunctionDef)]
# Members that the stub need not repeat: object has them, or they are pybind11's own.
SILENT = {"__repr__", "__eq__", "__getstate__", "__setstate__", "__new__", "__module__", "__doc__"}
SILENT |= {"_pybind11_conduit_v1_"}


def public(owner: Any) -> set[str]:
    """Names that a class or the module defines itself."""
    names = {name for name in vars(owner) if name not in SILENT}
    return {name for name in names if not name.startswith("__") or not inspect.ismodule(owner)}


def constructs(cls: type) -> bool:
    """Whether Python may make such objects: pybind11 writes a signature for its constructors."""
    return bool(signatures(getattr(cls.__init__, "__doc__", "")))


def is_optional(annotation: ast.expr | None) -> bool:
    said = "" if annotation is None else ast.unparse(annotation)  # pybind11's form has changed
    return "None" in said.split(" | ") or "Optional[" in said


def may_be_none(argument: ast.arg) -> bool | None:
    """None for objects of the extension: pybind11 does not say whether it takes null pointers."""
    said = "" if argument.annotation is None else ast.unparse(argument.annotation)
    is_ours = re.search(r"[\w.]+", said.replace("topreach._C.", "")).group() in CLASSES
    return None if is_ours else is_optional(argument.annotation)


def signature(node: ast.FunctionDef) -> tuple[Any, ...]:
    """Each argument's name, kind, and whether it may be left out or be None; then whether the
    result may be None, or the dtype of an array."""
    given = node.args
    required = len(given.posonlyargs) + len(given.args) - len(given.defaults)
    found = []
    defaults = [*[None] * required, *given.defaults]
    for argument, default in zip([*given.posonlyargs, *given.args], defaults, strict=True):
        # pybind11 calls an argument without a name arg0, arg1, ...
        unnamed = argument in given.posonlyargs or re.fullmatch(r"arg\d", argument.arg)
        if argument.arg == "self":
            continue
        name, optional = "" if unnamed else argument.arg, may_be_none(argument)
        found.append((name, "any", default is not None, optional))
    for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        optional = may_be_none(argument)
        found.append((argument.arg, "keyword", default is not None, optional))
    returns = "" if node.returns is None else ast.unparse(node.returns)
    array = re.fullmatch(r".*\bNDArray\[(?:np|numpy)\.(\w+)\]", returns)
    nothing = "nothing" if returns == "None" else is_optional(node.returns)
    return (*found, array.group(1) if array else nothing)


def signatures(doc: str | None) -> list[tuple[Any, ...]]:
    """The signatures at the head of a pybind11 docstring."""
    found = []
    for line in (doc or "").splitlines():
        line = re.sub(r"<[^<>]*>", "...", re.sub(r"^(\d+\. )", "", line))
        line = re.sub(r"^\(", "call(", line)  # of a property
        if re.match(r"^\w+\(.*\) -> ", line) and "*args" not in line:
            node = ast.parse(f"def {line}: ...").body[0]
            assert isinstance(node, ast.FunctionDef)
            found.append(signature(node))
    return found


def result(value: property) -> bool | str:
    """Whether a property may be None, or its dtype."""
    return signatures(value.fget.__doc__)[0][-1]


def written(owner: ast.ClassDef | ast.Module, name: str) -> list[tuple[Any, ...]]:
    return [
        signature(node)
        for node in owner.body
        if isinstance(node, ast.FunctionDef) and node.name == name
    ]


def test_stub_and_mark_of_types_lie_in_the_package():
    assert (PACKAGE / "py.typed").is_file()


def test_same_names():
    assert {*CLASSES, *FUNCTIONS} == public(_C) - {"topreach"}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_functions(name):
    assert written(STUB, name) == signatures(getattr(_C, name).__doc__)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_members(name):
    cls, node = getattr(_C, name), CLASSES[name]
    assert [ast.unparse(base) for base in node.bases] == [
        base.__name__ for base in cls.__bases__ if base.__name__ != "pybind11_object"
    ]
    fields = {
        item.target.id: is_optional(item.annotation)
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    methods = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
    silent = set() if constructs(cls) else {"__init__"}
    assert {*fields, *methods} == public(cls) - silent
    for member in methods:
        value = inspect.getattr_static(cls, member)
        said = written(node, member)
        if isinstance(value, property):
            assert value.fset is None
            assert said[0][-1] == result(value), member
            continue
        if isinstance(value, staticmethod):
            value = value.__func__
        if member != "__hash__" or signatures(value.__doc__):
            assert said == signatures(value.__doc__), member
    for member, optional in fields.items():
        value = inspect.getattr_static(cls, member)
        assert isinstance(value, property) and value.fset is not None
        assert result(value) == optional, member
