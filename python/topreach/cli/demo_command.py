"""`topreach demo`."""

from __future__ import annotations

import argparse
from pathlib import Path

from topreach.cli import demo
from topreach.cli.options import CommandError, device_of

HELP = "Train on overdose deaths in Cook County (or a simulated county), compare, write a plan."
EPILOG = """\
Writes plan.csv, model.pt, reach.png and comparison.csv into --out, in place of earlier ones.

example:
  topreach demo --out results --seed 1
"""


def add_arguments(sub: argparse.ArgumentParser) -> None:
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


def run(options: argparse.Namespace) -> None:
    device_of(options.device)
    if Path(options.out).exists() and not Path(options.out).is_dir():
        raise CommandError(f"--out must be a folder, got the file {options.out}")
    demo.run(
        options.out,
        data=options.data,
        seed=options.seed,
        quick=options.quick,
        device=options.device,
        progress=not options.quiet,
    )
