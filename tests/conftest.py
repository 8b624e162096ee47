"""What holds for all tests."""

import os
from pathlib import Path

import pytest
import torch
import torch.compiler

# torch.compile keeps graphs on disk without regard to the build of this library: one of an earlier
# build may call an operator whose arguments have changed since.
torch.compiler.config.force_disable_caches = True


def pytest_collection_modifyitems(items):
    """torch.compile's own C++ build takes no folder with a space in its name."""
    if " " not in str(Path(torch.__file__)):
        return
    skip = pytest.mark.skip(reason="torch.compile: torch lies in a folder with a space in its name")
    for item in items:
        if "test_compiled_" in item.name or "test_a_compiled_" in item.name:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def quick_run(tmp_path_factory):
    """By its name, the results of an experiment's short run, done once a session. TOPREACH_QUICK_RUNS
    may name the folder of a `topreach experiment all --quick`, whose finished parts are taken."""
    from topreach.cli import main

    root = Path(os.environ.get("TOPREACH_QUICK_RUNS") or tmp_path_factory.mktemp("quick"))
    done = {}

    def run(name):
        if name not in done:
            folder = root / f"topreach-{name}"
            arguments = ["experiment", name, "--quick", "--quiet", "--out", str(folder)]
            assert main(arguments) == 0
            done[name] = folder
        return done[name]

    return run
