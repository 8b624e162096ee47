"""tools/mutate.py: the changes that it makes, and those that it does not make."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def mutate(monkeypatch, tmp_path):
    """The tool, with a separate root folder."""
    spec = importlib.util.spec_from_file_location("mutate", ROOT / "tools" / "mutate.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mutate", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


def changed(mutate, text, name="a.py"):
    """All versions of a text that differ from it by one change."""
    path = Path(name)
    (mutate.ROOT / path).write_text(text)
    changes = mutate.python_changes(path) if name.endswith(".py") else mutate.cpp_changes(path)
    return [change.apply(text.encode()).decode() for change in changes]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a + b", ["a - b"]),
        ("é * b", ["é / b"]),
        ("a < b <= c", ["a <= b <= c", "a < b < c"]),
        ("a is not b", ["a is b"]),
        ("a in b", ["a not in b"]),
        ("a and b or c", ["a and b and c", "a or b or c"]),
        ("not a", ["a"]),
        ("-a", ["a"]),
        ("True", ["False"]),
        ("0", ["1"]),
        ("1", ["0"]),
        ("7", ["8"]),
        ("0.5", ["1.0"]),
        ("0.0", ["1.0"]),
        ("max(a, b)", ["min(a, b)"]),
        ("t.clamp_min(c)", ["t.clamp_max(c)"]),
        ("a if b else c", ["a if not (b) else c"]),
        ("a -= b", ["a += b"]),
        ("(a) + (b)", ["(a) - (b)"]),
    ],
)
def test_changes_of_python(mutate, text, expected):
    assert sorted(changed(mutate, text)) == sorted(" ".join(e.split()) for e in expected)


@pytest.mark.parametrize(
    "text",
    [
        '"""A docstring: 1 + 1."""',
        "x: int | None",
        "def f(a: int | float) -> int | None: ...",
        "raise ValueError(f'{a + 1}')",
        "assert a < b",
        "import a",
        "__all__ = [1]",
        "warnings.warn(text, stacklevel=2)",
        "if TYPE_CHECKING:\n    a = 1 + 1",
        "@dataclass(frozen=True)\nclass A: ...",
        "zip(a, b, strict=True)",
        "# a + 1",
    ],
)
def test_what_is_left_alone_in_python(mutate, text):
    assert changed(mutate, text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a + b;", ["a - b;"]),
        ("if (a < b) break;", ["if (a <= b) break;", "if (a < b) continue;"]),
        ("x += 2.5f;", ["x -= 2.5f;", "x += 5.0f;"]),
        ("std::max(a, b);", ["std::min(a, b);"]),
        ("a && b;", ["a || b;"]),
        ("// a + 1\n", []),
        ('f("a + 1");', []),
        ("std::vector<int> a;", []),
        ("#include <a>\n", []),
        ('TR_REQUIRE(a < b, "{}", a);', []),
        ("p->q;", []),
        ("int64_t a;", []),
    ],
)
def test_changes_of_cpp(mutate, text, expected):
    assert sorted(changed(mutate, text, "a.h")) == sorted(expected)


def test_every_change_of_the_librarys_own_files_is_python(mutate, monkeypatch):
    monkeypatch.setattr(mutate, "ROOT", ROOT)
    path = Path("python/topreach/evaluation/metrics.py")
    source = (ROOT / path).read_bytes()
    changes = mutate.python_changes(path)
    assert len(changes) > 50
    for change in changes:
        assert change.apply(source) != source
        if mutate.compiles(change):
            assert ast.parse(change.apply(source))


def test_the_choice_is_the_same_for_the_same_seed(mutate, monkeypatch):
    monkeypatch.setattr(mutate, "ROOT", ROOT)
    files = [Path("python/topreach/evaluation/metrics.py"), Path("kernels/special.h")]
    first = list(mutate.chosen(files, 20, 3))
    assert first == list(mutate.chosen(files, 20, 3)) != list(mutate.chosen(files, 20, 4))
    assert len({(change.path, change.start) for change in first}) == 20


def test_every_file_of_the_library_has_tests(mutate, monkeypatch):
    monkeypatch.setattr(mutate, "ROOT", ROOT)
    for path in mutate.sources(["python/topreach"]):
        if path.name not in ("__init__.py", "__main__.py", "_library.py"):
            assert mutate.tests_of(path), f"{path}: add its tests to ROOMS of tools/mutate.py"
