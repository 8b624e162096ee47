"""Builds and runs the kernels' own benchmarks (`*_kernels.cpp`), and reads their output."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "bench"
PROGRAMS = ("hawkes_kernels", "programs_kernels")


def run(programs: tuple[str, ...] = PROGRAMS) -> str:
    """Builds the programs, and returns what they print.

    Raises:
        subprocess.CalledProcessError: a build or a run failed.
    """
    configure = ["cmake", "-S", ROOT, "-B", BUILD, "-DTOPREACH_BENCHMARKS=ON"]
    configure += ["-DTOPREACH_TESTS=OFF", f"-DPython_EXECUTABLE={sys.executable}"]
    build = ["cmake", "--build", BUILD, "-j", "2", "--target", *programs]
    for command in (configure, build):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    printed = [
        subprocess.run([BUILD / name], check=True, capture_output=True, text=True).stdout
        for name in programs
    ]
    return "\n".join(printed)


def number(printed: str, line: str, pattern: str) -> float | None:
    """The number that `pattern` captures, in the first line that starts with `line`."""
    for each in printed.splitlines():
        found = re.search(pattern, each) if each.startswith(line) else None
        if found:
            return float(found[1])
    return None
