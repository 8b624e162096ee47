"""What `topreach plan` reads: scores, edges, groups, tables of places."""

from __future__ import annotations

import argparse
from typing import Any

import pandas as pd

from topreach.cli.options import CommandError
from topreach.data.graph import Graph
from topreach.data.site_ids import whole_rows
from topreach.plan import Quotas

_BLANK = ["", "NA", "N/A", "n/a", "NaN", "nan", "null", "None"]


def read_scores(options: argparse.Namespace) -> pd.DataFrame:
    """The table of --scores; ids and groups as text."""
    groups = [one["groups"] for one in getattr(options, "groupings", [])]
    text = {options.site, "time", *groups, getattr(options, "fair_to", None)}
    try:
        header = pd.read_csv(options.scores, nrows=0).columns
        if options.site not in header:
            raise CommandError(
                f"--site must be a column of {options.scores}, got {options.site!r}; it has "
                f"{', '.join(header)}"
            )
        # A town may be called NA.
        blank = {name: [""] if name in text else _BLANK for name in header}
        table = pd.read_csv(
            options.scores,
            dtype={name: str for name in header if name in text},
            keep_default_na=False,
            na_values=blank,
        )
        return whole_rows(table, "--scores", options.scores)
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise CommandError(f"--scores must be a CSV file: {error}") from error


def quotas_of(options: argparse.Namespace) -> list[Quotas]:
    """--groups, each with its --at-least and --at-most."""
    for one in options.groupings:
        if not {"at_least", "at_most"} & set(one):
            raise CommandError(f"--groups {one['groups']} needs --at-least N or --at-most N")
    return [
        Quotas(one["groups"], *(_bound(one.get(name)) for name in ("at_least", "at_most")))
        for one in options.groupings
    ]


def _bound(text: str | None) -> Any:
    """3, "30%", or a dict of these by group."""
    if text is None or "=" not in text:
        return text
    pairs = [part.rpartition("=") for part in text.split(",")]
    found: dict[str, str] = {}
    for name, _, number in pairs:
        if name.strip() in found:
            raise CommandError(
                f"a limit must be given once for a group, got {name.strip()!r} twice"
            )
        found[name.strip()] = number.strip()
    return found


def graph_of(options: argparse.Namespace, scores: pd.DataFrame | None) -> Graph:
    """The graph that the options describe, over the sites of the scores if there are some."""
    ways = ("edges", "gal", "gwt", "radius", "nearest", "delaunay")
    given = [name for name in ways if getattr(options, name) not in (None, False)]
    if len(given) != 1:
        raise CommandError(
            "the graph must come from one of --edges, --gal, --gwt, --radius, --nearest and "
            f"--delaunay, got {', '.join('--' + g for g in given) or 'none'}"
        )
    ids = None if scores is None else list(scores[options.site].drop_duplicates())
    (way,) = given
    if way in ("radius", "nearest", "delaunay"):
        if scores is None or not (options.lon and options.lat):
            raise CommandError(f"--{way} needs --scores with the columns of --lon and --lat")
        places = scores.drop_duplicates(options.site)
        for name in (options.lon, options.lat):
            if name not in places:
                raise CommandError(f"--lon and --lat must be columns of --scores, got {name!r}")
        return Graph.from_coordinates(
            ids,
            places[options.lon],
            places[options.lat],
            radius=options.radius,
            nearest=options.nearest,
            delaunay=options.delaunay,
            degrees=not options.planar,
        )
    wanted = None if options.drop_strangers else ids
    if way == "edges":
        columns = tuple(options.edge_columns) if options.edge_columns else None
        if columns is not None and len(columns) != 2:
            raise CommandError(f"--edge-columns must be two names, got {len(columns)}")
        graph = Graph.from_edges(options.edges, wanted, columns=columns, weight=options.length)
    elif way == "gal":
        graph = Graph.from_gal(options.gal, wanted)
    else:
        graph = Graph.from_gwt(options.gwt, wanted, weighted=options.length is not None)
    return graph if ids is None or wanted is not None else graph.without_strangers(ids)


def table_by_site(path: str, columns: list[str]) -> pd.DataFrame:
    """Columns of a CSV file, the first of which are the ids."""
    if len(columns) != 4:
        raise CommandError(f"columns must be four names, ID,N,LON,LAT, got {len(columns)}")
    table = whole_rows(pd.read_csv(path, dtype={columns[0]: str}), "the table", path)
    missing = [name for name in columns if name not in table]
    if missing:
        raise CommandError(f"{path} must have the column {missing[0]!r}, got {', '.join(table)}")
    return table.set_index(columns[0])[columns[1:]]
