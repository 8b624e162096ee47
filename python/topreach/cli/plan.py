"""`topreach plan`: from scores to a plan that can be carried out. One subcommand a program."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import topreach.plan as programs
from topreach.cli.options import CommandError, add_text_options, may_write, names, say_note
from topreach.cli.plan_inputs import (
    check_coordinates,
    graph_of,
    quotas_of,
    read_scores,
    table_by_site,
)
from topreach.data.messages import in_words
from topreach.plan import Plan

HELP = "Turn scores into a plan: quotas, budgets, networks, tours."
EPILOG = """\
Scores are a CSV such as `topreach rank --all-sites` writes: a row for each site, with columns site
and score (--site, --value name others). Ids are text: 09001 stays 09001.

examples:
  topreach plan quotas --scores ranked.csv --k 100 --groups town --at-least 1 --out plan.csv
  topreach plan budget --scores ranked.csv --cost dollars --budget 20000 --out plan.csv
  topreach plan call-in --scores people.csv --edges edges.csv --k 20 --comes 0.4 --out plan.csv
  topreach plan tours --scores streets.csv --edges edges.csv --k 4 --max-size 12 --out tours.csv
  topreach plan spaced --scores ranked.csv --k 20 --distance 2 --lon lon --lat lat --out plan.csv

