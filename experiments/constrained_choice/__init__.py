"""Choosing K sites under quotas: training for the quota against training without it and repairing
the plan."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..context import Context, panel_digest
from . import report
from .sets import Case, cases
from .training import BY_RATIO, MODELS, QUICK, REPAIRED, Effort, arms_of, cell_key, gathered
from .training import cells as cells_of

TITLE = "Quotas: trained for the quota against trained without it and repaired; what quotas cost"


def run(context: Context) -> None:
    effort = QUICK if context.quick else Effort()
    sets = cases(context)
    figures = {name: _figures(context, name, of, effort) for name, of in sets.items()}
    first = {name: of[0] for name, of in sets.items()}
    context.table(report.prices(first, figures), "prices", title="What the quota costs")
    context.table(
        report.results(figures),
        title="Means over test periods and seeds. SIMULATED: the sets provident_*",
    )
    table, found = report.differences(figures)
    context.table(
        table,
        "differences",
        title="Paired differences in BPR_C, 95 % intervals over test periods (simulated sets: "
        "counties) and seeds",
    )
    if context.can_plot():
        context.figure(report.figure(found), "differences")


def _figures(
    context: Context, name: str, counties: list[Case], effort: Effort
) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """By model and arm, figures [units, seeds]; a unit is a test period, or a simulated county."""
    results: dict[str, Any] = {}
    for number, case in enumerate(counties):
        settings = {
            "data": panel_digest(case.panel),
            "groups": case.groups.fillna("").tolist(),
            "quota": [case.k, case.lower, case.window],
            "blocks": [list(vars(block).values()) for block in case.blocks],
            **vars(effort),
        }
        results |= context.cells(cells_of(name, number, case, effort), settings)
    found: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for model in MODELS:
        for arm in arms_of(model):
            found[model, arm] = _units(results, name, counties, model, arm)
        if MODELS[model][1] is None:
            by_ratio = found[model, REPAIRED].pop("by_ratio")
            found[model, BY_RATIO] = {"bpr_c": by_ratio}
    return found


def _units(
    results: dict[str, Any], name: str, counties: list[Case], model: str, arm: str
) -> dict[str, np.ndarray]:
    keys = [
        [cell_key(name, number, b, model, arm) for b in range(len(case.blocks))]
        for number, case in enumerate(counties)
    ]
    measured = [key for key, v in results[keys[0][0]].items() if isinstance(v, list)]
    found = {}
    for figure in measured:
        by_case = [np.array(gathered(results, of_case, figure)).T for of_case in keys]
        if counties[0].unit == "county":
            by_case = [np.nanmean(one, 0, keepdims=True) for one in by_case]
        found[figure] = np.concatenate(by_case)
    return found
