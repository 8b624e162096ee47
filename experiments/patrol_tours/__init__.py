"""Patrols through the streets of Washington DC: proved tours against beam search."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import topreach as tr

from ..context import Context

TITLE = "Patrol tours through 20,319 street units, with a proof, against beam search"

PAI = 10.0  # share of crime / share of area that a tour must beat
CASES = ((6, 4), (12, 4), (12, 8), (15, 4))  # maximum units in a tour, number of tours
SIMULATED = 400  # number of units if the data are missing


def street_units(folder: Path) -> pd.DataFrame:
    """id, x, y (metres), crime and area of each street unit; simulated units without the data."""
    files = sorted(folder.glob("*.csv")) if folder.is_dir() else []
    if files:
        table = pd.read_csv(files[0], encoding="utf-8-sig")
        columns = {"XMeters": "x", "YMeters": "y", "TotalCrime": "crime", "TotalArea": "area"}
        units = table[list(columns)].rename(columns=columns)
    else:
        random = np.random.default_rng(0)
        place = random.random((SIMULATED, 2)) * 5000
        heat = np.exp(-((place - [1500, 3500]) ** 2).sum(axis=1) / 400_000)
        units = pd.DataFrame(
            {
                "x": place[:, 0],
                "y": place[:, 1],
                "crime": random.poisson(0.2 + 40 * heat * random.gamma(0.5, 2.0, SIMULATED)),
                "area": random.gamma(4.0, 1500.0, SIMULATED),
            }
        )
    units.insert(0, "id", [str(i) for i in range(len(units))])
    return units


def graph_of(units: pd.DataFrame) -> tr.Graph:
    return tr.Graph.from_coordinates(units["id"], units["x"], units["y"], delaunay=True)


def solve(units: pd.DataFrame, graph: tr.Graph, size: int, k: int, seconds: float) -> tr.plan.Plan:
    return tr.plan.tours(
        units["crime"], graph, k, ids=graph.ids, area=units["area"].to_numpy(), pai=PAI,
        max_size=size, gap=0, time=seconds,
    )  # fmt: skip


def row_of(units: pd.DataFrame, graph: tr.Graph, size: int, k: int) -> dict[str, Any]:
    plan = solve(units, graph, size, k, 300.0)
    judged = plan.evaluate(units["crime"].to_numpy(), area=units["area"].to_numpy())
    assert plan.value is not None
    beam = plan.numbers["heuristic"]
    return {
        "gain": 1000 * plan.value,
        "bound": None if plan.bound is None else 1000 * plan.bound,
        "beam search": 1000 * beam,
        "beam loses": f"{100 * (1 - beam / plan.value):.1f} %" if plan.value else "",
        "share of crime": judged["capture"],
        "least PAI of a tour": min(judged["tour_pai"], default=float("nan")),
        "PAI": judged["pai"],
        "status": plan.status,
        "seconds": plan.seconds,
    }


def run(context: Context) -> None:
    data = context.data or Path(os.environ.get("TOPREACH_DATA", ""))
    units = street_units(data / "dc_street_units")
    if len(units) == SIMULATED:
        print("without the folder dc_street_units (--data DIR): simulated street units")
    graph = graph_of(units)
    cases = CASES[:2] if context.quick else CASES
    cells = {
        f"{size}_units_{k}_tours": (lambda size=size, k=k: row_of(units, graph, size, k))
        for size, k in cases
    }
    found = context.cells(cells, {"units": len(units), "pai": PAI})
    frame = pd.DataFrame(
        [{"tours": name.replace("_", " ")} | found[name] for name in cells]
    ).set_index("tours")
    context.table(frame, title=f"Tours of {len(units):,} street units, gain x 1000, PAI > {PAI:g}")
    if context.can_plot():
        most = max(cases, key=lambda case: case[1])
        context.figure(picture(units, graph, *most), "tours")


def picture(units: pd.DataFrame, graph: tr.Graph, size: int, k: int) -> Any:
    """A map of the crime and the tours."""
    from matplotlib.figure import Figure

    plan = solve(units, graph, size, k, 300.0)
    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    axes = figure.add_subplot()
    shade = np.log1p(units["crime"])
    axes.scatter(units["x"], units["y"], s=2, c=shade, cmap="Greys", vmin=-0.5, linewidths=0)
    place = units.set_index("id")[["x", "y"]]
    for tour in plan.tours:
        axes.plot(*place.loc[tour].to_numpy().T, color="#D55E00", lw=2, marker="o", ms=3)
    middle = place.loc[[site for tour in plan.tours for site in tour]]
    margin = 800
    axes.set_xlim(middle["x"].min() - margin, middle["x"].max() + margin)
    axes.set_ylim(middle["y"].min() - margin, middle["y"].max() + margin)
    axes.set_aspect("equal")
    axes.set_title(
        f"{len(plan.tours)} tours of at most {size} street units; grey: crime", fontsize=10
    )
    axes.set_axis_off()
    return figure
