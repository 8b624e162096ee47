"""`topreach forecast`: counts to come by place, type and horizon, with intervals."""

from __future__ import annotations

import argparse

from topreach.cli.event_options import (
    add_event_options,
    every_of,
    read_events,
    reads_events,
    reads_no_table,
)
from topreach.cli.options import CommandError, add_table_options, may_write, names, write_table
from topreach.models import Stemmed
from topreach.ranking.topk_ranker import TopKRanker

HELP = "Forecast counts of dated events by place and type."
EPILOG = """\
With --events the point process (see docs/stemmed.md) is fitted to the events and then forecasts;
with --model a saved one forecasts. Writes time, horizon (in periods), site, mean, sd, and an
interval that holds the count with chance --level.

examples:
  topreach forecast --events deaths.csv --time date --place town --types heroin,fentanyl \\
      --horizons 1,3,6,12 --out forecast.csv
  topreach forecast --model model.pt --by node --out forecast.csv
"""


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--model", metavar="FILE", help="model file of `fit --events --model stemmed`")
    add_table_options(sub, data=False, columns=False, counts=False)
    add_event_options(sub)
    sub.add_argument(
        "--horizons",
        metavar="A,B",
        type=names,
        default=["1", "3", "6", "9", "12"],
        help="periods ahead (default: 1,3,6,9,12)",
    )
    sub.add_argument(
        "--cumulative",
        action="store_true",
        help="counts from the first period up to each horizon, instead of that period's own",
    )
    sub.add_argument(
        "--by",
        choices=["place", "type", "node"],
        default="node",
        help="node: each type at each place (default)",
    )
    sub.add_argument("--level", type=float, default=0.9, metavar="P", help="of intervals (0.9)")
    sub.add_argument("--out", required=True, metavar="FILE", help="CSV to write; - is the screen")
    sub.add_argument("--force", action="store_true", help="replace --out if it exists")


def run(options: argparse.Namespace) -> None:
    may_write(options.out, options.force)
    horizons = _horizons(options.horizons)
    if not 0 < options.level < 1:
        raise CommandError(f"--level must lie between 0 and 1, got {options.level:g}")
    every = every_of(options)
    if options.events is None and options.model is None:
        raise CommandError("one of --events FILE and --model FILE must be given")
    if options.events is not None and options.model is not None:
        raise CommandError(
            "--events and --model exclude each other: --model forecasts from the events that it "
            "was fitted to. For newer events leave out --model, or fit again with topreach fit "
            "--events FILE --model stemmed"
        )
    if options.model is None:
        reads_events(options)
        model = Stemmed().fit(read_events(options))
    else:
        reads_no_table(options)
        loaded = TopKRanker.load(options.model).model_
        if not isinstance(loaded, Stemmed):
            raise CommandError(
                f"--model must hold a point process, got {type(loaded).__name__}; fit one with "
                "--events FILE --model stemmed, or plan with topreach rank"
            )
        model = loaded
    found = model.forecast(max(horizons), every=every, by=options.by, cumulative=options.cumulative)
    table = found.to_frame(level=options.level)
    table = table[table["horizon"].isin(horizons)]
    write_table(table, options.out)
    if options.out != "-":
        print(
            f"{len(table)} rows, {table['time'].iloc[0]} to {table['time'].iloc[-1]}: {options.out}"
        )


def _horizons(given: list[str]) -> list[int]:
    if not given or not all(text.isdigit() and int(text) >= 1 for text in given):
        raise CommandError(
            f"--horizons must be whole numbers from 1, as 1,3,6,12, got {','.join(given)}"
        )
    return sorted({int(text) for text in given})
