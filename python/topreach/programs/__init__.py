"""Programs: which plans are allowed. The classes are C++ objects, shared with the C++ library.

A program has `best(values)`, the allowed plan of highest value; `soft(values, sigma)`, its smoothed
version with a gradient; `solve(values)`, the plan with its bound and status; `reach(plan, y)`;
`bpr(scores, y)`; `chance(samples)`. Subclass `Program` to write one of your own: define `name`,
`config`, `check`, `size` and `best`.
"""

from __future__ import annotations

from topreach._C import Program, Solution, TopK, WithEffect
from topreach.programs.base import as_program
from topreach.programs.planned import (
    Budget,
    CallIn,
    Connected,
    Coverage,
    Fair,
    Spaced,
    Spillover,
)
from topreach.programs.quotas import Quotas, with_effect

__all__ = [
    "Budget",
    "CallIn",
    "Connected",
    "Coverage",
    "Fair",
    "Program",
    "Quotas",
    "Solution",
    "Spaced",
    "Spillover",
    "TopK",
    "WithEffect",
    "as_program",
    "with_effect",
]
