"""Options that several commands share, and the checks before any work is done."""

from __future__ import annotations

import argparse
import json
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from topreach.data.files import atomic_path
from topreach.data.messages import in_words
from topreach.data.panel import Panel
from topreach.data.table import TableSpec

ROLES = ("site", "time", "count")


class CommandError(Exception):
    """An error message for the user, in one line."""


def say_note(text: str) -> None:
    print(f"note: {in_words(text)}", file=sys.stderr)


def add_table_options(
    sub: argparse.ArgumentParser, *, data: bool, columns: bool, counts: bool = True
) -> None:
    """Add the options that say how a table is read, the same for every command that reads one.
    `counts`: whether the command needs counts in all periods."""
    sub.add_argument(
        "--data",
        required=data,
        metavar="FILE",
        help="table of counts: CSV (also .gz or .zip; - is standard input) or Parquet",
    )
    for name, what in (("site", "site id"), ("time", "period"), ("count", "count")):
        sub.add_argument(
            f"--{name}", required=columns, metavar="COLUMN", help=f"column of the {what}"
        )
    sub.add_argument(
        "--exposure",
        metavar="COLUMN",
        help="column of what counts are in proportion to, e.g. the population",
    )
    sub.add_argument(
        "--opened", metavar="COLUMN", help="column of the time when a site opened (blank: always)"
    )
    sub.add_argument(
        "--closed", metavar="COLUMN", help="column of the time when a site closed (blank: open)"
    )
    sub.add_argument(
        "--suppressed",
        action="append",
        type=_interval,
        default=[],
        metavar="TEXT=LOW-HIGH",
        help="what a cell says in place of a count, and the counts that it can be; 1-9 alone for "
        "1-9=1-9, =1-9 for a blank cell; again for more",
    )
    if counts:
        sub.add_argument(
            "--counts",
            choices=["required", "optional"],
            default="required",
            help="optional: leave out last periods whose counts are blank (default: required)",
        )
    sub.add_argument(
        "--missing", choices=["error", "zero"], help="missing site-periods (default: error)"
    )
    sub.add_argument(
        "--duplicates", choices=["error", "sum"], help="repeated rows (default: error)"
    )
    sub.add_argument(
        "--time-format", metavar="FORMAT", help="how times are written, e.g. %%d/%%m/%%Y"
    )
    add_text_options(sub)


def add_text_options(sub: argparse.ArgumentParser) -> None:
    """Add the options that say how the text of a CSV file is read."""
    sub.add_argument("--sep", metavar="CHAR", help="separator of a CSV file (default: found)")
    sub.add_argument("--encoding", metavar="NAME", help="encoding of a CSV file (default: UTF-8)")
    sub.add_argument("--decimal", metavar="CHAR", help="decimal mark of a CSV file (default: .)")


def text_of(options: argparse.Namespace) -> dict[str, Any]:
    """These options as arguments of `read_csv`."""
    given = {
        "sep": unescaped(options.sep), "encoding": options.encoding, "decimal": options.decimal
    }  # fmt: skip
    return {name: value for name, value in given.items() if value is not None}


def table_spec(
    options: argparse.Namespace, known: TableSpec | None, features: list[str] | None
) -> TableSpec:
    """How the table is read: as the options say, else as the model's table was."""
    base = {} if known is None else known.to_dict()
    given = {
        name: getattr(options, name)
        for name in (
            *ROLES,
            "exposure",
            "opened",
            "closed",
            "missing",
            "duplicates",
            "time_format",
            "sep",
            "encoding",
            "decimal",
        )
        if getattr(options, name) is not None
    }
    if "sep" in given:
        given["sep"] = unescaped(given["sep"])
    if options.suppressed:
        given["suppressed"] = dict(options.suppressed)
    merged = base | given
    absent = [f"--{name}" for name in ROLES if name not in merged]
    if absent:
        why = ""
        if options.command != "fit":
            its = getattr(options, "model", None)
            why = " without --model" if its is None else ", as the model file does not say"
        raise CommandError(f"{', '.join(absent)} must name the column(s){why}")
    merged["features"] = features
    return TableSpec.from_dict(merged)


