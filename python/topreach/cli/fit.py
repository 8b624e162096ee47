"""`topreach fit`: a table of counts in, a model file out."""

from __future__ import annotations

import argparse
import dataclasses
import math
import warnings
from typing import Any

import numpy as np
import torch

from topreach.cli.event_options import add_event_options, every_of, read_events, reads_events
from topreach.cli.options import (
    CommandError,
    add_table_options,
    device_of,
    may_write,
    names,
    read_table,
    spec_to_text,
    table_spec,
)
from topreach.cli.quota_options import add_quota_options, program_of, quota_columns
from topreach.data.columns import AllBut
from topreach.data.events import Events
from topreach.data.panel import Panel
from topreach.evaluation import baselines, metrics
from topreach.forecasters import FORECASTERS, KINDS
from topreach.programs import Program, TopK
from topreach.ranking.topk_ranker import TopKRanker

HELP = "Fit a model to a table of counts, or of dated events, and save it."
EPILOG = """\
The table has one row per site and period: an id, a time (a number or a date), a count, and
features known before the period. The saved model knows all periods. Models that are trained by
steps (--objective daml, nll, bpr) keep the epoch that the last --valid periods choose; others are
fitted once more without these periods, to say how well they would have done there. Ctrl-C keeps the
best model so far; with --checkpoint, --resume goes on.

examples:
  topreach fit --data counts.csv --site geoid --time year --count deaths --k 100 --out model.pt
  topreach fit --data counts.csv --site id --time month --count n --features income \\
      --k 20 --model negbin --missing zero --out model.pt --force
  topreach fit --data deaths.csv --site county --time year --count deaths --k 20 --out model.pt \\
      --model negbin --objective marginal --exposure population --suppressed 1-9
  topreach fit --data counts.csv --site geoid --time year --count deaths --k 40 --out model.pt \\
      --groups municipality --at-least 1
  topreach fit --events deaths.csv --time date --place town --types heroin,fentanyl --k 20 \\
      --model stemmed --out model.pt
"""
_LARGE = 2_000_000  # cells; above this, the held-back check runs only if asked for


def add_arguments(sub: argparse.ArgumentParser) -> None:
    add_table_options(sub, data=False, columns=False)
    add_event_options(sub)
    sub.add_argument(
        "--features",
        metavar="A,B",
        type=names,
        help="feature columns (default: all other numeric ones; '' for none)",
    )
    sub.add_argument(
        "--k", type=int, required=True, metavar="K", help="number of sites that can be acted on"
    )
    add_quota_options(sub)
    sub.add_argument("--out", required=True, metavar="FILE", help="model file to write")
    sub.add_argument(
        "--model",
        choices=list(FORECASTERS),
        default="empirical_bayes",
        help="; ".join(f"{n}: {KINDS[n].summary}" for n in FORECASTERS)
        + " (default: empirical_bayes)",
    )
    sub.add_argument(
        "--objective",
        choices=["auto", "daml", "nll", "marginal", "bpr"],
        default="auto",
        help="what training raises (default: auto, the model's own)",
    )
    sub.add_argument(
        "--site-path",
        choices=["ar1", "random_walk"],
        help="site effects that vary over time, for --model negbin --objective marginal",
    )
    sub.add_argument(
        "--window",
        type=int,
        metavar="N",
        help="earlier counts that linear and mlp see (5)",
    )
    sub.add_argument(
        "--link",
        choices=["log", "softplus"],
        help="of --model negbin (default: softplus for mean counts below 10, else log)",
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
        help="last periods to choose or check by (default: 1; 0 if there are under 3)",
    )
    sub.add_argument("--epochs", type=int, metavar="N", help="passes over the data, of each stage")
    sub.add_argument("--lr", type=float, metavar="X", help="learning rate")
    sub.add_argument("--seed", type=int, default=0, metavar="N", help="of training and draws (0)")
    sub.add_argument("--checkpoint", metavar="FILE", help="where to keep the state of the run")
    sub.add_argument("--resume", action="store_true", help="go on from --checkpoint")
    sub.add_argument(
        "--without-past", action="store_true", help="leave the past counts out of the model file"
    )
    sub.add_argument("--quiet", action="store_true", help="show no progress")
    sub.add_argument(
        "--force", action="store_true", help="replace --out and --checkpoint if they exist"
    )


