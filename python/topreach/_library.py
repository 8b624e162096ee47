"""Loads libtopreach, after checking that it was built against the torch that is running.

Loading a library built against another torch fails with "undefined symbol", or worse. So the build
records torch's version in a small file, which is compared first.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

PACKAGE = Path(__file__).resolve().parent
_REBUILD = (
    "python -m pip install --no-build-isolation --force-reinstall --no-deps <topreach's source>"
)


def _library_path() -> Path:
    suffix = ".dylib" if sys.platform == "darwin" else ".so"
    return PACKAGE / "lib" / f"libtopreach{suffix}"


def build_info(package: Path = PACKAGE) -> dict[str, str]:
    """What the library was built as: ``version``, ``torch`` and ``cuda`` ("" for a CPU build)."""
    path = package / "share" / "topreach" / "build_info.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ImportError(
            "topreach: the compiled library is missing: this is a source tree that was not built. "
            "Run `make setup` in it, or: " + _REBUILD
        ) from None


def check_torch(built: str, running: str) -> None:
    """Raise ImportError unless both torch versions agree up to the minor version and build tag."""

    def key(version: str) -> tuple[str, ...]:
        return tuple(version.split("+")[0].split(".")[:2])

    if key(built) != key(running):
        raise ImportError(
            f"topreach: was built against torch {built}, but torch {running} is running. "
            f"Rebuild it against this torch: {_REBUILD}"
        )


def load() -> dict[str, str]:
    """Load the library once and return its :func:`build_info`."""
    info = build_info()
    check_torch(info["torch"], torch.__version__)
    try:
        torch.ops.load_library(str(_library_path()))
    except OSError as error:
        raise ImportError(
            f"topreach: the compiled library could not be loaded ({error}). It was built against "
            f"torch {info['torch']}; torch {torch.__version__} is running. Rebuild: {_REBUILD}"
        ) from error
    return info
