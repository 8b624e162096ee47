"""Plans on maps: GeoJSON and pictures."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from topreach import _C
from topreach.data.files import atomic_path
from topreach.data.site_ids import site_ids
from topreach.report.plots import new_axes, tidy_axes

if TYPE_CHECKING:
    from topreach.plan.plan import Plan

# Names of columns that hold longitude and latitude, in lower case.
_LONGITUDE = ("lon", "longitude", "lng", "x")
_LATITUDE = ("lat", "latitude", "y")
_CHOSEN, _OTHER, _LINE = "#D55E00", "#C8C8C8", "#0072B2"  # Okabe and Ito's palette


def geometries(plan: Plan, geometry: Any, caller: str) -> dict[str, dict[str, Any]]:
    """A GeoJSON geometry for each site that has one, by id.

    Args:
        plan: the plan.
        geometry: path of a GeoJSON file whose features have their id as `id`, or as a property
            `id`, `site` or `geoid`; a GeoDataFrame indexed by id; a table with longitude and
            latitude indexed by id; a pair of names of such columns in the table of scores; None:
            columns lon and lat (longitude and latitude, x and y) of that table.

    Raises:
        ValueError: no coordinates or shapes of the sites.
    """
    sites = plan._problem.sites
    if isinstance(geometry, str | os.PathLike):
        with open(geometry, encoding="utf-8") as file:
            try:
                layer = json.load(file)
            except ValueError as error:
                raise ValueError(
                    f"{caller}: geometry must be a GeoJSON file, got {os.fspath(geometry)}, which "
                    f"is no JSON: {error}."
                ) from error
        if not isinstance(layer, dict) or not isinstance(layer.get("features"), list):
            raise ValueError(
                f"{caller}: geometry must be a GeoJSON file with features, got "
                f"{os.fspath(geometry)} without."
            )
        found = {}
        for feature in layer["features"]:
            properties = {str(k).lower(): v for k, v in (feature.get("properties") or {}).items()}
            name = feature.get("id")
            for key in ("id", "site", "geoid"):
                name = properties.get(key) if name is None else name
            if name is not None and feature.get("geometry"):
                found[str(name)] = feature["geometry"]
        if not set(found) & set(sites.ids):
            raise ValueError(
                f"{caller}: geometry must have features whose id, or property id, site or geoid, "
                f"is a site, got none in {os.fspath(geometry)}."
            )
        return found
    if hasattr(geometry, "geometry"):
        names = site_ids(geometry.index, caller, "geometry")
        shapes = zip(names, geometry.geometry, strict=True)
        return {name: shape.__geo_interface__ for name, shape in shapes}
    table = sites.table if geometry is None or isinstance(geometry, tuple) else geometry
    if isinstance(geometry, tuple):
        missing = [name for name in geometry if name not in table]
        if missing:
            raise ValueError(f"{caller}: geometry must name columns of scores, got {missing[0]!r}.")
        lon, lat = geometry
    else:
        lower = {str(c).lower(): c for c in table.columns}
        lon = next((lower[n] for n in _LONGITUDE if n in lower), None)
        lat = next((lower[n] for n in _LATITUDE if n in lower), None)
    if lon is None or lat is None:
        raise ValueError(
            f"{caller}: geometry must say where the sites lie: columns lon and lat in the table of "
            "scores, a table with these, or a GeoJSON file with the sites' ids."
        )
    names = site_ids(table.index, caller, "geometry")
    points = table[[lon, lat]].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    return {
        name: {"type": "Point", "coordinates": [float(p[0]), float(p[1])]}
        for name, p in zip(names, points, strict=True)
        if np.isfinite(p).all()
    }


def write_geojson(
    plan: Plan, path: str | os.PathLike, geometry: Any = None, *, all_sites: bool = False
) -> None:
    """The plan as a map layer, whole or not at all: a feature for each site of `to_frame`, and for
    tours and subgraphs a line for each tour or edge.

    Raises:
        ValueError: as for `geometries`; or a chosen site without a geometry.
    """
    caller = "Plan.to_geojson"
    where = geometries(plan, geometry, caller)
    frame = plan.to_frame(all_sites=all_sites)
    lost = [site for site in frame["site"] if site not in where]
    if lost:
        raise ValueError(
            f"{caller}: geometry must place every site of the plan, got none for {lost[0]!r} and "
            f"{len(lost) - 1} more.{_C.did_you_mean(lost[0], list(where))}"
        )
    features = [
        {
            "type": "Feature",
            "id": row["site"],
            "geometry": where[row["site"]],
            "properties": {str(k): _plain(v) for k, v in row.items()},
        }
        for row in frame.to_dict("records")
    ]
    for number, line in enumerate(_lines(plan, where), 1):
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "LineString", "coordinates": line},
                "properties": {"line": number},
            }
        )
    layer = {"type": "FeatureCollection", "features": features}
    with atomic_path(path, standard_output=True) as temporary:
        temporary.write_text(json.dumps(layer, allow_nan=False) + "\n", encoding="utf-8")


def _lines(plan: Plan, where: dict[str, dict[str, Any]]) -> list[list[list[float]]]:
    paths = plan.tours if plan.program == "tours" else [list(edge) for edge in plan.edges]
    return [
        [_middle(where[site]) for site in path]
        for path in paths
        if len(path) > 1 and all(site in where for site in path)
    ]


def _middle(shape: dict[str, Any]) -> list[float]:
    """A point for a shape: the mean of its outer corners."""
    corners = shape["coordinates"]
    if shape["type"] == "Point":
        return [float(c) for c in corners[:2]]
    while np.ndim(corners[0][0]) > 0:
        corners = max(corners, key=lambda part: len(str(part)))
    return [float(c) for c in np.mean([corner[:2] for corner in corners], axis=0)]


def plot_plan(plan: Plan, geometry: Any = None, *, ax: Any = None) -> Any:
    """The chosen sites on a map, with the lines of tours and subgraphs; without coordinates the
    scores as bars, the chosen ones in colour.

    Args:
        geometry: as for `geometries`. ax: axes to draw on; None makes a figure.

    Returns:
        The axes.
    """
    try:
        where = geometries(plan, geometry, "Plan.plot")
    except ValueError:
        if geometry is not None:
            raise
        return _bars(plan, ax)
    ax = new_axes(ax, (6.4, 6.0))
    chosen = set(plan.ids)
    for name, shape in where.items():
        colour = _CHOSEN if name in chosen else _OTHER
        order = 2 if name in chosen else 1
        if shape["type"] == "Point":
            size = 24 if name in chosen else 8
            ax.scatter(*shape["coordinates"][:2], s=size, color=colour, zorder=order, linewidths=0)
            continue
        many = shape["coordinates"]
        for part in [many] if shape["type"] == "Polygon" else many:
            ax.fill(
                *np.asarray(part[0], dtype=float)[:, :2].T,
                facecolor=colour,
                edgecolor="white",
                linewidth=0.3,
                zorder=order,
            )
    for line in _lines(plan, where):
        ax.plot(*np.asarray(line).T, color=_LINE, linewidth=1.4, zorder=3)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_axis_off()
    ax.set_title(repr(plan), fontsize="small")
    return ax


def _bars(plan: Plan, ax: Any) -> Any:
    ax = new_axes(ax, (7.2, 3.6))
    frame = plan.to_frame(all_sites=True)
    if "score" not in frame:
        raise ValueError("Plan.plot: geometry must say where the sites lie, got None.")
    frame = frame.sort_values("score", ascending=False, kind="stable", ignore_index=True)
    picked = frame["site"].isin(plan.ids)
    for mask, colour, label in ((picked, _CHOSEN, "chosen"), (~picked, _OTHER, "others")):
        ax.bar(frame.index[mask], frame["score"][mask], width=1.0, color=colour, label=label)
    ax.set_xlabel("sites, best first")
    ax.set_ylabel("score")
    ax.legend(frameon=False)
    tidy_axes(ax)
    return ax


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | type(None)) else str(value)
