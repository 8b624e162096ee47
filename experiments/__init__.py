"""The papers' experiments and our own studies, each in a folder with a README. `topreach experiment
NAME` runs one.

They are installed as the package `topreach_experiments`. An experiment is a subpackage with

    TITLE: str                                  # one line, for the list
    run(context: Context) -> None               # does the work; see context.py
    add_options(parser) -> None                 # optional: its own options, in context.options
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

_FOLDER = Path(__file__).resolve().parent


def names() -> list[str]:
    """The names of all experiments, in alphabetical order."""
    return sorted(
        path.parent.name for path in _FOLDER.glob("*/__init__.py") if path.parent != _FOLDER
    )


def load(name: str) -> ModuleType:
    """The module of one experiment.

    Raises:
        ValueError: there is no experiment of that name.
    """
    if name not in names():
        raise ValueError(f"experiment: NAME must be one of {', '.join(names())}, got {name!r}.")
    return importlib.import_module(f"{__name__}.{name}")
