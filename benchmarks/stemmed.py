"""STEMMED on Connecticut's deaths (8 counties × 5 kinds of opioid), as tasks of `make bench`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import topreach as tr
from benchmarks import native
from topreach.models import Stemmed

OURS = "topreach"
FIT = "STEMMED of Connecticut, 40 nodes: pooled fit with standard errors"
PATHS = "STEMMED of Connecticut, 40 nodes: 1,000 paths of 12 months"
KERNELS = {  # target: (start of the printed line, limit, whether "at least", unit, pattern)
    "Hawkes, N=10,000 M=45, value + gradient ≥ 2 × a plain program": (
        "N=10000 M=45", 2.0, True, "×", r"([\d.]+) times ours",
    ),
    "the same with Hessian ≤ 2.5 × that": (
        "N=10000 M=45", 2.5, False, "×", r"\+Hessian [\d.]+ \(x([\d.]+)\)",
    ),
    "the same, two threads ≥ 1.8 × one": (
        "N=10000 M=45", 1.8, True, "×", r"two threads x([\d.]+)",
    ),
    "Hawkes, N=100,000 M=300, memory of a thread ≤ 64 MB": (
        "N=100000 M=300", 64.0, False, "MB", r"([\d.]+) MB a thread",
    ),
    "futures of M=300: branching ≥ 20 × faster than thinning": (
        "futures, M=300", 20.0, True, "×", r"it; ([\d.]+) times branching",
    ),
}  # fmt: skip


@cache
def _events() -> tr.Events:
    return tr.datasets.ct_overdose_deaths(opioid=True, marks=("sex", "race"))


def _paths_task() -> dict[str, Callable[[], object]]:
    model = Stemmed().fit(_events())
    return {OURS: lambda: model.forecast(12, mode="branching", num_samples=1000)}


def _tasks() -> dict[str, Callable[[], dict[str, Callable[[], object]]]]:
    try:
        _events()
    except OSError:
        return {}
    return {
        FIT: lambda: {OURS: lambda: Stemmed().fit(_events()).summary()},
        PATHS: _paths_task,
    }


TASKS = _tasks()


def kernel(asked: str, printed: str) -> float | None:
    line, _, _, _, pattern = KERNELS[asked]
    return native.number(printed, line, pattern)
