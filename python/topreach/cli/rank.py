"""`topreach rank`: a plan for the next period."""

from __future__ import annotations

import argparse
from typing import Any

from topreach.cli.options import (
    CommandError,
    add_table_options,
    check_k,
    device_of,
    may_write,
    names,
    read_table,
    say_note,
    spec_of,
    table_spec,
    write_table,
)
from topreach.data.panel import Panel
from topreach.programs import TopK
from topreach.ranking.plan import plan_frame
from topreach.ranking.topk_ranker import TopKRanker

HELP = "Plan for the next period with a saved model."
EPILOG = """\
Without --data the plan is for the period after the last one that the model knows; --ahead N for
the N-th. A table adds what has been learnt since: counts of later periods, or rows without counts
whose features (where the model has such) are those of the periods to plan for. --times ranks
periods of the table, each from the counts before it. Columns are found under the names they had in
`topreach fit`. Writes time, site, score, expected_count, chance_top_k (the chance of being in the
best plan) and rank, for the chosen sites (--all-sites: for all).

examples:
  topreach rank --model model.pt --out plan.csv
  topreach rank --model model.pt --data newer.csv --out plan.csv
  topreach rank --model model.pt --data counts.csv --times 2021,2022 --all-sites --out -
"""


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--model", required=True, metavar="FILE", help="model file")
    add_table_options(sub, data=False, columns=False, counts=False)
    sub.add_argument(
        "--ahead", type=int, metavar="N", help="periods after the last known one (default: 1)"
    )
    sub.add_argument("--times", metavar="A,B", type=names, help="periods of the table to rank")
    sub.add_argument("--k", type=int, metavar="K", help="number of sites (default: the model's)")
    sub.add_argument(
        "--all-sites", action="store_true", help="write all sites, not the chosen ones only"
    )
    sub.add_argument(
        "--out", required=True, metavar="FILE", help="CSV file to write; - is standard output"
    )
    sub.add_argument("--force", action="store_true", help="replace --out if it exists")


def run(options: argparse.Namespace) -> None:
    may_write(options.out, options.force)
    if options.times is not None and options.data is None:
        raise CommandError("--times needs --data FILE, a table that has them")
    if options.times is not None and options.ahead is not None:
        raise CommandError("--ahead and --times exclude each other")
    if options.ahead is not None and options.ahead < 1:
        raise CommandError(f"--ahead must be at least 1, got {options.ahead}")
    ranker = TopKRanker.load(options.model, device=device_of(options.device))
    if options.k is not None and not isinstance(ranker.program_, TopK):
        raise CommandError(
            f"--k must be left out for a model that plans by {ranker.program_.describe()}, got "
            f"{options.k}; fit it again with another --k"
        )
    if options.k is not None:
        check_k(options.k, len(ranker.site_ids_))
    panel, ahead = None, options.ahead or 1
    if options.data is not None:
        panel = read_for(ranker, options, counts="optional")
        if options.times is not None:
            panel, ahead = panel.select_times(options.times), None
        elif options.ahead is None:
            blank = [t for t, known in zip(panel.times, panel.has_counts, strict=True) if not known]
            if blank:
                panel, ahead = panel.select_times(blank), None
    plans = ranker.plan(panel, periods_ahead=ahead, k=options.k)
    ranked = plan_frame(plans)
    if not options.all_sites:
        ranked = ranked[ranked["selected"]].drop(columns="selected")
    write_table(ranked, options.out)
    if options.out == "-":
        return
    print(ranked.head(5).to_string(index=False))
    print(("... " if len(ranked) > 5 else "") + f"{len(ranked)} rows: {options.out}")
    for plan in plans:
        print(_line(plan))


def _line(plan: Any) -> str:
    until = f"counts up to {plan.data_until}" if plan.data_until else "no counts before it"
    status = "" if plan.status == "optimal" else f", {plan.status}"
    return (
        f"plan for {plan.period}, from {until}: {len(plan.selected_ids())} sites, "
        f"{plan.program}{status}"
    )


def read_for(
    ranker: TopKRanker, options: argparse.Namespace, *, counts: str | None = None
) -> Panel:
    """The table, read as the fit's table was, with those of the model's features that it has."""
    if ranker.ranker_.needs.events:
        raise CommandError(
            "--data must be left out for a model of dated events, which plans from those that it "
            "was fitted to; for newer ones fit it again with topreach fit --events FILE"
        )
    spec = table_spec(options, spec_of(getattr(ranker, "table_", {})), [])
    if options.data != "-":
        have = set(spec.header(options.data))
        if counts == "optional" and spec.count is not None and spec.count not in have:
            say_note(
                f"{options.data} has no column {spec.count!r}, so its periods are without counts; "
                "name the column by --count if it has them"
            )
        spec = spec.with_features([n for n in ranker.feature_names_in_ if n in have])
    else:
        spec = spec.with_features(list(ranker.feature_names_in_))
    return read_table(spec, options, counts=counts)