`topreach plan PROGRAM --help` tells more. docs/plans.md says which program suits which situation.
"""


def run(options: argparse.Namespace) -> None:
    if getattr(options, "program", None) is None:
        raise CommandError(
            f"PROGRAM must be one of {', '.join(PROGRAMS)}; topreach plan --help tells more"
        )
    for path in (options.out, options.geojson):
        if path is not None:
            may_write(path, options.force)
    plan = PROGRAMS[options.program].solve(options)
    if plan.value is None:
        raise CommandError(" ".join(["there is no such plan.", *map(in_words, plan.notes)]))
    if options.geojson is not None:
        plan.to_geojson(options.geojson, geometry_of(options))
    plan.to_csv(options.out, all_sites=getattr(options, "all_sites", False))
    if options.out == "-":
        print(line_of(plan), file=sys.stderr)
        for note in plan.notes:
            say_note(note)
        return
    table = plan.to_frame()
    print(table.head(5).to_string(index=False))
    print(("... " if len(table) > 5 else "") + f"{len(table)} rows: {options.out}")
    print(line_of(plan))
    for note in plan.notes:
        print(f"note: {in_words(note)}")


def line_of(plan: Plan) -> str:
    """The plan in a line."""
    parts = [f"{plan.program}: value {plan.value:.6g}"]
    if plan.gap is None:
        parts.append("no bound")
    elif plan.gap > 0:
        parts.append(f"at most {100 * plan.gap:.2g} % from the best (bound {plan.bound:.6g})")
    parts.append(plan.status)
    parts += [f"{name} {number:.6g}" for name, number in plan.numbers.items()]
    return ", ".join(parts) + f" ({plan.seconds:.1f} s)"


def geometry_of(options: argparse.Namespace) -> Any:
    if options.geometry is not None:
        return options.geometry
    lon, lat = getattr(options, "lon", None), getattr(options, "lat", None)
    return (lon, lat) if lon and lat else None


# ---- options -------------------------------------------------------------------------------------


def _common(sub: argparse.ArgumentParser, *, scores: bool, period: bool) -> None:
    if scores:
        sub.add_argument("--scores", required=True, metavar="FILE", help="CSV of sites and scores")
        sub.add_argument("--site", default="site", metavar="COLUMN", help="its ids (default: site)")
        sub.add_argument("--value", metavar="COLUMN", help="its scores (default: score)")
        if period:
            sub.add_argument(
                "--period", metavar="T", help="which of its periods (column time), if several"
            )
        sub.add_argument(
            "--all-sites", action="store_true", help="write all sites, not the chosen ones only"
        )
    add_text_options(sub)
    sub.add_argument(
        "--gap", type=float, default=1e-4, metavar="G",
        help="relative gap that is good enough (default: 1e-4)",
    )  # fmt: skip
    sub.add_argument(
        "--time", type=float, default=float("inf"), metavar="S", help="seconds (default: no limit)"
    )
    sub.add_argument(
        "--out", required=True, metavar="FILE", help="CSV to write; - is standard output"
    )
    sub.add_argument("--geojson", metavar="FILE", help="also a map layer")
    sub.add_argument(
        "--geometry", metavar="FILE",
        help="GeoJSON with the sites' shapes (default: columns lon and lat)",
    )  # fmt: skip
    sub.add_argument("--force", action="store_true", help="replace files that exist")


class _Quota(argparse.Action):
    """--groups begins a grouping; --at-least and --at-most apply to the last one begun."""

    def __call__(self, parser: Any, options: Any, values: Any, option: Any = None) -> None:
        groupings = [*(getattr(options, "groupings", None) or [])]
        if self.dest == "groups":
            groupings.append({"groups": values})
        elif not groupings:
            parser.error(f"{option} must stand after the --groups that it is for")
        elif self.dest in groupings[-1]:
            parser.error(
                f"{option} must stand once after each --groups, got it twice; limits of several "
                "groups go together, a=1,b=2"
            )
        else:
            groupings[-1] = groupings[-1] | {self.dest: values}
        options.groupings = groupings


def _quotas(sub: argparse.ArgumentParser) -> None:
    sub.set_defaults(groupings=[])
    sub.add_argument(
        "--groups", action=_Quota, metavar="COLUMN", help="column of groups; again for another one"
    )
    for flag, what in (("--at-least", "fewest"), ("--at-most", "most")):
        sub.add_argument(
            flag, action=_Quota, metavar="N",
            help=f"{what} sites of each group of the --groups before: 1, 30%% of K, or "
            "rural=30%%,urban=2",
        )  # fmt: skip
    _locks(sub)


def _locks(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--lock-in", type=names, default=[], metavar="A,B", help="sites that must be in the plan"
    )
    sub.add_argument(
        "--lock-out", type=names, default=[], metavar="A,B", help="sites that must not"
    )


def _effect(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--effect", metavar="COLUMN",
        help="share of a site's events that acting there prevents: a column or a number",
    )  # fmt: skip


def _graph(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--edges", metavar="FILE", help="CSV with a row for each edge: two ids")
    sub.add_argument(
        "--edge-columns", type=names, metavar="A,B", help="its two columns (default: the first two)"
    )
    sub.add_argument("--length", metavar="COLUMN", help="its column of lengths")
    sub.add_argument("--gal", metavar="FILE", help="instead: a .gal file")
    sub.add_argument("--gwt", metavar="FILE", help="instead: a .gwt file")
    sub.add_argument(
        "--radius", type=float, metavar="R",
        help="instead: sites at most R apart (km for longitude and latitude)",
    )  # fmt: skip
    sub.add_argument("--nearest", type=int, metavar="N", help="instead: each site's N nearest")
    sub.add_argument("--delaunay", action="store_true", help="instead: Delaunay's triangulation")
    _coordinates(sub)
    sub.add_argument(
        "--drop-strangers", action="store_true", help="leave out edges to sites without a score"
    )


def _coordinates(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--lon", metavar="COLUMN", help="longitude, or x with --planar")
    sub.add_argument("--lat", metavar="COLUMN", help="latitude, or y with --planar")
    sub.add_argument(
        "--planar", action="store_true", help="coordinates are in a plane, in any unit"
    )


def _k(sub: argparse.ArgumentParser, *, required: bool = True) -> None:
    sub.add_argument("--k", type=int, required=required, metavar="K", help="number of sites")


def _shared(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments that every function of topreach.plan takes."""
    made: dict[str, Any] = {"gap": options.gap, "time": options.time}
    if hasattr(options, "site"):
        made |= {"site": options.site, "value": options.value}
        if getattr(options, "period", None) is not None:
            made["period"] = options.period
    if hasattr(options, "groupings"):
        made["quotas"] = quotas_of(options)
    for name in ("lock_in", "lock_out", "effect"):
        if getattr(options, name, None):
            made[name] = _number(getattr(options, name))
    return made


