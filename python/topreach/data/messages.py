"""Error messages for two readers: one who writes Python, one at the command line.

A message that says how to mend something names an argument, `missing="zero"`, or an option,
`--missing zero`. Which of the two is a context variable, so that the readers need not pass it on.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Mapping
from typing import Any

_STYLE: contextvars.ContextVar[str] = contextvars.ContextVar("topreach_wording", default="python")


@contextlib.contextmanager
def wording(style: str) -> Iterator[None]:
    """Within the block, messages speak to a "python" or a "cli" reader.

    Raises:
        ValueError: another style.

    Example:
        >>> with wording("cli"):
        ...     option("missing", "zero")
        '--missing zero'
    """
    if style not in ("python", "cli"):
        raise ValueError(f"wording: style must be 'python' or 'cli', got {style!r}.")
    token = _STYLE.set(style)
    try:
        yield
    finally:
        _STYLE.reset(token)


def at_command_line() -> bool:
    return _STYLE.get() == "cli"


def caller(name: str) -> str:
    """Who refuses: the function, or at the command line the table."""
    return "the table" if at_command_line() else name


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
