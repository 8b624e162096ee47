"""A picture of each program's choice in one small county."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import topreach as tr

from ..context import Context

TITLE = "A picture of each program of docs/plans.md: what it chooses of one made-up county"

SIDE = 9  # sites in a row
K = 12
CHOSEN, HELPED, PLAIN = "#D55E00", "#0072B2", "#BBBBBB"
TOWNS = ("#F2F2F2", "#E6EFF5", "#F7F0E6", "#EAF3EA")


class County(NamedTuple):
    """81 sites on a distorted lattice, in four towns of different need."""

    places: pd.DataFrame  # by id: x, y (km), town
    scores: pd.Series
    graph: tr.Graph


class Shown(NamedTuple):
    """The parts of a plan's picture: chosen sites, sites that are helped too, and lines."""

    plan: tr.plan.Plan
    chosen: list[str]
    helped: list[str] = []
    lines: list[tuple[str, str]] = []


def make_county(seed: int) -> County:
    draw = np.random.default_rng(seed)
    x, y = (axis.ravel().astype(float) for axis in np.meshgrid(np.arange(SIDE), np.arange(SIDE)))
    town = np.where(x < (SIDE - 1) / 2, 0, 1) + 2 * (y >= (SIDE - 1) / 2)
    need = np.array([0.5, 1.0, 1.6, 4.0])[town]
    x, y = (axis + draw.uniform(-0.3, 0.3, len(axis)) for axis in (x, y))
    ids = [f"s{i:02d}" for i in range(len(x))]
    places = pd.DataFrame({"x": x, "y": y, "town": [f"town {t}" for t in town]}, index=ids)
    scores = pd.Series(need * draw.gamma(1.2, 1.0, len(x)), ids)
    return County(places, scores, tr.Graph.from_coordinates(ids, x, y, delaunay=True))


def neighbours(graph: tr.Graph, chosen: list[str]) -> list[str]:
    return sorted({near for site in chosen for near in graph.neighbours(site)} - set(chosen))


def quotas(c: County) -> Shown:
    plan = tr.plan.quota_topk(c.scores, K, groups=c.places["town"], at_least=2)
    return Shown(plan, plan.ids)


def budget(c: County) -> Shown:
    far = np.hypot(c.places["x"], c.places["y"])
    plan = tr.plan.budget_topk(c.scores, 1 + far, 60.0)
    return Shown(plan, plan.ids)


def spillover(c: County) -> Shown:
    plan = tr.plan.spillover(c.scores, c.graph, 6, treated=0.8, spilled=0.4)
    return Shown(plan, plan.ids, neighbours(c.graph, plan.ids))


def call_in(c: County) -> Shown:
    plan = tr.plan.call_in(c.scores, c.graph, 8, comes=0.6, passes=0.7, weight_by_score=True)
    return Shown(plan, plan.ids, neighbours(c.graph, plan.ids))


def coverage(c: County) -> Shown:
    reach = tr.Graph.from_coordinates(
        list(c.places.index), *c.places[["x", "y"]].T.to_numpy(), radius=2.0
    )
    plan = tr.plan.coverage(c.scores, reach, 4)
    near = neighbours(reach, plan.ids)
    return Shown(plan, plan.ids, near)


def representatives(c: County) -> Shown:
    plan = tr.plan.dominating_set(c.graph)
    return Shown(plan, plan.ids, neighbours(c.graph, plan.ids))


def tours(c: County) -> Shown:
    plan = tr.plan.tours(c.scores, c.graph, 3, gain=c.scores - c.scores.mean(), max_size=5)
    lines = [(a, b) for tour in plan.tours for a, b in zip(tour[:-1], tour[1:], strict=True)]
    return Shown(plan, plan.ids, [], lines)


def subgraph(c: County) -> Shown:
    ends = [c.places.index[i] for i in (0, 8, 40, 65, 79)]
    plan = tr.plan.subgraph(c.graph, ends)
    return Shown(plan, ends, sorted(set(plan.ids) - set(ends)), plan.edges)


def assign(c: County) -> Shown:
    clinics = [c.places.index[i] for i in (10, 25, 56, 70)]
    place = c.places[["x", "y"]]
    far = pd.DataFrame(
        {b: np.hypot(*(place - place.loc[b]).T.to_numpy()) for b in clinics}, index=place.index
    )
    plan = tr.plan.assign(c.scores, pd.Series(40.0, clinics), far, radius=4.5)
    assert plan.flows is not None
    lines = list(plan.flows.iloc[:, :2].itertuples(index=False, name=None))
    return Shown(plan, clinics, sorted({a for a, _ in lines} - set(clinics)), lines)


