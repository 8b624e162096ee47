"""From scores to a plan that can be carried out: docs/plans.md says which program suits which
situation.

Each function takes scores (a table of `ranker.rank()`, a Series by site id, or an array), solves
one program and returns a `Plan` with value, bound, gap and status.

>>> import topreach as tr
>>> ranked = ranker.rank()
>>> plan = tr.plan.quota_topk(ranked, 100, groups="municipality", at_least=1)
>>> plan.to_csv("plan.csv")
"""

from topreach.data.graph import Graph
from topreach.plan.assignment import assign
from topreach.plan.choices import budget_topk, connected, fair, phased, quota_topk, spaced
from topreach.plan.constraints import Constraints, Quotas
from topreach.plan.networks import (
    call_in,
    coverage,
    dominating_set,
    spillover,
    subgraph,
    tours,
)
from topreach.plan.plan import Plan
from topreach.plan.solver import has_highs, highs_version

__all__ = [
    "Constraints",
    "Graph",
    "Plan",
    "Quotas",
    "assign",
    "budget_topk",
    "call_in",
    "connected",
    "coverage",
    "dominating_set",
    "fair",
    "has_highs",
    "highs_version",
    "phased",
    "quota_topk",
    "spaced",
    "spillover",
    "subgraph",
    "tours",
]
