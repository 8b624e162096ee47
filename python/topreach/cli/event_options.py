"""How a table of dated events is read: the same options for every command that reads one."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from topreach.cli.options import CommandError, names
from topreach.data.events import Events


def add_event_options(sub: argparse.ArgumentParser) -> None:
    group = sub.add_argument_group("dated events")
    group.add_argument(
        "--events", metavar="FILE", help="table with a row per event (CSV), in place of --data"
    )
    group.add_argument("--place", metavar="COLUMN", help="column of the place")
    group.add_argument(
        "--types",
        metavar="A,B",
        type=names,
        help="0/1 columns, one per type of event, or one column that names the type",
    )
    group.add_argument(
        "--types-sep", metavar="CHAR", help="what separates several types in that one column"
    )
    group.add_argument("--marks", metavar="A,B", type=names, help="columns of marks")
    group.add_argument("--reported", metavar="COLUMN", help="column of the time of report")
    group.add_argument("--id", metavar="COLUMN", help="column of the event's id")
    group.add_argument("--start", metavar="TIME", help="first day of the window (default: found)")
    group.add_argument("--end", metavar="TIME", help="last day of the window (default: found)")
    group.add_argument(
        "--complete-through", metavar="TIME", help="last day up to which records are complete"
    )
    group.add_argument(
        "--every",
        metavar="PERIOD",
        default=None,
        help="period of plans and counts: day, week, month, quarter, year or days (default: month)",
    )


def reads_events(options: argparse.Namespace) -> bool:
    """Whether --events was given. What belongs to the other kind of table is refused."""
    if options.events is None:
        for name in ("place", "types", "types_sep", "marks", "reported", "id", "start", "end"):
            if getattr(options, name) is not None:
                raise CommandError(f"--{name.replace('_', '-')} needs --events FILE")
        for name in ("complete_through", "every"):
            if getattr(options, name) is not None:
                raise CommandError(f"--{name.replace('_', '-')} needs --events FILE")
        return False
    for name in ("data", "site", "count", "exposure", "opened", "closed", "features"):
        if getattr(options, name, None) is not None:
            raise CommandError(f"--{name} must not come with --events")
    for name in ("time", "place"):
        if getattr(options, name) is None:
            raise CommandError(f"--{name} must name the column of the {name} of an event")
    if (options.start is None) != (options.end is None):
        raise CommandError("--start and --end must come together")
    return True


def read_events(options: argparse.Namespace) -> Events:
    """The events of --events; what the reader decided stands on standard error, once."""
    types: Any = options.types
    if types is not None and len(types) == 1:
        types = types[0]
    given: dict[str, Any] = {
        "types": types,
        "types_sep": options.types_sep,
        "marks": options.marks,
        "reported": options.reported,
        "id": options.id,
        "complete_through": options.complete_through,
        "time_format": options.time_format,
        "sep": options.sep,
        "encoding": options.encoding,
        "decimal": options.decimal,
    }
    if options.start is not None:
        given["window"] = (options.start, options.end)
    events = Events.from_csv(
        options.events,
        time=options.time,
        place=options.place,
        **{name: value for name, value in given.items() if value is not None},
    )
    for note in dict.fromkeys(events.notes):
        print(f"note: {note}", file=sys.stderr)
    return events


def every_of(options: argparse.Namespace) -> str | float:
    if options.every is None:
        return "month"
    try:
        return float(options.every)
    except ValueError:
        return str(options.every)