def spaced(c: County) -> Shown:
    plan = tr.plan.spaced(c.scores, K, 1.8, x=c.places["x"], y=c.places["y"])
    return Shown(plan, plan.ids)


def connected(c: County) -> Shown:
    plan = tr.plan.connected(c.scores, c.graph, K)
    inside = [
        (a, b) for a in plan.ids for b in c.graph.neighbours(a) if b in set(plan.ids) and a < b
    ]
    return Shown(plan, plan.ids, [], inside)


def phases(c: County) -> Shown:
    """The plan of the last of three months, and those of the earlier months."""
    draw = np.random.default_rng(7)
    months = [c.scores.to_numpy() * draw.uniform(0.5, 1.5, len(c.scores)) for _ in range(3)]
    plan = tr.plan.phased(np.array(months), 8, opening=1.5, ids=list(c.scores.index))
    *before, last = plan.tours
    return Shown(plan, last, sorted({site for month in before for site in month} - set(last)))


def fair(c: County) -> Shown:
    plan = tr.plan.fair(c.scores, 20, c.places["town"])
    return Shown(plan, plan.ids)


PROGRAMS: dict[str, Callable[[County], Shown]] = {
    "quotas: two in each town": quotas,
    "budget: far sites cost more": budget,
    "spillover: neighbours are helped": spillover,
    "call-in: 60 % come, 70 % pass it on": call_in,
    "coverage: within 2 km of 4 places": coverage,
    "representatives: next to everyone": representatives,
    "tours: 3 of at most 5 sites": tours,
    "subgraph: how five hang together": subgraph,
    "assign: who goes to which of 4 places": assign,
    "spaced: 1.8 km apart": spaced,
    "connected: one area": connected,
    "phases: July; blue: May and June": phases,
    "fair: the least town's share": fair,
}


def row_of(name: str, county: County) -> dict[str, Any]:
    plan = PROGRAMS[name](county).plan
    return {"value": plan.value, "bound": plan.bound, "status": plan.status}


def run(context: Context) -> None:
    county = make_county(context.seed)
    cells = {name.split(":")[0]: partial(row_of, name, county) for name in PROGRAMS}
    found = context.cells(cells, {"sites": SIDE * SIDE})
    frame = pd.DataFrame([{"program": name} | found[name] for name in cells])
    context.table(frame.set_index("program"), title="One made-up county of 81 sites in four towns")
    if context.can_plot():
        context.figure(picture(county), "plans")


def picture(county: County) -> Any:
    """A panel for each program."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.4), layout="constrained")
    axes = figure.subplots(3, 5).ravel()
    for panel, (title, program) in zip(axes, PROGRAMS.items(), strict=False):
        draw(panel, county, program(county), title)
    for panel in axes[len(PROGRAMS) :]:
        panel.set_axis_off()
    return figure


def draw(axes: Any, county: County, shown: Shown, title: str) -> None:
    """Circles are sites, larger for higher scores; orange: chosen; blue: helped, or on the way."""
    place = county.places[["x", "y"]]
    low, middle, high = -0.7, (SIDE - 1) / 2, SIDE - 0.3
    for town, colour in enumerate(TOWNS):
        left, right = (low, middle) if town % 2 == 0 else (middle, high)
        bottom, top = (low, middle) if town < 2 else (middle, high)
        axes.fill([left, right, right, left], [bottom, bottom, top, top], color=colour, lw=0)
    for a, b in shown.lines:
        axes.plot(*place.loc[[a, b]].T.to_numpy(), color=CHOSEN, lw=1.5, zorder=1)
    size = 8 + 12 * county.scores
    for sites, colour in (
        (place.index, PLAIN),
        (shown.helped, HELPED),
        (shown.chosen, CHOSEN),
    ):
        sites = list(sites)
        axes.scatter(
            *place.loc[sites].T.to_numpy(), s=size[sites], color=colour, linewidths=0, zorder=2
        )
    axes.set_title(title, fontsize=8)
    axes.set_aspect("equal")
    axes.set_axis_off()
