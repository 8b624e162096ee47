"""Makes small random changes in the code, and reports those that the tests do not notice.

    python tools/mutate.py                          # 20 changes, in the files changed since main
    python tools/mutate.py python/topreach/data --count 40
    python tools/mutate.py kernels/expected_topk.h --count 10

Each change is of one token: an operator, a number, a condition, the name of a function. The tests
of the changed file then run. A change that they do not notice "survives". Either a test is missing,
or the change has no visible effect (`<` instead of `<=` at a value that never occurs). A person has
to judge which.

The working tree is not changed: changes are made in a copy, under build/mutate/. C++ is slower,
because each change is compiled. The tests of a file are those with its name
(`tests/python/test_NAME.py`), and those that `ROOMS` names for its folder; --tests names others.
The exit status is 1 if fewer than --least percent of the changes are caught.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "mutate"

# The tests of a folder or of one file, in addition to `test_NAME.py`. The longest prefix applies.
ROOMS = {
    "python/topreach/cli": ["test_cli*.py", "test_newcomers.py"],
    "python/topreach/data": [
        "test_data_columns.py",
        "test_data_parts.py",
        "test_data_files.py",
        "test_table*.py",
        "test_times*.py",
        "test_panel*.py",
    ],
    "python/topreach/data/event": ["test_data_parts.py", "test_events_*.py"],
    "python/topreach/data/places.py": ["test_data_parts.py", "test_events_table.py"],
    "python/topreach/data/moments.py": ["test_data_parts.py", "test_events_table.py"],
    "python/topreach/data/time_doubts.py": ["test_times.py"],
    "python/topreach/data/leaks.py": ["test_data_parts.py", "test_table.py"],
    "python/topreach/data/files.py": ["test_files.py", "test_data_files.py"],
    "python/topreach/data/datasets": ["test_datasets.py", "test_events.py"],
    "python/topreach/data/messages.py": ["test_messages.py"],
    "python/topreach/data/standardizer.py": ["test_standardizer.py"],
    "python/topreach/distributions": [
        "test_distributions*.py",
        "test_models.py",
        "test_negbin.py",
        "test_site_mixture.py",
    ],
    "python/topreach/evaluation": ["test_metrics.py", "test_baselines.py", "test_backtest.py"],
    "python/topreach/forecasters.py": ["test_planning.py", "test_stemmed_ranker.py"],
    "python/topreach/models": ["test_models.py"],
    "python/topreach/models/stemmed": ["test_stemmed*.py"],
    "python/topreach/online": ["test_online.py"],
    "python/topreach/models/site_history.py": ["test_site_history.py", "test_features.py"],
    "python/topreach/models/negbin_mixed_effects": ["test_negbin_mixed_effects.py"],
    "python/topreach/models/marginal_fit.py": ["test_negbin_mixed_effects.py"],
    # The formulas are C++, and their tests take long. In Python there are only settings and checks.
    "python/topreach/objectives": ["test_objective_arguments.py"],
    "python/topreach/ops": [
        "test_perturbed_topk.py",
        "test_ratio_ranking.py",
        "test_expected_topk.py",
        "test_noise.py",
        "test_conditional_topk.py",
    ],
    "python/topreach/data/graph.py": [
        "test_plan_docs.py",
        "test_plan_graph.py",
        "test_plan_faults.py",
    ],
    "python/topreach/data/site_ids.py": ["test_plan_graph.py", "test_plan_faults.py"],
    "python/topreach/ops/quota.py": ["test_quota_topk.py"],
    "python/topreach/cli/plan.py": [
        "test_plan_cli.py",
        "test_plan_faults.py",
        "test_plan_options.py",
    ],
    "python/topreach/cli/plan_inputs.py": ["test_plan_cli.py", "test_plan_tables.py"],
    "python/topreach/cli/quota_options.py": ["test_quota_options.py"],
    "python/topreach/plan": [
        "test_plan_arguments.py",
        "test_plan_forms.py",
        "test_plan_shown.py",
        "test_plan_answers.py",
        "test_plan_docs.py",
        "test_plan_enumeration.py",
        "test_plan_faults.py",
        "test_plan_judged.py",
        "test_plan_tables.py",
    ],
    "python/topreach/programs": [
        "test_program_arguments.py",
        "test_quotas.py",
        "test_planned_programs.py",
    ],
    "python/topreach/ranking": [
        "test_ranker_settings.py",
        "test_ranker_parts.py",
        "test_planning.py",
        "test_ranker.py",
    ],
    "python/topreach/ranking/fitting.py": [
        "test_ranker_settings.py",
        "test_ranker_parts.py",
        "test_planning.py",
        "test_ranker.py",
        "test_stemmed_ranker.py",
    ],
    "python/topreach/ranking/settings.py": ["test_ranker_settings.py"],
    "python/topreach/report": ["test_plots.py", "test_report*.py"],
    "python/topreach/training": ["test_trainer*.py", "test_training*.py", "test_guards*.py"],
    "experiments": ["test_experiments.py", "test_experiment_benchmark.py"],
}

# Packages that take seconds to import, and do not import the library.
LARGE_PACKAGES = (
    "torch",
    "torch._dynamo",  # imported by the first training step
    "pandas",
    "pytest",
    "scipy.stats",
    "hypothesis",
    "matplotlib.pyplot",
    "networkx",
    "sklearn",
)


@dataclass(frozen=True)
class Change:
    """One change: the bytes [start, stop) of a file become `new`."""

    path: Path  # relative to the root
    start: int
    stop: int
    new: str
    line: int

    def apply(self, source: bytes) -> bytes:
        return source[: self.start] + self.new.encode() + source[self.stop :]

    def __str__(self) -> str:
        source = (ROOT / self.path).read_bytes()
        old = source[self.start : self.stop].decode()
        line = source.decode().splitlines()[self.line - 1].strip()
        return f"{self.path}:{self.line}: `{old}` -> `{self.new}` in: {line}"


# ---- the possible changes ------------------------------------------------------------------------

BINARY = {
    "+": "-",
    "-": "+",
    "*": "/",
    "/": "*",
    "//": "*",
    "%": "*",
    "**": "*",
    "&": "|",
    "|": "&",
}
COMPARE = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="}
WORDS = {"is": "is not", "is not": "is", "in": "not in", "not in": "in", "and": "or", "or": "and"}
NAMES = {
    "min": "max",
    "amin": "amax",
    "minimum": "maximum",
    "clamp_min": "clamp_max",
    "any": "all",
    "floor": "ceil",
    "sum": "mean",
    "zeros_like": "ones_like",
    "zeros": "ones",
    "exp": "expm1",
    "log": "log1p",
    "cumsum": "cumprod",
    "argmin": "argmax",
}
NAMES |= {new: old for old, new in NAMES.items()}
STATEMENTS = {"break": "continue", "continue": "break"}


def other_number(text: str) -> str:
    """Another number: 0 and 1 are exchanged, other integers rise by 1, fractions are doubled."""
    if re.fullmatch(r"\d+", text):
        return {"0": "1", "1": "0"}.get(text, str(int(text) + 1))
    match = re.fullmatch(r"([\d.]+(?:[eE][+-]?\d+)?)(f?)", text)
    if not match or float(match[1]) == 0.0:
        return "1.0"
    return f"{2 * float(match[1])!r}{match[2]}"


def python_changes(path: Path) -> list[Change]:
    """Every change of one token in a Python file.

    Left out: annotations, messages of errors and warnings, f-strings, decorators, assertions,
    imports.
    """
    source = (ROOT / path).read_bytes()
    tree = ast.parse(source)
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found: list[Change] = []

    def begin(node: ast.expr) -> int:
        return starts[node.lineno - 1] + node.col_offset

    def end(node: ast.expr) -> int:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return starts[node.end_lineno - 1] + node.end_col_offset

    def add(start: int, stop: int, new: str) -> None:
        line = source.count(b"\n", 0, start) + 1
        found.append(Change(path, start, stop, new, line))

    def between(left: ast.expr, right: ast.expr, table: dict[str, str]) -> None:
        """Adds the change of the operator between two expressions."""
        gap = source[end(left) : begin(right)].decode()
        keys = "|".join(re.escape(key) for key in sorted(table, key=len, reverse=True))
        code = re.sub(r"#[^\n]*", lambda comment: " " * len(comment[0]), gap)
        match = re.search(rf"(?<![\w=<>!*/])({keys})(?![\w=<>*/])", code)
        if match:
            offset = end(left) + len(gap[: match.start()].encode())
            add(offset, offset + len(match[1].encode()), table[match[1]])

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Raise | ast.Assert | ast.Import | ast.ImportFrom | ast.JoinedStr):
            return
        if isinstance(node, ast.Call) and "warn" in ast.unparse(node.func):
            return
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id.startswith("__") for target in node.targets
        ):
            return
        if isinstance(node, ast.If | ast.While | ast.IfExp):
            if ast.unparse(node.test) == "TYPE_CHECKING":
                return
            add(begin(node.test), end(node.test), f"not ({ast.unparse(node.test)})")
        elif isinstance(node, ast.BinOp):
            between(node.left, node.right, BINARY)
        elif isinstance(node, ast.Compare):
            for left, right in zip([node.left, *node.comparators], node.comparators):
                between(left, right, COMPARE | WORDS)
        elif isinstance(node, ast.BoolOp):
            for left, right in zip(node.values, node.values[1:]):
                between(left, right, WORDS)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
            add(begin(node), begin(node.operand), "")
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, bool):
                add(begin(node), end(node), str(not node.value))
            elif isinstance(node.value, int | float):
                text = source[begin(node) : end(node)].decode().replace("_", "")
                add(begin(node), end(node), other_number(text))
        elif isinstance(node, ast.Attribute) and node.attr in NAMES:
            add(end(node) - len(node.attr), end(node), NAMES[node.attr])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in NAMES:
                add(begin(node.func), end(node.func), NAMES[node.func.id])
        elif isinstance(node, ast.Break | ast.Continue):
            word = "break" if isinstance(node, ast.Break) else "continue"
            start = starts[node.lineno - 1] + node.col_offset
            add(start, start + len(word), STATEMENTS[word])
        elif isinstance(node, ast.AugAssign):
            start, stop = end(node.target), begin(node.value)  # type: ignore[arg-type]
            match = re.search(rb"(//|\*\*|[-+*/%&|])=", source[start:stop])
            if match:
                new = BINARY[match[1].decode()]
                add(start + match.start(1), start + match.end(1), new)
        if isinstance(node, ast.keyword) and node.arg in ("strict", "stacklevel"):
            return
        left_out = {"annotation", "returns", "decorator_list", "type_params"}
        for name, value in ast.iter_fields(node):
            if name in left_out:
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child)

    visit(tree)
    return found


CPP_TOKEN = re.compile(
    r"""(?P<skip>//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|^[
    \t]*\#[^\n]*(?:\\\n[^\n]*)*
         |<<=?|>>=?|->|::|\+\+|--|[\w:]+<[^<>;(){}&|]*>|0x[0-9a-fA-F]+\w*)
      |(?P<op><=|>=|==|!=|&&|\|\||[-+*/]=|(?<=[\w)\]][ ])[-+*/<>](?=[ ][\w(!-]))
      |(?P<number>(?<![\w.])\d+(?:\.\d*)?(?:[eE][+-]?\d+)?f?(?![\w.]))
      |(?P<word>(?<![\w.>])(?:std::)?(?:min|max|floor|ceil|exp|expm1|log|log1p)(?=\())
      |(?P<truth>\b(?:true|false|break|continue)\b)""",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
CPP_OPERATORS = BINARY | COMPARE | {"&&": "||", "||": "&&"}
CPP_OPERATORS |= {"+=": "-=", "-=": "+=", "*=": "/=", "/=": "*="}
CPP_WORDS = {"true": "false", "false": "true"} | STATEMENTS


def cpp_changes(path: Path) -> list[Change]:
    """Every change of one token in a C++ file.

    Left out: comments, strings, template arguments, preprocessor lines, requirements and their
    messages.
    """
    text = (ROOT / path).read_text()
    found = []
    for match in CPP_TOKEN.finditer(text):
        old = match[0]
        if match["op"]:
            new = CPP_OPERATORS[old]
        elif match["number"]:
            new = other_number(old)
        elif match["word"]:
            prefix, name = ("std::", old[5:]) if old.startswith("std::") else ("", old)
            new = prefix + NAMES[name]
        elif match["truth"]:
            new = CPP_WORDS[old]
        else:
            continue
        line = text.count("\n", 0, match.start()) + 1
        content = text.splitlines()[line - 1]
        if re.search(
            r"TR_REQUIRE|static_assert|constexpr.*\[\]|template|namespace|operator", content
        ):
            continue
        start = len(text[: match.start()].encode())
        found.append(Change(path, start, start + len(old.encode()), new, line))
    return found


def compiles(change: Change) -> bool:
    try:
        compile(change.apply((ROOT / change.path).read_bytes()), str(change.path), "exec")
    except SyntaxError:
        return False
    return True


# ---- the tests of a file -------------------------------------------------------------------------


def tests_of(path: Path) -> list[str]:
    """The Python tests of a file: those with its name, and those of its folder."""
    folder = ROOT / "tests" / "python"
    rooms = [room for room in ROOMS if str(path).startswith(room)]
    patterns = [f"test_{path.stem}.py", *(ROOMS[max(rooms, key=len)] if rooms else [])]
    found = dict.fromkeys(file for pattern in patterns for file in sorted(folder.glob(pattern)))
    return [str(file.relative_to(ROOT)) for file in found]


class PythonTests:
    """Runs tests on a copy of the Python package in which one file is changed.

    A process that has imported the large packages forks for every change, which saves seconds.
    """

    def __init__(self, tests: list[str] | None, timeout: float):
        self._tests, self._timeout = tests, timeout
        self._limits: dict[tuple[str, ...], float] = {}
        self._folder = WORK / "python"
        shutil.rmtree(self._folder, ignore_errors=True)
        self._copy(ROOT / "python" / "topreach", self._folder / "topreach")
        self._copy(ROOT / "experiments", self._folder / "topreach_experiments")
        os.environ["PYTHONPATH"] = str(self._folder)
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        sys.path.insert(0, str(self._folder))
        for name in LARGE_PACKAGES:
            try:
                __import__(name)
            except ImportError:
                pass
        if "hypothesis" in sys.modules:  # the same examples for each change, and none are stored
            from hypothesis import settings

            settings.register_profile("mutate", derandomize=True, database=None)
            settings.load_profile("mutate")

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        """Python files are copied; built files are linked."""
        target.mkdir(parents=True)
        for item in source.iterdir():
            if item.name in ("lib", "include", "share", "bin") or item.suffix == ".so":
                (target / item.name).symlink_to(item)
            elif item.is_dir() and item.name != "__pycache__":
                PythonTests._copy(item, target / item.name)
            elif item.is_file():
                shutil.copy2(item, target / item.name)

    def notice(self, change: Change) -> str | None:
        """How the change was noticed, or None."""
        tests = self._tests or tests_of(change.path)
        if not tests:
            raise SystemExit(f"mutate: no tests are known for {change.path}: name them by --tests")
        limit = self._baseline(tuple(tests))
        target = self._place(change.path)
        original = target.read_bytes()
        target.write_bytes(change.apply(original))
        try:
            status = self._run(tests, limit)
        finally:
            target.write_bytes(original)
        return None if status == 0 else "too slow" if status is None else "caught"

    def _place(self, path: Path) -> Path:
        parts = path.parts
        if parts[0] == "experiments":
            return self._folder.joinpath("topreach_experiments", *parts[1:])
        return self._folder.joinpath(*parts[1:])

    def _baseline(self, tests: tuple[str, ...]) -> float:
        key = tuple(sorted(tests))
        if key not in self._limits:
            started = time.perf_counter()
            status = self._run(list(tests), self._timeout)
            if status != 0:
                log = (WORK / "log").read_text()[-3000:]
                raise SystemExit(f"mutate: the tests fail without any change: {tests}\n{log}")
            seconds = time.perf_counter() - started
            print(f"mutate: {' '.join(tests)} take {seconds:.0f} s", file=sys.stderr, flush=True)
            self._limits[key] = _limit(seconds)
        return self._limits[key]

    def _run(self, tests: list[str], limit: float) -> int | None:
        """The exit status of pytest, or None if it was too slow."""
        child = os.fork()
        if child == 0:
            os.setsid()
            with open(WORK / "log", "wb") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            os.chdir(ROOT)
            sys.dont_write_bytecode = True
            import pytest

            options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
            os._exit(int(pytest.main([*options, *tests])))
        return _wait(child, limit)


def _limit(seconds: float) -> float:
    """Seconds after which a run counts as too slow, by those that it takes without a change."""
    return max(30.0, 4 * seconds)


def _wait(child: int, limit: float) -> int | None:
    until = time.monotonic() + limit
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


class CppTests:
    """Builds the GoogleTests in a copy of the sources in which one file is changed, and runs
    them."""

    def __init__(self, filters: list[str] | None, timeout: float):
        self._filter = ":".join(filters or ["*"])
        self._timeout = timeout
        self._source, self._build = WORK / "cpp", WORK / "cpp-build"
        listed = subprocess.run(
            ["git", "ls-files", "CMakeLists.txt", "cmake", "csrc", "kernels", "tests"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in listed.stdout.split():
            target = self._source / name
            if not (ROOT / name).exists():
                continue
            if not target.exists() or target.read_bytes() != (ROOT / name).read_bytes():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, target)
        bin = Path(sys.executable).parent
        self._ninja = shutil.which("ninja", path=str(bin)) or "ninja"
        cmake = shutil.which("cmake", path=str(bin)) or "cmake"
        arguments = ["-S", self._source, "-B", self._build, "-G", "Ninja", "-DTOPREACH_TESTS=ON"]
        arguments += ["-DTOPREACH_CUDA=off", "-DTOPREACH_PYTHON=ON"]
        arguments += [
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DCMAKE_MAKE_PROGRAM={self._ninja}",
        ]
        os.environ |= {"CCACHE_NOHASHDIR": "1", "CCACHE_BASEDIR": str(self._source)}
        subprocess.run([cmake, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
        self._limits: dict[str, float] = {}

    def notice(self, change: Change) -> str | None:
        """How the change was noticed, or None."""
        kernels = change.path.parts[0] == "kernels"
        targets = ["topreach_kernel_tests"] if kernels else ["topreach_csrc_tests"]
        for target in targets:
            if target not in self._limits:
                if self._make(target):
                    raise SystemExit(f"mutate: {target} is not built; see {WORK}/log")
                started = time.perf_counter()
                if self._run(target, self._timeout) != 0:
                    raise SystemExit(f"mutate: {target} fails without any change; see {WORK}/log")
                self._limits[target] = _limit(time.perf_counter() - started)
        place = self._source / change.path
        original = place.read_bytes()
        place.write_bytes(change.apply(original))
        try:
            for target in targets:
                if self._make(target):
                    return "does not compile"
                status = self._run(target, self._limits[target])
                if status != 0:
                    return "too slow" if status is None else "caught"
        finally:
            place.write_bytes(original)
        return None

    def _make(self, target: str) -> int:
        jobs = os.environ.get("MAX_JOBS", "2")
        command = [self._ninja, "-C", str(self._build), "-j", jobs, target]
        with open(WORK / "log", "wb") as log:
            return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode

    def _run(self, target: str, limit: float) -> int | None:
        command = [self._build / "tests" / target, f"--gtest_filter={self._filter}"]
        command.append("--gtest_fail_fast")
        with open(WORK / "log", "wb") as log:
            try:
                run = subprocess.run(command, stdout=log, stderr=log, timeout=limit)
            except subprocess.TimeoutExpired:
                return None
        return run.returncode


# ---- the command ---------------------------------------------------------------------------------


def sources(paths: list[str]) -> list[Path]:
    """The named files, the files in named folders, or those changed since main if none is named."""
    if not paths:
        base = subprocess.run(
            ["git", "merge-base", "HEAD", "origin/main"], cwd=ROOT, capture_output=True, text=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "diff", "--name-only", base or "HEAD"], cwd=ROOT, capture_output=True, text=True
        )
        paths = [name for name in changed.stdout.split() if (ROOT / name).exists()]
        paths = [p for p in paths if p.startswith(("python/", "experiments/", "kernels/", "csrc/"))]
    found: list[Path] = []
    for name in paths:
        path = (ROOT / name).resolve()
        if not path.exists():
            raise SystemExit(f"mutate: PATH must be a file or a folder, got {name}")
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        found += [file.relative_to(ROOT) for file in files if file.suffix in (".py", ".h", ".cpp")]
    # Without files that a build has put there.
    return [path for path in found if not {"__pycache__", "include"} & set(path.parts)]


def chosen(files: list[Path], count: int, seed: int) -> Iterator[Change]:
    """Random changes, at most one for each place; the same seed and sources give the same ones."""
    every = [
        change
        for path in files
        for change in (python_changes(path) if path.suffix == ".py" else cpp_changes(path))
    ]
    random.Random(seed).shuffle(every)
    taken: set[tuple[Path, int]] = set()
    for change in every:
        if len(taken) == count:
            return
        if (change.path, change.start) in taken:
            continue
        if change.path.suffix == ".py" and not compiles(change):
            continue
        taken.add((change.path, change.start))
        yield change


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help="files and folders")
    parser.add_argument("--count", type=int, default=20, metavar="N", help="changes to try (20)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which changes (0)")
    parser.add_argument("--tests", nargs="+", metavar="T", help="test files; GoogleTest's filters")
    parser.add_argument("--timeout", type=float, default=900.0, metavar="S", help="of a run (900)")
    parser.add_argument(
        "--least", type=float, default=0.0, metavar="P", help="percent to catch (0)"
    )
    parser.add_argument("--list", action="store_true", help="list the changes and do nothing")
    options = parser.parse_args()
    changes = list(chosen(sources(options.paths), options.count, options.seed))
    if options.list:
        print("\n".join(map(str, changes)))
        return 0
    if not changes:
        print("mutate: nothing to change in these files")
        return 0
    WORK.mkdir(parents=True, exist_ok=True)
    runners: dict[bool, PythonTests | CppTests] = {}
    survivors, caught = [], 0
    for number, change in enumerate(changes, 1):
        python = change.path.suffix == ".py"
        if python not in runners:
            runners[python] = (PythonTests if python else CppTests)(options.tests, options.timeout)
        noticed = runners[python].notice(change)
        caught += noticed in ("caught", "too slow")
        if noticed is None:
            survivors.append(change)
        print(f"{number}/{len(changes)} {noticed or 'SURVIVED'}: {change}", flush=True)
    tried = caught + len(survivors)
    share = 100 * caught / max(1, tried)
    print(f"\n{caught} of {tried} changes caught ({share:.0f} %), seed {options.seed}.")
    if survivors:
        print("These survived:")
        print("\n".join(f"  {change}" for change in survivors))
    return int(share < options.least)


if __name__ == "__main__":
    sys.exit(main())
