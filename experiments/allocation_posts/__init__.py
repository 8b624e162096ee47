"""Allocation programs on public data: our answers beside the published ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import topreach as tr

from ..context import Context

TITLE = "Spillover, call-ins, tours, subgraphs and treatment coverage on published examples"

# Other answers, by (example, setting): those of the published programs, and for subgraphs that of
# the usual approximation.
ELSEWHERE: dict[tuple[str, str], float] = {
    ("spillover, five nodes", "K = 1"): 0.65,
    ("tours, 5 x 5 grid", "1 tour"): 22.0,
    ("subgraph, 311 nodes", "terminals 1"): 17.0,
    ("subgraph, 311 nodes", "terminals 2"): 15.0,
    ("subgraph, 311 nodes", "terminals 3"): 16.0,
}
TERMINALS = (
    "206 224 23 140 272 258 216 163",
    "254 192 119 269 78 152 55 136",
    "284 82 167 57 44 178 251 299",
)
Row = tuple[str, str, "tr.plan.Plan", str]


def five_nodes() -> Iterator[Row]:
    graph = tr.Graph.from_edges([("a", "c"), ("a", "d"), ("a", "e"), ("b", "e")])
    chance = {"a": 0.4, "b": 0.5, "c": 0.1, "d": 0.1, "e": 0.2}
    for k in range(1, 6):
        plan = tr.plan.spillover(chance, graph, k, gap=0)
        yield "spillover, five nodes", f"K = {k}", plan, " ".join(sorted(plan.ids))


def network(folder: Path, ends: tuple[str, str], node: str, column: str) -> tuple[Any, tr.Graph]:
    nodes = pd.read_csv(folder / "Nodes.csv", dtype={node: str}).set_index(node)[column]
    return nodes, tr.Graph.from_edges(folder / "Edges.csv", nodes.index, columns=ends)


def rostami(data: Path) -> Iterator[Row]:
    """Treatment prevents .5 of a person's chance; knowing somebody who is treated prevents .2."""
    chance, graph = network(data / "networks" / "rostami311", ("From", "To"), "Node", "Prob")
    how: dict[str, Any] = {"treated": 0.5, "spilled": 0.2, "time": 60}
    for k in (1, 5, 10, 20, 40, 60):
        plan = tr.plan.spillover(chance, graph, k, **how)
        highest = list(chance.sort_values(ascending=False, kind="stable").index[:k])
        top = tr.plan.spillover(chance, graph, k, lock_in=highest, **how)
        note = f"the {k} of highest chance: {top.value:.6f}"
        yield "spillover, 311 nodes", f"K = {k}", plan, note
    for number, terminals in enumerate(TERMINALS, 1):
        plan = tr.plan.subgraph(graph, terminals.split())
        note = f"{len(plan.essential)} essential, {len(plan.replaceable)} replaceable nodes"
        yield "subgraph, 311 nodes", f"terminals {number}", plan, note


def gang(data: Path) -> Iterator[Row]:
    """People on parole always come, others with chance 1/6."""
    parole, graph = network(data / "networks" / "gang22", ("Source", "Target"), "Id", "Prob_or_Par")
    cases: dict[str, tuple[Any, Any]] = {
        "all come": (1.0, 1.0),
        "1 or 1/6": (parole.where(parole == 1, 1 / 6), 1.0),
        "all .4": (0.4, 1.0),
        "all .4, passed on by half": (0.4, 0.5),
    }
    for name, (comes, passes) in cases.items():
        for k in (3, 5):
            plan = tr.plan.call_in(graph.ids, graph, k, comes=comes, passes=passes, gap=0)
            capped = tr.plan.call_in(
                graph.ids, graph, k, comes=comes, passes=passes, form="capped", gap=0
            )
            note = f"expected contacts, at most one each: {capped.value:.4g}"
            yield f"call-in, 22 people, {name}", f"K = {k}", plan, note


CRIME = {(1, 4): 10, (4, 0): 4, (3, 1): 5, (3, 0): 6, (2, 0): 4}  # of a 5 x 5 grid; a visit costs 1


def tour_sketch(k: int) -> tr.plan.Plan:
    cells = [(x, y) for x in range(5) for y in range(5)]
    edges = [
        (f"{a}", f"{b}")
        for i, a in enumerate(cells)
        for b in cells[i + 1 :]
        if abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1
    ]
    graph = tr.Graph.from_edges(edges, [f"{c}" for c in cells])
    gain = [CRIME.get(c, 0) - 1.0 for c in cells]
    return tr.plan.tours(np.zeros(25), graph, k, ids=graph.ids, gain=gain, gap=0)


def sketches() -> Iterator[Row]:
    """The tour program's example: forbidding only two-cycles admits a detached cycle of 13."""
    for k in (1, 2, 3):
        plan = tour_sketch(k)
        note = "; ".join(
            "-".join(area.strip("()").replace(", ", ".") for area in tour) for tour in plan.tours
        )
        yield "tours, 5 x 5 grid", f"{k} tour" + "s" * (k > 1), plan, note


