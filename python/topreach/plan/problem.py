"""A program with its data, so that it can be solved again: for observed counts, for samples, or
without constraints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from topreach import _C
from topreach.plan.constraints import Constraints
from topreach.plan.inputs import Sites


@dataclass(frozen=True)
class Problem:
    """One program over S sites.

    Attributes:
        name: the function of `topreach.plan`.
        sites: ids, scores and columns.
        constraints: K, quotas, locks.
        run: (values [S], constraints) -> the solved plan. Values are scores or counts, times the
            effect.
        objective: (values [S], solved plan) -> f(values, plan), linear in the values; None if the
            plan is not judged by counts.
        effect: share [S] of a site's events that acting there prevents; None: 1.
        rows: (values [M, S], constraints) -> plans [M, S] of 0 and 1, if there is a quick way.
        free_topk: whether "without constraints" means the best sites of the same number.
    """

    name: str
    sites: Sites
    constraints: Constraints
    run: Callable[[np.ndarray, _C.PlanConstraints], _C.PlanSolved]
    objective: Callable[[np.ndarray, _C.PlanSolved], float] | None = None
    effect: np.ndarray | None = None
    rows: Callable[[np.ndarray, _C.PlanConstraints], np.ndarray] | None = None
    free_topk: bool = False

    def solve(self, values: np.ndarray, *, lock_out: list[str] | None = None) -> _C.PlanSolved:
        """The best plan for these values; `lock_out`: without these sites as well."""
        kept = self.constraints
        if lock_out:
            kept = replace(kept, lock_out=[*kept.lock_out, *lock_out])
        with self.sites.named():
            return self.run(self.scaled(values), kept.core(self.sites, self.name))

    def solve_free(self, size: int) -> _C.PlanSolved:
        """The best plan for the scores without quotas and locks; if `free_topk`, the best `size`
        sites."""
        values = self.scaled(self.sites.scores)
        if self.free_topk:
            core = _C.PlanConstraints(size, [], np.empty(0, np.int8))
            return _C.plan_quota_topk(values, core)
        with self.sites.named():
            return self.run(values, self.constraints.core(self.sites, self.name, free=True))

    def reach(self, values: np.ndarray, solved: _C.PlanSolved) -> float:
        """f(values, plan)."""
        if self.objective is None:
            raise TypeError(f"{self.name}: its plans are not judged by counts of sites.")
        return self.objective(self.scaled(values), solved)

    def scaled(self, values: np.ndarray) -> np.ndarray:
        return values if self.effect is None else values * self.effect

    def counts(self, y: Any, caller: str) -> np.ndarray:
        """Observed counts, by site id or in order, as float64 [S] (for several periods [H, S])."""
        if self.sites.periods:
            if hasattr(y, "detach"):
                y = y.detach().cpu().numpy()
            values = np.asarray(y, dtype=float)
            if values.shape != self.sites.scores.shape:
                raise ValueError(
                    f"{caller}: y must have shape {list(self.sites.scores.shape)}, got "
                    f"{list(values.shape)}."
                )
            return values
        if hasattr(y, "detach"):
            y = y.detach().cpu().numpy()
        return self.sites.numbers(y, caller, "y", 0.0)


def chosen_sum(values: np.ndarray, solved: _C.PlanSolved) -> float:
    """Sum of the values of the chosen sites."""
    return float(values[solved.chosen].sum())
