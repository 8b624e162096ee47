"""The context of an experiment: its settings, cells of work that survive an interruption, and
files of results that are written whole."""

from __future__ import annotations

import argparse
import ast
import functools
import hashlib
import importlib.util
import json
import platform
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from tqdm import tqdm

import topreach
from topreach import Splits
from topreach.data import atomic_path
from topreach.data.datasets import simulate_county

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from topreach import Panel


@dataclass
class Context:
    """The settings of one run and where its results go.

    Attributes:
        name: of the experiment.
        out: folder for the results; it exists.
        seed: of all randomness in the run.
        quick: whether to do a short run, to see that it works.
        device: where to compute.
        data: folder of the data sets; None: the loaders' default places.
        options: the experiment's own options.
        fresh: whether to run finished cells again.
        progress: whether to show progress.
    """

    name: str
    out: Path
    seed: int = 0
    quick: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    data: Path | None = None
    options: argparse.Namespace = field(default_factory=argparse.Namespace)
    fresh: bool = False
    progress: bool = True

    def cells(
        self, cells: Mapping[str, Callable[[], Any]], settings: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run cells of work in order; a later run with the same settings skips those that are done.

        Args:
            cells: by name (letters, digits, and ``. = _ -``, unique without regard to case),
                functions that return plain values: numbers, strings, None, lists and dictionaries
                of them.
            settings: plain values that the results depend on, in addition to the seed, quick, the
                device, and the code of this experiment, of the files that experiments share, and
                of the library.

        Returns:
            The results by name, as read back from JSON. Each is kept in ``out/cells/NAME.json``,
            which is never half written.

        Raises:
            ValueError: a name with other characters.
            TypeError: a result that is not plain.

        Example:
            >>> found = context.cells({f"k={k}": lambda k=k: trial(k) for k in (1, 3)}, {"n": 100})
        """
        for key in cells:
            if not re.fullmatch(r"[\w.=-]+", key, re.ASCII):
                raise ValueError(
                    f"Context.cells: names must be of letters, digits, . = _ and -, got {key!r}."
                )
        folder = self.out / "cells"
        folder.mkdir(exist_ok=True)
        identity = self._identity(settings or {})
        results: dict[str, Any] = {}
        outdated = 0
        if not self.fresh:
            for key in cells:
                stored = _read_json(folder / f"{key}.json")
                if isinstance(stored, dict) and stored.get("identity") == identity:
                    results[key] = stored["result"]
                elif stored is not None:
                    outdated += 1
        if results and self.progress:
            print(
                f"{self.name}: {len(results)} of {len(cells)} parts were done before "
                "(--fresh does them again)",
                file=sys.stderr,
            )
        if outdated and self.progress:
            print(
                f"{self.name}: {outdated} parts were made by other code or settings, and are done "
                "again",
                file=sys.stderr,
            )
        with _Progress(self.name, len(cells), len(results), self.progress) as progress:
            for key, function in cells.items():
                if key in results:
                    continue
                progress.begin(key)
                started = time.perf_counter()
                result = function()
                content = {
                    "identity": identity,
                    "seconds": time.perf_counter() - started,
                    "result": result,
                }
                text = json.dumps(content, indent=1)
                with atomic_path(folder / f"{key}.json") as path:
                    path.write_text(text)
                results[key] = json.loads(text)["result"]
                progress.end()
        return {key: results[key] for key in cells}

    def splits(self, load: Callable[[Path | None], Splits]) -> Splits:
        """The data that `load` reads from the folder `data`.

        If no folder is named and the files are not available, it gives a simulated county, and
        prints a message.

        Raises:
            OSError: the files are not in the folder that was named.
        """
        try:
            return load(self.data)
        except OSError as error:
            if self.data is not None:
                raise
            print(
                "SIMULATED DATA: the files were not found, so that the numbers below say nothing "
                f"about any real place.\n({str(error).splitlines()[0]})",
                file=sys.stderr,
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return simulate_county(self.seed)

    def table(self, frame: pd.DataFrame, name: str = "results", *, title: str = "") -> None:
        """Print a table and write it as ``NAME.csv`` and ``NAME.md``, with its provenance.

        Numbers are written in full in the CSV; in Markdown, floats with four significant digits.
        """
        with atomic_path(self.out / f"{name}.csv") as path:
            frame.to_csv(path)
        body = markdown_table(frame)
        heading = f"{title}\n\n" if title else ""
        with atomic_path(self.out / f"{name}.md") as path:
            path.write_text(f"{heading}{body}\n\n{self.provenance()}\n")
        print(f"\n{heading}{body}\n")

    def figure(self, figure: Figure, name: str) -> None:
        """Write a figure as ``NAME.png`` (150 dpi) and ``NAME.svg``."""
        for ending in ("png", "svg"):
            with atomic_path(self.out / f"{name}.{ending}") as path:
                figure.savefig(path, dpi=150)

    def can_plot(self) -> bool:
        """Whether matplotlib is installed; says so if not."""
        if importlib.util.find_spec("matplotlib") is not None:
            return True
        print(
            "matplotlib is not installed: no plots; pip install 'topreach[plot]'", file=sys.stderr
        )
        return False

    def provenance(self) -> str:
        """One sentence: the command, the seed and the versions that made the results."""
        command = f"topreach experiment {self.name}" + (" --quick" if self.quick else "")
        return (
            f"Made by `{command} --seed {self.seed}`; topreach {topreach.__version__}, "
            f"torch {torch.__version__}, Python {platform.python_version()}, {self.device.type}."
        )

    def _identity(self, settings: Mapping[str, Any]) -> str:
        own = {k: v for k, v in vars(self.options).items() if not callable(v)}
        content = {
            "settings": dict(settings),
            "options": own,
            "seed": self.seed,
            "quick": self.quick,
            "device": self.device.type,
            "data": None if self.data is None else str(self.data),
            "torch": torch.__version__,
            "code": code_digest(self.name),
        }
        text = json.dumps(content, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def code_digest(name: str) -> str:
    """Digest of the code that makes an experiment's results.

    It covers the experiment's own files, the files that experiments share, and the library's
    Python code and binaries. Comments, docstrings and layout do not matter.
    """
    here = Path(__file__).resolve().parent
    own = (here / name).rglob("*.py")
    return _digest_of_files(here, (*here.glob("*.py"), *own)) + _library_digest()


@functools.cache
def _library_digest() -> str:
    package = Path(topreach.__file__).resolve().parent
    return _digest_of_files(package, (*package.rglob("*.py"), *package.rglob("*.so")))


def _digest_of_files(root: Path, paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        content = path.read_bytes()
        digest.update(str(path.relative_to(root)).encode() + b"\0")
        digest.update(_meaning(content).encode() if path.suffix == ".py" else content)
    return digest.hexdigest()[:16]


def _meaning(source: bytes) -> str:
    """A Python file's syntax tree without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if node.body and ast.get_docstring(node, clean=False) is not None:
                del node.body[0]
    return ast.dump(tree)


def panel_digest(*panels: Panel | None) -> str:
    """Digest of the panels' data, for a cell's settings: other data make a new cell."""
    digest = hashlib.sha256()
    for panel in panels:
        if panel is None:
            continue
        digest.update(repr((panel.site_ids, panel.times, panel.feature_names)).encode())
        for tensor in (panel.x, panel.y, panel.y_upper, panel.exposure, panel.history_y):
            # Mark missing tensors, so that the next one cannot be taken for it.
            data = None if tensor is None else tensor.cpu().contiguous().numpy()
            digest.update(b"none" if data is None else repr(data.shape).encode() + data.tobytes())
    return digest.hexdigest()[:16]


def markdown_table(frame: pd.DataFrame) -> str:
    """A table in Markdown: the index first, floats with four significant digits, NaN as a dash.

    >>> frame = pd.DataFrame({"bpr": [0.82345]}, index=pd.Index(["NLL"], name="method"))
    >>> print(markdown_table(frame))
    | method | bpr |
    |---|--:|
    | NLL | 0.8235 |
    """
    flat = frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()
    numeric = [pd.api.types.is_numeric_dtype(flat[column]) for column in flat.columns]
    lines = [
        "| " + " | ".join(str(column) for column in flat.columns) + " |",
        "|" + "|".join("--:" if number else "---" for number in numeric) + "|",
    ]
    for row in flat.itertuples(index=False):
        lines.append("| " + " | ".join(_cell(value) for value in row) + " |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("|", r"\|")


def _read_json(path: Path) -> Any:
    """The content of the file, or None if it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


class _Progress:
    """Progress as a bar on a terminal, and as plain lines elsewhere."""

    def __init__(self, name: str, total: int, done: int, shown: bool):
        self._name, self._total, self._done = name, total, done
        self._lines = shown and not sys.stderr.isatty()
        self._bar = None
        if shown and not self._lines:
            self._bar = tqdm(total=total, initial=done, desc=name, dynamic_ncols=True)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def begin(self, key: str) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(key)
        elif self._lines:
            text = f"{self._name}: {self._done + 1}/{self._total} {key}"
            print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        self._done += 1
        if self._bar is not None:
            self._bar.update(1)
