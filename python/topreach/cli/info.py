"""`topreach info`: describes a model file."""

from __future__ import annotations

import argparse

from topreach import _C
from topreach.cli.options import spec_of
from topreach.data.moments import end_label
from topreach.models import Stemmed
from topreach.models.stemmed.forecast import spectral_radius
from topreach.ranking.topk_ranker import TopKRanker

HELP = "Say what a model file is: its model, what it knows, and until when."
EPILOG = """\
example:
  topreach info model.pt
"""


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("path", metavar="MODEL", help="model file")


def run(options: argparse.Namespace) -> None:
    ranker = TopKRanker.load(options.path)
    file = ranker.ranker_.file(True)
    calendar = file.calendar
    label = calendar.label
    past = file.past_times
    known = f"{label(past[0])} to {label(past[-1])}, {len(past)} periods" if past else "left out"
    spec = spec_of(dict(file.table))
    columns = (
        "not said"
        if spec is None
        else ", ".join(
            f"{role} {name!r}" for role, name in spec.to_dict().items() if isinstance(name, str)
        )
    )
    rows: dict[str, str] = {
        "model": f"{file.model}, ranked by {file.ranking}",
        "program": repr(ranker.program_),
        "sites": f"{len(file.site_ids)}: {', '.join(file.site_ids[:4])}"
        + (" ..." if len(file.site_ids) > 4 else ""),
        "periods": calendar.describe(),
        "learned from": f"{label(file.fitted_times[0])} to {label(file.fitted_times[-1])}, "
        f"{len(file.fitted_times)} periods",
        "past counts": f"{known} (every site's counts)" if past else known,
        "plans for": label(calendar.next(max(past or file.fitted_times))),
        **(_of_process(ranker.model_, file) if isinstance(ranker.model_, Stemmed) else {}),
        "features": ", ".join(ranker.feature_names_in_) or "none",
        "exposure": "needed" if file.uses_exposure else "none",
        "table columns": columns,
        "written by": f"topreach {file.topreach_version}, torch {file.torch_version}",
        "digest": file.digest,
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name + ':':{width + 1}} {value}")


def _of_process(model: Stemmed, file: _C.ModelFile) -> dict[str, str]:
    """Facts about a point process: its nodes, the end of its events, and how events act."""
    scope, options, dynamics = model.scope_, model.config, model.saved_dynamics
    unit = "days" if scope.is_dates else "units of time"
    lags = 1 / dynamics.decay
    span = f"{float(lags.min()):.3g} to {float(lags.max()):.3g} {unit}"
    events = 0 if file.past_counts is None else round(float(file.past_counts.nansum()))
    end = end_label(scope.start + scope.duration, scope.is_dates)
    half_life, anchor = options["half_life"], options["anchor"]
    return {
        "events": f"{events} in {len(scope.places)} places, known until {end}",
        "types": f"{len(scope.types)}: {', '.join(map(str, scope.types))}",
        "network": "each node excites itself only"
        if options["network"] == "own"
        else f"each node excites all, theta {options['theta']!r}",
        "decay": f"an event's effect lasts {span} (the mean lags of {len(lags)} nodes)",
        "half-life": "none: all of the past counts the same"
        if half_life is None
        else f"{half_life:g} months",
        "spectral radius": f"{spectral_radius(dynamics.branching):.3g} children per event"
        + ("" if anchor is None else f", relaxed to the last {anchor:g} months"),
    }