def read_table(spec: TableSpec, options: argparse.Namespace, *, counts: str | None = None) -> Panel:
    """The panel of --data. The reader's notes are printed to standard error, once. `counts`: as for
    `TableSpec.read`; None takes it from --counts, and leaves out last periods without counts.
    """
    panel = spec.read(options.data, counts=counts or options.counts)
    if counts is None and not bool(panel.has_counts.all()):
        known = panel.has_counts.tolist()
        left_out = [t for t, has in zip(panel.labels, known, strict=True) if not has]
        if not any(known):
            raise CommandError(f"{options.data} must have counts, got none in any period")
        panel = panel.select_times([t for t, has in zip(panel.times, known, strict=True) if has])
        say_note(f"left out, for want of counts: {', '.join(left_out)}")
    for note in dict.fromkeys(panel.notes):
        say_note(note)
    return panel


def spec_to_text(spec: TableSpec) -> dict[str, str]:
    """The spec as text, for the model file."""
    return {"spec": json.dumps(spec.to_dict())}


def spec_of(table: dict[str, str]) -> TableSpec | None:
    return TableSpec.from_dict(json.loads(table["spec"])) if "spec" in table else None


def unescaped(sep: str | None) -> str | None:
    r"""The separator that was meant: \t is a tab."""
    return None if sep is None else sep.encode().decode("unicode_escape")


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _interval(text: str) -> tuple[str, tuple[int, int]]:
    found = re.fullmatch(r"(?:(.*)=)?(\s*(\d+)\s*[-–]\s*(\d+)\s*)", text)
    if not found:
        raise argparse.ArgumentTypeError(
            f"must be an interval such as 1-9, or TEXT=LOW-HIGH such as '*=1-9', got {text!r}"
        )
    key = found[2] if found[1] is None else found[1]
    return key, (int(found[3]), int(found[4]))


def joined(arguments: list[str]) -> list[str]:
    """`--suppressed -1=1-9` joined to one word: argparse would take `-1=1-9` for an option."""
    result: list[str] = []
    for word in arguments:
        if result and result[-1] == "--suppressed" and word.startswith("-") and "=" in word:
            result[-1] = f"--suppressed={word}"
        else:
            result.append(word)
    return result


# Options that name a file to read, and options that name a file to write.
READ = ("data", "events", "places", "model", "scores", "edges", "gal", "gwt", "geometry")
WRITTEN = ("out", "geojson", "checkpoint")


def check_files(options: argparse.Namespace) -> None:
    """Raise if a file would be both read and written, or written twice."""
    taken: dict[str, str] = {}
    for name in (*READ, *WRITTEN):
        path = getattr(options, name, None)
        if not isinstance(path, str) or (path == "-" and name not in WRITTEN):
            continue
        place = path if path == "-" else os.path.realpath(path)
        if name in WRITTEN and place in taken:
            raise CommandError(
                f"--{name} must be another file than --{taken[place]}, got {path} for both"
            )
        if path == "-" or Path(path).is_file() or name in WRITTEN:
            taken.setdefault(place, name)


def may_write(
    path: str, force: bool, name: str = "out", *, standard_output: bool = True, advice: str = ""
) -> None:
    """Raise, before any work, if `path` is an existing file and `force` is not set. Devices and
    pipes are allowed."""
    if path == "-":
        if not standard_output:
            raise CommandError(f"--{name} must be a file, got - (standard output)")
        return
    target = Path(path)
    if target.is_dir():
        raise CommandError(f"--{name} must be a file, got the folder {path}")
    try:
        plain = stat.S_ISREG(target.stat().st_mode)
    except FileNotFoundError:
        parent = target.resolve().parent if target.is_symlink() else target.parent
        if not parent.is_dir():
            raise CommandError(f"the folder {parent} of --{name} must exist") from None
        return
    if plain and not force:
        raise CommandError(f"{path} exists; --force replaces it{advice}")


def device_of(device: str | None) -> str | None:
    if device is not None:
        try:
            kind = torch.device(device).type
        except RuntimeError:
            kind = ""
        if kind not in ("cpu", "cuda"):
            raise CommandError(f"--device must be cpu or cuda, got {device}")
    if device is not None and device.startswith("cuda") and not torch.cuda.is_available():
        raise CommandError(
            f"--device {device} must be there, but torch finds no CUDA device; use --device cpu"
        )
    return device


def check_k(k: Any, sites: int) -> None:
    if not 1 <= k <= sites:
        raise CommandError(f"--k must be from 1 to the number of sites, {sites}, got {k}")


def write_table(table: pd.DataFrame, path: str) -> None:
    """Write a CSV file whole or not at all; "-" is standard output."""
    with atomic_path(path, standard_output=True) as target:
        table.to_csv(target, index=False)
