"""Error messages for two readers: one who writes Python, one at the command line.

A message that says how to mend something names an argument, `missing="zero"`, or an option,
`--missing zero`. A context variable says which of the two, so no function needs to pass it on.

`option` and `either` give the form for the present reader when a message is made. `in_words` is the
last step at the command line, for errors and notes alike: it takes off the name of the function,
and turns arguments that are options of this command into flags. This covers messages of the C++
library too, which only name arguments.
"""

from __future__ import annotations

import contextlib
import contextvars
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

_STYLE: contextvars.ContextVar[str] = contextvars.ContextVar("topreach_wording", default="python")
_OPTIONS: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar(
    "topreach_options", default=frozenset()
)
# Phrases in messages of the C++ library, and their form at the command line.
OF_THE_LIBRARY = {
    ", or take panel.at_bound('lower')": "",
    "Fit with anchor=12, or with stable=True": "Fit it again with topreach fit --events",
    "with_past must be true for": "the past must be kept for",
    "got false. Save it with its past": "got --without-past. Leave this out",
    "floors must": "--floor must",
    "time must be a number of seconds": "--time must be a number of seconds",
    "time must be long enough": "--time must be long enough",
    "Give a table with rows for": "Give --data, a table with rows for",
}
# Options whose names also stand for other things: a column, a noun.
_NOUNS = frozenset(
    {"time", "times", "data", "path", "value", "count", "counts", "command", "program"}
)
# A function's name before a message: TopKRanker.fit, Ranker::save, quota_topk, tours.
_FUNCTION = re.compile(r"^(?:[A-Za-z_]\w*(?:\.|::))*[A-Za-z_]\w*: ")


@contextlib.contextmanager
def wording(style: str, options: Collection[str] = ()) -> Iterator[None]:
    """Within the block, messages speak to a "python" or a "cli" reader.

    Args:
        options: the arguments that the command has options for, e.g. lock_in for --lock-in.

    Raises:
        ValueError: another style.

    Example:
        >>> with wording("cli"):
        ...     option("missing", "zero")
        '--missing zero'
    """
    if style not in ("python", "cli"):
        raise ValueError(f"wording: style must be 'python' or 'cli', got {style!r}.")
    tokens = _STYLE.set(style), _OPTIONS.set(frozenset(options))
    try:
        yield
    finally:
        _STYLE.reset(tokens[0])
        _OPTIONS.reset(tokens[1])


def at_command_line() -> bool:
    return _STYLE.get() == "cli"


def caller(name: str) -> str:
    """The subject of an error message: the function, or "the table" at the command line."""
    return "the table" if at_command_line() else name


def either(python: str, cli: str) -> str:
    """The first text for a Python reader, the second for a reader at the command line."""
    return cli if at_command_line() else python


def in_words(message: str) -> str:
    """A message in the form for the command line.

    Example:
        >>> with wording("cli", ["at_least", "k"]):
        ...     in_words("quota_topk: at_least must be a whole number, got k=3")
        '--at-least must be a whole number, got --k 3'
    """
    message = _FUNCTION.sub("", message)
    for said, translated in OF_THE_LIBRARY.items():
        message = message.replace(said, translated)
    message = re.sub(r"^panel(?= must)|^the table: (df|the table)(?= must)", "the table", message)
    message = re.sub(r"^the table: path(?= must)", "the file", message)

    def flag(name: str) -> str:
        return "--" + name.replace("_", "-")

    def assigned(found: re.Match[str]) -> str:
        value = found[2]
        return flag(found[1]) + (f" {value}" if value else "")

    def alone(found: re.Match[str]) -> str:
        return flag(found[0])

    options = _OPTIONS.get()
    for names, before, after, words in (
        (options - _NOUNS, "^", "(?= must)", alone),
        (options, r"(?<![\w.(-])", r"=(?!=)([\w.%+-]*\w)?", assigned),
        ({name for name in options if "_" in name}, r"(?<![\w.'-])", r"(?![\w(=])", alone),
    ):
        if names:
            either_of = "|".join(sorted(names, key=len, reverse=True))
            message = re.sub(f"{before}({either_of}){after}", words, message)
    return message


def option(name: str, value: Any = None) -> str:
    """An argument with its value, as the reader would write it; without a value, its name."""
    flag = "--" + name.replace("_", "-")
    if value is None:
        return flag if at_command_line() else name
    if isinstance(value, Mapping):
        if at_command_line():
            return " ".join(f"{flag} {_interval(text, ends)}" for text, ends in value.items())
        return f"{name}={{{', '.join(f'{text!r}: {_ends(ends)}' for text, ends in value.items())}}}"
    if at_command_line():
        text = str(value)
        return f"{flag} {text}" if text.isalnum() else f"{flag} '{text}'"
    return f'{name}="{value}"' if isinstance(value, str) else f"{name}={value!r}"


def _interval(text: str, ends: tuple[Any, Any]) -> str:
    return f"'{text}={ends[0]}-{ends[1]}'"


def _ends(ends: tuple[Any, Any]) -> str:
    return f"({ends[0]}, {ends[1]})"
