"""Imports go downwards only, and code outside the library uses its public names."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python" / "topreach"
# A package in this list may import those before it. The loader and the extension are below all.
ROOMS = (
    "_library",
    "_C",
    "ops",
    "data",
    "distributions",
    "programs",
    "models",
    "online",
    "objectives",
    "evaluation",
    "training",
    "ranking",
    "report",
    "plan",
    "cli",
)
OUTSIDE = ("topreach_experiments", "experiments", "benchmarks", "tests")
# Folder -> the folders of the project that its files may include.
CPP_LAYERS = {
    "kernels": ("kernels",),
    "csrc/ops": ("kernels", "csrc/ops"),
    "csrc/distributions": ("kernels", "csrc/ops", "csrc/distributions"),
    "csrc/metrics": ("kernels", "csrc/ops", "csrc/metrics"),
    "csrc/programs": ("kernels", "csrc/ops", "csrc/metrics", "csrc/programs"),
    "csrc/io": ("csrc/programs", "csrc/io"),
    "csrc/models": ("kernels", "csrc/ops", "csrc/distributions", "csrc/io", "csrc/models"),
    "csrc/objectives": ("csrc/ops", "csrc/distributions", "csrc/programs", "csrc/objectives"),
}


def python_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def imports(path: Path, package: str) -> list[tuple[str, list[str]]]:
    """(module, names) of every import of a file, also those within functions; not those for type
    checkers. `package` is the package that the file is in, for relative imports."""
    found = []
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            prefix = ".".join(base) + "." if node.level else ""
            module = (prefix + (node.module or "")).rstrip(".")
            found.append((module, [alias.name for alias in node.names]))
        pending += ast.iter_child_nodes(node)
    return found


def package_of(path: Path) -> str:
    return ".".join(("topreach", *path.relative_to(PACKAGE).parent.parts))


def test_the_library_imports_nothing_that_is_built_on_it():
    wrong = [
        (str(path.relative_to(ROOT)), module)
        for path in python_files(PACKAGE)
        for module, _ in imports(path, package_of(path))
        if module.split(".")[0] in OUTSIDE
    ]
    assert not wrong


def test_rooms_import_downwards_only():
    """No circle. `topreach/__init__.py` and `__main__.py` are above all packages."""
    wrong = []
    for path in python_files(PACKAGE):
        parts = path.relative_to(PACKAGE).parts
        if len(parts) == 1:
            continue
        assert parts[0] in ROOMS, f"{parts[0]}: add the room to ROOMS, where it belongs"
        height = ROOMS.index(parts[0])
        for module, names in imports(path, package_of(path)):
            if module.split(".")[0] != "topreach":
                continue
            below = module.split(".")[1:2] or [name for name in names if name in ROOMS]
            wrong += [
                f"{path.relative_to(ROOT)} imports {room}"
                for room in below
                if room in ROOMS and ROOMS.index(room) > height
            ]
    assert not wrong


def test_every_room_says_what_is_public():
    for room in ROOMS[2:]:
        module = importlib.import_module(f"topreach.{room}")
        assert isinstance(getattr(module, "__all__", None), list), room


@pytest.mark.parametrize("folder", ["experiments", "benchmarks"])
def test_what_is_outside_uses_public_names(folder):
    """Names of a package, or of a module that a package lists in `__all__`."""
    wrong = []
    for path in python_files(ROOT / folder):
        for module, names in imports(path, folder):
            if module.split(".")[0] != "topreach" or module == "topreach" and not names:
                continue
            parts = module.split(".")[1:]
            if any(part.startswith("_") for part in parts):
                wrong.append(f"{path.relative_to(ROOT)}: {module}")
            for depth in range(1, len(parts)):
                above = importlib.import_module(".".join(("topreach", *parts[:depth])))
                if parts[depth] not in getattr(above, "__all__", ()):
                    wrong.append(f"{path.relative_to(ROOT)}: {module}")
            public = getattr(importlib.import_module(module), "__all__", None)
            for name in names:
                if name.startswith("_") or (public is not None and name not in public):
                    wrong.append(f"{path.relative_to(ROOT)}: {name} of {module}")
    assert not wrong


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s+["<]([^">]+)[">]', path.read_text(), re.MULTILINE)


def cpp_files(folder: str) -> list[Path]:
    endings = (".h", ".cpp", ".cu", ".cuh")
    return sorted(path for path in (ROOT / folder).rglob("*") if path.suffix in endings)


def test_kernels_know_no_torch():
    names = r"^(torch|ATen|c10|caffe2|pybind11|fmt)/|/csrc/"
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in cpp_files("kernels")
        for name in includes(path)
        if re.match(names, name)
    ]
    assert not wrong


@pytest.mark.parametrize("folder", CPP_LAYERS)
def test_cpp_layers_include_downwards_only(folder):
    wrong = []
    for path in cpp_files(folder):
        for name in includes(path):
            target = (path.parent / name).resolve()
            if not target.exists():
                continue  # a system header
            below = str(target.parent.relative_to(ROOT))
            if below != "csrc" and not below.startswith(CPP_LAYERS[folder]):
                wrong.append(f"{path.relative_to(ROOT)}: {name}")
    assert not wrong


def test_only_the_python_module_includes_pybind11():
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in cpp_files("csrc")
        if path.parent.name != "python"
        for name in includes(path)
        if name.startswith(("pybind11/", "torch/extension.h", "torch/python.h", "csrc/python/"))
    ]
    assert not wrong