def run(options: argparse.Namespace) -> None:
    may_write(options.out, options.force, standard_output=False)
    if options.checkpoint is not None:
        may_write(
            options.checkpoint,
            options.force or options.resume,
            "checkpoint",
            standard_output=False,
            advice=", --resume goes on from it",
        )
    device_of(options.device)
    if options.resume and options.checkpoint is None:
        raise CommandError("--resume needs --checkpoint FILE")
    _check_model_options(options)
    spec = events = None
    if reads_events(options):
        events = read_events(options)
        panel = events.counts(every_of(options))
    else:
        if KINDS[options.model].needs.events:
            raise CommandError(f"--model {options.model} needs --events FILE, a row per event")
        if options.data is None:
            raise CommandError("--data FILE or --events FILE must be given")
        spec = table_spec(options, None, options.features)
        if options.features is None and quota_columns(options):
            spec = dataclasses.replace(spec, features=AllBut(tuple(quota_columns(options))))
        panel = read_table(spec, options)
    program = program_of(options, spec, panel)
    valid = options.valid if options.valid is not None else int(panel.num_times >= 3)
    if not 0 <= valid < panel.num_times:
        raise CommandError(
            f"--valid must be from 0 to {panel.num_times - 1} with {panel.num_times} periods, got "
            f"{valid}"
        )
    settings = {
        "lr": options.lr,
        "max_epochs": options.epochs,
        "warm_start_epochs": options.epochs,
        "link": options.link,
        "site_path": options.site_path,
        "window": options.window,
        "checkpoint": options.checkpoint,
        "every": None if events is None else every_of(options),
    }

    def ranker() -> TopKRanker:
        return TopKRanker(
            options.k if isinstance(program, TopK) else program,
            model=options.model,
            objective=options.objective,
            ranking=options.ranking,
            seed=options.seed,
            device=options.device,
            progress=not options.quiet,
            **{name: value for name, value in settings.items() if value is not None},
        )

    objective = options.objective
    if objective == "auto":
        objective = FORECASTERS[options.model].objectives[0]
    by_steps = objective not in ("direct", "marginal")
    large = panel.num_sites * panel.num_times > _LARGE and options.valid is None
    held = None
    log = events if KINDS[options.model].needs.events else None
    if valid and (by_steps or not large):
        train, held, _ = panel.split(valid=panel.times[-valid:])
    if by_steps:
        fitted = ranker().fit(panel if held is None else train, held, resume=options.resume)
        judged = fitted
    else:
        judged = None
        if held is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the whole fit gives the same warnings
                judged = ranker().fit(train if log is None else _before(log, held))
        fitted = ranker().fit(panel if log is None else log)
    if spec is not None:
        fitted.ranker_ = fitted.ranker_.with_table(
            spec_to_text(spec.with_features(list(fitted.feature_names_in_)))
        )
    fitted.save(options.out, with_past=not options.without_past)
    print(
        f"{panel.num_sites} sites, {panel.num_times} periods ({panel.labels[0]} to "
        f"{panel.labels[-1]}), {_features(fitted)}"
    )
    if held is not None and judged is not None:
        print(_skill(judged, held, program, chosen=by_steps))
    print(f"model: {options.out}")
    if fitted.interrupted_:
        raise KeyboardInterrupt


def _before(events: Events, held: Panel) -> Events:
    """The events of the periods before those that are held back."""
    return events.complete_to(float(held.time_values[0]))