def treatment(data: Path) -> Iterator[Row]:
    """150 places at each of 65 providers; people travel at most 40 km."""
    need = pd.read_csv(data / "nc_opioid" / "top10_demand_zips.csv", dtype={"zip": str})
    doors = pd.read_csv(data / "nc_opioid" / "treatment_providers.csv", dtype={"npi": str})
    plan = tr.plan.assign(
        need.set_index("zip")["est_need_care"],
        pd.Series(150.0, index=[f"{npi} {row}" for row, npi in enumerate(doors["npi"])]),
        need_places=need[["lon", "lat"]],
        capacity_places=doors[["lon", "lat"]],
        radius=40,
        unserved=9999,
    )
    numbers = plan.numbers
    note = (
        f"{numbers['unserved']:.0f} of {need['est_need_care'].sum()} unserved, "
        f"{numbers['mean_distance']:.2f} km"
    )
    yield "treatment, North Carolina", "150 each, 40 km", plan, note


def rows_of(make: Callable[[], Iterator[Row]]) -> list[dict[str, Any]]:
    return [
        {
            "example": example,
            "setting": setting,
            "value": plan.value,
            "bound": plan.bound,
            "status": plan.status,
            "seconds": plan.seconds,
            "note": note,
        }
        for example, setting, plan, note in make()
    ]


def run(context: Context) -> None:
    data = context.data or Path(os.environ.get("TOPREACH_DATA", ""))
    parts: dict[str, Callable[[], Iterator[Row]]] = {"five": five_nodes, "sketches": sketches}
    if (data / "networks").is_dir():
        parts |= {"rostami": lambda: rostami(data), "gang": lambda: gang(data)}
    if (data / "nc_opioid").is_dir() and tr.plan.has_highs():
        parts["treatment"] = lambda: treatment(data)
    if len(parts) < 5:
        print("without the folders networks and nc_opioid (--data DIR): the small examples alone")
    cells = {name: (lambda make=make: rows_of(make)) for name, make in parts.items()}
    found = context.cells(cells)
    rows = [row for name in parts for row in found[name]]
    for row in rows:
        row["elsewhere"] = ELSEWHERE.get((row["example"], row["setting"]))
    frame = pd.DataFrame(rows).set_index(["example", "setting"])
    order = ["value", "elsewhere", "bound", "status", "note", "seconds"]
    context.table(frame[order], title="Plans, and what others find")
    if context.can_plot():
        context.figure(tour_picture(), "tours")
        if "rostami" in parts:
            context.figure(network_picture(data), "spillover_network")


def tour_picture() -> Any:
    """The 5 x 5 grid: the gain of each area, and the best one, two and three tours."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for k, axes in enumerate(figure.subplots(1, 3), 1):
        plan = tour_sketch(k)
        for x in range(5):
            for y in range(5):
                gain = CRIME.get((x, y), 0) - 1
                axes.text(x + 0.24, y + 0.16, f"{gain}", ha="center", fontsize=8, color="#505050")
        for tour, colour in zip(plan.tours, ("#D55E00", "#0072B2", "#009E73"), strict=False):
            places = np.array([[int(c) for c in area.strip("()").split(",")] for area in tour])
            axes.plot(*places.T, color=colour, marker="o", lw=2.5)
        axes.set(xlim=(-0.5, 4.5), ylim=(-0.5, 4.7), aspect="equal")
        axes.set_title(f"{k} tour{'s' * (k > 1)}: {plan.value:.0f}", fontsize=10)
        axes.set_axis_off()
    return figure


def network_picture(data: Path) -> Any:
    """The network of 311 people: the twenty to treat, and whom they reach."""
    from matplotlib.figure import Figure

    folder = data / "networks" / "rostami311"
    nodes = pd.read_csv(folder / "Nodes.csv", dtype={"Node": str}).set_index("Node")
    chance, graph = network(folder, ("From", "To"), "Node", "Prob")
    figure = Figure(figsize=(10, 5), layout="constrained")
    best = tr.plan.spillover(chance, graph, 20, treated=0.5, spilled=0.2)
    highest = set(chance.sort_values(ascending=False, kind="stable").index[:20])
    plans = {
        f"best plan: {best.value:.2f}": set(best.ids),
        "twenty of highest chance: 9.41": highest,
    }
    for axes, (title, chosen) in zip(figure.subplots(1, 2), plans.items(), strict=True):
        reached = {n for c in chosen for n in graph.neighbours(c)} - chosen
        for a, b in graph.edges()[["from", "to"]].itertuples(index=False):
            axes.plot(
                nodes.loc[[a, b], "X"], nodes.loc[[a, b], "Y"], color="#E0E0E0", lw=0.4, zorder=0
            )
        rest = nodes.index.difference([*chosen, *reached])
        for group, colour, size in (
            (rest, "#C8C8C8", 8),
            (sorted(reached), "#56B4E9", 14),
            (sorted(chosen), "#D55E00", 30),
        ):
            axes.scatter(nodes.loc[group, "X"], nodes.loc[group, "Y"], s=size, color=colour)
        axes.set_title(f"{title}; {len(reached)} reached", fontsize=10)
        axes.set_axis_off()
    return figure
