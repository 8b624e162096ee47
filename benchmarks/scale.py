"""The default model on large tables, from the command line: seconds, processor time, memory.

    python -m benchmarks.scale                   # 10,000 and 100,000 sites × 50 periods, 10⁶ × 24
    python -m benchmarks.scale --sites 20000 --periods 12

For each size, a table is simulated and written as CSV (site, period, count, lat, lon). `topreach
fit` reads it and fits; `topreach rank` plans the next period from the model file only. Each command
is a separate process, and its figures include reading, fitting and writing. The results are written
to scale.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import topreach as tr

REPORT = Path(__file__).with_name("scale.md")
SIZES = ((10_000, 50), (100_000, 50), (1_000_000, 24))
_CHUNK = 100_000  # rows of a site's column written at once


class Run(NamedTuple):
    """One command: wall seconds, processor seconds, peak resident memory in GB."""

    wall: float
    cpu: float
    peak: float


def write_table(path: Path, sites: int, periods: int, seed: int = 0) -> None:
    """Poisson counts whose rates are gamma distributed over sites, on random places."""
    draw = np.random.default_rng(seed)
    rate = draw.gamma(0.5, 4.0, sites)
    lat, lon = draw.uniform(41, 43, sites), draw.uniform(-73, -70, sites)
    with path.open("w", encoding="utf-8") as file:
        file.write("site,period,count,lat,lon\n")
        for start in range(0, sites, _CHUNK):
            part = range(start, min(start + _CHUNK, sites))
            counts = draw.poisson(rate[start : part.stop], (periods, len(part)))
            places = [f"{lat[s]:.5f},{lon[s]:.5f}" for s in part]
            for t in range(periods):
                file.writelines(
                    f"s{s},{1970 + t},{y},{place}\n"
                    for s, y, place in zip(part, counts[t], places, strict=True)
                )


def run(*arguments: str) -> Run:
    """Runs a topreach command in a separate process.

    Raises:
        RuntimeError: the command failed.
    """
    started = time.perf_counter()
    code = "import sys; from topreach.cli.main import main; sys.exit(main())"
    process = os.posix_spawn(
        sys.executable, [sys.executable, "-W", "ignore", "-c", code, *arguments], dict(os.environ)
    )
    _, status, used = os.wait4(process, 0)
    if status != 0:
        raise RuntimeError(f"topreach {' '.join(arguments)}: failed with status {status}")
    wall = time.perf_counter() - started
    return Run(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20)


def measure(sites: int, periods: int, folder: Path) -> tuple[float, Run, Run]:
    """Size of the table in MB, then the fit and the plan."""
    table, model = folder / "table.csv", folder / "model.pt"
    write_table(table, sites, periods)
    size = table.stat().st_size / 1e6
    columns = ("--site", "site", "--time", "period", "--count", "count")
    fit = run(
        "fit", "--data", str(table), *columns, "--k", str(max(1, sites // 100)), "--out", str(model)
    )
    plan = run("rank", "--model", str(model), "--out", str(folder / "plan.csv"))
    table.unlink()
    return size, fit, plan


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--sites", type=int)
    parser.add_argument("--periods", type=int, default=50)
    options = parser.parse_args()
    sizes = SIZES if options.sites is None else ((options.sites, options.periods),)
    lines = [
        "# The default model on large tables",
        "",
        f"By `python -m benchmarks.scale` on {time.strftime('%Y-%m-%d')}: topreach "
        f"{tr.__version__}, torch {torch.__version__}, Python {platform.python_version()}, "
        f"{torch.get_num_threads()} threads, {platform.machine()}. Reading the CSV, fitting and "
        "writing the model are all in the fit's figures; the plan is made from the model file.",
        "",
        "| sites × periods | CSV, MB | fit, s | fit, processor s | fit, GB | rank, s | rank, GB |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines[-2:]), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for sites, periods in sizes:
            own = Path(folder) / f"{sites}-{periods}"
            own.mkdir()
            size, fit, plan = measure(sites, periods, own)
            lines.append(
                f"| {sites:,} × {periods} | {size:.0f} | {fit.wall:.1f} | {fit.cpu:.1f} | "
                f"{fit.peak:.2f} | {plan.wall:.1f} | {plan.peak:.2f} |"
            )
            print(lines[-1], flush=True)
    if options.sites is None:
        REPORT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