def _number(text: Any) -> Any:
    """A number, or the name of a column."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return text


# ---- programs ------------------------------------------------------------------------------------


class Program:
    """A subcommand: its help, its options, and the function that solves it. `scores`: whether it
    reads --scores; `period`: whether it plans for one period of them."""

    def __init__(
        self,
        help: str,
        parts: list[Callable[..., None]],
        solve: Callable[[argparse.Namespace], Plan],
        scores: bool = True,
        period: bool = True,
    ) -> None:
        self.help, self.parts, self.solve = help, parts, solve
        self.scores, self.period = scores, period


def _add(*flags: str, **how: Any) -> Callable[[argparse.ArgumentParser], None]:
    def add(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(*flags, **how)

    return add


def _network(options: argparse.Namespace) -> tuple[Any, Any]:
    scores = read_scores(options)
    return scores, graph_of(options, scores)


def _quota_topk(options: argparse.Namespace) -> Plan:
    return programs.quota_topk(read_scores(options), options.k, **_shared(options))


def _budget(options: argparse.Namespace) -> Plan:
    return programs.budget_topk(
        read_scores(options), _number(options.cost), options.budget, options.k, **_shared(options)
    )


def _spillover(options: argparse.Namespace) -> Plan:
    scores, graph = _network(options)
    return programs.spillover(
        scores, graph, options.k, treated=_number(options.treated),
        spilled=_number(options.spilled), compliance=_number(options.compliance),
        **_shared(options),
    )  # fmt: skip


def _call_in(options: argparse.Namespace) -> Plan:
    scores, graph = _network(options)
    return programs.call_in(
        scores, graph, options.k, comes=_number(options.comes), passes=_number(options.passes),
        form=options.form, weight_by_score=options.weight_by_score, **_shared(options),
    )  # fmt: skip


def _coverage(options: argparse.Namespace) -> Plan:
    scores, graph = _network(options)
    return programs.coverage(scores, graph, options.k, **_shared(options))


def _representatives(options: argparse.Namespace) -> Plan:
    graph = graph_of(options, None)
    return programs.dominating_set(
        graph, reach=options.reach, comes=_number(options.comes), passes=_number(options.passes),
        **_shared(options),
    )  # fmt: skip


def _tours(options: argparse.Namespace) -> Plan:
    scores, graph = _network(options)
    return programs.tours(
        scores, graph, options.k, area=_number(options.area), pai=options.pai,
        gain=_number(options.gain), size=_number(options.size), min_size=options.min_size,
        max_size=options.max_size, **_shared(options),
    )  # fmt: skip


def _subgraph(options: argparse.Namespace) -> Plan:
    return programs.subgraph(
        graph_of(options, None),
        options.terminals,
        neighbours=options.neighbours,
        **_shared(options),
    )


def _assign(options: argparse.Namespace) -> Plan:
    need = table_by_site(options, "need", options.need_columns)
    places = table_by_site(options, "places", options.place_columns)
    plan = programs.assign(
        need.iloc[:, 0], places.iloc[:, 0], need_places=need.iloc[:, 1:3],
        capacity_places=places.iloc[:, 1:3], radius=options.radius, open_sites=options.open_sites,
        opened_capacity=options.opened_capacity, gap=options.gap, time=options.time,
    )  # fmt: skip
    return plan


def _spaced(options: argparse.Namespace) -> Plan:
    if not (options.lon and options.lat):
        raise CommandError("--lon and --lat must name the columns of the coordinates")
    scores = read_scores(options)
    check_coordinates(options, scores)
    return programs.spaced(
        scores, options.k, options.distance, x=options.lon, y=options.lat,
        degrees=not options.planar, **_shared(options),
    )  # fmt: skip


def _connected(options: argparse.Namespace) -> Plan:
    scores, graph = _network(options)
    return programs.connected(scores, graph, options.k, **_shared(options))


def _phases(options: argparse.Namespace) -> Plan:
    return programs.phased(
        read_scores(options), options.k, opening=_number(options.opening), before=options.before,
        rest=options.rest, most_visits=options.most_visits, **_shared(options),
    )  # fmt: skip


def _fair(options: argparse.Namespace) -> Plan:
    return programs.fair(
        read_scores(options), options.k, options.fair_to, floors=options.floor, **_shared(options)
    )


_CHANCES: list[Callable[..., None]] = [
    _add("--comes", default="1", metavar="P", help="chance to come: a number or a column"),
    _add("--passes", default="1", metavar="P", help="chance to tell a neighbour: the same"),
]
PROGRAMS: dict[str, Program] = {
    "quotas": Program(
        "The best K sites with so many in each group.", [_k, _quotas, _effect], _quota_topk
    ),
    "budget": Program(
        "The best sites for a budget.",
        [
            _add("--cost", required=True, metavar="COLUMN", help="cost of each site, or a number"),
            _add("--budget", required=True, type=float, metavar="B", help="in the same unit"),
            lambda sub: _k(sub, required=False),
            _quotas,
            _effect,
        ],
        _budget,
    ),
    "spillover": Program(
        "Whom to treat where treatment helps neighbours too.",
        [
            _k,
            _graph,
            _add("--treated", default="1", metavar="E", help="effect on the treated (default: 1)"),
            _add("--spilled", default="0.5", metavar="E", help="on who knows one (default: 0.5)"),
            _add("--compliance", metavar="P", help="chance to come: a number or a column"),
            _quotas,
        ],
        _spillover,
    ),
    "call-in": Program(
        "Whom to call in so that a message reaches most people.",
        [
            _k,
            _graph,
            *_CHANCES,
            _add("--form", choices=["exact", "capped"], default="exact",
                 help="chance of being reached, or contacts of at most one each (default: exact)"),
            _add("--weight-by-score", action="store_true", help="people count their scores, not 1"),
            _quotas,
        ],
        _call_in,
    ),
    "coverage": Program("K places that have most within reach.", [_k, _graph, _quotas], _coverage),
    "representatives": Program(
        "The fewest sites so that each is chosen or next to one.",
        [
            _graph,
            *_CHANCES,
            _add("--reach", type=float, metavar="N", help="instead: reach so many people"),
            _locks,
        ],
        _representatives,
        scores=False,
    ),
    "tours": Program(
        "At most K tours from area to area.",
        [
            _k,
            _graph,
            _add("--area", metavar="COLUMN", help="size of each area, for the gain (default: 1)"),
            _add("--pai", type=float, default=10.0, metavar="R",
                 help="share of events for share of area that a tour must beat (default: 10)"),
            _add("--gain", metavar="COLUMN", help="instead: what passing an area gains"),
            _add("--size", metavar="COLUMN", help="what the limits count (default: areas)"),
            _add("--min-size", type=float, default=0.0, metavar="L", help="of a tour"),
            _add("--max-size", type=float, default=float("inf"), metavar="L", help="of a tour"),
            _add("--lock-out", type=names, default=[], metavar="A,B", help="areas in no tour"),
        ],
        _tours,
    ),
    "subgraph": Program(
        "How some nodes of a network hang together.",
        [
            _graph,
            _add("--terminals", type=names, required=True, metavar="A,B", help="nodes to join"),
            _add("--neighbours", action="store_true", help="also everyone next to these"),
        ],
        _subgraph,
        scores=False,
    ),
    "assign": Program(
        "Send people to places so that few are left without one.",
        [
            _add("--need", required=True, metavar="FILE", help="CSV of areas"),
            _add("--need-columns", type=names, required=True, metavar="ID,N,LON,LAT",
                 help="its columns: id, people, longitude, latitude"),
            _add("--places", required=True, metavar="FILE", help="CSV of places"),
            _add("--place-columns", type=names, required=True, metavar="ID,N,LON,LAT",
                 help="its columns: id, capacity, longitude, latitude"),
            _add("--radius", type=float, default=float("inf"), metavar="KM", help="longest way"),
            _add("--open-sites", type=int, default=0, metavar="N",
                 help="open so many of the places with capacity 0"),
            _add("--opened-capacity", type=float, metavar="N", help="what one of these then holds"),
        ],
        _assign,
        scores=False,
    ),
    "spaced": Program(
        "The best sites that keep apart.",
        [
            lambda sub: _k(sub, required=False),
            _add("--distance", type=float, required=True, metavar="D",
                 help="no two sites closer than this: km, or the unit of --planar coordinates"),
            _coordinates,
            _quotas,
            _effect,
        ],
        _spaced,
    ),
    "connected": Program(
        "The best K sites that hang together.", [_k, _graph, _quotas, _effect], _connected
    ),
    "phases": Program(
        "K sites in each of several periods, where moving costs.",
        [
            _k,
            _add("--opening", default="0", metavar="C", help="cost of moving to a site, in scores"),
            _add("--before", type=names, default=[], metavar="A,B", help="sites open beforehand"),
            _add("--rest", type=int, default=0, metavar="N", help="periods of rest after a visit"),
            _add("--most-visits", type=int, default=0, metavar="N", help="of a site (0: no limit)"),
            _quotas,
            _effect,
        ],
        _phases,
        period=False,
    ),
    "fair": Program(
        "K sites that leave no group behind.",
        [
            _k,
            _add("--fair-to", required=True, metavar="COLUMN", help="the groups"),
            _add("--floor", type=float, metavar="F",
                 help="share of its total that each group keeps (default: the largest there is)"),
            _quotas,
            _effect,
        ],
        _fair,
    ),
}  # fmt: skip


def add_arguments(sub: argparse.ArgumentParser) -> None:
    commands = sub.add_subparsers(dest="program", metavar="PROGRAM")
    for name, program in PROGRAMS.items():
        one = commands.add_parser(name, help=program.help, description=program.help)
        one.add_argument("--debug", action="store_true", default=argparse.SUPPRESS,
                         help="show the whole traceback of an error")  # fmt: skip
        _common(one, scores=program.scores, period=program.period)
        for part in program.parts:
            part(one)
