"""How a table of dated events is read: the same options for every command that reads one."""

from __future__ import annotations

import argparse
from typing import Any

from topreach.cli.options import CommandError, names, say_note, text_of
from topreach.data.csv_files import read_csv
from topreach.data.events import Events

# Options of tables of counts, which do not apply to events.
_OF_COUNTS = (
    "data",
    "site",
    "count",
    "exposure",
    "opened",
    "closed",
    "features",
    "suppressed",
    "missing",
    "duplicates",
)
_OF_BOTH = ("time", "time_format", "sep", "encoding", "decimal")
_OF_EVENTS = (
    "place",
    "types",
    "types_sep",
    "other",
    "overlap",
    "marks",
    "reported",
    "id",
    "resolution",
    "places",
    "start",
    "end",
    "complete_through",
    "every",
)


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
    group.add_argument(
        "--other", metavar="NAME", help="type of events with a 1 in none of the columns of --types"
    )
    group.add_argument(
        "--overlap",
        choices=["flags", "primary", "sets"],
        help="what an event of several types is: one at each (flags, the default), at the first "
        "only, or of a type of its own",
    )
    group.add_argument("--marks", metavar="A,B", type=names, help="columns of marks")
    group.add_argument("--reported", metavar="COLUMN", help="column of the time of report")
    group.add_argument("--id", metavar="COLUMN", help="column of the event's id")
    group.add_argument(
        "--resolution",
        metavar="UNIT",
        help="how exactly times are known: day, hour, ..., or a number (default: found)",
    )
    group.add_argument(
        "--places",
        metavar="FILE",
        help="CSV of the places: an id (named as --place, or id), lat and lon or x and y, and "
        "numbers known of them",
    )
    group.add_argument("--start", metavar="TIME", help="first day of the window (default: found)")
    group.add_argument("--end", metavar="TIME", help="last day of the window (default: found)")
    group.add_argument(
        "--complete-through", metavar="TIME", help="last day up to which records are complete"
    )
    group.add_argument(
        "--every",
        metavar="PERIOD",
        help="period of plans and counts: day, week, month, quarter, year or days (default: month)",
    )


def reads_events(options: argparse.Namespace) -> bool:
    """Whether --events was given. Refuses options that belong to the other kind of table."""
    if options.events is None:
        _refuse(options, _OF_EVENTS, "needs --events FILE")
        return False
    _refuse(options, _OF_COUNTS, "must not come with --events")
    if getattr(options, "counts", "required") != "required":
        raise CommandError("--counts must not come with --events")
    for name in ("time", "place"):
        if getattr(options, name) is None:
            raise CommandError(f"--{name} must name the column of the {name} of an event")
    if (options.start is None) != (options.end is None):
        raise CommandError("--start and --end must come together")
    return True


def reads_no_table(options: argparse.Namespace) -> None:
    """Refuses all options that say how a table is read, except --every."""
    given = [name for name in (*_OF_COUNTS, *_OF_BOTH, *_OF_EVENTS) if name != "every"]
    _refuse(options, given, "needs --events FILE")


def _refuse(options: argparse.Namespace, given: Any, why: str) -> None:
    for name in given:
        if getattr(options, name, None) not in (None, []):
            raise CommandError(f"--{name.replace('_', '-')} {why}")


def read_events(options: argparse.Namespace) -> Events:
    """The events of --events. The reader's notes are printed to standard error, once."""
    types: Any = options.types
    if types is not None and len(types) == 1 and options.other is None:
        types = types[0]
    text = text_of(options)
    given: dict[str, Any] = {
        "types": types,
        "resolution": _number_or_word(options.resolution),
        **{
            name: getattr(options, name)
            for name in (
                "types_sep",
                "other",
                "overlap",
                "marks",
                "reported",
                "id",
                "complete_through",
                "time_format",
            )
        },
    }
    if options.start is not None:
        given["window"] = (options.start, options.end)
    if options.places is not None:
        ids = (options.place, "id", "place")
        given["places"] = read_csv(options.places, "Events.from_csv", text=ids, **text)
    events = Events.from_csv(
        options.events,
        time=options.time,
        place=options.place,
        **{name: value for name, value in given.items() if value is not None},
        **text,
    )
    for note in dict.fromkeys(events.notes):
        say_note(note)
    return events


def every_of(options: argparse.Namespace) -> str | float:
    found = _number_or_word(options.every)
    return "month" if found is None else found


def _number_or_word(text: str | None) -> str | float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text
