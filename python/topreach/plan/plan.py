"""`Plan`: the result of a program of `topreach.plan`."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pandas as pd

from topreach import _C
from topreach.data.files import atomic_path
from topreach.plan import judged
from topreach.plan.problem import Problem


class Plan:
    """A plan that can be carried out, with a bound on the value of any plan.

    Attributes:
        program: the function that made it.
        status: "optimal" (the gap is at most 1e-6, or the gap asked for), "feasible" (a larger
            gap), "heuristic" (no bound is known) or "infeasible" (there is no plan; `notes` may say
            more).
        ids: the chosen sites, best first. value, bound, gap: of the program's objective; None if
            there is no bound.
        seconds: time that it took. numbers: further figures, by name ("reach", "cost", ...).
        tours: ids of each tour in order, best first (`tours` only); of each period (`phased`).
        edges: pairs of ids (`subgraph`). flows: who is sent where (`assign`).
        essential, replaceable: ids (`subgraph`).
        notes: remarks, one sentence each.
    """

    def __init__(
        self,
        problem: Problem,
        solved: _C.PlanSolved,
        table: pd.DataFrame | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        self._problem = problem
        self._solved = solved
        self._table = table
        self._extra = extra or {}
        sites = problem.sites
        self.program = problem.name
        self.status: str = solved.status
        self.value: float | None = None if solved.status == "infeasible" else solved.value
        self.bound: float | None = solved.bound if self.value is not None else None
        self.gap: float | None = solved.gap if self.value is not None else None
        self.seconds: float = solved.seconds
        self.numbers: dict[str, float] = solved.numbers
        self.notes: list[str] = [*problem.constraints.notes(), *solved.notes]
        scores = sites.scores if sites.scores.ndim == 1 else sites.scores.sum(axis=0)
        order = solved.chosen[np.argsort(-scores[solved.chosen], kind="stable")]
        self.ids: list[str] = [sites.ids[i] for i in order]
        self.tours: list[list[str]] = [[sites.ids[i] for i in part] for part in solved.parts]
        self.edges: list[tuple[str, str]] = (
            []
            if "flows" in self._extra
            else [(sites.ids[a], sites.ids[b]) for a, b in solved.edges]
        )
        self.essential: list[str] = [sites.ids[i] for i in solved.essential]
        self.replaceable: list[str] = [sites.ids[i] for i in solved.replaceable]
        self.flows: pd.DataFrame | None = self._extra.get("flows")
        self.places: pd.DataFrame | None = self._extra.get("places")

    def __repr__(self) -> str:
        if self.value is None:
            return f"Plan({self.program}, infeasible)"
        gap = "" if not self.gap else f", gap {100 * self.gap:.2g} %"
        return (
            f"Plan({self.program}, {len(self.ids)} sites, value {self.value:.6g}, "
            f"{self.status}{gap})"
        )

    @property
    def reach(self) -> float | None:
        """People or events reached, if the program reports it."""
        return self.numbers.get("reach")

    @property
    def mask(self) -> np.ndarray:
        """Float64 [S] of zeros and ones, in the order of the scores."""
        mask = np.zeros(len(self._problem.sites.ids))
        mask[self._solved.chosen] = 1
        return mask

    # ---- as a table and as files ----------------------------------------------------------------

    def to_frame(self, *, all_sites: bool = False) -> pd.DataFrame:
        """A row for each chosen site, best first: site, score, the score table's other columns,
        and the program's own (tour and stop, period, role, chance reached).

        Args:
            all_sites: also those that are not chosen; adds `selected`.
        """
        if self._table is not None:
            return self._table.copy()
        sites = self._problem.sites
        if sites.periods:
            rows = [
                {"time": label, "site": site, "score": sites.scores[t, sites.ids.index(site)]}
                for t, (label, part) in enumerate(zip(sites.periods, self.tours, strict=False))
                for site in part
            ]
            return pd.DataFrame(rows, columns=["time", "site", "score"])
        frame = pd.DataFrame({"site": sites.ids, "score": sites.scores})
        for name in sites.table.columns:
            if name not in ("score", "selected", "rank"):
                frame[name] = sites.table[name].to_numpy()
        for name, column in self._solved.columns.items():
            if len(column) == len(frame):
                frame[name] = column
        if self.program == "tours":
            tour, stop = np.zeros(len(frame), int), np.zeros(len(frame), int)
            for number, part in enumerate(self._solved.parts, 1):
                tour[part], stop[part] = number, np.arange(1, len(part) + 1)
            frame["tour"], frame["stop"] = tour, stop
        if "roles" in self._extra:
            frame["role"] = self._extra["roles"]
        frame["selected"] = self.mask > 0
        by = ["tour", "stop"] if "tour" in frame else ["score"]
        frame = frame.sort_values(
            ["selected", *by], ascending=[False, *[b != "score" for b in by]], kind="stable"
        )
        if not all_sites:
            frame = frame[frame["selected"]].drop(columns="selected")
        return frame.reset_index(drop=True)

    @property
    def table(self) -> pd.DataFrame:
        """`to_frame()`."""
        return self.to_frame()

    def to_csv(self, path: str | os.PathLike, *, all_sites: bool = False) -> None:
        """`to_frame` as a file, whole or not at all; "-" is standard output."""
        with atomic_path(path, standard_output=True) as temporary:
            self.to_frame(all_sites=all_sites).to_csv(temporary, index=False)

    def to_geojson(
        self, path: str | os.PathLike, geometry: Any = None, *, all_sites: bool = False
    ) -> None:
        """The plan as a map layer: a feature for each site; see `topreach.plan.maps.geometries`
        for `geometry`."""
        from topreach.plan.maps import write_geojson

        write_geojson(self, path, geometry, all_sites=all_sites)

    def plot(self, geometry: Any = None, *, ax: Any = None) -> Any:
        """The plan on a map; without coordinates the scores as bars. Returns the axes."""
        from topreach.plan.maps import plot_plan

        return plot_plan(self, geometry, ax=ax)

    # ---- judged ---------------------------------------------------------------------------------

    def evaluate(self, y: Any, *, groups: Any = None, area: Any = None) -> dict[str, Any]:
        """How good the plan was, by observed counts; see `topreach.plan.judged.evaluate`."""
        return judged.evaluate(self, y, groups=groups, area=area)

    def stability(self, samples: Any) -> tuple[pd.Series, float]:
        """How often each site is in the best plan of a draw, by id, and the mean share of this
        plan that those plans share; see `topreach.plan.judged.stability`."""
        return judged.stability(self, samples)

    def swap_with(self, site: Any) -> tuple[list[str], float]:
        """Sites that replace a site, and the value lost; see `topreach.plan.judged.swap_with`."""
        return judged.swap_with(self, site)

    def information(self, samples: Any) -> tuple[float, float]:
        """The value, per period, of knowing beforehand the quantity that the samples are draws of,
        and its standard error; see `topreach.plan.judged.information`."""
        return judged.information(self, samples)

    def by_ratio(self, samples: Any) -> Plan:
        """The plan of largest expected ratio; see `topreach.plan.judged.by_ratio`."""
        return judged.by_ratio(self, samples)

    @property
    def price_of_constraints(self) -> float:
        """The cost of quotas and locks as a share: 1 - value / value without them. Solves again;
        see `topreach.plan.judged.price_of_constraints`."""
        return judged.price_of_constraints(self)
