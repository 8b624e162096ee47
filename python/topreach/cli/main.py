"""The command `topreach`: demo, fit, rank, evaluate, and what other packages add."""

from __future__ import annotations

import argparse
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import topreach
from topreach.cli import demo
from topreach.cli.plugins import add_plugins
from topreach.data.files import atomic_path
from topreach.data.panel import Panel
from topreach.evaluation import baselines, metrics
from topreach.ranking.topk_ranker import TopKRanker

_DESCRIPTION = "Learn from counts over sites and time which K of S sites to act on."
_EXAMPLES = """\
examples:
  topreach demo
  topreach fit --data counts.csv --site geoid --time year --count deaths --k 100 --out model.pt
  topreach rank --model model.pt --data next_year.csv --out ranked.csv
  topreach evaluate --model model.pt --data counts.csv --test 2
  topreach experiment ranking_demo

`topreach COMMAND --help` tells more. Files are written whole or not at all.
"""
_FIT = """\
The table (CSV, or Parquet by its ending) has one row per site and period: an id, a time (a number
or a date), a count, and features known before the period. The last --valid periods choose the epoch
that is kept; the model has learned from all earlier ones. Ctrl-C keeps the best model so far; with
--checkpoint, --resume goes on.

examples:
  topreach fit --data counts.csv --site geoid --time year --count deaths --k 100 --out model.pt
  topreach fit --data counts.csv --site id --time month --count n --features lag1,income \\
      --k 20 --objective nll --missing zero --out model.pt --force
  topreach fit --data deaths.csv --site county --time year --count deaths --k 20 --out model.pt \\
      --model negbin --objective marginal --exposure population \\
      --suppressed 1-9 --suppressed '*=1-9'
"""
_RANK = """\
Ranks the newest period of the table (or those of --times) and writes time, site, score,
expected_count, chance_top_k (the chance of being among the K highest counts) and rank, for the K
best sites (--all-sites: for all). Counts may be missing in the periods to rank. Columns are found
under the names they had in `topreach fit`.

examples:
  topreach rank --model model.pt --data next_year.csv --out ranked.csv
  topreach rank --model model.pt --data counts.csv --times 2021,2022 --all-sites --out ranked.csv
"""
_EVALUATE = """\
Compares rankings on the last --test periods of a table with counts: the model's, and the naive ones
(last period, mean of all earlier periods, chance). Without --model, the naive ones alone; then
--site, --time, --count and --k are needed. Suppressed counts are judged twice: all at the least
that they can be, and all at the most.

examples:
  topreach evaluate --model model.pt --data counts.csv --test 2
  topreach evaluate --data counts.csv --site geoid --time year --count deaths --k 100
"""


