"""Settings and fixtures of all tests."""

import contextlib
import fcntl
import os
from pathlib import Path

# `make test` runs several workers. Each takes its share of the cores, since more threads than cores
# wait for each other. This is set before torch is imported, and for processes that tests start.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _WORKERS > 1:
    _CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(_name, str(max(1, (_CORES or 1) // _WORKERS)))

import pytest  # noqa: E402
import torch  # noqa: E402
import torch.compiler  # noqa: E402

# torch.compile keeps graphs on disk for any build of this library. A graph of an earlier build may
# call an operator whose arguments have changed since.
torch.compiler.config.force_disable_caches = True


def pytest_collection_modifyitems(items):
    """Skip tests of torch.compile if a folder's name has a space: its C++ build cannot use it."""
    if " " not in str(Path(torch.__file__)):
        return
    skip = pytest.mark.skip(reason="torch.compile: torch lies in a folder with a space in its name")
    for item in items:
        if "test_compiled_" in item.name or "test_a_compiled_" in item.name:
            item.add_marker(skip)


@contextlib.contextmanager
def locked(path):
    """Holds a lock that the other workers wait for."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def quick_run(tmp_path_factory):
    """A function from an experiment's name to the folder of its short run, made once for all
    workers.

    TOPREACH_QUICK_RUNS may name the output folder of `topreach experiment all --quick`, whose
    finished parts are then used.
    """
    from topreach.cli import main

    given = os.environ.get("TOPREACH_QUICK_RUNS")
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    root = Path(given) if given else shared / "quick"
    root.mkdir(exist_ok=True)
    done = {}

    def run(name):
        if name not in done:
            folder = root / f"topreach-{name}"
            arguments = ["experiment", name, "--quick", "--quiet", "--out", str(folder)]
            with locked(root / f"{name}.lock"):
                # Parts that another worker has finished are taken from its files.
                assert main(arguments) == 0
            done[name] = folder
        return done[name]

    return run
