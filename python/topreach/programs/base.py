"""The forms in which a program may be given."""

from __future__ import annotations

import numbers

from topreach._C import Program, TopK


def as_program(program: Program | int, caller: str = "as_program") -> Program:
    """The program itself, or `TopK(k)` for a whole number k.

    Args:
        program: a `Program`, or K >= 1.
        caller: the function to name in an error.

    Raises:
        TypeError: neither; True and False are not numbers.
        ValueError: K below 1.

    Example:
        >>> as_program(3)
        TopK(k=3)
    """
    if isinstance(program, Program):
        return program
    if isinstance(program, bool) or not isinstance(program, numbers.Integral):
        raise TypeError(
            f"{caller}: k must be a whole number >= 1 or a Program, got {program!r}. For the 100 "
            "best sites give k=100."
        )
    if program < 1:
        raise ValueError(f"{caller}: k must be a whole number >= 1, got {program!r}.")
    return TopK(int(program))
