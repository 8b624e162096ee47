"""`topreach info`: what a model file is."""

from __future__ import annotations

import argparse

from topreach.cli.options import spec_of
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
    rows = {
        "model": f"{file.model}, ranked by {file.ranking}",
        "program": repr(ranker.program_),
        "sites": f"{len(file.site_ids)}: {', '.join(file.site_ids[:4])}"
        + (" ..." if len(file.site_ids) > 4 else ""),
        "periods": calendar.describe(),
        "learned from": f"{label(file.fitted_times[0])} to {label(file.fitted_times[-1])}, "
        f"{len(file.fitted_times)} periods",
        "past counts": f"{known} (every site's counts)" if past else known,
        "plans for": label(calendar.next(max(past or file.fitted_times))),
        "features": ", ".join(ranker.feature_names_in_) or "none",
        "exposure": "needed" if file.uses_exposure else "none",
        "table columns": columns,
        "written by": f"topreach {file.topreach_version}, torch {file.torch_version}",
        "digest": file.digest,
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name + ':':{width + 1}} {value}")
