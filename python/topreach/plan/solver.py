"""Whether the solver HiGHS is there."""

from __future__ import annotations

from topreach import _C
from topreach.programs.solver import find_highs


def has_highs() -> bool:
    """Whether HiGHS is there. Without it: quotas that are nested, tours, subgraphs are solved as
    ever; budgets, coverage, representatives, spacing and connected plans come with the gap that is
    proved, if any; crossing quotas, treatment coverage, phases and fairness need it: `pip install
    highsbox`."""
    find_highs()
    return _C.has_highs()


def highs_version() -> str:
    """Version and file, as "1.15.1 (path)". Raises RuntimeError if there is none."""
    find_highs()
    return _C.highs_version()
