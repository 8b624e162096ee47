"""Checks of arguments that Python can make before an operator is called."""

from __future__ import annotations

import numbers
import operator
from typing import Any

import torch
from torch import Tensor


def as_tensor_argument(function: str, name: str, value: Any) -> Tensor:
    """``value`` if it is a tensor; a TypeError that names it otherwise."""
    if isinstance(value, Tensor):
        return value
    raise TypeError(
        f"{function}: {name} must be a torch.Tensor, got {_type_of(value)}; "
        f"convert with torch.as_tensor({name})"
    )


def as_integer(function: str, name: str, value: Any) -> int:
    """``value`` as an int: Python's and NumPy's integers, but not a bool or a float."""
    if isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool):
        return value  # type: ignore[return-value]  # a SymInt stands for an int in a traced graph
    if not isinstance(value, (bool, float, Tensor)) and type(value).__name__ != "bool_":
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"{function}: {name} must be an integer, got {_shown(value)}")


def as_number(function: str, name: str, value: Any) -> float:
    """``value`` as a float: Python's and NumPy's numbers, but not a bool."""
    if isinstance(value, (float, torch.SymFloat)):
        return value  # type: ignore[return-value]  # a SymFloat stands for a float likewise
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    raise TypeError(f"{function}: {name} must be a number, got {_shown(value)}")


def as_name(function: str, name: str, value: Any) -> str:
    """``value`` if it is a string."""
    if isinstance(value, str):
        return value
    raise TypeError(f"{function}: {name} must be a string, got {_shown(value)}")


def as_row_k(function: str, value: Any) -> tuple[int, Tensor | None]:
    """(k, None) of an integer, (0, k) of a tensor with a k for each row."""
    if not isinstance(value, Tensor):
        if isinstance(value, (list, tuple)) or type(value).__name__ == "ndarray":
            raise TypeError(
                f"{function}: k must be an integer or a tensor of integers [...], "
                f"got {_type_of(value)}; convert with torch.as_tensor(k)"
            )
        return as_integer(function, "k", value), None
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise TypeError(
            f"{function}: k must be an integer or a tensor of integers, got {value.dtype}"
        )
    return 0, value


def as_row_sigma(function: str, value: Any) -> tuple[float, Tensor | None]:
    """(sigma, None) of a number, (0, sigma) of a tensor with a sigma for each row."""
    if not isinstance(value, Tensor):
        if isinstance(value, (list, tuple)) or type(value).__name__ == "ndarray":
            raise TypeError(
                f"{function}: sigma must be a number or a tensor [...], "
                f"got {_type_of(value)}; convert with torch.as_tensor(sigma)"
            )
        return as_number(function, "sigma", value), None
    if not value.is_floating_point():
        raise TypeError(
            f"{function}: sigma must be a number or a floating-point tensor, got {value.dtype}"
        )
    return 0.0, value


def _type_of(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _shown(value: Any) -> str:
    return f"{value!r} ({type(value).__name__})"
