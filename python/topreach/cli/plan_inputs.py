"""The inputs of `topreach plan`: scores, edges, groups, tables of places."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from typing import Any

import pandas as pd

from topreach.cli.options import CommandError, say_note, text_of
from topreach.data.columns import drop_repeated_columns
from topreach.data.csv_files import read_csv, refuse_unclear_points
from topreach.data.graph import Graph
from topreach.data.times import plain
from topreach.plan import Quotas


def read_table(
    options: argparse.Namespace, flag: str, text: Collection[str]
) -> tuple[pd.DataFrame, Callable[[int], str]]:
    """The CSV file of --`flag`, the columns of `text` as text, and how errors name its rows."""
    path = getattr(options, flag)
    if path == "-" and flag != "scores":
        raise CommandError(f"--{flag} must be a file, got standard input")
    table = read_csv(path, f"--{flag}", text=tuple(text), **text_of(options))
    cost = getattr(options, "cost", None)
    if flag == "scores" and isinstance(cost, str) and cost in table:
        refuse_unclear_points(table, cost, f"cost {cost!r}", path, f"--{flag}", **text_of(options))
    index = table.index

    def where(row: int) -> str:
        return f"line {index[row] + 2} of {path}"

    return drop_repeated_columns(table, f"--{flag}", where), where


def read_scores(options: argparse.Namespace) -> pd.DataFrame:
    """The table of --scores; ids and groups as text. A town may be called NA."""
    groups = [one["groups"] for one in getattr(options, "groupings", [])]
    fair_to = getattr(options, "fair_to", None)
    text = {options.site, "time", *groups, *([fair_to] if fair_to else [])}
    table, where = read_table(options, "scores", text)
    if options.site not in table:
        raise CommandError(
            f"--site must be a column of {options.scores}, got {options.site!r}; it has "
            f"{', '.join(table)}"
        )
    blank = table[options.site].isna() | (table[options.site].astype(str).str.strip() == "")
    if blank.any():
        raise CommandError(
            f"the column {options.site!r} must name the site of each row, got a blank in "
            f"{where(int(blank.to_numpy().argmax()))}"
        )
    return table


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
    """The graph that the options describe, over the sites of `scores` if given."""
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
        check_coordinates(options, places)
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
    text = text_of(options)
    if way == "edges":
        columns = tuple(options.edge_columns) if options.edge_columns else None
        if columns is not None and len(columns) != 2:
            raise CommandError(f"--edge-columns must be two names, got {len(columns)}")
        graph = Graph.from_edges(
            options.edges, wanted, columns=columns, weight=options.length, **text
        )
    elif way == "gal":
        graph = Graph.from_gal(options.gal, wanted)
    else:
        graph = Graph.from_gwt(options.gwt, wanted, weighted=options.length is not None)
    if ids is not None and wanted is None:
        graph = graph.without_strangers(ids)
    if not graph.num_edges:
        say_note(f"no edge of --{way} joins two of the sites")
    return graph


def check_coordinates(options: argparse.Namespace, places: pd.DataFrame) -> None:
    """The columns of --lon and --lat are there, and numbers in each row."""
    for flag, name in (("--lon", options.lon), ("--lat", options.lat)):
        if name not in places:
            raise CommandError(f"--lon and --lat must be columns of --scores, got {name!r}")
        blank = pd.to_numeric(places[name], errors="coerce").isna()
        if blank.any():
            row = places.loc[blank].iloc[0]
            raise CommandError(
                f"{flag} {name} must be a number for each site, got {plain(row[name])!r} for "
                f"{row[options.site]!r}"
            )


def table_by_site(options: argparse.Namespace, flag: str, columns: list[str]) -> pd.DataFrame:
    """Columns of a CSV file, the first of which are the ids; the others are numbers."""
    its = "--need-columns" if flag == "need" else "--place-columns"
    if len(columns) != 4:
        raise CommandError(f"{its} must be four names, ID,N,LON,LAT, got {len(columns)}")
    table, where = read_table(options, flag, columns[:1])
    for name in columns:
        if name not in table:
            raise CommandError(
                f"{its} must be columns of {getattr(options, flag)}, got {name!r}; it has "
                f"{', '.join(table)}"
            )
        bad = table[name].isna()
        if name != columns[0]:
            table[name] = pd.to_numeric(table[name], errors="coerce")
            bad = table[name].isna()
        if bad.any():
            raise CommandError(
                f"{name} must be {'an id' if name == columns[0] else 'a number'} in each row, got "
                f"none in {where(int(bad.to_numpy().argmax()))}"
            )
    return table.set_index(columns[0])[columns[1:]]
