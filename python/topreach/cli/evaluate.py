"""`topreach evaluate`: a model and naive rankings on periods with counts."""

from __future__ import annotations

import argparse
import sys

import numpy as np
import pandas as pd
import torch

from topreach.cli.demo import format_table
from topreach.cli.fit import judged, model_scores, reached
from topreach.cli.options import (
    CommandError,
    add_table_options,
    check_k,
    device_of,
    may_write,
    read_table,
    say_note,
    table_spec,
    write_table,
)
from topreach.cli.rank import read_for
from topreach.data.panel import Panel
from topreach.evaluation import baselines, metrics
from topreach.programs import Program, as_program
from topreach.ranking.topk_ranker import TopKRanker

HELP = "Compare a saved model and naive rankings on held-out periods."
EPILOG = """\
Compares rankings on the last --test periods of a table with counts: the model's, and the naive
ones (last period, mean of all earlier periods, chance). A note says where the model has learned
from a period that it is judged on. Without --model, the naive ones alone; then --site, --time,
--count and --k are needed. Suppressed counts are judged twice: all at the least that they can be,
and all at the most.

examples:
  topreach evaluate --model model.pt --data counts.csv --test 2
  topreach evaluate --data counts.csv --site geoid --time year --count deaths --k 100
"""


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--model", metavar="FILE", help="model file")
    add_table_options(sub, data=True, columns=False)
    sub.add_argument(
        "--test", type=int, default=1, metavar="N", help="last periods of the table to judge on (1)"
    )
    sub.add_argument("--k", type=int, metavar="K", help="number of sites (default: the model's)")
    sub.add_argument(
        "--repeats",
        type=int,
        default=0,
        metavar="N",
        help="repeat the model's ranking with fresh draws, for its spread (ranking ratio)",
    )
    sub.add_argument("--out", metavar="FILE", help="CSV file for the table; - is standard output")
    sub.add_argument("--force", action="store_true", help="replace --out if it exists")


def run(options: argparse.Namespace) -> None:
    if options.out is not None:
        may_write(options.out, options.force)
    if options.repeats < 0:
        raise CommandError(f"--repeats must be a whole number >= 0, got {options.repeats}")
    if options.repeats and options.model is None:
        raise CommandError("--repeats needs --model, whose ranking it repeats")
    ranker = None
    if options.model is not None:
        ranker = TopKRanker.load(options.model, device=device_of(options.device))
        panel = read_for(ranker, options)
    else:
        panel = read_table(table_spec(options, None, []), options)
    k = options.k if options.k is not None else getattr(ranker, "k", None)
    if k is None:
        raise CommandError("--k is needed without --model")
    if not 1 <= options.test <= panel.num_times:
        raise CommandError(
            f"--test must be from 1 to the number of periods, {panel.num_times}, got {options.test}"
        )
    if not isinstance(k, Program):
        check_k(k, panel.num_sites)
    program = as_program(k, "topreach evaluate")
    if ranker is not None:
        ranker = ranker.with_program(program)
    test = panel.select_times(panel.times[-options.test :])
    listed = ", ".join(test.labels[:6]) + (" ..." if len(test.times) > 6 else "")
    tables = []
    for text, part in judged(test):
        table = _comparison(options, ranker, test, part, program, options.test < panel.num_times)
        print(
            f"period(s) {listed}, {test.num_sites} sites, K = {program.size()}; BPR: share of the "
            f"best possible reach{text}\n",
            file=sys.stderr if options.out == "-" else sys.stdout,
        )
        print(format_table(table) + "\n", file=sys.stderr if options.out == "-" else sys.stdout)
        tables.append(table.assign(suppressed=text.split()[-1]) if text else table)
    if options.out is not None:
        write_table(pd.concat(tables).reset_index(), options.out)
        if options.out != "-":
            print(options.out)


def _comparison(
    options: argparse.Namespace,
    ranker: TopKRanker | None,
    given: Panel,
    test: Panel,
    program: Program,
    earlier: bool,
) -> pd.DataFrame:
    """The rankings, judged by the counts of `test`: that is `given`, or a bound of its counts."""
    rows, naive = {}, {}
    if earlier:
        naive = {
            "last period": baselines.last_period(test),
            "mean of all periods": baselines.historical_mean(test),
        }
    else:
        say_note("no earlier periods in the table, so no rows for the last period and the mean")
    naive["chance"] = baselines.chance(test)
    for name, forecast in naive.items():
        rows[name] = _row(forecast, forecast, test, program)
    if ranker is not None:
        scores, predicted, counts = model_scores(ranker, given, test)
        rows["model"] = _row(predicted, scores, counts, program)
        if options.repeats and ranker.ranking_ != "ratio":
            say_note("the model ranks without draws, so repeats would all agree")
        elif options.repeats and given is not test:
            say_note("--repeats is left out, for it needs exact counts")
        elif options.repeats:
            spread = np.quantile(ranker.score_repeats(test, options.repeats), [0.025, 0.975])
            rows["model"] |= {"bpr_low": spread[0], "bpr_high": spread[1]}
    return pd.DataFrame(rows).T.rename_axis("method")


def _row(
    forecast: torch.Tensor | None, scores: torch.Tensor, panel: Panel, program: Program
) -> dict[str, float]:
    made = {"mae": np.nan, "rmse": np.nan, "bpr": reached(scores, panel, program)}
    if forecast is not None:
        known = ~panel.y.isnan()  # where sites are open
        made["mae"] = metrics.mae(forecast[known], panel.y[known])
        made["rmse"] = metrics.rmse(forecast[known], panel.y[known])
    return made
