"""The warnings and errors of a `TopKRanker`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable


class NotFittedError(ValueError, AttributeError):
    """The ranker was asked for something that only a fitted one has."""


class RankerNote(UserWarning):
    """A limit of a ranking, or something that the user should know about it."""


def say(notes: Iterable[str]) -> None:
    """Warn of each note by a `RankerNote` at the line of the caller outside of topreach."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("topreach."):
        level, frame = level + 1, frame.f_back
    for note in notes:
        warnings.warn(note[:1].upper() + note[1:], RankerNote, stacklevel=level)
