"""The GoogleTests of tests/kernels and tests/csrc, each as one test here.

Every binary runs once, with the selected tests only, and its report is read. TOPREACH_CPP_TESTS
names another build folder (CI's sanitized one, for instance).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILD = Path(os.environ.get("TOPREACH_CPP_TESTS", ROOT / "build")) / "tests"
SECONDS = 1200  # for one binary
MEND = f"{BUILD} has no GoogleTest binaries: run `make setup`"


def binaries() -> list[Path]:
    return sorted(p for p in BUILD.glob("topreach_*_tests") if os.access(p, os.X_OK))


def list_tests(binary: Path) -> list[str]:
    """Full names, `Suite.Test`. What a binary lists begins with its suites, tests indented."""
    run = subprocess.run(
        [binary, "--gtest_list_tests"], capture_output=True, text=True, timeout=120
    )
    if run.returncode:
        raise RuntimeError(f"{binary} does not start: {run.stderr}{run.stdout}")
    names, suite = [], ""
    for line in run.stdout.splitlines():
        name = line.split("#")[0].rstrip()
        if not line.startswith(" "):
            suite = name if name.endswith(".") else ""
        elif suite:
            names.append(suite + name.strip())
    return names


def environment() -> dict[str, str]:
    """With HiGHS, if its package is installed: the solver's tests are skipped without it."""
    try:
        import highsbox
    except ImportError:
        return dict(os.environ)
    return {"TOPREACH_HIGHS": str(Path(highsbox.highs_lib_dir()) / "libhighs.so")} | os.environ


def pytest_generate_tests(metafunc):
    if "cpp_test" in metafunc.fixturenames:
        tests = [(binary, name) for binary in binaries() for name in list_tests(binary)]
        ids = [f"{b.name.removeprefix('topreach_').removesuffix('_tests')}-{n}" for b, n in tests]
        metafunc.parametrize("cpp_test", tests, ids=ids)


@pytest.fixture(scope="session")
def cpp_reports(request, tmp_path_factory):
    """For a binary: what it printed, its exit status, and its report for each test."""
    reports = {}

    def report(binary: Path):
        if binary not in reports:
            callspecs = [getattr(item, "callspec", None) for item in request.session.items]
            selected = [c.params["cpp_test"] for c in callspecs if c and "cpp_test" in c.params]
            names = [name for other, name in selected if other == binary]
            output = tmp_path_factory.mktemp("cpp") / "report.json"
            filters = tmp_path_factory.mktemp("cpp") / "filter"
            filters.write_text(f"--gtest_filter={':'.join(names)}\n")
            run = subprocess.run(
                [binary, f"--gtest_flagfile={filters}", f"--gtest_output=json:{output}"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=environment(),
                timeout=SECONDS,
            )
            results = {}
            if output.exists():
                for suite in json.loads(output.read_text())["testsuites"]:
                    for test in suite["testsuite"]:
                        results[f"{suite['name']}.{test['name']}"] = test
            reports[binary] = run.stdout, run.returncode, results
        return reports[binary]

    return report


def test_binaries_are_built():
    names = [binary.name for binary in binaries()]
    assert {"topreach_kernel_tests", "topreach_csrc_tests"} <= set(names), MEND


def test_cpp(cpp_test, cpp_reports):
    binary, name = cpp_test
    printed, status, results = cpp_reports(binary)
    if name not in results:
        last = "\n".join(printed.splitlines()[-60:])
        pytest.fail(f"{binary.name} ended (status {status}) before {name}:\n{last}", pytrace=False)
    result = results[name]
    if failures := result.get("failures"):
        text = "\n".join(failure["failure"] for failure in failures)
        pytest.fail(f"{text}\n({binary} --gtest_filter={name})", pytrace=False)
    if result.get("result") == "SKIPPED":
        # Older GoogleTests leave the reason out of their report, but print it: "file:line:
        # Skipped".
        run = printed.partition(f"[ RUN      ] {name}\n")[2].partition("[  SKIPPED ]")[0]
        pytest.skip(" ".join(run.partition("Skipped\n")[2].split()) or "no reason given")
    if result.get("status") == "NOTRUN":
        pytest.skip("disabled")


@pytest.mark.parametrize("binary", binaries(), ids=lambda p: p.name)
def test_binary_ends_well(binary, cpp_reports):
    """Leaks and errors at exit belong to no single test."""
    printed, status, results = cpp_reports(binary)
    failed = any(result.get("failures") for result in results.values())
    if status and not failed:
        pytest.fail("\n".join(printed.splitlines()[-60:]), pytrace=False)