class CommandError(Exception):
    """What went wrong, for the user, in one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 2 for an error, 130 for Ctrl-C."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = _note
        try:
            options.run(options)
        except KeyboardInterrupt:
            print(f"topreach {options.command}: stopped", file=sys.stderr)
            return 130
        except BrokenPipeError:
            # The reader of our output has gone, as `| head` does.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except (CommandError, ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
            if options.debug:
                raise
            text = " ".join(str(error).split()) or type(error).__name__
            print(f"topreach {options.command}: error: {text}", file=sys.stderr)
            return 2
    return 0


def _note(
    message: Any, category: type, filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    print(f"note: {message}", file=sys.stderr)


# ---- commands ------------------------------------------------------------------------------------


def _demo(options: argparse.Namespace) -> None:
    _device(options.device)
    demo.run(
        options.out,
        data=options.data,
        seed=options.seed,
        quick=options.quick,
        device=options.device,
        progress=not options.quiet,
    )


def _fit(options: argparse.Namespace) -> None:
    _may_write(options.out, options.force)
    _device(options.device)
    if options.resume and options.checkpoint is None:
        raise CommandError("--resume needs --checkpoint FILE")
    columns = _columns(options, None)
    panel = _read(options, columns, options.features)
    if not 1 <= options.k <= panel.num_sites:
        raise CommandError(
            f"--k must be from 1 to the number of sites, {panel.num_sites}, got {options.k}"
        )
    held = options.valid if options.valid is not None else int(panel.num_times >= 3)
    if not 0 <= held < panel.num_times:
        raise CommandError(
            f"--valid must be from 0 to {panel.num_times - 1} with {panel.num_times} periods, got "
            f"{held}"
        )
    train, valid = panel, None
    if held:
        train, valid, _ = panel.split(valid=panel.times[-held:])
    settings = {"lr": options.lr, "max_epochs": options.epochs, "warm_start_epochs": options.epochs}
    ranker = TopKRanker(
        options.k,
        model=options.model,
        objective=options.objective,
        site_path=options.site_path,
        ranking=options.ranking,
        seed=options.seed,
        device=options.device,
        checkpoint=options.checkpoint,
        progress=not options.quiet,
        **{name: value for name, value in settings.items() if value is not None},
    )
    ranker.fit(train, valid, resume=options.resume)
    used = {role for role in columns if role != "exposure" or ranker.uses_exposure_}
    ranker.columns_ = {role: column for role, column in columns.items() if role in used}
    ranker.save(options.out)
    print(
        f"{panel.num_sites} sites, {train.num_times} periods to learn from, {panel.num_features} "
        "features."
    )
    if valid is not None:
        for text, part in _judged(valid):
            print(
                f"The {options.k} sites it picks in the held-back period(s) reach "
                f"{ranker.score(part):.1%} of the best possible{text}."
            )
    print(f"model: {options.out}")
    if ranker.interrupted_:
        raise KeyboardInterrupt


def _rank(options: argparse.Namespace) -> None:
    _may_write(options.out, options.force)
    ranker = TopKRanker.load(options.model, device=_device(options.device))
    columns = _columns(options, ranker)
    panel = _read(options, columns, ranker.feature_names_in_, counts="optional")
    times = [panel.times[-1]] if options.times is None else _times(options.times, panel)
    ranked = ranker.rank(panel.select_times(times))
    if not options.all_sites:
        ranked = ranked[ranked["selected"]].drop(columns="selected")
    with atomic_path(options.out) as path:
        ranked.to_csv(path, index=False)
    print(ranked.head(5).to_string(index=False))
    print(
        f"... {len(ranked)} rows: {options.out}"
        if len(ranked) > 5
        else f"{len(ranked)} rows: {options.out}"
    )


def _evaluate(options: argparse.Namespace) -> None:
    if options.out is not None:
        _may_write(options.out, options.force)
    ranker = None
    if options.model is not None:
        ranker = TopKRanker.load(options.model, device=_device(options.device))
    columns = _columns(options, ranker)
    k = options.k if options.k is not None else getattr(ranker, "k", None)
    if k is None:
        raise CommandError("--k is needed without --model")
    panel = _read(options, columns, ranker.feature_names_in_ if ranker is not None else [])
    if not 1 <= options.test <= panel.num_times:
        raise CommandError(
            f"--test must be from 1 to the number of periods, {panel.num_times}, got {options.test}"
        )
    if not 1 <= k <= panel.num_sites:
        raise CommandError(f"--k must be from 1 to the number of sites, {panel.num_sites}, got {k}")
    test = panel.select_times(panel.times[-options.test :])
    listed = ", ".join(str(t) for t in test.times[:6]) + (" ..." if len(test.times) > 6 else "")
    tables = []
    for text, part in _judged(test):
        table = _comparison(options, ranker, part, k, earlier=options.test < panel.num_times)
        print(
            f"period(s) {listed}, {test.num_sites} sites, K = {k}; BPR: share of the best possible "
            f"reach{text}\n"
        )
        print(demo.format_table(table) + "\n")
        tables.append(table.assign(suppressed=text.split()[-1]) if text else table)
    if options.out is not None:
        with atomic_path(options.out) as path:
            pd.concat(tables).to_csv(path)
        print(options.out)


def _judged(panel: Panel) -> list[tuple[str, Panel]]:
    """What to judge a plan by: the panel, or both bounds of a panel with suppressed counts."""
    if panel.is_exact:
        return [("", panel)]
    words = {"lower": "least", "upper": "most"}
    return [
        (f", suppressed counts at their {word}", panel.at_bound(bound))
        for bound, word in words.items()
    ]


def _comparison(
    options: argparse.Namespace, ranker: TopKRanker | None, test: Panel, k: int, *, earlier: bool
) -> pd.DataFrame:
    rows = {}
    if earlier:
        naive = {
            "last period": baselines.last_period(test),
            "mean of all periods": baselines.historical_mean(test),
        }
    else:
        print(
            "note: no earlier periods in the table, so no rows for the last period and the mean",
            file=sys.stderr,
        )
        naive = {}
    naive["chance"] = baselines.chance(test)
    for name, forecast in naive.items():
        rows[name] = _row(forecast, forecast, test, k)
    if ranker is not None:
        ranker.set_params(k=k)
        scores = torch.from_numpy(ranker.site_scores(test))
        counts = test.align(site_ids=ranker.site_ids_) if ranker.model_.is_probabilistic else test
        forecast = (
            torch.from_numpy(ranker.predict(test)) if ranker.model_.is_probabilistic else None
        )
        rows["model"] = _row(forecast, scores, counts, k)
        if options.repeats and ranker.ranking_ != "ratio":
            print(
                "note: the model ranks without draws, so repeats would all agree", file=sys.stderr
            )
        elif options.repeats:
            spread = np.quantile(ranker.score_repeats(test, options.repeats), [0.025, 0.975])
            rows["model"] |= {"bpr_low": spread[0], "bpr_high": spread[1]}
    return pd.DataFrame(rows).T.rename_axis("method")


def _row(
    forecast: torch.Tensor | None, scores: torch.Tensor, panel: Panel, k: int
) -> dict[str, float]:
    return {
        "mae": np.nan if forecast is None else metrics.mae(forecast, panel.y),
        "rmse": np.nan if forecast is None else metrics.rmse(forecast, panel.y),
        "bpr": float(metrics.bpr(scores, panel.y, k, nan_policy="omit")),
    }


# ---- options -------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "topreach", description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=raw
    )
    parser.add_argument("--version", action="version", version=f"topreach {topreach.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, run: Any, text: str, epilog: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text, description=text, epilog=epilog, formatter_class=raw
        )
        sub.add_argument("--device", metavar="D", help="cpu or cuda (default: cpu)")
        sub.add_argument(
            "--debug", action="store_true", help="show the whole traceback of an error"
        )
        sub.set_defaults(run=run)
        return sub

    sub = command(
        "demo",
        _demo,
        "Train on overdose deaths in Cook County (or a simulated county), compare, write a plan.",
        "Writes ranked_sites.csv, model.pt, reach.png and comparison.csv into --out, in place of "
        "earlier ones.\n\n"
        "example:\n  topreach demo --out results --seed 1\n",
    )
    sub.add_argument(
        "--out",
        metavar="DIR",
        default="topreach-demo",
        help="folder for the results (topreach-demo)",
    )
    sub.add_argument(
        "--data",
        metavar="DIR",
        help="folder of the Cook County files (default: TOPREACH_DATA, cache, web)",
    )
    sub.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of training, draws and simulated data (0)"
    )
    sub.add_argument("--quick", action="store_true", help="a short run, to see that it works")
    sub.add_argument("--quiet", action="store_true", help="show no progress")

    sub = command("fit", _fit, "Fit a model to a table of counts and save it.", _FIT)
    _data_options(sub, required=True)
    sub.add_argument(
        "--features",
        metavar="A,B",
        type=_names,
        help="feature columns (default: all other numeric ones)",
    )
    sub.add_argument(
        "--k", type=int, required=True, metavar="K", help="number of sites that can be acted on"
    )
    sub.add_argument("--out", required=True, metavar="FILE", help="model file to write")
    sub.add_argument(
        "--model",
        choices=["empirical_bayes", "negbin", "linear", "mlp", "poisson_mixture", "normal_mixture"],
        default="empirical_bayes",
        help="default: empirical_bayes",
    )
    sub.add_argument(
        "--objective",
        choices=["auto", "daml", "nll", "marginal", "bpr"],
        default="auto",
        help="default: auto",
    )
    sub.add_argument(
        "--site-path",
        choices=["ar1", "random_walk"],
        help="site effects that vary over time, for --model negbin --objective marginal",
    )
    sub.add_argument(
        "--ranking",
        choices=["auto", "exact", "ratio", "mean"],
        default="auto",
        help="expected share of events, exact or over draws, or mean count (default: auto: exact "
        "where the model allows it)",
    )
    sub.add_argument(
        "--valid",
        type=int,
        metavar="N",
        help="last periods that choose the epoch (1; 0 if under 3)",
    )
    sub.add_argument("--epochs", type=int, metavar="N", help="passes over the data, of each stage")
    sub.add_argument("--lr", type=float, metavar="X", help="learning rate")
    sub.add_argument("--seed", type=int, default=0, metavar="N", help="of training and draws (0)")
    sub.add_argument("--checkpoint", metavar="FILE", help="where to keep the state of the run")
    sub.add_argument("--resume", action="store_true", help="go on from --checkpoint")
    sub.add_argument("--quiet", action="store_true", help="show no progress")
    sub.add_argument("--force", action="store_true", help="replace --out if it exists")

    sub = command("rank", _rank, "Rank the sites of new data with a saved model.", _RANK)
    sub.add_argument("--model", required=True, metavar="FILE", help="model file")
    _data_options(sub, required=False)
    sub.add_argument(
        "--times", metavar="A,B", type=_names, help="periods to rank (default: the newest)"
    )
    sub.add_argument(
        "--all-sites", action="store_true", help="write all sites, not the K best only"
    )
    sub.add_argument("--out", required=True, metavar="FILE", help="CSV file to write")
    sub.add_argument("--force", action="store_true", help="replace --out if it exists")

    sub = command(
        "evaluate",
        _evaluate,
        "Compare a saved model and naive rankings on held-out periods.",
        _EVALUATE,
    )
    sub.add_argument("--model", metavar="FILE", help="model file")
    _data_options(sub, required=False)
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
    sub.add_argument("--out", metavar="FILE", help="CSV file for the table")
    sub.add_argument("--force", action="store_true", help="replace --out if it exists")

    add_plugins(commands)
    return parser


def _data_options(sub: argparse.ArgumentParser, *, required: bool) -> None:
    sub.add_argument(
        "--data", required=True, metavar="FILE", help="table of counts, CSV or Parquet"
    )
    for name, what in (("site", "site id"), ("time", "period"), ("count", "count")):
        sub.add_argument(
            f"--{name}", required=required, metavar="COLUMN", help=f"column of the {what}"
        )
    sub.add_argument(
        "--exposure",
        metavar="COLUMN",
        help="column of what counts are in proportion to, e.g. the population (for negbin)",
    )
    sub.add_argument(
        "--suppressed",
        action="append",
        type=_interval,
        default=[],
        metavar="TEXT=LOW-HIGH",
        help="what a cell says in place of a count, and the counts that it can be; 1-9 alone for "
        "1-9=1-9; again for more",
    )
    sub.add_argument(
        "--missing",
        choices=["error", "zero"],
        default="error",
        help="missing site-periods: error or zero",
    )
    sub.add_argument(
        "--duplicates",
        choices=["error", "sum"],
        default="error",
        help="repeated rows: error or sum",
    )


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _interval(text: str) -> tuple[str, tuple[int, int]]:
    found = re.fullmatch(r"(?:(.+)=)?(\s*(\d+)\s*[-\u2013]\s*(\d+)\s*)", text)
    if not found:
        raise argparse.ArgumentTypeError(
            f"must be an interval such as 1-9, or TEXT=LOW-HIGH such as '*=1-9', got {text!r}"
        )
    return found[1] or found[2], (int(found[3]), int(found[4]))


def _columns(options: argparse.Namespace, ranker: TopKRanker | None) -> dict[str, str]:
    """Column names by role; without "exposure" where there is none."""
    known = getattr(ranker, "columns_", {})
    columns = {
        name: getattr(options, name) or known.get(name)
        for name in ("site", "time", "count", "exposure")
    }
    absent = [f"--{n}" for n, column in columns.items() if column is None and n != "exposure"]
    if absent:
        why = "without --model" if ranker is None else "as the model file does not say"
        raise CommandError(f"{', '.join(absent)} must name the column(s) {why}")
    return {name: column for name, column in columns.items() if column is not None}


def _read(
    options: argparse.Namespace, columns: dict[str, str], features: Any, counts: str = "required"
) -> Panel:
    is_parquet = options.data.lower().endswith((".parquet", ".pq"))
    columns = dict(columns)
    # The column that the model was fitted on need not be in the table of a period to come.
    may_lack = counts == "optional" and options.count is None
    if may_lack and columns["count"] not in _header(options.data, is_parquet):
        columns["count"] = None
    read = Panel.from_parquet if is_parquet else Panel.from_csv
    return read(
        options.data,
        **columns,
        features=features,
        suppressed=dict(options.suppressed) or None,
        missing=options.missing,
        duplicates=options.duplicates,
        counts=counts,
    )


def _header(path: str, is_parquet: bool) -> list[str]:
    if is_parquet:
        return list(pd.read_parquet(path).columns)
    with open(path, "rb") as file:
        encoding = "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return list(pd.read_csv(path, nrows=0, encoding=encoding, encoding_errors="replace").columns)


def _times(wanted: list[str], panel: Panel) -> list[Any]:
    by_text = {str(time): time for time in panel.times}
    absent = [text for text in wanted if text not in by_text]
    if absent:
        raise CommandError(
            f"--times must be in the table, got {absent[0]}; it has {', '.join(list(by_text)[-8:])}"
        )
    return [time for text, time in by_text.items() if text in wanted]


def _may_write(path: str, force: bool) -> None:
    """Before any work: an existing file is someone's result, and is replaced only if asked for."""
    if Path(path).is_dir():
        raise CommandError(f"--out must be a file, got the folder {path}")
    if Path(path).exists() and not force:
        raise CommandError(f"{path} exists; --force replaces it")
    if not Path(path).parent.is_dir():
        raise CommandError(f"the folder {Path(path).parent} of --out must exist")


def _device(device: str | None) -> str | None:
    if device is not None and device.startswith("cuda") and not torch.cuda.is_available():
        raise CommandError(
            f"--device {device} must be there, but torch finds no CUDA device; use --device cpu"
        )
    return device
