"""The command `topreach experiment`. The library finds it by its entry point, see
pyproject.toml."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from types import ModuleType

import topreach_experiments as experiments
import torch

from .context import Context

HELP = "Run one of the papers' experiments, or a study of our own."
EPILOG = """\
Each writes its tables (CSV, Markdown) and plots (PNG, SVG) into --out. A run that was stopped goes
on where it was. `topreach experiment NAME --help` lists the options of one.

examples:
  topreach experiment ranking_demo
  topreach experiment all --quick --out results
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments; the others belong to the experiment."""
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="which one, or all (default: list them)"
    )
    parser.add_argument(
        "arguments",
        nargs=argparse.REMAINDER,
        metavar="...",
        help="its options: --quick, --seed N, --device D, --out DIR, --data DIR, --fresh, --quiet",
    )


def run(options: argparse.Namespace) -> None:
    """List the experiments, or run one or all of them.

    Raises:
        ValueError: there is no experiment of that name, or no such device.
    """
    if options.name is None:
        for name in experiments.names():
            print(f"{name:20} {experiments.load(name).TITLE}")
        return
    everything = options.name == "all"
    for name in experiments.names() if everything else [options.name]:
        experiment = experiments.load(name)
        own = _parser(name, experiment, everything=everything).parse_args(options.arguments)
        options.debug = own.debug
        del own.debug
        _run(name, experiment, own, one_of_many=everything)


def _parser(name: str, experiment: ModuleType, *, everything: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        f"topreach experiment {'all' if everything else name}", description=experiment.TITLE
    )
    parser.add_argument("--quick", action="store_true", help="a short run, to see that it works")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all randomness (0)")
    parser.add_argument("--device", metavar="D", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument(
        "--out", metavar="DIR", help="folder for the results (default: topreach-NAME)"
    )
    parser.add_argument(
        "--data", metavar="DIR", help="folder of the data sets (default: TOPREACH_DATA, cache, web)"
    )
    parser.add_argument("--fresh", action="store_true", help="do finished parts again")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    if hasattr(experiment, "add_options"):
        experiment.add_options(parser.add_argument_group(f"options of {name}"))
    return parser


def _run(
    name: str, experiment: ModuleType, options: argparse.Namespace, *, one_of_many: bool
) -> None:
    values = vars(options)
    out = Path(values.pop("out") or ("." if one_of_many else f"topreach-{name}"))
    if one_of_many:
        out = out / f"topreach-{name}"
    device = values.pop("device")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"experiment: --device must be there, got {device}, but torch finds no CUDA device. "
            "Use --device cpu."
        )
    data = values.pop("data")
    context = Context(
        name=name,
        out=out,
        seed=values.pop("seed"),
        quick=values.pop("quick"),
        device=torch.device(device),
        data=None if data is None else Path(data),
        fresh=values.pop("fresh"),
        progress=not values.pop("quiet"),
        options=argparse.Namespace(**values),
    )
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    experiment.run(context)
    print(f"{name}: results in {out}, done in {time.perf_counter() - started:.0f} s.")