def _check_model_options(options: argparse.Namespace) -> None:
    """Refuse an option that the model does not have; do not ignore it."""
    known = {field.name for field in dataclasses.fields(FORECASTERS[options.model])}
    for name in ("site_path", "link", "window"):
        if getattr(options, name) is not None and name not in known:
            having = [n for n, cls in FORECASTERS.items() if hasattr(cls, name)]
            raise CommandError(
                f"--{name.replace('_', '-')} must come with --model {' or '.join(having)}, got "
                f"--model {options.model}"
            )
    if options.epochs is not None and options.epochs < 1:
        raise CommandError(f"--epochs must be at least 1, got {options.epochs}")
    if KINDS[options.model].needs.events and (options.valid or 0) > 1:
        raise CommandError(
            f"--valid must be 0 or 1 with --model {options.model}, which is judged by the period "
            f"after those that it knows, got {options.valid}"
        )
    if options.without_past and KINDS[options.model].needs.events:
        raise CommandError(
            f"--without-past must not come with --model {options.model}, which plans for the "
            "periods after those that it knows"
        )
    if options.site_path is not None and options.objective != "marginal":
        raise CommandError(
            f"--site-path must come with --objective marginal, got {options.objective}"
        )


def _features(ranker: TopKRanker) -> str:
    names = ranker.feature_names_in_
    text = "no features used."
    if names:
        shown = f"{', '.join(names[:12])}{' ...' if len(names) > 12 else ''}"
        text = f"{len(names)} feature(s): {shown}."
    history = ranker.site_history_
    near = getattr(history, "neighbours_by_", None)
    if near:
        text += f" Neighbours by {', '.join(near) if not isinstance(near, str) else near}."
    return text


def judged(panel: Panel) -> list[tuple[str, Panel]]:
    """The panels to judge a plan by: the panel, or its two bounds if it has suppressed counts."""
    if panel.is_exact:
        return [("", panel)]
    words = {"lower": "least", "upper": "most"}
    return [
        (f", suppressed counts at their {word}", panel.at_bound(bound))
        for bound, word in words.items()
    ]


def model_scores(
    ranker: TopKRanker, given: Panel, judged: Panel
) -> tuple[torch.Tensor, torch.Tensor | None, Panel]:
    """Scores and forecasts [T, S] of the model, and the counts to judge them by, sites in the same
    order.

    `judged` is `given`, or a bound of its counts. The scores are always made from `given`: a bound
    would contradict the counts that the model was fitted to."""
    needs = ranker.ranker_.needs
    source = judged if needs.past or needs.window > 0 else given
    scores = torch.from_numpy(ranker.site_scores(source))
    forecast = None
    if ranker.ranker_.is_probabilistic:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as for the scores
            forecast = torch.from_numpy(ranker.predict(source))
    return scores, forecast, judged.align(site_ids=ranker.site_ids_) if needs.sites else judged


def _skill(ranker: TopKRanker, held: Panel, program: Program, *, chosen: bool) -> str:
    """A sentence on how well the held-back periods are ranked, beside the mean of past periods."""
    periods = ", ".join(held.labels)
    sentences = []
    for text, part in judged(held):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scores, _, counts = model_scores(ranker, held, part)
            reach = reached(scores, counts, program)
            mean = reached(baselines.historical_mean(part), part, program)
        if math.isnan(reach):
            sentences.append(
                f"There were no events in {periods}{text}: nothing to judge the model by."
            )
            continue
        how = "The epoch was chosen by" if chosen else "Fitted without"
        sentences.append(
            f"{how} {periods}{text}: its {program.size()} sites reach {reach:.1%} of the best "
            f"possible there, those of the mean of past periods {_percent(mean)}."
        )
    return "\n".join(sentences)


def reached(scores: torch.Tensor, panel: Panel, program: Program) -> float:
    """Share of the best possible reach of a choice by scores [T, S], the mean over the panel's
    periods with events. A site that is not open can not be chosen."""
    own = program.for_sites("topreach", list(panel.site_ids)) or program
    shut = panel.y.isnan()
    scores = scores.to(torch.float64).masked_fill(shut, -math.inf)
    return float(metrics.bpr(scores, panel.y.masked_fill(shut, 0.0), own, nan_policy="omit"))


def _percent(value: Any) -> str:
    return "what is not known" if np.isnan(value) else f"{float(value):.1%}"
