"""Whether the solver HiGHS is installed."""

from __future__ import annotations

from topreach import _C
from topreach.programs.solver import find_highs


def has_highs() -> bool:
    """Whether HiGHS is installed (`pip install highsbox`).

    Without it, nested quotas, tours and subgraphs are solved as usual. Budgets, coverage,
    representatives, spacing and connected plans come with the gap that is proved, if any. Crossing
    quotas, treatment coverage, phases and fairness need HiGHS."""
    find_highs()
    return _C.has_highs()


def highs_version() -> str:
    """Version and file, like "1.15.1 (path)". Raises RuntimeError if there is none."""
    find_highs()
    return _C.highs_version()
